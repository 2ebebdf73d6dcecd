"""Stream layers from the weights' file: all batches of a block pass one layer part before the next is computed.

A layer has two parts: attention and the feed-forward network. While one part computes, the next is prefetched, so
memory never holds more than one layer. Weights are read, not memory-mapped: a mapped page counts as memory until the
system reclaims it. Of the word embeddings, only the rows of tokens in the batch are read.

`dispatch` offloads layers with accelerate instead, for comparison and for GPUs that are too small.
"""

import copy
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.nn import Module, Parameter
from transformers import BertForSequenceClassification, PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from zsc_utils import checkpoint as door
from zsc_utils import inference
from zsc_utils._bert import check_shapes, rebuilt, weightless
from zsc_utils._dispatch import dispatch
from zsc_utils._process import tight_heap, trim_heap
from zsc_utils._products import STREAMED_TOKENS
from zsc_utils._text import whole_number
from zsc_utils._types import Groups, Name, Size
from zsc_utils._weights import WeightsFile, bytes_of, weights_file
from zsc_utils.checkpoint import LOADED_ATTENTIONS, ROOM, Checkpoint, CheckpointError, Source
from zsc_utils.formats import DTYPES, format_of
from zsc_utils.memory import Footprint, parameters, parse_size

__all__ = ["Span", "block_logits", "dispatch", "predict", "spans", "stored", "stream_layers"]

BLOCK_TOKENS = {"cpu": STREAMED_TOKENS, "cuda": 65_536}  # tokens of a block; a GPU needs more to stay busy
WAITING = {"cpu": "16MB", "cuda": "1GB"}  # for waiting hidden states; enough for a block on base-shape
# padding tokens for which a block's buffer has room at first; with more batches it grows
FILLED_TOKENS = 9 * inference.STEP_TOKENS
# modules of each part of a layer
PARTS = {
    "attention": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                  "attention.output.LayerNorm"),
    "feed-forward": ("intermediate.dense", "output.dense", "output.LayerNorm"),
}  # fmt: skip
WORDS = "bert.embeddings.word_embeddings"


def stream_layers(
    folder: Name | Source,
    *,
    dtype: torch.dtype | None = None,
    attention: str = "sdpa",
    device: str | torch.device = "cpu",
    block: int | None = None,
    waiting: Size | None = None,
) -> Checkpoint:
    """Return a Checkpoint whose layers and word embeddings stay in the weights' file and are read when needed.

    `folder` is a name or a folder as for `zsc_utils.load`. `dtype` is torch.float32, float16, bfloat16 or int8
    (default: as `load`, the one in which the folder was saved). An int8 copy is made once, in the cache.
    `block` is the number of tokens that pass a layer together (default: 3,072; on a GPU 65,536). Their hidden states
    wait in memory up to `waiting` bytes (default: "16MB"; on a GPU "1GB"), the rest in a temporary file. With
    `device="cuda"` layers are copied from pinned memory to the GPU on a separate stream.

    Call the model like any other, with padding at the end; ZeroShotClassifier groups its batches into blocks. Levers
    that change weights (quantize, shrink, distil) need a loaded checkpoint instead. This call changes glibc's malloc
    settings for the whole process, to keep its heap small.

    Raises CheckpointError as `load` does, and during a pass if the file was changed, deleted or cannot be read;
    OSError if there is no room for hidden states; ValueError for a `device` that is missing or not supported, a `block`
    that is not a whole number over 0, a `waiting` that is not a size, and int8 on a GPU.
    """
    if attention not in LOADED_ATTENTIONS:
        raise CheckpointError(f"attention {attention!r}: choose one of {', '.join(LOADED_ATTENTIONS)}")
    device = torch.device(device)
    if device.type not in BLOCK_TOKENS:
        raise ValueError(f"device {device}: layers are streamed to a CPU or to a CUDA device")
    block = BLOCK_TOKENS[device.type] if block is None else block
    whole_number("block", block, "give the number of tokens that pass a layer together")
    waiting = size_of(WAITING[device.type] if waiting is None else waiting)
    with tight_heap():
        source, dtype = stored(folder, dtype, device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device}: torch finds no CUDA device here; leave it out to stream on the CPU")
    config = copy.deepcopy(source.config)
    config._attn_implementation = attention
    with tight_heap():
        prefetcher = Prefetcher(source.folder, config, dtype, device)
        model = streamed(weightless(config), prefetcher, block, waiting)
        rows = min(block + FILLED_TOKENS, waiting // (config.hidden_size * model.dtype.itemsize))
        prefetcher.state_buffer(rows, config.hidden_size)
        return door.opened(source, model)


def size_of(waiting):
    """The bytes of a size, as `parse_size`, but 0 is allowed."""
    return 0 if type(waiting) is int and waiting == 0 else parse_size(waiting)


def stored(
    folder: Name | Source, dtype: torch.dtype | None, device: str | torch.device = "cpu"
) -> tuple[Source, torch.dtype]:
    """(Source, dtype) of weights that can be streamed in `dtype`; converts them to int8 first if necessary."""
    source = door.resolve(folder)
    folder, config = source.folder, source.config
    kept = format_of(config).dtype
    if dtype not in (None, *DTYPES.values()):
        raise CheckpointError(f"dtype {dtype!r}: weights come as torch.float32, float16, bfloat16 or int8")
    if kept == torch.int8 and dtype not in (None, torch.int8):
        raise CheckpointError(f"{folder.name} is stored in int8 and runs in it: leave out dtype {dtype}")
    if torch.int8 in (dtype, kept) and torch.device(device).type != "cpu":
        raise ValueError(f"int8 runs on CPUs only, device is {device}: stream fp16 there")
    if dtype == torch.int8 and kept != torch.int8:
        stored_anew = door.resolve(door.stored_as(folder, torch.int8))
        return replace(stored_anew, name=source.name), dtype
    return source, dtype or kept


# -------------------------------------------------------------------------------------------------------------- file


def check_file(file, config):
    """Raise unless a file holds exactly the config's weights, with a positive scale for each int8 row."""
    shapes = {name: tuple(entry["shape"]) for name, entry in file.entries.items()}
    scales = {name: shape for name, shape in shapes.items() if name.endswith(".scale")}
    check_shapes({name: shape for name, shape in shapes.items() if name not in scales}, config, file.path)
    in_rows = {name for name in shapes if file.dtype(name) == torch.int8}
    for name in sorted(in_rows | {scale.removesuffix(".scale") for scale in scales}):
        fits = name in in_rows and scales.get(f"{name}.scale") == shapes[name][:1]
        if not fits or not ((scale := file.read(f"{name}.scale")).isfinite() & (scale > 0)).all():
            raise CheckpointError(f"{file.path} is broken: no scale, or not a positive one a row, for {name}")
    layers = [sorted(file.keys(f"bert.encoder.layer.{number}")) for number in range(config.num_hidden_layers)]
    for number, keys in enumerate(layers):
        if keys != layers[0]:
            raise CheckpointError(f"{file.path}: layer {number} is stored otherwise than layer 0: save it anew")


# ------------------------------------------------------------------------------------------------------------ layers


@dataclass(frozen=True)
class Visit:
    """One part of one layer, as a step of the pass through all layers."""

    layer: int
    part: str


@dataclass(frozen=True)
class Span:
    """The time in which a layer part was read or computed: `what` is "read" or "compute"; times in seconds."""

    what: str
    layer: int
    part: str
    start: float
    stop: float


class Prefetcher:
    """Reads layers from a folder's weights file into reused buffers, one part ahead of the computation.

    `lock` allows one pass through the layers at a time.
    """

    def __init__(self, folder, config, dtype, device):
        self.made_from = folder, config, dtype, device
        self.file = WeightsFile(weights_file(folder))
        check_file(self.file, config)
        self.make, self.dtype, self.device = format_of(config).module, dtype, device
        self.layer = weightless(config).bert.encoder.layer[0]
        self.empty = {part: {path: self.layer.get_submodule(path) for path in paths} for part, paths in PARTS.items()}
        self.uploader = Uploader(device) if device.type == "cuda" else None
        self.places = {part: self.room(paths) for part, paths in PARTS.items()}
        self.visits = [Visit(number, part) for number in range(config.num_hidden_layers) for part in PARTS]
        self.reader, self.coming = ThreadPoolExecutor(1, "zsc_utils.offloading"), None
        self.lock, self.spans = threading.Lock(), None
        self.waiting = None

    def __reduce__(self):
        return Prefetcher, self.made_from

    def state_buffer(self, tokens, hidden):
        """A buffer (tokens, hidden) for waiting states; it is reused, because new ones would fragment the heap."""
        if self.waiting is None or len(self.waiting) < tokens:
            self.waiting = None  # free the old buffer before the new one is allocated
            dtype = self.dtype if self.dtype.is_floating_point else torch.float32
            self.waiting = torch.empty(tokens, hidden, dtype=dtype, device=self.device)
        return self.waiting[:tokens]

    def room(self, paths):
        """Buffers {path: {key: tensor}} for one layer part; pinned for a GPU, so that copies are asynchronous."""
        kinds, pinned = (
            {path: self.file.keys(f"bert.encoder.layer.0.{path}") for path in paths},
            self.uploader is not None,
        )
        return {
            path: {key: torch.empty(shape, dtype=dtype, pin_memory=pinned) for key, shape, dtype in keys}
            for path, keys in kinds.items()
        }

    def passes(self):
        """Yield each Visit of one pass, with its weights in `layer`; the next part is prefetched meanwhile."""
        for number, visit in enumerate(self.visits):
            following = self.visits[(number + 1) % len(self.visits)]  # after the last part, the next block's first
            self.stand(self.modules(visit, self.take(visit)))
            self.coming = following, self.reader.submit(self.read, following)
            start = time.perf_counter()
            try:
                yield visit
            finally:
                self.note("compute", visit, start)
                self.stand(self.empty[visit.part])
                if self.uploader is not None:
                    self.uploader.leave(visit.part)

    def take(self, visit):
        """The tensors of a part: the prefetched ones, or, after an interruption or an error, read now."""
        coming, self.coming = self.coming, None
        if coming is not None:
            wait_for([coming[1]])  # even if not needed: it may write to the same buffers
            if coming[0] == visit and coming[1].exception() is None:  # else read again
                return coming[1].result()
        return self.read(visit)

    def read(self, visit):
        """Read the tensors of a part from the file: {path in the layer: {key: tensor}}."""
        start, stem = time.perf_counter(), f"bert.encoder.layer.{visit.layer}."
        tensors = self.places[visit.part]
        for path, places in tensors.items():
            for key, place in places.items():
                self.file.read(f"{stem}{path}.{key}", place)
        if self.uploader is not None:
            tensors = self.uploader.carry(visit.part, tensors)
        self.note("read", visit, start)
        return tensors

    def modules(self, visit, tensors):
        """Build the modules of a part from its tensors: {path in the layer: module}."""
        empty = self.empty[visit.part]
        return {path: self.make(empty[path], path, own, self.dtype) for path, own in tensors.items()}

    def stand(self, modules):
        """Put modules into the layer."""
        for path, module in modules.items():
            parent, _, name = path.rpartition(".")
            self.layer.get_submodule(parent)._modules[name] = module

    def note(self, what, visit, start):
        if self.spans is not None:
            self.spans.append(Span(what, visit.layer, visit.part, start, time.perf_counter()))


class Uploader:
    """Copies layer parts to a GPU on a separate stream, so that copying and computing overlap."""

    def __init__(self, device):
        self.device, self.stream, self.there, self.left = device, torch.cuda.Stream(device), {}, {}

    def carry(self, part, tensors):
        """Copy tensors to the GPU and return the copies; the calling thread waits until they are complete."""
        with torch.cuda.stream(self.stream):
            if part not in self.there:  # allocate on this stream: memory that others freed may be in use
                self.there[part] = {
                    path: {key: torch.empty_like(tensor, device=self.device) for key, tensor in own.items()}
                    for path, own in tensors.items()
                }
            if part in self.left:
                self.stream.wait_event(self.left[part])  # computations with the previous contents
            for path, own in tensors.items():
                for key, tensor in own.items():
                    self.there[part][path][key].copy_(tensor, non_blocking=True)
        self.stream.synchronize()
        return self.there[part]

    def leave(self, part):
        """Record an event after the computations with a part; the next copy into its buffers waits for the event."""
        self.left[part] = torch.cuda.current_stream(self.device).record_event()


@contextmanager
def spans(checkpoint: Checkpoint) -> Iterator[list[Span]]:
    """Yield a list to which, inside the with block, a Span is added for each layer part read or computed."""
    prefetcher = checkpoint.model.prefetcher
    prefetcher.spans = []
    try:
        yield prefetcher.spans
    finally:
        prefetcher.spans = None


# ------------------------------------------------------------------------------------------------------------- model


class StreamedEmbedding(Module):
    """An embedding table that stays in a file; only the rows that are looked up are read."""

    def __init__(self, file, name, dtype):
        super().__init__()
        self.file, self.name = file, f"{name}.weight"
        self.dtype = dtype if dtype.is_floating_point else torch.float32
        self.weight = Parameter(  # only gives shape and dtype
            torch.empty(file.entries[self.name]["shape"], dtype=dtype, device="meta"), requires_grad=False
        )
        scale = f"{self.name}.scale"
        self.scale = file.read(scale) if scale in file else None

    def forward(self, ids):
        numbers, place = ids.cpu().unique(return_inverse=True)
        rows = self.file.rows(self.name, numbers.tolist()).to(self.dtype)
        if self.scale is not None:
            rows *= self.scale[numbers, None]
        return rows[place].to(ids.device)


class StreamedModel(BertForSequenceClassification):
    """BERT whose layers come from a Prefetcher; called like any other, with padding at the end."""

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if (real[:, 1:] & ~real[:, :-1]).any():
            raise ValueError("layers that are streamed take padding at the end only: set padding_side='right'")
        if not real[:, 0].all():
            raise ValueError("a row without a token has no class: leave it out")
        groups = [(1, length) for length in real.sum(1).tolist()]
        tokens = getattr(self.config, "feed_forward_tokens", None)  # set by attention.chunk_feed_forward
        chunk = tokens and inference.filled(tokens)
        (logits,) = block_logits(self, [(input_ids[real], types[real], groups)], chunk)
        return SequenceClassifierOutput(logits=logits)

    @property
    def device(self):
        return self.prefetcher.made_from[-1]

    @property
    def dtype(self):
        return self.bert.embeddings.word_embeddings.dtype

    def _apply(self, *_):
        raise ValueError("layers that are streamed cannot be moved or cast: give stream_layers a device or a dtype")


def streamed(model, prefetcher, block, waiting):
    """A StreamedModel from a weightless model: small modules are loaded, word embeddings stay in the file."""

    def small(module, name):
        if name.startswith("bert.encoder.layer"):
            return module
        if name == WORDS:
            return StreamedEmbedding(prefetcher.file, name, prefetcher.dtype)
        if not module._parameters:
            return None
        return prefetcher.make(module, name, prefetcher.file.tensors(name), prefetcher.dtype)

    rest = rebuilt(model, small)
    device = prefetcher.made_from[-1]
    for part in (rest.bert.embeddings.position_embeddings, rest.bert.embeddings.token_type_embeddings,
                 rest.bert.embeddings.LayerNorm, rest.bert.pooler, rest.classifier):  # fmt: skip
        part.to(device)
    rest.bert.embeddings.position_ids = rest.bert.embeddings.position_ids.to(device)
    new = object.__new__(StreamedModel)
    new.__dict__.update(vars(rest), prefetcher=prefetcher, block=block, waiting=waiting)
    return new


@torch.inference_mode()
def block_logits(
    model: "StreamedModel", batches: Sequence[tuple[torch.Tensor, torch.Tensor, Groups]], chunk: int | None = None
) -> list[torch.Tensor]:
    """Logits (pairs, classes) of each batch (ids, types, groups); all batches pass a layer part before the next one.

    `chunk`: tokens that pass the linear layers at a time, as in `inference.logits`.
    """
    last = model.config.num_hidden_layers - 1
    chunks = [chunk or inference.default_chunk(ids) for ids, *_ in batches]
    with model.prefetcher.lock:
        states = StateBuffer([inference.filled(len(ids)) for ids, *_ in batches], model)
        layer = model.prefetcher.layer
        layer.attention.self.config = model.config  # selects the attention
        for number, batch in enumerate(batches):
            states.put(number, inference.embed(model, *batch))
        for visit in model.prefetcher.passes():
            for number, (_, types, groups) in enumerate(batches):
                state = states.take(number)
                if visit.part == "attention":
                    first_only = visit.layer == last
                    state = inference.attention_part(layer, state, types, groups, chunks[number], first_only)
                    if model.device.type == "cpu":
                        trim_heap()  # else freed tensors leave holes: measured, up to 12 MB more
                else:
                    inference.feed_forward_part(layer, state, chunks[number])
                states.put(number, state)
                del state
        return [inference.classified(model, states.take(n), groups) for n, (_, _, groups) in enumerate(batches)]


class StateBuffer:
    """Hidden states of a block's batches while other batches compute: in memory up to a limit, the rest in a file.

    Those in memory are slices of one contiguous tensor, so that they do not fragment the heap.
    """

    def __init__(self, tokens, model):
        """`tokens` lists the number of tokens of each batch."""
        self.limit, item = model.waiting, model.dtype.itemsize
        row = model.config.hidden_size * item
        kept = which_wait_in_memory([count * row for count in tokens], self.limit)
        together = model.prefetcher.state_buffer(sum(tokens[number] for number in kept), model.config.hidden_size)
        self.held = dict(zip(kept, together.split([tokens[n] for n in kept])))
        self.filed = {n: sum(tokens[:n]) * row for n in range(len(tokens)) if n not in self.held}
        self.shapes, self.file, self.device, self.dtype = {}, None, model.device, model.dtype

    def put(self, number, state):
        """Keep the states of a batch; states that are already in their slice of the buffer are not copied."""
        if number in self.filed:
            return self.write(number, state)
        place = self.held[number]
        if state.shape != place.shape:
            self.held[number] = state  # from the last layer: first tokens only
        elif state.data_ptr() != place.data_ptr():
            place.copy_(state)

    def take(self, number):
        return self.read(number) if number in self.filed else self.held[number]

    def write(self, number, state):
        self.shapes[number] = state.shape
        try:
            if self.file is None:  # unnamed, so that nothing is left behind
                self.file = tempfile.TemporaryFile(dir=door.cache_folder())  # noqa: SIM115
            self.file.seek(self.filed[number])
            self.file.write(bytes_of(state.cpu()))
            self.file.flush()
        except OSError as error:
            raise OSError(
                error.errno, f"hidden states beyond {self.limit:,} bytes found no room in {door.cache_folder()} "
                f"({error.strerror}): {ROOM}; or give stream_layers a smaller block, or more for `waiting`"
            ) from error  # fmt: skip

    def read(self, number):
        state = torch.empty(self.shapes[number], dtype=self.dtype)
        self.file.seek(self.filed[number])
        if self.file.readinto(bytes_of(state)) < state.nbytes:
            raise OSError(f"hidden states in {door.cache_folder()} cannot be read back: use a smaller block")
        return state.to(self.device)


def which_wait_in_memory(sizes, limit):
    """The indices of `sizes` that fit into `limit` bytes together: in order, each that still fits."""
    kept, total = [], 0
    for number, size in enumerate(sizes):
        if total + size <= limit:
            kept.append(number)
            total += size
    return kept


# ----------------------------------------------------------------------------------------------------------- predict


def in_memory(config):
    """The config of the weights in memory while layers are streamed: one layer, no word embeddings."""
    one = copy.copy(config)
    one.num_hidden_layers, one.vocab_size = 1, 0
    return one


def predict(
    config: PretrainedConfig,
    batches: Sequence[Groups],
    *,
    waiting: Size = WAITING["cpu"],
    attention: str = "sdpa",
    chunk: int = inference.CHUNK_TOKENS,
    dtype: torch.dtype = torch.float32,
) -> Footprint:
    """Predict the tensor bytes of `block_logits` on a CPU as a Footprint, for a model of two layers or more.

    `batches` lists the groups of each batch, as for `inference.predict`. While one batch computes, the hidden states of
    the others wait. Raises ValueError as `inference.predict` does.
    """
    own = [inference.predict(config, groups, attention=attention, chunk=chunk, dtype=dtype) for groups in batches]
    tokens = [inference.filled(sum(pairs * length for pairs, length in groups)) for groups in batches]
    sizes = [count * config.hidden_size * dtype.itemsize for count in tokens]
    kept, moments = which_wait_in_memory(sizes, size_of(waiting)), []
    for number, footprint in enumerate(own):
        others = sum(sizes[other] for other in kept if other != number)
        moments += [replace(m, tensors=m.tensors | {"other batches, waiting": others}) for m in footprint.moments]
    parts = {name: count * dtype.itemsize for name, count in parameters(in_memory(config)).items()}
    return Footprint(parts, tuple(moments))
