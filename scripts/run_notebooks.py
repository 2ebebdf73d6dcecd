"""Execute the notebooks of both editions in order, with progress, and write them as pages; `make run` calls this.

Executed copies go to build/notebooks/, pages with an index to build/site/, the guesses that stand in the lessons to
build/guesses.json; of the Chinese edition, which scripts/edition.py builds from the English one, each to zh/ in there.
The first failing cell stops the run.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import edition
import ledger
import lesson_map
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from site_pages import Site
from tqdm import tqdm

from zsc_utils import claims

ROOT = Path(__file__).parent.parent


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(file, notebook, bar, after=lambda cell: None):
    """Run every cell of `notebook` in its own folder; `bar` names the notebook and the cell, and counts cells.

    `after` is called with each cell that has run. Returns the whole seconds of each cell of a second or more, by its
    id. Exits with the cell and the error when one fails.
    """
    current, began, seconds = None, 0.0, {}

    def starting(cell, cell_index):
        nonlocal current, began
        current, began = cell, time.perf_counter()
        bar.set_description(f"{file.stem} · {cell.get('id', cell_index)}")

    def done(cell, cell_index, execute_reply):
        bar.update()
        if (took := round(time.perf_counter() - began)) >= 1:
            seconds[cell.get("id", str(cell_index))] = took
        after(cell)

    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(file.parent)}},
        on_cell_execute=starting, on_cell_executed=done, coalesce_streams=True,
    )  # fmt: skip
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        bar.close()
        where = f"cell {current.get('id')!r}:\n{current.source}\n" if current else "before its first cell"
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        sys.exit(f"\nFAILED in {file.name}, {where}\n{what}")
    return seconds


def title_of(notebook):
    """The first heading of a notebook."""
    return next(line for line in notebook.cells[0].source.splitlines() if line.startswith("# "))[2:]


def opening_of(file, notebook):
    """What the opening of a notebook says; its title alone, without question or minutes, if it is not one of ours."""
    try:
        return lesson_map.lesson(file, notebook)
    except ValueError:
        return lesson_map.Lesson(file, file.stem[:2], title_of(notebook), "", 0)


def fingerprint(cell):
    """A short hash of a cell's code and outputs: with it, a test tells whether the outputs are those of that code."""
    return hashlib.sha256(json.dumps([cell.source, cell.outputs], sort_keys=True).encode()).hexdigest()[:12]


def tidy(notebook, seconds):
    """What is committed: no timestamps, no widget state, a kernel's name rather than a machine's, seconds of cells and
    their fingerprints.

    scripts/minutes.py reads those seconds.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "seconds": seconds,
        "fingerprints": {cell.id: fingerprint(cell) for cell in code_cells(notebook)},
    }
    return notebook


def english_edition(folder):
    """{file: notebook, as it is saved} of a folder."""
    return {file: nbformat.read(file, as_version=4) for file in sorted(folder.glob("*.ipynb"))}


def chinese_edition(folder):
    """{file: notebook, as it is built from the English one} of the lessons in a folder."""
    return {folder / "zh" / f"{stem}.ipynb": edition.build(stem) for stem in edition.lessons()}


EDITIONS = {"en": english_edition, "zh": chinese_edition}


def run(language, notebooks, output, save, both, bar):
    """Execute the notebooks of an edition and write their pages, linked to the other edition if `both` are run.

    Returns the index.
    """
    below = Path() if language == "en" else Path(language)
    (executed := output / "notebooks" / below).mkdir(parents=True, exist_ok=True)
    guesses = (output / below / "guesses.json").resolve()  # not the reader's own, and none of an earlier run
    guesses.parent.mkdir(parents=True, exist_ok=True)
    guesses.unlink(missing_ok=True)
    os.environ["ZSC_GUESSES"] = str(guesses)
    os.environ.pop("ZSC_LANGUAGE", None)  # the Chinese lessons set it themselves
    site = Site(output / "site" / below, [opening_of(*one) for one in notebooks.items()], language, both)
    keep = {"after": ledger.keep} if save and language == "en" else {}
    for number, (file, notebook) in enumerate(notebooks.items()):
        nbformat.write(tidy(notebook, execute(file, notebook, bar, **keep)), executed / file.name)
        if save:
            nbformat.write(notebook, file)
        site.add(number, notebook)
        notebook.cells = []  # its outputs are on disk now; memory does not grow with the number of notebooks
    return site.finish(claims.read())


def asked():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of notebooks to run")
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="folder for what is written")
    parser.add_argument("--save", action="store_true", help="also keep the outputs in the notebooks themselves")
    parser.add_argument("--edition", choices=EDITIONS, help="one edition alone; of another folder, the English one")
    return parser.parse_args()


def main():
    arguments = asked()
    checkpoint = os.environ.get("ZSC_CHECKPOINT")
    if checkpoint and Path(checkpoint).is_dir():  # notebooks run in their own folder: a relative path leads elsewhere
        os.environ["ZSC_CHECKPOINT"] = str(Path(checkpoint).resolve())
    whole = arguments.notebooks.resolve() == ROOT / "notebooks"
    languages = [arguments.edition] if arguments.edition else EDITIONS if whole else ["en"]
    editions = {language: EDITIONS[language](arguments.notebooks) for language in languages}
    if not all(editions.values()):
        sys.exit(f"no notebook in {arguments.notebooks}")
    cells = sum(len(code_cells(n)) for notebooks in editions.values() for n in notebooks.values())
    with tqdm(total=cells, unit="cell") as bar:
        options = arguments.output, arguments.save, len(editions) > 1, bar
        pages = [run(*edition, *options).resolve() for edition in editions.items()]
    print(f"\n{claims.table(claims.read())}\n\nPages to open: {', '.join(map(str, pages))}")


if __name__ == "__main__":
    main()
