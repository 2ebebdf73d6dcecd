"""The ledger: every claim of the article, its verdict, and the notebook that tests it."""

import html
import os
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LEDGER = Path(__file__).parent.parent / "claims.toml"
VERDICTS = ("open", "confirmed", "qualified", "refuted", "not testable here")


@dataclass(frozen=True)
class Claim:
    """One claim: `says` is in our words, `figure` is the article's number if it gives one, `found` is our result."""

    id: str
    section: str
    says: str
    verdict: str
    notebook: str
    cell: str
    figure: str = ""
    found: str = ""


def read(file: Path = LEDGER) -> list[Claim]:
    """All claims, in the article's order. Raises ValueError for an unknown verdict or a repeated id, and
    FileNotFoundError outside a checkout of the project, whose root folder holds the ledger."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: the ledger is in the project's checkout, not in the installed package")
    claims = [Claim(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["claims"]]
    for number, claim in enumerate(claims):
        if claim.verdict not in VERDICTS:
            raise ValueError(f"claim {claim.id}: verdict {claim.verdict!r} is none of {', '.join(VERDICTS)}")
        if claim.id in [other.id for other in claims[:number]]:
            raise ValueError(f"claim {claim.id} stands twice in {file.name}")
    return claims


def table(claims: Sequence[Claim]) -> str:
    """The claims as a text table: section, claim, the article's figure, verdict, what we found, and notebook."""
    rows = [("§", "claim", "the article says", "verdict", "found", "in")]
    rows += [(c.section, c.says, c.figure, c.verdict, c.found, c.notebook[:2]) for c in claims]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, score(claims)])


def score(claims: Sequence[Claim]) -> str:
    """A line that says how many claims are decided, with the count of each verdict."""
    counts = Counter(claim.verdict for claim in claims)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[1:] if counts[verdict])
    decided = f"{len(claims) - counts['open']} of {len(claims)} claims decided"
    return f"{decided}: {verdicts}" if verdicts else decided


# sign and colour of each verdict; the colours can be told apart with colour blindness
SIGNS = {"open": ("?", "#999999"), "confirmed": ("✓", "#0072B2"), "qualified": ("≈", "#E69F00"),
         "refuted": ("✗", "#D55E00"), "not testable here": ("–", "#666666")}  # fmt: skip


def page(claims: Sequence[Claim]) -> str:
    """The ledger as an HTML table, verdicts with sign and colour, notebooks as links, and the score below it."""
    head = "".join(f"<th>{name}</th>" for name in ("§", "claim", "the article says", "verdict", "found", "in"))
    body = "".join(page_row(claim) for claim in claims)
    style = 'style="border-collapse:collapse;font-size:90%"'
    return f'<table {style}><tr style="text-align:left">{head}</tr>{body}</table><p>{score(claims)}</p>'


def page_row(claim):
    """One claim as an HTML table row."""
    sign, colour = SIGNS[claim.verdict]
    verdict = f'<b style="color:{colour};white-space:nowrap">{sign} {claim.verdict}</b>'
    link = f'<a href="{claim.notebook}.ipynb">{claim.notebook[:2]}</a>'
    told = [html.escape(text) for text in (claim.section, claim.says, claim.figure)]
    cells = [*told, verdict, html.escape(claim.found), link]
    return "<tr>" + "".join(f'<td style="padding:.2em .6em;text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def decide(
    claim_id: str,
    found: str,
    *,
    literally: bool = False,
    in_part: bool = False,
    testable: bool = True,
    noisy: bool = False,
    file: Path = LEDGER,
) -> bool:
    """Print the verdict on a claim from a measurement, and return whether the ledger agrees.

    `found` is the measured result in words. The claim is confirmed if it holds `literally`, qualified if it holds
    `in_part`, else refuted. It is not `testable` here if something is missing, such as a GPU. `found` must equal the
    ledger's text, unless it is `noisy`, that is, different on each machine. Two differences are only
    printed: with a reader's own checkpoint (ZSC_CHECKPOINT), and where the ledger's machine could not test the claim.
    Raises KeyError for a claim that is not in the ledger.
    """
    ledger = {claim.id: claim for claim in read(file)}
    if claim_id not in ledger:
        raise KeyError(f"claim {claim_id!r} is not in {file.name}")
    claim = ledger[claim_id]
    verdict = "confirmed" if literally else "qualified" if in_part else "refuted"
    if not testable:
        verdict = "not testable here"
    figure = f" ({claim.figure})" if claim.figure else ""
    print(f"Claim, section {claim.section}: {claim.says}{figure}\n{verdict.upper()}: {found}")
    agrees = verdict == claim.verdict and (noisy or found == claim.found)
    if not agrees:
        print(f"The ledger has: {claim.verdict}, {claim.found or 'no figure'}")
    more_than_the_ledger = testable and claim.verdict == "not testable here"
    return agrees or more_than_the_ledger or "ZSC_CHECKPOINT" in os.environ
