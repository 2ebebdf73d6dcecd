"""The limits of a container: read as control groups of both versions write them, followed by threads and budgets."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from oracle import ORACLE

import zsc_utils as zsc
from zsc_utils import _container

GB = 10**9
MEMORY = Path("/sys/fs/cgroup/memory")
MAY_LIMIT = os.access(MEMORY, os.W_OK) and (MEMORY / "memory.limit_in_bytes").exists()


def written(folder, **files):
    """A folder with such files, their names with a dot for each double underscore."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    return folder


def version_1(root, path="/own", **files):
    (root / "proc").write_text(f"7:cpu,cpuacct:{path}\n4:memory:{path}\n0::/\n")
    for controller in ("memory", "cpu"):
        own = {name: text for name, text in files.items() if name.startswith(controller)}
        written(root / controller)
        (root / controller / "cgroup.procs").touch()
        written(root / controller / path.strip("/"), **own)
    return {"groups": root, "own": root / "proc"}


def version_2(root, path="/own", **files):
    (root / "proc").write_text(f"0::{path}\n")
    written(root, cgroup__controllers="cpu memory")
    written(root / path.strip("/"), **files)
    return {"groups": root, "own": root / "proc"}


V1 = {"memory__limit_in_bytes": GB, "memory__usage_in_bytes": 400_000_000,
      "memory__stat": "cache 300\ntotal_inactive_file 100000000\n", "cpu__cfs_quota_us": 150_000,
      "cpu__cfs_period_us": 100_000}  # fmt: skip
V2 = {"memory__max": GB, "memory__current": 400_000_000, "memory__stat": "file 9\ninactive_file 100000000",
      "cpu__max": "150000 100000"}  # fmt: skip


@pytest.mark.parametrize("make, files", [(version_1, V1), (version_2, V2)], ids=["version 1", "version 2"])
def test_limits_are_read_and_droppable_cache_counts_as_free(tmp_path, make, files):
    where = make(tmp_path, **files)
    assert _container.memory_left(**where) == GB - 300_000_000
    assert _container.cpu_quota(**where) == 1.5
    next(tmp_path.rglob("memory.stat")).unlink()  # then nothing counts as droppable
    assert _container.memory_left(**where) == GB - 400_000_000


@pytest.mark.parametrize("make, files", [
    (version_1, V1 | {"memory__limit_in_bytes": 9223372036854771712, "cpu__cfs_quota_us": -1}),
    (version_2, V2 | {"memory__max": "max", "cpu__max": "max 100000"}),
    (version_1, {}), (version_2, {}),
])  # fmt: skip
def test_where_nothing_is_limited_there_is_no_limit(tmp_path, make, files):
    where = make(tmp_path, **files)
    found = _container.memory_left(**where), _container.cpu_quota(**where)
    assert found == (None, None)


def test_elsewhere_there_is_no_limit(tmp_path):
    where = {"groups": tmp_path / "none", "own": tmp_path / "none"}
    assert _container.memory_left(**where) is _container.cpu_quota(**where) is None


@pytest.mark.parametrize("make, files, limit", [
    (version_1, V1, "memory.limit_in_bytes"), (version_2, V2, "memory.max"),
], ids=["version 1", "version 2"])  # fmt: skip
def test_of_groups_within_groups_the_narrowest_decides(tmp_path, make, files, limit):
    where = make(tmp_path, path="/outer/own", **files)
    outer = next(tmp_path.rglob("own/memory.stat")).parents[1]
    (outer / limit).write_text("700000000")
    for usage in ("memory.current", "memory.usage_in_bytes"):
        (outer / usage).write_text("650000000")
    assert _container.memory_left(**where) == 50_000_000


def test_inside_a_container_the_root_is_the_own_group(tmp_path):
    """There /proc/self/cgroup may name the path that the host sees."""
    where = version_1(tmp_path, path="/", **V1)
    where["own"].write_text("4:memory:/docker/0123abcd\n3:cpu,cpuacct:/docker/0123abcd\n")
    assert _container.memory_left(**where) == GB - 300_000_000 and _container.cpu_quota(**where) == 1.5


# ------------------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("quota, before, torch_first, after", [
    (1.0, None, False, "1"), (0.5, None, False, "1"), (1.0, "3", False, "3"), (None, None, False, None),
    (1000.0, None, False, None), (1.0, None, True, None),
])  # fmt: skip
def test_threads_follow_the_quota_unless_somebody_has_set_them(monkeypatch, quota, before, torch_first, after):
    monkeypatch.setattr(_container, "cpu_quota", lambda: quota)
    monkeypatch.setattr(_container.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(_container.sys, "modules", {"torch": None} if torch_first else {})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    _container.follow_cpu_quota()
    assert os.environ.get("OMP_NUM_THREADS") == after
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


# -------------------------------------------------------------------------------------------------------------- budget


def test_the_budget_of_a_container_is_what_its_limit_leaves(monkeypatch):
    monkeypatch.setattr(_container, "memory_left", lambda: 150_000_000)
    classify = zsc.ZeroShotClassifier(ORACLE, memory_budget="container")
    assert classify.plan.budget == 150_000_000 - _container.LIBRARY_PAGES_BYTES
    assert classify("央行", ["财经", "体育"])["labels"] and "the whole process" in str(classify.plan)
    # a test process has held more before: it may not have grown
    assert classify.plan.whole > max(50_000_000, classify.plan.measured) and classify.plan.measured >= 0


@pytest.mark.parametrize("left, message", [(None, "nothing limits the memory"), (1000, "the smallest that works is")])
def test_a_container_without_a_limit_or_without_room_is_told(monkeypatch, left, message):
    monkeypatch.setattr(_container, "memory_left", lambda: left)
    with pytest.raises(ValueError, match=message):
        zsc.ZeroShotClassifier("base-shape", memory_budget="container")


IN_CONTAINER = """
import json, os, sys
open(os.path.join(sys.argv[1], "cgroup.procs"), "w").write(str(os.getpid()))
import zsc_utils as zsc
classify = zsc.ZeroShotClassifier(sys.argv[2], memory_budget="container")
found = classify(["央行下调利率"] * 9, ["财经", "体育"])
print(json.dumps([classify.plan.budget, classify.plan.measured, len(found)]))
"""


@pytest.mark.skipif(not MAY_LIMIT, reason="no control group of version 1 may be made here")
def test_in_a_real_container_the_plan_keeps_within_its_limit():
    group = MEMORY / f"zsc-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(600_000_000))
        done = subprocess.run(
            [sys.executable, "-c", IN_CONTAINER, group, ORACLE], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        budget, measured, results = json.loads(done.stdout)
        assert 0 < budget < 600_000_000 and measured <= budget + _container.LIBRARY_PAGES_BYTES and results == 9
    finally:
        group.rmdir()
