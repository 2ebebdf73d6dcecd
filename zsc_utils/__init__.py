"""Zero-shot classification of Chinese text with StructBERT in little memory."""

from zsc_utils import memory, quantization
from zsc_utils.checkpoint import Checkpoint, CheckpointError, default_name, load
from zsc_utils.classifier import ZeroShotClassifier

__all__ = ["Checkpoint", "CheckpointError", "ZeroShotClassifier", "default_name", "load", "memory", "quantization"]
