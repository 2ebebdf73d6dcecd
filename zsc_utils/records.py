"""Read rows from text lines, JSONL, CSV and Parquet files: each row is a text to classify, or an error.

Files are cut into parts at row boundaries; a part can be read without reading what comes before it.
"""

import csv
import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from zsc_utils._encodings import UTF_8, decoded, encoding_of, lines_from
from zsc_utils._text import Row

CELL = 2**24  # bytes of a CSV cell, at most: what a quote that is never closed takes into memory
LIMIT = threading.Lock()  # csv's limit is one for the whole process: only one thread at a time sets it and puts it back


@dataclass(frozen=True)
class Part:
    """`count` consecutive rows of one file. The first row has position `first` in the whole input and `row` in the
    file, both counted from 0. Reading begins at `start`: a byte offset, or a Parquet file's row group. UTF-16 is read
    as UTF-8, and its offsets are those of the UTF-8."""

    file: str
    first: int
    row: int
    count: int
    start: int
    encoding: str = UTF_8


def reader(file: str | BinaryIO, encoding: str | None = None, jsonl: bool = False) -> "Lines | Csv | Parquet":
    """The reader of a file by its name's ending: JSONL, CSV, Parquet, or else lines of text. An open file has lines.

    The encoding is found from the file's bytes if it is not given; with `jsonl`, lines of text are JSON. ValueError for
    a table that is no regular file, has no header, or is no Parquet.
    """
    kind = READERS.get(ending(file), Lines) if isinstance(file, str) else Lines
    if isinstance(file, str) and kind in (Csv, Parquet) and os.path.exists(file) and not os.path.isfile(file):
        raise ValueError(f"{file} is no regular file: a table is not read from a pipe")
    return (JsonLines if jsonl and kind is Lines else kind)(file, encoding)


def ending(file: str | os.PathLike) -> str:
    """The ending of a file's name, in small letters."""
    return Path(file).suffix.lower()


def cut(files: Iterable[str], rows: int, text: str) -> Iterator[Part]:
    """Yield the Parts of the files in order, of at most `rows` rows; ValueError for a file without a column `text`."""
    first = 0
    for file in files:
        source, row = reader(file), 0
        source.check(text)
        for start, count in source.cut(rows):
            yield Part(file, first, row, count, start, source.encoding)
            first, row = first + count, row + count


def read(part: Part, text: str) -> Iterator[Row]:
    """Yield a Row for each row of a part; `text` names the column, and a Row's `number` counts from 1 in the file."""
    return reader(part.file, part.encoding).rows(text, part.start, part.row, part.count)


# -------------------------------------------------------------------------------------------------------------- a row


def read_line(number: int, raw: bytes, name: str | None = None, encoding: str = UTF_8) -> Row:
    """The Row of a line's bytes: plain text, or JSON if the `name` of the text's field is given."""
    try:
        text = decoded(raw, encoding).rstrip("\r\n")
        text = text.removeprefix("\ufeff") if number == 1 else text  # a byte order mark
        record = text if name is None else json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # decoding and JSON errors are ValueErrors
        return Row(number, error=error)
    return read_record(number, record, name, "of this line")


def read_record(number: int, record: object, name: str | None, where: str = "of this row") -> Row:
    """The Row of a text, or of a dict with the text under `name`; the dict's "id", if any, is kept.

    The text itself is checked later, by `check_text`.
    """
    if not isinstance(record, dict):
        return Row(number, record, where=where)
    kept = {"id": record["id"]} if "id" in record else {}
    try:
        if name not in record:
            raise ValueError(f"the record has no field {name!r}")
        as_json(kept)  # raises for an unpaired surrogate
    except (ValueError, RecursionError) as error:
        return Row(number, error=error)
    return Row(number, record[name], kept=kept, where=where)


def reason(error: Exception) -> str:
    """Why a row has no result: the message of a ValueError or TypeError; for other errors their type as well."""
    return str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"


def refuse(constant):
    """Raise ValueError for NaN and infinities, which Python's parser accepts but JSON does not."""
    raise ValueError(f"{constant} is no JSON")


def as_json(result: dict) -> bytes:
    """A result as one line of JSON, in UTF-8."""
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


# ------------------------------------------------------------------------------------------------------------- formats


class Lines:
    """Rows of a file of lines: each line is a text."""

    key = "line"  # what a row is called in results and errors
    is_json = False

    def __init__(self, file, encoding=None):
        self.file, self.encoding, self.columns = file, encoding or encoding_of(file), ()

    def check(self, name):
        """Check nothing: a record without the field gets its error when it is read."""

    def cut(self, rows):
        """Yield (byte offset, row count) of parts of at most `rows` rows."""
        with lines_from(self.file, self.encoding) as lines:
            yield from spans(accumulated(lines), 0, rows)

    def rows(self, name, start=0, first=0, count=None):
        """Yield the Rows from an offset on, `count` or all; `first` is the number of those before."""
        with lines_from(self.file, self.encoding, start) as lines:
            for number, line in enumerate(islice(lines, count), first + 1):
                yield read_line(number, line, name if self.is_json else None, self.encoding)


class JsonLines(Lines):
    """Rows of a JSONL file: each line is a JSON string or object."""

    is_json = True


class Csv:
    """Rows of a CSV file with a header; quoted fields may hold line breaks, and blank lines are skipped."""

    key = "row"

    def __init__(self, file, encoding=None):
        self.file, self.encoding = file, encoding or encoding_of(file)
        with lines_from(file, self.encoding) as lines:
            fields, self.start = next(csv_rows(lines, 0), ([], 0))
        if isinstance(fields, csv.Error):
            raise ValueError(f"{file}: its first line names no columns ({fields})") from fields
        try:
            self.columns = [self.text_of(name).removeprefix("\ufeff") for name in fields]
        except ValueError as error:
            raise ValueError(f"{file}: its first line names no columns in UTF-8 or GB18030 ({error})") from error

    def check(self, name):
        check_column(self.file, self.columns, name)

    def cut(self, rows):
        with lines_from(self.file, self.encoding, self.start) as lines:
            yield from spans((end for _, end in csv_rows(lines, self.start)), self.start, rows)

    def rows(self, name, start=None, first=0, count=None):
        start = self.start if start is None else start
        with lines_from(self.file, self.encoding, start) as lines:
            for number, (fields, _) in enumerate(islice(csv_rows(lines, start), count), first + 1):
                yield self.row(number, fields, name)

    def row(self, number, fields, name):
        if isinstance(fields, csv.Error):
            return Row(number, error=ValueError(f"no CSV: {fields}"))
        try:
            record = {key: self.text_of(value) for key, value in zip(self.columns, fields) if key in (name, "id")}
        except ValueError as error:
            return Row(number, error=error)
        return read_record(number, record, name)

    def text_of(self, field):
        """The text of a field, whose bytes were read as Latin-1."""
        return decoded(field.encode("latin-1"), self.encoding)


class Parquet:
    """Rows of a Parquet file; a part lies within one row group."""

    key, encoding = "row", UTF_8

    def __init__(self, file, encoding=None):
        parquet = pyarrow_for(file).parquet
        try:
            self.file, self.parquet = file, parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        except pyarrow_for(file).ArrowException as error:
            raise ValueError(f"{file} is no Parquet file: {error}") from error
        self.columns = self.parquet.schema_arrow.names
        self.groups = [self.parquet.metadata.row_group(i).num_rows for i in range(self.parquet.num_row_groups)]

    def check(self, name):
        check_column(self.file, self.columns, name)

    def cut(self, rows):
        for group, total in enumerate(self.groups):
            for start in range(0, total, rows):
                yield group, min(rows, total - start)

    def rows(self, name, start=None, first=0, count=None):
        if start is not None:
            yield from self.rows_of_group(name, start, first, count)
            return
        for group, total in enumerate(self.groups):
            yield from self.rows_of_group(name, group, first, total)
            first += total

    def rows_of_group(self, name, group, first, count):
        columns = [column for column in (name, "id") if column in self.columns]
        skip, number = first - sum(self.groups[:group]), first
        for batch in self.parquet.iter_batches(row_groups=[group], columns=columns):
            for record in batch.slice(min(skip, len(batch)), first + count - number).to_pylist():
                number += 1
                yield read_record(number, storable(record), name)
            if number == first + count:
                return
            skip = max(0, skip - len(batch))


READERS: dict[str, type[Lines | Csv | Parquet]] = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}


def pyarrow_for(file: object) -> Any:
    """The module pyarrow, with its Parquet; ImportError that says for which file, and what to install."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{file}: Parquet needs pyarrow: pip install 'zsc-utils[scale]'") from error
    return pyarrow


def check_column(file, columns, name):
    if name not in columns:
        raise ValueError(f"{file} has no column {name!r}: it has {', '.join(columns) or 'none'}")


def spans(ends, start, rows):
    """Yield (byte offset, row count) of parts of at most `rows` rows; `ends` gives the offset after each row."""
    count = 0
    for end in ends:
        count += 1
        if count == rows:
            yield start, count
            start, count = end, 0
    if count:
        yield start, count


def accumulated(lines):
    """Yield the byte offset after each line."""
    end = 0
    for line in lines:
        end += len(line)
        yield end


class Fed:
    """Lines for csv.reader, as Latin-1, which never fails: a row that cannot be decoded does not affect other rows.

    `row` holds the lines of the row that is read, and `ended` says whether it ran into the end of the file.
    """

    def __init__(self, lines):
        self.lines, self.again, self.row, self.ended = iter(lines), deque(), [], False

    def __iter__(self):
        return self

    def __next__(self):
        line = self.again.popleft() if self.again else next(self.lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.row.append(line)
        return line.decode("latin-1")

    def give_back(self):
        """Lines after the first of this row are read once more, as rows of their own."""
        self.again.extendleft(reversed(self.row[1:]))
        self.row = self.row[:1]


def csv_rows(lines, end):
    """Yield (fields or csv.Error, byte offset after the row) for each row; the first line begins at offset `end`.

    A row whose quote is never closed, or closed beyond CELL, is an error, and the line after its first is the next row.
    """
    fed = Fed(lines)
    rows = csv.reader(fed)
    while True:
        fed.row, fed.ended = [], False
        try:
            with LIMIT:
                before = csv.field_size_limit(CELL)
                try:
                    fields = next(rows)
                finally:
                    csv.field_size_limit(before)
            if fed.ended:  # csv.reader takes all lines to the end of the file for one field, without an error
                fields = csv.Error("a quote is opened in this row and never closed")
        except StopIteration:
            return
        except csv.Error as error:
            fields = error
        if isinstance(fields, csv.Error):
            fed.give_back()
        end += sum(map(len, fed.row))
        if fields:
            yield fields, end


def storable(record):
    """A Parquet record whose "id" JSON can store; a date, for example, becomes a string."""
    kept = record.get("id")
    return record if kept is None or isinstance(kept, str | int) else record | {"id": str(kept)}
