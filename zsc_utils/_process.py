"""A process and its memory: what the kernel says of it, a child that is measured, and a heap that is kept small.

Nothing here needs torch. What reads /proc needs Linux and says so.
"""

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle

MKL_SETTING = "MKL_DISABLE_FAST_MM"


def ask_mkl_to_keep_nothing() -> bool:
    """Have MKL, which multiplies fp32 in torch, free its buffers after each product; whether it does.

    Else it keeps them, tens of MB, which saves it no time. It reads its setting once, when torch is imported, so this
    must come before; where torch was imported already, nothing changes.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(MKL_SETTING, "1")
    return MKL_SETTING in os.environ  # with any value


MKL_KEEPS_BUFFERS = not ask_mkl_to_keep_nothing()


class ChildError(RuntimeError):
    """The child process of `process_peak` did not live to answer."""


@dataclass(frozen=True)
class ProcessPeak:
    """How far a child process grew beyond its baseline after imports, in bytes, each at its highest: `anonymous` memory
    (what it wrote), `file_backed` pages (files it maps), `total`; with the seconds fn took and its result."""

    anonymous: int
    file_backed: int
    total: int
    seconds: float
    result: object = field(repr=False)


def process_peak(fn: Callable, *args: object) -> ProcessPeak:
    """Run `fn(*args)` in a fresh child process and measure how far its memory grew: a ProcessPeak.

    The child has torch, transformers and zsc_utils imported, and (from Linux 5.14 on) every page of their libraries
    mapped, before the baseline is taken. `total` is the kernel's own high-water mark (VmHWM), reset just before `fn`,
    so that no peak is missed. Of the two kinds it keeps no mark: they are read every 2 ms from outside; what is shorter
    shows in `total` only. Errors of fn are raised here; ChildError says when the child was killed, as by the kernel for
    want of memory. Functions and arguments travel by cloudpickle, so those of a notebook's cell will do. Needs Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise OSError("process_peak reads the kernel's figures in /proc, which only Linux has")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.models.bert.modeling_bert", "zsc_utils.optimized_classifier"])
    import torch  # only here and in the child: for how many threads it uses

    ours, theirs = context.Pipe()
    payload = cloudpickle.dumps((fn, args))
    process = context.Process(
        target=serve, args=(theirs, payload, torch.get_num_threads(), dict(os.environ)), daemon=True
    )
    with no_main_module():
        process.start()
    theirs.close()
    try:
        return observed(process, ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def serve(connection, payload, threads, environment):
    """In the child: ready, run, report the result and the kernel's mark, or the error."""
    import torch

    os.environ.clear()  # the server's own may be older
    os.environ.update(environment)
    torch.set_num_threads(threads)
    fn, args = cloudpickle.loads(payload)
    map_libraries()
    connection.send(None)  # ready
    connection.recv()  # the parent has read the baseline
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    start = time.perf_counter()
    try:
        result, error = fn(*args), None
    except Exception as raised:
        raised.add_note("in the child process of process_peak:\n" + traceback.format_exc())
        result, error = None, raised
    seconds = time.perf_counter() - start
    connection.send_bytes(packed(resident("self")["VmHWM"], seconds, result, error))
    connection.recv()  # alive until the parent has read the last figures


def packed(mark, seconds, result, error):
    """The answer as bytes; what cannot travel becomes an error that names it."""
    try:
        answer = cloudpickle.dumps((mark, seconds, result, error))
        cloudpickle.loads(answer)
    except Exception as reason:
        what = f"raised {error!r}" if error is not None else f"returned a {type(result).__name__}"
        told = ChildError(f"fn {what}, which cannot be sent to the parent: {reason}")
        answer = cloudpickle.dumps((mark, seconds, None, told))
    return answer


def observed(process, connection):
    """In the parent: watch the child's two kinds of pages until it answers."""
    receive_or_explain(process, connection.recv)
    if not (baseline := resident(process.pid)):
        raise ChildError("the child process ended before it could begin")
    highest = {"RssAnon": 0, "RssFile": 0}
    connection.send(None)
    while True:
        answered = connection.poll(0.002)
        now = resident(process.pid)
        highest = {kind: max(highest[kind], now.get(kind, 0) - baseline[kind]) for kind in highest}
        if answered:
            break
    answer = receive_or_explain(process, connection.recv_bytes)
    mark, seconds, result, error = cloudpickle.loads(answer)
    if error is not None:
        raise error
    total = mark - baseline["RssAnon"] - baseline["RssFile"] - baseline["RssShmem"]
    return ProcessPeak(highest["RssAnon"], highest["RssFile"], total, seconds, result)


def receive_or_explain(process, receive):
    try:
        return receive()
    except (EOFError, ConnectionError) as error:
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            why = ": the kernel does that when memory runs out" if name == "SIGKILL" else ""
            raise ChildError(f"the child process was ended by {name}{why}") from error
        raise ChildError(f"the child process ended with exit code {code} before it could answer") from error


def resident(pid: int | str) -> dict[str, int]:
    """Bytes by kind from /proc/<pid>/status; empty when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {kind: int(count) * 1024 for kind, count in re.findall(r"^((?:Vm|Rss)\w+):\s+(\d+) kB", status, re.M)}


def proportional(pid: int | str) -> int | None:
    """Bytes that a process holds, each page divided by how many processes hold it (Pss), so that sums over processes
    count none twice; None where the system does not tell."""
    try:
        smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return int(re.search(r"^Pss:\s+(\d+) kB", smaps, re.M)[1]) * 1024


def evict(file: str | os.PathLike) -> None:
    """Have the system drop a file from its page cache, so that the next read comes from the disk.

    A page that a process has mapped stays. It also makes what a mapped file takes the same in each run: the page cache
    may hold a file that was written or read through lately in pieces of up to 2 MB, and one touch maps a whole piece.
    Raises OSError where the system offers no such call (macOS and Windows), or for a file that cannot be read.
    """
    if not hasattr(os, "posix_fadvise"):
        raise OSError(f"{file}: this system cannot be asked to drop a file from its page cache; Linux can")
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # 0, 0: from the start to the end
    finally:
        os.close(handle)


@contextmanager
def tight_heap():
    """Within, glibc maps every block from 128 kB on by itself, so that what is freed goes back to the system at once;
    after it, blocks of up to 8 MB are taken from what was freed before.

    The first is for loading, where what lives long and what does not alternate, and the holes between would cost more
    than what they hold: glibc by itself lets them grow. The second is for the work that follows, where mapping would
    cost page faults, half of an int8 model's speed. For the whole process; without glibc nothing happens.
    """
    map_blocks_from(128 << 10, trim=128 << 10)
    try:
        yield
    finally:
        map_blocks_from(8 << 20, trim=64 << 20)


def map_blocks_from(size, trim):
    """Have glibc map blocks from `size` bytes on, and let `trim` bytes lie free at its heap's end."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, size)  # M_MMAP_THRESHOLD of malloc.h
        mallopt(-1, trim)  # M_TRIM_THRESHOLD


def map_libraries():
    """Touch every page of the mapped files, so that code run for the first time does not look like growth."""
    madvise, populate_read = ctypes.CDLL(None, use_errno=True).madvise, 22
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _, _, inode, *_ = line.split()
        if inode != "0" and permissions[0] == "r":
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), populate_read)  # no matter if it is refused


@contextmanager
def no_main_module():
    """Keep multiprocessing from running the caller's script again in the child, which needs nothing of it."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
