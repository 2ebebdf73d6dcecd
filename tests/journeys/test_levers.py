"""Levers by hand: what was asked for runs, exact ones change no score, and what cannot be had is told at the door."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from oracle import ORACLE
from results import as_dicts, same

import zsc_utils as zsc
from zsc_utils import attention, formats, memory, quantization
from zsc_utils import plan as planning
from zsc_utils.offloading import StreamedModel, stream_layers
from zsc_utils.quantization import precision_of

LABELS = ["财经", "体育", "军事", "旅游"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线", "去看海", "A股" * 150]  # the last beyond a window
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]
# by how a folder is stored, what it can be had in
MADE = {"fp32": PRECISIONS, "fp16": ["fp16", "int8"], "bf16": ["bf16", "int8"], "int8": ["int8"]}


def named(error):
    """The budgets that a message about one too small names, exact and lossy."""
    return re.findall(r"(?:works is|allow_lossy=True) ([\d.]+ MB)", str(error.value))


def tensors(model):
    return {name: (tensor.dtype, tensor.data_ptr(), tensor._version) for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def folders(oracle, tmp_path_factory):
    """{precision: folder} of the small checkpoint."""
    place = tmp_path_factory.mktemp("stored")
    made = {"fp32": oracle} | {p: quantization.quantize(oracle, p) for p in quantization.PRECISIONS}
    return {p: quantization.save(checkpoint, place / p) for p, checkpoint in made.items()}


@pytest.fixture(scope="module")
def expected(oracle):
    """Results in fp32 without a lever."""
    return zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS)


# --------------------------------------------------------------------------------------------------- levers by hand


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["mini", ORACLE])
def test_a_name_comes_in_the_precision_that_was_asked_for(name, precision):
    classify = zsc.ZeroShotClassifier(name, precision=precision)
    assert precision_of(classify.checkpoint) == classify.plan.setting.precision == precision
    assert not classify.plan.setting.block and classify.plan.budget is None
    assert classify.checkpoint.model.dtype == formats.activations_dtype(precision)
    assert classify(TEXTS[0], LABELS[:2])["labels"][0] == "财经"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["mini", "oracle"])
def test_a_checkpoint_comes_in_the_precision_that_was_asked_for_and_is_left_as_it_was(request, kind, precision):
    checkpoint = request.getfixturevalue(kind)
    before, config = tensors(checkpoint.model), copy.deepcopy(checkpoint.model.config.to_dict())
    classify = zsc.ZeroShotClassifier(checkpoint, precision=precision, attention="eager")
    assert precision_of(classify.checkpoint) == classify.plan.setting.precision == precision
    assert classify(TEXTS[0], LABELS[:2])["labels"][0] == "财经"
    assert precision_of(checkpoint) == "fp32" and checkpoint.model.config._attn_implementation == "sdpa"
    assert tensors(checkpoint.model) == before and checkpoint.model.config.to_dict() == config


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_by_hand_gives_the_scores_of_the_door_and_of_the_lever(oracle, precision):
    loaded = zsc.load(ORACLE, dtype=formats.DTYPES[precision])
    made = oracle if precision == "fp32" else quantization.quantize(oracle, precision)
    wanted = zsc.ZeroShotClassifier(made)(TEXTS, LABELS)
    for checkpoint in (ORACLE, oracle, loaded):
        assert zsc.ZeroShotClassifier(checkpoint, precision=precision)(TEXTS, LABELS) == wanted
    fp32 = zsc.ZeroShotClassifier(oracle)(TEXTS, LABELS)
    assert (wanted == fp32) == (precision == "fp32") and same(wanted, fp32, within=0.05)


def test_what_is_asked_for_and_is_so_already_is_the_checkpoint_itself(oracle):
    for asked in ({}, {"precision": "fp32"}, {"attention": "sdpa"}, {"offload": False}):
        assert zsc.ZeroShotClassifier(oracle, **asked).checkpoint is oracle
        assert zsc.ZeroShotClassifier(oracle, memory_budget="100MB", **asked).checkpoint is oracle


@pytest.mark.parametrize("stored", PRECISIONS)
@pytest.mark.parametrize("offload", [None, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_folder_runs_in_what_can_be_made_of_it_and_the_rest_is_told_at_the_door(folders, stored, offload, precision):
    if precision in MADE[stored]:
        classify = zsc.ZeroShotClassifier(folders[stored], precision=precision, offload=offload)
        assert precision_of(classify.checkpoint) == precision
        assert isinstance(classify.checkpoint.model, StreamedModel) == bool(offload)
        assert classify(TEXTS[0], LABELS)["labels"]
        return
    with pytest.raises(ValueError, match=rf"^precision '{precision}': .*runs in {', '.join(MADE[stored])}$"):
        zsc.ZeroShotClassifier(folders[stored], precision=precision, offload=offload)


@pytest.mark.parametrize("stored, precision", [("fp16", "fp32"), ("fp16", "bf16"), ("int8", "fp32"), ("int8", "bf16")])
def test_bits_do_not_come_back_to_a_checkpoint_in_memory(oracle, stored, precision):
    fewer = quantization.quantize(oracle, stored)
    with pytest.raises(ValueError, match=f"^precision '{precision}': .*runs in {', '.join(MADE[stored])}$"):
        zsc.ZeroShotClassifier(fewer, precision=precision)
    assert precision_of(zsc.ZeroShotClassifier(fewer, precision="int8").checkpoint) == "int8"


@pytest.mark.parametrize("budget", [None, "100MB"])
@pytest.mark.parametrize("kind", ["eager", "sdpa", "sliding"])
def test_attention_by_hand_is_the_one_that_runs(oracle, expected, kind, budget):
    wanted = zsc.ZeroShotClassifier(attention.use(oracle, kind))(TEXTS, LABELS)
    for given in (ORACLE, oracle):
        classify = zsc.ZeroShotClassifier(given, attention=kind, memory_budget=budget)
        assert classify.plan.setting.attention == classify.checkpoint.model.config._attn_implementation == kind
        assert classify(TEXTS, LABELS) == wanted
        if kind == "sliding":
            assert as_dicts(classify(TEXTS[3:], LABELS)) != as_dicts(expected[3:])
        else:
            assert same(classify(TEXTS, LABELS), expected)


def test_eager_by_hand_stays_eager_under_every_budget():
    """Left to the plan, SDPA is the first lever."""
    chosen = planning.Chosen(attention="eager")
    for given in (ORACLE, zsc.load(ORACLE, attention="eager")):
        subject = planning.subject_of(given)
        settings = planning.settings_for(subject, planning.MAX_TOKENS, chosen)
        assert {setting.attention for setting in settings} == {"eager"}
        assert len({(setting.max_tokens, setting.chunk) for setting in settings}) > 3
        for setting in settings[::6]:
            made = zsc.ZeroShotClassifier(
                given, attention="eager", memory_budget=subject.total(setting), allow_lossy=setting.precision == "int8"
            )
            assert made.checkpoint.model.config._attn_implementation == "eager"
            assert made.plan.predicted <= subject.total(setting)


def test_another_attention_is_made_of_an_eager_checkpoint_without_a_budget():
    eager = zsc.load(ORACLE, attention="eager")
    assert zsc.ZeroShotClassifier(eager, attention="sdpa").checkpoint.model.config._attn_implementation == "sdpa"
    half = zsc.ZeroShotClassifier(eager, precision="bf16")
    assert half.checkpoint.model.config._attn_implementation == half.plan.setting.attention == "eager"
    assert precision_of(half.checkpoint) == half.plan.setting.precision == "bf16"
    assert eager.model.config._attn_implementation == "eager" and precision_of(eager) == "fp32"


# ------------------------------------------------------------------------------------------------------------- offload


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_that_are_streamed_by_hand_change_no_score(precision, kind):
    loaded = zsc.ZeroShotClassifier(ORACLE, precision=precision, attention=kind)
    streamed = zsc.ZeroShotClassifier(ORACLE, precision=precision, attention=kind, offload=True)
    assert isinstance(streamed.checkpoint.model, StreamedModel) and precision_of(streamed.checkpoint) == precision
    assert streamed.checkpoint.model.config._attn_implementation == streamed.plan.setting.attention == kind
    assert streamed.plan.setting.block == streamed.budget.block == streamed.checkpoint.model.block > 0
    assert streamed.checkpoint.name == str(ORACLE)
    assert same(streamed(TEXTS, LABELS), loaded(TEXTS, LABELS))


def test_layers_of_mini_are_streamed_by_hand(mini):
    streamed = zsc.ZeroShotClassifier("mini", offload=True)
    assert isinstance(streamed.checkpoint.model, StreamedModel)
    assert same(streamed(TEXTS[:2], LABELS), zsc.ZeroShotClassifier(mini)(TEXTS[:2], LABELS))


def test_offload_by_hand_is_kept_by_every_setting():
    subject = planning.subject_of(ORACLE)
    everything = planning.settings_for(subject, planning.MAX_TOKENS)
    for offload in (True, False):
        settings = planning.settings_for(subject, planning.MAX_TOKENS, planning.Chosen(offload=offload))
        assert settings == [setting for setting in everything if bool(setting.block) == offload] != []


def test_under_a_large_budget_layers_are_streamed_if_they_are_to_be():
    streamed = zsc.ZeroShotClassifier(ORACLE, offload=True, memory_budget="1GB")
    assert isinstance(streamed.checkpoint.model, StreamedModel) and streamed.plan.rejected == []


@pytest.mark.parametrize("precision", [None, "bf16", "int8"])
@pytest.mark.parametrize("offload", [True, False])
def test_a_budget_too_small_for_what_was_chosen_names_one_that_works_and_it_does(precision, offload):
    levers = {"precision": precision, "offload": offload}
    with pytest.raises(ValueError, match="memory_budget 5.0 MB is too small") as error:
        zsc.ZeroShotClassifier(ORACLE, memory_budget="5MB", **levers)
    budgets = named(error)
    assert len(budgets) == (2 if precision is None else 1)
    assert ("layers streamed" in str(error.value)) == offload
    for budget, lossy in zip(budgets, (False, True)):
        classify = zsc.ZeroShotClassifier(ORACLE, memory_budget=budget, allow_lossy=lossy, **levers)
        assert isinstance(classify.checkpoint.model, StreamedModel) == offload
        assert precision_of(classify.checkpoint) == (precision or ("int8" if lossy else "fp32"))
        assert classify(TEXTS[0], LABELS)["labels"]
        with pytest.raises(ValueError, match="too small"):
            planning.make(ORACLE, memory.parse_size(budget) - 100_000, lossy, chosen=planning.Chosen(**levers))


def test_never_offload_is_refused_where_only_streaming_would_do():
    """base-shape at 150 MB streams if nothing is said."""
    assert planning.make("base-shape", "150MB").setting.block
    with pytest.raises(ValueError, match="memory_budget 150.0 MB is too small") as error:
        planning.make("base-shape", "150MB", chosen=planning.Chosen(offload=False))
    exact, lossy = named(error)
    assert not planning.make("base-shape", exact, chosen=planning.Chosen(offload=False)).setting.block
    made = planning.make("base-shape", lossy, True, chosen=planning.Chosen(offload=False))
    assert not made.setting.block and made.setting.precision == "int8"


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_a_checkpoint_in_memory_is_not_streamed_and_a_streamed_one_not_loaded(oracle, kind):
    for budget in (None, "100MB"):
        with pytest.raises(ValueError, match="^offload True: the layers of .* are in memory; give its name or folder"):
            zsc.ZeroShotClassifier(oracle, offload=True, memory_budget=budget)
        with pytest.raises(ValueError, match="^offload False: the layers of .* are streamed; give its name or folder"):
            zsc.ZeroShotClassifier(stream_layers(ORACLE, attention=kind), offload=False, memory_budget=budget)


# ------------------------------------------------------------------------------------------------ streamed checkpoints


@pytest.mark.parametrize("budget", [None, "100MB"])
def test_a_streamed_checkpoint_takes_levers_that_change_nothing_of_it(budget):
    streamed = stream_layers(ORACLE)
    for levers in ({}, {"offload": True}, {"precision": "fp32"}, {"attention": "sdpa"}):
        classify = zsc.ZeroShotClassifier(streamed, memory_budget=budget, **levers)
        assert classify.checkpoint is streamed and classify.plan.setting.block == streamed.model.block


@pytest.mark.parametrize("stored, precision", [("fp32", "int8"), ("fp32", "bf16"), ("int8", "fp32")])
def test_a_streamed_checkpoint_stays_in_its_precision(folders, stored, precision):
    with pytest.raises(ValueError, match=rf"^precision '{precision}': .* streamed in {stored}, and runs in {stored}$"):
        zsc.ZeroShotClassifier(stream_layers(folders[stored]), precision=precision)


@pytest.mark.parametrize("budget", [None, "100MB"])
@pytest.mark.parametrize("before, after", [("sdpa", "eager"), ("eager", "sdpa"), ("sliding", "sdpa")])
def test_a_streamed_checkpoint_takes_another_attention_and_is_left_as_it_was(expected, before, after, budget):
    streamed = stream_layers(ORACLE, attention="eager" if before == "eager" else "sdpa")
    streamed = attention.use(streamed, "sliding") if before == "sliding" else streamed
    classify = zsc.ZeroShotClassifier(streamed, attention=after, memory_budget=budget)
    assert isinstance(classify.checkpoint.model, StreamedModel)
    assert classify.checkpoint.model.config._attn_implementation == classify.plan.setting.attention == after
    assert streamed.model.config._attn_implementation == before
    assert same(classify(TEXTS, LABELS), expected)


def test_an_eager_streamed_checkpoint_stays_eager_unless_a_budget_needs_sdpa(expected):
    eager = stream_layers(ORACLE, attention="eager")
    subject = planning.subject_of(eager)
    slow, first = planning.settings_for(subject, subject.max_tokens)[:2]
    assert slow == replace(first, attention="eager") and subject.total(first) < subject.total(slow)
    for budget, setting in [(None, slow), (subject.total(slow), slow), (subject.total(slow) - 1, first)]:
        classify = zsc.ZeroShotClassifier(eager, memory_budget=budget)
        assert classify.plan.setting == setting and (classify.checkpoint is eager) == (setting == slow)
        assert classify.checkpoint.model.config._attn_implementation == setting.attention
        assert isinstance(classify.checkpoint.model, StreamedModel) and classify.budget.block == eager.model.block
        assert same(classify(TEXTS, LABELS), expected)
    assert eager.model.config._attn_implementation == "eager"


def test_sliding_attention_and_layers_that_are_streamed_are_told_apart():
    for given, levers in [(ORACLE, {"offload": True}), (stream_layers(ORACLE), {})]:
        with pytest.raises(ValueError, match="attention 'sliding' needs layers that are in memory"):
            zsc.ZeroShotClassifier(given, attention="sliding", **levers)


def test_a_streamed_checkpoint_that_slides_already_may_be_asked_to():
    sliding = attention.use(stream_layers(ORACLE), "sliding")
    assert zsc.ZeroShotClassifier(sliding).plan.setting.attention == "sliding"  # so it can
    assert zsc.ZeroShotClassifier(sliding, attention="sliding").checkpoint is sliding


def test_sliding_by_hand_is_never_streamed_for_a_budget(oracle):
    chosen = planning.Chosen(attention="sliding")
    settings = planning.settings_for(planning.subject_of(ORACLE), planning.MAX_TOKENS, chosen)
    assert {setting.attention for setting in settings} == {"sliding"} and not any(setting.block for setting in settings)
    smallest = min(
        map(planning.subject_of(ORACLE).total, (setting for setting in settings if setting.precision == "fp32"))
    )
    classify = zsc.ZeroShotClassifier(ORACLE, attention="sliding", memory_budget=smallest)
    assert same(classify(TEXTS, LABELS), zsc.ZeroShotClassifier(attention.use(oracle, "sliding"))(TEXTS, LABELS))


# ------------------------------------------------------------------------------------------------- levers and a budget


@pytest.mark.parametrize("given", [ORACLE, "oracle"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_by_hand_needs_no_leave_to_lose_and_no_other_is_taken(request, given, precision):
    given = request.getfixturevalue(given) if given == "oracle" else given
    subject, chosen = planning.subject_of(given), planning.Chosen(precision)
    settings = planning.settings_for(subject, planning.MAX_TOKENS, chosen)
    assert {setting.precision for setting in settings} == {precision}
    for setting, lossy in [(settings[0], True), (settings[-1], False)]:
        budget = subject.total(setting)
        classify = zsc.ZeroShotClassifier(given, precision=precision, memory_budget=budget, allow_lossy=lossy)
        assert precision_of(classify.checkpoint) == precision and classify.plan.predicted <= budget
        assert classify(TEXTS[0], LABELS)["labels"]


def test_a_budget_never_takes_half_precision_by_itself():
    """Of bits, only int8 is a lever of the plan."""
    subject = planning.subject_of(ORACLE)
    settings = planning.settings_for(subject, planning.MAX_TOKENS)
    taken = {
        planning.make(ORACLE, subject.total(setting), allow_lossy=True).setting.precision
        for setting in [settings[0], settings[6], settings[-1]]
    }
    assert taken == {"fp32", "int8"} == {setting.precision for setting in settings}


def test_levers_by_hand_go_with_max_tokens():
    classify = zsc.ZeroShotClassifier(ORACLE, precision="bf16", attention="eager", offload=True, max_tokens=77)
    setting = classify.plan.setting
    assert (setting.precision, setting.attention, setting.max_tokens, bool(setting.block)) == (
        "bf16",
        "eager",
        77,
        True,
    )
    assert classify.budget.max_tokens == 77 and precision_of(classify.checkpoint) == "bf16"


# ------------------------------------------------------------------------------------------------------ unknown values


@pytest.mark.parametrize("given, budget", [("name", None), ("loaded", "1GB"), ("streamed", None)])
@pytest.mark.parametrize(
    "levers, message",
    [
        ({"precision": "fp8"}, "^precision 'fp8': .*runs in fp32"),
        ({"precision": torch.float16}, "^precision torch.float16: .*runs in fp32"),
        ({"precision": "FP32"}, "^precision 'FP32'"),
        ({"precision": ""}, "^precision ''"),
        ({"precision": ["int8"]}, r"^precision \['int8'\]"),
        ({"precision": True}, "^precision True"),
        ({"attention": "flash"}, "^attention 'flash': choose one of eager, sdpa, sliding"),
        ({"attention": ""}, "^attention ''"),
        ({"attention": False}, "^attention False"),
        ({"attention": ("sdpa",)}, r"^attention \('sdpa',\)"),
        ({"offload": "yes"}, "^offload 'yes': give True, False"),
        ({"offload": "cpu"}, "^offload 'cpu'"),
        ({"offload": 2}, "^offload 2"),
        ({"offload": "/tmp"}, "^offload '/tmp'"),
    ],
)
def test_levers_that_there_are_not(oracle, monkeypatch, given, budget, levers, message):
    given = {"name": ORACLE, "loaded": oracle, "streamed": stream_layers(ORACLE)}[given]
    monkeypatch.setattr(planning, "realise", lambda *_: pytest.fail("not told at the door"))
    with pytest.raises(ValueError, match=message):
        zsc.ZeroShotClassifier(given, memory_budget=budget, **levers)


# --------------------------------------------------------------------------------------------------------- elsewhere


@pytest.fixture
def elsewhere(oracle):
    """The small checkpoint on another device, where nothing is computed."""
    return replace(oracle, model=copy.deepcopy(oracle.model).to("meta"))


def test_levers_by_hand_on_a_device_without_a_plan(elsewhere):
    classify = zsc.ZeroShotClassifier(elsewhere, attention="eager")
    assert classify.plan is None and classify.checkpoint.model.config._attn_implementation == "eager"
    assert elsewhere.model.config._attn_implementation == "sdpa"
    for asked in ({}, {"precision": "fp32"}, {"attention": "sdpa"}):
        assert zsc.ZeroShotClassifier(elsewhere, **asked).checkpoint is elsewhere


@pytest.mark.parametrize(
    "levers, message",
    [
        ({"offload": True}, "^offload True: on a GPU give what offloading.stream_layers"),
        ({"offload": False}, "^offload False: on a GPU"),
        ({"attention": "flash"}, "^attention 'flash': choose one of"),
        ({"precision": "fp8"}, "^precision 'fp8': choose one of"),
        ({"memory_budget": "1GB", "precision": "fp16"}, "^memory_budget plans for the CPU"),
    ],
)
def test_levers_that_there_are_not_on_a_device_without_a_plan(elsewhere, levers, message):
    with pytest.raises(ValueError, match=message):
        zsc.ZeroShotClassifier(elsewhere, **levers)


# --------------------------------------------------------------------------------------------------------------- bills


@pytest.mark.parametrize("stored, precision", [(s, p) for s in MADE for p in MADE[s]])
def test_the_bill_of_streamed_layers_has_the_places_they_are_read_into(folders, stored, precision):
    """A layer stands in memory as it is stored, and the part that computes once more as it computes."""
    dtype = None if precision == stored else formats.DTYPES[precision]
    model = stream_layers(folders[stored], dtype=dtype).model
    places = {
        part: sum(tensor.nbytes for own in paths.values() for tensor in own.values())
        for part, paths in model.prefetcher.places.items()
    }
    small = sum(t.nbytes for name, t in model.state_dict().items() if not t.is_meta and "encoder" not in name)
    made = 0
    if stored != precision and precision != "int8":  # else a part computes with the tensors it was read into
        numbers = {part: sum(t.numel() for own in paths.values() for t in own.values())
                   for part, paths in model.prefetcher.places.items()}  # fmt: skip
        made = max(numbers.values()) * model.dtype.itemsize
    bill = planning.subject_of(folders[stored]).bill(planning.Setting(precision, "sdpa", 512, 64, 3072, False))
    beside = sum(size for what, size in bill.items() if what.endswith("as it is stored"))
    assert sum(places.values()) + small + made <= bill["weights"] + beside


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_bill_of_half_precision_has_what_it_is_made_from(oracle, precision):
    """By name the file is mapped while its weights are halved; of a checkpoint in memory they are all there."""
    setting = planning.Setting(precision, "sdpa", 512, 64)
    for given in (ORACLE, oracle):
        bill = planning.subject_of(given).bill(setting)
        whole = sum(tensor.nbytes for tensor in oracle.model.parameters())
        assert bill["weights"] == whole // 2 and bill["what they are made from"] >= whole
    assert "what they are made from" not in planning.subject_of(quantization.quantize(oracle, precision)).bill(setting)


def peak_of(name, texts, **levers):
    """The ProcessPeak of a fresh child that loads and classifies with these levers; its result: what was predicted."""
    labels = LABELS

    def work():  # inside, so that it travels by value and the child need not import this file
        classify = zsc.ZeroShotClassifier(name, **levers)
        classify(texts, labels)
        return classify.plan.predicted

    return memory.process_peak(work)


@pytest.mark.parametrize("precision, offload", [("bf16", False), ("fp16", True)])
def test_a_process_with_mini_in_half_precision_keeps_its_bill(precision, offload):
    peak = peak_of("mini", [TEXTS[0] * 4, TEXTS[1]], precision=precision, offload=offload, memory_budget="1GB")
    print(f"{peak.total / 1e6:.1f} of {peak.result / 1e6:.1f} MB in {peak.seconds:.1f} s")
    assert peak.total <= peak.result <= 2.5 * peak.total


def test_a_process_that_streams_base_shape_in_bf16_keeps_its_smallest_budget():
    texts = ["".join(chr(0x4E00 + 31 * i) for i in range(60)), TEXTS[0]]
    with pytest.raises(ValueError, match="too small") as error:
        planning.make("base-shape", "1MB", chosen=planning.Chosen("bf16"))
    (budget,) = named(error)
    peak = peak_of("base-shape", texts, precision="bf16", memory_budget=budget)
    print(f"{peak.total / 1e6:.1f} of {peak.result / 1e6:.1f} MB in {peak.seconds:.1f} s")
    assert peak.total <= peak.result <= memory.parse_size(budget)
