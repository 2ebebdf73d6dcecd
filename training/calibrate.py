"""Are the scores of a checkpoint probabilities? A temperature on texts set aside, and a reliability chart.

python training/calibrate.py CHECKPOINT CHART
The score of a label is the softmax of the entailment logits over the labels. Divided by a temperature first, it ranks
the labels as before, and says better how often the best label is right (Guo et al., 2017, arXiv:1706.04599).
"""

import argparse
import random
from pathlib import Path

import corpus
import numpy as np

from zsc_utils import ZeroShotClassifier, plots

TEMPERATURES = np.arange(0.30, 5.0, 0.01)
BINS = 10


def entailment_logits(classify, lists):
    """Entailment logits (lists, labels) of lists (text, labels, number of the right label); as many labels in each."""
    pairs = [(text, label) for text, labels, _ in lists for label in labels]
    return classify.logits(pairs)[:, classify.checkpoint.entailment_id].reshape(len(lists), -1).astype(float)


def scores(logits, temperature=1.0):
    """Softmax of logits (lists, labels) over the labels."""
    shares = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    return shares / shares.sum(1, keepdims=True)


def best_temperature(logits, right):
    """The temperature under which the right labels, numbers (lists,), are most probable."""
    rows = np.arange(len(right))
    return min(TEMPERATURES, key=lambda t: -np.log(scores(logits, t)[rows, right] + 1e-12).mean())


def bins(logits, right, temperature):
    """(mean score, share right, lists) of each tenth of the scores that a best label has, from the lowest."""
    found = scores(logits, temperature)
    best, is_right = found.max(1), found.argmax(1) == right
    number = np.minimum((best * BINS).astype(int), BINS - 1)
    return [
        (best[number == n].mean(), is_right[number == n].mean(), (number == n).sum())
        for n in range(BINS) if (number == n).any()
    ]  # fmt: skip


def calibration_error(logits, right, temperature):
    """The expected calibration error: the mean distance of score and share right, bins weighted by their lists."""
    return sum(abs(score - share) * count for score, share, count in bins(logits, right, temperature)) / len(right)


def lists_set_aside(rng):
    """(text, labels, 0) of each headline set aside: its topic first, and eleven labels that are not true of it."""
    import train  # whose split it is

    pool = corpus.label_pool()
    for text, true, tempting in corpus.headlines([train.LATER]):
        if train.set_aside(text):
            wrong = [label for label in rng.sample(pool, 60) if label not in true + tempting]
            yield text, [true[0], *wrong[:11]], 0


def report(classify, test, logits):
    """The temperature of the texts set aside, and the calibration error of test lists without and with it."""
    aside, right = [*lists_set_aside(random.Random(0))], [number for *_, number in test]
    temperature = best_temperature(entailment_logits(classify, aside), np.zeros(len(aside), int))
    errors = {t: calibration_error(logits, np.array(right), t) for t in (1.0, temperature)}
    return {
        "temperature": float(temperature), "error without it": errors[1.0], "error with it": errors[temperature],
    }  # fmt: skip


def draw(test, logits, temperature, file):
    """Write the reliability chart of the test lists, without and with the temperature."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    right = np.array([number for *_, number in test])
    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="as often right as the score says")
    lines = {"scores as they are": (1.0, plots.OTHER, "s"), "with the temperature": (temperature, plots.CHOSEN, "o")}
    for name, (value, colour, marker) in lines.items():
        points = [each for each in bins(logits, right, value) if each[2] >= 5]
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker=marker, label=name)
    error = calibration_error(logits, right, temperature)
    axes.set(xlabel="score of the best label", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02),
             title=f"{len(right)} headlines, 16 topics: {error:.1%} apart in the mean")  # fmt: skip
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(file, metadata={"Date": None})


def main():
    import evaluate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("chart", type=Path)
    arguments = parser.parse_args()
    classify, test = ZeroShotClassifier(arguments.checkpoint), evaluate.topic_lists(evaluate.records_of("topics_new"))
    logits = entailment_logits(classify, test)
    found = report(classify, test, logits)
    print({name: round(float(value), 4) for name, value in found.items()})
    draw(test, logits, found["temperature"], arguments.chart)


if __name__ == "__main__":
    main()
