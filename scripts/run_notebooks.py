"""Execute the notebooks in order, with progress, and write them as pages; `make run` calls this.

Executed copies go to build/notebooks/, pages with an index to build/site/. The first failing cell stops the run.
"""

import argparse
import html
import os
import sys
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from tqdm import tqdm

from zsc_utils import claims

ROOT = Path(__file__).parent.parent
# nbconvert's own page, without the scripts that it would fetch from the network
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}"""
INDEX = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Zero-shot classification in little memory</title>
<style>body{{max-width:60em;margin:2em auto;padding:0 1em;font-family:system-ui,sans-serif;line-height:1.5}}</style>
<h1>Zero-shot classification in little memory</h1>
<ol start="0">{notebooks}</ol>
<h2>The ledger of claims</h2>{ledger}</html>
"""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(file, notebook, bar):
    """Run every cell of `notebook` in its own folder; `bar` names the notebook and the cell, and counts cells.

    Exits with the cell and the error when one fails.
    """
    current = None

    def starting(cell, cell_index):
        nonlocal current
        current = cell
        bar.set_description(f"{file.stem} · {cell.get('id', cell_index)}")

    def done(cell, cell_index, execute_reply):
        bar.update()

    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(file.parent)}},
        on_cell_execute=starting, on_cell_executed=done,
    )  # fmt: skip
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        bar.close()
        where = f"cell {current.get('id')!r}:\n{current.source}\n" if current else "before its first cell"
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        sys.exit(f"\nFAILED in {file.name}, {where}\n{what}")


def write_page(notebook, title, file):
    exporter = HTMLExporter(template_file="page.html.j2", extra_loaders=[DictLoader({"page.html.j2": PAGE})])
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    file.write_text(linked(body), encoding="utf-8")


def linked(page):
    """A page whose links to notebooks lead to their pages."""
    return page.replace('.ipynb"', '.html"').replace(".ipynb#", ".html#")


def title_of(notebook):
    """The first heading of a notebook."""
    return next(line for line in notebook.cells[0].source.splitlines() if line.startswith("# "))[2:]


def tidy(notebook):
    """What is committed: no timestamps, no widget state, and a kernel's name rather than a machine's."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of notebooks to run")
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="folder for what is written")
    parser.add_argument("--save", action="store_true", help="also keep the outputs in the notebooks themselves")
    arguments = parser.parse_args()
    checkpoint = os.environ.get("ZSC_CHECKPOINT")
    if (
        checkpoint and Path(checkpoint).is_dir()
    ):  # notebooks run in their own folder: a relative path would lead elsewhere
        os.environ["ZSC_CHECKPOINT"] = str(Path(checkpoint).resolve())
    files = sorted(arguments.notebooks.glob("*.ipynb"))
    if not files:
        sys.exit(f"no notebook in {arguments.notebooks}")
    notebooks = [nbformat.read(file, as_version=4) for file in files]
    executed, site = arguments.output / "notebooks", arguments.output / "site"
    executed.mkdir(parents=True, exist_ok=True)
    site.mkdir(parents=True, exist_ok=True)
    entries = []
    with tqdm(total=sum(len(code_cells(n)) for n in notebooks), unit="cell") as bar:
        for file, notebook in zip(files, notebooks):
            execute(file, notebook, bar)
            nbformat.write(tidy(notebook), executed / file.name)
            if arguments.save:
                nbformat.write(notebook, file)
            write_page(notebook, title_of(notebook), site / f"{file.stem}.html")
            entries.append(f'<li><a href="{file.stem}.html">{html.escape(title_of(notebook))}</a></li>')
    ledger = claims.read()
    index = INDEX.format(notebooks="".join(entries), ledger=linked(claims.page(ledger)))
    (site / "index.html").write_text(index, encoding="utf-8")
    print(f"\n{claims.table(ledger)}\n\nPages to open: {(site / 'index.html').resolve()}")


if __name__ == "__main__":
    main()
