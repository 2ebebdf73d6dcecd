"""Texts for lessons and tests: the committed test set, which no training ever saw."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).parent / "data"
TEST_SETS = ("topics_familiar", "topics_new", "reviews", "nli")
# of long texts: what their one passage is about, and what stands around it
PASSAGES = "财经 体育 科技 教育 汽车 美食 房产 军事 娱乐 法律".split()
AROUND = "天气 考古 园艺 宠物 消防".split()


def test_set(name: str) -> list[dict]:
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


def topics(records: Sequence[dict]) -> list[str]:
    """The labels of a topic test set in the order of their first record."""
    return list(dict.fromkeys(record["topic"] for record in records))


def long_texts(count: int, characters: int) -> list[dict]:
    """`count` texts of about so many characters whose answer lies in one passage, each a dict of `text` and `topic`.

    Two headlines of one of the ten topics PASSAGES, which are the labels to choose from, stand somewhere among
    headlines of other topics, AROUND, which are none of them. Put together from the test sets, the same ones each time.
    """
    rng = random.Random(0)
    familiar, new = ([r for r in test_set(name) if r["topic"] in PASSAGES + AROUND] for name in TEST_SETS[:2])
    records = []
    for number in range(count):
        topic = PASSAGES[number % len(PASSAGES)]
        passage = rng.sample([r["text"] for r in familiar if r["topic"] == topic], 2)
        around = [r["text"] for r in rng.sample(new, len(new))] * (1 + characters // 2000)
        while len("。".join(around)) + len("。".join(passage)) > characters and len(around) > 1:
            around.pop()
        place = rng.randint(0, len(around))
        records.append({"text": "。".join(around[:place] + passage + around[place:]) + "。", "topic": topic})
    return records
