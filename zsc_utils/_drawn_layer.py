"""The picture of one BERT layer: its weights as boxes, and the bytes that flow as arrows of that width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsc_utils._sizes import format_size
from zsc_utils._svg import INK, PALE, QUIET, SMALL, Canvas, Picture, ink_on
from zsc_utils._text import whole_number
from zsc_utils._types import Precision
from zsc_utils.plots import BYTES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 4}  # of an activation; in int8 models they stay in fp32
KINDS = {"query": "attention", "key": "attention", "value": "attention", "output": "attention",
         "attention norm": "norm", "wide": "feed-forward", "back": "feed-forward",
         "feed-forward norm": "norm"}  # fmt: skip
WORDS = {"wide": "feed-forward, wide", "back": "feed-forward, back"}
GROUPS = ("attention", "feed-forward", "norm")  # of boxes
IDEAS = ("weights", "matrix", "last layer", "padding")
FLOW_UNITS, WIDEST_UNITS = 9, 76  # width of an arrow that carries the hidden states, and of the widest arrow
SIDE_UNITS, WIDE_UNITS = 54, 230  # side of a square matrix, and the longest side of a feed-forward matrix
CENTRE, RESIDUAL = 214, 24  # places of the main arrows and of the two that pass by


def layer_weights(config: "PretrainedConfig", precision: Precision = "fp32") -> dict[str, int]:
    """Return the bytes of each part of one layer's weights, biases included; in int8, four bytes a row for its scale.

    In fp32 the parts of all layers add up to `memory.parameters`' attention, feed-forward and norms of layers, times 4.
    """
    h, f = config.hidden_size, config.intermediate_size
    shapes = dict.fromkeys(("query", "key", "value", "output"), (h, h)) | {"wide": (f, h), "back": (h, f)}
    item = ITEM_BYTES[precision]
    matrix = {
        name: rows * columns + 8 * rows if precision == "int8" else item * (rows * columns + rows)
        for name, (rows, columns) in shapes.items()
    }
    return {name: matrix.get(name, 2 * h * item) for name in KINDS}


def layer_flows(
    config: "PretrainedConfig", batch: int, length: int, precision: Precision = "fp32", first_only: bool = False
) -> dict[str, int]:
    """Return the bytes of each activation of one layer. `first_only`: only each text's first token has a query.

    "matrix" is what all scores of attention take, batch x heads x queries x length numbers, whether or not they are
    held at once.
    """
    item, queries = ITEM_BYTES[precision], 1 if first_only else length
    u, after = (batch * tokens * config.hidden_size * item for tokens in (length, queries))
    wide = batch * queries * config.intermediate_size * item
    return {
        "input": u, "query": after, "key": u, "value": u,
        "matrix": batch * config.num_attention_heads * queries * length * item,
        "attention": after, "output": after, "attention norm": after,
        "wide": wide, "GELU": wide, "back": after, "feed-forward norm": after,
    }  # fmt: skip


def layer(
    config: "PretrainedConfig",
    batch: int,
    length: int,
    *,
    attention: str = "sdpa",
    precision: Precision = "fp32",
    highlight: str | None = None,
    lengths: Sequence[int] | None = None,
) -> Picture:
    """Draw one layer: boxes are weights, with areas like their bytes; arrows are activations, as wide as their bytes.

    `batch` texts of `length` tokens. `highlight` makes one thing stand out: "weights"; "matrix", the scores of
    attention; "last layer", in which only [CLS] goes on; "padding", for which `lengths` gives the real tokens of each
    text; the boxes of "attention", "feed-forward" or "norm"; or one box, such as "query". `numbers` of the
    Picture are all bytes, as "weights: query" or "flow: wide", and the share of "real tokens". Raises ValueError for
    unknown names and for lengths that do not fit.

        layer(checkpoint.model.config, 8, 128, highlight="weights")
    """
    check(config, batch, length, attention, precision, highlight, lengths)
    weights = layer_weights(config, precision)
    flows = layer_flows(config, batch, length, precision, highlight == "last layer")
    real = sum(lengths) / (batch * length) if lengths else 1.0
    what = f"{batch} x {length} tokens, {precision}, {attention} attention"
    if lengths:
        what += f", of {batch * length:,} tokens {sum(lengths):,} real"
    note = f"{what}. Boxes are weights, arrows activations: areas and widths are like their bytes."
    title = layer_title(config, batch, length, attention, precision, highlight, real)
    shares = {"real": real, "matrix": sum(n * n for n in lengths) / (batch * length**2) if lengths else 1.0}
    drawing = LayerCanvas(title, note, weights, flows, highlight, shares, attention)
    drawing.draw()
    numbers: dict[str, float] = {f"weights: {name}": size for name, size in weights.items()}
    numbers |= {f"flow: {name}": size for name, size in flows.items()} | {"real tokens": real}
    return drawing.finished(layer_alt(what, weights, flows, attention), numbers)


def check(config, batch, length, attention, precision, highlight, lengths):
    """Raise ValueError that names the wrong value and the values allowed."""
    whole_number("batch", batch)
    whole_number("length", length)
    choices = {
        "attention": (attention, ("sdpa", "eager")),
        "precision": (precision, tuple(ITEM_BYTES)),
        "highlight": (highlight, (None, *IDEAS, *GROUPS, *KINDS)),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} {value!r}: choose one of {', '.join(map(str, allowed))}")
    if (highlight == "padding") != (lengths is not None):
        raise ValueError('highlight "padding" and lengths, the real tokens of each text, come together: give both')
    if lengths is not None and (len(lengths) != batch or not all(1 <= one <= length for one in lengths)):
        raise ValueError(f"lengths {list(lengths)!r}: give {batch} numbers of tokens, from 1 to {length}")


def layer_title(config, batch, length, attention, precision, highlight, real):
    """The sentence that the bytes say about what is highlighted."""
    weights, flows = layer_weights(config, precision), layer_flows(config, batch, length, precision)
    whole, matrix = sum(weights.values()), flows["matrix"]
    if highlight in (*GROUPS, *weights):
        size = sum(one for name, one in weights.items() if highlight in (name, KINDS[name]))
        return f"{highlight}: {format_size(size)} of weights, {size / whole:.{1 + (size < whole / 1000)}%} of the layer"
    if highlight == "weights":
        share = (weights["wide"] + weights["back"]) / whole
        return f"One layer holds {format_size(whole)} of weights; {share:.0%} are feed-forward"
    if highlight == "matrix":
        size = f"{format_size(matrix)}, {matrix / flows['input']:.1f} times the hidden states"
        if attention == "eager":
            return f"Eager attention holds the whole matrix of scores: {size}"
        return f"All scores would take {size}; SDPA never holds them at once"
    if highlight == "last layer":
        after = layer_flows(config, batch, length, precision, True)["wide"]
        return f"Only [CLS] goes on: the wide arrow carries {format_size(after)}, not {format_size(flows['wide'])}"
    if highlight == "padding":
        return f"{1 - real:.0%} of the tokens are padding, and so is {1 - real:.0%} of the bytes between matrices"
    return f"One layer holds {format_size(whole)} of weights; its wide arrow carries {format_size(flows['wide'])}"


def layer_alt(what, weights, flows, attention):
    boxes = ", ".join(f"{name} {format_size(size)}" for name, size in weights.items())
    arrows = ", ".join(f"{name} {format_size(size)}" for name, size in flows.items() if name != "matrix")
    held = "held whole" if attention == "eager" else "never held whole"
    return (
        f"One BERT layer from top to bottom; {what}. Weights: {boxes}. "
        f"Activations after each step: {arrows}. Matrix of scores: {format_size(flows['matrix'])}, {held}."
    )


class LayerCanvas(Canvas):
    """Draws the steps of the layer from top to bottom; `y` is where the next one begins."""

    def __init__(self, title, note, weights, flows, highlight, shares, attention):
        super().__init__(title, note)
        self.weights, self.flows, self.highlight, self.shares = weights, flows, highlight, shares
        self.eager = attention == "eager"
        shown = {name: size for name, size in flows.items() if name != "matrix" or self.eager}
        self.scale = min(FLOW_UNITS / flows["input"], WIDEST_UNITS / max(shown.values()))
        self.wide_units = min(WIDE_UNITS, SIDE_UNITS * weights["wide"] / weights["query"])

    def draw(self):
        self.y += 4
        start = self.y + 14
        self.arrow(CENTRE, 24, "input", "hidden states")
        self.projections()
        self.attention()
        self.arrow(CENTRE, 24, "attention")
        self.box("output", CENTRE, SIDE_UNITS)
        self.arrow(CENTRE, 24, "output")
        self.pass_by(start, "attention norm")
        start = self.y + 8
        self.arrow(CENTRE, 28, "attention norm")
        self.box("wide", CENTRE, self.wide_units)
        self.arrow(CENTRE, 30, "wide")
        self.step("GELU: no weights", 20)
        self.arrow(CENTRE, 30, "GELU")
        self.box("back", CENTRE, self.wide_units)
        self.arrow(CENTRE, 24, "back")
        self.pass_by(start, "feed-forward norm")
        self.arrow(CENTRE, 28, "feed-forward norm", "next layer")

    def width(self, flow):
        """Units of an arrow's width; at least 1.5, so that it is seen."""
        return max(1.5, self.flows[flow] * self.scale)

    def colours(self, kind):
        """(fill, text) of a kind of byte; pale if something else is highlighted."""
        on = self.highlight in (None, kind, KINDS.get(kind)) or (self.highlight == "weights" and kind != "activations")
        on = on or (kind == "activations" and self.highlight in ("last layer", "padding"))
        colour = BYTES[KINDS.get(kind, "activations")] if on else PALE
        return colour, ink_on(colour)

    def arrow(self, x, height, flow, words=None, label=True):
        """An arrow downward from self.y, with the bytes of `flow` beside it; its padding is the grey part."""
        width, (colour, _) = self.width(flow), self.colours("activations")
        head = min(8, height / 2)
        self.rect(x - width / 2, self.y, width, height - head, colour)
        real = self.shares["matrix" if flow == "matrix" else "real"]
        if real < 1:
            self.rect(x - width / 2 + width * real, self.y, width * (1 - real), height - head, PALE, QUIET, line=0.5)
        tip, side = self.y + height, width / 2 + 4
        self.path([(x - side, tip - head), (x + side, tip - head), (x, tip)], colour)
        if label:
            said = format_size(self.flows[flow]) + (f", {words}" if words else "")
            self.text(x + width / 2 + 9, self.y + height / 2 + 3, said)
        self.y += height

    def box(self, name, centre, width, height=SIDE_UNITS):
        """A matrix of weights with its name and bytes; moves below it."""
        fill, ink = self.colours(name)
        self.rect(centre - width / 2, self.y, width, height, fill, INK, line=2.5 if self.highlight == name else 0.8)
        self.text(centre, self.y + height / 2 - 3, WORDS.get(name, name), SMALL, "middle", ink, "bold")
        self.text(centre, self.y + height / 2 + 12, format_size(self.weights[name]), SMALL, "middle", ink)
        self.y += height

    def step(self, words, height, fill="#FFFFFF"):
        """A step without weights."""
        self.rect(CENTRE - 115, self.y, 230, height, fill, QUIET, round=6)
        self.text(CENTRE, self.y + height / 2 + 4, words, SMALL, "middle")
        self.y += height

    def projections(self):
        """Query, key and value side by side, with the bus that brings the hidden states to each."""
        top, places = self.y, {"query": CENTRE - 88, "key": CENTRE, "value": CENTRE + 88}
        thick, (colour, _) = self.width("input"), self.colours("activations")
        self.rect(places["query"] - thick / 2, top, 176 + thick, min(thick, 6), colour)
        for name, x in places.items():
            self.y = top + 4
            self.arrow(x, 16, "input", label=False)
            self.box(name, x, SIDE_UNITS)
            self.arrow(x, 24, name)

    def attention(self):
        """Scores, softmax and weighted sum: eager holds the matrix between them, SDPA only blocks of it."""
        size = format_size(self.flows["matrix"])
        on = self.highlight == "matrix"
        if self.eager:
            self.step("scores: each query with each key", 20)
            self.matrix_arrow(on)
            self.step("softmax, weighted sum of values", 20)
            return
        top, height = self.y, 70
        self.rect(CENTRE - 115, top, 230, height, "#FFFFFF", QUIET, round=6)
        self.text(CENTRE, top + 15, "attention, block by block", SMALL, "middle")
        side = 40
        self.rect(
            CENTRE - 104, top + 23, side, side, "#FFFFFF", INK if on else QUIET, line=1.5 if on else 1, dashed=True
        )
        self.rect(CENTRE - 104, top + 23, side / 4, side / 4, BYTES["activations"] if on else PALE, INK, line=0.5)
        weight = "bold" if on else "normal"
        self.text(CENTRE - 56, top + 40, f"all scores: {size},", SMALL, weight=weight)
        self.text(CENTRE - 56, top + 55, "never held at once", SMALL)
        self.y += height

    def matrix_arrow(self, on):
        highlight, self.highlight = self.highlight, "padding" if on else self.highlight
        self.arrow(CENTRE, 46, "matrix", "the matrix")
        self.highlight = highlight

    def pass_by(self, start, norm):
        """Add & norm, and the residual arrow that passes by at the left from `start`."""
        thick, (colour, _) = self.width(norm), self.colours("activations")
        middle, left = self.y + 13, CENTRE - 80
        end = CENTRE - self.width("input") / 2
        track = [(end, start), (RESIDUAL, start), (RESIDUAL, middle), (left - 7, middle)]
        self.path(track, stroke=colour, width=thick)
        if self.shares["real"] < 1:
            self.path(track, stroke=PALE, width=thick * (1 - self.shares["real"]))
        self.path([(left - 8, middle - thick / 2 - 4), (left - 8, middle + thick / 2 + 4), (left, middle)], colour)
        self.text(RESIDUAL + thick / 2 + 4, middle - thick / 2 - 6, format_size(self.flows[norm]))
        fill, ink = self.colours(norm)
        self.rect(left, self.y, 160, 26, fill, INK, line=2.5 if self.highlight == norm else 0.8)
        self.text(CENTRE, middle + 4, f"add & norm, {format_size(self.weights[norm])}", SMALL, "middle", ink)
        self.y += 26
