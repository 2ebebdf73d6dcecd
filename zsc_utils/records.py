"""Rows of files: lines, JSONL, CSV and Parquet; each a text to classify, or the reason why there is none.

Files are cut into parts that can be read by themselves, wherever rows begin, without reading what comes before.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zsc_utils._text import Row


@dataclass(frozen=True)
class Part:
    """So many rows of one file: `first` is the place of its first row in the whole input, `row` in the file, both from
    0; `start` is where to read, the byte in a file of lines, the row group in a Parquet file."""

    file: str
    first: int
    row: int
    count: int
    start: int


def cut(files: Iterable[str], rows: int, text: str) -> Iterator[Part]:
    """The Parts of these files, in order, of at most so many rows; raises ValueError for a file without that column."""
    first = 0
    for file in files:
        reader, row = READERS[Path(file).suffix](file), 0
        reader.check(text)
        for start, count in reader.cut(rows):
            yield Part(file, first, row, count, start)
            first, row = first + count, row + count


def read(part: Part, text: str) -> Iterator[Row]:
    """The Row of each row in a part, `text` being the name of the column; `number` is that in the file."""
    return READERS[Path(part.file).suffix](part.file).read(part, text)


# -------------------------------------------------------------------------------------------------------------- a row


def read_line(number: int, raw: bytes, name: str | None = None) -> Row:
    """The Row in the bytes of a line: a text or, with the `name` of a field, JSON."""
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        record = text if name is None else json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # those of decoding and of JSON are ValueErrors
        return Row(number, error=error)
    return read_record(number, record, name, "of this line")


def read_record(number: int, record: object, name: str | None, where: str = "of this row") -> Row:
    """The Row of a text, or of a dict with the text under `name` and perhaps an "id", which is kept.

    Whether the text is one that can be classified is asked later, at the one door for texts.
    """
    if not isinstance(record, dict):
        return Row(number, record, where=where)
    kept = {"id": record["id"]} if "id" in record else {}
    try:
        if name not in record:
            raise ValueError(f"the record has no field {name!r}")
        as_json(kept)  # raises for half a character
    except (ValueError, RecursionError) as error:
        return Row(number, error=error)
    return Row(number, record[name], kept=kept, where=where)


def reason(error: Exception) -> str:
    """Why a row has no result, in words: what was wrong with it, or the kind of error and what it said."""
    return str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"


def refuse(constant):
    """NaN and its like, which Python reads and nobody else."""
    raise ValueError(f"{constant} is no JSON")


def as_json(result: dict) -> bytes:
    """A result as a line of JSON."""
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


# ------------------------------------------------------------------------------------------------------------- formats


class JsonLines:
    """Rows of a JSONL file, each a line with a string or an object."""

    def __init__(self, file):
        self.file = file

    def check(self, name):
        """Whether records have the field shows when they are read."""

    def cut(self, rows):
        """(start, count) of parts of so many rows."""
        with open(self.file, "rb") as lines:
            yield from spans(accumulated(lines), 0, rows)

    def read(self, part, name):
        with open(self.file, "rb") as lines:
            lines.seek(part.start)
            for number, line in enumerate(islice(lines, part.count), part.row + 1):
                yield read_line(number, line, name)


class Csv:
    """Rows of a CSV file in UTF-8 with a header; a row may hold line breaks within quotes, a blank line is none."""

    def __init__(self, file):
        self.file = file
        with open(file, "rb") as lines:
            fields, self.start = next(csv_rows(lines, 0), ([], 0))
        try:
            self.header = [decoded(name).removeprefix("\ufeff") for name in fields]
        except (UnicodeDecodeError, TypeError) as error:  # TypeError: there is an error in place of fields
            raise ValueError(f"{file}: its first line names no columns in UTF-8 ({error})") from error

    def check(self, name):
        if name not in self.header:
            raise ValueError(f"{self.file} has no column {name!r}: it has {', '.join(self.header) or 'none'}")

    def cut(self, rows):
        with open(self.file, "rb") as lines:
            lines.seek(self.start)
            yield from spans((end for _, end in csv_rows(lines, self.start)), self.start, rows)

    def read(self, part, name):
        with open(self.file, "rb") as lines:
            lines.seek(part.start)
            for number, (fields, _) in enumerate(islice(csv_rows(lines, part.start), part.count), part.row + 1):
                yield self.row(number, fields, name)

    def row(self, number, fields, name):
        if isinstance(fields, csv.Error):
            return Row(number, error=ValueError(f"no CSV: {fields}"))
        try:
            record = {column: decoded(value) for column, value in zip(self.header, fields) if column in (name, "id")}
        except UnicodeDecodeError as error:
            return Row(number, error=error)
        return read_record(number, record, name)


class Parquet:
    """Rows of a Parquet file; a part lies within one row group."""

    def __init__(self, file):
        from pyarrow import ArrowException, parquet

        try:
            self.file, self.parquet = file, parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        except ArrowException as error:
            raise ValueError(f"{file} is no Parquet file: {error}") from error
        self.groups = [self.parquet.metadata.row_group(i).num_rows for i in range(self.parquet.num_row_groups)]

    def check(self, name):
        names = self.parquet.schema_arrow.names
        if name not in names:
            raise ValueError(f"{self.file} has no column {name!r}: it has {', '.join(names) or 'none'}")

    def cut(self, rows):
        for group, total in enumerate(self.groups):
            for start in range(0, total, rows):
                yield group, min(rows, total - start)

    def read(self, part, name):
        columns = [column for column in (name, "id") if column in self.parquet.schema_arrow.names]
        skip, number = part.row - sum(self.groups[: part.start]), part.row
        for batch in self.parquet.iter_batches(row_groups=[part.start], columns=columns):
            for record in batch.slice(min(skip, len(batch)), part.row + part.count - number).to_pylist():
                number += 1
                yield read_record(number, storable(record), name)
            if number == part.row + part.count:
                return
            skip = max(0, skip - len(batch))


READERS = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}


def spans(ends, start, rows):
    """(start, count) of parts of so many rows, from the byte behind each row."""
    count = 0
    for end in ends:
        count += 1
        if count == rows:
            yield start, count
            start, count = end, 0
    if count:
        yield start, count


def accumulated(lines):
    """The byte behind each line."""
    end = 0
    for line in lines:
        end += len(line)
        yield end


def csv_rows(lines, end):
    """(its fields or the csv.Error, the byte behind it) of each row, for lines that begin at byte `end`.

    Bytes are read as Latin-1, which has a character for each, so that a row that is no UTF-8 spoils no other.
    """

    def fed():
        nonlocal end
        for line in lines:
            end += len(line)
            yield line.decode("latin-1")

    rows = csv.reader(fed())
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            fields = error
        if fields:
            yield fields, end


def decoded(value):
    """A field as it was meant, of one that was read as Latin-1."""
    return value.encode("latin-1").decode("utf-8")


def storable(record):
    """A record of Parquet with an "id" that JSON knows; a date, for example, becomes its text."""
    kept = record.get("id")
    return record if kept is None or isinstance(kept, str | int) else record | {"id": str(kept)}
