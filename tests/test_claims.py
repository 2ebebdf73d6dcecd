"""The ledger is whole: every claim has one place that decides it, and its file cannot go wrong unseen."""

from collections import Counter
from pathlib import Path

import nbformat
import pytest

from zsc_utils import claims

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LEDGER = claims.read()


def test_the_article_s_sections_are_all_there():
    counts = Counter(claim.section for claim in LEDGER)
    assert counts == {"1": 2, "2.2": 7, "2.3": 4, "3.1": 3, "3.2": 2, "4.1": 3, "4.2": 2, "5.1": 3, "5.2": 1, "6": 2,
                      "7": 5}  # fmt: skip


def test_each_claim_has_a_cell_of_its_own():
    assert max(Counter((claim.notebook, claim.cell) for claim in LEDGER).values()) == 1


@pytest.mark.parametrize("claim", [c for c in LEDGER if c.verdict != "open"] or [None], ids=str)
def test_a_decided_claim_is_decided_by_a_cell_that_exists(claim):
    if claim is None:
        pytest.skip("no claim is decided yet")
    notebook = nbformat.read(NOTEBOOKS / f"{claim.notebook}.ipynb", as_version=4)
    assert claim.cell in [cell.id for cell in notebook.cells]


def test_the_table_shows_every_claim_and_counts_the_decided():
    lines = claims.table(LEDGER).splitlines()
    assert len(lines) == len(LEDGER) + 3
    assert all(claim.says in line for claim, line in zip(LEDGER, lines[2:]))
    decided = [claims.Claim("a", "1", "x", "refuted", "n", "c"), claims.Claim("b", "1", "y", "open", "n", "d")]
    assert claims.table(decided).endswith("1 of 2 claims decided")


ENTRY = '[[claims]]\nid = "a"\nsection = "1"\nsays = "x"\nverdict = "{}"\nnotebook = "n"\ncell = "c"\n'


@pytest.mark.parametrize(
    "text, message",
    [(ENTRY.format("maybe"), "verdict 'maybe' is none of"), (ENTRY.format("open") * 2, "claim a stands twice")],
)
def test_a_wrong_ledger_is_refused(tmp_path, text, message):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        claims.read(tmp_path / "claims.toml")
