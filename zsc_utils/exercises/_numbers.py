"""Compare numbers that attempts return with the right ones, and name the mistake that leads to a wrong one."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import isclose
from numbers import Real
from typing import Any

import numpy as np

from zsc_utils.exercises import Wrong, how_far


def number(got: Any, call: str) -> float:
    """Return what an attempt returned, as a number. Raises Wrong that names the `call` for anything else."""
    if isinstance(got, bool) or not isinstance(got, Real | np.number):
        raise Wrong(f"{call} returns {type(got).__name__}, not a number")
    return float(got)


def compare(got: Any, right: float, call: str, mistakes: Mapping[float, str]) -> None:
    """Raise Wrong if `got` is not the right number: with the sentence of a known mistake, {number: sentence}, if it is
    one, else with how far off it is."""
    value = number(got, call)
    if isclose(value, right, rel_tol=1e-9):
        return
    for other, says in mistakes.items():
        if isclose(value, other, rel_tol=1e-9) and not isclose(other, right, rel_tol=1e-9):
            raise Wrong(says)
    far = how_far(value, right, "")
    if far == "equal" or far.startswith("less than 1 %"):  # so near that only the difference shows what is wrong
        side = "high" if value > right else "low"
        raise Wrong(f"{call} returns {value:,.12g}: too {side} by {abs(value - right):,.3g}.")
    raise Wrong(f"{call} returns {value:,.6g}: {far}")


def missing_terms(got: float, terms: Mapping[str, int], most: int = 3) -> Sequence[str]:
    """Return the names of the terms, at most `most`, by which `got` is smaller than the sum of all; else nothing."""
    lacking = sum(terms.values()) - got
    for count in range(1, most + 1):
        for names in combinations(terms, count):
            if sum(terms[name] for name in names) == lacking:
                return names
    return ()
