"""What lesson 02 asks: fewer bits for a weight."""

from typing import Any

import numpy as np

from zsc_utils.exercises import Guess, Wrong, exercise
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess(
        "largest-error", "percent", "the largest error of a rounded weight, as a share of one step of the scale", 100
    ),
    Guess("bits-needed", "bits", "the fewest bits of a weight that keep 95 % of the answers, in groups of 32", 8),
    Guess("int8-share", "percent", "the bytes that quantize_dynamic leaves of the weights", 25, 30),
    Guess("bf16-speed", "times", "the speed of bf16 against fp32 on this processor", 2),
    Guess("int8-speed", "times", "the speed of int8 against fp32 on this processor", 4),
]


def some_rows():
    """Four rows of 64 weights: usual ones, small ones, zeros, and one whose largest number is positive.

    The first row's largest is negative.
    """
    rows = np.random.default_rng(0).normal(0, 0.02, (4, 64)).astype(np.float32)
    rows[1] /= 100
    rows[0, 9] = -0.1
    rows[2] = 0
    rows[3, 5] = 0.5
    return rows


def arrays(got, names, call):
    """What an attempt returned, as numpy arrays; Wrong if it is no tuple of so many."""
    if not isinstance(got, tuple | list) or len(got) != len(names):
        raise Wrong(f"{call} returns {len(names)} arrays: {' and '.join(names)}.")
    return [np.asarray(one) for one in got]


@exercise(
    "rows-to-int8",
    "Write rows_to_int8(rows): return int8 rows and one fp32 scale a row, so that rows * scale is the original again, "
    "as nearly as -127 to 127 allow.",
)
def rows_to_int8(attempt: Any) -> str:
    rows = some_rows()
    with np.errstate(all="ignore"):
        whole, scales = arrays(attempt(rows.copy()), ("int8 rows", "scales"), "rows_to_int8(rows)")
    if whole.dtype != np.int8:
        raise Wrong(f"The rows are {whole.dtype}. Convert them with .astype(np.int8).")
    if whole.shape != rows.shape:
        raise Wrong(f"The rows have the shape {whole.shape}, not {rows.shape}.")
    if scales.size == 1 or np.unique(scales).size == 1:
        raise Wrong("There is one scale for all rows. Small rows then lose most of their digits: take one scale a row.")
    if scales.size != len(rows):
        raise Wrong(
            f"There are {scales.size} scales for {len(rows)} rows. The largest number of each row gives its scale."
        )
    scales = scales.reshape(-1, 1).astype(np.float64)
    largest, some = np.abs(rows).max(1), [0, 1, 3]  # the row of zeros comes last
    if np.allclose(scales[some, 0], rows.max(1)[some] / 127, rtol=1e-3):
        raise Wrong("abs() is missing: the largest number of the first row is negative. Its size gives the scale.")
    if not (np.isfinite(scales) & (scales > 0))[some].all():
        raise Wrong("A scale is not above zero, for a row that is not all zeros: it is the largest size / 127.")
    with np.errstate(all="ignore"):
        back = whole * scales
    if back[3, 5] < 0:
        raise Wrong("The largest number of a row comes back negative: 128 does not fit into int8. Divide by 127.")
    used = np.abs(whole[some].astype(int)).max(1)
    if (used < 127).any():
        raise Wrong(f"The largest number of a row becomes {used.min()}, not 127: the scale is its size / 127.")
    if (np.abs(back - rows).max(1) > 0.51 * largest / 127)[some].any():
        raise Wrong("Some weights are off by more than half a step. Round to the nearest whole number first: "
                    "astype alone cuts towards zero.")  # fmt: skip
    if not (np.isfinite(scales[2]) & (scales[2] > 0)).all() or whole[2].any():
        raise Wrong("A row of zeros divides zero by zero. Give such a row another scale, for example 1.")
    return "One scale a row, rounded to the nearest, and no weight is off by more than half a step."


GROUP = 32


def some_row():
    """Four groups of 32 weights: usual ones, small ones, zeros, and one whose largest number is positive.

    The first group's largest is negative.
    """
    row = np.random.default_rng(1).normal(0, 0.02, 4 * GROUP).astype(np.float32)
    row[GROUP : 2 * GROUP] /= 50
    row[5] = -0.1
    row[2 * GROUP : 3 * GROUP] = 0
    row[3 * GROUP + 7] = 0.3
    return row


@exercise(
    "four-bits-in-groups",
    "Write four_bits_in_groups(row): round each group of 32 weights to whole numbers from -7 to 7 with a scale of its "
    "own, add 8, and put two in a byte, the first in the low four bits. Return the uint8 bytes and the scales.",
)
def four_bits_in_groups(attempt: Any) -> str:
    row = some_row()
    with np.errstate(all="ignore"):
        packed, scales = arrays(attempt(row.copy()), ("bytes", "scales"), "four_bits_in_groups(row)")
    if packed.dtype != np.uint8:
        raise Wrong(f"The bytes are {packed.dtype}. Convert them to np.uint8.")
    if packed.size != row.size // 2:
        raise Wrong(f"{row.size} weights take {packed.size} bytes. Two of them fit into one byte.")
    if scales.size != row.size // GROUP:
        raise Wrong(
            f"There are {scales.size} scales for {row.size // GROUP} groups: each group of 32 has a scale of its own."
        )
    low, high = packed.ravel() & 15, packed.ravel() >> 4
    scales = scales.astype(np.float64).ravel()
    groups, some = row.reshape(-1, GROUP), [0, 1, 3]  # the group of zeros comes last
    largest = np.abs(groups).max(1)
    if np.allclose(scales[some], groups.max(1)[some] / 7, rtol=1e-3):
        raise Wrong("abs() is missing: the largest number of the first group is negative. Its size gives the scale.")
    if np.allclose(scales[some], largest[some] / 127, rtol=1e-3):
        raise Wrong("127 is the largest number of eight bits. Here whole numbers go from -7 to 7: divide by 7.")
    if not (np.isfinite(scales) & (scales > 0))[some].all():
        raise Wrong("A scale is not above zero, for a group that is not all zeros: it is the largest size / 7.")
    zeros = scales[2]
    scales[2] = 1  # whatever it is, it is looked at last
    each: np.ndarray = np.repeat(scales, GROUP)
    off = np.abs((np.stack([low, high], 1).ravel() - 8.0) * each - row)
    if (off > 0.51 * np.repeat(largest, GROUP) / 7).reshape(-1, GROUP)[some].any():
        raise Wrong(four_bits_mistake(row, low, high, each, off))
    if not np.isfinite(zeros) or zeros <= 0 or off.reshape(-1, GROUP)[2].any():
        raise Wrong("A group of zeros divides zero by zero. Give such a group another scale, for example 1.")
    return "Each group has its scale, and each weight is within half a step of where it was."


def four_bits_mistake(row, low, high, scales, off):
    """What is wrong with nibbles whose weights do not come back."""

    def apart(nibbles):  # in the groups that are not all zeros
        return np.abs(nibbles * scales - row).reshape(-1, GROUP)[[0, 1, 3]].max()

    largest = np.abs(row).max()
    if apart(np.stack([high, low], 1).ravel() - 8.0) < 0.1 * largest:
        return "The two numbers of a byte are swapped: the first one is in the low four bits."
    if apart(np.concatenate([low, high]) - 8.0) < 0.1 * largest:
        return "The first half of the row is in the low bits. Neighbours share a byte: numbers 0 and 1, then 2 and 3."
    both = np.stack([low, high], 1).ravel().astype(int)
    if apart((both + 8) % 16 - 8.0) < 0.15 * largest:
        return "Negative numbers are stored without an offset. Add 8 first, so that all are from 1 to 15."
    if np.isclose(off[3 * GROUP + 7], largest / 8, rtol=0.02):
        return (
            "The largest weight of a group is a whole step off: 8 does not exist in four bits. Divide by 7, not by 8."
        )
    steps = (off / scales).reshape(-1, GROUP)[[0, 1, 3]].max()
    return f"A weight is off by {steps:.2g} steps. Divide by the scale, round to the nearest, add 8."


@exercise(
    "int8-bytes",
    "Write int8_bytes(inputs, outputs): the bytes of a linear layer whose weights are int8, with an fp32 scale for "
    "each row of weights (one row an output) and an fp32 bias.",
)
def int8_bytes(attempt: Any) -> str:
    for inputs, outputs in ((1000, 300), (300, 1000), (10, 3)):
        weights = inputs * outputs
        compare(attempt(inputs, outputs), weights + 8 * outputs, f"int8_bytes({inputs}, {outputs})", {
            weights: "The scales and the bias are missing: two fp32 numbers for each output.",
            weights + 4 * outputs: "One of the two is missing: each output has a scale and a bias, 4 bytes each.",
            weights + 4 + 4 * outputs: "There is one scale for all rows. Each output has its own.",
            weights + 4 * inputs + 4 * outputs: "The scales belong to the outputs, not to the inputs.",
            weights + 2 * outputs: "Scales and biases are in fp32: 4 bytes each, not 1.",
            weights + 5 * outputs: "Scale and bias are both in fp32: 4 bytes each.",
            4 * weights + 4 * outputs: "That is the layer in fp32. In int8 a weight takes 1 byte.",
            4 * weights + 8 * outputs: "In int8 a weight takes 1 byte, not 4.",
        })  # fmt: skip
    return "One byte a weight, and 8 bytes for each output."
