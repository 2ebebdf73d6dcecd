"""The packed forward pass gives the logits of the model's own, and takes the bytes that are predicted."""

import inspect
import random

import pytest
import torch
from torch.profiler import record_function
from toys import toy_bert

import zsc_utils as zsc
from zsc_utils import _int8, _tensors, inference, memory, quantization
from zsc_utils._products import right_range
from zsc_utils.batching import Pairs

ONE_LAYER = dict(layers=1, heads=1, hidden=32, wide=100)
TWO_LAYERS = dict(layers=2, heads=4, hidden=64, wide=256)
THREE_LAYERS = dict(layers=3, heads=3, hidden=48, wide=90)
BATCHES = [[(1, 2)], [(2, 512)], [(5, 7), (1, 300), (2, 64)], [(2, 130), (3, 129), (1, 128)], [(70, 3), (3, 63)]]


def model_of(layers, heads, hidden, wide, attention="sdpa", activation="gelu"):
    return toy_bert(
        attention, drawn=True, vocab_size=99, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=wide, hidden_act=activation,
    )  # fmt: skip


def quantised(model, precision):
    if precision == "fp32":
        return model
    return quantization.quantize(zsc.Checkpoint(model, None, "toy", 0, 2, None), precision).model


def with_engine(model, engine):
    """A model in int8 whose products are made by this engine, whatever the processor does best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_int8, "int8_engine", lambda streamed=False: engine)
        return quantised(model, "int8")


def drawn(model, groups, seed=0):
    """(ids, token types) of a batch."""
    tokens, generator = sum(pairs * length for pairs, length in groups), torch.Generator().manual_seed(seed)
    return (torch.randint(1, high, (tokens,), generator=generator) - 1 for high in (model.config.vocab_size + 1, 3))


def own_logits(model, ids, types, groups):
    """What the model's own forward says to each group."""
    inputs = zip(inference.by_group(ids, groups), inference.by_group(types, groups))
    with torch.inference_mode():
        return torch.cat([model(input_ids=ids, token_type_ids=types).logits for ids, types in inputs])


def check_equal(one, other, of_largest=1e-5):
    assert one.shape == other.shape and one.dtype == other.dtype
    assert (one - other).abs().max() <= of_largest * max(1, other.abs().max())


# ------------------------------------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", [ONE_LAYER, TWO_LAYERS, THREE_LAYERS], ids=["one layer", "two", "three"])
def test_logits_are_those_of_the_model_s_own_forward(shape, attention, activation):
    model = model_of(**shape, attention=attention, activation=activation)
    for groups in BATCHES:
        ids, types = drawn(model, groups)
        own = own_logits(model, ids, types, groups)
        assert own.abs().max() > 0.1  # or any two would be equal
        for chunk in (64, 128, 192, 256, 512, None):
            check_equal(inference.logits(model, ids, types, groups, chunk=chunk), own)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "precision, of_largest",
    [("int8", 1e-5), ("bf16", 2**-7), ("fp16", 2**-9)],  # int8 is exact but for what comes between; 16 bits round
)
def test_fewer_bits_give_the_logits_of_their_own_forward(precision, of_largest, attention):
    model = quantised(model_of(**TWO_LAYERS, attention=attention), precision)
    for groups in BATCHES:
        ids, types = drawn(model, groups)
        own = own_logits(model, ids, types, groups)
        check_equal(inference.logits(model, ids, types, groups, chunk=128), own, of_largest)


@pytest.mark.parametrize("name", ["oracle", "mini"])
def test_real_checkpoints_give_the_logits_of_their_own_forward(name, request):
    checkpoint = request.getfixturevalue(name)
    texts = ["央行宣布下调利率", "去看海", "国足客场一比零战胜对手，提前出线", "A股" * 40]
    pairs = Pairs(checkpoint.tokenizer, [(text, label) for text in texts for label in ("财经", "体育")])
    ids, types, groups = pairs.tensors(range(len(pairs)))
    own = own_logits(checkpoint.model, ids, types, groups)
    check_equal(inference.logits(checkpoint.model, ids, types, groups), own)


@pytest.mark.parametrize("groups", [[(3, 40)], [(1, 2), (2, 35), (1, 5)]], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_fills_up_to_a_multiple_of_64_changes_nothing(precision, groups, monkeypatch):
    model = quantised(model_of(**TWO_LAYERS), precision)
    ids, types = drawn(model, groups)
    assert len(ids) % 64
    filled = inference.logits(model, ids, types, groups)
    monkeypatch.setattr(inference, "pad", lambda ids, more: torch.nn.functional.pad(ids, more, value=1))
    check_equal(inference.logits(model, ids, types, groups), filled)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_company_in_a_batch_changes_nothing(precision):
    model = quantised(model_of(**TWO_LAYERS), precision)
    groups = [(4, 9), (1, 200), (3, 33)]
    ids, types = drawn(model, groups)
    together = inference.logits(model, ids, types, groups)
    single = [length for pairs, length in groups for _ in range(pairs)]
    for row, length, i, t in zip(together, single, ids.split(single), types.split(single)):
        check_equal(row[None], inference.logits(model, i, t, [(1, length)]))


def test_the_model_and_its_inputs_are_left_as_they_were_and_no_gradient_is_kept():
    model, groups = model_of(**TWO_LAYERS), [(3, 30), (1, 20)]
    ids, types = drawn(model, groups)
    inputs, before = (ids.clone(), types.clone()), {k: v.clone() for k, v in model.state_dict().items()}
    logits = inference.logits(model, ids, types, groups)
    assert not logits.requires_grad and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert torch.equal(ids, inputs[0]) and torch.equal(types, inputs[1])
    assert torch.equal(inference.logits(model, ids, types, groups), logits)


def some_batches(count):
    rng = random.Random(0)
    return [[(rng.randint(1, 12), rng.randint(2, 90)) for _ in range(rng.randint(1, 3))] for _ in range(count)]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_few_shapes_reach_the_linear_layers(precision, monkeypatch):
    """oneDNN compiles a kernel for each number of rows, and keeps it."""
    rows, ready = set(), inference.ready

    def counted(layer):
        return lambda tokens: rows.add(len(tokens)) or ready(layer)(tokens)

    monkeypatch.setattr(inference, "ready", counted)
    model = quantised(model_of(**TWO_LAYERS), precision)
    for groups in some_batches(40):
        inference.logits(model, *drawn(model, groups), groups)
    assert rows == {64, 128, 192, 256}


def test_int8_rows_become_a_matrix_once_for_all_chunks(monkeypatch):
    """Where no int8 product is fast: made for each chunk it would take as long as the product."""
    model = with_engine(model_of(**TWO_LAYERS), "widened")
    made, rows = [], quantization.Int8Linear.rows
    monkeypatch.setattr(quantization.Int8Linear, "rows", lambda layer: made.append(layer) or rows(layer))
    inference.logits(model, *drawn(model, [(8, 100)]), [(8, 100)], chunk=64)  # 13 chunks
    assert len(made) == 2 * 6 + 1  # two layers, and the pooler


# -------------------------------------------------------------------------------------------------------------- bytes

ENGINES = [engine for engine in ("packed", "plain") if right_range(engine)] + ["widened"]
EVERY_PRECISION = ["fp32", "fp16", "bf16", *ENGINES]


# of 128 tokens or more with the filling, and of more than two a pair: as few as that the last layer may take the most
GROUPS = [(40, 3), (16, 7), (2, 33), (5, 33), (16, 33), (1, 113), (5, 113), (1, 200), (5, 200), (1, 512), (2, 512)]


def drawn_case(rng, layers=(1, 2, 3)):
    """A model and a batch, all drawn."""
    heads = rng.choice([1, 2, 4, 12])
    hidden, wide = heads * rng.choice([8, 16]), rng.choice([64, 300])
    return {
        "shape": dict(layers=rng.choice(layers), heads=heads, hidden=hidden, wide=wide),
        "attention": rng.choice(["sdpa", "eager"]),
        "groups": rng.sample(GROUPS, rng.choice([1, 1, 2, 3])),
        "chunk": rng.choice([64, 128, 256, 512]),
    }


PHASES = dict(zip(("embed", "attention_part", "feed_forward_part", "classified"), memory.PHASES))


def marked(function, phase):
    """A function whose allocations the timeline notes under the name of a phase."""

    def run(*arguments, **options):
        with record_function(_tensors.MODULE + phase):
            return function(*arguments, **options)

    return run


def measured_and_predicted(shape, attention, groups, chunk, precision="fp32"):
    """Peak bytes of each phase of one pass, and as predicted; `precision` may be an engine for int8."""
    model = model_of(**shape, attention=attention)
    model = with_engine(model, precision) if precision in ENGINES else quantised(model, precision)
    ids, types = drawn(model, groups)
    inference.logits(model, ids, types, groups, chunk=chunk)  # what is made once is there
    with pytest.MonkeyPatch.context() as patch:
        for name, phase in PHASES.items():
            patch.setattr(inference, name, marked(getattr(inference, name), phase))
        steps = memory.timeline(lambda: inference.logits(model, ids, types, groups, chunk=chunk))
    measured = {phase: max(step.alive for step in steps if step.module == phase) for phase in memory.PHASES}
    options = {"int8": precision} if precision in ENGINES else {"dtype": model.dtype}
    return measured, inference.predict(model.config, groups, attention=attention, chunk=chunk, **options)


@pytest.mark.parametrize("precision", EVERY_PRECISION)
def test_bytes_are_predicted_exactly(precision):
    rng = random.Random(precision)
    for threads in [1, 2, 4] * 4:
        torch.set_num_threads(threads)
        case = drawn_case(rng) | {"precision": precision}
        measured, footprint = measured_and_predicted(**case)
        assert measured == footprint.phases, (threads, case, footprint)


@pytest.mark.parametrize("groups", [[(1, 20)], [(5, 7)], [(70, 2)]], ids=str)
def test_bytes_of_a_handful_of_tokens_are_predicted_exactly(groups):
    measured, footprint = measured_and_predicted(dict(layers=2, heads=4, hidden=64, wide=64), "sdpa", groups, 256)
    assert measured == footprint.phases


REAL = dict(layers=2, heads=12, hidden=768, wide=3072)


@pytest.mark.parametrize("precision", ["fp32", *ENGINES])
def test_the_real_geometry_is_predicted_to_the_byte(precision):
    for groups in [[(1, 1)], [(4, 64)], [(8, 128)], [(2, 512)], [(3, 113), (3, 112), (3, 110)]]:
        measured, footprint = measured_and_predicted(REAL, "sdpa", groups, 256, precision)
        assert measured == footprint.phases, groups


def test_a_workspace_that_is_not_asked_for_is_left_out(monkeypatch):
    monkeypatch.setattr(inference, "workspace", lambda *_: 10**9)
    config = model_of(**TWO_LAYERS).config
    asked, plain = (
        inference.predict(config, [(1, 9)], int8="packed", ask=ask).peak_activations for ask in (True, False)
    )
    assert asked >= 10**9 > plain


def test_int8_blocks_are_those_of_quantization():
    assert inspect.signature(quantization.tokens_to_int8).parameters["block"].default == inference.INT8_BLOCK


def test_weights_are_those_of_the_model():
    model = model_of(**THREE_LAYERS)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert inference.predict(model.config, [(1, 5)]).weights == 4 * weights
    assert inference.predict(model.config, [(1, 5)], dtype=torch.float16).weights == 2 * weights


@pytest.mark.parametrize(
    "groups, options, words",
    [
        ([], {}, r"groups \[\], .*give at least one group"),
        (None, {}, "groups None"),
        ([(1, 5)], dict(chunk=0), "chunk 0: .*a multiple of 64"),
        ([(1, 5)], dict(chunk=100), "chunk 100: .*a multiple of 64"),
        ([(1, 5)], dict(chunk=-64), "chunk -64"),
        ([(1, 5)], dict(chunk=64.0), "chunk 64.0"),
        ([(1, 5)], dict(chunk=True), "chunk True"),
        ([(2, 5), (0, 4)], {}, "batch 0: give a whole number"),
        ([(2, 5), (1, 4.0)], {}, "length 4.0: give a whole number"),
        ([(1, 513)], {}, "length 513: the model has positions for 512"),
        ([(1, 5)], dict(attention="flash"), "attention 'flash'"),
        ([(1, 5)], dict(dtype=torch.int8), "dtype torch.int8"),
        ([(1, 5)], dict(threads=0), "threads 0"),
    ],
)
def test_what_cannot_be_predicted_is_refused(groups, options, words):
    with pytest.raises(ValueError, match=words):
        inference.predict(model_of(**ONE_LAYER).config, groups, **options)


def test_a_hypothesis_has_eight_tokens_unless_given():
    slides = dict(attention="sliding", threads=1)
    given, own, other = (
        inference.predict(model_of(**TWO_LAYERS).config, [(1, 500)], **slides, **options).phases["attention"]
        for options in (dict(hypothesis=8), {}, dict(hypothesis=300))
    )
    assert given == own != other


def test_another_activation_is_not_predicted():
    with pytest.raises(ValueError, match="activation 'gelu_new'"):
        inference.predict(model_of(**ONE_LAYER, activation="gelu_new").config, [(1, 5)])
