"""The drop-in: ModelScope's scores, the pipeline's shapes, and errors at the door."""

import copy
import itertools
import random
import re
from dataclasses import replace
from itertools import count, islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from oracle import ORACLE
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import classifier, inference, memory
from zsc_utils.batching import Pairs

LABELS = ["财经", "体育", "军事", "旅游"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线，主教练赛后说球员拼到了最后一分钟", "去看海", "A股" * 40]


@pytest.fixture(scope="module")
def classify(oracle):
    return zsc.ZeroShotClassifier(oracle)


def as_dict(result):
    return dict(zip(result["labels"], result["scores"]))


def batches_seen(monkeypatch):
    """A list that fills with (ids, groups) of each batch that reaches the forward pass."""
    seen, forward = [], inference.logits

    def watched(model, ids, types, groups, **options):
        assert ids.shape == types.shape
        seen.append((ids, groups))
        return forward(model, ids, types, groups, **options)

    monkeypatch.setattr(inference, "logits", watched)
    return seen


def pairs_in(batches):
    return sum(number for _, groups in batches for number, _ in groups)


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
    assert inputs["token_type_ids"].sum() == 0 and not np.allclose(pair, joined, atol=1e-3)


def test_half_precision_gives_fp32_scores_that_sum_to_one(oracle):
    half = zsc.ZeroShotClassifier(zsc.load(ORACLE, dtype=torch.bfloat16))
    assert sum(half(TEXTS[0], LABELS)["scores"]) == pytest.approx(1, abs=1e-6)


def test_no_gradient_is_kept(classify):
    (logits,) = classify.engine.forward([Pairs(classify.checkpoint.tokenizer, [("央行", "财经")]).batch([0])])
    assert not logits.requires_grad


def test_labels_may_hold_braces(classify):
    assert classify(TEXTS[0], ["{财经}", "{0}"])["labels"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("multi_label", [False, True])
def test_logits_however_large_give_scores(classify, multi_label):
    """exp(1000) is more than a number holds."""
    logits = np.array([[[1000.0, 0.0, -1000.0], [-1000.0, 0.0, 1000.0]]])
    reading = classifier.Reading(multi_label, "cut", None)
    assert classify.scores(logits, reading).tolist() == [1, 0]


def test_equal_scores_keep_the_order_of_the_labels():
    record = classifier.Row(0, "text", labels=classifier.LabelSet(("a", "b", "c"), (), 1))
    assert classifier.ranked(record, [0.2, 0.5, 0.2])["labels"] == ["b", "a", "c"]


# ---------------------------------------------------------------------------------------------------- labels per text

SETS = [["财经", "体育", "军事"], ["旅游"], "美食，天气", ["体育", "财经"]]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("given", [list, tuple, iter])
def test_labels_of_each_text_are_as_one_call_per_text(classify, multi_label, given):
    found = classify(TEXTS, given(SETS), "这篇文章的标题是{}", multi_label)
    for text, labels, result in zip(TEXTS, SETS, found, strict=True):
        alone = classify(text, labels, "这篇文章的标题是{}", multi_label)
        assert result["sequence"] == text
        assert as_dict(result) == pytest.approx(as_dict(alone), abs=1e-5)


def test_a_text_with_other_labels_is_another_question(classify):
    found = classify([TEXTS[0]] * 2, [["财经", "体育"], ["体育", "军事"]])
    assert [set(result["labels"]) for result in found] == [{"财经", "体育"}, {"体育", "军事"}]


@pytest.mark.parametrize("sets", [SETS[:3], [*SETS, ["财经"]], iter(SETS[:3]), [["财经"]]])
def test_a_set_of_labels_for_each_text_no_more_no_less(classify, sets):
    with pytest.raises(ValueError, match=r"^(fewer|more) lists of labels than the 4 texts: give one for each text"):
        classify(TEXTS, sets)


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ([], ValueError, "candidate_labels is empty"),
        (["财经", "财经"], ValueError, "holds 财经 more than once"),
        (["财经", None], TypeError, "label 1 is None"),
        (7, TypeError, "labels of text 3: not 7; give one list for each text, or one list for all"),
        ("财经", TypeError, "labels of text 3: not '财经'"),  # a text's one label, or an iterator of all texts' labels?
        (["财经\ud83d"], ValueError, "label 0 holds half a character at 2"),
        (["财经" * 300], ValueError, "leaves no room for a text"),
    ],
)
def test_one_set_without_an_answer_is_an_error(classify, bad, error, message):
    with pytest.raises(error, match=message):
        classify(TEXTS, [*SETS[:3], bad])


# ---------------------------------------------------------------------------------------------------- what is computed


def test_a_text_that_comes_again_is_computed_once(classify, monkeypatch):
    monkeypatch.setattr(classifier, "BLOCK_PAIRS", 8)  # four texts, so that the second time is in a later block
    texts = [*TEXTS, "早安", TEXTS[0], TEXTS[2]]
    once = classify(texts[:5], LABELS[:2])
    batches = batches_seen(monkeypatch)
    found = classify(texts, LABELS[:2])
    assert pairs_in(batches) == 5 * 2
    assert found == [*once, once[0], once[2]]
    found[0]["labels"].clear()
    found[0]["scores"].clear()
    assert found[5] == once[0]  # no part is shared


def test_pairs_are_never_padded(oracle, monkeypatch):
    batches = batches_seen(monkeypatch)
    texts = [*TEXTS, "国足" * 400]
    zsc.ZeroShotClassifier(oracle, max_tokens=600)(texts, LABELS)
    whole = [oracle.tokenizer(text, label, truncation="only_first").input_ids for text in texts for label in LABELS]
    assert len(batches) > 1
    assert all(len(ids) == sum(number * length for number, length in groups) for ids, groups in batches)
    assert sorted(token for ids, _ in batches for token in ids.tolist()) == sorted(t for ids in whole for t in ids)
    assert all(len(ids) <= 600 for ids, _ in batches)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_model_with_hooks_runs_its_own_forward_and_calls_them(oracle, classify, register, monkeypatch):
    batches, called = batches_seen(monkeypatch), []
    hooked = replace(oracle, model=copy.deepcopy(oracle.model))
    getattr(hooked.model.bert.encoder.layer[0], register)(lambda *_: called.append(1))
    found = zsc.ZeroShotClassifier(hooked)(TEXTS, LABELS)
    assert called and not batches
    for one, other in zip(found, classify(TEXTS, LABELS), strict=True):
        assert as_dict(one) == pytest.approx(as_dict(other), abs=1e-5)
    assert batches  # the plain one went the other way


@pytest.mark.parametrize("chunked", [False, True])
def test_a_timeline_measures_the_pass_that_is_taken_without_it(oracle, chunked):
    """Its hooks name modules; they are nobody's, so the classifier goes the way it always goes."""
    classify = zsc.ZeroShotClassifier(zsc.attention.chunk_feed_forward(oracle, 64) if chunked else oracle)
    steps = memory.timeline(lambda: classify(TEXTS, LABELS), classify.checkpoint.model)
    assert max(step.alive for step in steps) == memory.tensor_peak(lambda: classify(TEXTS, LABELS))
    assert any(step.module.endswith("output.dense") for step in steps)


# ------------------------------------------------------------------------------------------------------------ streams


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of four texts with four labels."""
    monkeypatch.setattr(classifier, "BLOCK_PAIRS", 16)


def many(number, seed=0):
    """Texts of all lengths, no two alike."""
    rng = random.Random(seed)
    return [
        f"{i}" + "".join(rng.choices("央行利率国足比赛海军事A股", k=rng.choice((3, 8, 20, 60)))) for i in range(number)
    ]


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_stream_gives_the_bits_of_one_call(classify, small_blocks, multi_label):
    texts = many(21)
    whole = classify(texts, LABELS, "这篇文章的标题是{}", multi_label)
    assert list(classify.stream(iter(texts), LABELS, "这篇文章的标题是{}", multi_label)) == whole
    assert [result["sequence"] for result in whole] == texts


@pytest.mark.parametrize("given", [list, iter])
def test_a_stream_takes_labels_of_each_text(classify, small_blocks, given):
    texts, sets = many(40), SETS * 10
    for one, other in zip(classify.stream(texts, given(sets)), classify(texts, sets), strict=True):
        assert one["sequence"] == other["sequence"]
        assert as_dict(one) == pytest.approx(as_dict(other), abs=1e-5)


@pytest.mark.parametrize("labels", [LABELS, repeat(LABELS)])
def test_a_stream_reads_one_block_ahead_and_no_more(classify, monkeypatch, labels):
    monkeypatch.setattr(classifier, "BLOCK_PAIRS", 16 if isinstance(labels, list) else 64)
    read = []
    endless = (read.append(i) or f"第{i}条" for i in count())
    results = classify.stream(endless, labels)
    assert not read
    for wanted, taken in ((1, 4), (3, 4), (1, 8)):
        assert len(list(islice(results, wanted))) == wanted
        assert len(read) == taken


BAD = [None, 7, "", "  ", float("nan"), b"text", "好\ud83d"]


def test_what_came_before_a_source_that_breaks_has_its_results(classify):
    def source():
        yield from TEXTS
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    found = []
    with pytest.raises(UnicodeDecodeError):
        for result in classify.stream(source(), LABELS):
            found.append(result)
    assert found == list(classify.stream(TEXTS, LABELS))


def test_records_without_an_answer_say_so_and_the_rest_goes_on(classify, small_blocks):
    good = many(10)
    records = [*good[:3], *BAD, *good[3:]]  # two blocks have none but bad ones, or some
    found = list(classify.stream(records, LABELS))
    assert len(found) == len(records)
    for position, (record, result) in enumerate(zip(records, found)):
        if record in good:
            assert as_dict(result) == pytest.approx(as_dict(classify(record, LABELS)), abs=1e-5)
            assert result["sequence"] == record
        else:
            assert list(result) == ["sequence", "position", "error"]
            assert result["sequence"] is record and result["position"] == position
            kind = "ValueError" if isinstance(record, str) else "TypeError"
            assert re.match(rf"{kind}: text {position} (is|holds) ", result["error"])


def test_a_block_of_nothing_but_bad_records(classify, small_blocks):
    found = list(classify.stream([None] * 5 + ["央行"], LABELS))
    assert ["error" in result for result in found] == [True] * 5 + [False]


def test_labels_without_an_answer_are_the_matter_of_their_record(classify, small_blocks):
    texts, sets = ["央行", None, "国足", "去看海", "早安"], [["财经"], ["旅游"], ["体育", "体育"], ["美食", "天气"]]
    found = list(classify.stream(texts, sets))
    assert [result["position"] for result in found if "error" in result] == [1, 2, 4]
    assert "holds 体育 more than once" in found[2]["error"] and found[2]["sequence"] == "国足"
    assert found[4]["error"].startswith("TypeError: labels of text 4: there are none left")
    assert found[0]["labels"] == ["财经"] and set(found[3]["labels"]) == {"美食", "天气"}


def test_labels_that_are_left_over_are_told_after_the_results(classify):
    results = classify.stream(iter(["央行", "国足"]), [["财经", "体育"]] * 4)
    assert [next(results)["sequence"] for _ in range(2)] == ["央行", "国足"]
    with pytest.raises(ValueError, match="2 more lists of labels than texts"):
        next(results)
    endless = itertools.cycle([["财经", "体育"]])
    assert len(list(classify.stream(["央行"] * 2, endless))) == 2


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("央行", LABELS), TypeError, "give an iterable of texts"),
        ((7, LABELS), TypeError, "sequences 7"),
        ((None, LABELS), TypeError, "sequences None"),
        ((TEXTS, []), ValueError, "candidate_labels is empty"),
        ((TEXTS, ["财经", "财经"]), ValueError, "more than once"),
        ((TEXTS, None), TypeError, "not NoneType"),
        ((TEXTS, ["财经" * 300]), ValueError, "leaves no room"),
        ((TEXTS, LABELS, "没有"), ValueError, "needs {} exactly once"),
        ((TEXTS, SETS, "{}和{}"), ValueError, "needs {} exactly once"),
    ],
)
def test_a_stream_without_an_answer_is_an_error_at_once(classify, arguments, error, message):
    with pytest.raises(error, match=message):
        classify.stream(*arguments)


@pytest.mark.parametrize("start", [-1, 1.5, "3", True, None])
def test_starts_that_are_none(classify, start):
    with pytest.raises(ValueError, match=f"start {start!r}: give the number of records"):
        classify.stream(TEXTS, LABELS, start=start)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 8, 13, 20, 21])
def test_an_interrupted_stream_goes_on_with_the_same_bits(classify, small_blocks, monkeypatch, start):
    texts = many(21)
    texts[6] = None
    whole = list(classify.stream(texts, LABELS))
    batches = batches_seen(monkeypatch)
    assert list(classify.stream(iter(texts), LABELS, start=start)) == whole[start:]
    read = [text for text in texts[start // 4 * 4 :] if text]  # whole blocks, those before it not computed
    assert pairs_in(batches) == 4 * (len(read) if start < 21 else 0)


def test_an_interrupted_stream_keeps_the_labels_of_each_text(classify, small_blocks):
    texts, sets = many(40), SETS * 10
    whole = list(classify.stream(texts, sets))
    assert list(classify.stream(texts, iter(sets), start=9)) == whole[9:]


@pytest.mark.parametrize("start", [4, 5, 1000])
def test_a_start_past_the_end_yields_nothing(classify, small_blocks, start):
    assert list(classify.stream(TEXTS, LABELS, start=start)) == []


def test_nothing_in_nothing_out(classify):
    assert list(classify.stream([], LABELS)) == []


def toy_folder(folder):
    """A checkpoint of hidden size 32, with as many tokens as StructBERT knows."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + i) for i in range(20_992))]
    ids = {"entailment": 0, "neutral": 1, "contradiction": 2}
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_labels=3, label2id=ids, id2label={number: name for name, number in ids.items()},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def test_a_stream_of_ten_thousand_takes_the_memory_of_one_thousand(tmp_path):
    """What would be kept of each text shows: its characters, its tokens or its scores.

    5 seconds: of fewer texts, what is kept would hide in the steps of the heap. In one thread: two wait for each other.
    """
    folder = toy_folder(tmp_path)
    torch.set_num_threads(1)

    def work():  # inside, so that it travels by value and the child need not import this file
        rng, characters, highest = random.Random(0), [chr(0x4E00 + i) for i in range(300)], []
        classify = zsc.ZeroShotClassifier(folder)
        # lengths in turn, not drawn: of more blocks the longest by chance would be longer; spaces are no tokens
        texts = ("".join(rng.choices(characters, k=(3, 6, 10, 20, 40)[i % 5])) + " " * 500 for i in range(10_000))
        for number, result in enumerate(classify.stream(texts, ["丁", "丈", "三", "上"]), 1):
            assert len(result["scores"]) == 4
            if number == 200:
                Path("/proc/self/clear_refs").write_text("5")  # loading aside: the high-water mark starts anew
            if number in (1_000, 10_000):
                highest.append(memory.resident("self")["VmHWM"])
        return highest

    first, last = memory.process_peak(work).result
    assert last - first < 100 * 9_000  # bytes: the heap grows in steps of 131,072, now and then by some


# ----------------------------------------------------------------------------------------------------------- progress


def shown(text):
    """The counts of a bar, one after the other."""
    return [int(number) for number in re.findall(r"(?: |: )(\d+)(?:/4|text) \[", text)]


def test_a_bar_counts_texts_and_reaches_their_number(oracle, capsys):
    classify = zsc.ZeroShotClassifier(oracle, max_tokens=50)
    classify(TEXTS, LABELS, progress=True)
    bar = capsys.readouterr().err
    assert "classify" in bar and "4/4" in bar and "text" in bar
    assert max(shown(bar)) == 4 and shown(bar) == sorted(shown(bar))
    list(classify.stream((text for text in TEXTS), LABELS, progress=True))
    bar = capsys.readouterr().err
    assert "classify: 4text" in bar and max(shown(bar)) == 4  # of how many, nobody knows
    list(classify.stream([*TEXTS[:3], None], LABELS, progress=True, start=2))
    assert "4/4" in capsys.readouterr().err


def test_a_bar_moves_within_a_block(oracle, monkeypatch):
    """A block may take minutes on a slow machine."""
    updates = []
    monkeypatch.setattr(classifier.tqdm, "update", lambda self, n: updates.append(n) or setattr(self, "n", self.n + n))
    zsc.ZeroShotClassifier(oracle, max_tokens=50)(TEXTS, LABELS, progress=True)
    assert sum(updates) == 4 and sum(n > 0 for n in updates) >= 3


def test_no_bar_unless_asked_for(classify, capsys):
    classify(TEXTS, LABELS)
    list(classify.stream(TEXTS, LABELS))
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------ errors at the door


@pytest.mark.parametrize(
    "texts, error, message",
    [
        ("", ValueError, "text 0 is empty"),
        (["央行", "  \n"], ValueError, "text 1 is empty"),
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
