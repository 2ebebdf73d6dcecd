"""Matrix products on this processor: which int8 engine is right and fast here, and how slow 16 bits are.

Nothing is looked up in a list of processors. Each engine is tried once in a process: on a product whose answer is
known, and in time, against fp32. int8 rows are multiplied in one of three ways:

- "packed": by oneDNN, with the rows laid out as it likes them, a copy
- "plain": by torch._int_mm, with the rows as they are
- "widened": in fp32, with a matrix made of the rows for as long as it multiplies; where neither of these is right and
  fast
"""

import functools
import math
import time

import torch
from torch.nn import functional

PACKED, PLAIN, WIDENED = "packed", "plain", "widened"
RANGES = (127, 63)  # largest activations that are tried: of eight bits, and of seven, which cannot overflow
ROWS, WIDTH = 256, 768  # of the products that are tried: a chunk of tokens, and StructBERT-base's hidden size
CHUNKS = 16  # that a layer is streamed for, about: STREAMED blocks of 4,096 tokens in chunks of ROWS
TURNS = 7
TOO_SLOW = 1.6  # times fp32's seconds, from which on an engine is not used: known ones take under 1.2, or over 2.4
HOPELESS = 10  # times fp32's seconds, after which no more turns are taken
MUCH = 1.5  # times as fast an engine has to be to be taken before the one that is preferred


def pack(rows: torch.Tensor) -> torch.Tensor:
    """int8 rows (out, in) as oneDNN likes them."""
    return torch.ops.onednn.qlinear_prepack(rows.contiguous(), None)


def multiply_packed(
    whole: torch.Tensor, shift: int, packed: torch.Tensor, scale: torch.Tensor, no_shift: torch.Tensor
) -> torch.Tensor:
    """(whole - shift) times the packed rows, times their scale, in fp32; `whole` is uint8.

    Rows are packed for uint8 only: beside int8 oneDNN falls back to its reference code, which is far slower.
    """
    return torch.ops.onednn.qlinear_pointwise(
        whole, 1.0, shift, packed, scale, no_shift, None, 1.0, 0, torch.float32, "none", [], ""
    )


def multiply_plain(whole: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """whole (..., in) times rows (out, in), both int8, times the rows' scale, in fp32."""
    product = torch._int_mm(whole.reshape(-1, whole.shape[-1]), rows.t())
    product = product.view(torch.float32).copy_(product)  # in its own place, number by number
    return product.mul_(scale).unflatten(0, whole.shape[:-1])


def multiply_widened(x: torch.Tensor, matrix: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x (..., in) times an fp32 matrix (out, in) of whole numbers, times their rows' scale, plus the bias."""
    product = functional.linear(x, matrix)
    return torch.addcmul(bias, product, scale, out=product)


# ---------------------------------------------------------------------------------------------------- right and fast


@functools.cache
def int8_engine(streamed: bool = False) -> str:
    """The engine for int8 rows here: one that is exact and no slower than fp32, else "widened".

    Of two such it is "packed", but "plain", which needs no copy, if `streamed`: for rows that come from a file for each
    block of tokens and would be packed each time. Only where the other is much faster it is that one.
    """
    preferred = (PLAIN, PACKED) if streamed else (PACKED, PLAIN)
    usable = [engine for engine in preferred if is_usable(engine)]
    if len(usable) == 2 and engine_time(usable[0], streamed) > MUCH * engine_time(usable[1], streamed):
        usable.reverse()
    return usable[0] if usable else WIDENED


def is_usable(engine: str) -> bool:
    """Whether an engine is there, right with the activations of `activation_range`, and fast enough."""
    return right_range(engine) >= activation_range() and times_as_long(engine) <= TOO_SLOW


def engine_time(engine: str, streamed: bool) -> float:
    """How many times fp32's seconds a product takes; streamed rows are packed once for CHUNKS products."""
    packing = times_as_long("packing") / CHUNKS if streamed and engine == PACKED else 0
    return times_as_long(engine) + packing


@functools.cache
def activation_range() -> int:
    """The largest whole number of an activation in int8: 127 where packed products come out right with it, else 63.

    AVX2 adds two products in 16 bits, and 2 x 127 x 255 does not fit: oneDNN's answer is wrong then, without a word.
    Activations from -63 to 63, shifted to 1 to 127, cannot overflow. Plain products take the same, so that a model
    that is streamed gives the same scores.
    """
    return right_range(PACKED) or RANGES[0]


@functools.cache
def right_range(engine: str) -> int:
    """The first of RANGES with which an engine's products come out right at both its ends; 0 if there is none, or no
    such engine."""
    if not torch.backends.mkldnn.is_available():
        return 0
    try:
        return next((largest for largest in RANGES if is_right(engine, largest)), 0)
    except (RuntimeError, AttributeError):  # what torch raises for a product that its build or the processor lacks
        return 0


def is_right(engine: str, largest: int) -> bool:
    """Whether products of activations of `largest` and -`largest` with rows of 127 and -127 come out right."""
    rows = torch.full((ROWS, WIDTH), 127, dtype=torch.int8)
    rows[ROWS // 2 :] = -127
    whole = torch.full((64, WIDTH), largest, dtype=torch.int8)
    whole[32:] = -largest
    given = whole if engine == PLAIN else (whole.short() + largest + 1).to(torch.uint8)
    return torch.equal(ready_product(engine, rows, largest)(given).double(), whole.double() @ rows.double().t())


def ready_product(engine: str, rows: torch.Tensor, largest: int = RANGES[-1]):
    """A function that multiplies activations (tokens, in) by int8 rows, unscaled, to fp32: by "packed" uint8 from 1 to
    2 x largest + 1, which stands for -largest to largest, by "plain" int8."""
    ones, zeros = torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.int32)
    if engine == PLAIN:
        return lambda whole: multiply_plain(whole, rows, ones)
    packed = pack(rows)
    return lambda whole: multiply_packed(whole, largest + 1, packed, ones, zeros)


@functools.cache
def times_as_long(what: str | torch.dtype) -> float:
    """How many times fp32's seconds this product takes here: an engine, "packing" alone, or torch.float16 or bfloat16.

    Best of some turns that alternate, in seconds of the processor on one thread, which other processes hardly change;
    some milliseconds, once in a process.
    """
    x, matrix = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)
    ways = {torch.float32: lambda: functional.linear(x, matrix), what: way(what, x, matrix)}
    best, threads = dict.fromkeys(ways, math.inf), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(TURNS):
                for name, multiply in ways.items():
                    start = time.thread_time()
                    multiply()
                    best[name] = min(best[name], time.thread_time() - start)
                if best[what] > HOPELESS * best[torch.float32]:
                    break
    finally:
        torch.set_num_threads(threads)
    return best[what] / best[torch.float32]


def way(what, x, matrix):
    """The product of `times_as_long` as a function."""
    if isinstance(what, torch.dtype):
        x, matrix = x.to(what), matrix.to(what)
        return lambda: functional.linear(x, matrix)
    rows = matrix.to(torch.int8)
    if what == "packing":
        return lambda: pack(rows)
    product, whole = ready_product(what, rows), x.to(torch.int8 if what == PLAIN else torch.uint8)
    return lambda: product(whole)


def slower(dtype: torch.dtype) -> str | None:
    """A sentence for a dtype whose products are slower than fp32's on this processor, None for others."""
    times = times_as_long(dtype) if dtype in (torch.float16, torch.bfloat16) else 0
    name = str(dtype).removeprefix("torch.")
    return f"products in {name} take {times:.1f} times as long as in fp32 on this processor" if times > 1.1 else None
