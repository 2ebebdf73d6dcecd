"""Fewer bits: how many bytes, how many right answers, and what a folder gives back."""

import copy
import dataclasses
import gc
import json
import shutil
import statistics
import time
from pathlib import Path

import cloudpickle
import machine
import pytest
import torch
from agreement import off_the_grid
from oracle import ORACLE
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef
from toys import held, toy_bert

import zsc_utils as zsc
from zsc_utils import _bert, _int8, _products, memory, quantization, samples
from zsc_utils._products import activation_range, right_range

ROOT = Path(__file__).parents[2]
TEXTS = [
    "央行下调利率，房贷月供将减少",
    "三名宇航员平安返回地面",
    "球队老板卖掉股份，球迷担心主力会走，俱乐部说一切照旧",
]
LABELS = ["财经", "体育", "航天"]


@pytest.fixture(scope="module")
def mini():
    return zsc.load("mini")


@pytest.fixture(scope="module")
def quantised(mini):
    return {precision: quantization.quantize(mini, precision) for precision in quantization.PRECISIONS}


def logits_of(checkpoint):
    inputs = checkpoint.tokenizer(TEXTS, LABELS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return checkpoint.model(**inputs).logits


# --------------------------------------------------------------------------------------------------------- numbers


def test_a_row_comes_back_within_half_a_step():
    matrix = torch.randn(50, 200) * torch.logspace(-4, 2, 50)[:, None]
    rows, scale = quantization.rows_to_int8(matrix)
    assert rows.dtype == torch.int8 and (rows.abs().amax(1) == 127).all()
    assert ((rows * scale[:, None] - matrix).abs() <= 0.5001 * scale[:, None]).all()


def test_a_row_of_zeros_stays_zero():
    rows, scale = quantization.rows_to_int8(torch.zeros(2, 3))
    assert not rows.any() and torch.isfinite(scale).all()


@pytest.mark.parametrize("engine", ["packed", "plain", "widened"])
def test_int8_linear_does_what_its_rounded_numbers_do(engine):
    if engine != "widened" and right_range(engine) < activation_range():
        pytest.skip(f"{engine} rows are multiplied wrong here, and never used")
    torch.manual_seed(0)
    rows, scale = quantization.rows_to_int8(torch.randn(96, 64))
    bias, x = torch.randn(96), torch.randn(2, 5, 64)
    layer = quantization.Int8Linear(rows, scale, bias, engine)
    steps = x.abs().amax(-1, keepdim=True) / activation_range()
    rounded = x if engine == "widened" else (x / steps).round() * steps
    assert torch.allclose(layer(x), rounded @ (rows * scale[:, None]).T + bias, atol=1e-4)
    assert torch.equal(layer.rows(), rows)


@pytest.mark.parametrize("broken", ["wrong", "slow", "missing", "none"])
def test_an_engine_that_is_wrong_or_slow_or_missing_is_not_used(broken, monkeypatch):
    """The best of what is left is taken, and in the end fp32, which is always there."""
    for probe in (_products.int8_engine, _products.right_range, _products.times_as_long):
        monkeypatch.setattr(_products, probe.__name__, probe.__wrapped__)  # asked anew
    multiply = _products.multiply_packed
    if broken == "wrong":
        monkeypatch.setattr(_products, "multiply_packed", lambda *given: multiply(*given) + 1)
    if broken == "slow":
        slow = {"packed": 3.0, "packing": 0.0, "plain": 30.0}
        monkeypatch.setattr(_products, "times_as_long", slow.get)
    if broken == "missing":
        monkeypatch.setattr(_products, "pack", lambda rows: torch.ops.onednn.no_such_product(rows))
    if broken == "none":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for streamed in (False, True):
        engine = _products.int8_engine(streamed)
        assert engine in {"wrong": ("plain", "widened"), "missing": ("plain", "widened")}.get(broken, ("widened",))


@pytest.mark.parametrize(
    "packed, plain, packing, resident, streamed",
    [
        (0.5, 0.7, 0.0, "packed", "plain"),
        (0.5, 0.8, 0.0, "packed", "packed"),  # over half as long again
        (0.6, 0.97, 1.2, "packed", "plain"),  # a block's packing is shared by 12 products
        (0.6, 1.06, 1.2, "packed", "packed"),
        (1.0, 0.6, 0.0, "plain", "plain"),
        (1.6, 30.0, 0.0, "packed", "packed"),
        (1.61, 30.0, 0.0, "widened", "widened"),
        (1.55, 30.0, 1.2, "packed", "widened"),  # fast enough only if it need not be packed
    ],
)
def test_the_engine_follows_the_times_of_products(packed, plain, packing, resident, streamed, monkeypatch):
    monkeypatch.setattr(_products, "int8_engine", _products.int8_engine.__wrapped__)
    monkeypatch.setattr(_products, "right_range", lambda engine: 127)
    monkeypatch.setattr(_products, "times_as_long", {"packed": packed, "plain": plain, "packing": packing}.get)
    assert (_products.int8_engine(), _products.int8_engine(streamed=True)) == (resident, streamed)


def test_int8_scores_do_not_depend_on_the_company(quantised):
    """One scale a token: with one scale a batch, as quantize_dynamic has it, a neighbour would move the scores."""
    classify = zsc.ZeroShotClassifier(quantised["int8"])
    alone = dict(zip(*(classify(TEXTS[0], LABELS)[key] for key in ("labels", "scores"))))
    crowd = dict(zip(*(classify(TEXTS + [TEXTS[2] * 8], LABELS)[0][key] for key in ("labels", "scores"))))
    assert (
        max(abs(alone[label] - crowd[label]) for label in LABELS) < 0.25 / activation_range()
    )  # rounding to a neighbouring step only


@pytest.mark.parametrize("precision", quantization.PRECISIONS)
def test_the_original_is_untouched_and_nothing_of_it_is_kept(precision):
    checkpoint = zsc.load("mini")
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    other = quantization.quantize(checkpoint, precision)
    after = checkpoint.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    storages = [StorageWeakRef(parameter.untyped_storage()) for parameter in checkpoint.model.parameters()]
    del checkpoint, after
    gc.collect()
    assert all(storage.expired() for storage in storages)
    assert torch.isfinite(logits_of(other)).all()


def test_int8_is_a_quarter_of_the_bytes_of_base_shape():
    checkpoint = zsc.load("base-shape")
    int8 = quantization.quantize(checkpoint, "int8")
    counts = memory.parameters(checkpoint.model.config)
    rows = sum(tensor.shape[0] for name, tensor in checkpoint.model.state_dict().items()
               if tensor.ndim == 2 and not name.startswith("classifier"))  # fmt: skip
    whole = sum(tensor.numel() for tensor in checkpoint.model.state_dict().values() if tensor.ndim == 1)
    whole += 3 * checkpoint.model.config.hidden_size  # the classifier's matrix
    assert quantization.weight_bytes(int8) == sum(counts.values()) - whole + 4 * whole + 4 * rows
    assert quantization.weight_bytes(int8) <= 0.27 * quantization.weight_bytes(checkpoint)
    for half in ("fp16", "bf16"):
        halved = quantization.quantize(checkpoint, half)
        assert 2 * quantization.weight_bytes(halved) == quantization.weight_bytes(checkpoint)


def test_a_checkpoint_says_what_it_is_in(mini, quantised):
    assert quantization.precision_of(mini) == "fp32"
    for precision, checkpoint in quantised.items():
        assert quantization.precision_of(checkpoint) == precision
    assert repr(quantised["int8"]).replace("int8", "float32") == repr(mini)


@pytest.mark.parametrize("precision", ["int4", "fp32", None, 8])
def test_another_precision_is_refused(mini, precision):
    with pytest.raises(ValueError, match=f"precision {precision!r}: choose one of fp16, bf16, int8"):
        quantization.quantize(mini, precision)


def test_int8_is_not_quantised_again(quantised):
    with pytest.raises(ValueError, match="'mini' is in int8 already"):
        quantization.quantize(quantised["int8"], "fp16")


# ---------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("precision", ["fp32", *quantization.PRECISIONS])
def test_a_folder_gives_back_the_same_logits_bit_for_bit(mini, quantised, tmp_path, precision):
    quantised = quantised | {"fp32": mini}
    saved = quantization.save(quantised[precision], tmp_path / "kept")
    again = zsc.load(saved)
    assert quantization.precision_of(again) == precision
    assert torch.equal(logits_of(again), logits_of(quantised[precision]))
    assert {file.suffix for file in saved.iterdir()} <= {".safetensors", ".json", ".txt"}
    twice = zsc.load(quantization.save(again, tmp_path / "again"))
    assert torch.equal(logits_of(twice), logits_of(again))


def test_attention_is_chosen_when_an_int8_folder_is_opened(mini, quantised, tmp_path):
    saved = quantization.save(quantised["int8"], tmp_path / "kept")
    eager = zsc.load(saved, attention="eager")
    assert eager.model.config._attn_implementation == "eager"
    moved = (logits_of(eager) - logits_of(quantised["int8"])).abs().max()
    rounding = (logits_of(quantised["int8"]) - logits_of(mini)).abs().max()
    assert 0 < moved < 2 * rounding  # a last bit that differs becomes another step of int8 here and there


def test_int8_can_be_made_while_reading(mini, quantised, tmp_path):
    """Bit for bit what quantize makes, from fp32, from 16 bits and from mini's own rows."""
    direct, made = zsc.load(ORACLE, dtype=torch.int8), quantization.quantize(zsc.load(ORACLE), "int8")
    assert quantization.precision_of(direct) == "int8" and torch.equal(logits_of(direct), logits_of(made))
    assert torch.equal(logits_of(zsc.load("mini", dtype=torch.int8)), logits_of(quantised["int8"]))
    halved = zsc.load(quantization.save(quantised["bf16"], tmp_path / "half"), dtype=torch.int8)
    assert torch.equal(logits_of(halved), logits_of(quantization.quantize(quantised["bf16"], "int8")))


SIZES = "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size", "num_labels"
TOYS = [(1, 1, 16, 64, 301, 2), (3, 4, 32, 96, 50, 5)]


@pytest.mark.parametrize("engine", ["packed", "plain", "widened"])
def test_bytes_of_int8_models_are_known_from_their_config(oracle, quantised, engine, monkeypatch):
    if engine != "widened" and not right_range(engine):
        pytest.skip(f"no {engine} products here")
    for module in (_int8, quantization):
        monkeypatch.setattr(module, "int8_engine", lambda streamed=False: engine)
    for model in (*(toy_bert(**dict(zip(SIZES, toy))) for toy in TOYS), oracle.model):
        made = quantization.quantize(dataclasses.replace(oracle, model=model), "int8").model
        assert quantization.int8_bytes(model.config) == held(made)


def test_making_int8_while_reading_needs_no_memory_for_fp32():
    size = quantization.int8_bytes(zsc.load("base-shape").model.config)
    peak = memory.process_peak(lambda: zsc.load("base-shape", dtype=torch.int8).name)
    print(f"{peak.total / size:.2f} times the int8 weights")
    assert peak.total <= 2 * size  # with fp32 in memory it would be 5; glibc's heap leaves more or less


@pytest.mark.parametrize("precision", quantization.PRECISIONS)
def test_opening_takes_little_more_than_the_file(tmp_path, precision):
    saved = quantization.save(quantization.quantize(zsc.load("base-shape"), precision), tmp_path / "kept")
    size = (saved / "model.safetensors").stat().st_size
    peak = memory.process_peak(lambda: zsc.load(saved).name)
    print(f"{precision}: {peak.total / size:.2f} times the file")
    assert peak.total <= 1.3 * size


def test_the_meaning_of_the_classes_is_kept(tmp_path):
    """A checkpoint whose classes stand in another order, and whose config does not say so."""
    checkpoint = dataclasses.replace(zsc.load("mini"), entailment_id=2, contradiction_id=0)
    again = zsc.load(quantization.save(quantization.quantize(checkpoint, "int8"), tmp_path / "kept"))
    assert (again.entailment_id, again.contradiction_id) == (2, 0)


def spoilt(folder, change):
    """A copy of a saved folder in which `change(tensors)` was at the weights."""
    target = folder.parent / "spoilt"
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


NAME = "bert.encoder.layer.3.output.dense.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop(NAME + ".scale"), f"no scale, or not a positive one a row, for {NAME}"),
        (lambda t: t.update({NAME + ".scale": torch.ones(5)}), f"no scale, or not a positive one a row, for {NAME}"),
        (lambda t: t.update({NAME: t[NAME][:, :-1].contiguous()}), "output.dense.weight is"),
        (lambda t: t.pop(NAME), "lacks 1 tensors such as " + NAME),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(quantised, tmp_path, change, words):
    saved = quantization.save(quantised["int8"], tmp_path / "kept")
    with pytest.raises(zsc.CheckpointError, match=words):
        zsc.load(spoilt(saved, change))


def test_a_file_cut_short_is_refused(quantised, tmp_path):
    saved = quantization.save(quantised["int8"], tmp_path / "kept")
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(zsc.CheckpointError, match="broken or cut short"):
        zsc.load(saved)


def test_a_later_version_is_refused_by_name(quantised, tmp_path):
    saved = quantization.save(quantised["int8"], tmp_path / "kept")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"zsc_format": "int8-v2"}))
    with pytest.raises(
        zsc.CheckpointError, match="zsc_format 'int8-v2': this version reads bf16, fp16, int8-rows, int8-v1"
    ):
        zsc.load(saved)


@pytest.mark.parametrize("precision, dtype", [("int8", torch.float16), ("fp16", torch.bfloat16)])
def test_a_folder_keeps_its_precision(quantised, tmp_path, precision, dtype):
    saved = quantization.save(quantised[precision], tmp_path / "kept")
    with pytest.raises(zsc.CheckpointError, match=f"stored in {precision} and runs in it"):
        zsc.load(saved, dtype=dtype)


def test_saving_refuses_what_it_would_spoil(quantised, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        quantization.save(quantised["int8"], tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"


def test_a_tokenizer_that_is_gone_is_named_before_anything_is_written(quantised, tmp_path):
    gone = dataclasses.replace(quantised["int8"], folder=tmp_path / "gone")
    with pytest.raises(zsc.CheckpointError, match="gone holds neither vocab.txt nor tokenizer.json"):
        quantization.save(gone, tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_int8_can_be_copied_and_sent_to_another_process(quantised):
    model = quantised["int8"].model
    for other in (copy.deepcopy(model), cloudpickle.loads(cloudpickle.dumps(model))):
        assert torch.equal(logits_of(dataclasses.replace(quantised["int8"], model=other)), logits_of(quantised["int8"]))


def test_int8_weights_are_shared_when_a_model_is_rebuilt(quantised):
    model = quantised["int8"].model
    again = _bert.rebuilt(model, lambda module, name: None)
    words = "bert.embeddings.word_embeddings.weight"
    assert again.state_dict()[words].data_ptr() == model.state_dict()[words].data_ptr()


def test_saving_that_fails_leaves_nothing_behind(quantised, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(quantization, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        quantization.save(quantised["int8"], tmp_path / "kept")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- agreement


def result(text, *ranked):
    return {"sequence": text, "labels": [label for label, _ in ranked], "scores": [score for _, score in ranked]}


def test_agreement_counts_texts_scores_and_right_answers():
    one = [result("x", ("a", 0.9), ("b", 0.1)), result("y", ("b", 0.6), ("a", 0.4))]
    other = [result("x", ("a", 0.8), ("b", 0.2)), result("y", ("a", 0.7), ("b", 0.3))]
    found = quantization.agreement(one, other, truth=["a", "b"])
    assert (found.texts, found.same, found.share, found.right) == (2, 1, 0.5, (2, 1))
    assert found.largest_difference == pytest.approx(0.3)
    assert quantization.agreement(one, one).right is None


def test_scores_that_are_no_numbers_are_not_compared():
    with pytest.raises(ValueError, match="some scores are no numbers"):
        quantization.agreement([result("x", ("a", 0.9), ("b", 0.1))], [result("x", ("a", 0.9), ("b", float("nan")))])


def test_the_interval_is_wilson_s():
    assert quantization.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert quantization.wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


@pytest.mark.parametrize(
    "others, truth, words",
    [
        ([], None, "1 results beside 0"),
        ([result("z", ("a", 1.0))], None, "result 0 is of another text"),
        ([result("x", ("c", 1.0))], None, "result 0 is of another text or other labels"),
        ([result("x", ("a", 1.0))], ["a", "b"], "2 true labels for 1 results"),
    ],
)
def test_what_cannot_be_compared_is_refused(others, truth, words):
    with pytest.raises(ValueError, match=words):
        quantization.agreement([result("x", ("a", 1.0))], others, truth)


@pytest.fixture(scope="module")
def answers(mini):
    """Results in fp32 and int8 on a fixed part of the committed test set, and the truth.

    Of 16 bits notebook 02 has them.
    """
    familiar, reviews = samples.test_set("topics_familiar"), samples.test_set("reviews")[::8]
    part, topics = familiar[::16], samples.topics(familiar)
    truth = [r["topic"] for r in part] + ["好评" if r["polarity"] == "positive" else "差评" for r in reviews]
    found = {"fp32": off_the_grid(mini)}
    found["int8"] = quantization.quantize(found["fp32"], "int8")
    for precision, checkpoint in found.items():
        classify = zsc.ZeroShotClassifier(checkpoint)
        found[precision] = classify([r["text"] for r in part], topics) + classify(
            [r["text"] for r in reviews], ["好评", "差评"]
        )
    return found, truth


GOALS = {"fp16": 0.995, "bf16": 0.995, "int8": 0.99}
KINDS = [(weights, precision) for weights in ("bundled", "off the grid") for precision in quantization.PRECISIONS]
# the goal stands; a record that reaches it again turns this red, and the mark goes
MISSED = pytest.mark.xfail(strict=True, reason="854 of 864 texts keep their answer, .988; the card of mini says so")


@pytest.mark.parametrize(
    "weights, precision",
    [pytest.param(*kind, marks=[MISSED] * (kind == ("off the grid", "int8"))) for kind in KINDS],
)
def test_the_whole_test_set_agrees_as_recorded(weights, precision):
    """benchmarks/agreement.py takes long; a part of what it recorded is measured again below."""
    record = machine.records("agreement")["avx512-vnni-bf16"][weights][precision]
    assert record["texts"] == 864
    assert record["same"] / record["texts"] >= GOALS[precision]


@pytest.mark.parametrize("weights, precision", KINDS)
def test_as_many_answers_are_right_as_recorded(weights, precision):
    record = machine.records("agreement")["avx512-vnni-bf16"][weights][precision]
    assert record["texts"] == 864
    assert record["right"][1] >= record["right"][0] - 0.005 * record["texts"]


def test_few_answers_change_and_as_many_are_right(answers):
    found, truth = answers
    compared = quantization.agreement(found["fp32"], found["int8"], truth)
    assert compared.share >= (0.96 if activation_range() == 127 else 0.95)  # with 63, steps are twice as large
    assert compared.right[1] >= compared.right[0] - 0.02 * compared.texts


# ------------------------------------------------------------------------------------------------- speed and process


def test_int8_is_faster_than_fp32():
    """On base-shape, 512 tokens a batch, one after the other."""
    fp32 = zsc.load("base-shape")
    int8 = quantization.quantize(fp32, "int8")
    ids = torch.randint(200, 20_000, (4, 128))
    ratios = []
    with torch.inference_mode():
        for checkpoint in (fp32, int8):
            checkpoint.model(input_ids=ids)
        for _ in range(5):
            seconds = []
            for checkpoint in (fp32, int8):
                start = time.perf_counter()
                checkpoint.model(input_ids=ids)
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
    print(f"int8 is {statistics.median(ratios):.2f} times as fast as fp32")
    assert statistics.median(ratios) > (1.2 if activation_range() == 127 else 0.9)


def test_a_process_with_int8_grows_a_third_as_far(tmp_path):
    """Load and six batches of 512 tokens, drawn from the whole vocabulary: packed weights and scratch included."""

    def load_and_run(name):
        checkpoint = zsc.load(name)
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for _ in range(6):
                checkpoint.model(input_ids=torch.randint(200, 20_000, (4, 128), generator=generator))

    saved = quantization.save(quantization.quantize(zsc.load("base-shape"), "int8"), tmp_path / "kept")
    fp32, int8 = (memory.process_peak(load_and_run, name).total for name in ("base-shape", str(saved)))
    print(f"fp32 grew by {fp32 / 1e6:.0f} MB, int8 by {int8 / 1e6:.0f} MB: {int8 / fp32:.1%}")
    assert int8 <= 0.35 * fp32


def test_the_time_of_a_product_is_that_of_the_engine_in_use(monkeypatch):
    monkeypatch.setattr(quantization, "times_as_long", {"packed": 0.3, torch.bfloat16: 5.0}.__getitem__)
    monkeypatch.setattr(quantization, "int8_engine", lambda: "packed")
    assert (quantization.product_time("int8"), quantization.product_time("bf16")) == (0.3, 5.0)
    monkeypatch.setattr(quantization, "int8_engine", lambda: "widened")
    assert quantization.product_time("int8") == 1.0
    with pytest.raises(ValueError, match="precision 'fp8': choose one of"):
        quantization.product_time("fp8")


def test_a_dtype_that_no_format_has_is_refused_before_anything_is_written(oracle, tmp_path):
    double = dataclasses.replace(oracle, model=copy.deepcopy(oracle.model).double())
    with pytest.raises(ValueError, match="is in torch.float64: save it in fp32, fp16"):
        quantization.save(double, tmp_path / "new")
    assert not (tmp_path / "new").exists()
