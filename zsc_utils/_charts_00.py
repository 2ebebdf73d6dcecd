"""Charts of lesson 00, and what the charts of lessons 00 to 02 share, so that the lessons' cells show the idea."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot
from matplotlib.axes import Axes

from zsc_utils import plots
from zsc_utils.language import translated

QUIET = "#595959"  # for notes, as in drawings
Curve = Sequence[tuple[float, float]]  # (seconds, bytes)
NAMES_FROM = 0.6  # of the axes' height: above it stand the names of events


def show(alt: str) -> None:
    """Show the current figure, with its words for readers who cannot see it; a page shows them as alt text."""
    from IPython.display import display  # there in every notebook, and needed nowhere else

    figure = pyplot.gcf()
    plots.in_language(figure)
    display(figure, metadata={"image/png": {"alt": translated(alt)}})
    pyplot.close(figure)


def mark_events(axes: Axes, events: Mapping[str, float], start: float) -> None:
    """Draw a line at each of {event: its time} and write its name at the top, each a step lower than the one before.

    Room for the names is made above the curve, so call it when the curve is drawn.
    """
    top = axes.dataLim.y1
    axes.set_ylim(top=top / NAMES_FROM)
    for number, (event, at) in enumerate(events.items()):
        axes.axvline(at - start, color=plots.OTHER, linestyle=":")
        axes.annotate(f" {event}", (at - start, 0.99 - 0.1 * number), xycoords=axes.get_xaxis_transform(), va="top",
                      color=plots.CHOSEN, fontsize=9)  # fmt: skip


def scores(labels: Sequence[str], found: Sequence[float]) -> None:
    """Show the scores of labels as bars, the best on top; the title has the two best."""
    _, axes = pyplot.subplots(figsize=(7, 1.9))
    plots.score_bars(axes, labels, found)
    first, second = sorted(found, reverse=True)[:2]
    axes.set_title(f"The two best labels share the score: {first:.2f} and {second:.2f}")
    show("Bars of scores: " + ", ".join(f"{label} {score:.2f}" for label, score in zip(labels, found)) + ".")


def opening(curve: Curve, events: Mapping[str, float], weights: int) -> None:
    """Show the resident bytes of a process while a second copy of a model is loaded, run and deleted.

    The dashed line is what the process held before; `weights` are the copy's bytes.
    """
    (start, before), end = curve[0], curve[-1][0]
    _, axes = pyplot.subplots()
    axes.plot([at - start for at, _ in curve], [size / 1e6 for _, size in curve], color=plots.CHOSEN)
    axes.axhline(before / 1e6, linestyle="--", color=plots.BYTES["file-backed"])
    axes.annotate("before: Python, libraries, one copy", (end - start, before / 1e6), (0, -5),
                  textcoords="offset points", ha="right", va="top", color=QUIET)  # fmt: skip
    grown = max(size for _, size in curve) - before
    title = f"A second copy: {grown / 1e6:.0f} MB, of which {weights / 1e6:.0f} MB are weights"
    axes.set(xlabel="seconds", ylabel="whole process (resident), MB", ylim=(0, None), title=title)
    mark_events(axes, events, start)
    show(f"A curve of resident bytes over {end - start:.1f} s with lines at {', '.join(events)}. It begins at "
         f"{before / 1e6:.0f} MB, rises by {grown / 1e6:.0f} MB, and ends at {curve[-1][1] / 1e6:.0f} MB.")  # fmt: skip
