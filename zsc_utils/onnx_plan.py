"""Plan for an exported folder: predict the bytes of each setting, without torch, and take the first that fits a budget.

As in `plan`, a budget limits the growth of the process, anonymous and file-backed bytes, from before the folder is
loaded to the end of the work. Weights are exact. Activations are bounded by what the graphs hold at once. What ONNX
Runtime and the tokenizer take besides was measured once.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from zsc_utils._container import CONTAINER, container_budget
from zsc_utils._exports import INT8, Exported, shapes
from zsc_utils._process import Growth, resident
from zsc_utils._sizes import format_size, in_columns, parse_size, rounded_up
from zsc_utils._types import Groups, Size
from zsc_utils.language import translated

MAX_TOKENS = 512  # tokens of a batch
CHUNK = 128  # tokens whose activations stay in a processor's cache; fewer would read the weights too often
ATTENTION_TOKENS = 256  # tokens whose attention is computed at a time, at least one pair ...
ATTENTION_SCORES = 32_768  # ... and scores for each head
MOST_THREADS = 1024  # more than there are: all that the process may use
# settings for streamed layers: tokens of a batch, of a chunk, and of a block, and threads
STREAMED = (
    (512, CHUNK, 8192, MOST_THREADS), (512, CHUNK, 4096, MOST_THREADS), (512, 64, 2048, MOST_THREADS),
    (512, 64, 1024, MOST_THREADS), (512, 64, 1024, 1),
)  # fmt: skip
# bound of ONNX Runtime's packed matrices: rows and columns become multiples of this, and columns of int8 have sums
PACKED_MULTIPLE = 64
# Measured in fresh processes on base-shape and mini, ONNX Runtime 1.32, tokenizers 0.23, Linux, glibc:
TOKENIZER_BYTES = 13  # for each byte of tokenizer.json
LAYER_BYTES = 500_000  # the two sessions of a layer, without its weights
RUNTIME_BYTES = 15_000_000  # sessions, and pages of the libraries that are touched only when a model is loaded or runs
# free memory between activations, as a share of their bytes; it varies from run to run. With streamed layers, it is
# given back after each layer
HOLES, HOLES_STREAMED = 1.0, 0.7


def threads() -> int:
    """Return the number of threads of an engine: OMP_NUM_THREADS, which follows the container's quota, or else the
    processors that this process may use."""
    count = os.environ.get("OMP_NUM_THREADS", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(count) if count.isdigit() and int(count) else available


class Piece(NamedTuple):
    """Some pairs of one length whose attention is computed together, for `asking`, a slice of each pair's tokens: their
    rows among the batch's `tokens`, and their `numbers` among its pairs."""

    pairs: int
    length: int
    asking: slice
    tokens: slice
    numbers: slice


def pieces(groups: Groups, first_only: bool = False) -> Iterator[Piece]:
    """Yield the groups of a batch in pieces of at most ATTENTION_TOKENS, or one pair, and of at most ATTENTION_SCORES
    for each head. With `first_only`, only each pair's first token asks."""
    token = number = 0
    for count, length in groups:
        asked = 1 if first_only else length
        most = max(1, min(ATTENTION_TOKENS // length, ATTENTION_SCORES // (asked * length)))
        for start in range(0, count, most):
            pairs = min(most, count - start)
            places = slice(token, token + pairs * length), slice(number, number + pairs)
            step = max(1, ATTENTION_SCORES // length) if pairs == 1 else asked
            for first in range(0, asked, step):
                yield Piece(pairs, length, slice(first, min(first + step, asked)), *places)
            token, number = token + pairs * length, number + pairs


@dataclass(frozen=True)
class Setting:
    """Tokens of a batch, of a chunk that is computed by one of the `threads`, and of a block whose batches pass each
    streamed layer together (0: layers stay in memory)."""

    precision: str
    max_tokens: int
    chunk: int
    block: int
    threads: int

    def __str__(self):
        return translated(self.words)

    @property
    def words(self):
        """The setting in English, for messages of errors."""
        words = f"{self.precision} without torch, batches of {self.max_tokens:,} tokens, chunks of {self.chunk}"
        words += f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{words}, layers streamed for {self.block:,} tokens" if self.block else words


def bill(export: Exported, setting: Setting) -> dict[str, int]:
    """Return the predicted bytes of a setting, {purpose: bytes}."""
    activations, streamed = activation_bytes(export, setting), setting.block > 0
    return {
        "weights": weight_bytes(export, streamed),
        "layers' sessions": LAYER_BYTES * (1 if streamed else export.config["num_hidden_layers"]),
        "activations": activations,
        "tokenizer": TOKENIZER_BYTES * export.tokenizer_bytes,
        "heap": int((HOLES_STREAMED if streamed else HOLES) * activations),
        "ONNX Runtime": RUNTIME_BYTES,
    }


def weight_bytes(export: Exported, streamed: bool) -> int:
    """Return the bytes of weights that are in memory at once, matrices as they are packed. Words' embeddings stay in
    the file. While a matrix is packed, its bytes in the file are mapped too.

    Streamed layers: the one that computes. The layers of a checkpoint have the same size.
    """
    sizes, largest = {}, 0
    for name, (dtype, shape) in shapes(export.config, export.precision == INT8).items():
        sizes[name] = dtype.itemsize * math.prod(shape)
        if len(shape) == 2 and not name.startswith("embeddings."):
            largest = max(largest, sizes[name])
            sizes[name] = packed_bytes(dtype, shape)
    layers = sum(size for name, size in sizes.items() if name.startswith("layers."))
    rest = sum(sizes.values()) - layers - sizes["embeddings.words"]
    return rest + largest + (layers // export.config["num_hidden_layers"] if streamed else layers)


def packed_bytes(dtype, shape):
    """Return a bound of the bytes of a packed matrix (inputs, outputs)."""
    wide, narrow = (math.ceil(size / PACKED_MULTIPLE) * PACKED_MULTIPLE for size in shape)
    return dtype.itemsize * wide * narrow + (4 * narrow if dtype.itemsize == 1 else 0)


def activation_bytes(export, setting):
    """Return the most bytes of activations: hidden states, queries, keys, values, and in each thread the larger of two
    steps.

    `attend`: a piece's keys and values (of one long pair, all of them), its queries, the result twice, and two matrices
    of scores.
    `finish`: of a chunk, the wide tensor before and after each of its operators (three alive at once), its int8 copy,
    and six tensors of the hidden size.
    """
    config = export.config
    h, f, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    longest = config["max_position_embeddings"]
    tokens = max(setting.max_tokens, longest)
    rows = 2 * max(ATTENTION_TOKENS, longest) + 3 * ATTENTION_TOKENS
    attend = 4 * (rows * h + 2 * heads * ATTENTION_SCORES)
    finish = setting.chunk * (13 * f + 6 * 4 * h)
    return 4 * h * (max(tokens, setting.block) + 3 * tokens) + setting.threads * max(attend, finish)


class Plan(Growth):
    """The chosen setting and its predicted and measured bytes; all are growth since the plan was made.

    `measured` is the peak, and `whole` that of the whole process; both are None if the system does not report them.
    """

    def __init__(self, export, budget, setting, rejected, started):
        super().__init__(started)
        self.subject, self.budget, self.setting, self.rejected = export, budget, setting, rejected

    @property
    def bill(self) -> dict[str, int]:
        """The predicted bytes, {purpose: bytes}."""
        return bill(self.subject, self.setting)

    @property
    def predicted(self) -> int:
        return sum(self.bill.values())

    @property
    def expected(self) -> int:
        return self.predicted

    def look(self, ids):
        """Update `measured` after a batch; the tokens that occurred do not matter here."""
        self.update()

    def __str__(self):
        budget = "no budget" if self.budget is None else f"memory_budget {format_size(self.budget)}"
        rows = {f"  too much: {setting}": sum(bill(self.subject, setting).values()) for setting in self.rejected}
        rows[f"  chosen:   {self.setting}"] = self.predicted
        rows |= {f"    {what}": size for what, size in self.bill.items()}
        if self.measured is not None:
            rows["  measured"] = self.measured
            rows["  the whole process, with Python and its libraries"] = self.whole
        return f"{translated(f'{self.subject.name}, {budget}')}\n{in_columns(rows)}"


def settings_for(export: Exported, max_tokens: int | None, offload: bool | None) -> list[Setting]:
    """Return the Settings to try, the fastest first: layers in memory, then streamed, each with ever less at a time."""
    longest, batch, most = export.config["max_position_embeddings"], max_tokens or MAX_TOKENS, threads()
    loaded = [(batch, CHUNK, 0, most), (512, 64, 0, most)]
    sizes = {True: STREAMED, False: loaded, None: (*loaded, *STREAMED)}[offload]
    return [
        Setting(export.precision, min(batch, max(tokens, longest)), chunk, block, min(each, most))
        for tokens, chunk, block, each in sizes
    ]


def make(
    export: Exported,
    budget: Size | None = None,
    precision: str | None = None,
    offload: bool | None = None,
    max_tokens: int | None = None,
) -> Plan:
    """Return the Plan for an export: the first setting whose predicted bytes fit the budget; without one, the first.

    "container" is the budget that the container's limit leaves to this process. Raises ValueError if no setting fits
    (the message names the smallest budget that works), and for a lever that an export does not have.
    """
    started = resident("self")
    if precision not in (None, export.precision):
        raise ValueError(f"precision {precision!r}: {export.name!r} was exported in {export.precision}; export it anew")
    if offload not in (None, True, False):
        raise ValueError(f"offload {offload!r}: give True, False, or leave it to the plan")
    settings = settings_for(export, max_tokens, offload)
    if budget is None:
        return Plan(export, None, settings[0], [], started)
    budget = container_budget() if budget == CONTAINER else parse_size(budget)
    totals = [sum(bill(export, setting).values()) for setting in settings]
    for number, total in enumerate(totals):
        if total <= budget:
            return Plan(export, budget, settings[number], settings[:number], started)
    smallest = min(totals)
    raise ValueError(
        f"memory_budget {format_size(budget)} is too small for {export.name!r}: the smallest that works is "
        f"{rounded_up(smallest)} ({settings[totals.index(smallest)].words})"
    )
