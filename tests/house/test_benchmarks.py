"""Records of benchmarks: one file for each kind of machine, and README and its charts are what the records say."""

import datetime
import json
import os
import platform
import sys
from contextlib import contextmanager
from pathlib import Path

import agreement
import containers
import machine
import nbformat
import pytest
import report
import run_all

from zsc_utils import plots

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
SECTIONS = ("agreement", "batching", "containers", "distil", "engines", "offloading", "peers")
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


# ------------------------------------------------------------------------------------------------------ containers


def run_in(results):
    """A stand-in for containers.run: without a limit it takes 12 s, in a container what `results` says for it."""
    asked = []

    def run(way, folder, work, procs="", patience=None):
        asked.append((procs, patience))
        return {"first": 2.0, "seconds": 10.0, "whole": 9} if not procs else results[len(asked) - 2]

    return run, asked


@contextmanager
def some_group(limit):
    yield Path("group") / str(limit // 10**6)


@pytest.mark.parametrize("end", ["killed", "failed", "not done"])
def test_containers_shrink_until_one_is_too_small(monkeypatch, end):
    slow = {"first": 3.0, "seconds": 30.0, "whole": 5}
    run, asked = run_in([slow, slow, end])
    monkeypatch.setattr(containers, "run", run)
    monkeypatch.setattr(containers, "group", some_group)
    found = containers.in_containers(("by_us", {}), "folder", "work", (512, 256, 128, 64))
    assert found["containers"] == {"512": slow, "256": slow, "128": end} and found["seconds"] == 10
    assert [patience for _, patience in asked] == [None, 60.0, 60.0, 60.0]
    assert [Path(procs).parent.name for procs, _ in asked[1:]] == ["512", "256", "128"]


def test_a_way_that_does_not_work_without_a_limit_is_an_error(monkeypatch):
    monkeypatch.setattr(containers, "run", lambda *_: "failed")
    with pytest.raises(RuntimeError, match="failed without a limit"):
        containers.in_containers(("by_us", {}), "folder", "work", (512,))


def test_the_table_of_containers_shows_the_smallest_that_worked():
    def way(seconds, **in_containers):
        return {"first": 1.0, "seconds": seconds, "whole": 300e6, "containers": in_containers}

    ways = {
        "transformers pipeline": way(20.0, **{"512": "killed"}),
        "ours": way(5.0, **{"512": {"seconds": 5}, "256": {"seconds": 10}, "128": "not done"}),
    }
    rows = report.containers({"processor": "One", "kind": "avx2", "ways": ways, "limits": [512, 256, 128]})[2:]
    assert rows == [
        "| transformers pipeline | over 512 MB |  | 1.00 | 300 MB | 1.0 s |",
        "| ours | 256 MB | 2.00 | 4.00 | 300 MB | 1.0 s |",
        "",
        "Sizes that were tried, in MB: 512, 256, 128.",
    ]


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
    assert tuple(made) == tuple(section for section in SECTIONS if section != "containers")
    assert {section["every"] for section in made.values() if "every" in section} == {1}


def test_no_record_lies_beside_the_scripts():
    assert {file.name for file in (ROOT / "benchmarks").glob("*.json")} == set()


def test_the_pages_are_what_report_would_write():
    assert report.filled(MEASURED) == MEASURED, "run: python benchmarks/report.py"
    assert report.filled_front(README) == README, "run: python benchmarks/report.py"


def test_the_summary_is_of_the_way_with_the_smallest_container(tmp_path):
    base = {"whole": 800e6, "seconds": 30.0, "containers": {"512": {"seconds": 40.0}, "384": "killed"}}
    small = {"whole": 140e6, "seconds": 10.0, "containers": {"512": {"seconds": 11.0}, "128": {"seconds": 12.0}}}
    fast = {"whole": 240e6, "seconds": 5.0, "containers": {"512": {"seconds": 6.0}, "128": "killed"}}
    made = {
        "processor": "Some One",
        "kind": "avx2",
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
    for name, flags in (("First One", AVX2), ("Second One", AMX)):
        at(x86(flags, name))
        for section in ("peers", "offloading"):
            made = machine.records(section)[LEDGER]
            own = ("date", "processor", "kind", "instructions", "threads", "torch", "transformers")
            machine.record(section, {key: value for key, value in made.items() if key not in own}, tmp_path)
    written = report.filled(MEASURED, tmp_path)
    assert report.filled(written, tmp_path) == written
    for kind, name in (("avx2", "First One"), ("amx", "Second One")):
        assert written.count(f"| {name}: {kind} |") == 2
        assert written.count(f"(../benchmarks/records/{kind}.json): {name}, ") == 2
        assert f"{name}: this project and its peers](../benchmarks/figures/{kind}-peers.svg)" in written
    assert LEDGER not in written.split("<!-- records: peers -->")[1].split("<!-- end -->")[0]


@pytest.mark.parametrize("damage", [("<!-- records: peers -->", ""), ("<!-- end -->", "")])
def test_a_page_without_a_place_for_a_table_is_refused(damage):
    with pytest.raises(ValueError, match="no place, or several, between <!-- records: "):
        report.filled(MEASURED.replace(*damage, 1))


def test_a_quick_record_says_what_it_asked():
    made = machine.records("peers")[LEDGER] | {"turns": 1, "every": 6}
    assert ", 1 turn; answers to every 6th text; torch" in report.made_on(made)
    assert ", median of 3 turns; torch" in report.made_on(machine.records("peers")[LEDGER])


def test_the_charts_are_drawn_from_the_records(tmp_path):
    peers = machine.records("peers")
    assert {file.name for file in report.FIGURES.iterdir()} == {f"{kind}-peers.svg" for kind in peers}
    for kind, made in peers.items():
        report.draw(made, tmp_path / "again.svg")
        shown = (report.FIGURES / f"{kind}-peers.svg").read_text(encoding="utf-8")
        assert (tmp_path / "again.svg").read_text(encoding="utf-8") == shown and made["processor"] in shown
        made["engines"]["ours"]["total"] += 50_000_000
        report.draw(made, tmp_path / "other.svg")
        assert (tmp_path / "other.svg").read_text(encoding="utf-8") != shown


def test_notebooks_read_every_record(monkeypatch):
    """Each brings the same small function, which finds what machine.records finds."""
    monkeypatch.chdir(ROOT / "notebooks")
    read = {}
    for file in sorted(Path().glob("*.ipynb")):
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "code" and "def recorded(section)" in cell.source:
                start = cell.source.index("def recorded(section)")
                read[file.stem[:2]] = cell.source[start:].split("\n\n")[0]
    assert list(read) == ["02", "03", "04", "06", "07", "08"] and len(set(read.values())) == 1
    names = {"json": json, "Path": Path}
    exec(read["02"], names)
    for section in SECTIONS:
        found = names["recorded"](section)
        assert found == machine.records(section) and list(found) == list(machine.records(section))


# ---------------------------------------------------------------------------------------------------------- figures


def test_the_best_are_those_that_no_other_beats_in_both():
    points = {"small": (1, 1), "fast": (3, 3), "between": (2, 2), "worse": (3, 2), "large": (4, 3), "twin": (3, 3)}
    assert plots.best(points) == ["small", "fast", "between", "twin"]


def test_the_goal_for_all_levers_together_is_kept_in_the_record():
    """At most 15 % of the pipeline's growth at 3 times its speed with 99 % of its answers."""
    engines = machine.records("peers")[LEDGER]["engines"]
    original, ours = engines["transformers pipeline"], engines["ours, int8 in 50 MB"]
    assert ours["total"] <= 0.15 * original["total"] and ours["speed"] >= 3 and ours["agreement"] >= 0.99


@pytest.mark.parametrize("kind", machine.records("peers"))
def test_what_changes_no_score_changes_no_answer(kind):
    for engine in ("transformers pipeline, batch_size=8", "CrossEncoder", "ours", "ours in 150 MB"):
        assert machine.records("peers")[kind]["engines"][engine]["agreement"] == 1, engine
