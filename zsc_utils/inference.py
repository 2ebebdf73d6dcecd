"""BERT's forward pass for classification: the same logits as the model's own forward, with less memory and less work.

It saves memory and work without changing the logits:

- There is no padding and no mask. The tokens of all pairs are concatenated. Attention must not mix pairs, so it takes
  one group of pairs of the same length at a time.
- The last layer computes queries, feed-forward and norms only for each pair's first token: the head reads no other.
- Results overwrite tensors that are not read again. The wide tensor of the feed-forward network exists for one chunk
  of tokens at a time. The embeddings' output is not kept; BertModel.forward keeps it until it returns.

Tokens go through the linear layers in chunks of one size; the last chunk is a multiple of 64. For each other number of
rows, oneDNN (for int8) would compile a kernel and keep it (plan.INT8_KERNEL_BYTES). Each step is its own function, so
that other modules can run the steps in another order, such as layer by layer over many batches.
"""

import math
from dataclasses import dataclass, replace

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
STEP_TOKENS = 64  # numbers of tokens are rounded up to a multiple of this
INT8_BLOCK = 256  # tokens that quantization.tokens_to_int8 converts to int8 at a time


@torch.inference_mode()
def logits(
    model: BertForSequenceClassification,
    ids: torch.Tensor,
    types: torch.Tensor,
    groups: Groups,
    *,
    chunk: int | None = None,
) -> torch.Tensor:
    """Return the logits (pairs, classes) of a BertForSequenceClassification.

    `ids` and `types`, both (tokens,), hold all pairs concatenated. `groups` gives (pairs, length in tokens) of each
    run of consecutive pairs of the same length. `chunk`: tokens that go through the linear layers at a time, a
    multiple of 64 (default: 256 on a CPU, all on a GPU).
    """
    chunk = chunk or default_chunk(ids)
    hidden = embed(model, ids, types, groups)
    *layers, last = model.bert.encoder.layer
    for layer in layers:
        hidden = feed_forward_part(layer, attention_part(layer, hidden, types, groups, chunk), chunk)
    hidden = attention_part(last, hidden, types, groups, chunk, first_only=True)
    return classified(model, feed_forward_part(last, hidden, chunk), groups)


def default_chunk(ids):
    """Return the tokens that go through the linear layers at a time: CHUNK_TOKENS on a CPU, all on a GPU."""
    return CHUNK_TOKENS if ids.device.type == "cpu" else filled(len(ids))


def classified(model, first, groups):
    """Return the logits (pairs, classes) from the last hidden states of the pairs' first tokens."""
    return model.classifier(model.bert.pooler(first[:, None]))[: sum(pairs for pairs, _ in groups)]


def filled(tokens):
    """Round a number of tokens up to a multiple of STEP_TOKENS."""
    return -(-tokens // STEP_TOKENS) * STEP_TOKENS


def by_group(tokens, groups):
    """Return views (pairs, length, ...) of a tensor (tokens, ...), one per group, without the rows that fill it up."""
    sizes = [pairs * length for pairs, length in groups]
    return [part.unflatten(0, group) for part, group in zip(tokens[: sum(sizes)].split(sizes), groups)]


def embed(model, ids, types, groups):
    """Return the input of the first layer, (tokens rounded up, hidden)."""
    embeddings, more = model.bert.embeddings, filled(len(ids)) - len(ids)
    hidden = embeddings.word_embeddings(pad(ids, (0, more)))
    hidden += embeddings.token_type_embeddings(pad(types, (0, more)))
    for pairs in by_group(hidden, groups):
        pairs += embeddings.position_embeddings(embeddings.position_ids[:, : pairs.shape[1]])
    return embeddings.LayerNorm(hidden)


def first_tokens(hidden, groups):
    """Return the state of each pair's first token, (pairs rounded up, hidden)."""
    first = [pairs[:, 0] for pairs in by_group(hidden, groups)]
    count = sum(map(len, first))
    return torch.cat([*first, hidden[: filled(count) - count]])  # the values of the added rows do not matter


def attention_part(layer, hidden, types, groups, chunk, first_only=False):
    """Run a layer up to its feed-forward network. It overwrites `hidden`; with `first_only` it returns a new tensor."""
    asking = first_tokens(hidden, groups) if first_only else hidden
    found = attend(layer, asking, hidden, types, groups, chunk)
    multiply = ready(layer.attention.output.dense)
    for tokens, heard in zip(asking.split(chunk), found.split(chunk)):
        joined = multiply(heard)
        joined += tokens
        tokens.copy_(layer.attention.output.LayerNorm(joined))
    return asking


def feed_forward_part(layer, hidden, chunk):
    """Run a layer's feed-forward network with its residual and norm. The result overwrites `hidden`."""
    widen, narrow = ready(layer.intermediate.dense), ready(layer.output.dense)
    for tokens in hidden.split(chunk):
        tokens.copy_(feed_forward(layer, widen, narrow, tokens))
    return hidden


def attend(layer, asking, hidden, types, groups, chunk):
    """Return the self-attention of the tokens `asking` (queries) over the tokens of their pair in `hidden` (keys).

    `asking` is `hidden` or the first tokens; the result has its shape. The model's attention function is used. Sliding
    attention needs the token types."""
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
        del found  # or it would be alive together with the next group's output
    return query


def project(linear_layer, tokens, chunk):
    """Apply a linear layer, from hidden size to hidden size, to all tokens, chunk by chunk."""
    projected, multiply = torch.empty_like(tokens), ready(linear_layer)
    for part, place in zip(tokens.split(chunk), projected.split(chunk)):
        place.copy_(multiply(part))
    return projected


def feed_forward(layer, widen, narrow, tokens):
    """Return the feed-forward network's output after residual and norm. `widen` and `narrow` are its two products."""
    wide = widen(tokens)
    activate = layer.intermediate.intermediate_act_fn
    wide = torch.ops.aten.gelu_(wide) if type(activate).__name__ == "GELUActivation" else activate(wide)
    narrowed = narrow(wide)
    del wide
    narrowed += tokens
    return layer.output.LayerNorm(narrowed)


def ready(linear_layer):
    """Return a function that applies a linear layer to a chunk: the layer itself, or, for int8 weights that are
    multiplied in fp32, a function that holds the fp32 matrix, which is made once for all chunks."""
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
    """Predict the tensor bytes of `logits` on a CPU, without running it: a Footprint, like that of memory.predict.

    With u = tokens x hidden x 4 bytes (2 in 16 bits): attention holds 4 u (layer input, q, k, v), the largest group's
    output and its kernel's tensors (eager: two matrices of scores): 5 u for pairs of one length. The output projection
    holds 2 u and one chunk; the feed-forward network holds 1 u and one chunk's wide tensor and output. `int8`: for int8
    models, True or the engine (_products.int8_engine). "packed" and "plain" keep an int8 copy of their input. "widened"
    holds a layer's matrices in fp32 while it multiplies. The Footprint's weights are those of `dtype` even for int8.
    `hypothesis`: its tokens, for sliding attention. `ask`: whether to measure the workspace of products in 8 and 16
    bits (memory.workspace) or leave it out; in fp32 with MKL there is none. Raises ValueError as memory.predict does.
    """
    if not groups or type(chunk) is not int or chunk < STEP_TOKENS or chunk % STEP_TOKENS:
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
    """The bytes that tensors take for a number of tokens."""

    config: object
    dtype: torch.dtype
    chunk: int
    int8: str | None  # for int8 models, the engine of their products
    threads: int
    ask: bool

    @property
    def item(self):
        return self.dtype.itemsize

    def states(self, tokens):
        return tokens * self.config.hidden_size * self.item

    def normed(self, tokens):
        """Bytes of LayerNorm's output, with the mean and deviation of every token."""
        return self.states(tokens) + 2 * tokens * self.item

    def linear(self, tokens, wide, narrow):
        """The most bytes that a linear layer from `wide` to `narrow` numbers a token takes for a chunk, with output."""
        whole, rest = min(tokens, self.chunk), tokens % self.chunk
        return max(self.product(rows, wide, narrow) for rows in (whole, rest) if rows)

    def product(self, rows, wide, narrow):
        """Bytes of one product: output and workspace, but not the fp32 matrix that is made from int8 rows."""
        output = rows * narrow * self.item
        if self.int8 == WIDENED:
            return output
        if self.ask:
            output += workspace(self.int8 or self.dtype, self.threads, rows, wide, narrow)
        if not self.int8:
            return output
        kept = rows * (wide + 4)  # the input in int8, and one fp32 scale per token
        return kept + max(min(rows, INT8_BLOCK) * wide * 4, output)

    def widened(self, *matrices):
        """Bytes of the fp32 matrices that are made from int8 rows, as a dict. `matrices`: (wide, narrow) of each."""
        return {"int8 rows in fp32": 4 * sum(map(math.prod, matrices)) * (self.int8 == WIDENED)}


def embedding_moments(size, tokens):
    """Yield the Moments of summing the embeddings and of their LayerNorm."""
    u = size.states(tokens)
    rows = tokens * size.config.hidden_size if size.int8 else 0
    yield Moment("embeddings", "summed", {"words": u, "token types": u, "int8 rows": rows, "type ids": 8 * tokens})
    yield Moment("embeddings", "normed", {"words": u, "LayerNorm": size.normed(tokens)})


def attention_moments(size, shapes, tokens, first=None):
    """Yield the Moments of one layer's attention. In the last layer, only the `first` tokens have queries."""
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
    """Yield (what, tensors) of one group in torch's kernel, which never builds the matrix of scores."""
    output = s.hidden * queries // s.length
    yield "inside the kernel", {"output": output} | kernel_tensors(s, queries)


def sliding_moments(s, queries):
    """Yield (what, tensors) of one group in attention.sliding, which computes one block at a time."""
    output = s.hidden * queries // s.length
    yield "inside a block", {"output": output} | largest_block(s, first_only=queries == 1)


def eager_moments(s, queries):
    """Yield (what, tensors) of one group in eager attention; see memory.attention_moments."""
    w, output = s.scores * queries // s.length, s.hidden * queries // s.length
    scoring, weighting = eager_products(s, queries)
    yield "scores", {"scores": w} | scoring
    yield "scores scaled", {"scores": w, "scaled scores": w, "scale": 8 + s.item}
    yield "weighted", {"weights": w, "output": output} | weighting
    if s.heads_move and queries > 1:
        yield "heads joined", {"weights": w, "output": output, "heads joined": output}


def feed_forward_moments(size, tokens):
    """Yield the Moments of a layer after attention's kernel, one chunk at a time. The attention output stays alive
    until attention's last chunk is normed."""
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
    """Yield the Moments of the pooler over the pairs' first tokens, and of the classifier, which is never in int8."""
    hidden, states = size.config.hidden_size, size.states(first)
    pooling = {"dense": size.product(first, hidden, hidden)} | size.widened((hidden, hidden))
    yield Moment("pooler and head", "pooling", {"first tokens": states} | pooling)
    yield Moment("pooler and head", "pooled", {"first tokens": states, "dense": states, "tanh": states})
    logits = replace(size, int8=None).product(first, hidden, size.config.num_labels)
    yield Moment("pooler and head", "classified", {"first tokens": states, "pooled": states, "logits": logits})
