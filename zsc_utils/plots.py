"""The style of charts: a fixed colour for each kind of byte and each engine, and a Chinese font.

The colours are Okabe and Ito's, distinct for colour-blind readers. Sizes and fonts are set in notebooks/matplotlibrc.
"""

import itertools
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase

BYTES = {
    "embeddings": "#0072B2",
    "attention": "#E69F00",
    "feed-forward": "#009E73",
    "norm": "#000000",
    "head": "#F0E442",
    "activations": "#CC79A7",
    "file-backed": "#999999",
}
ENGINES = {"ours": "#D55E00", "transformers": "#56B4E9", "ModelScope": "#000000"}
CHOSEN, OTHER = "#D55E00", "#BBBBBB"  # the best label, and all others
CHINESE = "Noto Sans CJK SC"
SHARES = "Blues"  # one hue that only gets darker, so colour-blind readers see the same: white is none, dark is all


def use_chinese_font() -> None:
    """Make the font of mplfonts known to matplotlib, for all of this process; notebooks/matplotlibrc names it."""
    package = find_spec("mplfonts")  # not imported: only its file is wanted
    if package is None or package.origin is None:
        raise ImportError("charts with Chinese text need the font of mplfonts: pip install 'zsc-utils[notebooks]'")
    font_manager.fontManager.addfont(Path(package.origin).parent / "fonts" / "NotoSansCJKsc-Regular.otf")


def score_bars(axes: Axes, labels: Sequence[str], scores: Sequence[float]) -> None:
    """Draw scores from 0 to 1 as horizontal bars with their numbers, the best on top and in colour."""
    order = sorted(range(len(labels)), key=lambda i: scores[i])
    bars = axes.barh([labels[i] for i in order], [scores[i] for i in order], color=OTHER)
    bars[-1].set_color(CHOSEN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.12), xlabel="score")


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


MARKERS = "sD^v<>PXphd8"  # for peers, whose points lie close together


def frontier(axes: Axes, record: dict) -> None:
    """Plot texts per second over process growth in MB, for each engine in a record of benchmarks/peers.py. Ours have
    names, peers have markers; a dotted line joins the engines of `best`."""
    points = {engine: (one["total"] / 1e6, one["texts_per_second"]) for engine, one in record["engines"].items()}
    markers, heights = iter(MARKERS), itertools.cycle((7, -14))  # names above and below in turn: no overlap
    for engine, place in points.items():
        if engine.startswith("ours"):
            axes.plot(*place, "o", color=ENGINES["ours"], markersize=9, zorder=3)
            axes.annotate(engine, place, xytext=(2, next(heights)), textcoords="offset points")
        else:
            axes.plot(*place, next(markers), color=ENGINES["transformers"], markeredgecolor="black", label=engine)
    edge = sorted(points[engine] for engine in best(points))
    axes.plot(*zip(*edge), color=ENGINES["ours"], linewidth=1, linestyle=":")
    top = 1.15 * max(speed for _, speed in points.values())
    axes.set(xlabel="process growth, MB", ylabel="texts a second", xlim=(0, None), ylim=(0, top))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


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
    axes.set(xlabel="label that was said", ylabel="true label (texts)")


def suffixes() -> list[str]:
    """The ends of names of files that a chart can be written to."""
    return [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()]
