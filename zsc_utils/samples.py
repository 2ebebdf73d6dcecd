"""Texts for notebooks and tests: the committed test sets, which were never used in training."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).parent / "data"
TEST_SETS = ("topics_familiar", "topics_new", "reviews", "nli")
# for long_texts: topics of the one passage that decides, and topics of the headlines around it
PASSAGES = "财经 体育 科技 教育 汽车 美食 房产 军事 娱乐 法律".split()
AROUND = "天气 考古 园艺 宠物 消防".split()


def test_set(name: str) -> list[dict]:
    """Return the records of a test set, a list of dicts.

    "topics_familiar" and "topics_new": 312 headlines each, with `text` and `topic` (12 topics; the new ones were never
    labels in training). "reviews": 240 one-line reviews, with `text`, `domain`, `polarity` and `stated`, which is false
    if satisfaction is only implied. "nli": 120 records, each `text` with an `entailment`, a `neutral` and a
    `contradiction`. Raises ValueError for another name.
    """
    if name not in TEST_SETS:
        raise ValueError(f"test set {name!r}: there are {', '.join(TEST_SETS)}")
    lines = (DATA / f"test_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


test_set.__test__ = False  # type: ignore[attr-defined]  # so that pytest does not collect it as a test


def topics(records: Sequence[dict]) -> list[str]:
    """The topics of a topic test set, in the order of their first records."""
    return list(dict.fromkeys(record["topic"] for record in records))


def long_texts(count: int, characters: int) -> list[dict]:
    """Make `count` texts of about `characters` characters whose topic is in one passage: dicts of `text` and `topic`.

    The passage is two headlines of one of the ten topics in PASSAGES, which are the labels to choose from. Around it
    are headlines of the topics in AROUND, which are not labels. They come from the test sets, the same on each call.
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
