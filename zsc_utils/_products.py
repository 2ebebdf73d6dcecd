"""Matrix products on this processor: which int8 engine is exact and fast, and how slow 16 bits are.

There is no list of processors. Each engine is tested once per process: it computes a product whose result is known, and
its time is compared with fp32's. int8 rows are multiplied by one of three engines:

- "packed": oneDNN, with a copy of the rows in its own layout
- "plain": torch._int_mm, with the rows as they are
- "widened": fp32, with an fp32 matrix that exists only while it is used; for when no other engine is exact and fast
"""

import functools
import math
import time

import torch
from torch.nn import functional

PACKED, PLAIN, WIDENED = "packed", "plain", "widened"
RANGES = (127, 63)  # largest activations that are tested: 8 bits, then 7 bits, which cannot overflow
ROWS, WIDTH = 256, 768  # sizes of the tested products: a chunk of tokens, and StructBERT-base's hidden size
STREAMED_TOKENS = 3072  # tokens of a block, which go through a streamed layer together and so share one packing
TURNS = 7
TOO_SLOW = 1.6  # times fp32's time: a slower engine is not used; known engines take under 1.2, or over 2.4
HOPELESS = 10  # if a product takes more than this many times fp32's time, no more turns are measured
MUCH = 1.5  # the preferred engine is used unless it takes more than this many times the other engine's time


def pack(rows: torch.Tensor) -> torch.Tensor:
    """Return a copy of int8 rows (out, in) in oneDNN's layout."""
    return torch.ops.onednn.qlinear_prepack(rows.contiguous(), None)


def multiply_packed(
    whole: torch.Tensor, shift: int, packed: torch.Tensor, scale: torch.Tensor, no_shift: torch.Tensor
) -> torch.Tensor:
    """Return (whole - shift) times the packed rows, times their scale, in fp32.

    `whole` must be uint8: for int8, oneDNN uses its reference code, which is far slower.
    """
    return torch.ops.onednn.qlinear_pointwise(
        whole, 1.0, shift, packed, scale, no_shift, None, 1.0, 0, torch.float32, "none", [], ""
    )


def multiply_plain(whole: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return whole (..., in) times rows (out, in), both int8, times the rows' scale, in fp32."""
    product = torch._int_mm(whole.reshape(-1, whole.shape[-1]), rows.t())
    product = product.view(torch.float32).copy_(product)  # converted from int32 in place
    return product.mul_(scale).unflatten(0, whole.shape[:-1])


def multiply_widened(x: torch.Tensor, matrix: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return x (..., in) times an fp32 matrix (out, in) of whole numbers, times the rows' scale, plus the bias."""
    product = functional.linear(x, matrix)
    return torch.addcmul(bias, product, scale, out=product)


# ---------------------------------------------------------------------------------------------------- right and fast


@functools.cache
def int8_engine(streamed: bool = False) -> str:
    """Return the int8 engine for this processor: an exact one within TOO_SLOW times fp32's time, else "widened".

    If two engines qualify, "packed" is preferred. With `streamed`, "plain" is: rows are read from a file for each
    block of tokens, and "packed" would pack them each time. If the other is over MUCH times as fast, it is returned.
    """
    preferred = (PLAIN, PACKED) if streamed else (PACKED, PLAIN)
    usable = [engine for engine in preferred if is_usable(engine, streamed)]
    if len(usable) == 2 and engine_time(usable[0], streamed) > MUCH * engine_time(usable[1], streamed):
        usable.reverse()
    return usable[0] if usable else WIDENED


def is_usable(engine: str, streamed: bool) -> bool:
    """Return whether an engine is exact up to activation_range() and takes at most TOO_SLOW times fp32's time."""
    return right_range(engine) >= activation_range() and engine_time(engine, streamed) <= TOO_SLOW


def engine_time(engine: str, streamed: bool) -> float:
    """Return a product's time as a multiple of fp32's. If `streamed`, "packed" also counts its share of a packing:
    the products of a block, each of ROWS tokens, share one."""
    packing = times_as_long("packing") * ROWS / STREAMED_TOKENS if streamed and engine == PACKED else 0
    return times_as_long(engine) + packing


@functools.cache
def activation_range() -> int:
    """Return the largest int8 activation: 63 if packed products are exact with it but not with 127, else 127.

    AVX2 adds two products in 16 bits, where 2 x 127 x 255 does not fit: oneDNN then returns wrong results without an
    error. Activations from -63 to 63, shifted to 1 to 127, cannot overflow. "plain" uses the same range, so that a
    streamed model gives the same scores. If "packed" is missing, or wrong with both ranges, the result is 127.
    """
    return right_range(PACKED) or RANGES[0]


@functools.cache
def right_range(engine: str) -> int:
    """Return the first of RANGES whose extremes an engine multiplies exactly; 0 if there is none, or no such engine."""
    if not torch.backends.mkldnn.is_available():
        return 0
    try:
        return next((largest for largest in RANGES if is_right(engine, largest)), 0)
    except (RuntimeError, AttributeError):  # raised if torch's build or the processor lacks the product
        return 0


def is_right(engine: str, largest: int) -> bool:
    """Return whether an engine's products of activations of `largest` and -`largest` with rows of ±127 are exact."""
    rows = torch.full((ROWS, WIDTH), 127, dtype=torch.int8)
    rows[ROWS // 2 :] = -127
    whole = torch.full((64, WIDTH), largest, dtype=torch.int8)
    whole[32:] = -largest
    given = whole if engine == PLAIN else (whole.short() + largest + 1).to(torch.uint8)
    return torch.equal(ready_product(engine, rows, largest)(given).double(), whole.double() @ rows.double().t())


def ready_product(engine: str, rows: torch.Tensor, largest: int = RANGES[-1]):
    """Return a function that multiplies activations (tokens, in) by int8 rows, without scales, to fp32. "plain" takes
    int8. "packed" takes uint8 from 1 to 2 x largest + 1, which stands for -largest to largest."""
    ones, zeros = torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.int32)
    if engine == PLAIN:
        return lambda whole: multiply_plain(whole, rows, ones)
    packed = pack(rows)
    return lambda whole: multiply_packed(whole, largest + 1, packed, ones, zeros)


@functools.cache
def times_as_long(what: str | torch.dtype) -> float:
    """Return a product's time as a multiple of fp32's. `what`: an engine, "packing", torch.float16 or torch.bfloat16.

    It takes turns with fp32's product. The best time of each counts: CPU seconds of one thread, which other processes
    hardly affect. This takes some milliseconds, once per process and product.
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
    """Return the product `what` of `times_as_long` as a function."""
    if isinstance(what, torch.dtype):
        x, matrix = x.to(what), matrix.to(what)
        return lambda: functional.linear(x, matrix)
    rows = matrix.to(torch.int8)
    if what == "packing":
        return lambda: pack(rows)
    product, whole = ready_product(what, rows), x.to(torch.int8 if what == PLAIN else torch.uint8)
    return lambda: product(whole)


def slower(dtype: torch.dtype) -> str | None:
    """Return a sentence if products in fp16 or bf16 take over 1.1 times fp32's time on this processor, else None."""
    times = times_as_long(dtype) if dtype in (torch.float16, torch.bfloat16) else 0
    name = str(dtype).removeprefix("torch.")
    return f"products in {name} take {times:.1f} times as long as in fp32 on this processor" if times > 1.1 else None
