"""This project and its peers on one workload and the same weights, each in a fresh process, taking turns; in one run.

pip install -e '.[bench]', then python benchmarks/peers.py [--output peers.json] [--modelscope PYTHON]. 24 texts of 10
to 120 characters x 9 labels on base-shape: how far the process grew, loading included, in all and by kind, and texts a
second once warm; medians. Then the headlines of the test set x 12 labels on `mini`, its weights moved off their int8
grid: the share of texts with the best label that transformers' pipeline finds. `--modelscope`: the Python of an
environment with ModelScope's pipeline and the transformers it needs (see benchmarks/README.md).
"""

import argparse
import json
import logging
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import onnxruntime
import sentence_transformers
import torch
import transformers
from agreement import off_the_grid
from batching import workload
from machine import described
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import memory, offloading, samples
from zsc_utils.checkpoint import quiet_transformers

TURNS = 3
BASELINE = "transformers pipeline"

# ----------------------------------------------------------------------------- engines: a folder -> classify -> labels


def by_pipeline(folder, batch_size=1, dtype=torch.float32, longest=512, model=None):
    """transformers' zero-shot pipeline."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=longest)
    model = model or transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    classify = transformers.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    return lambda texts, labels: [
        found["labels"][0] for found in classify(texts, labels, hypothesis_template="{}", batch_size=batch_size)
    ]


def by_cross_encoder(folder):
    """sentence-transformers' CrossEncoder, which sorts pairs by length and takes 32 at a time."""
    model = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=512)

    def classify(texts, labels):
        logits = model.predict([(text, label) for text in texts for label in labels], show_progress_bar=False)
        return best(logits[:, 0], labels)

    return classify


def by_onnx(folder):
    """ONNX Runtime with its own int8, pairs sorted by length, eight at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])

    def classify(texts, labels):
        pairs = [(text, label) for text in texts for label in labels]
        order, found = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0])), [0.0] * len(pairs)
        for start in range(0, len(pairs), 8):
            part = order[start : start + 8]
            inputs = tokenizer(
                [pairs[i][0] for i in part], [pairs[i][1] for i in part], return_tensors="np",
                padding=True, truncation="only_first",
            )  # fmt: skip
            for i, row in zip(part, session.run(None, dict(inputs))[0]):
                found[i] = row[0]
        return best(found, labels)

    return classify


def by_us(folder, **options):
    """ZeroShotClassifier."""
    classify = zsc.ZeroShotClassifier(folder, **options)
    return lambda texts, labels: [found["labels"][0] for found in classify(texts, labels)]


def best(entailments, labels):
    """The best label of each text, from the entailment of all pairs in a row."""
    rows = range(0, len(entailments), len(labels))
    return [max(zip(entailments[row : row + len(labels)], labels), key=lambda pair: pair[0])[1] for row in rows]


ENGINES = {
    BASELINE: by_pipeline,
    "transformers pipeline, batch_size=4": lambda folder: by_pipeline(folder, batch_size=4),
    "transformers pipeline, batch_size=8": lambda folder: by_pipeline(folder, batch_size=8),
    "transformers pipeline, bf16": lambda folder: by_pipeline(folder, dtype=torch.bfloat16),
    "transformers pipeline, cut at 64 tokens": lambda folder: by_pipeline(folder, longest=64),
    "accelerate, layers on disk": lambda folder: by_pipeline(
        folder, batch_size=8, model=offloading.dispatch(folder).model
    ),
    "CrossEncoder": by_cross_encoder,
    "ONNX Runtime, int8": by_onnx,
    "ours": by_us,
    "ours in 150 MB": lambda folder: by_us(folder, memory_budget="150MB"),
    "ours, int8 in 150 MB": lambda folder: by_us(folder, memory_budget="150MB", precision="int8"),
    "ours, int8 in 40 MB": lambda folder: by_us(folder, memory_budget="40MB", precision="int8", offload=True),
}


# --------------------------------------------------------------------------------------------------------------- work


def prepared(checkpoint, folder):
    """The folder with a checkpoint as transformers reads it, and as ONNX Runtime does, in its own int8."""
    checkpoint.model.config.id2label = {0: "entailment", 1: "neutral", 2: "contradiction"}
    checkpoint.model.config.label2id = {name: number for number, name in checkpoint.model.config.id2label.items()}
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    inputs = dict(checkpoint.tokenizer(["一二三"] * 2, ["四"] * 2, return_tensors="pt"))
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=512)}
    torch.onnx.export(
        zsc.attention.use(checkpoint, "eager").model, kwargs=inputs, dynamic_shapes={name: dynamic for name in inputs},
        f=folder / "fp32.onnx", dynamo=True, verbose=False,
    )  # fmt: skip
    quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    zsc.offloading.stream_layers(folder, dtype=torch.int8)  # stored in int8, once and for all
    return folder


def classified(load, folder, texts, labels):
    """(seconds, best labels) in a child."""
    with quiet_transformers():
        classify = load(folder)
        classify(texts[:1], labels[:2])
        start = time.perf_counter()
        found = classify(texts, labels)
    return time.perf_counter() - start, found


def measured(folder):
    """{engine: its ProcessPeak of each turn} on the workload."""
    peaks = {name: [] for name in ENGINES}
    with tqdm(total=TURNS * len(ENGINES)) as bar:
        for _ in range(TURNS):
            for name, load in ENGINES.items():
                bar.set_description(name)
                peaks[name].append(memory.process_peak(classified, load, folder, *workload()))
                bar.update()
    return peaks


def agreements(folder):
    """{engine: share of texts with the pipeline's best label}; what cuts texts is given ones that are cut."""
    records = samples.test_set("topics_familiar")
    headlines = [record["text"] for record in records], samples.topics(records)
    long_texts = [record["text"] for record in samples.long_texts(60, 120)], samples.PASSAGES
    shares, wanted = {}, {}
    for name, load in tqdm(ENGINES.items(), desc="answers"):
        work = long_texts if "cut" in name else headlines
        if work is not wanted.get("work"):
            wanted = {"work": work, "labels": memory.process_peak(classified, by_pipeline, folder, *work).result[1]}
        if "in 40 MB" in name:  # which mini's own size would not take: the same levers by hand
            load = lambda folder: by_us(folder, precision="int8", offload=True)  # noqa: E731
        elif "in 150 MB" in name:
            load = lambda folder, name=name: by_us(folder, precision="int8" if "int8" in name else None)  # noqa: E731
        found = memory.process_peak(classified, load, folder, *work).result[1]
        shares[name] = sum(a == b for a, b in zip(found, wanted["labels"])) / len(found)
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "peers.json")
    parser.add_argument("--modelscope", metavar="PYTHON", help="also measure ModelScope's pipeline, by this Python")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    versions = {module.__name__: module.__version__ for module in (onnxruntime, sentence_transformers)}
    record = described() | versions | {"engines": {}}
    with tempfile.TemporaryDirectory() as scratch:
        base, small = Path(scratch) / "base-shape", Path(scratch) / "mini"
        peaks = measured(prepared(zsc.load("base-shape"), base))
        shares = agreements(prepared(off_the_grid(zsc.load("mini")), small))
    texts = len(workload()[0])
    for name, runs in peaks.items():
        record["engines"][name] = {
            **{kind: int(statistics.median(getattr(peak, kind) for peak in runs))
               for kind in ("total", "anonymous", "file_backed")},
            "texts_per_second": round(statistics.median(texts / peak.result[0] for peak in runs), 2),
            "speed": round(statistics.median(b.result[0] / p.result[0] for p, b in zip(runs, peaks[BASELINE])), 2),
            "agreement": round(shares[name], 4),
        }  # fmt: skip
        print(f"{name:42}", record["engines"][name])
    if arguments.modelscope:
        command = [arguments.modelscope, Path(__file__).parent / "modelscope_peer.py"]
        record["ModelScope"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
