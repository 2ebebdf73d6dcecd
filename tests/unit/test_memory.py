"""Predicted bytes are the bytes that torch allocates, and process figures are the kernel's."""

import itertools
import os
import random
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import toy_bert

import zsc_utils as zsc
from zsc_utils import _tensors, attention, memory

# ------------------------------------------------------------------------------------- prediction against measurement


def model_of(layers, heads, head_size, widening, attention, chunk, dtype=torch.float32):
    hidden = heads * head_size
    model = toy_bert(
        attention, vocab_size=50, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=hidden * widening + 8, max_position_embeddings=1024, chunk_size_feed_forward=chunk or 0,
    )  # fmt: skip
    return model.to(dtype)


def inputs_of(batch, length, padded):
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, -1:] = 0 if padded else 1
    return {"input_ids": torch.ones_like(mask), "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}


def drawn_case(rng):
    """Arguments of one model and one batch, all drawn."""
    length = rng.choice([1, 2, 7, 16, 24, 60, 64, 128, 191, 192, 256, 512, 767, 768, 800])
    divisors = [c for c in range(1, length + 1) if length % c == 0 and length // c <= 16]
    heads, batch = rng.choice([1, 2, 3, 4, 12]), rng.choice([1, 1, 2, 3, 5])
    if batch * heads * length**2 > 8e6:
        batch, heads = 1, 2
    return {
        "layers": rng.choice([1, 2, 3]),
        "heads": heads,
        "head_size": rng.choice([8, 16, 64]),
        "widening": rng.choice([1, 2, 4]),
        "attention": rng.choice(["sdpa", "eager"]),
        "batch": batch,
        "length": length,
        "padded": length > 1 and rng.random() < 0.5,
        "chunk": rng.choice(divisors) if rng.random() < 0.4 else None,
        "dtype": rng.choice([torch.float32] * 8 + [torch.float16, torch.bfloat16]),
    }


def measured_and_predicted(layers, heads, head_size, widening, attention, batch, length, padded, chunk, dtype):
    """Peak bytes of each phase of one forward pass: as torch allocated them, and as predicted."""
    model = model_of(layers, heads, head_size, widening, attention, chunk, dtype)
    options = {"attention": attention, "padded": padded, "ffn_chunk": chunk, "dtype": dtype}
    measured = measured_phases(model, inputs_of(batch, length, padded))
    return measured, memory.predict(model.config, batch, length, **options)


def measured_phases(model, inputs):
    with torch.inference_mode():
        steps = memory.timeline(lambda: model(**inputs), model)
    measured = dict.fromkeys(memory.PHASES, 0)
    for step in steps:
        if step.change > 0:
            measured[phase_of(step.module)] = max(measured[phase_of(step.module)], step.alive)
    return measured


def phase_of(module):
    if ".attention" in module:
        return "attention"
    if ".layer." in module:
        return "feed-forward"
    return "pooler and head" if module in ("", "bert.pooler", "bert.pooler.dense", "bert.pooler.activation",
                                           "dropout", "classifier") else "embeddings"  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_every_phase_of_forty_models_is_predicted_to_the_byte(seed):
    rng = random.Random(seed)
    for _ in range(40):
        case = drawn_case(rng)
        measured, footprint = measured_and_predicted(**case)
        assert footprint.phases == measured, case
        assert footprint.peak_activations == max(measured.values()), case


def test_every_phase_of_sliding_models_is_predicted_to_the_byte(oracle):
    """With and without feed-forward networks that take some tokens at a time, which the other models lack, too."""
    rng = random.Random(0)
    for _ in range(60):
        case = drawn_case(rng) | {"attention": "sdpa", "chunk": None, "dtype": torch.float32}
        batch, length, padded = (case.pop(name) for name in ("batch", "length", "padded"))
        padded = padded and batch > 1  # at least one text has the whole length
        lever, window, tokens = (
            rng.choice(["sdpa", "eager", "sliding"]),
            rng.choice([1, 8, 64, 300]),
            rng.choice([1, 64, 90]),
        )
        checkpoint = attention.use(replace(oracle, model=model_of(**case)), lever, window=window)
        if rng.random() < 0.6 or lever != "sliding":
            checkpoint = attention.chunk_feed_forward(checkpoint, tokens)
        inputs, hypothesis = inputs_of(batch, length, padded), rng.choice([0, 1, 5, length])
        inputs["token_type_ids"][:, length - min(hypothesis, length) :] = 1
        options = {"attention": lever, "padded": padded, "hypothesis": hypothesis}
        footprint = memory.predict(checkpoint.model.config, batch, length, **options)
        assert footprint.phases == measured_phases(checkpoint.model, inputs), (case, batch, length, options, tokens)


@pytest.mark.parametrize("window", [1, 7, 63, 64, 65, 200])
def test_sliding_blocks_hold_each_row_once_and_all_its_keys(window):
    for length, hypothesis in itertools.product([1, 2, 3, 60, 66, 130, 300], [0, 1, 2, 8, 299]):
        blocks, text = memory.sliding_blocks(length, hypothesis, window), max(1, length - hypothesis)
        assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(length))
        assert all(0 < block.stop - block.start <= max(window, 64) for block in blocks if block.stop <= text)
        for block in blocks:
            rows = range(block.start, block.stop)
            sees_all = [row == 0 or row >= text for row in rows]
            seen = [{0, *(range(length) if free else range(row - window, row + window + 1))} & set(range(length))
                    for row, free in zip(rows, sees_all)]  # fmt: skip
            keys = {0, *range(block.low, block.high)}
            assert keys == set.union(*seen) and block.low != 1
            assert block.banded == any(own != keys for own in seen)


@pytest.mark.parametrize(
    "batch, heads, length", [(1, 1, 40), (1, 3, 40), (2, 1, 40), (2, 3, 40), (2, 3, 1), (3, 2, 600)]
)
def test_what_attention_takes_besides_its_result_is_what_torch_takes(batch, heads, length):
    config = model_of(1, heads, 16, 1, "sdpa", None).config
    for queries in {1, length}:
        shape = memory.checked_shape(config, batch, length, "eager", False, 0, torch.float32, 1)
        sizes = torch.float32, 1, batch, heads, queries, length, 16
        scoring, weighting = memory.eager_products(shape, queries)
        assert sum(scoring.values()) == _tensors.eager_workspace(*sizes, weighted=False)
        assert sum(weighting.values()) == _tensors.eager_workspace(*sizes, weighted=True)
        assert sum(memory.kernel_tensors(shape, queries).values()) == _tensors.attention_workspace(*sizes, masked=False)


@pytest.mark.parametrize(
    "dtype, ask, asked", [("float32", True, False), ("float16", True, True), ("float16", False, False)]
)
def test_torch_is_asked_in_16_bits_only_and_only_if_it_may_be(dtype, ask, asked, monkeypatch):
    for name in ("eager_workspace", "attention_workspace"):
        monkeypatch.setattr(memory, name, lambda *_: 10**9)
    config = model_of(1, 2, 16, 1, "sdpa", None).config
    shape = memory.checked_shape(config, 2, 40, "eager", False, 0, getattr(torch, dtype), 1, ask=ask)
    for tensors in (*memory.eager_products(shape, 40), memory.kernel_tensors(shape, 40)):
        assert (sum(tensors.values()) >= 10**9) == asked


@pytest.mark.parametrize(
    "batch, chunk, overwrites, rows, beside",
    [  # in numbers; 32 is the hidden size, and 20 tokens a text
        (1, 0, False, 20, 3 * 20 * 32),  # the embeddings' output, the layer's input, attention's output
        (1, 10, False, 10, 3 * 20 * 32 + 10 * 32),  # and a chunk that is done
        (2, 10, False, 20, 3 * 40 * 32 + 2 * 20 * 32),  # and a copy of the chunk
        (2, 20, False, 40, 3 * 40 * 32),
        (2, 35, True, 35, 2 * 40 * 32),
        (2, 35, True, 5, 2 * 40 * 32),  # the chunk that is left over
        (2, 80, True, 40, 2 * 40 * 32),
    ],
)
def test_a_workspace_comes_on_top_of_what_is_alive_beside_its_product(
    batch, chunk, overwrites, rows, beside, monkeypatch
):
    config = model_of(2, 2, 16, 4, "sdpa", None).config
    if overwrites:
        config.feed_forward_tokens = chunk
    copied = 20 * 32 if (batch, chunk) == (2, 10) else 0  # not alive any more when the second product begins
    for product, kept in {(32, 136): beside + rows * 136, (136, 32): beside - copied + rows * (136 + 32)}.items():
        monkeypatch.setattr(memory, "workspace", lambda *given, own=(rows, *product): 10**9 * (given[2:] == own))
        assert memory.predict(config, batch, 20, ffn_chunk=chunk).peak_activations == 10**9 + 4 * kept


def test_more_classes_than_hidden_numbers_are_predicted_to_the_byte():
    shape = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = toy_bert(vocab_size=50, num_labels=99, **shape)
    assert memory.predict(model.config, 5, 3).phases == measured_phases(model, inputs_of(5, 3, False))


def test_scratch_in_16_bits_has_a_second_block_of_scores():
    config = model_of(1, 2, 16, 1, "sdpa", None).config
    half, full = (memory.checked_shape(config, 2, 256, "sdpa", False, 0, dtype, 3, ask=False)
                  for dtype in (torch.bfloat16, torch.float32))  # fmt: skip
    assert memory.flash_scratch(half, 256, 256) - memory.flash_scratch(full, 256, 256) == 3 * 2 * 64 * 256


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [False, True])
def test_base_shape_is_predicted_to_the_byte(attention, padded):
    checkpoint = zsc.load("base-shape", attention=attention)
    inputs = inputs_of(2, 192, padded)
    with torch.inference_mode():
        peak = memory.tensor_peak(lambda: checkpoint.model(**inputs))
    assert peak == memory.predict(checkpoint.model.config, 2, 192, attention=attention, padded=padded).peak_activations


@pytest.mark.parametrize("threads", [1, 2])
def test_scratch_of_the_attention_kernel_follows_the_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        case = dict(layers=1, heads=2, head_size=16, widening=1, attention="sdpa", batch=2, length=256)
        measured, footprint = measured_and_predicted(**case, padded=False, chunk=32, dtype=torch.float32)
    finally:
        torch.set_num_threads(before)
    assert footprint.phases == measured
    scratch = footprint.peak.tensors["kernel scratch (per thread)"]
    assert scratch == threads * 4 * (64 * 256 + 2 * 64 + 64 * 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_bytes_are_predicted_for_any_number_of_threads(dtype, threads):
    torch.set_num_threads(threads)
    for batch, length, padded in [(1, 1, False), (2, 64, True), (3, 113, False), (8, 128, False)]:
        case = dict(layers=2, heads=4, head_size=64, widening=2, attention="sdpa", batch=batch, length=length)
        measured, footprint = measured_and_predicted(**case, padded=padded, chunk=None, dtype=dtype)
        assert footprint.phases == measured, case


def test_a_workspace_is_what_torch_takes_beside_the_result():
    """Of a function that allocates 4 kB and gives 1 kB back, and with the threads that were asked for."""
    seen = []

    def multiply():
        seen.append(torch.get_num_threads())
        scratch = torch.empty(768)
        return torch.empty(256).fill_(scratch.numel())

    assert _tensors.beside_result(multiply, 3) == 3072
    assert set(seen) == {3} and torch.get_num_threads() == 1


WRONG_TERMS = {
    "embeddings are let go of": (memory.Shape, "held", property(lambda s: {"layer input": s.hidden, "mask": s.mask})),
    "LayerNorm keeps no statistics": (memory.Shape, "norm", property(lambda s: s.hidden)),
    "SDPA keeps its mask as numbers": (memory.Shape, "mask", property(lambda s: s.square * s.item * s.padded)),
    "no scratch": (memory, "flash_scratch", lambda *_: 0),
    "heads never move": (memory.Shape, "heads_move", False),
    "eager lets go of its scores": (memory.Shape, "scores", property(lambda s: 0)),
}


@pytest.mark.parametrize("wrong", WRONG_TERMS)
def test_a_wrong_term_in_the_formula_is_seen(wrong, monkeypatch):
    monkeypatch.setattr(*WRONG_TERMS[wrong])
    rng = random.Random(0)
    with pytest.raises(AssertionError):
        for _ in range(40):
            measured, footprint = measured_and_predicted(**drawn_case(rng))
            assert footprint.phases == measured


def test_weights_are_the_bytes_of_the_file_less_its_header():
    folder = zsc.load("base-shape").folder
    config = zsc.load("base-shape").model.config
    file = folder / "model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert memory.predict(config, 1, 1).weights == file.stat().st_size - header


def test_parts_of_the_weights_are_those_of_the_model():
    model = model_of(2, 2, 16, 4, "sdpa", None)
    found = dict.fromkeys(memory.parameters(model.config), 0)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            part = "norm"
        elif "embeddings" in name:
            part = "embeddings"
        elif "attention" in name:
            part = "attention"
        else:
            part = "feed-forward" if ".layer." in name else "head"
        found[part] += parameter.numel()
    assert memory.parameters(model.config) == found


def test_footprint_adds_up_and_prints_its_bill():
    footprint = memory.predict(model_of(2, 2, 16, 4, "sdpa", None).config, 3, 10)
    assert footprint.total == footprint.weights + footprint.peak_activations
    assert footprint.peak_activations == footprint.phases[footprint.peak.phase] == sum(footprint.peak.tensors.values())
    lines = str(footprint).splitlines()
    amounts = [int(line.split()[-1].replace(",", "")) for line in lines if not line.startswith("-")]
    assert sum(amounts[:-1]) == amounts[-1] == footprint.total


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(batch=0), "batch 0: give a whole number"),
        (dict(batch=2.0), "batch 2.0: give a whole number"),
        (dict(length=True), "length True"),
        (dict(length=2000), "positions for 1024 tokens"),
        (dict(attention="flash"), "attention 'flash': predicted are 'sdpa', 'eager' and 'sliding'"),
        (dict(ffn_chunk=7), "ffn_chunk 7 does not divide length 10"),
        (dict(ffn_chunk=-1), "ffn_chunk -1"),
        (dict(dtype=torch.int8), "dtype torch.int8"),
        (dict(length=1, padded=True), "nothing can be padding"),
    ],
)
def test_what_cannot_run_is_refused(arguments, words):
    config = model_of(1, 2, 16, 4, "sdpa", None).config
    with pytest.raises(ValueError, match=words):
        memory.predict(config, **{"batch": 1, "length": 10} | arguments)


def test_a_config_that_is_no_bert_as_predicted_is_refused():
    config = model_of(1, 2, 16, 4, "sdpa", None).config
    config.hidden_act = "relu"
    with pytest.raises(ValueError, match="activation 'relu'"):
        memory.predict(config, 1, 10)
    config.hidden_act, config.output_hidden_states = "gelu", True
    with pytest.raises(ValueError, match="logits only"):
        memory.predict(config, 1, 10)
    config.output_hidden_states, config.num_hidden_layers = False, 0
    with pytest.raises(ValueError, match="0 layers"):
        memory.predict(config, 1, 10)
    config.num_hidden_layers, config.num_attention_heads = 1, 3
    with pytest.raises(ValueError, match="hidden size 32 is no multiple of 3 heads"):
        memory.predict(config, 1, 10)


def test_a_batch_may_have_all_positions_and_what_is_not_given_is_as_documented():
    config = model_of(1, 2, 16, 4, "sdpa", None).config
    assert memory.predict(config, 1, 1024).phases
    given = memory.predict(config, 1, 600, attention="sliding", window=128, hypothesis=8, threads=1, ffn_chunk=0)
    assert memory.predict(config, 1, 600, attention="sliding").phases == given.phases
    config.sliding_window = 50
    assert memory.predict(config, 1, 600, attention="sliding", window=128).phases == given.phases
    assert memory.predict(config, 1, 600, attention="sliding").phases != given.phases


def test_chunks_are_those_of_the_config_unless_given():
    chunked, whole = (model_of(1, 2, 16, 4, "sdpa", chunk).config for chunk in (4, 0))
    assert memory.predict(chunked, 2, 64).phases == memory.predict(whole, 2, 64, ffn_chunk=4).phases
    assert memory.predict(chunked, 2, 64, ffn_chunk=0).phases == memory.predict(whole, 2, 64).phases


# ------------------------------------------------------------------------------------------------------- tensor bytes


def test_tensor_peak_counts_what_is_alive_at_once():
    def work():
        first = torch.empty(1000)
        del first
        second, third = torch.empty(500), torch.empty(2000, dtype=torch.int8)
        return second, third

    assert memory.tensor_peak(work) == 4000
    assert memory.tensor_peak(lambda: (torch.empty(500), torch.empty(2001, dtype=torch.int8))) == 4001


def test_tensor_peak_starts_at_zero_whatever_was_alive_before():
    held = [torch.empty(100_000)]
    assert memory.tensor_peak(lambda: torch.empty(10)) == 40
    assert memory.tensor_peak(held.clear) == 0
    assert memory.tensor_peak(lambda: None) == 0


def test_timeline_names_module_and_operation():
    model = model_of(1, 2, 16, 4, "sdpa", None)
    with torch.inference_mode():
        steps = memory.timeline(lambda: model(**inputs_of(2, 8, False)), model)
    gelu = [s for s in steps if s.op == "gelu"]
    assert len(gelu) == 1 and gelu[0].module.startswith("bert.encoder.layer.0.intermediate")
    assert gelu[0].change == 2 * 8 * (32 * 4 + 8) * 4
    assert all(a.seconds <= b.seconds and a.alive + b.change == b.alive for a, b in zip(steps, steps[1:]))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ------------------------------------------------------------------------------------------------------------ process

MB = 10**6


def test_process_peak_sees_memory_that_was_written_and_let_go():
    peak = memory.process_peak(lambda count: torch.ones(count).sum().item(), 25 * MB)
    assert peak.result == 25 * MB
    assert 98 * MB < peak.total < 104 * MB  # the kernel counts in batches of pages
    assert 0 < peak.anonymous < 104 * MB
    assert peak.file_backed < 3 * MB
    assert peak.seconds > 0


def test_process_peak_has_the_whole_process_too_libraries_included():
    small, large = (memory.process_peak(lambda count: torch.ones(count).sum().item(), n * MB) for n in (1, 25))
    assert small.whole - small.total > 200 * MB  # Python, torch and transformers
    assert abs((large.whole - small.whole) - (large.total - small.total)) < 10 * MB


def test_process_peak_tells_mapped_files_from_memory(tmp_path):
    file = tmp_path / "numbers.npy"
    np.save(file, np.ones(5 * MB))

    held = []  # so that it is still mapped when the last figures are read

    def mapped():
        held.append(np.load(file, mmap_mode="r"))
        return float(held[0].sum())

    peak = memory.process_peak(mapped)
    assert peak.result == 5 * MB
    assert 39 * MB < peak.file_backed < 44 * MB
    assert peak.anonymous < 3 * MB


def test_proportional_counts_what_is_written_whole_and_what_is_shared_in_parts():
    def written_and_shared():
        before = memory.proportional("self")
        held = torch.ones(25 * MB)  # 100 MB, of this process alone
        alone, gate = memory.proportional("self"), os.pipe()
        if not (child := os.fork()):  # it has the same pages, and waits
            os.read(gate[0], 1)
            os._exit(0)
        both = memory.proportional("self")
        os.write(gate[1], b".")
        os.waitpid(child, 0)
        return alone - before, alone - both, held.numel()

    alone, halved, _ = memory.process_peak(written_and_shared).result
    assert 99 * MB < alone < 102 * MB
    assert halved > 49 * MB
    assert memory.proportional(2**22 + 1) is None  # beyond the largest number of a process


def test_every_child_is_fresh():
    torch.zeros(1).fill_(1)  # threads of ours do not matter to the child
    first, second = (memory.process_peak(os.getpid) for _ in range(2))
    assert len({first.result, second.result, os.getpid()}) == 3


def test_an_error_in_the_child_is_raised_here():
    with pytest.raises(ZeroDivisionError) as caught:
        memory.process_peak(lambda: 1 / 0)
    assert "in the child process" in caught.value.__notes__[0]


def test_a_result_that_cannot_travel_is_an_error_that_names_it():
    with pytest.raises(memory.ChildError, match="returned a generator, which cannot be sent"):
        memory.process_peak(lambda: (i for i in range(3)))


def test_the_child_sees_the_environment_of_now(monkeypatch):
    for words in ({"ZSC_TEST_WORD": "now"}, {}):  # what is gone here is gone there
        monkeypatch.delenv("ZSC_TEST_WORD", raising=False)
        for word, value in words.items():
            monkeypatch.setenv(word, value)
        assert memory.process_peak(lambda: dict(os.environ)).result == dict(os.environ)


def test_a_child_that_is_killed_or_quits_is_an_error_that_says_so():
    with pytest.raises(memory.ChildError, match="SIGKILL: the kernel does that when memory runs out"):
        memory.process_peak(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(memory.ChildError, match="exit code 3"):
        memory.process_peak(lambda: os._exit(3))


def test_running_into_a_limit_is_the_allocators_own_error():
    def too_much():
        resource.setrlimit(resource.RLIMIT_DATA, (2 * 10**9, 2 * 10**9))
        return torch.ones(4 * 10**9, dtype=torch.int8).sum().item()

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        memory.process_peak(too_much)


def test_a_checkpoint_maps_its_weights_and_writes_little():
    held = []  # so that it is still mapped when the last figures are read

    def load_and_touch():
        held.append(zsc.load("base-shape"))
        return sum(parameter.sum().item() for parameter in held[0].model.parameters())

    zsc.load("base-shape")  # built before it is measured
    peak = memory.process_peak(load_and_touch)
    assert 0.98 * 409.1 * MB < peak.file_backed < 1.03 * 409.1 * MB
    assert peak.anonymous < 40 * MB


# -------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "size, count",
    [("300MB", 300 * MB), ("300 mb", 300 * MB), ("1.5GB", 1500 * MB), ("64MiB", 64 * 2**20), ("512_000_000", 512 * MB),
     (512_000_000, 512 * MB), ("7B", 7), ("2kB", 2000), (1, 1)],
)  # fmt: skip
def test_sizes_are_read_as_people_type_them(size, count):
    assert memory.parse_size(size) == count


@pytest.mark.parametrize(
    "size", ["", "MB", "3iB", "_", "-3MB", "3 apples", "0", "0.1B", 0, -5, "nan", "1e9", "3,5GB", "12 M"]
)
def test_what_is_no_size_is_refused_by_name(size):
    with pytest.raises(ValueError, match="size " + repr(size).replace("(", r"\(")):
        memory.parse_size(size)


@pytest.mark.parametrize("size", [None, 3.5, True, b"3MB"])
def test_other_types_are_no_sizes(size):
    with pytest.raises(TypeError, match="size "):
        memory.parse_size(size)


def test_sizes_are_printed_in_powers_of_ten():
    assert memory.format_size(409_079_820) == "409.1 MB"
    assert memory.format_size(999) == "999 B"
    assert memory.format_size(17_301_504) == "17.3 MB"
    assert memory.format_size(1500) == "1.5 kB"
    assert memory.parse_size(memory.format_size(1_500_000_000)) == 1_500_000_000


def test_an_evicted_file_is_read_from_the_disk_again(tmp_path):
    with (file := tmp_path / "file").open("wb") as target:
        target.write(bytes(2**20))
        os.fsync(target.fileno())
    with file.open("rb") as source:
        assert os.preadv(source.fileno(), [bytearray(4096)], 0, os.RWF_NOWAIT) == 4096  # it is in the page cache
        memory.evict(file)
        try:
            found = os.preadv(source.fileno(), [bytearray(4096)], 2**19, os.RWF_NOWAIT)
        except BlockingIOError:
            return
    pytest.fail(f"{found} bytes are in the page cache still")


def test_evicting_says_which_system_cannot(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    with pytest.raises(OSError, match="this system cannot be asked"):
        memory.evict(tmp_path)
