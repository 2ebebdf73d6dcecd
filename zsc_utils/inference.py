"""BERT's forward pass as a classifier needs it: the logits of the model's own forward, in less memory and less work.

What is left out changes no number that is used:

- the last layer computes queries, feed-forward and norms for the first token only, for the head reads no other;
- sums and GELU write over what they read, and the feed-forward network goes through the tokens in chunks;
- a padding mask is a row of numbers a text, not a square; without padding there is none;
- nothing is kept that is not read again (BertModel.forward keeps the embeddings' output to its end).

The steps are functions of their own, so that others can order them otherwise, such as layer by layer over many batches.
"""

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from zsc_utils.memory import Footprint, Moment, checked_shape, flash_scratch, parameters

WORKSPACE = 70_000  # bytes that oneDNN takes for an int8 product, a thread, at most; it depends on the processor
CHUNK = 1024  # tokens that go through the feed-forward network at a time


@torch.inference_mode()
def logits(model, ids, types, mask=None, *, chunk=CHUNK):
    """Logits (batch, classes) of a BertForSequenceClassification.

    `ids`, `types` and `mask` are (batch, length) as a tokenizer gives them; without padding leave out `mask`.
    `chunk` is the number of tokens, of all texts together, that go through the feed-forward network at a time.
    """
    mask = padding_mask(mask, model.dtype)
    hidden = embed(model, ids, types)
    *layers, last = model.bert.encoder.layer
    for layer in layers:
        hidden = attend(layer, hidden, mask)
        feed_forward(layer, hidden, chunk)
    hidden = attend(last, hidden, mask, first_only=True)
    feed_forward(last, hidden, chunk)
    return model.classifier(model.bert.pooler(hidden))


def padding_mask(mask, dtype):
    """What is added to the scores: (batch, 1, 1, length), 0 or the most negative number; None for no padding."""
    if mask is None:
        return None
    return (1 - mask[:, None, None].to(dtype)) * torch.finfo(dtype).min


def embed(model, ids, types):
    """The input of the first layer, (batch, length, hidden)."""
    embeddings = model.bert.embeddings
    hidden = embeddings.word_embeddings(ids)
    hidden += embeddings.token_type_embeddings(types)
    hidden += embeddings.position_embeddings(embeddings.position_ids[:, : ids.shape[1]])
    return embeddings.LayerNorm(hidden)


def attend(layer, hidden, mask, first_only=False):
    """One layer's attention with its residual and norm: (batch, length, hidden), or (batch, 1, hidden) for the first
    token only, which asks all the others."""
    attention = layer.attention
    asking = hidden[:, :1] if first_only else hidden
    found = attention.output.dense(attended(attention.self, asking, hidden, mask))
    found += asking
    return attention.output.LayerNorm(found)


def attended(attention, asking, hidden, mask):
    """Self-attention of the tokens in `asking` over all in `hidden`, by the model's attention function."""
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query, key, value = (
        project(tokens).unflatten(-1, heads).transpose(1, 2)
        for project, tokens in ((attention.query, asking), (attention.key, hidden), (attention.value, hidden))
    )
    function = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    found, _ = function(attention, query, key, value, mask, dropout=0.0, scaling=attention.scaling)
    return found.flatten(2)


def feed_forward(layer, hidden, chunk=CHUNK):
    """One layer's feed-forward network with its residual and norm, written over `hidden`, `chunk` tokens at a time."""
    for tokens in hidden.view(-1, hidden.shape[-1]).split(chunk):
        feed_forward_chunk(layer, tokens)


def feed_forward_chunk(layer, tokens):
    wide = layer.intermediate.dense(tokens)
    activate = layer.intermediate.intermediate_act_fn
    wide = torch.ops.aten.gelu_(wide) if type(activate).__name__ == "GELUActivation" else activate(wide)
    narrow = layer.output.dense(wide)
    del wide
    narrow += tokens
    tokens.copy_(layer.output.LayerNorm(narrow))


# ----------------------------------------------------------------------------------------------------------- predict


def predict(
    config,
    batch,
    length,
    *,
    attention="sdpa",
    padded=False,
    chunk=CHUNK,
    dtype=torch.float32,
    int8_block=None,
    threads=None,
):
    """The tensor bytes of `logits` on a CPU, without running it: a Footprint, as memory.predict gives for BERT's own.

    With u = batch x length x hidden x 4 bytes (2 for fp16), and more than one layer: attention holds the layer's input,
    q, k, v and the output, 5 u and the kernel's scratch (eager: 4 u and twice the scores, or what lies nearby); the
    feed-forward network u and, of one chunk, its wide tensor and its output. `int8_block` is for models in int8, whose
    linear layers keep a copy of their input in int8, made so many tokens at a time; not predicted is oneDNN's workspace
    (WORKSPACE a thread at most), and the weights of the Footprint are fp32's. Raises ValueError as memory.predict does.
    """
    shape = checked_shape(config, batch, length, attention, padded, 0, dtype, threads)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk {chunk!r}: give a whole number of tokens, 1 or more")
    single = config.num_hidden_layers == 1
    moments = [
        *embedding_moments(shape, int8_block),
        *attention_moments(shape, int8_block, shape.length if not single else 1),
        *feed_forward_moments(shape, int8_block, min(chunk, batch * (length if not single else 1)), single),
        Moment("pooler and head", "pooled", {"first tokens": 3 * batch * config.hidden_size * shape.item}),
    ]
    parts = {name: count * shape.item for name, count in parameters(config).items()}
    return Footprint(parts, tuple(moments))


def linear_scratch(tokens, wide, narrow, item, int8_block):
    """Bytes that a linear layer from `wide` to `narrow` numbers a token takes at most, its output included."""
    if not int8_block:
        return tokens * narrow * item
    kept = tokens * (wide + 4)  # the input in int8, and a scale a token
    return kept + max(min(tokens, int8_block) * wide * 4, tokens * narrow * 4)


def row_mask(s):
    return s.batch * s.length * s.item if s.padded else 0


def embedding_moments(s, int8_block):
    """Types and positions are added to the words, and the sum is normed."""
    u, tokens = s.hidden, s.batch * s.length
    picked = tokens * (s.config.hidden_size + 4) if int8_block else 0
    held = {"padding mask": row_mask(s), "words": u}
    yield Moment("embeddings", "summed", held | {"token types": u, "rows and scales": picked})
    yield Moment("embeddings", "normed", held | {"LayerNorm": s.norm})


def attention_moments(s, int8_block, queries):
    """One layer's attention, in which `queries` tokens of each text ask: all of them, or the first alone."""
    u, hidden = s.hidden, s.config.hidden_size
    asking = s.batch * queries * hidden * s.item
    held = {"padding mask": row_mask(s), "layer input": u, "query": asking, "key": u}
    last = linear_scratch(s.batch * s.length, hidden, hidden, s.item, int8_block)
    yield Moment("attention", "value projected", held | {"value and its scratch": last})
    held["value"] = u
    if s.attention == "sdpa":
        sums = s.batch * s.config.num_attention_heads * queries * 4
        inside = {"attention output": asking, "log of sums": sums, "kernel scratch": flash_scratch(s, queries)}
        yield Moment("attention", "inside the kernel", held | inside)
    else:
        yield from eager_moments(s, held, asking, s.scores * queries // s.length)
    held = {"padding mask": row_mask(s), "layer input": u, "attention output": asking}
    dense = linear_scratch(s.batch * queries, hidden, hidden, s.item, int8_block)
    yield Moment("attention", "dense", held | {"dense and its scratch": dense})
    normed = asking + 2 * s.batch * queries * s.item
    yield Moment("attention", "normed", held | {"LayerNorm": normed})


def eager_moments(s, held, asking, w):
    """Eager attention builds the matrix of scores, here of `w` bytes; see memory.attention_moments."""
    copied = s.heads_move and s.batch > 1
    moved = s.heads_move and asking > s.hidden // s.length  # one token's heads lie joined already
    copies = {"query and key, copied": (asking + s.hidden) * copied}
    yield Moment("attention", "scores", held | copies | {"scores": w})
    yield Moment("attention", "scores scaled", held | {"scores": w, "scaled scores": w, "scale": 8 + s.item})
    outcome = {"weights": w, "attention output": asking}
    yield Moment("attention", "weighted", held | outcome | {"value, copied": s.hidden * copied})
    yield Moment("attention", "heads joined", held | outcome | {"heads joined": asking * moved})


def feed_forward_moments(s, int8_block, tokens, first_only):
    """One chunk of `tokens` through the feed-forward network; the hidden states of all are alive."""
    hidden, wide = s.config.hidden_size, s.config.intermediate_size
    states = s.hidden // s.length if first_only else s.hidden
    held = {"padding mask": row_mask(s), "hidden states": states}
    widened = linear_scratch(tokens, hidden, wide, s.item, int8_block)
    narrowed = linear_scratch(tokens, wide, hidden, s.item, int8_block)
    yield Moment("feed-forward", "widened", held | {"wide and its scratch": widened})
    yield Moment(
        "feed-forward", "narrowed", held | {"wide": tokens * wide * s.item, "narrow and its scratch": narrowed}
    )
    yield Moment("feed-forward", "normed", held | {"narrow, normed": 2 * tokens * (hidden + 1) * s.item})
