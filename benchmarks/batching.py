"""Ways to batch side by side on base-shape: the transformers pipeline, the article's loop, and ours; in one run.

python benchmarks/batching.py [--output FOLDER] [--quick]. 24 texts of 10 to 120 characters x 9 labels. All take turns,
each with the threads that torch uses; medians are reported, and for those that should give the same scores the share of
texts with the pipeline's best label. Of others that share says nothing here: random weights score all labels alike.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import machine
import torch
import transformers
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import quantization, samples

TURNS, QUICK_TURNS = 3, 1


def workload():
    """(texts, labels): every length from 10 to 120 characters alike, in a drawn order, cut from headlines."""
    headlines = "，".join(record["text"] for record in samples.test_set("topics_new"))
    texts = [headlines[200 * i : 200 * i + 10 + round(110 * i / 23)] for i in range(24)]
    random.Random(0).shuffle(texts)
    return texts, samples.topics(samples.test_set("topics_familiar"))[:9]


@torch.inference_mode()
def articles_loop(checkpoint, texts, labels):
    """A text's labels as one padded batch of strings, joined by hand as the article does."""
    best = []
    for text in texts:
        strings = [f"{text}[SEP]{label}" for label in labels]
        inputs = checkpoint.tokenizer(strings, padding=True, truncation=True, max_length=512, return_tensors="pt")
        best.append(labels[checkpoint.model(**inputs).logits[:, checkpoint.entailment_id].argmax()])
    return best


def ways(texts, labels):
    """{name: function that returns the best label of each text}."""
    base = zsc.load("base-shape")
    pipeline = transformers.pipeline(
        "zero-shot-classification", model=base.model, tokenizer=base.tokenizer, device="cpu"
    )
    exact, int8 = zsc.ZeroShotClassifier(base), zsc.ZeroShotClassifier(quantization.quantize(base, "int8"))

    def by_pipeline(**options):
        return [result["labels"][0] for result in pipeline(texts, labels, hypothesis_template="{}", **options)]

    def by_us(classify):
        return [result["labels"][0] for result in classify(texts, labels)]

    found = {"pipeline, default": by_pipeline}
    for size in (4, 8):
        found[f"pipeline, batch_size={size}"] = lambda size=size: by_pipeline(batch_size=size)
    found["the article's loop"] = lambda: articles_loop(base, texts, labels)
    return found | {"ours, fp32": lambda: by_us(exact), "ours, int8": lambda: by_us(int8)}


def process_size():
    """The most that a process of its own held which classifies these texts in fp32, libraries included."""
    code = "import batching, zsc_utils as zsc; zsc.ZeroShotClassifier('base-shape')(*batching.workload()); " \
           "print(zsc.memory.resident('self')['VmHWM'])"  # fmt: skip
    return int(
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True).stdout
    )


def main():
    arguments = machine.asked("batching", __doc__)
    turns = QUICK_TURNS if arguments.quick else TURNS
    transformers.logging.set_verbosity_error()  # it would advise on batch sizes
    texts, labels = workload()
    found, seconds, best = ways(texts, labels), {}, {}
    with tqdm(total=turns * len(found)) as bar:
        for _ in range(turns):
            for name, classify in found.items():
                bar.set_description(name)
                start = time.perf_counter()
                best[name] = classify()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
                bar.update()
    reference = best["pipeline, default"]
    result = {
        "turns": turns,
        "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
        "same": {
            name: sum(a == b for a, b in zip(answers, reference)) / len(reference)
            for name, answers in best.items()
            if "pipeline" in name or "fp32" in name
        },
        "process": process_size(),
    }
    print(json.dumps(machine.record("batching", result, arguments.output), indent=1))


if __name__ == "__main__":
    main()
