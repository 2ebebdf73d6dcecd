"""Do the gates catch faults? Puts one defect at a time into a copy of the checkout, and tells which gate catches it.

python scripts/inject.py takes the notebooks that there are. A defect goes into the first notebook that has a place for
it, from a different notebook each time. The cheapest gate comes first: the tests of the house and of the ledger; if
they say nothing, nbval runs that notebook. A defect is caught if a test fails that passes without it. The table shows
the gate and the test. Defects that no notebook has a place for are told, too. Changed code gets a new fingerprint, as
if its author had saved it with the fault: a fault in code must be found by what the code does.

    python scripts/inject.py                         all of them; nbval takes a minute for most that get there
    python scripts/inject.py --defects 1,7,wide-line --no-nbval
    python scripts/inject.py --list
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from defects import DEFECTS
from run_notebooks import code_cells, fingerprint

ROOT = Path(__file__).parent.parent
HOUSE = ("tests/house/test_notebooks.py", "tests/house/test_lesson_code.py", "tests/house/test_site.py",
         "tests/house/test_benchmarks.py", "tests/unit/test_claims.py")  # fmt: skip
EXERCISES = ("tests/*/test_exercise*.py", "tests/*/test_lessons*.py")  # whichever there are
# tests that run notebooks, documents or a browser: no defect needs them
SLOW = "not runner and not network and not every_block and not every_command and not phone"
CAUGHT, MISSED, NO_PLACE = "caught", "NOT CAUGHT", "no place"


@dataclass
class Outcome:
    """What came of a defect: where it was put, the verdict, and the gate and the test that caught it."""

    name: str
    where: str
    verdict: str
    by: str = ""


class Copy:
    """A copy of the checkout, without what git ignores, in which a defect is made and undone."""

    def __init__(self, folder: Path, root: Path = ROOT):
        self.root, self.folder = root, folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=root, capture_output=True,
            text=True, check=True,
        ).stdout  # fmt: skip
        self.files = [name for name in listed.split("\0") if name and (root / name).is_file()]
        for name in self.files:
            self.restore(name)

    def restore(self, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / name, self.folder / name)

    def undo(self) -> None:
        """Bring back every file whose content is not that of the checkout any more."""
        for name in self.files:
            here = self.folder / name
            if not here.is_file() or here.read_bytes() != (self.root / name).read_bytes():
                self.restore(name)

    def failed(self, *arguments: str, timeout: int) -> set[str]:
        """The names of the tests that fail. Raises RuntimeError if pytest cannot run them."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "ZSC_CHECKPOINT"}
        environment |= {"PYTHONPATH": str(self.folder), "COLUMNS": "400"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout
        )
        found = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
        if done.returncode not in (0, 1, 2) or (done.returncode and not found):
            raise RuntimeError(f"pytest ended with status {done.returncode}:\n{done.stdout[-800:]}{done.stderr[-800:]}")
        return found


class Gates:
    """The gates, cheapest first, with the tests that fail in them without any defect."""

    def __init__(self, copy: Copy, nbval: bool):
        self.copy, self.nbval = copy, nbval
        more = [str(file.relative_to(copy.folder)) for some in EXERCISES for file in copy.folder.glob(some)]
        self.house = [name for name in (*HOUSE, *sorted(more)) if (copy.folder / name).is_file()]
        self.before: dict[str, set[str]] = {}

    def run_house(self) -> set[str]:
        """All tests that fail; once it is known which fail without a defect, the first of the others."""
        known = [f"--deselect={name}" for name in self.before.get("house", ())]
        first = ["--exitfirst"] if "house" in self.before else []
        return self.copy.failed(*self.house, "-k", SLOW, *known, *first, timeout=900)

    def run_nbval(self, file: str) -> set[str]:
        return self.copy.failed(
            f"notebooks/{file}", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", timeout=1800
        )

    def clean(self, name: str, run: Callable[[], set[str]]) -> set[str]:
        """The tests of a gate that fail without a defect; run once, when first asked for."""
        if name not in self.before:
            self.before[name] = run()
        return self.before[name]

    def prepare(self) -> None:
        """Run the house on the copy as it is. Exits if not even one of its tests passes."""
        failing = self.clean("house", self.run_house)
        for name in sorted(failing):
            print(f"fails without a defect, and so is not counted: {name}")

    def caught_by(self, file: str, make: Callable[[], object]) -> str:
        """The gate and the first test that catch the defect that `make` makes; "" if none does."""
        make()
        new = self.run_house() - self.before["house"]
        if new:
            return f"house: {short(min(new))}"
        if not self.nbval:
            return ""
        self.copy.undo()
        before = self.clean(file, lambda: self.run_nbval(file))
        make()
        new = self.run_nbval(file) - before
        return f"nbval: {short(min(new, key=in_order))}" if new else ""


def short(test: str) -> str:
    """A test's name without its folder."""
    return test.split("/")[-1]


def in_order(test: str) -> int:
    """The number of the cell in a test of nbval: the first one that fails is told."""
    number = re.search(r"Cell (\d+)|::.*?(\d+)$", test)
    return int(next(filter(None, number.groups()), 0)) if number else 0


def place(copy: Copy, number: int, defect) -> tuple[str, str] | None:
    """(file, what was changed) of the first notebook with a place for a defect, which is made there; None without."""
    files = sorted((copy.folder / "notebooks").glob("*.ipynb"))
    for file in files[number % len(files) :] + files[: number % len(files)]:
        notebook = nbformat.read(file, as_version=4)
        before = {cell.id: cell.source for cell in notebook.cells}
        what = defect.make(copy.folder, file, notebook)
        if what:
            changed = [cell for cell in code_cells(notebook) if before.get(cell.id) != cell.source]
            notebook.metadata["fingerprints"] |= {cell.id: fingerprint(cell) for cell in changed}
            # as JSON: nbformat would put some defects right, such as an id that stands twice
            file.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            return file.name, what
    return None


def tried(copy: Copy, gates: Gates, number: int, defect) -> Outcome:
    """Make one defect, run the gates, and undo it."""
    found = place(copy, number, defect)
    if found is None:
        return Outcome(defect.name, "", NO_PLACE)
    file, what = found
    copy.undo()
    try:
        by = gates.caught_by(file, lambda: place(copy, number, defect))
    finally:
        copy.undo()
    return Outcome(defect.name, f"{file[:2]}: {what}", CAUGHT if by else MISSED, by)


def chosen(asked: str) -> list[tuple[int, object]]:
    """The defects of a list of names and numbers (from 1), all if it is empty. Exits for one that there is not."""
    every = list(enumerate(DEFECTS))
    if not asked:
        return every
    by_name = {defect.name: (number, defect) for number, defect in every}
    by_name |= {str(number + 1): (number, defect) for number, defect in every}
    for name in asked.split(","):
        if name not in by_name:
            sys.exit(f"no defect {name!r}: --list shows all {len(DEFECTS)}")
    return [by_name[name] for name in asked.split(",")]


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a text table, and their count."""
    rows = [("defect", "", "by", "where"), *((o.name, o.verdict, o.by, o.where) for o in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]).rstrip() for row in rows]
    count = [sum(o.verdict == verdict for o in outcomes) for verdict in (CAUGHT, MISSED, NO_PLACE)]
    return "\n".join([*lines, "", f"{count[0]} caught, {count[1]} not caught, {count[2]} without a place"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defects", default="", help="names or numbers, separated by commas (default: all)")
    parser.add_argument("--no-nbval", action="store_true", help="only the house: seconds for each defect, not minutes")
    parser.add_argument("--list", action="store_true", help="show the defects and end")
    arguments = parser.parse_args()
    if arguments.list:
        sys.exit("\n".join(f"{number:2} {one.name}: {one.says}" for number, one in enumerate(DEFECTS, 1)))
    asked, outcomes = chosen(arguments.defects), []
    with tempfile.TemporaryDirectory(prefix="defects-") as folder:
        copy = Copy(Path(folder))
        gates = Gates(copy, not arguments.no_nbval)
        gates.prepare()
        for number, defect in asked:
            outcomes.append(tried(copy, gates, number, defect))
            print(f"{len(outcomes)} of {len(asked)}  {outcomes[-1].name}: {outcomes[-1].verdict}", flush=True)
    print(f"\n{table(outcomes)}")
    sys.exit(any(outcome.verdict == MISSED for outcome in outcomes))


if __name__ == "__main__":
    main()
