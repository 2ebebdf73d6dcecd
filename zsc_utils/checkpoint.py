"""Load weights and tokenizers: all code that needs a checkpoint gets it here, as a `Checkpoint`, by its name.

The name can be a ModelScope id, a folder in ModelScope's or transformers' format, the bundled `mini`, or the generated
`base-shape`. Files are checked before they are read, and no code in them is run.
"""

import copy
import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedTokenizerFast

from zsc_utils._bert import check_shapes, expected_shapes, weightless
from zsc_utils._exports import FORMATS as EXPORTS
from zsc_utils._types import Name
from zsc_utils._weights import WEIGHTS, CheckpointError, stored_bytes, tensor_shapes, weights_file, write_tensors
from zsc_utils.formats import DTYPES, FORMATS, format_of, made_of_any
from zsc_utils.language import translated

BUNDLED = Path(__file__).parent / "data" / "mini"
LOADED_ATTENTIONS = ("sdpa", "eager")
CACHE_VERSION = "2"  # increase it when cache entries are made in a different way
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# classes of ModelScope's zero-shot checkpoints, for folders that do not state their classes
LABEL_IDS = {"entailment": 0, "neutral": 1, "contradiction": 2}
# Keys that are read from config.json. All others are ignored: StructBERT's adv_* settings are for training, and keys
# such as is_decoder would change the model.
CONFIG_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "layer_norm_eps", "initializer_range", "pad_token_id", "num_labels", "id2label", "label2id",
    "kept_layers", "kept_of",  # set by attention.shrink, which removes layers
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of the system when a disk has no room
ROOM = "free some, or set XDG_CACHE_HOME to a folder on a larger disk"
OFFLINE = 'Offline there are "mini" (bundled, trained) and "base-shape" (StructBERT\'s shape, random weights).'


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer and class ids. Functions such as `quantize` take a Checkpoint and return a new one.

    `entailment_id` and `contradiction_id` are columns of the model's logits. `folder` holds the files.
    """

    model: BertForSequenceClassification
    tokenizer: transformers.PreTrainedTokenizerBase
    name: str
    entailment_id: int
    contradiction_id: int
    folder: Path

    def __repr__(self):
        config = self.model.config
        weights = [tensor for name, tensor in self.model.state_dict().items() if not name.endswith("scale")]
        count = sum(tensor.numel() for tensor in weights)
        dtype = torch.int8 if any(tensor.dtype == torch.int8 for tensor in weights) else self.model.dtype
        shape = f"{config.num_hidden_layers} layers x {config.hidden_size}, {count / 1e6:.1f} M parameters"
        return translated(f"Checkpoint({self.name!r}: {shape}, {dtype}, {config._attn_implementation})")


@dataclass(frozen=True)
class Source:
    """A checkpoint that is found and checked, but whose weights are not read yet; `resolve` returns it.

    `folder` holds files in one of FORMATS. `stored_bytes` is the size of the weights in bytes.
    """

    name: str
    folder: Path
    config: BertConfig = field(repr=False)
    stored_bytes: int


def load(name: Name | Source, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Checkpoint:
    """Return the Checkpoint with this name, in eval mode, on the CPU.

    `name` is "mini", "base-shape", a local folder in ModelScope's or transformers' format, or a ModelScope id such as
    "damo/nlp_structbert_zero-shot-classification_chinese-base". `dtype` is torch.float32, float16, bfloat16, or int8.
    Weights become int8 during reading, so the full fp32 weights are never in memory. `attention` is "sdpa" or "eager".
    fp32 weights are memory-mapped, except those of "mini", which are stored in int8 and unpacked. A folder saved in
    another precision (zsc_utils.quantization) keeps it. Raises CheckpointError if the checkpoint cannot be found, is
    broken, or contains code.
    """
    if dtype not in DTYPES.values():
        raise CheckpointError(f"dtype {dtype!r}: weights come as torch.float32, float16, bfloat16 or int8")
    if attention not in LOADED_ATTENTIONS:
        raise CheckpointError(f"attention {attention!r}: choose one of {', '.join(LOADED_ATTENTIONS)}")
    source = resolve(name)
    config = copy.deepcopy(source.config)  # the model keeps and changes it
    form = made_of_any(dtype) or format_of(config)
    with quiet_transformers():
        model = form.read(source.folder, config, dtype=dtype, attn_implementation=attention)
    return opened(source, model)


def opened(source, model):
    """Return the Checkpoint of a model that was made from a Source."""
    tokenizer, ids = read_tokenizer(source.folder, source.config), label_ids(source.folder, source.config)
    return Checkpoint(model.eval(), tokenizer, source.name, *ids, source.folder)


# ---------------------------------------------------------------- from a name to a folder that can be read as it is


def find(name: Name | Source) -> Path:
    """Return the folder of a checkpoint, with weights in one of FORMATS. Builds or downloads it if needed."""
    return resolve(name).folder


def resolve(name: Name | Source) -> Source:
    """Return the Source of a name, so that its files are looked up only once. A Source is returned as it is.

    Builds, downloads or converts the checkpoint if needed. Raises CheckpointError as `load` does.
    """
    if isinstance(name, Source):
        return name
    folder, config = located(name)
    return Source(str(name), folder, config or read_config(folder), stored_bytes(folder))


def located(name):
    """Return (the folder of a name, its config if it was already read, else None)."""
    if not isinstance(name, str | os.PathLike) or not str(name).strip():
        raise CheckpointError(f"checkpoint {name!r}: give a name or a folder. {OFFLINE}")
    if name == "mini":
        return BUNDLED, None
    if name == "base-shape":
        return cached("base-shape", build_base_shape), None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return readable(folder.resolve())
    if folder.exists():
        raise CheckpointError(f"{name} is a file; name the folder that holds config.json and the weights")
    if isinstance(name, str) and re.fullmatch(r"[\w-]+/[\w.-]+", name):
        return cached("hub--" + name.replace("/", "--"), lambda target: convert(download(name), target)), None
    raise CheckpointError(f"checkpoint {name!r}: no such folder, and not a ModelScope id (owner/name). {OFFLINE}")


def download(name):
    """Return the folder of a ModelScope id, downloaded with ModelScope's own client, which shows its progress."""
    from modelscope import snapshot_download  # imported here: only this function needs it

    try:
        return Path(snapshot_download(name))
    except Exception as error:  # the client's errors share no base class; the message below includes the error
        with suppress(Exception):  # without network, use the client's earlier download
            return Path(snapshot_download(name, local_files_only=True))
        raise CheckpointError(
            f"checkpoint {name!r} is no folder here and could not be downloaded from ModelScope (no network?): "
            f"{error}. {OFFLINE}"
        ) from error


def readable(folder):
    """Return (`folder`, its config) if it can be read as it is, else (its converted copy in the cache, None)."""
    config = read_config(folder)
    if format_of(config) is not FORMATS[0]:
        return folder, config
    weights = weights_file(folder)
    if weights.suffix == ".safetensors" and tensor_shapes(weights) == expected_shapes(config):
        return folder, config
    return cached(f"folder--{folder.name}--{folder_stamp(folder)}", lambda target: convert(folder, target)), None


def stored_as(folder, dtype):
    """Return a folder in the cache with the same checkpoint stored in `dtype`. It is written only once."""
    form = made_of_any(dtype)
    return cached(
        f"{form.precision}--{folder.name}--{folder_stamp(folder)}", lambda target: store(folder, form, target)
    )


def store(source, form, folder):
    """Write the checkpoint in folder `source` to a new `folder` in a Format, with one tensor in memory at a time."""
    config = read_config(source)
    folder.mkdir()
    form.store(weights_file(source), config, folder / WEIGHTS[0])
    write_beside(folder, source, config, form, label_ids(source, config))


def write_beside(folder, source, config, form, ids):
    """Write the files of a folder other than the weights: config, tokenizer files, ids of the two classes."""
    config = config.to_dict() | {"zsc_format": form.name}
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    for file in TOKENIZER_FILES:
        if (source / file).is_file():
            shutil.copy(source / file, folder / file)
    ids = dict(zip(("entailment", "contradiction"), ids))
    (folder / "label_mapping.json").write_text(json.dumps(ids) + "\n", encoding="utf-8")
    read_tokenizer(folder, read_config(folder))


def folder_stamp(folder):
    """Return a hash of a folder's path and of its files' names, sizes and modification times."""
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.*"))]
    return hashlib.sha256(repr((str(folder), stamps)).encode()).hexdigest()[:16]


def cached(key, build):
    """Return the folder of the cache entry `key`. `build(folder)` makes a new entry, which is moved into the cache only
    when it is complete. Both are in one folder, so a cache that is a link to another disk works."""
    folder = cache_folder()
    entry = folder / key
    with writing(folder):
        if entry.is_dir():
            return entry
        building = tempfile.TemporaryDirectory(prefix="building-", dir=folder)
    with building as scratch:
        try:
            build(Path(scratch) / "entry")
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            raise CheckpointError(f"no room for {key} in the cache {folder} ({error}); {ROOM}") from error
        with writing(folder):
            try:
                os.rename(Path(scratch) / "entry", entry)
            except OSError:
                if not entry.is_dir():  # otherwise another process has just made the same entry
                    raise
    return entry


def cache_folder():
    """Return the cache folder, created if needed. It holds converted checkpoints and temporary data."""
    try:
        folder = Path(platformdirs.user_cache_dir("zsc_utils")) / CACHE_VERSION
    except RuntimeError as error:
        raise CheckpointError(f"no home folder, so no cache ({error}); set XDG_CACHE_HOME to a folder") from error
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def writing(folder):
    """Turn an error of the system into a CheckpointError that says what to do about the cache `folder`."""
    try:
        yield
    except OSError as error:
        way = ROOM if is_full(error) else "set XDG_CACHE_HOME to a folder of yours"
        raise CheckpointError(f"the cache {folder} cannot be written ({error}); {way}") from error


def is_full(error):
    """Return whether an error says that a disk is full or allows no file of that size. safetensors gives only text."""
    return getattr(error, "errno", None) in FULL or any(f"os error {code}" in str(error) for code in FULL)


def convert(source, target):
    """Write `source` to `target` in transformers' format: BERT's config and names, weights as safetensors."""
    config = read_config(source)
    weights = weights_file(source)
    state = bert_names(read_state(weights), weights)
    config.num_labels = len(state["classifier.bias"])
    label_ids(source, config)
    names = {i: label for label, i in stated_labels(source, config).items()}
    config.id2label = {i: names.get(i, f"class {i}") for i in range(config.num_labels)}
    config.label2id = {label: i for i, label in config.id2label.items()}
    check_shapes({name: tuple(tensor.shape) for name, tensor in state.items()}, config, weights)
    target.mkdir()
    config.save_pretrained(target)
    save_file({k: v.contiguous() for k, v in state.items()}, target / "model.safetensors", metadata={"format": "pt"})
    for file in TOKENIZER_FILES:
        if (source / file).is_file():
            shutil.copy(source / file, target / file)
    read_tokenizer(target, config)


# ------------------------------------------------------------------------------------------------- configuration


def read_config(folder):
    """Return `config.json` as a BertConfig; its `zsc_format` names the Format of the weights."""
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} holds no config.json: it is not a checkpoint folder")
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        kind = stated.pop("model_type", "structbert")
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file} is broken: {error}. Fetch the checkpoint anew") from error
    if kind not in ("bert", "structbert"):
        raise CheckpointError(f"{file} says model_type {kind!r}: only bert and structbert are read here")
    if stated.get("zsc_format") in EXPORTS:
        raise CheckpointError(f"{folder} is an export, which runs without torch: give it to ZeroShotClassifier")
    known = sorted(form.name for form in FORMATS)
    if stated.setdefault("zsc_format", FORMATS[0].name) not in known:
        raise CheckpointError(f"{file} says zsc_format {stated['zsc_format']!r}: this version reads {', '.join(known)}")
    heads, hidden = stated.get("num_attention_heads", 12), stated.get("hidden_size", 768)
    if isinstance(heads, int) and isinstance(hidden, int) and heads > 0 and hidden % heads:
        raise CheckpointError(f"{file}: hidden_size {hidden} is no multiple of {heads} attention heads")
    try:
        config = BertConfig(**{key: stated[key] for key in CONFIG_KEYS if key in stated})
        weightless(config)  # raises if no model can be built from the config
        sizes = {key: getattr(config, key) for key in CONFIG_KEYS if key.endswith(("_size", "hidden_layers", "_heads"))}
        wrong = [f"{key} = {value!r}" for key, value in sizes.items() if type(value) is not int or value < 1]
    except Exception as error:  # transformers and torch validate with several kinds of error
        raise CheckpointError(f"{file} is broken: {error}. Fetch the checkpoint anew") from error
    if wrong:
        raise CheckpointError(f"{file} is broken: {', '.join(wrong)} should be a positive whole number")
    check_kept(config, file)
    config.zsc_format = stated["zsc_format"]
    return config


def check_kept(config, file):
    """Raise if `kept_layers`, set by attention.shrink, is not a list of rising layer numbers, one for each layer."""
    kept, count = getattr(config, "kept_layers", None), getattr(config, "kept_of", None)
    whole = range(count) if type(count) is int else ()
    fits = isinstance(kept, list) and len(kept) == config.num_hidden_layers and kept == [k for k in whole if k in kept]
    if not fits and (kept, count) != (None, None):
        raise CheckpointError(
            f"{file} is broken: kept_layers {kept!r} of {count!r} are not {config.num_hidden_layers} rising numbers"
        )


def stated_labels(folder, config):
    """Return a folder's class ids, {lower-case label: id}; ModelScope's ids if the folder names no classes."""
    mapping = folder / "label_mapping.json"
    if mapping.is_file():
        try:
            stated = json.loads(mapping.read_text(encoding="utf-8"))
            return {str(label).lower(): int(i) for label, i in stated.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{mapping} is broken: {error}; it should map each class to its number") from error
    stated = {str(label).lower(): int(i) for label, i in (config.label2id or {}).items()}
    if all(re.fullmatch(r"label_\d+", label) for label in stated):  # transformers' default names
        return {2: {"entailment": 0, "contradiction": 1}, 3: LABEL_IDS}.get(config.num_labels, stated)
    return stated


def label_ids(folder, config):
    """Return (entailment id, contradiction id), checked against the number of classes."""
    labels = stated_labels(folder, config)
    entailment = [i for label, i in labels.items() if label.startswith(("entail", "蕴含", "蕴涵"))]
    contradiction = [i for label, i in labels.items() if label.startswith(("contr", "not", "non", "矛盾"))]
    ids = entailment[:1] + contradiction[:1]
    if len(set(ids)) < 2 or not all(0 <= i < config.num_labels for i in ids):
        raise CheckpointError(
            f"{folder}: entailment and contradiction not found among {config.num_labels} classes {labels}. "
            "A checkpoint for natural-language inference is needed"
        )
    return tuple(ids)


def read_tokenizer(folder, config):
    """Return the fast tokenizer of a folder, from tokenizer.json or, if there is none, from vocab.txt."""
    file = next((folder / f for f in ("tokenizer.json", "vocab.txt") if (folder / f).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder} holds neither vocab.txt nor tokenizer.json: without one no text can be read")
    kind = PreTrainedTokenizerFast if file.suffix == ".json" else BertTokenizer
    try:
        # token types mark the hypothesis; a tokenizer that was not saved as a BERT tokenizer would omit them
        tokenizer = kind.from_pretrained(folder, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    except Exception as error:  # tokenizers raises a bare Exception
        raise CheckpointError(f"{file} is broken: {error}. Fetch the checkpoint anew") from error
    special = {tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token, tokenizer.unk_token}
    # check the lines of vocab.txt: a tokenizer adds missing tokens at the end, where the model has no embedding
    words = file.read_text(encoding="utf-8").splitlines() if kind is BertTokenizer else tokenizer.get_vocab()
    if None in special or not special.issubset(words):
        raise CheckpointError(f"{file} lacks special tokens such as [CLS] or [PAD]. Fetch the checkpoint anew")
    if not 0.95 * config.vocab_size <= len(words) <= config.vocab_size:  # some models pad their embeddings
        raise CheckpointError(f"{file} has {len(words)} tokens, the model {config.vocab_size} embeddings: not its own")
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)
    return tokenizer


# ------------------------------------------------------------------------------------------------------- weights


def read_state(file):
    """Return {name: tensor} of a weights file, memory-mapped if possible. From a pickle, only tensors are loaded."""
    if file.suffix == ".safetensors":
        tensor_shapes(file)
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip(file))
    except Exception as error:  # a broken pickle can raise almost anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{file} holds more than tensors and was not opened, for it could run code. "
                "Use weights from a source you trust, as safetensors"
            ) from error
        raise CheckpointError(
            f"{file} is broken, cut short, or no file of weights ({file.stat().st_size} bytes): {error}. "
            "Fetch the checkpoint anew"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{file} holds no dictionary of tensors, so no weights")
    return state


def is_zip(file):
    """Return whether the file is in torch's zip format. The older format cannot be memory-mapped."""
    with file.open("rb") as start:
        return start.read(2) == b"PK"


def bert_names(state, file):
    """Return tensors under transformers' names: the encoder's prefix becomes `bert.`; buffers are left out."""
    stem = "embeddings.word_embeddings.weight"
    prefix = next((p for p in ("bert.", "encoder.", "") if p + stem in state), None)
    if prefix is None:
        raise CheckpointError(f"{file} holds no BERT: no tensor is named [bert.|encoder.]{stem}")
    renamed = {}
    for name, tensor in state.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(("classifier.", "head.classifier.")):
            name = "bert." + inner
        name = name.removeprefix("head.").replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not name.endswith("position_ids"):
            renamed[name] = tensor
    if renamed.get("classifier.bias") is None or renamed["classifier.bias"].ndim != 1:
        raise CheckpointError(f"{file} holds no classifier: it is an encoder, not a trained NLI checkpoint")
    return renamed


def check_loaded(checkpoint):
    """Raise ValueError if not all weights are in memory, because no new checkpoint can be made from them."""
    if any(tensor.is_meta for tensor in checkpoint.model.parameters()):
        raise ValueError(
            f"the weights of {checkpoint.name!r} are not all in memory (layers are streamed or offloaded), so they "
            "cannot be changed or saved: use zsc_utils.load; or name their precision to stream_layers, as its dtype"
        )


@contextmanager
def quiet_transformers():
    """Hide transformers' progress bar while weights are mapped, which takes almost no time."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


# ---------------------------------------------------------------------------------------------------- base-shape


def base_shape_vocabulary():
    """Return 21,128 tokens, as StructBERT has: special tokens, ASCII, Chinese punctuation, U+4E00 to U+9FFF."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    plain = [chr(i) for i in range(33, 127) if not chr(i).isupper()]
    inside_words = ["##" + c for c in plain if c.isalnum()]
    punctuation = list("，。！？、；：“”‘’（）《》【】…—·「」『』～￥％")
    characters = [chr(i) for i in range(0x4E00, 0xA000)]
    return specials + plain + inside_words + punctuation + characters


def build_base_shape(target):
    """Write a checkpoint of StructBERT-base's shape with seeded random weights: its size and speed, useless scores."""
    vocabulary = base_shape_vocabulary()
    config = BertConfig(vocab_size=len(vocabulary), num_labels=3, id2label={i: k for k, i in LABEL_IDS.items()})
    config.label2id, config.architectures = LABEL_IDS, [BertForSequenceClassification.__name__]
    shapes = expected_shapes(config)
    random = torch.Generator().manual_seed(0)
    target.mkdir()
    write_tensors(
        target / "model.safetensors",
        {name: ("F32", shape) for name, shape in shapes.items()},
        lambda name: random_weights(name, shapes[name], config.initializer_range, random),
    )
    config.save_pretrained(target)
    (target / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def random_weights(name, shape, deviation, random):
    """Yield BERT's initial weights of a tensor; matrices in parts of 512 rows, to keep memory use small."""
    if name.endswith("bias"):
        yield torch.zeros(shape)
    elif "LayerNorm" in name:
        yield torch.ones(shape)
    else:
        for start in range(0, shape[0], 512):
            yield torch.empty(min(512, shape[0] - start), *shape[1:]).normal_(0, deviation, generator=random)
