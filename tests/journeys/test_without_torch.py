"""An environment that holds the lean dependencies only: `pip install .` makes it, and an export runs in it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from oracle import ORACLE

import zsc_utils as zsc

ROOT = Path(__file__).parents[2]
DISK_BYTES = 300_000_000  # an environment with torch takes more than 1 GB

USE = """
import importlib.metadata, importlib.util, json, sys
import zsc_utils as zsc
heavy = [name for name in ("torch", "transformers") if importlib.util.find_spec(name)]
result = zsc.ZeroShotClassifier(sys.argv[1], memory_budget="100MB")("央行下调利率", ["财经", "体育"])
rows = [{"text": "央行下调利率", "label": "财经"}, {"text": "国足客场取胜", "label": "体育"}]
found = zsc.evaluate(rows, text="text", label="label", checkpoint=sys.argv[1])
print(json.dumps([sys.version_info[1], heavy, result, zsc.__file__, found.texts]))
"""


def interpreter(minor):
    """The path of that Python 3, if this machine has one that runs."""
    found = shutil.which(f"python3.{minor}")
    runs = found and subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0
    return found if runs else pytest.skip(f"no Python 3.{minor} here")


def installed(minor, folder):
    """The Python of a new environment with zsc_utils installed as a user does it, from a copy of the source."""
    python, source = interpreter(minor), folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "zsc_utils", source / "zsc_utils", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    found = folder / "venv" / "bin" / "python"
    command = [found, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", source]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("minor", [11, 13])
def test_an_export_runs_where_torch_was_never_installed(minor, tmp_path):
    folder = zsc.export(ORACLE, tmp_path / "export", "int8")
    python = installed(minor, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", USE, folder], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    version, heavy, result, file, evaluated = json.loads(done.stdout)
    assert evaluated == 2
    assert version == minor and heavy == [] and Path(file).is_relative_to(tmp_path)
    expected = zsc.ZeroShotClassifier(folder)("央行下调利率", ["财经", "体育"])
    assert result["labels"] == expected["labels"] and result["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    size = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if not file.is_symlink())
    assert size - sum(file.stat().st_size for file in (tmp_path / "venv").rglob("model.safetensors")) < DISK_BYTES
