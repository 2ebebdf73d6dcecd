"""Texts with known labels: figures by hand and by brute force, rows that are left out, ways, thresholds, charts."""

import csv
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import zsc_utils as zsc
from zsc_utils import __main__ as command
from zsc_utils import _evaluation_table as printed
from zsc_utils import evaluation, plots, quantization, samples
from zsc_utils._process import ChildError
from zsc_utils.evaluation import BadRow, Confusion, LabelScores, Report, Run, Threshold, evaluate

LABELS = ("财经", "体育", "航天")
RECORDS = [
    {"text": "央行下调利率，房贷月供将减少", "label": "财经"},
    {"text": "三名宇航员平安返回地面", "label": "航天"},
    {"text": "国足客场一比零战胜对手", "label": "体育"},
]


def report_of(truth, said, scores=None, labels=LABELS):
    """The Report of texts "0", "1", ... that have these labels, for which these were said."""
    results = []
    for number, best in enumerate(said):
        score = 0.5 if scores is None else scores[number]
        others = [label for label in labels if label != best]
        results.append({"sequence": str(number), "labels": [best, *others], "scores": [score] + [0.1] * len(others)})
    return Report("fp32", tuple(labels), tuple(truth), results, 1.0, None)


def random_labels(number, seed, right=0.6, labels=LABELS):
    """`number` true labels, and what is said of them: the truth in about the share `right`."""
    rng = random.Random(seed)
    truth = [rng.choice(labels) for _ in range(number)]
    return truth, [true if rng.random() < right else rng.choice(labels) for true in truth]


@pytest.fixture
def answers(monkeypatch):
    """A function that makes {text: label said} the answers of each way, with a best score of 0.8; nothing is loaded.

    An exception in place of the label is the error of that text. A way of its own may have others.
    """

    def give(said, **of_way):
        def run(checkpoint, way, texts, labels, template, progress):
            results = []
            for text in texts:
                best = of_way.get(way, said).get(text, labels[0])
                others = [label for label in labels if label != best]
                good = {"sequence": text, "labels": [best, *others], "scores": [0.8, *[0.1] * len(others)]}
                results.append({"sequence": text, "error": str(best)} if isinstance(best, Exception) else good)
            return Run(results, 1.0, 50_000_000)

        monkeypatch.setattr(evaluation, "run", run)

    give({record["text"]: record["label"] for record in RECORDS})
    return give


# ------------------------------------------------------------------------------------------------------- statistics


def test_figures_by_hand():
    """财经: 2 of 3 found, 3 times said. 体育: 1 of 2 found, twice said. 航天: its one text found, once said."""
    found = report_of(["财经"] * 3 + ["体育"] * 2 + ["航天"], ["财经", "财经", "体育", "体育", "财经", "航天"])
    assert found.matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert found.accuracy == 4 / 6 and found.accuracy_interval == quantization.wilson(4, 6)
    assert found.per_label == [
        LabelScores("财经", 2 / 3, 2 / 3, 2 / 3, 3),
        LabelScores("体育", 0.5, 0.5, 0.5, 2),
        LabelScores("航天", 1.0, 1.0, 1.0, 1),
    ]
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_figures_by_brute_force(seed):
    labels = [f"类{i}" for i in range(7)]
    truth, said = random_labels(random.Random(seed).choice((20, 200)), seed, labels=labels)
    found, f1 = report_of(truth, said, labels=labels), []
    assert found.accuracy == statistics.mean(a == b for a, b in zip(truth, said))
    for label, scores in zip(labels, found.per_label, strict=True):
        right = sum(a == b == label for a, b in zip(truth, said))
        precision = right / said.count(label) if label in said else math.nan
        recall = right / truth.count(label) if label in truth else math.nan
        f1.append(
            2 * precision * recall / (precision + recall) if right else (0 if label in truth + said else math.nan)
        )
        assert scores[1:4] == pytest.approx((precision, recall, f1[-1]), nan_ok=True)
        assert (scores.label, scores.support) == (label, truth.count(label))
    assert found.macro_f1 == pytest.approx(np.nanmean(f1))


def test_labels_without_texts_have_no_scores_and_do_not_count():
    found = report_of(["财经", "财经"], ["财经", "体育"])
    assert found.per_label[0] == ("财经", 1.0, 0.5, pytest.approx(2 / 3), 2)
    assert found.per_label[1] == ("体育", 0.0, pytest.approx(np.nan, nan_ok=True), 0.0, 0)
    assert all(np.isnan(found.per_label[2][1:4])) and found.per_label[2].support == 0
    assert found.macro_f1 == pytest.approx(1 / 3)  # of 财经 and 体育
    low, high = found.macro_f1_interval
    assert 0 <= low <= 1 / 3 <= high <= 1


def test_the_bootstrap_is_one_over_rows():
    truth, said = random_labels(80, 3)
    rng, found = random.Random(1), []
    for _ in range(1500):
        rows = rng.choices(range(80), k=80)
        found.append(report_of([truth[row] for row in rows], [said[row] for row in rows]).macro_f1)
    ends = np.quantile(found, (0.025, 0.975))
    assert report_of(truth, said).macro_f1_interval == pytest.approx(ends, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_contain_the_figure_and_shrink_with_rows(seed):
    found = [report_of(*random_labels(number, seed)) for number in (25, 100, 1600)]
    for one in found:
        assert one.accuracy_interval[0] < one.accuracy < one.accuracy_interval[1]
        assert one.macro_f1_interval[0] <= one.macro_f1 <= one.macro_f1_interval[1]
        assert one.macro_f1_interval == report_of(one.truth, one.said).macro_f1_interval  # the same each time
    for ends in ([one.accuracy_interval for one in found], [one.macro_f1_interval for one in found]):
        wide, narrow, narrowest = (high - low for low, high in ends)
        assert wide > narrow > 3 * narrowest > 0


def test_where_all_is_right_resampling_finds_no_error_and_wilson_does():
    found = report_of(LABELS * 4, LABELS * 4)
    assert found.macro_f1_interval == (1, 1) and found.accuracy_interval[0] < 0.8


def test_confusions_come_by_their_number_with_their_first_texts():
    truth = ["财经", "体育", "财经", "航天", "财经", "财经", "财经", "航天", "航天"]
    said = ["体育", "财经", "体育", "财经", "体育", "体育", "财经", "航天", "财经"]
    assert report_of(truth, said).confusions == [
        Confusion("财经", "体育", 4, ("0", "2", "4")),
        Confusion("航天", "财经", 2, ("3", "8")),
        Confusion("体育", "财经", 1, ("1",)),
    ]
    assert report_of(LABELS, LABELS).confusions == []


# ------------------------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize("accuracy", [0.3, 0.7, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_is_the_lowest_that_reaches_the_accuracy(seed, accuracy):
    rng, (truth, said) = random.Random(seed), random_labels(60, seed, right=0.7)
    scores = [round(rng.random() * (0.5 + (a == b)), 1 + seed % 2) for a, b in zip(truth, said)]  # many are equal
    wanted = None
    for threshold in sorted(set(scores), reverse=True):
        answered = [a == b for a, b, score in zip(truth, said, scores) if score >= threshold]
        if statistics.mean(answered) >= accuracy:
            wanted = Threshold(threshold, len(answered) / 60, statistics.mean(answered))
    assert report_of(truth, said, scores).threshold_for(accuracy) == wanted


def test_the_table_of_thresholds_by_hand():
    found = report_of(["财经"] * 4, ["财经", "体育", "财经", "体育"], [0.9, 0.6, 0.6, 0.4])
    assert found.thresholds == [(0.4, 1.0, 0.5), (0.6, 0.75, 2 / 3), (0.9, 0.25, 1.0)]
    assert found.threshold_for(0.5).answered == 1 and found.threshold_for().threshold == 0.9
    wrong = report_of(["财经"] * 2, ["财经", "体育"], [0.6, 0.9])
    assert wrong.threshold_for(0.95) is None and wrong.threshold_for(0.5) == (0.6, 1.0, 0.5)


@pytest.mark.parametrize("accuracy", [0, -1, 1.01, 95, "0.9", None, True, float("nan")])
def test_accuracies_that_are_none(accuracy):
    with pytest.raises(ValueError, match="give a share of right answers"):
        report_of(LABELS, LABELS).threshold_for(accuracy)


# ------------------------------------------------------------------------------------------------------------- rows


def written(folder, kind, records, fields=("text", "label")):
    """A file of records in this format."""
    path = folder / f"labelled.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    elif kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, fields)
            table.writeheader()
            table.writerows(records)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "list"])
def test_bad_rows_are_named_and_the_rest_goes_on(answers, tmp_path, kind):
    empty, none = {"text": " ", "label": "体育"}, {"text": "没有标签", "label": None}
    records = [RECORDS[0], empty, RECORDS[1], none, RECORDS[2], {"text": "去看海", "label": "旅游"}]
    found = evaluate(records if kind == "list" else written(tmp_path, kind, records), LABELS)
    first = 0 if kind == "list" else 1
    assert [bad.row - first for bad in found.bad] == [1, 3, 5]
    reasons = [bad.reason for bad in found.bad]
    assert "is empty" in reasons[0] and reasons[1:] == [
        "it has no label",
        "its label '旅游' is none of 财经, 体育, 航天",
    ]
    assert found.texts == 3 and found.report().truth == ("财经", "航天", "体育") and found.report().accuracy == 1
    assert str(found).split("\n")[1:3] == ["left out: 3 rows", f"  row {1 + first}: {reasons[0]}"]


def test_lines_that_are_no_records_are_named(answers, tmp_path):
    good = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()
    path = tmp_path / "labelled.jsonl"
    path.write_bytes(b'"\xe5\xa4\xae"\n{"text": "a"}\n{"text": "\xff", "label": "a"}\n{"text"\n7\n' + good)
    found = evaluate(path)
    assert [bad.row for bad in found.bad] == [1, 2, 3, 4, 5] and found.texts == 3
    assert found.bad[0].reason == found.bad[4].reason == "it is no JSON object"
    assert found.bad[1].reason == "the record has no field 'label'" and "utf-8" in found.bad[2].reason
    assert evaluate([7, *RECORDS]).bad == (BadRow(0, "it is 7, a int: records are dicts"),)


@pytest.mark.parametrize("label, reason", [(3, "its label is 3, a int"), (float("nan"), "it has no label"),
                                           ("\u200b ", "it has no label"), (None, "it has no label"),
                                           ("好\ud83d", "holds half a character")])  # fmt: skip
def test_labels_that_are_none(answers, label, reason):
    found = evaluate([*RECORDS, {"text": "去看海", "label": label}])
    assert [bad.row for bad in found.bad] == [3] and reason in found.bad[0].reason


def test_labels_are_those_of_the_file_in_the_order_they_come(answers):
    assert evaluate(RECORDS).labels == ("财经", "航天", "体育")
    spelt = [*RECORDS, {"text": "去看海", "label": " 体育\n"}, {"text": "看海去", "label": "体\u200b育"}]
    assert evaluate(spelt).labels == ("财经", "航天", "体育") and evaluate(spelt).texts == 5
    assert evaluate(RECORDS, "体育，财经，航天，旅游").labels == ("体育", "财经", "航天", "旅游")


def test_a_text_without_a_result_in_one_way_is_left_out_of_all(answers):
    said = {record["text"]: record["label"] for record in RECORDS}
    answers(said, int8=said | {RECORDS[1]["text"]: MemoryError("too large"), RECORDS[0]["text"]: "体育"})
    found = evaluate(RECORDS, compare=["fp32", "int8"])
    assert found.bad == (BadRow(1, "int8: too large"),) and found.texts == 2
    assert found.report("fp32").accuracy == 1 and found.report("int8").accuracy == 0.5
    assert found.report("int8").agreement.share == 0.5 and found.report("int8").agreement.right == (2, 1)
    answers(dict.fromkeys(said, MemoryError("too large")))
    with pytest.raises(ValueError, match="no text can be classified; row 0: fp32: too large"):
        evaluate(RECORDS)


# --------------------------------------------------------------------------------------------------------- the door


@pytest.mark.parametrize(
    "records, options, error, message",
    [
        (RECORDS, {"text": "内容"}, ValueError, "has no field '内容': it has text, label"),
        (RECORDS, {"label": "text"}, ValueError, "text and label are both 'text'"),
        ([], {}, ValueError, "has nothing to evaluate: it has no rows"),
        ([{"text": "央行", "label": ""}], {}, ValueError, "nothing to evaluate: row 0: it has no label"),
        (RECORDS[:1], {}, ValueError, "'财经' is the only label. Give labels"),
        (RECORDS, {"labels": ["财经"]}, ValueError, "'财经' is the only label"),
        (RECORDS, {"labels": "财经,财经"}, ValueError, "more than once"),
        (RECORDS, {"labels": ["财经" * 600, "体育"]}, ValueError, "leaves no room for a text"),
        (RECORDS, {"compare": ["fp64"]}, ValueError, "compare 'fp64': there are fp32, fp32 streamed, fp16"),
        (RECORDS, {"compare": "fp32,int8,fp32"}, ValueError, "each once"),
        (RECORDS, {"compare": []}, ValueError, "name at least one way"),
        (RECORDS, {"compare": 8}, TypeError, "compare: give a list of ways"),
        (RECORDS, {"hypothesis_template": "没有"}, ValueError, "needs {} exactly once"),
        (RECORDS, {"checkpoint": "mimi"}, zsc.CheckpointError, "mimi"),
        (RECORDS, {"checkpoint": 7}, TypeError, "checkpoint 7: give its name or folder"),
        (7, {}, TypeError, "records: give the path of a file"),
        ("none.csv", {}, ValueError, "none.csv: no such file"),
        ("none.txt", {}, ValueError, "none.txt: labelled texts are read from .csv, .jsonl, .parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_before_work(monkeypatch, records, options, error, message):
    monkeypatch.setattr(evaluation, "run", None)
    with pytest.raises(error, match=message):
        evaluate(records, **options)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there_is_named_with_those_there_are(tmp_path, kind):
    path = written(tmp_path, kind, RECORDS)
    for wrong in ({"text": "内容"}, {"label": "类别"}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong.values()))}': it has text, label"):
            evaluate(path, **wrong)


def test_a_file_without_rows(tmp_path):
    for kind, content in (("csv", "text,label\n"), ("jsonl", "")):
        (tmp_path / f"empty.{kind}").write_text(content)
        with pytest.raises(ValueError, match="nothing to evaluate: it has no rows"):
            evaluate(tmp_path / f"empty.{kind}")


def test_a_folder_s_path_is_absolute_for_the_child(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert evaluation.check_name("mine") == str(tmp_path / "mine")
    assert evaluation.check_name("mini") == "mini" and evaluation.check_name("owner/name") == "owner/name"


# --------------------------------------------------------------------------------------------------------- the ways


@pytest.fixture(scope="module")
def headlines():
    several = samples.test_set("topics_new")
    records = [record for record in several if record["topic"] in samples.topics(several)[:4]][::5][:20]
    return [{"内容": record["text"], "类别": record["topic"]} for record in records]


@pytest.fixture(scope="module")
def compared(headlines):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluate(headlines, text="内容", label="类别", compare=["fp32", "int8", "int8 streamed"])


def test_ways_are_compared_on_the_same_texts(compared, headlines, mini):
    texts, labels = [record["内容"] for record in headlines], list(compared.labels)
    wanted = zsc.ZeroShotClassifier(mini)(texts, labels)
    assert compared.texts == 20 and not compared.bad and list(compared.reports) == ["fp32", "int8", "int8 streamed"]
    fp32, int8, streamed = compared.reports.values()
    assert fp32.said == [result["labels"][0] for result in wanted]
    assert quantization.agreement(wanted, fp32.results).largest_difference < 1e-5
    assert fp32.accuracy == sum(a == b["类别"] for a, b in zip(fp32.said, headlines)) / 20 > 0.5
    assert fp32.agreement is None
    assert int8.agreement == quantization.agreement(fp32.results, int8.results, fp32.truth)
    assert 0 < int8.agreement.largest_difference < 0.1
    assert quantization.agreement(int8.results, streamed.results).largest_difference < 1e-4


def test_each_way_is_measured_in_a_process_of_its_own(compared):
    if not evaluation.measurable():
        pytest.skip("no figures in /proc")
    for report in compared.reports.values():
        assert report.growth > 0 and report.seconds > 0
    assert compared.report("int8 streamed").growth < compared.report("fp32").growth


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return zsc.export("mini", tmp_path_factory.mktemp("exports") / "mini-int8", "int8")


def test_exports_are_ways_beside_precisions(compared, headlines, export):
    ways = ["int8", str(export), f"{export} streamed"]
    found = evaluate(headlines, text="内容", label="类别", compare=ways)
    assert list(found.reports) == ways and found.checkpoint == "mini"
    torch, lean, streamed = found.reports.values()
    assert torch.said == compared.report("int8").said
    assert lean.agreement == quantization.agreement(torch.results, lean.results, torch.truth)
    assert 0 < lean.agreement.largest_difference < 0.1  # other products than torch's
    assert streamed.results == lean.results
    if evaluation.measurable():
        assert 0 < streamed.growth < lean.growth


def test_an_export_is_evaluated_as_the_checkpoint(headlines, export, monkeypatch):
    monkeypatch.setattr(evaluation, "process_peak", None)  # its child would have torch
    found = evaluate(headlines, text="内容", label="类别", checkpoint=export)
    assert found.checkpoint == str(export) and list(found.reports) == ["int8"]
    wanted = zsc.ZeroShotClassifier(export)([record["内容"] for record in headlines], list(found.labels))
    assert found.report().results == wanted
    assert re.search(r"^Python and its libraries: about \d+ MB for an export, else about \d+ MB", str(found), re.M)


IN_CHILD = """
import sys
from zsc_utils.evaluation import measured
(results, told), seconds, growth = measured(sys.argv[1], "int8", ["央行下调利率"], ["财经", "体育"], "{}", False)
assert results[0]["labels"] and not told and seconds > 0 and growth > 0
assert "onnxruntime" in sys.modules and not {"torch", "transformers"} & sys.modules.keys()
"""


def test_the_child_of_an_export_does_not_load_torch(export, monkeypatch):
    if not evaluation.measurable():
        pytest.skip("no figures in /proc")
    done = subprocess.run([sys.executable, "-c", IN_CHILD, export], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(evaluation, "measured", os.getpid)  # what is called runs elsewhere
    assert evaluation.in_lean_process() != os.getpid()


def test_a_child_without_torch_that_is_killed_is_named_by_its_way(export, monkeypatch):
    lean = evaluation.in_lean_process
    monkeypatch.setattr(evaluation, "measurable", lambda: True)
    monkeypatch.setattr(evaluation, "measured", os.abort)
    monkeypatch.setattr(evaluation, "in_lean_process", lambda *_: lean())
    with pytest.raises(ChildError, match="int8: the child process was ended"):
        evaluation.run(str(export), "int8", ["央行"], list(LABELS), "{}", False)


@pytest.mark.parametrize("options, message", [
    ({"compare": "fp32"}, r"compare 'fp32': '.*' was exported in int8, and runs in nothing else; export .* in fp32"),
    ({"compare": "int8,bf16 streamed"}, "compare 'bf16 streamed': .* was exported in int8"),
    ({"compare": "none/such"}, "compare 'none/such': there are .*, and folders written by zsc_utils.export"),
    ({"labels": ["财经" * 600, "体育"]}, "leaves no room for a text"),
])  # fmt: skip
def test_what_an_export_cannot_do_is_refused_before_work(export, monkeypatch, options, message):
    monkeypatch.setattr(evaluation, "run", None)
    with pytest.raises(ValueError, match=message):
        evaluate(RECORDS, checkpoint=export, **options)


def test_the_precision_of_a_checkpoint_is_its_own_unless_named(oracle, tmp_path, answers):
    folder = quantization.save(quantization.quantize(oracle, "bf16"), tmp_path / "bf16")
    answers({record["text"]: record["label"] for record in RECORDS})
    assert list(evaluate(RECORDS, checkpoint=folder).reports) == ["bf16"]
    assert list(evaluate(RECORDS).reports) == ["fp32"]


def test_without_proc_the_work_is_done_here_and_memory_is_not_measured(monkeypatch, compared, headlines):
    monkeypatch.setattr(evaluation, "measurable", lambda: False)
    monkeypatch.setattr(evaluation, "process_peak", None)
    found = evaluate(headlines, text="内容", label="类别")
    assert found.report().said == compared.report().said and found.report().seconds > 0
    assert found.report().growth is None
    assert str(found).count("not measured here") == 1


def test_a_text_that_is_cut_is_told_once_with_the_way(monkeypatch):
    monkeypatch.setattr(evaluation, "measurable", lambda: False)
    with pytest.warns(UserWarning, match="^fp32: .* is cut") as told:
        evaluate([*RECORDS, {"text": "央行" * 600, "label": "财经"}])
    assert sum("is cut" in str(warning.message) for warning in told) == 1


def test_a_child_that_is_killed_is_named_by_its_way(monkeypatch):
    def killed(*_):
        raise ChildError("the child process was ended by SIGKILL")

    monkeypatch.setattr(evaluation, "measurable", lambda: True)
    monkeypatch.setattr(evaluation, "process_peak", killed)
    with pytest.raises(ChildError, match="int8: the child process was ended by SIGKILL"):
        evaluate(RECORDS, compare=["int8"])
    assert command.main(["evaluate", os.devnull]) == 2  # no such format: refused before


def test_scores_that_are_no_numbers_are_refused_by_name(monkeypatch):
    result = {"sequence": "央行", "labels": list(LABELS), "scores": [float("nan")] * 3}
    peak = SimpleNamespace(result=([result] * 3, []), seconds=1.0, total=1)
    monkeypatch.setattr(evaluation, "measurable", lambda: True)
    monkeypatch.setattr(evaluation, "process_peak", lambda *_: peak)
    with pytest.raises(ValueError, match="fp16: some scores are no numbers"):
        evaluate(RECORDS, compare=["fp16"])


# ------------------------------------------------------------------------------------------------ table and command


def test_the_table_says_what_was_found(answers):
    said = {record["text"]: record["label"] for record in RECORDS}
    answers(said, int8=said | {RECORDS[0]["text"]: "航天"})
    found = evaluate(RECORDS, compare="int8, fp32")
    lines = str(found).split("\n")
    assert lines[0] == "mini: 3 texts, 3 labels"
    row = next(line for line in lines if line.startswith("int8  "))
    assert "0.667 (0.208 to 0.939)" in row and row.endswith("1.0   50 MB")
    row = next(line for line in lines if line.startswith("fp32  "))
    assert "1.000 (0.438 to 1.000)" in row and "0.667 (0.208 to 0.939)" in row and "0.7000" in row
    place = lines.index("财经, but said 航天: 1 text")
    assert lines[place + 1] == f"  {RECORDS[0]['text']}"
    assert lines[-1].startswith("int8: no threshold") or "0.8000" in lines[-1]
    table = lines[lines.index("int8, each label") + 1 :][:4]
    assert table[1].split() == ["财经", "-", "0.000", "0.000", "1"]
    assert len({printed.columns(line) for line in table}) == 1


def test_the_threshold_is_told_and_examples_cannot_command_a_terminal(answers):
    found = report_of(["财经"] * 4, ["财经", "体育", "财经", "财经"], [0.9, 0.3, 0.6, 0.4])
    assert '95% of the answers are right if a best score under 0.4000 means "none of these"; 75% of' in str(
        zsc.Evaluation("mini", LABELS, 4, (), {"fp32": found})
    )
    assert printed.shortened("a\x1b[31mb\n c") == "a[31mb c"
    assert printed.shortened("字" * 41) == "字" * 39 + "…" and printed.shortened("字" * 40) == "字" * 40


def test_many_bad_rows_are_counted_and_all_are_kept(answers):
    found = evaluate([*RECORDS, *[{"text": "", "label": "财经"}] * 30])
    assert len(found.bad) == 30 and str(found).count("  row ") == 10 and "  and 20 more" in str(found)


@pytest.fixture
def run(capsys):
    """A function that runs the command: its exit status, standard output, standard error."""

    def main(*arguments):
        capsys.readouterr()
        status = command.main(["evaluate", *map(str, arguments), "--quiet"])
        return status, *capsys.readouterr()

    return main


def test_the_command_prints_the_table_and_draws_the_chart(run, headlines, compared, tmp_path):
    path, chart = written(tmp_path, "csv", headlines, ("内容", "类别")), tmp_path / "confusions.png"
    columns = ["--text", "内容", "--label", "类别", "--checkpoint", "mini"]
    status, out, err = run(path, *columns, "--compare", "fp32,int8 streamed", "--chart", chart)
    assert (status, err) == (0, "")
    assert out.startswith("mini: 20 texts, ") and "\nint8 streamed " in out
    accuracy, ends = compared.report().accuracy, compared.report().accuracy_interval
    assert printed.interval(accuracy, ends) in out
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_command_tells_each_row_that_is_left_out(run, answers, tmp_path):
    path = written(tmp_path, "jsonl", [*RECORDS, {"text": "a", "label": None}])
    status, out, err = run(path, "--labels", "财经，体育，航天", "--template", "这是{}")
    assert (status, err) == (1, "row 4: it has no label\n") and "3 texts" in out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--text", "内容"], "has no column '内容': it has text, label"),
        (["--labels", "财经"], "is the only label"),
        (["--compare", "fp12"], "compare 'fp12': there are"),
        (["--chart", "none/such.png"], "none is no folder"),
        (["--chart", "chart.docx"], "its name must end in one of"),
    ],
)
def test_the_command_refuses_before_it_begins(run, monkeypatch, tmp_path, options, message):
    monkeypatch.setattr(evaluation, "run", None)
    status, out, err = run(written(tmp_path, "csv", RECORDS), *options)
    assert (status, out) == (2, "") and message in err


def test_the_command_tells_of_a_killed_child(run, monkeypatch, tmp_path):
    def killed(*_):
        raise ChildError("fp32: the child process was ended by SIGKILL")

    monkeypatch.setattr(evaluation, "run", killed)
    status, out, err = run(written(tmp_path, "csv", RECORDS))
    assert (status, out, err) == (1, "", "error: fp32: the child process was ended by SIGKILL\n")


# ------------------------------------------------------------------------------------------------------------ charts


def test_the_chart_shows_shares_of_each_true_label(tmp_path):
    found = report_of(["财经"] * 4 + ["体育"], ["财经", "财经", "财经", "体育", "体育"])
    whole = zsc.Evaluation("mini", LABELS, 5, (), {"fp32": found})
    axes = Figure().subplots()
    whole.plot(axes)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "0.75", (1, 0): "0.25", (1, 1): "1.00"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["财经 (4)", "体育 (1)", "航天 (0)"]
    assert "0.800 of 5 texts" in axes.get_title()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a character that its font lacks
        whole.save_chart(tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").stat().st_size > 1000
    with pytest.raises(ValueError, match="way 'int8': evaluated were fp32"):
        whole.plot(axes, "int8")


def test_colours_of_shares_only_get_darker_and_numbers_stand_out():
    """Colour-blind readers see lightness: it falls with the share, and the number's differs from its cell's."""
    from matplotlib import colormaps

    shades = colormaps[plots.SHARES](np.linspace(0, 1, 101))[:, :3]
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]  # relative luminance, WCAG 2
    assert (np.diff(light) < 0).all()
    axes = Figure().subplots()
    for share in range(1, 101):
        axes.clear()
        plots.confusion_matrix(axes, ["a", "b"], np.array([[share, 100 - share], [0, 1]]))
        white = axes.texts[0].get_color() == "white"
        contrast = 1.05 / (light[share] + 0.05) if white else (light[share] + 0.05) / 0.05
        assert contrast > 4.0, share


def test_a_chart_needs_a_place_and_its_libraries(tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        evaluation.check_chart(tmp_path / "folder.png")
    monkeypatch.setitem(__import__("sys").modules, "zsc_utils.plots", None)
    monkeypatch.delattr(zsc, "plots", raising=False)
    with pytest.raises(ValueError, match="needs matplotlib and mplfonts: pip install"):
        evaluation.check_chart(tmp_path / "chart.png")
