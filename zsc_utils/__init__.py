"""Zero-shot classification of Chinese text with StructBERT in little memory."""

from zsc_utils import attention, batching, memory, offloading, quantization
from zsc_utils.checkpoint import Checkpoint, CheckpointError, default_name, load
from zsc_utils.classifier import ZeroShotClassifier

__all__ = [
    "Checkpoint", "CheckpointError", "ZeroShotClassifier",
    "attention", "batching", "default_name", "load", "memory", "offloading", "quantization",
]  # fmt: skip
