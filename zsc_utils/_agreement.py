"""How far two classifiers agree on the same texts, with the interval of a share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zsc_utils._types import Result


@dataclass(frozen=True)
class Agreement:
    """The comparison of two lists of results. Of `texts`, `same` have the same best label in both; no score differs by
    more than `largest_difference`. `right` counts the correct best labels of each list; None without `truth`."""

    texts: int
    same: int
    largest_difference: float
    right: tuple[int, int] | None

    @property
    def share(self):
        return self.same / self.texts

    @property
    def interval(self):
        """The 95 % confidence interval of `share`."""
        return wilson(self.same, self.texts)


def agreement(results: Sequence[Result], others: Sequence[Result], truth: Sequence[str] | None = None) -> Agreement:
    """Return the Agreement of two classifiers, from their results for the same texts and labels.

    `truth` lists the correct label of each text. Raises TypeError for a dict instead of a list. Raises ValueError for
    empty lists, different texts or labels, NaN scores, and a `truth` of another length or with unknown labels.
    """
    if isinstance(results, dict) or isinstance(others, dict):
        raise TypeError("give lists of results, as a classifier returns them for a list of texts")
    if len(results) != len(others) or not results:
        raise ValueError(f"{len(results)} results beside {len(others)}: give two lists of the same texts")
    for position, (one, other) in enumerate(zip(results, others)):
        if one["sequence"] != other["sequence"] or set(one["labels"]) != set(other["labels"]):
            raise ValueError(f"result {position} is of another text or other labels in the two lists")
    if truth is not None and len(truth) != len(results):
        raise ValueError(f"{len(truth)} true labels for {len(results)} results")
    for label, result in zip(truth or (), results):
        if label not in result["labels"]:
            raise ValueError(f"true label {label!r} is none of the labels of {result['sequence']!r}")
    score = [dict(zip(result["labels"], result["scores"])) for result in others]
    differences = [
        abs(value - there[label])
        for one, there in zip(results, score)
        for label, value in zip(one["labels"], one["scores"])
    ]
    if any(math.isnan(difference) for difference in differences):
        raise ValueError("some scores are no numbers: a model ran over, as fp16 does beyond 65504; bf16 does not")
    right = None if truth is None else (count_right(results, truth), count_right(others, truth))
    same = sum(one["labels"][0] == other["labels"][0] for one, other in zip(results, others))
    return Agreement(len(results), same, max(differences), right)


def count_right(results, truth):
    """Return the number of results whose best label is the true one."""
    return sum(result["labels"][0] == label for result, label in zip(results, truth))


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's formula (1927), which is reliable near 0 and 1 too."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return (centre - spread) / whole, (centre + spread) / whole
