"""What the package says to a reader is Chinese in Chinese, and the same as ever in English."""

import argparse
import ast
import doctest
import errno
import json
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attempts import CELLS, EXERCISES, attempt, wrong_answers
from matplotlib import pyplot
from matplotlib.text import Text
from test_charts import CHARTS, PARTS
from test_drawings import LONG, PICTURES
from test_evaluation import report_of
from transformers import BertConfig

import zsc_utils as zsc
from zsc_utils import _charts_01, _charts_07, _svg, claims, exercises, language, memory, onnx_plan, plan, plots
from zsc_utils.exercises import _store, lesson_05, lesson_07

ROOT = Path(__file__).parents[2]
ENTRIES = [entry for own in language.entries().values() for entry in own.items()]
DIGITS = re.compile(r"\d[\d,.]*\d|\d")
BASE = BertConfig(vocab_size=21128, num_labels=3)
# Latin words that stay in Chinese: units, names of things that the glossary leaves alone, and names in tests' data
STAYING = set(
    "MB GB kB TB fp32 fp16 bf16 int8 BERT GELU LayerNorm softmax exp CLS eager sdpa SDPA Python Ray Rss Pss MKL ONNX "
    "Runtime CrossEncoder ModelScope transformers pipeline quantize_dynamic accelerate batch_size memory_budget torch "
    "from_pretrained onnxruntime import pickle headlines jsonl mini base trim numpy tokenizers linear layer "
    "intermediate dense all one each sport food mapped unpacked before All".split()
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """No guess has been kept."""
    monkeypatch.setenv("ZSC_GUESSES", str(tmp_path / "guesses.json"))
    monkeypatch.setattr(_store, "_own", {kind: {} for kind in _store.KINDS})


def is_chinese(text):
    """Whether a text has Chinese in it, and no four English words in a row, as sentences have."""
    prose = re.sub(r"\w+\([^()]*\)", "", text)  # no calls
    return bool(language.CHINESE.search(text)) and not re.search(r"(?:\b[A-Za-z]{2,},? ){3}[a-z]{2,}", prose)


def left(text):
    """The words of a text that are neither Chinese nor to stay as they are."""
    return set(re.findall(r"[A-Za-z_]{2,}\d*", text.replace("\\mathdefault", ""))) - STAYING


# --------------------------------------------------------------------------------------------------------- the table


def test_the_examples_run():
    assert doctest.testmod(language) == (0, 5)


def test_an_entry_has_the_same_placeholders_and_digits():
    for english, chinese in ENTRIES:
        placeholders = [set(language.PLACEHOLDER.findall(text)) for text in (english, chinese)]
        assert placeholders[0] == placeholders[1], english
        texts = [
            language.PLACEHOLDER.sub("", text).replace("1 MB", "").replace("1/", "") for text in (english, chinese)
        ]
        assert Counter(DIGITS.findall(texts[0])) == Counter(DIGITS.findall(texts[1])), english


TIGHT = re.compile(r"[一-鿿][A-Za-z0-9]|[A-Za-z0-9%][一-鿿]")
FOREIGN = re.compile(r"[一-鿿] ?[,;:?!]|[一-鿿] [一-鿿]|  ")


def test_chinese_stands_apart_from_letters_and_digits_and_has_its_own_punctuation():
    prose = [re.sub(r"\([^()]*\)", "()", one) for _, one in ENTRIES if not one.startswith("'第 '")]  # that one is code
    assert not [one for one in prose if TIGHT.search(one) or FOREIGN.search(one)]


def test_an_english_text_stands_once():
    assert max(Counter(english for english, _ in ENTRIES).values()) == 1


OF_PYTHON = ("[Errno]", "codec can't decode bytes in position")  # in C; the rest is in two modules


def literals(folder):
    """What string literals say, those of two modules of Python's too, and the ledger."""
    for file in (*folder.rglob("*.py"), Path(argparse.__file__), Path(json.decoder.__file__)):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield claims.LEDGER.read_text(encoding="utf-8")


def test_no_entry_is_of_a_text_that_there_is_not():
    """Each word of it is said somewhere: names of ways in the benchmarks' records, those of events in lesson 00, the
    errors of the system and of Python."""
    said = "\n".join([*literals(ROOT / "zsc_utils"), *map(os.strerror, errno.errorcode), *OF_PYTHON])
    said += "".join(file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks" / "records").glob("*.json"))
    said += (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    said += "\n".join(word.upper() for word in claims.VERDICTS)
    known = set(re.findall(r"[\w']+", said))
    for english, _ in ENTRIES:
        assert set(re.findall(r"[\w']+", language.PLACEHOLDER.sub(" ", english))) <= known, english


# ----------------------------------------------------------------------------------------------------- the mechanism


@pytest.fixture
def table(monkeypatch):
    """A function that puts a small table in the place of the real one."""

    def put(**sections):
        monkeypatch.setattr(language, "entries", lambda: sections)
        for cached in (language._compiled, language._whole, language._part):
            cached.cache_clear()
        language.use("zh")

    yield put
    language.use("en")
    for cached in (language._compiled, language._whole, language._part):
        cached.cache_clear()


@pytest.mark.parametrize(
    "text, chinese",
    [
        ("a cat", "猫"),
        (" a cat\n", " 猫\n"),
        ("two: a cat and bread", "二：bread 和猫"),
        ("two: 3 cats and a cat; a cat, bread", "二：猫；猫，bread 和 3 只猫"),
        ("two: 3,000.5 cats and rats", "二：rats 和 3,000.5 只猫"),
        ("two: many cats and 1.5 GB", "二：1.5 GB 和 many cats"),
        ("a cat\nbread", "猫\nbread"),
        ("3 cats", "3 cats"),  # [parts] are not for whole texts
        ("{} of 5", "5 中的 {}"),
        ("12", "12"),
        ("it took 2 s", "用 2 s"),
        ("it took 2 MB", "占 2 MB"),
        ("it took two", "要 two"),
        ("no a cat: bread, a cat", "没有 a cat：bread, a cat"),  # words of the reader stay as they are
        ("why: it took a cat, 5 MB", "因为要猫，5 MB"),  # a text in a text, with its commas
    ],
)
def test_a_text_is_looked_for_as_a_whole_then_as_a_pattern_then_by_line(table, text, chinese):
    table(
        lines={"a cat": "猫", "two: {0} and {1}": "二：{1} 和 {0}", "{} of {n0}": "{n0} 中的 {}",
               "it took {s0}": "占 {s0}", "it took {n0} s": "用 {n0} s", "it took {0}": "要 {0}",
               "no {w0}: {w1}": "没有 {w0}：{w1}", "why: {t0}": "因为{t0}"},
        parts={"{n0} cats": "{n0} 只猫"},
    )  # fmt: skip
    assert language.translated(text) == chinese
    assert language.translated(chinese) == chinese


def test_a_pattern_without_words_changes_nothing_that_it_does_not_know(table):
    table(lines={"of {0}": "{0} 的"}, parts={"{0}: {1}": "{0}：{1}", "name": "名", "a, b": "甲乙"})
    said = [language.translated(f"of {text}") for text in ("x: y", "x: name", "name, x: y", "a, b: name", "x, y")]
    assert said == ["x: y 的", "x：名的", "名，x：y 的", "甲乙：名的", "x, y 的"]


def test_in_english_the_table_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(language, "entries", None)
    text = "equal"
    assert language.translated(text) is text and language.in_use() == "en"


@pytest.mark.parametrize(
    "named, said",
    [("zh", "相等"), ("zh_CN.UTF-8", "相等"), ("ZH", "相等"), ("en", "equal"), ("", "equal"), ("fr", "equal")],
)
def test_the_environment_variable_chooses(named, said):
    """A language that there is not is named, and keeps no program from starting."""
    script = (
        "import sys; from zsc_utils import language; sys.stdout.buffer.write(language.translated('equal').encode())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | {"ZSC_LANGUAGE": named}, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode() == said
    warned = b"ZSC_LANGUAGE is 'fr': choose one of en, zh; it is English now" in done.stderr
    assert warned == (named == "fr")


def test_a_language_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="language 'fr': choose one of en, zh"):
        language.use("fr")


def test_a_language_is_spoken_for_a_while():
    with pytest.raises(ZeroDivisionError), language.speaking("zh"):
        assert language.translated("equal") == "相等" and 1 / 0
    assert language.in_use() == "en"
    with pytest.raises(ValueError, match="language 'fr'"), language.speaking("fr"):
        pass


def test_lines_are_broken_between_words_and_between_chinese_characters():
    assert language.wrapped("每个词元 4 字节（fp32），共 512 个。", 12) == [
        "每个词元 4",
        "字节",
        "（fp32），共",
        "512 个。",
    ]
    for one in exercises.all_guesses().values():
        assert language.wrapped(one.asks, 42) == textwrap.wrap(one.asks, 42)
    for width in (12, 42):
        assert language.wrapped(LONG[:200], width) == textwrap.wrap(LONG[:200], width)


# --------------------------------------------------------------------------------------------------------- exercises

NO_MESSAGES = {"Name:\tpython", "a file that was read", "layer {}", "layer {} cannot be read", "label {}", "layer ",
               "the worker dies here", "memory_budget, allow_lossy, precision, attention, offload, max_tokens",
               "int8 streamed", "fp32 streamed"}  # fmt: skip


def sentences(file):
    """The messages in a lesson's code, with {} where something varies: strings of several words that are no call."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    other = {node.body[0].value for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)
             and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    other |= {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and node not in other else ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        words = text.replace("{}", "").strip() if isinstance(text, str) else ""
        if " " in words and re.search("[a-z]{2}", words) and not re.fullmatch(r"\w+\(.*\)", text):
            yield text.split("\n")[0]


@pytest.mark.parametrize("file", sorted((ROOT / "zsc_utils" / "exercises").glob("lesson_*.py")), ids=lambda f: f.stem)
def test_every_message_of_an_exercise_has_an_entry(file):
    known = {language.PLACEHOLDER.sub("{}", english) for english, _ in ENTRIES}
    assert not set(sentences(file)) - known - NO_MESSAGES


@pytest.fixture
def quick(monkeypatch):
    """Attempts that wait for what never comes wait less long."""
    monkeypatch.setattr(lesson_05, "PATIENCE", 0.4)
    monkeypatch.setattr(lesson_05, "AHEAD", 0.05)
    monkeypatch.setattr(lesson_07, "PATIENCE", 0.2)


WRONG = [entry for _, entry in wrong_answers()]


@pytest.mark.parametrize("entry", WRONG, ids=[f"{entry['exercise']}: {entry['says']}" for entry in WRONG])
def test_a_wrong_answer_gets_a_chinese_hint(entry, chinese, quick):
    judged = exercises.judge(entry["exercise"], attempt(entry["exercise"], entry["code"]))
    assert judged.right is False and is_chinese(judged.says), judged


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_and_a_stub_are_answered_in_chinese(name, chinese, quick):
    judged = [exercises.judge(name, attempt(name, CELLS[f"{kind}-{name}"])) for kind in ("solution", "try")]
    judged.append(exercises.judge(name, ...))
    assert [one.right for one in judged[::2]] == [True, None]
    assert all(is_chinese(one.says) for one in judged), judged


def test_what_is_wrong_with_an_attempt_at_all_is_chinese(chinese):
    for strange in (lambda *given: None, lambda *given: 1 / 0, lambda *given: "12", lambda *given: 12_582_913):
        assert is_chinese(exercises.judge("matrix-bytes", strange).says)
    assert exercises.judge("matrix-bytes", lambda *given: 12_582_913).says.endswith("偏高 1。")
    assert exercises.judge("matrix-bytes", lambda *given: 31_000_000).says.endswith("偏高，是真实值的 2.5 倍")


# ------------------------------------------------------------------------------------------------ guesses, bets


@pytest.mark.parametrize("one", exercises.all_guesses().values(), ids=lambda one: one.name)
def test_a_guess_and_its_answer_are_chinese(one, chinese, capsys):
    exercises.guess(one.name, **{one.unit: ...})
    exercises.guess(one.name, **{one.unit: one.naive})
    for found in (one.naive, 3 * one.naive, 0.3 * one.naive, 1.07 * one.naive):
        exercises.answer(one.name, **{one.unit: found})
    lines = capsys.readouterr().out.splitlines()
    assert all(map(is_chinese, lines[:2])) and not set().union(*map(left, lines)), lines
    told = [line for line in lines if line.startswith("  ")]
    assert any("偏高" in line for line in told) and any("偏低" in line for line in told)


def test_an_answer_in_chinese_is_in_columns(chinese, capsys):
    exercises.answer("depth", times=1.0)
    assert "  你           没有猜测" in capsys.readouterr().out.splitlines()
    exercises.guess("depth", times=12)
    exercises.answer("depth", times=1.0)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "24 层的激活值峰值与 2 层的之比：",
        "  你           12 倍   偏高，是真实值的 12 倍",
        "  实测          1 倍",
    ]


def test_bets_are_chinese(chinese, capsys):
    assert is_chinese(exercises.score_bets())
    first, second = claims.read()[:2]
    exercises.bet(first.id, first.verdict)
    exercises.bet(second.id, "not testable here")
    assert all(map(is_chinese, capsys.readouterr().out.splitlines()))
    *lines, last = exercises.score_bets().splitlines()
    assert "台账：推翻" in lines[0] and "你：此处无法测试" in lines[1] and last == "2 个下注中对了 1 个"
    assert len({language.columns(line.split("台账")[0]) for line in lines}) == 1


# -------------------------------------------------------------------------------------------------------- the ledger


@pytest.mark.parametrize("claim", claims.read(), ids=lambda claim: claim.id)
def test_a_claim_is_chinese(claim, chinese, capsys):
    claims.show(claim, claim.verdict, claim.found, claim.reached)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + bool(claim.reached) and all(map(is_chinese, lines)), lines
    assert lines[2].split("：")[0] == language.translated(claim.verdict)
    for text in (claim.says, claim.rule, claim.found, claim.reached):
        said = language.translated(text)
        assert said != text or not re.search("[a-z]{2}", text), text
        assert Counter(DIGITS.findall(text)) == Counter(DIGITS.findall(said))


def test_the_ledger_as_table_and_page_is_chinese(chinese):
    ledger = claims.read()
    assert claims.score(ledger).startswith("34 条说法中 34 条已有结论：")
    for made in (claims.table(ledger), claims.page(ledger, {"parameter-count": "confirmed"})):
        words = re.sub(r"<code>.*?</code>|<[^>]*>", "\n", made)
        assert is_chinese(words) and not any(verdict in words for verdict in claims.VERDICTS)
    head, _, *rows = claims.table(ledger).splitlines()
    assert len({language.columns(row[: row.rindex("  ")]) for row in rows[:-1]}) == 1


def test_a_measurement_is_compared_in_one_language(chinese, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("ZSC_CHECKPOINT", raising=False)
    size = float(next(claim for claim in claims.read() if claim.id == "table-fp32").found.split()[0])
    assert claims.decide("table-fp32", f"{size:.2f} GB on a CPU, Python and libraries included", equal={"2.1": size})
    assert claims.decide("table-fp32", f"CPU 上 {size:.2f} GB，含 Python 和各个库", equal={"2.1": size})
    assert not claims.decide("table-fp32", f"CPU 上 {size + 1:.2f} GB，含 Python 和各个库", equal={"2.1": size})
    assert f"台账里是：推翻，CPU 上 {size:.2f} GB，含 Python 和各个库" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------- charts and pictures

HELD = {"one": dict(all=9e8, weights=4e8, own=1e8), "each": dict(all=12e8, weights=4e8, own=2e8)}
STEPS = [(0, 0), (1, 10), (2, 20)]
DAYS = {name: {1: (1, 2, 3), 10: (0.1, 0.2, 0.3)} for name in ("base", "mini")}
PLANS = {40: SimpleNamespace(predicted=39e6, setting=SimpleNamespace(precision="int8", block=512)),
         80: SimpleNamespace(predicted=81e6, setting=SimpleNamespace(precision="fp32", block=0))}  # fmt: skip
READERS = {count: {"resident": count * 4e8, "proportional": 4e8} for count in (1, 2)}
WAYS = {
    name: {"whole": 1e8 * (place + 1), "seconds": 10 + place, "exact": place % 2 == 0}
    for place, name in enumerate(
        (
            "ours in 150 MB",
            "ours, int8 in 55 MB",
            "ours without torch, int8 streamed",
            "transformers pipeline, tuned",
            "accelerate, layers on disk",
            "CrossEncoder, ONNX int8",
            "ONNX Runtime, int8, tuned",
            "ModelScope",
            "transformers pipeline, cut at 64 tokens",
            "transformers pipeline, batch_size=8",
        )
    )  # fmt: skip
}


def on_axes(draw, *given):
    """A chart whose figure is the caller's."""
    return lambda: draw(pyplot.figure(figsize=(9, 7)).subplots(), *given)


OWN = {name: draw for name, (draw, _) in CHARTS.items()} | {
    "functions": lambda: _charts_01.gelu_and_layer_norm(torch.arange(16.0), torch.nn.LayerNorm(16)),
    "lengths": lambda: _charts_01.lengths(BASE, [64, 128], {"eager": [10**6, 10**7], "sdpa": [10**6, 10**7]}),
    "readers": lambda: _charts_01.readers(READERS, 4 * 10**8),
    "table": lambda: _charts_01.table({"fp32": 2.1e9, "fp16": 1e9}, {"fp32": 1e9, "fp16": 8e8}, 3e8),
    "parts": lambda: _charts_07.parts(300, 32),
    "sharing": lambda: _charts_07.sharing(HELD),
    "crossing": lambda: _charts_07.crossing([1, 2], {"fp32": [1e8, 2e8], "int8": [2e8, 2e8]}, 2),
    "rates": lambda: _charts_07.rates({"one": [1, 2], "each": [2, 3]}, 1.5),
    "kill": lambda: _charts_07.kill(STEPS, 0.5, 1.5, 1),
    "kill, nobody back": lambda: _charts_07.kill(STEPS, 0.5, None, 2),
    "billion": lambda: _charts_07.billion(DAYS, 2.3),
    "score bars": on_axes(plots.score_bars, ["sport", "food"], [0.9, 0.1]),
    "bytes of an axes": on_axes(plots.stacked_bytes, {"one": PARTS}),
    "stairs": on_axes(plots.stairs, PLANS),
    "frontier": on_axes(plots.frontier, {"ways": WAYS, "texts": 24}),
    "confusions": on_axes(plots.confusion_matrix, ["sport", "food"], np.array([[1, 2], [3, 4]])),
    "guesses": lambda: exercises.chart(pyplot.figure().subplots()),
}


@pytest.fixture
def drawn(monkeypatch):
    """A function that draws a chart: all words of its figure and its alt text, in the order of the figure."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.append((figure, metadata)))
    monkeypatch.setattr(pyplot, "show", lambda: None)

    def draw(name):
        pyplot.close("all")
        shown.clear()
        OWN[name]()
        figure, metadata = shown[0] if shown else (pyplot.gcf(), {"image/png": {"alt": ""}})
        figure.draw_without_rendering()
        return [text.get_text() for text in figure.findobj(Text)], metadata["image/png"]["alt"]

    yield draw
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", OWN)
def test_a_chart_is_chinese_and_in_english_the_same_as_before(name, drawn):
    for place, guess in enumerate(("depth", "peak-512")):
        exercises._store.keep("guesses", guess, 3 + place)
        exercises._store.keep("measured", guess, 2)
    before = drawn(name)
    language.use("zh")
    try:
        words, alt = drawn(name)
    finally:
        language.use("en")
    text = "\n".join([*words, alt]).replace("a scale a row", "").replace("a scale for 32 weights", "")
    assert language.CHINESE.search(text) and not left(text), left(text)
    assert bool(alt) == bool(before[1]) and drawn(name) == before


@pytest.mark.filterwarnings("error:FixedFormatter")
def test_names_of_ticks_are_where_they_were(chinese):
    axes = pyplot.figure().subplots()
    axes.barh(["anonymous", "file-backed"], [1, 2])
    plots.in_language(axes)
    axes.figure.draw_without_rendering()
    assert [(label.get_text(), label.get_position()[1]) for label in axes.get_yticklabels()] == [
        ("匿名页", 0),
        ("文件页", 1),
    ]
    pyplot.close("all")


def words_of(picture):
    """All texts of a picture: (text, its attributes)."""
    found = ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")
    return [(one.text or "", one.attrib) for one in found]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_chinese_and_in_english_the_same_as_before(name):
    before = PICTURES[name]()
    language.use("zh")
    try:
        picture = PICTURES[name]()
    finally:
        language.use("en")
    after = PICTURES[name]()
    assert (after.svg, after.title, after.alt, after.extra) == (before.svg, before.title, before.alt, before.extra)
    assert picture.numbers == before.numbers
    given = set(re.findall("[A-Za-z]+", LONG)) | {"With", "with", "ve"}  # one name is cut
    said = [picture.title, picture.alt, *(text for text, _ in words_of(picture))]
    assert not left("\n".join(said)) - given, left("\n".join(said)) - given
    assert language.CHINESE.search(picture.title) and language.CHINESE.search(picture.alt)
    for text, attributes in words_of(picture):
        size, x = float(attributes["font-size"]), float(attributes["x"])
        width = _svg.text_width(text, size) * (_svg.BOLD if "font-weight" in attributes else 1)
        start = x - width * {"start": 0, "middle": 0.5, "end": 1}[attributes["text-anchor"]]
        assert start >= 0 and start + width <= _svg.WIDTH, text


def test_the_slider_of_the_timeline_tells_its_steps_in_chinese(chinese):
    extra = PICTURES["timeline"]().extra
    assert "第 2 步，共 3 步：分配 0.002 MB，存活 0.002 MB" in extra and "释放 " in extra
    assert not re.search("allocates|releases|alive| of |step of", extra)


# ----------------------------------------------------------------------------------------------- what lessons print


@pytest.mark.parametrize("options", [
    {}, {"attention": "eager", "padded": True}, {"padded": True}, {"attention": "sliding", "window": 8},
])  # fmt: skip
def test_the_bill_of_a_pass_is_chinese_and_in_columns(options, chinese):
    bill = str(memory.predict(BASE, 2, 64, **options))
    assert not left(bill) - {"pooler"}, left(bill)
    assert {language.columns(line) for line in bill.splitlines()} == {61}


def test_plans_are_chinese_and_their_errors_english(chinese):
    """Programs read errors; what shows them to a reader translates them."""
    for setting in (plan.Setting("int8", "sdpa", 512, 64), plan.Setting("int8", "sdpa", 512, 64, 4096),
                    plan.Setting("fp32", "sdpa", 1024, 64, 4096, False),
                    onnx_plan.Setting("int8", 512, 64, 0, 1), onnx_plan.Setting("int8", 512, 64, 1024, 2)):  # fmt: skip
        assert is_chinese(str(setting)) and not left(str(setting)), str(setting)
        assert not language.CHINESE.search(setting.words)
    told = str(plan.make("base-shape", "150MB"))
    assert not left(told) - {"shape"} and "选定：" in told and "太多：" in told and "等待的隐藏状态" in told
    with pytest.raises(ValueError, match="is too small") as refused:
        plan.make("base-shape", "1MB")
    assert not language.CHINESE.search(str(refused.value))


def test_an_evaluation_is_chinese_and_in_columns(chinese):
    report = report_of(["财经"] * 4, ["财经", "体育", "财经", "财经"], [0.9, 0.3, 0.6, 0.4])
    lines = str(zsc.Evaluation("mini", ["财经", "体育"], 4, (), {"fp32": report})).splitlines()
    assert all(is_chinese(line) for line in lines if left(line)) and not set().union(*map(left, lines)) - {"F1"}
    table = lines[lines.index("fp32，各标签") + 1 :][:3]
    assert len({language.columns(line) for line in table}) == 1


def test_a_checkpoint_is_told_in_chinese(chinese):
    assert repr(zsc.load("mini")) == "Checkpoint('mini'：12 层 x 384，29.4 M 个参数，torch.float32，sdpa)"
