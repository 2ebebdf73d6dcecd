"""The smallest container in which each way to classify works, everything counted, and how fast it is there.

pip install -e '.[bench]', then python benchmarks/containers.py [--output FOLDER] [--quick]. The workload of peers.py:
24 texts x 9 labels on base-shape. Each way runs in a fresh process, first without a limit, then in memory control
groups of ever fewer bytes, each time with a cold page cache: until it is killed, fails, or is not done in five times
its own time. The kernel charges a group for Python, libraries, weights and cached pages. Needs Linux, and the right to
make control groups (version 1 or 2) and to drop the page cache. `--quick`: fewer limits.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import machine
from batching import workload
from report import PEERS
from report import containers as table
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import _container

LIMITS_MB = (1024, 768, 512, 384, 256, 192, 160, 128, 112)
QUICK_LIMITS_MB = (768, 512, 384, 256, 192, 128, 112)
PATIENCE = 5  # times the seconds without a limit, then it counts as not done
BASELINE = "transformers pipeline"
WAYS = {  # name: (function of contenders.py, its options)
    BASELINE: ("by_pipeline", {}),
    "transformers pipeline, batch_size=8": ("by_pipeline", {"batch_size": 8}),
    "CrossEncoder": ("by_cross_encoder", {}),
    "accelerate, layers on disk": ("by_accelerate", {}),
    "ONNX Runtime, int8": ("by_onnx", {}),
    "ONNX Runtime, int8, tuned": ("by_tuned_onnx", {}),
    "ours in 150 MB": ("by_us", {"memory_budget": "150MB"}),
    "ours, int8 in 55 MB": ("by_us", {"memory_budget": "55MB", "precision": "int8"}),
    "ours without torch, fp32": ("by_export", {"precision": "fp32", "offload": True, "max_tokens": 512}),
    "ours without torch, int8": ("by_export", {"precision": "int8"}),
    "ours without torch, int8 streamed": ("by_export", {"precision": "int8", "memory_budget": "100MB"}),
}


@contextmanager
def group(limit):
    """A control group with a limit of that many bytes: yields its folder. Nothing in it may use swap."""
    second = (_container.GROUPS / "cgroup.controllers").exists()
    parent = _container.GROUPS if second else _container.GROUPS / "memory"
    folder = parent / f"containers-{os.getpid()}"
    folder.mkdir()
    try:
        limits = ("memory.max",) if second else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        for name in limits:
            if (folder / name).exists():
                (folder / name).write_text(str(limit))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")
        yield folder
    finally:
        for _ in range(50):  # a killed process leaves its group a little later
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def run(way, folder, work, procs="", patience=None):
    """Run a way in a fresh process with a cold cache; return what it printed, or "killed", "failed" or "not done"."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    script = Path(__file__).parent / "contenders.py"
    command = [sys.executable, script, json.dumps(way), folder, work, procs, str(time.time())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        return "not done"
    if done.returncode:
        return "killed" if done.returncode == -9 else "failed"
    return json.loads(done.stdout.splitlines()[-1])


def in_containers(way, folder, work, limits):
    """The record of a way: without a limit, and in ever smaller containers until it does not work."""
    alone = run(way, folder, work)
    if isinstance(alone, str):
        raise RuntimeError(f"{way} {alone} without a limit")
    found = alone | {"containers": {}}
    for limit in limits:
        with group(limit * 10**6) as place:
            patience = PATIENCE * (alone["first"] + alone["seconds"])
            result = run(way, folder, work, str(place / "cgroup.procs"), patience)
        found["containers"][str(limit)] = result
        if isinstance(result, str):
            break
    return found


def main():
    arguments = machine.asked("containers", __doc__)
    limits = QUICK_LIMITS_MB if arguments.quick else LIMITS_MB
    result = {name: version(name.replace("_", "-")) for name in PEERS} | {"turns": 1, "limits": limits, "ways": {}}
    from peers import prepared  # here: it imports what only the two benchmarks need

    with tempfile.TemporaryDirectory() as scratch:
        folder, work = prepared(zsc.load("base-shape"), Path(scratch) / "base-shape"), Path(scratch) / "work.json"
        work.write_text(json.dumps(workload()), encoding="utf-8")
        for name, way in tqdm(WAYS.items()):
            result["ways"][name] = in_containers(way, folder, work, limits)
            tqdm.write(f"{name}: {result['ways'][name]}")
            made = machine.record("containers", result, arguments.output)  # each time: all of them take long
    print("\n".join(table(made)))


if __name__ == "__main__":
    main()
