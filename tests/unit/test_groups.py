"""Labels in groups: the best group is found first, and its labels are scored as if there were no others."""

import re

import numpy as np
import pytest
from results import same

import zsc_utils as zsc
from zsc_utils import _groups, classifier, inference
from zsc_utils.records import Row

GROUPS = {"体育": ["足球", "网球", "围棋"], "财经": ["股票", "房价"], "天气": ["台风"]}
TEXTS = ["国足客场一比零取胜", "央行下调利率，二手房成交价上涨", "台风登陆沿海，今夜有暴雨", "A股三大指数收涨"]
OTHERS = {group: [x for other in GROUPS if other != group for x in GROUPS[other]] for group in GROUPS}


@pytest.fixture(scope="module")
def classify():
    return zsc.ZeroShotClassifier("mini")


def plain(result):
    """A result without what it tells of groups."""
    return {key: value for key, value in result.items() if key not in ("group", "group_scores", "left_out")}


@pytest.mark.parametrize("template", ["{}", "这段文字关于{}"])
@pytest.mark.parametrize("options", [{}, {"multi_label": True}, {"reject": 0.7}, {"long_texts": "max", "window": 12}])
def test_a_group_is_chosen_and_its_labels_are_scored_as_if_alone(classify, options, template):
    alone = {k: v for k, v in options.items() if k not in ("multi_label", "reject")}
    found = classify(TEXTS, GROUPS, template, **options)
    assert len({result["group"] for result in found}) == 3
    for text, result, groups in zip(TEXTS, found, classify(TEXTS, list(GROUPS), template, **alone), strict=True):
        assert result["group"] == groups["labels"][0] and list(result["group_scores"]) == groups["labels"]
        assert list(result["group_scores"].values()) == pytest.approx(groups["scores"], abs=1e-5)
        wanted = classify(text, GROUPS[result["group"]], template, **options)
        assert same([plain(result)], [wanted]) and result["labels"] == wanted["labels"]
        assert result.get("rejected") == wanted.get("rejected")
        assert result["left_out"] == OTHERS[result["group"]]
        assert list(result) == [*wanted, "group", "group_scores", "left_out"]


def test_a_stream_answers_and_a_generator_say_the_same(classify):
    called = classify(TEXTS, GROUPS)
    assert list(classify.stream(TEXTS, GROUPS)) == called == list(classify(iter(TEXTS), GROUPS))
    assert same([classify(TEXTS[0], GROUPS)], called[:1])
    rows = [Row(7, TEXTS[0]), Row(8, error=ValueError("no text")), Row(9, TEXTS[1])]
    answers = [answer for _, answer in classify.answers(rows, GROUPS)]
    assert same([answers[0], answers[2]], called[:2]) and isinstance(answers[1], ValueError)
    assert list(classify.stream(TEXTS, GROUPS, start=3)) == called[3:]


def test_each_text_may_have_its_own_groups_or_labels(classify):
    own = [GROUPS, ["股票", "房价"], {"天气": ["台风", "降雨"]}, {1: "股票", 2: "房价"}]
    found = classify(TEXTS, own)
    assert ["group" in result for result in found] == [True, False, True, False]
    for text, labels, result in zip(TEXTS, own, found, strict=True):
        assert same([plain(result)], [plain(classify(text, labels))])
    assert found[2]["group_scores"].keys() == {"天气"} and found[2]["left_out"] == []


def test_only_groups_and_the_labels_of_one_are_computed(classify, monkeypatch):
    pairs = []
    forward = inference.logits

    def watched(model, ids, types, groups, **options):
        pairs.append(sum(count for count, _ in groups))
        return forward(model, ids, types, groups, **options)

    monkeypatch.setattr(inference, "logits", watched)
    groups = {f"类{i}": [f"类{i}之{j}" for j in range(5)] for i in range(5)}
    classify([*TEXTS, TEXTS[0]], groups)
    assert sum(pairs) == len(TEXTS) * (5 + 5)


def test_lists_may_be_anything_that_holds_labels(classify):
    pandas = pytest.importorskip("pandas")
    wanted = classify(TEXTS, GROUPS)
    for kind in (tuple, np.array, pandas.Series):
        assert classify(TEXTS, {group: kind(labels) for group, labels in GROUPS.items()}) == wanted


def test_a_label_may_bear_its_group_s_name_and_braces(classify):
    result = classify(TEXTS[0], {"体育": ["体育", "{球}"], "财经": ["股票"]})
    assert set(result["labels"]) == {"体育", "{球}"} and result["left_out"] == ["股票"]


@pytest.mark.parametrize("groups, error, message", [
    ({"体育": ["足球"], "财经": []}, ValueError, "group '财经' is empty: give at least one label"),
    ({"体育": ["足球"], "财经": ["股票", "足\u200b球"]}, ValueError, "is in two groups, '体育' and '财经'"),
    ({"体育{}": ["足球"]}, ValueError, "group '体育{}' has a brace"),
    ({"体育": ["足球"], "财经": "银行"}, TypeError, "group '财经' has '银行', other groups have lists"),
    ({"财经": "银行", "体育": ["足球"]}, TypeError, "group '财经' has '银行', other groups have lists"),
    ({"体育": ["足球", None]}, TypeError, "group '体育': label 1 is None, a NoneType"),
    ({"体育": ["足球", "足球"]}, ValueError, "group '体育' holds 足球 more than once"),
    ({"体育": [" "]}, ValueError, "group '体育': label 0 is empty"),
    ({"体育": {"足球": "球赛"}}, TypeError, "group '体育': give a list of labels, not dict"),
    ({7: ["足球"]}, TypeError, "group 0 is 7, a int: labels are strings"),
    ({"": ["足球"]}, ValueError, "group 0 is empty"),
    ({"体育": ["足球"], " 体育": ["网球"]}, ValueError, "the names of groups holds '体育' and ' 体育'"),
    ({"体育": ["足球" * 600]}, ValueError, "leaves no room for a text"),
])  # fmt: skip
def test_groups_that_are_none_are_refused_by_name(classify, groups, error, message):
    for call in (classify, classify.stream):
        with pytest.raises(error, match=re.escape(message)):
            call(TEXTS, groups)
    (told,) = classify.stream(TEXTS[:1], [groups])
    assert message in told["error"]


@pytest.mark.parametrize("choosing", [True, False])
def test_a_pair_too_large_for_the_memory_is_the_error_of_its_text(classify, monkeypatch, choosing):
    rows, passes = classify.rows, []

    def short_of_memory(pairs, *others):
        logits, errors, cut = rows(pairs, *others)
        passes.append(len(pairs))
        return logits, errors | ({0: MemoryError("none left")} if len(passes) == 2 - choosing else {}), cut

    monkeypatch.setattr(classify, "rows", short_of_memory)
    found = list(classify.stream(TEXTS, GROUPS))
    assert "none left" in found[0]["error"] and "group" not in found[0]
    assert all("group" in result for result in found[1:])


def test_progress_counts_each_text_once(classify, monkeypatch):
    shown, update = [], classifier.tqdm.update

    def watched(bar, count=1):
        update(bar, count)
        shown.append(bar.n)

    monkeypatch.setattr(classifier.tqdm, "update", watched)
    classify([*TEXTS, "早安"], GROUPS, progress=True)
    assert shown == sorted(shown) and shown[-1] == 5


def test_a_text_that_is_cut_is_told_once(classify):
    with pytest.warns(UserWarning, match="is cut") as told:
        classify(["国足" * 400], GROUPS)
    assert len(told) == 1 and told[0].filename == __file__


def test_descriptions_and_ids_are_no_groups():
    assert not _groups.is_grouped({"财经": "银行", 7: "体育"}) and not _groups.is_grouped(["足球"])
    assert not _groups.is_grouped({7: b"x"}) and _groups.is_grouped({"体育": ()})
