"""Rows of lines, JSONL, CSV and Parquet: cut anywhere between two of them, read part by part, none spoils another."""

import csv
import io
import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from zsc_utils import records
from zsc_utils.records import Part, Row

TEXTS = ["央行下调利率", "国足客场取胜", "去看海", "新款手机开售", "A股收涨", "大雨将至", "他说：“好”"]


def rows_of(file, text="text", rows=2):
    """All rows of a file, read in parts of so many."""
    parts = list(records.cut([str(file)], rows, text))
    assert [part.first for part in parts] == [part.row for part in parts]
    assert all(1 <= part.count <= rows for part in parts)
    found = [row for part in parts for row in records.read(part, text)]
    assert [row.number for row in found] == list(range(1, len(found) + 1))
    assert sum(part.count for part in parts) == len(found)
    return found


@pytest.fixture
def written(tmp_path):
    """Write a file's content; returns its path."""

    def write(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def as_csv(table, ends="\r\n"):
    target = io.StringIO(newline="")
    csv.writer(target, lineterminator=ends).writerows(table)
    return target.getvalue()


def as_parquet(file, columns, group=3):
    parquet.write_table(pyarrow.table(columns), file, row_group_size=group)
    return file


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_row_comes_once_however_a_file_is_cut(tmp_path, written, kind, rows):
    if kind == "jsonl":
        file = written("a.jsonl", "".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(TEXTS)))
    elif kind == "csv":
        file = written("a.csv", as_csv([["id", "text"], *enumerate(TEXTS)]))
    else:
        file = as_parquet(tmp_path / "a.parquet", {"id": range(len(TEXTS)), "text": TEXTS})
    found = rows_of(file, rows=rows)
    assert [row.text for row in found] == TEXTS
    ids = [row.kept["id"] for row in found]
    assert ids == ([*map(str, range(7))] if kind == "csv" else [*range(7)])


def test_files_follow_one_another_in_one_input(written):
    files = [written(f"{n}.jsonl", f'"{text}"\n"b"\n"c"\n') for n, text in enumerate(TEXTS[:2])]
    parts = list(records.cut([str(file) for file in files], 2, "text"))
    assert [(part.first, part.row, part.count) for part in parts] == [(0, 0, 2), (2, 2, 1), (3, 0, 2), (5, 2, 1)]
    assert [row.text for row in records.read(parts[2], "text")] == [TEXTS[1], "b"]


def test_files_without_rows_have_no_parts(tmp_path, written):
    empty = [written("a.jsonl", ""), written("b.csv", "text\n"), as_parquet(tmp_path / "c.parquet", {"text": []})]
    assert list(records.cut(map(str, empty), 5, "text")) == []


# ----------------------------------------------------------------------------------------------------------------- CSV

cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(st.tuples(cell, cell), max_size=9),
    rows=st.integers(1, 5),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    last=st.booleans(),
)
def test_csv_is_read_as_python_reads_it_wherever_it_is_cut(tmp_path_factory, table, rows, ends, quoting, last):
    target = io.StringIO(newline="")
    csv.writer(target, lineterminator=ends, quoting=quoting).writerows([("text", "more"), *table])
    content = target.getvalue() if last else target.getvalue().removesuffix(ends)
    (file := tmp_path_factory.getbasetemp() / "any.csv").write_text(content, newline="")
    expected = [row["text"] for row in csv.DictReader(io.StringIO(content, newline=""))]
    assert [row.text for row in rows_of(file, rows=rows)] == expected


def test_csv_as_it_comes_a_mark_a_line_in_quotes_blank_lines(written):
    content = '\ufefftext,id\r\n"一\n二",1\r\n\r\n"他说""好""",2\r\n三,3\r\n\r\n'
    found = rows_of(written("a.csv", content), rows=1)
    assert [(row.text, row.kept) for row in found] == [
        ("一\n二", {"id": "1"}),
        ('他说"好"', {"id": "2"}),
        ("三", {"id": "3"}),
    ]


def test_a_csv_row_that_is_no_utf_8_or_too_short_spoils_no_other(written):
    file = written("a.csv", b"id,text\n1,a\n2,\xb2\xe2\xca\xd4\n3\n4,b\n")
    found = rows_of(file)
    assert [row.text for row in found] == ["a", None, None, "b"]
    assert "utf-8" in str(found[1].error) and str(found[2].error) == "the record has no field 'text'"


def test_a_field_of_another_column_that_is_no_utf_8_does_not_matter(written):
    assert [row.text for row in rows_of(written("a.csv", b"text,more\na,\xff\n"))] == ["a"]


def test_a_csv_field_beyond_the_limit_is_one_bad_row(written):
    found = rows_of(written("a.csv", "text\na\n" + "x" * 140_000 + "\nb\n"))
    assert [row.text for row in found] == ["a", None, "b"]
    assert str(found[1].error) == "no CSV: field larger than field limit (131072)"


@pytest.mark.parametrize("header", [b"\xb2\xe2\n", b"x" * 140_000 + b"\n"])
def test_a_csv_without_a_header_that_can_be_read_is_refused(written, header):
    with pytest.raises(ValueError, match="its first line names no columns in UTF-8"):
        rows_of(written("a.csv", header + b"a\n"))


@pytest.mark.parametrize("name, content", [("a.csv", "id,title\n1,a\n"), ("a.parquet", None)])
def test_a_file_without_the_column_is_refused_with_the_columns_it_has(tmp_path, written, name, content):
    file = written(name, content) if content else as_parquet(tmp_path / name, {"id": [1], "title": ["a"]})
    with pytest.raises(ValueError, match=f"{name} has no column 'text': it has id, title"):
        rows_of(file)


# ------------------------------------------------------------------------------------------------------- JSONL, Parquet


def test_a_bad_line_of_jsonl_spoils_no_other(written):
    lines = [
        b'\xef\xbb\xbf{"text": "a"}',
        b"",
        b"{",
        b"\xff",
        b'{"title": "a"}',
        b'{"text": 3}',
        b'"b"',
        b"NaN",
        b'{"text": "c"}',
    ]
    found = rows_of(written("a.jsonl", b"\n".join(lines)))
    assert [row.text for row in found] == ["a", None, None, None, None, 3, "b", None, "c"]
    assert [row.error is not None for row in found] == [row.text is None for row in found]


def test_parquet_reads_only_the_columns_it_needs_and_keeps_ids_of_any_kind(tmp_path):
    moments = pyarrow.array([0, 86_400, None], pyarrow.timestamp("s"))
    file = as_parquet(tmp_path / "a.parquet", {"text": ["a", None, "c"], "id": moments, "other": [[1], [2], [3]]})
    found = rows_of(file)
    assert [row.text for row in found] == ["a", None, "c"] and not any(row.error for row in found)
    assert [row.kept.get("id") for row in found] == ["1970-01-01 00:00:00", "1970-01-02 00:00:00", None]


def test_parts_of_a_row_group_larger_than_arrow_s_batches(tmp_path):
    file = as_parquet(tmp_path / "a.parquet", {"text": [f"t{n}" for n in range(150_000)]}, group=140_000)
    parts = list(records.cut([str(file)], 60_000, "text"))
    assert [(part.row, part.count, part.start) for part in parts] == [
        (0, 60_000, 0), (60_000, 60_000, 0), (120_000, 20_000, 0), (140_000, 10_000, 1),
    ]  # fmt: skip
    for part in parts:
        texts = [row.text for row in records.read(part, "text")]
        assert texts == [f"t{n}" for n in range(part.row, part.row + part.count)]


def test_what_is_no_parquet_is_refused(written):
    with pytest.raises(ValueError, match="a.parquet is no Parquet file"):
        rows_of(written("a.parquet", "text\n"))


def test_a_part_says_where_it_is(written):
    file = str(written("a.jsonl", '"一"\n"二"\n"三"\n'))
    assert list(records.cut([file], 2, "text")) == [Part(file, 0, 0, 2, 0), Part(file, 2, 2, 1, 12)]
    assert list(records.read(Part(file, 2, 2, 1, 12), "text")) == [Row(3, "三", where="of this line")]
