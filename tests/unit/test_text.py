"""The door: unseen noise changes nothing, what spells a special token is text, and the rest is refused by name."""

import os
import random
import signal
import threading
import time
import types

import numpy as np
import pytest
from results import as_dicts, same

import zsc_utils as zsc
from zsc_utils import _text
from zsc_utils.batching import Pairs, PairTokenizer
from zsc_utils.classifier import LabelSet, Reading

TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线", "New iPhone 发售 3.14 ①②", "房价👨‍👩‍👧下跌"]
LABELS = ["财经", "体育", "军事"]
UNSEEN = {
    "zero width space": "\u200b", "joiner between letters": "\u200d", "non-joiner": "\u200c", "BOM": "\ufeff",
    "left to right": "\u200e", "right to left override": "\u202e", "isolate": "\u2066", "NUL": "\x00", "bell": "\x07",
    "delete": "\x7f", "C1 control": "\x9f", "soft hyphen": "\xad", "word joiner": "\u2060", "variation": "\ufe0f",
    "ideographic variation": "\U000e0101", "tag": "\U000e0041", "Hangul filler": "\u3164", "grapheme joiner": "\u034f",
    "vertical tab": "\x0b", "several": "\u200b\ufeff\x00\u202e",
}  # fmt: skip


@pytest.fixture(params=["oracle", "mini"])
def checkpoint(request):
    """WordPiece and Unigram."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def tokenizer(checkpoint):
    return PairTokenizer.of(checkpoint.tokenizer)


# ------------------------------------------------------------------------------------------------ what nobody sees


@pytest.mark.parametrize("noise", UNSEEN.values(), ids=UNSEEN)
def test_noise_that_is_not_seen_changes_no_token_wherever_it_stands(tokenizer, noise):
    random.seed(0)
    for text in TEXTS[:3]:
        for place in {0, len(text), random.randrange(len(text))}:
            assert tokenizer.tokens(text[:place] + noise + text[place:]) == tokenizer.tokens(text)
        assert tokenizer.tokens(noise.join(["", *text, ""])) == tokenizer.tokens(text)


def test_noise_in_texts_labels_and_templates_changes_no_score(checkpoint):
    classify = zsc.ZeroShotClassifier(checkpoint)
    clean = classify(TEXTS, LABELS, "这是{}新闻")
    noisy = classify(["\ufeff\u200b" + "\u200b".join(text[:5]) + text[5:] for text in TEXTS[:3]],
                     [label + "\u200b" for label in LABELS], "这是{}新\u200b闻")  # fmt: skip
    for found, wanted in zip(noisy, clean):
        assert found["scores"] == pytest.approx(wanted["scores"], abs=1e-6)
    assert noisy[0]["sequence"].startswith("\ufeff")  # what was given comes back


def test_the_joiner_inside_an_emoji_stays():
    family, flag = "👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈"
    assert _text.visible(family) == family and _text.visible(flag) == "🏳\u200d🌈"
    assert _text.visible("👩🏽\u200d🚀") == "👩🏽\u200d🚀"
    assert _text.visible("好\u200d坏 👨\u200d好 \u200d👩 👨\u200d") == "好坏 👨好 👩 👨"


def test_unicode_s_own_lists_are_covered():
    """Each control and format character but for tab, line breaks and the joiner."""
    import unicodedata

    for number in range(0x110000):
        character = chr(number)
        if unicodedata.category(character) in ("Cc", "Cf") and character not in "\t\n\r":
            assert _text.visible(f"好{character}坏") == "好坏", hex(number)
        elif character not in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0":
            variation = 0xFE00 <= number <= 0xFE0F or 0xE0000 <= number <= 0xE0FFF or 0xFFF0 <= number <= 0xFFFB
            unassigned = number == 0x2065 or 0x13439 <= number <= 0x1343F  # some are not, in later versions of Unicode
            assert (_text.visible(character) == character) == (not variation and not unassigned), hex(number)


@pytest.mark.parametrize("text", ["\u200b", "\x00\x07", " \ufeff\n", "\u202e\u3000", "\ufe0f"])
def test_what_has_nothing_left_to_read_is_refused_by_its_place(checkpoint, text):
    classify = zsc.ZeroShotClassifier(checkpoint)
    with pytest.raises(ValueError, match="text 1 is empty"):
        classify(["央行", text], LABELS)
    found = list(classify.stream(["央行", text, "国足"], LABELS))
    assert "error" in found[1] and found[1]["position"] == 1 and found[2]["labels"]


# --------------------------------------------------------------------------------------------- special tokens as text


SPELLED = ["好[SEP]坏", "[CLS]", "好</s></s>坏", "<unk>好", "<s>好", "＜/s＞", "[PAD]", "<pad></s>", "[MASK]"]


@pytest.mark.parametrize("text", SPELLED)
def test_a_text_that_spells_special_tokens_forges_no_pair(checkpoint, tokenizer, text):
    """Special ids stand where the frame has them, and nowhere else; [UNK] where a character is unknown."""
    pairs = Pairs(tokenizer, [(text, "财经")])
    ids, types, _ = pairs.batch([0])
    frame = tokenizer.frame
    special = {number for number, word in tokenizer.special.items() if "unk" not in word.lower()}
    assert sum(number in special for number in ids.tolist()) == len(frame)
    start = len(frame.before) + len(pairs.ids[0][0])
    assert types[:start].tolist() == [frame.text_type] * start
    assert len(pairs.ids[0][0]) >= len(text) / 4  # nothing is left out


def test_mini_reads_what_is_spelled(mini):
    tokenizer = PairTokenizer.of(mini.tokenizer)
    for text in ("好</s></s>坏", "<unk>好", "<s>"):
        assert tokenizer.decode(tokenizer.tokens(text)) == text
        assert not set(tokenizer.tokens(text)) & tokenizer.special.keys()


def test_unknown_characters_stay_unknown(tokenizer):
    unknown = next(number for number, word in tokenizer.special.items() if "unk" in word.lower())
    assert unknown in tokenizer.tokens("\U0001f9ff\U00020bb7") and unknown in tokenizer.tokens("\ue000一")[-2:] + (
        unknown,
    )


def test_a_tokenizer_that_was_set_to_cut_and_pad_reads_whole_texts(oracle):
    text = "央行" * 40
    wanted = PairTokenizer.of(oracle.tokenizer).tokens(text)
    oracle.tokenizer([text, "a"], truncation=True, max_length=8, padding="max_length")
    assert PairTokenizer.of(oracle.tokenizer).tokens(text) == wanted and len(wanted) == 80


def test_a_tokenizer_that_was_used_otherwise_before_reads_spelled_tokens_as_words(oracle):
    """transformers sets what a special token in a string is, with each call."""
    wanted = oracle.tokenizer("好[SEP]坏", add_special_tokens=False, split_special_tokens=True).input_ids
    assert oracle.tokenizer("好[SEP]坏", add_special_tokens=False).input_ids != wanted
    tokenizer = PairTokenizer.of(oracle.tokenizer)
    assert list(tokenizer.tokens("好[SEP]坏")) == wanted
    oracle.tokenizer("x")
    assert list(tokenizer.tokens("好[SEP]坏")) == wanted and tokenizer.lengths(["好[SEP]坏"]) == [len(wanted)]


@pytest.mark.parametrize("piece", ["x", "字", "👨", " ", "\ue000", "\u200b", "Ａ", "國", "</s>", "[SEP]"])
def test_a_megabyte_of_one_thing_is_read_in_linear_time(checkpoint, tokenizer, piece):
    def seconds(count):
        start = time.perf_counter()
        tokenizer.tokens(piece * count + "好", 512)
        return time.perf_counter() - start

    seconds(100)
    short = min(seconds(25_000) for _ in range(3))
    assert min(seconds(250_000) for _ in range(2)) < 40 * max(short, 0.002)


@pytest.mark.parametrize("text", ["Ａ１２３ｶﾞ", "繁體中文與簡體", "😀👍🏽", "\ue000\uf8ff", "\U0010fffd"])
def test_rare_characters_get_an_answer(checkpoint, text):
    result = zsc.ZeroShotClassifier(checkpoint)(text, LABELS)
    assert sum(result["scores"]) == pytest.approx(1) and result["sequence"] == text


# --------------------------------------------------------------------------------------------------------------- calls


def test_everything_that_holds_texts_gives_the_same_results(oracle):
    pandas = pytest.importorskip("pandas")
    classify = zsc.ZeroShotClassifier(oracle)
    wanted = classify(TEXTS, LABELS)
    for texts in (tuple(TEXTS), np.array(TEXTS), pandas.Series(TEXTS, index=[7, 5, 3, 1])):
        assert classify(texts, LABELS) == wanted
    for labels in (tuple(LABELS), np.array(LABELS), pandas.Series(LABELS)):
        found = classify(TEXTS, labels)
        assert found == wanted and type(found[0]["labels"][0]) is str
    assert classify(np.array(TEXTS)[0], LABELS)["labels"] == wanted[0]["labels"]


def test_the_pipeline_s_own_arguments_are_taken(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    wanted = classify(TEXTS, LABELS)
    assert classify(TEXTS, LABELS, batch_size=8, truncation="only_first", num_workers=2) == wanted
    assert classify(sequences=TEXTS, candidate_labels=",".join(LABELS), truncation=True) == wanted
    with pytest.raises(ValueError, match="batch_size 0"):
        classify(TEXTS, LABELS, batch_size=0)


def test_nothing_in_nothing_out(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    assert classify([], LABELS) == [] == classify((), LABELS) == list(classify(iter([]), LABELS))
    with pytest.raises(ValueError, match="candidate_labels is empty"):
        classify([], [])


def test_a_generator_is_read_as_results_are_asked_for(oracle):
    read = []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield f"央行{number}"
            number += 1

    results = zsc.ZeroShotClassifier(oracle)(endless(), LABELS)
    assert isinstance(results, types.GeneratorType) and not read
    assert [next(results)["sequence"] for _ in range(3)] == ["央行0", "央行1", "央行2"]
    assert len(read) <= 64


def test_a_generator_raises_at_a_bad_text_after_the_results_before(oracle):
    results = zsc.ZeroShotClassifier(oracle)(iter(["央行", "国足", None]), LABELS)
    assert [next(results)["sequence"] for _ in range(2)] == ["央行", "国足"]
    with pytest.raises(TypeError, match="text 2 is None"):
        next(results)


@pytest.mark.parametrize(
    "texts, message",
    [
        (["央行", None], "text 1 is None, a NoneType: there is no text"),
        (["央行", float("nan")], "text 1 is nan, a float: there is no text"),
        (["央行", "国足".encode()], "text 1 is b'.*', a bytes: decode it first"),
        ("央行".encode(), "text 0 is b'.*', a bytes: decode it first"),
        ({"央行"}, "not set"),
        (7, "not int"),
    ],
)
def test_what_is_no_text_is_told_by_its_place(oracle, texts, message):
    with pytest.raises(TypeError, match=message):
        zsc.ZeroShotClassifier(oracle)(texts, LABELS)


@pytest.mark.parametrize("template", ["{{}}", "这是{}{", "}{}", "{}{}", "{", "这是{label}", None, 7, "无"])
def test_braces_that_are_no_place_for_a_label(oracle, template):
    with pytest.raises(ValueError, match="exactly once"):
        zsc.ZeroShotClassifier(oracle)("央行", LABELS, template)


@pytest.mark.parametrize("twin", [" 财经", "财经\n", "财 经", "\u200b财经", "财经\u3000"])
def test_labels_that_look_the_same_are_given_twice(oracle, twin):
    with pytest.raises(ValueError, match="'财经' and .* which are the same, more than once"):
        zsc.ZeroShotClassifier(oracle)("央行", ["财经", "体育", twin])


def test_ten_thousand_labels_are_checked_at_once():
    labels, best = [f"标签{number}" for number in range(10_000)], 9.0
    for _ in range(5):
        start = time.perf_counter()
        assert _text.check_labels(labels) == labels
        best = min(best, time.perf_counter() - start)
    ten = min(timed(lambda: _text.check_labels(labels[:1000])) for _ in range(5))
    assert best < 40 * ten  # ten times the labels; a check of each against each would take a hundred times as long


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_what_the_pipeline_of_transformers_promises(mini):
    """The kinds of its tests/pipelines/test_pipelines_zero_shot.py."""
    classify = zsc.ZeroShotClassifier(mini)
    question = "Who are you voting for in 2020?"
    one = classify(question, candidate_labels="politics")
    for asked in (["politics"], ("politics",)):
        assert same([classify(question, asked)], [one]) and same([classify(question, candidate_labels=asked)], [one])
    assert set(one) == {"sequence", "labels", "scores"} and one["labels"] == ["politics"] and len(one["scores"]) == 1
    both = classify(question, candidate_labels="politics, public health")
    assert sorted(both["labels"]) == ["politics", "public health"] and sum(both["scores"]) == pytest.approx(1)
    assert same([both], [classify(question, candidate_labels=["politics", "public health"])])
    assert classify(question, "politics", hypothesis_template="This text is about {}")["labels"] == ["politics"]
    assert [len(classify(["I am happy"] * n, ["positive", "negative"])) for n in (1, 2)] == [1, 2]
    found = classify(["I am happy", "I am sad"], "positive, negative", hypothesis_template="This text is about {}")
    assert same(
        found,
        [classify(text, ["positive", "negative"], "This text is about {}") for text in ("I am happy", "I am sad")],
    )
    for error, asked in [
        (ValueError, ("", "politics")), (TypeError, (None, "politics")), (ValueError, (question, "")),
        (TypeError, (question, None)), (ValueError, (question, "politics", "Not formatting template")),
        (AttributeError, (question, "politics", None)),
    ]:  # fmt: skip
        with pytest.raises(error):
            classify(*asked)
    assert sum(classify(question * 100, ["politics", "public health", "science"])["scores"]) == pytest.approx(1)
    many = classify(question, ["politics", "public health", "science"], multi_label=True)
    assert many["scores"] == sorted(many["scores"], reverse=True)


def test_the_order_of_labels_changes_no_score(mini):
    classify = zsc.ZeroShotClassifier(mini)
    for multi_label in (False, True):
        assert same(
            classify(TEXTS, LABELS, multi_label=multi_label), classify(TEXTS, LABELS[::-1], multi_label=multi_label)
        )


# -------------------------------------------------------------------------------------------------- labels are things


def test_labels_with_descriptions_are_judged_by_these_and_named_by_themselves(mini):
    classify = zsc.ZeroShotClassifier(mini)
    described = {"财经": "银行、股市和利率", "体育": "球队、比赛和运动员"}
    by_words = classify(TEXTS, list(described.values()), "这段文字关于{}")
    for found, wanted in zip(classify(TEXTS, described, "这段文字关于{}"), by_words, strict=True):
        assert found["scores"] == wanted["scores"] and found["ids"] == found["labels"]
        assert [described[label] for label in found["labels"]] == wanted["labels"]
        assert found["scores_by_label"] == dict(zip(found["labels"], found["scores"]))


def test_labels_with_ids_keep_their_names(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    ids = {7: "财经", 3: "体育", 9: "军事"}
    plain = classify(TEXTS, list(ids.values()))
    for found, wanted in zip(classify(TEXTS, ids), plain, strict=True):
        assert {key: found[key] for key in wanted} == wanted
        assert [ids[key] for key in found["ids"]] == found["labels"]
        assert found["scores_by_label"] == dict(zip(found["ids"], found["scores"]))
    assert list(classify.stream(TEXTS, ids)) == classify(TEXTS, ids) == list(classify(iter(TEXTS), ids))
    assert "ids" not in plain[0]


@pytest.mark.parametrize("labels, message", [
    ({}, "is empty"), ({1: "财经", 2: " 财经"}, "which are the same"), ({"财经": ""}, "label 0 is empty"),
    ({"": "财经"}, "label 0 is empty"), ({1: 2}, "label 0 is 2"),
])  # fmt: skip
def test_mappings_that_name_no_labels(oracle, labels, message):
    with pytest.raises((ValueError, TypeError), match=message):
        zsc.ZeroShotClassifier(oracle)(TEXTS, labels)


def test_what_is_none_of_the_labels_is_rejected(mini):
    classify = zsc.ZeroShotClassifier(mini)
    texts = ["央行下调利率，房贷月供将减少", "国足客场一比零取胜", "今天"]
    logits = classify.logits([(text, label) for text in texts for label in LABELS]).reshape(3, 3, 3).astype(float)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    best = shares[..., mini.entailment_id].max(1)
    for reject in (0, *(best + 1e-9), 1):
        found = classify(texts, LABELS, reject=float(min(1, reject)))
        assert [result["rejected"] for result in found] == [bool(share < min(1, reject)) for share in best]
    assert "rejected" not in classify(texts[0], LABELS)
    assert [r["rejected"] for r in classify.stream(texts, LABELS, multi_label=True, reject=1)] == [True] * 3


def test_a_text_at_the_threshold_is_not_rejected(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    row = _text.Row(0, "央行", labels=LabelSet(("财经", "体育"), (), 1))
    logits = np.zeros((2, 3))  # each class has a third
    third = float(np.exp(-np.logaddexp.reduce(np.zeros(3))))
    for reject, rejected in ((third, False), (np.nextafter(third, 1), True)):
        reading = Reading(False, "cut", None, float(reject))
        assert classify.result(logits, row, reading)["rejected"] == rejected


@pytest.mark.parametrize("reject", [-0.1, 1.1, "0.5", True, float("nan")])
def test_thresholds_that_are_none(oracle, reject):
    with pytest.raises(ValueError, match="reject .*: give the least entailment"):
        zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS, reject=reject)


# ----------------------------------------------------------------------------------------------------------- processes


def test_a_fork_says_at_once_that_it_cannot(oracle):
    """torch's threads are not in it: it would hang."""
    classify = zsc.ZeroShotClassifier(oracle)
    classify(TEXTS, LABELS)
    pid = os.fork()
    if pid == 0:
        try:
            classify(TEXTS, LABELS)
        except RuntimeError as error:
            os._exit(42 if "load the classifier after the fork" in str(error) else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 42


@pytest.mark.parametrize("streamed", [False, True])
def test_eight_threads_get_the_scores_of_one(oracle, streamed):
    classify = zsc.ZeroShotClassifier(oracle if not streamed else zsc.offloading.stream_layers(oracle.folder))
    wanted, found = classify(TEXTS, LABELS), {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, classify(TEXTS[n % 4 :], LABELS))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    for number, results in found.items():
        for result, own in zip(as_dicts(results), as_dicts(wanted[number % 4 :]), strict=True):
            assert result == pytest.approx(own, abs=1e-6)
