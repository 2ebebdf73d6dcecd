"""How many minutes a lesson takes: counted from the notebook, never felt. `make save` writes them into the openings.

minutes = words / WORDS_A_MINUTE + exercises x EXERCISE_MINUTES + seconds of its cells / 60, rounded to 5.

- **words**: what stands between white space in the cells that everybody reads, prose and code alike. Cells with the tag
  `solution` or `check`, hints, and the stubs of exercises are left out. WORDS_A_MINUTE is slow on purpose: half of the
  readers read English as a second language, and a formula or a line of code takes longer than a word.
- **exercises**: cells with the tag `exercise`, or, in a notebook that has none, cells whose id begins with `exercise-`.
- **seconds**: the time in which its cells ran when `make save` last ran them. They stand in the notebook's metadata as
  whole seconds, each cell of a second or more by its id.

python scripts/minutes.py shows the sums; --write puts them into the openings.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
WORDS_A_MINUTE = 100
EXERCISE_MINUTES = 5
LINE = re.compile(r"^\*\*(?:Minutes|时间（分钟）)\*\*:? *(\d+)", re.MULTILINE)


def tags(cell) -> list:
    return cell.metadata.get("tags", [])


def is_read(cell) -> bool:
    """Whether everybody reads the cell: it is no solution, no check, no hint and no stub."""
    return not {"solution", "check", "exercise"} & set(tags(cell)) and not cell.id.startswith(("solution-", "hints-"))


def words(cells) -> int:
    return sum(len(cell.source.split()) for cell in cells if is_read(cell))


def exercises(cells) -> int:
    tagged = sum("exercise" in tags(cell) for cell in cells)
    return tagged or sum(cell.id.startswith("exercise-") for cell in cells)


def seconds(notebook, cells=None) -> int:
    """The seconds in which `cells` ran, by default all. Raises ValueError if the notebook was never timed."""
    ran = notebook.metadata.get("seconds")
    if ran is None:
        raise ValueError("its cells were never timed; run: make save")
    return sum(ran.get(cell.id, 0) for cell in cells or notebook.cells)


def exact(notebook, cells=None) -> float:
    """The minutes of `cells`, by default of the whole notebook, not rounded. Raises ValueError as `seconds` does."""
    ran = seconds(notebook, cells)
    cells = cells or notebook.cells
    return words(cells) / WORDS_A_MINUTE + exercises(cells) * EXERCISE_MINUTES + ran / 60


def minutes(notebook) -> int:
    """The minutes that an opening states: rounded to 5, and at least 5."""
    return max(5, 5 * round(exact(notebook) / 5))


def stated(notebook) -> int:
    """The minutes in the opening. Raises ValueError if it states none."""
    found = LINE.search(notebook.cells[0].source)
    if found is None:
        raise ValueError("the opening lacks a line `**Minutes** 40`")
    return int(found[1])


def write(file: Path) -> bool:
    """Put the minutes into the opening of a notebook. Returns whether that changed the file."""
    notebook = nbformat.read(file, as_version=4)
    told = minutes(notebook)
    if stated(notebook) == told:
        return False
    opening = notebook.cells[0]
    opening.source = LINE.sub(lambda line: line[0].removesuffix(line[1]) + str(told), opening.source, count=1)
    nbformat.write(notebook, file)
    return True


def told(file: Path) -> str:
    """One line for a notebook: its parts, their sum, and what the opening states."""
    notebook = nbformat.read(file, as_version=4)
    parts = f"{words(notebook.cells):5} words, {exercises(notebook.cells)} exercises"
    try:
        ran = f"{seconds(notebook):3} seconds: {minutes(notebook)} minutes"
    except ValueError as never:
        ran = str(never)
    return f"{file.stem:28} {parts}, {ran}; the opening states {stated(notebook)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument("--write", action="store_true", help="put the minutes into the openings")
    arguments = parser.parse_args()
    files = sorted(arguments.notebooks.glob("*.ipynb"))
    if not files:
        sys.exit(f"no notebook in {arguments.notebooks}")
    for file in files:
        if arguments.write:
            write(file)
        print(told(file))


if __name__ == "__main__":
    main()
