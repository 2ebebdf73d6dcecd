"""The command in Chinese: its help, its errors, and what it tells while it works. In English it is argparse's own."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import messages
import pytest
from oracle import ORACLE

from zsc_utils import __main__ as command
from zsc_utils import _help, classifier, language
from zsc_utils._exports import FORMATS
from zsc_utils._ways import Way

ROOT = Path(__file__).parents[2]
COMMANDS = ([], ["classify"], ["plan"], ["export"], ["evaluate"])
EXAMPLES = ("  python -m", "  cat ")


@pytest.fixture
def helped(monkeypatch, capsys):
    """A function that returns what `--help` of a command prints in a terminal of that width."""

    def told(words, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as error:
            command.main([*words, "--help"])
        assert error.value.code == 0
        return capsys.readouterr().out

    return told


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with small files, in which the command works."""
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("央行下调利率\n\n主队逆转夺冠\n", "utf-8")
    Path("broken.jsonl").write_text('"好"\n{"text": 1\n{"other": "x"}\n', "utf-8")
    Path("words.csv").write_text("内容,类别\n央行下调利率,财经\n主队逆转夺冠,体育\n", "utf-8")
    Path("labels.json").write_text('["财经", ', "utf-8")
    Path("full").mkdir()
    Path("full/file").write_text("x", "utf-8")
    return tmp_path


# ----------------------------------------------------------------------------------------------------------- the help


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80, 130])
def test_the_help_is_chinese_and_fits_the_terminal(helped, chinese, words, width):
    told = helped(words, width)
    assert (
        told.startswith("用法： python -m zsc_utils")
        and "\n选项：\n" in told
        and "位置参数：\n" in told + "位置参数：\n"
    )
    for line in told.splitlines():
        assert not re.search(r"(?:\b[A-Za-z]{2,},? ){3}[a-z]{2,}", line) or line.startswith(EXAMPLES), line
        assert language.columns(line) <= width - 2 or line.startswith((*EXAMPLES, "用法", " " * 7)), line
    assert not re.search("usage|positional|options:|show this", told)


def test_every_text_of_the_help_has_an_entry(helped, chinese, monkeypatch):
    asked = set()
    monkeypatch.setattr(_help, "translated", lambda text: asked.add(text) or language.translated(text))
    for words in COMMANDS:
        helped(words)
    names = {".jsonl", ".csv", ".parquet", ".csv, .parquet"}
    assert {text.strip() for text in asked if language.translated(text) == text} == names and len(asked) > 60


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_in_english_help_and_errors_are_those_of_argparse(helped, monkeypatch, capsys, words):
    told = [helped(words, width) for width in (60, 100)]
    wrong = [complaint(capsys, [*words, "--nothing"])]
    monkeypatch.setattr(command, "Parser", argparse.ArgumentParser)
    monkeypatch.setattr(command, "Formatter", argparse.RawDescriptionHelpFormatter)
    assert told == [helped(words, width) for width in (60, 100)]
    assert wrong == [complaint(capsys, [*words, "--nothing"])]


def test_rows_of_a_table_are_below_each_other(chinese):
    told = _help.described(command.CLASSIFY, 50).splitlines()
    begin = next(number for number, line in enumerate(told) if line.startswith("  .jsonl"))
    assert told[begin].startswith("  .jsonl          每行一个 JSON") and told[begin + 1].startswith(" " * 18 + "在字段")
    assert any(line.startswith("  其他扩展名      每行一段文本") for line in told)
    assert _help.described("  python -m zsc_utils plan  # after: zsc export x", 20).endswith(
        "plan  # 先运行：zsc export x"
    )


def test_the_environment_variable_makes_the_help_chinese():
    words = [sys.executable, "-m", "zsc_utils", "plan", "--help"]
    done = subprocess.run(words, env=os.environ | {"ZSC_LANGUAGE": "zh", "PYTHONIOENCODING": "utf-8"}, cwd=ROOT,
                          capture_output=True, check=True)  # fmt: skip
    assert "打印一个预算能换来什么" in done.stdout.decode()


# ------------------------------------------------------------------------------------------------- errors at the door


def complaint(capsys, words):
    """What argparse says to a command line that is none."""
    with pytest.raises(SystemExit) as error:
        command.main(words)
    assert error.value.code == 2
    return capsys.readouterr().err


WRONG_LINES = [
    ([], "缺少必需的参数：classify | plan | export | evaluate"),
    (["classify"], "缺少必需的参数：FILE, --labels"),
    (["plan", "--length", "x"], "参数 --length：'x' 不是 int"),
    (["plan", "--precision", "fp8"], "参数 --precision：不能是 'fp8'（可选："),
    (["plan", "--nothing"], "不认识的参数：--nothing"),
    (["plan", "--budget"], "参数 --budget：后面要有一个值"),
    (["plan", "--allow-lossy=1"], "参数 --allow-lossy：它不带值，却给了 '1'"),
    (["plan", "--l=3"], "选项 --l=3 不明确：可以是 --length, --labels"),
]


@pytest.mark.parametrize("words, told", WRONG_LINES)
def test_a_wrong_command_line_is_told_in_chinese(chinese, capsys, words, told):
    *usage, last = complaint(capsys, words).splitlines()
    assert usage[0].startswith("用法：") and re.fullmatch(
        rf"python -m zsc_utils[a-z ]*: 错误：{re.escape(told)}.*", last
    )


ERRORS = [
    ("classify nowhere.txt --labels 甲,乙", "nowhere.txt：没有这样的文件"),
    ("classify texts.txt --labels 甲,甲", "candidate_labels 里甲不止一次：每个标签只给一次"),
    ("classify texts.txt --labels nowhere.json", "读不了 --labels nowhere.json：没有这样的文件或目录"),
    ("classify texts.txt --labels labels.json",
     "--labels labels.json 里没有 UTF-8 的 JSON 标签：这里缺少一个值：第 1 行第 8 列（第 7 个字符）"),
    ("classify words.csv --labels 甲,乙", "words.csv 没有列 'text'：它有内容, 类别；用 --field 指定文本所在的列"),
    ("classify texts.txt --labels 甲,乙 --output words.csv --resume",
     "--resume 只能继续 JSONL：words.csv 总是整个写出，请去掉 --resume"),
    ("classify texts.txt --labels 甲,乙 --output texts.txt",
     "texts.txt 已经存在：加 --resume 继续写它，或者换一个名称"),
    ("classify texts.txt --labels 甲,乙 --template x", "hypothesis_template 'x'：要恰好有一个 {}，放在标签的位置"),
    ("classify texts.txt --labels 甲,乙 --checkpoint nowhere",
     "检查点 'nowhere'：没有这样的文件夹，也不是 ModelScope 的 id"),
    ("plan --labels 3", "--labels：请同时给出 --length"),
    ("plan --budget many", "大小 'many' 不是大小：请写成 \"300MB\"、\"1.5GB\" 或 \"64MiB\""),
    ("plan --container 200MB --budget 90MB", "--container 限制整个进程：去掉 --budget，或者去掉 --container"),
    ("plan --budget 1MB", "memory_budget 1.0 MB 对 'mini' 来说太小：能用的最小值是"),
    ("plan --length 9999", "--length 9999：模型读 1 到 512 个词元"),
    ("export full", "文件夹 'full' 已经存在而且不是空的：请换一个新的"),
    ("evaluate words.csv --text 内容 --label 内容", "文本和标签都是 '内容'：请给两列"),
    ("evaluate words.csv", "words.csv 没有列 'text'：它有内容, 类别"),
    ("evaluate words.csv --text 内容 --label 类别 --compare fp8", "compare 'fp8'：可以是 fp32"),
    ("evaluate words.csv --text 内容 --label 类别 --chart full", "图 'full'：它的名称要以"),
]  # fmt: skip


@pytest.mark.parametrize("words, told", ERRORS, ids=[words for words, _ in ERRORS])
def test_what_cannot_begin_is_told_in_chinese(files, chinese, capsys, words, told):
    assert command.main(words.split()) == command.WRONG_USE
    said = capsys.readouterr().err
    assert said.startswith(f"错误：{told}") and not re.search(r"(?:\b[A-Za-z]{2,},? ){3}[a-z]{2,}", said)


def test_an_option_has_its_name_in_an_error(files, chinese, capsys):
    """allow_lossy=True is how Python says it; the command says --allow-lossy."""
    assert command.main(["plan", "--checkpoint", "base-shape", "--container", "160MB"]) == command.WRONG_USE
    said = capsys.readouterr().err
    assert "没有得分不变的方式放得下" in said and "--allow-lossy 时最快的是" in said and "allow_lossy" not in said


def test_no_entry_of_the_command_is_left_over(helped, chinese, capsys, monkeypatch):
    said = {*messages.translations(), *_help.HEADINGS, "error: 7"}
    said |= {f"7: 7 in {precision}, 7.5 MB" for precision in FORMATS.values()}  # what an export prints
    said |= {str(Way(torch, "7", streamed, False, 0, ())) for torch in (True, False) for streamed in (True, False)}
    monkeypatch.setattr(_help, "translated", lambda text: said.add(text.strip()) or language.translated(text))
    for words in COMMANDS:
        helped(words)
    for words, _ in WRONG_LINES:
        complaint(capsys, words)
    for english in language.entries()["command"]:
        assert any(map(language._pattern(english, language.ANY).fullmatch, said)), english


# -------------------------------------------------------------------------------------------------- while it works


def classified(file, *options):
    return command.main(["classify", file, "--labels", "财经,体育", "--checkpoint", str(ORACLE), "--quiet", *options])


def test_lines_without_a_result_are_told_in_chinese(files, chinese, capsys):
    assert classified("texts.txt") == command.BAD_LINES
    told = capsys.readouterr()
    assert told.err.splitlines() == ["第 2 行：这一行的文本是空的（''）：请去掉它，它没有类别", "3 行中有 1 行没有结果"]
    assert json.loads(told.out.splitlines()[1])["error"].startswith("text of this line is empty")  # for programs
    assert classified("broken.jsonl") == command.BAD_LINES
    assert capsys.readouterr().err.splitlines() == [
        "第 2 行：这里缺少分隔符 ','：第 1 行第 11 列（第 10 个字符）", "第 3 行：记录里没有字段 'text'",
        "3 行中有 2 行没有结果",
    ]  # fmt: skip


def test_lines_of_another_encoding_are_told_in_chinese(files, chinese, capsys):
    Path("gbk.txt").write_bytes("央行下调利率，房贷月供将减少\n".encode("gb18030"))
    Path("mixed.txt").write_bytes("央行下调利率\n".encode() * 3 + "好\n".encode("gb18030"))
    assert classified("gbk.txt") == 0
    assert capsys.readouterr().err == "gbk.txt 按 GB18030 读取\n"
    assert classified("mixed.txt") == command.BAD_LINES
    first, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("第 4 行：位置 ") and "它很可能是 GB18030，而文件按 UTF-8 读取" in first


def test_rows_that_are_left_out_are_told_in_chinese(files, chinese, capsys):
    Path("some.csv").write_text("text,label\n央行下调利率,财经\n主队逆转夺冠,体育\n去看海,旅游\n,财经\n", "utf-8")
    words = ["evaluate", "some.csv", "--labels", "财经,体育", "--checkpoint", str(ORACLE), "--quiet"]
    assert command.main(words) == command.BAD_LINES
    told = capsys.readouterr()
    rows = ["第 3 行：它的标签 '旅游' 不在财经, 体育之中", "第 4 行：这一行的文本是空的（''）：请去掉它，它没有类别"]
    assert told.err.splitlines()[-2:] == rows and all(row in told.out for row in rows)


def test_the_ways_of_a_container_are_chinese_and_in_columns(chinese, capsys):
    assert command.main(["plan", "--checkpoint", "mini", "--container", "4GB"]) == 0
    title, head, *rows, counted, advice = capsys.readouterr().out.splitlines()
    assert title == "mini：在 4.0 GB 的容器里，预测的上限" and head.split() == [
        "方式",
        "整个进程",
        "最小",
        "得分",
        "放得下",
    ]
    assert len({language.columns(row) for row in (head, *rows)}) == 1 and "不用 torch，int8，逐层流式加载" in rows[-1]
    assert {row.split()[-1] for row in rows} <= {"是", "否"} and {row.split()[-2] for row in rows} == {"不变", "会变"}
    assert counted.startswith("计入了 Python 和它的库：") and "MB（不用 torch）" in counted
    assert advice.startswith("放得下的最快方式是使用 torch，") and "ZeroShotClassifier('mini', memory_budget=" in advice


def test_an_export_is_told_in_chinese(files, chinese, capsys):
    assert command.main(["export", "small", "--checkpoint", str(ORACLE), "--precision", "int8"]) == 0
    assert re.fullmatch(rf"small：{re.escape(str(ORACLE))}，以 int8 存储，[\d.]+ kB\n", capsys.readouterr().out)


def test_a_warning_and_a_bar_are_chinese(chinese, capsys, monkeypatch):
    with pytest.warns(UserWarning, match="个词元）被截断了，同样长的也是") as caught:
        classifier.ZeroShotClassifier(ORACLE)(["央行利率" * 200], ["财经", "体育"])
    monkeypatch.setattr(command, "main", lambda: 0)
    monkeypatch.setattr("warnings.formatwarning", None)
    with pytest.raises(SystemExit):
        command.command()
    assert command.warnings.formatwarning(caught[0].message, UserWarning, "", 0).startswith("警告：文本 ")
    with classifier.bar(True, 3) as bar:
        bar.update(1)
    assert "分类: " in capsys.readouterr().err and (bar.desc, bar.unit) == ("分类", "段")


def test_an_interruption_is_told_in_chinese(files, chinese, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "source_of", interrupted)
    assert classified("texts.txt") == command.INTERRUPTED and capsys.readouterr().err == "已中断\n"
