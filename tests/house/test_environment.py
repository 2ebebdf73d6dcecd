"""The two ways in ask for the same things, all of them used; no room imports upward; the style is kept."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WRITTEN = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYPROJECT, PACKAGES = WRITTEN["project"], WRITTEN["tool"]["setuptools"]["packages"]
EXTRAS = PYPROJECT["optional-dependencies"]
WHOLE = "zsc-utils[torch]"  # what extras that need torch begin with
INSTALLED = PYPROJECT["dependencies"] + EXTRAS["torch"] + EXTRAS["scale"] + EXTRAS["notebooks"] + EXTRAS["dev"]
PINS = [pin for pin in INSTALLED if pin != WHOLE]
# where a dependency that is not imported by name is used; escapes keep these words from finding themselves
USED_AS = {"jupyterlab": ("Makefile", "jupyter lab"), "nbval": ("Makefile", "--nbval"),
           "pytest-xdist": ("Makefile", "--numprocesses"),
           "ruff": ("tests/house/test_environment.py", "\"-m\", \"ruff\""),
           "mypy": ("tests/house/test_types.py", "\"-m\", \"mypy\""),
           "pyyaml": ("tests/house/test_environment.py", "import yaml\n"),
           "mini-racer": ("tests/journeys/test_calculator.py", "from py_mini_racer import"),
           "ipywidgets": ("tests/house/test_environment.py", "import tqdm\x2enotebook; assert")}  # fmt: skip
# the house from the ground up: a room imports from lower floors only, so none on its own floor
FLOORS = [
    ["_types", "language"],
    ["_agreement", "_container", "_encodings", "_exports", "_help", "_process", "_products", "_sizes", "_svg", "_text"]
    + ["_weights"],
    ["onnx_graphs", "plots"],
    ["_bert", "_groups", "_tensors", "batching", "onnx_plan", "records"],
    ["_charts_00", "_drawn_layer", "_drawn_process", "_drawn_timeline"],
    ["_labelled", "_results", "_ways", "memory", "onnx_engine"],
    ["_evaluation_table", "_int8"],
    ["formats"],
    ["checkpoint"],
    ["_dispatch", "inference", "distillation"],
    ["quantization", "attention", "offloading"],
    ["onnx_export", "plan"],
    ["torch_engine"],
    ["classifier"],
    ["_checkpoint_commands", "evaluation", "optimized_classifier", "scaling"],
    ["__main__"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# for notebooks and tests: no other room imports them
SIDE = {"samples", "claims", "drawings", "exercises", "_charts_01", "_charts_02", "_charts_07", "_workers_07"}
WITHOUT_TORCH = (
    "_agreement _checkpoint_commands _container _encodings _evaluation_table _exports _groups _help _labelled _process "
    "_results _sizes _text _types _ways batching classifier evaluation exercises exercises.lesson_02 "
    "exercises.lesson_05 language onnx_engine onnx_graphs onnx_plan records scaling "
    "__main__".split()
)


def conda_pins():
    stated = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    return next(entry["pip"] for entry in stated if isinstance(entry, dict)), stated


def test_conda_and_pip_ask_for_the_same():
    pins, stated = conda_pins()
    assert pins == PINS
    assert "python=" + PYPROJECT["requires-python"].removeprefix(">=") in stated


def test_the_pins_fit_together(tmp_path):
    """pip's resolver accepts the pip section, offline: what is pinned is what is installed, and nothing conflicts."""
    listed = tmp_path / "requirements.txt"
    listed.write_text("\n".join(conda_pins()[0]))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-r", listed]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Would install" not in done.stdout, done.stdout + done.stderr


def test_an_extra_that_needs_torch_brings_it():
    assert {name for name, pins in EXTRAS.items() if pins[0] == WHOLE} == {"notebooks", "scale", "bench", "training"}
    assert not any(pin.startswith(("torch", "transformers")) for pin in PYPROJECT["dependencies"])


@pytest.mark.parametrize("pin", PINS)
def test_every_dependency_is_pinned_and_used(pin):
    name, version = re.sub(r"\[.*?\]", "", pin).split("==")
    assert re.fullmatch(r"\d+(\.\d+)+", version)
    if name in USED_AS:
        file, use = USED_AS[name]
        assert use in (ROOT / file).read_text(encoding="utf-8"), f"{name} is not used in {file}"
        return
    sources = [*ROOT.glob("zsc_utils/*.py"), *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("scripts/*.py"),
               *ROOT.glob("tests/**/*.py")]  # fmt: skip
    module = name.replace("-", "_")
    use = rf'(import|from) {module}\b|find_spec\("{module}"\)'
    assert any(re.search(use, file.read_text(encoding="utf-8")) for file in sources), f"{name} is used nowhere"


def our_imports(file):
    """Rooms of zsc_utils that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "zsc_utils":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zsc_utils."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("zsc_utils."))


@pytest.mark.parametrize(
    "file", sorted({*(ROOT / "zsc_utils").glob("*.py")} - {ROOT / "zsc_utils" / "__init__.py"}), ids=lambda f: f.stem
)
def test_no_stairs_upward(file):
    assert file.stem in FLOOR or file.stem in SIDE, f"{file.stem} stands on no floor"
    for room in our_imports(file):
        assert room not in SIDE and FLOOR[room] < FLOOR.get(file.stem, 99), f"{file.stem} imports {room}"


@pytest.mark.parametrize("file", sorted((ROOT / "zsc_utils").glob("*/*.py")), ids=lambda f: f.stem)
def test_a_side_room_of_several_files_imports_no_other_but_the_ledger(file):
    assert file.parent.name in SIDE
    assert set(our_imports(file)) & SIDE <= {file.parent.name, "claims"}


def test_no_room_is_longer_than_500_lines():
    lengths = {file.stem: len(file.read_text("utf-8").splitlines()) for file in (ROOT / "zsc_utils").rglob("*.py")}
    assert not {room: length for room, length in lengths.items() if length > 500}


@pytest.mark.parametrize("rooms, heavy", [("", "torch transformers numpy"), (WITHOUT_TORCH, "torch transformers")])
def test_what_needs_no_torch_does_not_load_it(rooms, heavy):
    imports = ", ".join(["zsc_utils", *(f"zsc_utils.{room}" for room in rooms)])
    script = f"import sys, {imports}; print(*sorted({{*{heavy.split()}}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


CHANGES = """
import importlib, logging, os, signal, sys, warnings
import torch, transformers.models.bert.modeling_bert, matplotlib.pyplot
from matplotlib import font_manager

def state():
    return {
        "environment": {k: v for k, v in os.environ.items() if k not in ("MKL_DISABLE_FAST_MM", "OMP_NUM_THREADS")},
        "fonts": len(font_manager.fontManager.ttflist), "filters": list(warnings.filters), "path": list(sys.path),
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], "threads": torch.get_num_threads(),
        "logging": (logging.root.level, list(logging.root.handlers), transformers.logging.get_verbosity()),
        "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled(), "directory": os.getcwd(),
    }

before = state()
for room in sys.argv[1:]:
    importlib.import_module(f"zsc_utils.{room}")
after = state()
print(*(what for what in before if before[what] != after[what]))
"""


def test_importing_a_room_changes_nothing_outside():
    """But for two variables that torch reads when it is imported, and attention's name in transformers' registry."""
    rooms = [file.stem for file in (ROOT / "zsc_utils").glob("*.py") if file.stem not in ("__init__", "__main__")]
    rooms += [f"exercises.{file.stem}" for file in (ROOT / "zsc_utils" / "exercises").glob("[!_]*.py")]
    done = subprocess.run([sys.executable, "-c", CHANGES, *rooms], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_each_public_name_is_found_where_it_lives():
    import zsc_utils

    assert {"Checkpoint", "load", "memory", "plan"} <= set(dir(zsc_utils))
    for name in (*zsc_utils.__all__, *zsc_utils.HOMES, *zsc_utils.ROOMS):
        assert getattr(zsc_utils, name) is not None
    files = {file.stem for file in (ROOT / "zsc_utils").glob("[!_]*.py")}
    packages = {file.parent.name for file in (ROOT / "zsc_utils").glob("*/__init__.py")}
    assert set(zsc_utils.ROOMS) == files | packages
    assert {f"zsc_utils.{name}" for name in packages} == {*PACKAGES} - {"zsc_utils"}
    with pytest.raises(AttributeError, match="no attribute 'none_such'"):
        _ = zsc_utils.none_such


def test_the_command_of_a_shell_is_the_module_s():
    module, _, name = PYPROJECT["scripts"]["zsc"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    told = subprocess.run([Path(sys.executable).parent / "zsc", "plan", "--checkpoint", "mini"], capture_output=True)
    assert told.returncode == 0 and told.stdout.startswith(b"mini, no budget")


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]])
def test_style(check):
    command = [sys.executable, "-m", "ruff", *check, "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_absolute_path_in_the_project():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, listed):
        if name.endswith((".py", ".md", ".toml", ".yml", "Makefile", ".json", ".jsonl")) and (ROOT / name).is_file():
            found = re.findall(r"/(?:home|root|Users|work)/[\w.-]+", (ROOT / name).read_text(encoding="utf-8"))
            assert name == "tests/house/test_environment.py" or not found, f"{name}: {found[:3]}"


def test_progress_bars_of_other_libraries_work_in_notebooks():
    """tqdm.auto, which transformers and modelscope use, takes tqdm.notebook without a warning: ipywidgets is there."""
    code = "import warnings; warnings.simplefilter('error'); import tqdm.notebook; assert tqdm.notebook.IProgress"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def make(folder, *words):
    """What make would do, without doing it."""
    return subprocess.run(["make", "-n", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["run", "test", "lab"])
def test_each_target_sets_up_when_the_environment_is_missing_or_stale(tmp_path, target):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    first = make(tmp_path, target)
    assert (
        first.index("-m venv")
        < first.index(f"install --disable-pip-version-check {EXTRAS['torch'][0]}")
        < first.index("-e '.[")
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()
    assert "pip" not in make(tmp_path, target)
    later = (tmp_path / ".venv" / "ready").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert "pip" in make(tmp_path, target)


def test_continuous_integration_runs_the_readme_s_command():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
