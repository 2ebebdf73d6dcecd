"""Predict and measure memory, in bytes.

There are two kinds of bytes; do not mix them. Tensor bytes are exact: `predict` computes them, `tensor_peak` counts
them. Process memory is anonymous or file-backed pages: `process_peak` measures it. `parse_size` reads "300MB".
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import PretrainedConfig

from zsc_utils._process import ChildError, ProcessPeak, evict, process_peak, proportional, resident
from zsc_utils._sizes import format_size, parse_size
from zsc_utils._tensors import Step, attention_workspace, eager_workspace, tensor_peak, timeline, workspace
from zsc_utils._text import whole_number
from zsc_utils.language import padded, translated

__all__ = [
    "ChildError", "Footprint", "Moment", "ProcessPeak", "Step", "evict", "format_size", "parameters", "parse_size",
    "predict", "process_peak", "proportional", "resident", "tensor_peak", "timeline",
]  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- predict

PHASES = ("embeddings", "attention", "feed-forward", "pooler and head")
# Block sizes of torch's flash attention for CPUs: (least number of queries, queries per block), and keys per block
QUERY_BLOCKS = ((768, 256), (192, 64), (1, 32))
KEY_BLOCK = 512


@dataclass(frozen=True)
class Moment:
    """A point of the forward pass where memory may peak, with the bytes of each tensor alive there, by name."""

    phase: str
    what: str
    tensors: dict

    @property
    def bytes(self):
        return sum(self.tensors.values())


@dataclass(frozen=True)
class Footprint:
    """The tensor bytes of a forward pass: `weights`, `peak_activations` and their sum `total`, all ints.

    `weights_by_part`: bytes of each part of the model. `moments`: every Moment considered. `peak`: the largest Moment.
    `phases`: the largest bytes of each phase. The input ids, mask and token types are not counted.
    """

    weights_by_part: dict
    moments: tuple = field(repr=False)

    @property
    def weights(self):
        return sum(self.weights_by_part.values())

    @property
    def phases(self):
        return {phase: max(m.bytes for m in self.moments if m.phase == phase) for phase in PHASES}

    @property
    def peak(self):
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def peak_activations(self):
        return self.peak.bytes

    @property
    def total(self):
        return self.weights + self.peak_activations

    def __str__(self):
        rows = [(f"weights: {part}", size) for part, size in self.weights_by_part.items()]
        rows += [(f"{self.peak.phase}: {name}", size) for name, size in self.peak.tensors.items() if size]
        lines = [f"{padded(translated(name), 46)}{size:>15,}" for name, size in [*rows, ("total", self.total)]]
        return "\n".join([*lines[:-1], "-" * 61, lines[-1]])


@dataclass(frozen=True)
class Shape:
    """The sizes of one forward pass. They determine the bytes of each tensor."""

    config: object
    batch: int
    length: int
    attention: str
    padded: bool
    chunk: int
    dtype: torch.dtype
    threads: int
    window: int  # sliding attention: tokens that a token sees to each side
    hypothesis: int  # sliding attention: tokens of the hypothesis, which see all tokens
    ask: bool  # whether to measure attention's workspace in 16 bits; if not, it is computed as in fp32

    @property
    def item(self):
        """Bytes of one number."""
        return self.dtype.itemsize

    @property
    def hidden(self):
        """Bytes of the hidden states: batch x length x hidden numbers. Most tensors of the pass have this size."""
        return self.batch * self.length * self.config.hidden_size * self.item

    @property
    def intermediate(self):
        """Bytes of the wide tensor in the feed-forward network: batch x length x intermediate numbers."""
        return self.batch * self.length * self.config.intermediate_size * self.item

    @property
    def square(self):
        """How many numbers a batch x length x length matrix has."""
        return self.batch * self.length**2

    @property
    def scores(self):
        """Bytes of eager attention's scores: batch x heads x length x length numbers. SDPA never builds this matrix."""
        return self.config.num_attention_heads * self.square * self.item if self.attention == "eager" else 0

    @property
    def mask(self):
        """Bytes of the padding mask that stays alive for the whole pass: sliding attention keeps one boolean per token,
        SDPA one boolean per pair of tokens, eager attention one number per pair of tokens."""
        sizes = {"sliding": self.batch * self.length, "sdpa": self.square, "eager": self.square * self.item}
        return sizes[self.attention] if self.padded else 0

    @property
    def norm(self):
        """Bytes of LayerNorm's output, and of each token's mean and deviation, which torch keeps for backward."""
        return self.hidden + 2 * self.batch * self.length * self.item

    @property
    def held(self):
        """Bytes of the tensors alive in every layer: its input, the padding mask and the embeddings' output.
        BertModel.forward keeps the embeddings' output until it returns. In the first layer, this is the layer's input.
        Layers that overwrite their input overwrite the embeddings' output too, so it takes no extra bytes."""
        embedded = self.hidden if self.config.num_hidden_layers > 1 and not self.overwrites else 0
        return {"embeddings' output": embedded, "layer input": self.hidden, "padding mask": self.mask}

    @property
    def overwrites(self):
        """Whether layers overwrite their input, as those of attention.chunk_feed_forward do."""
        return hasattr(self.config, "feed_forward_tokens")

    def workspace(self, rows, wide, narrow):
        """Bytes that a linear layer's product takes besides its result, measured in torch, as a dict."""
        return {"workspace of the product (asked)": workspace(self.dtype, self.threads, rows, wide, narrow)}

    @property
    def heads_move(self):
        """Whether (batch, length, heads, size) -> (batch, heads, length, size) changes the order in memory."""
        return self.length > 1 and self.config.num_attention_heads > 1


def predict(
    config: PretrainedConfig,
    batch: int,
    length: int,
    *,
    attention: str = "sdpa",
    padded: bool = False,
    ffn_chunk: int | None = None,
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
    window: int | None = None,
    hypothesis: int = 8,
) -> Footprint:
    """Predict the tensor bytes of a forward pass of BertForSequenceClassification on a CPU, without running it.

    Returns a Footprint. No term is fitted: each is a tensor that transformers 5 or torch 2.13 allocates. The peak is
    the largest sum below. B = `batch`, S = `length`, h = hidden size, f = intermediate size, a = heads, and
    `u` = B x S x h x 4 bytes (2 in 16 bits). The sums are for two or more layers, without padding:

    - embeddings: 4 u (words, token types, sum, LayerNorm) and S x h numbers for the positions of one text
    - attention, SDPA: 6 u (embeddings' output, layer input, q, k, v, output), one number per token and head, and
      scratch: per thread one block of scores (up to 256 x 512) with its sums and its output
    - attention, eager: 5 u, two B x a x S x S matrices of scores (before and after scaling), and the scale as a
      double and as a number; or a step before or after, if it needs more because it copies q, k or v
    - attention, sliding: 6 u and the tensors of one block, which do not grow with the length
    - end of attention: 6 u (embeddings' output, layer input, attention, dense, residual sum, LayerNorm)
    - feed-forward: 3 u and two tensors B x S x f (before and after GELU); eager's scores are still alive.
      In chunks of c tokens: the two are B x c x f, and finished chunks are added. With attention.chunk_feed_forward:
      2 u and two tensors c x f; attention then takes 5 u instead of 6 u, because layers overwrite their input
    - pooler and head: 2 u and a few numbers per text

    With padding, SDPA keeps B x S x S booleans and converts them to numbers in each layer; eager keeps B x S x S
    numbers; sliding keeps B x S booleans.
    Each parameter counts once. BERT's two small index buffers are not in the weights' file and are not counted.

    The model runs in eval mode under torch.inference_mode, with ids, mask and token types. `padded`: whether any text
    of the batch is shorter than `length`. `ffn_chunk`: tokens of a chunk; it must divide `length`, except for a
    checkpoint of attention.chunk_feed_forward (default: as the config says; 0: no chunks). `window`: tokens that
    sliding attention sees to each side (default: as the config says, or 128). `hypothesis`: its tokens, with [SEP].
    `threads`: the threads torch will use (default: torch.get_num_threads()); scratch grows with them.
    In bf16 and fp16, kernels of many CPUs need an extra workspace. Its size depends on the processor, so torch runs
    one operation of each shape to measure it (`_tensors.workspace`).
    Raises ValueError for shapes that the model cannot run, and for configs that this function does not cover.
    """
    shape = checked_shape(config, batch, length, attention, padded, ffn_chunk, dtype, threads, window, hypothesis)
    parts = {name: count * shape.item for name, count in parameters(config).items()}
    moments = [*embedding_moments(shape), *attention_moments(shape), *feed_forward_moments(shape), *head_moments(shape)]
    return Footprint(parts, tuple(moments))


def checked_shape(
    config, batch, length, attention, padded, ffn_chunk, dtype, threads, window=None, hypothesis=8, ask=True
):
    """Return the Shape. Raises ValueError that names the wrong value and, for most, the values allowed."""
    threads = torch.get_num_threads() if threads is None else threads
    window = (getattr(config, "sliding_window", None) or 128) if window is None else window
    overwrites = hasattr(config, "feed_forward_tokens")
    if ffn_chunk is None:
        ffn_chunk = config.feed_forward_tokens if overwrites else config.chunk_size_feed_forward
    if config.model_type != "bert" or config.is_decoder or config.output_hidden_states or config.output_attentions:
        raise ValueError(
            "predicted is a plain BERT encoder that returns logits only: no decoder, no states, no attentions"
        )
    for name, value in {"batch": batch, "length": length, "threads": threads, "window": window}.items():
        whole_number(name, value)
    whole_number("ffn_chunk", ffn_chunk, least=0)
    whole_number("hypothesis", hypothesis, least=0)
    if length > config.max_position_embeddings:
        raise ValueError(f"length {length}: the model has positions for {config.max_position_embeddings} tokens")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(f"hidden size {config.hidden_size} is no multiple of {config.num_attention_heads} heads")
    if config.num_hidden_layers < 1:
        raise ValueError(f"{config.num_hidden_layers} layers: predicted is a model with one or more")
    if config.hidden_act != "gelu":
        raise ValueError(f"activation {config.hidden_act!r}: predicted is BERT's own, 'gelu'")
    if attention not in ("sdpa", "eager", "sliding"):
        raise ValueError(f"attention {attention!r}: predicted are 'sdpa', 'eager' and 'sliding'")
    if ffn_chunk and length % ffn_chunk and not overwrites:
        raise ValueError(f"ffn_chunk {ffn_chunk} does not divide length {length}: transformers refuses such chunks")
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype {dtype!r}: choose torch.float32, torch.float16 or torch.bfloat16")
    if padded and length == 1:
        raise ValueError("padded texts of length 1: a text has at least one token, so nothing can be padding")
    return Shape(config, batch, length, attention, bool(padded), ffn_chunk, dtype, threads, window, hypothesis, ask)


def parameters(config: PretrainedConfig) -> dict[str, int]:
    """Return the number of parameters of each part of the model. Their sum is the number in the checkpoint's file."""
    h, f, layers, classes = (
        config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_labels,
    )  # fmt: skip
    return {
        "embeddings": (config.vocab_size + config.max_position_embeddings + config.type_vocab_size) * h,
        "attention": layers * 4 * (h * h + h),  # query, key, value, output, each with a bias
        "feed-forward": layers * (h * f + f + f * h + h),
        "norm": (1 + 2 * layers) * 2 * h,  # after the embeddings, and two in each layer
        "head": h * h + h + h * classes + classes,  # pooler and classifier
    }


def embedding_moments(s):
    """Yield the Moments of the embeddings and their LayerNorm, then of expanding a padding mask to pairs of tokens."""
    u, tokens = s.hidden, s.batch * s.length
    looked_up = {"words": u, "token types": u, "positions": s.length * s.config.hidden_size * s.item}
    yield Moment("embeddings", "normed", {**looked_up, "words + types + positions": u, "LayerNorm": s.norm})
    if not s.padded or s.attention == "sliding":
        return
    seen = {"embeddings' output": u, "mask as booleans": tokens}
    texts, heads, positions = 8 * s.batch, 8, 8 * s.length  # bytes of int64 indices
    indices = texts + heads + 2 * positions + s.length
    yield Moment("embeddings", "mask spread", {**seen, "indices": indices, "picked": tokens, "mask": s.square})
    if s.attention == "eager":  # masked positions become a large negative number
        as_numbers = (s.square + 2) * s.item  # 2: the values for masked and unmasked positions
        yield Moment("embeddings", "mask as numbers", {**seen, "mask": s.square, "mask as numbers": as_numbers})


def attention_moments(s):
    """Yield the Moments of one layer's attention, from its projections to its LayerNorm."""
    u, w, projections = s.hidden, s.scores, {"query, key, value": 3 * s.hidden}
    held, h = s.held | projections, s.config.hidden_size
    yield Moment("attention", "value projected", held | s.workspace(s.batch * s.length, h, h))
    if s.attention == "sdpa":
        inside = {"mask as numbers": s.square * s.item if s.padded else 0, "attention output": u}
        yield Moment("attention", "inside the kernel", held | inside | kernel_tensors(s, s.length))
    elif s.attention == "sliding":
        yield Moment("attention", "inside a block", held | {"attention output": u} | largest_block(s))
    else:
        scoring, weighting = eager_products(s, s.length)
        scale = 8 + s.item  # a Python float becomes a double, then a number of the scores' dtype
        yield Moment("attention", "scores", held | {"scores": w} | scoring)
        yield Moment("attention", "scores scaled", held | {"scores": w, "scaled scores": w, "scale": scale})
        yield Moment("attention", "weighted", held | {"weights": w, "attention output": u} | weighting)
        if s.heads_move:
            yield Moment("attention", "heads joined", held | {"weights": w, "attention output": u, "heads joined": u})
    end = {"attention weights": w, "attention output": u, "dense": u}
    yield Moment("attention", "output projected", s.held | end | s.workspace(s.batch * s.length, h, h))
    yield Moment("attention", "normed", s.held | end | {"residual sum": u, "LayerNorm": s.norm})


class Block(NamedTuple):
    """Rows of sliding attention that are computed together. Rows from start to stop see the first key and the keys from
    low to high. `banded`: some of these rows do not see all of these keys."""

    start: int
    stop: int
    low: int
    high: int
    banded: bool


def sliding_blocks(length, hypothesis, window):
    """Return the Blocks of one pair. The first token and the last `hypothesis` tokens see all tokens. Other tokens see
    the first token and the tokens within the window."""
    text = max(1, length - hypothesis)
    blocks, size = [Block(0, 1, 0, length, False)], max(window, 64)
    for start in range(1, text, size):
        stop = min(start + size, text)
        low, high = max(0, start - window), min(length, stop + window)
        low *= low > 1  # at low = 1, keys from 0 on are contiguous and need no copy
        banded = start + window < high - 1 or stop - 1 - window > max(low, 1)  # all rows see the first key
        blocks.append(Block(start, stop, low, high, banded))
    if text < length:
        blocks.append(Block(text, length, 0, length, False))
    return blocks


def largest_block(s, first_only=False):
    """Return {name: bytes} of the tensors of the largest Block of sliding attention."""
    width, item = s.config.hidden_size, s.item
    blocks = sliding_blocks(s.length, s.hypothesis, s.window)
    found = []
    for block in blocks[:1] if first_only else blocks:
        cut_off = bool(block.low)  # then the first token's key is copied in front of the others
        rows, keys = block.stop - block.start, block.high - block.low + cut_off
        found.append(
            {
                "keys and values, copied": 2 * keys * width * item * cut_off,
                "band": rows * keys * block.banded,
                "band as numbers": rows * keys * item * block.banded,
                "block's output": rows * width * item,
            }
            | kernel_tensors(s, rows, keys, batch=1, masked=block.banded)
        )
    return max(found, key=lambda tensors: sum(tensors.values()))


def eager_products(s, queries):
    """Bytes that eager attention's two products (scores, weighted sum) take besides their results: two dicts.

    In fp32, bmm needs batch and heads as one dimension, so it copies its inputs. In 16 bits, torch is measured."""
    if s.item < 4 and s.ask:
        shape = s.batch, s.config.num_attention_heads, queries, s.length
        size = s.config.hidden_size // s.config.num_attention_heads
        asked = (eager_workspace(s.dtype, s.threads, *shape, size, weighted) for weighted in (False, True))
        return tuple({"workspace of the product (asked)": workspace} for workspace in asked)
    copied = s.heads_move and s.batch > 1
    asking = s.hidden if queries > 1 else 0
    return {"query and key, copied": (asking + s.hidden) * copied}, {"value, copied": s.hidden * copied}


def kernel_tensors(s, queries, keys=None, batch=None, masked=None):
    """Bytes that torch's flash attention for CPUs allocates besides its output: the log of each query's sum of
    exponentials, and scratch. `queries` and `keys` are numbers of tokens per text (default of `keys`: the length)."""
    keys, batch, heads = keys or s.length, batch or s.batch, s.config.num_attention_heads
    if s.item < 4 and s.ask:  # on some processors the kernel copies keys and values into another layout
        masked = s.padded if masked is None else masked
        shape = batch, heads, queries, keys, s.config.hidden_size // heads, masked
        return {"kernel scratch (asked)": attention_workspace(s.dtype, s.threads, *shape)}
    return {"log of sums": batch * heads * queries * 4, "kernel scratch (per thread)": flash_scratch(s, queries, keys)}


def flash_scratch(s, queries, keys):
    """Bytes of scratch of torch's CPU flash attention: per thread one block of scores, two sums per query, the output.

    All are in fp32. In 16 bits there is a second block of scores, in 16 bits.
    Source: aten/src/ATen/native/cpu/FlashAttentionKernel.cpp."""
    queries = min(queries, next(block for least, block in QUERY_BLOCKS if queries >= least))
    keys = min(keys, KEY_BLOCK)
    head_size = s.config.hidden_size // s.config.num_attention_heads
    fp32 = 4 * (queries * keys + 2 * queries + queries * head_size)
    return s.threads * (fp32 + (s.item * queries * keys if s.item < 4 else 0))


def feed_forward_moments(s):
    """Yield the Moments of one layer's feed-forward network, whole or in chunks of tokens."""
    if s.overwrites:
        yield from overwriting_moments(s)
        return
    held = s.held | {"attention weights": s.scores, "after attention": s.hidden}
    chunks = s.length // s.chunk if s.chunk else 1
    u, f = s.hidden // chunks, s.intermediate // chunks
    h, wide, rows = s.config.hidden_size, s.config.intermediate_size, s.batch * s.length // chunks
    widening, narrowing = s.workspace(rows, h, wide), s.workspace(rows, wide, h)
    if s.chunk:  # transformers collects the finished chunks, then joins them
        yield Moment("feed-forward", "chunks joined", held | {"chunks done": chunks * u, "joined": s.hidden})
        held = held | {"chunks done": (chunks - 1) * u}
    copy = u if chunks > 1 and s.batch > 1 else 0  # a slice of several texts is not contiguous, so it is copied
    yield Moment("feed-forward", "widened", held | {"chunk, copied": copy, "widened": f} | widening)
    yield Moment("feed-forward", "after GELU", held | {"widened": f, "after GELU": f})
    end = {"after GELU": f, "dense": u}
    yield Moment("feed-forward", "narrowed", held | end | narrowing)
    yield Moment("feed-forward", "normed", held | end | {"residual sum": u, "LayerNorm": s.norm // chunks})


def overwriting_moments(s):
    """Yield the Moments of attention.chunk_feed_forward's network. A chunk may hold tokens of several texts."""
    tokens, h, wide = s.batch * s.length, s.config.hidden_size, s.config.intermediate_size
    share = min(s.chunk or tokens, tokens)
    held, u, f = s.held | {"after attention": s.hidden}, share * h * s.item, share * wide * s.item
    for rows in {share, tokens % share or share}:
        yield Moment("feed-forward", "widened", held | {"widened": rows * wide * s.item} | s.workspace(rows, h, wide))
        narrowed = {"after GELU": rows * wide * s.item, "dense": rows * h * s.item}
        yield Moment("feed-forward", "narrowed", held | narrowed | s.workspace(rows, wide, h))
    yield Moment("feed-forward", "after GELU", held | {"widened": f, "after GELU": f})
    end = {"after GELU": f, "dense": u, "residual sum": u, "LayerNorm": u + 2 * share * s.item}
    yield Moment("feed-forward", "normed", held | end)


def head_moments(s):
    """Yield the Moments of the pooler, which reads the first token's state, and of the classifier."""
    pooled = s.batch * s.config.hidden_size * s.item
    embedded = 0 if s.overwrites else s.hidden
    states = {"embeddings' output": embedded, "last hidden state": s.hidden, "padding mask": s.mask}
    h = s.config.hidden_size
    yield Moment("pooler and head", "pooling", states | {"dense": pooled} | s.workspace(s.batch, h, h))
    yield Moment("pooler and head", "pooled", states | {"dense": pooled, "tanh": pooled})
    # BertModel.forward has returned and let go of the embeddings' output and the mask
    logits = {"last hidden state": s.hidden, "pooled": pooled, "logits": s.batch * s.config.num_labels * s.item}
    yield Moment("pooler and head", "classified", logits | s.workspace(s.batch, h, s.config.num_labels))
