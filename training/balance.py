"""Shift the head's biases so that no class is named too often on texts set aside; rankings stay the same.

python training/balance.py CHECKPOINT OUTPUT --packages FOLDER [--entailment 0.605]. Training sees the classes in other
shares than texts do. Two numbers, added to the logits of neutral and of contradiction, mend that. They are chosen where
the product of four shares is largest: entailment, neutral, contradiction, and plain facts called neutral; the share of
entailment must not be below that of the weights before.
"""

import argparse
import itertools
import random
from pathlib import Path

import numpy as np
import torch
import train

SHIFTS = np.arange(-2, 2.01, 0.05)


@torch.inference_mode()
def logits_by_class(model, tokenizer, held):
    """[(logits (n, 3), the right class)]: hypotheses of each class, then plain facts with two polarity labels."""
    found = []
    for number, name in enumerate(("entailment", "neutral", "contradiction")):
        pairs = [(example.text, getattr(example, name)[0]) for example in held["nli"]]
        found.append((train.logits_of(model, tokenizer, pairs).numpy(), number))
    facts = [text for text, _, polarity in held["reviews"] if polarity == "neutral"]
    pairs = [(text, label) for text in facts for label in ("好评", "差评")]
    return [*found, (train.logits_of(model, tokenizer, pairs).numpy(), train.NEUTRAL)]


def shares(found, shift):
    """The share named right in each group, the logits shifted by three numbers."""
    return [float(((logits + shift).argmax(1) == number).mean()) for logits, number in found]


def best_shift(found, entailment):
    """The shift (0, neutral, contradiction) with the largest product of shares, that of entailment at least so much."""
    shifts = [np.array([0, *pair]) for pair in itertools.product(SHIFTS, SHIFTS)]
    return max(
        (each for each in shifts if shares(found, each)[0] >= entailment), key=lambda s: np.prod(shares(found, s))
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--entailment", type=float, default=0.605, help="the least share of entailment")
    arguments = parser.parse_args()
    _, held = train.gather(arguments, random.Random(0))
    model, tokenizer = train.started(arguments.checkpoint)
    found = logits_by_class(model, tokenizer, held)
    shift = best_shift(found, arguments.entailment)
    for name, value in (("as trained", np.zeros(3)), ("shifted", shift)):
        print(name, np.round(value, 2), *(f"{share:.3f}" for share in shares(found, value)))
    with torch.no_grad():
        model.classifier.bias += torch.tensor(shift, dtype=torch.float32)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
