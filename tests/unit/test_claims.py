"""The ledger is whole: every claim has one place that decides it, and its file cannot go wrong unseen."""

import html
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from zsc_utils import claims

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LEDGER = claims.read()


def test_the_article_s_sections_are_all_there():
    counts = Counter(claim.section for claim in LEDGER)
    assert counts == {"1": 2, "2.2": 7, "2.3": 4, "3.1": 3, "3.2": 2, "4.1": 3, "4.2": 2, "5.1": 3, "5.2": 1, "6": 2,
                      "7": 5}  # fmt: skip


def test_where_there_is_no_ledger_that_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="claims.toml: the ledger is in the project's checkout"):
        claims.read(tmp_path / "claims.toml")


def test_each_claim_has_a_cell_of_its_own():
    assert max(Counter((claim.notebook, claim.cell) for claim in LEDGER).values()) == 1


def cells():
    """(notebook, cell) of the whole collection."""
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in nbformat.read(file, as_version=4).cells:
            yield file.stem, cell


def test_every_claim_is_decided_by_one_cell_which_checks_its_verdict():
    deciding = {claim.id: [] for claim in LEDGER}
    for notebook, cell in cells():
        for claim in re.findall(r"(?<!\w)assert claims\.decide\(\s*\"([\w-]+)\"", cell.source):
            deciding[claim].append((notebook, cell.id))
        asked = len(re.findall(r"claims\.decide\(", cell.source))
        assert asked == len(re.findall(r"assert claims\.decide\(", cell.source)), f"{cell.id} does not assert"
    assert deciding == {claim.id: [(claim.notebook, claim.cell)] for claim in LEDGER}
    assert "open" not in [claim.verdict for claim in LEDGER]


# cells that say what the verdicts mean
RULES = ["the-promise", "verdicts-explained", "padding-explained", "the-table-again", "draw-score"]


def test_no_verdict_is_typed_anywhere_but_in_the_ledger():
    verdicts = re.compile("|".join(claims.VERDICTS[1:]), re.IGNORECASE)
    typed = [cell.id for _, cell in cells() if verdicts.search(cell.source)]
    assert set(typed) <= set(RULES)
    root = NOTEBOOKS.parent
    said = [line for line in (root / "README.md").read_text("utf-8").splitlines() if verdicts.search(line)]
    assert [line for line in said if claims.score(LEDGER) not in line] == [
        "runs, everything is measured, and every claim ends confirmed, qualified, refuted, or not testable here."
    ]


def test_the_readme_shows_the_score():
    assert claims.score(LEDGER) in (NOTEBOOKS.parent / "README.md").read_text("utf-8")


def test_the_table_shows_every_claim_and_counts_the_decided():
    lines = claims.table(LEDGER).splitlines()
    assert len(lines) == len(LEDGER) + 3
    assert all(claim.says in line for claim, line in zip(LEDGER, lines[2:]))
    decided = [claims.Claim("a", "1", "x", "refuted", "n", "c"), claims.Claim("b", "1", "y", "open", "n", "d")]
    assert claims.table(decided).endswith("1 of 2 claims decided: 1 refuted")


def test_the_page_has_every_claim_with_its_verdict_and_a_link_to_what_decides_it():
    page = claims.page(LEDGER)
    rows = page.split("<tr>")[1:]
    for claim, row in zip(LEDGER, rows, strict=True):
        assert html.escape(claim.says) in row and html.escape(claim.found) in row
        assert f" {claim.verdict}</b>" in row and f'href="{claim.notebook}.ipynb"' in row
    assert claims.score(LEDGER) in page
    assert len({colour for _, colour in claims.SIGNS.values()}) == len(claims.VERDICTS) == len(claims.SIGNS)
    sharp = claims.Claim("a", "1", "<b>", "refuted", "01_x", "c", found="x & y")
    assert "&lt;b&gt;" in claims.page([sharp]) and "x &amp; y" in claims.page([sharp])


ENTRY = '[[claims]]\nid = "a"\nsection = "1"\nsays = "x"\nverdict = "{}"\nnotebook = "n"\ncell = "c"\n'


@pytest.mark.parametrize(
    "text, message",
    [(ENTRY.format("maybe"), "verdict 'maybe' is none of"), (ENTRY.format("open") * 2, "claim a stands twice")],
)
def test_a_wrong_ledger_is_refused(tmp_path, text, message):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        claims.read(tmp_path / "claims.toml")


DECIDED = ENTRY.replace('"x"', '"it is big"\nfigure = "9"\nfound = "7"')


@pytest.mark.parametrize(
    "verdict, found, holds, agrees",
    [
        ("confirmed", "7", dict(literally=True), True),
        ("qualified", "7", dict(literally=False, in_part=True), True),
        ("refuted", "7", dict(literally=False), True),
        ("confirmed", "7", dict(literally=False), False),
        ("refuted", "8", dict(literally=False), False),
        ("refuted", "8", dict(literally=False, noisy=True), True),
        ("not testable here", "7", dict(literally=True, testable=False), True),
        ("confirmed", "7", dict(literally=True, testable=False), False),
    ],
)
def test_a_measurement_decides_and_the_ledger_must_agree(tmp_path, monkeypatch, capsys, verdict, found, holds, agrees):
    monkeypatch.delenv("ZSC_CHECKPOINT", raising=False)
    (tmp_path / "claims.toml").write_text(DECIDED.format(verdict))
    assert claims.decide("a", found, **holds, file=tmp_path / "claims.toml") is agrees
    printed = capsys.readouterr().out
    assert "it is big (9)" in printed and f": {found}" in printed
    assert ("The ledger has" in printed) is not agrees


def test_a_reader_s_own_checkpoint_may_differ_from_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSC_CHECKPOINT", "mine")
    (tmp_path / "claims.toml").write_text(DECIDED.format("refuted"))
    assert claims.decide("a", "8", literally=True, file=tmp_path / "claims.toml")


def test_a_machine_may_have_what_the_ledger_s_lacked(tmp_path, monkeypatch):
    monkeypatch.delenv("ZSC_CHECKPOINT", raising=False)
    (tmp_path / "claims.toml").write_text(DECIDED.format("not testable here"))
    assert claims.decide("a", "8", literally=True, file=tmp_path / "claims.toml")


def test_deciding_a_claim_that_nobody_made_is_an_error():
    with pytest.raises(KeyError, match="claim 'nobody' is not in claims.toml"):
        claims.decide("nobody", "1", literally=True)
