"""The bundled checkpoint truly classifies: what its model card says is measured again, on text it never saw.

The whole report takes minutes (training/evaluate.py); here its main figures are measured anew, the slower ones on a
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
REACHED = {("topics_familiar", "bare"), ("reviews_stated", "familiar labels"), ("reviews_implied", "familiar labels"),
           ("reviews_implied", "bare")}  # fmt: skip


@pytest.fixture(scope="module")
def classify(mini):
    return zsc.ZeroShotClassifier(mini)


@pytest.fixture(scope="module")
def quick():
    return zsc.ZeroShotClassifier(zsc.load("mini", dtype=torch.int8))


@pytest.fixture(scope="module")
def report(mini):
    return json.loads((mini.folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["topics_new", "topics_familiar"])
def test_topics(quick, report, name):
    """In int8, which takes a third of the time and moves a headline or two, as other machines' rounding does."""
    records = samples.test_set(name)
    accuracy = evaluate.topic_accuracy(quick, records, samples.topics(records))
    assert accuracy == pytest.approx(report[name]["bare"], abs=0.013)


@pytest.mark.parametrize("name, stated", [("reviews_stated", True), ("reviews_implied", False)])
def test_reviews_under_all_labels_and_templates(classify, report, name, stated):
    reviews = [r for r in samples.test_set("reviews") if r["stated"] is stated]
    assert evaluate.review_report(classify, reviews) == pytest.approx(report[name], abs=0.034)  # a review or two


def test_goals_that_were_reached_are_these(report):
    """Known labels reach the goals; the model card says which others do not, and this says so when that changes."""
    reached = {(section, key) for _, section, key, goal in evaluate.CARD if goal and report[section][key] >= goal}
    assert reached == REACHED


@pytest.mark.parametrize("name", ["topics_new", "topics_familiar", "reviews_stated", "reviews_implied"])
def test_unseen_templates_cost_at_most_three_points(report, name):
    """As recorded with the weights; the tests above and below hold the record to new measurements."""
    assert report[name]["unseen"] >= report[name]["bare"] - 0.03


def test_topics_under_an_unseen_template(classify, report):
    records, template = samples.test_set("topics_new"), evaluate.TOPIC_TEMPLATES["unseen"][0]
    accuracy = evaluate.topic_accuracy(classify, records[::3], samples.topics(records), template)
    assert accuracy == pytest.approx(report["topics_new"]["unseen"], abs=0.08)  # a third of the recorded ones


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
    return [line for line in file.read_text(encoding="utf-8").splitlines() if re.search(r"\| \d\.\d{3} \|", line)]


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
