"""What readers may write for the exercises: stubs and solutions, cells of the notebooks, and wrong answers."""

import linecache
import re
import tomllib
from pathlib import Path

import nbformat

from zsc_utils import exercises

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {file.stem.split("_")[0]: file for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}
EXERCISES = exercises.all_exercises()
CHECK_CALL = re.compile(r"^check\(.*\)\s*$", re.MULTILINE)


def wrong_answers():
    """(file's name, entry) of each wrong answer."""
    for file in sorted((ROOT / "workshop" / "wrong_answers").glob("*.toml")):
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))["wrong"]:
            yield file.stem, entry


CELLS = {
    cell.id: cell.source
    for file in NOTEBOOKS.values()
    for cell in nbformat.read(file, as_version=4).cells
    if cell.id.startswith(("try-", "solution-"))
}


def attempt(name, source):
    """What a cell's source binds to the exercise's name, in a fresh namespace, without its call of check."""
    source = CHECK_CALL.sub("", source)
    cell = f"<cell {name}>"
    linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)
    space = {"__name__": "__main__"}
    exec(compile(source, cell, "exec"), space)
    return space[EXERCISES[name].attempt]
