"""BERT's forward pass as a classifier needs it: the logits of the model's own forward, in less memory and less work.

What is left out changes no number that is used:

- no padding: the tokens of all pairs lie one behind the other, and only attention, which must not look across, takes
  pairs of the same length at a time; so there is no mask either
- the last layer computes queries, feed-forward and norms for the first token of a pair only: the head reads no other
- what is written goes over what is not read again, and the wide tensor of the feed-forward network exists for some
  tokens at a time; the embeddings' output, which BertModel.forward keeps to its end, is let go

Tokens go through the linear layers in chunks of one size, the rest in multiples of 64: for each other number of rows
oneDNN, which multiplies int8, would compile a kernel and keep it (plan.KERNEL_BYTES). The steps are functions of their
own, so that others can order them otherwise, such as layer by layer over many batches.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers import BertForSequenceClassification, PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from zsc_utils._products import WIDENED, int8_engine
from zsc_utils._types import Groups
from zsc_utils.memory import (
    Footprint,
    Moment,
    checked_shape,
    eager_products,
    kernel_tensors,
    largest_block,
    parameters,
    workspace,
)  # fmt: skip

CHUNK_TOKENS = 256  # tokens that go through linear layers at a time on a CPU
STEP_TOKENS = 64  # to a multiple of which tokens are filled up
INT8_BLOCK = 256  # tokens that quantization.tokens_to_int8 makes int8 at a time


@torch.inference_mode()
def logits(
    model: BertForSequenceClassification,
    ids: torch.Tensor,
    types: torch.Tensor,
    groups: Groups,
    *,
    chunk: int | None = None,
) -> torch.Tensor:
    """Logits (pairs, classes) of a BertForSequenceClassification.

    `ids` and `types` (tokens,) hold all pairs one behind the other; `groups` says how they lie, as (pairs, length) of
    neighbours that are of the same length. `chunk`: tokens that go through the linear layers at a time, a multiple of
    64 (default: 256 on a CPU, on a GPU all).
    """
    chunk = chunk or default_chunk(ids)
    hidden = embed(model, ids, types, groups)
    *layers, last = model.bert.encoder.layer
    for layer in layers:
        hidden = feed_forward_part(layer, attention_part(layer, hidden, types, groups, chunk), chunk)
    hidden = attention_part(last, hidden, types, groups, chunk, first_only=True)
    return classified(model, feed_forward_part(last, hidden, chunk), groups)


def default_chunk(ids):
    """Tokens that go through the linear layers at a time: some on a CPU, all on a GPU."""
    return CHUNK_TOKENS if ids.device.type == "cpu" else filled(len(ids))


def classified(model, first, groups):
    """Logits (pairs, classes) from the last states of the pairs' first tokens."""
    return model.classifier(model.bert.pooler(first[:, None]))[: sum(pairs for pairs, _ in groups)]


def filled(tokens):
    """The next multiple of STEP_TOKENS."""
    return -(-tokens // STEP_TOKENS) * STEP_TOKENS


def by_group(tokens, groups):
    """Views (pairs, length, ...) of a tensor (tokens, ...), one for each group; what fills it up is left out."""
    sizes = [pairs * length for pairs, length in groups]
    return [part.unflatten(0, group) for part, group in zip(tokens[: sum(sizes)].split(sizes), groups)]


def embed(model, ids, types, groups):
    """The input of the first layer, (tokens filled up, hidden)."""
    embeddings, more = model.bert.embeddings, filled(len(ids)) - len(ids)
    hidden = embeddings.word_embeddings(pad(ids, (0, more)))
    hidden += embeddings.token_type_embeddings(pad(types, (0, more)))
    for pairs in by_group(hidden, groups):
        pairs += embeddings.position_embeddings(embeddings.position_ids[:, : pairs.shape[1]])
    return embeddings.LayerNorm(hidden)


def first_tokens(hidden, groups):
    """The first token of each pair, (pairs filled up, hidden)."""
    first = [pairs[:, 0] for pairs in by_group(hidden, groups)]
    count = sum(map(len, first))
    return torch.cat([*first, hidden[: filled(count) - count]])  # filled up with anything


def attention_part(layer, hidden, types, groups, chunk, first_only=False):
    """A layer up to its feed-forward network, written over `hidden`; or the states of the pairs' first tokens alone."""
    asking = first_tokens(hidden, groups) if first_only else hidden
    found = attend(layer, asking, hidden, types, groups, chunk)
    multiply = ready(layer.attention.output.dense)
    for tokens, heard in zip(asking.split(chunk), found.split(chunk)):
        joined = multiply(heard)
        joined += tokens
        tokens.copy_(layer.attention.output.LayerNorm(joined))
    return asking


def feed_forward_part(layer, hidden, chunk):
    """A layer's feed-forward network with its residual and norm, written over `hidden`."""
    widen, narrow = ready(layer.intermediate.dense), ready(layer.output.dense)
    for tokens in hidden.split(chunk):
        tokens.copy_(feed_forward(layer, widen, narrow, tokens))
    return hidden


def attend(layer, asking, hidden, types, groups, chunk):
    """Self-attention of the tokens `asking` over those of their pair in `hidden`, by the model's attention function.

    `asking` is `hidden`, or the first tokens; the result is of its shape. Sliding attention asks for the token types.
    """
    attention = layer.attention.self
    query, key, value = (
        project(linear_layer, tokens, chunk)
        for linear_layer, tokens in ((attention.query, asking), (attention.key, hidden), (attention.value, hidden))
    )
    function = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    asked = groups if asking is hidden else [(pairs, 1) for pairs, _ in groups]
    tensors = by_group(query, asked), by_group(key, groups), by_group(value, groups), by_group(types, groups)
    for q, k, v, kinds in zip(*tensors):
        heads = (t.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2) for t in (q, k, v))
        found = function(attention, *heads, None, dropout=0.0, scaling=attention.scaling, token_types=kinds)[0]
        q.copy_(found.flatten(2))
        del found  # or it would exist beside the next group's
    return query


def project(linear_layer, tokens, chunk):
    """A linear layer from hidden to hidden size over all tokens."""
    projected, multiply = torch.empty_like(tokens), ready(linear_layer)
    for part, place in zip(tokens.split(chunk), projected.split(chunk)):
        place.copy_(multiply(part))
    return projected


def feed_forward(layer, widen, narrow, tokens):
    """The feed-forward network with its residual and norm; `widen` and `narrow` are its two products."""
    wide = widen(tokens)
    activate = layer.intermediate.intermediate_act_fn
    wide = torch.ops.aten.gelu_(wide) if type(activate).__name__ == "GELUActivation" else activate(wide)
    narrowed = narrow(wide)
    del wide
    narrowed += tokens
    return layer.output.LayerNorm(narrowed)


def ready(linear_layer):
    """What multiplies chunk after chunk by a layer's matrix: the layer, or, of int8 rows that are multiplied in fp32,
    their matrix in fp32, made once for all chunks."""
    return linear_layer.widened() if getattr(linear_layer, "engine", None) == WIDENED else linear_layer


# ----------------------------------------------------------------------------------------------------------- predict


def predict(
    config: PretrainedConfig,
    groups: Groups,
    *,
    attention: str = "sdpa",
    chunk: int = CHUNK_TOKENS,
    dtype: torch.dtype = torch.float32,
    int8: bool | str = False,
    threads: int | None = None,
    hypothesis: int = 8,
    ask: bool = True,
) -> Footprint:
    """The tensor bytes of `logits` on a CPU, without running it: a Footprint, as memory.predict gives for BERT's own.

    With u = tokens x hidden x 4 bytes (2 for fp16): attention holds the layer's input, q, k and v, 4 u, and the largest
    group's output with what its kernel takes (eager: twice its scores), so 5 u for pairs of one length; the rest of a
    layer 2 u and, of one chunk, its wide tensor, its input and its output. `int8`: for int8 models, True or the engine
    of their products (_products.int8_engine). "packed" and "plain" keep a copy of their input in int8; "widened" holds
    a layer's matrices in fp32 while it multiplies. The Footprint's weights are fp32's even so. `hypothesis`: its
    tokens, for sliding attention. `ask`: whether the workspace of products in 8 and 16 bits is asked for, as
    memory.workspace does, or left out; in fp32 on x86 there is none. Raises ValueError as memory.predict does.
    """
    if not groups or isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1 or chunk % STEP_TOKENS:
        raise ValueError(
            f"groups {groups!r}, chunk {chunk!r}: give at least one group, and a multiple of {STEP_TOKENS}"
        )
    options = {"hypothesis": hypothesis, "ask": ask}
    shapes = [checked_shape(config, *group, attention, False, 0, dtype, threads, **options) for group in groups]
    tokens, first = filled(sum(s.batch * s.length for s in shapes)), filled(sum(s.batch for s in shapes))
    engine = int8_engine() if int8 is True else int8 or None
    size = Sizes(config, dtype, chunk, engine, shapes[0].threads, ask)
    one_layer = config.num_hidden_layers == 1
    moments = [
        *embedding_moments(size, tokens),
        *(() if one_layer else attention_moments(size, shapes, tokens)),
        *attention_moments(size, shapes, tokens, first),
        *(() if one_layer else feed_forward_moments(size, tokens)),
        *feed_forward_moments(size, first),
        *head_moments(size, first),
    ]
    parts = {name: count * dtype.itemsize for name, count in parameters(config).items()}
    return Footprint(parts, tuple(moments))


@dataclass(frozen=True)
class Sizes:
    """Bytes of what some tokens take on their way."""

    config: object
    dtype: torch.dtype
    chunk: int
    int8: str | None  # the engine of its products, for int8 models
    threads: int
    ask: bool

    @property
    def item(self):
        return self.dtype.itemsize

    def states(self, tokens):
        return tokens * self.config.hidden_size * self.item

    def normed(self, tokens):
        """LayerNorm's output, with the mean and deviation of every token."""
        return self.states(tokens) + 2 * tokens * self.item

    def linear(self, tokens, wide, narrow):
        """What a linear layer from `wide` to `narrow` numbers a token takes at most for a chunk, output included."""
        whole, rest = min(tokens, self.chunk), tokens % self.chunk
        return max(self.product(rows, wide, narrow) for rows in (whole, rest) if rows)

    def product(self, rows, wide, narrow):
        """What one product takes, output and workspace included, an fp32 matrix of int8 rows not."""
        output = rows * narrow * self.item
        if self.int8 == WIDENED:
            return output
        if self.ask:
            output += workspace(self.int8 or self.dtype, self.threads, rows, wide, narrow)
        if not self.int8:
            return output
        kept = rows * (wide + 4)  # the input in int8, and a scale a token
        return kept + max(min(rows, INT8_BLOCK) * wide * 4, output)

    def widened(self, *matrices):
        """An fp32 matrix, or several, that are made of int8 rows; (wide, narrow) of each."""
        return {"int8 rows in fp32": 4 * sum(map(math.prod, matrices)) * (self.int8 == WIDENED)}


def embedding_moments(size, tokens):
    """Types and positions are added to the words, and the sum is normed."""
    u = size.states(tokens)
    rows = tokens * (size.config.hidden_size + 4) if size.int8 else 0
    yield Moment("embeddings", "summed", {"words": u, "token types": u, "int8 rows": rows, "type ids": 8 * tokens})
    yield Moment("embeddings", "normed", {"words": u, "LayerNorm": size.normed(tokens)})


def attention_moments(size, shapes, tokens, first=None):
    """One layer's attention; in the last layer only the `first` tokens of the pairs ask."""
    first_only = first is not None
    u, query, hidden = size.states(tokens), size.states(first if first_only else tokens), size.config.hidden_size
    held = {"layer input": u, "first tokens": query * first_only, "query": query, "key": u, "value": u}
    projected = {"chunk": size.linear(tokens, hidden, hidden)} | size.widened((hidden, hidden))
    yield Moment("attention", "value projected", held | projected)
    for shape in shapes:
        inside = {"sdpa": sdpa_moments, "eager": eager_moments, "sliding": sliding_moments}[shape.attention]
        for what, tensors in inside(shape, 1 if first_only else shape.length):
            yield Moment("attention", what, held | tensors)


def sdpa_moments(s, queries):
    """(what, tensors) of one group in torch's kernel, which never builds the matrix of scores."""
    output = s.hidden * queries // s.length
    yield "inside the kernel", {"output": output} | kernel_tensors(s, queries)


def sliding_moments(s, queries):
    """(what, tensors) of one group in attention.sliding, which takes one block at a time."""
    output = s.hidden * queries // s.length
    yield "inside a block", {"output": output} | largest_block(s, first_only=queries == 1)


def eager_moments(s, queries):
    """(what, tensors) of one group in eager attention; see memory.attention_moments."""
    w, output = s.scores * queries // s.length, s.hidden * queries // s.length
    scoring, weighting = eager_products(s, queries)
    yield "scores", {"scores": w} | scoring
    yield "scores scaled", {"scores": w, "scaled scores": w, "scale": 8 + s.item}
    yield "weighted", {"weights": w, "output": output} | weighting
    yield "heads joined", {"weights": w, "output": output, "heads joined": output * (s.heads_move and queries > 1)}


def feed_forward_moments(size, tokens):
    """A layer after attention's kernel, one chunk at a time; only until its residual is added is what attention found
    alive beside the hidden states."""
    hidden, wide, chunk = size.config.hidden_size, size.config.intermediate_size, min(tokens, size.chunk)
    held = {"hidden states": size.states(tokens)}
    found = held | {"found by attention": size.states(tokens)} | size.widened((hidden, hidden))
    yield Moment("attention", "output projected", found | {"chunk": size.linear(tokens, hidden, hidden)})
    yield Moment("attention", "normed", found | {"chunk": size.states(chunk), "LayerNorm": size.normed(chunk)})
    held |= size.widened((hidden, wide), (wide, hidden))
    yield Moment("feed-forward", "widened", held | {"wide": size.linear(tokens, hidden, wide)})
    for rows in {chunk, tokens % size.chunk or chunk}:
        widened = {"wide": rows * wide * size.item, "narrow": size.product(rows, wide, hidden)}
        yield Moment("feed-forward", "narrowed", held | widened)
    yield Moment("feed-forward", "normed", held | {"narrow": size.states(chunk), "LayerNorm": size.normed(chunk)})


def head_moments(size, first):
    """The pooler over the pairs' first tokens; the classifier's logits are a few numbers."""
    hidden = size.config.hidden_size
    pooling = {"dense": size.product(first, hidden, hidden)} | size.widened((hidden, hidden))
    yield Moment("pooler and head", "pooling", {"first tokens": size.states(first)} | pooling)
    yield Moment("pooler and head", "pooled", {"first tokens": 3 * size.states(first)})
