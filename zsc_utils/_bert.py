"""Build BERT models: the shapes of their weights, a model without weights, and copies with replaced modules."""

import copy

import torch
from torch.nn import Parameter
from transformers import BertForSequenceClassification

from zsc_utils._weights import CheckpointError


def expected_shapes(config):
    """Return {name: shape} of every weight that a config requires, with BertForSequenceClassification's names."""
    h, f = config.hidden_size, config.intermediate_size
    linear = {"bert.pooler.dense": (h, h), "classifier": (config.num_labels, h)}
    norms = ["bert.embeddings.LayerNorm"]
    for layer in (f"bert.encoder.layer.{number}" for number in range(config.num_hidden_layers)):
        linear |= {f"{layer}.attention.self.{part}": (h, h) for part in ("query", "key", "value")}
        linear |= {f"{layer}.attention.output.dense": (h, h)}
        linear |= {f"{layer}.intermediate.dense": (f, h), f"{layer}.output.dense": (h, f)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    tables = {
        "word": config.vocab_size,
        "position": config.max_position_embeddings,
        "token_type": config.type_vocab_size,
    }
    shapes = {f"bert.embeddings.{what}_embeddings.weight": (rows, h) for what, rows in tables.items()}
    for name, (out, wide) in linear.items():
        shapes |= {f"{name}.weight": (out, wide), f"{name}.bias": (out,)}
    return shapes | {f"{name}.{part}": (h,) for name in norms for part in ("weight", "bias")}


def check_shapes(found, config, file):
    """Raise CheckpointError unless `found`, {name: shape}, is exactly what the config requires."""
    expected = expected_shapes(config)
    missing, strange = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or strange:
        lacks = f"lacks {len(missing)} tensors such as {missing[0]}" if missing else ""
        extra = f"holds {len(strange)} unknown ones such as {strange[0]}" if strange else ""
        raise CheckpointError(f"{file} does not fit its config.json: it {' and '.join(filter(None, [lacks, extra]))}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{file} does not fit its config.json: {name} is {found[name]}, should be {shape}")


def weightless(config):
    """Return a model whose weights are on the meta device, where they take no memory. Its index buffers are real."""
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    embeddings = model.bert.embeddings
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)
    return model.eval()


def rebuilt(module, change):
    """Return a copy of a model, with its own config, in which `change(submodule, name)` has replaced modules.

    If `change` returns None, the children are visited. Weights that are not replaced are shared with the original.
    """
    model = rebuilt_module(module, change, "")
    own = copy.deepcopy(module.config)
    for part in model.modules():
        if getattr(part, "config", None) is module.config:
            part.config = own
    return model


def rebuilt_module(module, change, name):
    new = change(module, name)
    if new is None:
        new = with_weights(module, module._parameters)
        new._buffers = dict(module._buffers)  # shared, not cloned: int8 weights are buffers
        path = name + "." if name else ""
        new._modules = {key: rebuilt_module(child, change, path + key) for key, child in module._modules.items()}
    return new


def with_weights(module, weights):
    """Return a copy of one module with other weights, {name: tensor}, and without hooks. Its children are shared."""
    new = object.__new__(type(module))
    new.__dict__.update(vars(module))
    new.__dict__.update({key: type(value)() for key, value in vars(module).items() if "_hooks" in key})
    new.__dict__.pop("_output_capturing_hooks_installed", None)  # set by transformers with its hooks, removed above
    new._parameters = {
        key: tensor if isinstance(tensor, Parameter) else Parameter(tensor, requires_grad=False)
        for key, tensor in weights.items()
    }
    new._buffers = {key: buffer if buffer is None else buffer.clone() for key, buffer in module._buffers.items()}
    new._modules = dict(module._modules)
    return new


def float_module(module, name, tensors, dtype):
    """Return a module with weights in `dtype`, from its stored tensors. Tensors already in `dtype` are shared."""
    weights = {}
    for key in module._parameters:
        weights[key] = tensors[key].to(dtype)
        if f"{key}.scale" in tensors:
            weights[key] *= tensors[f"{key}.scale"][:, None]
    return with_weights(module, weights)


def converted(module, dtype):
    """Return a copy of a module with its own weights converted to `dtype`; None if only its children have weights."""
    if not module._parameters:
        return None
    weights = {name: tensor.detach().to(dtype, copy=True) for name, tensor in module._parameters.items()}
    return with_weights(module, weights)
