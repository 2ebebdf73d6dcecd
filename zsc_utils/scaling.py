"""Classify a dataset in many worker processes with Ray Data; the output is a folder with one file for each part.

The same call runs on a laptop and on a cluster. The input is cut into parts of at most `rows` rows. One worker reads,
classifies and writes a part; its result file appears only when it is complete. A part without a result file is done
again, so no row is lost or doubled if a process dies. Ray transfers the positions of parts, not texts or results, so
memory does not grow with the input. Workers on one machine share memory-mapped fp32 weights in the page cache. With an
export as the checkpoint, workers do not load torch, and each packs the matrices for itself.
"""

import glob
import json
import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from zsc_utils._encodings import UTF_8
from zsc_utils._exports import is_export, read_export
from zsc_utils._process import proportional
from zsc_utils._results import JsonLinesFile, ParquetFile, whole_file
from zsc_utils._text import DEFAULT_TEMPLATE, check_labels, default_name, fill, whole_number
from zsc_utils._types import Name, Precision, Size
from zsc_utils.batching import PairTokenizer
from zsc_utils.classifier import LONG_TEXTS, ZeroShotClassifier, check_room
from zsc_utils.language import several, translated
from zsc_utils.records import READERS, Part, as_json, cut, ending, read, reason

ROWS = 256  # rows of a part: the work that a killed worker loses, and the step of the progress bar
BLOCKS = 10_000  # blocks that Ray schedules, at most; with more parts, a block holds several
TRIES = 3  # attempts at a part whose worker dies
OBJECT_STORE_BYTES = 100 * 10**6  # Ray's shared memory on a local run; the parts take very little of it
ON_DEMAND = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}  # no process waits for work
BAD, HIDDEN, SETTINGS = "_bad_rows.jsonl", ".unfinished", "settings.json"  # dataset readers skip names with _ or .


@dataclass(frozen=True)
class Done:
    """The state of an output: rows with a result (`good`) and without (`bad`), result `files` in input order, and the
    file of `bad_rows` or None. For this run: rows already done `before`, and parts `repeated` because a worker died.
    `workers` has a dict for each worker: `rows`; `growth`, the most its process grew by, loading the classifier
    included; and `proportional`, its memory at the end, each shared page divided by the number of processes that share
    it. Both are in bytes, or None where the system does not report them.
    """

    good: int
    bad: int
    before: int
    repeated: int
    files: list = field(repr=False)
    bad_rows: Path | None
    workers: dict = field(repr=False)


def classify_dataset(
    source: str | os.PathLike | Sequence,
    labels: str | Sequence[str],
    *,
    output: Name,
    checkpoint: Name | None = None,
    memory_budget: Size | None = None,
    allow_lossy: bool = False,
    precision: Precision | None = None,
    offload: bool | None = None,
    workers: int | None = None,
    text: str = "text",
    hypothesis_template: str = DEFAULT_TEMPLATE,
    multi_label: bool = False,
    long_texts: str = "cut",
    format: str = "jsonl",
    rows: int = ROWS,
    address: str | None = None,
    progress: bool = True,
) -> Done:
    """Classify every row of JSONL, CSV or Parquet files in several processes, on one machine or a cluster: a Done.

    `source` is a file, a folder, a glob, or a list of these; `text` names the column of texts. JSONL and CSV are UTF-8,
    GB18030, Big5, or UTF-16 with a byte order mark; a warning names a file that is not UTF-8. The folder `output` gets
    a file for each part, in `format` "jsonl" or "parquet". A row is {"position", "sequence", "labels", "scores"}, and
    "id" if the input has one; `position` counts from 0 over the whole input. Rows without a result go to
    _bad_rows.jsonl, with position, file, row in the file (from 1) and reason. After an interruption, the same call
    continues with the parts that are not written yet.

    Each of the `workers` (default: one for each CPU of the cluster) has a classifier with its own `memory_budget`.
    `checkpoint` and the levers are those of ZeroShotClassifier; with an export, workers run without torch. A part has
    at most `rows` rows, which are done again if a worker is killed; give more for many millions of rows. `address` is
    that of a Ray cluster whose machines all find files and checkpoint at the same paths (default: a running Ray, or
    RAY_ADDRESS, or a local one for this call).

    Raises ValueError or TypeError before anything runs: for a missing file or column, invalid labels, a budget that is
    too small, or an `output` begun with other settings. Raises OSError if results cannot be written, as on a full disk,
    or if a part's worker died three times; RuntimeError if Ray fails. What is written stays.
    """
    import_ray()
    labels = check_labels(labels)
    whole_number("rows", rows)
    whole_number("workers", 1 if workers is None else workers)
    for name, value, allowed in (("format", format, FORMAT), ("long_texts", long_texts, LONG_TEXTS)):
        if value not in allowed:
            raise ValueError(f"{name} {value!r}: choose one of {', '.join(allowed)}")
    checkpoint = checked(checkpoint or default_name(), fill(hypothesis_template, labels))
    precision = planned(checkpoint, memory_budget, allow_lossy, precision, offload)
    model = {"checkpoint": checkpoint, "memory_budget": memory_budget, "allow_lossy": allow_lossy, "offload": offload}
    work = {
        "labels": labels, "precision": precision, "hypothesis_template": hypothesis_template,
        "multi_label": multi_label, "long_texts": long_texts, "text": text, "format": format,
    }  # fmt: skip
    files, output = files_of(source), Path(output).expanduser().resolve()
    desc, unit = several("counting rows | parts")
    parts = list(tqdm(cut(files, rows, text), desc=desc, unit=f" {unit}", leave=False, disable=not progress))
    if not parts:
        raise ValueError(f"{source} has no rows")
    for file, encoding in {part.file: part.encoding for part in parts if part.encoding != UTF_8}.items():
        warnings.warn(translated(f"{file} is read as {encoding.upper()}"), stacklevel=2)
    prepare(output, work | {"checkpoint": checkpoint, "rows": rows, "files": stamps(files)})
    waiting = [part for part in parts if not result_file(output, part, format).exists()]
    before = sum(part.count for part in parts) - sum(part.count for part in waiting)
    run = Run()
    tidy(output)
    desc, unit = several("classify | rows")
    with tqdm(total=before + sum(part.count for part in waiting), initial=before, desc=desc, unit=f" {unit}",
              disable=not progress) as bar:  # fmt: skip
        try:
            # on an error, close the generator at once, or workers would go on
            with closing(through_ray(waiting, model, work | {"output": str(output)}, workers, address)) as reports:
                for report in reports:
                    run.count(report)
                    bar.update(report["rows"])
        finally:
            tidy(output)
    return summary(output, parts, format, before, run)


def checked(checkpoint, hypotheses):
    """A name that every process can load; raises if `checkpoint` is no name, or a label leaves no room for a text."""
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint {checkpoint!r}: give the name of one, which every worker can load")
    if is_export(checkpoint):
        from zsc_utils.onnx_engine import read_tokenizer  # here: a worker loads only the libraries of its engine

        tokenizer = read_tokenizer(read_export(checkpoint))
    else:
        from zsc_utils import checkpoint as door

        source = door.resolve(checkpoint)
        tokenizer = PairTokenizer.of(door.read_tokenizer(source.folder, source.config))
    check_room(tokenizer, hypotheses)
    path = Path(checkpoint).expanduser()
    return str(path.resolve()) if checkpoint not in ("mini", "base-shape") and path.is_dir() else str(checkpoint)


def planned(checkpoint, memory_budget, allow_lossy, precision, offload):
    """The precision that a worker's plan chooses; raises if no plan fits, or a lever is not possible."""
    if is_export(checkpoint):
        from zsc_utils import onnx_plan

        return onnx_plan.make(read_export(checkpoint), memory_budget, precision, offload).setting.precision
    from zsc_utils import plan as planning

    chosen = planning.Chosen(precision, None, offload)
    return planning.make(checkpoint, memory_budget, allow_lossy, None, chosen).setting.precision


# ------------------------------------------------------------------------------------------------------------ the files


def files_of(source):
    """The files of a file, folder or glob, or a list of these, in order; ValueError for none, or another file type."""
    if isinstance(source, list | tuple):
        return [file for one in source for file in files_of(one)]
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if ending(file) in READERS)
    else:
        files = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not files:
        raise ValueError(f"{source}: no such file, and no folder or glob with any {', '.join(READERS)}")
    for file in files:
        if ending(file) not in READERS:
            raise ValueError(f"{file}: rows are read from {', '.join(READERS)}")
    return [str(file.resolve()) for file in files]


def stamps(files):
    """[name, size in bytes, modification time in ns] of each file, to detect changes."""
    return [[file, os.stat(file).st_size, os.stat(file).st_mtime_ns] for file in files]


def prepare(output, settings):
    """Create the output folder, or check that an existing one was begun with the same settings; else ValueError."""
    told = output / HIDDEN / SETTINGS
    if output.exists() and not output.is_dir():
        raise ValueError(f"output {output} is a file: name a folder")
    if not told.exists():
        if output.is_dir() and any(file.name != HIDDEN for file in output.iterdir()):
            raise ValueError(f"output {output} holds other files: name a new folder, or an empty one")
        told.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(told, told.parent) as target:
            target.write(as_json(settings))
        return
    try:
        before = json.loads(told.read_bytes())
    except ValueError as error:
        raise ValueError(f"{told} is damaged ({error}): name another output") from error
    for name, value in settings.items():
        if before.get(name) != value:
            was = (
                "the input was another, or was changed since" if name == "files" else f"{name} was {before.get(name)!r}"
            )
            raise ValueError(f"output {output} was begun with other settings ({was}): give the same, or a new folder")


def result_file(output, part, format):
    return output / f"part-{part.first:012}.{format}"


def bad_file(output, part):
    return output / HIDDEN / f"part-{part.first:012}.bad.jsonl"


def counted_try(output, part):
    """Count an attempt at a part and return the count; raises after TRIES, because Ray restarts workers for ever."""
    with open(output / HIDDEN / f"part-{part.first:012}.tries", "ab") as file:
        file.write(b".")
        if file.tell() > TRIES:
            raise ChildProcessError(f"its worker died {TRIES} times; try fewer workers, or a smaller memory_budget")
        return file.tell()


def tidy(output):
    """Remove unfinished files and counts of attempts."""
    for file in (output / HIDDEN).iterdir():
        if file.suffix in (".tmp", ".tries"):
            file.unlink(missing_ok=True)


def summary(output, parts, format, before, run):
    """Collect the bad rows in one file, count rows, and return the Done."""
    bad = 0
    with whole_file(output / BAD, output / HIDDEN) as target:
        for part in parts:
            if (file := bad_file(output, part)).exists():
                lines = file.read_bytes()
                bad += lines.count(b"\n")
                target.write(lines)
    if not bad:
        (output / BAD).unlink()
    total, files = sum(part.count for part in parts), [result_file(output, part, format) for part in parts]
    return Done(total - bad, bad, before, run.repeated, files, output / BAD if bad else None, run.workers)


class Run:
    """Counts of one call of `classify_dataset`, updated with each finished part."""

    def __init__(self):
        self.repeated, self.workers = 0, {}

    def count(self, report):
        self.repeated += report["tries"] > 1
        own = self.workers.setdefault(report["worker"], {"rows": 0, "growth": None})
        own["rows"] += report["rows"]
        own["growth"] = max(own["growth"] or 0, report["growth"] or 0) or None
        own["proportional"] = report["proportional"]


# --------------------------------------------------------------------------------------------------------- the workers


class Worker:
    """A classifier in its own process, which reads, classifies and writes parts."""

    def __init__(self, model, work, threads):
        self.work, self.output = work, Path(work["output"])
        with in_threads(threads, model["checkpoint"]):
            self.classify = ZeroShotClassifier(**model, precision=work["precision"])

    def __call__(self, part):
        """Process a part; returns a report as a row for Ray, in which "error" holds an OSError's message."""
        part = Part(**part)
        report = {"rows": part.count, "tries": 0, "error": "", "warning": "", "worker": f"{node()}-{os.getpid()}"}
        if not result_file(self.output, part, self.work["format"]).exists():  # it exists if Ray repeats a task
            try:
                report["tries"] = counted_try(self.output, part)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    self.write(part)
                report["warning"] = str(caught[0].message) if caught else ""
            except OSError as error:
                report |= {"rows": 0, "error": f"rows {part.row + 1:,} and on of {part.file}: {error}"}
        return report | {"growth": self.classify.plan.measured, "proportional": proportional("self")}

    def write(self, part):
        """Write a part's results and bad rows. The result file is renamed last, because it marks the part as done."""
        format, hidden, bad_rows = self.work["format"], self.output / HIDDEN, bad_file(self.output, part)
        with (
            whole_file(result_file(self.output, part, format), hidden) as target,
            whole_file(bad_rows, hidden) as bad,
            FORMAT[format](target) as good,
        ):
            for position, (row, answer) in enumerate(self.answers(part), part.first):
                if isinstance(answer, Exception):
                    place = {"position": position, "file": part.file, "row": row.number}
                    bad.write(as_json(place | {"error": reason(answer)}))
                else:
                    good.write({"position": position, **row.kept, **answer})
        if not bad_rows.stat().st_size:
            bad_rows.unlink()

    def answers(self, part):
        """Yield (row, its result or error) of a part, in order; OSError if the file's number of rows has changed."""
        work, count = self.work, 0
        options = {"multi_label": work["multi_label"], "long_texts": work["long_texts"]}
        rows = read(part, work["text"])
        for answer in self.classify.answers(rows, work["labels"], work["hypothesis_template"], **options):
            count += 1
            yield answer
        if count != part.count:
            raise OSError(f"it had {part.count} rows here and has {count} now: it was changed")


@contextmanager
def in_threads(threads, checkpoint):
    """Inside this context, a classifier that is made gets that many threads. torch keeps them for the whole process."""
    if not is_export(checkpoint):
        import torch

        torch.set_num_threads(threads)
        yield
        return
    name = "OMP_NUM_THREADS"
    before, os.environ[name] = os.environ.get(name), str(threads)
    try:
        yield
    finally:
        del os.environ[name]
        os.environ |= {} if before is None else {name: before}


FORMAT = {"jsonl": JsonLinesFile, "parquet": ParquetFile}


def node():
    """The first 8 characters of this machine's node id in the Ray cluster."""
    import ray

    return ray.get_runtime_context().get_node_id()[:8]


# ------------------------------------------------------------------------------------------------------------- through


def through_ray(parts, model, work, workers, address):
    """Yield the report of each part, as workers finish it."""
    if not parts:
        return
    ray = import_ray()
    with cluster(address):
        cpus = ray.cluster_resources().get("CPU", 1)
        workers = min(workers or int(cpus), len(parts))
        arguments = {"model": model, "work": work, "threads": max(1, int(cpus // workers))}
        done = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=min(len(parts), BLOCKS)).map(
            Worker, fn_constructor_kwargs=arguments, compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=min(1, cpus / workers),
        )  # fmt: skip
        try:
            for report in done.iter_rows():
                if report["error"]:
                    raise OSError(f"{report['error']}. What is written stays: call again to go on")
                if report["warning"]:
                    warnings.warn(translated(report["warning"]), stacklevel=3)
                yield report
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"workers failed: {error}\nWhat is written stays: call again to go on") from error


def import_ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage data is sent
    try:
        import ray.data
    except ImportError as error:
        raise ImportError("classify_dataset runs on Ray Data: pip install 'zsc-utils[scale]'") from error
    return ray


@contextmanager
def cluster(address=None):
    """Inside the with block, use a running Ray, or the one at `address` or RAY_ADDRESS, or start a local one."""
    ray = import_ray()
    started = not ray.is_initialized()
    if address and not started:
        raise ValueError(
            f"address {address!r}: Ray is running in this process already; leave it out, or ray.shutdown()"
        )
    if started:
        address = address or os.environ.get("RAY_ADDRESS")
        local = dict(
            include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, _node_ip_address="127.0.0.1",
            _system_config=ON_DEMAND,
        )  # fmt: skip
        with quiet_core():
            ray.init(address or "local", log_to_driver=False, logging_level="error", **({} if address else local))
    context = ray.data.DataContext.get_current()
    shown, context.enable_progress_bars = context.enable_progress_bars, False  # we show our own
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        context.enable_progress_bars = shown
        if started:
            ray.shutdown()


@contextmanager
def quiet_core():
    """Inside the with block, discard stderr while Ray starts: its C++ core writes messages there that no option turns
    off, such as one for each worker. Errors are still raised."""
    kept, name = os.dup(2), "RAY_BACKEND_LOG_LEVEL"
    given = os.environ.get(name)
    os.environ.setdefault(name, "fatal")
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if given is None:
            del os.environ[name]
