"""Where ModelScope's small checkpoint and its own answers lie."""

from pathlib import Path

HELPERS = Path(__file__).parent
DATA = Path(__file__).parents[1] / "data"
ORACLE = DATA / "oracle" / "checkpoint"
