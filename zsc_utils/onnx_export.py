"""Export a checkpoint to a folder that runs without torch: weights, graphs, tokenizer, configuration and a card."""

import json
import os
import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch.nn import Embedding

from zsc_utils._exports import FORMATS, NUMBERS, STATED, WEIGHTS, MappedWeights, shapes
from zsc_utils._int8 import Int8Embedding, to_int8
from zsc_utils._types import Name
from zsc_utils._weights import write_tensors
from zsc_utils.checkpoint import LOADED_ATTENTIONS, Checkpoint, check_loaded, load
from zsc_utils.formats import in_integers
from zsc_utils.onnx_graphs import step_graphs, whole_graph
from zsc_utils.quantization import precision_of

# the weights' file names tensors by what they are for; here is where a BertForSequenceClassification has them
EMBEDDINGS = {
    "embeddings.words": "word_embeddings",
    "embeddings.positions": "position_embeddings",
    "embeddings.types": "token_type_embeddings",
}
LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "output": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense", "narrow": "output.dense", "norm": "output.LayerNorm",
}  # fmt: skip


def export(checkpoint: Checkpoint | Name, folder: Name, precision: Literal["fp32", "int8"] = "fp32") -> Path:
    """Write a checkpoint to a new folder that ZeroShotClassifier and `zsc classify` run without torch; return it.

    The folder holds its weights (`model.safetensors`), the engine's graphs, a whole `model.onnx` for other tools, which
    refers to the same weights, `tokenizer.json`, `config.json` and a card. In "int8", matrices have one scale per row
    and activations one per token, as in quantization.quantize. Needs the packages onnx and torch, and memory for all
    weights; running the folder needs neither. Raises ValueError for another precision, a folder that is not empty, an
    activation other than GELU, sliding attention, or weights that are not in memory.

    >>> export("mini", "mini-int8", "int8")  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    if precision not in FORMATS.values():
        raise ValueError(f"precision {precision!r}: an export is in {' or '.join(FORMATS.values())}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder {str(folder)!r} is there already and not empty: name a new one")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint)
    check_exportable(checkpoint, precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder.parent) as scratch:
        made = Path(scratch) / "export"
        made.mkdir()
        write(checkpoint, made, precision)
        if folder.exists():
            folder.rmdir()
        os.rename(made, folder)
    return folder


def check_exportable(checkpoint, precision):
    check_loaded(checkpoint)
    config, stored = checkpoint.model.config, precision_of(checkpoint)
    if in_integers(stored) and not in_integers(precision):
        raise ValueError(f"precision {precision!r}: {checkpoint.name!r} is in {stored}, which has fewer bits")
    if config.hidden_act != "gelu":
        raise ValueError(f"{checkpoint.name!r} has the activation {config.hidden_act!r}: only 'gelu' is exported")
    if config._attn_implementation not in LOADED_ATTENTIONS:
        raise ValueError(
            f"{checkpoint.name!r} has {config._attn_implementation} attention: exports have full attention; "
            "use attention.use(checkpoint, 'sdpa') first"
        )


def write(checkpoint, folder, precision):
    """Write all files of an export to an empty folder."""
    config = stated(checkpoint, precision)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    ids = {"entailment": checkpoint.entailment_id, "contradiction": checkpoint.contradiction_id}
    (folder / "label_mapping.json").write_text(json.dumps(ids) + "\n", encoding="utf-8")
    checkpoint.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    found = makers(checkpoint.model, in_integers(precision))
    codes = {np.dtype(dtype): code for code, dtype in NUMBERS.items()}
    entries = {name: (codes[dtype], shape) for name, (dtype, shape) in shapes(config, in_integers(precision)).items()}
    write_tensors(folder / WEIGHTS, entries, lambda name: iter([found[name]()]))
    in_int8.cache_clear()  # it would keep the last module
    for name, graph in step_graphs(config, in_integers(precision)).items():
        (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    (folder / "model.onnx").write_bytes(whole(folder, config, precision).SerializeToString())
    (folder / "README.md").write_text(card(checkpoint, config, precision), encoding="utf-8")


def whole(folder, config, precision):
    """Return the whole model, which refers to the weights that are written already."""
    weights = MappedWeights(folder / WEIGHTS)
    places = {
        name: (dtype, shape, weights.start + start, end - start)
        for name, (dtype, shape, start, end) in weights.entries.items()
    }
    keys = ("entailment_id", "contradiction_id", "zsc_format", "model_max_length")
    return whole_graph(config, in_integers(precision), places, {key: str(config[key]) for key in keys})


def stated(checkpoint, precision):
    """Return the export's config.json as a dict."""
    config = checkpoint.model.config
    own = {
        "model_max_length": checkpoint.tokenizer.model_max_length,
        "entailment_id": checkpoint.entailment_id,
        "contradiction_id": checkpoint.contradiction_id,
    }
    name = next(name for name, each in FORMATS.items() if each == precision)
    known = {key: own[key] if key in own else kind(getattr(config, key)) for key, kind in STATED.items()}
    return {"model_type": "bert", "zsc_format": name, "id2label": config.id2label} | known


def makers(model, int8):
    """Return {name: function that makes the tensor} of all tensors of an export."""
    embeddings = model.bert.embeddings
    found = norm("embeddings.norm", embeddings.LayerNorm)
    for name, source in EMBEDDINGS.items():
        found |= matrix(name, getattr(embeddings, source), int8)
    for number, layer in enumerate(model.bert.encoder.layer):
        for name, source in LAYER.items():
            kind = norm if name.endswith("norm") else partial(matrix, int8=int8)
            found |= kind(f"layers.{number}.{name}", layer.get_submodule(source))
    return found | matrix("pooler", model.bert.pooler.dense, int8) | matrix("classifier", model.classifier, False)


def norm(name, module):
    return {f"{name}.{key}": partial(in_fp32, module, key) for key in ("weight", "bias")}


def matrix(name, module, int8):
    """Return the makers of a linear layer or an embedding. A linear layer's matrix becomes (inputs, outputs)."""

    def made(key):
        tensor = in_int8(module)[key] if int8 else in_fp32(module, key)
        return tensor if key != "weight" or isinstance(module, Embedding | Int8Embedding) else tensor.t()

    found = {name: partial(made, "weight")}
    if int8:
        found[f"{name}.scale"] = partial(made, "weight.scale")
    return found if isinstance(module, Embedding | Int8Embedding) else found | {f"{name}.bias": partial(made, "bias")}


def in_fp32(module, key):
    return module.state_dict()[key].float()


@lru_cache(maxsize=1)  # the parts of a module are written one after the other
def in_int8(module):
    """Return {key: tensor} of a module in int8; one that is in int8 already is taken as it is."""
    return (module if hasattr(module, "stored") else to_int8(module, "")).stored()


def card(checkpoint, config, precision):
    """Return the text of the export's README.md."""
    scales = ", in int8 with one scale per output" if in_integers(precision) else ""
    return f"""# {checkpoint.name}, exported in {precision}

A BERT for natural-language inference: {config["num_hidden_layers"]} layers, hidden size {config["hidden_size"]},
{config["num_labels"]} classes. Column {config["entailment_id"]} of its logits is entailment, column
{config["contradiction_id"]} contradiction. It reads pairs of a text and a hypothesis, which `tokenizer.json` joins.

- `model.safetensors`: all weights. Matrices are (inputs, outputs){scales}.
- `model.onnx`: the whole model, from padded ids and a mask to logits. It refers to the weights in `model.safetensors`.
- `embed.onnx`, `project.onnx`, `attend.onnx`, `finish.onnx`, `classify.onnx`: its steps, without weights.

Run it with zsc_utils, without torch:

    from zsc_utils import ZeroShotClassifier
    classify = ZeroShotClassifier("this folder")
    classify("央行下调利率", ["财经", "体育"])
"""
