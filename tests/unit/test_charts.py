"""Charts of lessons 00 to 02: each is shown with words that have its numbers; names of events are apart."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib import pyplot

from zsc_utils import _charts_00, _charts_01, _charts_02, plots
from zsc_utils._agreement import Agreement

CURVE = [(at / 10, 600e6 + size * 1e6) for at, size in enumerate((0, 0, 50, 160, 140, 140, 110, 110, 5, 5))]
EVENTS = {"load": 0.1, "run": 0.4, "delete": 0.5, "trim": 0.7}
PARTS = {"embeddings": 66_000_000, "attention": 113_000_000, "feed-forward": 227_000_000, "norm": 0, "head": 2_000_000}
KEPT = {name: {bits: Agreement(37, same, 0.1, None) for bits, same in zip((8, 4, 2), row)}
        for name, row in {"a scale a row": (37, 37, 10), "a scale for 32 weights": (37, 36, 19)}.items()}  # fmt: skip
CHARTS = {
    "scores": (lambda: _charts_00.scores(["sport", "food"], [0.9, 0.1]), ["sport 0.90", "food 0.10"]),
    "opening": (lambda: _charts_00.opening(CURVE, EVENTS, 118_000_000), ["rises by 160 MB", "ends at 605 MB"]),
    "bill": (lambda: _charts_01.bill({"all": PARTS | {"activations": 10**8}, "one": PARTS | {"activations": 4}}),
             ["all 100.0 MB", "one 4 B"]),
    "lives": (lambda: _charts_01.lives({"mapped:": (CURVE, EVENTS), "unpacked:": (CURVE, EVENTS)}), ["140 MB at run"]),
    "row errors": (lambda: _charts_02.row_errors({"one": torch.full((9,), 0.5), "each": torch.full((9,), 0.01)}),
                   ["one 50.0%", "each 1.0%"]),
    "kept": (lambda: _charts_02.kept(KEPT, 4, 0.35), ["8 bits 100%", "2 bits 27%", "random: 35%"]),
    "speeds": (lambda: _charts_02.speeds({"fp32": [1, 1], "int8": [2, 3]}), ["int8 2.50"]),
    "bytes": (lambda: _charts_02.bytes_by_part({"fp32": PARTS}, "fp32"), ["fp32, 408 MB", "embeddings 66 MB"]),
}  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """What `show` displayed: (figure, alt text)."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: found.append((figure, metadata)))
    yield found
    pyplot.close("all")


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_shown_once_with_its_numbers_in_words(name, shown):
    draw, words = CHARTS[name]
    draw()
    ((figure, metadata),) = shown
    alt = metadata["image/png"]["alt"]
    assert all(word in alt for word in words), alt
    assert figure.axes and not pyplot.get_fignums()


def test_names_of_events_stand_below_one_another_and_above_the_curve(shown):
    _charts_00.opening(CURVE, EVENTS, 118_000_000)
    axes = shown[0][0].axes[0]
    names = [text for text in axes.texts if text.get_text().strip() in EVENTS]
    heights = [text.xy[1] for text in names]
    assert heights == sorted(heights, reverse=True) and len({*heights}) == len(EVENTS)
    assert max(size for _, size in CURVE) / 1e6 < 0.62 * axes.get_ylim()[1]


def test_the_title_of_the_bill_compares_activations(shown):
    _charts_01.bill({"all pairs": PARTS | {"activations": 174_000_000}, "one": PARTS | {"activations": 4_000_000}})
    assert shown[0][0].get_suptitle() == "All pairs: 174.0 MB of activations; one: 4.0 MB"


def test_parts_of_bert_are_told_by_their_names():
    names = {"bert.embeddings.word_embeddings.weight": "embeddings", "bert.embeddings.LayerNorm.bias": "norm",
             "bert.encoder.layer.0.attention.self.query.weight": "attention", "classifier.weight": "head",
             "bert.encoder.layer.0.attention.output.LayerNorm.weight": "norm", "bert.pooler.dense.bias": "head",
             "bert.encoder.layer.0.intermediate.dense.weight": "feed-forward",
             "bert.encoder.layer.0.output.dense.scale": "feed-forward"}  # fmt: skip
    assert {name: _charts_02.part_of(name) for name in names} == names
    assert {*names.values()} <= plots.BYTES.keys()


def test_stairs_have_a_bar_for_each_plan_and_say_how_many_keep_their_budget():
    def planned(predicted, precision, block):
        return SimpleNamespace(predicted=predicted, setting=SimpleNamespace(precision=precision, block=block))

    plans = {40: planned(39e6, "int8", 512), 80: planned(81e6, "fp32", 512), 400: planned(390e6, "fp32", 0)}
    axes = pyplot.figure().subplots()
    plots.stairs(axes, plans)
    heights = {round(bar.get_x() + bar.get_width() / 2): round(bar.get_height()) for bar in axes.patches}
    assert heights == {40: 39, 80: 81, 400: 390}
    assert axes.get_title() == "2 of 3 plans keep their budget"
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"int8, layers streamed", "fp32, layers streamed", "fp32, layers in memory"} < {*named}
