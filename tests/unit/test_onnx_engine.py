"""Exports give torch's answers without torch, keep their budgets, and say what is broken."""

import copy
import json
import math
import mmap
import os
import pickle
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from oracle import ORACLE
from results import same
from tokenizers import Tokenizer
from toys import draw

import zsc_utils as zsc
from zsc_utils import _process, memory, onnx_engine, onnx_plan
from zsc_utils._exports import MappedWeights, read_export
from zsc_utils._products import activation_range
from zsc_utils.batching import Pairs
from zsc_utils.onnx_engine import OnnxEngine

TEXTS = ["央行下调利率", "主队三比一获胜，球迷庆祝到深夜", "房价又涨了", "新机发布" * 60]
LABELS = ["财经", "体育", "房产", "科技"]
# of the largest logit: in int8, a last place of a norm moves an activation by a whole step, and that adds up
WITHIN = {"fp32": 1e-5, "int8": 0.15}
PAIRS = [(text, label) for text in TEXTS for label in LABELS]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def folder(precision, oracle, tmp_path_factory):
    return zsc.export(oracle, tmp_path_factory.mktemp("exports") / precision, precision)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of an export that a test may damage."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# ------------------------------------------------------------------------------------------------------------- answers


def test_the_logits_are_those_of_torch(folder, precision, oracle):
    of_torch = zsc.ZeroShotClassifier(oracle, precision=precision).logits(PAIRS)
    without = zsc.ZeroShotClassifier(folder).logits(PAIRS)
    assert np.abs(of_torch).max() > 0.5
    assert np.abs(without - of_torch).max() < WITHIN[precision] * np.abs(of_torch).max()


def padded(pairs):
    """{input: array (pairs, length)} of the whole graph."""
    shape = len(pairs), max(pairs.lengths)
    inputs = {name: np.zeros(shape, np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for row in range(len(pairs)):
        ids, types, _ = pairs.batch([row])
        for name, values in zip(inputs, (ids, types, 1)):
            inputs[name][row, : len(ids)] = values
    return inputs


def test_every_weight_is_used(oracle, tmp_path):
    """The small checkpoint has no biases, and norms that change nothing; here all of them are drawn."""
    model = copy.deepcopy(oracle.model)
    draw(model)
    checkpoint = replace(oracle, model=model)
    of_torch = zsc.ZeroShotClassifier(checkpoint).logits(PAIRS)
    classify = zsc.ZeroShotClassifier(zsc.export(checkpoint, tmp_path / "drawn"))
    pairs = Pairs(classify.engine.tokenizer, PAIRS)
    whole = onnxruntime.InferenceSession(tmp_path / "drawn" / "model.onnx").run(None, padded(pairs))[0]
    for found in (classify.logits(PAIRS), whole[pairs.position]):
        assert np.abs(found - of_torch).max() < 1e-5 * np.abs(of_torch).max()
    int8 = zsc.ZeroShotClassifier(zsc.export(checkpoint, tmp_path / "int8", "int8")).logits(PAIRS)
    assert np.abs(int8 - of_torch).max() < WITHIN["int8"] * np.abs(of_torch).max()


@pytest.mark.parametrize("precision", ["int8"], indirect=True)
def test_a_product_in_int8_is_that_of_torch(folder, oracle):
    engine, model = OnnxEngine(folder), zsc.quantization.quantize(oracle, "int8").model
    x = np.random.default_rng(0).standard_normal((70, model.config.hidden_size)).astype(np.float32)
    x[10:20] *= 1e-6  # a token has its own scale, however small it is
    x[20] = 0
    feeds = {"x": x, "levels": np.array(activation_range(), np.float32)}
    attention = model.bert.encoder.layer[1].attention.self
    for name, found in zip(onnx_engine.PROJECT, engine.layer(1).project.run(None, feeds)):
        of_torch = getattr(attention, name)(torch.from_numpy(x)).numpy()
        assert found == pytest.approx(of_torch, rel=1e-4, abs=1e-10)
        assert 0 < np.abs(found[10:20]).max() < 1e-4 and not found[20].any()


@pytest.mark.parametrize("precision", ["fp32"], indirect=True)
def test_every_score_is_that_of_modelscope(folder, golden):
    classify = zsc.ZeroShotClassifier(folder)
    for case in golden["cases"]:
        result = classify(case["text"], golden["labels"], case["template"], case["multi_label"])
        assert dict(zip(result["labels"], result["scores"])) == pytest.approx(
            dict(zip(case["labels"], case["scores"])), abs=1e-5
        )


def test_the_whole_graph_gives_the_same_logits_padded(folder, precision):
    """Any tool that reads ONNX can run it; it finds the two classes in the file's metadata."""
    classify = zsc.ZeroShotClassifier(folder)
    pairs = Pairs(classify.engine.tokenizer, PAIRS)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    found = session.run(["logits"], padded(pairs))[0][pairs.position]
    of_steps = classify.logits(PAIRS)
    assert np.abs(found - of_steps).max() < WITHIN[precision] * np.abs(of_steps).max()
    stated = session.get_modelmeta().custom_metadata_map
    assert (stated["entailment_id"], stated["contradiction_id"]) == ("0", "2")


def test_streamed_layers_and_blocks_change_no_bit(folder):
    loaded, streamed = zsc.ZeroShotClassifier(folder), zsc.ZeroShotClassifier(folder, offload=True)
    assert streamed.plan.setting.block and not loaded.plan.setting.block
    assert (loaded.logits(PAIRS) == streamed.logits(PAIRS)).all()


def test_small_batches_give_the_same_scores(folder):
    few = zsc.ZeroShotClassifier(folder, max_tokens=64)
    assert same(few(TEXTS, LABELS), zsc.ZeroShotClassifier(folder)(TEXTS, LABELS))


def test_an_int8_export_has_the_weights_of_quantize(oracle, tmp_path):
    """Made from fp32 or from an int8 checkpoint: the files are the same."""
    folders = [zsc.export(each, tmp_path / name, "int8") for name, each in
               (("once", oracle), ("twice", zsc.quantization.quantize(oracle, "int8")))]  # fmt: skip
    first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first == second


@given(some.lists(some.tuples(some.integers(1, 40), some.integers(1, 600)), max_size=5), some.booleans())
def test_pieces_hold_each_token_once_and_are_small(groups, first_only):
    asked, numbers = [], []
    for piece in onnx_plan.pieces(groups, first_only):
        starts = range(piece.tokens.start, piece.tokens.stop, piece.length)
        assert len(starts) == piece.pairs == piece.numbers.stop - piece.numbers.start
        asking = range(piece.asking.start, piece.asking.stop)
        asked += [start + token for start in starts for token in asking]
        numbers += range(piece.numbers.start, piece.numbers.stop) if piece.asking.start == 0 else []
        assert piece.pairs == 1 or piece.pairs * piece.length <= onnx_plan.ATTENTION_TOKENS
        assert piece.pairs * len(asking) * piece.length <= onnx_plan.ATTENTION_SCORES
    lengths = [length for pairs, length in groups for _ in range(pairs)]
    firsts = [sum(lengths[:number]) for number in range(len(lengths))]
    assert asked == (firsts if first_only else list(range(sum(lengths))))
    assert numbers == list(range(len(lengths)))


@pytest.mark.parametrize("precision", ["int8"], indirect=True)
def test_products_that_overflow_are_found_and_avoided(folder, monkeypatch):
    """A processor that adds two 8-bit products in 16 bits saturates at 127, and is exact at 63."""

    class Saturating:
        def __init__(self, *given):
            self.project = probe(*given)

        def run(self, names, feeds):
            exact = self.project.run(names, feeds)
            return [np.minimum(each, 0.9 * each.max()) for each in exact] if feeds["levels"] > 100 else exact

    engine, probe = OnnxEngine(folder), onnx_engine.probe
    graph, size = engine.graphs["project"], engine.checkpoint.config["hidden_size"]
    assert onnx_engine.largest_level(graph, size) == engine.levels["levels"]
    monkeypatch.setattr(onnx_engine, "probe", Saturating)
    assert onnx_engine.largest_level(graph, size) == 63


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda classify: pickle.loads(pickle.dumps(classify))])
def test_a_copy_answers_the_same(folder, copied):
    classify = zsc.ZeroShotClassifier(folder, offload=True, max_tokens=100)
    other = copied(classify)
    assert other.plan.setting == classify.plan.setting
    assert other(TEXTS, LABELS) == classify(TEXTS, LABELS)


# -------------------------------------------------------------------------------------------------------------- memory


def grown(folder, options):
    classify = zsc.ZeroShotClassifier(folder, **options)
    classify(TEXTS * 4, LABELS)
    return classify.plan.predicted, classify.plan.measured, f"{classify.plan}\n{_process.resident('self')}"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_budget_is_kept(precision, tmp_path):
    """With the smallest budget, which a refusal names, and without one: no more than predicted is measured."""
    folder = zsc.export("mini", tmp_path / "mini", precision)
    with pytest.raises(ValueError, match=r"the smallest that works is [\d.]+ MB") as refused:
        zsc.ZeroShotClassifier(folder, memory_budget="1MB")
    smallest = re.search(r"works is ([\d.]+) MB", str(refused.value))[1] + "MB"
    for options in ({}, {"memory_budget": smallest}):
        peak = memory.process_peak(grown, folder, options)
        predicted, measured, shown = peak.result
        assert 0.3 * predicted < measured <= predicted, f"{peak}\n{shown}"
    assert zsc.ZeroShotClassifier(folder, memory_budget=smallest).plan.setting.block


def test_the_bytes_of_weights_are_those_in_the_file_and_matrices_are_packed(folder, precision):
    entries = MappedWeights(folder / "model.safetensors").entries
    stored = {name: end - start for name, (_, _, start, end) in entries.items() if name != "embeddings.words"}
    matrices = {
        name: (dtype, shape)
        for name, (dtype, shape, *_) in entries.items()
        if len(shape) == 2 and not name.startswith("embeddings.")
    }
    sums = 4 if precision == "int8" else 0  # of each column
    multiples = {name: [(size + 63) // 64 * 64 for size in shape] for name, (_, shape) in matrices.items()}
    packed = {name: dtype.itemsize * math.prod(multiples[name]) for name, (dtype, _) in matrices.items()}
    packed = stored | {name: size + sums * multiples[name][1] for name, size in packed.items() if name != "classifier"}
    packed["classifier"] = 4 * math.prod(multiples["classifier"])  # fp32 in both
    one_layer = sum(size for name, size in packed.items() if name.startswith("layers.0."))
    largest, layers = max(stored[name] for name in matrices), read_export(folder).config["num_hidden_layers"]
    assert layers == 2
    loaded, streamed = (onnx_plan.weight_bytes(read_export(folder), streamed) for streamed in (False, True))
    assert loaded == sum(packed.values()) + largest
    assert streamed == loaded - one_layer


def test_no_session_of_a_streamed_layer_is_left(folder):
    """A layer's sessions are closed before the next layer's are made."""
    classify, made = zsc.ZeroShotClassifier(folder, offload=True), []
    layer = classify.engine.layer

    def watched(number):
        assert not any(session() for session in made)
        found = layer(number)
        made.extend(weakref.ref(session) for session in found)
        return found

    classify.engine.layer = watched
    classify(TEXTS, LABELS)
    assert len(made) == 4 and not any(session() for session in made)


def test_layers_have_run_before_the_first_batch(folder, monkeypatch):
    """Else what their sessions keep would lie between the batch's activations, and keep the heap from shrinking."""

    class Counted(onnxruntime.InferenceSession):
        def run(self, *given):
            runs.append(self)
            return super().run(*given)

    runs = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    engine = OnnxEngine(folder)
    assert len(engine.loaded) == 2
    assert all(runs.count(session) == 1 for layer in engine.loaded for session in layer)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_what_a_tokenizer_takes_is_in_the_bill(folder):
    """A tokenizer of a real size, that of mini."""
    file = Path(zsc.__file__).parent / "data" / "mini" / "tokenizer.json"
    grown = memory.process_peak(lambda: len(Tokenizer.from_file(str(file)).get_vocab())).anonymous
    assert 0.5 * grown < onnx_plan.TOKENIZER_BYTES * file.stat().st_size < 3 * grown


def test_a_budget_of_just_the_predicted_bytes_is_enough(folder):
    export = read_export(folder)
    for offload in (False, True):
        made = onnx_plan.make(export, offload=offload)
        assert onnx_plan.make(export, made.predicted, offload=offload).setting == made.setting
        try:
            less = onnx_plan.make(export, made.predicted - 1, offload=offload)
        except ValueError:
            continue  # no setting takes less
        assert less.setting != made.setting and less.predicted < made.predicted


def test_threads_are_those_that_the_container_allows(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    engine = OnnxEngine(folder)
    assert engine.plan.setting.threads == 3 and "3 threads" in str(engine.plan)
    few, many = (onnx_plan.activation_bytes(engine.checkpoint, replace(engine.plan.setting, threads=n)) for n in (1, 3))
    assert many > few
    for senseless in ("0", "many", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", senseless)
        assert onnx_plan.threads() == len(os.sched_getaffinity(0))


def test_advice_is_about_the_pages_of_the_tensors_only(folder):
    weights, advised = MappedWeights(folder / "model.safetensors"), []
    whole, weights.bytes = weights.bytes, SimpleNamespace(madvise=lambda *asked: advised.append(asked))
    weights.expect(["layers.1.widen"])
    ((advice, first, size),) = advised
    _, _, start, end = weights.entries["layers.1.widen"]
    start, end = weights.start + start, weights.start + end
    assert advice == mmap.MADV_WILLNEED and first % mmap.PAGESIZE == 0 and first + size == end
    assert start - mmap.PAGESIZE < first <= start and len(whole) >= end


def test_a_batch_too_large_for_the_memory_is_halved_and_the_answers_are_the_same(folder, monkeypatch):
    classify, attention = zsc.ZeroShotClassifier(folder), OnnxEngine.attention
    expected = classify(TEXTS, LABELS)

    def narrow(self, x, *others, **options):
        if len(x) > 60:
            raise onnx_engine.RuntimeException("[ONNXRuntimeError] : 6 : bad allocation")
        return attention(self, x, *others, **options)

    monkeypatch.setattr(OnnxEngine, "attention", narrow)
    short = slice(0, 3)
    assert same(classify(TEXTS[short], LABELS), expected[short])
    assert classify.budget.max_tokens <= 60
    with pytest.raises(MemoryError, match="does not fit into memory, even alone"):
        classify(TEXTS[3], LABELS)


@pytest.mark.parametrize("words, kind", [("bad allocation", MemoryError), ("no such operator", zsc.CheckpointError)])
def test_a_session_says_whether_memory_or_the_file_is_the_reason(folder, monkeypatch, words, kind):
    engine = OnnxEngine(folder, offload=True)

    def refuse(*_, **__):
        raise onnx_engine.RuntimeException(words)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(kind, match=words):
        engine.layer(0)


def test_another_error_is_not_taken_for_a_lack_of_memory(folder, monkeypatch):
    def broken(*_, **__):
        raise onnx_engine.RuntimeException("an operator failed")

    monkeypatch.setattr(OnnxEngine, "attention", broken)
    with pytest.raises(onnx_engine.RuntimeException, match="an operator failed"):
        zsc.ZeroShotClassifier(folder)(TEXTS, LABELS)


# --------------------------------------------------------------------------------------------------------------- doors


@pytest.mark.parametrize(
    "options, words",
    [
        ({"precision": "bf16"}, "precision 'bf16': .* was exported in"),
        ({"attention": "sliding"}, "attention 'sliding': exports have full attention"),
        ({"offload": "yes"}, "offload 'yes'"),
        ({"memory_budget": "1MB"}, "too small for .*the smallest that works is"),
    ],
)
def test_a_lever_that_exports_do_not_have_is_refused(folder, options, words):
    with pytest.raises(ValueError, match=words):
        zsc.ZeroShotClassifier(folder, **options)


def without_key(folder):
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"hidden_size": "wide"}))


def negative(folder):
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"num_hidden_layers": -1}))


def of_before(folder):
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"zsc_format": stated["zsc_format"].replace("v2", "v1")}))


def other_shape(folder):
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"vocab_size": stated["vocab_size"] + 1}))


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    "damage, words",
    [
        (without_key, "config.json is broken: hidden_size"),
        (of_before, "exported by an earlier version of zsc_utils .*: export the checkpoint anew"),
        (negative, "config.json is broken: num_hidden_layers"),
        (other_shape, "embeddings.words.* of another shape"),
        (lambda folder: cut_short(folder / "model.safetensors"), "broken or cut short"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 99), "broken or cut short"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "broken or cut short"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors cannot be read"),
        (lambda folder: cut_short(folder / "finish.onnx"), "finish.onnx is missing or broken"),
        (lambda folder: (folder / "attend.onnx").unlink(), "attend.onnx is missing or broken"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json is missing or broken"),
    ],
)
def test_a_broken_folder_is_refused_with_the_reason(damaged, damage, words):
    damage(damaged)
    with pytest.raises(zsc.CheckpointError, match=words):
        zsc.ZeroShotClassifier(damaged)


def test_a_file_that_changes_under_the_engine_is_noticed(damaged):
    classify = zsc.ZeroShotClassifier(damaged)
    classify(TEXTS, LABELS)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(zsc.CheckpointError, match="was changed or deleted while it is in use"):
        classify(TEXTS, LABELS)


def test_an_export_is_no_checkpoint_for_torch(folder):
    with pytest.raises(zsc.CheckpointError, match="is an export, which runs without torch"):
        zsc.load(folder)


def test_rows_are_read_as_they_are_asked_for(folder):
    weights = MappedWeights(folder / "model.safetensors")
    numbers = np.array([7, 2, 7, 0])
    assert (weights.rows("embeddings.words", numbers) == weights.array("embeddings.words")[numbers]).all()
    assert read_export(folder).stored_bytes == (folder / "model.safetensors").stat().st_size


def test_a_system_without_its_calls_gives_the_same(folder, monkeypatch):
    """Windows has neither pread nor advice about pages nor a list of this process's processors."""
    expected = zsc.ZeroShotClassifier(folder, offload=True)(TEXTS, LABELS)
    monkeypatch.delattr("os.pread")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("mmap.MADV_WILLNEED")
    assert zsc.ZeroShotClassifier(folder, offload=True)(TEXTS, LABELS) == expected


def test_a_folder_in_the_home_directory_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert zsc.ZeroShotClassifier(f"~/{folder.name}")(TEXTS, LABELS) == zsc.ZeroShotClassifier(folder)(TEXTS, LABELS)


# -------------------------------------------------------------------------------------------------------------- export


def refused(checkpoint, folder, words, precision="fp32"):
    with pytest.raises(ValueError, match=words):
        zsc.export(checkpoint, folder, precision)


def test_export_refuses_what_it_cannot_write(oracle, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused(oracle, tmp_path / "full", "is there already and not empty")
    refused(oracle, tmp_path / "new", "precision 'bf16': an export is in fp32 or int8", "bf16")
    refused(zsc.quantization.quantize(oracle, "int8"), tmp_path / "new", "is in int8, which has fewer bits")
    refused(zsc.attention.use(oracle, "sliding"), tmp_path / "new", "has sliding attention")
    refused(zsc.offloading.stream_layers(ORACLE), tmp_path / "new", "not all in memory")
    config = copy.deepcopy(oracle.model.config)
    config.hidden_act = "relu"
    other = copy.copy(oracle.model)
    other.config = config
    refused(zsc.Checkpoint(other, oracle.tokenizer, "relu", 0, 2, oracle.folder), tmp_path / "new", "activation 'relu'")
    assert [file.name for file in tmp_path.iterdir()] == ["full"]


def test_an_export_that_fails_leaves_nothing(oracle, tmp_path, monkeypatch):
    from zsc_utils import onnx_export

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_export, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        zsc.export(oracle, tmp_path / "new")
    assert not list(tmp_path.iterdir())


WITHOUT = """
import sys
from pathlib import Path
heavy = {"torch", "transformers", "safetensors", "onnx", "cloudpickle", "platformdirs", "modelscope", "accelerate"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def lean(code, *arguments):
    """What a Python prints in which only the lean dependencies can be imported."""
    command = [sys.executable, "-c", WITHOUT + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def test_no_heavy_library_is_needed(folder, tmp_path):
    """By call and by command; what needs torch says how to get it."""
    code = "import zsc_utils as zsc; print(zsc.ZeroShotClassifier(sys.argv[1])('央行下调利率', ['财经', '体育']))"
    done = lean(code, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{zsc.ZeroShotClassifier(folder)('央行下调利率', ['财经', '体育'])}\n"
    texts = tmp_path / "texts.txt"
    texts.write_text("央行下调利率\n", encoding="utf-8")
    command = "from zsc_utils.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = lean(command, "classify", texts, "--labels", "财经,体育", "--checkpoint", folder, "--quiet")
    assert done.returncode == 0 and json.loads(done.stdout)["sequence"] == "央行下调利率", done.stderr
    done = lean(command, "plan", "--checkpoint", folder)
    assert done.returncode == 0 and "without torch" in done.stdout, done.stderr
    done = lean(command, "classify", texts, "--labels", "财经,体育", "--checkpoint", "mini")
    assert done.returncode == 2 and "pip install 'zsc-utils[torch]'" in done.stderr
    done = lean("import zsc_utils; zsc_utils.load('mini')")
    assert "pip install 'zsc-utils[torch]'" in done.stderr.splitlines()[-1]
