"""int8: rows of a matrix with a scale each, the modules that multiply them, and how they lie in a file.

Each row of a weight matrix is scaled so that its largest number becomes 127, and each token's activations likewise
while the model runs (63 on processors whose eight-bit products would overflow); whole numbers are multiplied and added,
and the two scales undo the scaling. Layer norms, biases and the classifier stay in fp32.
"""

import functools

import torch
from safetensors import safe_open
from torch.nn import Embedding, Linear, Module
from transformers import PretrainedConfig

from zsc_utils._bert import check_shapes, converted, float_module, rebuilt, weightless, with_weights
from zsc_utils._products import (
    PACKED,
    WIDENED,
    activation_range,
    int8_engine,
    multiply_packed,
    multiply_plain,
    multiply_widened,
    pack,
)  # fmt: skip
from zsc_utils._weights import CheckpointError, tensor_shapes, weights_file, write_tensors
from zsc_utils.memory import parameters

ROWS_AT_A_TIME = 256  # of a matrix that is made int8 while it is read


def rows_to_int8(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 matrix, fp32 scale a row): the largest number of a row becomes 127 or -127."""
    scale = (matrix.abs().amax(1) / 127).clamp_min(1e-12)
    return (matrix / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(Module):
    """A linear layer with int8 weights, one scale a row; activations become int8 on the way, one scale a token.

    Where no int8 product is right and fast, activations stay as they are, and the rows become an fp32 matrix for as
    long as they are multiplied (`engine`, see _products).
    """

    def __init__(self, rows, scale, bias, engine=None):
        """`rows` (out, in) int8, `scale` (out,) fp32, `bias` (out,) fp32.

        `engine`: "packed", "plain" or "widened" (default: what int8_engine says); all but "packed" keep the caller's
        tensor.
        """
        super().__init__()
        self.engine = engine or int8_engine()
        if self.engine == PACKED:
            self.register_buffer("packed", pack(rows))
            self.register_buffer("no_shift", torch.zeros(len(scale), dtype=torch.int32), persistent=False)
        else:
            self.register_buffer("plain", rows)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x):
        if self.engine == WIDENED:
            return self.widened()(x)
        whole, token_scale = tokens_to_int8(x)
        if self.engine == PACKED:
            shift = activation_range() + 1
            product = multiply_packed(
                whole.view(torch.uint8).add_(shift), shift, self.packed, self.scale, self.no_shift
            )
        else:
            product = multiply_plain(whole, self.plain, self.scale)
        return torch.addcmul(self.bias, product, token_scale, out=product)

    def widened(self):
        """A function as `forward`, its rows in an fp32 matrix: for many calls, as that is made only once."""
        return functools.partial(multiply_widened, matrix=self.rows().float(), scale=self.scale, bias=self.bias)

    def __reduce__(self):
        """How it is copied and pickled: packed rows cannot be, so they are packed anew."""
        return Int8Linear, (self.rows(), self.scale, self.bias, self.engine)

    def rows(self):
        """The int8 weights (out, in) as they came."""
        return self.packed.to_dense().t().contiguous() if self.engine == PACKED else self.plain

    def stored(self):
        """{key: tensor} as a file holds them."""
        return {"weight": self.rows(), "weight.scale": self.scale, "bias": self.bias}


def tokens_to_int8(x: torch.Tensor, block: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (..., in) as int8, and an fp32 scale a token: x is whole * scale.

    Some tokens at a time, so that what lies between is small.
    """
    largest, flat = activation_range(), x.reshape(-1, x.shape[-1])
    whole, scale = torch.empty_like(flat, dtype=torch.int8), flat.new_empty(len(flat), 1)
    for part, out, one in zip(flat.split(block), whole.split(block), scale.split(block)):
        torch.amax(part.abs(), -1, keepdim=True, out=one)
        one.div_(largest).clamp_min_(1e-12)
        out.copy_((part / one).round_())
    return whole.view(x.shape), scale.view(*x.shape[:-1], 1)


class Int8Embedding(Module):
    """An embedding table in int8, one scale a row; the rows that are looked up become fp32."""

    def __init__(self, rows, scale):
        super().__init__()
        self.register_buffer("weight", rows)
        self.register_buffer("scale", scale)

    def forward(self, ids):
        return self.weight[ids].float().mul_(self.scale[ids].unsqueeze(-1))

    def stored(self):
        """{key: tensor} as a file holds them."""
        return {"weight": self.weight, "weight.scale": self.scale}


def in_rows(module, name):
    """Whether a module's matrix becomes int8: of linear layers and embeddings, but not of the classifier."""
    return isinstance(module, Embedding | Linear) and name != "classifier"


def to_int8(module, name):
    """What takes a module's place in an int8 model; None where its children decide."""
    if isinstance(module, Embedding):
        return Int8Embedding(*rows_to_int8(module.weight.detach().float()))
    if in_rows(module, name):
        return Int8Linear(*rows_to_int8(module.weight.detach().float()), module.bias.detach().float().clone())
    return converted(module, torch.float32)


def int8_bytes(config: PretrainedConfig) -> int:
    """What `quantize(checkpoint, "int8")` will hold in memory, predicted from the config, exact.

    Matrices take a byte a number and four a row for its scale; linear layers that oneDNN multiplies, the classifier
    aside, four more a row for zeros that it asks for. The rest is fp32.
    """
    h, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    counts = parameters(config)
    table_rows = counts["embeddings"] // h
    rows = layers * (5 * h + f) + h  # of all linear layers but the classifier: outputs, each with a bias
    matrices = layers * (4 * h * h + 2 * h * f) + h * h
    in_int8 = counts["embeddings"] + matrices
    zeros = 4 * rows * (int8_engine() == PACKED)
    return in_int8 + 4 * (sum(counts.values()) - in_int8) + 4 * (table_rows + rows) + zeros


# ----------------------------------------------------------------------------------------------------------- files


def store_int8(file, config, new):
    """Write a file of weights anew in int8, with one tensor in memory at a time."""
    model = weightless(config)
    matrices = {f"{name}.weight" for name, module in model.named_modules() if in_rows(module, name)}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    entries = {name: ("I8" if name in matrices else "F32", shape) for name, shape in shapes.items()}
    entries |= {f"{name}.scale": ("F32", shapes[name][:1]) for name in matrices}
    scale = None

    def made(name):
        nonlocal scale
        with safe_open(file, framework="pt") as tensors:  # opened anew each time: what was read is let go
            if name in matrices:
                tensor, scale = int8_rows(tensors, name, file)
            else:  # a scale follows its matrix
                tensor = in_fp32(tensors, name, file) if name in shapes else scale
        yield tensor

    write_tensors(new, entries, made)


def read_int8(folder, config, *, dtype=torch.int8, attn_implementation="sdpa"):
    """An int8 model from its file, read module by module; what is stored in more bits is made int8 while it is read."""
    file = weights_file(folder)
    if dtype not in (torch.float32, torch.int8):  # fp32 is what load asks for when nobody asked
        raise CheckpointError(f"{folder.name} is stored in int8 and runs in it: leave out dtype {dtype}")
    weights = {name: shape for name, shape in tensor_shapes(file).items() if not name.endswith(".scale")}
    check_shapes(weights, config, file)
    config._attn_implementation = attn_implementation
    return rebuilt(weightless(config), lambda module, name: read_module(module, name, file))


def read_module(module, name, file):
    """A module with its tensors from the file, int8 where it belongs; None for one that only holds modules."""
    if not module._parameters:
        return None
    own = {}
    for key in module._parameters:
        with safe_open(file, framework="pt") as tensors:  # opened anew each time: what was read is let go
            full = f"{name}.{key}"
            if in_rows(module, name) and key == "weight":
                rows, scale = int8_rows(tensors, full, file)
            else:
                own[key] = in_fp32(tensors, full, file)
    if not in_rows(module, name):
        return with_weights(module, own)
    return Int8Linear(rows, scale, own["bias"]) if "bias" in own else Int8Embedding(rows, scale)


def int8_module(module, name, tensors, dtype):
    """A module with its tensors as an int8 file holds them: matrices in int8, the rest in fp32."""
    if not in_rows(module, name):
        return float_module(module, name, tensors, torch.float32)
    matrix = tensors["weight"], tensors["weight.scale"]
    if isinstance(module, Embedding):
        return Int8Embedding(*matrix)
    return Int8Linear(*matrix, tensors["bias"], int8_engine(streamed=True))


def in_fp32(tensors, name, file):
    """A tensor of an open file, copied into fp32, whatever it is stored in."""
    tensor = tensors.get_tensor(name)
    if tensor.dtype == torch.int8 and tensor.ndim == 2:
        return tensor * scale_of(tensors, name, file)[:, None]
    if not tensor.is_floating_point():
        raise CheckpointError(f"{file} is broken: {name} is stored as {tensor.dtype}")
    return tensor.to(torch.float32, copy=True)


def scale_of(tensors, name, file):
    """The scales of int8 rows, fp32, a positive one for each row."""
    scale = tensors.get_tensor(f"{name}.scale").float() if f"{name}.scale" in tensors.keys() else None
    rows = tensors.get_slice(name).get_shape()[0]
    if scale is None or scale.shape != (rows,) or not (scale.isfinite() & (scale > 0)).all():
        raise CheckpointError(f"{file} is broken: no scale, or not a positive one a row, for {name}")
    return scale.clone()


def int8_rows(tensors, name, file):
    """(int8 rows, a scale each) of a matrix in an open file; one in floating point becomes int8 some rows at a time."""
    stored = tensors.get_slice(name)
    if stored.get_dtype() == "I8":  # stays mapped: of embeddings only rows that are looked up take memory
        return tensors.get_tensor(name), scale_of(tensors, name, file)
    if stored.get_dtype() not in ("F64", "F32", "F16", "BF16"):
        raise CheckpointError(f"{file} is broken: {name} is stored as {stored.get_dtype()}")
    count, width = stored.get_shape()
    rows, scale = torch.empty(count, width, dtype=torch.int8), torch.empty(count)
    for start in range(0, count, ROWS_AT_A_TIME):
        with safe_open(file, framework="pt") as again:
            part = again.get_slice(name)[start : start + ROWS_AT_A_TIME].float()
            rows[start : start + ROWS_AT_A_TIME], scale[start : start + ROWS_AT_A_TIME] = rows_to_int8(part)
    return rows, scale


def read_int8_rows(folder, config, *, dtype=torch.float32, attn_implementation="sdpa"):
    """Matrices stored as int8 with one fp32 scale a row, `name.scale`; unpacked module by module while loading, so that
    no more than one matrix is in memory twice."""
    file = weights_file(folder)
    shapes = tensor_shapes(file)
    check_shapes({name: shape for name, shape in shapes.items() if not name.endswith(".scale")}, config, file)
    config._attn_implementation = attn_implementation
    model = rebuilt(weightless(config), lambda module, name: unpacked(module, name, file, dtype))
    model.config.dtype = dtype
    return model


def unpacked(module, name, file, dtype):
    """A module with its weights from the file, in `dtype`; None for one that only holds modules."""
    if not module._parameters:
        return None
    with safe_open(file, framework="pt") as tensors:  # opened anew for each: what was read is let go
        weights = {key: unpack(tensors, f"{name}.{key}", file).to(dtype) for key in module._parameters}
    return with_weights(module, weights)


def unpack(tensors, name, file):
    """A tensor of an open file in fp32, copied."""
    tensor = tensors.get_tensor(name)
    if tensor.dtype != torch.int8:
        return tensor.to(torch.float32, copy=True)
    scale = tensors.get_tensor(f"{name}.scale") if f"{name}.scale" in tensors.keys() else None
    if scale is None or scale.shape != tensor.shape[:1]:
        raise CheckpointError(f"{file} is broken: no scale, or not one a row, for {name}")
    return tensor.to(torch.float32).mul_(scale[:, None])
