"""The map of the lessons, from their openings: written into README.md and into the cell `map` of notebook 00.

python scripts/lesson_map.py. The table stands between the lines `<!-- lessons -->` and `<!-- end -->`, in both places;
README has the score of the ledger too, after `<!-- score -->`. `make save` calls it last, after the minutes. A lesson's
question is the line `**Question** ...` of its opening, or else what follows the colon in its title.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import minutes
import nbformat

from zsc_utils import claims

ROOT = Path(__file__).parent.parent
PLACE = r"<!-- {} -->\n(?:(?!<!-- ).)*<!-- end -->"
TITLE = re.compile(r"^# (?P<number>\d+[a-z]?) · (?P<name>[^:\n]+?)(?:: (?P<about>.+))?$", re.MULTILINE)
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


def put(text: str, name: str, told: str) -> str:
    """`text` with `told` in the place `name`. Raises ValueError if there is no such place, or more than one."""
    held = f"<!-- {name} -->\n\n{told}\n\n<!-- end -->"
    changed, count = re.subn(PLACE.format(name), lambda _: held, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} places between <!-- {name} --> and <!-- end -->, not 1")
    return changed


def readme(text: str, all_lessons: list[Lesson], ledger: list[claims.Claim]) -> str:
    """README's text with the map and the score of the ledger in their places. Raises ValueError as `put` does."""
    return put(put(text, "lessons", table(all_lessons, "notebooks/")), "score", f"**{claims.score(ledger)}.**")


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
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and notebooks/")
    root = parser.parse_args().root
    found = lessons(root / "notebooks")
    if not found:
        sys.exit(f"no notebook in {root / 'notebooks'}")
    page = root / "README.md"
    ledger = claims.read(root / "claims.toml")
    page.write_text(readme(page.read_text(encoding="utf-8"), found, ledger), encoding="utf-8")
    first = nbformat.read(found[0].file, as_version=4)
    cell = map_cell(first)
    told = put(marked(cell.source), "lessons", table(found))
    if told != cell.source:
        cell.source = told
        nbformat.write(first, found[0].file)


if __name__ == "__main__":
    main()
