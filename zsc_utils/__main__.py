"""The command line: `python -m zsc_utils classify` classifies a file of texts, `plan` predicts the memory it takes,
`export` writes a checkpoint that needs no torch, `evaluate` counts right answers for texts whose labels are known."""

import argparse
import json
import os
import sys
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from zsc_utils._checkpoint_commands import EXPORT, PLAN, add_export, add_plan
from zsc_utils._encodings import UTF_8
from zsc_utils._groups import names_of
from zsc_utils._help import Formatter, Parser, told_error
from zsc_utils._results import CsvFile, JsonLinesFile, ParquetFile, remove_unfinished, whole_file
from zsc_utils._text import DEFAULT_TEMPLATE, check_labels, default_name
from zsc_utils._types import Precision
from zsc_utils.classifier import LONG_TEXTS, ZeroShotClassifier
from zsc_utils.language import translated
from zsc_utils.records import ending, pyarrow_for, reader, reason

BAD_LINES, WRONG_USE, INTERRUPTED = 1, 2, 130  # exit statuses

DESCRIPTION = """Zero-shot classification of Chinese text in little memory.

  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 300MB --output results.jsonl
  python -m zsc_utils plan --budget 300MB --length 256 --labels 12
  python -m zsc_utils export mini-int8 --checkpoint mini --precision int8
  python -m zsc_utils evaluate labelled.csv --text 内容 --label 类别 --compare fp32,int8
"""
CLASSIFY = """Classify each text of a file: one result each comes out, in the order of the input.

What is read, by the ending of FILE:
  .jsonl          a JSON string or object a line, with the text in the field "text"; also with --jsonl
  .csv, .parquet  a row a text, in the column "text"; a CSV has a header
  any other       a text a line; "-" reads lines from standard input
--field names another field or column. Lines, JSONL and CSV are UTF-8, GB18030 (GBK) or Big5 as Chinese Excel and WPS
write them, or UTF-16 with a byte order mark: the file's bytes decide, and what is not UTF-8 is told. Standard input is
UTF-8.

What is written, by the ending of --output:
  .csv      for Excel: line or row, id, sequence, label (the best), score, each label's score, error
  .parquet  line or row, id, sequence, labels, scores, error
  other     JSONL: {"line", "sequence", "labels", "scores"}, best label first; of a table "row" instead of "line"
--labels names the labels, or a .json file that holds a list of them, descriptions {"label": "description"}, or groups
{"group": ["label", "label"]}. The groups are scored first, then the labels of the best one; JSONL has the "group" too.

The "id" of a record or row is kept. A text without an answer - empty, broken JSON, no UTF-8 - gives its number and
"error", is told on stderr, and the rest goes on. The exit status is 0 if every text has a result, 1 if one has none or
the work broke off, 2 if it could not begin.

A run that was interrupted goes on where it stopped: the same command with --resume, for JSONL only. The results are the
same. That labels and texts are the same is checked; a template, a precision or a checkpoint must be kept the same by
you. CSV and Parquet appear when they are whole.

  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 150MB --output results.jsonl
  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 150MB --output results.jsonl --resume
  python -m zsc_utils classify reviews.csv --field review --labels 好评,差评 --output results.csv
  cat reviews.jsonl | python -m zsc_utils classify - --jsonl --field review --labels 好评,差评 | head
"""
EVALUATE = """Classify texts whose labels are known, and print accuracy, macro F1, figures of each label, confusions,
time and memory. Do this with your own texts before you rely on a checkpoint, a precision or a template.

FILE is a .csv, .jsonl or .parquet file with a column of texts and a column of labels. The labels to choose from are
those that occur in it; --labels names others. --compare runs several ways on the same texts: fp32, bf16, fp16 and int8,
and folders of exports, each also with " streamed" (layers stay in their file). Each runs in a process of its own, and
all are compared with the first. --checkpoint may be an export too. --chart draws the confusion matrix of the first.

A row without a text, or without one of the labels, is left out and told on stderr. The exit status is 0 if every row
is evaluated, 1 if some are left out or the work broke off, 2 if it could not begin.

  python -m zsc_utils evaluate labelled.csv --text 内容 --label 类别
  python -m zsc_utils evaluate labelled.csv --compare fp32,int8,"int8 streamed" --chart confusions.png
  python -m zsc_utils evaluate labelled.csv --compare fp32,mini-int8  # after: zsc export mini-int8 --precision int8
"""


def main(arguments=None):
    """Run the command and return its exit status."""
    arguments = parser().parse_args(arguments)
    if sys.stderr is None:  # closed; else messages would go to the next file that is opened
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        status = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error can still be reported
        return status
    except KeyboardInterrupt:
        return told(translated("interrupted"), INTERRUPTED)
    except (ValueError, TypeError, ImportError) as error:  # includes CheckpointError; ImportError: of pyarrow
        return told(told_error(error).replace("allow_lossy=True", "--allow-lossy"), WRONG_USE)
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        close_output()
        return 0
    except OSError as error:
        close_output()
        return told(told_error(error), BAD_LINES)


def told(message, status):
    print(message, file=sys.stderr)
    return status


def close_output():
    """Close standard output if it cannot be written; else Python would flush it at exit and print an error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()


def parser():
    """The parser of the command line."""
    whole = Parser(prog="python -m zsc_utils", description=DESCRIPTION, formatter_class=Formatter)
    commands = whole.add_subparsers(required=True, metavar="classify | plan | export | evaluate")
    model = argparse.ArgumentParser(add_help=False)
    name = "mini, base-shape, a folder or a ModelScope id (default: $ZSC_CHECKPOINT, or mini)"
    model.add_argument("--checkpoint", default=default_name(), metavar="NAME", help=name)
    model.add_argument("--budget", metavar="SIZE", help="what the process may grow by, as 300MB")
    model.add_argument("--allow-lossy", action="store_true", help="let the budget pull int8, which changes scores")
    model.add_argument(
        "--precision", choices=get_args(Precision), help="by hand, instead of what the checkpoint is stored in"
    )
    model.add_argument("--offload", action="store_true", default=None, help="by hand: layers stay in their file")
    style = dict(formatter_class=Formatter)
    text = dict(parents=[model], **style)
    add_classify(commands.add_parser("classify", description=CLASSIFY, help="texts in, results out", **text))
    add_plan(commands.add_parser("plan", description=PLAN, help="the bill of a budget, before anything runs", **text))
    add_export(commands.add_parser("export", description=EXPORT, help="for use without torch", **style))
    add_evaluate(commands.add_parser("evaluate", description=EVALUATE, help="right answers", **style))
    return whole


def add_classify(command):
    command.set_defaults(run=classify)
    command.add_argument("file", metavar="FILE", help="texts: lines, .jsonl, .csv or .parquet; - for standard input")
    command.add_argument("--labels", required=True, metavar="A,B", help="separated by , or ，; or a .json file")
    template = "a hypothesis with {} for the label (default: {})"
    command.add_argument("--template", default=DEFAULT_TEMPLATE, help=template)
    command.add_argument("--multi-label", action="store_true", help="each label for itself: scores do not sum to 1")
    too_long = "what becomes of texts that are too long: cut, or read in windows (default: cut)"
    command.add_argument("--long-texts", default="cut", choices=LONG_TEXTS, help=too_long)
    command.add_argument(
        "--jsonl", action="store_true", help="lines are JSON, whatever the file's name; not for tables"
    )
    command.add_argument("--field", default="text", metavar="NAME", help="field or column of the text (default: text)")
    written = "where results go: .csv, .parquet, or else JSONL (default: standard output)"
    command.add_argument("--output", type=Path, metavar="FILE", help=written)
    command.add_argument("--resume", action="store_true", help="go on after the last whole line of --output, JSONL")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


# ------------------------------------------------------------------------------------------------------------ classify


def classify(arguments):
    """Classify the texts of a file and return the exit status."""
    given = labels_of(arguments.labels)
    labels = names_of(given)
    source = source_of(arguments)
    if not arguments.output and sys.stdout is None:
        raise ValueError("standard output is closed: name a file with --output")
    check_output(arguments, source, labels)
    before = read_output(arguments, source.key, labels)
    if source.encoding != UTF_8:
        print(translated(f"{arguments.file} is read as {source.encoding.upper()}"), file=sys.stderr)
    classifier = ZeroShotClassifier(
        arguments.checkpoint, precision=arguments.precision, offload=arguments.offload,
        memory_budget=arguments.budget, allow_lossy=arguments.allow_lossy,
    )  # fmt: skip
    options = dict(multi_label=arguments.multi_label, long_texts=arguments.long_texts, progress=not arguments.quiet)
    rows = Counted(source, arguments, before)
    answers = classifier.answers(rows, given, arguments.template, start=before.lines, **options)
    with open_output(arguments, source, labels, before) as target:
        bad = sum(write(row, answer, target, source.key, arguments) for row, answer in answers)
    if rows.read < before.lines:
        raise ValueError(
            f"{arguments.file} has {rows.read} {source.key}s, {arguments.output} results of {before.lines}: no such run"
        )
    if bad:
        print(translated(f"{bad} of {rows.read - before.lines} {source.key}s have no result"), file=sys.stderr)
    return BAD_LINES if bad or before.bad else 0


def labels_of(given):
    """The labels of --labels: words, or the list or mapping in a JSON file; ValueError names a file that has none."""
    if ending(given) != ".json":
        return check_labels(given)
    try:
        labels = json.loads(Path(given).read_text("utf-8-sig"), object_pairs_hook=unrepeated)
    except OSError as error:
        raise ValueError(f"--labels {given} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--labels {given} holds no labels as JSON in UTF-8: {error}") from error
    if not isinstance(labels, list | dict):
        raise ValueError(f"--labels {given} holds {labels!r}: a list or an object is needed")
    return labels


def unrepeated(pairs):
    """A JSON object as a dict; ValueError for a name that is there twice, of which Python keeps the last."""
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"{name!r} is there twice")
        seen.add(name)
    return dict(pairs)


def source_of(arguments):
    """The reader of the input, which has the column of the texts; ValueError for what cannot be read."""
    if arguments.file == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed: name a file")
        return reader(sys.stdin.buffer, jsonl=arguments.jsonl)
    if not Path(arguments.file).exists() or Path(arguments.file).is_dir():
        raise ValueError(f"{arguments.file}: no such file")
    source = reader(arguments.file, jsonl=arguments.jsonl)
    if arguments.jsonl and source.key == "row":
        raise ValueError(f"--jsonl: {arguments.file} is a table by its name; leave --jsonl out, or rename the file")
    try:
        source.check(arguments.field)
    except ValueError as error:
        raise ValueError(f"{error}; name the texts' column with --field") from error
    return source


class Counted:
    """The Rows of a source; `read` counts them. ValueError if the last one done `before` has changed."""

    def __init__(self, source, arguments, before):
        self.source, self.arguments, self.before, self.read = source, arguments, before, 0

    def __iter__(self):
        for row in self.source.rows(self.arguments.field):
            self.read = number = row.number
            if number == self.before.lines and self.before.last.get("sequence", row.text) != row.text:
                what = f"{self.source.key} {number} of {self.arguments.file}"
                raise ValueError(f"{what} is another than when its result was written")
            yield row

    def __length_hint__(self):
        """The number of rows, for the progress bar; 0 for an input that cannot be read twice."""
        if not Path(self.arguments.file).is_file():
            return 0
        return sum(count for _, count in self.source.cut(sys.maxsize))


def write(row, answer, target, key, arguments):
    """Write a row's result and flush; print its error, if any, on stderr. Returns whether the row has an error."""
    failed = isinstance(answer, Exception)
    if failed:
        tqdm.write(translated(f"{key} {row.number}: {reason(answer)}"), file=sys.stderr)
    try:
        target.write({key: row.number, **row.kept, **({"error": reason(answer)} if failed else answer)})
        target.flush()
    except BrokenPipeError:
        raise
    except OSError as raised:
        more = "; make room, then go on with --resume" if arguments.output and not is_table(arguments.output) else ""
        raise OSError(f"result of {key} {row.number} cannot be written: {raised}{more}") from raised
    return failed


# -------------------------------------------------------------------------------------------------------------- output


@dataclass
class Output:
    """The contents of an output file: complete lines, `bad` lines without a result, `size` in bytes, last result."""

    lines: int = 0
    bad: int = 0
    size: int = 0
    last: dict = field(default_factory=dict)


def is_table(output):
    """Whether results go to a CSV or Parquet file, which appears when it is whole."""
    return ending(output or "") in (".csv", ".parquet")


def check_output(arguments, source, labels):
    """Raise for an output in CSV or Parquet that cannot be written like that, before any work."""
    output = arguments.output
    if not is_table(output):
        return
    if arguments.resume:
        raise ValueError(f"--resume goes on with JSONL only: {output} is always written whole, so leave --resume out")
    if ending(output) == ".parquet":
        pyarrow_for(output)
    else:
        CsvFile.columns(source.key, labels, has_ids(source))


def has_ids(source):
    """Whether results may have an "id": that of a column, or of JSON's objects, which are not known before."""
    return "id" in source.columns if source.key == "row" else source.is_json


def read_output(arguments, key, labels):
    """Read the Output to resume from; it is empty for a new run. `key` is that of a result's number.

    Raises ValueError for an output that exists without --resume, or holds anything but results for `labels`.
    """
    if arguments.resume and not arguments.output:
        raise ValueError("--resume goes on with the file of --output: name it")
    found = Output()
    if not arguments.output or not arguments.output.exists():
        return found
    if not arguments.output.is_file():
        raise ValueError(f"{arguments.output} is no file: results go to a file, or to standard output")
    if not arguments.resume:
        way = "give another name" if is_table(arguments.output) else "give --resume to go on with it, or another name"
        raise ValueError(f"{arguments.output} exists: {way}")
    with arguments.output.open("rb") as file:
        for line in file:
            number, whole = found.lines + 1, line.endswith(b"\n")
            begins = b'{"%s": %d, "' % (key.encode(), number)
            result = result_of_line(line, key, number, labels) if whole else None
            if result is None and (whole or line[: len(begins)] != begins[: len(line)]):
                raise ValueError(f"{arguments.output}: line {number} is no result for these labels; give another name")
            if whole:
                bad = found.bad + ("error" in result)
                found = Output(number, bad, found.size + len(line), result)
    return found


def result_of_line(line, key, number, labels):
    """The result in a line of output; None if it is not a result, or has another number or other labels."""
    try:
        result = json.loads(line)
        of_labels = "error" in result or sorted(result["labels"] + result.get("left_out", [])) == sorted(labels)
        return result if result[key] == number and of_labels else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def open_output(arguments, source, labels, before):
    """Yield a writer of results: of CSV or Parquet by the output's name, or else of JSONL, after earlier results."""
    if not is_table(arguments.output):
        with open_lines(arguments, before) as target:
            yield JsonLinesFile(target)
        return
    with ExitStack() as stack:
        try:
            remove_unfinished(arguments.output)
            target = stack.enter_context(whole_file(arguments.output, arguments.output.parent))
        except OSError as error:
            raise ValueError(f"{arguments.output} cannot be written: {error}") from error
        if ending(arguments.output) == ".csv":
            yield stack.enter_context(CsvFile(target, source.key, labels, has_ids(source)))
        else:
            yield stack.enter_context(ParquetFile(target, source.key, errors=True))


@contextmanager
def open_lines(arguments, before):
    """Yield the output as a binary file, positioned after earlier results; standard output if no file is named."""
    if not arguments.output:
        yield sys.stdout.buffer
        return
    try:
        target = open(arguments.output, "ab")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"{arguments.output} cannot be written: {error}") from error
    try:
        target.truncate(before.size)  # removes an incomplete last line
        yield target
    except BaseException:
        with suppress(OSError):  # closing tries to write again; the first error was reported
            target.close()
        raise
    target.close()


# ------------------------------------------------------------------------------------------------------------ evaluate


def add_evaluate(command):
    command.set_defaults(run=evaluate)
    command.add_argument("file", metavar="FILE", help="labelled texts: .csv, .jsonl or .parquet")
    command.add_argument("--text", default="text", metavar="COLUMN", help="the column of texts (default: text)")
    command.add_argument("--label", default="label", metavar="COLUMN", help="the column of labels (default: label)")
    command.add_argument("--labels", metavar="A,B", help="or a .json file with a list (default: those in FILE)")
    ways = "such as fp32,int8, or folders of exports (default: the checkpoint's precision)"
    command.add_argument("--compare", metavar="WAYS", help=ways)
    name = "mini, base-shape, a folder or a ModelScope id (default: $ZSC_CHECKPOINT, or mini)"
    command.add_argument("--checkpoint", default=default_name(), metavar="NAME", help=name)
    template = "a hypothesis with {} for the label (default: {})"
    command.add_argument("--template", default=DEFAULT_TEMPLATE, help=template)
    command.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the confusion matrix into this file")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def evaluate(arguments):
    """Print the evaluation of a labelled file, draw its chart, and return the exit status."""
    from zsc_utils import evaluation  # only here: it takes time
    from zsc_utils._process import ChildError

    if arguments.chart is not None:
        evaluation.check_chart(arguments.chart)
    labels = None if arguments.labels is None else labels_of(arguments.labels)
    try:
        found = evaluation.evaluate(
            arguments.file, labels, checkpoint=arguments.checkpoint, text=arguments.text,
            label=arguments.label, hypothesis_template=arguments.template, compare=arguments.compare,
            progress=not arguments.quiet,
        )  # fmt: skip
    except ChildError as error:
        return told(told_error(error), BAD_LINES)
    for bad in found.bad:
        print(translated(f"row {bad.row}: {bad.reason}"), file=sys.stderr)
    print(found)
    if arguments.chart is not None:
        found.save_chart(arguments.chart)
    return BAD_LINES if found.bad else 0


def command():
    """The shell's entry point: print each warning on one line, and exit with the status of `main`."""
    warnings.formatwarning = lambda message, *_, **__: translated(f"warning: {message}") + "\n"
    sys.exit(main())


if __name__ == "__main__":
    command()
