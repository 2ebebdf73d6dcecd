"""The Chinese edition keeps step with the English one: each cell of prose, each number, each line of code."""

import ast
from pathlib import Path

import edition
import nbformat
import pytest

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
    english = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    for one, other in zip(english.cells, edition.build(stem).cells):
        assert (one.id, one.cell_type, one.metadata) == (other.id, other.cell_type, other.metadata)
        if one.cell_type == "code":
            assert shape(one.source) == shape(other.source), one.id


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
