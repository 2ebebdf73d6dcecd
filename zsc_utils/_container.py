"""What a container allows: the limits of control groups, version 1 and 2, on memory and on processor time.

Only Linux has control groups. Elsewhere, and where none limits this process, the functions return None.
"""

import math
import os
import sys
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")  # where control groups are mounted
OWN = Path("/proc/self/cgroup")  # the groups of this process
CONTAINER = "container"  # the memory_budget that a container's limit leaves to this process
LIBRARY_PAGES_BYTES = 20_000_000  # pages that a new process touches for the first time, beyond a plan
NO_LIMIT = 2**60  # version 1 writes a number near 2**63 where there is no limit


def memory_left(groups: Path = GROUPS, own: Path = OWN) -> int | None:
    """Return the bytes by which the container's processes may still grow; None without a limit.

    Page cache that the kernel can drop at once (inactive file pages) counts as free. Of groups within groups, the one
    that leaves least decides.
    """
    return smallest(left_in(folder) for folder in folders("memory", groups, own))


def memory_limit(groups: Path = GROUPS, own: Path = OWN) -> int | None:
    """Return the bytes that the container's processes may hold together, cached pages included; None without a limit.

    Of groups within groups, the smallest limit counts.
    """
    return smallest(limit_in(folder) for folder in folders("memory", groups, own))


def container_budget() -> int:
    """Return the bytes by which the container's limit lets this process grow; ValueError if there is no limit.

    Library pages that a new process touches for the first time come on top of a plan, so they are subtracted.
    """
    left = memory_left()
    if left is None:
        raise ValueError(f"memory_budget {CONTAINER!r}: nothing limits the memory of this process here; give a size")
    return max(1, left - LIBRARY_PAGES_BYTES)


def cpu_quota(groups: Path = GROUPS, own: Path = OWN) -> float | None:
    """Return the processors' worth of time that the container allows, such as 1.5; None without a limit."""
    return smallest(folder_quota(folder) for folder in folders("cpu", groups, own))


def follow_cpu_quota() -> None:
    """Set OMP_NUM_THREADS to the CPU quota, if there is one below the number of processors and nobody set it.

    torch follows the processors that a process may run on, but not a quota: with more threads than the quota, they wait
    for each other. torch reads the variable once, when it is imported, so this must run before.
    """
    quota = cpu_quota()
    if quota is None or "torch" in sys.modules:
        return
    threads = max(1, math.ceil(quota))
    if threads < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def folders(controller, groups, own):
    """Yield the folders of this process's group and of all groups that hold it, the innermost first."""
    for root, path in roots(controller, groups, own):
        folder = root / path.lstrip("/")
        if not folder.is_dir():  # inside a container, the path is that of the host, and the root is the own group
            folder = root
        while True:
            yield folder
            if folder == root:
                break
            folder = folder.parent


def roots(controller, groups, own):
    """Yield (root folder, path of this process's group in it) of a controller; version 2 has one root for all."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from ((root, path) for root in (groups, groups / "unified") if (root / "cgroup.controllers").exists())
        elif controller in controllers.split(","):
            yield groups / controller, path


def limit_in(folder):
    """Return the bytes that the processes of a group may hold, None without a limit."""
    limit = number_in(folder / "memory.max") or number_in(folder / "memory.limit_in_bytes")
    return None if limit is None or limit >= NO_LIMIT else limit


def left_in(folder):
    """Return the bytes that a group leaves to its processes, None without a limit."""
    limit = limit_in(folder)
    usage = number_in(folder / "memory.current") or number_in(folder / "memory.usage_in_bytes")
    if limit is None or usage is None:
        return None
    statistics = dict(line.split() for line in text_of(folder / "memory.stat").splitlines() if line)
    droppable = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
    return max(0, limit - max(0, usage - droppable))


def folder_quota(folder):
    """Return the processors' worth of time of a group, None without a limit."""
    words = text_of(folder / "cpu.max").split()  # such as "150000 100000", or "max 100000"
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = number_in(folder / "cpu.cfs_quota_us"), number_in(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def number_in(file):
    """Return the whole number in a file, None if there is none."""
    text = text_of(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def text_of(file):
    try:
        return file.read_text()
    except OSError:
        return ""


def smallest(values):
    """Return the smallest of the values that are not None, None if there is none."""
    return min((value for value in values if value is not None), default=None)
