"""All ways to run a checkpoint: exports that do not exist yet have exact sizes, and what fits is what a plan takes."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from oracle import ORACLE

import zsc_utils as zsc
from zsc_utils import __main__ as command
from zsc_utils import _checkpoint_commands, _container, _ways, onnx_plan, quantization
from zsc_utils import plan as planning
from zsc_utils._exports import read_export
from zsc_utils._ways import Way, Ways

MB = 10**6


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """{precision: an export of mini}"""
    folder = tmp_path_factory.mktemp("exports")
    return {precision: zsc.export("mini", folder / precision, precision) for precision in ("fp32", "int8")}


@pytest.fixture
def libraries(monkeypatch):
    """Python and torch hold 390 MB: a test process holds more."""
    monkeypatch.setattr(planning, "resident", lambda pid: {"VmRSS": 390 * MB, "VmHWM": 390 * MB})


@pytest.fixture
def plan(capsys, libraries):
    """A function that runs `plan`: its exit status, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()
        return command.main(["plan", *map(str, arguments)]), *capsys.readouterr()

    return run


# ------------------------------------------------------------------------------------------------------------ predicted


def test_an_export_that_does_not_exist_yet_has_the_bytes_of_the_one_that_does(exports, libraries):
    """Of every setting, to the byte: weights from the shapes, the tokenizer as it will be written."""
    predicted = {(way.precision, way.streamed): way for way in planning.ways("mini").ways if not way.torch}
    assert set(predicted) == {(precision, streamed) for precision in ("fp32", "int8") for streamed in (False, True)}
    for precision, folder in exports.items():
        for way in _ways.of_export(read_export(folder)):
            assert way.grows == predicted[precision, way.streamed].grows and len(way.grows) > 1
            assert way.libraries == predicted[precision, way.streamed].libraries
            made = onnx_plan.make(read_export(folder), offload=way.streamed)
            assert way.whole() == way.beside + made.predicted


def test_ways_with_torch_have_the_bytes_of_its_plans(libraries):
    for way in planning.ways("mini").ways:
        if way.torch:
            made = planning.make("mini", chosen=planning.Chosen(way.precision, None, way.streamed))
            assert way.whole() == 390 * MB + _container.LIBRARY_PAGES_BYTES + made.predicted
            assert way.lossy == (way.precision == "int8")


@pytest.mark.parametrize("chosen, torch, without", [
    (planning.Chosen(), {"fp32", "int8"}, {"fp32", "int8"}), (planning.Chosen("int8"), {"int8"}, {"int8"}),
    (planning.Chosen("bf16"), {"bf16"}, set()), (planning.Chosen(attention="sliding"), {"fp32", "int8"}, set()),
])  # fmt: skip
def test_levers_chosen_by_hand_leave_the_ways_that_have_them(chosen, torch, without):
    found = planning.ways(ORACLE, chosen).ways
    for engine, precisions in ((True, torch), (False, without)):
        assert {way.precision for way in found if way.torch == engine} == precisions
    for offload in (True, False):
        some = planning.ways(ORACLE, replace(chosen, attention=None, offload=offload)).ways
        assert some and {way.streamed for way in some} == {offload}


def test_what_export_refuses_is_no_way(oracle):
    int8 = planning.ways(quantization.quantize(oracle, "int8")).ways
    assert {way.precision for way in int8} == {"int8"} and not any(way.lossy for way in int8)
    config = SimpleNamespace(**oracle.model.config.to_dict() | {"hidden_act": "relu"})
    assert _ways.to_export("relu", config, oracle.tokenizer, "fp32") == []
    assert {way.torch for way in planning.ways(oracle).ways} == {True, False}
    assert {way.torch for way in planning.ways(zsc.attention.use(oracle, "sliding")).ways} == {True}


FRESH = """
import sys, {imports}
from zsc_utils._process import resident
print(resident("self")["VmRSS"], "torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    "imports, counted, torch",
    [
        ("zsc_utils.__main__, zsc_utils.onnx_engine", _ways.LEAN_LIBRARIES_BYTES, False),
        ("zsc_utils.__main__, zsc_utils.torch_engine", _ways.TORCH_LIBRARIES_BYTES, True),
    ],
)
def test_what_libraries_take_is_about_what_a_fresh_process_holds(imports, counted, torch):
    """How many pages of a library become resident depends on the kernel: a third less was measured elsewhere."""
    script = FRESH.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    held, with_torch = done.stdout.split()
    assert with_torch == str(torch)
    assert 0.6 * counted < int(held) < counted + _container.LIBRARY_PAGES_BYTES


# --------------------------------------------------------------------------------------------------------------- chosen

NOTHING = 20  # MB of pages of libraries, which every way has


def way(torch, precision, streamed, *grows):
    return Way(torch, precision, streamed, precision == "int8", 0, tuple(grow * MB for grow in grows))


FAST, STREAMED = way(True, "fp32", False, 400, 350), way(True, "fp32", True, 180, 130)
INT8, LEAN, LEAN_INT8 = way(True, "int8", False, 200), way(False, "fp32", True, 110), way(False, "int8", True, 90, 60)
TOY = Ways("toy", [LEAN_INT8, LEAN, INT8, STREAMED, FAST])


@pytest.mark.parametrize("limit, exact, lossy", [
    (1000, FAST, LEAN_INT8), (370, FAST, LEAN_INT8), (369, STREAMED, LEAN_INT8), (150, STREAMED, LEAN_INT8),
    (149, LEAN, LEAN_INT8), (130, LEAN, LEAN_INT8), (129, None, LEAN_INT8), (80, None, LEAN_INT8), (79, None, None),
])  # fmt: skip
def test_the_fastest_that_fits_is_chosen_and_lossy_ones_only_if_allowed(limit, exact, lossy):
    assert TOY.best(limit * MB, False) == exact
    assert TOY.best(limit * MB, True) == lossy
    assert replace(TOY, ways=[INT8, FAST]).best(400 * MB, True) == INT8


def test_a_way_takes_its_fastest_setting_that_fits():
    assert [FAST.whole(limit * MB) // MB for limit in (500, 420, 419, 370, 10)] == [420, 420, 370, 370, 370]
    assert FAST.whole() == 420 * MB


def test_what_to_do_is_a_call_or_two_commands():
    assert TOY.how(STREAMED, 200 * MB) == "ZeroShotClassifier('toy', memory_budget='180.0MB')"
    assert TOY.how(INT8, 400 * MB) == "ZeroShotClassifier('toy', precision='int8', memory_budget='380.0MB')"
    by_hand = Ways("a b/my model", [LEAN], offload=True)
    export, classify = (shlex.split(words) for words in by_hand.how(LEAN, 130 * MB).split(" && "))
    assert export == ["zsc", "export", "my model-fp32", "--checkpoint", "a b/my model", "--precision", "fp32"]
    assert classify[-5:] == ["--checkpoint", "my model-fp32", "--budget", "110.0MB", "--offload"]
    assert "export" not in replace(by_hand, made=True).how(LEAN, 130 * MB)


@pytest.mark.parametrize("limit, message", [
    (100, r"'toy' in 100.0 MB: no way that keeps the scores fits, the smallest takes 130.0 MB \(without torch, fp32, "
     r"layers streamed\). With allow_lossy=True the fastest is without torch, int8, layers streamed: zsc export toy-i"),
    (79, r"no way fits, the smallest takes 80.0 MB \(without torch, int8, layers streamed\)"),
])  # fmt: skip
def test_where_nothing_fits_the_smallest_is_named(limit, message):
    with pytest.raises(ValueError, match=message):
        TOY.advice(limit * MB, False)


# -------------------------------------------------------------------------------------------------------------- command


def rows_of(printed):
    """{way: (whole MB, smallest MB, scores, fits or "")} of a printed table."""
    found = re.findall(r"^(.*(?:memory|streamed)) +([\d.]+) MB +([\d.]+) MB +(exact|lossy) *(\w*)$", printed, re.M)
    return {name: (float(whole), float(least), scores, fits) for name, whole, least, scores, fits in found}


def test_the_command_prints_all_ways_and_what_to_do_which_does_it(plan, tmp_path, monkeypatch, capsys):
    """The commands that it names are run: they do what the table says."""
    status, printed, told = plan("--checkpoint", "mini", "--container", "200MB")
    assert (status, told) == (0, "")
    rows = rows_of(printed)
    assert len(rows) == 8 and sum(name.startswith("torch") for name in rows) == 4
    for whole, least, _, fits in rows.values():
        assert whole >= least and (fits == "yes") == (whole <= 200)
    assert {scores for name, (_, _, scores, _) in rows.items() if "int8" in name} == {"lossy"}
    last = printed.splitlines()[-1]
    assert last.startswith("the fastest that fits is without torch, fp32, layers streamed: zsc export mini-fp32 ")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("央行下调利率\n", encoding="utf-8")
    commands = last.partition("streamed: ")[2].replace("FILE", "texts.txt").replace("A,B", "财经,体育").split(" && ")
    assert [command.main(shlex.split(words)[1:]) for words in commands] == [0, 0]
    assert '"labels": ["财经", "体育"]' in capsys.readouterr().out
    budget = re.search(r"--budget (\S+)", last)[1]
    made = onnx_plan.make(read_export(tmp_path / "mini-fp32"), budget)
    assert made.setting.block and rows["without torch, fp32, layers streamed"][0] == pytest.approx(
        (made.predicted + _ways.LEAN_LIBRARIES_BYTES + _container.LIBRARY_PAGES_BYTES) / 1e6, abs=0.1
    )


def test_the_call_that_it_names_has_the_plan_of_the_table(plan):
    for limit, streamed in (("900MB", False), ("480MB", True)):
        _, printed, _ = plan("--checkpoint", "mini", "--container", limit)
        name, _, call = printed.splitlines()[-1].removeprefix("the fastest that fits is ").partition(": ")
        made = eval(call, {"ZeroShotClassifier": lambda name, memory_budget: planning.make(name, memory_budget)})
        assert name == f"torch, fp32, layers {'streamed' if streamed else 'in memory'}"
        assert bool(made.setting.block) == streamed
        assert made.predicted / MB + 390 + NOTHING == pytest.approx(rows_of(printed)[name][0], abs=0.1)


def test_layers_streamed_by_hand_stay_so_in_what_to_do(plan):
    _, printed, _ = plan("--checkpoint", "mini", "--container", "650MB", "--precision", "int8", "--offload")
    assert len(rows_of(printed)) == 2 and all(name.endswith("streamed") for name in rows_of(printed))
    assert printed.endswith(" --offload\n")


MEASURED = """
import json, sys
import zsc_utils.__main__
from zsc_utils import ZeroShotClassifier
classify = ZeroShotClassifier(sys.argv[1], **json.loads(sys.argv[2]))
classify(["央行下调利率" * n for n in range(10, 19)], ["财经", "体育", "军事", "旅游", "教育"])  # over 4,096 tokens
print(classify.plan.whole)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("precision, streamed", [("fp32", False), ("int8", True)])
def test_a_fresh_process_takes_no_more_than_its_way(exports, precision, streamed):
    """The whole process; and not so much less that containers would be refused that work."""
    words = [sys.executable, "-c", MEASURED, exports[precision], json.dumps({"offload": streamed})]
    whole = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    (found,) = (each for each in _ways.of_export(read_export(exports[precision]), streamed))
    print(f"{found}: {whole / MB:.1f} of {found.whole() / MB:.1f} MB")
    assert 0.6 * found.whole() < whole <= found.whole()


def test_lossy_ways_are_taken_if_allowed_or_chosen_by_hand(plan):
    for option in (["--allow-lossy"], ["--precision", "int8"]):
        _, printed, _ = plan("--checkpoint", "mini", "--container", "1GB", *option)
        assert "the fastest that fits is without torch, int8, layers in memory" in printed


def test_of_an_export_there_are_its_two_ways_and_torch_is_not_loaded(exports, plan):
    _, printed, _ = plan("--checkpoint", exports["int8"], "--container", "300MB")
    assert list(rows_of(printed)) == ["without torch, int8, layers in memory", "without torch, int8, layers streamed"]
    assert {scores for _, _, scores, _ in rows_of(printed).values()} == {"exact"}  # it is int8 already
    assert "layers in memory: zsc classify FILE" in printed and "zsc export" not in printed
    script = "import sys; from zsc_utils.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for options in (["--container", "300MB"], ["--engines"]):
        words = ["plan", "--checkpoint", exports["int8"], *options]
        assert subprocess.run([sys.executable, "-c", script, *words], capture_output=True).returncode == 0


def test_without_a_limit_the_table_comes_below_the_plan(plan):
    _, before, _ = plan("--checkpoint", "mini", "--budget", "100MB")
    _, printed, _ = plan("--checkpoint", "mini", "--budget", "100MB", "--engines")
    assert printed.startswith(f"{before}\nmini with its fastest settings")
    assert len(rows_of(printed)) == 8 and {fits for *_, fits in rows_of(printed).values()} == {""}
    assert not rows_of(before)


def test_the_limit_of_the_container_is_taken_where_no_size_is_given(plan, monkeypatch):
    monkeypatch.setattr(_checkpoint_commands, "memory_limit", lambda: 200 * MB)
    for size in ([], ["container"]):
        assert plan("--checkpoint", "mini", "--container", *size) == plan(
            "--checkpoint", "mini", "--container", "200MB"
        )


@pytest.mark.parametrize("options, message", [
    (["--container", "200MB", "--budget", "9MB"], "--container limits the whole process: leave out --budget"),
    (["--container", "200MB", "--length", "9"], "leave out --length"),
    (["--container", "much"], "size 'much' is not a size"), (["--container"], "nothing limits the memory"),
    (["--container", "50MB"], "'mini' in 50.0 MB: no way fits, the smallest takes"),
    (["--container", "145MB"], "no way that keeps the scores fits, the smallest takes"),
    (["--container", "145MB"], "With --allow-lossy the fastest is without torch, int8, layers streamed: zsc export"),
])  # fmt: skip
def test_a_container_that_cannot_be_planned_for(plan, monkeypatch, options, message):
    monkeypatch.setattr(_checkpoint_commands, "memory_limit", lambda: None)
    status, _, told = plan("--checkpoint", "mini", *options)
    assert status == 2 and told.startswith("error: ") and message in told and told.count("\n") == 1


# -------------------------------------------------------------------------------------------------------------- refusal


def test_a_refusal_names_the_exports_that_fit_where_torch_does_not(libraries, monkeypatch):
    monkeypatch.setattr(_container, "memory_left", lambda: 30 * MB)  # of a container of 420 MB
    exports = [way for way in planning.ways("mini").ways if not way.torch]
    least = {kind: min(way.whole(0) for way in exports if way.precision == kind) / MB for kind in ("fp32", "int8")}
    with pytest.raises(ValueError, match="too small for 'mini'") as error:
        zsc.ZeroShotClassifier("mini", memory_budget="container")
    assert "This process held 390.0 MB before that, with torch. Exported with zsc_utils.export" in str(error.value)
    found = re.search(
        r"takes from ([\d.]+) MB in fp32 and ([\d.]+) MB in int8, which changes scores:", str(error.value)
    )
    assert [float(size) for size in found.groups()] == pytest.approx(list(least.values()), abs=0.1)
    with pytest.raises(ValueError, match=r"takes from [\d.]+ MB in int8, which changes scores:"):
        zsc.ZeroShotClassifier("mini", memory_budget="1MB", precision="int8")


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"attention": "sliding"}])
def test_a_refusal_names_no_export_that_cannot_be_made_or_does_not_fit(libraries, monkeypatch, options):
    with pytest.raises(ValueError, match="too small") as error:
        zsc.ZeroShotClassifier("mini", memory_budget="1MB", **options)
    assert "xport" not in str(error.value)
    monkeypatch.setattr(planning, "resident", lambda pid: {"VmRSS": 50 * MB, "VmHWM": 50 * MB})
    with pytest.raises(ValueError, match="too small") as error:
        zsc.ZeroShotClassifier("mini", memory_budget="1MB")
    assert "xport" not in str(error.value)
