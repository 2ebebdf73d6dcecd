"""What tests ask of results."""

import pytest


def as_dicts(results):
    """[{label: score}] of a list of results."""
    return [dict(zip(result["labels"], result["scores"])) for result in results]


def same(results, others, within=1e-5):
    """Whether two lists of results are of the same texts and labels, with the same scores but for rounding."""
    assert [result["sequence"] for result in results] == [result["sequence"] for result in others]
    for found, wanted in zip(as_dicts(results), as_dicts(others), strict=True):
        assert found == pytest.approx(wanted, abs=within)
    return True
