"""A classifier in threads, beside an event loop, let go and made again; a command that is interrupted or killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow
import pytest
from limits import no_file_larger_than
from oracle import ORACLE
from pyarrow import parquet
from results import same

import zsc_utils as zsc
from zsc_utils import _results, inference

ROOT = Path(__file__).parents[2]
LABELS = ["财经", "体育"]
TEXTS = [f"第{i}条{'央行利率国足比赛'[: 2 + i % 7]}" for i in range(24)]
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")


# ------------------------------------------------------------------------------------------------------------- threads


def test_memory_that_runs_out_in_one_of_eight_threads_lowers_the_budget_once(oracle, monkeypatch):
    classify, forward, fails = zsc.ZeroShotClassifier(oracle), inference.logits, iter([True])
    wanted, limit = classify(TEXTS, LABELS), classify.budget.max_tokens
    tokens = []

    def short_of_memory(model, ids, types, groups, **options):
        if len(ids) > 100 and next(fails, False):
            tokens.append(len(ids))
            raise MemoryError
        return forward(model, ids, types, groups, **options)

    monkeypatch.setattr(inference, "logits", short_of_memory)
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, classify(TEXTS[n:], LABELS))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(same(found[number], wanted[number:]) for number in range(8))
    assert classify.budget.max_tokens == tokens[0] // 2 < limit


def test_an_event_loop_goes_on_while_a_thread_classifies(mini):
    classify = zsc.ZeroShotClassifier(mini)
    gaps = []

    async def ticker():
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - last)
            last += gaps[-1]

    async def work():
        ticks = asyncio.create_task(ticker())
        await asyncio.sleep(0.01)
        results = await asyncio.to_thread(classify, TEXTS * 2, LABELS)
        ticks.cancel()
        return results

    assert same(asyncio.run(work()), classify(TEXTS * 2, LABELS))
    assert max(gaps) < sum(gaps) / 3  # a loop that is held up has one gap as long as all the work


# ----------------------------------------------------------------------------------------------------- made and let go


LET_GO = """
import gc, json, sys
import zsc_utils as zsc, zsc_utils.torch_engine
from zsc_utils._process import trim_heap

def in_use():
    # anonymous bytes, without what Python or glibc have free
    gc.collect()
    trim_heap()
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

name, options, texts, labels = json.loads(sys.argv[1])
before, growth = in_use(), []
for _ in range(5):
    classify = zsc.ZeroShotClassifier(name, **options)
    list(classify.stream(texts, labels))
    growth.append(in_use() - before)
    del classify
print(json.dumps([*growth, in_use() - before]))
"""


@LINUX
@pytest.mark.parametrize("name, options", [("mini", {}), ("base-shape", {"offload": True})], ids=["whole", "streamed"])
def test_five_classifiers_one_after_the_other_take_the_memory_of_one(name, options):
    words = [sys.executable, "-c", LET_GO, json.dumps([name, options, TEXTS[:2], LABELS])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    *growth, left = json.loads(done.stdout)
    assert growth[4] - growth[0] < 0.05 * growth[0]
    assert left < 0.15 * growth[0]  # and the last one is let go as well


# ------------------------------------------------------------------------------------------------------------ Ctrl-C


def command(*words, **streams):
    """A `python -m zsc_utils classify` of its own that reads standard input."""
    words = [sys.executable, "-m", "zsc_utils", "classify", "-", "--labels", ",".join(LABELS), *map(str, words)]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | streams
    return subprocess.Popen([*words, "--checkpoint", str(ORACLE), "--quiet"], cwd=ROOT, **streams)


def wait_until(true, child):
    deadline = time.monotonic() + 120  # for importing torch, too
    while not true():
        assert child.poll() is None and time.monotonic() < deadline, "the child does not get on"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path, kind):
    output = tmp_path / f"results.{kind}"
    with command("--output", output) as child:
        child.stdin.write("央行\n国足\n".encode() * 100)
        child.stdin.flush()
        wait_until(lambda: any(tmp_path.iterdir()), child)  # it is opened when the first texts are read
        child.send_signal(signal.SIGINT)
        written, told = child.stdout.read(), child.stderr.read().decode()
    assert child.returncode == 130 and told == "interrupted\n" and written == b""
    if kind != "jsonl":
        assert list(tmp_path.iterdir()) == []
        return
    lines = output.read_bytes().split(b"\n")
    assert lines.pop() == b"" and [json.loads(line)["line"] for line in lines] == list(range(1, len(lines) + 1))


def test_ctrl_c_during_a_stream_ends_it_and_the_classifier_still_works(mini):
    for options in ({}, {"offload": True}):
        classify = zsc.ZeroShotClassifier("mini" if options else mini, **options)
        wanted = classify(TEXTS, LABELS)
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(10_000):
                list(classify.stream(TEXTS * 5, LABELS))
        timer.join()
        assert classify(TEXTS, LABELS) == wanted


# ----------------------------------------------------------------------------------------- full disks, killed processes


def test_a_full_disk_as_standard_output_is_one_message(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with open(full, "wb") as stdout, command(stdout=stdout) as child:
        _, told = child.communicate("央行\n".encode() * 3)
    assert child.returncode == 1 and told.count(b"\n") == 1 and b"No space left on device" in told


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    output, other = tmp_path / "结果[1].csv", tmp_path / "结果1.csv.1.tmp"
    with command("--output", output) as child:
        child.stdin.write("央行\n国足\n".encode() * 100)
        child.stdin.flush()
        wait_until(lambda: list(tmp_path.glob("*.tmp")), child)
        os.kill(child.pid, signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert left.name == f"{output.name}.{child.pid}.tmp"
    running = tmp_path / f"{output.name}.{os.getpid()}.tmp"
    for kept in (running, other, tmp_path / f"{output.name}.old.tmp"):
        kept.touch()
    with command("--output", output) as child:
        _, told = child.communicate("央行\n国足\n".encode())
    assert child.returncode == 0, told
    assert sorted(tmp_path.iterdir()) == sorted([output, running, other, tmp_path / f"{output.name}.old.tmp"])


def test_unfinished_files_of_other_users_processes_are_kept(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    output = tmp_path / "results.csv"
    (tmp_path / "results.csv.7.tmp").touch()
    (tmp_path / f"results.csv.{2**70}.tmp").touch()
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda number, sign: refuse() if number == 7 else kill(number, sign))
    _results.remove_unfinished(output)
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv.7.tmp"]


# ------------------------------------------------------------------------------------------------------ Parquet's end


def some(number):
    return {"position": number, "sequence": "央行", "labels": LABELS, "scores": [0.5, 0.5]}


@pytest.mark.parametrize("error", [ValueError("no text"), KeyboardInterrupt()], ids=repr)
def test_parquet_after_an_error_is_closed_and_the_error_is_told(tmp_path, error):
    output = tmp_path / "results.parquet"
    with (
        pytest.raises(type(error)),
        _results.whole_file(output, tmp_path) as target,
        _results.ParquetFile(target) as results,
    ):
        results.write(some(0))
        raise error
    assert list(tmp_path.iterdir()) == [] and not results.writer.is_open


def test_parquet_that_finds_no_room_tells_that_and_not_what_closing_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(_results, "TOGETHER", 4)
    output = tmp_path / "results.parquet"
    with (
        no_file_larger_than(200),
        pytest.raises(OSError, match="File too large"),
        _results.whole_file(output, tmp_path) as target,
        _results.ParquetFile(target) as results,
    ):
        for number in range(100_000):
            results.write(some(number))
    assert list(tmp_path.iterdir()) == [] and not results.writer.is_open


def test_parquet_without_an_error_holds_all_rows(tmp_path):
    output = tmp_path / "results.parquet"
    with _results.whole_file(output, tmp_path) as target, _results.ParquetFile(target) as results:
        for number in range(3):
            results.write(some(number))
    assert parquet.read_table(output)["position"].to_pylist() == [0, 1, 2]
    assert parquet.read_table(output).schema.field("scores").type == pyarrow.list_(pyarrow.float64())
