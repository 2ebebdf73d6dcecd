"""The drop-in: ModelScope's scores, the pipeline's shapes, and errors at the door."""

import pytest
import torch
import transformers
from conftest import ORACLE

import zsc_utils as zsc
from zsc_utils import classifier
from zsc_utils.batching import Pairs

LABELS = ["财经", "体育", "军事", "旅游"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线，主教练赛后说球员拼到了最后一分钟", "去看海", "A股" * 40]


@pytest.fixture(scope="module")
def classify(oracle):
    return zsc.ZeroShotClassifier(oracle)


# ---------------------------------------------------------------------------------------------- equal to the others


def test_every_score_is_that_of_modelscope(classify, golden):
    assert {(c["template"], c["multi_label"]) for c in golden["cases"]} >= {("{}", False), ("{}", True)}
    assert len({c["template"] for c in golden["cases"]}) == 2
    assert max(len(c["text"]) for c in golden["cases"]) > 512
    for case in golden["cases"]:
        result = classify(case["text"], golden["labels"], case["template"], case["multi_label"])
        assert dict(zip(result["labels"], result["scores"])) == pytest.approx(
            dict(zip(case["labels"], case["scores"])), abs=1e-5
        )


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, "财经,体育，军事, 旅游", ["财经"]])
def test_called_like_the_transformers_pipeline_with_the_same_results(oracle, classify, labels, multi_label):
    pipeline = transformers.pipeline("zero-shot-classification", model=oracle.model, tokenizer=oracle.tokenizer)
    options = {"hypothesis_template": "这篇文章的标题是{}", "multi_label": multi_label}
    plain = labels if isinstance(labels, list) else LABELS  # the pipeline does not know the Chinese comma
    for ours, theirs in zip(classify(TEXTS, labels, **options), pipeline(TEXTS, plain, **options)):
        assert ours["sequence"] == theirs["sequence"]
        assert dict(zip(ours["labels"], ours["scores"])) == pytest.approx(
            dict(zip(theirs["labels"], theirs["scores"])), abs=1e-5
        )
        assert ours["scores"] == sorted(ours["scores"], reverse=True)
        assert list(ours) == list(theirs)


def test_a_text_in_a_dict_out_a_list_in_a_list_out(classify):
    assert classify(TEXTS[0], LABELS)["sequence"] == TEXTS[0]
    assert [r["sequence"] for r in classify(TEXTS, LABELS)] == TEXTS
    assert len(classify([TEXTS[0]], LABELS)) == 1


# ------------------------------------------------------------------------------------------------- what scores mean


def test_single_label_scores_share_one_and_multi_label_scores_stand_alone(classify):
    for result in classify(TEXTS, LABELS):
        assert sum(result["scores"]) == pytest.approx(1, abs=1e-6)
    alone = {label: classify(TEXTS[0], [label])["scores"][0] for label in LABELS}
    together = classify(TEXTS[0], LABELS, multi_label=True)
    assert dict(zip(together["labels"], together["scores"])) == pytest.approx(alone, abs=1e-5)


def test_scores_do_not_depend_on_the_batch(oracle):
    alone = [zsc.ZeroShotClassifier(oracle, max_tokens=1)(text, LABELS) for text in TEXTS]
    for size in (100, 1024, 10_000):
        together = zsc.ZeroShotClassifier(oracle, max_tokens=size)(TEXTS[::-1], LABELS[::-1])[::-1]
        for one, other in zip(alone, together):
            assert dict(zip(other["labels"], other["scores"])) == pytest.approx(
                dict(zip(one["labels"], one["scores"])), abs=1e-5
            )


def test_the_text_is_cut_and_never_the_hypothesis(oracle, classify):
    pairs = Pairs(oracle.tokenizer, [("体育" * 1000, "财经" * 100)])
    ids, types, groups = pairs.tensors([0])
    whole = oracle.tokenizer("财经" * 100, add_special_tokens=False).input_ids
    assert len(ids) == 512 and groups == [(1, 512)]
    assert ids[types == 1].tolist() == [*whole, oracle.tokenizer.sep_token_id]


def test_real_pairs_not_one_string_with_sep_in_it(classify):
    pair = classify.logits([("央行宣布下调利率", "财经")])
    inputs = classify.checkpoint.tokenizer("央行宣布下调利率[SEP]财经", return_tensors="pt")
    with torch.inference_mode():
        joined = classify.checkpoint.model(**inputs).logits
    assert inputs["token_type_ids"].sum() == 0 and not torch.allclose(pair, joined, atol=1e-3)


def test_half_precision_gives_fp32_scores_that_sum_to_one(oracle):
    half = zsc.ZeroShotClassifier(zsc.load(ORACLE, dtype=torch.bfloat16))
    assert sum(half(TEXTS[0], LABELS)["scores"]) == pytest.approx(1, abs=1e-6)


def test_no_gradient_is_kept(classify):
    assert not classify.logits([("央行", "财经")]).requires_grad


def test_labels_may_hold_braces(classify):
    assert classify(TEXTS[0], ["{财经}", "{0}"])["labels"]


def test_equal_scores_keep_the_order_of_the_labels():
    record = classifier.Record(0, "text", classifier.LabelSet(("a", "b", "c"), ()))
    assert classifier.ranked(record, [0.2, 0.5, 0.2])["labels"] == ["b", "a", "c"]


# ------------------------------------------------------------------------------------------------ errors at the door


@pytest.mark.parametrize(
    "texts, error, message",
    [
        ("", ValueError, "text 0 is empty"),
        (["央行", "  \n"], ValueError, "text 1 is empty"),
        ([], ValueError, "empty list"),
        (["央行", None], TypeError, "text 1 is None"),
        (["央行", 7], TypeError, "text 1 is 7, a int"),
        (None, TypeError, "not NoneType"),
        ({"text": "央行"}, TypeError, "not dict"),
    ],
)
def test_texts_without_an_answer(classify, texts, error, message):
    with pytest.raises(error, match=message):
        classify(texts, LABELS)


@pytest.mark.parametrize(
    "labels, error, message",
    [
        ([], ValueError, "candidate_labels is empty"),
        ("，, ", ValueError, "candidate_labels is empty"),
        (["财经", ""], ValueError, "label 1 is empty"),
        (["财经", "体育", "财经"], ValueError, "holds 财经 more than once"),
        ("财经,体育，财经", ValueError, "holds 财经 more than once"),
        (["财经", 3], TypeError, "label 1 is 3, a int"),
        (None, TypeError, "not NoneType"),
        (["财经" * 300], ValueError, "leaves no room for a text"),
    ],
)
def test_labels_without_an_answer(classify, labels, error, message):
    with pytest.raises(error, match=message):
        classify(TEXTS[0], labels)


@pytest.mark.parametrize("template", ["这篇文章的标题是", "{}和{}", "{0}", "", None])
def test_templates_without_one_place_for_the_label(classify, template):
    with pytest.raises(ValueError, match="needs {} exactly once"):
        classify(TEXTS[0], LABELS, template)


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True])
def test_token_budgets_that_are_none(oracle, size):
    with pytest.raises(ValueError, match="max_tokens"):
        zsc.ZeroShotClassifier(oracle, max_tokens=size)


def test_checkpoints_that_are_none():
    with pytest.raises(TypeError, match="checkpoint 7"):
        zsc.ZeroShotClassifier(7)
    with pytest.raises(zsc.CheckpointError, match="mimi"):
        zsc.ZeroShotClassifier("mimi")
