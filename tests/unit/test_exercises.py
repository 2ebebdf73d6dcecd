"""Guesses are kept whatever the file does, answers say how far off they are, checks tell the truth in one line."""

import doctest
import json
import os
import threading
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from transformers import BertConfig

from zsc_utils import claims, exercises, memory
from zsc_utils.exercises import Guess, Wrong, _store, lesson_01, lesson_03, lesson_04, lesson_05, lesson_07


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A file of guesses that does not exist yet, and a process that has kept nothing."""
    file = tmp_path / "cache" / "guesses.json"
    monkeypatch.setenv("ZSC_GUESSES", str(file))
    start_anew(monkeypatch)
    return file


def start_anew(monkeypatch):
    """What a new process knows: nothing but the file."""
    monkeypatch.setattr(_store, "_own", {kind: {} for kind in _store.KINDS})
    monkeypatch.setattr(_store, "_told", set())


@pytest.fixture
def asked(monkeypatch):
    """Four questions in place of the lessons' own."""
    questions = [
        Guess("peak", "mb", "peak of one text", 1500, (1000, 2000)),
        Guess("weights", "mb", "bytes of the weights", 440, 440),
        Guess("padding", "percent", "tokens that are padding", 20),
        Guess("lost", "rows", "rows that are lost", 0),
    ]
    monkeypatch.setattr(exercises, "_lessons", lambda: [SimpleNamespace(GUESSES=questions, __name__="lesson")])


def test_the_examples_run(monkeypatch):
    monkeypatch.setattr(exercises, "_exercises", dict(exercises.all_exercises()))  # one of them registers an exercise
    assert doctest.testmod(exercises) == (0, 6)


# ---------------------------------------------------------------------------------------------------------- guesses


def test_a_guess_is_kept_for_the_next_process(store, asked, monkeypatch, capsys):
    exercises.guess("peak", mb=1500)
    start_anew(monkeypatch)
    exercises.answer("peak", mb=17.301504)
    assert capsys.readouterr().out.splitlines() == [
        "Your guess: 1,500 MB for peak of one text.",
        "Peak of one text:",
        "  you                   1,500 MB   87 times too high",
        "  the article  1,000 to 2,000 MB   at least 58 times too high",
        "  measured               17.3 MB",
    ]
    assert json.loads(store.read_text()) == {"guesses": {"peak": 1500}, "measured": {"peak": 17.301504}, "bets": {}}
    assert exercises.measured() == {"peak": (1500, 17.301504)}


def test_an_answer_without_a_guess_and_without_the_article(asked, capsys):
    exercises.answer("padding", percent=37.6)
    out = capsys.readouterr().out
    assert "no guess" in out and "37.6 %" in out and "the article" not in out
    assert exercises.measured() == {}


def test_an_answer_says_where_its_value_comes_from(asked, capsys):
    exercises.answer("peak", by="computed", mb=3)
    out = capsys.readouterr().out
    assert "computed" in out and "measured" not in out
    with pytest.raises(ValueError, match="by='felt' is none of measured, computed, predicted"):
        exercises.answer("peak", by="felt", mb=3)


def test_three_dots_are_no_guess_and_take_one_back(store, asked, capsys):
    exercises.guess("peak", mb=...)
    assert (
        capsys.readouterr().out == "… No guess yet: write a number for peak of one text, in place of the three dots.\n"
    )
    exercises.guess("peak", mb=3)
    exercises.guess("peak", mb=...)
    exercises.answer("peak", mb=3)
    assert "no guess" in capsys.readouterr().out and json.loads(store.read_text())["guesses"] == {}


@pytest.mark.parametrize(
    "guessed, found, unit, says",
    [
        (1500, 17.3, "mb", "87 times too high"),
        (10, 50, "mb", "5.0 times too low"),
        (440, 409.1, "mb", "8 % too high"),
        (88, 100, "mb", "12 % too low"),
        (17.3, 17.301504, "mb", "equal"),
        (1000, 1004, "mb", "less than 1 % too low"),
        (20, 37.6, "percent", "17.6 percentage points too low"),
        (5, 0, "rows", "too high by 5 rows"),
        (0, 3, "rows", "too low by 3 rows"),
        (-1, 2, "mb", "too low by 3 MB"),
        (0, 0, "rows", "equal"),
    ],
)
def test_how_far_off_is_said_in_words(guessed, found, unit, says):
    assert exercises.how_far(guessed, found, unit) == says


@pytest.mark.parametrize(
    "found, says", [(1500, "in this range"), (500, "at least 2.0 times too high"), (4000, "at least 2.0 times too low")]
)
def test_the_article_s_range(asked, capsys, found, says):
    exercises.answer("peak", mb=found)
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    "call, complaint",
    [
        (lambda: exercises.guess("peek", mb=1), "no guess is called 'peek'; did you mean 'peak'?"),
        (lambda: exercises.guess("peak", gb=1), r'peak is asked in mb, not in gb: guess\("peak", mb=...\)'),
        (lambda: exercises.answer("peak"), r'not in none: answer\("peak", mb=...\)'),
        (lambda: exercises.guess("peak", mb="1500"), "guess: mb='1500' is no finite number; write one, such as 1500"),
        (lambda: exercises.guess("peak", mb=True), "mb=True"),
        (lambda: exercises.answer("peak", mb=float("nan")), "answer: mb=nan is no finite number"),
        (lambda: exercises.answer("peak", mb=...), "the measurement is missing"),
        (lambda: exercises.check("zebra", 1), "no exercise is called 'zebra'. There are neutral"),
    ],
)
def test_a_wrong_call_says_the_way_out(call, complaint, request):
    if "zebra" not in complaint:
        request.getfixturevalue("asked")
    with pytest.raises(ValueError, match=complaint):
        call()


# ---------------------------------------------------------------------------------------------------- the kept file


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff\xfe", b'{"guesses": []}', b'{"guesses": {"peak": "1"}}', b'{"measured": {"peak": NaN}}',
     b'{"bets": {"a": 1}}', b"[" * 100_000],
)  # fmt: skip
def test_a_broken_file_is_told_once_and_replaced(store, asked, capsys, content):
    store.parent.mkdir()
    store.write_bytes(content)
    exercises.guess("peak", mb=2)
    exercises.answer("peak", mb=1)
    out = capsys.readouterr().out
    assert out.count("Earlier guesses cannot be read") == 1 and "2.0 times too high" in out
    assert json.loads(store.read_text())["guesses"] == {"peak": 2}


@pytest.mark.parametrize("way", ["a file in the way", "a folder in its place"])
def test_a_file_that_cannot_be_written_is_told_once(store, asked, capsys, way):
    if way == "a file in the way":
        store.parent.write_text("no folder")
    else:
        store.mkdir(parents=True)
    exercises.guess("peak", mb=2)
    exercises.guess("weights", mb=400)
    exercises.answer("peak", mb=1)
    out = capsys.readouterr().out
    assert out.count("Your guesses are not kept after this session") == 1
    assert "2.0 times too high" in out  # this process knows it all the same
    if store.is_dir():
        assert [file.name for file in store.parent.iterdir()] == ["guesses.json"]  # no unfinished file is left


def test_a_home_that_there_is_not_stops_no_lesson(asked, monkeypatch, capsys):
    def no_home():
        raise RuntimeError("no home folder")

    monkeypatch.setattr(_store, "store_file", no_home)
    exercises.guess("peak", mb=2)
    assert "not kept after this session (RuntimeError: no home folder)" in capsys.readouterr().out


def test_the_file_is_whole_even_if_writing_it_fails(store, asked, monkeypatch, capsys):
    exercises.guess("peak", mb=2)
    before = store.read_text()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    exercises.guess("peak", mb=3)
    assert store.read_text() == before and os.listdir(store.parent) == [store.name]
    assert "no space left" in capsys.readouterr().out


def test_a_notebook_keeps_its_guesses_when_another_one_wrote_meanwhile(store, asked):
    exercises.guess("peak", mb=2)
    store.write_text(json.dumps({"guesses": {"weights": 400}}))  # the other one had read before the guess was written
    exercises.answer("peak", mb=1)
    assert json.loads(store.read_text())["guesses"] == {"weights": 400, "peak": 2}


def test_without_the_variable_the_file_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("ZSC_GUESSES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _store.store_file() == tmp_path / "zsc_utils" / "guesses.json"


# ----------------------------------------------------------------------------------------------------------- checks


@pytest.fixture
def doubled(monkeypatch):
    """An exercise of its own."""
    monkeypatch.setattr(exercises, "_exercises", {})
    monkeypatch.setattr(exercises, "_lessons", lambda: [])

    @exercises.exercise("doubled", "Write doubled(x).")
    def doubled(attempt):
        if attempt(3) != 6:
            raise Wrong("Twice is missing.")
        return "Twice as much."


@pytest.mark.parametrize(
    "attempt, line",
    [
        (lambda x: 2 * x, "✓ Twice as much."),
        (lambda x: x, "✗ Twice is missing."),
        (lambda x: ..., "… Not filled in yet. Write doubled(x)."),
        (lambda x: {"x": ...}, "… Not filled in yet. Write doubled(x)."),
        (..., "… Not filled in yet. Write doubled(x)."),
        (7, "✗ Your code raised TypeError: 'int' object is not callable"),
    ],
)
def test_a_check_prints_one_line(doubled, capsys, attempt, line):
    assert exercises.check("doubled", attempt) is None
    assert capsys.readouterr().out == line + "\n"


def test_an_exception_is_told_with_its_line_and_no_traceback(doubled, capsys):
    space = {}
    exec(compile("def half(x):\n    return x / 0\n\ndef doubled(x):\n    return half(x)", "<cell>", "exec"), space)
    exercises.check("doubled", space["doubled"])
    assert capsys.readouterr().out == "✗ Your code raised ZeroDivisionError: division by zero (line 2 of its cell)\n"


def test_a_function_that_returns_nothing_is_told_so(doubled):
    assert exercises.judge("doubled", lambda x: None).says == "Your function returns nothing: is `return` missing?"
    assert exercises.judge("doubled", lambda x: x).says == "Twice is missing."


def test_only_a_function_that_writes_may_return_nothing():
    silent = {name for name, one in exercises.all_exercises().items() if not one.returns}
    assert silent == {"worker-two-bugs"}
    for name in exercises.all_exercises().keys() - silent - {"fit-60mb", "neutral"}:
        assert "is `return` missing?" in exercises.judge(name, lambda *given: None).says, name


def test_a_right_number_s_neighbour_is_not_called_equal():
    says = exercises.judge("matrix-bytes", lambda batch, heads, length: 4 * batch * heads * length**2 - 1).says
    assert says.endswith("returns 12,582,911: too low by 1.")


def test_half_a_mended_worker_hears_of_the_name_first():
    def worker(part, answers, output):
        unfinished = output / f"unfinished-{part}"
        with unfinished.open("w") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in answers)
        unfinished.replace(output / lesson_07.name_of(part))

    assert "on the same part" in exercises.judge("worker-two-bugs", worker).says


def test_stopping_a_cell_is_not_told_as_an_error(doubled):
    def stopped(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("doubled", stopped)


def test_a_name_is_taken_once(doubled):
    with pytest.raises(ValueError, match="exercise 'doubled' is in .*test_exercises already"):
        exec("@exercise('doubled', '')\ndef doubled(_): ...", {"exercise": exercises.exercise, "__name__": "other"})


def test_a_guess_stands_once_in_all_lessons(monkeypatch):
    assert len(exercises.all_guesses()) >= 40
    twice = SimpleNamespace(GUESSES=[Guess("peak", "mb", "peak", 1)], __name__="lesson_99")
    monkeypatch.setattr(exercises, "_lessons", lambda: [twice, twice])
    with pytest.raises(ValueError, match="'peak' stands twice, the second time in lesson_99"):
        exercises.all_guesses()


@pytest.mark.parametrize("one", exercises.all_guesses().values(), ids=lambda one: one.name)
def test_a_question_is_one_phrase_with_a_unit(one, capsys):
    assert one.unit.isidentifier() and one.asks[0].islower() == (one.asks[:4] != "SDPA") and one.asks[-1] not in ".?"
    assert one.range is None or one.range[0] <= one.range[1]
    exercises.guess(one.name, **{one.unit: one.naive})
    exercises.answer(one.name, **{one.unit: one.naive})
    assert "equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, claim, factor",
    [("parameter-count", "parameter-count", 1), ("int8-share", "int8-share", 1),
     ("peak-512", "activations-at-512", 1000), ("whole-process", "table-batch-1", 1000)],
)  # fmt: skip
def test_the_article_s_figures_are_the_ledger_s(name, claim, factor):
    figure = {claim.id: claim.figure for claim in claims.read()}[claim]
    ends = [float(end) * factor for end in figure.split()[0].split("-")]
    assert exercises.all_guesses()[name].range == (ends[0], ends[-1])


# ---------------------------------------------------------------------- what is right is what the module predicts too


@pytest.mark.parametrize("shape", lesson_01.PASSES)
def test_the_pencil_is_within_layer_norm_of_the_prediction(shape):
    B, S, h, f = shape
    config = BertConfig(hidden_size=h, intermediate_size=f, num_attention_heads=h // 64, num_hidden_layers=3)
    predicted = memory.predict(config, B, S, threads=1).peak_activations
    assert 0 <= predicted - lesson_01.pencil(*shape)[2] <= 8 * B * S


def test_the_module_s_own_prediction_is_a_right_answer():
    def my_predict(B, S, h, f):
        config = BertConfig(hidden_size=h, intermediate_size=f, num_attention_heads=h // 64, num_hidden_layers=3)
        return memory.predict(config, B, S, threads=1).peak_activations

    assert exercises.judge("my-predict", my_predict).right


def test_the_module_s_own_count_of_weights_is_a_right_answer():
    def weights_bytes(config):
        return 4 * sum(memory.parameters(BertConfig(**vars(config))).values())

    assert exercises.judge("weights-bytes", weights_bytes).right


def test_the_module_s_own_scores_are_a_right_answer():
    def matrix_bytes(batch, heads, length):
        config = BertConfig(hidden_size=heads * 64, num_attention_heads=heads)
        peak = memory.predict(config, batch, length, attention="eager", threads=1)
        return next(m.tensors["scores"] for m in peak.moments if "scores" in m.tensors)

    assert exercises.judge("matrix-bytes", matrix_bytes).right


def test_torch_s_own_softmax_is_a_right_answer():
    def sliding(scores, window):
        place = torch.arange(len(scores))
        near = (place[:, None] - place).abs() <= window
        return torch.from_numpy(scores).masked_fill(~near, -torch.inf).softmax(1).numpy()

    assert exercises.judge("sliding", sliding).right
    assert lesson_04.softmax(torch.ones(2, 2).numpy()).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_maximum_that_falls_overflows():
    def online_softmax(state, scores, values):
        top, total, weighted = state
        shrink, raised = np.exp(top - scores.max()), np.exp(scores - scores.max())  # right, until scores are far apart
        return scores.max(), total * shrink + raised.sum(), weighted * shrink + raised @ values

    assert "overflow" in exercises.judge("online-softmax", online_softmax).says


# ------------------------------------------------------------------------------- other right ways, which must pass too


def prefetch_with_a_thread(read, count):
    box = {}

    def fetch(number):
        try:
            box[number] = read(number), None
        except Exception as error:
            box[number] = None, error

    fetch(0)
    for number in range(count):
        reader = threading.Thread(target=fetch, args=(number + 1,), daemon=True)
        layer, error = box.pop(number)
        if error:
            raise error
        if number + 1 < count:
            reader.start()
        yield layer
        if number + 1 < count:
            reader.join()


def worker_with_a_named_file(part, answers, output):
    result = output / f"part-{part:04}.jsonl"
    if not result.exists():
        unfinished = output / f"{os.getpid()}-{threading.get_ident()}.unfinished"
        unfinished.write_text("\n".join(map(json.dumps, answers)))
        os.replace(unfinished, result)


def shortest_first(lengths, max_tokens):
    batches = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not batches or lengths[index] * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return tuple(batches)


@pytest.mark.parametrize(
    "name, attempt",
    [
        ("prefetch", prefetch_with_a_thread),
        ("worker-two-bugs", worker_with_a_named_file),
        ("token-budget-batches", shortest_first),
        ("worker-two-bugs", lambda *given: worker_with_a_named_file(*given) or "done"),
        ("trust-threshold", lambda scores, right, wanted: next(
            (score for score in sorted(scores) if right[scores >= score].mean() >= wanted), None)),
        ("fit-60mb", {"memory_budget": 60_000_000, "precision": "int8"}),
        ("resume", lambda total, rows, names: [
            [first, min(first + rows, total)] for first in range(0, total, rows)
            if not {f"part-{first}.jsonl"} & set(names)]),
    ],
)  # fmt: skip
def test_another_right_way_is_right(name, attempt):
    judged = exercises.judge(name, attempt)
    assert judged.right, judged


# ------------------------------------------------------------------------------------- attempts that do odd things


def test_a_generator_that_never_ends_is_told(monkeypatch):
    monkeypatch.setattr(lesson_05, "PATIENCE", 0.6)
    monkeypatch.setattr(lesson_05, "AHEAD", 0.05)
    release = threading.Event()

    def prefetch(read, count):
        yield from prefetch_with_a_thread(read, count)
        release.wait()

    judged = exercises.judge("prefetch", prefetch)
    release.set()
    assert judged.right is False and "never ends" in judged.says


def test_a_loop_that_waits_for_a_dead_reader_is_told(monkeypatch):
    monkeypatch.setattr(lesson_05, "PATIENCE", 0.6)
    monkeypatch.setattr(lesson_05, "AHEAD", 0.05)
    release = threading.Event()

    def prefetch(read, count):
        try:
            yield from prefetch_with_a_thread(read, count)
        except OSError:
            release.wait()

    judged = exercises.judge("prefetch", prefetch)
    release.set()
    assert "the reader's error must reach it" in judged.says


def test_a_check_leaves_threads_as_they_were():
    hook, threads = threading.excepthook, torch.get_num_threads()
    exercises.judge("prefetch", lambda read, count: iter(()))
    exercises.judge("fit-60mb", {"memory_budget": "1MB"})
    assert threading.excepthook is hook and torch.get_num_threads() == threads


def test_an_option_that_there_is_not_is_named():
    assert "no option budget" in exercises.judge("fit-60mb", {"budget": "60MB"}).says


@pytest.mark.parametrize("name", ["part-0000.json", "0000.jsonl"])
def test_a_result_under_another_name_is_told(name):
    def worker(part, answers, output):
        (output / name).write_text("".join(json.dumps(answer) for answer in answers))

    judged = exercises.judge("worker-two-bugs", worker)
    assert "There is no part-0002.jsonl" in judged.says and name in judged.says


def test_batches_that_are_empty_or_hold_a_pair_twice_are_told():
    for batches, says in (([[0], []], "is empty"), ([[0, 1], [1]], "in two batches")):
        with pytest.raises(Wrong, match=says):
            lesson_03.check_indices(batches, [5, 5])
    assert lesson_07.name_of(7) == "part-0007.jsonl"


# ------------------------------------------------------------------------------------------------------------- bets


def test_bets_are_kept_and_scored(store, capsys, monkeypatch):
    assert exercises.score_bets().startswith("No bets yet")
    first, second = claims.read()[:2]
    exercises.bet(second.id, second.verdict)
    exercises.bet(first.id, "not testable here")
    assert f"Your bet: {second.verdict}. The claim: {second.says} ({second.figure})." in capsys.readouterr().out
    start_anew(monkeypatch)
    assert exercises.bets() == {first.id: "not testable here", second.id: second.verdict}
    scored = exercises.score_bets().splitlines()
    assert scored[0].startswith("✗") and scored[1].startswith("✓") and scored[2] == "1 of 2 bets right"
    assert exercises.score_bets([second]).endswith("1 of 1 bets right")


@pytest.mark.parametrize(
    "claim, verdict, complaint",
    [
        ("parameter-cuont", "refuted", "did you mean 'parameter-count'"),
        ("parameter-count", "open", "choose one of conf"),
    ],
)
def test_a_bet_on_nothing_is_refused(claim, verdict, complaint):
    with pytest.raises(ValueError, match=complaint):
        exercises.bet(claim, verdict)


# ------------------------------------------------------------------------------------------------------------ chart


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_the_chart_shows_what_was_measured_and_nothing_else(asked, axes):
    exercises.guess("peak", mb=1500)
    exercises.guess("weights", mb=300)
    exercises.answer("weights", mb=400)
    exercises.guess("lost", rows=1)
    exercises.answer("lost", rows=0)
    exercises.chart(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bytes of the weights: 400\u00a0MB"]
    assert [text.get_text() for text in axes.texts] == ["you 0.75x", "article 1.1x"]
    assert [line.get_xdata()[0] for line in axes.lines] == [0.75, 1.1, 1]
    assert axes.get_title() == "Within a factor of two: you in 1 of 1, the article in 1 of 1"
    assert "1 left out: not above zero" in axes.get_xlabel() and axes.get_xscale() == "log"


def test_the_chart_of_chosen_questions(asked, axes):
    for name, guessed, found in (("peak", 1500, 17.3), ("weights", 440, 409)):
        exercises.guess(name, mb=guessed)
        exercises.answer(name, mb=found)
    exercises.chart(axes, ["peak"])
    assert [text.get_text() for text in axes.texts] == ["you 87x", "article 58x to 116x"]
    assert axes.get_title() == "Within a factor of two: you in 0 of 1, the article in 0 of 1"
    with pytest.raises(ValueError, match="did you mean 'weights'"):
        exercises.chart(axes, ["weight"])


def test_a_chart_of_nothing_says_so(asked, axes):
    exercises.guess("peak", mb=1500)
    exercises.chart(axes)
    assert [text.get_text() for text in axes.texts] == ["No guess was measured yet."]
