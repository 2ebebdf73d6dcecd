"""Process memory: read it from the kernel, measure it in a child process, and keep the heap small.

The module imports without torch. Functions that read /proc need Linux.
"""

import ctypes
import multiprocessing
import os
import pickle
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

MKL_SETTING = "MKL_DISABLE_FAST_MM"


def ask_mkl_to_keep_nothing() -> bool:
    """Make MKL free its buffers after each fp32 product in torch; return whether MKL_SETTING is set, to any value.

    By default MKL keeps tens of MB of buffers, without being faster. MKL reads its setting once, when torch is
    imported. So this function must run before; if torch was imported already, it changes nothing.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(MKL_SETTING, "1")
    return MKL_SETTING in os.environ


MKL_KEEPS_BUFFERS = not ask_mkl_to_keep_nothing()


class ChildError(RuntimeError):
    """The child process of `process_peak` ended before it sent its result, or the result cannot be sent."""


@dataclass(frozen=True)
class ProcessPeak:
    """The `whole` child process at its highest, in bytes, libraries included, and its growth over the baseline after
    imports: `anonymous` memory (pages it wrote), `file_backed` pages (mapped files) and `total`. Also the `seconds`
    that fn took and its `result`. Every page of the libraries is in `whole`; a usual process touches fewer of them."""

    whole: int
    anonymous: int
    file_backed: int
    total: int
    seconds: float
    result: object = field(repr=False)


def process_peak(fn: Callable, *args: object) -> ProcessPeak:
    """Run `fn(*args)` in a fresh child process and measure how much its memory grows: a ProcessPeak.

    Before the baseline is read, the child imports torch, transformers and zsc_utils and, from Linux 5.14 on, maps every
    page of their libraries. `total` is from the kernel's high-water mark (VmHWM), reset just before `fn`, so it misses
    no peak. The kernel has no such mark for the other two. The parent reads them about every 2 ms, so a shorter peak
    shows only in `total`. Errors of fn are raised here. Raises ChildError if the child was killed, for example by the
    kernel when memory runs out. cloudpickle sends fn and args, so functions of a notebook cell work. Needs Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise OSError("process_peak reads the kernel's figures in /proc, which only Linux has")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["transformers.models.bert.modeling_bert", "zsc_utils.optimized_classifier", "zsc_utils.torch_engine"]
    )
    import cloudpickle  # only here and in the child: an engine without torch needs neither of the two
    import torch

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
    """In the child: signal that it is ready, run fn, send the kernel's mark and the result or the error."""
    import cloudpickle
    import torch

    os.environ.clear()  # the fork server's environment may be older
    os.environ.update(environment)
    torch.set_num_threads(threads)
    fn, args = cloudpickle.loads(payload)
    map_libraries()
    connection.send(None)  # ready
    connection.recv()  # the parent has read the baseline
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    start = time.perf_counter()
    try:
        result, error = fn(*args), None
    except Exception as raised:
        raised.add_note("in the child process of process_peak:\n" + traceback.format_exc())
        result, error = None, raised
    seconds = time.perf_counter() - start
    connection.send_bytes(packed(resident("self")["VmHWM"], seconds, result, error))
    connection.recv()  # stay alive until the parent has read the last values


def packed(mark, seconds, result, error):
    """Return the answer as bytes. A result or error that cannot be pickled becomes a ChildError that names it."""
    import cloudpickle

    try:
        answer = cloudpickle.dumps((mark, seconds, result, error))
        cloudpickle.loads(answer)
    except Exception as reason:
        what = f"raised {error!r}" if error is not None else f"returned a {type(result).__name__}"
        told = ChildError(f"fn {what}, which cannot be sent to the parent: {reason}")
        answer = cloudpickle.dumps((mark, seconds, None, told))
    return answer


def observed(process, connection):
    """In the parent: poll the child's anonymous and file-backed bytes until it answers; return the ProcessPeak."""
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
    mark, seconds, result, error = pickle.loads(answer)
    if error is not None:
        raise error
    total = mark - baseline["RssAnon"] - baseline["RssFile"] - baseline["RssShmem"]
    return ProcessPeak(mark, highest["RssAnon"], highest["RssFile"], total, seconds, result)


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
    """Return {kind: bytes} from /proc/<pid>/status, such as "VmHWM"; empty if there is no such file."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {kind: int(count) * 1024 for kind, count in re.findall(r"^((?:Vm|Rss)\w+):\s+(\d+) kB", status, re.M)}


class Growth:
    """How far this process has grown since `started`, what `resident` returned then.

    `measured` is the growth and `whole` the whole process, in bytes, at their peak; both are None if the system does
    not report them. If the process held more memory before, they are the largest values that `update` has read, and
    miss memory that was freed before.
    """

    def __init__(self, started: dict[str, int] | None = None):
        self.started = started or resident("self")
        self.measured: int | None = None
        self.whole: int | None = None

    def update(self) -> None:
        if now := resident("self"):
            # the kernel's high-water mark is exact, but useful only if it rose since the start
            mark = "VmHWM" if now["VmHWM"] > self.started["VmHWM"] else "VmRSS"
            self.whole = max(self.whole or 0, now[mark])
            self.measured = max(self.measured or 0, now[mark] - self.started["VmRSS"])


def proportional(pid: int | str) -> int | None:
    """Return a process's proportional set size (Pss) in bytes: each page is divided by the number of processes that
    share it, so a sum over processes counts no page twice. None if the system does not report it."""
    try:
        smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return int(re.findall(r"^Pss:\s+(\d+) kB", smaps, re.M)[0]) * 1024


def evict(file: str | os.PathLike) -> None:
    """Ask the system to drop a file from its page cache, so that the next read comes from the disk.

    Pages that a process has mapped stay. This also makes the bytes of a mapped file repeatable: the page cache may hold
    a recently written or read file in pieces of up to 2 MB, and one access maps a whole piece.
    Raises OSError if the system has no such call (macOS and Windows), or if the file cannot be read.
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
    """Inside this context, glibc maps each block of 128 KiB or more separately, so a freed block returns to the system
    at once. After it, blocks below 8 MiB come from the heap, which reuses freed memory.

    The first setting is for loading: long-lived and short-lived blocks alternate, and by default glibc lets the free
    holes between them grow. The second is for the inference that follows: mapping would cause page faults and halve an
    int8 model's speed. Both apply to the whole process. Without glibc, this does nothing.
    """
    map_blocks_from(128 << 10, trim=128 << 10)
    try:
        yield
    finally:
        map_blocks_from(8 << 20, trim=64 << 20)


def map_blocks_from(size, trim):
    """Make glibc map blocks of `size` bytes or more separately, and keep up to `trim` free bytes at the heap's end."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, size)  # M_MMAP_THRESHOLD of malloc.h
        mallopt(-1, trim)  # M_TRIM_THRESHOLD


def trim_heap():
    """Make glibc return its free memory to the system, where a new mapping, such as a compiled kernel, may need it."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if malloc_trim is not None:
        malloc_trim(0)


def map_libraries():
    """Load every page of the mapped files, so that code that runs for the first time does not count as growth."""
    madvise, populate_read = ctypes.CDLL(None, use_errno=True).madvise, 22
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _, _, inode, *_ = line.split()
        if inode != "0" and permissions[0] == "r":
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), populate_read)  # a failure is ignored


@contextmanager
def no_main_module():
    """Keep multiprocessing from running the caller's script again in the child, which does not need it."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
