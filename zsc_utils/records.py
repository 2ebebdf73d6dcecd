"""Read rows from text lines, JSONL, CSV and Parquet files: each row is a text to classify, or an error.

Files are cut into parts at row boundaries; a part can be read without reading what comes before it.
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
    """`count` consecutive rows of one file. The first row has position `first` in the whole input and `row` in the
    file, both counted from 0. Reading begins at `start`: a byte offset, or a Parquet file's row group."""

    file: str
    first: int
    row: int
    count: int
    start: int


def cut(files: Iterable[str], rows: int, text: str) -> Iterator[Part]:
    """Yield the Parts of the files in order, of at most `rows` rows; ValueError for a file without a column `text`."""
    first = 0
    for file in files:
        reader, row = READERS[Path(file).suffix](file), 0
        reader.check(text)
        for start, count in reader.cut(rows):
            yield Part(file, first, row, count, start)
            first, row = first + count, row + count


def read(part: Part, text: str) -> Iterator[Row]:
    """Yield a Row for each row of a part; `text` names the column, and a Row's `number` counts from 1 in the file."""
    return READERS[Path(part.file).suffix](part.file).read(part, text)


# -------------------------------------------------------------------------------------------------------------- a row


def read_line(number: int, raw: bytes, name: str | None = None) -> Row:
    """The Row of a line's bytes: plain text, or JSON if the `name` of the text's field is given."""
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
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


class JsonLines:
    """Rows of a JSONL file: each line is a JSON string or object."""

    def __init__(self, file):
        self.file = file

    def check(self, name):
        """Check nothing: a record without the field gets its error when it is read."""

    def cut(self, rows):
        """Yield (byte offset, row count) of parts of at most `rows` rows."""
        with open(self.file, "rb") as lines:
            yield from spans(accumulated(lines), 0, rows)

    def read(self, part, name):
        with open(self.file, "rb") as lines:
            lines.seek(part.start)
            for number, line in enumerate(islice(lines, part.count), part.row + 1):
                yield read_line(number, line, name)


class Csv:
    """Rows of a CSV file in UTF-8 with a header; quoted fields may hold line breaks, and blank lines are skipped."""

    def __init__(self, file):
        self.file = file
        with open(file, "rb") as lines:
            fields, self.start = next(csv_rows(lines, 0), ([], 0))
        try:
            self.header = [decoded(name).removeprefix("\ufeff") for name in fields]
        except (UnicodeDecodeError, TypeError) as error:  # TypeError: `fields` is a csv.Error
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


READERS: dict[str, type[JsonLines | Csv | Parquet]] = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}


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


def csv_rows(lines, end):
    """Yield (fields or csv.Error, byte offset after the row) for each row; the first line begins at offset `end`.

    Bytes are decoded as Latin-1, which never fails, so that a row with invalid UTF-8 does not affect other rows.
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
    """Decode a field as UTF-8 that was read as Latin-1."""
    return value.encode("latin-1").decode("utf-8")


def storable(record):
    """A Parquet record whose "id" JSON can store; a date, for example, becomes a string."""
    kept = record.get("id")
    return record if kept is None or isinstance(kept, str | int) else record | {"id": str(kept)}
