"""The command: lines in, JSONL out, each bad line named, runs that go on where they stopped, and bills before work."""

import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from limits import no_file_larger_than
from oracle import ORACLE
from transformers import BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import __main__ as command
from zsc_utils import checkpoint as door
from zsc_utils import classifier, inference, memory, offloading, records
from zsc_utils import plan as planning

LABELS = ["财经", "体育"]
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线", "去看海"]
LONG = "央行利率" * 200  # more than the model reads
ROOT = Path(__file__).parents[2]

OF_A_PROCESS = ["--labels", ",".join(LABELS), "--checkpoint", ORACLE]

pytestmark = pytest.mark.filterwarnings("ignore:the pair of text .* is cut")


@dataclass
class Ran:
    """What came of a command: exit status, the bytes of standard output, the words on standard error."""

    status: int
    written: bytes
    told: str

    @property
    def results(self):
        return parsed(self.written)


def parsed(written):
    """The objects of JSONL, each line of which is strictly JSON and ends with a newline."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert written == b"" or written.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse) for line in written.decode().split("\n")[:-1]]


@pytest.fixture
def run(capsysbinary):
    """A function that runs the command in this process."""

    def main(*arguments):
        capsysbinary.readouterr()
        status = command.main([str(argument) for argument in arguments])
        captured = capsysbinary.readouterr()
        return Ran(status, captured.out, captured.err.decode())

    return main


@pytest.fixture(scope="module")
def small():
    return zsc.ZeroShotClassifier(ORACLE)


@pytest.fixture
def classify(run, small, monkeypatch):
    """A function that classifies a file by two labels with the small checkpoint; what it is given last counts.

    Without levers that checkpoint is loaded once for all tests.
    """

    def made(name, **levers):
        return small if name == str(ORACLE) and not any(levers.values()) else zsc.ZeroShotClassifier(name, **levers)

    monkeypatch.setattr(command, "ZeroShotClassifier", made)

    def main(file, *options):
        return run("classify", file, "--labels", ",".join(LABELS), "--checkpoint", ORACLE, "--quiet", *options)

    return main


@pytest.fixture
def file(tmp_path):
    """A function that writes a file of this content and returns its path."""

    def write(content, name="texts.txt"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def lines_of(texts):
    return "".join(f"{text}\n" for text in texts)


def numbered(results):
    """Results of a classifier as the command writes them."""
    return [{"line": number} | result for number, result in enumerate(results, 1)]


# ------------------------------------------------------------------------------------------------------- the results


@pytest.mark.parametrize(
    "options, levers, call",
    [
        ([], {}, {}),
        (["--multi-label"], {}, {"multi_label": True}),
        (["--template", "这篇文章的标题是{}"], {}, {"hypothesis_template": "这篇文章的标题是{}"}),
        (["--long-texts", "mean"], {}, {"long_texts": "mean"}),
        (["--precision", "int8"], {"precision": "int8"}, {}),
        (["--precision", "bf16"], {"precision": "bf16"}, {}),
        (["--offload"], {"offload": True}, {}),
        (["--budget", "100MB"], {"memory_budget": "100MB"}, {}),
    ],
)
def test_results_are_those_of_the_classifier_with_the_same_options(classify, file, options, levers, call):
    texts = [*TEXTS, LONG] if "long_texts" in call else TEXTS
    found = classify(file(lines_of(texts)), *options)
    assert found.results == numbered(zsc.ZeroShotClassifier(ORACLE, **levers)(texts, LABELS, **call))
    assert [list(result) for result in found.results] == [["line", "sequence", "labels", "scores"]] * len(texts)
    assert found.status == 0 and found.told == ""


def test_levers_of_the_command_line_reach_the_classifier(classify, file, monkeypatch):
    seen = []

    def watched(*arguments, **options):
        seen.append(zsc.ZeroShotClassifier(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(command, "ZeroShotClassifier", watched)
    smallest = min(
        planning.subject_of(ORACLE).total(setting)
        for setting in planning.settings_for(planning.subject_of(ORACLE), 1024)
    )
    source = file(lines_of(TEXTS))
    assert classify(source, "--budget", smallest, "--allow-lossy").status == 0
    assert classify(source, "--offload").status == 0
    assert classify(source, "--precision", "fp16").status == 0
    lossy, streamed, half = (found.plan for found in seen)
    assert (lossy.setting.precision, lossy.budget) == ("int8", smallest)
    assert streamed.setting.block and streamed.budget is None
    assert half.setting.precision == "fp16" and not half.setting.block


def test_characters_stay_as_they_are(classify, file):
    assert '"sequence": "央行宣布下调利率", "labels": ["' in classify(file(TEXTS[0])).written.decode()


def test_the_checkpoint_is_the_one_of_the_environment_unless_named(run, file, monkeypatch):
    monkeypatch.setenv("ZSC_CHECKPOINT", str(ORACLE))
    found = run("classify", file(lines_of(TEXTS)), "--labels", "财经，体育", "--quiet")  # the Chinese comma too
    assert found.results == numbered(zsc.ZeroShotClassifier(ORACLE)(TEXTS, LABELS))


def test_output_holds_the_bytes_that_standard_output_would_have(classify, file, tmp_path):
    source, output = file(lines_of(TEXTS)), tmp_path / "results.jsonl"
    shown, written = classify(source), classify(source, "--output", output)
    assert output.read_bytes() == shown.written and written == Ran(0, b"", "")


def test_a_text_too_long_is_cut_with_a_warning(classify, file):
    with pytest.warns(UserWarning, match="is cut"):
        found = classify(file(lines_of([LONG])))
    assert found.status == 0 and found.results[0]["sequence"] == LONG


# -------------------------------------------------------------------------------------------------- lines of a file


@pytest.mark.parametrize(
    "content, texts",
    [
        ("央行\n国足\n", ["央行", "国足"]),
        ("央行\r\n国足\r\n", ["央行", "国足"]),
        ("央行\n国足", ["央行", "国足"]),
        ("央行\r\n国足\r", ["央行", "国足"]),
        ("\ufeff央行\r\n国足\r\n", ["央行", "国足"]),
        ("央行\n\ufeff国足\n", ["央行", "\ufeff国足"]),  # no byte order mark but where the file begins
        (" 央行\t\n\u3000国足 \n", [" 央行\t", "\u3000国足 "]),
        ("央行\u2028国\x85足\x0b！\n", ["央行\u2028国\x85足\x0b！"]),  # ends of lines elsewhere, not here
        ("央\r行\n", ["央\r行"]),
        ('{"text": "央行"}\n"国足"\n', ['{"text": "央行"}', '"国足"']),  # JSON only where it was said
        ("", []),
    ],
)
def test_a_line_is_a_text_whatever_its_end(classify, file, content, texts):
    found = classify(file(content))
    assert [result["sequence"] for result in found.results] == texts
    assert [result["line"] for result in found.results] == list(range(1, len(texts) + 1))
    assert found.status == 0 and found.told == ""


BAD_TEXTS = [
    (b"", "text of this line is empty (''): leave it out"),
    (b"\r", "text of this line is empty"),
    (b" \t\xe3\x80\x80", "text of this line is empty"),
    (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff in position 0"),
    ("央行".encode()[:-1], "'utf-8' codec can't decode"),
    ("央行".encode("gb18030"), "'utf-8' codec can't decode"),
    ("\ud83d".encode("utf-8", "surrogatepass"), "'utf-8' codec can't decode"),
]
BAD_RECORDS = [
    (b"", "Expecting value"),
    (b"{", "Expecting property name"),
    (b'{"text": "a"} x', "Extra data"),
    ("央行".encode(), "Expecting value"),
    (b"7", "text of this line is 7, a int"),
    (b"true", "text of this line is True, a bool"),
    (b"null", "text of this line is None, a NoneType"),
    (b'["text"]', "text of this line is ['text'], a list"),
    (b"{}", "the record has no field 'text'"),
    (b'{"Text": "a"}', "the record has no field 'text'"),
    (b'{"text": null}', "text of this line is None"),
    (b'{"text": 3.5}', "text of this line is 3.5, a float"),
    (b'{"text": {"text": "a"}}', "a dict: only strings"),
    (b'{"text": " "}', "text of this line is empty"),
    (b'""', "text of this line is empty"),
    (b'{"text": "a\\ud83d"}', "text of this line holds half a character at 1"),
    (b'"\\ude00"', "text of this line holds half a character at 0"),
    (b'{"text": "\xff"}', "'utf-8' codec can't decode"),
    (b'{"text": "a\tb"}', "Invalid control character"),
    (b'{"text": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
]


def bad_line_told(found, message):
    """Check that of three lines the second has no result, and the others have theirs."""
    first, bad, last = found.results
    assert list(bad) == ["line", "error"] and bad["line"] == 2 and message in bad["error"]
    assert [first["line"], first["sequence"], last["line"], last["sequence"]] == [1, "央行", 3, "国足"]
    assert found.status == 1
    assert found.told.splitlines() == [f"line 2: {bad['error']}", "1 of 3 lines have no result"]
    return True


@pytest.mark.parametrize("bad, message", BAD_TEXTS)
def test_a_text_without_an_answer_is_told_by_its_number_and_the_rest_goes_on(classify, file, bad, message):
    assert bad_line_told(classify(file("央行\n".encode() + bad + "\n国足".encode())), message)


@pytest.mark.parametrize("bad, message", BAD_RECORDS)
def test_a_record_without_an_answer_is_told_by_its_number_and_the_rest_goes_on(classify, file, bad, message):
    content = '"央行"\n'.encode() + bad + '\n{"text": "国足"}'.encode()
    assert bad_line_told(classify(file(content, "records.jsonl")), message)


def test_a_record_nested_too_deep_is_a_bad_line_like_any_other(classify, file):
    content = '"央行"\n'.encode() + b"[" * 200_000 + '\n"国足"\n'.encode()
    assert bad_line_told(classify(file(content, "records.jsonl")), "")


@pytest.mark.parametrize("given", ['"\\ud83d"', '["\\ud83d"]', '{"\\ud83d": 1}'])
def test_half_a_character_in_an_id_does_not_stop_the_run(classify, file, given):
    content = f'"央行"\n{{"id": {given}, "text": "去看海"}}\n"国足"\n'
    found = classify(file(content, "records.jsonl"))
    assert [result["line"] for result in found.results] == [1, 2, 3]
    assert found.results[2]["sequence"] == "国足" and found.status in (0, 1)


def test_nothing_but_bad_lines(classify, file):
    found = classify(file("\n\n"))
    assert found.status == 1 and [list(result) for result in found.results] == [["line", "error"]] * 2
    assert found.told.splitlines()[-1] == "2 of 2 lines have no result"


def test_a_line_too_large_for_the_memory_is_a_bad_line(run, file, monkeypatch):
    forward = inference.logits

    def small(model, ids, *others, **options):
        if len(ids) > 100:
            raise torch.OutOfMemoryError("not enough memory")
        return forward(model, ids, *others, **options)

    monkeypatch.setattr(inference, "logits", small)
    content = '"央行"\n' + json.dumps({"id": 5, "text": "国足" * 60}) + '\n"国足"\n'
    found = run("classify", file(content, "records.jsonl"), *OF_A_PROCESS, "--quiet")
    assert [list(result) for result in found.results][1] == ["line", "id", "error"]
    assert found.results[1]["error"].startswith("MemoryError: the pair of text") and found.results[1]["id"] == 5
    assert found.told.startswith("line 2: MemoryError") and found.status == 1
    assert found.results[2]["sequence"] == "国足"


# ------------------------------------------------------------------------------------------------------------ records


@pytest.mark.parametrize("options, name", [([], "records.jsonl"), (["--jsonl"], "records.txt")])
def test_records_are_strings_or_objects_by_the_file_s_name_or_by_hand(classify, file, options, name):
    content = (
        '\ufeff"央行"\r\n{"text": "国足", "other": 1}\r\n  {"text": "去\\n看\\u2028海"} \n{"text": "\\ud83d\\ude00"}'
    )
    found = classify(file(content, name), *options)
    assert [result["sequence"] for result in found.results] == ["央行", "国足", "去\n看\u2028海", "😀"]
    assert found.status == 0 and found.written.count(b"\n") == 4
    assert all("other" not in result for result in found.results)


def test_the_field_of_the_text_can_be_named(classify, file):
    content = '{"review": "央行", "text": "国足"}\n{"text": "国足"}\n"去看海"\n'
    found = classify(file(content, "records.jsonl"), "--field", "review")
    assert [result.get("sequence") for result in found.results] == ["央行", None, "去看海"]
    assert "the record has no field 'review'" in found.results[1]["error"]


IDS = [7, "七", 0, "", None, False, 1.5, ["a", {"b": "\n"}], {"id": 1}, 10**30]


def test_ids_are_carried_through_as_they_are(classify, file):
    content = "".join(json.dumps({"text": "央行", "id": given}) + "\n" for given in IDS) + '{"text": "央行"}\n"央行"\n'
    found = classify(file(content, "records.jsonl"))
    assert [result.get("id", "none") for result in found.results] == [*IDS, "none", "none"]
    assert [type(result["id"]) for result in found.results[:-2]] == [type(given) for given in IDS]
    assert [list(result)[:3] for result in found.results[:-2]] == [["line", "id", "sequence"]] * len(IDS)


@pytest.mark.parametrize("given", ["NaN", "Infinity", "[-Infinity]"])
def test_what_is_no_json_in_an_id_does_not_get_into_the_output(classify, file, given):
    found = classify(file(f'{{"id": {given}, "text": "央行"}}\n"国足"\n', "records.jsonl"))
    assert [result["line"] for result in found.results] == [1, 2]  # as strict JSON


# ------------------------------------------------------------------------------------------------------ standard input


@pytest.mark.parametrize("options, content", [([], "央行\r\n国足"), (["--jsonl"], '"央行"\n{"text": "国足"}\n')])
def test_texts_can_come_from_standard_input(classify, monkeypatch, options, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii"))
    found = classify("-", *options)
    assert [result["sequence"] for result in found.results] == ["央行", "国足"] and found.status == 0


def test_a_run_from_standard_input_is_resumed(classify, tmp_path, monkeypatch):
    content, output = lines_of(TEXTS).encode(), tmp_path / "results.jsonl"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert classify("-", "--output", output).status == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index(b"\n") + 30])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert classify("-", "--output", output, "--resume").status == 0
    assert output.read_bytes() == whole


# ----------------------------------------------------------------------------------------------------------- progress


def test_progress_goes_to_standard_error_and_counts_lines(run, file):
    arguments = ["classify", file("央行\n\n国足"), "--labels", "财经,体育", "--checkpoint", ORACLE]
    found = run(*arguments)
    assert [result["line"] for result in found.results] == [1, 2, 3]
    assert "classify" in found.told and "3/3" in found.told
    assert "line 2: text of this line is empty" in found.told
    assert "3/3" not in run(*arguments, "--quiet").told


def test_progress_of_lines_whose_number_nobody_knows(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("央行\n国足\n".encode())))
    found = run("classify", "-", "--labels", "财经,体育", "--checkpoint", ORACLE)
    assert "2text" in found.told and len(found.results) == 2


# -------------------------------------------------------------------------------------------- what it cannot begin with


@pytest.mark.parametrize(
    "options, message",
    [
        (["--labels", "财经,体育，财经"], "candidate_labels holds 财经 more than once"),
        (["--labels", " ,，"], "candidate_labels is empty"),
        (["--labels", "财经" * 300], "leaves no room for a text"),
        (["--template", "没有"], "hypothesis_template '没有': it needs {} exactly once"),
        (["--template", "{}{}"], "it needs {} exactly once"),
        (["--budget", "banana"], "size 'banana' is not a size"),
        (["--budget", "0"], "a size is at least one byte"),
        (["--budget", "1MB"], "memory_budget 1.0 MB is too small"),
        (["--checkpoint", "mimi"], "checkpoint 'mimi': no such folder"),
        (["--resume"], "--resume goes on with the file of --output: name it"),
    ],
)
def test_what_cannot_begin_says_why_on_one_line_with_status_2(classify, file, options, message):
    found = classify(file(lines_of(TEXTS)), *options)
    assert found.status == 2 and found.written == b""
    assert found.told.startswith("error: ") and message in found.told and found.told.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--labels", "财经,财经"], ["--template", "没有"], ["--labels", "财经" * 300], ["--budget", "1MB"]]
)
def test_what_cannot_begin_leaves_no_output_behind_that_would_be_in_the_way(classify, file, tmp_path, options):
    assert classify(file(lines_of(TEXTS)), "--output", tmp_path / "results.jsonl", *options).status == 2
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize("name", ["missing.txt", ".", "texts.txt/more"])
def test_a_file_that_is_none_is_told_before_any_weight_is_read(classify, file, tmp_path, monkeypatch, name):
    file("央行\n")
    monkeypatch.setattr(command, "ZeroShotClassifier", lambda *_, **__: pytest.fail("weights were read"))
    found = classify(tmp_path / name)
    assert found.status == 2 and found.told == f"error: {tmp_path / name}: no such file\n"


@pytest.mark.parametrize("where", ["missing/results.jsonl", "."])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_an_output_that_cannot_be_opened_is_no_way_to_begin(classify, file, tmp_path, where, resume):
    found = classify(file(lines_of(TEXTS)), "--output", tmp_path / where, *resume)
    assert found.status == 2 and found.told.startswith("error: ") and found.written == b""


def test_a_budget_too_small_names_the_smallest_that_works_and_it_works(classify, file):
    source = file(lines_of(TEXTS))
    told = classify(source, "--budget", "1MB").told
    exact = re.search(r"the smallest that works is ([\d.]+ MB)", told).group(1)
    lossy = re.search(r"allow.lossy\S* ([\d.]+ MB)", told).group(1)
    assert classify(source, "--budget", exact).results == classify(source).results
    assert classify(source, "--budget", lossy).status == 2
    assert classify(source, "--budget", lossy, "--allow-lossy").status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["guess"], ["classify"], ["classify", "texts.txt"], ["classify", "a", "b", "--labels", "财经,体育"],
        ["classify", "texts.txt", "--labels", "财经", "--precision", "fp8"],
        ["classify", "texts.txt", "--labels", "财经", "--long-texts", "min"], ["plan", "--labels", "财经"],
        ["plan", "--length", "many"], ["plan", "texts.txt"],
    ],
)  # fmt: skip
def test_a_command_line_that_is_none(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        command.main(arguments)
    assert error.value.code == 2 and capsys.readouterr().err.startswith("usage: python -m zsc_utils")


@pytest.mark.parametrize("arguments", [["--help"], ["classify", "--help"], ["plan", "--help"]])
def test_help_can_be_printed(arguments, capsys):
    """A % in a help text would raise."""
    with pytest.raises(SystemExit) as error:
        command.main(arguments)
    assert error.value.code == 0 and capsys.readouterr().out.startswith("usage: python -m zsc_utils")


# ------------------------------------------------------------------------------------------------------------- resume

MIXED = [f"第{i}条{'央行利率国足比赛'[: 2 + i % 3]}" for i in range(22)]
MIXED[2] = MIXED[17] = ""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(a file of 22 lines, which are three blocks, two lines of them bad, the bytes of an uninterrupted run)."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "texts.txt").write_text(lines_of(MIXED), encoding="utf-8")
    arguments = [folder / "texts.txt", *OF_A_PROCESS, "--quiet", "--output", folder / "whole.jsonl"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "BLOCK_TEXTS", 8)
        assert command.main(["classify", *map(str, arguments)]) == 1
    whole = (folder / "whole.jsonl").read_bytes()
    assert len(parsed(whole)) == 22 and sum("error" in result for result in parsed(whole)) == 2
    return folder / "texts.txt", whole


@pytest.fixture
def mixed(uninterrupted, monkeypatch):
    """What an uninterrupted run read and wrote in blocks of 8 texts, as the test's own runs are."""
    monkeypatch.setattr(classifier, "BLOCK_TEXTS", 8)
    return uninterrupted


def end_of(whole, lines):
    """How many bytes so many lines are."""
    return sum(map(len, whole.splitlines(keepends=True)[:lines]))


# (whole lines that were written, and bytes of the next one, -1 for all but its newline)
INTERRUPTED = [
    (0, 0), (0, 1), (0, 30), (0, -1), (1, 0), (2, 15), (3, 0), (7, -1), (8, 0), (8, 1), (11, 40), (18, 0), (21, -1),
    (22, 0),
]  # fmt: skip


@pytest.mark.parametrize("lines, more", INTERRUPTED)
def test_a_resumed_run_writes_the_bytes_of_an_uninterrupted_one(classify, tmp_path, mixed, lines, more):
    source, whole = mixed
    start, end = end_of(whole, lines), end_of(whole, lines + 1)
    output = tmp_path / "results.jsonl"
    output.write_bytes(whole[: start + more if more >= 0 else end - 1])
    classify(source, "--output", output, "--resume")
    assert output.read_bytes() == whole


def test_what_is_done_is_not_computed_again(classify, file, tmp_path, mixed, monkeypatch):
    source, whole = mixed
    output, pairs, forward = tmp_path / "results.jsonl", [], inference.logits

    def watched(model, ids, types, groups, **options):
        pairs.append(sum(number for number, _ in groups))
        return forward(model, ids, types, groups, **options)

    monkeypatch.setattr(inference, "logits", watched)
    output.write_bytes(whole[: end_of(whole, 8)])
    classify(source, "--output", output, "--resume")
    resumed = pairs[:]
    assert output.read_bytes() == whole
    pairs.clear()
    classify(file(lines_of(MIXED[8:]), "rest.txt"))
    assert resumed == pairs != []
    pairs.clear()
    classify(source, "--output", output, "--resume")
    assert pairs == [] and output.read_bytes() == whole


def test_resume_where_nothing_was_written_yet_begins(classify, tmp_path, mixed):
    source, whole = mixed
    assert classify(source, "--output", tmp_path / "results.jsonl", "--resume").status == 1
    assert (tmp_path / "results.jsonl").read_bytes() == whole


def test_a_run_that_is_resumed_counts_and_numbers_the_lines_that_are_left(classify, tmp_path, mixed):
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(whole[: end_of(whole, 9)])
    found = classify(source, "--output", tmp_path / "results.jsonl", "--resume")
    assert found.told.splitlines()[0].startswith("line 18: ")
    assert found.told.splitlines()[-1] == "1 of 13 lines have no result" and found.status == 1


@pytest.mark.parametrize("lines", [22, 20])
def test_the_exit_status_of_a_resumed_run_is_that_of_the_whole(classify, tmp_path, mixed, lines):
    """0 would say that every line has a result."""
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(whole[: end_of(whole, lines)])
    assert classify(source, "--output", tmp_path / "results.jsonl", "--resume").status == 1


def test_a_run_without_bad_lines_is_resumed_with_status_0(classify, file, tmp_path):
    source, output = file(lines_of(TEXTS)), tmp_path / "results.jsonl"
    for _ in range(2):
        assert classify(source, "--output", output, "--resume") == Ran(0, b"", "")
    assert [result["line"] for result in parsed(output.read_bytes())] == [1, 2, 3]


def test_records_are_resumed_with_their_ids(classify, file, tmp_path):
    content = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS))
    source, output = file(content, "records.jsonl"), tmp_path / "results.jsonl"
    classify(source, "--output", output)
    whole = output.read_bytes()
    output.write_bytes(whole[: end_of(whole, 2) - 5])
    assert classify(source, "--output", output, "--resume").status == 0
    assert output.read_bytes() == whole and [result["id"] for result in parsed(whole)] == [0, 1, 2]


def test_an_output_that_exists_is_left_alone_without_resume(classify, tmp_path, mixed):
    source, whole = mixed
    for kept in (b"", b"notes", whole):
        (tmp_path / "results.jsonl").write_bytes(kept)
        found = classify(source, "--output", tmp_path / "results.jsonl")
        assert found.status == 2 and "exists: give --resume to go on with it, or another name" in found.told
        assert (tmp_path / "results.jsonl").read_bytes() == kept


@pytest.mark.parametrize("labels", ["财经", "财经,军事", "财经,体育,军事"])
@pytest.mark.parametrize("lines, more", [(1, 0), (8, 0), (8, 20), (22, 0)])
def test_resume_with_other_labels_is_refused_and_nothing_is_touched(classify, tmp_path, mixed, labels, lines, more):
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(kept := whole[: end_of(whole, lines) + more])
    found = classify(source, "--output", tmp_path / "results.jsonl", "--resume", "--labels", labels)
    assert found.status == 2 and "line 1 is no result for these labels" in found.told
    assert (tmp_path / "results.jsonl").read_bytes() == kept


def test_resume_with_other_labels_is_refused_where_the_last_line_is_an_error(classify, tmp_path, mixed):
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(kept := whole[: end_of(whole, 18)])
    assert "error" in parsed(kept)[-1]
    found = classify(source, "--output", tmp_path / "results.jsonl", "--resume", "--labels", "美食,天气")
    assert found.status == 2 and (tmp_path / "results.jsonl").read_bytes() == kept


def test_resume_with_the_same_labels_in_another_order_goes_on(classify, tmp_path, mixed):
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(whole[: end_of(whole, 20)])
    classify(source, "--output", tmp_path / "results.jsonl", "--resume", "--labels", "体育,财经")
    found = parsed((tmp_path / "results.jsonl").read_bytes())
    for one, other in zip(found, parsed(whole), strict=True):
        ours, theirs = (dict(zip(r.get("labels", []), r.get("scores", []))) for r in (one, other))
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("changed", ["另一条", ""])
@pytest.mark.parametrize("more", [0, 20])
def test_resume_where_the_input_s_line_differs_is_refused(classify, file, tmp_path, mixed, changed, more):
    whole, texts = mixed[1], list(MIXED)
    texts[9] = changed
    (tmp_path / "results.jsonl").write_bytes(kept := whole[: end_of(whole, 10) + more])
    found = classify(file(lines_of(texts)), "--output", tmp_path / "results.jsonl", "--resume")
    assert found.status == 2 and "line 10 of " in found.told and "is another than when its result was" in found.told
    assert (tmp_path / "results.jsonl").read_bytes()[: end_of(whole, 10)] == kept[: end_of(whole, 10)]
    assert len(parsed((tmp_path / "results.jsonl").read_bytes().rpartition(b"\n")[0] + b"\n")) == 10


@pytest.mark.parametrize("left", [0, 5, 9])
def test_resume_with_an_input_shorter_than_what_is_written_is_refused(classify, file, tmp_path, mixed, left):
    whole = mixed[1]
    (tmp_path / "results.jsonl").write_bytes(kept := whole[: end_of(whole, 10)])
    found = classify(file(lines_of(MIXED[:left])), "--output", tmp_path / "results.jsonl", "--resume")
    assert (tmp_path / "results.jsonl").read_bytes() == kept
    assert found.status == 2 and "error: " in found.told


NO_RESULTS = [
    b"notes\n",
    b"notes",
    "笔记".encode(),
    b"\x00\xff\x1f\x8b binary",
    b"\n",
    b"[]\n",
    b"null\n",
    b"1\n",
    b"{}\n",
    b'{"text": "a"}\n',
    b'{"text": "a"}',
    b'{"line": 2, "labels": ["\xe8\xb4\xa2\xe7\xbb\x8f"]}\n',
    b'{"line": "1", "labels": ["a"]}\n',
    b'{"line": 1, "labels": 5}\n',
    b'{"line": 1, "labels": null}\n',
    b"notes\nmore notes",
    b"[" * 200_000 + b"\n",
]


@pytest.mark.parametrize("kept", NO_RESULTS)
def test_resume_does_not_damage_a_file_that_holds_no_results(classify, file, tmp_path, kept):
    (tmp_path / "notes").write_bytes(kept)
    found = classify(file(lines_of(TEXTS)), "--output", tmp_path / "notes", "--resume")
    assert (tmp_path / "notes").read_bytes() == kept
    assert found.status == 2 and "is no result" in found.told


@pytest.mark.parametrize("content", ["央行\n国足\n", "央行"])
def test_the_input_named_as_the_output_is_not_damaged(classify, file, content):
    source = file(content)
    assert classify(source, "--output", source, "--resume").status == 2
    assert classify(source, "--output", source).status == 2
    assert source.read_bytes() == content.encode()


@pytest.mark.parametrize("damage", [lambda lines: lines[:12] + lines[13:], lambda lines: lines[:12] + [b"\n"]])
def test_results_of_which_a_line_is_missing_are_not_resumed(classify, tmp_path, mixed, damage):
    source, whole = mixed
    (tmp_path / "results.jsonl").write_bytes(kept := b"".join(damage(whole.splitlines(keepends=True)[:22])))
    found = classify(source, "--output", tmp_path / "results.jsonl", "--resume")
    assert found.status == 2 and (tmp_path / "results.jsonl").read_bytes() == kept


# ------------------------------------------------------------------------------------------------------- interruptions


def test_ctrl_c_keeps_what_was_written_and_the_run_goes_on_later(classify, tmp_path, mixed, monkeypatch):
    (source, whole), output, read = mixed, tmp_path / "results.jsonl", records.read_line

    def interrupted(number, *others):
        if number == 20:
            raise KeyboardInterrupt
        return read(number, *others)

    with monkeypatch.context() as patch:
        patch.setattr(records, "read_line", interrupted)
        found = classify(source, "--output", output)
    assert found.status == 130 and found.told.splitlines()[-1] == "interrupted"
    assert output.read_bytes() == whole[: end_of(whole, 16)]  # the blocks that were whole
    classify(source, "--output", output, "--resume")
    assert output.read_bytes() == whole


def test_a_full_disk_is_told_with_what_to_do_and_the_run_goes_on_later(classify, tmp_path, mixed):
    (source, whole), output = mixed, tmp_path / "results.jsonl"
    room = end_of(whole, 14) + 20
    with no_file_larger_than(room):
        found = classify(source, "--output", output)
    assert found.status == 1
    assert "error: result of line 15 cannot be written" in found.told and "go on with --resume" in found.told
    assert output.read_bytes() == whole[:room]
    with no_file_larger_than(room):  # still no room
        assert classify(source, "--output", output, "--resume").status == 1
    assert output.read_bytes() == whole[:room]
    classify(source, "--output", output, "--resume")
    assert output.read_bytes() == whole


class Broken(io.RawIOBase):
    """A file that takes nothing."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def write(self, _):
        raise self.error


@pytest.mark.parametrize("words", ["classify", "plan"])
@pytest.mark.parametrize(
    "error, status, told",
    [
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (OSError(28, "No space left on device"), 1, "error: (result of line 1 cannot be written: )?.*No space left"),
    ],
)
def test_a_standard_output_that_takes_no_more(file, monkeypatch, capsys, words, error, status, told):
    """As of `| true`, and of `> /dev/full`; in a pipe or a file, where it is buffered."""
    arguments = ["classify", file(lines_of(TEXTS)), *OF_A_PROCESS, "--quiet"]
    arguments = arguments if words == "classify" else ["plan", "--checkpoint", ORACLE]
    monkeypatch.setattr(sys, "stdout", output := io.TextIOWrapper(io.BufferedWriter(Broken(error))))
    try:
        assert command.main([str(argument) for argument in arguments]) == status
        if not output.closed:  # as Python does when it ends; an error makes the status 120, and is told at length
            output.flush()
    finally:
        with suppress(OSError):
            output.close()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and re.match(told, shown) if told else shown == ""
    assert "--resume" not in shown  # of what has no file


def test_results_go_to_a_file_where_there_is_no_standard_output(classify, file, tmp_path, monkeypatch):
    """As where a service starts the command, or `>&-`: Python has None there."""
    monkeypatch.setattr(sys, "stdout", None)
    assert classify(file(lines_of(TEXTS)), "--output", tmp_path / "results.jsonl").status == 0
    assert len(parsed((tmp_path / "results.jsonl").read_bytes())) == 3


def test_results_without_a_place_to_go_are_told(classify, file, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    found = classify(file(lines_of(TEXTS)))
    assert found.status in (1, 2) and found.told.startswith("error: ")


def test_errors_do_not_get_among_results_where_there_is_no_standard_error(classify, file, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    found = classify(file("央行\n\n"))
    assert [result["line"] for result in found.results] == [1, 2] and found.status == 1


@pytest.mark.parametrize("words, status", [("plan --labels 12", 2), ("plan --length 9", 0)])
def test_the_exit_status_is_the_process_s(monkeypatch, capsys, words, status):
    monkeypatch.setattr(sys, "argv", ["zsc_utils", *words.split(), "--checkpoint", str(ORACLE)])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which is then set
    monkeypatch.delitem(sys.modules, "zsc_utils.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("zsc_utils", run_name="__main__")
    assert ended.value.code == status


# ----------------------------------------------------------------------------------------------- processes of their own


def process(*arguments):
    """A `python -m zsc_utils` of its own, its standard streams as pipes.

    On one thread, as the tests: scores are the same bits on as many threads only.
    """
    words = [sys.executable, "-m", "zsc_utils", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(words, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, **streams)


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """(a process that writes to a file, that file, a process that writes to a pipe), both reading standard input.

    Started at once: importing torch takes each of them longer than what it is asked.
    """
    output = tmp_path_factory.mktemp("killed") / "results.jsonl"
    to_file = process("classify", "-", *OF_A_PROCESS, "--budget", "100MB", "--output", output)
    to_pipe = process("classify", "-", *OF_A_PROCESS)
    yield to_file, output, to_pipe
    for child in (to_file, to_pipe):
        child.kill()
        with suppress(OSError):  # of what was written to its pipe and not read
            child.__exit__(None, None, None)


def written_by(child, output, lines):
    """Wait until a child has written so many lines, which it does with all it needs in its pipe."""
    deadline = time.monotonic() + 60
    while not output.exists() or output.read_bytes().count(b"\n") < lines:
        assert child.poll() is None and time.monotonic() < deadline, "the child does not get on"
        time.sleep(0.02)


MANY = [LONG, "", *(f"第{i}条{'央行利率国足比赛'[: 2 + i % 3]}" for i in range(70))]  # more than a block


def test_a_process_that_is_killed_goes_on_and_ends_with_the_same_bytes(classify, file, children):
    """5 seconds with the next test: two real processes import torch."""
    source, (child, output, _) = file(lines_of(MANY)), children
    whole = classify(source).written
    with child:
        child.stdin.write(b"".join(source.read_bytes().splitlines(keepends=True)[:68]))
        child.stdin.flush()
        written_by(child, output, 64)  # a block; it waits for more lines of the second
        os.kill(child.pid, signal.SIGKILL)
        child.stdin.close()
        written, told = child.stdout.read(), child.stderr.read().decode()
    assert child.returncode == -signal.SIGKILL and written == b""
    assert "64text" in told and "line 2: text of this line is empty" in told
    assert "warning: the pair of text" in told and ".py" not in told  # no line of the source beside it
    assert output.read_bytes() == whole[: end_of(whole, 64)]
    classify(source, "--output", output, "--resume")
    assert output.read_bytes() == whole


def test_a_reader_that_has_enough_ends_the_process_without_a_word(children):
    """As `| head -64` does; until then standard output has results and nothing else."""
    lines = [f"{text}\n".encode() for text in MANY[1:]]
    with children[2] as child:
        child.stdin.write(b"".join(lines[:64]))
        child.stdin.flush()
        written = b"".join(child.stdout.readline() for _ in range(64))
        child.stdout.close()
        child.stdin.write(b"".join(lines[64:]))
        child.stdin.close()
        told = child.stderr.read().decode()
    assert [result.get("sequence") for result in parsed(written)] == [None, *MANY[2:65]]
    assert child.returncode == 0
    bars_aside = [part for part in re.split("[\r\n]", told) if part.strip() and not part.startswith("classify: ")]
    assert [part for part in bars_aside if not part.startswith("line 1: ")] == []


# --------------------------------------------------------------------------------------------------------------- plan


@pytest.fixture
def no_weights(monkeypatch):
    """Every way to weights fails."""

    def refuse(*_, **__):
        pytest.fail("weights were loaded")

    for module, name in [
        (planning, "load"), (planning, "stream_layers"), (planning, "realise"), (planning, "quantize"),
        (door, "load"), (door, "read_state"), (door, "safe_open"), (offloading, "WeightsFile"),
        (command, "ZeroShotClassifier"), (BertForSequenceClassification, "from_pretrained"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, refuse)


@pytest.mark.parametrize(
    "options, arguments",
    [
        ([], {}),
        (["--budget", "450MB"], {"budget": "450MB"}),
        (["--budget", "150MB"], {"budget": "150MB"}),
        (["--budget", "70MB", "--allow-lossy"], {"budget": "70MB", "allow_lossy": True}),
        (["--precision", "int8"], {"chosen": planning.Chosen("int8")}),
        (["--precision", "bf16", "--offload"], {"chosen": planning.Chosen("bf16", None, True)}),
        (["--offload", "--budget", "1GB"], {"budget": "1GB", "chosen": planning.Chosen(offload=True)}),
    ],
)
def test_a_plan_is_that_of_the_classifier_and_no_weight_is_loaded(run, no_weights, options, arguments):
    planning.door.find("base-shape")  # built, if it was not before
    found = run("plan", "--checkpoint", "base-shape", *options)
    assert found.written.decode() == f"{planning.make('base-shape', **arguments)}\n"
    assert found.status == 0 and found.told == ""


def test_the_plan_of_the_checkpoint_of_the_environment(run, monkeypatch):
    monkeypatch.setenv("ZSC_CHECKPOINT", "base-shape")
    assert run("plan").written.startswith(b"base-shape, no budget\n")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--budget", "1MB"], "memory_budget 1.0 MB is too small for 'base-shape': the smallest that works is"),
        (["--budget", "many"], "size 'many' is not a size"),
        (["--checkpoint", "mimi"], "checkpoint 'mimi': no such folder"),
        (["--labels", "12"], "--labels: give --length too"),
        (["--length", "0"], "--length 0: the model reads 1 to 512 tokens"),
        (["--length", "-1"], "--length -1: the model reads 1 to 512 tokens"),
        (["--length", "513"], "--length 513: the model reads 1 to 512 tokens"),
        (["--length", "9", "--labels", "0"], "--labels 0: give 1 or more"),
        (["--length", "9", "--labels", "-2"], "--labels -2: give 1 or more"),
    ],
)
def test_a_plan_that_cannot_be_made(run, options, message):
    found = run("plan", "--checkpoint", "base-shape", *options)
    assert found.status == 2 and found.told.startswith(f"error: {message}") and found.told.count("\n") == 1


def bill_of(found):
    """(pairs, tokens, batches, the most in one, {what: MB}) of the bill below a plan."""
    below = found.written.decode().partition("\na text with ")[2]
    numbers = re.match(r"(\d+) pairs? of (\d+) tokens: (\d+) batch(?:es)? of at most (\d+)\n", below).groups()
    rows = re.findall(r"^ +([\d.]+) MB +(\S.*)$", below, re.MULTILINE)
    return *map(int, numbers), {what: float(size) for size, what in rows}


LEVERS = {
    "fp32": ([], {}),
    "bf16": (["--precision", "bf16"], {"dtype": torch.bfloat16}),
    "int8": (["--precision", "int8"], {}),
    "chunks of 128": (["--budget", "440MB"], {}),
    "streamed": (["--budget", "150MB"], {}),
}


@pytest.mark.parametrize(
    "levers, length, labels",
    [
        ("fp32", 256, 12), ("fp32", 512, 1), ("fp32", 512, 5), ("fp32", 1, 3), ("fp32", 100, 10), ("fp32", 100, 11),
        ("bf16", 256, 12), ("int8", 256, 12), ("int8", 512, 1), ("chunks of 128", 256, 12), ("chunks of 128", 300, 4),
        ("streamed", 256, 12),
    ],
)  # fmt: skip
def test_the_bill_of_a_text_is_that_of_the_forward_pass(run, no_weights, levers, length, labels):
    options, kind = LEVERS[levers]
    found = run("plan", "--checkpoint", "base-shape", *options, "--length", length, "--labels", labels)
    config = door.read_config(door.find("base-shape"))
    most, chunk = (512, 128) if levers == "chunks of 128" else (1024, 256)
    together = min(labels, max(1, most // length))
    ours = inference.predict(config, [(together, length)], chunk=chunk, int8=levers == "int8", **kind)
    theirs = memory.predict(config, labels, length, **kind)
    pairs, tokens, batches, largest, rows = bill_of(found)
    assert (pairs, tokens, batches, largest) == (labels, length, -(-labels // together), together)
    assert list(rows.values()) == [round(size.peak_activations / 1e6, 1) for size in (ours, theirs)]
    assert found.written.decode().startswith("base-shape, ")


def test_the_plans_that_the_bill_is_tested_with_are_the_ones_meant():
    settings = [planning.make("base-shape", budget).setting for budget in ("150MB", "440MB")]
    assert [(setting.block, setting.max_tokens, setting.chunk) for setting in settings] == [
        (4096, 1024, 256),
        (0, 512, 128),
    ]


def test_one_label_is_meant_where_none_is_given(run):
    words = ["plan", "--checkpoint", ORACLE, "--length", "40"]
    assert run(*words).written == run(*words, "--labels", "1").written
    assert b"a text with 1 pair of 40 tokens: 1 batch of at most 1\n" in run(*words).written


def test_the_plan_s_batches_are_those_that_a_classifier_makes(run, oracle, monkeypatch):
    """The bill of 12 labels is of batches that the forward pass is then given."""
    groups, forward = [], inference.logits

    def watched(model, ids, types, own, **options):
        groups.append(own)
        return forward(model, ids, types, own, **options)

    monkeypatch.setattr(inference, "logits", watched)
    labels = [word for word in oracle.tokenizer.get_vocab() if len(word) == 1 and word >= "一"][:12]
    zsc.ZeroShotClassifier(oracle)("财" * 252, labels)  # with [CLS], two [SEP] and a label of one token
    found = run("plan", "--checkpoint", ORACLE, "--length", "256", "--labels", "12")
    *_, batches, largest, _ = bill_of(found)
    assert {length for own in groups for _, length in own} == {256} and len(labels) == 12
    assert len(groups) == batches and max(own[0][0] for own in groups) == largest


# ------------------------------------------------------------------------------------------------------------- reading


def test_lines_are_read_one_block_ahead_and_not_kept(file, monkeypatch):
    """A file of any size is classified in constant memory."""
    monkeypatch.setattr(classifier, "BLOCK_PAIRS", 8)
    given = command.parser().parse_args(["classify", str(file(lines_of(MIXED))), "--labels", "财经,体育"])
    lines = command.Counted(command.source_of(given), given, command.Output())
    answers = zsc.ZeroShotClassifier(ORACLE).answers(lines, LABELS)
    ahead = [lines.read - row.number for row, _ in answers]
    assert max(ahead) == 3 and ahead[-1] == 0


def test_a_line_has_its_number_and_its_record(file):
    line = records.read_line(4, b'{"text": "a", "id": 3}\n', "text")
    assert line == records.Row(4, "a", kept={"id": 3}, where="of this line")
    assert replace(line, number=1) == records.read_line(1, b'\xef\xbb\xbf{"text": "a", "id": 3}\n', "text")
