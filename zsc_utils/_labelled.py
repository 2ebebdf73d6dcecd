"""Texts whose labels are known, from a file or a list of dicts: each with its row, or the reason why it is left out."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from zsc_utils import records as files
from zsc_utils._text import Row, as_list, check_labels, check_text, visible

FORMATS = (".csv", ".jsonl", ".parquet")
NAMES_NOTHING = "\0"  # a field that no record has


class BadRow(NamedTuple):
    """A row that is left out, and why. Rows of a file count from 1, without the header; those of a list from 0."""

    row: int
    reason: str


@dataclass
class Labelled:
    """Rows with a text and a label: `good` is {row number: (text, label)}; the `bad` ones are left out."""

    labels: list[str]
    good: dict[int, tuple[str, str]]
    bad: list[BadRow]

    def check(self, records):
        """Raise if there is nothing to evaluate, or no choice between labels."""
        what = records if isinstance(records, str | os.PathLike) else "the list of records"
        if not self.good:
            why = "; ".join(f"row {row}: {reason}" for row, reason in self.bad[:3]) or "it has no rows"
            raise ValueError(f"{what} has nothing to evaluate: {why}")
        if len(self.labels) < 2:
            raise ValueError(f"{what}: {self.labels[0]!r} is the only label. Give labels, two or more to choose from")


def labelled(pairs, given):
    """Return the Labelled rows of (Row of the text, Row of the label) pairs, for the `given` labels or all of them."""
    spellings = {key_of(label): label for label in given or ()}
    good, bad = {}, []
    for text, label in pairs:
        try:
            good[text.number] = (text_of(text), label_of(label, spellings, given))
        except (ValueError, TypeError, RecursionError) as error:
            bad.append(BadRow(text.number, files.reason(error)))
    return Labelled(list(spellings.values()), good, bad)


def key_of(label):
    """A label without white space and unseen characters; labels that differ in nothing else are the same."""
    return "".join(visible(label).split())


def text_of(row):
    if row.error is not None:
        raise row.error
    return check_text(row.text, row.where)


def label_of(row, spellings, given):
    """Return the label of a row as it is spelt first, or in the `given` ones; raise if there is none, or another."""
    if row.error is not None:
        raise row.error
    label = row.text
    if label is None or label != label or (isinstance(label, str) and not key_of(label)):  # NaN is not itself
        raise ValueError("it has no label")
    if not isinstance(label, str):
        raise TypeError(f"its label is {label!r}, a {type(label).__name__}: labels are words that the model reads")
    check_labels([label])
    if given is None:
        return spellings.setdefault(key_of(label), label.strip())
    if key_of(label) not in spellings:
        raise ValueError(f"its label {label!r} is none of {', '.join(spellings.values())}")
    return spellings[key_of(label)]


def rows_of(records, text, label):
    """Return a list of (Row of the text, Row of the label); raise for a missing file or column."""
    if isinstance(records, str | os.PathLike):
        return rows_of_file(Path(records).expanduser(), text, label)
    several = as_list("records", records, "the path of a file, or a list of dicts such as df.to_dict('records')")
    for name in (text, label):
        check_field("the list of records", name, [record for record in several if isinstance(record, dict)])
    return [[row_of_dict(number, record, name) for name in (text, label)] for number, record in enumerate(several)]


def row_of_dict(number, record, name):
    if isinstance(record, dict):
        return files.read_record(number, record, name)
    return Row(number, error=TypeError(f"it is {record!r:.50}, a {type(record).__name__}: records are dicts"))


def rows_of_file(path, text, label):
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: labelled texts are read from {', '.join(FORMATS)}, by the end of the file's name")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    columns = [column(path, name) for name in (text, label)]
    if path.suffix != ".jsonl":
        return list(zip(*columns, strict=True))
    for name, rows in zip((text, label), columns):
        if all(row.error for row in rows):
            check_field(path, name, objects_of(path))
    strings = (row.error is None for row in column(path, NAMES_NOTHING))
    return [
        (Row(one.number, error=TypeError("it is no JSON object")), other) if is_string else (one, other)
        for one, other, is_string in zip(*columns, strings, strict=True)
    ]


def column(path, name):
    """Return the Rows of a file's column. It is read once for each column: a Row has room for one."""
    try:
        return [row for part in files.cut([str(path)], 2**20, name) for row in files.read(part, name)]
    except ImportError as error:
        raise ValueError(f"{path}: Parquet is read with pyarrow: pip install 'zsc-utils[scale]'") from error


def objects_of(path):
    """Return the JSON objects of the first lines."""
    found = []
    with open(path, "rb") as lines:
        for line in islice(lines, 100):
            with suppress(ValueError, RecursionError):  # a broken line is named when it is read
                found.append(json.loads(line))
    return [record for record in found if isinstance(record, dict)]


def check_field(what, name, records):
    """Raise if there are records, and none has a field of this name."""
    fields = dict.fromkeys(str(field) for record in records for field in record)
    if fields and name not in fields:
        raise ValueError(f"{what} has no field {name!r}: it has {', '.join(fields)}")
