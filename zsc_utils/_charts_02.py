"""Charts of lesson 02, so that its cells show the idea."""

import statistics
from collections.abc import Mapping, Sequence

import torch
from matplotlib import pyplot

from zsc_utils import plots
from zsc_utils._agreement import Agreement
from zsc_utils._charts_00 import QUIET, show

SKY = "#56B4E9"


def row_errors(errors: Mapping[str, torch.Tensor]) -> None:
    """Show histograms of {way to choose scales: the error of each row}; the title compares the two last ways."""
    _, axes = pyplot.subplots(figsize=(7, 2.6))
    bins, highest = torch.logspace(-3, 0.2, 60).tolist(), 0
    colours = ((SKY, "#0072B2"), (plots.OTHER, QUIET), (plots.CHOSEN, plots.CHOSEN))  # of bars, and of words
    for (name, each), (colour, ink) in zip(errors.items(), colours):
        count, edges, _ = axes.hist(each.tolist(), bins, color=colour, alpha=0.8)
        axes.annotate(name, (edges[count.argmax()], count.max()), (0, 4), textcoords="offset points", ha="center",
                      fontsize=9, color=ink)  # fmt: skip
        highest = max(highest, count.max())
    middle = {name: each.median().item() for name, each in errors.items()}
    *_, spoilt, by_row = middle.values()
    axes.set(xscale="log", xlabel="error of a row, as a share of its size", ylabel="rows", ylim=(0, 1.2 * highest),
             title=f"A scale a row divides the error by {spoilt / by_row:.0f}")  # fmt: skip
    show("Histograms of the errors of rows. Medians: "
         + ", ".join(f"{name} {share:.1%}" for name, share in middle.items()) + ".")  # fmt: skip


def kept(found: Mapping[str, Mapping[int, Agreement]], enough: int, by_chance: float) -> None:
    """Show the share of answers kept over the bits of a weight, with intervals, for {way: {bits: Agreement}}.

    `enough` bits keep the answers with the last way; `by_chance` is the share that labels drawn at random would keep.
    """
    _, axes = pyplot.subplots(figsize=(7, 2.8))
    counts = list(next(iter(found.values())))
    axes.axhline(by_chance, color=plots.OTHER, linestyle=":")
    axes.annotate("labels at random", (-0.3, by_chance), (4, -4), textcoords="offset points", va="top", fontsize=9,
                  color=QUIET)  # fmt: skip
    for (name, shares), colour, shift in zip(found.items(), (QUIET, plots.CHOSEN), (-0.04, 0.04)):
        ends = [shares[bits].interval for bits in counts]
        middle = [shares[bits].share for bits in counts]
        spread = [[m - low for m, (low, _) in zip(middle, ends)], [high - m for m, (_, high) in zip(middle, ends)]]
        places = [place + shift for place in range(len(counts))]
        axes.errorbar(places, middle, yerr=spread, color=colour, marker="o", capsize=3)
        axes.annotate(name, (places[-1], middle[-1]), (10, 0), textcoords="offset points", va="center", color=colour)
    axes.set_xticks(range(len(counts)), [str(bits) for bits in counts])
    axes.yaxis.set_major_formatter("{x:.0%}")
    texts = next(iter(next(iter(found.values())).values())).texts
    axes.set(xlabel="bits of a weight", ylabel="answers kept", ylim=(0, 1.05), xlim=(-0.3, len(counts) + 0.4),
             title=f"With {name}, {enough} bits keep at least 95 % of {texts} answers")  # fmt: skip
    told = ("; ".join(f"{name}: " + ", ".join(f"{bits} bits {one.share:.0%}" for bits, one in shares.items())
                      for name, shares in found.items()))  # fmt: skip
    show(f"Lines of the share of answers kept, with intervals. {told}; labels at random: {by_chance:.0%}.")


def speeds(ratios: Mapping[str, Sequence[float]]) -> None:
    """Show medians of {precision: speeds against fp32} as bars, with lines from the slowest to the fastest turn."""
    _, axes = pyplot.subplots(figsize=(7, 2.2))
    middle = {name: statistics.median(each) for name, each in ratios.items()}
    order = sorted(middle, key=lambda name: middle[name])
    spread = [[middle[name] - min(ratios[name]) for name in order],
              [max(ratios[name]) - middle[name] for name in order]]  # fmt: skip
    colours = [plots.CHOSEN if name == "int8" else plots.OTHER for name in order]
    axes.barh(order, [middle[name] for name in order], xerr=spread, capsize=3, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    fastest = order[-1]
    axes.set(
        xlabel="speed on this processor, fp32 = 1", title=f"Fastest here: {fastest}, {middle[fastest]:.1f} times fp32"
    )
    show("Bars of speed, fp32 is 1: " + ", ".join(f"{name} {middle[name]:.2f}" for name in order) + ".")


def part_of(name: str) -> str:
    """The part of BERT that a parameter belongs to, as plots.BYTES names it."""
    if "LayerNorm" in name:
        return "norm"
    if "embeddings" in name:
        return "embeddings"
    if ".layer." not in name:
        return "head"
    return "attention" if ".attention." in name else "feed-forward"


def bytes_by_part(sizes: Mapping[str, Mapping[str, int]], left: str) -> None:
    """Show stacked bars of {precision: {part: bytes}}; the title says which share of row `left` are embeddings."""
    _, axes = pyplot.subplots(figsize=(7, 2.6))
    plots.stacked_bytes(axes, {name: dict(parts) for name, parts in sizes.items()})
    share = sizes[left]["embeddings"] / sum(sizes[left].values())
    axes.set_title(f"With linear layers in int8 only, embeddings are {share:.0%} of what is left")
    show("Stacked bars of the bytes of each part: " + "; ".join(
        f"{name}, {sum(parts.values()) / 1e6:.0f} MB, of which embeddings {parts['embeddings'] / 1e6:.0f} MB"
        for name, parts in sizes.items()) + ".")  # fmt: skip
