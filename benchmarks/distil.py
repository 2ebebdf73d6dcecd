"""What mini forgets with half of its layers, and how fast distilling brings it back: accuracy over minutes on this CPU.

python benchmarks/distil.py [--output FOLDER] [--quick] [--short 5] [--long 15]. Two runs, planned for their minutes: a
few steps are timed first. Their texts lie in training/data, which the test set has nothing in common with. Accuracy is
measured on the committed test set, in int8 unless it says fp32, and its time is not counted. `--quick` has runs of half
a minute and a minute, fewer numbers of layers, and each eighth text of the test set.
"""

import dataclasses
import json
import random
import time
from pathlib import Path

import machine
import torch
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import attention, distillation, quantization, samples

ROOT = Path(__file__).parent.parent
LAYERS = 6
MINUTES, QUICK_MINUTES = (5, 15), (0.5, 1)  # of the short run and the long one
FEWER, QUICK_FEWER = range(11, 1, -1), (9, 6, 3)
QUICK_EVERY = 8


def lesson():
    """(texts, a list of labels for each): headlines with labels of their own and of others, reviews with two labels."""
    headlines, reviews = (
        [json.loads(line) for line in (ROOT / "training" / "data" / f"{name}.jsonl").open("rb")]
        for name in ("headlines", "reviews")
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


def accuracy(checkpoint, every, precision="int8"):
    """Shares of right answers on each `every`-th text of the test sets, by name."""
    checkpoint = checkpoint if precision == "fp32" else quantization.quantize(checkpoint, precision)
    classify, found = zsc.ZeroShotClassifier(checkpoint), {}
    for name in ("topics_familiar", "topics_new"):
        records = samples.test_set(name)
        some = records[::every]
        results = classify([record["text"] for record in some], samples.topics(records))
        right = sum(result["labels"][0] == record["topic"] for result, record in zip(results, some))
        found[name] = round(right / len(some), 4)
    records = samples.test_set("reviews")[::every]
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


def run(student, teacher, minutes, seconds_a_step, every):
    """The curve of one run, [{minutes, topics_familiar, ...}, ...], and the distilled checkpoint."""
    texts, labels = lesson()
    steps = max(20, round(60 * minutes / seconds_a_step))
    curve, watched = [{"minutes": 0.0, **accuracy(student, every)}], 0.0
    begun = time.perf_counter()

    def watch(step, checkpoint):
        nonlocal watched
        start = time.perf_counter()
        curve.append({"minutes": round((start - begun - watched) / 60, 2), **accuracy(checkpoint, every)})
        watched += time.perf_counter() - start
        print(json.dumps(curve[-1]), flush=True)

    parts = max(2, minutes if minutes < 10 else minutes / 2)  # after each, accuracy is measured
    often = max(1, round(steps / parts))
    distilled = attention.distil(student, teacher, texts, labels, steps, watch=watch, every=often)
    return {"steps": steps, "curve": curve}, distilled


def of_layers(teacher, student, counts, every):
    """What is known before anything is taught: accuracy of the whole model and of those with fewer layers."""
    return {
        "bf16": distillation.has_bf16(),
        "texts": len(lesson()[0]),
        "kept": student.model.config.kept_layers,
        "whole": accuracy(teacher, every),
        "fewer": {count: accuracy(attention.shrink(teacher, count), every) for count in counts},
    }


def in_fp32(teacher, student, distilled, every):
    """Accuracy in fp32, of the article's lite model too."""
    found = {
        "12 layers": teacher,
        "6 layers": student,
        "6 layers, distilled": distilled,
        "6 layers of hidden size 512, random": random_model(teacher),
    }
    return {name: accuracy(checkpoint, every, "fp32") for name, checkpoint in found.items()}


def main():
    more = {
        "--short": {"type": float, "help": "minutes of the first run"},
        "--long": {"type": float, "help": "minutes of the second"},
    }
    arguments = machine.asked("distil", __doc__, more)
    every = QUICK_EVERY if arguments.quick else 1
    planned = [
        usual if asked is None else asked
        for asked, usual in zip((arguments.short, arguments.long), QUICK_MINUTES if arguments.quick else MINUTES)
    ]
    torch.set_num_threads(2)
    teacher = zsc.load("mini")
    student = attention.shrink(teacher, LAYERS)
    start = time.perf_counter()
    attention.distil(student, teacher, *lesson(), 30, progress=False)
    seconds_a_step = (time.perf_counter() - start) / 30
    result = {"turns": 1, "every": every}
    result |= of_layers(teacher, student, QUICK_FEWER if arguments.quick else FEWER, every)
    print(json.dumps(result), flush=True)
    for name, minutes in zip(("short", "long"), planned):
        result[name], distilled = run(student, teacher, minutes, seconds_a_step, every)
    result["fp32"] = in_fp32(teacher, student, distilled, every)
    machine.record("distil", result, arguments.output)


if __name__ == "__main__":
    main()
