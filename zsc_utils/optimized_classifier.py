"""The class that the article promises, working: a thin face of `ZeroShotClassifier`."""

from collections.abc import Sequence
from itertools import islice

import torch

from zsc_utils._text import DEFAULT_TEMPLATE, check_texts, is_per_text, whole_number
from zsc_utils._types import Labels, Name, Result
from zsc_utils.checkpoint import load
from zsc_utils.classifier import ZeroShotClassifier
from zsc_utils.formats import NAMES
from zsc_utils.quantization import check_device, precision_of, quantize


class OptimizedZeroShotClassifier:
    """A classifier by the article's names, in fp16 on a GPU, and on a CPU in int8 if `use_quantization`.

    >>> optimized = OptimizedZeroShotClassifier("mini", use_quantization=True)
    >>> results = optimized.predict(["央行下调利率", "国足赢了"], ["财经", "体育"], batch_size=2)
    >>> [result["labels"][0] for result in results]
    ['财经', '体育']

    `model_path` is a name or a folder as `zsc_utils.load` takes it; `device` "cpu" or "cuda", a GPU if there is one.
    `options`, such as `memory_budget`, are those of `ZeroShotClassifier`, which is there as `classify`. Raises what
    that raises, and ValueError for int8 on a GPU.
    """

    def __init__(
        self, model_path: Name, use_quantization: bool = True, *, device: str | torch.device | None = None, **options
    ):
        try:
            device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except RuntimeError as error:
            raise ValueError(f"device {device!r}: {error}") from error
        if device.type == "cpu":
            precision = {"precision": NAMES[torch.int8]} if use_quantization else {}
            self.classify = ZeroShotClassifier(model_path, **(precision | options))
            return
        checkpoint = load(model_path)
        if precision_of(checkpoint) == NAMES[torch.int8]:
            check_device(device)
        if precision_of(checkpoint) == "fp32":
            checkpoint = quantize(checkpoint, "fp16")
        try:
            checkpoint.model.to(device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"device {device}: {error}") from error
        self.classify = ZeroShotClassifier(checkpoint, **options)

    def __repr__(self):
        return f"OptimizedZeroShotClassifier({self.classify.checkpoint!r})"

    def predict(
        self, texts: str | Sequence[str], labels: Labels, batch_size: int | None = None, **options
    ) -> list[Result]:
        """Classify a text or a list of texts: a list of {"sequence", "labels", "scores"}, best label first.

        `batch_size`: how many texts are taken together; all of them if it is not given, for their pairs are sorted into
        batches under a budget of tokens anyway. `options` are those of a call of `ZeroShotClassifier`, such as
        `hypothesis_template`. Raises ValueError for a batch size that is no whole number over 0, and what that raises.
        """
        if batch_size is not None:
            whole_number("batch_size", batch_size, "give the number of texts to take together")
        texts = check_texts([texts] if isinstance(texts, str) else texts)
        per_text = is_per_text(labels)
        labels = list(islice(labels, len(texts) + 1)) if per_text else labels
        given = iter(labels) if per_text else labels  # all of it is checked before anything is computed
        self.classify.label_sets(
            given, len(texts), options.get("hypothesis_template", DEFAULT_TEMPLATE), options.get("window")
        )
        results, size = [], batch_size or len(texts)
        for part in (slice(start, start + size) for start in range(0, len(texts), size)):
            results += self.classify(texts[part], iter(labels[part]) if per_text else labels, **options)
        return results
