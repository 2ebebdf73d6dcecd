"""Layers that are read while they are used: the same logits, one layer in memory, each read once, and no debris."""

import dataclasses
import errno
import gc
import json
import os
import resource
import shutil
import threading
import time

import cloudpickle
import pytest
import torch
from heap import HOLES, anonymous, heap_with_holes
from oracle import ORACLE
from safetensors.torch import load_file, save_file
from toys import toy_bert

import zsc_utils as zsc
from zsc_utils import _weights, attention, formats, inference, memory, offloading, quantization, samples
from zsc_utils import checkpoint as door
from zsc_utils._products import activation_range, int8_engine, right_range
from zsc_utils.batching import Pairs, token_budget_batches
from zsc_utils.offloading import stream_layers

TEXTS = ["央行宣布下调利率", "去看海", "国足客场一比零战胜对手，提前出线", "A股" * 40, "体育财经" * 30]
LABELS = ["财经", "体育", "军事"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}


def toy(oracle, layers=3, hidden=64, wide=160, heads=4, **settings):
    """A Checkpoint with the oracle's tokenizer and drawn weights, each of which matters."""
    model = toy_bert(
        drawn=True, vocab_size=len(oracle.tokenizer), hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=wide, **settings,
    )  # fmt: skip
    return dataclasses.replace(oracle, model=model, name="toy")


@pytest.fixture(scope="module")
def folders(oracle, tmp_path_factory):
    """{precision: folder} of one model with three layers."""
    whole, place = toy(oracle), tmp_path_factory.mktemp("stored")
    made = {precision: quantization.quantize(whole, precision) for precision in quantization.PRECISIONS}
    return {p: quantization.save(checkpoint, place / p) for p, checkpoint in ({"fp32": whole} | made).items()}


@pytest.fixture
def own(folders, tmp_path, empty_cache):
    """A copy of the fp32 folder that a test may damage, and a cache of its own."""
    return shutil.copytree(folders["fp32"], tmp_path / "own")


def batches_of(checkpoint, max_tokens=128, texts=TEXTS):
    pairs = Pairs(checkpoint.tokenizer, [(text, label) for text in texts for label in LABELS])
    return [pairs.tensors(numbers) for numbers in token_budget_batches(pairs.lengths, max_tokens, padded=False)]


def streamed_logits(checkpoint, max_tokens=128, texts=TEXTS):
    return torch.cat(offloading.block_logits(checkpoint.model, batches_of(checkpoint, max_tokens, texts)))


def loaded_logits(checkpoint, max_tokens=128, texts=TEXTS):
    return torch.cat([inference.logits(checkpoint.model, *b) for b in batches_of(checkpoint, max_tokens, texts)])


def scores(results):
    return [dict(zip(result["labels"], result["scores"])) for result in results]


# ------------------------------------------------------------------------------------------------------ same logits


@pytest.mark.parametrize("kind", ["sdpa", "eager", "sliding"])
@pytest.mark.parametrize("precision", DTYPES)
def test_logits_are_those_of_the_loaded_model_bit_for_bit(folders, precision, kind):
    loaded, streamed = zsc.load(folders[precision]), stream_layers(folders[precision])
    if kind != "sdpa":
        loaded, streamed = (attention.use(checkpoint, kind, window=5) for checkpoint in (loaded, streamed))
    expected = loaded_logits(loaded)
    assert expected.dtype == streamed_logits(streamed).dtype and expected.std() > 0.01
    assert torch.equal(streamed_logits(streamed), expected)
    assert torch.equal(streamed_logits(streamed, 700), loaded_logits(loaded, 700))  # the block is one batch


def test_attention_can_be_chosen_at_the_door_and_lies_with_each_checkpoint(folders):
    eager = stream_layers(folders["fp32"], attention="eager")
    sliding = attention.use(eager, "sliding", window=3)  # shares the layers' places
    expected = loaded_logits(zsc.load(folders["fp32"], attention="eager"))
    assert torch.equal(streamed_logits(eager), expected)
    assert (streamed_logits(sliding) - expected).abs().max() > 1e-3
    assert torch.equal(streamed_logits(eager), expected)


def test_folders_of_fewer_or_more_bits_are_read_in_the_dtype_asked_for(folders, empty_cache):
    int8 = stream_layers(folders["fp32"], dtype=torch.int8)
    assert torch.equal(streamed_logits(int8), loaded_logits(zsc.load(folders["fp32"], dtype=torch.int8)))
    wide = streamed_logits(stream_layers(folders["fp16"], dtype=torch.float32))
    assert wide.dtype == torch.float32 and torch.allclose(wide, loaded_logits(zsc.load(folders["fp32"])), atol=0.02)
    narrow = stream_layers(folders["fp32"], dtype=torch.bfloat16)
    assert torch.equal(streamed_logits(narrow), loaded_logits(zsc.load(folders["bf16"])))


def test_mini_and_modelscope_s_own_folder_stream_as_they_load(mini, oracle, empty_cache):
    for name, loaded in [("mini", mini), (ORACLE, oracle)]:
        assert torch.equal(streamed_logits(stream_layers(name)), loaded_logits(loaded))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("waiting", [0, 40_000, "1MB"])
def test_where_states_wait_changes_nothing(folders, precision, waiting):
    """Each of the batches of 128 tokens has states of 32 kB, or 16."""
    streamed = stream_layers(folders[precision], waiting=waiting)
    together = batches_of(streamed)
    states = offloading.StateBuffer([inference.filled(len(ids)) for ids, *_ in together], streamed.model)
    assert len(together) > 4 and bool(states.filed) == (waiting != "1MB") and bool(states.held) == (waiting != 0)
    assert torch.equal(streamed_logits(streamed), loaded_logits(zsc.load(folders[precision])))


def test_a_model_with_one_layer_streams(oracle, tmp_path):
    folder = quantization.save(toy(oracle, layers=1), tmp_path / "one")
    streamed = stream_layers(folder)
    for _ in range(2):
        assert torch.equal(streamed_logits(streamed), loaded_logits(zsc.load(folder)))


def test_the_model_can_be_called_with_padding_at_the_end_only(folders):
    loaded, streamed = zsc.load(folders["fp32"]), stream_layers(folders["fp32"])
    tokens = loaded.tokenizer(TEXTS, LABELS[:1] * len(TEXTS), padding=True, return_tensors="pt")
    assert not tokens["attention_mask"].all()
    with torch.inference_mode():
        expected = loaded.model(**tokens).logits
    assert torch.allclose(streamed.model(**tokens).logits, expected, atol=1e-5)
    assert torch.allclose(attention.chunk_feed_forward(streamed, 64).model(**tokens).logits, expected, atol=1e-5)
    ids = tokens["input_ids"][-1:, :9]
    with torch.inference_mode():
        assert torch.allclose(streamed.model(ids).logits, loaded.model(ids).logits, atol=1e-5)
    with pytest.raises(ValueError, match="padding_side='right'"):
        streamed.model(**{name: tensor.flip(1) for name, tensor in tokens.items()})


@pytest.mark.parametrize("options", [{}, {"max_tokens": 64}])
def test_a_classifier_gives_the_scores_of_the_loaded_checkpoint(folders, options):
    texts = [text + LABELS[number % 3] * number for number, text in enumerate(TEXTS * 4)]
    expected = scores(zsc.ZeroShotClassifier(folders["fp32"], **options)(texts, LABELS))
    for block in (None, 64, 300):
        classify = zsc.ZeroShotClassifier(stream_layers(folders["fp32"], block=block), **options)
        assert classify.budget.block == (block or offloading.BLOCK_TOKENS["cpu"])
        for found, wanted in zip(scores(classify(texts, LABELS)), expected):
            assert found == pytest.approx(wanted, abs=1e-6)


def test_two_threads_may_share_a_streamed_checkpoint(folders):
    classify = zsc.ZeroShotClassifier(stream_layers(folders["fp32"], block=200, waiting=40_000), max_tokens=64)
    parts, found = [TEXTS[:3], TEXTS[3:]], {}
    expected = [scores(zsc.ZeroShotClassifier(folders["fp32"])(part, LABELS)) for part in parts]

    def work(number):
        found[number] = [scores(classify(parts[number], LABELS)) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, wanted in enumerate(expected):
        for results in found[number]:
            assert all(one == pytest.approx(other, abs=1e-6) for one, other in zip(results, wanted, strict=True))


def test_a_streamed_checkpoint_can_be_sent_to_another_process(folders):
    streamed = stream_layers(folders["int8"], block=100, waiting=0)
    expected = streamed_logits(streamed)
    again = cloudpickle.loads(cloudpickle.dumps(streamed))
    assert torch.equal(streamed_logits(again), expected) and again.model.block == 100
    texts, labels = TEXTS[:2], LABELS
    peak = memory.process_peak(lambda: zsc.ZeroShotClassifier(streamed)(texts, labels))
    assert scores(peak.result) == [
        pytest.approx(one) for one in scores(zsc.ZeroShotClassifier(streamed)(texts, labels))
    ]


# ----------------------------------------------------------------------------------- one layer in memory, read ahead


def slowed(function):
    def slow(*arguments):
        time.sleep(0.02)
        return function(*arguments)

    return slow


def test_each_part_is_read_once_a_block_and_while_the_one_before_computes(folders, monkeypatch):
    streamed = stream_layers(folders["fp32"])
    for name in ("attention_part", "feed_forward_part"):
        monkeypatch.setattr(inference, name, slowed(getattr(inference, name)))
    with offloading.spans(streamed) as spans:
        for _ in range(2):
            streamed_logits(streamed, 300)
        streamed.model.prefetcher.coming[1].result()
    assert len(batches_of(streamed, 300)) > 1
    reads, computes = ([s for s in spans if s.what == what] for what in ("read", "compute"))
    parts = [(layer, part) for layer in range(3) for part in offloading.PARTS]
    assert [(s.layer, s.part) for s in computes] == parts * 2
    assert [(s.layer, s.part) for s in reads] == [*parts, *parts, parts[0]]  # and the first of a block to come
    for compute, read in zip(computes, reads[1:]):
        assert compute.start <= read.start + 0.01 and read.start < compute.stop
    assert streamed.model.prefetcher.spans is None


@pytest.mark.parametrize("precision", DTYPES)
def test_no_more_than_one_layer_is_in_memory(folders, precision, monkeypatch):
    streamed, seen, part = stream_layers(folders[precision]), [], inference.feed_forward_part
    prefetcher = streamed.model.prefetcher
    entries = [s for s in prefetcher.file.entries if s.startswith("bert.encoder.layer.1.")]
    places = [tensor for paths in prefetcher.places.values() for own in paths.values() for tensor in own.values()]
    assert sum(tensor.nbytes for tensor in places) == sum(prefetcher.file.read(name).nbytes for name in entries)

    def noted(layer, *arguments):
        seen.append({name.partition(".")[0] for name, t in layer.named_parameters() if not t.is_meta})
        return part(layer, *arguments)

    monkeypatch.setattr(inference, "feed_forward_part", noted)
    streamed_logits(streamed)
    assert {"intermediate", "output"} >= set.union(*seen) and not any("attention" in names for names in seen)
    layers = [*streamed.model.bert.encoder.layer, prefetcher.layer]
    assert len(layers) == 4 and all(t.is_meta for layer in layers for t in layer.parameters())
    assert not [b for layer in layers for b in layer.buffers()]


def trimmed_by_a_streamed_pass(folder):
    """Bytes that a batch of a streamed model gives back of a heap with holes."""
    streamed = stream_layers(folder)
    with heap_with_holes() as held:
        streamed_logits(streamed)
        return held - anonymous()


def test_a_streamed_pass_gives_holes_in_the_heap_back(folders):
    """Or a process outgrows its budget: how much of the heap freed tensors leave unusable differs from run to run."""
    assert memory.process_peak(trimmed_by_a_streamed_pass, folders["fp32"]).result > HOLES / 2


def test_of_the_words_only_those_present_are_read(folders, monkeypatch):
    streamed, asked, rows = stream_layers(folders["fp32"]), [], offloading.WeightsFile.rows
    monkeypatch.setattr(offloading.WeightsFile, "rows", lambda *a: asked.append((a[2], found := rows(*a))) or found)
    ids, types, groups = batches_of(streamed, 700, TEXTS[:2])[0]
    offloading.block_logits(streamed.model, [(ids, types, groups)] * 2)
    present = sorted({0, *ids.tolist()})  # 0 fills up
    assert [numbers for numbers, _ in asked] == [present] * 2
    assert {found.nbytes for _, found in asked} == {len(present) * 64 * 4}
    assert streamed.model.bert.embeddings.word_embeddings.weight.is_meta


def test_a_checkpoint_that_is_gone_leaves_no_open_file_and_no_thread(folders):
    def left():
        gc.collect()
        maps = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        threads = [thread.name for thread in threading.enumerate()]
        return sum(str(folders["fp32"]) in name for name in maps), sum("zsc_utils" in name for name in threads)

    before = left()
    streamed = stream_layers(folders["fp32"], waiting=0)
    streamed_logits(streamed)
    assert left() == (before[0] + 1, before[1] + 1)
    del streamed
    for _ in range(100):
        if left() == before:
            break
        time.sleep(0.02)
    assert left() == before


# ------------------------------------------------------------------------------------------------------------ bytes


def measured_and_predicted(streamed, batches, chunk=256, waiting="16MB"):
    """(tensor bytes of a block, with what waits in memory, allocated before; the Footprint that is predicted)."""
    model, generator = streamed.model, torch.Generator().manual_seed(0)
    drawn = [torch.randint(1, 100, (2, sum(p * n for p, n in groups)), generator=generator) for groups in batches]
    together = [(ids, types % 2, groups) for (ids, types), groups in zip(drawn, batches)]
    held = offloading.StateBuffer([inference.filled(len(ids)) for ids, *_ in together], model).held.values()
    offloading.block_logits(model, together, chunk)
    peak = memory.tensor_peak(lambda: offloading.block_logits(model, together, chunk))
    options = {"attention": model.config._attn_implementation, "chunk": chunk, "waiting": waiting, "dtype": model.dtype}
    return peak + sum(tensor.nbytes for tensor in held), offloading.predict(model.config, batches, **options)


BLOCKS = [
    [[(2, 512)], [(4, 113), (1, 112)], [(1, 300)]],
    [[(16, 33)]] * 5,
    [[(1, 512)], [(2, 512)]],
    [[(5, 200)]],
]


@pytest.mark.parametrize(
    "kind, waiting, chunk, precision",
    [
        ("sdpa", "16MB", 64, "fp32"),
        ("sdpa", 0, 256, "fp32"),
        ("eager", 300_000, 256, "fp32"),
        ("sdpa", 200_000, 64, "bf16"),
    ],
)
def test_bytes_of_a_block_are_predicted_exactly(folders, kind, waiting, chunk, precision):
    streamed = stream_layers(folders[precision], attention=kind, waiting=waiting)
    for batches in BLOCKS:
        measured, footprint = measured_and_predicted(streamed, batches, chunk, waiting)
        assert measured == footprint.peak_activations, batches


def test_bytes_of_the_real_geometry_are_predicted_exactly(oracle, tmp_path):
    real = quantization.save(toy(oracle, layers=2, hidden=768, wide=3072, heads=12), tmp_path / "real")
    streamed = stream_layers(real)
    measured, footprint = measured_and_predicted(streamed, [[(8, 128)], [(2, 512)], [(3, 113), (3, 112)]])
    assert measured == footprint.peak_activations
    held = [t for paths in streamed.model.prefetcher.places.values() for own in paths.values() for t in own.values()]
    held += [weights for weights in streamed.model.parameters() if not weights.is_meta]
    assert footprint.weights == sum(tensor.nbytes for tensor in held)


# ----------------------------------------------------------------------------------------------------------- errors


def test_a_file_that_is_changed_or_deleted_under_a_stream_is_named(own):
    file = own / "model.safetensors"
    for spoil in (lambda: file.open("ab").write(b"x"), lambda: os.utime(file, (0, 0)), file.unlink):
        streamed, before = stream_layers(own), file.read_bytes()
        streamed_logits(streamed)
        spoil()
        with pytest.raises(zsc.CheckpointError, match=f"{file} was changed or deleted while .*: stream it anew"):
            streamed_logits(streamed)
        file.write_bytes(before)


@pytest.mark.parametrize("call", [0, 5, 25, 50])
def test_a_disk_that_fails_is_named_and_may_recover(folders, monkeypatch, call):
    """The rows of the words are read first, then tensors of layers, ahead."""
    streamed, calls, read = stream_layers(folders["fp32"]), [], os.preadv
    expected = streamed_logits(streamed)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > call:
            raise OSError(errno.EIO, "Input/output error")
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_weights.os, "preadv", failing)
        with pytest.raises(zsc.CheckpointError, match="model.safetensors cannot be read any more: .*Input/output"):
            streamed_logits(streamed)
    assert torch.equal(streamed_logits(streamed), expected)


def test_a_short_read_is_read_on(folders, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(_weights.os, "preadv", lambda f, places, at: read(f, [places[0][:1000]], at))
    assert torch.equal(streamed_logits(stream_layers(folders["fp32"])), loaded_logits(zsc.load(folders["fp32"])))


@pytest.mark.parametrize("name", ["attention_part", "feed_forward_part", "embed", "classified"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_pass_does_not_spoil_the_next(folders, monkeypatch, name, error):
    streamed, done, part = stream_layers(folders["fp32"], waiting=40_000), [], getattr(inference, name)
    expected = streamed_logits(streamed)

    def interrupted(*arguments):
        done.append(name)
        if len(done) == 3:
            raise error("stop")
        return part(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(inference, name, interrupted)
        with pytest.raises(error, match="stop"):
            streamed_logits(streamed)
    for _ in range(2):
        assert torch.equal(streamed_logits(streamed), expected)
    assert all(t.is_meta for t in streamed.model.prefetcher.layer.parameters())


def test_a_read_under_way_when_a_pass_is_interrupted_does_not_spoil_the_next(folders, monkeypatch):
    streamed, read = stream_layers(folders["fp32"]), os.preadv
    expected = streamed_logits(streamed)

    def slow(*arguments):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.003)
        return read(*arguments)

    monkeypatch.setattr(_weights.os, "preadv", slow)
    with monkeypatch.context() as patch:
        patch.setattr(inference, "feed_forward_part", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            streamed_logits(streamed)
    assert torch.equal(streamed_logits(streamed), expected)


def test_a_read_ahead_for_a_next_block_that_failed_is_tried_again(folders, monkeypatch):
    streamed, read = stream_layers(folders["fp32"]), os.preadv
    expected, prefetcher = streamed_logits(streamed), streamed.model.prefetcher
    prefetcher.coming[1].result()
    with monkeypatch.context() as patch:
        patch.setattr(_weights.os, "preadv", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "once")))
        prefetcher.coming = prefetcher.visits[0], prefetcher.reader.submit(prefetcher.read, prefetcher.visits[0])
        assert prefetcher.coming[1].exception()
    assert _weights.os.preadv is read and torch.equal(streamed_logits(streamed), expected)


MATRIX = "bert.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    "precision, change, words",
    [
        ("fp32", lambda t: t.update({MATRIX: t[MATRIX].half()}), "layer 1 is stored otherwise than layer 0"),
        ("fp32", lambda t: t.update({MATRIX: t[MATRIX].long()}), f"{MATRIX} is stored as I64"),
        ("fp32", lambda t: t.update({MATRIX: t[MATRIX][:-1]}), f"{MATRIX} is"),
        ("fp32", lambda t: t.pop(MATRIX), f"lacks 1 tensors such as {MATRIX}"),
        ("int8", lambda t: t.pop(MATRIX + ".scale"), f"no scale, or not a positive one a row, for {MATRIX}"),
        ("int8", lambda t: t[MATRIX + ".scale"].neg_(), f"no scale, or not a positive one a row, for {MATRIX}"),
        ("int8", lambda t: t[MATRIX + ".scale"].fill_(float("nan")), "not a positive one"),
        ("int8", lambda t: t.update({MATRIX: t[MATRIX].float()}), f"for {MATRIX}"),
    ],
)
def test_a_file_that_cannot_be_streamed_is_refused_with_the_reason(folders, tmp_path, precision, change, words):
    broken = shutil.copytree(folders[precision], tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, broken / "model.safetensors")
    with pytest.raises(zsc.CheckpointError, match=words):
        stream_layers(broken)


def test_a_file_cut_short_is_refused(own):
    file = own / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(zsc.CheckpointError, match="model.safetensors"):
        stream_layers(own)


@pytest.mark.parametrize(
    "precision, options, error, words",
    [
        *[("fp32", {"block": b}, ValueError, f"block {b!r}") for b in (0, -1, "x", 1.5, True)],
        ("fp32", {"waiting": "many"}, ValueError, "size 'many'"),
        ("fp32", {"waiting": True}, TypeError, "size True"),
        ("fp32", {"attention": "none"}, zsc.CheckpointError, "attention 'none': choose one of sdpa, eager"),
        ("fp32", {"dtype": torch.float64}, zsc.CheckpointError, "dtype torch.float64"),
        ("int8", {"dtype": torch.float32}, zsc.CheckpointError, "is stored in int8 and runs in it"),
        ("int8", {"device": "cuda"}, ValueError, "int8 runs on CPUs only, device is cuda"),
        ("fp32", {"device": "mps"}, ValueError, "device mps: layers are streamed to a CPU or to a CUDA device"),
    ],
)
def test_bad_arguments_are_refused_by_name(folders, precision, options, error, words):
    with pytest.raises(error, match=words):
        stream_layers(folders[precision], **options)


def test_a_checkpoint_that_is_none_cannot_be_streamed():
    with pytest.raises(zsc.CheckpointError, match="mimi"):
        stream_layers("mimi")


def with_a_small_disk(work):
    """In a child: `work()`, while no file may grow beyond 20 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return work()


def test_a_full_disk_is_named_and_nothing_is_left_behind(own, tmp_path):
    def store():
        stream_layers(own, dtype=torch.int8)

    def wait():
        zsc.ZeroShotClassifier(stream_layers(own, waiting=0), max_tokens=128)(TEXTS, LABELS)

    cache = door.cache_folder()
    with pytest.raises(zsc.CheckpointError, match="no room for int8--own.*free some"):
        memory.process_peak(with_a_small_disk, store)
    assert not list(cache.iterdir())
    with pytest.raises(OSError, match=f"found no room in {cache} .*a smaller block, or more for `waiting`"):
        memory.process_peak(with_a_small_disk, wait)
    assert not list(cache.iterdir())


def test_what_changes_weights_needs_them_loaded(folders, tmp_path):
    streamed = stream_layers(folders["fp32"])
    loaded = zsc.load(folders["fp32"])
    for lever in (
        lambda: quantization.quantize(streamed, "int8"),
        lambda: quantization.save(streamed, tmp_path / "saved"),
        lambda: attention.shrink(streamed, 2),
        lambda: attention.distil(streamed, loaded, TEXTS, LABELS, 1),
        lambda: attention.distil(loaded, streamed, TEXTS, LABELS, 1),
    ):
        with pytest.raises(ValueError, match="not all in memory .* use zsc_utils.load; or name their precision"):
            lever()
    for move in (streamed.model.half, streamed.model.cuda, lambda: streamed.model.to("cpu"), streamed.model.float):
        with pytest.raises(ValueError, match="cannot be moved or cast: give stream_layers a device or a dtype"):
            move()
    assert not list(tmp_path.iterdir()) and torch.equal(streamed_logits(streamed), loaded_logits(loaded))


# ------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("source", ["fp32", "bf16", "mini"])
def test_int8_is_stored_tensor_by_tensor_as_it_is_saved(folders, tmp_path, source):
    source = folders.get(source) or door.find("mini")
    door.store(source, formats.format_for("int8"), tmp_path / "stored")
    saved = quantization.save(quantization.quantize(zsc.load(source), "int8"), tmp_path / "saved")
    stored, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "stored", saved))
    assert stored.keys() == expected.keys()
    for name, tensor in expected.items():
        assert stored[name].dtype == tensor.dtype
        assert torch.equal(stored[name], tensor) or (source == door.find("mini") and name.endswith("scale")), name
    assert torch.equal(loaded_logits(zsc.load(tmp_path / "stored")), loaded_logits(zsc.load(saved)))
    assert {f.name for f in saved.iterdir()} == {f.name for f in (tmp_path / "stored").iterdir()}
    configs = [json.loads((folder / "config.json").read_text()) for folder in (saved, tmp_path / "stored")]
    assert configs[0]["zsc_format"] == configs[1]["zsc_format"] == formats.format_for("int8").name


def test_int8_is_stored_once(own):
    first = stream_layers(own, dtype=torch.int8).folder
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert stream_layers(own, dtype=torch.int8).folder == first and first.parent == door.cache_folder()
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    os.utime(own / "model.safetensors")  # another file, maybe
    assert stream_layers(own, dtype=torch.int8).folder != first


@pytest.mark.skipif(
    right_range("plain") < activation_range(), reason="plain rows are multiplied wrong here, and never used"
)
@pytest.mark.parametrize("tokens", [(64,), (2, 5), (1,), (3, 100)])
def test_int8_rows_that_are_not_packed_give_the_same_numbers(tokens):
    torch.manual_seed(0)
    (rows, scale), bias, x = quantization.rows_to_int8(torch.randn(96, 64)), torch.randn(96), torch.randn(*tokens, 64)
    plain = quantization.Int8Linear(rows, scale, bias, "plain")
    assert torch.equal(plain(x), quantization.Int8Linear(rows, scale, bias, "packed")(x))
    assert plain.plain.data_ptr() == rows.data_ptr() and torch.equal(plain.rows(), rows)
    assert torch.equal(cloudpickle.loads(cloudpickle.dumps(plain))(x), plain(x))


# ------------------------------------------------------------------------------------------------------- accelerate


@pytest.mark.parametrize("share", [None, 0.9])
def test_accelerate_gives_the_same_scores_and_takes_its_files_with_it(folders, share):
    """By itself with all layers on disk; with memory for most of the weights, twice the largest layer less."""
    whole = (folders["fp32"] / "model.safetensors").stat().st_size
    dispatched = offloading.dispatch(folders["fp32"], max_memory=share and {"cpu": int(share * whole)})
    places = dispatched.model.hf_device_map
    layers = {place for name, place in places.items() if name.startswith("bert.encoder")}
    assert layers == ({"cpu", "disk"} if share else {"disk"}) and places["bert.embeddings"] == "cpu"
    expected = scores(zsc.ZeroShotClassifier(folders["fp32"])(TEXTS, LABELS))
    for one, other in zip(scores(zsc.ZeroShotClassifier(dispatched)(TEXTS, LABELS)), expected):
        assert one == pytest.approx(other, abs=1e-6)
    scratch = dispatched.model.offload_folder.name
    assert os.listdir(scratch)
    del dispatched
    gc.collect()
    assert not os.path.exists(scratch)


def test_accelerate_needs_fp32_and_some_memory(folders, tmp_path):
    for precision in ("int8", "fp16"):
        with pytest.raises(zsc.CheckpointError, match="which accelerate cannot read: save it in fp32"):
            offloading.dispatch(folders[precision])
    with pytest.raises(ValueError, match="max_memory .*give more"):
        offloading.dispatch(folders["fp32"], max_memory={"cpu": 10})
    kept = offloading.dispatch(folders["fp32"], offload_folder=tmp_path / "kept")
    assert os.listdir(tmp_path / "kept") and kept.model.offload_folder is None


# ---------------------------------------------------------------------------------------------------------- process


def test_base_shape_streams_in_a_fraction_of_its_memory():
    """More than a block of pairs; the growth counts opening it, too."""
    records = samples.test_set("topics_new")
    labels, texts = samples.topics(records), [record["text"] for record in records[::28]]
    stream_layers("base-shape", dtype=torch.int8)  # stored anew, if it was not before

    def work(dtype):
        return zsc.ZeroShotClassifier(stream_layers("base-shape", dtype=dtype))(texts, labels)

    for dtype, most in [(None, 100), (torch.int8, 45 if int8_engine(streamed=True) == "plain" else 50)]:
        peak = memory.process_peak(work, dtype)
        print(f"{dtype}: {peak.total / 1e6:.1f} MB in {peak.seconds:.1f} s")
        assert peak.total <= most * 10**6
        loaded = zsc.ZeroShotClassifier(zsc.load("base-shape", dtype=dtype or torch.float32))
        for found, wanted in zip(scores(peak.result), scores(loaded(texts[:3], labels))):
            assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_layers_stream_to_a_gpu(folders):
    expected = scores(zsc.ZeroShotClassifier(folders["fp32"])(TEXTS, LABELS))
    for options in [{}, {"block": 200, "waiting": 40_000}, {"dtype": torch.float16}]:
        streamed = stream_layers(folders["fp32"], device="cuda", **options)
        for _ in range(3):
            for one, other in zip(scores(zsc.ZeroShotClassifier(streamed)(TEXTS, LABELS)), expected):
                assert one == pytest.approx(other, abs=2e-2 if "dtype" in options else 1e-3)
