"""A ModelScope id, through ModelScope's own client, from a hub on this machine that serves the small checkpoint."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlparse

import pytest
from conftest import ORACLE

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


def load_from(hub, folder, name):
    """zsc.load in a process that knows only this hub and keeps everything in `folder`."""
    places = {"HOME": folder, "XDG_CACHE_HOME": folder / "cache", "MODELSCOPE_CACHE": folder / "modelscope"}
    environment = os.environ | {k: str(v) for k, v in places.items()}
    environment |= {"MODELSCOPE_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "NO_PROXY": "127.0.0.1"}
    code = f"import zsc_utils as zsc; ckpt = zsc.load({name!r}); print(ckpt.folder.name, ckpt.entailment_id)"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_an_id_is_downloaded_with_progress_and_the_next_load_asks_nobody(hub, tmp_path):
    done = load_from(hub, tmp_path, NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hub--" + NAME.replace("/", "--"), "0"]
    assert "pytorch_model.bin" in done.stderr and "file/s" in done.stderr  # the client's progress bars
    hub.asked.clear()
    assert load_from(hub, tmp_path, NAME).stdout == done.stdout and hub.asked == []


def test_an_id_that_the_hub_does_not_know(hub, tmp_path):
    done = load_from(hub, tmp_path, "damo/no-such-model")
    assert done.returncode != 0
    assert "CheckpointError: checkpoint 'damo/no-such-model' is no folder here" in done.stderr
    assert '"mini"' in done.stderr and '"base-shape"' in done.stderr
