"""The pages that `make run` writes to build/site/: an index with a map of the lessons, a page for each, and a search.

All of it opens from a file, without a server or a network. The templates and the style are in scripts/templates/. The
words of the templates are English; their Chinese is in zh.toml beside them. Chinese pages lie in a folder zh/ of the
English ones.
"""

import base64
import html
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from lesson_map import Lesson
from nbconvert import HTMLExporter

from zsc_utils import claims
from zsc_utils import language as spoken

ROOT = Path(__file__).parent.parent
TEMPLATES = Path(__file__).parent / "templates"
CALCULATOR = ROOT / "pages"
COPIED = ("site.css", "search.js", "minisearch.js")
PICTURES = ("image/png", "image/svg+xml")


@dataclass(frozen=True)
class Edition:
    """What differs between the editions besides words.

    `tag` and `name` are those of the language, `other` is the other edition, and `folder` the way to it from a page.
    `steps` lead from a notebook's folder to the checkout's root.
    """

    tag: str
    name: str
    other: str
    folder: str
    steps: str


EDITIONS = {
    "en": Edition("en", "English", "zh", "zh/", "../"),
    "zh": Edition("zh-CN", "中文", "en", "../", "../../"),
}


@dataclass
class Page:
    """A lesson on the site: the name of its page, the picture for the index if it has one, and what that shows."""

    lesson: Lesson
    page: str
    picture: str = ""
    alt: str = ""


@cache
def words() -> dict[str, str]:
    """{English words of the templates and of this file: Chinese ones}. `{0}` stands for what varies."""
    return tomllib.loads((TEMPLATES / "zh.toml").read_text(encoding="utf-8"))


def said(text: str, *varying: object, language: str = "en") -> str:
    """A text of the pages in a language. KeyError for one whose Chinese is missing."""
    return (words()[text] if language == "zh" else text).format(*varying)


def filters(language: str) -> dict[str, Callable[..., str]]:
    """What templates write as `"words" | said`."""
    return {"said": partial(said, language=language)}


@cache
def exporter(language: str = "en") -> HTMLExporter:
    """One exporter for all pages of a language: making one takes longer than writing a page with it."""
    return HTMLExporter(template_file="page.html.j2", extra_template_paths=[str(TEMPLATES)], filters=filters(language))


def environment(language: str = "en") -> Environment:
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False, trim_blocks=True)
    made.filters |= filters(language)
    return made


def linked(page: str, steps: str = "../", root: str = "../..") -> str:
    """A page whose links to notebooks lead to their pages, and those that leave their folder to the checkout's files.

    `steps` lead from the notebook to the checkout's root, and `root` from the page. The calculator is beside the page.
    """
    out = f'(href|src)="{re.escape(steps)}'
    page = re.sub(rf"{out}pages/calculator\.html", r'\1="calculator.html', page)
    page = re.sub(rf"{out}(?!\.\./)", rf'\1="{root}/', page)
    return page.replace('.ipynb"', '.html"').replace(".ipynb#", ".html#")


def first_picture(notebook, language: str = "en") -> tuple[str, str] | None:
    """The first figure among a notebook's outputs, as a data URI, and what it shows; None without one.

    A figure is a PNG, an SVG, or an <img> with a data URI in HTML, as zsc_utils.drawings writes.
    """
    unnamed = partial(said, "The first figure, of the cell {0}", language=language)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            held = output.get("data", {})
            if drawn := re.search(r'<img [^>]*?alt="([^"]*)"[^>]*?src="(data:image/[^"]+)"', held.get("text/html", "")):
                return drawn[2], html.unescape(drawn[1])
            for kind in (kind for kind in PICTURES if kind in held):
                content = held[kind]
                if kind == "image/svg+xml":  # text, where the others are base64 already
                    content = base64.b64encode(content.encode("utf-8")).decode("ascii")
                alt = output.get("metadata", {}).get(kind, {}).get("alt") or unnamed(cell.id)
                return f"data:{kind};base64,{''.join(content.split())}", alt
    return None


def sections(notebook, page: str) -> list[dict]:
    """What the search finds: each part between two headings, with its title, its words and the way to it."""
    found, lesson = [], ""
    for cell in notebook.cells:
        heading = re.search(r"^#{1,3} (.+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading or not found:
            name = heading[1] if heading else page
            lesson = lesson or re.split("[:：]", name)[0]
            title = name if not found else f"{lesson} › {name}"
            found.append({"title": title, "text": "", "page": f"{page}#cell-id={cell.id}"})
        found[-1]["text"] += " ".join(cell.source.split()) + " "
    return found


def copy_calculator(site: Path, pages: Path = CALCULATOR, language: str = "en", both: bool = False) -> str:
    """Copy what lies in pages/ into the site; the name of the calculator's page, or "" if there is none.

    With `both` editions, its link to the lessons leads to those of the language that the calculator speaks.
    """
    if not (pages / "calculator.html").is_file():
        return ""
    shutil.copytree(pages, site, dirs_exist_ok=True)
    if both:
        page, edition = site / "calculator.html", EDITIONS[language]
        link = f'data-{edition.other}="{{}}index.html"'
        told = page.read_text(encoding="utf-8").replace(link.format(""), link.format(edition.folder))
        page.write_text(told, encoding="utf-8")
    return "calculator.html"


class Site:
    """The site while it is written: `add` for each executed notebook, in order, then `finish`.

    `language` is that of its notebooks, "en" or "zh"; with `both`, pages have links to the same ones of the other
    edition. A notebook is not held after its page is written: only its words are, for the search.
    """

    def __init__(self, folder: Path, lessons: Sequence[Lesson], language: str = "en", both: bool = False):
        self.folder, self.language, self.both = folder, spoken.known(language), both
        self.edition = EDITIONS[language]
        self.pages = [Page(lesson, f"{lesson.file.stem}.html") for lesson in lessons]
        self.sections: list[dict] = []
        self.templates = environment(language)
        folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            shutil.copy(TEMPLATES / name, folder)
        found = copy_calculator(folder, CALCULATOR, language, both)
        self.calculator = f"{found}?lang={language}" if found else ""

    def add(self, number: int, notebook) -> None:
        """Write the page of the lesson that is `number`th in order, from its executed notebook."""
        before = self.pages[number - 1] if number else None
        after = self.pages[number + 1] if number + 1 < len(self.pages) else None
        page = self.pages[number]
        bar = self.templates.get_template("bar.html.j2").render(
            previous=before, following=after, calculator=self.calculator, other=self.other(page.page)
        )
        title = f"{page.lesson.number} · {page.lesson.name}"
        told = {"metadata": {"name": title}, "bar": bar, "tag": self.edition.tag}
        body, _ = exporter(self.language).from_notebook_node(notebook, resources=told)
        (self.folder / page.page).write_text(self.linked(body), encoding="utf-8")
        if picture := first_picture(notebook, self.language):
            page.picture, page.alt = picture
        self.sections += sections(notebook, page.page)

    def finish(self, ledger: Sequence[claims.Claim]) -> Path:
        """Write the index and what the search reads; the index's path."""
        held = json.dumps(self.sections, ensure_ascii=False).replace("</", "<\\/")
        (self.folder / "sections.js").write_text(f"const SECTIONS = {held};\n", encoding="utf-8")
        with spoken.speaking(self.language):
            table = self.linked(claims.page(ledger))
        index = self.templates.get_template("index.html.j2").render(
            lessons=self.pages, minutes=sum(page.lesson.minutes for page in self.pages), calculator=self.calculator,
            ledger=table, tag=self.edition.tag, other=self.other("index.html"),
        )  # fmt: skip
        (self.folder / "index.html").write_text(index, encoding="utf-8")
        return self.folder / "index.html"

    def linked(self, page: str) -> str:
        """A page whose links lead somewhere from the site's folder."""
        root = Path(os.path.relpath(ROOT, self.folder)).as_posix()
        return linked(page, self.edition.steps, root)

    def other(self, page: str) -> str:
        """The link to the same page of the other edition, or "" if that is not written."""
        if not self.both:
            return ""
        other = EDITIONS[self.edition.other]
        return f'<a href="{self.edition.folder}{page}" hreflang="{other.tag}" lang="{other.tag}">{other.name}</a>'
