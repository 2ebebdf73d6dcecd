"""The class that the article describes, as a thin wrapper around `ZeroShotClassifier`."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import torch

from zsc_utils._text import DEFAULT_TEMPLATE, check_texts, is_per_text, whole_number
from zsc_utils._types import Labels, Name, Result
from zsc_utils.checkpoint import load
from zsc_utils.classifier import ZeroShotClassifier
from zsc_utils.formats import NAMES
from zsc_utils.quantization import check_device, precision_of, quantize


class OptimizedZeroShotClassifier:
    """A classifier with the article's names: fp32 becomes fp16 on a GPU, or int8 on a CPU with `use_quantization`.

    >>> optimized = OptimizedZeroShotClassifier("mini", use_quantization=True)
    >>> results = optimized.predict(["央行下调利率", "国足赢了"], ["财经", "体育"], batch_size=2)
    >>> [result["labels"][0] for result in results]
    ['财经', '体育']

    `model_path` is a name or a folder as for `zsc_utils.load`. `device` is "cpu" or "cuda" (default: a GPU if there is
    one). `options`, such as `memory_budget`, go to `ZeroShotClassifier`; that object is the attribute `classify`.
    Raises what `ZeroShotClassifier` raises, and ValueError for int8 on a GPU or a device that does not exist.
    """

    def __init__(
        self, model_path: Name, use_quantization: bool = True, *, device: str | torch.device | None = None, **options
    ):
        try:
            where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except RuntimeError as error:
            raise ValueError(f"device {device!r}: {error}") from error
        if where.type == "cpu":
            precision = {"precision": NAMES[torch.int8]} if use_quantization else {}
            self.classify = ZeroShotClassifier(model_path, **(precision | options))
            return
        checkpoint = load(model_path)
        if precision_of(checkpoint) == NAMES[torch.int8]:
            check_device(where)
        if precision_of(checkpoint) == "fp32":
            checkpoint = quantize(checkpoint, "fp16")
        try:
            checkpoint.model.to(where)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"device {where}: {error}") from error
        self.classify = ZeroShotClassifier(checkpoint, **options)

    def __repr__(self):
        return f"OptimizedZeroShotClassifier({self.classify.checkpoint!r})"

    def predict(
        self, texts: str | Sequence[str], labels: Labels, batch_size: int | None = None, **options
    ) -> list[Result]:
        """Classify a text or a list of texts: a list of {"sequence", "labels", "scores"}, best label first.

        `batch_size` is the number of texts passed to the classifier at a time (default: all). The model's batches are
        made by token count in any case. `options`, such as `hypothesis_template`, go to the call of
        `ZeroShotClassifier`. Raises what that call raises, and ValueError if `batch_size` is not a whole number over 0.
        """
        if batch_size is not None:
            whole_number("batch_size", batch_size, "give the number of texts to take together")
        texts = check_texts([texts] if isinstance(texts, str) else texts)
        own: Any = list(islice(labels, len(texts) + 1)) if is_per_text(labels) else None
        self.classify.label_sets(  # all labels are checked before any computation
            labels if own is None else iter(own), len(texts),
            options.get("hypothesis_template", DEFAULT_TEMPLATE), options.get("window"),
        )  # fmt: skip
        results: list[Result] = []
        size = batch_size or max(1, len(texts))
        for start in range(0, len(texts), size):
            part = slice(start, start + size)
            found = self.classify(texts[part], labels if own is None else iter(own[part]), **options)
            results += cast(list[Result], found)  # of a list of texts
        return results
