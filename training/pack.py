"""Store a trained checkpoint as `mini`: matrices as int8 with one scale a row, the rest as fp32.

python training/pack.py build/training/checkpoint zsc_utils/data/mini
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

LEFT_BY_TRAINING = (
    "is_local",
    "local_files_only",
    "max_length",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding_side",
)


def rows_to_int8(matrix):
    """(int8 matrix, fp32 scale a row): the largest weight of a row becomes 127."""
    scale = (matrix.abs().amax(1) / 127).clamp_min(1e-12)
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def unpacked(stored):
    """A packed state as fp32 tensors; one that is not packed stays as it is."""
    scales = {name: stored[name + ".scale"] for name in stored if name + ".scale" in stored}
    plain = {name: tensor.float() for name, tensor in stored.items() if not name.endswith(".scale")}
    return {name: t * scales[name][:, None] if name in scales else t for name, t in plain.items()}


def pack(source, target):
    target.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if tensor.ndim == 2 and not name.startswith("classifier"):
            stored[name], stored[name + ".scale"] = rows_to_int8(tensor.float())
        else:
            stored[name] = tensor.float()
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"zsc_format": "int8-rows"}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(source, target)


def write_tokenizer(source, target):
    """The tokenizer without the padding that training left in it: a text is to be as long as it is."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(target)
    file = target / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(file.read_text("utf-8")).items() if key not in LEFT_BY_TRAINING}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    pack(arguments.source, arguments.target)
    print(f"{sum(f.stat().st_size for f in arguments.target.iterdir()) / 1e6:.1f} MB in {arguments.target}")
