"""Weights files: read safetensors without running code, and write them with one tensor in memory at a time."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from zsc_utils._types import CheckpointError

NUMBERS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8}  # in safetensors
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def weights_file(folder):
    """Return the weights file of a folder; if there are several, the safetensors file."""
    for file in WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise CheckpointError(f"{folder} holds no weights: neither {' nor '.join(WEIGHTS)}")


def tensor_shapes(file):
    """Return {name: shape} from the header of a safetensors file, without reading or mapping weights.

    Raises CheckpointError if it is not a safetensors file, or not as long as its header says.
    """
    try:
        with safe_open(file, framework="pt", backend="pread") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is broken or cut short: {error}. Fetch the checkpoint anew") from error


def stored_bytes(folder):
    """Return the bytes of the weights in a folder's safetensors file, without its header."""
    file = weights_file(folder)
    with file.open("rb") as start:
        header = 8 + int.from_bytes(start.read(8), "little")
    return file.stat().st_size - header


def write_tensors(path, entries, make):
    """Write a safetensors file of `entries`, {name: (dtype, shape)}, with one tensor in memory at a time.

    `make(name)` yields a tensor in consecutive parts; it is called for the names in sorted order. The save_file of
    safetensors is not used, because it needs all tensors in memory.
    """
    with path.open("wb") as new:
        write_header(new, entries)
        for name in sorted(entries):
            for part in make(name):
                new.write(part.contiguous().flatten().view(torch.uint8).numpy())


def write_header(new, entries):
    """Write the header of a safetensors file, for "I8" and "F32" only. Tensors must follow in sorted order of names."""
    size, header, start = {"I8": 1, "F32": 4}, {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in sorted(entries.items()):
        end = start + math.prod(shape) * size[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    new.write(len(text).to_bytes(8, "little") + text)


class WeightsFile:
    """A safetensors file from which tensors are read one by one, without memory-mapping it. The file stays open.

    Raises CheckpointError if it is broken; so does the next read after the file was changed or deleted.
    """

    # Tensors are read by hand, because safe_open of safetensors 0.8 cannot fill a given tensor. Five passes over the
    # layers of base-shape took it 3.6 times as long and 56 MB of memory instead of 28: each tensor is new memory. To
    # read one row of the word embeddings (3 kB), it reads the whole table (65 MB), 40 ms instead of 0.01. And a
    # mapped file counts as memory, or fails to open where the process's data is limited (`ulimit -d`).

    def __init__(self, path):
        self.path = Path(path)
        tensor_shapes(self.path)  # the library checks the header
        self.handle = os.open(self.path, os.O_RDONLY)
        size = int.from_bytes(os.pread(self.handle, 8, 0), "little")
        self.start, self.entries = 8 + size, json.loads(os.pread(self.handle, size, 8))
        self.entries.pop("__metadata__", None)
        self.stamp = self.status()

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)

    def __reduce__(self):
        return WeightsFile, (self.path,)

    def status(self):
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns, status.st_nlink > 0

    def __contains__(self, name):
        return name in self.entries

    def keys(self, module):
        """Return (key, shape, dtype) of each tensor of a module; a key is, for example, "weight" or "weight.scale"."""
        found = {name.removeprefix(f"{module}."): name for name in self.entries if name.startswith(f"{module}.")}
        return [(key, tuple(self.entries[name]["shape"]), self.dtype(name)) for key, name in found.items()]

    def tensors(self, module):
        """Return {key: tensor} of a module, in the dtypes in which they are stored."""
        return {key: self.read(f"{module}.{key}") for key, *_ in self.keys(module)}

    def dtype(self, name):
        """Return the dtype in which a tensor is stored. Raises CheckpointError if it is none of NUMBERS."""
        dtype = self.entries[name]["dtype"]
        if dtype not in NUMBERS:
            raise CheckpointError(f"{self.path} is broken: {name} is stored as {dtype}")
        return NUMBERS[dtype]

    def read(self, name, place=None):
        """Return a tensor in its stored dtype. If `place`, a tensor of any dtype, is given, fill it and return it."""
        entry, dtype = self.entries[name], self.dtype(name)
        tensor = torch.empty(entry["shape"], dtype=dtype) if place is None or place.dtype != dtype else place
        self.fill(tensor, self.start + entry["data_offsets"][0])
        return tensor if place is None or tensor is place else place.copy_(tensor)

    def rows(self, name, numbers):
        """Return the rows `numbers` of a matrix, in that order. Each row is read separately."""
        entry = self.entries[name]
        rows = torch.empty(len(numbers), entry["shape"][1], dtype=self.dtype(name))
        size = rows.shape[1] * rows.element_size()
        for row, number in zip(rows, numbers):
            self.fill(row, self.start + entry["data_offsets"][0] + number * size)
        return rows

    def fill(self, tensor, start):
        """Fill a contiguous tensor with the bytes of the file from offset `start` on."""
        place, done = bytes_of(tensor), 0
        while done < len(place):
            try:
                count = os.preadv(self.handle, [place[done:]], start + done)
                whole = self.status() == self.stamp
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read any more: {error}. Fetch it anew") from error
            if count == 0 or not whole:
                raise CheckpointError(
                    f"{self.path} was changed or deleted while layers were read from it: stream it anew"
                )
            done += count


def bytes_of(tensor):
    """Return a memoryview of the bytes of a contiguous tensor, to read into it or to write from it."""
    return memoryview(tensor.flatten().view(torch.uint8).numpy())
