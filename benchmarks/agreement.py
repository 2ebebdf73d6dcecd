"""Right answers that fewer bits cost: `mini` in fp16, bf16 and int8 against fp32, on the whole committed test set.

python benchmarks/agreement.py [--output FOLDER] [--quick]. Twice: `mini` as it is bundled, and off the grid, that is
with each weight moved by up to half a step of int8 at random, because the bundled weights are int8 rows already.
`--quick` asks each eighth text.
"""

import dataclasses

import machine
import torch
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import _bert, quantization, samples

QUICK_EVERY = 8


def off_the_grid(checkpoint):
    """A copy whose matrices are moved by up to half a step of int8, seeded: int8 would bring back `mini` as it is."""
    generator = torch.Generator().manual_seed(0)

    def moved(weight):
        steps = weight.abs().amax(-1, keepdim=True) / 127 if weight.ndim == 2 else 0
        return weight + steps * (torch.rand(weight.shape, generator=generator) - 0.5)

    def change(module, _):
        weights = {name: moved(tensor.detach()) for name, tensor in module._parameters.items()}
        return _bert.with_weights(module, weights) if weights else None

    return dataclasses.replace(checkpoint, model=_bert.rebuilt(checkpoint.model, change))


def tasks(every):
    """[(texts, labels, right labels)] of the committed test set, each `every`-th text."""
    for name in ("topics_familiar", "topics_new"):
        records = samples.test_set(name)
        asked = records[::every]
        yield [r["text"] for r in asked], samples.topics(records), [r["topic"] for r in asked]
    reviews, polar = samples.test_set("reviews")[::every], {"positive": "好评", "negative": "差评"}
    yield [r["text"] for r in reviews], list(polar.values()), [polar[r["polarity"]] for r in reviews]


def answers(checkpoint, every):
    classify = zsc.ZeroShotClassifier(checkpoint)
    return [result for texts, labels, _ in tasks(every) for result in classify(texts, labels)]


def main():
    arguments = machine.asked("agreement", __doc__)
    every = QUICK_EVERY if arguments.quick else 1
    truth = [label for _, _, right in tasks(every) for label in right]
    result = {"turns": 1, "every": every}  # each text is asked once
    bundled = zsc.load("mini")
    for weights, checkpoint in (("bundled", bundled), ("off the grid", off_the_grid(bundled))):
        result[weights], full = {}, answers(checkpoint, every)
        for precision in tqdm(quantization.PRECISIONS, desc=weights):
            found = quantization.agreement(full, answers(quantization.quantize(checkpoint, precision), every), truth)
            low, high = found.interval
            result[weights][precision] = dataclasses.asdict(found) | {"interval": [round(low, 4), round(high, 4)]}
            tqdm.write(f"{weights}, {precision}: {found.share:.1%} ({low:.1%} to {high:.1%}), right {found.right}")
    machine.record("agreement", result, arguments.output)


if __name__ == "__main__":
    main()
