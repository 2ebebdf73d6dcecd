"""What is promised exactly holds at every level to which this processor can be lowered, with 1, 2 and 4 threads.

A level is a child process: oneDNN and torch's kernels choose their instructions once, from these variables, which lower
and never raise. Levels that this processor lacks are skipped by name.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from oracle import HELPERS

from zsc_utils import offloading

# name: (oneDNN's level, that of torch's kernels, what the processor must have)
LEVELS = {
    "as it is": (None, None, ()),
    "AVX-512 with VNNI": ("AVX512_CORE_VNNI", "avx512", ("avx512_f", "avx512_vnni")),
    "AVX-512": ("AVX512_CORE", "avx512", ("avx512_f",)),
    "AVX2": ("AVX2", "avx2", ("avx2",)),
    "SSE4.1": ("SSE41", "default", ("sse4_1",)),
}
THREADS = ["1", "2", "4"]
every_level = pytest.mark.parametrize("level", LEVELS)
any_threads = pytest.mark.parametrize("threads", THREADS)


def has(instructions):
    return torch.cpu.get_capabilities().get(instructions, False)


@pytest.fixture(scope="module")
def found():
    """What tests/helpers/levels.py finds at a level, {level: ...}: each is asked once, when the first test wants it."""
    offloading.stream_layers("base-shape", dtype=torch.int8)  # stored in int8, once for all levels
    offloading.stream_layers("mini", dtype=torch.int8)
    answers = {}

    def at(level):
        onednn, aten, needs = LEVELS[level]
        if lacks := [name for name in needs if not has(name)]:
            pytest.skip(f"this processor has no {', '.join(lacks)}: {level} cannot be tried here")
        if level not in answers:
            lowered = {} if onednn is None else {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten}
            done = subprocess.run(
                [sys.executable, HELPERS / "levels.py"],
                env=os.environ | lowered, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            answers[level] = json.loads(done.stdout.splitlines()[-1])
        return answers[level]

    return at


@every_level
@any_threads
def test_bytes_are_predicted_exactly(found, level, threads):
    measured = found(level)["threads"][threads]
    for predicted, counted in [*measured["own"], *measured["fp32"]]:
        assert predicted == counted
    for engine, pairs in measured["int8"].items():
        assert all(predicted == counted for predicted, counted in pairs), (engine, pairs)


@every_level
def test_products_of_int8_are_exact(found, level):
    answer = found(level)
    assert answer["engines"] == ["widened"] or answer["products"]
    for engine, worst in answer["products"].items():
        assert worst < 1e-6, (engine, answer["range"])


@every_level
@any_threads
def test_scores_are_the_same_on_every_level(found, level, threads):
    wanted = found("as it is")["threads"]["2"]["scores"]
    measured = found(level)["threads"][threads]["scores"]
    assert furthest(wanted, measured) < 1e-5
    assert furthest([[0.25] * 4] * len(measured), measured) > 0.5  # or any two would be equal


@every_level
@any_threads
def test_int8_agrees_with_fp32(found, level, threads):
    measured = found(level)["threads"][threads]
    best = [[row.index(max(row)) for row in measured[kind]] for kind in ("scores", "int8 scores")]
    assert sum(a == b for a, b in zip(*best)) >= len(best[0]) - 1


@every_level
def test_int8_streamed_gives_the_scores_of_int8_in_memory(found, level):
    assert furthest(found(level)["threads"]["2"]["int8 scores"], found(level)["int8 streamed"]) < 1e-5


@every_level
def test_the_smallest_budgets_are_kept(found, level):
    for budget, grown in found(level)["budgets"]:
        assert 0 < grown <= budget < 80e6


def furthest(scores, others):
    return max(abs(a - b) for one, other in zip(scores, others, strict=True) for a, b in zip(one, other, strict=True))


def test_levels_differ_in_the_range_of_int8(found):
    """That lowering does something: AVX2 has 7 bits for activations, VNNI 8; without a difference it tests nothing."""
    if not has("avx512_vnni"):
        pytest.skip("this processor has no avx512_vnni: it is on the lower level itself")
    assert [found(level)["range"] for level in ("AVX2", "AVX-512 with VNNI")] == [63, 127]
