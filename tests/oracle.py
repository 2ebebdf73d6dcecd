"""Where ModelScope's small checkpoint and its own answers lie.

Not in conftest.py: notebooks/ has a conftest too, and one run of pytest imports only one module of that name.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
ORACLE = DATA / "oracle" / "checkpoint"
