"""How weights may lie in a file, and in which precision they run: all there is of a format, in one place."""

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
    """A way in which weights lie in a file; its `name` stands in config.json as zsc_format.

    `precision` is what they run in, unless another is asked for. `read(folder, config, dtype=, attn_implementation=)`
    makes a model of a folder; `module(module, name, tensors, dtype)` makes one module of its tensors as they are
    stored. `store(file, config, new)`, of formats that are made of any other, writes the new file with one tensor in
    memory at a time. `embeddings` is the precision in which they stay in their file, if not the same.
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
    """Weights stored as they are used: memory-mapped, so that a page takes memory when it is touched."""
    file = weights_file(folder)
    check_shapes(tensor_shapes(file), config, file)
    return BertForSequenceClassification.from_pretrained(folder, config=config, **options)


def read_half(folder, config, *, dtype=torch.float32, attn_implementation="sdpa"):
    """A model stored in fp16 or bf16, memory-mapped, run in what it is stored in."""
    stored = DTYPES[config.zsc_format]
    if dtype not in (torch.float32, stored):  # fp32 is what load asks for when nobody asked
        raise CheckpointError(f"{folder.name} is stored in {config.zsc_format} and runs in it: leave out dtype {dtype}")
    return read_transformers(folder, config, dtype=stored, attn_implementation=attn_implementation)


# the first of a precision is the one that `save` writes; a name counts up when the file is laid out otherwise
FORMATS = (
    Format("transformers", "fp32", read_transformers, float_module),
    Format("int8-rows", "fp32", read_int8_rows, float_module, embeddings="int8"),
    Format("fp16", "fp16", read_half, float_module),
    Format("bf16", "bf16", read_half, float_module),
    Format("int8-v1", "int8", read_int8, int8_module, store=store_int8),
)


def format_of(config: PretrainedConfig) -> Format:
    """The Format that a config names."""
    return next(form for form in FORMATS if form.name == config.zsc_format)


def format_for(precision: str) -> Format:
    """The Format in which a checkpoint of that precision is saved."""
    return next(form for form in FORMATS if form.precision == precision)


def made_of_any(dtype: torch.dtype) -> Format | None:
    """The Format of that dtype which is made of a file of any other, or None."""
    return next((form for form in FORMATS if form.store and form.dtype == dtype), None)


def in_integers(precision: str) -> bool:
    """Whether weights in that precision are whole numbers with a scale a row, while all else is in fp32."""
    return not DTYPES[precision].is_floating_point


def activations_dtype(precision: str) -> torch.dtype:
    """What hidden states are in, where weights are in that precision."""
    return torch.float32 if in_integers(precision) else DTYPES[precision]
