"""The style of charts: a fixed colour for each kind of byte and each engine, and a Chinese font.

The colours are Okabe and Ito's, distinct for colour-blind readers. Sizes and fonts are set in notebooks/matplotlibrc.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Line
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator
from matplotlib.transforms import Bbox

from zsc_utils.language import in_use, translated

BYTES = {
    "embeddings": "#0072B2",
    "attention": "#E69F00",
    "feed-forward": "#009E73",
    "norm": "#000000",
    "head": "#F0E442",
    "activations": "#CC79A7",
    "file-backed": "#999999",
    "libraries": "#666666",
}
ENGINES = {"ours": "#D55E00", "transformers": "#56B4E9", "ModelScope": "#000000"}
CHOSEN, OTHER = "#D55E00", "#BBBBBB"  # the best label, and all others
QUIET = "#595959"  # for notes, as in drawings
CHINESE = "Noto Sans CJK SC"
STEPS = ("#D55E00", "#009E73", "#0072B2")  # from the levers that take least to those that take most
SHARES = "Blues"  # one hue that only gets darker, so colour-blind readers see the same: white is none, dark is all


def use_chinese_font() -> None:
    """Make the font of mplfonts known to matplotlib, for all of this process; notebooks/matplotlibrc names it."""
    package = find_spec("mplfonts")  # not imported: only its file is wanted
    if package is None or package.origin is None:
        raise ImportError("charts with Chinese text need the font of mplfonts: pip install 'zsc-utils[notebooks]'")
    font_manager.fontManager.addfont(Path(package.origin).parent / "fonts" / "NotoSansCJKsc-Regular.otf")


def in_language(drawn: Figure | Axes) -> None:
    """Put the words of a figure or axes that are finished into the language in use.

    Titles, labels, notes, legends and names of ticks; numbers of ticks are made when the figure is drawn.
    """
    if in_use() == "en":
        return
    for axes in drawn.axes if isinstance(drawn, Figure) else [drawn]:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FixedFormatter | StrCategoryFormatter):  # names; a drawing takes them from here
                places = list(axis.get_majorticklocs())
                names = [*map(translated, formatter.format_ticks(places))]
                axis.set_major_locator(FixedLocator(places))
                axis.set_major_formatter(FixedFormatter(names))
    for text in drawn.findobj(Text):
        text.set_text(translated(text.get_text()))


def score_bars(axes: Axes, labels: Sequence[str], scores: Sequence[float]) -> None:
    """Draw scores from 0 to 1 as horizontal bars with their numbers, the best on top and in colour."""
    order = sorted(range(len(labels)), key=lambda i: scores[i])
    bars = axes.barh([labels[i] for i in order], [scores[i] for i in order], color=OTHER)
    bars[-1].set_color(CHOSEN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.12), xlabel="score")
    in_language(axes)


def stacked_bytes(axes: Axes, rows: dict[str, dict[str, int]], unit: float = 1e6) -> None:
    """Draw a stacked horizontal bar for each row of {name: {kind: bytes}}; ValueError for a kind not in BYTES."""
    strange = {kind for sizes in rows.values() for kind in sizes} - BYTES.keys()
    if strange:
        raise ValueError(f"{', '.join(sorted(strange))}: no kind of byte; there are {', '.join(BYTES)}")
    for kind, colour in BYTES.items():
        earlier = list(BYTES)[: list(BYTES).index(kind)]
        widths = [sizes.get(kind, 0) / unit for sizes in rows.values()]
        starts = [sum(sizes.get(other, 0) for other in earlier) / unit for sizes in rows.values()]
        if any(widths):
            axes.barh(list(rows), widths, left=starts, color=colour, label=kind)
    axes.invert_yaxis()
    axes.set(xlabel={1e6: "tensor bytes, MB", 1e9: "tensor bytes, GB"}[unit])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    in_language(axes)


def stairs(axes: Axes, plans: Mapping[int, Any]) -> None:
    """Draw what plans predict over their budgets, {budget in MB: plan.Plan}: a bar a plan, coloured by its levers.

    The dotted line is where a plan would take all of its budget; the title counts the plans that are not above it.
    """
    kinds: dict[str, dict[int, float]] = {}
    for budget, made in plans.items():
        kind = f"{made.setting.precision}, layers {'streamed' if made.setting.block else 'in memory'}"
        kinds.setdefault(kind, {})[budget] = made.predicted / 1e6
    gaps = [after - before for before, after in pairwise(sorted(plans))]
    width = 0.6 * min(gaps, default=1)
    for (kind, heights), colour in zip(kinds.items(), STEPS, strict=False):
        axes.bar(list(heights), list(heights.values()), width=width, color=colour, label=kind)
    most = 1.05 * max(plans)
    axes.plot((0, most), (0, most), color="black", linewidth=1, linestyle=":", label="all of the budget")
    kept = sum(made.predicted <= budget * 1e6 for budget, made in plans.items())
    axes.set(xlabel="memory_budget, MB", ylabel="predicted at most, MB", xlim=(0, most), ylim=(0, most))
    axes.set_title(f"{kept} of {len(plans)} plans keep their budget")
    axes.legend(loc="upper left", frameon=False)
    in_language(axes)


MARKERS = "sD^v<>PXphd8"  # for families of peers
OURS = {"ours without torch": "*", "ours": "o"}
# where a name may stand, in points and degrees: at first beside error bars, not on them
ANGLES = (30, 330, 150, 210, 60, 300, 120, 240, 0, 180, 90, 270)
CROSSED = 60  # pixels that a name may cover, or points that it may be further away, rather than cross a line
STARTS = {"left": 0.0, "center": 0.5, "right": 1.0}  # where in a name, aligned so, its line ends
AROUND = [(distance, angle) for distance in (10, 16, 26, 38, 52, 70, 90, 115) for angle in ANGLES]


def frontier(axes: Axes, record: dict) -> None:
    """Plot texts a second over the whole process in MB, for each way in a record of benchmarks/containers.py.

    Each point has its name beside it, the marker of its family, and the spread of its turns; it is hollow if its
    answers may differ from the baseline's. A dotted line joins the ways of `best`; the title names its ends, and a
    legend below the axes says what colours and marks mean. Older records, of growth after imports, are plotted by that,
    and the axis says so.
    """
    whole = "ways" in record
    ways = record["ways" if whole else "engines"]
    points = {name: place(one, record) for name, one in ways.items()}
    families = markers(points)
    for name, one in ways.items():
        colour = ENGINES["ours" if name.startswith("ours") else "transformers"]
        exact = one.get("exact", one.get("agreement", 1) == 1)
        axes.errorbar(
            *points[name], **bars(one, record), fmt=families[family(name)], color=colour, ecolor=OTHER,
            elinewidth=1, markerfacecolor=colour if exact else "white", markersize=7, zorder=3,
        )  # fmt: skip
    edge = best(points)
    axes.plot(*zip(*sorted(points[name] for name in edge)), color=ENGINES["ours"], linewidth=1, linestyle=":")
    x = "whole process, MB, libraries included" if whole else "an older meter: process growth after imports, MB"
    axes.set(xlabel=x, ylabel="texts a second")
    axes.margins(0.1)
    axes.set(xlim=(0, None), ylim=(0, None))
    least, most = min(edge, key=lambda name: points[name]), max(edge, key=lambda name: points[name][1])
    axes.set_title(f"Least memory: {least}, {points[least][0]:.0f} MB\n"
                   f"Most speed: {most}, {points[most][1]:.2f} texts a second", loc="left", fontsize=10)  # fmt: skip
    explain_marks(axes, points)
    in_language(axes)
    name_points(axes, {translated(name): point for name, point in points.items()})


def explain_marks(axes: Axes, names: Iterable[str]) -> None:
    """Write a legend below the axes: whose ways they are, and what a hollow mark and the dotted line mean."""
    ours, others = ENGINES["ours"], ENGINES["transformers"]
    words = {"ours": "ours, with torch", "ours without torch": "ours, without torch"}
    marks = [(words[own], OURS[own], ours, ours) for own in words if own in {*map(family, names)}]
    if any(family(name) not in OURS for name in names):
        marks.append(("others: a shape for each", MARKERS[0], others, others))
    marks.append(("hollow: answers may differ from fp32", "o", QUIET, "white"))
    lines = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=inside, label=label)
        for label, marker, colour, inside in marks
    ]
    lines.append(Line2D([], [], color=ours, linewidth=1, linestyle=":", label="no way is better in both"))
    axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(0, -0.13), ncols=3, frameon=False, fontsize=8)


def place(one: dict, record: dict) -> tuple[float, float]:
    """A way's (MB, texts a second)."""
    if "ways" in record:
        return one["whole"] / 1e6, record.get("texts", 24) / one["seconds"]  # older records had 24 texts
    return one["total"] / 1e6, one["texts_per_second"]


def bars(one: dict, record: dict) -> dict[str, Any]:
    """The error bars of a way, from the least and the most of its turns; none for one turn."""
    if one.get("turns", 1) == 1:
        return {}
    size, speed = place(one, record)
    least, most = (value / 1e6 for value in one["spread"]["whole"])
    slow, fast = (record["texts"] / seconds for seconds in reversed(one["spread"]["seconds"]))
    return {"xerr": [[size - least], [most - size]], "yerr": [[speed - slow], [fast - speed]]}


def family(name: str) -> str:
    """What a way's name begins with: ways of one family have one marker."""
    return next((own for own in OURS if name.startswith(own)), name.split(",")[0])


def markers(names: Iterable[str]) -> dict[str, str]:
    """A marker for each family."""
    peers = [one for one in dict.fromkeys(map(family, names)) if one not in OURS]
    return OURS | dict(zip(peers, MARKERS, strict=False))


def name_points(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, with a line to it. A name covers no other name and no point, and as few lines
    as possible."""
    if figure := axes.get_figure(root=True):
        figure.draw_without_rendering()  # the scale of the axes is settled now
    pixels = {name: axes.transData.transform(point) for name, point in points.items()}
    unit = axes.figure.dpi / 72  # pixels a point
    taken = {name: Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit)
             for name, (x, y) in pixels.items()}  # fmt: skip
    lines: list[Line] = []
    for name in sorted(points, key=lambda name: -points[name][1]):
        measured = axes.annotate(name, points[name], fontsize=8)
        size = Text.get_window_extent(measured)
        measured.remove()
        others = [box for other, box in taken.items() if other != name]
        found = []
        for distance, angle in AROUND:
            box, offset, side = spot(pixels[name], distance, angle, size, unit)
            line = Line([pixels[name], pixels[name] + [part * unit for part in offset]])
            crossed = sum(map(line.intersects_bbox, others)) + sum(one.intersects_bbox(box) for one in lines)
            cost = covered(box, [*taken.values()], axes.bbox) + CROSSED * crossed + distance
            found.append((cost, box, offset, side, line))
        _, box, offset, side, line = min(found, key=lambda each: each[0])
        arrow = {"arrowstyle": "-", "linewidth": 0.6, "color": QUIET, "shrinkB": 4, "relpos": (STARTS[side], 0.5)}
        axes.annotate(name, points[name], offset, textcoords="offset points", fontsize=8, ha=side, va="center",
                      arrowprops=arrow)  # fmt: skip
        taken[f"name of {name}"] = box
        lines.append(line)


def spot(point, distance, angle, size, unit):
    """Where a name would stand: (its box in pixels, its offset in points, its alignment)."""
    right, up = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
    side = "center" if abs(right) < 1 else "left" if right > 0 else "right"
    start = STARTS[side] * size.width
    box = Bbox.from_bounds(
        point[0] + right * unit - start, point[1] + up * unit - size.height / 2, size.width, size.height
    )
    return box, (right, up), side


def covered(box, taken, inside):
    """The pixels of a box that are taken, or outside the axes."""
    shared = [Bbox.intersection(box, other) for other in taken]
    kept = Bbox.intersection(box, inside)
    outside = box.width * box.height - (kept.width * kept.height if kept else 0)
    return sum(one.width * one.height for one in shared if one) + outside


def best(points):
    """The names of the Pareto-optimal points (memory, speed): no other is at least as good in both and differs."""
    return [
        name for name, (size, speed) in points.items()
        if not any(x <= size and y >= speed and (x, y) != (size, speed) for x, y in points.values())
    ]  # fmt: skip


def confusion_matrix(axes: Axes, labels: Sequence[str], counts: np.ndarray) -> None:
    """Draw a confusion matrix: of the texts of each true label (a row), the share that got each label (a column).

    `counts` are numbers of texts. A share is written in its cell. Cells without texts, and rows of labels without
    texts, stay empty. Chinese labels are drawn with CHINESE, whatever fonts are set.
    """
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, math.nan), where=totals > 0)
    axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
    size = 9 if len(labels) <= 15 else 6
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = "white" if share > 0.7 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=size)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90, family=CHINESE)
    axes.set_yticks(places, [f"{label} ({total})" for label, total in zip(labels, totals.ravel())], family=CHINESE)
    axes.set(xlabel=translated("label that was said"), ylabel=translated("true label (texts)"))


def suffixes() -> list[str]:
    """The ends of names of files that a chart can be written to."""
    return [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()]
