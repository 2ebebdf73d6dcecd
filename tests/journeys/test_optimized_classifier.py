"""The article's class: what it promises, by ZeroShotClassifier's own results."""

import inspect

import pytest
import torch
from oracle import ORACLE
from results import as_dicts, same

import zsc_utils as zsc
from zsc_utils import inference, offloading, quantization
from zsc_utils.optimized_classifier import OptimizedZeroShotClassifier

LABELS = ["财经", "体育", "军事", "旅游"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线", "去看海", "A股" * 40, "早安"]
SETS = [["财经", "体育", "军事"], ["旅游"], "美食，天气", ["体育", "财经"], ["财经", "旅游"]]
SIZES = [None, 1, 2, 3, 5, 100]


@pytest.fixture(scope="module")
def optimized():
    return OptimizedZeroShotClassifier(ORACLE)


@pytest.fixture(scope="module")
def int8():
    return zsc.ZeroShotClassifier(ORACLE, precision="int8")


@pytest.fixture(scope="module")
def folders(oracle, tmp_path_factory):
    """{precision: folder} of the small checkpoint, stored in fewer bits."""
    place = tmp_path_factory.mktemp("stored")
    return {p: quantization.save(quantization.quantize(oracle, p), place / p) for p in quantization.PRECISIONS}


# ------------------------------------------------------------------------------------------------------------ predict


def test_a_text_gives_a_list_of_one_result(optimized, int8):
    for size in (None, 1, 2):
        assert optimized.predict(TEXTS[0], LABELS, size) == [int8(TEXTS[0], LABELS)]


@pytest.mark.parametrize("texts", [TEXTS, tuple(TEXTS), TEXTS[:1]])
@pytest.mark.parametrize("size", SIZES)
def test_a_list_gives_a_list_whatever_the_batch(optimized, int8, texts, size):
    assert same(optimized.predict(texts, LABELS, batch_size=size), int8(list(texts), LABELS))


@pytest.mark.parametrize("labels", ["财经，体育", ["财经"], ("财经", "体育")])
def test_labels_for_all_texts_are_given_as_to_the_classifier(optimized, int8, labels):
    for size in (None, 2):
        assert same(optimized.predict(TEXTS, labels, size), int8(TEXTS, labels))


def test_so_many_texts_are_taken_together_as_were_asked_for(optimized, monkeypatch):
    parts, forward = [], type(optimized.classify).__call__

    def watched(self, texts, *arguments, **options):
        parts.append(list(texts))
        return forward(self, texts, *arguments, **options)

    monkeypatch.setattr(type(optimized.classify), "__call__", watched)
    for size, expected in [(2, [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]), (4, [TEXTS[:4], TEXTS[4:]]), (None, [TEXTS])]:
        parts.clear()
        optimized.predict(TEXTS, LABELS, batch_size=size)
        assert parts == expected


@pytest.mark.parametrize("size", SIZES)
def test_each_text_keeps_the_labels_of_its_own(optimized, int8, size):
    found = optimized.predict(TEXTS, SETS, batch_size=size)
    assert [set(result["labels"]) for result in found] == [
        {"财经", "体育", "军事"}, {"旅游"}, {"美食", "天气"}, {"体育", "财经"}, {"财经", "旅游"}
    ]  # fmt: skip
    assert same(found, int8(TEXTS, SETS))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("given", [tuple, iter])
def test_labels_of_each_text_may_come_as_they_may_to_the_classifier(optimized, int8, size, given):
    sets = [["财经", "体育"], ["旅游"], ["美食", "天气"], ["体育", "财经"], ["财经", "旅游"]]
    assert same(optimized.predict(TEXTS, given(sets), batch_size=size), int8(TEXTS, sets))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sets", [SETS[:1], SETS[:2], SETS[:3], SETS[:4], [*SETS, ["财经"]], SETS * 2])
def test_a_list_of_labels_too_many_or_too_few_is_an_error_whatever_the_batch(optimized, sets, size):
    with pytest.raises(ValueError, match=r"^(fewer|more) lists of labels than the 5 texts: give one for each text"):
        optimized.predict(TEXTS, sets, batch_size=size)


def test_options_of_a_call_pass_through(optimized, int8):
    options = {"hypothesis_template": "这篇文章的标题是{}", "multi_label": True}
    found = optimized.predict(TEXTS, LABELS, 2, **options)
    assert same(found, int8(TEXTS, LABELS, **options))
    assert as_dicts(found) != as_dicts(int8(TEXTS, LABELS)) and sum(found[0]["scores"]) != pytest.approx(1)
    long = "国足" * 600
    assert optimized.predict(long, LABELS, long_texts="max") == [int8(long, LABELS, long_texts="max")]


def test_a_batch_size_comes_third_and_options_by_name():
    parameters = inspect.signature(OptimizedZeroShotClassifier.predict).parameters
    assert list(parameters)[1:] == ["texts", "labels", "batch_size", "options"]
    assert list(inspect.signature(OptimizedZeroShotClassifier).parameters)[:2] == ["model_path", "use_quantization"]
    assert inspect.signature(OptimizedZeroShotClassifier).parameters["use_quantization"].default is True


# ----------------------------------------------------------------------------------------------------------- precision


def test_int8_unless_told_otherwise(optimized, oracle):
    assert quantization.precision_of(optimized.classify.checkpoint) == "int8"
    plain = OptimizedZeroShotClassifier(ORACLE, use_quantization=False)
    assert quantization.precision_of(plain.classify.checkpoint) == "fp32"
    assert plain.predict(TEXTS, LABELS) == zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS)
    assert as_dicts(plain.predict(TEXTS, LABELS)) != as_dicts(optimized.predict(TEXTS, LABELS))


@pytest.mark.parametrize("stored", ["fp16", "bf16", "int8"])
def test_a_folder_of_fewer_bits_keeps_them_or_becomes_int8(folders, stored):
    for quantized, expected in [(True, "int8"), (False, stored)]:
        found = OptimizedZeroShotClassifier(folders[stored], quantized)
        assert quantization.precision_of(found.classify.checkpoint) == expected
        assert found.predict(TEXTS[0], LABELS)[0]["labels"]


def test_the_bundled_checkpoint_gets_the_article_s_example_right():
    texts, labels = ["央行下调利率", "国足赢了"], ["财经", "体育"]
    results = OptimizedZeroShotClassifier("mini", use_quantization=True).predict(texts, labels, batch_size=2)
    assert [result["labels"][0] for result in results] == labels


def test_a_path_may_be_a_string_or_a_path_and_the_class_says_what_it_holds(optimized):
    other = OptimizedZeroShotClassifier(str(ORACLE), device="cpu")
    assert repr(other) == repr(optimized)
    assert repr(other).startswith("OptimizedZeroShotClassifier(Checkpoint(") and "torch.int8" in repr(other)


def test_the_class_is_the_module_s():
    assert zsc.OptimizedZeroShotClassifier is OptimizedZeroShotClassifier


# -------------------------------------------------------------------------------------------------------------- levers


def test_options_of_the_classifier_pass_through(int8):
    made = OptimizedZeroShotClassifier(ORACLE, memory_budget="100MB", max_tokens=600)
    setting = made.classify.plan.setting
    assert (made.classify.plan.budget, setting.precision, setting.max_tokens) == (100_000_000, "int8", 600)
    assert same(made.predict(TEXTS, LABELS, 2), int8(TEXTS, LABELS))
    streamed = OptimizedZeroShotClassifier(ORACLE, offload=True)
    assert isinstance(streamed.classify.checkpoint.model, offloading.StreamedModel)
    assert same(streamed.predict(TEXTS, LABELS, 2), int8(TEXTS, LABELS))


def test_a_precision_by_hand_comes_before_use_quantization():
    for quantized in (True, False):
        made = OptimizedZeroShotClassifier(ORACLE, quantized, precision="fp16")
        assert quantization.precision_of(made.classify.checkpoint) == "fp16"


def test_a_budget_needs_no_leave_for_the_int8_that_was_asked_for():
    with pytest.raises(ValueError, match=r"the smallest that works is [\d.]+ MB \(int8") as error:
        OptimizedZeroShotClassifier(ORACLE, memory_budget="1MB")
    assert "allow_lossy" not in str(error.value)
    with pytest.raises(ValueError, match=r"the smallest that works is [\d.]+ MB \(fp32"):
        OptimizedZeroShotClassifier(ORACLE, use_quantization=False, memory_budget="1MB")


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("size", [0, -1, 1.5, 2.0, "2", True, False])
def test_batch_sizes_that_are_none(optimized, size):
    for texts in (TEXTS, TEXTS[0]):
        with pytest.raises(ValueError, match=f"batch_size {size!r}: give the number of texts to take together"):
            optimized.predict(texts, LABELS, batch_size=size)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize(
    "texts, labels, error, message",
    [
        ("", LABELS, ValueError, "text 0 is empty"),
        (None, LABELS, TypeError, "not NoneType"),
        (iter(TEXTS), LABELS, TypeError, "give a text or a list of texts"),
        ([*TEXTS[:3], None], LABELS, TypeError, "text 3 is None"),
        ([*TEXTS[:4], " "], LABELS, ValueError, "text 4 is empty"),
        (TEXTS, [], ValueError, "candidate_labels is empty"),
        (TEXTS, ["财经", "财经"], ValueError, "holds 财经 more than once"),
        (TEXTS, None, TypeError, "not NoneType"),
        (TEXTS, [*SETS[:4], 7], TypeError, "labels of text 4: not 7"),
        (TEXTS, [*SETS[:3], "财经", SETS[4]], TypeError, "labels of text 3: not '财经'"),
    ],
)
def test_input_without_an_answer_is_named_as_the_classifier_names_it(optimized, texts, labels, error, message, size):
    with pytest.raises(error, match=message):
        optimized.predict(texts, labels, batch_size=size)


@pytest.mark.parametrize("nothing", [[], ()])
def test_nothing_in_nothing_out(optimized, nothing):
    assert optimized.predict(nothing, LABELS) == [] == optimized.predict(nothing, LABELS, batch_size=2)


@pytest.mark.parametrize("bad", [None, "", 7])
def test_a_bad_text_is_told_before_anything_is_computed(optimized, monkeypatch, bad):
    """The first batches may take hours."""
    monkeypatch.setattr(inference, "logits", lambda *_, **__: pytest.fail("computed first"))
    with pytest.raises((TypeError, ValueError), match="text 4 is"):
        optimized.predict([*TEXTS[:4], bad], LABELS, batch_size=2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hypothesis_template": "题" * 490 + "{}"}, "leaves no room for a text"),
        ({"hypothesis_template": "{}{}"}, "needs {} exactly once"),
        ({"long_texts": "max", "window": 20}, "window 20: special tokens and the longest label take"),
    ],
)
def test_options_that_the_last_text_s_labels_do_not_go_with_are_told_before_too(
    optimized, monkeypatch, options, message
):
    monkeypatch.setattr(inference, "logits", lambda *_, **__: pytest.fail("computed first"))
    with pytest.raises(ValueError, match=message):
        optimized.predict(TEXTS, [*SETS[:4], ["财经", "体育" * 12]], batch_size=2, **options)


@pytest.mark.parametrize(
    "path, options, error, message",
    [
        ("mimi", {}, zsc.CheckpointError, "checkpoint 'mimi': no such folder"),
        (7, {}, TypeError, "checkpoint 7"),
        (ORACLE, {"precision": "fp8"}, ValueError, "precision 'fp8'"),
        (ORACLE, {"wrong": 1}, TypeError, "wrong"),
        (ORACLE, {"memory_budget": "many"}, ValueError, "size 'many'"),
    ],
)
def test_what_cannot_be_made(path, options, error, message):
    with pytest.raises(error, match=message):
        OptimizedZeroShotClassifier(path, **options)


# --------------------------------------------------------------------------------------------- devices other than a CPU


@pytest.mark.parametrize("quantized", [True, False])
def test_elsewhere_the_model_is_in_fp16_and_not_planned(quantized):
    """Without a GPU: on the meta device, where nothing is computed."""
    made = OptimizedZeroShotClassifier(ORACLE, quantized, device="meta", max_tokens=99)
    model = made.classify.checkpoint.model
    assert model.dtype == torch.float16 and model.device.type == "meta"
    assert made.classify.plan is None and made.classify.budget.max_tokens == 99


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: asked.append(str(device)) or self)
    assert OptimizedZeroShotClassifier(ORACLE).classify.checkpoint.model.dtype == torch.float16
    assert asked == ["cuda"]
    assert quantization.precision_of(OptimizedZeroShotClassifier(ORACLE, device="cpu").classify.checkpoint) == "int8"
    assert asked == ["cuda"]


def test_int8_on_a_gpu_is_told_as_such(folders):
    with pytest.raises(ValueError, match="int8 runs on CPUs only"):
        OptimizedZeroShotClassifier(folders["int8"], device="meta")


def test_a_folder_in_bf16_runs_on_a_gpu_or_says_what_to_do(folders):
    try:
        made = OptimizedZeroShotClassifier(folders["bf16"], device="meta")
    except ValueError as error:
        assert "leave out dtype" not in str(error), "of which the caller gave none"
    else:
        assert made.classify.checkpoint.model.dtype in (torch.float16, torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_value_error():
    with pytest.raises(ValueError, match="cuda"):
        OptimizedZeroShotClassifier(ORACLE, device="cuda")
