"""Charts of lesson 07, so that the lesson's cells show the idea."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from zsc_utils import plots

QUIET = "#595959"  # for notes, as in drawings
KINDS = {
    "weights": ("mapped weights", plots.BYTES["file-backed"]),
    "own": ("written since start", plots.BYTES["activations"]),
    "rest": ("Python and libraries", plots.BYTES["libraries"]),
}


def show() -> None:
    """Show the current figure, in the language in use."""
    plots.in_language(pyplot.gcf())
    pyplot.show()


def parts(lines: int, rows: int, workers: int = 2) -> None:
    """Show how a file of `lines` becomes parts of `rows` rows, and the parts that `workers` write."""
    count = -(-lines // rows)
    shown = min(count, 2 * workers)
    _, axes = pyplot.subplots(figsize=(8.4, 0.7 * shown))
    box(axes, 0, 0, f"headlines.jsonl\n\n{lines} rows", plots.OTHER, 1.5, 0.7 * shown - 0.2)
    for number in range(shown):
        y, worker = 0.7 * (shown - 1 - number), number % workers
        centre = 0.7 * (shown - 1) - 1.4 * worker - 0.1
        box(axes, 2.2, y, f"part {number}: file, byte, rows", plots.BYTES["attention"], 2.2)
        box(axes, 8.6, y, f"file of part {number}", plots.BYTES["feed-forward"], 1.6)
        for start, stop in (((1.5, y + 0.25), (2.2, y + 0.25)), ((4.4, y + 0.25), (5.9, centre)),
                            ((7.4, centre), (8.6, y + 0.25))):  # fmt: skip
            axes.annotate("", stop, start, arrowprops={"arrowstyle": "->"})
    for worker in range(workers):
        box(axes, 5.9, 0.7 * (shown - 1) - 1.4 * worker - 0.35, f"worker {worker}", plots.ENGINES["transformers"])
    axes.set(xlim=(-0.1, 10.3), ylim=(-0.1, 0.7 * shown))
    axes.set_title(f"{count} parts; the first {shown} are shown. Ray carries places, not texts and results")
    axes.axis("off")
    show()


def box(axes: Axes, x: float, y: float, words: str, colour: str, width: float = 1.5, height: float = 0.5) -> None:
    """Draw a box with words in it."""
    axes.add_patch(pyplot.Rectangle((x, y), width, height, facecolor=colour, edgecolor="black", alpha=0.55))
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=9)


def sharing(held: Mapping[str, Mapping[str, int]]) -> None:
    """Show the proportional bytes of all workers, for each way of {way: {"all", "weights", "own"}}, in their kinds."""
    _, axes = pyplot.subplots(figsize=(7, 2.4))
    ways, left = list(held), [0.0] * len(held)
    sizes = {way: {**one, "rest": one["all"] - one["weights"] - one["own"]} for way, one in held.items()}
    for kind, (words, colour) in KINDS.items():
        widths = [sizes[way][kind] / 1e6 for way in ways]
        axes.barh(ways, widths, left=left, color=colour, label=words)
        left = [start + width for start, width in zip(left, widths)]
    for row, end in enumerate(left):
        axes.text(end, row, f" {end:,.0f} MB", va="center", fontsize=9)
    first, second = (sizes[way] for way in ways[:2])
    more = (second["all"] - first["all"]) / 1e6
    model = sum(second[kind] - first[kind] for kind in ("weights", "own")) / 1e6
    axes.set(xlabel="proportional bytes of all workers, MB", xlim=(0, 1.18 * max(left)))
    axes.set_title(f"The second worker costs {more:,.0f} MB; its model is {model:,.0f} MB of that", pad=22)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.98))
    show()


def crossing(counts: Sequence[int], lines: Mapping[str, Sequence[float]], first: int) -> None:
    """Show bytes over the number of workers, a line for each way, its name at the end; mark where the first crosses."""
    _, axes = pyplot.subplots(figsize=(7, 2.8))
    colours = (plots.BYTES["embeddings"], plots.CHOSEN, plots.BYTES["feed-forward"])
    for sizes, colour in zip(lines.values(), colours):
        axes.plot(counts, [size / 1e6 for size in sizes], "o-", color=colour, markersize=4)
    ends = sorted((sizes[-1] / 1e6, way, colour) for (way, sizes), colour in zip(lines.items(), colours))
    height = -ends[-1][0]
    for end, way, colour in ends:  # names that would meet are moved apart, with a line to their own end
        height = max(end, height + 0.11 * ends[-1][0])
        line = {"arrowstyle": "-", "linewidth": 0.7, "color": colour}
        axes.annotate(
            way, (counts[-1], end), (counts[-1] + 0.9, height), color=colour, fontsize=9, va="center",
            annotation_clip=False, arrowprops=line,
        )  # fmt: skip
    axes.axvline(first, color=QUIET, linestyle=":")
    axes.set(xlabel="workers on one machine", ylabel="all workers,\nwhole processes, MB", ylim=(0, None))
    axes.set_xlim(counts[0] - 0.5, counts[-1] + 0.5)
    axes.set_xticks(counts)
    axes.set_title(f"From {first} workers on, shared fp32 is smaller than int8 that each worker has for itself")
    show()


def rates(found: Mapping[str, Sequence[float]], gain: float) -> None:
    """Show medians of texts a second as bars, with lines from the slowest to the fastest turn; `gain` is in words."""
    _, axes = pyplot.subplots(figsize=(7, 1.9))
    ordered = [sorted(turns) for turns in found.values()]
    middle = [turns[len(turns) // 2] for turns in ordered]
    spread = [[mid - turns[0] for mid, turns in zip(middle, ordered)],
              [turns[-1] - mid for mid, turns in zip(middle, ordered)]]  # fmt: skip
    bars = axes.barh(list(found), middle, xerr=spread, capsize=3, color=plots.OTHER)
    bars[-1].set_color(plots.CHOSEN)
    axes.invert_yaxis()
    axes.set(xlabel="texts a second (mini)", title=f"Two workers: {gain:.2f} times the speed of one process")
    show()


def kill(curve: Sequence[tuple[float, int]], killed: float, back: float | None, again: int) -> None:
    """Show rows written over seconds, (seconds, rows); when a worker was killed, and when another one is there."""
    _, axes = pyplot.subplots(figsize=(7, 2.6))
    axes.step(*zip(*curve), where="post", color=plots.CHOSEN)
    top = max(rows for _, rows in curve)
    marks = [(killed, "one of two\nis killed", 0.72 * top)]
    if back is not None:
        axes.axvspan(killed, back, color=plots.OTHER, alpha=0.4)
        marks.append((back, "another one\nis there", 0.1 * top))
    for at, words, height in marks:
        axes.axvline(at, color="black", linestyle=":")
        side = {"ha": "right"} if at == killed and back is not None else {}
        shift = -4 if side else 4  # points, so that words do not touch the line
        axes.annotate(words, (at, height), (shift, 0), textcoords="offset points", fontsize=9, **side)
    alone = f"{back - killed:.1f} s alone, " if back is not None else ""
    axes.set(xlabel="seconds", ylabel="rows written", ylim=(0, 1.08 * top))
    axes.set_title(
        f"A worker dies: {alone}{again} part{'s' * (again != 1)} begun again, {curve[-1][1]} rows in the end"
    )
    show()


def billion(days: Mapping[str, Mapping[int, tuple[float, float, float]]], ratio: float) -> None:
    """Show days over machines for each model, {model: {machines: (least, median, most)}}, on log axes."""
    _, axes = pyplot.subplots(figsize=(7, 2.9))
    for (which, by_machines), colour in zip(days.items(), (plots.BYTES["feed-forward"], plots.CHOSEN)):
        machines, (low, middle, high) = list(by_machines), zip(*by_machines.values())
        axes.fill_between(machines, low, high, color=colour, alpha=0.3)
        axes.plot(machines, middle, "o-", color=colour)
        axes.text(machines[0], middle[0], f"{which}  ", color=colour, fontsize=9, ha="right", va="center")
    for size, words in ((1, "a day"), (30, "a month"), (365, "a year")):
        axes.axhline(size, color=QUIET, linestyle=":", linewidth=0.8)
        axes.text(1_700, size, words, fontsize=8, va="center")
    axes.set(xscale="log", yscale="log", xlabel="machines like this one", ylabel="days", xlim=(0.25, 1_500))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xticks([1, 10, 100, 1_000])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(f"A billion texts: {ratio:.1f} times the machines for the larger model")
    show()
