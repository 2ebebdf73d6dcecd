"""Files of weights: safetensors, read without running code, and written with one tensor in memory at a time."""

import json
import math

import torch
from safetensors import SafetensorError, safe_open

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class CheckpointError(ValueError):
    """A checkpoint that cannot be had or trusted; the message says which, why, and what to do."""


def weights_file(folder):
    """The file with the weights; safetensors where there is a choice."""
    for file in WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise CheckpointError(f"{folder} holds no weights: neither {' nor '.join(WEIGHTS)}")


def tensor_shapes(file):
    """{name: shape} from the header of a safetensors file; no weight is read."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is broken or cut short: {error}. Fetch the checkpoint anew") from error


def stored_bytes(folder):
    """Bytes of the weights in a folder's safetensors file, without its header."""
    file = weights_file(folder)
    with file.open("rb") as start:
        header = 8 + int.from_bytes(start.read(8), "little")
    return file.stat().st_size - header


def write_tensors(path, entries, make):
    """Write a safetensors file of `entries`, {name: (dtype, shape)}, with one tensor in memory at a time.

    `make(name)` gives a tensor's parts, one behind the other; it is asked in the order of the names. safetensors itself
    writes only what is in memory whole.
    """
    with path.open("wb") as new:
        write_header(new, entries)
        for name in sorted(entries):
            for part in make(name):
                new.write(part.contiguous().flatten().view(torch.uint8).numpy())


def write_header(new, entries):
    """The header of a safetensors file; a file in which tensors do not lie in its order cannot be opened."""
    size, header, start = {"I8": 1, "F32": 4}, {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in sorted(entries.items()):
        end = start + math.prod(shape) * size[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    new.write(len(text).to_bytes(8, "little") + text)
