"""A model in memory, on disk by accelerate, and streamed by us, side by side on base-shape; in one run.

python benchmarks/offloading.py [--output FOLDER] [--quick]. 40 headlines x 12 labels, loading included, each in a
fresh process, all taking turns: how far the process grew, and the seconds of the second call (the first, of one text,
warms up). Medians are reported, and how far scores are from those of the model in memory in the same precision.
"""

import json
import statistics
import time

import machine
import torch
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import memory, offloading, samples

TURNS, QUICK_TURNS = 3, 1
ENGINES = {
    "all in memory": lambda: zsc.load("base-shape"),
    "accelerate, layers on disk": lambda: offloading.dispatch("base-shape"),
    "streamed": lambda: offloading.stream_layers("base-shape"),
    "int8, all in memory": lambda: zsc.load("base-shape", dtype=torch.int8),
    "int8, streamed": lambda: offloading.stream_layers("base-shape", dtype=torch.int8),
}


def classified(load):
    """(seconds, {label: score} of each text) in a child."""
    records = samples.test_set("topics_familiar")
    texts, labels = [record["text"] for record in records[:40]], samples.topics(records)
    classify = zsc.ZeroShotClassifier(load())
    classify(texts[:1], labels[:1])
    start = time.perf_counter()
    results = classify(texts, labels)
    seconds = time.perf_counter() - start
    return seconds, [dict(zip(result["labels"], result["scores"])) for result in results]


def furthest(scores, others):
    return max(abs(one[label] - other[label]) for one, other in zip(scores, others) for label in one)


def main():
    arguments = machine.asked("offloading", __doc__)
    turns = QUICK_TURNS if arguments.quick else TURNS
    offloading.stream_layers("base-shape", dtype=torch.int8)  # stores it in int8, once and for all
    peaks = {name: [] for name in ENGINES}
    with tqdm(total=turns * len(ENGINES)) as bar:
        for _ in range(turns):
            for name, load in ENGINES.items():
                bar.set_description(name)
                peaks[name].append(memory.process_peak(classified, load))
                bar.update()
    beside = {name: peaks["int8, all in memory" if "int8" in name else "all in memory"] for name in ENGINES}
    result = {
        "turns": turns,
        "bytes": {name: int(statistics.median(peak.total for peak in runs)) for name, runs in peaks.items()},
        "seconds": {name: round(statistics.median(p.result[0] for p in runs), 2) for name, runs in peaks.items()},
        # of the speed that the model in memory has in the same turn
        "speed": {
            name: round(statistics.median(b.result[0] / p.result[0] for p, b in zip(runs, beside[name])), 2)
            for name, runs in peaks.items()
        },
        "furthest_score": {
            name: furthest(beside[name][0].result[1], runs[0].result[1]) for name, runs in peaks.items()
        },
    }
    print(json.dumps(machine.record("offloading", result, arguments.output), indent=1))


if __name__ == "__main__":
    main()
