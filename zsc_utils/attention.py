"""Levers on the forward pass: another attention, a feed-forward network in chunks of tokens, and fewer layers.

`use` and `chunk_feed_forward` change what a forward pass holds in memory. `windows` cuts long texts. `shrink` drops
layers, and `distil` trains the remaining ones to give the whole model's outputs.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import ModuleList
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.bert.modeling_bert import BertLayer, BertModel
from transformers.utils import output_capturing

from zsc_utils import checkpoint as door
from zsc_utils._bert import rebuilt
from zsc_utils._tensors import has_foreign_hooks
from zsc_utils._text import whole_number
from zsc_utils._types import Attention
from zsc_utils.batching import windows
from zsc_utils.checkpoint import Checkpoint
from zsc_utils.distillation import distil
from zsc_utils.memory import sliding_blocks

__all__ = ["chunk_feed_forward", "distil", "shrink", "use", "windows"]

ATTENTIONS = ("eager", "sdpa", "sliding")
WINDOW_TOKENS = 128  # tokens on each side

# ---------------------------------------------------------------------------------------------- which token sees which


def use(checkpoint: Checkpoint, attention: Attention, *, window: int = WINDOW_TOKENS) -> Checkpoint:
    """Return a new Checkpoint with another attention: "eager", "sdpa" or "sliding"; weights are shared.

    eager and sdpa compute the same function, but sdpa never holds the whole matrix of attention scores. sliding
    computes less: a text token sees [CLS] and `window` tokens on each side; [CLS] and the hypothesis tokens see all
    tokens. Scores change if a pair is longer than the window; time and memory grow linearly with its length. A direct
    call of a sliding model needs padding at the end, and token types, which mark the hypothesis.
    Raises ValueError for another attention, for a window that is not a whole number over 0, and for sliding if the
    tokenizer's token types do not mark the hypothesis.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention {attention!r}: choose one of {', '.join(ATTENTIONS)}")
    whole_number("window", window, "give the tokens that are seen to each side")
    if attention == "sliding" and 1 not in checkpoint.tokenizer("一", "一").token_type_ids:
        raise ValueError(f"sliding: the tokenizer of {checkpoint.name!r} does not mark hypotheses by their token type")
    model = rebuilt(checkpoint.model, lambda *_: None)
    model.bert = recast(model.bert, SlidingBert if attention == "sliding" else BertModel, model.config)
    model.config._attn_implementation = attention
    model.config.sliding_window = window if attention == "sliding" else None
    return replace(checkpoint, model=model)


def recast(module, kind, config):
    """Return an object of class `kind` that has the module's state, parameters included."""
    with torch.device("meta"):
        new = kind(config)  # not object.__new__: transformers registers a class when it is instantiated
    new.__dict__.clear()
    new.__dict__.update(vars(module))
    return new


class SlidingBert(BertModel):
    """BERT that passes the token types to its attention, which needs the start of the hypothesis."""

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **others):
        if token_type_ids is None:
            raise ValueError("sliding attention: give token_type_ids, which say where the hypothesis begins")
        return super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            token_types=token_type_ids,
            **others,
        )


def sliding(module, query, key, value, attention_mask, token_types, scaling=None, **_):
    """Sliding attention for transformers' AttentionInterface: (output (batch, queries, heads, size), None).

    It computes pair by pair and block by block, so that only one block's scores and keys exist at a time. `query` may
    hold the first token of each pair only.
    """
    batch, heads, length, size = key.shape
    window, output = module.config.sliding_window, query.new_zeros(batch, query.shape[2], heads, size)
    for pair, (hypothesis, end) in enumerate(hypothesis_spans(batch, length, attention_mask, token_types)):
        blocks = sliding_blocks(end, end - hypothesis, window)
        for block in blocks if query.shape[2] > 1 else blocks[:1]:
            rows = slice(block.start, block.stop)
            found = scaled_dot_product_attention(
                query[pair : pair + 1, :, rows], *(seen(tensor[pair : pair + 1], block) for tensor in (key, value)),
                attn_mask=band(block, window, query.device), scale=scaling,
            )  # fmt: skip
            output[pair, rows] = found[0].transpose(0, 1)
            del found  # so that two blocks' outputs never exist at once
    return output, None


def seen(tensor, block):
    """Keys or values (1, heads, keys, size) that a block sees: the first token's, and from block.low to block.high."""
    near = tensor[:, :, block.low : block.high]
    return near if block.low == 0 else torch.cat([tensor[:, :, :1], near], 2)


def band(block, window, device):
    """A mask (rows, keys) of booleans, True where a row sees a key; None if every row sees every key."""
    if not block.banded:
        return None
    first = block.low - (block.low > 0)  # position of column 0; low - 1 where the first token was put in front
    shift = block.start - first
    mask = torch.ones(block.stop - block.start, block.high - first, dtype=torch.bool, device=device)
    mask.triu_(shift - window).tril_(shift + window)
    mask[:, 0] = True
    return mask


def hypothesis_spans(batch, length, mask, token_types):
    """Yield (position of the hypothesis' first token, end of the pair) for each pair."""
    ends = [length] * batch if mask is None else mask.sum(1).tolist()
    for kind, end in zip(token_types.tolist(), ends):
        yield (kind.index(1) if 1 in kind else end), end


def padding_only(*, attention_mask=None, **_):
    """The mask for sliding attention: (batch, length) booleans, or None without padding."""
    if attention_mask is None or attention_mask.all():
        return None
    if (attention_mask[:, 1:] & ~attention_mask[:, :-1]).any():
        raise ValueError("sliding attention: a pair begins with padding or holds some; set padding_side='right'")
    return attention_mask


AttentionInterface.register("sliding", sliding)
AttentionMaskInterface.register("sliding", padding_only)


# ---------------------------------------------------------------------------------------------- how much exists at once


def chunk_feed_forward(checkpoint: Checkpoint, tokens: int) -> Checkpoint:
    """Return a new Checkpoint whose feed-forward networks take `tokens` tokens at a time: same scores, lower peak.

    Each layer overwrites its input with its result, except if gradients are on, hidden states are requested, or the
    layer has a hook. If you call a layer directly, copy its input first. ZeroShotClassifier rounds `tokens` up to a
    multiple of 64, and on a CPU takes at most 256. Weights are shared with the given checkpoint. Raises ValueError if
    `tokens` is not a whole number over 0.
    """
    whole_number("tokens", tokens, "give how many tokens go through at a time")
    model = rebuilt(checkpoint.model, lambda *_: None)
    layers = (recast(layer, ChunkedLayer, model.config) for layer in model.bert.encoder.layer)
    model.bert.encoder.layer = ModuleList(layers)
    model.config.feed_forward_tokens = tokens
    for layer in model.bert.encoder.layer:
        layer.tokens = tokens
    return replace(checkpoint, model=model)


class ChunkedLayer(BertLayer):
    """BERT's layer, with a feed-forward network that takes `tokens` tokens of the batch at a time."""

    def forward(self, hidden_states, attention_mask=None, *_, **others):
        heard = self.attention(hidden_states, attention_mask, **others)[0]
        parts = heard.flatten(0, 1).split(self.tokens)
        if torch.is_grad_enabled() or looked_at(self):
            return torch.cat([self.feed_forward_chunk(part) for part in parts]).view_as(heard)
        for part, place in zip(parts, hidden_states.view(-1, heard.shape[-1]).split(self.tokens)):
            place.copy_(self.feed_forward_chunk(part))
        return hidden_states


def looked_at(layer):
    """Whether hidden states are being collected, or the layer has a user's hook."""
    return "hidden_states" in (output_capturing._active_collector.get() or {}) or has_foreign_hooks(layer)


# ----------------------------------------------------------------------------------------------------- fewer layers


def shrink(checkpoint: Checkpoint, layers: int | Sequence[int]) -> Checkpoint:
    """Return a new Checkpoint with only some of the trained layers; weights are shared with the given one.

    `layers` is the number of layers to keep, evenly spaced from the first to the last, or a list of their indices in
    rising order. Only layers can be dropped: trained weights do not fit another hidden size. Raises ValueError for
    layers that the checkpoint does not have, and for weights that are not in memory.
    """
    door.check_loaded(checkpoint)
    count = checkpoint.model.config.num_hidden_layers
    kept = list(layers) if isinstance(layers, list | tuple) else evenly_spaced(layers, count)
    if not kept or kept != sorted(set(kept)) or not all(type(k) is int and 0 <= k < count for k in kept):
        raise ValueError(
            f"layers {layers!r}: give how many of {count}, or numbers from 0 to {count - 1} in rising order"
        )
    model = rebuilt(checkpoint.model, lambda *_: None)
    model.bert.encoder.layer = ModuleList(model.bert.encoder.layer[k] for k in kept)
    origin = getattr(model.config, "kept_layers", range(count))
    model.config.kept_layers = [origin[k] for k in kept]
    model.config.kept_of = getattr(model.config, "kept_of", count)
    model.config.num_hidden_layers = len(kept)
    return replace(checkpoint, model=model, name=f"{checkpoint.name}, {len(kept)} of {count} layers")


def evenly_spaced(number, count):
    """Indices of `number` out of `count` layers, evenly spaced from the first to the last; [] for an invalid number."""
    if type(number) is not int or not 1 <= number <= count:
        return []
    return [round(i * (count - 1) / max(1, number - 1)) for i in range(number)]
