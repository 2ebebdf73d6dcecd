"""The files people have: the same texts in every format and encoding give the same results, in JSONL, CSV, Parquet."""

import codecs
import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow
import pytest
from limits import no_file_larger_than
from oracle import ORACLE
from pyarrow import parquet

import zsc_utils as zsc
from zsc_utils import __main__ as command
from zsc_utils import classifier, records, scaling

ROOT = Path(__file__).parents[2]
LABELS = ["财经", "体育"]
TEXTS = ["央行宣布下调利率，房贷将减少", '国足客场取胜，教练说："好"', "去看海"]
MARKS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
ENCODINGS = {
    "UTF-8": ("utf-8", False), "UTF-8 with a mark": ("utf-8", True), "GB18030": ("gb18030", False),
    "UTF-16-LE": ("utf-16-le", True), "UTF-16-BE": ("utf-16-be", True),
}  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return zsc.ZeroShotClassifier(ORACLE)


@pytest.fixture
def classify(small, monkeypatch, capsysbinary):
    """A function that runs the command with the small checkpoint: (exit status, results, lines of standard error)."""
    monkeypatch.setattr(command, "ZeroShotClassifier", lambda *_, **__: small)

    def main(file, *options):
        capsysbinary.readouterr()
        words = ["classify", file, "--labels", ",".join(LABELS), "--quiet", *options]
        status = command.main([str(word) for word in words])
        shown = capsysbinary.readouterr()
        return status, parsed(shown.out), shown.err.decode().splitlines()

    return main


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(command, "ZeroShotClassifier", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.fixture
def file(tmp_path):
    """A function that writes a file of this content and returns its path."""

    def write(name, content, encoding="UTF-8"):
        codec, mark = ENCODINGS[encoding]
        raw = content if isinstance(content, bytes) else (MARKS[codec] if mark else b"") + content.encode(codec)
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return write


def parsed(written):
    return [json.loads(line) for line in written.decode().split("\n")[:-1]]


def as_csv(rows):
    target = io.StringIO(newline="")
    csv.writer(target).writerows(rows)
    return target.getvalue()


def as_jsonl(texts, field="text"):
    return "".join(json.dumps({field: text, "id": n}, ensure_ascii=False) + "\n" for n, text in enumerate(texts))


def content_of(kind, texts, field="text"):
    if kind == "txt":
        return "".join(f"{text}\n" for text in texts)
    if kind == "jsonl":
        return as_jsonl(texts, field)
    return as_csv([["id", field, "更多"], *([n, text, "x"] for n, text in enumerate(texts))])


def bare(results):
    """Results without what differs by format."""
    return [{key: result[key] for key in ("sequence", "labels", "scores")} for result in results]


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_the_same_texts_give_the_same_results_in_any_format_and_encoding(classify, small, file, kind, encoding):
    source = file(f"texts.{kind}", content_of(kind, TEXTS), encoding)
    status, results, told = classify(source)
    assert status == 0 and bare(results) == small(TEXTS, LABELS)
    key = "row" if kind == "csv" else "line"
    assert [result[key] for result in results] == [1, 2, 3]
    ids = {"txt": [None] * 3, "jsonl": [0, 1, 2], "csv": ["0", "1", "2"]}[kind]
    assert [result.get("id") for result in results] == ids
    assert told == ([] if encoding.startswith("UTF-8") else [f"{source} is read as {encoding}"])


def test_parquet_gives_the_same_results(classify, small, tmp_path):
    columns = {"id": range(3), "text": TEXTS, "more": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "texts.PARQUET", row_group_size=2)
    status, results, told = classify(tmp_path / "texts.PARQUET")
    assert (status, told) == (0, []) and bare(results) == small(TEXTS, LABELS)
    assert [(result["row"], result["id"]) for result in results] == [(1, 0), (2, 1), (3, 2)]


def test_the_command_reads_what_scaling_reads(file):
    for kind in ("jsonl", "csv"):
        for encoding in ENCODINGS:
            source = str(file(f"texts.{kind}", content_of(kind, TEXTS), encoding))
            given = command.parser().parse_args(["classify", source, "--labels", "财经"])
            ours = list(command.source_of(given).rows("text"))
            parts = records.cut([source], 2, "text")
            assert ours == [row for part in parts for row in records.read(part, "text")] and len(ours) == 3


def test_a_csv_is_no_file_of_lines(classify, small, file):
    """Its header and each of its lines were taken for texts."""
    rows = [["标题", "作者"], ['央行："下调"利率,\n今天', "甲"], ["国足取胜", "乙"]]
    status, results, told = classify(file("news.csv", as_csv(rows)), "--field", "标题")
    assert (status, told) == (0, [])
    assert bare(results) == small([rows[1][0], rows[2][0]], LABELS) and [r["row"] for r in results] == [1, 2]


@pytest.mark.parametrize("name", ["news.csv", "news.parquet"])
def test_a_column_that_is_not_there_is_told_with_those_there_are(classify, file, no_model, tmp_path, name):
    if name == "news.csv":
        file(name, "标题,作者\n央行,甲\n")
    else:
        parquet.write_table(pyarrow.table({"标题": ["央行"], "作者": ["甲"]}), tmp_path / name)
    told = f"error: {tmp_path / name} has no column 'text': it has 标题, 作者; name the texts' column with --field"
    assert classify(tmp_path / name) == (2, [], [told])


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("a.csv", b"", "a.csv has no column 'text': it has none"),
        ("a.csv", b"\xb2\n", "a.csv: its first line names no columns in UTF-8 or GB18030"),
        ("a.parquet", b"", "a.parquet is no Parquet file"),
        ("a.parquet", b"text\na\n", "a.parquet is no Parquet file"),
        ("a.txt", "\ufeff央行".encode("utf-32-le"), "a.txt is UTF-32: save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_before_a_model_is_loaded(classify, file, no_model, name, content, told):
    status, results, [line] = classify(file(name, content))
    assert status == 2 and results == [] and line.startswith("error: ") and told in line


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_is_not_taken_for_json_lines(classify, file, no_model, tmp_path, name):
    file("a.csv", "text\n央行\n")
    parquet.write_table(pyarrow.table({"text": ["央行"]}), tmp_path / "a.parquet")
    status, _, [line] = classify(tmp_path / name, "--jsonl")
    assert status == 2 and line.startswith(f"error: --jsonl: {tmp_path / name} is a table by its name")


def test_parquet_without_pyarrow_says_what_to_install(classify, file, no_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for words in ([file("a.parquet", "")], [file("a.txt", "央行\n"), "--output", tmp_path / "out.parquet"]):
        status, _, [line] = classify(*words)
        assert status == 2 and line.startswith("error: ") and "pip install 'zsc-utils[scale]'" in line


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_files_without_texts_have_no_results(classify, file, tmp_path, kind):
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    else:
        file(f"a.{kind}", "text\r\n" if kind == "csv" else "")
    assert classify(tmp_path / f"a.{kind}") == (0, [], [])


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_a_gbk_file_with_a_broken_line_has_one_bad_line(classify, small, file, kind):
    lines = [text.replace('"', "").encode("gbk") for text in TEXTS]
    lines[1] += b"\xff"
    content = b"\r\n".join([b"text"] * (kind == "csv") + lines)
    status, results, told = classify(source := file(f"news.{kind}", content))
    key = "row" if kind == "csv" else "line"
    assert status == 1 and bare(results[::2]) == small(TEXTS[::2], LABELS)
    assert list(results[1]) == [key, "error"] and "'gb18030' codec can't decode" in results[1]["error"]
    assert told == [
        f"{source} is read as GB18030", f"{key} 2: {results[1]['error']}", f"1 of 3 {key}s have no result",
    ]  # fmt: skip


def test_a_utf_8_file_with_a_gbk_line_has_one_bad_line_that_names_its_encoding(classify, small, file):
    lines = [TEXTS[0].encode(), TEXTS[1].encode("gbk"), TEXTS[2].encode()]
    status, results, told = classify(file("news.txt", b"\n".join(lines)))
    assert status == 1 and bare(results[::2]) == small(TEXTS[::2], LABELS)
    assert told[0].startswith("line 2: 'utf-8' codec can't decode")
    assert told[0].endswith("; it is likely GB18030, in a file that is read as UTF-8")
    assert told[1:] == ["1 of 3 lines have no result"]


def test_a_named_pipe_is_read_once(classify, small, tmp_path):
    """To look at its bytes for an encoding would take them away."""
    os.mkfifo(pipe := tmp_path / "pipe")
    done = threading.Event()

    def write():
        pipe.write_text(content_of("txt", TEXTS))
        while not done.wait(0.01):
            pipe.write_bytes(b"")  # for who opens it again, and would wait for ever

    (writer := threading.Thread(target=write)).start()
    status, results, told = classify(pipe)
    done.set()
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    writer.join()
    assert (status, told) == (0, []) and bare(results) == small(TEXTS, LABELS)


@pytest.mark.filterwarnings("ignore:the pair of text .* is cut")
def test_a_cell_of_a_megabyte_is_a_text(classify, file):
    long = "长文" * 170_000
    status, results, told = classify(file("a.csv", as_csv([["text"], [long], ["去看海"]])))
    assert (status, told) == (0, []) and [result["sequence"] for result in results] == [long, "去看海"]
    assert csv.field_size_limit() == 131_072


def test_progress_counts_the_rows_of_a_table(classify, file, tmp_path):
    parquet.write_table(pyarrow.table({"text": ["一\n行"] * 4}), tmp_path / "a.parquet", row_group_size=3)
    for source in (file("a.csv", as_csv([["text"], *[["一\n行"]] * 4])), tmp_path / "a.parquet"):
        given = command.parser().parse_args(["classify", str(source), "--labels", "财经"])
        assert command.Counted(command.source_of(given), given, command.Output()).__length_hint__() == 4


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "kind, encoding", [("csv", "UTF-8"), ("csv", "GB18030"), ("csv", "UTF-16-LE"), ("parquet", "")]
)
def test_a_run_over_a_table_is_resumed(classify, file, tmp_path, kind, encoding, monkeypatch):
    monkeypatch.setattr(classifier, "BLOCK_TEXTS", 2)
    texts = [*TEXTS, "", "大雨将至"]
    if kind == "csv":
        source = file("a.csv", content_of("csv", texts), encoding)
    else:
        parquet.write_table(pyarrow.table({"text": texts}), source := tmp_path / "a.parquet", row_group_size=2)
    output = tmp_path / "results.jsonl"
    assert classify(source, "--output", output)[0] == 1
    whole = output.read_bytes()
    assert [result["row"] for result in parsed(whole)] == [1, 2, 3, 4, 5] and b'"error"' in whole
    lines = whole.splitlines(keepends=True)
    for done, more in ((0, 3), (1, 0), (2, 20), (4, -1), (5, 0)):
        output.write_bytes(b"".join(lines[:done]) + b"".join(lines[done : done + 1])[:more] * (more != 0))
        assert classify(source, "--output", output, "--resume")[0] == 1
        assert output.read_bytes() == whole


def test_a_table_that_was_changed_or_taken_for_lines_is_not_resumed(classify, file, tmp_path):
    source, output = file("a.csv", content_of("csv", TEXTS)), tmp_path / "results.jsonl"
    classify(source, "--output", output)
    kept = output.read_bytes()
    file("a.csv", content_of("csv", [*TEXTS[:2], "另一条"]))
    status, _, [line] = classify(source, "--output", output, "--resume")
    assert status == 2 and f"row 3 of {source} is another than when its result was written" in line
    file("a.csv", content_of("csv", TEXTS[:2]))
    status, _, [line] = classify(source, "--output", output, "--resume")
    assert status == 2 and f"{source} has 2 rows, {output} results of 3: no such run" in line
    assert output.read_bytes() == kept
    output.write_bytes(kept := kept.replace(b'"row"', b'"line"'))
    status, _, [line] = classify(source, "--output", output, "--resume")
    assert status == 2 and "line 1 is no result" in line and output.read_bytes() == kept


# ----------------------------------------------------------------------------------------------------- CSV and Parquet


def rows_of(output):
    with open(output, encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_results_in_csv_open_in_excel(classify, small, file, tmp_path, kind):
    texts, output = [*TEXTS[:2], " ", TEXTS[2]], tmp_path / "results.csv"
    status, shown, told = classify(file(f"a.{kind}", content_of(kind, texts)), "--output", output)
    key = "row" if kind == "csv" else "line"
    assert status == 1 and shown == [] and told[-1] == f"1 of 4 {key}s have no result"
    assert output.read_bytes().startswith(codecs.BOM_UTF8 + key.encode())
    rows, expected = rows_of(output), small(TEXTS, LABELS)
    ids = ["id"] * (kind != "txt")
    assert list(rows[0]) == [key, *ids, "sequence", "label", "score", *LABELS, "error"]
    assert [row[key] for row in rows] == ["1", "2", "3", "4"]
    assert not ids or [row["id"] for row in rows] == ["0", "1", "2", "3"]
    for row, result in zip(rows[:2] + rows[3:], expected, strict=True):
        scores = dict(zip(result["labels"], result["scores"]))
        assert row["sequence"] == result["sequence"] and row["error"] == ""
        assert (row["label"], float(row["score"])) == (result["labels"][0], result["scores"][0])
        assert {label: float(row[label]) for label in LABELS} == scores
    bad = [rows[2][column] for column in ("sequence", "label", "score", *LABELS)]
    assert bad == [""] * 5 and f"{key} 3: {rows[2]['error']}" == told[0]


def test_results_in_csv_hold_texts_as_they_are(classify, file, tmp_path):
    texts = ['他说："好",\n去', "一\r\n二", " 空 格 ", "=1+1", "a,b;c\td"]
    classify(file("a.csv", as_csv([["text"], *([text] for text in texts)])), "--output", tmp_path / "out.CSV")
    assert [row["sequence"] for row in rows_of(tmp_path / "out.CSV")] == texts


def test_ids_of_any_kind_are_strings_in_csv_and_parquet(classify, file, tmp_path):
    lines = ['{"text": "央行", "id": {"a": [1, "二"]}}', '{"text": "国足"}', '{"text": "海", "id": 7}', '"去"']
    source = file("a.jsonl", "\n".join(lines))
    for kind in ("csv", "parquet"):
        assert classify(source, "--output", tmp_path / f"out.{kind}")[0] == 0
    assert [row["id"] for row in rows_of(tmp_path / "out.csv")] == ['{"a": [1, "二"]}', "", "7", ""]
    assert parquet.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ['{"a": [1, "二"]}', None, "7", None]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_results_in_parquet(classify, small, file, tmp_path, kind, monkeypatch):
    texts, output = [*TEXTS[:2], " ", TEXTS[2]], tmp_path / "results.parquet"
    status, shown, told = classify(file(f"a.{kind}", content_of(kind, texts)), "--output", output)
    key = "row" if kind == "csv" else "line"
    assert status == 1 and shown == []
    rows = parquet.read_table(output).to_pylist()
    assert list(rows[0]) == [key, "id", "sequence", "labels", "scores", "error"]
    assert [row[key] for row in rows] == [1, 2, 3, 4]
    assert bare(rows[:2] + rows[3:]) == small(TEXTS, LABELS)
    assert [row["error"] for row in rows] == [None, None, told[0].removeprefix(f"{key} 3: "), None]
    assert rows[2]["sequence"] is rows[2]["labels"] is None


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_text_gives_a_table_of_no_rows(classify, file, tmp_path, kind):
    assert classify(file("a.txt", ""), "--output", tmp_path / f"out.{kind}") == (0, [], [])
    out = tmp_path / f"out.{kind}"
    assert (rows_of(out) if kind == "csv" else parquet.read_table(out).to_pylist()) == []


@pytest.mark.parametrize("name", ["results.csv", "results.parquet", "results.CSV"])
def test_a_table_is_not_resumed_and_not_written_over(classify, file, no_model, tmp_path, name):
    source, output = file("a.txt", "央行\n"), tmp_path / name
    status, _, [line] = classify(source, "--output", output, "--resume")
    assert status == 2 and line.startswith("error: --resume goes on with JSONL only: ") and not output.exists()
    output.write_bytes(b"kept")
    assert classify(source, "--output", output) == (2, [], [f"error: {output} exists: give another name"])
    assert output.read_bytes() == b"kept"


@pytest.mark.parametrize("label", ["line", "sequence", "label", "score", "error"])
def test_a_label_with_the_name_of_a_column_is_refused(classify, file, no_model, tmp_path, label):
    status, _, [line] = classify(
        file("a.txt", "央行\n"), "--labels", f"财经,{label}", "--output", tmp_path / "results.csv"
    )
    assert status == 2 and f"the label '{label}' is a column of the CSV already" in line


def test_a_label_with_the_name_of_no_column_here_is_none(classify, file, tmp_path):
    assert classify(file("a.txt", "央行\n"), "--labels", "id,row", "--output", tmp_path / "results.csv")[0] == 0
    [row] = rows_of(tmp_path / "results.csv")
    assert math.isclose(float(row["id"]) + float(row["row"]), 1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_that_cannot_be_written_is_no_way_to_begin(classify, file, tmp_path, kind):
    output = tmp_path / "missing" / f"results.{kind}"
    status, _, [line] = classify(file("a.txt", "央行\n"), "--output", output)
    assert status == 2 and line.startswith(f"error: {output} cannot be written: ")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("error, status", [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 1)])
def test_an_interrupted_run_leaves_no_table(classify, file, tmp_path, monkeypatch, kind, error, status):
    """Not of a part of the rows, which would look whole; nor another file."""
    monkeypatch.setattr(classifier, "BLOCK_TEXTS", 2)
    source, read = file("a.txt", "央行\n国足\n" * 4), records.read_line

    def interrupted(number, *others):
        if number == 7:
            raise error
        return read(number, *others)

    monkeypatch.setattr(records, "read_line", interrupted)
    found, _, told = classify(source, "--output", tmp_path / f"results.{kind}")
    assert found == status and len(told) == 1
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_told_and_leaves_no_table(classify, file, tmp_path):
    source = file("a.txt", "央行宣布下调利率\n" * 40)
    for kind in ("csv", "parquet"):
        with no_file_larger_than(500):
            status, _, [line] = classify(source, "--output", tmp_path / f"results.{kind}")
        assert status == 1 and line.startswith("error: ") and "File too large" in line and "--resume" not in line
        assert os.listdir(tmp_path) == ["a.txt"]


def test_a_process_that_is_killed_leaves_no_table_under_its_name(tmp_path):
    output = tmp_path / "results.csv"
    words = [sys.executable, "-m", "zsc_utils", "classify", "-", "--labels", "财经,体育", "--checkpoint", ORACLE]
    streams = dict(stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    with subprocess.Popen([*map(str, words), "--output", output], **streams) as child:
        child.stdin.write("央行\n国足\n".encode() * 40)
        child.stdin.flush()
        deadline = time.monotonic() + 120  # for importing torch, too
        while not any(file.stat().st_size for file in tmp_path.glob("*.tmp")) and child.poll() is None:
            assert time.monotonic() < deadline, "the child does not get on"
            time.sleep(0.05)
        assert child.poll() is None and not output.exists()
        os.kill(child.pid, signal.SIGKILL)
    assert not output.exists() and [name for name in os.listdir(tmp_path) if not name.endswith(".tmp")] == []


# ------------------------------------------------------------------------------------------------------------- scaling


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["UTF-8", "GB18030", "UTF-16-LE"])
def test_scaling_finds_the_encoding_once_and_each_part_carries_it(file, kind, encoding, monkeypatch):
    parts = list(records.cut([str(file(f"a.{kind}", content_of(kind, TEXTS * 3), encoding))], 2, "text"))
    assert {part.encoding for part in parts} == {ENCODINGS[encoding][0]} and len(parts) == 5
    monkeypatch.setattr(records, "encoding_of", lambda file: pytest.fail("it was looked for again"))
    assert [row.text for part in parts for row in records.read(part, "text")] == TEXTS * 3


def test_scaling_tells_the_encoding(file, tmp_path, monkeypatch):
    source = file("a.csv", content_of("csv", TEXTS), "GB18030")
    monkeypatch.setattr(scaling, "import_ray", lambda: None)
    monkeypatch.setattr(scaling, "through_ray", lambda *_: (report for report in ()))
    with pytest.warns(UserWarning, match="a.csv is read as GB18030"):
        scaling.classify_dataset(source, LABELS, output=tmp_path / "out", checkpoint=ORACLE, progress=False)


# ------------------------------------------------------------------------------------------------------ files of labels


GROUPS = {"体育": ["足球", "网球"], "经济": ["股票", "房价", "利率"]}


@pytest.mark.parametrize("labels", [["财经", "体育"], {"财经": "银行和利率", "体育": "球赛"}, GROUPS])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-8 with a mark"])
def test_labels_come_from_a_json_file(classify, small, file, tmp_path, labels, encoding):
    given = file("labels.json", json.dumps(labels, ensure_ascii=False), encoding)
    source, output = file("a.txt", "\n".join(TEXTS)), tmp_path / "out.jsonl"
    status, found, _ = classify(source, "--labels", given, "--output", output)
    assert status == 0
    found = parsed(output.read_bytes())
    assert [{key: value for key, value in result.items() if key != "line"} for result in found] == small(TEXTS, labels)
    output.write_bytes(b"".join(output.read_bytes().splitlines(keepends=True)[:1]))
    assert classify(source, "--labels", given, "--output", output, "--resume")[0] == 0
    assert parsed(output.read_bytes()) == found
    other = file("other.json", json.dumps({"体育": ["足球"], "经济": ["股票"]}, ensure_ascii=False))
    assert classify(source, "--labels", other, "--output", output, "--resume")[0] == 2


def test_a_table_has_empty_cells_for_labels_of_other_groups(classify, small, file, tmp_path):
    given = file("labels.json", json.dumps(GROUPS))
    for kind in ("csv", "parquet"):
        assert (
            classify(file("a.txt", "\n".join(TEXTS)), "--labels", given, "--output", tmp_path / f"out.{kind}")[0] == 0
        )
    wanted = small(TEXTS, GROUPS)
    for row, result in zip(rows_of(tmp_path / "out.csv"), wanted, strict=True):
        assert {label: float(row[label]) for label in result["labels"]} == dict(zip(result["labels"], result["scores"]))
        assert [row[label] for label in result["left_out"]] == [""] * len(result["left_out"])
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["labels"] for row in rows] == [result["labels"] for result in wanted]


@pytest.mark.parametrize("content, told", [
    ("", "holds no labels as JSON"), ("7", "holds 7: a list or an object is needed"),
    ("[]", "candidate_labels is empty"),
    ('{"体育": ["足球"], "体育": ["网球"]}', "'体育' is there twice"), ('{"体育": []}', "group '体育' is empty"),
    ("[" * 100_000, "holds no labels as JSON"), ('[["a", "b"]]', "label 0 is ['a', 'b']"), (None, "No such file"),
    ("财经".encode("gb18030"), "holds no labels as JSON in UTF-8"), ('["a\\ud83d"]', "holds half a character"),
])  # fmt: skip
def test_a_file_that_holds_no_labels_is_told(classify, file, no_model, tmp_path, content, told):
    given = tmp_path / "labels.json"
    if content is not None:
        given.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, _, lines = classify(file("a.txt", "央行"), "--labels", given)
    assert status == 2 and told in lines[-1] and len(lines) == 1
