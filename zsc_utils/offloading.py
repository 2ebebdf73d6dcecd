"""Layers that stay in their file and visit memory while they work: all batches pass one before the next is read.

A layer has two parts: attention, and the feed-forward network. While one computes, the other is read, so that there is
never more than one layer in memory. Weights are read, not mapped: a mapped page counts as memory until the system
takes it back. Of the embeddings, the rows of the tokens that are present are read.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import Module
from transformers import BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from zsc_utils import checkpoint as door
from zsc_utils import inference
from zsc_utils.checkpoint import Checkpoint, CheckpointError

# the modules of a layer's two parts
PARTS = {
    "attention": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                  "attention.output.LayerNorm"),
    "feed-forward": ("intermediate.dense", "output.dense", "output.LayerNorm"),
}  # fmt: skip
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8}
WORDS = "bert.embeddings.word_embeddings"


def stream_layers(folder, *, attention="sdpa"):
    """A Checkpoint whose layers and word embeddings stay in the weights' file and are read when they are needed.

    `folder` is a name or a folder as `zsc_utils.load` takes it, in fp32, fp16, bf16 or int8; what is stored in 16 bits
    is computed in fp32. Its model is called like any other; ZeroShotClassifier takes a block of batches through a layer
    before the next is read. Levers that change weights (quantize, shrink, distil) need a checkpoint that is loaded.
    Raises CheckpointError as `load` does, and while it works when the file was changed, or cannot be read.
    """
    folder = door.find(folder)
    config = door.read_config(folder)
    config._attn_implementation = attention
    model = streamed(door.weightless(config), Shelf(folder, config))
    entailment_id, contradiction_id = door.label_ids(folder, config)
    tokenizer = door.read_tokenizer(folder, config)
    return Checkpoint(model.eval(), tokenizer, str(folder), entailment_id, contradiction_id, folder)


class WeightsFile:
    """A safetensors file from which tensors are read one by one, without mapping it.

    It stays open, so that deleting it does no harm; that it was written to is noticed at the next read.
    """

    def __init__(self, path):
        self.path = Path(path)
        door.tensor_shapes(self.path)  # raises for what is no such file
        self.handle = os.open(self.path, os.O_RDONLY)
        self.stamp = self.status()
        size = int.from_bytes(os.pread(self.handle, 8, 0), "little")
        header = json.loads(os.pread(self.handle, size, 8))
        self.start = 8 + size
        self.entries = {name: entry for name, entry in header.items() if name != "__metadata__"}

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)

    def status(self):
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns

    def __contains__(self, name):
        return name in self.entries

    def read(self, name):
        """A tensor as it is stored."""
        entry = self.entries[name]
        tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        self.fill(tensor, self.start + entry["data_offsets"][0])
        return tensor

    def rows(self, name, numbers):
        """Some rows of a matrix, in the order of `numbers`, each read by itself."""
        entry = self.entries[name]
        rows = torch.empty(len(numbers), entry["shape"][1], dtype=DTYPES[entry["dtype"]])
        size = rows.shape[1] * rows.element_size()
        for row, number in zip(rows, numbers):
            self.fill(row, self.start + entry["data_offsets"][0] + number * size)
        return rows

    def fill(self, tensor, start):
        """Read the bytes from `start` on into a tensor."""
        place, done = memoryview(tensor.flatten().view(torch.uint8).numpy()), 0
        while done < len(place):
            try:
                count = os.preadv(self.handle, [place[done:]], start + done)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read any more: {error}") from error
            if count == 0 or self.status() != self.stamp:
                raise CheckpointError(f"{self.path} was changed while layers were read from it: load it anew")
            done += count


class StreamedEmbedding(Module):
    """An embedding table in a file, of which the rows that are looked up are read."""

    def __init__(self, file, name):
        super().__init__()
        self.file, self.name = file, f"{name}.weight"
        scale = f"{self.name}.scale"
        self.scale = file.read(scale) if scale in file else None

    def forward(self, ids):
        numbers, place = ids.unique(return_inverse=True)
        rows = self.file.rows(self.name, numbers.tolist()).float()
        if self.scale is not None:
            rows *= self.scale[numbers, None]
        return rows[place]


@dataclass(frozen=True)
class Visit:
    """A part of a layer that is to come."""

    layer: int
    part: str


class Shelf:
    """The layers of a folder in their file, and the place in memory where a layer stands while it works."""

    def __init__(self, folder, config):
        self.file = WeightsFile(door.weights_file(folder))
        self.make = door.MODULES[config.zsc_format]
        self.layer = door.weightless(config).bert.encoder.layer[0]
        self.empty = {part: {path: self.layer.get_submodule(path) for path in paths} for part, paths in PARTS.items()}
        self.visits = [Visit(number, part) for number in range(config.num_hidden_layers) for part in PARTS]
        self.reader, self.coming = ThreadPoolExecutor(1, "zsc_utils.offloading"), None

    def passes(self):
        """Each Visit of one way through the layers, when its weights stand in `layer`; the next is read meanwhile."""
        for number, visit in enumerate(self.visits):
            following = self.visits[(number + 1) % len(self.visits)]  # after the last, the first of the next block
            self.stand(self.take(visit))
            self.coming = following, self.reader.submit(self.read, following)
            try:
                yield visit
            finally:
                self.stand(self.empty[visit.part])

    def take(self, visit):
        """The modules of a part: what was read ahead, or, after an interruption, read now."""
        coming, self.coming = self.coming, None
        if coming is not None and coming[0] == visit:
            return coming[1].result()
        return self.read(visit)

    def read(self, visit):
        """The modules of a part, {path in the layer: module}, from the file."""
        stem = f"bert.encoder.layer.{visit.layer}."
        return {path: self.make(empty, stem + path, self.file) for path, empty in self.empty[visit.part].items()}

    def stand(self, modules):
        """Put modules into the layer."""
        for path, module in modules.items():
            parent, _, name = path.rpartition(".")
            self.layer.get_submodule(parent)._modules[name] = module


class StreamedModel(BertForSequenceClassification):
    """BERT whose layers are on a Shelf; called like any other, with padding at the end."""

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **_):
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if (real[:, 1:] & ~real[:, :-1]).any():
            raise ValueError("layers that are streamed take padding at the end only: set padding_side='right'")
        groups = [(1, length) for length in real.sum(1).tolist()]
        (logits,) = block_logits(self, [(input_ids[real], types[real], groups)])
        return SequenceClassifierOutput(logits=logits)


def streamed(model, shelf):
    """A weightless model as a StreamedModel: what is small is read and stays, words are looked up in the file."""

    def small(module, name):
        if name.startswith("bert.encoder.layer"):
            return module
        if name == WORDS:
            return StreamedEmbedding(shelf.file, name)
        return shelf.make(module, name, shelf.file) if module._parameters else None

    rest = door.rebuilt(model, small)
    new = object.__new__(StreamedModel)
    new.__dict__.update(vars(rest), shelf=shelf)
    return new


@torch.inference_mode()
def block_logits(model, batches, chunk=inference.CHUNK):
    """Logits (pairs, classes) of each of some batches (ids, types, groups); all pass a part before the next is read."""
    layer, last = model.shelf.layer, model.config.num_hidden_layers - 1
    layer.attention.self.config = model.config  # which attention
    states = [inference.embed(model, *batch) for batch in batches]
    for visit in model.shelf.passes():
        for number, (_, types, groups) in enumerate(batches):
            if visit.part == "attention":
                options = {"first_only": visit.layer == last}
                states[number] = inference.attention_part(layer, states[number], types, groups, chunk, **options)
            else:
                inference.feed_forward_part(layer, states[number], chunk)
    return [inference.classified(model, state, groups) for state, (_, _, groups) in zip(states, batches)]
