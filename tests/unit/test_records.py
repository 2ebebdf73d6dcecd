"""Rows of lines, JSONL, CSV and Parquet: cut anywhere between two of them, read part by part, none spoils another."""

import codecs
import csv
import io
import json
import os
import sys

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from zsc_utils import _encodings, records, samples
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
    file = written("a.csv", "id,text\n1,一\n2,".encode() + b"\xb2\xe2\xca\xd4\n3\n4,b\n")
    found = rows_of(file)
    assert [row.text for row in found] == ["一", None, None, "b"]
    assert "utf-8" in str(found[1].error) and str(found[2].error) == "the record has no field 'text'"


def test_a_field_of_another_column_that_is_no_utf_8_does_not_matter(written):
    assert [row.text for row in rows_of(written("a.csv", b"text,more\na,\xff\n"))] == ["a"]


def test_a_csv_field_of_a_megabyte_is_read_and_the_limit_of_the_process_stays(written):
    long, before = "长文" * 170_000, csv.field_size_limit()
    assert len(long.encode()) > 1e6 > before
    found = rows_of(written("a.csv", f'text\na\n{long}\n"{long}\n二"\nb\n'), rows=1)
    assert [row.text for row in found] == ["a", long, f"{long}\n二", "b"]
    assert csv.field_size_limit() == before


def test_a_csv_field_beyond_the_limit_is_one_bad_row(written, monkeypatch):
    monkeypatch.setattr(records, "CELL", 1_000)
    found = rows_of(written("a.csv", "text\na\n" + "x" * 1_001 + "\nb\n"))
    assert [row.text for row in found] == ["a", None, "b"]
    assert str(found[1].error) == "no CSV: field larger than field limit (1000)"


@pytest.mark.parametrize("most", [2**24, 40])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_quote_that_is_never_closed_takes_no_other_row_with_it(written, monkeypatch, most, rows):
    monkeypatch.setattr(records, "CELL", most)
    lines = ["id,text", "1,a", '2,"b', "3,c", "", "4,dddddddddddddddddddddddddddddddddd", "5,e"]
    found = rows_of(written("a.csv", "\n".join(lines)), rows=rows)
    assert [row.text for row in found] == ["a", None, "c", "d" * 34, "e"]
    told = "a quote is opened in this row and never closed" if most > 40 else "field larger than field limit (40)"
    assert str(found[1].error) == f"no CSV: {told}"


@pytest.mark.parametrize(
    "header, message",
    [
        (b"\xb2\n", "its first line names no columns in UTF-8 or GB18030"),
        (b'"text\n', "its first line names no columns"),
    ],
)
def test_a_csv_without_a_header_that_can_be_read_is_refused(written, header, message):
    with pytest.raises(ValueError, match=message):
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


# ----------------------------------------------------------------------------------------------------------- encodings

ENCODINGS = {
    "UTF-8": ("utf-8", b""), "UTF-8 with a mark": ("utf-8", codecs.BOM_UTF8),
    "UTF-16, little": ("utf-16-le", codecs.BOM_UTF16_LE), "UTF-16, big": ("utf-16-be", codecs.BOM_UTF16_BE),
    "GB18030": ("gb18030", b""), "GB18030 with a mark": ("gb18030", "\ufeff".encode("gb18030")),
}  # fmt: skip
RARE = [
    "央行下调利率",
    "a",
    "㐀𠮷😀",
    "他说：“好”",
    "中\u0a00国\u0d0a",
    "ｱ，“",
]  # two, three, four bytes; bytes like line breaks


def in_encoding(content, encoding):
    codec, mark = ENCODINGS[encoding]
    return mark + content.encode(codec)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_is_found_and_read_however_a_file_is_cut(written, encoding, rows):
    lines = "".join(json.dumps({"text": text, "id": n}, ensure_ascii=False) + "\r\n" for n, text in enumerate(RARE))
    table = as_csv([["text", "id"], *([f'{text}\n"{text}",', n] for n, text in enumerate(RARE))])
    assert [row.text for row in rows_of(written("a.jsonl", in_encoding(lines, encoding)), rows=rows)] == RARE
    found = rows_of(written("a.csv", in_encoding(table, encoding)), rows=rows)
    assert [row.text for row in found] == [f'{text}\n"{text}",' for text in RARE]
    parts = records.cut([str(written("a.csv", in_encoding(table, encoding)))], rows, "text")
    assert {part.encoding for part in parts} == {ENCODINGS[encoding][0]}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines_of_text_are_those_of_the_file(written, encoding):
    file = written("a.txt", in_encoding("\n".join(RARE), encoding))
    assert rows_of(file) == [Row(n, text, where="of this line") for n, text in enumerate(RARE, 1)]


TRADITIONAL = [
    "央行宣佈調降利率，房貸族鬆一口氣",
    "許功蓋談體育教育",
    "開餐廳",
    "這支手機的電池很耐用",
    "雨",
    "嘅啲",
    "€ 100",
]
SIMPLIFIED = ["央行宣布下调利率，房贷将减少", "国足客场取胜", "开餐厅", "这款手机的电池很耐用", "雨", "丂", "€ 100"]


def as_big5(content):
    """As Windows writes it; the two characters of Hong Kong in Hong Kong's."""
    return b"".join(x.encode("big5-hkscs" if x in "嘅啲" else "cp950") for x in content)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("rows", [1, 100])
def test_big5_is_found_and_read_however_a_file_is_cut(written, kind, rows):
    """Second bytes of its characters are those of a backslash, a bar, a brace: in 功, 育, 蓋."""
    content = {
        "txt": "\n".join(TRADITIONAL), "csv": as_csv([["text"], *([text] for text in TRADITIONAL)]),
        "jsonl": "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in TRADITIONAL),
    }[kind]  # fmt: skip
    file = written(f"a.{kind}", as_big5(content))
    assert [row.text for row in rows_of(file, rows=rows)] == TRADITIONAL
    assert _encodings.encoding_of(str(file)) == "big5"


@pytest.mark.parametrize("texts", [TRADITIONAL, SIMPLIFIED, *([text] for text in [*TRADITIONAL[:5], *SIMPLIFIED[:5]])])
@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5"])
def test_big5_and_gb18030_are_told_apart_by_what_is_common(written, texts, codec):
    try:
        content = as_big5("\n".join(texts)) if codec == "big5" else "\n".join(texts).encode(codec)
    except UnicodeEncodeError:
        return  # Big5 has no simplified characters
    assert _encodings.encoding_of(str(written("a.txt", content))) == codec


def test_the_committed_texts_are_no_big5_one_by_one():
    for name in samples.TEST_SETS:
        for record in samples.test_set(name):
            assert _encodings.vote(record["text"].encode("gb18030"), whole=True) == "gb18030"


def test_a_broken_line_of_big5_is_one_bad_line(written):
    lines = [as_big5(text) for text in (TRADITIONAL[0], "體", TRADITIONAL[2])]
    lines[1] = lines[1][:1] + b"\xff"
    first, bad, last = rows_of(written("a.txt", b"\n".join(lines)))
    assert (first.text, last.text) == (TRADITIONAL[0], TRADITIONAL[2]) and "nor GB18030 nor Big5" in str(bad.error)


utf_8, gbk, broken = "去看海".encode(), "去看海".encode("gbk"), b"\xe5\x8e\xff"


@pytest.mark.parametrize(
    "lines, encoding",
    [
        ([], "utf-8"), ([b"a", b"b"], "utf-8"), ([utf_8], "utf-8"), ([gbk], "gb18030"), ([gbk, utf_8], "utf-8"),
        ([gbk, utf_8, gbk], "gb18030"), ([utf_8, gbk, utf_8], "utf-8"), ([broken] * 9, "utf-8"),
        ([broken] * 9 + [gbk], "gb18030"), ([b"a"] * 9 + [gbk], "gb18030"), ([gbk + b"\xff"], "utf-8"),
    ],
)  # fmt: skip
def test_most_lines_that_are_not_ascii_decide(written, lines, encoding):
    assert _encodings.encoding_of(str(written("a.txt", b"\n".join(lines)))) == encoding


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
@pytest.mark.parametrize("size", range(20, 27))
def test_only_the_beginning_is_looked_at_and_a_character_cut_there_is_no_vote(written, monkeypatch, codec, size):
    monkeypatch.setattr(_encodings, "LOOKED_AT", size)
    other = "gb18030" if codec == "utf-8" else "utf-8"
    for begin in ("去看海" * 9, "海\n" + "去看海" * 9):  # cut in the first line, or in the second
        content = begin.encode(codec) + 9 * "\n去看海".encode(other)
        assert _encodings.encoding_of(str(written("a.txt", content))) == codec


def test_the_euro_sign_of_windows_is_read_in_gb18030(written):
    content = "价格\n".encode("gbk") + b"\x80 100, \x80\xd2\xbb\n" + "丂\n".encode("gbk")
    assert [row.text for row in rows_of(written("a.txt", content))] == ["价格", "€ 100, €一", "丂"]


@pytest.mark.parametrize(
    "lines, told",
    [
        ([utf_8, gbk, utf_8], "it is likely GB18030, in a file that is read as UTF-8"),
        ([utf_8, gbk + b"\xc8", utf_8], "it is likely GB18030, cut inside its last character"),
        ([gbk, utf_8[:-2], gbk], "it is likely UTF-8, cut inside its last character"),
        ([utf_8, utf_8[:-1], utf_8], "it is likely UTF-8, cut inside its last character"),
        ([gbk, gbk + b"\xff", gbk], "it is neither UTF-8 nor GB18030"),
        ([utf_8, "去看海".encode("utf-16-le") + b"\0", utf_8], "its zero bytes look like UTF-16"),
    ],
)
def test_a_line_of_another_encoding_is_one_bad_line_and_is_told_which(written, lines, told):
    first, bad, last = rows_of(written("a.txt", b"\n".join(lines)))
    assert bad.text is None and told in str(bad.error)
    assert first.text.startswith("去看海") and last.text == "去看海"


@pytest.mark.parametrize("encoding", ["UTF-16, little", "UTF-16, big"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**20])
def test_damaged_utf_16_spoils_its_own_line_only(written, monkeypatch, encoding, chunk):
    monkeypatch.setattr(_encodings, "CHUNK", chunk)
    codec, mark = ENCODINGS[encoding]
    content = mark + "去\n\ud83d海\n😀\n看".encode(codec, "surrogatepass") + b"\x00"
    found = rows_of(written("a.txt", content), rows=1)
    assert [row.text for row in found] == ["去", None, "😀", None]
    assert all("half a character: this is no whole UTF-16" in str(found[n].error) for n in (1, 3))


def test_utf_32_is_refused_by_name(written):
    for codec in ("utf-32-le", "utf-32-be"):
        with pytest.raises(ValueError, match="a.txt is UTF-32: save it as UTF-8"):
            rows_of(written("a.txt", "\ufeff去".encode(codec)))


# -------------------------------------------------------------------------------------------------------------- readers


def test_the_ending_says_how_a_file_is_read_in_any_letters(written):
    kinds = {"a.TXT": records.Lines, "a": records.Lines, "a.JSONL": records.JsonLines, "a.CSV": records.Csv}
    for name, kind in kinds.items():
        source = records.reader(str(written(name, '"text"\n"a"\n')))
        assert type(source) is kind
    assert [row.text for row in source.rows("text")] == ["a"]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_a_file_is_read_whole_as_it_is_read_in_parts(tmp_path, written, kind):
    if kind == "parquet":
        file = as_parquet(tmp_path / "a.parquet", {"id": range(len(TEXTS)), "text": TEXTS})
    else:
        content = {
            "txt": "\n".join(TEXTS),
            "jsonl": "\n".join(map(json.dumps, TEXTS)),
            "csv": as_csv(zip(["text", *TEXTS])),
        }
        file = written(f"a.{kind}", content[kind])
    found = list(records.reader(str(file)).rows("text"))
    assert [row.text for row in found] == TEXTS and found == rows_of(file)


def test_a_table_is_not_read_from_what_can_be_read_only_once(tmp_path):
    (tmp_path / "a.csv").symlink_to(os.devnull)
    with pytest.raises(ValueError, match="a.csv is no regular file: a table is not read from a pipe"):
        records.reader(str(tmp_path / "a.csv"))


def test_without_pyarrow_the_message_says_what_to_install(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="a.parquet: Parquet needs pyarrow: pip install 'zsc-utils\\[scale\\]'"):
        records.reader(str(written("a.parquet", "")))


def test_a_part_says_where_it_is(written):
    file = str(written("a.jsonl", '"一"\n"二"\n"三"\n'))
    assert list(records.cut([file], 2, "text")) == [Part(file, 0, 0, 2, 0), Part(file, 2, 2, 1, 12)]
    assert list(records.read(Part(file, 2, 2, 1, 12), "text")) == [Row(3, "三", where="of this line")]
