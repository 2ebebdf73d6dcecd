"""The door: what it opens, what it refuses, and that nothing behind it runs."""

import json
import os
import pickle
import shutil
import time

import pytest
import torch
from oracle import ORACLE
from safetensors.torch import load_file, save_file

import zsc_utils as zsc
from zsc_utils import checkpoint, memory

# ------------------------------------------------------------------------------------------------ what it opens


def logits(ckpt, pairs=(("央行宣布下调利率", "财经"), ("国足一比零获胜", "军事"))):
    inputs = ckpt.tokenizer(*map(list, zip(*pairs)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return ckpt.model(**inputs).logits


def test_modelscope_folder_becomes_bert_with_its_own_weights(oracle):
    stored = torch.load(ORACLE / "pytorch_model.bin", weights_only=True)
    loaded = oracle.model.state_dict()
    stored.pop("bert.embeddings.position_ids", None)
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert (oracle.entailment_id, oracle.contradiction_id) == (0, 2)
    assert not oracle.model.training


def test_converted_once_then_read_from_the_cache(oracle_copy, empty_cache, monkeypatch):
    first = zsc.load(oracle_copy)
    assert first.folder.parent.parent == empty_cache and (first.folder / "model.safetensors").is_file()
    monkeypatch.setattr(checkpoint, "convert", lambda *_: pytest.fail("converted again"))
    assert zsc.load(str(oracle_copy)).folder == first.folder


def test_changed_weights_are_converted_anew(oracle_copy, empty_cache):
    before = logits(zsc.load(oracle_copy))
    file = oracle_copy / "pytorch_model.bin"
    torch.save({k: v * 1.5 for k, v in torch.load(file, weights_only=True).items()}, file)
    assert not torch.equal(before, logits(zsc.load(oracle_copy)))


@pytest.mark.parametrize("prefix", ["bert.", "encoder.", ""])
def test_every_prefix_gives_the_same_logits(oracle, oracle_copy, prefix):
    file = oracle_copy / "pytorch_model.bin"
    stored = torch.load(file, weights_only=True)
    renamed = {k if k.startswith("classifier") else prefix + k.removeprefix("bert."): v for k, v in stored.items()}
    torch.save(renamed, file)
    assert torch.equal(logits(zsc.load(oracle_copy)), logits(oracle))


def test_old_layer_norm_names_and_modelscope_safetensors(oracle, oracle_copy):
    stored = torch.load(oracle_copy / "pytorch_model.bin", weights_only=True)
    stored.pop("bert.embeddings.position_ids", None)
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
           for k, v in stored.items()}  # fmt: skip
    save_file(old, oracle_copy / "model.safetensors")
    (oracle_copy / "pytorch_model.bin").unlink()
    assert torch.equal(logits(zsc.load(oracle_copy)), logits(oracle))


def test_a_modelscope_config_need_not_state_the_number_of_classes(oracle, oracle_copy):
    shutil.copy(oracle.folder / "model.safetensors", oracle_copy)
    (oracle_copy / "pytorch_model.bin").unlink()
    damage(oracle_copy / "config.json", num_labels=None)
    ckpt = zsc.load(oracle_copy)
    assert torch.equal(logits(ckpt), logits(oracle)) and ckpt.model.config.num_labels == 3


def test_transformers_folder_is_read_where_it_lies(oracle, tmp_path, empty_cache):
    oracle.model.save_pretrained(tmp_path / "plain")
    oracle.tokenizer.save_pretrained(tmp_path / "plain")
    ckpt = zsc.load(tmp_path / "plain")
    assert ckpt.folder == tmp_path / "plain" and not empty_cache.exists()
    assert torch.equal(logits(ckpt), logits(oracle))


def test_class_ids_follow_the_folder(oracle_copy):
    (oracle_copy / "label_mapping.json").write_text('{"contradiction": 0, "neutral": 1, "entailment": 2}')
    ckpt = zsc.load(oracle_copy)
    assert (ckpt.entailment_id, ckpt.contradiction_id) == (2, 0)
    assert ckpt.model.config.id2label[2] == "entailment"
    (oracle_copy / "label_mapping.json").unlink()
    ckpt = zsc.load(oracle_copy)
    assert (ckpt.entailment_id, ckpt.contradiction_id) == (0, 2)


@pytest.mark.parametrize("names, ids", [
    ({"ENTAIL": 2, "NEUTRAL": 1, "CONTR": 0}, (2, 0)), ({"Entailment": 0, "Neutral": 1, "Contradiction": 2}, (0, 2)),
    ({"ENTAIL": 0, "NON-ENTAIL": 1}, (0, 1)), ({"not_entailment": 0, "entailment": 1}, (1, 0)),
])  # fmt: skip
def test_class_names_in_any_spelling_of_the_pipeline(oracle_copy, names, ids):
    """transformers' pipeline looks for what begins with entail, in small letters; it needs no contradiction."""
    (oracle_copy / "label_mapping.json").write_text(json.dumps(names))
    ckpt = zsc.load(oracle_copy)
    assert (ckpt.entailment_id, ckpt.contradiction_id) == ids


def test_number_of_classes_comes_from_the_classifier(oracle_copy):
    file = oracle_copy / "pytorch_model.bin"
    stored = torch.load(file, weights_only=True)
    torch.save(stored | {k: stored[k][[0, 2]] for k in ("classifier.weight", "classifier.bias")}, file)
    (oracle_copy / "label_mapping.json").unlink()
    ckpt = zsc.load(oracle_copy)
    assert logits(ckpt).shape == (2, 2) and (ckpt.entailment_id, ckpt.contradiction_id) == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_and_attention_are_those_asked_for(dtype, oracle_copy):
    ckpt = zsc.load(oracle_copy, dtype=dtype, attention="eager")
    assert {p.dtype for p in ckpt.model.parameters()} == {dtype}
    assert ckpt.model.config._attn_implementation == "eager"


def test_fp32_weights_are_mapped_from_the_file(oracle):
    """The next load shares the file's pages: each tensor lies in a mapping of model.safetensors."""
    with open("/proc/self/maps") as lines:
        spans = [line.split()[0].split("-") for line in lines if str(oracle.folder / "model.safetensors") in line]
    spans = [(int(a, 16), int(b, 16)) for a, b in spans]
    for parameter in oracle.model.parameters():
        assert any(a <= parameter.data_ptr() < b for a, b in spans)


def base_from_nothing():
    """The yardstick of loading times: to make a model of the base shape, weights drawn instead of loaded."""
    checkpoint.BertForSequenceClassification(checkpoint.BertConfig(num_labels=3))


@pytest.fixture(scope="module")
def times_faster():
    """{name: how many times loading it goes into the yardstick}: the best of each, interleaved, in one thread.

    The yardstick, which draws 102 million numbers, is taken once: noise in it can only help.
    """
    torch.set_num_threads(1)
    zsc.load("base-shape")  # built, if it was not before
    seconds = {"base-shape": [], "mini": [], "nothing": []}
    for name in ("base-shape", "mini", "nothing", "base-shape", "mini", "base-shape", "mini"):
        start = time.perf_counter()
        base_from_nothing() if name == "nothing" else zsc.load(name)
        seconds[name].append(time.perf_counter() - start)
    return {name: min(seconds["nothing"]) / min(own) for name, own in seconds.items()}


def test_base_shape_is_structbert_base_and_loads_fast(times_faster):
    ckpt = zsc.load("base-shape")
    assert sum(p.numel() for p in ckpt.model.parameters()) == 102_269_955
    assert times_faster["base-shape"] > 3


def test_base_shape_makes_one_token_of_every_chinese_character(tmp_path):
    words = "\n".join(checkpoint.base_shape_vocabulary())
    (tmp_path / "vocab.txt").write_text(words + "\n", encoding="utf-8")
    config = checkpoint.BertConfig(vocab_size=21_128)
    tokenizer = checkpoint.read_tokenizer(tmp_path, config)
    every = "".join(chr(i) for i in range(0x4E00, 0xA000))
    ids = tokenizer(every, add_special_tokens=False, truncation=False).input_ids
    assert len(ids) == len(every) == len(set(ids)) and tokenizer.unk_token_id not in ids
    assert len(tokenizer.get_vocab()) == 21_128


def test_base_shape_is_the_same_on_every_build(tmp_path, monkeypatch):
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    real = checkpoint.BertConfig
    monkeypatch.setattr(checkpoint, "BertConfig", lambda **given: real(**given | small))
    states = []
    for name in ("one", "two"):
        torch.manual_seed(len(states))
        checkpoint.build_base_shape(tmp_path / name)
        states.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_base_shape_is_built_in_little_memory(tmp_path):
    """A budget names it too, and the first who asks for it builds it."""
    peak = memory.process_peak(checkpoint.build_base_shape, tmp_path / "new")
    assert peak.total < 40e6 < 400e6 < (tmp_path / "new" / "model.safetensors").stat().st_size


def test_mini_is_bundled_and_loads_fast(mini, times_faster):
    assert times_faster["mini"] > 1.5
    assert (mini.entailment_id, mini.contradiction_id) == (0, 2)
    assert sum(f.stat().st_size for f in mini.folder.iterdir()) <= 32_000_000


@pytest.mark.parametrize("levers", [{}, {"memory_budget": "150MB"}, {"precision": "bf16"}, {"offload": True}])
def test_a_name_is_resolved_once_for_the_plan_and_for_what_it_decides_on(monkeypatch, levers):
    read, reads = checkpoint.read_config, []
    monkeypatch.setattr(checkpoint, "read_config", lambda folder: reads.append(folder) or read(folder))
    classify = zsc.ZeroShotClassifier("mini", **levers)
    assert reads == [checkpoint.BUNDLED] and classify.checkpoint.name == "mini"


def test_a_source_is_resolved_already_and_no_model_changes_it(mini):
    source = checkpoint.resolve("mini")
    assert checkpoint.resolve(source) is source and checkpoint.find("mini") == source.folder
    assert source.stored_bytes == checkpoint.stored_bytes(source.folder)
    loaded = zsc.load(source, attention="eager")
    assert loaded.name == "mini" and loaded.model.config is not source.config
    assert zsc.load(source).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("own", [{}, {"num_labels": 2, "type_vocab_size": 1}, {"hidden_size": 24, "vocab_size": 7}])
def test_the_weights_that_a_config_asks_for_are_those_of_transformers(own):
    small = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 48, "intermediate_size": 20}
    config = checkpoint.BertConfig(**(small | own))
    theirs = checkpoint.BertForSequenceClassification(config).state_dict()
    assert checkpoint.expected_shapes(config) == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def test_default_name_is_the_environment_variable(monkeypatch):
    monkeypatch.delenv("ZSC_CHECKPOINT", raising=False)
    assert zsc.default_name() == "mini" and zsc.default_name("base-shape") == "base-shape"
    monkeypatch.setenv("ZSC_CHECKPOINT", "some/where")
    assert zsc.default_name("base-shape") == "some/where"


# ------------------------------------------------------------------------------------------------------ the cache


def test_half_built_entries_never_count(empty_cache):
    def breaks(target):
        target.mkdir()
        (target / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.cached("entry", breaks)
    assert list(empty_cache.glob("*/*")) == []
    assert checkpoint.cached("entry", lambda target: target.mkdir()).is_dir()


def test_two_builders_at_once_leave_one_whole_entry(empty_cache):
    def slower(target):
        checkpoint.cached("entry", lambda other: (other.mkdir(), (other / "whole").touch()))
        target.mkdir()
        (target / "whole").touch()

    assert [f.name for f in checkpoint.cached("entry", slower).iterdir()] == ["whole"]


# ------------------------------------------------------------------------------------------------- ModelScope's hub


def test_hub_download_is_converted_and_needed_once(empty_cache, monkeypatch, oracle):
    fetched = []
    monkeypatch.setattr("modelscope.snapshot_download", lambda name: fetched.append(name) or str(ORACLE))
    for _ in range(2):
        ckpt = zsc.load("iic/nlp_structbert_zero-shot-classification_chinese-large")
    assert fetched == ["iic/nlp_structbert_zero-shot-classification_chinese-large"]
    assert torch.equal(logits(ckpt), logits(oracle))


def test_no_network_names_the_offline_choices(empty_cache, monkeypatch):
    def unreachable(name, local_files_only=False):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr("modelscope.snapshot_download", unreachable)
    with pytest.raises(zsc.CheckpointError, match='resolution failed.*"mini".*"base-shape"'):
        zsc.load("damo/nlp_structbert_zero-shot-classification_chinese-base")
    assert list(empty_cache.glob("*/*")) == []


def test_no_network_but_a_download_of_another_day(empty_cache, monkeypatch, oracle):
    def cached_only(name, local_files_only=False):
        if not local_files_only:
            raise ConnectionError("name resolution failed")
        return str(ORACLE)

    monkeypatch.setattr("modelscope.snapshot_download", cached_only)
    assert torch.equal(logits(zsc.load("damo/some-model")), logits(oracle))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(zsc.CheckpointError, match="cannot be written.*XDG_CACHE_HOME"):
        zsc.load(ORACLE)


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("name", ["mimi", "", None, 7, "./nowhere", "/nowhere/at/all", "a/b/c"])
def test_unknown_names(name, empty_cache):
    with pytest.raises(zsc.CheckpointError, match='"mini".*"base-shape"'):
        zsc.load(name)


def test_a_file_is_no_folder(oracle_copy):
    with pytest.raises(zsc.CheckpointError, match="is a file; name the folder"):
        zsc.load(oracle_copy / "config.json")


@pytest.mark.parametrize("option", [{"dtype": torch.int16}, {"dtype": "fp16"}, {"attention": "flash"}])
def test_unknown_options(option):
    with pytest.raises(zsc.CheckpointError, match="dtype|attention"):
        zsc.load("mini", **option)


def damage(file, **changes):
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "config.json is broken"),
        ("[]", "config.json is broken"),
        ("", "config.json is broken"),
        ('{"model_type": "gpt2"}', "model_type 'gpt2'"),
        ('{"model_type": "structbert", "hidden_size": "wide"}', "config.json is broken"),
        ('{"model_type": "structbert", "num_hidden_layers": 0}', "num_hidden_layers = 0"),
        ('{"zsc_format": "int3"}', "zsc_format 'int3'"),
        ('{"model_type": "structbert", "hidden_act": "foo"}', "config.json is broken"),
        ('{"model_type": "structbert", "hidden_dropout_prob": 7}', "config.json is broken"),
    ],
)
def test_broken_config(oracle_copy, text, message):
    (oracle_copy / "config.json").write_text(text)
    with pytest.raises(zsc.CheckpointError, match=message):
        zsc.load(oracle_copy)


def test_config_cannot_make_another_model_of_it(oracle, oracle_copy):
    damage(oracle_copy / "config.json", is_decoder=True, return_dict=False, attn_implementation="x", output_hidden=1)
    assert torch.equal(logits(zsc.load(oracle_copy)), logits(oracle))


def test_hidden_size_that_the_heads_do_not_divide(oracle_copy):
    damage(oracle_copy / "config.json", hidden_size=50)
    with pytest.raises(zsc.CheckpointError, match="50 is no multiple of 4 attention heads"):
        zsc.load(oracle_copy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 64}, "word_embeddings.weight is .282, 48., should be .282, 64."),
        ({"num_hidden_layers": 3}, "lacks 16 tensors such as bert.encoder.layer.2"),
        ({"num_hidden_layers": 1}, "holds 16 unknown ones such as bert.encoder.layer.1"),
        ({"intermediate_size": 100}, "intermediate.dense.* is .192"),
        ({"vocab_size": 100}, "should be .100, 48."),
    ],
)
def test_weights_that_do_not_fit_the_config(oracle_copy, changes, message):
    damage(oracle_copy / "config.json", **changes)
    with pytest.raises(zsc.CheckpointError, match=message):
        zsc.load(oracle_copy)


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "pytorch_model.bin"])
def test_missing_files(oracle_copy, file):
    (oracle_copy / file).unlink()
    with pytest.raises(zsc.CheckpointError, match=file.replace("pytorch_model.bin", "no weights.*pytorch_model.bin")):
        zsc.load(oracle_copy)


@pytest.mark.parametrize("words", ["", "央\n行\n", "[CLS]\n[SEP]\n[PAD]\n"])
def test_vocabulary_without_the_special_tokens(oracle_copy, words):
    (oracle_copy / "vocab.txt").write_text(words, encoding="utf-8")
    with pytest.raises(zsc.CheckpointError, match="vocab.txt"):
        zsc.load(oracle_copy)


def test_vocabulary_larger_than_the_embeddings(oracle_copy):
    with (oracle_copy / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("龘\n靐\n")
    with pytest.raises(zsc.CheckpointError, match="284 tokens, the model 282 embeddings"):
        zsc.load(oracle_copy)


def test_vocabulary_cut_short(oracle_copy):
    file = oracle_copy / "vocab.txt"
    file.write_text("\n".join(file.read_text("utf-8").splitlines()[:200]) + "\n", encoding="utf-8")
    with pytest.raises(zsc.CheckpointError, match="200 tokens, the model 282 embeddings"):
        zsc.load(oracle_copy)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.005, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["pytorch_model.bin", "old pytorch_model.bin", "model.safetensors"])
def test_truncated_weights(oracle, oracle_copy, kind, share):
    file = oracle_copy / kind.split()[-1]
    if kind == "model.safetensors":
        shutil.copy(oracle.folder / kind, file)
    if kind.startswith("old"):
        torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    # an old file that ends within the name of a class looks as if it asked for a strange one
    message = "broken(,| or) cut short" + "|could run code" * kind.startswith("old")
    with pytest.raises(zsc.CheckpointError, match=message):
        zsc.load(oracle_copy)


def test_a_pointer_instead_of_weights(oracle_copy):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 409100000\n"
    (oracle_copy / "pytorch_model.bin").write_text(pointer)
    with pytest.raises(zsc.CheckpointError, match=f"no file of weights .{len(pointer)} bytes."):
        zsc.load(oracle_copy)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("writer", ["zip", "old", "pickle"])
def test_a_pickle_with_code_is_refused_and_does_not_run(oracle_copy, tmp_path, writer):
    file, mark = oracle_copy / "pytorch_model.bin", tmp_path / "ran"
    load = {"bert.embeddings.word_embeddings.weight": Bomb(str(mark))}
    if writer == "pickle":
        file.write_bytes(pickle.dumps(load))
    else:
        torch.save(load, file, _use_new_zipfile_serialization=writer == "zip")
    # of a bare pickle torch reads too little to say what is in it; refused all the same
    message = "no file of weights" if writer == "pickle" else "not opened, for it could run code"
    with pytest.raises(zsc.CheckpointError, match=message):
        zsc.load(oracle_copy)
    assert not mark.exists()


def test_weights_that_are_no_state_dict(oracle_copy):
    torch.save([torch.zeros(2)], oracle_copy / "pytorch_model.bin")
    with pytest.raises(zsc.CheckpointError, match="no dictionary of tensors"):
        zsc.load(oracle_copy)
    torch.save({"x": torch.zeros(2)}, oracle_copy / "pytorch_model.bin")
    with pytest.raises(zsc.CheckpointError, match="holds no BERT"):
        zsc.load(oracle_copy)


def test_an_encoder_without_a_head_is_no_nli_checkpoint(oracle_copy):
    file = oracle_copy / "pytorch_model.bin"
    stored = torch.load(file, weights_only=True)
    torch.save({k: v for k, v in stored.items() if not k.startswith("classifier")}, file)
    with pytest.raises(zsc.CheckpointError, match="holds no classifier"):
        zsc.load(oracle_copy)


@pytest.mark.parametrize("mapping", ['{"正面": 0, "负面": 1}', '{"entailment": 0, "contradiction": 7}', "[1]", "{"])
def test_label_mappings_without_entailment_and_contradiction(oracle_copy, mapping):
    (oracle_copy / "label_mapping.json").write_text(mapping, encoding="utf-8")
    with pytest.raises(zsc.CheckpointError, match="contradiction not found|label_mapping.json is broken"):
        zsc.load(oracle_copy)


@pytest.mark.parametrize("names", ["负面 中性 正面", "体育 财经 科技"])
def test_a_classifier_of_something_else_is_refused(oracle, tmp_path, names):
    oracle.model.save_pretrained(tmp_path)
    oracle.tokenizer.save_pretrained(tmp_path)
    labels = {str(i): name for i, name in enumerate(names.split())}
    damage(tmp_path / "config.json", id2label=labels, label2id={name: int(i) for i, name in labels.items()})
    with pytest.raises(zsc.CheckpointError, match="contradiction not found among 3 classes.*A checkpoint for natural"):
        zsc.load(tmp_path)


def test_chinese_names_of_the_classes(oracle, tmp_path):
    oracle.model.save_pretrained(tmp_path)
    oracle.tokenizer.save_pretrained(tmp_path)
    damage(
        tmp_path / "config.json",
        id2label={"0": "矛盾", "1": "中立", "2": "蕴含"},
        label2id={"矛盾": 0, "中立": 1, "蕴含": 2},
    )
    ckpt = zsc.load(tmp_path)
    assert (ckpt.entailment_id, ckpt.contradiction_id) == (2, 0)


def test_int8_rows_without_a_scale_or_with_a_wrong_shape(mini, tmp_path):
    broken = tmp_path / "mini"
    shutil.copytree(mini.folder, broken)
    stored = load_file(broken / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    save_file({k: v for k, v in stored.items() if k != name + ".scale"}, broken / "model.safetensors")
    with pytest.raises(zsc.CheckpointError, match="no scale, or not a positive one a row, for " + name):
        zsc.load(broken)
    save_file(stored | {name + ".scale": stored[name + ".scale"][:-1]}, broken / "model.safetensors")
    with pytest.raises(zsc.CheckpointError, match="no scale, or not a positive one a row, for " + name):
        zsc.load(broken)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_int8_rows_with_a_scale_that_is_none_are_refused(tmp_path, bad):
    """Read with such a scale, a matrix would be zeros or no numbers, and no score would say why."""
    folder = shutil.copytree(checkpoint.BUNDLED, tmp_path / "mini")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("query.weight.scale"))
    tensors[name][3] = bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(zsc.CheckpointError, match="not a positive one a row"):
        zsc.load(folder)
