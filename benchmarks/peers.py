"""This project and its peers on one workload and the same weights, each in a fresh process, taking turns; in one run.

pip install -e '.[bench]', then python benchmarks/peers.py [--output FOLDER] [--quick] [--modelscope PYTHON]. 24 texts
of 10 to 120 characters x 9 labels on base-shape: how far the process grew, loading included, in all and by kind, and
texts a second once warm; medians. Then the headlines of the test set x 12 labels on `mini`, its weights moved off their
int8 grid: the share of texts with the best label that transformers' pipeline finds. `--quick` asks each eighth of them.
`--modelscope`: the Python of an environment with ModelScope's pipeline and the transformers it needs (see
benchmarks/README.md).
"""

import json
import logging
import shutil
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import machine
import onnx
import torch
import transformers
from agreement import off_the_grid
from batching import workload
from contenders import by_accelerate, by_cross_encoder, by_export, by_onnx, by_pipeline, by_us
from onnxruntime.quantization import QuantType, quantize_dynamic
from report import PEERS, peers
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import memory, samples
from zsc_utils.checkpoint import quiet_transformers

TURNS, QUICK_TURNS, QUICK_EVERY = 3, 1, 8
BASELINE = "transformers pipeline"

ENGINES = {
    BASELINE: by_pipeline,
    "transformers pipeline, batch_size=4": lambda folder: by_pipeline(folder, batch_size=4),
    "transformers pipeline, batch_size=8": lambda folder: by_pipeline(folder, batch_size=8),
    "transformers pipeline, bf16": lambda folder: by_pipeline(folder, dtype="bfloat16"),
    "transformers pipeline, cut at 64 tokens": lambda folder: by_pipeline(folder, longest=64),
    "accelerate, layers on disk": by_accelerate,
    "CrossEncoder": by_cross_encoder,
    "ONNX Runtime, int8": by_onnx,
    "ours": by_us,
    "ours in 150 MB": lambda folder: by_us(folder, memory_budget="150MB"),
    "ours, int8 in 150 MB": lambda folder: by_us(folder, memory_budget="150MB", precision="int8"),
    "ours, int8 in 55 MB": lambda folder: by_us(folder, memory_budget="55MB", precision="int8"),
    "ours without torch, int8": lambda folder: by_export(folder, "int8"),
    "ours without torch, int8 streamed": lambda folder: by_export(folder, "int8", offload=True),
}
if "lowered_from" in machine.described():
    for name in [name for name in ENGINES if "ONNX Runtime" in name or "without torch" in name]:
        del ENGINES[name]  # ONNX Runtime takes no notice of what lowers oneDNN, torch and MKL
# for `mini`, whose own size makes other budgets: the levers that these pull on base-shape
BY_HAND = {
    "ours in 150 MB": lambda folder: by_us(folder, offload=True),
    "ours, int8 in 150 MB": lambda folder: by_us(folder, precision="int8"),
    "ours, int8 in 55 MB": lambda folder: by_us(folder, precision="int8", offload=True),
}

# --------------------------------------------------------------------------------------------------------------- work


def prepared(checkpoint, folder):
    """The folder with a checkpoint as transformers reads it, and as ONNX Runtime does, in its own int8."""
    checkpoint.model.config.id2label = {0: "entailment", 1: "neutral", 2: "contradiction"}
    checkpoint.model.config.label2id = {name: number for number, name in checkpoint.model.config.id2label.items()}
    checkpoint.model.config.__dict__.pop("zsc_format", None)  # of mini's own file; this one has fp32
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    inputs = dict(checkpoint.tokenizer(["一二三"] * 2, ["四"] * 2, return_tensors="pt"))
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=512)}
    torch.onnx.export(
        zsc.attention.use(checkpoint, "eager").model, kwargs=inputs, dynamic_shapes={name: dynamic for name in inputs},
        f=folder / "fp32.onnx", dynamo=True, verbose=False,
    )  # fmt: skip
    quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    (folder / "tuned").mkdir()
    onnx.save(
        onnx.load(folder / "int8.onnx"), folder / "tuned" / "int8.onnx",
        save_as_external_data=True, location="weights", size_threshold=1024,
    )  # fmt: skip
    zsc.offloading.stream_layers(folder, dtype=torch.int8)  # stored in int8, once and for all
    for precision in ("fp32", "int8"):
        zsc.export(checkpoint, folder / f"export-{precision}", precision)
    return folder


def by_modelscope(python, scratch):
    """The record of ModelScope's own pipeline on the workload, by the Python of its environment."""
    checkpoint, folder = zsc.load("base-shape"), Path(scratch) / "modelscope"
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
    shutil.copy(Path(__file__).parent.parent / "tests/data/oracle/checkpoint/label_mapping.json", folder)
    torch.save(checkpoint.model.state_dict(), folder / "pytorch_model.bin")
    shutil.copy(checkpoint.folder / "vocab.txt", folder)
    (Path(scratch) / "work.json").write_text(json.dumps(dict(zip(("texts", "labels"), workload()))))
    command = [python, Path(__file__).parent / "modelscope_peer.py", folder, Path(scratch) / "work.json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def classified(load, folder, texts, labels):
    """(seconds, best labels) in a child."""
    with quiet_transformers():
        classify = load(folder)
        classify(texts[:1], labels[:2])
        start = time.perf_counter()
        found = classify(texts, labels)
    return time.perf_counter() - start, found


def measured(folder, turns):
    """{engine: its ProcessPeak of each turn} on the workload."""
    peaks = {name: [] for name in ENGINES}
    with tqdm(total=turns * len(ENGINES)) as bar:
        for _ in range(turns):
            for name, load in ENGINES.items():
                bar.set_description(name)
                peaks[name].append(memory.process_peak(classified, load, folder, *workload()))
                bar.update()
    return peaks


def agreements(folder, every):
    """{engine: share of texts with the pipeline's best label}; what cuts texts is given ones that are cut.

    Of both kinds of text, each `every`-th.
    """
    records = samples.test_set("topics_familiar")
    headlines = [record["text"] for record in records[::every]], samples.topics(records)
    long_texts = [record["text"] for record in samples.long_texts(60, 120)[::every]], samples.PASSAGES
    answers = {"headlines": headlines, "long texts": long_texts}

    def found(load, kind):
        return memory.process_peak(classified, load, folder, *answers[kind]).result[1]

    wanted, shares = {kind: found(by_pipeline, kind) for kind in answers}, {BASELINE: 1.0}
    for name, load in tqdm(list(ENGINES.items())[1:], desc="answers"):
        kind = "long texts" if "cut" in name else "headlines"
        same = [a == b for a, b in zip(found(BY_HAND.get(name, load), kind), wanted[kind], strict=True)]
        shares[name] = sum(same) / len(same)
    return shares


def of_runs(runs, baseline, texts):
    """The record of one engine from its ProcessPeaks and the baseline's."""
    kinds = ("total", "anonymous", "file_backed")
    return {kind: int(statistics.median(getattr(peak, kind) for peak in runs)) for kind in kinds} | {
        "texts_per_second": round(statistics.median(texts / peak.result[0] for peak in runs), 2),
        "speed": round(statistics.median(b.result[0] / p.result[0] for p, b in zip(runs, baseline)), 2),
    }


def main():
    more = {"--modelscope": {"metavar": "PYTHON", "help": "also measure ModelScope's pipeline, by this Python"}}
    arguments = machine.asked("peers", __doc__, more)
    turns, every = (QUICK_TURNS, QUICK_EVERY) if arguments.quick else (TURNS, 1)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    result = {name: version(name.replace("_", "-")) for name in PEERS} | {"turns": turns, "every": every, "engines": {}}
    with tempfile.TemporaryDirectory() as scratch:
        shares = agreements(prepared(off_the_grid(zsc.load("mini")), Path(scratch) / "mini"), every)
        print(shares)
        peaks = measured(prepared(zsc.load("base-shape"), Path(scratch) / "base-shape"), turns)
        for name, runs in peaks.items():
            found = of_runs(runs, peaks[BASELINE], len(workload()[0]))
            result["engines"][name] = found | {"agreement": round(shares[name], 4)}
        made = machine.record("peers", result, arguments.output)
        if arguments.modelscope:
            result["ModelScope"] = by_modelscope(arguments.modelscope, scratch)
            made = machine.record("peers", result, arguments.output)
    print("\n".join(peers(made)))


if __name__ == "__main__":
    main()
