"""The command: `python -m zsc_utils classify` for files of texts, `python -m zsc_utils plan` for the bill before."""

import argparse
import json
import sys
import warnings
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from zsc_utils import batching, inference, memory
from zsc_utils import checkpoint as door
from zsc_utils import plan as planning
from zsc_utils.classifier import LONG_TEXTS, ZeroShotClassifier, check_labels, check_text

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
BAD_LINES, WRONG_USE, INTERRUPTED = 1, 2, 130  # exit statuses

DESCRIPTION = """Zero-shot classification of Chinese text in little memory.

  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 300MB --output results.jsonl
  python -m zsc_utils plan --budget 300MB --length 256 --labels 12
"""
CLASSIFY = """Classify each line of a file: one JSON object a line comes out, in the order of the input.

FILE holds a text a line or, if its name ends in .jsonl or --jsonl is given, a JSON string or object a line, with the
text in the field "text" (--field names another). "-" reads from standard input.

A result is {"line", "sequence", "labels", "scores"}, best label first, with the "id" of the record if it has one. A
line without an answer - empty, broken JSON, no UTF-8 - gives {"line", "error"}, is told on stderr, and the rest goes
on. The exit status is 0 if every line has a result, 1 if one has none or the work broke off, 2 if it could not begin.

A run that was interrupted goes on where it stopped: the same command with --resume. The results are the same.

  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 150MB --output results.jsonl
  python -m zsc_utils classify news.txt --labels 财经,体育 --budget 150MB --output results.jsonl --resume
  cat reviews.jsonl | python -m zsc_utils classify - --jsonl --field review --labels 好评,差评 | head
"""
PLAN = """Print what a budget buys: the levers that would be chosen, and what each part of the bill takes, in bytes that
are predicted. No weights are loaded. With --length and --labels also what one such text takes.

  python -m zsc_utils plan --checkpoint base-shape --budget 150MB
  python -m zsc_utils plan --checkpoint base-shape --precision int8 --length 256 --labels 12
"""


def main(arguments=None):
    """Run the command; returns its exit status."""
    given = parser().parse_args(arguments)
    try:
        return given.run(given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError) as error:  # CheckpointError is one
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    except BrokenPipeError:  # whoever read the results has enough, as `head` does
        with suppress(OSError):
            sys.stdout.close()
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_LINES


def parser():
    """What the command line takes."""
    whole = argparse.ArgumentParser(
        prog="python -m zsc_utils", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(required=True, metavar="classify | plan")
    model = argparse.ArgumentParser(add_help=False)
    name = "mini, base-shape, a folder or a ModelScope id (default: $ZSC_CHECKPOINT, or mini)"
    model.add_argument("--checkpoint", default=door.default_name(), metavar="NAME", help=name)
    model.add_argument("--budget", metavar="SIZE", help="what the process may grow by, as 300MB")
    model.add_argument("--allow-lossy", action="store_true", help="let the budget pull int8, which changes scores")
    model.add_argument("--precision", choices=PRECISIONS, help="by hand, instead of what the checkpoint is stored in")
    model.add_argument("--offload", action="store_true", default=None, help="by hand: layers stay in their file")
    text = dict(parents=[model], formatter_class=argparse.RawDescriptionHelpFormatter)
    add_classify(commands.add_parser("classify", description=CLASSIFY, help="texts in, JSONL out", **text))
    add_plan(commands.add_parser("plan", description=PLAN, help="the bill of a budget, before anything runs", **text))
    return whole


def add_classify(command):
    command.set_defaults(run=classify)
    command.add_argument("file", metavar="FILE", help="texts, one a line; - for standard input")
    command.add_argument("--labels", required=True, metavar="A,B", help="separated by , or ，")
    command.add_argument("--template", default="{}", help="a hypothesis with {} for the label (default: {})")
    command.add_argument("--multi-label", action="store_true", help="each label for itself: scores do not sum to 1")
    too_long = "what becomes of texts that are too long: cut, or read in windows (default: cut)"
    command.add_argument("--long-texts", default="cut", choices=LONG_TEXTS, help=too_long)
    command.add_argument("--jsonl", action="store_true", help="lines are JSON, whatever the file's name")
    command.add_argument("--field", default="text", metavar="NAME", help="of a record, where its text is")
    command.add_argument("--output", type=Path, metavar="FILE", help="where results go (default: standard output)")
    command.add_argument("--resume", action="store_true", help="go on after the last whole line of --output")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def add_plan(command):
    command.set_defaults(run=plan)
    command.add_argument("--length", type=int, metavar="TOKENS", help="of a text with a label")
    command.add_argument("--labels", type=int, metavar="COUNT", help="how many labels (with --length)")


# ------------------------------------------------------------------------------------------------------------ classify


@dataclass
class Line:
    """A line of the input, counted from 1; where there is nothing to classify, `text` is None and `error` says why."""

    number: int
    text: str | None = None
    error: str = ""
    given: dict = field(default_factory=dict)  # of its record, what goes into the result


def classify(given):
    """Classify the lines of a file; returns the exit status."""
    labels = check_labels(given.labels)
    if given.file != "-" and (not Path(given.file).exists() or Path(given.file).is_dir()):
        raise ValueError(f"{given.file}: no such file")
    last = last_result(given, labels)
    classifier = ZeroShotClassifier(
        given.checkpoint, precision=given.precision, offload=given.offload,
        memory_budget=given.budget, allow_lossy=given.allow_lossy,
    )  # fmt: skip
    start, bad, number = last.get("line", 0), 0, 0
    options = dict(multi_label=given.multi_label, long_texts=given.long_texts, start=start, progress=not given.quiet)
    with opened(given) as (source, target):
        lines = Lines(source, given, last)
        for result in classifier.stream(lines, labels, given.template, **options):
            line = lines.waiting.popleft()
            number, error = line.number, line.error or result.get("error")
            if error:
                bad += 1
                tqdm.write(f"line {number}: {error}", file=sys.stderr)
            found = {"error": error} if error else result
            write(target, {"line": number, **line.given, **found}, given)
    if bad:
        print(f"{bad} of {number - start} lines have no result", file=sys.stderr)
    return BAD_LINES if bad else 0


class Lines:
    """The texts of a source line by line, for a classifier's stream, which reads ahead; `waiting` has the Line of each
    that has no result yet. Lines that `last` shows to be done are read only."""

    def __init__(self, source, given, last):
        self.source, self.given, self.last, self.waiting = source, given, last, deque()

    def __iter__(self):
        is_json = self.given.jsonl or self.given.file.endswith(".jsonl")
        for number, raw in enumerate(self.source, 1):
            line = read_line(number, raw, self.given.field if is_json else None)
            done = self.last.get("line", 0)
            if number > done:
                self.waiting.append(line)
            elif number == done and self.last.get("sequence", line.text) != line.text:
                raise ValueError(f"line {number} of {self.given.file} is another than when its result was written")
            yield line.text

    def __length_hint__(self):
        """How many lines a file has, for the progress bar; 0 where it cannot be read twice."""
        if not Path(self.given.file).is_file():
            return 0
        with open(self.given.file, "rb") as lines:
            return sum(1 for _ in lines)


def read_line(number, raw, name=None):
    """The Line in these bytes: a text or, with the `name` of a field, JSON."""
    try:
        text, kept = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"), {}
        if name is not None:
            record = json.loads(text)
            text = record.get(name) if isinstance(record, dict) else record
            if isinstance(record, dict) and name not in record:
                raise ValueError(f"the record has no field {name!r}")
            kept = {"id": record["id"]} if isinstance(record, dict) and "id" in record else {}
        check_text(text, "of this line")
    except (ValueError, TypeError) as error:  # those of decoding and of JSON are ValueErrors
        return Line(number, error=str(error))
    return Line(number, text, given=kept)


@contextmanager
def opened(given):
    """(input, output) as binary files; the input is standard input for "-", the output standard output if not named."""
    source = nullcontext(sys.stdin.buffer) if given.file == "-" else open(given.file, "rb")  # noqa: SIM115
    target = open(given.output, "ab") if given.output else nullcontext(sys.stdout.buffer)  # noqa: SIM115
    with source as lines, target as results:
        yield lines, results


def write(target, result, given):
    """Write one result as a line, at once."""
    try:
        target.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")
        target.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        more = "; make room, then go on with --resume" if given.output else ""
        raise OSError(f"result of line {result['line']} cannot be written: {error}{more}") from error


def last_result(given, labels):
    """The last result that the output holds whole, {} where nothing is to be resumed; a line cut short is removed.

    Raises ValueError for an output that exists and is not resumed, or holds something else than results for `labels`.
    """
    if given.resume and not given.output:
        raise ValueError("--resume goes on with the file of --output: name it")
    if not given.output or not given.output.exists():
        return {}
    if not given.resume:
        raise ValueError(f"{given.output} exists: give --resume to go on with it, or another name")
    count, last, whole = 0, b"{}", 0
    with given.output.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                count, last, whole = count + 1, line, whole + len(line)
        if (result := as_result(last, count, labels)) is None:
            raise ValueError(f"{given.output}: line {count} is no result for these labels; give another name")
        file.truncate(whole)
    return result


def as_result(line, number, labels):
    """The result in a line of output; None if it is none, not the one of that `number`, or one for other labels."""
    try:
        result = json.loads(line)
        fits = result.get("line", 0) == number and sorted(result.get("labels", labels)) == sorted(labels)
    except (ValueError, AttributeError, TypeError):
        return None
    return result if fits else None


# ---------------------------------------------------------------------------------------------------------------- plan


def plan(given):
    """Print the plan of a budget and the bill of one text; returns the exit status."""
    if given.labels is not None and given.length is None:
        raise ValueError("--labels: give --length too, the tokens of a text with a label")
    chosen = planning.Chosen(given.precision, None, given.offload)
    made = planning.make(given.checkpoint, given.budget, given.allow_lossy, chosen=chosen)
    print(made)
    if given.length is not None:
        print(bill_of_a_text(made, given.length, 1 if given.labels is None else given.labels))
    return 0


def bill_of_a_text(made, length, labels):
    """What a text of `length` tokens with so many labels takes, planned and as one batch of transformers, in words."""
    config, rung = made.subject.config, made.rung
    longest = config.max_position_embeddings
    if not 1 <= length <= longest:
        raise ValueError(f"--length {length}: the model reads 1 to {longest} tokens")
    if labels < 1:
        raise ValueError(f"--labels {labels}: give 1 or more")
    batches = batching.token_budget_batches([length] * labels, rung.max_tokens, padded=False)
    options = dict(attention=rung.attention, dtype=planning.DTYPES[rung.precision])
    ours = inference.predict(
        config, [(len(batches[0]), length)], chunk=rung.chunk, int8=rung.precision == "int8", **options
    )
    whole = memory.predict(config, labels, length, **options)
    pairs = f"{labels} pair{'s' * (labels > 1)} of {length} tokens"
    rows = {
        "  activations of such a batch": ours.peak_activations,
        "  of all pairs in one batch through transformers' forward pass": whole.peak_activations,
    }
    many = f"{len(batches)} batch{'es' * (len(batches) > 1)} of at most {len(batches[0])}"
    return f"a text with {pairs}: {many}\n{planning.table(rows)}"


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(main())
