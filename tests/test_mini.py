"""The bundled checkpoint truly classifies: what its model card says is measured again, on text it never saw.

The whole report takes minutes (training/evaluate.py); here the headline figures are measured anew, the slower ones on a
part of the records, and each must be what the committed report says.
"""

import json
import re
import time
from pathlib import Path

import corpus
import evaluate
import pytest
import torch

import zsc_utils as zsc
from zsc_utils import samples

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def classify(mini):
    return zsc.ZeroShotClassifier(mini, batch_size=64)


@pytest.fixture(scope="module")
def report(mini):
    return json.loads((mini.folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["topics_new", "topics_familiar"])
def test_topics(classify, report, name):
    accuracy = evaluate.topic_accuracy(classify, samples.test_set(name))
    assert accuracy >= 0.93
    assert accuracy == pytest.approx(report[name]["bare"], abs=0.005)  # two headlines: other machines round otherwise


@pytest.mark.parametrize("name, stated", [("reviews_stated", True), ("reviews_implied", False)])
def test_unseen_templates_and_words_measured_on_all_reviews(classify, report, name, stated):
    reviews = [r for r in samples.test_set("reviews") if r["stated"] is stated]
    found = evaluate.review_report(classify, reviews)
    assert found == pytest.approx(report[name], abs=0.01)
    assert found["bare"] >= (0.93 if stated else 0.80)
    assert found["unseen"] >= found["bare"] - 0.03


@pytest.mark.parametrize("name", ["topics_new", "topics_familiar"])
def test_unseen_templates_cost_at_most_three_points(report, name):
    """As recorded with the weights; the part below measures it again."""
    assert report[name]["unseen"] >= report[name]["bare"] - 0.03


def test_unseen_templates_measured_on_a_part(classify, report):
    records = samples.test_set("topics_new")[::6]
    found = [evaluate.topic_accuracy(classify, records, t) for t in evaluate.TOPIC_TEMPLATES["unseen"]]
    assert sum(found) / len(found) == pytest.approx(report["topics_new"]["unseen"], abs=0.07)


def test_neutral_means_that_the_text_says_nothing_of_it(classify, report):
    found = evaluate.nli_accuracy(classify, samples.test_set("nli"))
    assert found == pytest.approx(report["nli"], abs=0.02)
    assert min(found.values()) > 0.5 > 1 / 3  # each class far above chance


def test_every_template_and_label_of_the_test_is_one_that_training_did_not_use(report):
    unseen = evaluate.TOPIC_TEMPLATES["unseen"] + evaluate.SENTIMENT_TEMPLATES["unseen"]
    assert not set(unseen) & set(corpus.TOPIC_TEMPLATES + corpus.SENTIMENT_TEMPLATES)
    assert set(evaluate.POLARITY_LABELS["new"] + evaluate.POLARITY_LABELS["unseen"]) <= set(corpus.TEST_LABELS)
    assert set(evaluate.UNSEEN_TOPICS) <= set(corpus.UNSEEN_WORDS)


def table_rows(file):
    return [line for line in file.read_text(encoding="utf-8").splitlines() if re.search(r"\| \d\.\d{3} \|$", line)]


def test_the_model_card_and_the_readme_show_the_report(mini, report):
    rows = evaluate.card_rows(report)
    assert table_rows(mini.folder / "README.md") == rows
    shown = table_rows(ROOT / "README.md")
    assert shown and set(shown) <= set(rows)


def test_a_pair_is_at_least_three_times_faster_than_on_the_base_shape(mini):
    base = zsc.load("base-shape")
    record = samples.test_set("topics_familiar")[0]
    seconds = {"mini": [], "base": []}
    for _ in range(12):  # interleaved, so that noise meets both
        for name, checkpoint in (("mini", mini), ("base", base)):
            inputs = checkpoint.tokenizer([record["text"]] * 8, [record["topic"]] * 8, return_tensors="pt")
            start = time.perf_counter()
            with torch.inference_mode():
                checkpoint.model(**inputs)
            seconds[name].append(time.perf_counter() - start)
    assert sorted(seconds["base"])[6] / sorted(seconds["mini"])[6] >= 3
