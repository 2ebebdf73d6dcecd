"""Distilling brings a student near its teacher, gives the same weights each time, and survives an interruption."""

import json
from dataclasses import replace

import machine
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import attention, distillation, quantization

TEXTS = [
    "央行宣布下调利率",
    "国足客场一比零战胜对手",
    "去看海",
    "A股大涨",
    "军演在海上举行",
    "新车上市",
    "房价回落",
    "大学开学",
] * 3
LABELS = ["财经", "体育", "军事", "旅游", "汽车", "教育", "房产", "科技"]


@pytest.fixture(scope="module")
def teacher(oracle):
    """Four layers of random weights, large enough that the layers matter."""
    torch.manual_seed(0)
    config = BertConfig.from_dict(oracle.model.config.to_dict() | {"num_hidden_layers": 4, "initializer_range": 0.1})
    return replace(oracle, model=BertForSequenceClassification(config).eval())


@pytest.fixture(scope="module")
def student(teacher):
    return attention.shrink(teacher, 2)


def distil(student, teacher, steps=40, threads=1, **options):
    """With one thread: two wait for each other after each of these tiny products, for seconds where others compute."""
    torch.set_num_threads(threads)
    return attention.distil(student, teacher, TEXTS, LABELS, steps, **{"rate": 3e-3, "progress": False} | options)


def weights_of(checkpoint):
    return {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}


@pytest.fixture(scope="module")
def before(student, teacher):
    """The weights of both before anybody learned."""
    return weights_of(student), weights_of(teacher)


@pytest.fixture(scope="module")
def learned(student, teacher, before):
    """The student after 40 steps, which several tests look at."""
    return distil(student, teacher)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@torch.inference_mode()
def apart(one, other):
    """Mean squared difference of the logits on texts that were not taught."""
    inputs = one.tokenizer(["央行下调利率，国足去看海"] * 8, LABELS, padding=True, return_tensors="pt")
    return (one.model(**inputs).logits - other.model(**inputs).logits).square().mean().item()


def test_the_student_comes_near_and_nothing_given_changes(student, teacher, before, learned):
    assert apart(learned, teacher) < 0.3 * apart(student, teacher)
    assert same(weights_of(student), before[0]) and same(weights_of(teacher), before[1])
    assert not any(module._forward_hooks for c in (student, teacher, learned) for module in c.model.modules())
    assert not any(parameter.requires_grad for parameter in learned.model.parameters())
    own = student.model.bert.embeddings.word_embeddings.weight
    assert learned.model.bert.embeddings.word_embeddings.weight.data_ptr() == own.data_ptr()  # shared
    assert learned.name.endswith("distilled") and learned.model.config.num_hidden_layers == 2


def test_the_same_arguments_give_the_same_weights(student, teacher, learned):
    assert same(weights_of(distil(student, teacher)), weights_of(learned))
    assert same(*(weights_of(distil(student, teacher, 1, threads=2)) for _ in range(2)))
    assert not same(*(weights_of(distil(student, teacher, 3, seed=seed)) for seed in (0, 1)))


def test_interrupted_work_goes_on_where_it_was(student, teacher, learned, tmp_path):
    whole, seen = weights_of(learned), []

    def interrupt(step, checkpoint):
        seen.append(step)
        if step == 20 and seen.count(20) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(student, teacher, folder=tmp_path / "kept", watch=interrupt, every=10)
    assert seen == [10, 20] and [file.name for file in (tmp_path / "kept").iterdir()] == ["distil.pt"]
    again = distil(student, teacher, folder=tmp_path / "kept", watch=interrupt, every=10)
    assert seen == [10, 20, 30, 40] and same(weights_of(again), whole)
    done = distil(student, teacher, folder=tmp_path / "kept", watch=interrupt, every=10)
    assert seen == [10, 20, 30, 40] and same(weights_of(done), whole)  # nothing was left to do
    for other in ((student, teacher, 41), (attention.shrink(teacher, [0, 1]), teacher), (student, student)):
        with pytest.raises(ValueError, match="distil.pt is of another student, teacher, lesson, rate or seed"):
            distil(*other, folder=tmp_path / "kept")
    (tmp_path / "kept" / "distil.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match="distil.pt is no state of distil, or broken"):
        distil(student, teacher, folder=tmp_path / "kept")


def test_a_state_that_cannot_be_written_leaves_the_last_one(student, teacher, tmp_path, monkeypatch):
    distil(student, teacher, folder=tmp_path, steps=10)
    kept = (tmp_path / "distil.pt").read_bytes()
    monkeypatch.setattr(torch, "save", lambda state, file: file.write_bytes(b"half") and 1 / 0)
    optimizer = torch.optim.SGD(student.model.parameters())
    state = distillation.State(tmp_path / "other", (None, student), student.model, optimizer)
    with pytest.raises(ZeroDivisionError):
        state.keep()
    state.file = tmp_path / "distil.pt"
    with pytest.raises(ZeroDivisionError):
        state.keep()
    assert (tmp_path / "distil.pt").read_bytes() == kept
    assert {file.name for file in tmp_path.iterdir()} == {"distil.pt", "other"}


def test_any_teacher_with_the_same_tokens_will_do(student, teacher):
    """In eight bits, or in another shape, when only logits can be compared."""
    assert apart(distil(student, quantization.quantize(teacher, "int8"), 20), teacher) < 0.4 * apart(student, teacher)
    wide = BertConfig.from_dict(teacher.model.config.to_dict() | {"hidden_size": 64})
    torch.manual_seed(1)
    other = replace(teacher, model=BertForSequenceClassification(wide).eval())
    assert distillation.depths_of(student, other) is None
    assert apart(distil(student, other, 20), other) < 0.5 * apart(student, other)


def test_hidden_states_are_held_against_those_before_the_next_kept_layer(student, teacher):
    assert attention.shrink(teacher, [0, 2]).model.config.kept_layers == [0, 2]
    assert distillation.depths_of(attention.shrink(teacher, [0, 2]), teacher) == [2, 4]
    assert distillation.depths_of(attention.shrink(teacher, [1, 2, 3]), teacher) == [2, 3, 4]
    twice = attention.shrink(attention.shrink(teacher, [0, 2, 3]), [0, 1])
    assert distillation.depths_of(twice, teacher) == [2, 4]
    assert distillation.depths_of(twice, attention.shrink(teacher, [0, 2, 3])) is None  # not of whole models only
    assert distillation.depths_of(teacher, teacher) is None


def test_each_text_may_have_labels_of_its_own(student, teacher, monkeypatch):
    own = [LABELS[i % 6 : i % 6 + 2] for i in range(len(TEXTS))]
    torch.set_num_threads(1)
    texts, taught, loss = [f"{number}{text}" for number, text in enumerate(TEXTS)], [], distillation.step_loss
    monkeypatch.setattr(distillation, "step_loss", lambda s, t, pairs: taught.extend(pairs) or loss(s, t, pairs))
    attention.distil(student, teacher, texts, own, 10, progress=False)
    assert len({text for text, _ in taught}) > 15
    assert all(sorted(labels) == sorted(own[texts.index(text)]) for text, labels in taught)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(teacher):
    """Hidden states are held against the right ones: else equal models would differ."""
    whole = attention.shrink(teacher, 4)
    assert distillation.step_loss(whole, teacher, [(TEXTS[0], LABELS)]).item() < 1e-6
    assert distillation.step_loss(attention.shrink(teacher, 3), teacher, [(TEXTS[0], LABELS)]).item() > 0.1


def test_the_loss_of_a_step_is_what_the_docstring_says(teacher, monkeypatch):
    """By hand: hidden states after layers 0 and 2 of four against the teacher's after two and four layers."""
    monkeypatch.setattr(distillation, "has_bf16", lambda: False)
    cut = attention.shrink(teacher, [0, 2])
    inputs = teacher.tokenizer([TEXTS[0]] * 3, LABELS[:3], padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours, theirs = (c.model(**inputs, output_hidden_states=True) for c in (cut, teacher))
    expected = (ours.logits - theirs.logits).square().mean() / theirs.logits.var()
    found, wanted = (side.logits[:, teacher.entailment_id].softmax(0) for side in (ours, theirs))
    expected += (wanted * (wanted / found).log()).sum()
    real = inputs["attention_mask"].bool()
    for here, there in ((1, 2), (2, 4)):
        states = theirs.hidden_states[there][real]
        expected += (ours.hidden_states[here][real] - states).square().mean() / states.var()
    loss = distillation.step_loss(cut, teacher, [(TEXTS[0], LABELS[:3])])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_student_with_sliding_attention_learns_too(student, teacher):
    sliding = attention.use(student, "sliding", window=3)
    assert apart(distil(sliding, teacher, 20), teacher) < 0.5 * apart(sliding, teacher)


def test_the_rate_rises_and_falls():
    lesson = distillation.Lesson((), (), 1000, 1e-3, 0)
    rates = [lesson.rate_of(step) for step in range(1000)]
    assert max(rates) == rates[distillation.WARM_UP - 1] and 0 < rates[-1] < 2e-6 and rates[0] < 1e-4


def test_a_distilled_student_is_kept_and_classifies(student, teacher, tmp_path):
    learned = distil(student, teacher, 5)
    again = zsc.load(quantization.save(learned, tmp_path / "kept"))
    assert zsc.ZeroShotClassifier(again)(TEXTS, LABELS) == zsc.ZeroShotClassifier(learned)(TEXTS, LABELS)
    assert quantization.precision_of(quantization.quantize(learned, "int8")) == "int8"


def test_a_label_may_take_half_of_a_pair(student, teacher):
    half = "财" * (distillation.TOKENS // 2 - 2)
    assert len(student.tokenizer(half).input_ids) == 32
    distillation.check(student, teacher, TEXTS, [half], 1, 1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": 0}, "steps 0: give a whole number"),
        ({"steps": 1.5}, "steps 1.5"),
        ({"every": 0}, "every 0"),
        ({"texts": "央行"}, "give lists, not a string"),
        ({"labels": "财经,体育"}, "give lists, not a string"),
        ({"labels": ["财" * 31]}, "is too long: a pair is cut to 64 tokens"),
        ({"texts": []}, "at least one of each"),
        ({"texts": ["央行", " "]}, "no text that is empty"),
        ({"labels": []}, "at least one of each"),
        ({"labels": ["财经", ""]}, "no label that is empty"),
        ({"labels": [["财经"]] * 3}, "3 lists of labels for 24 texts"),
        ({"labels": [["财经"]] * 23 + [[]]}, "each list needs at least one label"),
    ],
)
def test_wrong_lessons_are_refused(student, teacher, change, words):
    arguments = {"texts": TEXTS, "labels": LABELS, "steps": 1} | change
    with pytest.raises(ValueError, match=words):
        attention.distil(student, teacher, **arguments)


def test_students_and_teachers_that_do_not_fit(student, teacher, mini):
    with pytest.raises(ValueError, match="give one in fp32 on the CPU"):
        distil(quantization.quantize(student, "int8"), teacher)
    with pytest.raises(ValueError, match="give one in fp32 on the CPU"):
        distil(quantization.quantize(student, "bf16"), teacher)
    with pytest.raises(ValueError, match="another vocabulary than its teacher 'mini'"):
        distil(student, mini)
    with pytest.raises(ValueError, match="has other classes"):
        distil(student, replace(teacher, entailment_id=2, contradiction_id=0))


def test_the_recorded_runs_reach_their_goals():
    """benchmarks/distil.py takes half an hour; notebook 04 does the first steps again."""
    record = json.loads((machine.RECORDS / "avx512-vnni-bf16.json").read_text("utf-8"))["distil"]
    whole, start = record["whole"]["topics_familiar"], record["short"]["curve"][0]["topics_familiar"]
    in_five = [point for point in record["short"]["curve"] if point["minutes"] <= 5][-1]
    assert len(record["kept"]) == 6 and record["threads"] == 2
    assert in_five["topics_familiar"] - start >= (whole - start) / 2
    assert record["long"]["curve"][-1]["topics_familiar"] >= whole - 0.04
