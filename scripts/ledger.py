"""Keep what the deciding cells found in the ledger: claims.toml says what the saved lessons say.

`make save` calls `keep` after each cell. Verdicts are written by hand; only `found` and `reached` are changed here.
"""

import re
from pathlib import Path

LEDGER = Path(__file__).parent.parent / "claims.toml"
DECIDES = re.compile(r"\bclaims\.decide\(\s*\"([\w-]+)\"")
FOUND = re.compile(r"^(?:CONFIRMED|QUALIFIED|REFUTED|NOT TESTABLE HERE): (.*)$", re.MULTILINE)
REACHED = re.compile(r"^Within reach: (.*)$", re.MULTILINE)


def figures(cell) -> dict[str, dict[str, str]]:
    """{claim: {"found": what its cell printed, "reached": the same}} of an executed cell; {} if it decides nothing."""
    decided = DECIDES.findall(cell.source) if cell.cell_type == "code" else []
    printed = "".join(out.get("text", "") for out in cell.outputs) if decided else ""
    if len(decided) != 1 or not (found := FOUND.search(printed)):
        return {}
    reached = REACHED.search(printed)
    return {decided[0]: {"found": found[1]} | ({"reached": reached[1]} if reached else {})}


def keep(cell, file: Path = LEDGER) -> None:
    """Put what an executed cell found into the ledger. Nothing changes if the cell decides no claim."""
    text = file.read_text(encoding="utf-8")
    changed = text
    for claim, values in figures(cell).items():
        entry = re.search(rf'^id = "{claim}"\n(?:.+\n)*', changed, re.MULTILINE)
        if entry is None:
            raise KeyError(f"claim {claim!r} is not in {file.name}")
        lines = entry[0].splitlines()
        lines = [
            f"{key} = {quoted(values[key])}" if (key := line.split(" = ")[0]) in values else line for line in lines
        ]
        changed = changed.replace(entry[0], "\n".join(lines) + "\n")
    if changed != text:
        file.write_text(changed, encoding="utf-8")


def quoted(text: str) -> str:
    """A TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
