"""Charts of lessons 01 and 01b, and control groups for 01b, so that the lessons' cells show the idea."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from matplotlib import pyplot
from transformers import PretrainedConfig

from zsc_utils import plots
from zsc_utils._charts_00 import QUIET, Curve, mark_events, show
from zsc_utils._container import GROUPS
from zsc_utils.memory import format_size, predict

METERS = {"resident": QUIET, "proportional": plots.CHOSEN}


def gelu_and_layer_norm(token: torch.Tensor, norm: torch.nn.LayerNorm) -> None:
    """Show the curve of GELU, and the numbers of one `token` (hidden size) before and after a LayerNorm."""
    _, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.7))
    inputs, colour = torch.linspace(-4, 4, 161), plots.BYTES["feed-forward"]
    gelu = torch.nn.functional.gelu
    left.axhline(0, color=plots.OTHER, linewidth=0.8)
    left.plot(inputs, gelu(inputs), color=colour)
    for x, place in ((-1.0, (-3.4, 0.8)), (2.0, (-1.2, 2.6))):
        y = gelu(torch.tensor(x)).item()
        left.plot(x, y, "o", color=colour)
        left.annotate(f"GELU({x:g}) = {y:.2f}", (x, y), place, arrowprops={"arrowstyle": "-", "color": QUIET})
    left.set(title="GELU, number by number", xlabel="number", ylabel="result")
    with torch.inference_mode():
        sides = {"before": token, "after": norm(token)}
    for (name, numbers), colour in zip(sides.items(), (plots.OTHER, plots.BYTES["embeddings"])):
        counts, edges, _ = right.hist(numbers.numpy(), bins=30, color=colour)
        words = f"{name}\nmean {abs(numbers.mean()):.1f}\ndeviation {numbers.std():.1f}"
        right.annotate(words, (numbers.mean(), counts.max()), xytext=(0, 4), textcoords="offset points", ha="center",
                       color=QUIET if name == "before" else colour, fontsize=9)  # fmt: skip
    right.margins(y=0.45)
    right.set(title=f"LayerNorm, the {token.numel()} numbers of one token", xlabel="number", ylabel="how many")
    told = ", ".join(
        f"{name} mean {numbers.mean():.1f}, deviation {numbers.std():.1f}" for name, numbers in sides.items()
    )
    show(f"Left: the curve of GELU. Right: histograms of the numbers of one token, LayerNorm {told}.")


def lengths(config: PretrainedConfig, tokens: Sequence[int], measured: Mapping[str, Sequence[int]]) -> None:
    """Show the peak activations over the length: predicted as lines, measured as points; {attention: bytes}."""
    _, axes = pyplot.subplots()
    fine, last = range(8, max(tokens) + 1, 8), {}
    for (kind, sizes), colour in zip(measured.items(), (QUIET, plots.CHOSEN)):
        curve = [predict(config, 1, length, attention=kind).peak_activations for length in fine]
        axes.plot(fine, [size / 1e6 for size in curve], color=colour)
        axes.plot(tokens, [size / 1e6 for size in sizes], "o", color=colour)
        axes.annotate(f"{kind} {curve[-1] / 1e6:.1f} MB", (fine[-1], curve[-1] / 1e6), xytext=(8, 0),
                      textcoords="offset points", va="center", color=colour)  # fmt: skip
        last[kind] = curve[-1]
    times = max(last.values()) / min(last.values())
    axes.set(xlabel="tokens of one text (lines: predicted, points: measured)", ylabel="tensor bytes, MB",
             title=f"At {max(tokens)} tokens eager attention takes {times:.1f} times the activations of SDPA",
             xlim=(0, 1.22 * max(tokens)), ylim=(0, None))  # fmt: skip
    told = "; ".join(f"{kind} " + ", ".join(f"{size / 1e6:.1f}" for size in sizes) for kind, sizes in measured.items())
    show(f"Curves of the peak at {', '.join(map(str, tokens))} tokens, in MB: {told}.")


def bill(rows: Mapping[str, Mapping[str, int]]) -> None:
    """Show the tensor bytes of each row of {name: {kind of byte: bytes}}; the title compares the activations."""
    figure, axes = pyplot.subplots(figsize=(7, 2.1))
    plots.stacked_bytes(axes, {name: dict(sizes) for name, sizes in rows.items()})
    sizes = {name: kinds["activations"] for name, kinds in rows.items()}
    most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    title = f"{most}: {format_size(sizes[most])} of activations; {least}: {format_size(sizes[least])}"
    figure.suptitle(title[:1].upper() + title[1:], x=0.01, ha="left", fontsize=11)
    show("Stacked bars of tensor bytes. Activations: "
         + ", ".join(f"{name} {format_size(size)}" for name, size in sizes.items()) + ".")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- processes


def lives(curves: Mapping[str, tuple[Curve, Mapping[str, float]]]) -> None:
    """Show the growth of a process over its life, a panel for each {name: (curve, {event: its time})}."""
    _, panels = pyplot.subplots(1, len(curves), figsize=(7, 3.2))
    told = []
    for axes, (name, (curve, marks)) in zip(panels, curves.items()):
        start, base = curve[0]
        axes.plot([at - start for at, _ in curve], [(size - base) / 1e6 for _, size in curve], color=QUIET)
        axes.margins(x=0.15)
        mark_events(axes, marks, start)
        grown = {event: growth_at(curve, at) / 1e6 for event, at in marks.items()}
        axes.set(xlabel="seconds", title=f"{name}\n+{grown['run']:.0f} MB when loaded")
        told.append(f"{name} " + ", ".join(f"{size:.0f} MB at {event}" for event, size in grown.items()))
    highest = max(axes.get_ylim()[1] for axes in panels)  # one scale, and its numbers beside each panel
    for axes in panels:
        axes.set_ylim(top=highest)
    panels[0].set_ylabel("growth of resident bytes, MB")
    show(f"Curves of the growth of a process. {'; '.join(told)}.")


def growth_at(curve: Curve, moment: float) -> float:
    """Return by how many bytes a curve of (seconds, bytes) has grown from its start to a moment."""
    return max((at, size) for at, size in curve if at <= moment)[1] - curve[0][1]


def readers(sums: Mapping[int, Mapping[str, int]], file_bytes: int) -> None:
    """Show the summed meters of {number of processes: {meter: bytes}} as lines, with the size of the shared file."""
    _, axes = pyplot.subplots()
    axes.axhline(file_bytes / 1e6, color=plots.OTHER, linestyle=":")
    axes.annotate(f"the file: {file_bytes / 1e6:.0f} MB", (max(sums) + 1, file_bytes / 1e6), xytext=(0, 4), ha="right",
                  textcoords="offset points", color=QUIET)  # fmt: skip
    for meter, colour in METERS.items():
        sizes = [one[meter] / 1e6 for one in sums.values()]
        axes.plot(list(sums), sizes, "o-", color=colour)
        axes.annotate(f"{meter}\n{sizes[-1]:,.0f} MB", (max(sums), sizes[-1]), xytext=(8, -4), va="top",
                      textcoords="offset points", color=colour)  # fmt: skip
    last = sums[max(sums)]
    axes.set(xlabel="processes that map the file", ylabel="sum over the processes, MB", xticks=list(sums),
             ylim=(0, None), xlim=(0.8, max(sums) + 1),
             title=f"{max(sums)} processes: resident {last['resident'] / last['proportional']:.1f} times proportional",
             )  # fmt: skip
    told = "; ".join(f"of {count}: " + ", ".join(f"{meter} {size / 1e6:,.0f} MB" for meter, size in one.items())
                     for count, one in sums.items())  # fmt: skip
    show(f"Lines of two meters, summed over processes that map one file. Sums {told}.")


def table(said: Mapping[str, float], found: Mapping[str, float], before_the_model: float) -> None:
    """Show the article's bytes beside the measured ones, {row: bytes}, and what a process holds before the model."""
    _, axes = pyplot.subplots(figsize=(7, 2.9))
    places = range(len(said))
    for shift, rows, colour in ((-0.2, said, plots.OTHER), (0.2, found, plots.CHOSEN)):
        who, digits = ("article", 1) if rows is said else ("measured", 2)
        sizes = [rows[row] / 1e9 for row in said]
        bars = axes.barh([place + shift for place in places], sizes, 0.38, color=colour)
        axes.bar_label(bars, [f"{who} {size:.{digits}f}" for size in sizes], padding=3)
    axes.axvline(before_the_model / 1e9, color="black", linestyle=":")
    axes.annotate("before the model", (before_the_model / 1e9, len(said) - 0.45), xytext=(3, 0), fontsize=8,
                  textcoords="offset points", va="top")  # fmt: skip
    times = sorted(said[row] / found[row] for row in said)
    axes.set(yticks=places, yticklabels=list(said), xlabel="whole process at its highest, GB",
             xlim=(0, 1.25 * max(said.values()) / 1e9), ylim=(len(said) - 0.2, -0.6),
             title=f"The article's figures are {times[0]:.1f} to {times[-1]:.1f} times the measured ones")  # fmt: skip
    told = ", ".join(f"{row} {said[row] / 1e9:.1f} and {found[row] / 1e9:.2f}" for row in said)
    show(f"Pairs of bars, the article's figure and the measured one, in GB: {told}.")


# ------------------------------------------------------------------------------------------------------ containers


@contextmanager
def container(limit_mb: int | None = None) -> Iterator[Path | None]:
    """Make a control group, limited to so many MB, and yield its folder; None where the machine forbids it.

    Version 1 or 2 of control groups. Nothing in the group may use swap. Write a process's number into `cgroup.procs`.

        with container(128) as group: ...
    """
    second = (GROUPS / "cgroup.controllers").exists()
    group = (GROUPS if second else GROUPS / "memory") / f"lesson-{os.getpid()}"
    try:
        group.mkdir()
        limit(group, limit_mb)
        made = usage(group) is not None  # version 2 may not hand the memory controller down
    except OSError:
        made = False
    try:
        yield group if made else None
    finally:
        if group.exists():
            remove(group)


def limit(group, limit_mb):
    """Limit a control group's memory to so many MB, if any, and let it use no swap."""
    sizes = {"memory.max": limit_mb, "memory.swap.max": 0, "memory.limit_in_bytes": limit_mb,
             "memory.memsw.limit_in_bytes": limit_mb}  # fmt: skip
    for name, megabytes in sizes.items():
        if limit_mb is not None and (group / name).exists():
            (group / name).write_text(str((megabytes or 0) * 10**6))


def remove(group):
    """Remove a control group; its last process may leave it a little later than it ends."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.05)


def usage(group: Path | None) -> Path | None:
    """Return the file in which the kernel counts the bytes charged to a control group; None without a group."""
    return first_file(group, "memory.current", "memory.usage_in_bytes")


def highest(group: Path | None) -> int | None:
    """Return the most bytes that were ever charged to a control group; None if the kernel does not tell."""
    file = first_file(group, "memory.peak", "memory.max_usage_in_bytes")
    return int(file.read_text()) if file else None


def first_file(group, *names):
    return next((group / name for name in names if (group / name).exists()), None) if group else None
