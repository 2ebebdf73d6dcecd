"""A workshop of 45, 90 or 180 minutes from the lessons: `make workshop MINUTES=90` writes it to build/workshop/.

- learner/: notebooks with the parts that fit, without solutions and outputs; instructor/: the same, with both
- agenda.md: what is when; wrong_answers.md: what learners write, and what they think; varies.md: what each machine
  prints differently
- zsc_utils/ and what it needs, and wheelhouse/ with install.sh, which sets all of it up without a network

Which lessons a workshop has is COURSES; which of their sections and exercises, their counted minutes decide.
"""

import argparse
import copy
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import lesson_map
import minutes as counting
import nbformat
import parts as dividing

ROOT = Path(__file__).parent.parent
COURSES = {45: ("00",), 90: ("00", "01", "03"), 180: ("00", "01", "02", "03", "05", "08")}
WELCOME, CLOSING = 5, 5  # minutes: is everybody set up? what do you take home?
QUESTIONS = 0.1  # the share of the time that is kept for questions
BREAKS = {45: 0, 90: 0, 180: 15}
COPIED = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "claims.toml", "benchmarks/records")
INSTALL = """#!/usr/bin/env bash
# Sets up .venv beside this file from wheelhouse/, without a network. The wheels are for Python {python}.
set -euo pipefail
cd "$(dirname "$0")"
python{python} -m venv --clear .venv
PIP=".venv/bin/python -m pip install --disable-pip-version-check --no-index --find-links wheelhouse"
$PIP 'setuptools>=77'
$PIP --no-build-isolation -e '.[{extras}]'
# converts the weights of both checkpoints once, so that nobody waits for them later
.venv/bin/python -c 'import zsc_utils as zsc; zsc.load("base-shape"); zsc.load("mini")'
echo 'Ready: .venv/bin/jupyter lab --notebook-dir=learner'
"""


@dataclass
class Lesson:
    """A lesson of a workshop: its notebook, its parts, and the numbers of the parts that were picked."""

    opening: lesson_map.Lesson
    notebook: nbformat.NotebookNode
    parts: list[dividing.Part]
    picked: set[int]

    @property
    def minutes(self) -> float:
        return sum(self.parts[number].minutes for number in self.picked)

    def with_needs(self, number: int) -> set[int]:
        """The part and all that it needs, as far as they are not picked yet."""
        return ({number} | self.parts[number].needs) - self.picked

    def in_turn(self) -> list[int]:
        """The numbers of its sections and exercises in turn: something to read, then something to do."""
        kinds = [[n for n, part in enumerate(self.parts) if part.kind == kind] for kind in ("section", "exercise")]
        return [number for pair in zip_longest(*kinds) for number in pair if number is not None]

    def cost(self, numbers: set[int]) -> float:
        return sum(self.parts[number].minutes for number in numbers)


def read(file: Path) -> Lesson:
    """A lesson with what cannot be left out: its beginning, its first section and exercise, and what to remember."""
    notebook = nbformat.read(file, as_version=4)
    try:
        found = dividing.split(notebook)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    one = Lesson(lesson_map.lesson(file, notebook), notebook, found, {0})
    for kind in ("section", "exercise", "remember"):
        first = next((number for number, part in enumerate(found) if part.kind == kind), None)
        if first is not None:
            one.picked |= one.with_needs(first)
    return one


def pick(lessons: list[Lesson], length: int) -> list[Lesson]:
    """The lessons that fit into a workshop of `length` minutes, with as many of their parts as fit.

    Lessons go from the end if not even their first parts fit. The rest is filled in turns: each lesson gets its next
    part, if that fits with what it needs. Raises ValueError if the first lesson does not fit alone.
    """
    room = length * (1 - QUESTIONS) - WELCOME - CLOSING - BREAKS[length]
    chosen = list(lessons)
    while sum(one.minutes for one in chosen) > room:
        chosen.pop()
    if not chosen:
        first = lessons[0]
        raise ValueError(
            f"{length} minutes: {first.opening.file.name} takes {first.minutes:.0f} of {room:.0f} at least"
        )
    for number in range(max(len(one.parts) for one in chosen)):
        for one in chosen:
            if number < len(one.parts) and number not in one.picked:
                added = one.with_needs(number)
                if sum(each.minutes for each in chosen) + one.cost(added) <= room:
                    one.picked |= added
    return chosen


def cells_of(one: Lesson, lessons: list[Lesson], solutions: bool) -> list:
    """The cells of a workshop's notebook: those of its parts; without solutions, without outputs."""
    kept = [cell for number in sorted(one.picked) for cell in one.parts[number].cells]
    order = {cell.id: number for number, cell in enumerate(one.notebook.cells)}
    found = []
    for cell in sorted(map(copy.deepcopy, kept), key=lambda cell: order[cell.id]):
        if not solutions and (cell.id.startswith("solution-") or "solution" in counting.tags(cell)):
            continue
        if cell.cell_type == "code" and not solutions:
            cell.outputs, cell.execution_count = [], None
        if cell.cell_type == "markdown":
            cell.source = without_dead_links(cell.source, {each.opening.file.name for each in lessons})
        found.append(cell)
    stated = max(5, 5 * round(one.minutes / 5))
    found[0].source = counting.LINE.sub(f"**Minutes** {stated}", found[0].source, count=1)
    return found


def without_dead_links(source: str, there: set[str]) -> str:
    """Markdown whose links to lessons that are not in the workshop are their words only."""
    return re.sub(
        r"\[([^\]]*)\]\((\d\d_\w+\.ipynb)[^)]*\)", lambda link: link[0] if link[2] in there else link[1], source
    )


def steps(one: Lesson) -> list[tuple[float, str]]:
    """(minutes, what is done) of a lesson: sections that follow each other are one step, an exercise is one too."""
    found = []
    for part in (one.parts[number] for number in sorted(one.picked)):
        name = f"{one.opening.number} {one.opening.name}"
        if part.kind == "exercise":
            found.append((part.minutes, f"{name}, exercise `{part.title}`"))
        elif found and "exercise" not in found[-1][1]:
            found[-1] = (found[-1][0] + part.minutes, f"{found[-1][1]}; {part.title}")
        else:
            found.append((part.minutes, f"{name}: {part.title}"))
    return found


def agenda(lessons: list[Lesson], length: int) -> str:
    """The agenda as Markdown: each step with the time at which it begins."""
    all_steps = [(WELCOME, "Welcome: does `.venv/bin/jupyter lab --notebook-dir=learner` open for everybody?")]
    for number, one in enumerate(lessons):
        if BREAKS[length] and number == (len(lessons) + 1) // 2:
            all_steps.append((BREAKS[length], "Break"))
        all_steps += steps(one)
    left = length - CLOSING - sum(takes for takes, _ in all_steps)
    all_steps += [(left, "Questions, wherever they come up"), (CLOSING, "Closing: one thing for your own work")]
    lines = [f"# A workshop of {length} minutes", "", "| from | minutes | what |", "|---|---|---|"]
    clock = 0.0
    for takes, what in all_steps:
        begins, ends = round(clock), round(clock + takes)
        lines.append(f"| {begins // 60}:{begins % 60:02} | {ends - begins} | {what} |")
        clock += takes
    return "\n".join([*lines, "", "Minutes are counted by `scripts/minutes.py`."]) + "\n"


def wrong_answers(lessons: list[Lesson], folder: Path) -> str:
    """What learners write in the exercises of this workshop, and why, as Markdown."""
    lines = ["# Wrong answers to expect", ""]
    for one in lessons:
        file = folder / f"{one.opening.file.stem}.toml"
        wrong = tomllib.loads(file.read_text(encoding="utf-8"))["wrong"] if file.is_file() else []
        asked = {one.parts[number].title for number in one.picked if one.parts[number].kind == "exercise"}
        for entry in wrong:
            if entry["exercise"] in asked:
                lines += [
                    f"## {one.opening.number}, {entry['exercise']}",
                    "",
                    "```python",
                    entry["code"].strip(),
                    "```",
                ]
                lines += ["", f"- thinks: {entry['thinks']}", f"- the check says: … {entry['says']} …", ""]
    if len(lines) == 2:
        lines.append("None is written for the exercises of this workshop.")
    return "\n".join(lines) + "\n"


def varies(lessons: list[Lesson]) -> str:
    """The cells whose outputs differ from machine to machine, with what they gave where the lessons were made."""
    lines = ["# What differs from machine to machine", "", "The outputs below are of the authors' machine.", ""]
    for one in lessons:
        for cell in (cell for number in sorted(one.picked) for cell in one.parts[number].cells):
            if "nbval-ignore-output" in counting.tags(cell):
                told = "".join(out.get("text", "") for out in cell.outputs).rstrip() or "(a figure)"
                lines += [f"## {one.opening.number}, cell `{cell.id}`", "", "```text", told, "```", ""]
    return "\n".join(lines) + "\n"


def write(lessons: list[Lesson], length: int, output: Path, root: Path = ROOT) -> None:
    """Write the notebooks and the three pages, and copy the module beside them."""
    shutil.rmtree(output, ignore_errors=True)
    for name, solutions in (("learner", False), ("instructor", True)):
        (output / name).mkdir(parents=True)
        shutil.copy(root / "notebooks" / "matplotlibrc", output / name)
        for one in lessons:
            made = nbformat.v4.new_notebook(cells=cells_of(one, lessons, solutions), metadata=one.notebook.metadata)
            nbformat.write(made, output / name / one.opening.file.name)
    (output / "agenda.md").write_text(agenda(lessons, length), encoding="utf-8")
    told = wrong_answers(lessons, root / "workshop" / "wrong_answers")
    (output / "wrong_answers.md").write_text(told, encoding="utf-8")
    (output / "varies.md").write_text(varies(lessons), encoding="utf-8")
    shutil.copytree(root / "zsc_utils", output / "zsc_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED:
        copier = shutil.copytree if (root / name).is_dir() else shutil.copy
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        copier(root / name, output / name)


def extras(lessons: list[Lesson]) -> list[str]:
    """The extras of pyproject.toml that these lessons need."""
    return ["notebooks", *(["scale"] if "07" in {one.opening.number for one in lessons} else [])]


def pinned(wanted: list[str], file: Path = ROOT / "pyproject.toml") -> list[str]:
    """All requirements of the project with these extras, torch first: the others then take that build of it."""
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    named = [
        *project["dependencies"],
        *(pin for extra in ("torch", *wanted) for pin in project["optional-dependencies"][extra]),
    ]
    pins = [pin for pin in named if not pin.startswith("zsc-utils")]
    return sorted(dict.fromkeys(pins), key=lambda pin: not pin.startswith("torch=="))


def wheelhouse(lessons: list[Lesson], output: Path) -> None:
    """Collect the wheels of all pinned dependencies, and write install.sh. Exits if pip fails.

    `pip wheel` also builds those of the few packages that have none, so that the installation needs no compiler.
    """
    wanted = extras(lessons)
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-cache-dir"]
    folder = output / "wheelhouse"
    first, *others = pinned(wanted)
    for some in ([first], [first, *others, "setuptools>=77"]):
        if subprocess.run([*pip, "--wheel-dir", folder, "--find-links", folder, *some]).returncode:
            sys.exit(f"pip did not get all wheels into {folder}: its last lines say why")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    install = output / "install.sh"
    install.write_text(INSTALL.format(python=python, extras=",".join(wanted)), encoding="utf-8")
    install.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="90", help="how long the workshop is: 45, 90 or 180")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of the lessons")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "workshop", help="folder for what is written")
    parser.add_argument("--no-wheelhouse", action="store_true", help="download nothing")
    arguments = parser.parse_args()
    if arguments.minutes not in map(str, COURSES):
        sys.exit(f"MINUTES={arguments.minutes}: choose one of {', '.join(map(str, COURSES))}")
    length = int(arguments.minutes)
    try:
        files = [file for name in COURSES[length] for file in sorted(arguments.notebooks.glob(f"{name}_*.ipynb"))]
        lessons = pick([read(file) for file in files], length)
    except ValueError as error:
        sys.exit(str(error))
    write(lessons, length, arguments.output)
    if not arguments.no_wheelhouse:
        wheelhouse(lessons, arguments.output)
    print(f"{agenda(lessons, length)}\nWritten to {arguments.output.resolve()}")


if __name__ == "__main__":
    main()
