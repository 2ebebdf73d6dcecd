"""Datasets through Ray: every good row once, whoever dies; bad rows told; memory flat; nothing left running."""

import json
import random
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pyarrow
import pytest
import ray
from conftest import ORACLE
from pyarrow import parquet

import zsc_utils as zsc
from zsc_utils import checkpoint, memory, scaling
from zsc_utils.records import Part
from zsc_utils.scaling import classify_dataset

LABELS = ["财经", "体育", "军事"]
WORDS = "央行 国足 下调 利率 取胜 提前 出线 客场 房贷 新款 手机 芯片 演习 海军 旅游 电影 大雨 上市 股票 冠军".split()


def texts(count, seed=3, words=4):
    chosen = random.Random(seed)
    return ["".join(chosen.choices(WORDS, k=words)) + str(number) for number in range(count)]


def as_jsonl(file, content):
    file.write_text(
        "".join(json.dumps({"text": text, "id": n}, ensure_ascii=False) + "\n" for n, text in enumerate(content))
    )
    return file


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of a checkpoint that takes next to no time."""
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    checkpoint.convert(ORACLE, folder)
    return folder


@pytest.fixture(scope="module")
def local_ray():
    """A local cluster that several tests share."""
    with scaling.cluster(None):
        yield


def alone(parts, model, work, workers, address):
    """In the place of Ray: one worker, in this process."""
    worker = scaling.Worker(model, work, threads=2)
    for part in parts:
        report = worker(asdict(part))
        if report["error"]:
            raise OSError(report["error"])
        yield report


@pytest.fixture
def run(toy, monkeypatch):
    """classify_dataset on the toy checkpoint, in this process unless the test is given `local_ray`."""

    def run(source, output, labels=LABELS, through=alone, **options):
        with monkeypatch.context() as patch:
            if through:
                patch.setattr(scaling, "through_ray", through)
                patch.setattr(scaling, "node", lambda: "here")
            defaults = dict(checkpoint=toy, workers=2, rows=16, progress=False)
            return classify_dataset(source, labels, output=output, **(defaults | options))

    return run


def results(done):
    """All results, in order."""
    return [json.loads(line) for file in done.files for line in file.read_text().splitlines()]


def bad_rows(done):
    return [json.loads(line) for line in done.bad_rows.read_text().splitlines()]


def workers():
    """The processes that have a classifier."""
    return [process for process in psutil.process_iter() if "MapWorker" in named(process)]


def named(process):
    try:
        return " ".join(process.cmdline()) + process.name()
    except psutil.Error:
        return ""


# ------------------------------------------------------------------------------------------------------ what comes out


@pytest.fixture(scope="module")
def expected(toy):
    found = zsc.ZeroShotClassifier(toy)(texts(50), LABELS)
    return [{"position": n, "id": n, **result} for n, result in enumerate(found)]


def same(found, expected):
    assert [(r["position"], r["sequence"]) for r in found] == [(r["position"], r["sequence"]) for r in expected]
    for one, other in zip(found, expected):
        scores = dict(zip(other["labels"], other["scores"]))
        assert all(abs(scores[label] - score) < 1e-6 for label, score in zip(one["labels"], one["scores"]))
        assert sorted(one["scores"], reverse=True) == one["scores"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_results_are_the_classifiers_own(run, tmp_path, expected, kind, format):
    source = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        as_jsonl(source, texts(50))
    elif kind == "csv":
        source.write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts(50))))
    else:
        parquet.write_table(pyarrow.table({"id": range(50), "text": texts(50)}), source)
    done = run(source, tmp_path / "out", format=format)
    found = results(done) if format == "jsonl" else parquet.read_table(tmp_path / "out").sort_by("position").to_pylist()
    same(found, expected)
    as_text = kind == "csv" or format == "parquet"
    assert [row["id"] for row in found] == [str(n) if as_text else n for n in range(50)]
    assert (done.good, done.bad, done.before, done.bad_rows) == (50, 0, 0, None)
    assert not (tmp_path / "out" / scaling.BAD).exists()
    assert [file.name for file in done.files] == [f"part-{first:012}.{format}" for first in (0, 16, 32, 48)]
    assert sum(worker["rows"] for worker in done.workers.values()) == 50


def test_folders_globs_and_lists_in_order(run, tmp_path, expected):
    (folder := tmp_path / "in").mkdir()
    for n in range(3):
        as_jsonl(folder / f"{n}.jsonl", texts(50)[20 * n : 20 * n + 20])
    (folder / "notes.txt").write_text("not read")
    for number, source in enumerate([folder, f"{folder}/*.jsonl", [folder / "0.jsonl", f"{folder}/[12].jsonl"]]):
        same(results(run(source, tmp_path / f"out{number}")), expected)


def test_options_reach_the_classifier(run, tmp_path, toy):
    source = as_jsonl(tmp_path / "in.jsonl", texts(5))
    done = run(source, tmp_path / "out", hypothesis_template="这是{}", multi_label=True, precision="int8")
    whole = zsc.ZeroShotClassifier(toy, precision="int8")(texts(5), LABELS, "这是{}", multi_label=True)
    same(results(done), [{"position": n, **result} for n, result in enumerate(whole)])


def test_progress_counts_rows_those_before_included(run, tmp_path, capsys):
    source = as_jsonl(tmp_path / "in.jsonl", texts(20))
    run(source, tmp_path / "out", progress=True)
    assert "classify: 100%" in (shown := capsys.readouterr().err) and "20/20" in shown
    run(source, tmp_path / "out", progress=False)
    assert capsys.readouterr().err == ""


def test_a_folder_that_has_the_name_of_a_checkpoint_does_not_stand_in_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert scaling.checked("mini", ["财经"]) == "mini"


# -------------------------------------------------------------------------------------------------------------- faults


def test_bad_rows_are_told_with_their_place_and_the_rest_goes_on(run, tmp_path):
    lines = [json.dumps({"text": text}) for text in texts(40)]
    lines[3], lines[17], lines[39] = "{", json.dumps({"text": "  "}), json.dumps({"title": "a"})
    (source := tmp_path / "in.jsonl").write_text("\n".join(lines))
    as_jsonl(tmp_path / "more.jsonl", ["a", ""])
    done = run([source, tmp_path / "more.jsonl"], tmp_path / "out")
    assert (done.good, done.bad) == (38, 4)
    found = bad_rows(done)
    assert [(row["position"], Path(row["file"]).name, row["row"]) for row in found] == [
        (3, "in.jsonl", 4), (17, "in.jsonl", 18), (39, "in.jsonl", 40), (41, "more.jsonl", 2),
    ]  # fmt: skip
    assert "is empty" in found[1]["error"] and "no field 'text'" in found[2]["error"]
    assert [row["position"] for row in results(done)] == [n for n in range(41) if n not in (3, 17, 39)]


def in_thread(function):
    """Run it beside the test: (thread, list for what it returns or raises)."""
    found = []

    def caught():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    (thread := threading.Thread(target=caught, daemon=True)).start()
    return thread, found


def when(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return value


def parts_in(output):
    return list(output.glob("part-*"))


def test_a_part_whose_worker_dies_each_time_is_given_up_and_named(run, tmp_path, monkeypatch):
    """Each death is a try that never ended; Ray itself would go on for ever."""
    source, output = as_jsonl(tmp_path / "in.jsonl", texts(40)), tmp_path / "out"

    def dying(parts, model, work, workers, address):
        for _ in range(scaling.TRIES):
            scaling.counted_try(output, parts[1])
        return alone(parts, model, work, workers, address)

    with pytest.raises(OSError, match=r"rows 17 and on of .*in.jsonl: its worker died 3 times; try fewer workers"):
        run(source, output, through=dying)
    assert [file.name for file in parts_in(output)] == ["part-000000000000.jsonl"]
    for _ in range(scaling.TRIES):  # as if that call had not lived to remove them
        scaling.counted_try(output, Part("", 16, 0, 0, 0))
    done = run(source, output)
    assert (done.before, done.repeated) == (16, 0)  # the next call may try again


def test_a_file_that_changes_in_between_is_told(run, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", texts(40))

    def changing(parts, *others):
        for report in alone(parts, *others):
            source.write_text("".join(source.read_text().splitlines(keepends=True)[:20]))
            yield report

    with pytest.raises(OSError, match="rows 17 and on of .*it had 16 rows here and has 4 now: it was changed"):
        run(source, tmp_path / "out", through=changing)
    assert [file.name for file in parts_in(tmp_path / "out")] == ["part-000000000000.jsonl"]
    assert {file.name for file in (tmp_path / "out" / scaling.HIDDEN).iterdir()} == {scaling.SETTINGS}


def test_parquet_of_more_than_is_written_at_once(run, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", texts(2_500))
    done = run(source, tmp_path / "out", LABELS[:1], rows=2_300, format="parquet")
    found = parquet.read_table(tmp_path / "out").sort_by("position")
    assert found["sequence"].to_pylist() == texts(2_500) and len(done.files) == 2


# -------------------------------------------------------------------------------------------------------------- resume


def test_a_second_call_does_nothing_again(run, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", [*texts(20), ""])
    first, second = (run(source, tmp_path / "out") for _ in range(2))
    assert second.before == 21 and second.workers == {}
    assert (second.good, second.bad, second.files) == (first.good, first.bad, first.files)
    assert bad_rows(second) == bad_rows(first) and bad_rows(first)[0]["position"] == 20


@pytest.mark.parametrize(
    "changed, was",
    [({"labels": ["财经", "体育"]}, "labels was"), ({"multi_label": True}, "multi_label was False"),
     ({"hypothesis_template": "这是{}"}, "hypothesis_template was '{}'"),
     ({"precision": "int8"}, "precision was 'fp32'"), ({"rows": 10}, "rows was 16"),
     ({"format": "parquet"}, "format was 'jsonl'"), ({"text": "id"}, "text was 'text'"),
     ({"long_texts": "max"}, "long_texts was 'cut'")],
)  # fmt: skip
def test_an_output_of_other_settings_is_refused(run, tmp_path, changed, was):
    source = as_jsonl(tmp_path / "in.jsonl", texts(3))
    run(source, tmp_path / "out")
    with pytest.raises(ValueError, match=was):
        run(source, tmp_path / "out", **changed)


def test_an_input_that_was_changed_is_refused(run, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", texts(3))
    run(source, tmp_path / "out")
    as_jsonl(source, texts(4))
    with pytest.raises(ValueError, match="the input was another, or was changed since"):
        run(source, tmp_path / "out")


def test_another_budget_goes_on_where_scores_stay_the_same(run, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", texts(3))
    run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", memory_budget="300MB").before == 3


# --------------------------------------------------------------------------------------------------------- at the door


@pytest.mark.parametrize(
    "wrong, message",
    [({"labels": []}, "candidate_labels is empty"), ({"labels": ["a", "a"]}, "holds a more than once"),
     ({"workers": 0}, "workers 0"), ({"rows": 1.5}, "rows 1.5"),
     ({"format": "csv"}, "format 'csv': choose one of jsonl, parquet"),
     ({"hypothesis_template": "x"}, "exactly once"), ({"memory_budget": "1kB"}, "smallest that works is"),
     ({"memory_budget": "much"}, "much"), ({"checkpoint": "nowhere"}, "no such folder"),
     ({"text": "title"}, "no column"), ({"precision": "int4"}, "int4"),
     ({"long_texts": "split"}, "choose one of cut, max, mean"),
     ({"source": "nothing.csv"}, "no such file"), ({"source": "*.csv"}, "no such file"),
     ({"labels": ["长" * 600]}, "leaves no room"), ({"checkpoint": 3}, "checkpoint 3")],
)  # fmt: skip
def test_what_has_no_answer_is_refused_before_ray_starts(toy, tmp_path, monkeypatch, wrong, message):
    monkeypatch.setattr(scaling, "through_ray", lambda *_: pytest.fail("it began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.parquet").write_bytes(b"")
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "in.parquet")
    options = {"source": "in.parquet", "labels": LABELS, "checkpoint": toy} | wrong
    with pytest.raises((ValueError, TypeError), match=message):
        classify_dataset(options.pop("source"), options.pop("labels"), output="out", progress=False, **options)
    assert not Path("out").exists()


def test_files_of_other_kinds_and_without_rows_are_refused(toy, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.jsonl").write_text("")
    for name, message in (("a.txt", "rows are read from .jsonl, .csv, .parquet"), ("b.jsonl", "has no rows")):
        with pytest.raises(ValueError, match=message):
            classify_dataset(tmp_path / name, LABELS, output=tmp_path / "out", checkpoint=toy, progress=False)


def test_an_output_that_holds_other_files_is_left_alone(toy, tmp_path):
    source = as_jsonl(tmp_path / "in.jsonl", ["a"])
    for output, message in ((tmp_path, "holds other files"), (source, "is a file: name a folder")):
        with pytest.raises(ValueError, match=message):
            classify_dataset(source, LABELS, output=output, checkpoint=toy, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl"]


# ----------------------------------------------------- through Ray: first those that start their own, then one for all


def test_a_call_that_died_goes_on_where_it_was_and_two_machines_share_the_work(run, toy, tmp_path):
    """Two nodes of Ray's, each with a CPU, on this machine; both calls are given their address, one is killed."""
    from ray.cluster_utils import Cluster

    source, output = as_jsonl(tmp_path / "in.jsonl", [*texts(4_000), ""]), tmp_path / "out"
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        machines.add_node(num_cpus=1)
        arguments = f"{str(source)!r}, {LABELS}, output={str(output)!r}, checkpoint={str(toy)!r}, rows=100"
        script = f"import zsc_utils.scaling as s; s.classify_dataset({arguments}, address={machines.address!r})"
        child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        when(lambda: len(parts_in(output)) > 2)
        of_child = workers()
        child.kill()
        child.wait()
        assert of_child and len(parts_in(output)) < 35, "killed too late to tell anything"
        when(lambda: not any(process.is_running() for process in of_child))  # they follow the process that began it
        there = {file: file.stat().st_mtime_ns for file in parts_in(output)}
        done = run(source, output, through=None, rows=100, address=machines.address, workers=None)
    finally:
        machines.shutdown()
    assert not ray.is_initialized()
    assert done.before == 100 * len(there) and (done.good, done.bad) == (4_000, 1)
    assert [row["sequence"] for row in results(done)] == texts(4_000)
    assert {file: file.stat().st_mtime_ns for file in there} == there  # none was written again
    assert len({worker.split("-")[0] for worker in done.workers}) == 2


def test_a_worker_that_is_killed_loses_no_row_and_repeats_none(run, local_ray, tmp_path):
    source, output = as_jsonl(tmp_path / "in.jsonl", [*texts(8_000), ""]), tmp_path / "out"
    thread, found = in_thread(lambda: run(source, output, through=None, rows=1_000))
    when(lambda: len(parts_in(output)) > 2)
    time.sleep(0.1)  # each is in the middle of its next part
    killed = workers()
    for worker in killed:
        worker.kill()
    assert len(killed) == 2 and len(parts_in(output)) < 7, "killed too late to tell anything"
    thread.join(120)
    [done] = found
    assert [row["position"] for row in results(done)] == list(range(8_000))
    assert [row["sequence"] for row in results(done)] == texts(8_000)
    assert (done.good, done.bad) == (8_000, 1) and done.repeated >= 1
    assert [file.name for file in (output / scaling.HIDDEN).iterdir() if file.suffix in (".tmp", ".tries")] == []


def test_a_full_disk_is_told_and_the_next_call_goes_on(run, local_ray, tmp_path):
    """A limit on the size of files, which the kernel refuses with the same error path as a disk without room."""
    source, output = as_jsonl(tmp_path / "in.jsonl", texts(3_000)), tmp_path / "out"
    thread, found = in_thread(lambda: run(source, output, through=None, rows=50))
    when(lambda: len(parts_in(output)) > 2)
    for worker in workers():
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    thread.join(120)
    assert isinstance(found[0], OSError)
    assert "What is written stays: call again to go on" in str(found[0]) and "File too large" in str(found[0])
    when(lambda: not workers())  # none goes on where it is not asked any more
    there = len(parts_in(output))
    assert 2 < there < 60 and all(len(file.read_text().splitlines()) == 50 for file in parts_in(output))
    done = run(source, output, rows=50)
    assert not list((output / scaling.HIDDEN).glob("*.tmp"))
    assert done.before == 50 * there and done.good == 3_000
    assert [row["sequence"] for row in results(done)] == texts(3_000)


def test_memory_stays_flat_from_5_000_to_100_000_texts(run, local_ray, tmp_path):
    growth = {}
    for count in (5_000, 100_000):
        source = as_jsonl(tmp_path / f"{count}.jsonl", texts(count, words=1))
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = memory.resident("self")["VmRSS"]
        done = run(source, tmp_path / f"out{count}", LABELS[:1], through=None, rows=1_000, memory_budget="100MB")
        ours = memory.resident("self")["VmHWM"] - before
        # the program's and that of the worker that grew most; of 5,000 texts, one may do all before the other is there
        growth[count] = ours + max(worker["growth"] for worker in done.workers.values())
        assert done.good == count
    print({count: round(bytes / 1e6, 1) for count, bytes in growth.items()})
    assert growth[100_000] < 1.1 * growth[5_000]


def test_a_text_that_is_cut_is_told_here_not_in_a_worker_s_log(run, local_ray, tmp_path):
    with pytest.warns(UserWarning, match="is cut, and others as long"):
        run(as_jsonl(tmp_path / "in.jsonl", ["国足" * 300]), tmp_path / "out", through=None, workers=1)


def test_an_address_is_not_passed_over_where_ray_runs_already(run, local_ray, tmp_path):
    with pytest.raises(ValueError, match="address 'there:1': Ray is running in this process already"):
        run(as_jsonl(tmp_path / "in.jsonl", ["a"]), tmp_path / "out", through=None, address="there:1")


# -------------------------------------------------------------------------------------------------------------- import


def test_nothing_else_loads_ray():
    code = "import sys, zsc_utils, zsc_utils.__main__; assert not {'ray', 'pyarrow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_ray_the_message_says_what_to_install(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match="zsc-utils\\[scale\\]"):
        classify_dataset(
            as_jsonl(tmp_path / "in.jsonl", ["a"]), LABELS, output=tmp_path / "out", checkpoint=toy, progress=False
        )
    assert not (tmp_path / "out").exists()
