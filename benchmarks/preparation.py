"""What ways to classify read, made beforehand: python benchmarks/preparation.py FOLDER, run by containers.py.

It writes `work.json` (24 texts x 9 labels), `headlines.json` (each `every`-th headline of the test set x 12 labels),
`long.json` (longer ones) and two checkpoints, `base-shape` and `mini` off its int8 grid, each with what ways read.
With --older, that Python makes CrossEncoder's own ONNX file.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}


def prepared(checkpoint, folder):
    """Write a checkpoint as transformers reads it, and as all others do that read it."""
    import torch

    import zsc_utils as zsc

    config = checkpoint.model.config
    config.id2label, config.label2id = LABELS, {name: number for number, name in LABELS.items()}
    config.__dict__.pop("zsc_format", None)  # of mini's own file; this one has fp32
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    for_onnx_runtime(checkpoint, folder)
    dynamic = torch.ao.quantization.quantize_dynamic(checkpoint.model, {torch.nn.Linear}, dtype=torch.qint8)
    torch.save(dynamic.state_dict(), folder / "quantized.pt")
    zsc.offloading.stream_layers(folder, dtype=torch.int8)  # stored in int8, once and for all
    for precision in ("fp32", "int8"):
        zsc.export(checkpoint, folder / f"export-{precision}", precision)
    half = zsc.quantization.quantize(checkpoint, "bf16")
    half.model.config.__dict__.pop("zsc_format", None)
    half.model.save_pretrained(folder / "bf16")
    checkpoint.tokenizer.save_pretrained(folder / "bf16")


def for_onnx_runtime(checkpoint, folder):
    """Write ONNX files: fp32, its own int8, and both with weights in a file beside the graph, which can be mapped."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from zsc_utils import attention

    inputs = dict(checkpoint.tokenizer(["一二三"] * 2, ["四"] * 2, return_tensors="pt"))
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=512)}
    torch.onnx.export(
        attention.use(checkpoint, "eager").model, kwargs=inputs, dynamic_shapes={name: dynamic for name in inputs},
        f=folder / "fp32.onnx", dynamo=True, verbose=False,
    )  # fmt: skip
    quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    (folder / "tuned").mkdir()
    for precision in ("fp32", "int8"):
        onnx.save(
            onnx.load(folder / f"{precision}.onnx"), folder / "tuned" / f"{precision}.onnx",
            save_as_external_data=True, location=f"{precision}.weights", size_threshold=1024,
        )  # fmt: skip


def for_modelscope(checkpoint, folder):
    """Write a checkpoint in ModelScope's format."""
    import torch

    checkpoint.model.config.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "structbert", "num_labels": 3}
    (folder / "config.json").write_text(json.dumps(settings))
    kind = {
        "framework": "pytorch",
        "task": "zero-shot-classification",
        "model": {"type": "structbert"},
        "preprocessor": {"type": "zero-shot-cls-tokenizer", "sequence_length": 512},
        "pipeline": {"type": "zero-shot-classification"},
    }
    (folder / "configuration.json").write_text(json.dumps(kind))
    oracle = Path(__file__).parent.parent / "tests/data/oracle/checkpoint"
    shutil.copy(oracle / "label_mapping.json", folder)
    torch.save(checkpoint.model.state_dict(), folder / "pytorch_model.bin")
    shutil.copy(checkpoint.folder / "vocab.txt", folder)


def for_cross_encoder(folder):
    """Write CrossEncoder's ONNX file in its own int8 for this processor; in the older environment."""
    import os

    import machine
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    there = machine.usable(machine.cpuinfo(), os.environ)
    kinds = {"avx512_vnni": "avx512_vnni", "avx512f": "avx512", "avx2": "avx2", "asimd": "arm64"}
    source, place = folder / "older", folder / "cross-encoder"
    source.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, source)
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    if settings["tokenizer_class"] == "TokenizersBackend":  # the name that transformers 5 has for it
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    model = CrossEncoder(str(source), backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"})
    model.save_pretrained(str(place))
    export_dynamic_quantized_onnx_model(model, next(kinds[flag] for flag in kinds if flag in there), str(place))
    shutil.rmtree(source)


def work(folder, every, texts):
    """Write the texts and labels that are asked."""
    from batching import workload

    from zsc_utils import samples

    records = samples.test_set("topics_familiar")
    long_texts = [record["text"] for record in samples.long_texts(60, 120)]
    asked = {
        "work": (workload()[0][:: 24 // texts], workload()[1]),
        "headlines": ([record["text"] for record in records[::every]], samples.topics(records)),
        "long": (long_texts[::every], samples.PASSAGES),
    }
    for name, one in asked.items():
        (folder / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--older", metavar="PYTHON")
    parser.add_argument("--cross-encoder", action="store_true", help="only this, in the older environment")
    arguments = parser.parse_args()
    if arguments.cross_encoder:
        return for_cross_encoder(arguments.folder)
    from agreement import off_the_grid

    import zsc_utils as zsc

    work(arguments.folder, arguments.every, arguments.texts)
    for name, checkpoint in (("base-shape", zsc.load("base-shape")), ("mini", off_the_grid(zsc.load("mini")))):
        folder = arguments.folder / name
        prepared(checkpoint, folder)
        if arguments.older:
            if name == "base-shape":
                (folder / "modelscope").mkdir()
                for_modelscope(checkpoint, folder / "modelscope")
            subprocess.run([arguments.older, __file__, folder, "--cross-encoder"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
