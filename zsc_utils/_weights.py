"""Files of weights: safetensors, read without running code, and written with one tensor in memory at a time."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

NUMBERS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8}  # in safetensors
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


class WeightsFile:
    """A safetensors file from which tensors are read one by one, without mapping it; it stays open.

    That it was written to, or deleted, is noticed at the next read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.handle = os.open(self.path, os.O_RDONLY)
        self.start, self.entries = self.header()
        self.stamp = self.status()

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)

    def __reduce__(self):
        return WeightsFile, (self.path,)

    def header(self):
        """(where the tensors begin, {name: its entry}), read without mapping the file: a limit on memory may forbid it.

        Raises CheckpointError for what is no such file, or not as long as its tensors are.
        """
        try:
            size = int.from_bytes(os.pread(self.handle, 8, 0), "little")
            if size > 100_000_000:
                raise ValueError("no header")
            entries = json.loads(os.pread(self.handle, size, 8))
            entries.pop("__metadata__", None)
            for entry in entries.values():
                (start, end), dtype = entry["data_offsets"], NUMBERS.get(entry["dtype"])
                if dtype is not None and end - start != math.prod(entry["shape"]) * dtype.itemsize:
                    raise ValueError("a tensor is not as long as its shape says")
            if 8 + size + max(entry["data_offsets"][1] for entry in entries.values()) != self.status()[0]:
                raise ValueError("it is not as long as its tensors")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path} is broken or cut short: {error}. Fetch the checkpoint anew") from error
        return 8 + size, entries

    def status(self):
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns, status.st_nlink > 0

    def __contains__(self, name):
        return name in self.entries

    def keys(self, module):
        """(key, shape, dtype) of each of a module's tensors, such as "weight" and "weight.scale"."""
        found = {name.removeprefix(f"{module}."): name for name in self.entries if name.startswith(f"{module}.")}
        return [(key, tuple(self.entries[name]["shape"]), self.dtype(name)) for key, name in found.items()]

    def tensors(self, module):
        """{key: tensor} of a module, as they are stored."""
        return {key: self.read(f"{module}.{key}") for key, *_ in self.keys(module)}

    def dtype(self, name):
        """What a tensor is stored in; raises CheckpointError for what no weight is."""
        dtype = self.entries[name]["dtype"]
        if dtype not in NUMBERS:
            raise CheckpointError(f"{self.path} is broken: {name} is stored as {dtype}")
        return NUMBERS[dtype]

    def read(self, name, place=None):
        """A tensor as it is stored; with `place`, into that tensor, which may be of another dtype."""
        entry, dtype = self.entries[name], self.dtype(name)
        tensor = torch.empty(entry["shape"], dtype=dtype) if place is None or place.dtype != dtype else place
        self.fill(tensor, self.start + entry["data_offsets"][0])
        return tensor if place is None or tensor is place else place.copy_(tensor)

    def rows(self, name, numbers):
        """Some rows of a matrix, in the order of `numbers`, each read by itself."""
        entry = self.entries[name]
        rows = torch.empty(len(numbers), entry["shape"][1], dtype=self.dtype(name))
        size = rows.shape[1] * rows.element_size()
        for row, number in zip(rows, numbers):
            self.fill(row, self.start + entry["data_offsets"][0] + number * size)
        return rows

    def fill(self, tensor, start):
        """Read the bytes from `start` on into a tensor."""
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
    """A tensor's memory, to read into and to write from."""
    return memoryview(tensor.flatten().view(torch.uint8).numpy())
