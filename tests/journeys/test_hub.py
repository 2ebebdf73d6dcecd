"""A ModelScope id, through ModelScope's own client, from a hub on this machine that serves the small checkpoint."""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlparse

import pytest
from oracle import ORACLE

import zsc_utils as zsc
from zsc_utils import memory

NAME = "damo/nlp_structbert_zero-shot-classification_chinese-base"


class Hub(BaseHTTPRequestHandler):
    """The two answers of ModelScope's hub that a download needs: the list of files, and a file."""

    def do_GET(self):
        url = urlparse(self.path)
        self.server.asked.append(self.path)
        if NAME not in url.path:
            return self.answer(404, json.dumps({"Code": 404, "Success": False, "Message": "no such model"}).encode())
        if url.path.endswith("/repo/files"):
            return self.answer(200, json.dumps({"Code": 200, "Success": True, "Data": {"Files": listing()}}).encode())
        return self.answer(200, (ORACLE / dict(parse_qsl(url.query))["FilePath"]).read_bytes())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep the test's output clean."""


def listing():
    return [
        {"Path": f.name, "Name": f.name, "Type": "blob", "Size": f.stat().st_size, "Revision": "1",
         "Sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
        for f in ORACLE.iterdir()
    ]  # fmt: skip


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def load(hub, tmp_path, monkeypatch):
    """A function that loads a name in a new process, which knows only this hub and keeps everything in `tmp_path`.

    Returns the folder's name, the id of entailment, and what was written to stderr.
    """
    for name, place in (("HOME", ""), ("XDG_CACHE_HOME", "cache"), ("MODELSCOPE_CACHE", "modelscope")):
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    told = tmp_path / "stderr"

    def loaded(name):
        with told.open("wb") as file:
            os.dup2(file.fileno(), 2)
        ckpt = zsc.load(name)
        return ckpt.folder.name, ckpt.entailment_id, told.read_text(encoding="utf-8")

    return lambda name: memory.process_peak(loaded, name).result


def test_an_id_is_downloaded_with_progress_and_the_next_load_asks_nobody(hub, load):
    *found, told = load(NAME)
    assert found == ["hub--" + NAME.replace("/", "--"), 0]
    assert "pytorch_model.bin" in told and "file/s" in told  # the client's progress bars
    assert hub.asked
    hub.asked.clear()
    *again, _ = load(NAME)
    assert again == found and hub.asked == []


def test_an_id_that_the_hub_does_not_know(hub, load):
    with pytest.raises(zsc.CheckpointError) as error:
        load("damo/no-such-model")
    said = str(error.value)
    assert hub.asked and "checkpoint 'damo/no-such-model' is no folder here" in said
    assert '"mini"' in said and '"base-shape"' in said
