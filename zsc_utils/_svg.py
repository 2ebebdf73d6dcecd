"""Pictures as SVG text: a canvas of 400 units that is legible on a phone, and a Picture that notebooks show.

The same calls give the same bytes. Every text is measured by an estimate, so that none leaves the canvas.
"""

import html
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from zsc_utils.language import pieces, translated

WIDTH = 400  # units; on a phone of 390 points, a unit is nearly a point
SHOWN_PIXELS = 480  # width on larger screens
SMALL, NORMAL, LARGE = 12, 13, 15  # sizes of text, in units
MARGIN = 8
BOLD = 1.08  # how much wider bold letters are
INK, PALE, WHITE, BLACK = "#1A1A1A", "#DDDDDD", "#FFFFFF", "#000000"
QUIET = "#595959"  # for notes: 7 times the contrast of white, as accessible text needs
FONTS = "Arial, Helvetica, 'DejaVu Sans', 'Noto Sans CJK SC', sans-serif"
NARROW, BROAD = "iljtfrI.,:;|!'()[] ", "mwMW@%—…→"


@dataclass(frozen=True)
class Picture:
    """A finished picture: `svg` is its text, `title` its first line, `alt` says in words what it shows.

    `numbers` are the values that it shows, by name, for checks. Notebooks show the picture, and print `alt` where they
    cannot. They show it as an image, because JupyterLab shows no inline SVG before a notebook is run or trusted.
    """

    svg: str = field(repr=False)
    title: str
    alt: str
    numbers: Mapping[str, float] = field(default_factory=dict, repr=False)
    extra: str = field(default="", repr=False)  # HTML below the image

    def __repr__(self) -> str:
        return f"{self.title}\n{self.alt}"

    def _repr_html_(self) -> str:
        source = "data:image/svg+xml," + quote(self.svg, safe=" =:/;,()!*@'")
        style = f"width:{SHOWN_PIXELS}px;max-width:100%;height:auto"
        words = html.escape(f"{self.title}. {self.alt}", quote=True)
        image = f'<img alt="{words}" style="{style}" src="{source}">'
        return f'<div style="position:relative">{image}{self.extra}</div>' if self.extra else image


class Canvas:
    """Collects shapes from top to bottom; `finished` makes the Picture. Coordinates are in units, y grows downward."""

    def __init__(self, title: str, note: str = ""):
        self.title = translated(title)
        self.shapes: list[str] = []
        self.y: float = MARGIN
        self.paragraph(self.title, LARGE, width=(WIDTH - 2 * MARGIN) / BOLD, weight="bold")
        if note:
            self.paragraph(note, SMALL, colour=QUIET)
        self.y += 6

    def paragraph(self, text, size=NORMAL, x=MARGIN, width=None, **style):
        """Write lines of text from `self.y` on, wrapped at `width`, and move `self.y` below them."""
        for line in wrapped(translated(text), width or WIDTH - MARGIN - x, size):
            self.y += 1.25 * size
            self.text(x, self.y - 0.25 * size, line, size, **style)

    def text(self, x, y, words, size=SMALL, anchor="start", colour=INK, weight="normal"):
        """Write one line with its baseline at y. `anchor`: "start", "middle" or "end"."""
        bold = f' font-weight="{weight}"' if weight != "normal" else ""
        self.shapes.append(
            f'<text x="{number(x)}" y="{number(y)}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{bold}>'
            f"{html.escape(translated(words))}</text>"
        )

    def rect(self, x, y, width, height, fill, stroke=None, *, line=1.0, round=0, dashed=False):
        edge = f' stroke="{stroke}" stroke-width="{number(line)}"' if stroke else ""
        edge += ' stroke-dasharray="4 3"' if dashed else ""
        edge += f' rx="{round}"' if round else ""
        place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        self.shapes.append(f'<rect {place} fill="{fill}"{edge}/>')

    def line(self, x1, y1, x2, y2, colour=INK, width=1.0, dashed=False):
        place = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
        dash = ' stroke-dasharray="3 3"' if dashed else ""
        self.shapes.append(f'<line {place} stroke="{colour}" stroke-width="{number(width)}"{dash}/>')

    def path(self, points, fill="none", stroke=None, width=1.0):
        """A line through points, or an area if it has a fill."""
        track = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        edge = f' stroke="{stroke}" stroke-width="{number(width)}"' if stroke else ""
        kind = "polyline" if fill == "none" else "polygon"
        self.shapes.append(f'<{kind} points="{track}" fill="{fill}"{edge}/>')

    def axis(self, y, x, width, largest, unit, ticks=4):
        """Draw an axis from 0 to `largest` below a chart; its labels stand at round numbers, the unit at the last."""
        self.line(x, y, x + width, y, QUIET)
        steps = rounded_steps(largest, ticks)
        for step in steps:
            place = x + width * step / largest
            self.line(place, y, place, y + 4, QUIET)
            words = translated(f"{step:g}" + (f" {unit}" if step == steps[-1] else ""))
            half = text_width(words, SMALL) / 2
            self.text(min(max(place, half + 2), WIDTH - half - 2), y + 15, words, SMALL, "middle", QUIET)

    def stripe(self, x, y, width, height):
        """Two white lines near the edges of a bar: colour-blind readers then tell it from a grey one."""
        for at in (y + 2.5, y + height - 2.5):
            self.line(x + 0.5, at, x + width - 0.5, at, WHITE, 1.5)

    def key(self, colours, striped=None):
        """A line of coloured squares with their names, at self.y; further lines if they do not fit."""
        x, self.y = MARGIN, self.y + 12
        for name, colour in colours.items():
            width = 17 + text_width(translated(name), SMALL) + 10
            if x > MARGIN and x + width > WIDTH - MARGIN:
                x, self.y = MARGIN, self.y + 16
            self.rect(x, self.y - 9, 11, 11, colour, INK, line=0.5)
            if name == striped:
                self.stripe(x, self.y - 9, 11, 11)
            self.text(x + 15, self.y, name)
            x += width
        self.y += 10

    def finished(self, alt, numbers=None, extra=""):
        """Return the Picture, as high as `self.y`."""
        alt = translated(alt)
        height = number(self.y + MARGIN)
        size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        svg = "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONTS}">',
                f"<title>{html.escape(self.title)}</title>",
                f"<desc>{html.escape(alt)}</desc>",
                f'<rect width="{WIDTH}" height="{height}" fill="{WHITE}"/>',
                *self.shapes,
                "</svg>",
            ]
        )
        return Picture(svg, self.title, alt, numbers or {}, extra)


def number(value):
    """A coordinate as text: at most one decimal, the same on every machine."""
    return f"{round(value + 0.0, 1):g}"


def text_width(text: str, size: float) -> float:
    """Estimate the width of a text in units, from wide letters (DejaVu Sans): other fonts are narrower."""
    return size * sum(map(letter_width, text))


def letter_width(letter):
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in NARROW:
        return 0.4
    return 1.0 if letter in BROAD else 0.7 if letter.isupper() else 0.63


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Split a text into lines that are at most `width` units wide; a word that is wider is cut."""
    lines = [""]
    for piece in pieces(text):
        longer = f"{lines[-1]}{piece}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(fitted(piece.strip(), width, size))
        else:
            lines[-1] = fitted(longer, width, size)
    return lines


def fitted(text: str, width: float, size: float) -> str:
    """Return the text, or as much of it as fits with a mark that it is cut; "" if not even one letter fits."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…" if text else ""


def rounded_steps(largest, count):
    """Round numbers from 0 to `largest`, about `count` steps apart: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(largest / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= count * (1 + 1e-9))
    return [step * place for place in range(int(largest / step + 1e-9) + 1)]


def ink_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour such as "#0072B2" (WCAG's contrast is larger).

    It is a black that is deeper than INK: on the green of plots.BYTES its contrast is 6.1, that of INK is 5.
    """
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return BLACK if (light + 0.05) ** 2 > 0.05 * 1.05 else WHITE
