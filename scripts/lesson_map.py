"""The map of the lessons, from their openings: written into both READMEs and into the cell `map` of notebook 00.

python scripts/lesson_map.py. The table stands between the lines `<!-- lessons -->` and `<!-- end -->`, in all places;
READMEs have the score of the ledger too, after `<!-- score -->`. `make save` calls it last, after the minutes. A
lesson's question is the line `**Question** ...` of its opening, or else what follows the colon in its title. Chinese
titles and questions are those of notebooks/zh/*.md; minutes are the English lessons'.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import minutes
import nbformat

from zsc_utils import claims
from zsc_utils.language import speaking

ROOT = Path(__file__).parent.parent
PLACE = r"<!-- {} -->\n(?:(?!<!-- ).)*<!-- end -->"
TITLE = re.compile(r"^# (?P<number>\d+[a-z]?) · (?P<name>[^:：\n]+?)(?:(?:: |：)(?P<about>.+))?$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*(?:Question|问题)\*\*[:：]? ?(.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
BEGINS = re.compile(r"^<!-- \S+ [0-9a-f]{12} -->\n", re.MULTILINE)  # a part of Chinese prose; the first is the opening


@dataclass(frozen=True)
class Readme:
    """A README: its file, the way from it to its lessons, the head of their table, and the score as a sentence."""

    file: str
    folder: str
    head: str
    score: str


READMES = {
    "en": Readme("README.md", "notebooks/", "| lesson | question | minutes |", "**{}.**"),
    "zh": Readme("README.zh-CN.md", "notebooks/zh/", "| 课 | 问题 | 分钟 |", "**{}。**"),
}


@dataclass(frozen=True)
class Lesson:
    """What the opening of a notebook says."""

    file: Path
    number: str
    name: str
    question: str
    minutes: int


def lesson(file: Path, notebook=None) -> Lesson:
    """Read a lesson's opening. Raises ValueError, with the name of the file, if a part of it is missing."""
    notebook = notebook or nbformat.read(file, as_version=4)
    asks = asked(file.name, notebook.cells[0].source)
    try:
        states = minutes.stated(notebook)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    return Lesson(file, *asks, states)


def asked(file: str, opening: str) -> tuple[str, str, str]:
    """(number, name, question) that an opening has. Raises ValueError, with the name of the file, if one is missing."""
    title = TITLE.search(opening)
    if title is None:
        raise ValueError(f"{file}: the opening lacks a title such as `# 03 · Batching`")
    line = QUESTION.search(opening)
    question = " ".join(line[1].split()) if line else title["about"]
    if not question:
        raise ValueError(f"{file}: the opening lacks a line `**Question** ...?`")
    return title["number"], title["name"], question


def chinese(one: Lesson) -> Lesson:
    """The same lesson in the Chinese edition, as its prose has it. Raises ValueError as `lesson` does."""
    file = one.file.parent / "zh" / one.file.name
    prose = file.with_suffix(".md")
    parts = BEGINS.split(prose.read_text(encoding="utf-8"))
    return Lesson(file, *asked(prose.name, parts[min(1, len(parts) - 1)]), one.minutes)


def lessons(folder: Path) -> list[Lesson]:
    """All lessons of a folder, in order. Raises ValueError as `lesson` does."""
    return [lesson(file) for file in sorted(folder.glob("*.ipynb"))]


def table(all_lessons: list[Lesson], folder: str = "", language: str = "en") -> str:
    """The map as a Markdown table; `folder` is the way from the page to the notebooks, such as `notebooks/`."""
    lines = [READMES[language].head, "|---|---|---|"]
    for one in all_lessons:
        name = one.name.lower() if language == "en" else one.name
        link = f"[{one.number} {name}]({folder}{one.file.name})"
        lines.append(f"| {link} | {one.question} | {one.minutes} |")
    return "\n".join(lines)


def put(text: str, name: str, told: str) -> str:
    """`text` with `told` in the place `name`. Raises ValueError if there is no such place, or more than one."""
    held = f"<!-- {name} -->\n\n{told}\n\n<!-- end -->"
    changed, count = re.subn(PLACE.format(name), lambda _: held, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} places between <!-- {name} --> and <!-- end -->, not 1")
    return changed


def readme(text: str, all_lessons: list[Lesson], ledger: list[claims.Claim], language: str = "en") -> str:
    """README's text with the map and the score of the ledger in their places. Raises ValueError as `put` does."""
    page = READMES[language]
    with speaking(language):
        score = page.score.format(claims.score(ledger))
    return put(put(text, "lessons", table(all_lessons, page.folder, language)), "score", score)


def marked(source: str) -> str:
    """The source of a map cell with the place of its table: where a table or the word MAP stands, or else its end."""
    if "<!-- lessons -->" in source:
        return source
    place = "<!-- lessons -->\n<!-- end -->\n"
    changed, count = re.subn(r"(^\|.*\n?)+|^MAP$\n?", place, source, count=1, flags=re.MULTILINE)
    return changed.rstrip("\n") if count else f"{source}\n\n{place.rstrip()}"


def map_cell(notebook):
    """The cell `map`. Raises ValueError if the notebook has none."""
    for cell in notebook.cells:
        if cell.id == "map":
            return cell
    raise ValueError("no cell has the id `map`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the READMEs and notebooks/")
    root = parser.parse_args().root
    found = lessons(root / "notebooks")
    if not found:
        sys.exit(f"no notebook in {root / 'notebooks'}")
    ledger = claims.read(root / "claims.toml")
    for language, told in (("en", found), ("zh", [*map(chinese, found)])):
        page = root / READMES[language].file
        page.write_text(readme(page.read_text(encoding="utf-8"), told, ledger, language), encoding="utf-8")
    first = nbformat.read(found[0].file, as_version=4)
    cell = map_cell(first)
    told = put(marked(cell.source), "lessons", table(found))
    if told != cell.source:
        cell.source = told
        nbformat.write(first, found[0].file)


if __name__ == "__main__":
    main()
