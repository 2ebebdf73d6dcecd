"""Ways to classify: each takes a folder and returns a function (texts, labels) -> the best label of each text.

Libraries are imported where they are used, so that a process holds only those of one way. `peers.py` and
`containers.py` measure them; `prepared` in peers.py makes the folder.
"""

import os
from pathlib import Path


def by_pipeline(folder, batch_size=1, dtype="float32", longest=512, model=None):
    """transformers' zero-shot pipeline."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=longest)
    model = model or transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=getattr(torch, dtype)
    )
    classify = transformers.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    return lambda texts, labels: [
        found["labels"][0] for found in classify(texts, labels, hypothesis_template="{}", batch_size=batch_size)
    ]


def by_accelerate(folder):
    """The pipeline with the encoder's weights on disk, which accelerate brings in layer by layer."""
    from zsc_utils import offloading

    return by_pipeline(folder, batch_size=8, model=offloading.dispatch(folder).model)


def by_cross_encoder(folder):
    """sentence-transformers' CrossEncoder, which sorts pairs by length and takes 32 at a time."""
    import sentence_transformers

    model = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=512)

    def classify(texts, labels):
        logits = model.predict([(text, label) for text in texts for label in labels], show_progress_bar=False)
        return best(logits[:, 0], labels)

    return classify


def by_onnx(folder):
    """ONNX Runtime with its own int8 as its documentation has it: transformers' tokenizer, eight pairs at a time."""
    import onnxruntime
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)
    session = onnxruntime.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])

    def run(pairs):
        inputs = tokenizer(
            [text for text, _ in pairs], [label for _, label in pairs], return_tensors="np",
            padding=True, truncation="only_first",
        )  # fmt: skip
        return session.run(None, dict(inputs))[0][:, 0]

    return sorted_by_length(run)


def by_tuned_onnx(folder):
    """The same model as an expert would run it in little memory: no torch, no transformers, weights mapped from a file
    beside the graph, no arena, no pattern of memory, no packed copies."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512, strategy="only_first")
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(folder / "tuned" / "int8.onnx", options, providers=["CPUExecutionProvider"])
    names = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}

    def run(pairs):
        found = tokenizer.encode_batch(pairs)
        inputs = {name: np.array([getattr(each, key) for each in found]) for name, key in names.items()}
        return session.run(None, inputs)[0][:, 0]

    return sorted_by_length(run)


def by_us(folder, **options):
    """ZeroShotClassifier."""
    import zsc_utils

    classify = zsc_utils.ZeroShotClassifier(folder, **options)
    return lambda texts, labels: [found["labels"][0] for found in classify(texts, labels)]


def by_export(folder, precision, **options):
    """ZeroShotClassifier on an export, without torch."""
    return by_us(folder / f"export-{precision}", **options)


def sorted_by_length(run, size=8):
    """Classify by `run`, which takes some pairs and returns the entailment of each: the longest texts first."""

    def classify(texts, labels):
        pairs = [(text, label) for text in texts for label in labels]
        order, found = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0])), [0.0] * len(pairs)
        for start in range(0, len(pairs), size):
            part = order[start : start + size]
            for i, entailment in zip(part, run([pairs[i] for i in part])):
                found[i] = entailment
        return best(found, labels)

    return classify


def best(entailments, labels):
    """The best label of each text, from the entailment of all pairs in a row."""
    rows = range(0, len(entailments), len(labels))
    return [max(zip(entailments[row : row + len(labels)], labels), key=lambda pair: pair[0])[1] for row in rows]


def main():
    """In a container: join the group, classify, and print seconds until the first answer and for the work as JSON.

    python contenders.py WAY FOLDER WORK.json GROUP_FILE START, by containers.py.
    """
    import json
    import sys
    import time

    way, folder, work, group, start = sys.argv[1:]
    if group:
        Path(group).write_text(str(os.getpid()))
    name, options = json.loads(way)
    texts, labels = json.loads(Path(work).read_text(encoding="utf-8"))
    classify = globals()[name](Path(folder), **options)
    classify(texts[:1], labels[:2])
    first = time.time() - float(start)
    begun = time.perf_counter()
    classify(texts, labels)
    status = Path("/proc/self/status").read_text().split()
    whole = int(status[status.index("VmHWM:") + 1]) * 1024
    print(json.dumps({"first": first, "seconds": time.perf_counter() - begun, "whole": whole}))


if __name__ == "__main__":
    main()
