"""The drop-in: texts x labels -> pairs -> batches -> logits -> scores -> results.

Called as the transformers zero-shot pipeline is called, with results of the same shape. The text is the premise, each
label put into the template a hypothesis; how sure the model is that the text entails it becomes the label's score.
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from zsc_utils._text import (
    DEFAULT_TEMPLATE,
    Row,
    check_labels,
    check_template,
    check_text,
    check_texts,
    fill,
    is_per_text,
    whole_number,
)  # fmt: skip
from zsc_utils._types import Attention, Failure, Labels, LongTexts, Name, Precision, Result, Size
from zsc_utils.batching import Engine, Pairs, PairTokenizer, TokenBudget, run, windows

if TYPE_CHECKING:
    from zsc_utils.checkpoint import Checkpoint
    from zsc_utils.plan import Plan

LONG_TEXTS = {"cut": None, "max": np.max, "mean": np.mean}  # how the windows of a long text are combined
# pairs are sorted into batches together: so many, of so many texts at most, or of so many that are read whole
BLOCK_PAIRS, BLOCK_TEXTS, BLOCK_LONG_TEXTS = 512, 64, 8
LABELS_EACH = 16  # that a text is taken to have, where each has its own


@dataclass(frozen=True)
class LabelSet:
    """Checked labels and their hypotheses, in the same order; `longest`: tokens of the longest hypothesis."""

    labels: tuple
    hypotheses: tuple
    longest: int


@dataclass
class Reading:
    """How scores are made of logits: `multi_label` or not, `long_texts`, a key of LONG_TEXTS, in windows of `window`
    tokens, or as many as the model reads; and whether it was `told` already that a text was cut."""

    multi_label: bool
    long_texts: str
    window: int | None
    told: bool = False

    def __post_init__(self):
        if self.long_texts not in LONG_TEXTS:
            raise ValueError(f"long_texts {self.long_texts!r}: choose one of {', '.join(LONG_TEXTS)}")
        if self.window is not None and (type(self.window) is not int or self.window < 1 or self.long_texts == "cut"):
            raise ValueError(
                f"window {self.window!r}: give tokens, 1 or more, and long_texts='max' or 'mean' with them"
            )


class ZeroShotClassifier:
    """Classify Chinese texts by labels given at call time.

    >>> classify = ZeroShotClassifier("mini")
    >>> classify("央行下调利率", ["财经", "体育"])["labels"]
    ['财经', '体育']

    `checkpoint` is a Checkpoint or a name for `zsc_utils.load`. It runs where the checkpoint's model is.

    Levers by hand: `precision` ("fp32", "bf16", "fp16", "int8"), `attention` ("sdpa", "eager", "sliding"), and
    `offload`, True for layers that stay in their file and visit memory when they compute, False for never; all three
    as they are, or as a budget needs them, if nothing is said. Without a budget nothing is pulled that was not asked
    for.

    `memory_budget`, "300MB" or a number of bytes, is what the process may grow by, loading included, in anonymous and
    file-backed memory; `plan` says which levers keep it, and what is predicted and measured. Levers that change scores
    (int8) are pulled only by hand, or with `allow_lossy`. From then on glibc keeps its heap small, for the whole
    process. Raises ValueError, naming the smallest budget that works, for one that is too small. A checkpoint that must
    be downloaded or converted first takes what that takes; what the caller holds, such as texts and results, is the
    caller's.

    `max_tokens` is the most tokens of a batch (default: 1,024 on a CPU): memory hangs on it, scores do not. It is
    lowered when memory runs out, and the work goes on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Name = "mini",
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
        self.engine = engine_for(
            checkpoint, precision=precision, attention=attention, offload=offload,
            memory_budget=memory_budget, allow_lossy=allow_lossy, max_tokens=max_tokens,
        )  # fmt: skip

    @property
    def checkpoint(self) -> "Checkpoint":
        """The Checkpoint that computes, its levers pulled."""
        return self.engine.checkpoint

    @property
    def plan(self) -> "Plan | None":
        """The levers that were chosen and their bill; None on a GPU."""
        return self.engine.plan

    @property
    def budget(self) -> TokenBudget:
        """The most tokens of a batch, and of a block of batches, as they stand now."""
        return self.engine.budget

    def __repr__(self):
        return f"ZeroShotClassifier({self.checkpoint!r}, max_tokens={self.budget.max_tokens})"

    def __call__(
        self,
        sequences: str | Sequence[str],
        candidate_labels: Labels,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        *,
        long_texts: LongTexts = "cut",
        window: int | None = None,
        progress: bool = False,
    ) -> Result | list[Result]:
        """Score every label for every text.

        `sequences` is a text or a list of texts; `candidate_labels` a list of labels, or one string that separates them
        by `,` or `，`, or a list of such lists, one for each text. Returns {"sequence", "labels", "scores"} with the
        best label first, a list of them for a list of texts. Single label: scores of a text sum to 1 (softmax of the
        entailment logits over the labels). Multi label, or one label only: each score stands alone (softmax over
        contradiction and entailment). A text that comes again with the same labels is computed once. `progress` shows a
        bar. `long_texts`: a text too long for the model is cut at its end, with a warning ("cut"), or read whole in
        windows that overlap by a quarter, of whose entailment each label gets the highest ("max") or the mean ("mean").
        A window is what the model reads, or `window` tokens, label included, for a model that knows short texts only.

        Raises ValueError or TypeError, naming value and position, for input that has no answer: an empty text or list,
        a text or label that is no string, a label given twice, a template without exactly one `{}`, a hypothesis that
        leaves no room for a text. The pipeline of transformers lets some of these pass. Raises MemoryError, naming it,
        for a pair that does not fit into memory even alone.
        """
        reading = Reading(multi_label, long_texts, window)
        texts = check_texts([sequences] if isinstance(sequences, str) else sequences)
        asked = list(zip(texts, self.label_sets(candidate_labels, len(texts), hypothesis_template, window)))
        rows = [Row(number, text, labels=labels) for number, (text, labels) in enumerate(dict.fromkeys(asked))]
        most, results = max(len(row.labels.labels) for row in rows), {}
        for row, answer in self.in_blocks(rows, most, reading, bar(progress, len(rows))):
            if isinstance(answer, Exception):
                raise answer
            results[row.text, row.labels] = answer
        every = [{key: value[:] for key, value in results[pair].items()} for pair in asked]  # none shared
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
        start: int = 0,
        progress: bool = False,
    ) -> Iterator[Result | Failure]:
        """Score texts from any iterable, such as the lines of a file: yields results in order, in constant memory.

        As calling the classifier, but a record without an answer (None, a number, an empty text, a pair too large for
        the memory) yields {"sequence", "position", "error"}, and the rest goes on. Labels for each text may come from
        an iterator too. `start`: how many records to pass over, to go on after an interruption; the results are then
        the same bits on as many threads (after memory ran out: the same to 1e-5), for texts are always taken in the
        same blocks, each read before its first result comes. Pairs that come again are computed once within a block. If
        the iterable raises, what it gave before has its results first; so too if there are more lists of labels than
        texts.

        Raises ValueError or TypeError at once for labels, template or `start` without an answer.
        """
        if isinstance(sequences, str) or not hasattr(sequences, "__iter__"):
            raise TypeError(f"sequences {sequences!r}: give an iterable of texts; for one text call the classifier")
        if is_per_text(candidate_labels):
            rows, shared = rows_with_labels(sequences, iter(candidate_labels)), None
        else:
            rows, shared = (Row(number, text) for number, text in enumerate(sequences)), check_labels(candidate_labels)
        answers = self.answers(
            rows, shared, hypothesis_template, multi_label,
            long_texts=long_texts, window=window, start=start, progress=progress and (length_hint(sequences) or True),
        )  # fmt: skip
        return (as_result(row, answer) for row, answer in answers)

    def answers(
        self,
        rows: Iterable[Row],
        candidate_labels: Labels | None = None,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        *,
        long_texts: LongTexts = "cut",
        window: int | None = None,
        start: int = 0,
        progress: bool | int = False,
    ) -> Iterator[tuple[Row, Result | Exception]]:
        """(row, its result or the error that keeps it from one) of each Row of an iterable, in order.

        What `stream` is made of, for who has more to a text than the text: the row comes back with its number and what
        it keeps. `candidate_labels` are for rows without labels of their own. `progress` is True, or how many rows
        there are. The rest, and what is raised, is as in `stream`.
        """
        whole_number("start", start, "give the number of records to pass over", least=0)
        check_template(hypothesis_template)
        reading = Reading(multi_label, long_texts, window)
        shared = None if candidate_labels is None else self.label_set(candidate_labels, hypothesis_template, window)
        shown = bar(progress, length_hint(rows) if progress is True else progress)
        checked = (self.checked(row, shared, hypothesis_template, window) for row in rows)
        return self.in_blocks(checked, len(shared.labels) if shared else LABELS_EACH, reading, shown, start)

    def label_sets(self, labels, count, template, window=None):
        """The LabelSet of each of so many texts; raises for what has no answer."""
        if not is_per_text(labels):
            return [self.label_set(labels, template, window)] * count
        given = list(islice(labels, count + 1))
        if len(given) != count:
            many = "fewer" if len(given) < count else "more"
            raise ValueError(f"{many} lists of labels than the {count} texts: give one for each text")
        return [self.own_labels(labels, template, number, window) for number, labels in enumerate(given)]

    def label_set(self, labels, template, window=None):
        """The LabelSet of labels as they were given; raises for what has no answer, or no room in a window."""
        labels = check_labels(labels)
        hypotheses = fill(template, labels)
        tokenizer = self.engine.tokenizer
        longest = check_room(tokenizer, hypotheses)
        beside = len(tokenizer.frame) + longest
        if window is not None and window <= beside:
            raise ValueError(f"window {window}: special tokens and the longest label take {beside} of it")
        return LabelSet(tuple(labels), tuple(hypotheses), longest)

    def own_labels(self, labels, template, position, window=None):
        """The LabelSet of one text's own labels: a list, or a string that separates several."""
        if not isinstance(labels, list | tuple | str) or (isinstance(labels, str) and not re.search("[,，]", labels)):
            what = "there are none left" if labels is None else f"not {labels!r}"
            raise TypeError(f"labels of text {position}: {what}; give one list for each text, or one list for all")
        return self.label_set(labels, template, window)

    def checked(self, row, shared, template, window):
        """The Row with its LabelSet, `shared` or its own, or with the error if there can be no result."""
        if row.error is not None:
            return row
        try:
            check_text(row.text, row.where or row.number)
            own = row.labels is not None or shared is None
            return replace(row, labels=self.own_labels(row.labels, template, row.number, window) if own else shared)
        except (TypeError, ValueError) as error:
            return replace(row, error=error)

    def in_blocks(self, rows, label_count, reading, shown, start=0):
        """(row, its result or error) of checked rows, from `start` on; in blocks that are always the same."""
        with shown:
            most, done = BLOCK_TEXTS if reading.long_texts == "cut" else BLOCK_LONG_TEXTS, 0
            for block in blocks(rows, max(1, min(most, BLOCK_PAIRS // label_count))):
                if done + len(block) > start:
                    answers = zip(block, self.block_answers(block, reading, shown))
                    yield from islice(answers, max(0, start - done), None)
                done += len(block)
                shown.update(done - shown.n)

    def block_answers(self, block, reading, shown):
        """The results of these rows, in order; where there is none, the error."""
        own = [[] if row.error else self.pairs(row, reading) for row in block]
        logits, errors, cut = self.rows([pair for pairs in own for pair in pairs], shown, len(block))
        if cut and not reading.told:
            reading.told = True
            warnings.warn(
                f"{cut} is cut, and others as long: long_texts='max' or 'mean' reads them whole", stacklevel=4
            )
        every, answers = iter(range(len(logits))), []
        for row, pairs in zip(block, own):
            numbers = list(islice(every, len(pairs)))
            error = row.error or next((errors[number] for number in numbers if number in errors), None)
            answers.append(error or ranked(row, self.scores(logits[numbers], row, reading).tolist()))
        return answers

    def pairs(self, row, reading):
        """The (text, hypothesis) pairs of a row; of a long text that is read whole, window by window."""
        text, hypotheses, tokenizer = row.text, row.labels.hypotheses, self.engine.tokenizer
        if LONG_TEXTS[reading.long_texts] is None:
            return [(text, hypothesis) for hypothesis in hypotheses]
        room = min(tokenizer.longest, reading.window or tokenizer.longest) - len(tokenizer.frame) - row.labels.longest
        pieces = windows(tokenizer.tokens(text), room)
        return [(piece, hypothesis) for piece in pieces for hypothesis in hypotheses]

    def logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Logits (pairs, classes), float32, of (text, hypothesis) pairs; MemoryError for one that is too large."""
        logits, errors, _ = self.rows(pairs)
        for error in errors.values():
            raise error
        return logits

    def rows(self, pairs, shown=None, count=0):
        """(logits of (text, hypothesis) pairs, {row: MemoryError}, the first pair that is cut, in words, or None).

        Moves the bar on by `count` in all.
        """
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

    def scores(self, logits, row, reading):
        """Scores (labels,) of one text from its logits (windows x labels, classes)."""
        # (windows, labels, classes), in double precision: the last bits are the same on every processor
        logits = logits.reshape(-1, len(row.labels.labels), self.engine.classes).astype(np.float64)
        combine = LONG_TEXTS[reading.long_texts] or np.max  # where texts are cut there is one window
        entailment = logits[..., self.engine.entailment_id]
        if reading.multi_label or logits.shape[1] == 1:
            against = logits[..., self.engine.contradiction_id]
            return np.exp(-np.logaddexp(0, -combine(entailment - against, axis=0)))  # softmax over the two
        combined = combine(entailment, axis=0)
        shares = np.exp(combined - combined.max())
        return shares / shares.sum()  # softmax


def engine_for(checkpoint, **levers) -> Engine:
    """The Engine that computes a checkpoint, or the name of one; what it needs is imported here, not before."""
    from zsc_utils.checkpoint import Checkpoint
    from zsc_utils.torch_engine import TorchEngine

    if not isinstance(checkpoint, Checkpoint | str | os.PathLike):
        raise TypeError(f"checkpoint {checkpoint!r}: give a Checkpoint or the name of one")
    return TorchEngine(checkpoint, **levers)


def blocks(rows, size):
    """Lists of `size` rows; when reading them raises, first what was read before."""
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
    """The Row of each text with the next of the lists of labels; raises if of a list of lists some are left over."""
    for number, text in enumerate(texts):
        yield Row(number, text, labels=next(lists, None))
    if left := length_hint(lists):  # 0 where nobody knows
        raise ValueError(f"{left} more lists of labels than texts: give one for each text")


def bar(progress, total):
    """A progress bar that counts texts; `total` is 0 where nobody knows how many there are."""
    return tqdm(total=(total or None) if progress else None, desc="classify", unit="text", disable=not progress)


def ranked(row, scores):
    """One result, best label first; equal scores keep the order of the labels."""
    labels = row.labels.labels
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    return {"sequence": row.text, "labels": [labels[i] for i in order], "scores": [scores[i] for i in order]}


def as_result(row, answer):
    """What a stream yields: the result, or a dict that says what is wrong with the row."""
    if not isinstance(answer, Exception):
        return answer
    return {"sequence": row.text, "position": row.number, "error": f"{type(answer).__name__}: {answer}"}


def check_room(tokenizer: PairTokenizer, hypotheses: Sequence[str]) -> int:
    """The tokens of the longest hypothesis; raises when one leaves no room for a text beside it."""
    room = tokenizer.longest - len(tokenizer.frame)
    lengths = [len(tokenizer.tokens(hypothesis)) for hypothesis in hypotheses]
    for hypothesis, length in zip(hypotheses, lengths):
        if length >= room:
            raise ValueError(
                f"the hypothesis {hypothesis[:20] + '…'!r} has {length} tokens and leaves no room for a text: "
                f"the model reads {room}. Shorten the label or the template"
            )
    return max(lengths)
