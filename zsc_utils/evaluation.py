"""Evaluate a checkpoint on texts whose labels are known: accuracy, macro F1, confusions, time and memory.

Each way to run it (a precision, layers in memory or streamed) runs in a fresh child process, where the system can
measure one. The figures are those of the given texts. They hold for other texts only if those are like them.
"""

import multiprocessing
import os
import re
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from zsc_utils._agreement import Agreement, agreement, wilson
from zsc_utils._evaluation_table import table_of
from zsc_utils._exports import is_export, read_export
from zsc_utils._labelled import BadRow, labelled, rows_of
from zsc_utils._process import ChildError, map_libraries, no_main_module, process_peak, resident
from zsc_utils._text import DEFAULT_TEMPLATE, as_list, check_labels, check_template, fill
from zsc_utils._types import Name, Precision, Result
from zsc_utils.batching import PairTokenizer
from zsc_utils.classifier import ZeroShotClassifier, check_room
from zsc_utils.language import translated

if TYPE_CHECKING:
    from matplotlib.axes import Axes


STREAMED = " streamed"  # at the end of a way: layers stay in their file
PRECISIONS = get_args(Precision)
WAYS = tuple(precision + streamed for precision in PRECISIONS for streamed in ("", STREAMED))
RESAMPLES, SEED = 1000, 0  # of the bootstrap
EXAMPLES = 3  # texts that are kept of each confusion


class LabelScores(NamedTuple):
    """Precision, recall and F1 of one label, and its `support`: the texts that have it. A score is NaN where it would
    divide by zero: precision of a label that is never said, recall of one without texts, F1 of one that is both."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """How many texts of the label `true` got the label `said`; `examples` are the first of these texts."""

    true: str
    said: str
    count: int
    examples: tuple[str, ...]


class Threshold(NamedTuple):
    """What comes of answering only if the best score is at least `threshold`: the share of texts that is `answered`,
    and the accuracy of these answers."""

    threshold: float
    answered: float
    accuracy: float


@dataclass(frozen=True)
class Report:
    """The figures of one way to run the checkpoint.

    `matrix` counts texts: a row for each true label, a column for each label that was said. `seconds` is the time to
    load and classify. `growth` is the bytes that loading and classifying added to a child process, beyond Python and
    its libraries; None where no child can be measured. `agreement` compares this way with the first one, and is None
    for the first.
    """

    way: str
    labels: tuple[str, ...]
    truth: tuple[str, ...] = field(repr=False)
    results: list[Result] = field(repr=False)
    seconds: float
    growth: int | None
    agreement: Agreement | None = None

    @cached_property
    def matrix(self) -> np.ndarray:
        place = {label: number for number, label in enumerate(self.labels)}
        counts: np.ndarray = np.zeros((len(place), len(place)), int)
        true, said = ([place[label] for label in several] for several in (self.truth, self.said))
        np.add.at(counts, (true, said), 1)
        return counts

    @property
    def said(self) -> list[str]:
        """The best label of each text."""
        return [result["labels"][0] for result in self.results]

    @property
    def accuracy(self) -> float:
        return int(self.matrix.trace()) / len(self.truth)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval by Wilson's formula."""
        return wilson(int(self.matrix.trace()), len(self.truth))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the labels that have texts or were said."""
        return float(np.nanmean([scores.f1 for scores in self.per_label]))

    @cached_property
    def macro_f1_interval(self) -> tuple[float, float]:
        """The 95 % interval of macro F1 by bootstrap over the texts.

        It is the middle 95 % of 1,000 resamples, extended to macro F1 itself if that lies outside. Resampling cannot
        invent an error: if all texts are right, the interval is one point, and that of the accuracy says more.
        """
        low, high = np.quantile(resampled_macro_f1(self.matrix), (0.025, 0.975))
        return min(float(low), self.macro_f1), max(float(high), self.macro_f1)

    @property
    def per_label(self) -> list[LabelScores]:
        """The LabelScores of each label, in the labels' order."""
        right, true, said = self.matrix.diagonal(), self.matrix.sum(1), self.matrix.sum(0)
        columns = share(right, said), share(right, true), share(2 * right, true + said), true
        return [LabelScores(label, *scores) for label, *scores in zip(self.labels, *(c.tolist() for c in columns))]

    @cached_property
    def confusions(self) -> list[Confusion]:
        """All Confusions, the one that occurs most first."""
        texts: dict[tuple[str, str], list[str]] = {}
        for true, result in zip(self.truth, self.results):
            if result["labels"][0] != true:
                texts.setdefault((true, result["labels"][0]), []).append(result["sequence"])
        found = [Confusion(*pair, len(several), tuple(several[:EXAMPLES])) for pair, several in texts.items()]
        return sorted(found, key=lambda confusion: -confusion.count)

    @cached_property
    def thresholds(self) -> list[Threshold]:
        """A Threshold for each best score that occurs, the lowest first."""
        best = np.array([result["scores"][0] for result in self.results])
        right = np.array([label == true for label, true in zip(self.said, self.truth)])
        order = np.argsort(-best, kind="stable")
        best, right = best[order], right[order].cumsum()
        ends = np.flatnonzero(np.append(best[1:] != best[:-1], True))  # equal scores are answered together
        return [Threshold(float(best[i]), (int(i) + 1) / len(best), int(right[i]) / (int(i) + 1)) for i in ends[::-1]]

    def threshold_for(self, accuracy: float = 0.95) -> Threshold | None:
        """Return the lowest Threshold whose answers reach this accuracy; None if none does.

        Say "none of these" for a text whose best score is below it. It was chosen on these texts: on others like them
        it does about as well, on texts of another kind it may not.
        """
        if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0 < accuracy <= 1:
            raise ValueError(f"accuracy {accuracy!r}: give a share of right answers, over 0 and at most 1")
        return next((row for row in self.thresholds if row.accuracy >= accuracy), None)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: a Report for each way, under its name, and the rows that were left out.

    `str(evaluation)` is a table. `threshold_for`, `plot` and `save_chart` are those of the first way, or of the `way`
    that is named.
    """

    checkpoint: str
    labels: tuple[str, ...]
    texts: int
    bad: tuple[BadRow, ...]
    reports: dict[str, Report] = field(repr=False)

    def report(self, way: str | None = None) -> Report:
        """Return the Report of a way; by default of the first."""
        first = next(iter(self.reports))
        if way is not None and way not in self.reports:
            raise ValueError(f"way {way!r}: evaluated were {', '.join(self.reports)}")
        return self.reports[way or first]

    def threshold_for(self, accuracy: float = 0.95, way: str | None = None) -> Threshold | None:
        """Return the lowest threshold whose answers reach this accuracy: see Report.threshold_for."""
        return self.report(way).threshold_for(accuracy)

    def plot(self, axes: "Axes", way: str | None = None) -> None:
        """Draw the confusion matrix: of each true label the shares of the labels that were said."""
        from zsc_utils import plots  # only here: it needs matplotlib

        plots.use_chinese_font()

        found = self.report(way)
        plots.confusion_matrix(axes, found.labels, found.matrix)
        axes.set_title(f"{self.checkpoint}, {found.way}: accuracy {found.accuracy:.3f} of {self.texts} texts")

    def save_chart(self, file: str | os.PathLike, way: str | None = None) -> None:
        """Write the confusion matrix to a file, whose suffix names its format, such as .png or .svg."""
        check_chart(file)
        from matplotlib.figure import Figure

        side = 2.5 + 0.5 * len(self.labels)
        figure = Figure(figsize=(max(5.0, side + 1), max(3.5, side)), layout="constrained", dpi=150)
        self.plot(figure.subplots(), way)
        figure.savefig(file)

    def __str__(self):
        return "\n".join(table_of(self))


def evaluate(
    records: str | os.PathLike | Sequence[dict],
    labels: str | Sequence[str] | None = None,
    *,
    checkpoint: Name = "mini",
    text: str = "text",
    label: str = "label",
    hypothesis_template: str = DEFAULT_TEMPLATE,
    compare: str | Sequence[str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Classify texts whose labels are known, in one or several ways, and return an Evaluation.

    `records` is a .csv, .jsonl or .parquet file, or a list of dicts. `text` and `label` name its columns. `labels` are
    those to choose from (default: those that occur, in the order of their first texts). `compare` lists ways to run the
    checkpoint: "fp32", "bf16", "fp16" or "int8", or folders that `export` has written, each also with " streamed",
    which keeps layers in their file (default: the checkpoint's own precision). All ways get the same texts, and the
    others are compared with the first. `checkpoint` may be an export too. An export runs in a process without torch.

    A row is left out, and named in `bad`, if it has no text or no label, if its label is none of `labels`, or if it
    cannot be classified in one of the ways. Raises ValueError or TypeError for a missing file or column, an unknown
    way, fewer than two labels, or no rows to evaluate. Raises ChildError if a way's process was killed.
    """
    name = check_name(checkpoint)
    ways = check_ways(compare, name)
    check_template(hypothesis_template)
    if text == label:
        raise ValueError(f"text and label are both {text!r}: name two columns")
    found = labelled(rows_of(records, text, label), None if labels is None else check_labels(labels))
    found.check(records)
    hypotheses = fill(hypothesis_template, found.labels)
    for way, own in ways.items():
        check_way(way, own, hypotheses)
    texts = [text for text, _ in found.good.values()]
    runs = {way: run(own, way, texts, found.labels, hypothesis_template, progress) for way, own in ways.items()}
    return put_together(str(checkpoint), found, runs)


def put_together(checkpoint, found, runs):
    """Return the Evaluation of {way: Run}, without the rows that have no result in one of the ways."""
    failed = {}
    for way, ran in runs.items():
        for row, result in zip(found.good, ran.results):
            if "error" in result:
                failed.setdefault(row, f"{way}: {result['error']}")
    if len(failed) == len(found.good):
        raise ValueError(f"no text can be classified; row {next(iter(failed))}: {next(iter(failed.values()))}")
    truth = tuple(label for row, (_, label) in found.good.items() if row not in failed)
    reports = {}
    for way, ran in runs.items():
        results = [result for row, result in zip(found.good, ran.results) if row not in failed]
        first = next(iter(reports.values()), None)
        agreed = None if first is None else agreement(first.results, results, truth)
        labels = tuple(found.labels)
        reports[way] = Report(way, labels, truth, results, ran.seconds, ran.growth, agreed)
    bad = sorted([*found.bad, *(BadRow(row, reason) for row, reason in failed.items())])
    return Evaluation(checkpoint, tuple(found.labels), len(truth), tuple(bad), reports)


# ------------------------------------------------------------------------------------------------------ at the door


def check_ways(compare, checkpoint):
    """Return {way: the checkpoint that it runs}; raise for none, an unknown one, or one that is named twice."""
    if compare is None:
        compare = [own_precision(checkpoint)]
    if isinstance(compare, str):
        compare = [way.strip() for way in re.split("[,，]", compare) if way.strip()]
    ways = as_list("compare", compare, "a list of ways, such as ['fp32', 'int8']")
    found = {}
    for way in ways:
        what, _ = parts(way)
        if what not in PRECISIONS and not is_export(what):
            raise ValueError(f"compare {way!r}: there are {', '.join(WAYS)}, and folders written by zsc_utils.export")
        found[way] = checkpoint if what in PRECISIONS else check_name(what)
    if not ways or len(found) < len(ways):
        raise ValueError(f"compare {compare!r}: name at least one way, and each once")
    return found


def parts(way):
    """Return (precision or folder of an export, whether its layers are streamed) of a way."""
    if not isinstance(way, str) or is_export(way) or not way.endswith(STREAMED):
        return way, False
    return way.removesuffix(STREAMED), True


def own_precision(checkpoint):
    """Return the precision in which a checkpoint runs by default."""
    if is_export(checkpoint):
        return read_export(checkpoint).precision
    from zsc_utils import checkpoint as door
    from zsc_utils.formats import format_of

    return format_of(door.resolve(checkpoint).config).precision


def check_way(way, checkpoint, hypotheses):
    """Raise if a way is not possible for its checkpoint, or a label leaves no room for a text.

    This builds, downloads or converts the checkpoint if needed, which is no part of what is measured.
    """
    what, streamed = parts(way)
    if is_export(checkpoint):
        from zsc_utils.onnx_engine import read_tokenizer

        export = read_export(checkpoint)
        if what in PRECISIONS and what != export.precision:
            raise ValueError(
                f"compare {way!r}: {checkpoint!r} was exported in {export.precision}, and runs in nothing else; "
                f"export the checkpoint in {what} if that is possible, and name that folder"
            )
        check_room(read_tokenizer(export), hypotheses)
        return
    from zsc_utils import checkpoint as door
    from zsc_utils import plan as planning

    source = door.resolve(checkpoint)
    check_room(PairTokenizer.of(door.read_tokenizer(source.folder, source.config)), hypotheses)
    planning.make(source, chosen=planning.Chosen(what, None, streamed))


def check_name(checkpoint):
    """Return the name of a checkpoint as every process can load it: a folder's path is absolute."""
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint {checkpoint!r}: give its name or folder, for each way loads it in its own process")
    path = Path(checkpoint).expanduser()
    return str(path.resolve()) if checkpoint not in ("mini", "base-shape") and path.is_dir() else str(checkpoint)


def check_chart(file: str | os.PathLike) -> None:
    """Raise if a chart cannot be written there; the command asks before the work begins."""
    try:
        from zsc_utils import plots
    except (ImportError, AttributeError) as error:  # AttributeError: mplfonts is missing
        raise ValueError(
            f"a chart needs matplotlib and mplfonts: pip install 'zsc-utils[notebooks]' ({error})"
        ) from error
    path, suffixes = Path(file), plots.suffixes()
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"chart {path.name!r}: its name must end in one of {', '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"chart {path}: {path.parent} is no folder" if not path.is_dir() else f"chart {path} is a folder"
        )


# -------------------------------------------------------------------------------------------------------- one way


class Run(NamedTuple):
    """A way's results, or errors as a stream yields them, in the texts' order; time and memory as in a Report."""

    results: list
    seconds: float
    growth: int | None


def run(checkpoint, way, texts, labels, template, progress):
    """Return the Run of one way: in a fresh child process if it can be measured here, else in this process.

    The child of an export does not load torch.
    """
    work = checkpoint, way, texts, labels, template, progress
    if measurable():
        try:
            if is_export(checkpoint):
                (results, told), seconds, growth = in_lean_process(*work)
            else:
                peak = process_peak(classified, *work)
                (results, told), seconds, growth = peak.result, peak.seconds, peak.total
        except ChildError as error:
            raise ChildError(f"{way}: {error}") from error
    else:
        start = time.perf_counter()
        results, told = classified(*work)
        seconds, growth = time.perf_counter() - start, None
    for message in told:
        warnings.warn(f"{way}: {translated(message)}", stacklevel=3)
    if any(np.isnan(result["scores"]).any() for result in results if "error" not in result):
        raise ValueError(f"{way}: some scores are no numbers, so it cannot be evaluated. Leave it out of compare")
    return Run(results, seconds, growth)


def measurable():
    """Whether process_peak works here: it needs Linux."""
    return Path("/proc/self/clear_refs").exists()


def in_lean_process(*work):
    """Return what `measured` returns in a new process, which imports only what an export needs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with no_main_module():
            running = pool.submit(measured, *work)
        try:
            return running.result()
        except BrokenProcessPool as error:
            raise ChildError("the child process was ended: the kernel does that when memory runs out") from error


def measured(*work):
    """Return ((results, warnings), seconds, growth) of an export, as `process_peak` does for other checkpoints."""
    import zsc_utils.onnx_engine  # noqa: F401  its libraries belong to the baseline

    map_libraries()
    before = resident("self")["VmRSS"]
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    start = time.perf_counter()
    answer = classified(*work)
    return answer, time.perf_counter() - start, resident("self")["VmHWM"] - before


def classified(checkpoint, way, texts, labels, template, progress):
    """Load and classify, in the child. Returns (results, warnings)."""
    what, streamed = parts(way)
    precision = what if what in PRECISIONS else None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        classifier = ZeroShotClassifier(checkpoint, precision=precision, offload=streamed)
        results = list(classifier.stream(texts, labels, template, progress=progress))
    own = dict.fromkeys(str(warning.message) for warning in told if warning.category is UserWarning)
    return results, list(own)


# ------------------------------------------------------------------------------------------------------- statistics


def share(part, whole):
    """Return part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def resampled_macro_f1(matrix):
    """Return macro F1 of RESAMPLES resamples of the texts that a confusion matrix counts.

    Texts of one cell are alike to F1, so drawing texts with replacement is drawing cells by their counts.
    """
    cells, counts = np.argwhere(matrix), matrix[matrix > 0]  # both in the order of the matrix
    draws = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    of_true, of_said = (np.eye(len(matrix))[cells[:, side]] for side in (0, 1))
    f1 = share(2 * (draws @ (of_true * of_said)), draws @ of_true + draws @ of_said)
    return np.nanmean(f1, axis=1)
