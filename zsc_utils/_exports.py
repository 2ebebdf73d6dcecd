"""Folders that `zsc_utils.export` writes: read their configuration and map their weights, without torch."""

import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zsc_utils._types import CheckpointError, Name, Precision

INT8: Precision = "int8"
FORMATS: dict[str, Precision] = {"onnx-fp32-v2": "fp32", "onnx-int8-v2": INT8}  # by what config.json says
OUTDATED = ("onnx-fp32-v1", "onnx-int8-v1")  # their graphs took weights as inputs
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
NUMBERS = {"F32": np.float32, "I8": np.int8}  # in safetensors
STATED = {  # keys of config.json, with the kind of their values
    "vocab_size": int, "hidden_size": int, "num_hidden_layers": int, "num_attention_heads": int,
    "intermediate_size": int, "max_position_embeddings": int, "type_vocab_size": int, "layer_norm_eps": float,
    "num_labels": int, "model_max_length": int, "entailment_id": int, "contradiction_id": int,
}  # fmt: skip

TABLES = {  # of the embeddings, with their number of rows
    "embeddings.words": "vocab_size", "embeddings.positions": "max_position_embeddings",
    "embeddings.types": "type_vocab_size",
}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A folder with an exported checkpoint. `config` holds the keys STATED; `stored_bytes` and `tokenizer_bytes` are
    the sizes of two of its files.

    `entailment_id` and `contradiction_id` are columns of the model's logits.
    """

    name: str
    folder: Path
    precision: Precision
    config: dict[str, Any]
    stored_bytes: int
    tokenizer_bytes: int

    @property
    def entailment_id(self) -> int:
        return self.config["entailment_id"]

    @property
    def contradiction_id(self) -> int:
        return self.config["contradiction_id"]

    def __repr__(self):
        shape = f"{self.config['num_hidden_layers']} layers x {self.config['hidden_size']}"
        return f"Exported({self.name!r}: {shape}, {self.stored_bytes / 1e6:.1f} MB of weights, {self.precision})"


def is_export(name: object) -> bool:
    """Return whether `name` is a folder that `zsc_utils.export` has written."""
    file = Path(name).expanduser() / "config.json" if isinstance(name, str | os.PathLike) else None
    if file is None or not file.is_file():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("zsc_format") in (*FORMATS, *OUTDATED)
    except (ValueError, AttributeError):
        return False  # checkpoint.load names what is broken


def read_export(name: Name) -> Exported:
    """Return the Exported of a folder. Raises CheckpointError if its config.json lacks something, or if an earlier
    version wrote it."""
    folder = Path(name).expanduser().resolve()
    file = folder / "config.json"
    stated = json.loads(file.read_text(encoding="utf-8"))
    if stated["zsc_format"] in OUTDATED:
        raise CheckpointError(
            f"{folder} was exported by an earlier version of zsc_utils ({stated['zsc_format']}): "
            "export the checkpoint anew"
        )
    wrong = [key for key, kind in STATED.items() if type(stated.get(key)) is not kind or (stated[key] < 0)]
    if wrong:
        raise CheckpointError(f"{file} is broken: {', '.join(wrong)} missing or wrong. Export the checkpoint anew")
    config = {key: stated[key] for key in STATED}
    sizes = [(folder / name).stat().st_size if (folder / name).is_file() else 0 for name in (WEIGHTS, TOKENIZER)]
    return Exported(str(name), folder, FORMATS[stated["zsc_format"]], config, *sizes)


PLACE_DIGITS = 32  # more than the longest name, and than a place in a file has digits


def open_place(name: str) -> str:
    """Return what stands in a graph's file for a tensor's place in the weights' file: as long as a place."""
    return f"<{name}>".ljust(PLACE_DIGITS, ".")


class MappedWeights:
    """A safetensors file that is mapped into memory: a page takes memory only once it is touched.

    `array` returns a view of the mapped bytes. `rows` reads single rows, without touching the others' pages.
    `expect` asks the system to read tensors in advance. `placed` writes their places into a graph.
    Raises CheckpointError if the file is broken, or was changed or deleted since it was opened.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}. Export the checkpoint anew") from error
        self.stamp = self.status()
        try:
            self.bytes = mmap.mmap(self.handle, 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file
            raise CheckpointError(f"{path} is broken or cut short: {error}. Export the checkpoint anew") from error
        self.start, self.entries = self.header()

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)  # the mapping stays as long as an array shows it

    def header(self):
        """Return (byte offset of the tensors, {name: (dtype, shape, start, end)})."""
        try:
            size = int.from_bytes(self.read(0, 8), "little")
            if size > 100_000_000:
                raise ValueError("no header")
            stated = json.loads(self.read(8, size))
            stated.pop("__metadata__", None)
            entries = {}
            for name, entry in stated.items():
                dtype, shape, (start, end) = np.dtype(NUMBERS[entry["dtype"]]), entry["shape"], entry["data_offsets"]
                if end - start != math.prod(shape) * dtype.itemsize:
                    raise ValueError("a tensor is not as long as its shape says")
                entries[name] = dtype, tuple(shape), start, end
            if 8 + size + max(end for *_, end in entries.values()) != self.stamp[0]:
                raise ValueError("it is not as long as its tensors")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path} is broken or cut short: {error}. Export the checkpoint anew") from error
        return 8 + size, entries

    def status(self):
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns, status.st_nlink > 0

    def read(self, start, size):
        """Return bytes of the file. They come past the mapping, whose pages stay untouched, where the system can."""
        return os.pread(self.handle, size, start) if hasattr(os, "pread") else self.bytes[start : start + size]

    def check(self) -> None:
        """Raise CheckpointError if the file has changed: to touch a page beyond its end would end the process."""
        if self.status() != self.stamp:
            raise CheckpointError(f"{self.path} was changed or deleted while it is in use: load it anew")

    def inside(self, prefix: str) -> list[str]:
        """Return the names of the tensors of a part, such as "layers.3" or "layers.3.query"."""
        return [name for name in self.entries if name == prefix or name.startswith(f"{prefix}.")]

    def placed(self, graph: bytes, prefix: str) -> bytes:
        """Return the bytes of a graph with the places of its tensors, whose names in this file begin with `prefix`."""
        for name in self.entries:
            if name.startswith(prefix):
                place = f"{self.start + self.entries[name][2]:0{PLACE_DIGITS}d}"
                graph = graph.replace(open_place(name[len(prefix) :]).encode(), place.encode())
        return graph

    def array(self, name: str) -> np.ndarray:
        dtype, shape, start, _ = self.entries[name]
        return np.frombuffer(self.bytes, dtype, math.prod(shape), self.start + start).reshape(shape)

    def rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Return the rows `numbers` of a matrix, in that order; each different row is read once."""
        dtype, (_, width), start, _ = self.entries[name]
        different, places = np.unique(numbers, return_inverse=True)
        size = width * dtype.itemsize
        read = b"".join(self.read(self.start + start + int(number) * size, size) for number in different)
        return np.frombuffer(read, dtype).reshape(len(different), width)[places]

    def expect(self, names: Iterable[str]) -> None:
        """Ask the system to read the pages of these tensors. Systems without such advice do without."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for name in names:
            _, _, start, end = self.entries[name]
            first = (self.start + start) // mmap.PAGESIZE * mmap.PAGESIZE
            self.bytes.madvise(mmap.MADV_WILLNEED, first, self.start + end - first)


def check_tensors(weights: MappedWeights, export: Exported) -> None:
    """Raise CheckpointError if a tensor is missing or has another shape than the configuration says."""
    wrong = [
        name
        for name, expected in shapes(export.config, export.precision == INT8).items()
        if weights.entries.get(name, (None,) * 2)[:2] != expected
    ]
    if wrong:
        raise CheckpointError(
            f"{weights.path}: {', '.join(wrong[:3])} missing or of another shape than config.json says. "
            "Export the checkpoint anew"
        )


def shapes(config: Mapping[str, Any], int8: bool) -> dict[str, tuple]:
    """Return {name: (dtype, shape)} of all tensors of an export with that config."""
    h, f = config["hidden_size"], config["intermediate_size"]
    found: dict[str, tuple] = {}

    def table(name, rows):
        found[name] = np.dtype(np.int8 if int8 else np.float32), (rows, h)
        if int8:
            found[f"{name}.scale"] = np.dtype(np.float32), (rows,)

    def linear(name, wide, narrow, int8=int8):
        found[name] = np.dtype(np.int8 if int8 else np.float32), (wide, narrow)
        found[f"{name}.bias"] = np.dtype(np.float32), (narrow,)
        if int8:
            found[f"{name}.scale"] = np.dtype(np.float32), (narrow,)

    def norm(name):
        found[f"{name}.weight"] = found[f"{name}.bias"] = np.dtype(np.float32), (h,)

    for name, key in TABLES.items():
        table(name, config[key])
    norm("embeddings.norm")
    for number in range(config["num_hidden_layers"]):
        for name in ("query", "key", "value", "output"):
            linear(f"layers.{number}.{name}", h, h)
        linear(f"layers.{number}.widen", h, f)
        linear(f"layers.{number}.narrow", f, h)
        norm(f"layers.{number}.attention_norm")
        norm(f"layers.{number}.norm")
    linear("pooler", h, h)
    linear("classifier", h, config["num_labels"], int8=False)
    return found
