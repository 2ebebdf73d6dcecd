"""Labels with their hypotheses, and labels in groups: these are scored first, then only the labels of the best one.

This module does not import torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from zsc_utils._text import Row, check_labels, read_labels, visible


@dataclass(frozen=True)
class LabelSet:
    """Checked labels and their hypotheses in the same order; `longest` is the longest hypothesis in tokens. `ids` are
    the keys of labels that were given as a mapping. Of groups, `within` are the LabelSets of their labels."""

    labels: tuple
    hypotheses: tuple
    longest: int
    ids: tuple | None = None
    within: tuple["LabelSet", ...] = ()

    @property
    def most(self) -> int:
        """The most labels that a text is scored for at a time."""
        return max(len(labels.labels) for labels in (self, *self.within))


def is_grouped(labels: object) -> TypeGuard[Mapping]:
    """Return whether labels are a mapping {group: its labels}: at least one value is no string, but holds several."""
    return isinstance(labels, Mapping) and any(map(holds_several, labels.values()))


def holds_several(value):
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes)


def check_groups(groups: Mapping) -> dict[str, list[str]]:
    """Return {group: its labels} with checked strings. ValueError or TypeError names the group that is wrong.

    Wrong are an empty group, a value that is no list, a group's name that is no label, and a label in two groups.
    """
    for group, labels in groups.items():
        if not holds_several(labels):
            raise TypeError(
                f"group {group!r} has {labels!r}, other groups have lists: give each group a list of labels, "
                "or give each label a description"
            )
        if isinstance(group, str) and ("{" in group or "}" in group):
            raise ValueError(f"group {group!r} has a brace: its name is a label, not a template, so leave braces out")
    names = check_labels(list(groups), "the names of groups", "group")
    checked = {}
    group_of: dict[str, str] = {}  # {label without white space and invisible characters: its group}
    for name, labels in zip(names, groups.values()):
        checked[name] = check_labels(labels, f"group {name!r}", f"group {name!r}: label", "a list of labels")
        for label in checked[name]:
            other = group_of.setdefault("".join(visible(label).split()), name)
            if other != name:
                raise ValueError(f"label {label!r} is in two groups, {other!r} and {name!r}: keep it in one")
    return checked


def names_of(labels: object) -> list[str]:
    """Return all labels that results may name, checked: of a list, a string, a mapping or groups."""
    if not is_grouped(labels):
        return read_labels(labels)[0]
    return [label for own in check_groups(labels).values() for label in own]


def in_two_passes(block: Sequence[Row], scored: Callable[[list[Row], bool], list]) -> list:
    """Return the result or the error of each checked row of a block, in order.

    `scored(rows, choosing)` returns the result or the error of each row for its own labels. Rows with groups are scored
    twice: with `choosing` for the groups, then for the labels of the best group. Other rows are scored once.
    """
    grouped = [number for number, row in enumerate(block) if row.error is None and row.labels.within]
    if not grouped:
        return scored(list(block), False)
    chosen = dict(zip(grouped, scored([block[number] for number in grouped], True)))
    rows = [narrowed(row, chosen[number]) if number in chosen else row for number, row in enumerate(block)]
    answers = scored(rows, False)
    for number, groups in chosen.items():
        if not isinstance(answers[number], Exception):
            answers[number] |= about_groups(block[number], groups)
    return answers


def narrowed(row, groups):
    """Return the row with the labels of the best of its scored groups; with the error, if they have none."""
    if isinstance(groups, Exception):
        return replace(row, error=groups)
    return replace(row, labels=row.labels.within[place_of_best(row, groups)])


def place_of_best(row, groups):
    return row.labels.labels.index(groups["labels"][0])


def about_groups(row, groups) -> dict[str, Any]:
    """Return the fields of a result that tell of groups: the best one, all scores, and the labels not scored."""
    best = place_of_best(row, groups)
    others = (labels for place, labels in enumerate(row.labels.within) if place != best)
    return {
        "group": groups["labels"][0],
        "group_scores": dict(zip(groups["labels"], groups["scores"])),
        "left_out": [label for labels in others for label in labels.labels],
    }
