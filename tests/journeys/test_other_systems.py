"""Loading, classifying and planning work where /proc, glibc, oneDNN or CUDA are missing; MPS is never chosen by itself.

Each is hidden from a process of its own (tests/helpers/hidden.py).
"""

import functools
import json
import os
import subprocess
import sys

import pytest
from oracle import HELPERS

HIDDEN = ["proc and glibc", "onednn, with a GPU that is MPS"]


@functools.cache
def found(what):
    command = [sys.executable, HELPERS / "hidden.py", what]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def furthest(scores, others):
    return max(abs(a - b) for one, other in zip(scores, others) for a, b in zip(one, other))


@pytest.mark.parametrize("what", HIDDEN)
def test_scores_are_the_same(what):
    wanted, answer = found("nothing")["scores"], found(what)["scores"]
    for way in ("fp32", "budget"):
        assert furthest(answer[way], wanted["fp32"]) < 1e-5
    assert furthest(answer["int8"], wanted["fp32"]) < 0.1
    assert furthest(answer["int8"], answer["int8, streamed"]) < 1e-5


@pytest.mark.parametrize("what", HIDDEN)
def test_a_plan_is_made_and_the_cpu_is_where_it_runs(what):
    answer = found(what)
    assert answer["devices"] == ["cpu"] and "chosen:" in answer["plan"]
    assert (answer["measured"] is None) == (what == "proc and glibc")


def test_what_needs_linux_says_so():
    words = "process_peak reads the kernel's figures in /proc, which only Linux has"
    assert found("proc and glibc")["refused"] == words


def test_without_onednn_int8_rows_are_multiplied_in_fp32():
    assert found("onednn, with a GPU that is MPS")["engine"] == "widened"
