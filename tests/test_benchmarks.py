"""What README shows of the benchmarks is what was recorded, and its chart is drawn from the record."""

import json
from pathlib import Path

import pytest
import report

from zsc_utils import plots

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def peers():
    return json.loads((ROOT / "benchmarks" / "peers.json").read_text(encoding="utf-8"))


def test_the_readme_shows_the_record_of_the_peers(peers):
    assert "\n".join(report.table(peers)) in README
    assert " ".join(report.made_on(peers).split()) in " ".join(README.split())
    assert "(benchmarks/peers.svg)" in README


def test_the_chart_is_drawn_from_the_record(peers, tmp_path):
    report.draw(peers, tmp_path / "again.svg")
    shown = (ROOT / "benchmarks" / "peers.svg").read_text(encoding="utf-8")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == shown
    peers["engines"]["ours"]["total"] += 50_000_000
    report.draw(peers, tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_text(encoding="utf-8") != shown


def test_the_best_are_those_that_no_other_beats_in_both():
    points = {"small": (1, 1), "fast": (3, 3), "between": (2, 2), "worse": (3, 2), "large": (4, 3), "twin": (3, 3)}
    assert plots.best(points) == ["small", "fast", "between", "twin"]


def test_the_goal_for_all_levers_together_is_kept_in_the_record(peers):
    """At most 15 % of the pipeline's growth at 3 times its speed with 99 % of its answers."""
    original, ours = peers["engines"]["transformers pipeline"], peers["engines"]["ours, int8 in 50 MB"]
    assert ours["total"] <= 0.15 * original["total"] and ours["speed"] >= 3 and ours["agreement"] >= 0.99


def test_what_changes_no_score_changes_no_answer(peers):
    for engine in ("transformers pipeline, batch_size=8", "CrossEncoder", "ours", "ours in 150 MB"):
        assert peers["engines"][engine]["agreement"] == 1, engine
