"""The ledger: every claim of the article, its verdict, and the notebook that tests it."""

import html
import os
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from zsc_utils.language import columns, padded, translated

LEDGER = Path(__file__).parent.parent / "claims.toml"
VERDICTS = ("open", "confirmed", "qualified", "refuted", "not testable here")


@dataclass(frozen=True)
class Claim:
    """One claim: `says` is in our words, `figure` is the article's number if it gives one, `rule` says what would
    confirm or qualify it, `found` is what the article's code or words come to, `reached` what is within reach here."""

    id: str
    section: str
    says: str
    rule: str
    verdict: str
    notebook: str
    cell: str
    figure: str = ""
    found: str = ""
    reached: str = ""


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
    rows += [(c.section, c.says, c.figure, c.verdict, c.found, number_of(c)) for c in claims]
    told = [[*map(translated, row)] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*told)]
    lines = ["  ".join(map(padded, row, widths)).rstrip() for row in told]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, score(claims)])


def number_of(claim):
    """The number of the notebook that decides a claim, such as 01 or 01b."""
    return claim.notebook.split("_")[0]


def score(claims: Sequence[Claim]) -> str:
    """A line that says how many claims are decided, with the count of each verdict."""
    counts = Counter(claim.verdict for claim in claims)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[1:] if counts[verdict])
    decided = f"{len(claims) - counts['open']} of {len(claims)} claims decided"
    return translated(f"{decided}: {verdicts}" if verdicts else decided)


# sign and colour of each verdict; the colours can be told apart with colour blindness
SIGNS = {"open": ("?", "#999999"), "confirmed": ("✓", "#0072B2"), "qualified": ("≈", "#E69F00"),
         "refuted": ("✗", "#D55E00"), "not testable here": ("–", "#666666")}  # fmt: skip


def page(claims: Sequence[Claim], bets: Mapping[str, str] | None = None, verdicts: bool = True) -> str:
    """The ledger as an HTML table, verdicts with sign and colour, notebooks as links, and the score below it.

    `bets` are a reader's verdicts by claim id, in a column of their own. Without `verdicts` nothing is given away: the
    table has claims, what the article says, and the notebooks that decide.
    """
    shown = ["§", "claim", "the article says", *(["your bet"] if bets is not None else [])]
    shown += ["verdict", "found", "within reach"] if verdicts else []
    head = "".join(f"<th>{translated(name)}</th>" for name in (*shown, "in"))
    body = "".join(page_row(claim, bets, verdicts) for claim in claims)
    style = 'style="border-collapse:collapse;font-size:90%"'
    below = f"<p>{score(claims)}</p>" if verdicts else ""
    return f'<table {style}><tr style="text-align:left">{head}</tr>{body}</table>{below}'


def page_row(claim, bets, verdicts):
    """One claim as an HTML table row; below what it says stands its rule, or the id to bet on, in grey."""
    below = escaped(claim.rule) if verdicts else f"<code>{claim.id}</code>"
    says = f'{escaped(claim.says)}<br><span style="color:#666666;font-size:85%">{below}</span>'
    cells = [escaped(claim.section), says, escaped(claim.figure)]
    if bets is not None:
        cells.append(signed(bets.get(claim.id, "open")))
    if verdicts:
        cells += [signed(claim.verdict), escaped(claim.found), escaped(claim.reached)]
    cells.append(f'<a href="{claim.notebook}.ipynb">{number_of(claim)}</a>')
    return "<tr>" + "".join(f'<td style="padding:.2em .6em;text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def escaped(text):
    """A text of the ledger as HTML, in the language in use."""
    return html.escape(translated(text))


def signed(verdict):
    """A verdict in bold, with its sign and colour."""
    sign, colour = SIGNS[verdict]
    return f'<b style="color:{colour}">{sign} {translated(verdict)}</b>'


BETTER = ("confirmed", "qualified", "refuted")  # from the best to the worst


def judge(printed: str, measured: float, promise: str = "equal") -> str:
    """The verdict on one number: confirmed, qualified or refuted, by the rule of claims.toml.

    `printed` is the article's number as it stands there, such as "110" or "1-2" (a range). As printed means: `measured`
    rounds to it, or lies in the range. Within a tenth of it, the claim is qualified. A `promise` of "at least" or "at
    most" is kept too by a number that is better.

    >>> judge("110", 102.3), judge("1.8", 2.4, "at least"), judge("1-2", 0.017)
    ('qualified', 'confirmed', 'refuted')
    """
    low, high = (Decimal(part) for part in (printed.split("-") * 2)[:2])
    half = Decimal(1).scaleb(int(low.as_tuple().exponent)) / 2
    below, above = promise != "at most", promise != "at least"  # on which sides a number can be wrong
    for verdict, floor, ceiling in (
        ("confirmed", low - half, high + half),
        ("qualified", low * Decimal("0.9"), high * Decimal("1.1")),
    ):
        if not (below and measured < floor or above and measured > ceiling):
            return verdict
    return "refuted"


def decide(
    claim_id: str,
    found: str,
    *,
    holds: bool | None = None,
    equal: Mapping[str, float] = {},
    at_least: Mapping[str, float] = {},
    at_most: Mapping[str, float] = {},
    in_part: bool = False,
    testable: bool = True,
    noisy: bool = False,
    reached: str = "",
    file: Path = LEDGER,
) -> bool:
    """Print the verdict on a claim from a measurement, and return whether the ledger agrees.

    `found` is the measured result in words. `holds` says whether words are true as they stand. `equal`, `at_least` and
    `at_most` have measured numbers by what is printed, see `judge`. The worst of all decides. What would be refuted
    is qualified if it holds `in_part`, under a condition. It is not `testable` here if something is missing, such as a
    GPU. `reached` is what this collection reaches; it changes no verdict. Both texts must equal the ledger's, unless
    they are `noisy`, that is, different on each machine. Two differences are only printed: with a reader's own
    checkpoint (ZSC_CHECKPOINT), and where the ledger's machine could not test the claim. Raises KeyError for a claim
    that is not in the ledger, and TypeError without anything to judge.
    """
    ledger = {claim.id: claim for claim in read(file)}
    if claim_id not in ledger:
        raise KeyError(f"claim {claim_id!r} is not in {file.name}")
    claim, verdicts = ledger[claim_id], [] if holds is None else ["confirmed" if holds else "refuted"]
    for promise, figures in (("equal", equal), ("at least", at_least), ("at most", at_most)):
        verdicts += [judge(printed, measured, promise) for printed, measured in figures.items()]
    if testable and not verdicts:
        raise TypeError(f"claim {claim_id!r}: nothing to judge; give holds, equal, at_least or at_most")
    verdict = max(verdicts, key=BETTER.index) if testable else "not testable here"
    if verdict == "refuted" and in_part:
        verdict = "qualified"
    show(claim, verdict, found, reached)
    said = [[*map(translated, texts)] for texts in ((found, reached), (claim.found, claim.reached))]  # in one language
    agrees = verdict == claim.verdict and (noisy or said[0] == said[1])
    if not agrees:
        texts = ", ".join(text for text in (claim.found, claim.reached) if text)
        print(translated(f"The ledger has: {claim.verdict}, {texts or 'no figure'}"))
    more_than_the_ledger = testable and claim.verdict == "not testable here"
    return agrees or more_than_the_ledger or "ZSC_CHECKPOINT" in os.environ


def show(claim, verdict, found, reached):
    """Print a claim with its rule, the verdict, and what was found and reached."""
    figure = f" ({claim.figure})" if claim.figure else ""
    print(translated(f"Claim, section {claim.section}: {claim.says}{figure}"))
    print(translated(f"Rule: {claim.rule}"))
    print(translated(f"{verdict.upper()}: {found}"))
    if reached:
        print(translated(f"Within reach: {reached}"))
