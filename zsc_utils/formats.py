"""The formats in which files store weights, and the precision in which the weights of each format run."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import BertForSequenceClassification, PretrainedConfig

from zsc_utils._bert import check_shapes, float_module
from zsc_utils._int8 import int8_module, read_int8, read_int8_rows, store_int8
from zsc_utils._types import Precision
from zsc_utils._weights import CheckpointError, tensor_shapes, weights_file

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
NAMES = {dtype: precision for precision, dtype in DTYPES.items()}
HALVES = ("fp16", "bf16")


@dataclass(frozen=True)
class Format:
    """A format in which a file stores weights. config.json states its `name` as zsc_format.

    `precision` is the one in which the weights run by default. `read(folder, config, dtype=, attn_implementation=)`
    builds a model from a folder. `module(module, name, tensors, dtype)` builds one module from its stored tensors.
    `store(file, config, new)` converts a file of any other format, with one tensor in memory at a time; None if there
    is no such conversion. `embeddings` is the precision in which embeddings are stored, if it is not `precision`.
    """

    name: str
    precision: Precision
    read: Callable
    module: Callable
    store: Callable | None = None
    embeddings: Precision | None = None

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


def read_transformers(folder, config, **options):
    """Return a model; weights stored in its dtype are memory-mapped, so a page takes memory only once it is touched."""
    file = weights_file(folder)
    check_shapes(tensor_shapes(file), config, file)
    return BertForSequenceClassification.from_pretrained(folder, config=config, **options)


def read_half(folder, config, *, dtype=torch.float32, attn_implementation="sdpa"):
    """Return a model stored in fp16 or bf16, memory-mapped. It runs in the precision in which it is stored."""
    stored = DTYPES[config.zsc_format]
    if dtype not in (torch.float32, stored):  # fp32 is load's default: it may mean that no dtype was given
        raise CheckpointError(f"{folder.name} is stored in {config.zsc_format} and runs in it: leave out dtype {dtype}")
    return read_transformers(folder, config, dtype=stored, attn_implementation=attn_implementation)


# `save` writes the first format of a precision. If a format's layout changes, it gets a new name, with a higher number.
FORMATS = (
    Format("transformers", "fp32", read_transformers, float_module),
    Format("int8-rows", "fp32", read_int8_rows, float_module, embeddings="int8"),
    Format("fp16", "fp16", read_half, float_module),
    Format("bf16", "bf16", read_half, float_module),
    Format("int8-v1", "int8", read_int8, int8_module, store=store_int8),
)


def format_of(config: PretrainedConfig) -> Format:
    """Return the Format that a config names as zsc_format."""
    return next(form for form in FORMATS if form.name == config.zsc_format)


def format_for(precision: str) -> Format:
    """Return the Format in which a checkpoint of that precision is saved."""
    return next(form for form in FORMATS if form.precision == precision)


def made_of_any(dtype: torch.dtype) -> Format | None:
    """Return the Format of that dtype to which any other format can be converted, or None."""
    return next((form for form in FORMATS if form.store and form.dtype == dtype), None)


def in_integers(precision: str) -> bool:
    """Return whether weights of that precision are integers with one scale per row; all other numbers are then fp32."""
    return not DTYPES[precision].is_floating_point


def activations_dtype(precision: str) -> torch.dtype:
    """Return the dtype of hidden states if weights have that precision."""
    return torch.float32 if in_integers(precision) else DTYPES[precision]
