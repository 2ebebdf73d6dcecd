"""What mini forgets with half of its layers, and how fast distilling brings it back: accuracy over minutes on this CPU.

python benchmarks/distil.py [--output distil.json] [--short 5] [--long 15]. Two runs, planned for their minutes: a few
steps are timed first. Their texts lie in training/data, which the test set has nothing in common with. Accuracy is
measured on the committed test set, in int8 unless it says fp32, and its time is not counted.
"""

import argparse
import dataclasses
import json
import platform
import random
import re
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import attention, distillation, quantization, samples

ROOT = Path(__file__).parent.parent
LAYERS = 6


def lesson():
    """(texts, a list of labels for each): headlines with labels of their own and of others, reviews with two labels."""
    headlines, reviews = (
        [json.loads(line) for file in sorted((ROOT / "training" / "data").glob(pattern)) for line in file.open("rb")]
        for pattern in ("headlines_*.jsonl", "reviews_*.jsonl")
    )
    rng, lists = random.Random(0), []
    for record in headlines:
        own = [record["topic"], *record["also"]]
        chosen = rng.sample(own, min(len(own), rng.randint(1, 2))) + record.get("not", [])[:1]
        while len(chosen) < 6:
            other = rng.choice(headlines)
            label = rng.choice([other["topic"], *other["also"]])
            chosen += [label] * (label not in chosen)
        lists.append((record["text"], chosen))
    lists += [(record["text"], ["好评", "差评"]) for record in rng.sample(reviews, len(headlines) // 3)]
    return tuple(zip(*lists))


def accuracy(checkpoint, precision="int8"):
    """Shares of right answers on the test sets, by name."""
    checkpoint = checkpoint if precision == "fp32" else quantization.quantize(checkpoint, precision)
    classify, found = zsc.ZeroShotClassifier(checkpoint), {}
    for name in ("topics_familiar", "topics_new"):
        records = samples.test_set(name)
        results = classify([record["text"] for record in records], samples.topics(records))
        right = sum(result["labels"][0] == record["topic"] for result, record in zip(results, records))
        found[name] = round(right / len(records), 4)
    records = samples.test_set("reviews")
    results = classify([record["text"] for record in records], ["好评", "差评"])
    positive = [record["polarity"] == "positive" for record in records]
    right = sum((result["labels"][0] == "好评") == truth for result, truth in zip(results, positive))
    return found | {"reviews": round(right / len(records), 4)}


def random_model(checkpoint):
    """The article's lite model, made to run: 6 layers of hidden size 512 whose weights are drawn at random."""
    torch.manual_seed(0)
    numbers = {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8}
    config = BertConfig.from_dict(checkpoint.model.config.to_dict() | numbers)
    return dataclasses.replace(checkpoint, model=BertForSequenceClassification(config).eval())


def run(student, teacher, minutes, seconds_a_step):
    """The curve of one run, [{minutes, topics_familiar, ...}, ...], and the distilled checkpoint."""
    texts, labels = lesson()
    steps = max(20, round(60 * minutes / seconds_a_step))
    curve, watched = [{"minutes": 0.0, **accuracy(student)}], 0.0
    begun = time.perf_counter()

    def watch(step, checkpoint):
        nonlocal watched
        start = time.perf_counter()
        curve.append({"minutes": round((start - begun - watched) / 60, 2), **accuracy(checkpoint)})
        watched += time.perf_counter() - start
        print(json.dumps(curve[-1]), flush=True)

    every = max(1, round(steps / (minutes if minutes < 10 else minutes / 2)))
    distilled = attention.distil(student, teacher, texts, labels, steps, watch=watch, every=every)
    return {"steps": steps, "curve": curve}, distilled


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "distil.json")
    parser.add_argument("--short", type=float, default=5, help="minutes of the first run")
    parser.add_argument("--long", type=float, default=15, help="minutes of the second")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    teacher = zsc.load("mini")
    student = attention.shrink(teacher, LAYERS)
    texts, labels = lesson()
    start = time.perf_counter()
    attention.distil(student, teacher, texts, labels, 30, progress=False)
    seconds_a_step = (time.perf_counter() - start) / 30
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    record = {
        "processor": next(iter(re.findall(r"model name\s*: (.*)", info)), platform.machine()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bf16": distillation.has_bf16(),
        "texts": len(texts),
        "kept": student.model.config.kept_layers,
        "whole": accuracy(teacher),
        "fewer": {count: accuracy(attention.shrink(teacher, count)) for count in (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)},
    }
    print(json.dumps(record), flush=True)
    for name, minutes in (("short", arguments.short), ("long", arguments.long)):
        record[name], distilled = run(student, teacher, minutes, seconds_a_step)
    record["fp32"] = {
        "12 layers": accuracy(teacher, "fp32"),
        "6 layers": accuracy(student, "fp32"),
        "6 layers, distilled": accuracy(distilled, "fp32"),
        "6 layers of hidden size 512, random": accuracy(random_model(teacher), "fp32"),
    }
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
