"""README.zh-CN.md keeps step with README.md: its prose by hashes, its tables and pictures because code writes them."""

import re
from pathlib import Path

import edition
import lesson_map
import nbformat
import pytest
import readme_zh
import report

from zsc_utils import claims, language

ROOT = Path(__file__).parents[2]
ENGLISH = readme_zh.ENGLISH.read_text(encoding="utf-8")
CHINESE = readme_zh.CHINESE.read_text(encoding="utf-8")


def test_the_chinese_readme_says_what_the_english_says_today():
    """A section whose English has changed is named, with the hash that its Chinese gets when it is brought in step."""
    assert readme_zh.faults(ENGLISH, CHINESE) == []


def test_its_lessons_and_its_score_are_current():
    lessons = [*map(lesson_map.chinese, lesson_map.lessons(ROOT / "notebooks"))]
    made = lesson_map.readme(CHINESE, lessons, claims.read(), "zh")
    assert made == CHINESE, "run: python scripts/lesson_map.py"


def test_its_summary_and_its_pictures_are_current(tmp_path):
    """The words of the pictures too, which change when the package's Chinese does."""
    shown = [one for one in report.records("containers").values() if report.complete(one)]
    with language.speaking("zh"):
        assert report.filled_front(CHINESE) == CHINESE, "run: python benchmarks/report.py"
        for record in shown:
            report.draw(record, tmp_path / report.figure_name(record))
    assert [file.name for file in tmp_path.iterdir() if f"(benchmarks/figures/{file.name})" in CHINESE]
    for file in tmp_path.iterdir():
        assert words(file) == words(report.FIGURES / file.name), "run: python benchmarks/report.py"


def words(picture):
    """What stands written in a picture."""
    return re.findall(r">([^<>]+)</text>", picture.read_text(encoding="utf-8"))


def test_the_map_in_the_chinese_notebook_00_says_the_same():
    lessons = [*map(lesson_map.chinese, lesson_map.lessons(ROOT / "notebooks"))]
    _, told = edition.prose(lessons[0].file.stem)["map"]
    table = lesson_map.table(lessons, language="zh")
    assert lesson_map.put(told, "lessons", table) == told, f"notebooks/zh/00_start_here.md: the map is\n{table}"


def test_the_readmes_lead_to_each_other():
    for text, link in ((ENGLISH, "[简体中文](README.zh-CN.md)"), (CHINESE, "[English](README.md)")):
        assert link in text[:200]


def test_links_lead_somewhere():
    """A Chinese notebook is built from the prose beside it, and may be built later."""
    for target in re.findall(r"\]\(([^)\s]+)\)", CHINESE):
        file = ROOT / target.split("#")[0]
        built = file.with_suffix(".md") if file.parent == edition.CHINESE else file
        assert target.startswith("https://") or file.exists() or built.is_file(), target


def test_verdicts_and_the_variable_are_named_as_the_package_names_them():
    with language.speaking("zh"):
        verdicts = [language.translated(verdict) for verdict in claims.VERDICTS[1:]]
    said = [line for line in readme_zh.by_hand(CHINESE).splitlines() if any(verdict in line for verdict in verdicts)]
    assert len(said) == 1 and all(verdict in said[0] for verdict in verdicts)
    assert all(f"`{language.VARIABLE}=zh`" in text for text in (ENGLISH, CHINESE))


# ------------------------------------------------------------------------------------ each difference is found by name


def changed(text, was, becomes):
    """The text with another one in the first place of a pattern."""
    made = re.sub(was, becomes, text, count=1)
    assert made != text, was
    return made


@pytest.mark.parametrize(
    "was, becomes, complaint",
    [
        ("if you train models", "if you train large models", "for-whom: the English section has changed; its hash is "),
        (r"about \d+ GB", "about 77 GB", "what-you-need: numbers differ: English alone ['77'], Chinese alone ['"),
        ("## Licence", "## Terms", "terms: not translated"),
        (r"docs/command\.md", "docs/scaling.md", "the-manual: links differ"),
        ("`make lab`", "`make all`", "what-you-need: code differ: English alone ['make all']"),
        (r"(\| goal \|\n)\|---\|---\|---\|\n", r"\1", "five-lines: rows of tables differ"),
        (r"\| (0\.\d+) \| (0\.\d+) ", r"| \2 | \1 ", "five-lines: tables differ"),
        (r"print\(classify\.plan\)", "print(classify)", "five-lines: code blocks differ"),
        ("make test ", "make tests ", "what-you-need: code blocks differ"),
        ("<!-- score -->", "<!-- scores -->", "written blocks differ: English ['records: picture', 'scores']"),
        (r"- \*\*Not for you", "**Not for you", "for-whom: items of lists differ: English 1, Chinese 2"),
    ],
)
def test_what_changes_in_english_is_named(was, becomes, complaint):
    assert complaint in "\n".join(readme_zh.faults(changed(ENGLISH, was, becomes), CHINESE))


def test_the_complaint_names_the_new_hash():
    english = changed(ENGLISH, "learn or teach", "learn")
    now = edition.hash_of(readme_zh.english(english)["for-whom"])
    complaint = f"for-whom: the English section has changed; its hash is {now} now"
    mended = re.sub(r"<!-- for-whom \w+ -->", f"<!-- for-whom {now} -->", CHINESE)
    assert complaint in readme_zh.faults(english, CHINESE) and complaint not in readme_zh.faults(english, mended)


@pytest.mark.parametrize(
    "was, becomes, complaint",
    [
        ("Apache-2.0，见", "See the licence in the file that lies here", "licence: a paragraph is not Chinese"),
        ("台账", "账本", "账本 is a word that terms.md avoids"),
        (r"：\d+ 分钟", "：99 分钟", "what-you-need: numbers differ"),
        (r"\(docs/measured\.md\)", "(docs/measured.html)", "what-it-gives: links differ"),
        ("<!-- licence ", "<!-- license ", "license: no English section has this name"),
        ("## 手册", "手册", "the-manual: headings differ"),
    ],
)
def test_what_differs_in_chinese_is_named(was, becomes, complaint):
    assert complaint in "\n".join(readme_zh.faults(ENGLISH, changed(CHINESE, was, becomes)))


def test_sections_in_another_order_are_named():
    parts = re.split(r"(?=^<!-- [a-z-]+ \w{12} -->$)", CHINESE, flags=re.MULTILINE)
    moved = "".join([*parts[:-2], parts[-1] + "\n", parts[-2]])
    assert "another order" in readme_zh.faults(ENGLISH, moved)[0]


def test_what_code_writes_is_not_in_the_hash():
    """Else the Chinese would be called stale whenever a table is written anew."""
    written = lesson_map.put(ENGLISH, "lessons", "| none |")
    assert written != ENGLISH and readme_zh.faults(written, CHINESE) == readme_zh.faults(ENGLISH, CHINESE)


def test_a_comment_in_a_code_block_begins_no_section():
    text = "# One\n\n```python\n# Two\n```\n\n## And three\n\nWords.\n"
    assert [*readme_zh.english(text)] == ["one", "and-three"]


# ---------------------------------------------------------------------------------------- the Chinese map, from prose


def chinese_lesson(folder, prose):
    opening = nbformat.v4.new_markdown_cell("# 03 · Batching: how many?\n\n**Minutes** 40", id="opening")
    nbformat.write(nbformat.v4.new_notebook(cells=[opening]), folder / "03_batching.ipynb")
    (folder / "zh").mkdir()
    (folder / "zh" / "03_batching.md").write_text(prose, encoding="utf-8")
    return lesson_map.chinese(lesson_map.lesson(folder / "03_batching.ipynb"))


@pytest.mark.parametrize("opening", ["# 03 · 用 GPU 批处理：一次多少？", "# 03 · 用 GPU 批处理\n\n**问题** 一次多少？"])
def test_a_chinese_row_has_its_own_words_and_the_english_minutes(tmp_path, opening):
    prose = f"<!-- opening 0123456789ab -->\n{opening}\n\n**时间（分钟）** 5\n\n<!-- next 0123456789ab -->\n# 别的\n"
    one = chinese_lesson(tmp_path, prose)
    assert lesson_map.table([one], "notebooks/zh/", "zh").splitlines() == [
        "| 课 | 问题 | 分钟 |", "|---|---|---|",
        "| [03 用 GPU 批处理](notebooks/zh/03_batching.ipynb) | 一次多少？ | 40 |",
    ]  # fmt: skip


def test_the_opening_of_a_chinese_notebook_is_read_as_an_english_one():
    opening = nbformat.v4.new_markdown_cell("# 03 · 批处理：一次多少？\n\n**时间（分钟）** 40", id="opening")
    found = lesson_map.lesson(Path("03.ipynb"), nbformat.v4.new_notebook(cells=[opening]))
    assert (found.number, found.name, found.question, found.minutes) == ("03", "批处理", "一次多少？", 40)


@pytest.mark.parametrize("prose", ["", "<!-- opening 0123456789ab -->\n# 批处理\n"])
def test_chinese_prose_without_a_title_is_refused_by_name(tmp_path, prose):
    with pytest.raises(ValueError, match="03_batching.md: the opening lacks a title"):
        chinese_lesson(tmp_path, prose)
