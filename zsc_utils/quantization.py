"""Fewer bits a number: a checkpoint in fp16, bf16 or int8, kept in a folder and opened again, bit for bit.

int8 here: each row of a weight matrix is scaled so that its largest number becomes 127, and each token's activations
likewise while the model runs (63 on processors whose eight-bit products would overflow); whole numbers are multiplied
and added, and the two scales undo the scaling. Layer norms, biases and the classifier stay in fp32.
"""

import functools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import Embedding, Linear, Module
from transformers import PretrainedConfig

from zsc_utils import checkpoint as door
from zsc_utils import memory
from zsc_utils._products import (
    PACKED,
    WIDENED,
    activation_range,
    int8_engine,
    multiply_packed,
    multiply_plain,
    multiply_widened,
    pack,
    times_as_long,
)  # fmt: skip
from zsc_utils._types import Name, Precision, Result
from zsc_utils.checkpoint import Checkpoint, CheckpointError

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = (*HALVES, "int8")
INT8_FORMAT = "int8-v1"  # counts up when the file is laid out otherwise
ROWS_AT_A_TIME = 256  # of a matrix that is made int8 while it is read


def quantize(checkpoint: Checkpoint, precision: Precision) -> Checkpoint:
    """A new Checkpoint in "fp16", "bf16" or "int8"; the given one is not changed, and nothing of it is kept alive.

    int8 covers the linear layers and the embeddings, a quarter of fp32's bytes. Where the processor or this build of
    torch has no int8 product that is right and fast, rows stay in int8 and are multiplied in fp32. fp16 and bf16 are
    slower than fp32 on a CPU without instructions for them; a plan says so. Raises ValueError for another precision,
    for a checkpoint that is in int8 already, and for int8 anywhere but on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    door.check_loaded(checkpoint)
    if precision_of(checkpoint) == "int8":
        raise ValueError(f"{checkpoint.name!r} is in int8 already: start from the checkpoint it was made from")
    if precision == "int8":
        check_device(checkpoint.model.device)
        return replace(checkpoint, model=door.rebuilt(checkpoint.model, to_int8))
    model = door.rebuilt(checkpoint.model, lambda module, _: converted(module, HALVES[precision]))
    return replace(checkpoint, model=model)


def check_device(device):
    """Raise unless int8 can run there."""
    if device.type != "cpu":
        raise ValueError(
            f"int8 runs on CPUs only, the model is on {device}: use fp16 there, or move it with .cpu() first"
        )


def precision_of(checkpoint: Checkpoint) -> str:
    """ "fp32", "fp16", "bf16" or "int8"; for others, which are not made here, torch's name."""
    if any(isinstance(module, Int8Linear) for module in checkpoint.model.modules()):
        return "int8"
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return names.get(checkpoint.model.dtype, str(checkpoint.model.dtype))


def product_time(precision: str) -> float:
    """How many times fp32's seconds a matrix product takes in "fp16", "bf16" or "int8" on this processor.

    Tried once in a process, in some milliseconds. Under 1 the precision is faster here. Raises ValueError for another
    precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision in HALVES:
        return times_as_long(HALVES[precision])
    return 1.0 if int8_engine() == WIDENED else times_as_long(int8_engine())


def weight_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint's weights as its file holds them, scales included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.model.state_dict().values())


def int8_bytes(config: PretrainedConfig) -> int:
    """What `quantize(checkpoint, "int8")` will hold in memory, predicted from the config, exact.

    Matrices take a byte a number and four a row for its scale; linear layers that oneDNN multiplies, the classifier
    aside, four more a row for zeros that it asks for. The rest is fp32.
    """
    h, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    counts = memory.parameters(config)
    table_rows = counts["embeddings"] // h
    rows = layers * (5 * h + f) + h  # of all linear layers but the classifier: outputs, each with a bias
    matrices = layers * (4 * h * h + 2 * h * f) + h * h
    in_int8 = counts["embeddings"] + matrices
    zeros = 4 * rows * (int8_engine() == PACKED)
    return in_int8 + 4 * (sum(counts.values()) - in_int8) + 4 * (table_rows + rows) + zeros


# --------------------------------------------------------------------------------------------------------- modules


def rows_to_int8(matrix):
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


def tokens_to_int8(x, block=256):
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


def converted(module, dtype):
    """A copy of a module that holds weights itself, in `dtype`; None for one that only holds modules."""
    if not module._parameters:
        return None
    weights = {name: tensor.detach().to(dtype, copy=True) for name, tensor in module._parameters.items()}
    return door.with_weights(module, weights)


# ----------------------------------------------------------------------------------------------------------- files


def save(checkpoint: Checkpoint, folder: Name) -> Path:
    """Write a checkpoint to a new folder, which `zsc_utils.load` opens: safetensors and json, no pickle.

    What is loaded gives the same logits, bit for bit, and keeps its precision; attention and chunks are chosen anew.
    Raises ValueError when the folder holds something already, and CheckpointError when the tokenizer's files are gone
    from where they were. Returns the folder's path.
    """
    door.check_loaded(checkpoint)
    folder, precision = Path(folder).expanduser(), precision_of(checkpoint)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: nothing is overwritten, name another")
    door.read_tokenizer(checkpoint.folder, checkpoint.model.config)  # before anything is written
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        write(checkpoint, precision, Path(scratch) / "whole")
        os.replace(Path(scratch) / "whole", folder)  # a folder that exists is whole
    return folder


def write(checkpoint, precision, folder):
    folder.mkdir()
    save_file(stored_tensors(checkpoint.model), folder / "model.safetensors", metadata={"format": "pt"})
    stored = {"int8": INT8_FORMAT, "fp32": "transformers"}.get(precision, precision)
    ids = checkpoint.entailment_id, checkpoint.contradiction_id
    write_beside(folder, checkpoint.folder, checkpoint.model.config, stored, ids)


def write_beside(folder, source, config, stored, ids):
    """Write what belongs to the weights of a folder: config, the tokenizer's files, the two classes' ids."""
    config = config.to_dict() | {"zsc_format": stored}
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    for file in door.TOKENIZER_FILES:
        if (source / file).is_file():
            shutil.copy(source / file, folder / file)
    ids = dict(zip(("entailment", "contradiction"), ids))
    (folder / "label_mapping.json").write_text(json.dumps(ids) + "\n", encoding="utf-8")
    door.read_tokenizer(folder, door.read_config(folder))


def store_int8(source, folder):
    """Write the checkpoint of a folder to a new one in int8, as `save` does, with one tensor in memory at a time."""
    config, file = door.read_config(source), door.weights_file(source)
    model = door.weightless(config)
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

    folder.mkdir()
    door.write_tensors(folder / "model.safetensors", entries, made)
    write_beside(folder, source, config, INT8_FORMAT, door.label_ids(source, config))


def stored_tensors(model):
    """{name: tensor} of a file: int8 matrices under BERT's own names, their scales as `name.scale`."""
    stored = {}
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear | Int8Embedding):
            rows = module.rows() if isinstance(module, Int8Linear) else module.weight
            stored |= {f"{name}.weight": rows, f"{name}.weight.scale": module.scale}
            if isinstance(module, Int8Linear):
                stored[f"{name}.bias"] = module.bias
        else:
            stored |= {f"{name}.{key}": tensor.detach() for key, tensor in module._parameters.items()}
    return {name: tensor.contiguous() for name, tensor in stored.items()}


def read_int8(folder, config, *, dtype=torch.int8, attn_implementation="sdpa"):
    """An int8 model from its file, read module by module; what is stored in more bits is made int8 while it is read."""
    file = door.weights_file(folder)
    if dtype not in (torch.float32, torch.int8):  # fp32 is what load asks for when nobody asked
        raise CheckpointError(f"{folder.name} is stored in int8 and runs in it: leave out dtype {dtype}")
    weights = {name: shape for name, shape in door.tensor_shapes(file).items() if not name.endswith(".scale")}
    door.check_shapes(weights, config, file)
    config._attn_implementation = attn_implementation
    return door.rebuilt(door.weightless(config), lambda module, name: read_module(module, name, file))


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
        return door.with_weights(module, own)
    return Int8Linear(rows, scale, own["bias"]) if "bias" in own else Int8Embedding(rows, scale)


def int8_module(module, name, tensors, dtype):
    """A module with its tensors as a file of INT8_FORMAT holds them: matrices in int8, the rest in fp32."""
    if not in_rows(module, name):
        return door.float_module(module, name, tensors, torch.float32)
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


def read_half(folder, config, *, dtype=torch.float32, attn_implementation="sdpa"):
    """A model stored in fp16 or bf16, memory-mapped, run in what it is stored in."""
    stored = HALVES[config.zsc_format]
    if dtype not in (torch.float32, stored):  # fp32 is what load asks for when nobody asked
        raise CheckpointError(f"{folder.name} is stored in {config.zsc_format} and runs in it: leave out dtype {dtype}")
    return door.read_transformers(folder, config, dtype=stored, attn_implementation=attn_implementation)


door.READERS |= {INT8_FORMAT: read_int8} | dict.fromkeys(HALVES, read_half)
door.READERS_AS[torch.int8] = read_int8  # whatever the folder holds
door.MODULES |= {INT8_FORMAT: int8_module} | dict.fromkeys(HALVES, door.float_module)
door.KEPT |= {INT8_FORMAT: torch.int8} | HALVES
door.STORERS[torch.int8] = store_int8


# ------------------------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Agreement:
    """Two lists of results side by side: `same` of `texts` have the same best label, scores differ by no more than
    `largest_difference`; `right` counts the right answers of the first and the second, None if no truth is known."""

    texts: int
    same: int
    largest_difference: float
    right: tuple | None

    @property
    def share(self):
        return self.same / self.texts

    @property
    def interval(self):
        """The 95 % interval of `share`."""
        return wilson(self.same, self.texts)


def agreement(results: Sequence[Result], others: Sequence[Result], truth: Sequence[str] | None = None) -> Agreement:
    """How far two classifiers agree, from their results for the same texts and labels: an Agreement.

    `truth` lists the right label of each text. Raises ValueError when the two are not of the same texts and labels.
    """
    if isinstance(results, dict) or isinstance(others, dict):
        raise TypeError("give lists of results, as a classifier returns them for a list of texts")
    if len(results) != len(others) or not results:
        raise ValueError(f"{len(results)} results beside {len(others)}: give two lists of the same texts")
    for position, (one, other) in enumerate(zip(results, others)):
        if one["sequence"] != other["sequence"] or set(one["labels"]) != set(other["labels"]):
            raise ValueError(f"result {position} is of another text or other labels in the two lists")
    if truth is not None and len(truth) != len(results):
        raise ValueError(f"{len(truth)} true labels for {len(results)} results")
    for label, result in zip(truth or (), results):
        if label not in result["labels"]:
            raise ValueError(f"true label {label!r} is none of the labels of {result['sequence']!r}")
    score = [dict(zip(result["labels"], result["scores"])) for result in others]
    differences = [
        abs(value - there[label])
        for one, there in zip(results, score)
        for label, value in zip(one["labels"], one["scores"])
    ]
    if any(math.isnan(difference) for difference in differences):
        raise ValueError("some scores are no numbers: a model ran over, as fp16 does beyond 65504; bf16 does not")
    right = truth and tuple(sum(r["labels"][0] == t for r, t in zip(side, truth)) for side in (results, others))
    same = sum(one["labels"][0] == other["labels"][0] for one, other in zip(results, others))
    return Agreement(len(results), same, max(differences), right)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's formula (1927), which stays sensible near 0 and 1."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return tuple((centre + sign * spread) / (1 + z * z / trials) for sign in (-1, 1))
