"""The packed forward pass gives the logits of the model's own, and takes the bytes that are predicted."""

import inspect
import random

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import inference, memory, quantization
from zsc_utils.batching import Pairs

ONE_LAYER = dict(layers=1, heads=1, hidden=32, wide=100)
TWO_LAYERS = dict(layers=2, heads=4, hidden=64, wide=256)
THREE_LAYERS = dict(layers=3, heads=3, hidden=48, wide=90)
BATCHES = [[(1, 2)], [(2, 512)], [(5, 7), (1, 300), (2, 64)], [(2, 130), (3, 129), (1, 128)], [(70, 3), (3, 63)]]


def model_of(layers, heads, hidden, wide, attention="sdpa", activation="gelu"):
    """A small model whose every weight matters: new models have no biases, and norms that change nothing."""
    config = BertConfig(
        vocab_size=99, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_labels=3,
        intermediate_size=wide, hidden_act=activation,
    )  # fmt: skip
    config._attn_implementation = attention
    model = BertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(0, 0.1, generator=generator).add_(name.endswith("LayerNorm.weight"))
    return model


def quantised(model, precision):
    if precision == "fp32":
        return model
    return quantization.quantize(zsc.Checkpoint(model, None, "toy", 0, 2, None), precision).model


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


def test_few_shapes_reach_the_linear_layers(monkeypatch):
    """oneDNN compiles a kernel for each number of rows, and keeps it."""
    rows, linear = set(), inference.linear
    monkeypatch.setattr(inference, "linear", lambda layer, tokens: rows.add(len(tokens)) or linear(layer, tokens))
    model = model_of(**TWO_LAYERS)
    for groups in some_batches(40):
        inference.logits(model, *drawn(model, groups), groups)
    assert rows == {64, 128, 192, 256}


def test_few_shapes_reach_the_products_of_int8(monkeypatch):
    rows, multiply = set(), quantization.multiply
    monkeypatch.setattr(quantization, "multiply", lambda x, *more: rows.add(x.shape[:-1].numel()) or multiply(x, *more))
    model = quantised(model_of(**TWO_LAYERS), "int8")
    for groups in some_batches(40):
        inference.logits(model, *drawn(model, groups), groups)
    assert rows == {64, 128, 192, 256}


# -------------------------------------------------------------------------------------------------------------- bytes

PRODUCTS = {"value projected", "widened", "narrowed", "pooled"}  # where oneDNN multiplies, and may take a workspace


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


def measured_and_predicted(shape, attention, groups, chunk, precision="fp32"):
    model = quantised(model_of(**shape, attention=attention), precision)
    ids, types = drawn(model, groups)
    options = {"dtype": torch.float16} if precision == "fp16" else {"int8": precision == "int8"}
    measured = memory.tensor_peak(lambda: inference.logits(model, ids, types, groups, chunk=chunk))
    return measured, inference.predict(model.config, groups, attention=attention, chunk=chunk, **options)


def check_bytes(case, precision="fp32"):
    """What oneDNN takes while it multiplies comes on top of the moments where it does, and of no others.

    So the prediction is exact where another moment, in attention, is ahead of these by more than that; returns whether.
    """
    measured, footprint = measured_and_predicted(**case, precision=precision)
    workspace = torch.get_num_threads() * inference.WORKSPACE
    products = max(moment.bytes for moment in footprint.moments if moment.what in PRODUCTS)
    others = max(moment.bytes for moment in footprint.moments if moment.what not in PRODUCTS)
    assert footprint.peak_activations <= measured <= max(others, products + workspace), case
    return others >= products + workspace


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_onednn_bytes_are_predicted_exactly(precision, threads, monkeypatch):
    """torch's own products take no workspace, so that nothing hides a wrong term."""
    if precision == "fp16" and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        pytest.skip("with instructions for fp16, torch leaves it to oneDNN")
    monkeypatch.setattr(inference, "HAS_ONEDNN", False)
    torch.set_num_threads(threads)
    rng = random.Random(threads)
    for _ in range(20):
        case = drawn_case(rng) | {"precision": precision}
        measured, footprint = measured_and_predicted(**case)
        assert measured == footprint.peak_activations, case


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_with_onednn_bytes_are_predicted_but_for_its_workspace(precision):
    quantization.activation_range()  # tries products, once
    rng = random.Random(0)
    for _ in range(15):
        check_bytes(drawn_case(rng, layers=(2, 3) if precision == "int8" else (1, 2, 3)), precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("groups", [[(4, 512)], [(12, 113), (9, 112)], [(3, 400), (10, 64)]], ids=str)
def test_from_some_tokens_on_the_peak_is_exact_in_attention(groups, attention, precision):
    shape = dict(layers=2, heads=4, hidden=256, wide=1024)
    assert check_bytes(dict(shape=shape, attention=attention, groups=groups, chunk=64), precision)


@pytest.mark.parametrize("groups", [[(1, 20)], [(5, 7)], [(70, 2)]], ids=str)
def test_bytes_of_a_handful_of_tokens_are_predicted_exactly(groups, monkeypatch):
    monkeypatch.setattr(inference, "HAS_ONEDNN", False)
    measured, footprint = measured_and_predicted(dict(layers=2, heads=4, hidden=64, wide=64), "sdpa", groups, 256)
    assert measured == footprint.peak_activations


def test_embeddings_in_int8_are_within_bounds():
    """Of one layer, where attention keeps the keys and values of all tokens only, embeddings take the most."""
    shape = dict(layers=1, heads=4, hidden=256, wide=256)
    check_bytes(dict(shape=shape, attention="sdpa", groups=[(8, 512)], chunk=64), "int8")


REAL = dict(layers=2, heads=12, hidden=768, wide=3072)


@pytest.mark.parametrize("groups", [[(8, 128)], [(2, 512)], [(3, 113), (3, 112), (3, 110)]], ids=str)
def test_the_real_geometry_is_predicted_to_the_byte(groups):
    measured, footprint = measured_and_predicted(REAL, "sdpa", groups, 256)
    assert measured == footprint.peak_activations and footprint.peak.what == "inside the kernel"


def test_the_real_geometry_in_int8_is_within_bounds():
    check_bytes(dict(shape=REAL, attention="sdpa", groups=[(4, 128)], chunk=256), "int8")


def test_older_processors_keep_to_the_bounds_too(monkeypatch):
    """Other instructions are other kernels, with other workspaces."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")

    def as_on_older_processors():
        rng = random.Random(1)
        for precision in ["fp32", "int8"] * 4:
            check_bytes(drawn_case(rng, layers=(2, 3)), precision)
        return quantization.activation_range()

    assert memory.process_peak(as_on_older_processors).result == (63, 64)  # as AVX2 has it


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


def test_another_activation_is_not_predicted():
    with pytest.raises(ValueError, match="activation 'gelu_new'"):
        inference.predict(model_of(**ONE_LAYER, activation="gelu_new").config, [(1, 5)])
