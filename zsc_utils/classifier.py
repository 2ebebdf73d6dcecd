"""The zero-shot classifier: texts x labels -> pairs -> batches -> logits -> scores -> results.

It replaces the zero-shot pipeline of transformers: same calls, results of the same form. The text is the premise. Each
label, put into the template, is a hypothesis. The label's score says how strongly the text entails the hypothesis.
"""

import copy
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from zsc_utils._exports import is_export
from zsc_utils._groups import LabelSet, check_groups, in_two_passes, is_grouped
from zsc_utils._text import (
    DEFAULT_TEMPLATE,
    Row,
    check_template,
    check_text,
    check_texts,
    fill,
    is_per_text,
    read_labels,
    whole_number,
)  # fmt: skip
from zsc_utils._types import Attention, Failure, Labels, LongTexts, Name, Precision, Result, Size
from zsc_utils.batching import Engine, Pairs, PairTokenizer, TokenBudget, run, windows
from zsc_utils.language import several, translated

if TYPE_CHECKING:
    from zsc_utils.checkpoint import Checkpoint
    from zsc_utils.plan import Plan

LONG_TEXTS = {"cut": None, "max": np.max, "mean": np.mean}  # how the scores of a long text's windows are combined
# limits of a block, whose pairs are sorted into batches together: pairs, texts, and texts that are read in windows
BLOCK_PAIRS, BLOCK_TEXTS, BLOCK_LONG_TEXTS = 512, 64, 8
LABELS_EACH = 16  # assumed labels per text, if each text has its own labels


@dataclass
class Reading:
    """How scores are computed from logits. `long_texts` is a key of LONG_TEXTS. `window` is in tokens; None means the
    model's maximum length. `reject` is the least entailment of the best label of a text that is not rejected. `told`
    is True after the warning that a text was cut."""

    multi_label: bool
    long_texts: str
    window: int | None
    reject: float | None = None
    told: bool = False

    def __post_init__(self):
        if self.reject is not None and (isinstance(self.reject, bool | str) or not 0 <= self.reject <= 1):
            raise ValueError(f"reject {self.reject!r}: give the least entailment of the best label, from 0 to 1")
        if self.long_texts not in LONG_TEXTS:
            raise ValueError(f"long_texts {self.long_texts!r}: choose one of {', '.join(LONG_TEXTS)}")
        if self.window is not None and (type(self.window) is not int or self.window < 1 or self.long_texts == "cut"):
            raise ValueError(
                f"window {self.window!r}: give tokens, 1 or more, and long_texts='max' or 'mean' with them"
            )


class ZeroShotClassifier:
    """Classify Chinese texts with labels that are given at call time.

    >>> classify = ZeroShotClassifier("mini")
    >>> classify("央行下调利率", ["财经", "体育"])["labels"]
    ['财经', '体育']

    `checkpoint` is a Checkpoint or a name for `zsc_utils.load`. It runs on the device of the checkpoint's model.

    Three memory settings (levers) can be set by hand: `precision` ("fp32", "bf16", "fp16", "int8"), `attention`
    ("sdpa", "eager", "sliding") and `offload`. With `offload=True`, layers stay in their file and are read when they
    compute; False forbids this. A setting that is None changes only if a memory budget needs it.

    `memory_budget` limits how much the memory of the process grows, loading included: "300MB", a number of bytes, or
    "container", which is what the container's limit leaves to this process. Anonymous and file-backed memory both
    count. `plan` shows the chosen settings and the predicted and measured memory. int8 changes scores, so it is used
    only if set by hand or with `allow_lossy`. A budget changes the malloc settings of glibc for the whole process, and
    they stay changed. A budget that is too small raises ValueError, which names the smallest budget that works. The
    budget does not cover downloading or converting the checkpoint, nor the caller's own texts and results.

    `max_tokens` is the maximum number of tokens in a batch (default: 1,024 on a CPU). It changes memory use, not
    scores. If memory runs out, it is lowered and the work continues.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint | Name" = "mini",
        *,
        precision: Precision | None = None,
        attention: Attention | None = None,
        offload: bool | None = None,
        memory_budget: Size | None = None,
        allow_lossy: bool = False,
        max_tokens: int | None = None,
    ):
        if max_tokens is not None:
            whole_number("max_tokens", max_tokens, "give the number of tokens in a batch")
        self.process = os.getpid()
        self.engine = engine_for(
            checkpoint, precision=precision, attention=attention, offload=offload,
            memory_budget=memory_budget, allow_lossy=allow_lossy, max_tokens=max_tokens,
        )  # fmt: skip

    @property
    def checkpoint(self) -> "Checkpoint":
        """The Checkpoint that computes, with all settings applied."""
        return self.engine.checkpoint

    @property
    def plan(self) -> "Plan | None":
        """The chosen settings and their predicted memory; None on a GPU."""
        return self.engine.plan

    @property
    def budget(self) -> TokenBudget:
        """The current maximum number of tokens in a batch and in a block of batches."""
        return self.engine.budget

    def __setstate__(self, state):
        self.__dict__.update(state, process=os.getpid())  # it was carried to another process, not forked

    def __repr__(self):
        return f"ZeroShotClassifier({self.checkpoint!r}, max_tokens={self.budget.max_tokens})"

    def __call__(
        self,
        sequences: str | Sequence[str] | Iterator[str],
        candidate_labels: Labels,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        *,
        long_texts: LongTexts = "cut",
        window: int | None = None,
        reject: float | None = None,
        progress: bool = False,
        batch_size: int | None = None,
        truncation: bool | str | None = None,
        num_workers: int | None = None,
    ) -> Result | list[Result] | Iterator[Result]:
        """Score every label for every text.

        `sequences` is a text, or a list, tuple, array, column or Series of texts, or a generator. `candidate_labels` is
        a list of labels (an array or Series too), a string with labels separated by `,` or `，`, or a list of such
        lists, one for each text. Returns {"sequence", "labels", "scores"}, best label first; for several texts, a list
        of such dicts; for a generator, a generator of them, which reads texts in blocks as results are asked for.

        Without `multi_label`, the scores of a text sum to 1: softmax of the entailment logits over the labels. With
        `multi_label`, or with one label, each score is independent: softmax over contradiction and entailment. Texts
        repeated with the same labels are computed once. `progress` shows a bar. `long_texts="cut"` cuts a text that is
        too long for the model at its end, with a warning. "max" and "mean" read it in windows that overlap by a
        quarter; each label gets its maximum or mean entailment over the windows. A window has `window` tokens,
        hypothesis included (default: the model's maximum length).

        Labels may be a mapping: {label: description}, whose descriptions stand in the hypotheses, or {id: label} with
        ids that are no strings. A result then has "ids" and "scores_by_label" {key: score} too. With `reject`, a result
        has "rejected": whether the best label's entailment is under that share of the model's three classes.

        A mapping {group: list of labels} scores the groups first, without `multi_label`, then only the labels of the
        best group, as if there were no others. This takes fewer pairs, but a wrong group cannot be put right. A result
        then has "group", "group_scores" {group: score} and "left_out", the labels of the other groups.

        `batch_size`, `truncation` and `num_workers` are arguments of the pipeline of transformers. They are accepted
        and change no score: batches are made by their number of tokens.

        Raises ValueError or TypeError, with value and position, for an empty text or list, a text or label that is not
        a string, a repeated label, a template without exactly one `{}`, or a hypothesis that leaves no room for a text.
        Raises MemoryError, with the pair, if a pair does not fit into memory even alone.
        """
        reading = Reading(multi_label, long_texts, window, reject)
        whole_number("batch_size", 1 if batch_size is None else batch_size, "give the number of pairs, or leave it out")
        if hasattr(sequences, "__next__"):
            answers = self.read(
                sequences, candidate_labels, hypothesis_template, multi_label,
                long_texts=long_texts, window=window, reject=reject, progress=progress,
            )  # fmt: skip
            return (result_of(answer) for _, answer in answers)
        texts = check_texts([sequences] if isinstance(sequences, str) else sequences)
        asked = list(zip(texts, self.label_sets(candidate_labels, len(texts), hypothesis_template, window)))
        rows = [Row(number, text, labels=labels) for number, (text, labels) in enumerate(dict.fromkeys(asked))]
        most = max((row.labels.most for row in rows), default=1)
        results: dict[tuple, Result] = {}
        for row, answer in self.in_blocks(rows, most, reading, bar(progress, len(rows))):
            results[row.text, row.labels] = result_of(answer)
        every = [copy.deepcopy(results[pair]) for pair in asked]  # none shared
        return every[0] if isinstance(sequences, str) else every

    def stream(
        self,
        sequences: Iterable[str],
        candidate_labels: Labels,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        *,
        long_texts: LongTexts = "cut",
        window: int | None = None,
        reject: float | None = None,
        start: int = 0,
        progress: bool = False,
    ) -> Iterator[Result | Failure]:
        """Score texts from any iterable, such as the lines of a file, and yield results in order, in constant memory.

        The arguments mean the same as when the classifier is called. A record that cannot be classified (None, a
        number, an empty text, a pair too large for memory) yields {"sequence", "position", "error"}; the rest
        continues. Labels for each text may also come from an iterator. `start` is the number of records to skip, to
        continue after an interruption. The results are then bit-for-bit the same with the same number of threads, or
        equal to 1e-5 if memory ran out. Texts are always grouped into the same blocks, and a block is read completely
        before its first result. Repeated pairs are computed once within a block. If the iterable raises, or a list of
        label lists is longer than the texts, the results of the texts before come first, then the error.

        Raises ValueError or TypeError at once for invalid labels, template or `start`.
        """
        if isinstance(sequences, str | bytes) or not hasattr(sequences, "__iter__"):
            raise TypeError(f"sequences {sequences!r}: give an iterable of texts; for one text call the classifier")
        answers = self.read(
            sequences, candidate_labels, hypothesis_template, multi_label,
            long_texts=long_texts, window=window, reject=reject, start=start, progress=progress,
        )  # fmt: skip
        return (as_result(row, answer) for row, answer in answers)

    def read(self, sequences, candidate_labels, template, multi_label, *, progress, **options):
        """Yield (row, its result or its error) for each text of an iterable."""
        if is_per_text(candidate_labels):
            rows, shared = rows_with_labels(sequences, iter(candidate_labels)), None
        else:
            rows, shared = (Row(number, text) for number, text in enumerate(sequences)), candidate_labels
            if not is_grouped(shared):  # groups are checked by `answers`
                read_labels(shared)
        shown = progress and (length_hint(sequences) or True)
        return self.answers(rows, shared, template, multi_label, progress=shown, **options)

    def answers(
        self,
        rows: Iterable[Row],
        candidate_labels: Labels | None = None,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        *,
        long_texts: LongTexts = "cut",
        window: int | None = None,
        reject: float | None = None,
        start: int = 0,
        progress: bool | int = False,
    ) -> Iterator[tuple[Row, Result | Exception]]:
        """Yield (row, its result or its error) for each Row of an iterable, in order.

        `stream` is built on this method. Use it if a text has more data: the row comes back with its number and its
        `kept` dict. `candidate_labels` are for rows without their own labels. `progress` is True or the number of rows.
        Other arguments and errors are as in `stream`.
        """
        whole_number("start", start, "give the number of records to pass over", least=0)
        check_template(hypothesis_template)
        reading = Reading(multi_label, long_texts, window, reject)
        shared = None if candidate_labels is None else self.label_set(candidate_labels, hypothesis_template, window)
        shown = bar(progress, length_hint(rows) if progress is True else progress)
        checked = (self.checked(row, shared, hypothesis_template, window) for row in rows)
        return self.in_blocks(checked, shared.most if shared else LABELS_EACH, reading, shown, start)

    def label_sets(self, labels, count, template, window=None):
        """Return a list with one LabelSet for each of `count` texts; raise for invalid labels."""
        if not is_per_text(labels):
            return [self.label_set(labels, template, window)] * count
        given = list(islice(labels, count + 1))
        if len(given) != count:
            many = "fewer" if len(given) < count else "more"
            raise ValueError(f"{many} lists of labels than the {count} texts: give one for each text")
        return [self.own_labels(labels, template, number, window) for number, labels in enumerate(given)]

    def label_set(self, labels, template, window=None):
        """Return the LabelSet of the given labels; raise if they are invalid or leave no room for a text."""
        if is_grouped(labels):
            groups = check_groups(labels)
            within = tuple(self.label_set(own, template, window) for own in groups.values())
            return replace(self.label_set(list(groups), template, window), within=within)
        labels, words, ids = read_labels(labels)
        hypotheses = fill(template, words)
        tokenizer = self.engine.tokenizer
        longest = check_room(tokenizer, hypotheses)
        beside = len(tokenizer.frame) + longest
        if window is not None and window <= beside:
            raise ValueError(f"window {window}: special tokens and the longest label take {beside} of it")
        return LabelSet(tuple(labels), tuple(hypotheses), longest, None if ids is None else tuple(ids))

    def own_labels(self, labels, template, position, window=None):
        """Return the LabelSet of one text's own labels: a list, or a string with separators."""
        if not hasattr(labels, "__len__") or (isinstance(labels, str) and not re.search("[,，]", labels)):
            what = "there are none left" if labels is None else f"not {labels!r}"
            raise TypeError(f"labels of text {position}: {what}; give one list for each text, or one list for all")
        return self.label_set(labels, template, window)

    def checked(self, row, shared, template, window):
        """Return the Row with its LabelSet (`shared` or its own), or with an error if it cannot be classified."""
        if row.error is not None:
            return row
        try:
            text = check_text(row.text, row.where or row.number)
            own = row.labels is not None or shared is None
            return replace(
                row, text=text, labels=self.own_labels(row.labels, template, row.number, window) if own else shared
            )
        except (TypeError, ValueError) as error:
            return replace(row, error=error)

    def in_blocks(self, rows, label_count, reading, shown, start=0):
        """Yield (row, its result or error) of checked rows from `start` on. Blocks do not depend on `start`."""
        with shown:
            most, done = BLOCK_TEXTS if reading.long_texts == "cut" else BLOCK_LONG_TEXTS, 0
            for block in blocks(rows, max(1, min(most, BLOCK_PAIRS // label_count))):
                if done + len(block) > start:
                    answers = zip(block, in_two_passes(block, partial(self.scored, reading=reading, shown=shown)))
                    yield from islice(answers, max(0, start - done), None)
                done += len(block)
                shown.update(done - shown.n)

    def scored(self, block, choosing, *, reading, shown):
        """Return the result or the error of each row, in order. `choosing`: the labels are groups to choose from."""
        own = [[] if row.error else self.pairs(row, reading) for row in block]
        pairs = [pair for pairs in own for pair in pairs]
        logits, errors, cut = self.rows(pairs, shown, 0 if choosing else len(block))
        if cut and not reading.told:
            reading.told = True
            told = f"{cut} is cut, and others as long: long_texts='max' or 'mean' reads them whole"
            warnings.warn(translated(told), stacklevel=5)
        how = replace(reading, multi_label=False, reject=None) if choosing else reading
        every, answers = iter(range(len(logits))), []
        for row, pairs in zip(block, own):
            numbers = list(islice(every, len(pairs)))
            error = row.error or next((errors[number] for number in numbers if number in errors), None)
            answers.append(error or self.result(logits[numbers], row, how))
        return answers

    def pairs(self, row, reading):
        """Return the (text, hypothesis) pairs of a row; with "max" or "mean", one set of pairs for each window."""
        text, hypotheses = row.text, row.labels.hypotheses
        if LONG_TEXTS[reading.long_texts] is None:
            return [(text, hypothesis) for hypothesis in hypotheses]
        tokenizer = self.engine.tokenizer
        room = min(tokenizer.longest, reading.window or tokenizer.longest) - len(tokenizer.frame) - row.labels.longest
        pieces = windows(tokenizer.tokens(text), room)
        return [(piece, hypothesis) for piece in pieces for hypothesis in hypotheses]

    def logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return logits (pairs, classes), float32, of (text, hypothesis) pairs. Raises MemoryError for a pair that
        does not fit into memory."""
        logits, errors, _ = self.rows(pairs)
        for error in errors.values():
            raise error
        return logits

    def rows(self, pairs, shown=None, count=0):
        """Return (logits of the pairs, {pair index: MemoryError}, description of the first pair that is cut, or None).

        The progress bar advances by `count` in total.
        """
        if self.process != os.getpid():
            raise RuntimeError(
                "this process was forked from the one that loaded the classifier, and the engine's threads are not in "
                "it: load the classifier after the fork, or start processes by 'spawn'"
            )
        if not pairs:
            return np.empty((0, self.engine.classes), np.float32), {}, None
        pairs = Pairs(self.engine.tokenizer, pairs)
        done, first = 0, shown.n if shown is not None else 0

        def progress(finished):
            nonlocal done
            done += finished
            if shown is not None:
                shown.update(first + count * done // len(pairs) - shown.n)

        def forward(block):
            return self.engine.logits([pairs.batch(numbers) for numbers in block])

        rows, errors = run(pairs, self.engine.classes, self.budget, forward, progress)
        errors = {row: errors[number] for row, number in enumerate(pairs.position) if number in errors}
        return rows[pairs.position], errors, pairs.first_cut()

    def result(self, logits, row, reading):
        """Return the result of one text from its logits (windows x labels, classes)."""
        # (windows, labels, classes), in double precision: this step gives the same last bits on every processor
        logits = logits.reshape(-1, len(row.labels.labels), self.engine.classes).astype(np.float64)
        result = ranked(row, self.scores(logits, reading).tolist())
        if reading.reject is not None:
            shares = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))  # softmax over the classes
            result["rejected"] = bool(shares[..., self.engine.entailment_id].max() < reading.reject)
        return result

    def scores(self, logits, reading):
        """Return the scores (labels,) of one text from its logits (windows, labels, classes)."""
        combine = LONG_TEXTS[reading.long_texts] or np.max  # "cut" has one window
        entailment = logits[..., self.engine.entailment_id]
        if reading.multi_label or logits.shape[1] == 1:
            against = logits[..., self.engine.contradiction_id]
            return np.exp(-np.logaddexp(0, -combine(entailment - against, axis=0)))  # softmax over the two
        combined = combine(entailment, axis=0)
        shares = np.exp(combined - combined.max())
        return shares / shares.sum()  # softmax


def engine_for(checkpoint, **levers) -> Engine:
    """Return the Engine for a Checkpoint or its name: ONNX Runtime for an export, torch for all else, which is imported
    here, not earlier."""
    if is_export(checkpoint):
        from zsc_utils.onnx_engine import OnnxEngine

        return OnnxEngine(checkpoint, **levers)
    from zsc_utils import checkpoint as door
    from zsc_utils import torch_engine

    if not isinstance(checkpoint, door.Checkpoint | str | os.PathLike):
        raise TypeError(f"checkpoint {checkpoint!r}: give a Checkpoint or the name of one")
    return torch_engine.TorchEngine(checkpoint, **levers)


def blocks(rows, size):
    """Yield lists of `size` rows. If reading raises, yield the rows read before, then raise the error."""
    block, raised = [], None
    rows = iter(rows)
    while raised is None:
        try:
            block.append(next(rows))
        except StopIteration:
            break
        except Exception as error:
            raised = error
        if len(block) == size or (raised and block):
            yield block
            block = []
    if block:
        yield block
    if raised is not None:
        raise raised


def rows_with_labels(texts, lists):
    """Yield the Row of each text with the next label list. Raises ValueError if a list of label lists is too long."""
    for number, text in enumerate(texts):
        yield Row(number, text, labels=next(lists, None))
    if left := length_hint(lists):  # 0 if the length is unknown
        raise ValueError(f"{left} more lists of labels than texts: give one for each text")


def bar(progress, total):
    """Return a progress bar that counts texts; `total` is 0 if the number of texts is unknown."""
    desc, unit = several("classify | text")
    return tqdm(total=(total or None) if progress else None, desc=desc, unit=unit, disable=not progress)


def ranked(row, scores):
    """Return one result, best label first; labels with equal scores keep their order."""
    labels, ids = row.labels.labels, row.labels.ids
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    result = {"sequence": row.text, "labels": [labels[i] for i in order], "scores": [scores[i] for i in order]}
    if ids is not None:
        result |= {"ids": [ids[i] for i in order], "scores_by_label": {ids[i]: scores[i] for i in order}}
    return result


def result_of(answer):
    """Return a result; raise what is there instead of one."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def as_result(row, answer):
    """Return what `stream` yields: the result, or a dict with the row's error."""
    if not isinstance(answer, Exception):
        return answer
    return {"sequence": row.text, "position": row.number, "error": f"{type(answer).__name__}: {answer}"}


def check_room(tokenizer: PairTokenizer, hypotheses: Sequence[str]) -> int:
    """Return the tokens of the longest hypothesis; raise if one leaves no room for a text."""
    room = tokenizer.longest - len(tokenizer.frame)
    lengths = tokenizer.lengths(hypotheses)
    for hypothesis, length in zip(hypotheses, lengths):
        if length >= room:
            raise ValueError(
                f"the hypothesis {hypothesis[:20] + '…'!r} has {length} tokens and leaves no room for a text: "
                f"the model reads {room}. Shorten the label or the template"
            )
    return max(lengths)
