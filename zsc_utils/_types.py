"""Types of the public signatures: arguments, results and the error of checkpoints."""

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

Name = str | os.PathLike  # of a checkpoint: "mini", "base-shape", a folder, a ModelScope id
Size = int | str  # bytes, or a string with a unit: "300MB"
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Attention = Literal["sdpa", "eager", "sliding"]
LongTexts = Literal["cut", "max", "mean"]
LabelGroups = Mapping[str, Sequence[str]]  # {group: its labels}
Labels = (
    str | Sequence[str] | Mapping[Hashable, str] | LabelGroups
    | Sequence[str | Sequence[str] | Mapping] | Iterator[str | Sequence[str] | Mapping]
)  # fmt: skip
Tokens = tuple[int, ...]  # token ids
Groups = Sequence[tuple[int, int]]  # (pairs, length in tokens) of each run of consecutive pairs of the same length


class CheckpointError(ValueError):
    """A checkpoint cannot be found, read or trusted; the message says which one, why, and what to do."""


class Result(TypedDict):
    """The result for one text: its labels, best first, and the score of each label, from 0 to 1."""

    sequence: str
    labels: list[str]
    scores: list[float]
    ids: NotRequired[list[Hashable]]  # keys of a mapping of labels, in the order of `labels`
    scores_by_label: NotRequired[dict[Hashable, float]]  # by these keys
    rejected: NotRequired[bool]  # whether it is none of the labels, if `reject` was given
    group: NotRequired[str]  # the best group, if labels were given in groups; `labels` are those of this group
    group_scores: NotRequired[dict[str, float]]  # of all groups, best first
    left_out: NotRequired[list[str]]  # labels of the other groups, which have no score


class Failure(TypedDict):
    """What a stream yields for a text that has no result: the text, its position and the error."""

    sequence: object
    position: int
    error: str
