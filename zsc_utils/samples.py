"""Texts for lessons and tests: the committed test set, which no training ever saw."""

import json
from pathlib import Path

DATA = Path(__file__).parent / "data"
TEST_SETS = ("topics_familiar", "topics_new", "reviews", "nli")


def test_set(name):
    """The records of a test set, a list of dicts.

    "topics_familiar" and "topics_new": 312 headlines each, `text` and `topic` (12 topics; the new ones were never a
    label in training). "reviews": 240 one-line reviews, `text`, `domain`, `polarity`, and `stated`, false where
    satisfaction is only implied. "nli": 120, `text` with an `entailment`, a `neutral` and a `contradiction`.
    Raises ValueError for another name.
    """
    if name not in TEST_SETS:
        raise ValueError(f"test set {name!r}: there are {', '.join(TEST_SETS)}")
    lines = (DATA / f"test_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


test_set.__test__ = False  # a name that pytest would take for a test of its own


def topics(records):
    """The labels of a topic test set in the order of their first record."""
    return list(dict.fromkeys(record["topic"] for record in records))
