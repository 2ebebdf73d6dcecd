"""Zero-shot classification of Chinese text with StructBERT in little memory."""

from zsc_utils import _process  # noqa: F401  first, for what must be set before torch is imported

# isort: split
from zsc_utils import attention, batching, memory, offloading, quantization
from zsc_utils.checkpoint import Checkpoint, CheckpointError, default_name, load
from zsc_utils.classifier import ZeroShotClassifier
from zsc_utils.optimized_classifier import OptimizedZeroShotClassifier

__all__ = [
    "Checkpoint", "CheckpointError", "OptimizedZeroShotClassifier", "ZeroShotClassifier",
    "attention", "batching", "default_name", "load", "memory", "offloading", "quantization",
]  # fmt: skip
