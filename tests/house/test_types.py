"""The package is typed: mypy finds nothing, and what people call says what it takes and what it returns."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import zsc_utils as zsc
from zsc_utils import claims, drawings, evaluation, exercises, plan, plots, samples, scaling

ROOT = Path(__file__).parents[2]
PICTURES = ("layer", "meters", "lanes", "tiles", "bits", "packing", "timeline_slider", "growing", "import_tree")
ROOMS = [zsc.attention, zsc.memory, zsc.offloading, zsc.quantization]
CALLED = [
    zsc.load, zsc.default_name, zsc.batching.token_budget_batches, zsc.batching.padding, zsc.batching.bucket, plan.make,
    scaling.classify_dataset, samples.test_set, samples.long_texts, samples.topics, claims.read, claims.decide,
    claims.table, claims.judge, plots.score_bars, plots.stacked_bytes, plots.frontier,
    plots.confusion_matrix, plots.suffixes, zsc.evaluate, evaluation.check_chart, evaluation.Report.threshold_for,
    *(getattr(zsc.Evaluation, name) for name in ("report", "threshold_for", "plot", "save_chart")),
    *(getattr(room, name) for room in ROOMS for name in room.__all__),
    *(getattr(exercises, name) for name in exercises.__all__), *(getattr(drawings, name) for name in PICTURES),
    *(getattr(kind, name) for kind in (zsc.ZeroShotClassifier, zsc.OptimizedZeroShotClassifier)
      for name in ("__init__", "__call__", "stream", "answers", "logits", "predict") if name in vars(kind)),
]  # fmt: skip


def mypy(*files):
    return subprocess.run([sys.executable, "-m", "mypy", *files], cwd=ROOT, capture_output=True, text=True)


def test_the_type_checker_finds_nothing():
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_type_checker_would_find_a_wrong_use_of_the_package(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("import zsc_utils.memory\nsize: str = zsc_utils.memory.format_size('1MB')\n")
    done = mypy("zsc_utils", file)
    assert done.returncode == 1 and 'has incompatible type "str"; expected "int"' in done.stdout, done.stdout


@pytest.mark.parametrize("called", [c for c in CALLED if inspect.isfunction(c)], ids=lambda c: c.__qualname__)
def test_what_people_call_is_annotated(called):
    signature = inspect.signature(called)
    bare = [
        name for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name != "self"
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]  # fmt: skip
    assert not bare
    assert called.__name__ == "__init__" or signature.return_annotation is not signature.empty
