"""The Chinese edition keeps step with the English one: each cell of prose, each number, each line of code."""

import ast
import re
import warnings
from pathlib import Path

import edition
import nbformat
import pytest
import run_notebooks

from zsc_utils import plots

ROOT = Path(__file__).parents[2]
LESSONS = [file.stem for file in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_every_lesson_has_its_chinese_files():
    assert edition.lessons() == LESSONS


@pytest.mark.parametrize("stem", LESSONS)
def test_the_chinese_renders_the_english_of_today(stem):
    """A cell whose English has changed is named, with the hash that its Chinese gets when it is brought in step."""
    assert edition.faults(stem) == []


@pytest.mark.parametrize("stem", LESSONS)
def test_the_code_differs_in_words_only(stem):
    """And in the lines that the first cell of code begins with, which choose the language."""
    english, chinese = english_lesson(stem).cells, edition.build(stem).cells
    assert len(english) == len(chinese)
    begins = next(cell for cell in chinese if cell.cell_type == "code")
    assert begins.source.startswith(edition.SPEAKS_CHINESE)
    begins.source = begins.source.removeprefix(edition.SPEAKS_CHINESE)
    for one, other in zip(english, chinese):
        assert (one.id, one.cell_type, one.metadata) == (other.id, other.cell_type, other.metadata)
        if one.cell_type == "code":
            assert shape(one.source.replace("import os\n", "")) == shape(other.source.replace("import os\n", "")), (
                one.id
            )


def english_lesson(stem):
    return nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)


def shape(source):
    """A code's syntax tree without the words of its literals."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
        if isinstance(node, ast.JoinedStr):  # what stands in braces may have another order
            node.values = sorted((v for v in node.values if isinstance(v, ast.FormattedValue)), key=ast.dump)
    return ast.dump(tree)


REST = "$a$\n\n| a |\n|---|\n\n```python\n1\n```"
ENGLISH = f"## Bytes\n\nIt takes **12.5 MB** and `x`, see [lesson 05](05.ipynb). {REST}"
CHINESE = f"## 字节\n\n它占 **12.5 MB** 和 `x`，见[第 05 课](05.ipynb)。{REST}"


def test_prose_in_step_differs_in_nothing():
    assert [*edition.differences(ENGLISH, CHINESE)] == []


@pytest.mark.parametrize(
    "was, becomes, complaint",
    [
        ("12.5", "12.6", "numbers differ: English alone ['12.5'], Chinese alone ['12.6']"),
        ("## 字节", "字节", "headings differ"),
        ("(05.ipynb)", "(06.ipynb)", "links differ"),
        ("`x`", "x", "code differ"),
        ("$a$", "a", "formulas differ"),
        ("|---|", "", "rows of tables differ"),
        ("```python", "```", "code blocks differ"),
        ("它占", "It takes so many bytes that nobody can say them 占", "a paragraph is not Chinese"),
    ],
)
def test_each_difference_of_prose_is_found(was, becomes, complaint):
    assert complaint in " ".join(edition.differences(ENGLISH, CHINESE.replace(was, becomes)))


@pytest.mark.parametrize(
    "english, chinese, complaint",
    [
        ('f"{size:6.1f} MB"', 'f"{size:6.0f} MB"', "what stands in braces"),
        ('f"{a} of {b}"', 'f"{a} 的"', "what stands in braces"),
        ('"5 texts"', '"6 段文本"', "the numbers"),
        ('"texts"', '"文本', "no literal"),
        ("# of texts", "文本的", "a comment stays a comment"),
    ],
)
def test_each_difference_of_a_literal_is_found(english, chinese, complaint):
    assert complaint in " ".join(edition.differences_of_code(english, chinese))


def test_a_literal_may_put_its_parts_in_another_order():
    assert [*edition.differences_of_code('f"{a:22} of {b:6.0f}"', 'f"{b:6.0f} 中的 {a:22}"')] == []
    assert [*edition.differences_of_code("# five texts", "# 五段文本")] == []


def test_what_is_stale_missing_or_unknown_is_named(tmp_path, monkeypatch):
    stem = LESSONS[0]
    for end in ("md", "toml"):
        text = (edition.CHINESE / f"{stem}.{end}").read_text(encoding="utf-8")
        (tmp_path / f"{stem}.{end}").write_text(text, encoding="utf-8")
    monkeypatch.setattr(edition, "CHINESE", tmp_path)
    prose = edition.prose(stem)
    first, second = [*prose][:2]
    text = (tmp_path / f"{stem}.md").read_text(encoding="utf-8")
    text = text.replace(prose[first][0], "0" * 12).replace(f"<!-- {second} ", "<!-- nowhere ")
    (tmp_path / f"{stem}.md").write_text(text, encoding="utf-8")
    with (tmp_path / f"{stem}.toml").open("a", encoding="utf-8") as file:
        file.write("'\"no such words\"' = '\"没有这样的话\"'\n")
    found = " ".join(edition.faults(stem))
    assert f"{first}: the English prose has changed; its hash is {prose[first][0]} now" in found
    assert f"{second}: not translated" in found and "nowhere: no English cell" in found
    assert '"no such words": stands in no code' in found


def test_a_translation_is_begun_once(tmp_path, monkeypatch):
    monkeypatch.setattr(edition, "CHINESE", tmp_path)
    edition.begin(LESSONS[0])
    assert all("not Chinese" in what for what in edition.faults(LESSONS[0]))
    with pytest.raises(SystemExit, match="begun already"):
        edition.begin(LESSONS[0])


# ------------------------------------------------------------------------------------------------ the executed lessons


def executed(stem):
    return nbformat.read(edition.CHINESE / f"{stem}.ipynb", as_version=4)


@pytest.mark.parametrize("stem", LESSONS)
def test_the_executed_lesson_is_the_one_that_is_built(stem):
    """Each cell, by its id; where one differs: make save."""
    built, kept = edition.build(stem).cells, executed(stem).cells
    assert [(cell.id, cell.source) for cell in kept] == [(cell.id, cell.source) for cell in built]


@pytest.mark.parametrize("stem", LESSONS)
def test_the_outputs_are_those_of_its_code(stem):
    notebook = executed(stem)
    code = run_notebooks.code_cells(notebook)
    assert {cell.id: run_notebooks.fingerprint(cell) for cell in code} == notebook.metadata.fingerprints


@pytest.mark.parametrize("stem", LESSONS)
def test_what_a_lesson_decides_and_compares_is_the_same_in_both_editions(stem):
    """The verdicts with their claims, and which cells printed and drew."""
    one, other = (run_notebooks.code_cells(notebook) for notebook in (english_lesson(stem), executed(stem)))
    assert [kinds_of_outputs(cell) for cell in one] == [kinds_of_outputs(cell) for cell in other]
    verdicts = dict(zip(("CONFIRMED", "QUALIFIED", "REFUTED", "NOT TESTABLE HERE"), CHINESE_VERDICTS))
    assert [verdicts[word] for word in said(one, verdicts)] == said(other, verdicts.values())


CHINESE_VERDICTS = ("证实", "部分成立", "推翻", "此处无法测试")


def kinds_of_outputs(cell):
    """(id, kinds of what it put out): prints, figures, drawings, values."""
    return cell.id, sorted({kind for out in cell.outputs for kind in out.get("data", {out.get("name", "error"): ""})})


def said(cells, words):
    """The words with which printed lines begin, before a colon, in order."""
    printed = "".join(out.get("text", "") for cell in cells for out in cell.outputs)
    return re.findall(rf"^({'|'.join(words)})[:：]", printed, re.MULTILINE)


# what a lesson prints in English though Chinese is in use: names, arguments, and other programs' words
LATIN_LINE = re.compile(r"(?:[A-Za-z]{2,}[ ,]+){5,}")
# what torch and transformers say, and the names of a graph's operators
OF_OTHERS = re.compile(r"torch [\d.]+: torch\.ao|The hidden size|^ +ReduceMax ")


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_prints_no_english_sentence(stem):
    lines = [
        f"{cell.id}: {line}"
        for cell in run_notebooks.code_cells(executed(stem))
        for out in cell.outputs
        for line in out.get("text", "").splitlines()
        if LATIN_LINE.search(line) and not re.search("[一-鿿]", line) and not OF_OTHERS.search(line)
    ]
    assert lines == []


@pytest.mark.parametrize("folder", [edition.ENGLISH, edition.CHINESE], ids=["English", "Chinese"])
@pytest.mark.parametrize("stem", LESSONS)
def test_no_figure_lacks_a_glyph(folder, stem):
    """matplotlib says on stderr, while it draws, which glyph its fonts lack."""
    said = [
        out.text
        for cell in run_notebooks.code_cells(nbformat.read(folder / f"{stem}.ipynb", as_version=4))
        for out in cell.outputs
        if out.get("name") == "stderr"
    ]
    assert said == []


@pytest.mark.parametrize("text, lacks", [("内存 (MB)：峰值，占比 ×→≥", False), ("\U0001f9ee", True)])
def test_a_missing_glyph_is_told_when_a_figure_is_drawn(text, lacks):
    """As in a lesson: with its fonts, and nothing that silences the warning."""
    from matplotlib import pyplot, rc_context

    plots.use_chinese_font()
    with warnings.catch_warnings(record=True) as told, rc_context(fname=edition.ENGLISH / "matplotlibrc"):
        warnings.simplefilter("always")
        figure = pyplot.figure()
        figure.text(0.5, 0.5, text)
        figure.canvas.draw()
        pyplot.close(figure)
    assert any("Glyph" in str(warning.message) for warning in told) == lacks


def test_new_prose_keeps_the_outputs_of_code_that_is_the_same():
    kept, built = executed("00_start_here"), edition.build("00_start_here")
    first, second = (cell for cell in run_notebooks.code_cells(built) if cell.id in ("one-pair", "all-labels"))
    second.source += "  # changed"
    built.cells[0].source += "新"
    joined = edition.with_outputs(built, kept)
    outputs = {cell.id: cell.get("outputs") for cell in kept.cells}
    assert joined.cells[0].source.endswith("新")
    assert (first.outputs, second.outputs) == (outputs["one-pair"], []) and first.outputs


# ------------------------------------------------------------------------------------------------------- the minutes


def test_minutes_of_an_opening_are_brought_in_step(tmp_path, monkeypatch):
    """Those of the opening and of the map; a cell in which more has changed stays stale."""
    monkeypatch.setattr(edition, "ENGLISH", tmp_path)
    monkeypatch.setattr(edition, "CHINESE", tmp_path)
    opening, table = "# Lesson\n\n**Minutes** {}", "| lesson | minutes |\n|---|---|\n| one | {} |\n| two | {} |"
    (tmp_path / "00.toml").write_text("")
    (tmp_path / "00.md").write_text(
        f"<!-- opening {edition.hash_of(opening.format(40))} -->\n# 课\n\n**时间（分钟）** 40\n\n"
        f"<!-- map {edition.hash_of(table.format(40, 50))} -->\n| 课 | 分钟 |\n|---|---|\n| 一 | 40 |\n| 二 | 50 |\n"
    )
    cells = [nbformat.v4.new_markdown_cell(opening.format(45), id="opening"),
             nbformat.v4.new_markdown_cell(table.format(45, 55), id="map")]  # fmt: skip
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00.ipynb")
    assert len(edition.faults("00")) == 4
    edition.renumber("00")
    assert edition.faults("00") == []
    cells[0].source += " and more"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00.ipynb")
    edition.renumber("00")
    assert any("the English prose has changed" in fault for fault in edition.faults("00"))


def test_paths_go_one_step_further_up():
    assert (
        edition.deeper('Path("..", "a"), "../b", "c..", f"{x}../d"')
        == 'Path("../..", "a"), "../../b", "c..", f"{x}../d"'
    )
