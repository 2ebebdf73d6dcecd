"""Datasets through Ray: every good row once, whoever dies; bad rows told; memory flat; nothing left running."""

import json
import logging
import multiprocessing
import os
import pickle
import random
import resource
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow
import pytest
import ray
from oracle import ORACLE
from pyarrow import parquet

import zsc_utils as zsc
from zsc_utils import _process, checkpoint, memory, onnx_plan, scaling
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
def machines():
    """The address of a local cluster, which this process has started, of two nodes with a CPU each; all tests share it.

    The second node may come later.
    """
    level = logging.getLogger("ray.data").level
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 1}')
        cluster = scaling.cluster(None)
        cluster.__enter__()
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", f"--address={address}"]
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield address
    second.terminate()
    second.wait()
    cluster.__exit__(None, None, None)
    assert not ray.is_initialized() and logging.getLogger("ray.data").level == level


def alone(parts, model, work, workers, address):
    """In the place of Ray: one worker, in this process."""
    worker = scaling.Worker(model, work, threads=1)  # two wait for each other after each of these tiny products
    for part in parts:
        report = worker(asdict(part))
        if report["error"]:
            raise OSError(report["error"])
        yield report


@pytest.fixture
def run(toy, monkeypatch):
    """classify_dataset on the toy checkpoint, in this process, or with `through` None through Ray."""

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
    """The processes of this cluster that have a classifier."""
    return [process for process in psutil.Process().children(recursive=True) if "MapWorker" in named(process)]


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


def when(condition, seconds=240):
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


# ------------------------------------------------------------------------------------------------------------- exports


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return zsc.export(ORACLE, tmp_path_factory.mktemp("exports") / "int8", "int8")


def test_an_export_is_a_checkpoint_and_its_precision_a_setting(run, tmp_path, export, monkeypatch):
    source, threads = as_jsonl(tmp_path / "in.jsonl", texts(50)), []
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def watched(*arguments):
        for report in alone(*arguments):
            threads.append(onnx_plan.threads())
            assert report["growth"] is not None and report["proportional"] > 0
            yield report

    done = run(source, tmp_path / "out", checkpoint=export, through=watched)
    wanted = zsc.ZeroShotClassifier(export)(texts(50), LABELS)
    same(results(done), [{"position": n, "id": n, **result} for n, result in enumerate(wanted)])
    assert set(threads) == {7}  # as it was before the worker
    assert run(source, tmp_path / "out", checkpoint=export, precision="int8", memory_budget="80MB").before == 50
    with pytest.raises(ValueError, match="precision was 'int8'"):
        run(source, tmp_path / "out")


def test_a_worker_of_an_export_has_the_threads_that_it_is_given(export, tmp_path):
    work = {"output": str(tmp_path), "precision": "int8"}
    for threads in (1, 3):
        worker = scaling.Worker({"checkpoint": str(export)}, work, threads)
        assert worker.classify.plan.setting.threads == threads


@pytest.mark.parametrize("wrong, message", [
    ({"precision": "fp32"}, "was exported in int8; export it anew"),
    ({"memory_budget": "1MB"}, "smallest that works is"), ({"labels": ["长" * 600]}, "leaves no room"),
])  # fmt: skip
def test_what_an_export_cannot_do_is_refused_before_ray_starts(run, tmp_path, export, wrong, message):
    source = as_jsonl(tmp_path / "in.jsonl", texts(3))
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / "out", through=lambda *_: pytest.fail("it began"), checkpoint=export, **wrong)
    assert not (tmp_path / "out").exists()


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


def test_memory_does_not_grow_with_the_input(toy, tmp_path):
    """From 1,000 texts to 5,000, in a process of its own. That Ray carries nothing of a text has a test below."""
    source, output = as_jsonl(tmp_path / "in.jsonl", texts(5_000, words=1)), tmp_path / "out"

    def work(source, output, toy, labels):  # inside, so that it travels by value
        highest = []

        def marked(parts, model, work, workers, address):
            worker = scaling.Worker(model, work, threads=1)
            for number, part in enumerate(parts, 1):
                yield worker(asdict(part))
                if number == 5:
                    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
                if number in (20, 100):
                    highest.append(memory.resident("self")["VmHWM"])

        scaling.through_ray, scaling.node, scaling.import_ray = marked, lambda: "here", lambda: None
        scaling.classify_dataset(
            source, labels, output=output, checkpoint=toy, memory_budget="100MB", rows=50, progress=False
        )
        return highest, memory.resident("self")["VmHWM"]

    (first, last), end = memory.process_peak(work, source, output, toy, LABELS[:1]).result
    assert last - first < 60 * 4_000  # bytes: the heap grows in steps of 131,072, now and then
    assert end - last < 1e6  # the summary


# --------------------------------------------------------------------------------------------------------- through Ray
# 40 seconds in all, most of them for processes that import torch: of two nodes, of a call, of six workers.


def classifying(output):
    """The workers that write to this output right now."""
    return [worker for worker in workers() if any(str(output) in file.path for file in opened(worker))]


def opened(process):
    try:
        return process.open_files()
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def begun(toy, machines, tmp_path_factory):
    """Two calls that did not come to their end, at the same time on a node each, as their workers take long to start.

    `died`: its process was killed, which had been given the cluster's address. `full`: its worker found no room.
    """
    folder = tmp_path_factory.mktemp("begun")
    died = SimpleNamespace(
        source=as_jsonl(folder / "1.jsonl", [*texts(4_998), "", "国足" * 300]), output=folder / "died"
    )
    full = SimpleNamespace(source=as_jsonl(folder / "2.jsonl", texts(1_500)), output=folder / "full")
    options = dict(labels=LABELS, checkpoint=toy, workers=1, progress=False)
    script = "import os; os.environ.update(environ); from zsc_utils import scaling; scaling.classify_dataset(**options)"
    own = options | {"source": died.source, "output": died.output, "rows": 250, "address": machines}
    values = {"environ": dict(os.environ), "options": own}  # Ray's token is in environ
    child = multiprocessing.get_context("forkserver").Process(target=exec, args=(script, values), daemon=True)
    with _process.no_main_module():
        child.start()
    thread, full.found = in_thread(lambda: classify_dataset(full.source, output=full.output, rows=50, **options))
    watched, _ = in_thread(lambda: fill_the_disk(full))
    when(lambda: len(parts_in(died.output)) > 2)
    died.workers = when(lambda: classifying(died.output))
    child.kill()
    child.join()
    when(lambda: not any(process.is_running() for process in died.workers))  # they follow the process that began it
    died.there = {file: file.stat().st_mtime_ns for file in parts_in(died.output)}
    thread.join(120)
    watched.join()
    return SimpleNamespace(died=died, full=full)


def fill_the_disk(call):
    """A limit on the size of files, which the kernel refuses with the same error path as a disk without room."""
    when(lambda: len(parts_in(call.output)) > 2)
    for worker in when(lambda: classifying(call.output)):
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1000, 1000))


@pytest.fixture(scope="module")
def gone_on(begun, toy):
    """The call that went on where one had died, and whose workers were killed in the middle: `done`, the `killed`, the
    number of `parts` there were then, what was `told`, what passed Ray."""
    died, reports, through_ray = begun.died, [], scaling.through_ray
    when(lambda: ray.cluster_resources()["CPU"] == 2 and not workers())
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr(scaling, "through_ray", lambda *given: (reports.append(r) or r for r in through_ray(*given)))
        options = dict(output=died.output, checkpoint=toy, rows=250, memory_budget="100MB", progress=False)
        thread, found = in_thread(lambda: classify_dataset(died.source, LABELS, **options))
        when(lambda: len(parts_in(died.output)) >= len(died.there) + 2)
        killed = when(lambda: len(found := classifying(died.output)) == 2 and found)  # in the middle of a part each
        for worker in killed:
            worker.kill()
        parts = len(parts_in(died.output))
        thread.join(120)
    [done] = found
    if isinstance(done, Exception):
        raise done
    return SimpleNamespace(done=done, killed=killed, parts=parts, told=told, reports=reports)


def test_a_call_that_died_goes_on_where_it_was(begun, gone_on):
    died, done = begun.died, gone_on.done
    assert len(died.workers) == 1 and 2 < len(died.there) < 12, "killed too late to tell anything"
    assert done.before == 250 * len(died.there) and (done.good, done.bad) == (4_999, 1)
    assert [row["sequence"] for row in results(done)] == [*texts(4_998), "国足" * 300]
    assert {file: file.stat().st_mtime_ns for file in died.there} == died.there  # none was written again


def test_two_machines_share_the_work(gone_on):
    assert len({worker.split("-")[0] for worker in gone_on.done.workers}) == 2


def test_workers_that_are_killed_lose_no_row_and_repeat_none(begun, gone_on):
    done = gone_on.done
    assert len(gone_on.killed) == 2 and gone_on.parts < 18, "killed too late to tell anything"
    assert [row["position"] for row in results(done)] == [*range(4_998), 4_999]
    assert [row["position"] for row in bad_rows(done)] == [4_998]
    assert done.repeated >= 1
    hidden = begun.died.output / scaling.HIDDEN
    assert [file.name for file in hidden.iterdir() if file.suffix in (".tmp", ".tries")] == []


def test_a_text_that_is_cut_is_told_here_not_in_a_worker_s_log(gone_on):
    assert [str(warning.message) for warning in gone_on.told if "is cut, and others as long" in str(warning.message)]


def test_ray_carries_no_texts_and_no_results(gone_on):
    """What passes through it is of one size, whatever the rows of a part, so memory there does not grow with them."""
    assert len(gone_on.reports) == 20 - gone_on.done.before // 250
    assert all(len(pickle.dumps({**report, "warning": ""})) < 500 for report in gone_on.reports)  # 250 rows: 30,000
    assert all(0 < worker["growth"] < 100e6 for worker in gone_on.done.workers.values())


def test_a_full_disk_is_told_and_the_next_call_goes_on(begun, run):
    full, [error] = begun.full, begun.full.found
    assert isinstance(error, OSError)
    assert "What is written stays: call again to go on" in str(error) and "File too large" in str(error)
    when(lambda: not classifying(full.output))  # none goes on where it is not asked any more
    there = len(parts_in(full.output))
    assert 2 < there < 30 and all(len(file.read_text().splitlines()) == 50 for file in parts_in(full.output))
    done = run(full.source, full.output, rows=50)
    assert not list((full.output / scaling.HIDDEN).glob("*.tmp"))
    assert done.before == 50 * there and done.good == 1_500
    assert [row["sequence"] for row in results(done)] == texts(1_500)


def test_workers_of_an_export_run_without_torch(run, machines, export, tmp_path):
    """Through Ray, in real workers; each maps no library of torch, and is smaller than torch alone."""
    source, seen = as_jsonl(tmp_path / "in.jsonl", texts(200)), []

    def watch():
        for process in workers():
            with suppress(psutil.Error):
                maps = " ".join(each.path for each in process.memory_maps())
                if "onnxruntime" in maps:
                    seen.append(("libtorch" in maps, process.memory_info().rss))
        return seen

    thread, found = in_thread(lambda: run(source, tmp_path / "out", through=None, checkpoint=export))
    when(lambda: watch() or not thread.is_alive())
    thread.join()
    (done,) = found
    assert seen and done.good == 200 and done.bad == 0
    assert not any(torch for torch, _ in seen)
    print(f"workers hold at most {max(size for _, size in seen) / 1e6:.0f} MB, {done.workers}")
    assert all(worker["growth"] > 0 for worker in done.workers.values())


def test_an_address_is_not_passed_over_where_ray_runs_already(run, machines, tmp_path):
    with pytest.raises(ValueError, match="address 'there:1': Ray is running in this process already"):
        run(as_jsonl(tmp_path / "in.jsonl", ["a"]), tmp_path / "out", through=None, address="there:1")


# -------------------------------------------------------------------------------------------------------------- import


def test_nothing_else_loads_ray():
    def loaded():  # in a new process, which has nothing but zsc_utils
        import sys

        import zsc_utils.__main__  # noqa: F401

        return {"zsc_utils", "zsc_utils.__main__", "ray", "pyarrow"} & set(sys.modules)

    assert memory.process_peak(loaded).result == {"zsc_utils", "zsc_utils.__main__"}


def test_without_ray_the_message_says_what_to_install(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match="zsc-utils\\[scale\\]"):
        classify_dataset(
            as_jsonl(tmp_path / "in.jsonl", ["a"]), LABELS, output=tmp_path / "out", checkpoint=toy, progress=False
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "address, variable, used",
    [(None, None, "local"), ("a:1", None, "a:1"), (None, "b:2", "b:2"), ("a:1", "b:2", "a:1")],
)
def test_the_cluster_is_the_one_at_the_address_then_that_of_the_environment(address, variable, used, monkeypatch):
    addresses, context = [], SimpleNamespace(enable_progress_bars=True)
    fake = SimpleNamespace(
        is_initialized=lambda: False, init=lambda address, **_: addresses.append(address), shutdown=lambda: None,
        data=SimpleNamespace(DataContext=SimpleNamespace(get_current=lambda: context)),
    )  # fmt: skip
    monkeypatch.setattr(scaling, "import_ray", lambda: fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with scaling.cluster(address):
        assert not context.enable_progress_bars
    assert addresses == [used] and context.enable_progress_bars
