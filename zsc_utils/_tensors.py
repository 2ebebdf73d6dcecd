"""Count tensor bytes from the events of torch's allocator, and measure the workspace of matrix products."""

import functools
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.utils import output_capturing

from zsc_utils._products import PLAIN, ready_product


@dataclass(frozen=True)
class Step:
    """One change of the tensor bytes alive: its time in seconds, its bytes, the bytes alive after it, and its cause."""

    seconds: float
    change: int
    alive: int
    op: str
    module: str


def tensor_peak(fn: Callable[[], object], device: str | torch.device = "cpu") -> int:
    """Run `fn()` and return the peak of tensor bytes alive, beyond those alive before: an int, 0 or more.

    On the CPU, every event of torch's allocator is counted, so the result is exact and the same on each run. With
    `device="cuda"`, the number comes from torch.cuda's allocator. It rounds each tensor up to 512 bytes and counts
    cuBLAS's workspace at its first use.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        fn()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return max([0, *(step.alive for step in timeline(fn))])


def timeline(fn: Callable[[], object], model: torch.nn.Module | None = None) -> list[Step]:
    """Run `fn()` and return every allocation and release of CPU tensors, in order: a list of Step.

    With `model`, each step names the submodule that runs, such as "bert.encoder.layer.0.attention.self".
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes messages to stderr
    with modules_named(model), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = fn()  # kept, so that its tensors are not released inside the profile
    events = list(allocations(profiler.profiler.kineto_results.experimental_event_tree()))
    del result
    events.sort(key=lambda event: event[0])
    steps, alive = [], 0
    for nanoseconds, change, op, module in events:
        alive += change
        steps.append(Step((nanoseconds - events[0][0]) / 1e9, change, alive, op, module))
    return steps


MODULE = "module:"


def allocations(roots):
    """Yield (nanoseconds, bytes, op, module) of each CPU allocator event in the profiler's tree of events."""
    waiting = [(event, "", "") for event in roots]
    while waiting:
        event, op, module = waiting.pop()
        if event.tag.name == "Allocation" and event.extra_fields.device.type == "cpu":
            yield event.start_time_ns, event.extra_fields.alloc_size, op, module
        if event.name.startswith(MODULE):
            op, module = "", event.name.removeprefix(MODULE)
        elif event.name.startswith("aten::"):
            op = op or event.name.removeprefix("aten::")  # the outermost op: linear, not the addmm inside it
        waiting.extend((child, op, module) for child in event.children)


def has_foreign_hooks(module):
    """Whether a module has hooks other than those of `timeline` and those by which transformers collects hidden states.
    transformers never removes its hooks, and they change no result. accelerate's `_hf_hook` counts as a hook."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    own = __name__, output_capturing.__name__
    return hasattr(module, "_hf_hook") or any(hook.__module__ not in own for hook in hooks)


@contextmanager
def modules_named(model):
    """Inside this context, each forward pass of a submodule writes the submodule's name to the profiler's record."""
    open_ranges, hooks = [], []

    def enter(name):
        open_ranges.append(record_function(MODULE + name))
        open_ranges[-1].__enter__()

    for name, module in model.named_modules() if model is not None else ():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        hooks.append(module.register_forward_hook(lambda *_: open_ranges.pop().__exit__(None, None, None)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# --------------------------------------------------------------------------------------------------------- workspace


@functools.cache
def workspace(kind, threads, rows, wide, narrow):
    """Bytes that torch takes on this CPU besides the result of a linear layer, (rows, wide) x (wide, narrow).

    `kind`: a dtype, or "packed" or "plain" for int8. In fp32 with MKL it is 0, because MKL's buffers are not tensors.
    oneDNN copies its inputs into another layout. The bytes depend on processor, shape and `threads`, so one such
    product is run to measure them. The result is the same on each run.
    """
    if kind == torch.float32 and torch.backends.mkl.is_available():
        return 0
    if isinstance(kind, torch.dtype):
        x, layer = torch.zeros(rows, wide, dtype=kind), torch.nn.Linear(wide, narrow, dtype=kind)
        return beside_result(lambda: layer(x), threads)
    whole = torch.zeros(rows, wide, dtype=torch.int8 if kind == PLAIN else torch.uint8)
    multiply = ready_product(kind, torch.ones(narrow, wide, dtype=torch.int8))
    return beside_result(lambda: multiply(whole), threads)


@functools.cache
def attention_workspace(dtype, threads, batch, heads, queries, keys, size, masked):
    """Bytes that scaled_dot_product_attention takes besides its result on this CPU, measured with one call."""
    q, k, v = (as_heads(dtype, batch, count, heads, size) for count in (queries, keys, keys))
    mask = torch.zeros(batch, 1, queries, keys, dtype=dtype) if masked else None
    return beside_result(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), threads)


@functools.cache
def eager_workspace(dtype, threads, batch, heads, queries, keys, size, weighted):
    """Bytes that torch takes on this CPU besides the scores of eager attention (if `weighted`: besides their sum)."""
    k = as_heads(dtype, batch, keys, heads, size)
    if weighted:
        weights = torch.zeros(batch, heads, queries, keys, dtype=dtype)
        return beside_result(lambda: weights @ k, threads)
    q = as_heads(dtype, batch, queries, heads, size)
    return beside_result(lambda: q @ k.transpose(2, 3), threads)


def as_heads(dtype, batch, length, heads, size):
    """Return zeros of shape (batch, heads, length, size), with a projection's memory layout: token by token."""
    return torch.zeros(batch, length, heads, size, dtype=dtype).transpose(1, 2)


def beside_result(multiply, threads):
    """Return the peak of tensor bytes of `multiply()` minus the bytes of its result, with `threads` threads."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            result = multiply()  # the first call also creates kernels, so only the second is measured
            return tensor_peak(multiply) - result.nbytes
    finally:
        torch.set_num_threads(own)
