"""The ledger is whole: every claim has one place that decides it, and its file cannot go wrong unseen."""

import html
import re
from collections import Counter
from pathlib import Path

import ledger
import nbformat
import pytest

from zsc_utils import claims

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LEDGER = claims.read()


def test_the_article_s_sections_are_all_there():
    counts = Counter(claim.section for claim in LEDGER)
    assert counts == {"1": 2, "2.2": 7, "2.3": 4, "3.1": 3, "3.2": 2, "4.1": 3, "4.2": 2, "5.1": 3, "5.2": 1, "6": 2,
                      "7": 5}  # fmt: skip


def test_each_claim_has_a_rule_of_its_own_words():
    assert all(claim.rule.endswith(".") and len(claim.rule) > 30 for claim in LEDGER)


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


def test_the_ledger_says_what_the_saved_lessons_say():
    said = {claim: found for _, cell in cells() for claim, found in ledger.figures(cell).items()}
    assert len(said) == len(LEDGER)
    for claim in LEDGER:
        assert {"found": claim.found, "reached": claim.reached} == {"reached": ""} | said[claim.id], claim.id


def test_what_a_cell_found_is_kept_in_the_ledger(tmp_path):
    """Only in its own claim, with a quote in it, and no verdict is touched."""
    cell = nbformat.v4.new_code_cell('assert claims.decide(\n    "several-gigabytes", found)')
    cell.outputs = [nbformat.v4.new_output("stream", text='Rule: x.\nREFUTED: 5" of 0.9 GB\nWithin reach: none\n')]
    file = tmp_path / "claims.toml"
    file.write_text(claims.LEDGER.read_text("utf-8"), "utf-8")
    ledger.keep(cell, file)
    before, after = ({claim.id: claim for claim in claims.read(each)} for each in (claims.LEDGER, file))
    changed = [name for name, claim in after.items() if claim != before[name]]
    assert changed == ["several-gigabytes"] and after["several-gigabytes"].found == '5" of 0.9 GB'
    ledger.keep(nbformat.v4.new_code_cell("1 + 1"), file)
    cell.source = cell.source.replace("several-gigabytes", "no-such-claim")
    with pytest.raises(KeyError, match="no-such-claim"):
        ledger.keep(cell, file)


# cells that say what the verdicts mean, where readers bet, and an exercise on the rule
RULES = [
    "what-the-curve-hides", "ledger-bets", "verdicts-explained", "the-table-again", "draw-score",
    "exercise-verdict", "try-verdict", "solution-verdict",
]  # fmt: skip


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
    decided = [
        claims.Claim("a", "1", "x", "r", "refuted", "n", "c"),
        claims.Claim("b", "1", "y", "r", "open", "n", "d"),
    ]
    assert claims.table(decided).endswith("1 of 2 claims decided: 1 refuted")


def test_the_page_has_every_claim_with_its_verdict_and_a_link_to_what_decides_it():
    page = claims.page(LEDGER)
    rows = page.split("<tr>")[1:]
    for claim, row in zip(LEDGER, rows, strict=True):
        assert html.escape(claim.says) in row and html.escape(claim.found) in row
        assert f" {claim.verdict}</b>" in row and f'href="{claim.notebook}.ipynb"' in row
    assert claims.score(LEDGER) in page
    assert len({colour for _, colour in claims.SIGNS.values()}) == len(claims.VERDICTS) == len(claims.SIGNS)
    sharp = claims.Claim("a", "1", "<b>", "r < s", "refuted", "01_x", "c", found="x & y")
    assert all(text in claims.page([sharp]) for text in ("&lt;b&gt;", "x &amp; y", "r &lt; s"))


def test_a_page_of_bets_gives_nothing_away():
    page = claims.page(LEDGER, bets={"parameter-count": "confirmed"}, verdicts=False)
    assert all(html.escape(claim.says) in page and html.escape(claim.rule) not in page for claim in LEDGER)
    assert all(f"<code>{claim.id}</code>" in page for claim in LEDGER)
    assert page.count("confirmed") == 1 and "refuted" not in page and "decided" not in page
    assert "your bet" in page and "your bet" not in claims.page(LEDGER)


@pytest.mark.parametrize(
    "printed, measured, promise, verdict",
    [
        ("110", 110.4, "equal", "confirmed"),
        ("110", 110.6, "equal", "qualified"),
        ("110", 99.1, "equal", "qualified"),
        ("110", 98.9, "equal", "refuted"),
        ("110", 121.1, "equal", "refuted"),
        ("1.8", 1.76, "equal", "confirmed"),
        ("1.8", 1.74, "equal", "qualified"),
        ("1-2", 1.5, "equal", "confirmed"),
        ("1-2", 2.6, "equal", "refuted"),
        ("1.8", 9.0, "at least", "confirmed"),
        ("1.8", 1.63, "at least", "qualified"),
        ("1.8", 1.61, "at least", "refuted"),
        ("28", 5.0, "at most", "confirmed"),
        ("28", 30.0, "at most", "qualified"),
        ("28", 31.0, "at most", "refuted"),
    ],
)
def test_one_rule_judges_every_number(printed, measured, promise, verdict):
    assert claims.judge(printed, measured, promise) == verdict


ENTRY = '[[claims]]\nid = "a"\nsection = "1"\nsays = "x"\nrule = "r"\nverdict = "{}"\nnotebook = "n"\ncell = "c"\n'


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
        ("confirmed", "7", dict(holds=True), True),
        ("qualified", "7", dict(holds=False, in_part=True), True),
        ("confirmed", "7", dict(holds=True, in_part=True), True),
        ("refuted", "7", dict(holds=False), True),
        ("confirmed", "7", dict(holds=False), False),
        ("refuted", "8", dict(holds=False), False),
        ("refuted", "7", dict(holds=False, reached="5"), False),
        ("refuted", "8", dict(holds=False, reached="5", noisy=True), True),
        ("not testable here", "7", dict(holds=True, testable=False), True),
        ("not testable here", "7", dict(testable=False), True),
        ("confirmed", "7", dict(holds=True, testable=False), False),
        ("confirmed", "7", dict(equal={"9": 9.2}, at_least={"3": 4}, at_most={"28": 8}), True),
        ("qualified", "7", dict(equal={"9": 9.2}, at_least={"3.0": 2.8}), True),
        ("refuted", "7", dict(equal={"9": 9.2}, at_most={"28": 80}), True),
        ("refuted", "7", dict(holds=False, equal={"9": 9.2}), True),
        ("qualified", "7", dict(at_most={"28": 80}, in_part=True), True),
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
    assert claims.decide("a", "8", holds=True, file=tmp_path / "claims.toml")


def test_a_machine_may_have_what_the_ledger_s_lacked(tmp_path, monkeypatch):
    monkeypatch.delenv("ZSC_CHECKPOINT", raising=False)
    (tmp_path / "claims.toml").write_text(DECIDED.format("not testable here"))
    assert claims.decide("a", "8", holds=True, file=tmp_path / "claims.toml")


def test_deciding_a_claim_that_nobody_made_is_an_error():
    with pytest.raises(KeyError, match="claim 'nobody' is not in claims.toml"):
        claims.decide("nobody", "1", holds=True)


def test_a_verdict_needs_something_to_judge(tmp_path):
    (tmp_path / "claims.toml").write_text(DECIDED.format("refuted"))
    with pytest.raises(TypeError, match="claim 'a': nothing to judge"):
        claims.decide("a", "7", file=tmp_path / "claims.toml")
