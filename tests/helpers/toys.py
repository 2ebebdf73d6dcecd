"""Small BERT models with random weights."""

import torch
from transformers import BertConfig, BertForSequenceClassification


def toy_bert(attention="sdpa", drawn=False, **shape):
    """A BertForSequenceClassification of that shape, with three classes; the same one each time.

    `drawn`: every weight is drawn and matters. New models have no biases, and norms that change nothing.
    """
    torch.manual_seed(0)
    config = BertConfig(**({"num_labels": 3} | shape))
    config._attn_implementation = attention
    model = BertForSequenceClassification(config).eval()
    if drawn:
        draw(model)
    return model


def draw(model):
    """Draw every weight of a model, norms around 1, the rest around 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(0, 0.1, generator=generator).add_(name.endswith("LayerNorm.weight"))


def held(model):
    """Bytes of all parameters and buffers, BERT's two index buffers aside, which no lever changes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    counted = [t for name, t in tensors if name.rsplit(".", 1)[-1] not in ("position_ids", "token_type_ids")]
    assert len(tensors) - len(counted) == 2
    return sum(tensor.numel() * tensor.element_size() for tensor in counted)
