"""Attention and shape: what sees what, how many bytes it takes, and what is left of a model with fewer layers."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ORACLE
from results import as_dicts
from toys import toy_bert
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import attention, inference, memory, quantization, samples
from zsc_utils import plan as planning

LABELS = ["财经", "体育", "军事", "旅游"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线", "A股" * 40, "去看海"]


def toy(oracle, heads=2, hidden=32, layers=2, positions=512, vocabulary=305):
    """The small checkpoint with random weights in another shape."""
    model = toy_bert(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, max_position_embeddings=positions, initializer_range=0.2,
    )  # fmt: skip
    return replace(oracle, model=model)


def batch_of(batch, length, hypothesis, shorter=0):
    """Inputs of a plain call: the last tokens are the hypothesis; all pairs but the first are `shorter`, and padded."""
    generator = torch.Generator().manual_seed(length)
    ids, types = (
        torch.randint(5, 50, (batch, length), generator=generator),
        torch.zeros(batch, length, dtype=torch.long),
    )
    mask = torch.ones_like(ids)
    for pair in range(batch):
        end = length - (shorter if pair else 0)
        types[pair, end - hypothesis : end] = 1
        mask[pair, end:] = 0
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


@torch.inference_mode()
def logits_of(checkpoint, inputs):
    return checkpoint.model(**inputs).logits


# ---------------------------------------------------------------------------------------------- which token sees which


def mask_by_hand(inputs, window):
    """(batch, 1, length, length): who may see whom, from the words of the docstring and nothing else."""
    types, real = inputs["token_type_ids"].bool(), inputs["attention_mask"].bool()
    place = torch.arange(types.shape[1])
    near = (place[:, None] - place[None, :]).abs() <= window
    sees_all = types | (place == 0)
    allowed = near[None] | sees_all[:, :, None] | (place == 0)[None, None, :]
    return (allowed & real[:, None, :])[:, None]


SHAPES = [(1, 40, 5, 0), (3, 37, 12, 9), (2, 200, 6, 0), (2, 300, 3, 100), (1, 20, 19, 0), (2, 130, 4, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [1, 7, 16, 64, 100])
def test_sliding_is_full_attention_under_the_same_mask(oracle, shape, window):
    checkpoint, inputs = toy(oracle), batch_of(*shape)
    found = logits_of(attention.use(checkpoint, "sliding", window=window), inputs)
    masked = inputs | {"attention_mask": torch.where(mask_by_hand(inputs, window), 0.0, -torch.inf)}
    expected = logits_of(attention.use(checkpoint, "eager"), masked)
    assert (found - expected).abs().max() < 1e-5
    if window < 8 and shape[1] - shape[2] > 20:
        assert (found - logits_of(checkpoint, inputs)).abs().max() > 1e-4  # it does leave something out


@pytest.mark.parametrize("shape", SHAPES)
def test_a_window_that_covers_the_text_gives_the_scores_of_full_attention(oracle, shape):
    checkpoint, inputs = toy(oracle), batch_of(*shape)
    found = logits_of(attention.use(checkpoint, "sliding", window=shape[1]), inputs)
    assert (found - logits_of(checkpoint, inputs)).abs().max() < 1e-5


@pytest.mark.parametrize("window", [4, 100])
def test_the_classifier_slides_as_the_model_does(oracle, window):
    sliding = attention.use(oracle, "sliding", window=window)
    pairs = [t for t in TEXTS for _ in LABELS], LABELS * len(TEXTS)
    inputs = oracle.tokenizer(*pairs, padding=True, return_tensors="pt")
    entailment = logits_of(sliding, inputs)[:, 0].view(len(TEXTS), -1).softmax(1)
    found = as_dicts(zsc.ZeroShotClassifier(sliding)(TEXTS, LABELS))
    assert [[scores[label] for label in LABELS] for scores in found] == [
        pytest.approx(row, abs=1e-5) for row in entailment.tolist()
    ]


def test_levers_compose_and_what_was_given_stays(oracle):
    before = logits_of(oracle, batch_of(2, 100, 5, 20))
    sliding = attention.use(oracle, "sliding", window=8)
    far = {}  # {layers: how far logits are from those of a text that is seen whole}
    for layers in (1, 2):
        lean = attention.chunk_feed_forward(quantization.quantize(attention.shrink(sliding, layers), "int8"), 16)
        assert type(lean.model.bert) is attention.SlidingBert and lean.model.config.sliding_window == 8
        narrow = logits_of(lean, batch_of(2, 100, 5, 20))
        far[layers] = (narrow - logits_of(attention.use(lean, "sdpa"), batch_of(2, 100, 5, 20))).abs().max()
    assert far[1] < 0.1 * far[2]  # of one layer only the first token counts, and that sees all
    assert torch.equal(logits_of(oracle, batch_of(2, 100, 5, 20)), before)
    assert oracle.model.config._attn_implementation == "sdpa" and len(oracle.model.bert.encoder.layer) > 1
    own = oracle.model.bert.embeddings.word_embeddings.weight
    assert sliding.model.bert.embeddings.word_embeddings.weight is own


def test_sdpa_and_eager_take_turns(oracle):
    inputs = batch_of(3, 50, 6, 10)
    eager = attention.use(oracle, "eager")
    assert eager.model.config._attn_implementation == "eager"
    assert (logits_of(eager, inputs) - logits_of(oracle, inputs)).abs().max() < 1e-5
    back = attention.use(attention.use(oracle, "sliding", window=2), "sdpa")
    assert torch.equal(logits_of(back, inputs), logits_of(oracle, inputs))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("flash",), "attention 'flash': choose one of eager, sdpa, sliding"),
        (("sliding", 0), "window 0: give"),
        (("sliding", 2.5), "window 2.5: give"),
        (("sliding", True), "window True: give"),
    ],
)
def test_wrong_attention_is_refused(oracle, arguments, words):
    name, *window = arguments
    with pytest.raises(ValueError, match=words):
        attention.use(oracle, name, **({"window": window[0]} if window else {}))


def test_sliding_bert_gives_hidden_states_as_any_other(oracle):
    sliding, inputs = attention.use(oracle, "sliding", window=100), batch_of(2, 30, 5)
    with torch.inference_mode():
        found = sliding.model(**inputs, output_hidden_states=True).hidden_states
        expected = oracle.model(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == 3
    assert all((one - other).abs().max() < 1e-5 for one, other in zip(found, expected))


def test_a_pair_that_is_all_hypothesis_sees_all(oracle):
    inputs = batch_of(2, 30, 30)
    found = logits_of(attention.use(oracle, "sliding", window=1), inputs)
    assert (found - logits_of(oracle, inputs)).abs().max() < 1e-5


def test_sliding_refuses_what_it_could_not_see(oracle):
    sliding, inputs = attention.use(oracle, "sliding", window=4), batch_of(2, 30, 5)
    inputs["attention_mask"][1, 0] = 0
    with pytest.raises(ValueError, match="padding_side='right'"):
        logits_of(sliding, inputs)
    tokenizer = lambda *pair: type("Typeless", (), {"token_type_ids": [0, 0, 0]})  # noqa: E731
    with pytest.raises(ValueError, match="give token_type_ids"):
        sliding.model(input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="does not mark hypotheses"):
        attention.use(replace(oracle, tokenizer=tokenizer), "sliding")


def test_a_budget_keeps_sliding_attention(oracle):
    sliding = attention.use(oracle, "sliding", window=4)
    classify = zsc.ZeroShotClassifier(sliding, memory_budget="100MB")
    assert classify.plan.setting.attention == "sliding" and classify.checkpoint.model.config.sliding_window == 4
    assert as_dicts(classify(TEXTS, LABELS)) == [
        pytest.approx(scores, abs=1e-5) for scores in as_dicts(zsc.ZeroShotClassifier(sliding)(TEXTS, LABELS))
    ]


# ------------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("heads, hidden, layers", [(4, 64, 2), (12, 384, 3), (2, 64, 1)])
@pytest.mark.parametrize("window", [8, 64, 600])
@pytest.mark.parametrize("shape", [(1, 40, 5, 0), (2, 100, 5, 0), (1, 512, 8, 0), (3, 300, 12, 20), (2, 37, 36, 0)])
def test_sliding_takes_the_bytes_that_are_predicted(oracle, heads, hidden, layers, window, shape):
    checkpoint = attention.use(toy(oracle, heads, hidden, layers), "sliding", window=window)
    batch, length, hypothesis, shorter = shape
    inputs = batch_of(*shape)
    for lean in (
        checkpoint,
        attention.chunk_feed_forward(checkpoint, 16),
        attention.chunk_feed_forward(checkpoint, 90),
    ):
        predicted = memory.predict(
            lean.model.config, batch, length, attention="sliding", padded=shorter > 0, hypothesis=hypothesis
        )
        with torch.inference_mode():
            assert memory.tensor_peak(lambda lean=lean: lean.model(**inputs)) == predicted.peak_activations


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", [(1, 40, 5, 0), (4, 100, 5, 0), (1, 509, 8, 0), (3, 300, 12, 20)])
@pytest.mark.parametrize("tokens", [1, 16, 100, 2000])
def test_chunks_take_the_bytes_that_are_predicted_and_change_no_score(oracle, name, shape, tokens):
    checkpoint = attention.use(toy(oracle, 4, 64), name)
    lean, inputs = attention.chunk_feed_forward(checkpoint, tokens), batch_of(*shape)
    predicted = memory.predict(lean.model.config, *shape[:2], attention=name, padded=shape[3] > 0)
    with torch.inference_mode():
        assert memory.tensor_peak(lambda: lean.model(**inputs)) == predicted.peak_activations
    assert (logits_of(lean, inputs) - logits_of(checkpoint, inputs)).abs().max() < 1e-5
    plain = memory.predict(checkpoint.model.config, *shape[:2], attention=name, padded=shape[3] > 0)
    assert tokens > 100 or predicted.peak_activations < plain.peak_activations


def test_sliding_in_the_classifier_takes_the_bytes_that_are_predicted(oracle):
    checkpoint = attention.use(toy(oracle, 4, 64, positions=2048), "sliding", window=64)
    for groups in ([(1, 1000)], [(2, 700), (1, 500)]):
        ids = torch.full((sum(pairs * length for pairs, length in groups),), 7)
        types = torch.cat([torch.arange(length) >= length - 8 for pairs, length in groups for _ in range(pairs)]).long()
        predicted = inference.predict(checkpoint.model.config, groups, attention="sliding", hypothesis=8)
        measured = memory.tensor_peak(lambda: inference.logits(checkpoint.model, ids, types, groups))  # noqa: B023
        assert measured == predicted.peak_activations


@pytest.mark.parametrize("window", [4, 128])
def test_no_batch_of_sliding_pairs_takes_more_than_its_bill(oracle, window):
    checkpoint = attention.use(toy(oracle, 4, 64), "sliding", window=window)
    bill = planning.Setting("fp32", "sliding", 1024, 64).activations(checkpoint.model.config)
    worst = 0
    for groups in ([(2, 512)], [(1, 512), (2, 256)], [(4, 256)], [(40, 25)], [(1, 512)]):
        for hypothesis in (1, 8, 100, 511):
            options = {"attention": "sliding", "chunk": 64, "hypothesis": hypothesis}
            worst = max(worst, inference.predict(checkpoint.model.config, groups, **options).peak_activations)
    assert worst == bill


BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 305}


def test_sdpa_and_chunks_take_a_quarter_of_eagers_peak_on_the_base_shape(oracle):
    """Batch 32 x length 512, in two layers, which take turns with the same memory; twelve take the same and longer."""
    shaped = replace(oracle, model=BertForSequenceClassification(BertConfig(num_hidden_layers=2, **BASE)).eval())
    eager = attention.use(shaped, "eager")
    lean = attention.chunk_feed_forward(attention.use(eager, "sdpa"), 64)
    inputs, peaks, logits = batch_of(32, 512, 8), [], []
    for checkpoint in (eager, lean):
        with torch.inference_mode():
            peaks.append(memory.tensor_peak(lambda c=checkpoint: logits.append(c.model(**inputs).logits)))
    assert (logits[0] - logits[1]).abs().max() < 1e-5
    assert peaks[1] <= 0.25 * peaks[0]
    for checkpoint, peak in zip((eager, lean), peaks):
        name = checkpoint.model.config._attn_implementation
        for layers in (2, 12):
            checkpoint.model.config.num_hidden_layers = layers
            assert memory.predict(checkpoint.model.config, 32, 512, attention=name).peak_activations == peak


def test_the_memory_of_sliding_attention_grows_with_the_length(oracle):
    """Measured: at 512, in the base shape, at most 40 % of eager's, and from there to 4,096 a straight line."""
    base = BertConfig(num_hidden_layers=2, max_position_embeddings=4096, **BASE)
    shaped, inputs = replace(oracle, model=BertForSequenceClassification(base).eval()), batch_of(1, 512, 8)
    phases = {}
    for name in ("eager", "sliding"):
        slid = attention.chunk_feed_forward(attention.use(shaped, name, window=64), 64)
        footprint = memory.predict(slid.model.config, 1, 512, attention=name)
        with torch.inference_mode():
            assert memory.tensor_peak(lambda: slid.model(**inputs)) == footprint.phases["attention"]  # noqa: B023
        phases[name] = footprint.phases["attention"]
    assert phases["sliding"] <= 0.4 * phases["eager"]
    checkpoint, peaks = attention.use(toy(oracle, positions=4096), "sliding", window=64), []
    checkpoint = attention.chunk_feed_forward(checkpoint, 64)  # else the feed-forward network is the peak
    for length in (512, 1024, 2048, 4096):
        inputs = batch_of(1, length, 8)
        with torch.inference_mode():
            peaks.append(memory.tensor_peak(lambda: checkpoint.model(**inputs)))  # noqa: B023
        footprint = memory.predict(checkpoint.model.config, 1, length, attention="sliding")
        assert footprint.peak_activations == peaks[-1] and footprint.peak.phase == "attention"
    one, two, four = (later - earlier for earlier, later in zip(peaks, peaks[1:]))
    assert two == pytest.approx(2 * one, rel=0.01) and four == pytest.approx(4 * one, rel=0.01)


# ------------------------------------------------------------------------------------------------------------ chunks


def test_chunks_write_over_nothing_that_somebody_looks_at(oracle):
    lean, inputs = attention.chunk_feed_forward(oracle, 16), batch_of(2, 40, 5)
    with torch.inference_mode():
        states = lean.model(**inputs, output_hidden_states=True).hidden_states
        expected = oracle.model(**inputs, output_hidden_states=True).hidden_states
    for one, other in zip(states, expected):
        assert (one - other).abs().max() < 1e-5
    own = attention.chunk_feed_forward(oracle, 16)
    own.model(**inputs).logits.sum().backward()
    plain = {name: p.grad.clone() for name, p in own.model.named_parameters() if p.grad is not None}
    oracle.model.zero_grad()
    oracle.model(**inputs).logits.sum().backward()
    for name, parameter in oracle.model.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad - plain[name]).abs().max() < 1e-4
    oracle.model.zero_grad()


@pytest.mark.parametrize("tokens", [0, -1, 2.5, "8", True])
def test_wrong_chunks_are_refused(oracle, tokens):
    with pytest.raises(ValueError, match="tokens .*: give how many"):
        attention.chunk_feed_forward(oracle, tokens)


def test_the_classifier_takes_chunks_of_that_size(oracle):
    classify = zsc.ZeroShotClassifier(attention.chunk_feed_forward(oracle, 100))
    assert classify.engine.chunk == classify.plan.setting.chunk == 128
    expected = as_dicts(zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS))
    assert as_dicts(classify(TEXTS, LABELS)) == [pytest.approx(scores, abs=1e-5) for scores in expected]


# -------------------------------------------------------------------------------------------------------- long texts


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 3000), st.integers(1, 600), st.floats(0, 0.99))
def test_windows_hold_every_token_and_overlap(count, room, share):
    ids, overlap = tuple(range(count)), int(share * room)
    found = attention.windows(ids, room, overlap)
    assert set().union(*found) == set(ids)
    assert all(len(window) == min(room, count) for window in found)
    assert all(window == ids[window[0] : window[-1] + 1] for window in found if window)
    for one, other in zip(found, found[1:]):
        assert one[0] < other[0] and one[-1] - other[0] + 1 >= overlap
    assert len(found) == 1 or count > room


@pytest.mark.parametrize("overlap", [-1, 10, 11])
def test_windows_must_get_on(overlap):
    with pytest.raises(ValueError, match="overlap"):
        attention.windows(range(50), 10, overlap)


LONG = "央行宣布下调利率，国足客场一比零战胜对手。" * 250  # 5,250 characters


def test_a_long_text_is_read_whole(oracle):
    """Each label gets the highest, or the mean, of what the windows say: computed here window by window."""
    classify = zsc.ZeroShotClassifier(oracle)
    text = "".join(chr(0x4E00 + i % 200) for i in range(1300))
    ids = oracle.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    pieces = attention.windows(ids, 512 - 3 - 2)
    assert len(pieces) == 4
    logits = torch.tensor(np.stack([classify.logits([(piece, label) for label in LABELS]) for piece in pieces]))
    for how, combine in (("max", torch.amax), ("mean", torch.mean)):
        single = combine(logits[..., 0], dim=0).softmax(0).tolist()
        (found,) = as_dicts([classify(text, LABELS, long_texts=how)])
        assert [found[label] for label in LABELS] == pytest.approx(single, abs=1e-5)
        several = torch.sigmoid(combine(logits[..., 0] - logits[..., 2], dim=0)).tolist()
        (found,) = as_dicts([classify(text, LABELS, multi_label=True, long_texts=how)])
        assert [found[label] for label in LABELS] == pytest.approx(several, abs=1e-5)


def test_five_thousand_characters_take_the_memory_of_one_window(oracle):
    classify = zsc.ZeroShotClassifier(oracle, max_tokens=512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = memory.tensor_peak(lambda: classify(LONG, LABELS))
    several = memory.tensor_peak(lambda: classify(LONG, LABELS, long_texts="max"))
    assert len(LONG) > 5000 and several <= 1.01 * one


def test_nothing_is_cut_without_a_word(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    with pytest.warns(
        UserWarning, match="the pair of text '央行.*is cut, and others as long: long_texts='max' or 'mean'"
    ):
        classify(["去看海", LONG], LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify(LONG, LABELS, long_texts="mean")
        classify(LONG[:500], LABELS)
        list(classify.stream([LONG], LABELS, long_texts="max"))


@pytest.mark.parametrize("how", ["max", "mean"])
def test_short_texts_have_one_window(oracle, how):
    classify = zsc.ZeroShotClassifier(oracle)
    assert classify(TEXTS, LABELS, long_texts=how) == classify(TEXTS, LABELS)
    streamed = list(classify.stream([*TEXTS, None, LONG], LABELS, long_texts=how))
    assert streamed[4]["position"] == 4
    assert as_dicts(streamed[5:]) == [
        pytest.approx(s, abs=1e-5) for s in as_dicts([classify(LONG, LABELS, long_texts=how)])
    ]


def test_windows_may_be_shorter_than_what_the_model_reads(oracle):
    classify = zsc.ZeroShotClassifier(oracle)
    ids = oracle.tokenizer(TEXTS[2], add_special_tokens=False).input_ids
    pieces = attention.windows(ids, 40 - 3 - 2)
    assert len(pieces) > 1
    logits = torch.tensor(np.stack([classify.logits([(piece, label) for label in LABELS]) for piece in pieces]))
    (found,) = as_dicts([classify(TEXTS[2], LABELS, long_texts="max", window=40)])
    assert [found[label] for label in LABELS] == pytest.approx(logits[..., 0].amax(0).softmax(0).tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="window 5: special tokens and the longest label take 5 of it"):
        classify(TEXTS, LABELS, long_texts="max", window=5)
    with pytest.raises(ValueError, match="window 5: special tokens"):
        classify.stream(TEXTS, LABELS, long_texts="max", window=5)  # at the door, not at the first result
    own = list(classify.stream(TEXTS[:2], [["财经" * 20], LABELS], long_texts="max", window=30))
    assert "window 30: special tokens" in own[0]["error"] and set(own[1]["labels"]) == set(LABELS)
    for window in (0, 2.5, True):
        with pytest.raises(ValueError, match="window .*: give tokens"):
            classify(TEXTS, LABELS, long_texts="max", window=window)
    with pytest.raises(ValueError, match="with them"):
        classify(TEXTS, LABELS, window=40)


def test_wrong_ways_with_long_texts_are_refused(oracle):
    with pytest.raises(ValueError, match="long_texts 'min': choose one of cut, max, mean"):
        zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS, long_texts="min")
    with pytest.raises(ValueError, match="long_texts None"):
        zsc.ZeroShotClassifier(oracle).stream(TEXTS, LABELS, long_texts=None)


def test_the_answer_to_a_long_text_lies_in_one_passage():
    records = samples.long_texts(20, 600)
    assert records == samples.long_texts(20, 600) and {r["topic"] for r in records} == set(samples.PASSAGES)
    headlines = {r["text"]: r["topic"] for name in samples.TEST_SETS[:2] for r in samples.test_set(name)}
    for record in records:
        assert 500 < len(record["text"]) <= 602
        found = [topic for text, topic in headlines.items() if f"{text}。" in record["text"]]
        assert found.count(record["topic"]) >= 2 and not set(found) & set(samples.PASSAGES) - {record["topic"]}


# ------------------------------------------------------------------------------------------------------ fewer layers


@pytest.mark.parametrize(
    "layers, kept", [(12, range(12)), (6, [0, 2, 4, 7, 9, 11]), (2, [0, 11]), (1, [0]), (3, [0, 6, 11])]
)
def test_layers_are_kept_at_even_distances(layers, kept):
    assert attention.evenly_spaced(layers, 12) == list(kept)


def test_what_is_kept_is_the_trained_layers(oracle):
    deep = toy(oracle, layers=4)
    small = attention.shrink(deep, [0, 3])
    for new, old in zip(small.model.bert.encoder.layer, (0, 3)):
        assert new.output.dense.weight is deep.model.bert.encoder.layer[old].output.dense.weight
    assert small.model.config.num_hidden_layers == 2 and deep.model.config.num_hidden_layers == 4
    by_hand = toy(oracle, layers=4)
    del by_hand.model.bert.encoder.layer[1:3]
    inputs = batch_of(2, 30, 4)
    assert torch.equal(logits_of(small, inputs), logits_of(by_hand, inputs))
    assert small.name.endswith("2 of 4 layers") and small.model.config.kept_layers == [0, 3]
    predicted = memory.predict(small.model.config, 2, 30).peak_activations
    with torch.inference_mode():
        assert memory.tensor_peak(lambda: small.model(**inputs)) == predicted


@pytest.mark.parametrize("layers", [0, 3, -1, [], [1, 0], [0, 0], [0, 2], True, [0.5]])
def test_wrong_layers_are_refused(oracle, layers):
    with pytest.raises(ValueError, match="layers .*: give how many of 2, or numbers from 0 to 1 in rising order"):
        attention.shrink(oracle, layers)


def test_a_hidden_size_that_its_heads_do_not_divide_is_refused(oracle_copy):
    config = oracle_copy / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 48', '"hidden_size": 50'))
    with pytest.raises(zsc.CheckpointError, match="hidden_size 50 is no multiple of 4 attention heads"):
        zsc.load(oracle_copy)


def test_a_shrunk_checkpoint_is_kept_and_opened_again(oracle, tmp_path):
    small = attention.shrink(oracle, 1)
    again = zsc.load(quantization.save(small, tmp_path / "small"))
    assert again.model.config.num_hidden_layers == 1
    assert torch.equal(logits_of(again, batch_of(2, 30, 4)), logits_of(small, batch_of(2, 30, 4)))
    assert (again.model.config.kept_layers, again.model.config.kept_of) == ([0], 2)  # so that it can be taught
    assert zsc.load(ORACLE).model.config.num_hidden_layers == 2


@pytest.mark.parametrize("kept", [[0, 1], [5], [-1], "0", 0, None, [0.0, 1]])
def test_a_folder_that_says_nonsense_of_kept_layers_is_refused(oracle, tmp_path, kept):
    saved = quantization.save(attention.shrink(oracle, 1), tmp_path / "small")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"kept_layers": kept}))
    with pytest.raises(zsc.CheckpointError, match="kept_layers .* of 2 are not 1 rising numbers"):
        zsc.load(saved)
