"""Pictures of mechanisms, for notebooks: each function computes what it draws and returns a Picture.

A Picture shows itself in a notebook, has words for those who cannot see it (`alt`), and the numbers that it shows
(`numbers`). Titles and shares are computed from the data. Colours are those of `plots`. No picture needs a network.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from zsc_utils._drawn_layer import layer, layer_flows, layer_weights
from zsc_utils._drawn_process import growing, import_tree, lanes, meters, watched
from zsc_utils._drawn_timeline import timeline_slider
from zsc_utils._svg import MARGIN, NORMAL, PALE, QUIET, SMALL, WHITE, WIDTH, Canvas, Picture, ink_on, text_width
from zsc_utils._text import whole_number
from zsc_utils.batching import padding, token_budget_batches
from zsc_utils.plots import BYTES, CHOSEN

__all__ = [
    "Picture", "bits", "grid", "growing", "import_tree", "lanes", "layer", "layer_flows", "layer_weights", "meters",
    "packing", "tiles", "timeline_slider", "watched",
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- tiles

MOST_KEYS, MOST_QUERIES = 16, 6  # so that cells stay legible
ROW = 18  # height of a row of cells
EQUAL = 1e-12  # difference of two softmaxes in float64 that is rounding


def tiles(scores: ArrayLike, tile: int) -> Picture:
    """Draw online softmax: scores come in tiles of columns, and each row keeps only its maximum and its sum so far.

    `scores` (queries, keys), at most 6 x 16. The last matrix holds the weights that the kept sums give; `numbers` has
    "largest difference" from plain softmax, "tiles", and "held" (scores held at a time). Raises ValueError for other
    shapes, for scores that are no numbers, and for a tile that is not from 1 to the number of keys.

        tiles([[1.0, 3.0, 0.5, 2.0], [0.0, 1.0, 4.0, 1.5]], 2)
    """
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or not 1 <= matrix.shape[0] <= MOST_QUERIES or not 1 <= matrix.shape[1] <= MOST_KEYS:
        raise ValueError(f"scores of shape {matrix.shape}: give 1 to {MOST_QUERIES} rows of 1 to {MOST_KEYS} scores")
    if not np.isfinite(matrix).all():
        raise ValueError("scores: some are no finite numbers")
    whole_number("tile", tile)
    if tile > matrix.shape[1]:
        raise ValueError(f"tile {tile}: a row has {matrix.shape[1]} scores")
    steps = running(matrix, tile)
    _, highest, total = steps[-1]
    weights = np.exp(matrix - highest[:, None]) / total[:, None]
    plain = np.exp(matrix - matrix.max(1, keepdims=True))
    plain /= plain.sum(1, keepdims=True)
    apart = float(np.abs(weights - plain).max())
    same = "the same weights as at once" if apart < EQUAL else f"weights differ by {apart:.1e}"
    title = f"{matrix.shape[1]} keys in {len(steps)} tiles: {same}, with {tile / matrix.shape[1]:.0%} of a row held"
    canvas = Canvas(title, "A row keeps two numbers. If its maximum rises, the sum so far shrinks by "
                    "exp(old maximum − new maximum).")  # fmt: skip
    for start, highest, total in steps:
        draw_tile(canvas, matrix, start, tile, highest, total)
    draw_weights(canvas, weights)
    told = "; ".join(f"after key {min(start + tile, matrix.shape[1])}: maxima {listed(high)}, sums {listed(total)}"
                     for start, high, total in steps)  # fmt: skip
    alt = f"A {matrix.shape[0]} x {matrix.shape[1]} matrix of scores, tile by tile. {told}. Last: the softmax weights."
    numbers = {"largest difference": apart, "tiles": len(steps), "held": matrix.shape[0] * tile}
    return canvas.finished(alt, numbers)


def running(matrix, tile):
    """[(start of the tile, running maxima, running sums)] of online softmax, row by row."""
    highest, total, steps = np.full(len(matrix), -np.inf), np.zeros(len(matrix)), []
    for start in range(0, matrix.shape[1], tile):
        part = matrix[:, start : start + tile]
        higher = np.maximum(highest, part.max(1))
        total = total * np.exp(highest - higher) + np.exp(part - higher[:, None]).sum(1)
        highest = higher
        steps.append((start, highest, total))
    return steps


def listed(values):
    return ", ".join(f"{value:.2f}" for value in values)


def cells(canvas, values, colour_of, words_of):
    """A matrix of cells at self.y: a colour and words for each (row, column). Returns the width of a cell."""
    width = min(36.0, (WIDTH - 2 * MARGIN - 116) / values.shape[1])
    for row, column in np.ndindex(values.shape):
        x, y, colour = MARGIN + column * width, canvas.y + row * ROW, colour_of(row, column)
        canvas.rect(x, y, width, ROW, colour, QUIET, line=0.5)
        words = words_of(row, column)
        if words and text_width(words, 11) <= width - 1:
            canvas.text(x + width / 2, y + 13, words, 11, "middle", ink_on(colour))
    return width


def draw_tile(canvas, matrix, start, tile, highest, total):
    """One step: only the tile's scores are held; beside each row are its maximum and its sum so far."""
    stop = min(start + tile, matrix.shape[1])
    canvas.y += 16
    canvas.text(MARGIN, canvas.y, f"keys {start + 1} to {stop}", NORMAL, weight="bold")
    for x, words in ((WIDTH - 62, "maximum"), (WIDTH - MARGIN, "sum")):
        canvas.text(x, canvas.y, words, SMALL, "end", QUIET)
    canvas.y += 5
    cells(canvas, matrix,
          lambda _, column: BYTES["activations"] if start <= column < stop else PALE if column < start else WHITE,
          lambda row, column: f"{matrix[row, column]:.1f}" if start <= column < stop else "")  # fmt: skip
    before = matrix[:, :start].max(1) if start else np.full(len(matrix), -np.inf)
    for row, (high, summed) in enumerate(zip(highest, total)):
        y = canvas.y + row * ROW + 13
        canvas.text(WIDTH - 62, y, f"{high:.1f}", SMALL, "end", weight="bold" if high > before[row] else "normal")
        canvas.text(WIDTH - MARGIN, y, f"{summed:.3f}", SMALL, "end")
    canvas.y += ROW * len(matrix) + 4


def draw_weights(canvas, weights):
    """The softmax: each score's weight, the darker the larger."""
    canvas.y += 16
    canvas.text(MARGIN, canvas.y, "weights: exp(score − maximum) / sum", NORMAL, weight="bold")
    canvas.text(WIDTH - MARGIN, canvas.y, "row's sum", SMALL, "end", QUIET)
    canvas.y += 5
    cells(
        canvas,
        weights,
        lambda row, column: shade(weights[row, column]),
        lambda r, c: f"{weights[r, c]:.2f}".removeprefix("0"),
    )
    for row, total in enumerate(weights.sum(1)):
        canvas.text(WIDTH - MARGIN, canvas.y + row * ROW + 13, f"{total:.3f}", SMALL, "end")
    canvas.y += ROW * len(weights) + 12
    canvas.key({"held now": BYTES["activations"], "done, not held": PALE, "not computed yet": WHITE})


def shade(share):
    """White for 0, the blue of BYTES for 1."""
    ends = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in (WHITE, BYTES["embeddings"])]
    return "#" + "".join(f"{round(low + (high - low) * share):02X}" for low, high in zip(*ends))


# -------------------------------------------------------------------------------------------------------------- bits

COLUMN = (WIDTH - 3 * MARGIN) / 2  # width of a histogram
BINS, HIGHEST, STRIPS = 41, 40, 4  # bars of a histogram, its height, and how many groups' levels are shown
SCALE_BITS = 32


def grid(weights: ArrayLike, bits: int, group: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Round a row of weights to a symmetric grid; return the rounded weights and the levels of each group.

    `group` neighbouring weights share a scale; None: the whole row does. The largest absolute value of a group becomes
    the last of its 2^(bits - 1) - 1 steps on each side of 0, as in the int8 of `quantization`. Raises ValueError for no
    row of numbers, for `bits` not from 2 to 8, and for a `group` that is not a whole number over 0.

        rounded, levels = grid([0.5, -1.0, 0.1, 0.02], 4, group=2)
    """
    row = np.asarray(weights, np.float64)
    whole_number("bits", bits, "give 2 to 8 bits")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits {bits}: give 2 to 8 bits")
    if row.ndim != 1 or not row.size or not np.isfinite(row).all():
        raise ValueError(f"weights of shape {row.shape}: give one row of finite numbers")
    group = row.size if group is None else group
    whole_number("group", group, "give how many weights share a scale")
    top, rounded, levels = 2 ** (bits - 1) - 1, np.empty_like(row), []
    for start in range(0, row.size, group):
        part = row[start : start + group]
        scale = max(float(np.abs(part).max()) / top, 1e-12)
        rounded[start : start + group] = np.round(part / scale) * scale
        levels.append(np.arange(-top, top + 1) * scale)
    return rounded, levels


def bits(weights: ArrayLike, counts: Sequence[int] = (8, 4, 3, 2), *, group: int = 64) -> Picture:
    """Draw a row of weights as a histogram over the levels it is rounded to: one scale a row, and one a group.

    Errors are the root mean square of the rounding, as a share of that of the weights. `numbers` has them as "4 bits,
    row" and "4 bits, group", and the bits of a weight with its part of the scales as "4 bits, group: stored".
    Raises ValueError as `grid` does.

        bits(checkpoint.model.bert.encoder.layer[0].intermediate.dense.weight[0].detach(), group=64)
    """
    row, kinds = np.asarray(weights, np.float64), {"row": None, "group": group}
    numbers: dict[str, float] = {}
    drawn = {(count, kind): grid(row, count, size) for count in counts for kind, size in kinds.items()}
    if not drawn or not row.any():
        raise ValueError("bits: give at least one number of bits, and weights that are not all 0")
    for (count, kind), (rounded, levels) in drawn.items():
        error = float(np.sqrt(np.mean((rounded - row) ** 2) / np.mean(row**2)))
        numbers |= {f"{count} bits, {kind}": error,
                    f"{count} bits, {kind}: stored": count + SCALE_BITS * len(levels) / row.size}  # fmt: skip
    shown = 4 if 4 in counts else min(counts)
    title = (f"{shown} bits: {numbers[f'{shown} bits, row']:.1%} error with one scale a row, "
             f"{numbers[f'{shown} bits, group']:.1%} with one for {group} weights")  # fmt: skip
    note = f"Bars: how many of the {row.size:,} weights lie there. Ticks below: the levels they are rounded to."
    canvas = Canvas(title, note)
    for x, words in ((MARGIN, "scale per row"), (2 * MARGIN + COLUMN, f"scale per {group} weights")):
        canvas.text(x, canvas.y + 12, words, NORMAL, weight="bold")
    canvas.y += 18
    for count in counts:
        for x, kind in ((MARGIN, "row"), (2 * MARGIN + COLUMN, "group")):
            draw_grid(canvas, x, row, drawn[count, kind][1], f"{count} bits, {kind}", numbers)
        canvas.y += HIGHEST + STRIPS * 6 + 46
    highest = np.abs(row).max()
    count = len(drawn[shown, "group"][1])
    more = f" Shown are {STRIPS} of {count} groups." if count > STRIPS else ""
    canvas.paragraph(f"Each axis goes from {-highest:.3g} to {highest:.3g}.{more}", SMALL, colour=QUIET)
    told = ", ".join(f"{name} {error:.1%}" for name, error in numbers.items() if "stored" not in name)
    return canvas.finished(f"Histograms of {row.size} weights over their levels. Errors: {told}.", numbers)


def draw_grid(canvas, x, row, levels, name, numbers):
    """A histogram above the levels of up to STRIPS groups, with the error and the bits that a weight takes."""
    top, highest = canvas.y, np.abs(row).max()
    counts = np.histogram(row, BINS, (-highest, highest))[0]
    bar = COLUMN / BINS
    for place, count in enumerate(counts):
        if count:
            height = HIGHEST * count / counts.max()
            canvas.rect(x + place * bar, top + HIGHEST - height, bar * 0.9, height, BYTES["feed-forward"])
    canvas.line(x, top + HIGHEST, x + COLUMN, top + HIGHEST, QUIET)
    shown = levels[:STRIPS]
    for place, own in enumerate(shown):
        y, height = top + HIGHEST + 3 + 6 * place, 14 if len(levels) == 1 else 5
        at = x + (own / highest + 1) / 2 * COLUMN
        if (at[1] - at[0]) < 2:  # ticks would touch
            canvas.rect(at[0], y, at[-1] - at[0], height, CHOSEN)
            continue
        for tick in at:
            canvas.line(tick, y, tick, y + height, CHOSEN, 1.5)
    y = top + HIGHEST + STRIPS * 6 + 18
    canvas.text(x, y, f"{name.split(',')[0]}: error {numbers[name]:.1%}", SMALL, weight="bold")
    canvas.text(x, y + 13, f"{numbers[f'{name}: stored']:.2f} bits a weight", SMALL, colour=QUIET)


# ----------------------------------------------------------------------------------------------------------- packing

SLOT = 130  # height that all texts of one way share
BLUES = (BYTES["embeddings"], "#56B4E9")  # of neighbouring texts, so that they can be told apart


def packing(lengths: Sequence[int], budget: int, *, batch: int = 8) -> Picture:
    """Draw the tokens of texts in batches, padding in grey: padded as they come, under a token budget, and packed.

    As they come, `batch` texts are padded to their longest. Under the budget, batches of at most `budget` slots hold
    texts of like length, longest first. Packed, tokens lie one behind the other, here in lines as long as the longest
    text. `numbers`: the shares of slots that are padding, as "padded", "budget" and "packed", and for each of them, as
    in "padded: slots", the numbers of batches and slots. Raises ValueError for values that are no whole numbers over 0.

        packing([120, 31, 64, 17, 90, 45, 22, 80], 256)
    """
    whole_number("batch", batch)
    if not lengths:
        raise ValueError("no lengths: give the tokens of at least one text")
    ways = {
        "padded": [list(range(len(lengths)))[i : i + batch] for i in range(0, len(lengths), batch)],
        "budget": token_budget_batches(lengths, budget),
        "packed": token_budget_batches(lengths, budget, padded=False),
    }
    words = {
        "padded": f"padded, {batch} texts a batch, as they come",
        "budget": f"padded, at most {budget:,} tokens a batch",
        "packed": f"packed, at most {budget:,} tokens a batch",
    }
    numbers: dict[str, float] = {}
    for way, batches in ways.items():
        slots = sum(len(b) * max(lengths[i] for i in b) for b in batches) if way != "packed" else sum(lengths)
        share = padding(lengths, batches) if way != "packed" else 0.0
        numbers |= {way: share, f"{way}: batches": len(batches), f"{way}: slots": slots}
    title = f"Padding: {numbers['padded']:.0%} as texts come, {numbers['budget']:.0%} under a budget, none when packed"
    canvas = Canvas(title, f"{len(lengths)} texts, {sum(lengths):,} tokens. A bar is a text; gaps part batches.")
    canvas.key({"tokens": BLUES[0], "tokens of the next text": BLUES[1], "padding": PALE})
    for way, batches in ways.items():
        draw_way(canvas, words[way], [[lengths[i] for i in one] for one in batches], way == "packed", numbers[way])
    told = "; ".join(f"{words[way]}: {numbers[way]:.1%} padding in {len(ways[way])} batches" for way in ways)
    return canvas.finished(f"Tokens of {len(lengths)} texts as bars, in three ways. {told}.", numbers)


def draw_way(canvas, words, batches, packed, share):
    """One way to make batches: its name, the share of padding, the batches, and how many slots they have."""
    height = max(1.0, min(8.0, SLOT / sum(map(len, batches))))
    scale = (WIDTH - 2 * MARGIN) / max(map(max, batches))
    canvas.y += 16
    canvas.text(MARGIN, canvas.y, words, NORMAL, weight="bold")
    canvas.text(WIDTH - MARGIN, canvas.y, f"{share:.0%} padding", NORMAL, "end")
    canvas.y += 6
    for lengths in batches:
        (draw_packed if packed else draw_padded)(canvas, lengths, height, scale)
        canvas.y += max(2.0, height / 2)
    slots = sum(sum(one) if packed else len(one) * max(one) for one in batches)
    canvas.text(MARGIN, canvas.y + 11, f"{len(batches)} batches, {slots:,} slots", colour=QUIET)
    canvas.y += 15


def draw_padded(canvas, lengths, height, scale):
    """A batch: a bar for each text, padded in grey to the longest."""
    canvas.rect(MARGIN, canvas.y, max(lengths) * scale, height * len(lengths), PALE)
    for number, length in enumerate(lengths):
        canvas.rect(MARGIN, canvas.y, length * scale, height * 0.9, BLUES[number % 2])
        canvas.y += height


def draw_packed(canvas, lengths, height, scale):
    """A batch of texts one behind the other, in lines of the canvas's width."""
    line, at = round((WIDTH - 2 * MARGIN) / scale), 0
    for number, length in enumerate(lengths):
        while length:
            part = min(length, line - at)
            canvas.rect(MARGIN + at * scale, canvas.y, part * scale, height * 0.9, BLUES[number % 2])
            length, at = length - part, at + part
            if at == line:
                at, canvas.y = 0, canvas.y + height
    canvas.y += height if at else 0
