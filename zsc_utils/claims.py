"""The ledger: every claim of the article, where it is decided, and how."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

LEDGER = Path(__file__).parent.parent / "claims.toml"
VERDICTS = ("open", "confirmed", "qualified", "refuted", "not testable here")


@dataclass(frozen=True)
class Claim:
    """One claim; `says` is in our words, `figure` the article's number where it gives one."""

    id: str
    section: str
    says: str
    verdict: str
    notebook: str
    cell: str
    figure: str = ""


def read(file=LEDGER):
    """All claims in the article's order; raises ValueError for an unknown verdict or an id given twice."""
    claims = [Claim(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["claims"]]
    for number, claim in enumerate(claims):
        if claim.verdict not in VERDICTS:
            raise ValueError(f"claim {claim.id}: verdict {claim.verdict!r} is none of {', '.join(VERDICTS)}")
        if claim.id in [other.id for other in claims[:number]]:
            raise ValueError(f"claim {claim.id} stands twice in {file.name}")
    return claims


def table(claims):
    """The claims as lines of text: section, claim, the article's figure, verdict, number of the deciding notebook."""
    rows = [("§", "claim", "the article says", "verdict", "in")]
    rows += [(c.section, c.says, c.figure, c.verdict, c.notebook[:2]) for c in claims]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    decided = sum(c.verdict != "open" for c in claims)
    return "\n".join([*lines, f"{decided} of {len(claims)} claims decided"])
