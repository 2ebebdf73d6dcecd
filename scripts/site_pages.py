"""The pages that `make run` writes to build/site/: an index with a map of the lessons, a page for each, and a search.

All of it opens from a file, without a server or a network. The templates and the style are in scripts/templates/.
"""

import base64
import html
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from lesson_map import Lesson
from nbconvert import HTMLExporter

from zsc_utils import claims

TEMPLATES = Path(__file__).parent / "templates"
CALCULATOR = Path(__file__).parent.parent / "pages"
COPIED = ("site.css", "search.js", "minisearch.js")
PICTURES = ("image/png", "image/svg+xml")


@dataclass
class Page:
    """A lesson on the site: the name of its page, the picture for the index if it has one, and what that shows."""

    lesson: Lesson
    page: str
    picture: str = ""
    alt: str = ""


@lru_cache(maxsize=1)
def exporter() -> HTMLExporter:
    """One exporter for all pages: making one takes longer than writing a page with it."""
    return HTMLExporter(template_file="page.html.j2", extra_template_paths=[str(TEMPLATES)])


def environment() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False, trim_blocks=True)


def linked(page: str) -> str:
    """A page whose links to notebooks lead to their pages."""
    return page.replace('.ipynb"', '.html"').replace(".ipynb#", ".html#")


def first_picture(notebook) -> tuple[str, str] | None:
    """The first figure among a notebook's outputs, as a data URI, and what it shows; None without one.

    A figure is a PNG, an SVG, or an <img> with a data URI in HTML, as zsc_utils.drawings writes.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            held = output.get("data", {})
            if drawn := re.search(r'<img [^>]*?alt="([^"]*)"[^>]*?src="(data:image/[^"]+)"', held.get("text/html", "")):
                return drawn[2], html.unescape(drawn[1])
            for kind in (kind for kind in PICTURES if kind in held):
                content = held[kind]
                if kind == "image/svg+xml":  # text, where the others are base64 already
                    content = base64.b64encode(content.encode("utf-8")).decode("ascii")
                alt = output.get("metadata", {}).get(kind, {}).get("alt", f"The first figure, of the cell {cell.id}")
                return f"data:{kind};base64,{''.join(content.split())}", alt
    return None


def sections(notebook, page: str) -> list[dict]:
    """What the search finds: each part between two headings, with its title, its words and the way to it."""
    found, lesson = [], ""
    for cell in notebook.cells:
        heading = re.search(r"^#{1,3} (.+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading or not found:
            name = heading[1] if heading else page
            lesson = lesson or name.split(":")[0]
            title = name if not found else f"{lesson} › {name}"
            found.append({"title": title, "text": "", "page": f"{page}#cell-id={cell.id}"})
        found[-1]["text"] += " ".join(cell.source.split()) + " "
    return found


def copy_calculator(site: Path, pages: Path = CALCULATOR) -> str:
    """Copy what lies in pages/ into the site; the name of the calculator's page, or "" if there is none."""
    if not (pages / "calculator.html").is_file():
        return ""
    shutil.copytree(pages, site, dirs_exist_ok=True)
    return "calculator.html"


class Site:
    """The site while it is written: `add` for each executed notebook, in order, then `finish`.

    A notebook is not held after its page is written: only its words are, for the search.
    """

    def __init__(self, folder: Path, lessons: Sequence[Lesson]):
        self.folder = folder
        self.pages = [Page(lesson, f"{lesson.file.stem}.html") for lesson in lessons]
        self.sections: list[dict] = []
        self.templates = environment()
        folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            shutil.copy(TEMPLATES / name, folder)
        self.calculator = copy_calculator(folder)

    def add(self, number: int, notebook) -> None:
        """Write the page of the lesson that is `number`th in order, from its executed notebook."""
        before = self.pages[number - 1] if number else None
        after = self.pages[number + 1] if number + 1 < len(self.pages) else None
        page = self.pages[number]
        bar = self.templates.get_template("bar.html.j2").render(
            previous=before, following=after, calculator=self.calculator
        )
        title = f"{page.lesson.number} · {page.lesson.name}"
        body, _ = exporter().from_notebook_node(notebook, resources={"metadata": {"name": title}, "bar": bar})
        (self.folder / page.page).write_text(linked(body), encoding="utf-8")
        if picture := first_picture(notebook):
            page.picture, page.alt = picture
        self.sections += sections(notebook, page.page)

    def finish(self, ledger: Sequence[claims.Claim]) -> Path:
        """Write the index and what the search reads; the index's path."""
        held = json.dumps(self.sections, ensure_ascii=False).replace("</", "<\\/")
        (self.folder / "sections.js").write_text(f"const SECTIONS = {held};\n", encoding="utf-8")
        index = self.templates.get_template("index.html.j2").render(
            lessons=self.pages, minutes=sum(page.lesson.minutes for page in self.pages), calculator=self.calculator,
            ledger=linked(claims.page(ledger)),
        )  # fmt: skip
        (self.folder / "index.html").write_text(index, encoding="utf-8")
        return self.folder / "index.html"
