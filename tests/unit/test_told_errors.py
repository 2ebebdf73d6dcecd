"""Errors are English for programs, and Chinese where a reader who has chosen it sees them: each has an entry."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import messages
import pytest
from test_language import is_chinese

from zsc_utils import language

ROOT = Path(__file__).parents[2]


# -------------------------------------------------------------------------------------------------- texts and entries

# what is put together where the code alone does not tell
CHILD = [text for place, text in messages.errors() if "the child process" in text and "7: 7" not in text]
LACKS, HOLDS = "lacks 7 tensors such as 7", "holds 7 unknown ones such as 7"
COMPOSED = [
    *(f"7 does not fit its config.json: it {what}" for what in (LACKS, HOLDS, f"{LACKS} and {HOLDS}")),
    *(f"7: {text}" for text in CHILD),
    "the pair of text 7 and hypothesis 7 (7 tokens) is cut, and others as long: long_texts='max' or 'mean' reads them "
    "whole",
]  # fmt: skip
# what the code seems to say and never does, and, last, what only follows an error of Python's
NEVER = re.compile(r"7 does not fit its config.json: it 7|7 is broken: +is stored|7 is cut|the names of groups: give"
                   r"|(?!group)[\w ]+: give a list of labels|7; i")  # fmt: skip
SAID = [one for one in messages.errors() if not NEVER.match(one[1])] + [("", text) for text in COMPOSED]


@pytest.mark.parametrize("place, text", SAID, ids=[f"{place} {text:.40}" for place, text in SAID])
def test_an_error_of_the_package_has_chinese(place, text, chinese):
    assert is_chinese(language.translated(text)), language.translated(text)


def test_no_error_s_entry_is_left_over():
    """Those of the system and of Python have tests of their own."""
    said = {text for _, text in SAID} | {*filter(messages.is_words, messages.literals())}
    for english in language.entries()["errors"].keys() - SYSTEM:
        assert any(map(language._pattern(english, language.ANY).fullmatch, said)), english


SYSTEM_ERRORS = {
    "[Errno 2] No such file or directory: 'x, y'": "[Errno 2] 没有这样的文件或目录：'x, y'",
    "[Errno 28] No space left on device": "[Errno 28] 设备上没有剩余空间",
    "[Errno 99] Unknown to us: 'x'": "[Errno 99] Unknown to us: 'x'",
    "Expecting ',' delimiter: line 1 column 8 (char 7)": "这里缺少分隔符 ','：第 1 行第 8 列（第 7 个字符）",
    "'utf-8' codec can't decode byte 0xc4 in position 0: invalid continuation byte; it is likely GB18030, in a file "
    "that is read as UTF-8":
    "位置 0 的字节 0xc4 不是 'utf-8'（invalid continuation byte）；它很可能是 GB18030，而文件按 UTF-8 读取",
    "'utf-8' codec can't decode byte 0xc4 in position 5: invalid continuation byte":
    "位置 5 的字节 0xc4 不是 'utf-8'（invalid continuation byte）",
    "'utf-8' codec can't decode bytes in position 0-1: unexpected end of data":
    "位置 0-1 的字节不是 'utf-8'（unexpected end of data）",
    "'big5' codec can't decode bytes in position 0-1: illegal; it is neither UTF-8 nor GB18030 nor Big5: save the file "
    "as UTF-8": "位置 0-1 的字节不是 'big5'（illegal）；它不是 UTF-8、GB18030 或 Big5：请把文件另存为 UTF-8",
    "fp32: MemoryError: bad, alloc": "fp32：内存不足：bad, alloc",
}  # fmt: skip
OF_JSON = {
    "Expecting value", "Extra data", "Expecting ',' delimiter", "Expecting ':' delimiter", "Invalid \\escape",
    "Expecting property name enclosed in double quotes", "Unterminated string starting at",
    "Invalid control character at",
}  # fmt: skip
ENDS = ("(char {n3})", "MemoryError: {t0}", "MemoryError: {t1}")
SYSTEM = {english for english in language.entries()["errors"]
          if english in OF_JSON | {*map(os.strerror, errno.errorcode)} or "codec can't decode" in english
          or english.startswith("[Errno") or english.endswith(ENDS)}  # fmt: skip


@pytest.mark.parametrize("text", SYSTEM_ERRORS)
def test_an_error_of_the_system_has_chinese(text, chinese):
    assert language.translated(text) == SYSTEM_ERRORS[text]


@pytest.mark.parametrize("name", sorted(one for one in SYSTEM if "{" not in one))
def test_an_error_of_the_system_is_read_in_another(name, chinese):
    said = language.translated(f"x.json is broken: {name}: line 3 column 4 (char 5). Fetch the checkpoint anew")
    assert is_chinese(said) and name not in said and "第 3 行第 4 列" in said
    assert language.translated(f"result of line 3 cannot be written: [Errno 7] {name}").startswith(
        "第 3 行的结果写不进去："
    )


@pytest.mark.parametrize(
    "text, chinese_text",
    [
        ("words: no such file", "words：没有这样的文件"),  # a word of the table, here a file's name
        ("'weights' is there twice", "'weights' 出现了两次"),
        ("label 3 is empty (''): leave it out", "标签 3 是空的（''）：请去掉它"),
        ("group '体育': label 3 is 5, a int: labels are strings",
         "组 '体育' 的标签 3 是 5，类型是 int：标签要是字符串"),
        ("candidate_labels holds '体 育' and '体育', which are the same, more than once: give each label once",
         "candidate_labels 里 '体 育' 和 '体育' 是相同的标签：每个标签只给一次"),
        ("row 3: fp32: MemoryError: the pair of text 'a' and hypothesis 'b' (12 tokens) does not fit into memory, "
         "even alone: free some, shorten the text, or use a smaller model or int8 (the allocator said: bad, alloc)",
         "第 3 行：fp32：内存不足：文本 'a' 与假设 'b' 的文本对（12 个词元）单独运行也放不进内存：请释放一些内存，"
         "缩短文本，或者用更小的模型或 int8（分配器说：bad, alloc）"),
        ("memory_budget 30.0 MB is too small for 'mini': the smallest that works is 40.4 MB (int8, sdpa, batches of "
         "512 tokens, chunks of 64); with allow_lossy=True 20.1 MB (int8, sdpa, batches of 512 tokens, chunks of 64)",
         "memory_budget 30.0 MB 对 'mini' 来说太小：能用的最小值是 40.4 MB（int8，sdpa，批量 512 个词元，分块 64）；"
         "设 allow_lossy=True 时 20.1 MB（int8，sdpa，批量 512 个词元，分块 64）"),
        ("row 3: 'utf-8' codec can't decode byte 0xc4 in position 0: invalid; it is likely GB18030, in a file that is "
         "read as UTF-8",
         "第 3 行：位置 0 的字节 0xc4 不是 'utf-8'（invalid）；它很可能是 GB18030，而文件按 UTF-8 读取"),
        ("workers failed: one\ntwo\nWhat is written stays: call again to go on",
         "工作进程失败：one\ntwo\n已经写出的会保留：再调用一次就会继续"),
    ],
)  # fmt: skip
def test_an_error_keeps_the_words_of_the_reader(text, chinese_text, chinese):
    assert language.translated(text) == chinese_text


# ----------------------------------------------------------------------------------------------------- in a notebook

CELLS_OF_A_NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
given = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
shell = InteractiveShell.instance(config=given)
for cell in CELLS:
    print("cell", cell)
    shell.run_cell(cell)
"""


def in_notebook(cells, **environment):
    """What IPython shows, cell by cell."""
    script = CELLS_OF_A_NOTEBOOK.replace("CELLS", repr(cells))
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
                          cwd=ROOT, capture_output=True, check=True)  # fmt: skip
    return done.stdout.decode().split("cell ")[1:]


WRONG_CELL = "zsc.batching.token_budget_batches([1, 2], 0)"
LOOKED_AT = f"try:\n    {WRONG_CELL}\nexcept ValueError as error:\n    print('found', error)"
ENGLISH, CHINESE = "max_tokens 0: give a whole number, 1 or more", "max_tokens 0：请给整数，不小于 1"


def test_a_notebook_shows_errors_of_the_package_in_chinese():
    others = [f"raise ValueError({ENGLISH!r})", "int('x')"]
    cells = ["import zsc_utils as zsc", WRONG_CELL, LOOKED_AT, *others, "zsc.language.use('en')", WRONG_CELL]
    _, ours, looked_at, own, python, _, later = in_notebook(cells, ZSC_LANGUAGE="zh")
    assert ours.rstrip().endswith(f"ValueError: {CHINESE}") and "token_budget_batches" in ours and "Traceback" in ours
    assert f"found {ENGLISH}" in looked_at
    assert (
        own.rstrip().endswith(f"ValueError: {ENGLISH}") and "invalid literal for int()" in python
    )  # not the package's
    assert later.rstrip().endswith(f"ValueError: {ENGLISH}")


def test_a_notebook_shows_them_in_chinese_once_it_is_chosen_and_otherwise_as_ever():
    cells = ["import zsc_utils as zsc", WRONG_CELL, "zsc.language.use('zh')", WRONG_CELL]
    _, before, _, after = in_notebook(cells, ZSC_LANGUAGE="")
    assert before.rstrip().endswith(f"ValueError: {ENGLISH}") and after.rstrip().endswith(f"ValueError: {CHINESE}")
    assert before.replace(ENGLISH, CHINESE) == after  # the same places in the code


@pytest.mark.parametrize(
    "raised, shown",
    [
        ("KeyError('claim 5 is not in claims.toml')", "'说法 5 不在 claims.toml 里'"),
        ("OSError(28, 'hidden states in x cannot be read back: use a smaller block')",
         "[Errno 28] x 里的隐藏状态读不回来：请用更小的 block"),
        ("ImportError(\"x: Parquet needs pyarrow: pip install 'zsc-utils[scale]'\")",
         "x：Parquet 需要 pyarrow：pip install 'zsc-utils[scale]'"),
        ("ValueError(5, ['x'])", "(5, ['x'])"),
    ],
)  # fmt: skip
def test_an_error_is_chinese_while_it_is_shown(raised, shown, chinese):
    code = compile(f"def fail():\n    raise {raised}", "x.py", "exec")
    exec(code, space := {"__name__": "zsc_utils.x"})
    seen = []
    shell = SimpleNamespace(showtraceback=lambda given, **_: seen.append((str(given[1]), str(given[1].__cause__))))
    try:
        try:
            space["fail"]()
        except Exception as cause:
            first = str(cause)
            exec("def again(cause):\n    raise ValueError('size 5: a size is at least one byte') from cause", space)
            space["again"](cause)
    except ValueError as error:
        language._show(shell, type(error), error, error.__traceback__)
        assert str(error) == "size 5: a size is at least one byte" and str(error.__cause__) == first
    assert seen == [("大小 5：至少要有一个字节", shown)]


def test_a_handler_of_errors_that_is_there_stays(chinese, monkeypatch):
    shell = SimpleNamespace(custom_exceptions=(KeyError,), set_custom_exc=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    language.use("zh")
