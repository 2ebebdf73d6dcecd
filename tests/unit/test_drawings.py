"""Pictures tell the truth: bytes add up to memory's, shares are computed, words are there, and no text is cut off."""

import inspect
import itertools
import json
import re
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from toys import toy_bert
from transformers import BertConfig

from zsc_utils import drawings, memory, offloading, plots
from zsc_utils._drawn_process import KINDS, METERS, STRIPED
from zsc_utils._int8 import int8_bytes
from zsc_utils._products import PACKED, int8_engine
from zsc_utils._sizes import format_size
from zsc_utils._svg import BOLD, WIDTH, ink_on, text_width
from zsc_utils._tensors import Step
from zsc_utils.batching import padding, token_budget_batches
from zsc_utils.quantization import rows_to_int8

BASE = BertConfig(vocab_size=21128, num_labels=3)
LENGTHS = [120, 31, 64, 17, 90, 45, 22, 80, 9, 12, 118, 64]
SCORES = np.random.default_rng(0).normal(size=(4, 8)) * 2
ROW = np.random.default_rng(1).normal(size=768) * 0.03
SPANS = [
    offloading.Span("read", 0, "attention", 10.0, 11.0),
    offloading.Span("compute", 0, "attention", 11.0, 14.0),
    offloading.Span("read", 0, "feed-forward", 11.0, 13.0),
    offloading.Span("compute", 0, "feed-forward", 14.0, 20.0),
]
STEPS = [
    Step(0.0, 400, 400, "linear", "bert.encoder.layer.0.attention.self.query"),
    Step(0.1, 1600, 2000, "linear", "bert.encoder.layer.0.intermediate.dense"),
    Step(0.2, -1600, 400, "linear", "bert.encoder.layer.0.output"),
]
METER_BYTES = dict(zip(METERS, (60_000_000, 150_000_000, 412_000_000, 300_000_000, 450_000_000)))
LEVERS = {"before": {"libraries": 337_000_000, "file-backed": 409_000_000, "anonymous": 100_000_000},
          "int8": {"libraries": 337_000_000, "anonymous": 122_000_000}}  # fmt: skip
IMPORTS = {(): 9_000_000, ("torch",): 223_000_000, ("numpy", "tokenizers"): 30_000_000, ("numpy",): 25_000_000}
LONG = "a very long name of a lever, " * 8 + "低内存的零样本分类" * 5
# each picture by name, made anew on each call
PICTURES = {
    "layer": lambda: drawings.layer(BASE, 1, 512),
    "layer, matrix": lambda: drawings.layer(BASE, 1, 512, attention="eager", highlight="matrix"),
    "layer, SDPA's matrix": lambda: drawings.layer(BASE, 1, 512, highlight="matrix"),
    "layer, last": lambda: drawings.layer(BASE, 8, 128, highlight="last layer"),
    "layer, weights": lambda: drawings.layer(BASE, 512, 512, precision="int8", highlight="weights"),
    "layer, padding": lambda: drawings.layer(BASE, 2, 100, attention="eager", highlight="padding", lengths=[100, 20]),
    "layer, one box": lambda: drawings.layer(BASE, 1, 1, precision="fp16", highlight="feed-forward norm"),
    "meters": lambda: drawings.meters(METER_BYTES),
    "meters of two": lambda: drawings.meters({"with torch": METER_BYTES, LONG[:40]: {"resident": 90_000_000}}),
    "lanes": lambda: drawings.lanes(SPANS, [(10 + place, 10**8 + place * 10**6) for place in range(11)]),
    "lanes, named": lambda: drawings.lanes([("read", LONG, 0.0, 0.9), ("compute", LONG, 0.2, 1.1)], first=0.5),
    "tiles": lambda: drawings.tiles(SCORES, 3),
    "tiles, large": lambda: drawings.tiles([[-1000.0, 1000.0] * 8], 5),
    "bits": lambda: drawings.bits(ROW),
    "packing": lambda: drawings.packing(LENGTHS, 128, batch=4),
    "packing many": lambda: drawings.packing(LENGTHS * 30, 10_000),
    "timeline": lambda: drawings.timeline_slider(STEPS),
    "growing": lambda: drawings.growing(LEVERS),
    "growing, long": lambda: drawings.growing({LONG: {"anonymous": 1}, LONG + "!": {"anonymous": 10**12}}),
    "imports": lambda: drawings.import_tree(IMPORTS),
    "imports, long": lambda: drawings.import_tree({(): 9, (LONG,): 12, (LONG, LONG): 11, (LONG, LONG, "c"): 10**10}),
}

each_picture = pytest.mark.parametrize("name", PICTURES)


def elements(picture, kind):
    """All elements of a kind, as dicts of their attributes and text."""
    root = ElementTree.fromstring(picture.svg)
    return [{**one.attrib, "text": one.text} for one in root.iter(f"{{http://www.w3.org/2000/svg}}{kind}")]


def texts(picture):
    return " ".join(one["text"] for one in elements(picture, "text"))


# ----------------------------------------------------------------------------------------------------- every picture


@each_picture
def test_the_same_data_give_the_same_bytes(name):
    one, other = PICTURES[name](), PICTURES[name]()
    assert one.svg == other.svg and one._repr_html_() == other._repr_html_() and repr(one) == repr(other)


@each_picture
def test_words_stand_for_the_picture(name):
    picture = PICTURES[name]()
    assert [one["text"] for one in elements(picture, "title")] == [picture.title]
    assert [one["text"] for one in elements(picture, "desc")] == [picture.alt]
    assert len(picture.alt) > 60 and re.search(r"\d", picture.title)
    found = Images()
    found.feed(picture._repr_html_())
    assert found.alts == [f"{picture.title}. {picture.alt}"]
    assert found.sources == ["data:image/svg+xml," + picture.svg]
    assert repr(picture) == f"{picture.title}\n{picture.alt}"


class Images(HTMLParser):
    """Collects the words and the unquoted sources of images."""

    def __init__(self):
        super().__init__()
        self.alts, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes)["alt"])
            self.sources.append(unquote(dict(attributes)["src"]))


@each_picture
def test_no_text_and_no_shape_leaves_the_canvas(name):
    picture = PICTURES[name]()
    height = float(ElementTree.fromstring(picture.svg).attrib["viewBox"].split()[3])
    assert elements(picture, "text")
    for one in elements(picture, "text"):
        size, x, y = (float(one[key]) for key in ("font-size", "x", "y"))
        width = text_width(one["text"], size) * (BOLD if one.get("font-weight") else 1)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[one["text-anchor"]]
        assert left >= 0 and left + width <= WIDTH and size <= y <= height - 2, one
        assert size >= 11  # of 400 units: 2.4 mm on a phone of 88 mm
    for one in elements(picture, "rect"):
        x, y, wide, high = (float(one.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert x >= 0 and x + wide <= WIDTH + 0.11 and y >= 0 and y + high <= height, one
    places = " ".join(one["points"] for kind in ("polyline", "polygon") for one in elements(picture, kind))
    for x, y in (pair.split(",") for pair in places.split()):
        assert -1 <= float(x) <= WIDTH + 1 and 0 <= float(y) <= height


@each_picture
def test_words_on_colours_can_be_read(name):
    """Each text has 4.5 times the contrast of what it stands on, as accessible text needs."""
    picture = PICTURES[name]()
    shapes = [one for one in elements(picture, "rect") if one["fill"] != "none"]
    for one in elements(picture, "text"):
        x, y = float(one["x"]), float(one["y"]) - 4
        under = [s["fill"] for s in shapes if inside(s, x, y)][-1] if one["text-anchor"] == "middle" else "#FFFFFF"
        light, dark = sorted((luminance(under), luminance(one["fill"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (one, under)


def inside(shape, x, y):
    left, top = float(shape.get("x", 0)), float(shape.get("y", 0))
    return left <= x <= left + float(shape["width"]) and top <= y <= top + float(shape["height"])


def linear(colour):
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


# deuteranopia and protanopia, Machado and others (2009), for linear RGB
BLINDNESS = (
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_of_one_picture_differ_for_colour_blind_readers(blindness):
    together = [
        {kind: colour for kind, colour in KINDS.items() if kind != STRIPED},
        {kind: plots.BYTES[kind] for kind in ("embeddings", "attention", "feed-forward", "head", "activations")},
        {"ours": plots.ENGINES["ours"], "transformers": plots.ENGINES["transformers"]},
    ]
    for colours in together:
        seen = {
            name: np.clip(np.array(blindness) @ linear(colour), 0, 1) ** (1 / 2.2) for name, colour in colours.items()
        }
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 0.15, (one, other)
    assert KINDS[STRIPED] == plots.BYTES["activations"] and KINDS["libraries"] == plots.BYTES["libraries"]


def test_ink_is_the_one_that_is_easier_to_read():
    assert ink_on("#FFFFFF") != "#FFFFFF" and ink_on("#000000") == "#FFFFFF"


EXAMPLES = ("grid", "growing", "import_tree", "meters", "packing", "tiles")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_run(name):
    code = textwrap.dedent("\n".join(re.findall(r"^    \S.*", inspect.getdoc(getattr(drawings, name)), re.M)))
    assert f"{name}(" in code
    exec(code.replace("{...}", '{"anonymous": 1}'), vars(drawings).copy())


def test_pictures_need_no_torch():
    script = "import sys, zsc_utils.drawings; print(*sorted({'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# ------------------------------------------------------------------------------------------------------------- layer


@pytest.mark.parametrize("config", [BASE, BertConfig(hidden_size=256, num_attention_heads=4, intermediate_size=512)])
@pytest.mark.parametrize("precision, item", [("fp32", 4), ("fp16", 2)])
def test_weights_of_a_layer_add_up_to_the_model_s(config, precision, item):
    counts, layers = memory.parameters(config), config.num_hidden_layers
    parts = drawings.layer_weights(config, precision)
    sums = {
        "attention": sum(parts[name] for name in ("query", "key", "value", "output")),
        "feed-forward": parts["wide"] + parts["back"],
        "norm": parts["attention norm"] + parts["feed-forward norm"],
    }
    of_embeddings = {"norm": 2 * config.hidden_size * item}
    assert {kind: layers * size + of_embeddings.get(kind, 0) for kind, size in sums.items()} == {
        kind: counts[kind] * item for kind in sums
    }


def test_int8_weights_of_a_layer_are_what_one_more_layer_takes():
    more = BertConfig(**(BASE.to_dict() | {"num_hidden_layers": 13}))
    rows = 5 * BASE.hidden_size + BASE.intermediate_size
    zeros = 4 * rows * (int8_engine() == PACKED)
    parts = drawings.layer_weights(BASE, "int8")
    assert sum(parts.values()) + zeros == int8_bytes(more) - int8_bytes(BASE)


@pytest.mark.parametrize("batch, length", [(1, 512), (3, 40)])
def test_flows_are_the_tensors_that_memory_predicts(batch, length):
    moments = {m.what: m.tensors for m in memory.predict(BASE, batch, length, attention="eager", threads=1).moments}
    flows = drawings.layer_flows(BASE, batch, length)
    assert flows["query"] + flows["key"] + flows["value"] == moments["value projected"]["query, key, value"]
    assert flows["matrix"] == moments["scores"]["scores"]
    assert flows["attention"] == moments["weighted"]["attention output"]
    assert flows["output"] == moments["output projected"]["dense"]
    assert flows["wide"] == moments["widened"]["widened"] and flows["GELU"] == moments["after GELU"]["after GELU"]
    assert flows["back"] == moments["narrowed"]["dense"] and flows["input"] == moments["pooling"]["last hidden state"]


def test_flows_of_the_last_layer_are_those_of_first_tokens():
    flows, all_tokens = (drawings.layer_flows(BASE, 8, 128, first_only=only) for only in (True, False))
    assert {flow for flow in flows if flows[flow] == all_tokens[flow]} == {"input", "key", "value"}
    assert all(flows[flow] * 128 == all_tokens[flow] for flow in flows.keys() - {"input", "key", "value"})


def test_arrows_are_as_wide_as_their_bytes():
    picture = drawings.layer(BASE, 1, 512, attention="eager")
    pink = [float(r["width"]) for r in elements(picture, "rect") if r["fill"] == plots.BYTES["activations"]]
    sizes = {name.removeprefix("flow: "): size for name, size in picture.numbers.items() if name.startswith("flow: ")}
    ratios = {round(width / min(pink), 1) for width in pink if width < 100}  # over 100 is the way to all three boxes
    assert ratios == {round(size / sizes["input"], 1) for size in sizes.values()} == {1.0, 4.0, 8.0}


def test_every_number_of_a_layer_is_written_down():
    picture = drawings.layer(BASE, 1, 512, attention="eager")
    sizes = [size for name, size in picture.numbers.items() if ":" in name]
    assert len(sizes) == 20 and all(format_size(size) in texts(picture) for size in sizes)


def test_padding_of_a_layer_is_drawn_to_scale():
    picture = PICTURES["layer, padding"]()
    assert picture.numbers["real tokens"] == 0.6 and picture.title.startswith("40%")
    spans = [(r["fill"], float(r["width"]), float(r["height"])) for r in elements(picture, "rect")]
    halves = [(one[1], two[1]) for one, two in itertools.pairwise(spans)
              if one[0] == plots.BYTES["activations"] and two[2] == one[2]]  # fmt: skip
    shares = sorted({round(grey / whole, 1) for whole, grey in halves})
    matrix = 1 - (100**2 + 20**2) / (2 * 100**2)
    assert shares == sorted({0.4, round(matrix, 1)})


@pytest.mark.parametrize("group, boxes", [("attention", 4), ("feed-forward", 2), ("norm", 2)])
def test_a_group_of_boxes_is_highlighted_and_added_up(group, boxes):
    picture = drawings.layer(BASE, 1, 512, highlight=group)
    fills = [r["fill"] for r in elements(picture, "rect")]
    assert fills.count(plots.BYTES[group]) == boxes and len({*plots.BYTES.values()} & {*fills}) == 1
    per_layer = memory.parameters(BASE)[group] * 4 - (group == "norm") * 2 * BASE.hidden_size * 4
    assert format_size(per_layer // BASE.num_hidden_layers) in picture.title


def test_a_highlight_leaves_the_rest_pale():
    fills = [r["fill"] for r in elements(drawings.layer(BASE, 1, 512, highlight="wide"), "rect")]
    assert fills.count(plots.BYTES["feed-forward"]) == 1 and plots.BYTES["attention"] not in fills
    fills = [r["fill"] for r in elements(drawings.layer(BASE, 1, 512, highlight="weights"), "rect")]
    assert fills.count(plots.BYTES["feed-forward"]) == 2 and plots.BYTES["activations"] not in fills


# ------------------------------------------------------------------------------------------------- tiles, bits, packing


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("scores", [SCORES, SCORES[:, ::-1], SCORES * 500, np.zeros((1, 8))])
def test_tiles_end_with_plain_softmax(scores, tile):
    picture = drawings.tiles(scores, tile)
    assert picture.numbers["largest difference"] < 1e-12 and picture.numbers["tiles"] == -(-8 // tile)
    assert "the same weights" in picture.title
    exact = torch.tensor(scores.copy()).softmax(1).numpy()
    drawn = [one["text"] for one in elements(picture, "text") if re.fullmatch(r"[01]?\.\d\d", one["text"])]
    assert [float(text) for text in drawn[-exact.size :]] == [float(f"{weight:.2f}") for weight in exact.ravel()]


def test_tiles_keep_the_maximum_and_the_sum_so_far():
    words = [one["text"] for one in elements(drawings.tiles([[0.0, 2.0, 1.0, 3.0]], 2), "text")]
    first, second = np.exp(-2) + 1, (np.exp(-2) + 1) * np.exp(-1) + np.exp(-2) + 1
    assert [f"{first:.3f}", f"{second:.3f}", "1.000"] == [word for word in words if re.fullmatch(r"\d\.\d{3}", word)]
    assert words.count("2.0") == 2 and words.count("3.0") == 2  # in its cell, and as the maximum


def test_tiles_that_disagree_would_say_so(monkeypatch):
    monkeypatch.setattr(drawings, "running", lambda matrix, tile: [(0, matrix.max(1), np.full(len(matrix), 2.0))])
    assert "weights differ by" in drawings.tiles(SCORES, 8).title


def test_eight_bits_a_row_are_the_project_s_int8():
    rows, scale = rows_to_int8(torch.tensor(ROW)[None])
    rounded, levels = drawings.grid(ROW, 8)
    assert np.allclose(rounded, (rows * scale[:, None])[0].numpy(), atol=1e-9) and len(levels[0]) == 255


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 64, 100])
def test_weights_are_rounded_to_the_nearest_level(bits, group):
    rounded, levels = drawings.grid(ROW, bits, group)
    size = group or len(ROW)
    assert len(levels) == -(-len(ROW) // size) and {len(own) for own in levels} == {2**bits - 1}
    for place, (weight, near) in enumerate(zip(ROW, rounded)):
        distances = np.abs(levels[place // size] - weight)
        assert abs(near - weight) == pytest.approx(distances.min(), abs=1e-12)


def test_errors_of_bits_are_computed():
    spoiled = ROW.copy()
    spoiled[3] = 2.0
    numbers = drawings.bits(spoiled, (4,), group=32).numbers
    for kind, group in (("row", None), ("group", 32)):
        error = np.linalg.norm(drawings.grid(spoiled, 4, group)[0] - spoiled) / np.linalg.norm(spoiled)
        assert numbers[f"4 bits, {kind}"] == pytest.approx(error)
    assert numbers["4 bits, group"] < numbers["4 bits, row"] / 2  # one outlier spoils one group, not the row
    assert numbers["4 bits, group: stored"] == 5.0 and numbers["4 bits, row: stored"] == 4 + 32 / 768
    assert f"{numbers['4 bits, group']:.1%}" in drawings.bits(spoiled, (4,), group=32).title


def test_levels_of_bits_are_ticks():
    ticks = [one for one in elements(drawings.bits(ROW, (3,), group=768), "line") if one["stroke"] == plots.CHOSEN]
    assert len(ticks) == 2 * 7


def test_shares_of_packing_are_those_of_batching():
    numbers = PICTURES["packing"]().numbers
    as_they_come = [list(range(start, start + 4)) for start in (0, 4, 8)]
    budgeted = token_budget_batches(LENGTHS, 128)
    assert numbers["padded"] == padding(LENGTHS, as_they_come) and numbers["budget"] == padding(LENGTHS, budgeted)
    assert numbers["packed"] == 0 and numbers["packed: slots"] == sum(LENGTHS)
    assert numbers["padded: slots"] == 4 * (120 + 90 + 118) and numbers["budget: batches"] == len(budgeted)
    assert f"{numbers['padded']:.0%}" in PICTURES["packing"]().title


def test_tokens_of_packing_are_drawn_to_scale():
    """In each way, the bars of tokens add up to all tokens; grey ones to all slots of the two padded ways."""
    picture, unit = PICTURES["packing"](), (WIDTH - 16) / 120
    rects = [r for r in elements(picture, "rect") if float(r["width"]) != 11 and "x" in r]
    bars = [float(r["width"]) / unit for r in rects if r["fill"] in drawings.BLUES]
    assert sum(bars) == pytest.approx(3 * sum(LENGTHS), rel=0.01)
    grey = [r for r in rects if r["fill"] not in drawings.BLUES]
    height = float(next(r for r in rects if r["fill"] in drawings.BLUES)["height"]) / 0.9
    slots = sum(float(r["width"]) / unit * round(float(r["height"]) / height) for r in grey)
    assert slots == pytest.approx(picture.numbers["padded: slots"] + picture.numbers["budget: slots"], rel=0.01)


# ----------------------------------------------------------------------------------------- timeline, meters, processes


def test_the_timeline_is_still_at_its_peak():
    picture = drawings.timeline_slider(STEPS)
    assert picture.numbers == {"peak": 2000, "peak step": 1, "steps": 3}
    page = picture._repr_html_()
    assert 'value="1"' in page and "<script" not in page and ' id="' not in page
    assert json.loads(re.search("data-steps='(.*?)'", page).group(1)) == [
        [400, 400, 0],
        [2000, 1600, 1],
        [400, -1600, 2],
    ]
    assert (
        json.loads(re.search("data-names='(.*?)'", page).group(1))[1]
        == "bert.encoder.layer.0.intermediate.dense linear"
    )
    assert not re.search("LEFT|SPAN|TOP|HIGH", page)


def test_the_timeline_of_a_model_peaks_where_memory_predicts():
    model = toy_bert(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    ids = torch.ones(2, 16, dtype=torch.long)
    with torch.inference_mode():
        steps = memory.timeline(lambda: model(input_ids=ids), model)
    picture = drawings.timeline_slider(steps)
    assert picture.numbers["peak"] == memory.predict(model.config, 2, 16).peak_activations
    assert format_size(picture.numbers["peak"]) in picture.title


def test_names_of_modules_cannot_break_the_page():
    step = replace(STEPS[0], module="it's <b>\"&")
    page = drawings.timeline_slider([step])._repr_html_()
    found = Attributes()
    found.feed(page)
    assert json.loads(found.values["data-names"]) == ["it's <b>\"& linear"]


class Attributes(HTMLParser):
    """Collects the last value of each attribute."""

    def __init__(self):
        super().__init__()
        self.values = {}

    def handle_starttag(self, tag, attributes):
        self.values |= dict(attributes)


def test_each_meter_says_what_it_counts():
    picture = drawings.meters(METER_BYTES)
    for meter, words in METERS.items():
        assert words in picture.alt and words.split(":")[0] in texts(picture) and meter in texts(picture)
    widths = [float(r["width"]) for r in elements(picture, "rect")[1:]]
    sizes = list(METER_BYTES.values())
    assert [width / max(widths) for width in widths] == pytest.approx([s / max(sizes) for s in sizes], abs=0.002)
    assert picture.title.endswith("7.5 times as much")


def test_meters_of_two_processes_show_what_was_not_read():
    picture = PICTURES["meters of two"]()
    assert texts(picture).count("not read") == 4 and picture.numbers["with torch: container"] == 450_000_000


def test_lanes_add_up_seconds():
    picture = PICTURES["lanes"]()
    assert picture.numbers == {"read": 3.0, "compute": 9.0, "both": 2.0, "whole": 10.0, "resident peak": 110_000_000}
    assert picture.title == "Reading takes 3.00 s, 67% of it while the processor computes"
    assert all(word in texts(picture) for word in ("reading the file", "computing", "50 MB", "100 MB"))
    named = [(span.what, f"{span.layer} {span.part}", span.start, span.stop) for span in SPANS]
    assert drawings.lanes(named).svg == drawings.lanes(SPANS).svg


def test_the_first_seconds_alone_are_drawn_but_all_are_counted():
    whole, part = drawings.lanes(SPANS), drawings.lanes(SPANS, first=3.5)
    assert whole.numbers == part.numbers and "first 3.50 s" in texts(part)
    assert len(elements(part, "rect")) == len(elements(whole, "rect")) - 1  # the last computation starts at 4 s


def test_the_resident_bytes_are_watched_while_they_grow():
    with drawings.watched(0.001) as curve:
        while not curve:  # a busy machine may start the thread late
            time.sleep(0.001)
        block = np.ones(10_000_000)  # 80 MB
    first, last = curve[0], curve[-1]
    assert last[1] - first[1] > 0.8 * block.nbytes and first[0] < last[0]
    ended = len(curve)
    time.sleep(0.01)
    assert len(curve) == ended


def test_levers_are_stacked_and_their_change_is_told():
    picture = drawings.growing(LEVERS)
    assert picture.numbers == {"before": 846_000_000, "int8": 459_000_000}
    assert "459.0 MB (−387.0 MB)" in texts(picture) and picture.title.endswith("46% less")
    bars = [r for r in elements(picture, "rect") if r["height"] == "18"]
    widths = [float(r["width"]) / (WIDTH - 16) * 846e6 for r in bars]
    sizes = [rows[kind] for rows in LEVERS.values() for kind in KINDS if kind in rows]
    assert widths == pytest.approx(sizes, abs=0.3e6)


def test_imports_hang_on_what_they_continue():
    picture = drawings.import_tree(IMPORTS)
    assert picture.numbers == {"Python": 9_000_000, "numpy": 16_000_000, "numpy > tokenizers": 5_000_000,
                               "torch": 214_000_000}  # fmt: skip
    assert list(picture.numbers) == ["Python", "numpy", "numpy > tokenizers", "torch"]
    assert "24.8 times Python alone" in picture.title and "+5.0 MB = 30.0 MB" in texts(picture)


# --------------------------------------------------------------------------------------------------------- at the door

SPAN = SimpleNamespace(what="write", layer=0, part="attention", start=0.0, stop=1.0)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: drawings.layer(BASE, 0, 8), "batch 0"),
        (lambda: drawings.layer(BASE, 1, 8, attention="sliding"), "attention 'sliding'"),
        (lambda: drawings.layer(BASE, 1, 8, precision="int4"), "precision 'int4'"),
        (lambda: drawings.layer(BASE, 1, 8, highlight="heads"), "highlight 'heads'"),
        (lambda: drawings.layer(BASE, 1, 8, highlight="padding"), "give both"),
        (lambda: drawings.layer(BASE, 2, 8, highlight="padding", lengths=[8, 9]), "from 1 to 8"),
        (lambda: drawings.meters({"swap": 1}), "give bytes of"),
        (lambda: drawings.meters({}), "give"),
        (lambda: drawings.meters({"resident": 1, "torch": {"resident": 1}}), "one, two or three processes"),
        (lambda: drawings.meters({name: METER_BYTES for name in "abcd"}), "one, two or three processes"),
        (lambda: drawings.lanes([]), "no events"),
        (lambda: drawings.lanes([SPAN]), "'write'"),
        (lambda: drawings.lanes([("read", "0", 2.0, 1.0)]), "from 2.0 to 1.0"),
        (lambda: drawings.tiles(np.zeros((7, 4)), 2), r"\(7, 4\)"),
        (lambda: drawings.tiles([[1.0, float("nan")]], 1), "finite"),
        (lambda: drawings.tiles(SCORES, 9), "tile 9"),
        (lambda: drawings.grid(ROW, 1), "bits 1"),
        (lambda: drawings.grid(ROW[None], 4), "one row"),
        (lambda: drawings.grid(ROW, 4, 0), "group 0"),
        (lambda: drawings.bits(np.zeros(9)), "not all 0"),
        (lambda: drawings.packing([], 8), "no lengths"),
        (lambda: drawings.packing([3, 0], 8), "length 0"),
        (lambda: drawings.timeline_slider([]), "no steps"),
        (lambda: drawings.growing({"a": {"swap": 1}}), "kinds are"),
        (lambda: drawings.growing({"a": {"anonymous": -1}}), "0 or more"),
        (lambda: drawings.growing({}), "no rows"),
        (lambda: drawings.import_tree({("numpy",): 1}), "bytes of Python alone"),
        (lambda: drawings.import_tree({(): 0}), "over 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
