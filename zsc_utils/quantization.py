"""Convert a checkpoint to fp16, bf16 or int8, save it to a folder, and compare its results with the original's.

See `_agreement` for the comparison, `_int8` for int8, and `formats` for the formats of files."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from zsc_utils import checkpoint as door
from zsc_utils._agreement import Agreement, agreement, wilson
from zsc_utils._bert import converted, rebuilt
from zsc_utils._int8 import Int8Embedding, Int8Linear, int8_bytes, rows_to_int8, to_int8, tokens_to_int8
from zsc_utils._products import WIDENED, activation_range, int8_engine, times_as_long
from zsc_utils._types import Name, Precision
from zsc_utils.checkpoint import Checkpoint
from zsc_utils.formats import DTYPES, HALVES, NAMES, format_for, in_integers

__all__ = [
    "Agreement", "Int8Embedding", "Int8Linear", "PRECISIONS", "activation_range", "agreement", "int8_bytes",
    "precision_of", "product_time", "quantize", "rows_to_int8", "save", "tokens_to_int8", "weight_bytes", "wilson",
]  # fmt: skip

PRECISIONS = tuple(precision for precision in DTYPES if precision != "fp32")  # what `quantize` converts to


def quantize(checkpoint: Checkpoint, precision: Precision) -> Checkpoint:
    """Return a new Checkpoint in "fp16", "bf16" or "int8". The given one does not change, and no weights are shared.

    The tokenizer and the index buffers are shared. int8 applies to embeddings and linear layers except the classifier:
    they take a quarter of fp32's bytes. If no int8 product is exact and fast here, rows stay int8 but are multiplied in
    fp32. fp16 and bf16 are slower than fp32 on CPUs without instructions for them; plans say so. Raises ValueError for
    another precision, for a checkpoint in int8, for weights that are not in memory, and for int8 not on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    door.check_loaded(checkpoint)
    now = precision_of(checkpoint)
    if now in PRECISIONS and in_integers(now):
        raise ValueError(f"{checkpoint.name!r} is in {now} already: start from the checkpoint it was made from")
    if in_integers(precision):
        check_device(checkpoint.model.device)
        return replace(checkpoint, model=rebuilt(checkpoint.model, to_int8))
    model = rebuilt(checkpoint.model, lambda module, _: converted(module, DTYPES[precision]))
    return replace(checkpoint, model=model)


def check_device(device):
    """Raise ValueError if int8 cannot run on the device."""
    if device.type != "cpu":
        raise ValueError(
            f"int8 runs on CPUs only, the model is on {device}: use fp16 there, or move it with .cpu() first"
        )


def precision_of(checkpoint: Checkpoint) -> str:
    """Return "fp32", "fp16", "bf16" or "int8"; for other dtypes, torch's name, such as "torch.float64"."""
    if any(isinstance(module, Int8Linear) for module in checkpoint.model.modules()):
        return NAMES[torch.int8]
    return NAMES.get(checkpoint.model.dtype, str(checkpoint.model.dtype))


def product_time(precision: str) -> float:
    """Return the time of a matrix product in "fp16", "bf16" or "int8" on this processor, as a multiple of fp32's time.

    Under 1, the precision is faster than fp32. It is 1 if int8 is multiplied in fp32. Each product is timed once per
    process, in some milliseconds. Raises ValueError for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision in HALVES:
        return times_as_long(DTYPES[precision])
    return 1.0 if int8_engine() == WIDENED else times_as_long(int8_engine())


def weight_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of a checkpoint's weights as `save` stores them, scales included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.model.state_dict().values())


# ----------------------------------------------------------------------------------------------------------- files


def save(checkpoint: Checkpoint, folder: Name) -> Path:
    """Write a checkpoint to a new folder as safetensors and JSON, without pickle. Returns the folder's path.

    `zsc_utils.load` opens it in the same precision, with the same logits, bit for bit. Attention and chunk size are not
    saved. Raises ValueError if the path exists and is not an empty folder, if weights are not all in memory, or if they
    are in no precision of a format; CheckpointError if the tokenizer's files are missing or broken.
    """
    door.check_loaded(checkpoint)
    folder, precision = Path(folder).expanduser(), precision_of(checkpoint)
    if precision not in DTYPES:
        raise ValueError(
            f"{checkpoint.name!r} is in {precision}: save it in {', '.join(DTYPES)}, or convert it with .to()"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: nothing is overwritten, name another")
    door.read_tokenizer(checkpoint.folder, checkpoint.model.config)  # before anything is written
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        write_folder(checkpoint, precision, Path(scratch) / "whole")
        os.replace(Path(scratch) / "whole", folder)  # moved when complete, so the folder is never incomplete
    return folder


def write_folder(checkpoint, precision, folder):
    folder.mkdir()
    save_file(stored_tensors(checkpoint.model), folder / "model.safetensors", metadata={"format": "pt"})
    ids = checkpoint.entailment_id, checkpoint.contradiction_id
    door.write_beside(folder, checkpoint.folder, checkpoint.model.config, format_for(precision), ids)


def stored_tensors(model):
    """Return {name: tensor} for a file: BERT's own names; the scales of int8 rows are named `name.scale`."""
    tensors = {}
    for name, module in model.named_modules():
        own = module.stored() if hasattr(module, "stored") else module._parameters
        tensors |= {f"{name}.{key}": tensor.detach().contiguous() for key, tensor in own.items()}
    return tensors


# ------------------------------------------------------------------------------------------------------- agreement
