"""int8: weight matrices with one scale per row, the modules that multiply them, and how files store them.

Each row of a weight matrix is scaled so that its largest absolute value becomes 127. While the model runs, each token's
activations are scaled likewise (to 63 on processors whose 8-bit products would overflow). The integers are multiplied
and summed, and the sums are multiplied by both scales. Layer norms, biases and the classifier stay in fp32.
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

ROWS_AT_A_TIME = 256  # rows of a matrix that are converted to int8 at a time during reading


def rows_to_int8(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (int8 matrix, fp32 scale of each row). The largest absolute value of a row becomes 127."""
    scale = (matrix.abs().amax(1) / 127).clamp_min(1e-12)
    return (matrix / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(Module):
    """A linear layer with int8 weights, one scale per row. `forward` converts activations to int8, one scale per token.

    With the "widened" engine (see _products), activations stay in fp32, and the rows are converted to an fp32 matrix
    while they are multiplied.
    """

    def __init__(self, rows, scale, bias, engine=None):
        """`rows` (out, in) int8, `scale` (out,) fp32, `bias` (out,) fp32.

        `engine`: "packed", "plain" or "widened" (default: int8_engine()). "packed" copies `rows`, the others keep it.
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
        """Return `forward` of the "widened" engine as a function. It makes the fp32 matrix once, for many calls."""
        return functools.partial(multiply_widened, matrix=self.rows().float(), scale=self.scale, bias=self.bias)

    def __reduce__(self):
        """Copy and pickle the layer. Packed rows cannot be copied or pickled, so they are unpacked and packed again."""
        return Int8Linear, (self.rows(), self.scale, self.bias, self.engine)

    def rows(self):
        """Return the int8 weights (out, in), unpacked."""
        return self.packed.to_dense().t().contiguous() if self.engine == PACKED else self.plain

    def stored(self):
        """Return {key: tensor} as a file stores them."""
        return {"weight": self.rows(), "weight.scale": self.scale, "bias": self.bias}


def tokens_to_int8(x: torch.Tensor, block: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Return activations (..., in) as int8, `whole`, and an fp32 `scale` per token: x is about whole * scale.

    Only `block` tokens are converted at a time, so that temporary tensors are small.
    """
    largest, flat = activation_range(), x.reshape(-1, x.shape[-1])
    whole, scale = torch.empty_like(flat, dtype=torch.int8), flat.new_empty(len(flat), 1)
    for part, out, one in zip(flat.split(block), whole.split(block), scale.split(block)):
        torch.amax(part.abs(), -1, keepdim=True, out=one)
        one.div_(largest).clamp_min_(1e-12)
        out.copy_((part / one).round_())
    return whole.view(x.shape), scale.view(*x.shape[:-1], 1)


class Int8Embedding(Module):
    """An embedding table in int8, one scale per row. The rows that are looked up are converted to fp32."""

    def __init__(self, rows, scale):
        super().__init__()
        self.register_buffer("weight", rows)
        self.register_buffer("scale", scale)

    def forward(self, ids):
        return self.weight[ids].float().mul_(self.scale[ids].unsqueeze(-1))

    def stored(self):
        """Return {key: tensor} as a file stores them."""
        return {"weight": self.weight, "weight.scale": self.scale}


def in_rows(module, name):
    """Return whether a module's matrix becomes int8: linear layers and embeddings, but not the classifier."""
    return isinstance(module, Embedding | Linear) and name != "classifier"


def to_int8(module, name):
    """Return the module that replaces `module` in an int8 model; None if only its children have weights."""
    if isinstance(module, Embedding):
        return Int8Embedding(*rows_to_int8(module.weight.detach().float()))
    if in_rows(module, name):
        return Int8Linear(*rows_to_int8(module.weight.detach().float()), module.bias.detach().float().clone())
    return converted(module, torch.float32)


def int8_bytes(config: PretrainedConfig) -> int:
    """Return, from the config, the exact bytes of the weights that `quantize(checkpoint, "int8")` makes.

    A matrix takes one byte per number and four per row for the scale. With the "packed" engine, oneDNN needs four bytes
    of zeros per row of each linear layer except the classifier. The other weights are fp32.
    """
    h, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    counts = parameters(config)
    table_rows = counts["embeddings"] // h
    rows = layers * (5 * h + f) + h  # outputs of all linear layers except the classifier; each has a bias
    matrices = layers * (4 * h * h + 2 * h * f) + h * h
    in_int8 = counts["embeddings"] + matrices
    zeros = 4 * rows * (int8_engine() == PACKED)
    return in_int8 + 4 * (sum(counts.values()) - in_int8) + 4 * (table_rows + rows) + zeros


# ----------------------------------------------------------------------------------------------------------- files


def store_int8(file, config, new):
    """Write the weights of a file to a new file in int8, with one tensor in memory at a time."""
    model = weightless(config)
    matrices = {f"{name}.weight" for name, module in model.named_modules() if in_rows(module, name)}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    entries = {name: ("I8" if name in matrices else "F32", shape) for name, shape in shapes.items()}
    entries |= {f"{name}.scale": ("F32", shapes[name][:1]) for name in matrices}
    scale = None

    def made(name):
        nonlocal scale
        with safe_open(file, framework="pt") as tensors:  # opened again each time, to release the pages read before
            if name in matrices:
                tensor, scale = int8_rows(tensors, name, file)
            else:  # in sorted order, a scale comes right after its matrix
                tensor = in_fp32(tensors, name, file) if name in shapes else scale
        yield tensor

    write_tensors(new, entries, made)


def read_int8(folder, config, *, dtype=torch.int8, attn_implementation="sdpa"):
    """Return an int8 model from its folder, read module by module. Floating-point matrices become int8 while read."""
    file = weights_file(folder)
    if dtype not in (torch.float32, torch.int8):  # fp32 is load's default: it may mean that no dtype was given
        raise CheckpointError(f"{folder.name} is stored in int8 and runs in it: leave out dtype {dtype}")
    weights = {name: shape for name, shape in tensor_shapes(file).items() if not name.endswith(".scale")}
    check_shapes(weights, config, file)
    config._attn_implementation = attn_implementation
    return rebuilt(weightless(config), lambda module, name: read_module(module, name, file))


def read_module(module, name, file):
    """Return a module with its tensors from the file, its matrix in int8; None if only its children have weights."""
    if not module._parameters:
        return None
    own = {}
    for key in module._parameters:
        with safe_open(file, framework="pt") as tensors:  # opened again each time, to release the pages read before
            full = f"{name}.{key}"
            if in_rows(module, name) and key == "weight":
                rows, scale = int8_rows(tensors, full, file)
            else:
                own[key] = in_fp32(tensors, full, file)
    if not in_rows(module, name):
        return with_weights(module, own)
    return Int8Linear(rows, scale, own["bias"]) if "bias" in own else Int8Embedding(rows, scale)


def int8_module(module, name, tensors, dtype):
    """Return a module built from its tensors in an int8 file: the matrix in int8, the rest in fp32."""
    if not in_rows(module, name):
        return float_module(module, name, tensors, torch.float32)
    matrix = tensors["weight"], tensors["weight.scale"]
    if isinstance(module, Embedding):
        return Int8Embedding(*matrix)
    return Int8Linear(*matrix, tensors["bias"], int8_engine(streamed=True))


def in_fp32(tensors, name, file):
    """Return an fp32 copy of a tensor in an open file, which stores it in floating point or as an int8 matrix."""
    tensor = tensors.get_tensor(name)
    if tensor.dtype == torch.int8 and tensor.ndim == 2:
        return tensor * scale_of(tensors, name, file)[:, None]
    if not tensor.is_floating_point():
        raise CheckpointError(f"{file} is broken: {name} is stored as {tensor.dtype}")
    return tensor.to(torch.float32, copy=True)


def scale_of(tensors, name, file):
    """Return the fp32 scales of an int8 matrix. Raises CheckpointError unless each row has a finite, positive one."""
    scale = tensors.get_tensor(f"{name}.scale").float() if f"{name}.scale" in tensors.keys() else None
    rows = tensors.get_slice(name).get_shape()[0]
    if scale is None or scale.shape != (rows,) or not (scale.isfinite() & (scale > 0)).all():
        raise CheckpointError(f"{file} is broken: no scale, or not a positive one a row, for {name}")
    return scale.clone()


def int8_rows(tensors, name, file):
    """Return (int8 rows, fp32 scales) of a matrix in an open file. Floating point is converted some rows at a time."""
    stored = tensors.get_slice(name)
    if stored.get_dtype() == "I8":  # stays memory-mapped: only embedding rows that are looked up take memory
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
    """Return a model from a file with int8 matrices, one fp32 scale per row (`name.scale`). They are converted to
    `dtype` module by module during loading, so that at most one matrix is in memory twice."""
    file = weights_file(folder)
    shapes = tensor_shapes(file)
    check_shapes({name: shape for name, shape in shapes.items() if not name.endswith(".scale")}, config, file)
    config._attn_implementation = attn_implementation
    model = rebuilt(weightless(config), lambda module, name: unpacked(module, name, file, dtype))
    model.config.dtype = dtype
    return model


def unpacked(module, name, file, dtype):
    """Return a module with its weights from the file, in `dtype`; None if only its children have weights."""
    if not module._parameters:
        return None
    with safe_open(file, framework="pt") as tensors:  # opened again for each module, to release the pages read before
        weights = {key: in_fp32(tensors, f"{name}.{key}", file).to(dtype) for key in module._parameters}
    return with_weights(module, weights)
