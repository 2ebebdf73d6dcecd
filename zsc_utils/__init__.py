"""Zero-shot classification of Chinese text with StructBERT in little memory.

Importing it loads no torch: names are looked up in their rooms when they are first used (PEP 562).
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

from zsc_utils import _process  # noqa: F401  now, for MKL's setting must be made before torch is imported
from zsc_utils._container import follow_cpu_quota

follow_cpu_quota()  # before torch is imported too
if os.environ.get("ZSC_LANGUAGE"):
    import_module("zsc_utils.language")  # now, for a notebook shows errors in that language

if TYPE_CHECKING:
    from zsc_utils._text import default_name
    from zsc_utils.checkpoint import Checkpoint, CheckpointError, load
    from zsc_utils.classifier import ZeroShotClassifier
    from zsc_utils.evaluation import Evaluation, evaluate
    from zsc_utils.onnx_export import export
    from zsc_utils.optimized_classifier import OptimizedZeroShotClassifier

HOMES = {
    "Checkpoint": "checkpoint", "CheckpointError": "checkpoint", "default_name": "_text", "load": "checkpoint",
    "Evaluation": "evaluation", "evaluate": "evaluation", "export": "onnx_export",
    "ZeroShotClassifier": "classifier", "OptimizedZeroShotClassifier": "optimized_classifier",
}  # fmt: skip
ROOMS = (
    "attention", "batching", "checkpoint", "claims", "classifier", "distillation", "drawings", "evaluation",
    "exercises", "formats", "inference", "language", "memory", "offloading", "onnx_engine", "onnx_export",
    "onnx_graphs", "onnx_plan", "optimized_classifier", "plan", "plots", "quantization", "records", "samples",
    "scaling", "torch_engine",
)  # fmt: skip

__all__ = [
    "Checkpoint", "CheckpointError", "Evaluation", "OptimizedZeroShotClassifier", "ZeroShotClassifier",
    "attention", "batching", "default_name", "evaluate", "export", "load", "memory", "offloading", "quantization",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in ROOMS and name not in HOMES:
        raise AttributeError(f"module 'zsc_utils' has no attribute {name!r}")
    try:
        room = import_module(f"zsc_utils.{HOMES.get(name, name)}")
    except ModuleNotFoundError as error:
        if (error.name or "zsc_utils").startswith("zsc_utils"):
            raise
        raise ModuleNotFoundError(
            f"zsc_utils.{name} needs {error.name}, which is not installed: pip install 'zsc-utils[torch]'. Without it, "
            "ZeroShotClassifier runs folders that zsc_utils.export has written",
            name=error.name,
        ) from error
    return getattr(room, name) if name in HOMES else room


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, *ROOMS})
