"""Records of benchmarks: one file for each kind of machine, and README and its charts are what the records say."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import agreement
import containers
import contenders
import machine
import nbformat
import pytest
import report
import run_all
from matplotlib import pyplot
from matplotlib.text import Text

from zsc_utils import language, plots

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHOD = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
SECTIONS = ("agreement", "batching", "containers", "distil", "engines", "offloading")
OLDER = "peers"  # a section of records that no benchmark makes any more
LEDGER = "avx512-vnni-bf16"  # the kind of machine that claims were decided on

# --------------------------------------------------------------------------------------------------- kinds of machine

AVX2 = "fpu sse2 sse4_1 avx f16c fma avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"
VNNI = f"{AVX512} avx512_vnni"
BF16 = f"{VNNI} avx512_bf16"
AMX = f"{BF16} avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8"
ALL_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def x86(flags, name="Some Processor"):
    """A /proc/cpuinfo of two processors."""
    return "\n".join(f"processor\t: {n}\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: avx2\n" for n in (0, 1))


def arm(features):
    return f"processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: {features}\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    "info, environment, kind",
    [
        (x86("fpu sse2 avx"), {}, "x86"),
        (x86(AVX2), {}, "avx2"),
        (x86(f"{AVX2} avx_vnni"), {}, "avx2-vnni"),
        (x86(f"{AVX2} avx512f avx512_vnni"), {}, "avx2"),  # AVX-512 without what oneDNN needs of it
        (x86(AVX512), {}, "avx512"),
        (x86(VNNI), {}, "avx512-vnni"),
        (x86(BF16), {}, "avx512-vnni-bf16"),
        (x86(AMX), {}, "amx"),
        (arm("fp asimd crc32"), {}, "arm"),
        (arm("fp asimd asimddp sve bf16 i8mm"), {}, "arm-i8mm"),
        (arm("fp asimd i8mm"), ALL_AVX2, "arm-i8mm"),
        ("", {}, platform.machine()),
        (x86(AMX), ALL_AVX2, "avx2"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "avx2"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "avx2"}, "avx2"),  # oneDNN reads small letters too
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, "avx2-vnni"),
        (x86(BF16), {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, "avx2"),  # nothing is given that the processor lacks
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "avx512"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "avx512-vnni"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "avx512-vnni-bf16"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX10_1_512"}, "avx512-vnni-bf16"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX10_1_512_AMX"}, "amx"),
        (x86(AVX2), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "avx2"),  # it never raises
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "SSE41"}, "x86"),
        (x86(AMX), {"ONEDNN_MAX_CPU_ISA": "nonsense"}, "amx"),
        (x86(VNNI), {"ATEN_CPU_CAPABILITY": "avx2"}, "avx2"),
        (x86(VNNI), {"ATEN_CPU_CAPABILITY": "AVX2"}, "avx512-vnni"),  # torch reads small letters only
        (x86(VNNI), {"ATEN_CPU_CAPABILITY": "default"}, "x86"),
        (x86(VNNI), {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "avx512"),
        (x86(VNNI), {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, "avx512-vnni"),
    ],
)
def test_a_kind_is_what_this_process_can_use(info, environment, kind):
    assert machine.kind(info, environment) == kind


def test_a_lowered_processor_says_so():
    whole = machine.described(x86(AMX), {})
    assert whole["processor"] == "Some Processor" and whole["kind"] == "amx"
    assert "amx_int8" in whole["instructions"] and not {"lowered_by", "lowered_from"} & whole.keys()
    lowered = machine.described(x86(AMX), ALL_AVX2)
    assert lowered["processor"] == "Some Processor, a larger one (amx) lowered to avx2"
    assert (lowered["kind"], lowered["lowered_from"], lowered["lowered_by"]) == ("avx2", "amx", ALL_AVX2)
    assert lowered["instructions"] == ["avx2"]
    in_part = machine.described(x86(AMX), {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert in_part["processor"].endswith("lowered to avx2 in part")
    assert in_part["lowered_by"] == dict.fromkeys(ALL_AVX2) | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    only_mkl = machine.described(x86(AMX), {"MKL_ENABLE_INSTRUCTIONS": "AVX2"})  # another speed, the same kind
    assert only_mkl["lowered_by"]["MKL_ENABLE_INSTRUCTIONS"] == "AVX2" and "lowered_from" not in only_mkl


# --------------------------------------------------------------------------------------------------------- recording


@pytest.fixture
def at(monkeypatch):
    """A function that makes this machine another one."""

    def become(info, environment=None):
        monkeypatch.setattr(machine, "cpuinfo", lambda: info)
        for variable in machine.LOWERING:
            monkeypatch.delenv(variable, raising=False)
        for variable, value in (environment or {}).items():
            monkeypatch.setenv(variable, value)

    return become


def test_recording_replaces_a_section_and_keeps_the_others_and_other_kinds(tmp_path, at):
    folder = tmp_path / "records"  # made when it is needed
    at(x86(AMX))
    machine.record("peers", {"turns": 3}, folder)
    machine.record("engines", {"turns": 7, "own": "值"}, folder)
    before = (folder / "amx.json").read_text(encoding="utf-8")
    at(x86(AVX2))
    made = machine.record("engines", {"turns": 2}, folder)
    assert (folder / "amx.json").read_text(encoding="utf-8") == before and "值" in before
    at(x86(AMX))
    machine.record("engines", {"turns": 1}, folder)
    assert {file.name for file in folder.iterdir()} == {"amx.json", "avx2.json"}
    assert {kind: one["turns"] for kind, one in machine.records("engines", folder).items()} == {"amx": 1, "avx2": 2}
    assert {kind: one["turns"] for kind, one in machine.records("peers", folder).items()} == {"amx": 3}
    assert machine.records("engines", folder)["avx2"] == made and "own" not in machine.records("engines", folder)["amx"]


def test_records_come_in_the_order_of_their_kinds(tmp_path, monkeypatch):
    files = [tmp_path / f"{kind}.json" for kind in ("avx512", "avx2-vnni", "arm", "avx2")]
    for file in files:
        machine.write(file, '{"peers": {}}')
    monkeypatch.setattr(Path, "glob", lambda folder, _: files if folder == tmp_path else [])  # as a disk may list them
    assert list(machine.records("peers", tmp_path)) == ["arm", "avx2", "avx2-vnni", "avx512"]
    assert machine.records("engines", tmp_path) == {} == machine.records("engines", tmp_path / "none")


def half_written(self, text, *args, **options):
    with open(self, "w") as file:
        file.write(text[: len(text) // 2])
    raise OSError("No space left on device")


def never_replaced(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("owner, name, crash", [(Path, "write_text", half_written), (os, "replace", never_replaced)])
def test_a_crash_while_writing_leaves_the_old_record(tmp_path, at, monkeypatch, owner, name, crash):
    at(x86(AVX2))
    machine.record("peers", {"turns": 3}, tmp_path)
    before = (tmp_path / "avx2.json").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, crash)
        with pytest.raises((OSError, KeyboardInterrupt)):
            machine.record("peers", {"turns": 1}, tmp_path)
    assert (tmp_path / "avx2.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["avx2.json"]


def asked(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["engines.py", *map(str, words)])
    return machine.asked("engines", "what it does", {"--long": {"type": float}})


def test_a_benchmark_is_told_where_to_record_and_to_be_quick(tmp_path, at, monkeypatch):
    at(x86(BF16))  # of the kind whose record is committed
    assert (asked(monkeypatch).output, asked(monkeypatch).quick) == (machine.RECORDS, False)
    told = asked(monkeypatch, "--output", tmp_path, "--quick", "--long", 2)
    assert (told.output, told.quick, told.long) == (tmp_path, True, 2)


def test_a_lowered_processor_does_not_replace_the_record_of_a_real_one(tmp_path, at, monkeypatch, capsys):
    at(x86(AMX), ALL_AVX2)
    asked(monkeypatch, "--output", tmp_path)  # nothing is there
    machine.record("engines", {"turns": 7}, tmp_path)
    asked(monkeypatch, "--output", tmp_path)  # one that was lowered is
    at(x86(AVX2, "Real One"))
    asked(monkeypatch, "--output", tmp_path)
    machine.record("engines", {"turns": 7}, tmp_path)
    asked(monkeypatch, "--output", tmp_path)
    at(x86(AMX), ALL_AVX2)
    with pytest.raises(SystemExit):
        asked(monkeypatch, "--output", tmp_path)
    assert "avx2 has a record by Real One; give a lowered one another --output FOLDER" in capsys.readouterr().err


def test_quick_agreement_asks_some_texts_and_offers_all_labels():
    whole, some = list(agreement.tasks(1)), list(agreement.tasks(8))
    assert [len(texts) for texts, _, _ in whole] == [312, 312, 240]
    assert [len(texts) for texts, _, _ in some] == [39, 39, 30]
    assert [labels for _, labels, _ in agreement.tasks(60)] == [labels for _, labels, _ in whole]
    assert all(len(texts) == len(right) and set(right) <= set(labels) for texts, labels, right in some)


# ----------------------------------------------------------------------------------------------------- all of them


@pytest.fixture
def three_benchmarks(tmp_path, monkeypatch):
    """A folder with three benchmarks and a report, each of which leaves a file; the second fails."""
    leave = "import pathlib, sys; pathlib.Path(__file__).with_suffix('.ran').write_text(' '.join(sys.argv[1:]))"
    for name, status in (("one", 0), ("two", 3), ("three", 0), ("report", 0)):
        (tmp_path / f"{name}.py").write_text(f"{leave}; sys.exit({status})")
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "BENCHMARKS", ("one", "two", "three"))
    return tmp_path


def run_with(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["run_all.py", *words])
    return run_all.main()


def test_one_that_fails_is_reported_and_the_rest_goes_on(three_benchmarks, monkeypatch, capsys):
    assert run_with(monkeypatch) == 1
    assert {file.stem for file in three_benchmarks.glob("*.ran")} == {"one", "two", "three", "report"}
    told = capsys.readouterr().out
    assert "two: 0.0 minutes, FAILED with exit status 3" in told and "three: 0.0 minutes\n" in told
    assert told.endswith("failed: two\n")


def test_options_are_handed_on_and_the_status_is_good_if_all_are(three_benchmarks, monkeypatch):
    monkeypatch.setattr(run_all, "BENCHMARKS", ("one", "three"))
    assert run_with(monkeypatch, "--quick", "--output", "elsewhere") == 0
    assert (three_benchmarks / "three.ran").read_text() == "--quick --output elsewhere"
    assert not (three_benchmarks / "report.ran").exists()  # README shows the committed records only


def test_every_benchmark_is_run_and_described():
    described = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert sorted(run_all.BENCHMARKS) == list(SECTIONS)
    for name in run_all.BENCHMARKS:
        assert f"| {name}.py |" in described and (ROOT / "benchmarks" / f"{name}.py").is_file()


# ------------------------------------------------------------------------------------------------------ contenders


def test_every_peer_is_there_as_documented_and_as_tuned():
    tuned = {name for name, way in contenders.WAYS.items() if way.tuned}
    peers = {plots.family(name) for name in contenders.WAYS} - {"ours", "ours without torch", "ModelScope"}
    for peer in peers:
        own = {name for name in contenders.WAYS if plots.family(name) == peer}
        assert own & tuned and own - tuned, peer
    assert next(iter(contenders.WAYS)) == contenders.BASELINE == report.BASELINE


def test_a_way_in_bf16_is_exact_only_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr(machine, "cpuinfo", lambda: x86(AVX2))
    assert contenders.WAYS["transformers pipeline, tuned"].exact
    monkeypatch.setattr(machine, "cpuinfo", lambda: x86(BF16))
    assert not contenders.WAYS["transformers pipeline, tuned"].exact
    assert contenders.WAYS["ours"].exact and not contenders.WAYS["ours, int8 in 55 MB"].exact
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert contenders.WAYS["transformers pipeline, tuned"].exact


def test_answers_come_in_the_order_of_the_texts():
    asked = []

    def run(pairs):  # the label that is as long as the text entails most
        asked.append([len(text) for text, _ in pairs])
        return [-abs(len(text) - len(label)) for text, label in pairs]

    texts, labels = ["b" * 3, "a", "c" * 5, "b" * 2], ["x", "xx", "xxx", "xxxxx"]
    for ordered in (True, False):
        asked.clear()
        found = contenders.in_batches(run, 3, ordered)(texts, labels)
        assert found == ["xxx", "x", "xxxxx", "xx"] and max(map(len, asked)) == 3
        lengths = [length for batch in asked for length in batch]
        assert (lengths == sorted(lengths, reverse=True)) == ordered


# ------------------------------------------------------------------------------------------------------ containers


def test_the_process_that_measures_holds_no_library():
    """A container is not charged for pages that another process has mapped."""
    code = "import sys, containers; print([name for name in ('torch', 'numpy', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def files(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")
    return folder


def test_a_limit_is_written_for_both_versions_of_control_groups(tmp_path):
    first = files(tmp_path / "1", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes")
    second = files(tmp_path / "2", "memory.max", "memory.swap.max", "memory.peak")
    for folder in (first, second):
        containers.confine(folder, 256_000_000)
    assert {file.name: file.read_text() for file in (*first.iterdir(), *second.iterdir())} == {
        "memory.limit_in_bytes": "256000000", "memory.memsw.limit_in_bytes": "256000000",
        "memory.max_usage_in_bytes": "", "memory.max": "256000000", "memory.swap.max": "0", "memory.peak": "",
    }  # fmt: skip
    (first / "memory.max_usage_in_bytes").write_text("7")
    (second / "memory.peak").write_text("8")
    assert (containers.charged(first), containers.charged(second), containers.charged(tmp_path)) == (7, 8, None)
    unlimited = files(tmp_path / "3", "memory.max", "memory.swap.max")
    containers.confine(unlimited, None)
    assert (unlimited / "memory.max").read_text() == ""


def test_version_2_is_asked_for_its_memory_controller(tmp_path):
    files(tmp_path, "cgroup.controllers", "cgroup.subtree_control")
    with containers.group(5, tmp_path) as place:
        assert place.parent == tmp_path and (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert not place.exists()
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory")
    with containers.group(5, tmp_path):
        assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory"


def test_version_1_has_a_folder_of_its_own_for_memory(tmp_path):
    with pytest.raises(OSError, match="containers.py needs root on Linux"), containers.group(5, tmp_path):
        pass  # nothing is mounted
    (tmp_path / "memory").mkdir()
    with containers.group(5, tmp_path) as place:
        assert place.parent == tmp_path / "memory"


SCRIPT = """
import json, os, sys, time
job = json.loads(sys.argv[1])
{what}
print("a library's greeting")
print(json.dumps({{"way": job["way"], "malloc": os.environ.get("MALLOC_ARENA_MAX")}}))
"""


@pytest.mark.parametrize(
    "what, found",
    [
        ("", {"way": "ours", "malloc": None}),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("raise MemoryError", "failed"),
        ("time.sleep(60)", "not done"),
    ],
)
def test_a_run_is_figures_or_why_there_are_none(tmp_path, monkeypatch, what, found):
    (tmp_path / "contenders.py").write_text(SCRIPT.format(what=what))
    monkeypatch.setattr(containers, "HERE", tmp_path)
    told = containers.run({"way": "ours"}, tmp_path, {False: sys.executable}, 2 if "sleep" in what else 50)
    assert (tmp_path / "cgroup.procs").read_text().strip().isdigit()  # it joined the group
    if isinstance(found, dict):
        assert told.pop("anonymous") > 0 and told.pop("file_backed") > 0
    assert told == found


def test_a_tuned_way_has_its_heap_from_the_start(tmp_path, monkeypatch):
    (tmp_path / "contenders.py").write_text(SCRIPT.format(what=""))
    monkeypatch.setattr(containers, "HERE", tmp_path)
    told = containers.run({"way": "transformers pipeline, tuned"}, tmp_path, {False: sys.executable})
    assert told["malloc"] == contenders.HEAP["MALLOC_ARENA_MAX"]


LIMITS = (512, 384, 256, 192, 128)


@pytest.mark.parametrize(
    "needed, guess, tried",
    [
        (200, None, [512, 384, 256, 192]),
        (600, None, [512]),
        (50, None, [512, 384, 256, 192, 128]),
        (200, 200, [256, 192]),  # a right guess
        (200, 300, [384, 256, 192]),
        (200, 130, [192, 256]),  # too small: upwards from there, and no further down
        (200, 10, [128, 192, 256]),
        (600, 300, [384, 512]),
        (200, 900, [512, 384, 256, 192]),
    ],
)
def test_the_search_ends_beside_the_smallest_that_works(needed, guess, tried):
    found = containers.descend(LIMITS, lambda limit: {"first": 1} if limit >= needed else "killed", guess)
    assert list(found) == tried
    assert all(isinstance(result, dict) == (limit >= needed) for limit, result in found.items())


def figures(seconds, whole=300):
    return {"first": 1.0, "seconds": seconds, "whole": whole, "anonymous": 200, "file_backed": 100, "charged": 310}


def test_turns_go_to_the_smallest_container_that_always_worked():
    runs = {512: [figures(1)], 256: [figures(2)], 128: ["killed"]}
    containers.again(runs, lambda limit: figures(3))
    assert [len(runs[limit]) for limit in (512, 256, 128)] == [1, 2, 1]
    containers.again(runs, lambda limit: figures(4) if limit > 300 else "not done")
    assert runs == {512: [figures(1), figures(4)], 256: [figures(2), figures(3), "not done"], 128: ["killed"]}
    containers.again(runs, lambda limit: figures(5))
    assert [len(runs[limit]) for limit in (512, 256, 128)] == [3, 3, 1]
    assert containers.middle(runs[256]) == "not done"  # it worked twice, and cannot be relied on


def test_of_turns_the_median_and_the_spread_are_kept():
    found = containers.middle([figures(3, 310), figures(1, 290), figures(2, 400)])
    assert (found["seconds"], found["whole"], found["turns"]) == (2, 310, 3)
    assert (found["spread"]["seconds"], found["spread"]["whole"]) == ([1, 3], [290, 400])
    without = {key: value for key, value in figures(1).items() if key != "charged"}
    assert "charged" not in containers.middle([without | {"charged": None}])


def test_a_way_takes_turns_with_the_patience_that_its_own_time_allows(monkeypatch):
    asked = []

    def measured(job, pythons, limit=None, patience=None):
        asked.append((limit, patience))
        return figures(9.0) | {"anonymous": 200e6, "file_backed": 60e6} if limit is None or limit > 2e8 else "killed"

    monkeypatch.setattr(containers, "measured", measured)
    one = containers.Contender("ours", Path("scratch"), {})
    for _ in range(2):
        one.take_a_turn((512, 256, 128), search=True, patience=3)
    patience = 3 * 10
    assert asked == [(None, None), (256e6, patience), (128e6, patience), (None, None), (256e6, patience)]
    made = one.record()
    assert made["turns"] == 2 and made["containers"]["256"]["turns"] == 2 and made["containers"]["128"] == "killed"
    assert made["setup"] == "documented" and made["exact"] is True
    monkeypatch.setattr(containers, "measured", lambda *_: "failed")
    with pytest.raises(RuntimeError, match="ours: failed without a limit"):
        one.take_a_turn((512,), search=False)


def test_a_way_that_fails_is_left_out_and_the_others_go_on(monkeypatch, tmp_path, at):
    at(x86(AVX2))

    def measured(job, pythons, limit=None, patience=None):
        if job["way"] == "ours" or (job["way"] == "CrossEncoder" and asked.count("CrossEncoder")):
            return "failed"
        asked.append(job["way"])
        return figures(9.0)

    asked = []
    monkeypatch.setattr(containers, "measured", measured)
    names = [contenders.BASELINE, "ours", "CrossEncoder"]
    ways = [containers.Contender(name, Path("scratch"), {}) for name in names]
    result = {"turns": 1, "limits": [], "ways": {}, "left_out": {}, "patience": 3}
    monkeypatch.setattr(containers, "descend", lambda *_: {})
    containers.take_turns(ways, result | {"turns": 2}, tmp_path, search=False)
    made = machine.records("containers", tmp_path)["avx2"]
    assert list(made["ways"]) == [contenders.BASELINE] and set(made["left_out"]) == {"ours", "CrossEncoder"}
    assert made["left_out"]["ours"] == "it failed: ours: failed without a limit"
    monkeypatch.setattr(containers, "measured", lambda *_: "killed")
    with pytest.raises(RuntimeError, match="transformers pipeline: killed without a limit"):
        containers.take_turns(ways, result, tmp_path, search=False)


def test_the_best_batch_is_the_smallest_that_is_nearly_the_fastest(monkeypatch):
    one = containers.Contender("transformers pipeline, best batch", Path("scratch"), {})
    seconds = {"4": 9.0, "8": 5.1, "16": 5.0, "32": 6.0, "anonymous": 1, "file_backed": 1, "charged": 1}
    monkeypatch.setattr(containers, "measured", lambda job, pythons: seconds)
    one.take_the_fastest_size((4, 8, 16, 32))
    assert one.options == {"batch_size": 8} and one.job()["options"] == {"batch_size": 8}
    assert contenders.WAYS[one.name].options == {}


def test_some_ways_are_added_to_a_record_of_the_same_work(tmp_path, at):
    at(x86(AVX2))
    result = {"kind": "avx2", "texts": 24, "limits": [512], "every": 1}
    with pytest.raises(ValueError, match="no record of avx2 with 24 texts to add to; name 'transformers pipeline' too"):
        containers.earlier(result, ["ours"], tmp_path)
    assert containers.earlier(result, ["ours", contenders.BASELINE], tmp_path) == {}
    ways = {contenders.BASELINE: figures(9), "ours": figures(3)}
    machine.record("containers", result | {"ways": ways}, tmp_path)
    assert containers.earlier(result, ["ours"], tmp_path) == ways
    assert containers.earlier(result, None, tmp_path) == {}  # all of them: nothing is kept
    with pytest.raises(ValueError, match="with 8 texts"):
        containers.earlier(result | {"texts": 8}, ["ours"], tmp_path)


def test_only_what_there_is_and_can_run_here_is_chosen(at):
    at(x86(AVX2))
    names, why = containers.chosen(None, older=None)
    assert names[0] == contenders.BASELINE and "ModelScope" in why and "ONNX Runtime, int8" in names
    assert not containers.chosen(None, older="python")[1]
    assert containers.chosen(["ours", contenders.BASELINE], None)[0] == [contenders.BASELINE, "ours"]
    with pytest.raises(ValueError, match="--only our: there are transformers pipeline; "):
        containers.chosen(["our"], None)
    with pytest.raises(ValueError, match=r"ModelScope needs an environment with transformers 4 \(--older\)"):
        containers.chosen(["ModelScope"], None)
    at(x86(AMX), ALL_AVX2)
    assert "ONNX Runtime, int8" in containers.chosen(None, None)[1]


# ---------------------------------------------------------------------------------------- tables and charts of them


def way(seconds, whole=300e6, **more):
    own = {"anonymous": 200e6, "file_backed": 90e6, "charged": 310e6, "first": 1.0, "seconds": seconds, "whole": whole}
    spread = {name: [0.9 * value, 1.2 * value] for name, value in own.items()}
    setup = {"setup": "documented", "exact": True, "beforehand": "nothing", "options": {}, "agreement": 1.0}
    return own | setup | {"spread": spread, "turns": 3} | more


RECORD = {
    "processor": "One", "kind": "avx2", "threads": 2, "turns": 3, "date": "2026-11-28", "texts": 24, "every": 1,
    "limits": [512, 256, 128], "sizes": "all, from the largest", "beside": 0, "patience": 4,
    "left_out": {"ModelScope": "needs another environment"},
    "ways": {
        "transformers pipeline": way(20.0, containers={"512": "killed"}),
        "transformers pipeline, cut at 64 tokens": way(
            10.0, containers={"512": way(12.0), "256": "not done"}, agreement_on_long_texts=0.5, exact=False
        ),
        "ours": way(5.0, 150e6, containers={"512": way(5.0), "256": way(10.0), "128": "not done"},
                    options={"batch_size": 8}),
    },
}  # fmt: skip


def test_the_table_of_containers_shows_the_smallest_that_worked_and_both_kinds_of_bytes():
    assert report.containers(RECORD)[2:] == [
        "| transformers pipeline | over 512 MB |  | 1.00 | 300 MB (200; 90) | 1.0 s | 100.0% |",
        "| transformers pipeline, cut at 64 tokens | 512 MB | 1.67 | 2.00 | 300 MB (200; 90) | 1.0 s "
        "| 100.0%, longer texts 50.0% |",
        "| ours | 256 MB | 2.00 | 4.00 | 150 MB (200; 90) | 1.0 s | 100.0% |",
        "| ModelScope | not measured here: needs another environment | | | | | |",
        "",
        "24 texts with 9 labels. Sizes of containers, in MB: 512, 256, 128.",
    ]
    assert "2 other processes held libraries too" in report.containers(RECORD | {"beside": 2})[-1]


def test_the_page_on_method_has_the_spread_and_every_container():
    rows = report.details(RECORD)
    assert rows[4] == (
        "| ours | documented | exact | nothing | 8 | 5.0 (4.5 to 6.0) | 150 (135 to 180) | 310 (279 to 372) "
        "| 1.0 (0.9 to 1.2) | 512: 5.0; 256: 10.0; 128: not done |"
    )


def older(record):
    """A record as it was before whole processes were charged in full."""
    kept = ("first", "seconds", "whole", "containers")
    ways = {name: {key: one[key] for key in kept} for name, one in record["ways"].items()}
    return {key: record[key] for key in ("processor", "kind", "threads", "turns", "date", "limits")} | {"ways": ways}


def test_an_older_record_still_has_its_table_which_says_so():
    rows = report.containers(older(RECORD))
    assert rows[4] == "| ours | 256 MB | 2.00 | 4.00 | 150 MB | 1.0 s |  |" and rows[-1].startswith("An older meter: ")
    assert report.chart(older(RECORD)) == [] != report.chart(RECORD)


def test_kinds_of_machines_stand_side_by_side():
    second = RECORD | {"kind": "amx", "ways": {"transformers pipeline": RECORD["ways"]["ours"]}}
    assert report.side_by_side({"amx": second, "avx2": older(RECORD)}) == [
        "| smallest container, speed there | amx | avx2 (older meter) |",
        "|---|---|---|",
        "| transformers pipeline | 256 MB, 0.50 | over 512 MB |",
        "| transformers pipeline, cut at 64 tokens |  | 512 MB, 1.67 |",
        "| ours |  | 256 MB, 2.00 |",
    ]


def test_growth_is_shown_only_of_machines_whose_whole_processes_were_not_measured(tmp_path):
    growth = machine.records(OLDER)[LEDGER]
    for kind, whole in (("one", None), ("two", older(RECORD)), ("three", RECORD)):
        sections = {OLDER: growth | {"kind": kind}} | ({"containers": whole} if whole else {})
        machine.write(tmp_path / f"{kind}.json", json.dumps(sections))
    assert list(report.shown(OLDER, tmp_path)) == ["one", "two"]
    assert "process grew by (older meter)" in report.block(OLDER, tmp_path)
    assert "three" not in report.block(OLDER, tmp_path)


@pytest.fixture
def axes():
    figure, axes = pyplot.subplots(figsize=(8.5, 5.5))
    yield axes
    pyplot.close(figure)


def test_the_frontier_is_of_whole_processes_with_a_name_at_each_point(axes):
    plots.frontier(axes, RECORD)
    assert axes.get_xlabel().startswith("whole process, MB")
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "transformers pipeline": (300, 1.2), "transformers pipeline, cut at 64 tokens": (300, 2.4), "ours": (150, 4.8),
    }  # fmt: skip
    assert axes.get_title("left") == "Least memory: ours, 150 MB\nMost speed: ours, 4.80 texts a second"
    hollow = [line.get_markerfacecolor() == "white" for line, *_ in axes.containers]
    assert hollow == [False, True, False]
    (across,), (up,) = ([bar.get_segments()[0] for bar in bars] for bars in zip(*(axes.containers[2][2],)))
    assert across[:, 0].tolist() == pytest.approx([135, 180]) and up[:, 1].tolist() == pytest.approx([4.0, 24 / 4.5])


def test_the_frontier_says_what_its_marks_mean(axes):
    plots.frontier(axes, RECORD)
    with_torch = ["ours, with torch", "others: a shape for each", "hollow: answers may differ from fp32"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*with_torch, "no way is better in both"]
    shown = [(handle.get_marker(), handle.get_markerfacecolor()) for handle in axes.get_legend().legend_handles]
    assert shown[0] == ("o", plots.ENGINES["ours"]) and shown[2][1] == "white"
    axes.clear()
    plots.frontier(axes, RECORD | {"ways": {"ours without torch, int8": RECORD["ways"]["ours"]}})
    assert [text.get_text() for text in axes.get_legend().get_texts()][0] == "ours, without torch"
    assert len(axes.get_legend().get_texts()) == 3


def test_names_in_the_frontier_cover_no_other(axes):
    names = list(contenders.WAYS)
    ways = {name: way(RECORD["texts"] / (1 + 0.4 * i), 1e8 + 2.5e8 * (i % 3)) for i, name in enumerate(names)}
    plots.frontier(axes, RECORD | {"ways": ways})
    axes.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to its point
    assert len(boxes) == len(names)
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]


def test_an_older_record_of_growth_has_a_frontier_that_says_so(axes):
    record = machine.records(OLDER)[LEDGER]
    plots.frontier(axes, record)
    assert axes.get_xlabel().startswith("an older meter: process growth after imports")
    assert len(axes.texts) == len(record["engines"])


def test_families_have_markers_of_their_own():
    found = plots.markers(contenders.WAYS)
    assert len(set(found.values())) == len(found) == len({plots.family(name) for name in contenders.WAYS})


# ---------------------------------------------------------------------------------------------- what was committed


def committed():
    """(file, section, what was recorded) of all records; one of a GPU describes its machine in a section of its own."""
    for file in sorted(machine.RECORDS.glob("*.json")):
        sections = json.loads(file.read_text(encoding="utf-8"))
        if file.stem.startswith("gpu-"):
            sections = {"hardware": sections["sections"]["hardware"]}
        yield from ((file.stem, name, made) for name, made in sections.items())


@pytest.mark.parametrize("file, name, made", list(committed()))
def test_every_record_names_its_machine(file, name, made):
    assert made["processor"] and made["kind"] and made["threads"] >= 1 and made["torch"]
    assert datetime.date.fromisoformat(made["date"])
    assert ("lowered_from" in made) == ("a larger one" in made["processor"])
    assert name == "hardware" or (made["kind"] == file and made["turns"] >= 1)


def test_the_kind_of_the_ledger_has_all_sections_in_full():
    made = json.loads((machine.RECORDS / f"{LEDGER}.json").read_text(encoding="utf-8"))
    assert set(SECTIONS) - {"containers"} <= set(made) <= {*SECTIONS, OLDER}
    assert {section["every"] for section in made.values() if "every" in section} == {1}


def test_no_record_lies_beside_the_scripts():
    assert {file.name for file in (ROOT / "benchmarks").glob("*.json")} == set()


def test_the_pages_are_what_report_would_write():
    assert report.filled(MEASURED) == MEASURED, "run: python benchmarks/report.py"
    assert report.filled_front(README) == README, "run: python benchmarks/report.py"
    assert report.filled_method(METHOD) == METHOD, "run: python benchmarks/report.py"


def test_the_summary_is_of_the_way_with_the_smallest_container(tmp_path):
    base = {"whole": 800e6, "seconds": 30.0, "containers": {"512": {"seconds": 40.0}, "384": "killed"}}
    small = {"whole": 140e6, "seconds": 10.0, "containers": {"512": {"seconds": 11.0}, "128": {"seconds": 12.0}}}
    fast = {"whole": 240e6, "seconds": 5.0, "containers": {"512": {"seconds": 6.0}, "128": "killed"}}
    made = {
        "processor": "Some One",
        "kind": "avx2",
        "texts": 24,
        "ways": {"transformers pipeline": base, "ours": fast, "ours, small": small},
    }
    (tmp_path / "avx2.json").write_text(json.dumps({"containers": made}), encoding="utf-8")
    assert report.summary(tmp_path).splitlines() == [
        "| the pipeline of transformers → ours | Some One: avx2 |", "|---|---|",
        "| whole process | 800 MB → **140 MB** |", "| smallest container | 512 MB → **128 MB** |",
        "| speed without a limit | 1 → **3.0** |", "",
        "Ours is the way with the smallest container: *ours, small* on avx2.",
    ]  # fmt: skip


def test_the_tables_show_every_kind_with_its_processor(tmp_path, at):
    offloading = machine.records("offloading")[LEDGER]
    own = ("date", "processor", "kind", "instructions", "threads", "torch", "transformers")
    for name, flags in (("First One", AVX2), ("Second One", AMX)):
        at(x86(flags, name))
        for section, made in (("containers", RECORD), ("offloading", offloading)):
            machine.record(section, {key: value for key, value in made.items() if key not in own}, tmp_path)
    written, method = report.filled(MEASURED, tmp_path), report.filled_method(METHOD, tmp_path)
    assert report.filled(written, tmp_path) == written and report.filled_method(method, tmp_path) == method
    for kind, name in (("avx2", "First One"), ("amx", "Second One")):
        assert written.count(f"| {name}: {kind} |") == 2 and method.count(f"| {name}: {kind} |") == 1
        assert written.count(f"(../benchmarks/records/{kind}.json): {name}, ") == 2
        assert f"{name}: this project and its peers](../benchmarks/figures/{kind}-containers.svg)" in written
    assert "| smallest container, speed there | amx | avx2 |" in written
    assert LEDGER not in written.split("<!-- records: containers -->")[1].split("<!-- end -->")[0]
    assert "-containers.svg)" in report.picture(tmp_path)


@pytest.mark.parametrize("damage", [("<!-- records: containers -->", ""), ("<!-- end -->", "")])
def test_a_page_without_a_place_for_a_table_is_refused(damage):
    with pytest.raises(ValueError, match="no place, or several, between <!-- records: "):
        report.filled(MEASURED.replace(*damage, 1))


def test_a_quick_record_says_what_it_asked():
    made = machine.records(OLDER)[LEDGER] | {"turns": 1, "texts": 4, "every": 6}
    assert ", 1 turn, 4 texts; answers to every 6th headline; torch" in report.made_on(made)
    assert ", median of 3 turns; torch" in report.made_on(machine.records(OLDER)[LEDGER])


def test_the_charts_are_those_of_the_records():
    shown = {kind: made for kind, made in machine.records("containers").items() if report.complete(made)}
    names = {f"{kind}-containers{language}.svg": made for kind, made in shown.items() for language in ("", "-zh")}
    assert {file.name for file in report.FIGURES.glob("*")} == {*names}
    for name, made in names.items():
        assert made["processor"] in (report.FIGURES / name).read_text(encoding="utf-8")


def test_a_chart_is_drawn_from_its_record_alone(tmp_path):
    for name, made in (("one", RECORD), ("again", RECORD), ("other", RECORD | {"texts": 25})):
        report.draw(made, tmp_path / f"{name}.svg")
    one, again, other = ((tmp_path / f"{name}.svg").read_text("utf-8") for name in ("one", "again", "other"))
    assert one == again != other and "One, 2 threads, median of 3 turns" in one


def test_the_readme_s_picture_and_summary_speak_chinese(tmp_path):
    """What neither the package nor report.py has Chinese for would be left English: names of tools alone may."""
    report.draw(RECORD, tmp_path / "en.svg")
    with language.speaking("zh"):
        report.draw(RECORD, tmp_path / "zh.svg")
        picture, summary = report.picture(), report.summary()
    english, chinese = ((tmp_path / f"{name}.svg").read_text("utf-8") for name in ("en", "zh"))
    assert "One，2 个线程，3 轮的中位数" in chinese and "Noto Sans CJK SC" in chinese and english != chinese
    assert "-zh.svg)" in picture and "本项目" in picture
    assert "| 整个进程 |" in summary and "不用 torch" in summary.splitlines()[-1]


def test_each_chinese_word_of_the_readme_has_the_same_braces():
    for english, chinese in report.CHINESE.items():
        assert sorted(re.findall(r"{\d?}", english)) == sorted(re.findall(r"{\d?}", chinese)), english


def test_notebooks_read_every_record(monkeypatch):
    """Each brings the same small function, which finds what machine.records finds."""
    monkeypatch.chdir(ROOT / "notebooks")
    read = {}
    for file in sorted(Path().glob("*.ipynb")):
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "code" and "def recorded(section)" in cell.source:
                start = cell.source.index("def recorded(section)")
                read[file.stem[:2]] = cell.source[start:].split("\n\n")[0]
    assert list(read) == ["02", "03", "04", "06", "08"] and len(set(read.values())) == 1
    names = {"json": json, "Path": Path}
    exec(read["02"], names)
    for section in (*SECTIONS, OLDER):
        found = names["recorded"](section)
        assert found == machine.records(section) and list(found) == list(machine.records(section))


# ---------------------------------------------------------------------------------------------------------- figures


def test_the_best_are_those_that_no_other_beats_in_both():
    points = {"small": (1, 1), "fast": (3, 3), "between": (2, 2), "worse": (3, 2), "large": (4, 3), "twin": (3, 3)}
    assert plots.best(points) == ["small", "fast", "between", "twin"]


def test_the_goal_for_all_levers_together_is_kept_in_the_record():
    """At most 15 % of the pipeline's growth at 3 times its speed with 99 % of its answers."""
    engines = machine.records(OLDER)[LEDGER]["engines"]
    original, ours = engines["transformers pipeline"], engines["ours, int8 in 50 MB"]
    assert ours["total"] <= 0.15 * original["total"] and ours["speed"] >= 3 and ours["agreement"] >= 0.99


@pytest.mark.parametrize("kind", machine.records(OLDER))
def test_what_changes_no_score_changes_no_answer(kind):
    for engine in ("transformers pipeline, batch_size=8", "CrossEncoder", "ours", "ours in 150 MB"):
        assert machine.records(OLDER)[kind]["engines"][engine]["agreement"] == 1, engine
