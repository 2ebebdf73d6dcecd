"""Plan for a memory budget: predict the bytes of each setting before loading weights, and take the first that fits.

A budget limits the growth of the process, anonymous and file-backed bytes, from before the checkpoint is loaded to the
end of the work. A bill lists predicted bytes by purpose: exact tensor bytes, and allowances for other process memory.
The allowances were measured once; they are the constants below.
"""

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from zsc_utils import checkpoint as door
from zsc_utils import inference
from zsc_utils._container import CONTAINER, container_budget
from zsc_utils._process import MKL_KEEPS_BUFFERS, Growth, resident, tight_heap
from zsc_utils._products import WIDENED, int8_engine, slower
from zsc_utils._sizes import format_size, in_columns, parse_size, rounded_up
from zsc_utils._types import Name, Size
from zsc_utils._ways import TORCH_LIBRARIES_BYTES, Way, Ways, to_export
from zsc_utils.attention import ATTENTIONS, use
from zsc_utils.checkpoint import Checkpoint, Source, load
from zsc_utils.formats import DTYPES, FORMATS, HALVES, activations_dtype, format_of, in_integers
from zsc_utils.language import translated
from zsc_utils.memory import parameters
from zsc_utils.offloading import StreamedModel, in_memory, stream_layers
from zsc_utils.quantization import int8_bytes, precision_of, quantize

# The search for the worst batch tries 1 to MOST_PAIRS pairs of one length; more pairs are shorter and hold less
MOST_PAIRS = 40
MAX_TOKENS = 1024  # tokens of a batch on a CPU; larger batches take more memory and are hardly faster

# Measured in fresh child processes on base-shape and mini, torch 2.13, transformers 5.23, Linux, glibc:
# bytes for each token of the vocabulary, by the tokenizer's file
TOKENIZER_BYTES = {"vocab.txt": 350, "tokenizer.json": 900}
# bytes for each shape of a product: kernels that oneDNN keeps; in fp32, buffers that MKL takes
KERNEL_BYTES, INT8_KERNEL_BYTES = 660_000, 360_000
MKL_BYTES = 80_000  # for each token of a chunk: buffers that MKL keeps if torch was imported before zsc_utils
WORKSPACE_BYTES = 300_000  # the most that products take per thread
HALVES_WORKSPACE_BYTES = 4_000_000  # extra in 16 bits, where oneDNN copies its inputs into another layout
HEAP_BYTES = 4_000_000  # short-lived blocks while loading, and memory that the allocator does not give back
HOLES = 0.7  # free memory between activations, as a share of their bytes; it varies from run to run
# settings for streamed layers: tokens of a batch, of a chunk, of a block, and whether hidden states wait in memory
STREAMED = ((1024, 256, 4096, True), (512, 128, 3072, True), (512, 128, 3072, False), (512, 64, 3072, False))
# one page fault on a mapped file brings in about this many bytes; more if the page cache holds larger pieces
FAULT_AROUND_BYTES = 65_536


@dataclass(frozen=True)
class Setting:
    """One value for each lever. A lever is a choice that changes memory, such as the precision."""

    precision: str
    attention: str
    max_tokens: int
    chunk: int
    block: int = 0  # tokens that go through each streamed layer together; 0: layers are in memory
    waiting: bool = True  # whether the hidden states of a block wait in memory; if not, in a file

    def __str__(self):
        return translated(self.words)

    @property
    def words(self):
        """The setting in English, for messages of errors."""
        words = f"{self.precision}, {self.attention}, batches of {self.max_tokens:,} tokens, chunks of {self.chunk}"
        if not self.block:
            return words
        return f"{words}, layers streamed for {self.block:,} tokens{'' if self.waiting else ' that wait in a file'}"

    def bill(self, config, tokenizer):
        """Return the predicted bytes, {purpose: bytes}. `tokenizer` is the name of the tokenizer's file."""
        shapes = 3 * math.ceil(
            self.chunk / inference.STEP_TOKENS
        )  # 3 products (hidden to hidden, hidden to wide, wide to hidden) times the possible numbers of rows
        activations = self.activations(config) + self.workspace()
        bill = {
            "weights": bytes_of_weights(config, self.precision),
            "activations": activations,
            "kernels and buffers of products": (INT8_KERNEL_BYTES if in_integers(self.precision) else KERNEL_BYTES)
            * shapes,
            "tokenizer": TOKENIZER_BYTES[tokenizer] * config.vocab_size,
            "heap": HEAP_BYTES + int(HOLES * activations),
        }
        if MKL_KEEPS_BUFFERS and torch.backends.mkl.is_available() and not in_integers(self.precision):
            bill["buffers that MKL keeps"] = MKL_BYTES * self.chunk
        if self.block:
            bill["weights"] = streamed_bytes(config, self.precision)
            bill["hidden states that wait"] = self.waiting_bytes(config)
        return bill

    def workspace(self):
        """Return the most bytes that products take besides their results. A test checks this against torch."""
        return WORKSPACE_BYTES * torch.get_num_threads() + HALVES_WORKSPACE_BYTES * (self.precision in HALVES)

    def waiting_bytes(self, config):
        """Return the bytes of the hidden states of a block's other batches, each rounded up to a multiple of 64 tokens.

        Two consecutive batches together exceed the limit of one batch, or they would be one batch.
        """
        largest = max(self.max_tokens, config.max_position_embeddings)
        if not self.waiting or self.block <= largest:
            return 0
        batches = 2 * self.block // self.max_tokens + 1
        tokens = self.block - largest + batches * inference.STEP_TOKENS
        return tokens * config.hidden_size * activations_dtype(self.precision).itemsize

    def activations(self, config):
        """Return the tensor bytes of the worst batch: pairs of one length, and one pair for the tokens that remain.

        A batch can always hold one pair of the model's maximum length, even if `max_tokens` is smaller.
        """
        longest = config.max_position_embeddings
        tokens, worst = max(self.max_tokens, longest), 0
        # with sliding attention, the text's blocks are largest when the hypothesis is shortest
        hypotheses = (1, longest) if self.attention == "sliding" else (1,)
        engine = int8_engine(streamed=bool(self.block)) if in_integers(self.precision) else False
        for pairs, hypothesis in itertools.product(range(1, MOST_PAIRS + 1), hypotheses):
            length = min(longest, tokens // pairs)
            groups = [(pairs, length)]
            if (rest := min(longest, tokens - pairs * length)) > 0:
                groups.append((1, rest))
            footprint = inference.predict(
                config, groups, attention=self.attention, chunk=self.chunk,
                dtype=activations_dtype(self.precision), int8=engine, hypothesis=hypothesis, ask=False,
            )  # fmt: skip
            worst = max(worst, footprint.peak_activations)
        return worst


def streamed_bytes(config, precision):
    """Return the bytes of weights that are in memory at once while layers are streamed.

    In int8, each word has a scale. With the "packed" engine, the feed-forward weights are in memory twice: as read, and
    packed. They count twice with "plain" too, so that the prediction does not depend on which of the two is faster.
    With "widened" they count once, because its fp32 matrices count among the activations.
    """
    extra = 4 * config.vocab_size if in_integers(precision) else 0
    if in_integers(precision) and int8_engine(streamed=True) != WIDENED:
        extra += 2 * config.hidden_size * config.intermediate_size
    return bytes_of_weights(in_memory(config), precision) + extra


def halved_bytes(config):
    """Return the extra bytes while a layer stored in fp32 is streamed in 16 bits: the read buffers take four bytes a
    number instead of two, and the part that computes has a copy in 16 bits."""
    hidden, wide = config.hidden_size, config.intermediate_size
    attention, feed_forward = 4 * hidden * (hidden + 1) + 2 * hidden, 2 * hidden * wide + wide + 3 * hidden
    return 2 * (attention + feed_forward) + 2 * max(attention, feed_forward)


def bytes_of_weights(config, precision):
    if in_integers(precision):
        return int8_bytes(config)
    return sum(parameters(config).values()) * activations_dtype(precision).itemsize


@dataclass(frozen=True)
class Subject:
    """The facts about a checkpoint that are known before its weights are loaded. `mapped`: the precision in which the
    embeddings stay in their file, if they do."""

    name: str
    config: object
    precision: str
    attention: str
    chunk: int  # tokens that go through linear layers at a time, unless a setting takes fewer
    tokenizer: str
    mapped: str | None
    loaded: bool
    streamed: int  # tokens of a block if its layers are streamed already, else 0
    beside: int  # extra bytes while weights are converted from loaded weights, or from a file with fewer bits
    stored: int  # bytes of its weights' file
    totals: dict = field(default_factory=dict, repr=False, compare=False)  # cache: total bytes of each setting

    def bill(self, setting):
        """Return the predicted bytes of a setting, {purpose: bytes}."""
        bill = setting.bill(self.config, self.tokenizer)
        halved = not self.loaded and setting.precision in HALVES and setting.precision != self.precision
        widened = not self.loaded and self.beside and setting.precision == self.precision
        if setting.block and halved:
            bill["a layer as it is stored"] = halved_bytes(self.config)
        elif setting.block and widened:
            bill["a matrix as it is stored"] = 2 * self.config.hidden_size * self.config.intermediate_size
        elif not setting.block and halved:
            bill["what they are made from"] = self.stored
        elif not setting.block and (widened or (self.loaded and setting.precision != self.precision)):
            bill["what they are made from"] = self.beside
        return bill

    def total(self, setting):
        if setting not in self.totals:
            self.totals[setting] = sum(self.bill(setting).values())
        return self.totals[setting]

    @property
    def max_tokens(self):
        """Default number of tokens of a batch."""
        return STREAMED[1][0] if self.streamed and in_integers(self.precision) else MAX_TOKENS

    @property
    def precisions(self):
        """The precisions it can run in, its own first. Others must have fewer bits. A streamed one keeps its own."""
        bits = DTYPES[self.precision].itemsize
        made = [precision for precision, dtype in DTYPES.items() if dtype.itemsize < bits and not self.streamed]
        return [self.precision, *made]

    def check(self, chosen):
        """Raise ValueError if a lever chosen by hand is not possible for this checkpoint."""
        if chosen.precision not in (None, *self.precisions):
            what = f"layers that are streamed in {self.precision}" if self.streamed else f"what is in {self.precision}"
            raise ValueError(
                f"precision {chosen.precision!r}: {self.name!r} is {what}, and runs in {', '.join(self.precisions)}"
            )
        if chosen.attention not in (None, *ATTENTIONS):
            raise ValueError(f"attention {chosen.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        if chosen.offload not in (None, True, False):
            raise ValueError(f"offload {chosen.offload!r}: give True, False, or leave it to the plan")
        if chosen.offload is not None and self.loaded and chosen.offload != bool(self.streamed):
            where = "streamed" if self.streamed else "in memory"
            raise ValueError(
                f"offload {chosen.offload}: the layers of {self.name!r} are {where}; give its name or folder instead"
            )
        if chosen.attention == "sliding" and (chosen.offload or self.streamed) and self.attention != "sliding":
            raise ValueError("attention 'sliding' needs layers that are in memory: leave out offload")


@dataclass(frozen=True)
class Chosen:
    """Levers that the user chose by hand. None leaves a lever to the plan."""

    precision: str | None = None
    attention: str | None = None
    offload: bool | None = None


LEFT_TO_THE_PLAN = Chosen()


class Plan(Growth):
    """The chosen setting and its predicted, expected and measured bytes.

    All are growth of the process since the plan was made. `predicted` is for the worst texts. `expected` is lower if
    embeddings stay in their file: then only the rows of tokens seen so far count. It is too low if the page cache
    holds the file in large pieces (see `memory.evict`). `measured` is the peak, and `whole` that of the whole process;
    both are None if the system does not report them. If the process held more memory before the plan, they are the
    largest values read after a batch, and miss memory that was freed before the reading.
    """

    def __init__(self, subject, budget, setting, rejected, started=None):
        self.subject, self.budget, self.setting, self.rejected = subject, budget, setting, rejected
        super().__init__(started)
        self.seen = np.zeros(subject.config.vocab_size, bool)

    @property
    def bill(self):
        """The predicted bytes, {purpose: bytes}."""
        return self.subject.bill(self.setting)

    @property
    def predicted(self):
        return sum(self.bill.values())

    @property
    def expected(self):
        if self.setting.block or self.setting.precision != self.subject.mapped:
            return self.predicted
        row = self.subject.config.hidden_size * DTYPES[self.setting.precision].itemsize
        starts = np.flatnonzero(self.seen) * row
        windows = np.unique(np.concatenate([starts, starts + row - 1]) // FAULT_AROUND_BYTES)
        table = row * len(self.seen)
        return self.predicted - table + min(table, FAULT_AROUND_BYTES * len(windows))

    def look(self, ids):
        """Record that these tokens occurred, and update `measured`."""
        self.seen[ids] = True
        self.update()

    def __str__(self):
        budget = "no budget" if self.budget is None else f"memory_budget {format_size(self.budget)}"
        rows = {f"  too much: {setting}": self.subject.total(setting) for setting in self.rejected}
        rows[f"  chosen:   {self.setting}"] = self.predicted
        rows |= {f"    {what}": size for what, size in self.bill.items()}
        if self.measured is not None:
            rows[f"  expected for the {self.seen.sum():,} tokens of the vocabulary that came up"] = self.expected
            rows["  measured"] = self.measured
            rows["  the whole process, with Python and its libraries"] = self.whole
        note = slower(DTYPES[self.setting.precision])
        head, notes = translated(f"{self.subject.name}, {budget}"), [translated(f"  note: {note}")] if note else []
        return "\n".join([head, in_columns(rows), *notes])


def settings_for(subject, max_tokens, chosen=LEFT_TO_THE_PLAN):
    """Return the Settings to try, the fastest first. They all have the levers that were chosen by hand.

    In order: eager if the checkpoint uses it, SDPA, fewer tokens in a batch, fewer tokens in a chunk and, from a
    folder, streamed layers. Then the same in int8. Sliding attention stays, because others give other scores.
    """
    longest, chunk = subject.config.max_position_embeddings, subject.chunk
    lean = chosen.attention or ("sdpa" if subject.attention == "eager" else subject.attention)
    streamed = [(min(max_tokens, tokens), min(chunk, part), *rest) for tokens, part, *rest in STREAMED]
    if subject.streamed:
        sizes = [(max_tokens, chunk, subject.streamed, True)]
        sizes += [each for each in streamed if each[2] < subject.streamed and each[3]]
    else:
        batches = [max_tokens, *(tokens for tokens in (768, 512, 256, 128) if longest <= tokens < max_tokens)]
        if batches[-1] > longest:
            batches.append(longest)
        sizes = [(tokens, chunk) for tokens in batches]
        sizes += [(batches[-1], part) for part in (128, 64) if part < chunk]
        sizes += [] if subject.loaded or lean == "sliding" else list(dict.fromkeys(streamed))
    if chosen.offload is not None:
        sizes = [each for each in sizes if (len(each) > 2) == chosen.offload]
    precisions = [p for p in subject.precisions if p == subject.precision or in_integers(p)]
    precisions = [chosen.precision] if chosen.precision else precisions
    settings = list(dict.fromkeys(setting_of(precision, lean, *each) for precision in precisions for each in sizes))
    faster = not chosen.attention and subject.attention != lean
    eager = [Setting(precisions[0], subject.attention, *sizes[0])] if faster else []
    return eager + settings


def setting_of(precision, attention, tokens, chunk, block=0, waiting=True):
    """Return the Setting of these sizes. Streamed int8 gets chunks of 128 tokens at most: larger chunks take more heap,
    for their copies in int8, than the layers that are in memory."""
    if block and in_integers(precision):
        chunk = min(chunk, 128)
    return Setting(precision, attention, tokens, chunk, block, waiting)


def make(
    checkpoint: Checkpoint | Source | Name,
    budget: Size | None = None,
    allow_lossy: bool = False,
    max_tokens: int | None = None,
    chosen: Chosen = LEFT_TO_THE_PLAN,
) -> Plan:
    """Return the Plan for a checkpoint or its name: the first setting whose predicted bytes fit the budget.

    Without a budget, it is the first setting. "container" is the budget that the container's limit leaves to this
    process. Raises ValueError if there is no such limit, if no setting fits (the message names the smallest
    budget that works, and exports that fit where torch takes too much), for a model on a GPU, and for a lever chosen
    by hand that is not possible."""
    started = resident("self")
    subject = subject_of(checkpoint)
    subject.check(chosen)
    settings = settings_for(subject, max_tokens or subject.max_tokens, chosen)
    if budget is None:
        return Plan(subject, None, settings[0], [], started)
    kept = chosen.precision or subject.precision
    budget = container_budget() if budget == CONTAINER else parse_size(budget)
    allowed = [setting for setting in settings if allow_lossy or setting.precision == kept]
    for number, setting in enumerate(allowed):
        if subject.total(setting) <= budget:
            return Plan(subject, budget, setting, allowed[:number], started)
    held = started.get("VmRSS", TORCH_LIBRARIES_BYTES)
    exports = exports_of(checkpoint, subject, chosen)
    raise ValueError(too_small(subject, budget, allowed, settings) + instead(exports, held, held + budget))


def ways(checkpoint: Checkpoint | Source | Name, chosen: Chosen = LEFT_TO_THE_PLAN) -> Ways:
    """Return the Ways to run a checkpoint on the CPU: with torch, and without it as an export, which is not made.

    What Python and torch take is read from this process, so call it before anything large is loaded. Raises ValueError
    as `make` does for a lever chosen by hand that is not possible.
    """
    libraries = resident("self").get("VmRSS", TORCH_LIBRARIES_BYTES)
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = door.resolve(checkpoint)  # looked up only once
    subject = subject_of(checkpoint)
    subject.check(chosen)
    precisions = [p for p in subject.precisions if p == subject.precision or in_integers(p)]
    found = []
    for precision, streamed in itertools.product([chosen.precision] if chosen.precision else precisions, (False, True)):
        if chosen.offload in (None, streamed):
            settings = settings_for(subject, subject.max_tokens, replace(chosen, precision=precision, offload=streamed))
            if grows := tuple(subject.total(setting) for setting in settings):  # what is loaded cannot be streamed
                found.append(Way(True, precision, streamed, precision != subject.precision, libraries, grows))
    return Ways(subject.name, found + exports_of(checkpoint, subject, chosen), chosen.offload)


def exports_of(checkpoint, subject, chosen):
    """Return the Ways of exports of a checkpoint that have the levers chosen by hand."""
    if "sliding" in (chosen.attention, subject.attention) or chosen.attention == "eager":
        return []
    if isinstance(checkpoint, Checkpoint):
        tokenizer = checkpoint.tokenizer
    else:
        source = door.resolve(checkpoint)
        tokenizer = door.read_tokenizer(source.folder, source.config)
    return to_export(subject.name, subject.config, tokenizer, subject.precision, chosen.precision, chosen.offload)


def subject_of(checkpoint):
    """Return the Subject of a checkpoint or of its name."""
    beside, streamed, chunk = 0, 0, inference.CHUNK_TOKENS
    if not isinstance(checkpoint, Checkpoint):
        source = door.resolve(checkpoint)
        folder, config, name, attention = source.folder, source.config, source.name, "sdpa"
        form = format_of(config)
        precision, mapped = form.precision, form.embeddings or form.precision
        if form is FORMATS[0] and source.stored_bytes < bytes_of_weights(config, "fp32"):
            mapped, beside = None, source.stored_bytes  # the file has fewer bits; weights become fp32 when read
    else:
        model, name, folder = checkpoint.model, checkpoint.name, checkpoint.folder
        if model.device.type != "cpu":
            raise ValueError(f"memory_budget plans for the CPU, the model is on {model.device}: use max_tokens there")
        config, precision, attention = model.config, precision_of(checkpoint), model.config._attn_implementation
        # how it was loaded is unknown; the loaded weights stay while int8 is made from them, one matrix at a time
        mapped, beside = None, bytes_of_weights(config, precision) + 8 * config.vocab_size * config.hidden_size
        if isinstance(model, StreamedModel):
            beside, streamed = 0, model.block
    tokenizer = "tokenizer.json" if (folder / "tokenizer.json").is_file() else "vocab.txt"
    loaded = isinstance(checkpoint, Checkpoint)
    chunk = min(chunk, inference.filled(getattr(config, "feed_forward_tokens", chunk)))
    stored = door.stored_bytes(folder)
    return Subject(name, config, precision, attention, chunk, tokenizer, mapped, loaded, streamed, beside, stored)


def too_small(subject, budget, allowed, settings):
    """Return the error message that names the smallest budgets that work."""
    last_allowed, last = (min(some, key=subject.total) for some in (allowed, settings))
    ways = [f"the smallest that works is {rounded_up(subject.total(last_allowed))} ({last_allowed.words})"]
    if last != last_allowed:
        ways.append(f"with allow_lossy=True {rounded_up(subject.total(last))} ({last.words})")
    return f"memory_budget {format_size(budget)} is too small for {subject.name!r}: {'; '.join(ways)}"


def instead(exports, held, limit):
    """Return the words of a refusal that name exports whose whole process fits where torch's does not, if any.

    `held` is what this process held before the plan, `limit` what it may hold.
    """
    fitting = [way for way in exports if way.fits(limit)]
    if not fitting:
        return ""
    sizes = " and ".join(
        f"{rounded_up(min(way.whole(0) for way in fitting if way.precision == precision))} in {precision}"
        f"{', which changes scores' * lossy}"
        for precision, lossy in dict.fromkeys((way.precision, way.lossy) for way in fitting)
    )
    return (
        f". This process held {rounded_up(held)} before that, with torch. Exported with zsc_utils.export or "
        f"`zsc export`, the whole process takes from {sizes}: give the export's folder as the checkpoint"
    )


def realise(plan, checkpoint):
    """Return the Checkpoint with the plan's setting applied. With a budget, glibc keeps its heap small meanwhile."""
    with tight_heap() if plan.budget is not None else nullcontext():
        return pulled(plan, checkpoint)


def pulled(plan, checkpoint):
    setting = plan.setting
    if not isinstance(checkpoint, Checkpoint):
        options = {"attention": "sdpa" if setting.attention == "sliding" else setting.attention}
        if setting.precision != plan.subject.precision:
            options["dtype"] = DTYPES[setting.precision]
        if setting.block:
            room = 8 * setting.block * plan.subject.config.hidden_size  # bytes for all hidden states, rounded up
            return stream_layers(checkpoint, block=setting.block, waiting=room if setting.waiting else 0, **options)
        checkpoint = load(checkpoint, **options)
    elif setting.precision != precision_of(checkpoint):
        checkpoint = quantize(checkpoint, setting.precision)
    if setting.attention != checkpoint.model.config._attn_implementation:
        checkpoint = use(checkpoint, setting.attention)
    return checkpoint
