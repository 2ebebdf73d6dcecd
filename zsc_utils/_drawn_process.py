"""Pictures of whole processes: five meters, streamed layers over time, levers one by one, and imports."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from zsc_utils._process import resident as resident_now
from zsc_utils._sizes import format_size
from zsc_utils._svg import (
    BOLD,
    INK,
    MARGIN,
    NORMAL,
    PALE,
    QUIET,
    SMALL,
    WIDTH,
    Canvas,
    Picture,
    fitted,
    ink_on,
    rounded_steps,
    text_width,
)
from zsc_utils.language import translated
from zsc_utils.plots import BYTES, CHOSEN, ENGINES, OTHER

METERS = {
    "tensor bytes": "Counts what tensors hold: weights and activations. Exact, and the same on each run.",
    "anonymous": "Counts pages that the process wrote: tensors, Python's objects, the heap with its free parts.",
    "resident": "Counts all pages in memory: anonymous pages, and pages of files, such as libraries.",
    "proportional": "As resident, but a page that several processes share is divided among them.",
    "container": "Counts what the container's limit counts: all its processes, and its page cache.",
}
PROCESSES = (ENGINES["transformers"], ENGINES["ours"], BYTES["feed-forward"])  # colours of up to three processes
# kinds of byte of a whole process, in the order of the stack: what libraries hold, and the growth beyond it
KINDS = {"libraries": BYTES["libraries"], "file-backed": BYTES["file-backed"], "anonymous": BYTES["activations"]}
STRIPED = "anonymous"  # its colour is like that of file-backed bytes for some colour-blind readers
PARTS = {"attention": BYTES["attention"], "feed-forward": BYTES["feed-forward"]}
BAR = 18  # height of a bar


def meters(readings: Mapping[str, int] | Mapping[str, Mapping[str, int]]) -> Picture:
    """Draw what the meters of memory say of the same process, each on its own axis, with what it counts in words.

    `readings` is {meter: bytes}, or {process: {meter: bytes}} for up to three processes; meters are those of METERS, in
    any number. `numbers` are the bytes, as "process: meter". Raises ValueError for unknown meters, more processes,
    and for no bytes.

        meters({"tensor bytes": 60_000_000, "resident": 412_000_000})
    """
    processes = by_process(readings)
    shown = [meter for meter in METERS if any(meter in one for one in processes.values())]
    largest = max(size for one in processes.values() for size in one.values())
    first = {size: meter for meter, size in next(iter(processes.values())).items()}
    low, high = min(first), max(first)
    times = f", {high / low:.1f} times as much" if low and low != high else ""
    title = f"{next(iter(processes))}: {first[low]} {format_size(low)}, {first[high]} {format_size(high)}{times}"
    note = "Each meter answers another question: do not add them."
    if len(processes) > 1:
        note = "Each meter answers another question: compare bars of one meter, and do not add them."
    canvas = Canvas(title[:1].upper() + title[1:], note)
    if len(processes) > 1:
        canvas.key(dict(zip(processes, PROCESSES)))
    for meter in shown:
        draw_meter(canvas, meter, {name: one.get(meter) for name, one in processes.items()}, largest)
    said = "; ".join(f"{name}: " + ", ".join(f"{m} {format_size(s)}" for m, s in one.items())
                     for name, one in processes.items())  # fmt: skip
    words = " ".join(translated(f"{meter}: {METERS[meter]}", part=True) for meter in shown)
    numbers = {f"{name}: {meter}": size for name, one in processes.items() for meter, size in one.items()}
    return canvas.finished(f"Bars of {len(shown)} meters of memory. {said}. {words}", numbers)


def by_process(readings):
    """Return {process: {meter: bytes}} of what `meters` was given, checked."""
    grouped = [isinstance(one, Mapping) for one in readings.values()]
    processes = readings if all(grouped) else {"this process": readings}
    if any(grouped) != all(grouped) or not 1 <= len(processes) <= len(PROCESSES):
        raise ValueError(f"readings of {', '.join(readings)}: give one, two or three processes, or meters of one")
    for one in processes.values():
        if not one or one.keys() - METERS.keys() or min(one.values()) < 0 or not max(one.values()):
            raise ValueError(f"readings {dict(one)!r}: give bytes of {', '.join(METERS)}")
    return processes


def draw_meter(canvas, meter, sizes, largest):
    """One meter: its name, a bar for each process, an axis, and what it counts."""
    canvas.y += 20
    canvas.text(MARGIN, canvas.y, meter, NORMAL, weight="bold")
    canvas.y += 5
    room = WIDTH - 2 * MARGIN - 62
    for size, colour in zip(sizes.values(), PROCESSES):
        if size is None:
            canvas.text(MARGIN + 3, canvas.y + 13, "not read", colour=QUIET)
        else:
            width = room * size / largest
            canvas.rect(MARGIN, canvas.y, width, BAR - 2, colour)
            canvas.text(MARGIN + width + 4, canvas.y + 12, format_size(size), weight="bold")
        canvas.y += BAR
    canvas.line(MARGIN, canvas.y, MARGIN + room, canvas.y, QUIET)
    canvas.line(MARGIN, canvas.y - BAR * len(sizes), MARGIN, canvas.y, QUIET)
    canvas.y += 2
    canvas.paragraph(METERS[meter], SMALL, colour=QUIET)


# ------------------------------------------------------------------------------------------------------------- lanes

LANES = {"read": "reading the file", "compute": "computing"}


def lanes(events: Sequence, resident: Sequence[tuple[float, int]] = (), *, first: float | None = None) -> Picture:
    """Draw streaming: what is read from the file above what is computed, and below both the resident bytes.

    `events` are offloading.Spans, or tuples (lane, name, start, stop) with lane "read" or "compute" and seconds.
    `resident` are (seconds, bytes) of the same clock, such as time.perf_counter's; without them there is no curve.
    `first` shows only so many seconds. `numbers`: seconds "read", "compute", "both" (at the same time) and "whole",
    and "resident peak" in bytes. Raises ValueError for no events, another lane, and events that end too early.

        with offloading.spans(streamed) as spans: ...
        lanes(spans)
    """
    spans = sorted((as_event(event) for event in events), key=lambda event: event[2])
    for lane, name, start, stop in spans:
        if lane not in LANES or stop < start:
            raise ValueError(f"event {lane!r}, {name!r} from {start} to {stop}: lanes are {', '.join(LANES)}")
    if not spans:
        raise ValueError("no events: give the spans of at least one pass through the layers")
    begin, end = spans[0][2], max(stop for *_, stop in spans)
    numbers = {lane: covered([s for s in spans if s[0] == lane]) for lane in LANES}
    numbers |= {"both": sum(numbers.values()) - covered(spans), "whole": end - begin}
    curve = [(at, size) for at, size in resident if begin <= at <= end]
    shown = min(end, begin + first) if first else end
    if curve:
        numbers["resident peak"] = max(size for _, size in curve)
    share = numbers["both"] / numbers["read"] if numbers["read"] else 0.0
    title = f"Reading takes {numbers['read']:.2f} s, {share:.0%} of it while the processor computes"
    note = f"{len(spans)} parts in {end - begin:.2f} s"
    note += f"; the first {shown - begin:.2f} s are shown" if shown < end else ""
    canvas = Canvas(title, f"{note}. Numbers are layers.")
    canvas.key(PARTS if all(part_of(name) for _, name, *_ in spans) else {"part of a layer": OTHER})
    for lane, words in LANES.items():
        draw_lane(canvas, words, [s for s in spans if s[0] == lane and s[2] < shown], begin, shown)
    draw_curve(canvas, [(at, size) for at, size in curve if at <= shown], begin, shown)
    canvas.axis(canvas.y, MARGIN, WIDTH - 2 * MARGIN, shown - begin, "seconds")
    canvas.y += 18
    alt = (f"Two lanes over {end - begin:.2f} seconds: the file is read for {numbers['read']:.2f} s, the processor "
           f"computes for {numbers['compute']:.2f} s, both at once for {numbers['both']:.2f} s.")  # fmt: skip
    if curve:
        alt += f" Resident memory is {format_size(numbers['resident peak'])} at most."
    return canvas.finished(alt, numbers)


@contextmanager
def watched(every: float = 0.005) -> Iterator[list[tuple[float, int]]]:
    """Yield a list that grows, inside the with block, by (time.perf_counter(), resident bytes of this process).

    A thread reads them `every` so many seconds, and once at the end. The kernel's high-water mark misses no peak; this
    list may, but it shows when memory was in use. Needs Linux; elsewhere the list stays empty.

        with drawings.watched() as curve, offloading.spans(streamed) as spans: ...
        drawings.lanes(spans, curve)
    """
    curve: list[tuple[float, int]] = []
    stopped = threading.Event()

    def read():
        while True:
            last = stopped.wait(every)
            if now := resident_now("self"):
                curve.append((time.perf_counter(), now["VmRSS"]))
            if last:
                return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        stopped.set()
        thread.join()


def as_event(event):
    """(lane, name, start, stop) of a Span or of such a tuple."""
    if isinstance(event, tuple):
        return event
    return event.what, f"{event.layer} {event.part}", event.start, event.stop


def part_of(name):
    return next((part for part in PARTS if part in name), None)


def covered(spans):
    """Seconds in which at least one of the spans runs."""
    total, until = 0.0, float("-inf")
    for *_, start, stop in sorted(spans, key=lambda span: span[2]):
        total += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return total


def draw_lane(canvas, words, spans, begin, end):
    scale = (WIDTH - 2 * MARGIN) / (end - begin)
    canvas.y += 13
    canvas.text(MARGIN, canvas.y, words, NORMAL, weight="bold")
    canvas.y += 5
    canvas.rect(MARGIN, canvas.y, WIDTH - 2 * MARGIN, 26, "#F4F4F4")
    for _, name, start, stop in spans:
        x, width = MARGIN + (start - begin) * scale, (min(stop, end) - start) * scale
        colour = PARTS.get(part_of(name), OTHER)
        canvas.rect(x, canvas.y, max(0.6, width), 26, colour, "#FFFFFF" if width > 4 else None, line=0.5)
        label = name.split()[0] if part_of(name) else fitted(name, width - 3, SMALL)
        if text_width(label, SMALL) <= width:  # an estimate that is wide already
            canvas.text(x + width / 2, canvas.y + 17, label, SMALL, "middle", ink_on(colour))
    canvas.y += 26


def draw_curve(canvas, curve, begin, end, height=90):
    """The resident bytes as a stepped area from 0, with lines at round numbers of MB."""
    canvas.y += 12
    if not curve:
        return
    scale = (WIDTH - 2 * MARGIN) / (end - begin)
    highest, lowest = max(size for _, size in curve), min(size for _, size in curve)
    canvas.y += 4
    words = f"resident memory: from {format_size(lowest)} to {format_size(highest)}"
    canvas.text(MARGIN, canvas.y, words, NORMAL, weight="bold")
    canvas.y += 5
    base = canvas.y + height
    points = [(MARGIN + (at - begin) * scale, base - height * size / highest) for at, size in curve]
    stepped = [point for one, two in pairwise(points) for point in (one, (two[0], one[1]))] + points[-1:]
    canvas.path([(stepped[0][0], base), *stepped, (stepped[-1][0], base)], PALE)
    canvas.path(stepped, stroke=INK, width=1.5)
    for step in rounded_steps(highest / 1e6, 3)[1:]:
        y = base - height * step * 1e6 / highest
        canvas.line(MARGIN, y, WIDTH - MARGIN, y, QUIET, 0.7, dashed=True)
        canvas.text(MARGIN + 3, y + 13, f"{step:,g} MB", colour=QUIET)
    canvas.y = base


# ----------------------------------------------------------------------------------------------------------- growing


def growing(rows: Mapping[str, Mapping[str, int]]) -> Picture:
    """Draw the bytes of the whole process lever by lever: a stacked bar a row, and what each lever takes away or adds.

    `rows` is {lever: {kind: bytes}} in the order in which levers are applied; the first row is the start. Kinds are
    those of KINDS: libraries, and the growth beyond them, file-backed and anonymous. `numbers` are the whole bytes of
    each row. Raises ValueError for unknown kinds, negative bytes and no rows.

        growing({"transformers": {"libraries": 337_000_000, "file-backed": 409_000_000}, "int8": {...}})
    """
    strange = {kind for sizes in rows.values() for kind in sizes} - KINDS.keys()
    if strange or any(size < 0 for sizes in rows.values() for size in sizes.values()):
        raise ValueError(f"rows {dict(rows)!r}: kinds are {', '.join(KINDS)}, with bytes of 0 or more")
    totals = {name: sum(sizes.values()) for name, sizes in rows.items()}
    if not totals or not all(totals.values()):
        raise ValueError("no rows, or a row without bytes: give {lever: {kind: bytes}}")
    names = list(totals)
    start, last = totals[names[0]], totals[names[-1]]
    change = f"{abs(1 - last / start):.0%} {'less' if last <= start else 'more'}"
    title = f"From {format_size(start)} to {format_size(last)}: {change}"
    canvas = Canvas(title, "Whole process, at its peak. Each bar has all levers above it as well.")
    canvas.key(
        {kind: colour for kind, colour in KINDS.items() if any(kind in sizes for sizes in rows.values())}, STRIPED
    )
    for place, (name, sizes) in enumerate(rows.items()):
        draw_lever(canvas, name, sizes, totals, names[place - 1] if place else None)
    canvas.axis(canvas.y + 4, MARGIN, WIDTH - 2 * MARGIN, max(totals.values()) / 1e6, "MB")
    canvas.y += 24
    steps = "; ".join(f"{name} {format_size(totals[name])} (" + ", ".join(
        f"{kind} {format_size(size)}" for kind, size in rows[name].items()) + ")" for name in names)  # fmt: skip
    return canvas.finished(f"Stacked bars of the whole process, one for each lever added: {steps}.", totals)


def draw_lever(canvas, name, sizes, totals, before):
    """One row: the name and its total, the change, and the stacked bar with a mark where the bar before it ended."""
    largest, room = max(totals.values()), WIDTH - 2 * MARGIN
    canvas.y += 15
    said = format_size(totals[name])
    if before:
        change = totals[name] - totals[before]
        said += f" ({'−' if change < 0 else '+'}{format_size(abs(change))})"
    canvas.text(WIDTH - MARGIN, canvas.y, said, NORMAL, "end", weight="bold")
    name = translated(name)
    canvas.text(MARGIN, canvas.y, fitted(name, room - text_width(said, NORMAL) * BOLD - 8, NORMAL), NORMAL)
    canvas.y += 4
    x = MARGIN
    for kind, colour in KINDS.items():
        width = room * sizes.get(kind, 0) / largest
        if width:
            canvas.rect(x, canvas.y, width, BAR, colour, INK, line=0.5)
            if kind == STRIPED and width > 2:
                canvas.stripe(x, canvas.y, width, BAR)
            words = f"{sizes[kind] / 1e6:.0f}"
            if text_width(words, SMALL) < width - 4:
                canvas.text(x + width / 2, canvas.y + 13, words, SMALL, "middle", ink_on(colour))
        x += width
    if before:
        end = MARGIN + room * totals[before] / largest
        canvas.line(end, canvas.y - 1, end, canvas.y + BAR + 1, CHOSEN, 2)
        if end > x:
            canvas.line(x, canvas.y + BAR / 2, end, canvas.y + BAR / 2, CHOSEN, 1, dashed=True)
    canvas.y += BAR + 3


# ----------------------------------------------------------------------------------------------------------- imports


def import_tree(rows: Mapping[tuple[str, ...], int]) -> Picture:
    """Draw what each import adds to a process: a tree, in which each bar begins where that of the import before ends.

    `rows` is {imports in their order: bytes of the whole process after them}; () is Python alone. An import hangs on
    the longest row that it continues: ("numpy", "tokenizers") on ("numpy",). `numbers` are the bytes that each adds, as
    "numpy > tokenizers". Raises ValueError if () is missing or bytes are not over 0.

        import_tree({(): 9_000_000, ("numpy",): 25_000_000, ("numpy", "tokenizers"): 30_000_000})
    """
    if () not in rows or any(not isinstance(chain, tuple) for chain in rows) or min(rows.values()) <= 0:
        raise ValueError("rows: give {(): bytes of Python alone, ('numpy',): bytes with it, ...}, all over 0")
    heaviest = max(rows, key=lambda chain: rows[chain])
    times = rows[heaviest] / rows[()]
    title = f"{' + '.join(heaviest) or 'Python'}: {format_size(rows[heaviest])}, {times:.1f} times Python alone"
    canvas = Canvas(title, "Whole process, MB, after each import. Colour: what the import adds. Grey: what was there.")
    order = sorted(rows, key=lambda chain: [(rows.get(chain[:end], 0), chain[:end]) for end in range(len(chain) + 1)])
    added = {}
    for chain in order:
        parent = next((chain[:end] for end in range(len(chain) - 1, -1, -1) if chain[:end] in rows), None)
        below = rows[parent] if chain and parent is not None else 0
        added[" > ".join(chain) or "Python"] = rows[chain] - below
        draw_import(canvas, chain, chain[len(parent or ()) :], below, rows[chain], max(rows.values()))
    canvas.axis(canvas.y + 2, MARGIN, WIDTH - 2 * MARGIN, max(rows.values()) / 1e6, "MB")
    canvas.y += 22
    said = ", ".join(f"{name} {'+' if size >= 0 else '−'}{format_size(abs(size))}" for name, size in added.items())
    return canvas.finished(f"A tree of imports with the bytes that each adds to the process: {said}.", added)


def draw_import(canvas, chain, new, below, size, largest):
    """One import: its name, indented by its depth, what it adds and the sum; then the bar."""
    room, indent = WIDTH - 2 * MARGIN, 14 * len(chain)
    canvas.y += 14
    change = size - below
    said = f"{'+' if change >= 0 else '−'}{format_size(abs(change))}" if chain else format_size(size)
    said += f" = {format_size(size)}" if chain else ""
    canvas.text(WIDTH - MARGIN, canvas.y, said, NORMAL, "end")
    name = ", ".join(new) or translated("Python alone")
    if chain:
        canvas.path([(MARGIN + indent - 9, canvas.y - 12), (MARGIN + indent - 9, canvas.y - 4),
                     (MARGIN + indent - 2, canvas.y - 4)], stroke=QUIET)  # fmt: skip
    name = fitted(name, (room - indent - text_width(said, NORMAL) - 8) / BOLD, NORMAL)
    canvas.text(MARGIN + indent, canvas.y, name, NORMAL, weight="bold")
    canvas.y += 4
    if below:
        canvas.rect(MARGIN, canvas.y, room * min(below, size) / largest, 12, PALE)
    x = MARGIN + room * min(below, size) / largest
    canvas.rect(x, canvas.y, max(1.0, room * abs(change) / largest), 12, CHOSEN if change < 0 else BYTES["embeddings"])
    canvas.y += 16
