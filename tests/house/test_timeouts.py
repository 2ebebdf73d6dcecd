"""A notebook's cell that takes too long fails the run, and hides no other cell."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
STUBBORN = """import time
end = time.time() + 4
while time.time() < end:
    try:
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass"""


@pytest.mark.parametrize("slow", ["import time; time.sleep(60)", STUBBORN], ids=["interrupted", "goes on"])
def test_a_cell_that_times_out_fails_and_later_ones_are_not_run(tmp_path, slow):
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    cells = [
        nbformat.v4.new_code_cell(source, id=f"cell-{i}", execution_count=i + 1)
        for i, source in enumerate(["x = 1", slow, "y = 2", "z = 3"])
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "slow.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    done = subprocess.run([*command, "--nbval-cell-timeout=2", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert re.search(r"1 failed, 1 passed, 2 skipped", done.stdout), done.stdout[-2000:]
    assert done.returncode == 1 and "xfail" not in done.stdout
