"""The map of the lessons, from their openings: written into README.md and into the cell `map` of notebook 00.

python scripts/lesson_map.py. The table stands between the lines `<!-- lessons -->` and `<!-- end -->`, in both places.
`make save` calls it last, after the minutes. A lesson's question is the line `**Question** ...` of its opening, or else
what follows the colon in its title.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import minutes
import nbformat

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"<!-- lessons -->\n.*?<!-- end -->", re.DOTALL)
TITLE = re.compile(r"^# (?P<number>\d+) · (?P<name>[^:\n]+?)(?:: (?P<about>.+))?$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*Question\*\*:? (.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


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
    opening = notebook.cells[0].source
    title = TITLE.search(opening)
    if title is None:
        raise ValueError(f"{file.name}: the opening lacks a title such as `# 03 · Batching`")
    asked = QUESTION.search(opening)
    question = " ".join(asked[1].split()) if asked else title["about"]
    if not question:
        raise ValueError(f"{file.name}: the opening lacks a line `**Question** ...?`")
    try:
        states = minutes.stated(notebook)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    return Lesson(file, title["number"], title["name"], question, states)


def lessons(folder: Path) -> list[Lesson]:
    """All lessons of a folder, in order. Raises ValueError as `lesson` does."""
    return [lesson(file) for file in sorted(folder.glob("*.ipynb"))]


def table(all_lessons: list[Lesson], folder: str = "") -> str:
    """The map as a Markdown table; `folder` is the way from the page to the notebooks, such as `notebooks/`."""
    lines = ["| lesson | question | minutes |", "|---|---|---|"]
    for one in all_lessons:
        link = f"[{one.number} {one.name.lower()}]({folder}{one.file.name})"
        lines.append(f"| {link} | {one.question} | {one.minutes} |")
    return "\n".join(lines)


def filled(text: str, all_lessons: list[Lesson], folder: str = "") -> str:
    """`text` with the map in its place. Raises ValueError if there is no place, or more than one."""
    told = f"<!-- lessons -->\n\n{table(all_lessons, folder)}\n\n<!-- end -->"
    changed, count = PLACE.subn(lambda _: told, text)
    if count != 1:
        raise ValueError(f"{count} places between <!-- lessons --> and <!-- end -->, not 1")
    return changed


def marked(source: str) -> str:
    """The source of a map cell whose table has its markers: put around its only table if they are missing."""
    if "<!-- lessons -->" in source:
        return source
    return re.sub(r"(^\|.*\n?)+", "<!-- lessons -->\n<!-- end -->\n", source, count=1, flags=re.MULTILINE)


def map_cell(notebook):
    """The cell `map`. Raises ValueError if the notebook has none."""
    for cell in notebook.cells:
        if cell.id == "map":
            return cell
    raise ValueError("no cell has the id `map`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and notebooks/")
    root = parser.parse_args().root
    found = lessons(root / "notebooks")
    if not found:
        sys.exit(f"no notebook in {root / 'notebooks'}")
    readme = root / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), found, "notebooks/"), encoding="utf-8")
    first = nbformat.read(found[0].file, as_version=4)
    cell = map_cell(first)
    told = filled(marked(cell.source), found)
    if told != cell.source:
        cell.source = told
        nbformat.write(first, found[0].file)


if __name__ == "__main__":
    main()
