"""Write results as JSONL, CSV or Parquet, and files that appear under their names only when they are whole."""

import csv
import glob
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from zsc_utils.records import as_json, pyarrow_for

TOGETHER = 1_000  # results that are written to a Parquet file at a time
EXCEL_MARK = b"\xef\xbb\xbf"  # without it Excel reads a CSV in the system's encoding


@contextmanager
def whole_file(file: Path, folder: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that is written atomically: it stays in `folder` under another name, and is renamed to
    `file` when complete, so that a crash of the process or machine leaves no partial file."""
    unfinished = folder / f"{file.name}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(file: Path) -> None:
    """Remove what `whole_file` left beside `file` in processes that were killed; processes that still run keep theirs.

    Only where a process can be asked whether it runs: not on Windows, where asking would end it.
    """
    for left in file.parent.glob(f"{glob.escape(file.name)}.*.tmp"):
        number = left.name[len(file.name) + 1 : -len(".tmp")]
        if os.name == "posix" and number.isdecimal() and not is_running(int(number)):
            left.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    return True


class JsonLinesFile:
    """Writes results as lines of JSON."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target

    def __enter__(self) -> "JsonLinesFile":
        return self

    def write(self, result: dict[str, Any]) -> None:
        self.target.write(as_json(result))

    def flush(self) -> None:
        self.target.flush()

    def __exit__(self, *error: object) -> None:
        pass


class ParquetFile:
    """Writes results as Parquet, TOGETHER rows at a time; all files have the same columns.

    `key` is the column of a result's number. With `errors` there is a column of that name, for rows without a result.
    """

    def __init__(self, target: BinaryIO, key: str = "position", errors: bool = False) -> None:
        pyarrow = pyarrow_for("output")
        columns = {
            key: pyarrow.int64(), "id": pyarrow.string(), "sequence": pyarrow.string(),
            "labels": pyarrow.list_(pyarrow.string()), "scores": pyarrow.list_(pyarrow.float64()),
        } | ({"error": pyarrow.string()} if errors else {})  # fmt: skip
        self.schema, self.as_table = pyarrow.schema(columns), pyarrow.Table.from_pylist
        self.rows: list[dict[str, Any]] = []
        self.writer = pyarrow.parquet.ParquetWriter(target, self.schema)

    def __enter__(self) -> "ParquetFile":
        return self

    def write(self, result: dict[str, Any]) -> None:
        self.rows.append(result | {"id": id_as_text(result.get("id"))})
        if len(self.rows) == TOGETHER:
            self.write_rows()

    def write_rows(self) -> None:
        self.writer.write_table(self.as_table(self.rows, self.schema))
        self.rows = []

    def flush(self) -> None:
        """Do nothing: rows are written together."""

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.write_rows()
            self.writer.close()
        else:  # now, for pyarrow would close it later, when the file is closed, and tell an error
            with suppress(OSError):  # the first error is told
                self.writer.close()


class CsvFile:
    """Writes results as CSV that Excel reads: number, id, text, best label, its score, each label's score, error.

    A label that was not scored, because another group of labels was better, has an empty cell.
    """

    def __init__(self, target: BinaryIO, key: str, labels: Sequence[str], with_id: bool) -> None:
        self.key, self.labels, self.with_id = key, labels, with_id
        # csv writes strings, the file takes bytes; a TextIOWrapper would write again when it is closed after an error
        encoded = SimpleNamespace(write=lambda line: target.write(line.encode()))
        self.writer = csv.writer(encoded)
        target.write(EXCEL_MARK)
        self.writer.writerow(self.columns(key, labels, with_id))

    @staticmethod
    def columns(key: str, labels: Sequence[str], with_id: bool) -> list[str]:
        """The header. ValueError for a label that is the name of another column."""
        own = [key, *["id"] * with_id, "sequence", "label", "score"]
        for label in labels:
            if label in (*own, "error"):
                raise ValueError(
                    f"the label {label!r} is a column of the CSV already: name an output that ends in .jsonl"
                )
        return [*own, *labels, "error"]

    def __enter__(self) -> "CsvFile":
        return self

    def write(self, result: dict[str, Any]) -> None:
        begin = [result[self.key], *[id_as_text(result.get("id"))] * self.with_id]
        if "error" in result:
            self.writer.writerow([*begin, *[""] * (3 + len(self.labels)), result["error"]])
            return
        scores = dict(zip(result["labels"], result["scores"]))
        best = [result["sequence"], result["labels"][0], result["scores"][0]]
        self.writer.writerow([*begin, *best, *(scores.get(label, "") for label in self.labels), ""])

    def flush(self) -> None:
        """Do nothing: the file appears when it is whole."""

    def __exit__(self, *error: object) -> None:
        pass


def id_as_text(given: object) -> str | None:
    """An id in a column of strings: as it is, or as JSON."""
    return given if given is None or isinstance(given, str) else json.dumps(given, ensure_ascii=False)
