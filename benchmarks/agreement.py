"""Right answers that fewer bits cost: `mini` in fp16, bf16 and int8 against fp32, on the whole committed test set.

python benchmarks/agreement.py [--output agreement.json]. Twice: `mini` as it is bundled, and off the grid, that is with
each weight moved by up to half a step of int8 at random, because the bundled weights are int8 rows already.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import checkpoint as door
from zsc_utils import quantization, samples


def off_the_grid(checkpoint):
    """A copy whose matrices are moved by up to half a step of int8, seeded: int8 would bring back `mini` as it is."""
    generator = torch.Generator().manual_seed(0)

    def moved(weight):
        steps = weight.abs().amax(-1, keepdim=True) / 127 if weight.ndim == 2 else 0
        return weight + steps * (torch.rand(weight.shape, generator=generator) - 0.5)

    def change(module, _):
        weights = {name: moved(tensor.detach()) for name, tensor in module._parameters.items()}
        return door.with_weights(module, weights) if weights else None

    return dataclasses.replace(checkpoint, model=door.rebuilt(checkpoint.model, change))


def tasks():
    """[(texts, labels, right labels)] of the committed test set."""
    for name in ("topics_familiar", "topics_new"):
        records = samples.test_set(name)
        yield [r["text"] for r in records], samples.topics(records), [r["topic"] for r in records]
    reviews, polar = samples.test_set("reviews"), {"positive": "好评", "negative": "差评"}
    yield [r["text"] for r in reviews], list(polar.values()), [polar[r["polarity"]] for r in reviews]


def answers(checkpoint):
    classify = zsc.ZeroShotClassifier(checkpoint)
    return [result for texts, labels, _ in tasks() for result in classify(texts, labels)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "agreement.json")
    arguments = parser.parse_args()
    truth, record = [label for _, _, right in tasks() for label in right], {}
    bundled = zsc.load("mini")
    for weights, checkpoint in (("bundled", bundled), ("off the grid", off_the_grid(bundled))):
        record[weights], full = {}, answers(checkpoint)
        for precision in tqdm(quantization.PRECISIONS, desc=weights):
            found = quantization.agreement(full, answers(quantization.quantize(checkpoint, precision)), truth)
            low, high = found.interval
            record[weights][precision] = dataclasses.asdict(found) | {"interval": [round(low, 4), round(high, 4)]}
            tqdm.write(f"{weights}, {precision}: {found.share:.1%} ({low:.1%} to {high:.1%}), right {found.right}")
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
