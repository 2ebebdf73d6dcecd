"""ModelScope's own pipeline on the workload of peers.py, in an environment of its own; prints a record as JSON.

Run by that environment's Python (see benchmarks/README.md): python benchmarks/modelscope_peer.py FOLDER TEXTS, where
the folder has base-shape in ModelScope's format, and TEXTS is a JSON file of texts and labels. No zsc_utils here: it
needs newer libraries than ModelScope's pipeline runs on.
"""

import json
import re
import statistics
import sys
import time
from pathlib import Path

import modelscope.models.nlp.structbert.text_classification
import modelscope.preprocessors.nlp  # noqa: F401
import torch
import transformers
from modelscope.pipelines import pipeline
from modelscope.pipelines.nlp.zero_shot_classification_pipeline import ZeroShotClassificationPipeline  # noqa: F401

TURNS = 3


def resident(kind):
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def main():
    folder, file = sys.argv[1:]
    work = json.loads(Path(file).read_text(encoding="utf-8"))
    texts, labels = work["texts"], work["labels"]
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = resident("VmRSS"), []
    classify = pipeline("zero-shot-classification", folder, device="cpu")
    classify(texts[0], candidate_labels=labels)
    for _ in range(TURNS):
        start = time.perf_counter()
        for text in texts:
            classify(text, candidate_labels=labels)
        seconds.append(time.perf_counter() - start)
    found = {
        "total": resident("VmHWM") - before,
        "texts_per_second": round(len(texts) / statistics.median(seconds), 2),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
