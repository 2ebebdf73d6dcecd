"""What needs a CUDA GPU, in one run of at most 8 minutes on an H100: speed, memory, streaming, the article's table.

python benchmarks/gpu.py [--output FILE] [--device cuda|cpu] [--small]. Speed and memory are those of base-shape, for 72
texts of 10 to 120 characters x 9 labels. Answers are those of `mini`, which is trained. Ways take turns; medians are
recorded. The record is written after every section. A section that fails leaves its error there, and the rest goes on;
the exit status is then 1, as it is when answers differ that must not. `--small --device cpu` tries the script itself in
seconds: its figures say nothing, and those that only CUDA has are null, with the reason.
"""

import argparse
import copy
import gc
import itertools
import json
import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import machine
import torch
import transformers
from batching import workload
from tqdm import tqdm

import zsc_utils as zsc
from zsc_utils import checkpoint as door
from zsc_utils import inference, memory, offloading, quantization, samples
from zsc_utils.checkpoint import Checkpoint

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ROOT = Path(__file__).parent.parent
SMALL = ROOT / "tests" / "data" / "oracle" / "checkpoint"  # 2 layers of 48
BASELINE = "pipeline fp32, default"
NO_CUDA = "only CUDA has this figure, and this run was on the CPU"
CLOSE = {"fp32": 1e-5, "fp16": 1e-2}  # how near scores of streamed layers are to those of resident ones

Classify = Callable[[list[str], list[str]], list[dict]]

# ------------------------------------------------------------------------------------------------------------- setting


@dataclass(frozen=True)
class Setting:
    """How much is measured: all of it, or as little as tries the script.

    `checkpoint` is that of speed, memory and scores, `trained` that of the answers in the article's table.
    `token_budgets`: of our batches, beside the default. `batches` of texts of `length` tokens are for attention.
    `blocks`: tokens that pass a streamed layer together, beside the default. The tokens at which texts are `cut`, and
    of the test set each `every`-th headline and so many `long_texts` (number, characters), are for the article's table.
    """

    device: str
    small: bool
    checkpoint: str
    trained: str
    texts: list[str]
    labels: list[str]
    turns: int
    batch_sizes: tuple[int, ...]
    token_budgets: tuple[int, ...]
    batches: tuple[int, ...]
    length: int
    blocks: tuple[int, ...]
    cut: int
    every: int
    long_texts: tuple[int, int]

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def answers_in_16_bits(self) -> bool:
        """Whether best labels mean something in 16 bits; base-shape's random weights score all labels alike."""
        return self.checkpoint != "base-shape"


def setting_for(device: str, small: bool) -> Setting:
    """The Setting for a device, small or whole."""
    texts, labels = workload()
    if small:
        return Setting(
            device, small, str(SMALL), str(SMALL), sorted(texts, key=len)[:3], labels[:3], turns=2,
            batch_sizes=(2,), token_budgets=(256,), batches=(2,), length=64, blocks=(64,), cut=16, every=156,
            long_texts=(1, 60),
        )  # fmt: skip
    return Setting(
        device, small, "base-shape", "mini", repeated(texts, 3), labels, turns=3, batch_sizes=(8, 32, 128),
        token_budgets=(4_096, 65_536), batches=(8, 32), length=512, blocks=(8_192,), cut=64, every=3,
        long_texts=(60, 120),
    )  # fmt: skip


def repeated(texts: Sequence[str], times: int) -> list[str]:
    """Each text several times, rotated by a character each time: the classifier computes equal texts only once."""
    return [text[turn:] + text[:turn] for turn in range(times) for text in texts]


# ---------------------------------------------------------------------------------------------------------------- ways


@dataclass(frozen=True)
class Way:
    """A way to classify: the pipeline of transformers with a `batch_size`, or ours where it is None.

    `max_tokens` of our batches is the default where it is None; so is `cut`, the tokens at which texts are cut.
    """

    precision: str
    batch_size: int | None = None
    max_tokens: int | None = None
    cut: int | None = None

    @property
    def name(self) -> str:
        engine = "ours" if self.batch_size is None else "pipeline"
        options = [
            "default" if self.batch_size == 1 else self.batch_size and f"batch_size={self.batch_size}",
            self.max_tokens and f"{self.max_tokens:,} tokens a batch",
            self.cut and f"cut at {self.cut} tokens",
        ]
        return ", ".join([f"{engine} {self.precision}", *filter(None, options)])

    def of(self, checkpoint: Checkpoint) -> Classify:
        """The function that classifies with a checkpoint in this way: (texts, labels) -> results."""
        if self.cut is not None:
            checkpoint = replace(checkpoint, tokenizer=copy.deepcopy(checkpoint.tokenizer))
            checkpoint.tokenizer.model_max_length = self.cut
        if self.batch_size is None:
            return zsc.ZeroShotClassifier(checkpoint, max_tokens=self.max_tokens)
        model, tokenizer = checkpoint.model, checkpoint.tokenizer
        pipeline = transformers.pipeline(
            "zero-shot-classification", model=model, tokenizer=tokenizer, device=model.device
        )
        return lambda texts, labels: pipeline(texts, labels, hypothesis_template="{}", batch_size=self.batch_size)


def ways(setting: Setting) -> list[Way]:
    """The ways whose speeds and peaks are compared."""
    found = []
    for precision in DTYPES:
        found += [Way(precision, batch_size=size) for size in (1, *setting.batch_sizes)]
        found += [Way(precision, max_tokens=tokens) for tokens in (None, *setting.token_budgets)]
    return found


def on_device(setting: Setting, precision: str, name: str | None = None) -> Checkpoint:
    """A checkpoint, by default that of the setting, on its device."""
    checkpoint = zsc.load(name or setting.checkpoint, dtype=DTYPES[precision])
    checkpoint.model.to(setting.device)
    return checkpoint


def opened(setting: Setting, chosen: Iterable[Way], name: str | None = None) -> dict[str, Classify]:
    """{name: function that classifies} of some ways; those of one precision share their weights."""
    chosen = list(chosen)
    loaded = {
        precision: on_device(setting, precision, name) for precision in dict.fromkeys(way.precision for way in chosen)
    }
    return {way.name: way.of(loaded[way.precision]) for way in chosen}


# ----------------------------------------------------------------------------------------------------------- measuring


def steps(items: Iterable, what: str) -> tqdm:
    """The items with a bar for them, which goes when they are done."""
    return tqdm(list(items), desc=what, leave=False)


def wait(setting: Setting) -> None:
    """Wait until the device has done what it was given."""
    if setting.on_cuda:
        torch.cuda.synchronize()


def release(setting: Setting) -> None:
    """Let go of what nobody uses on a GPU."""
    if setting.on_cuda:
        gc.collect()
        torch.cuda.empty_cache()
        wait(setting)


def wake(setting: Setting) -> None:
    """One product each in 32 and 16 bits, so that cuBLAS has its workspace before anything is measured."""
    if setting.on_cuda:
        for dtype in DTYPES.values():
            torch.nn.Linear(64, 64, device=setting.device, dtype=dtype)(
                torch.ones(64, 64, device=setting.device, dtype=dtype)
            )
        wait(setting)


def timed(setting: Setting, work: Callable) -> tuple[float, object]:
    """(seconds, result) of a function."""
    wait(setting)
    start = time.perf_counter()
    result = work()
    wait(setting)
    return time.perf_counter() - start, result


def interleaved(setting: Setting, found: dict[str, Classify], what: str) -> tuple[dict, dict]:
    """({name: seconds of each turn}, {name: results}) of functions that take turns, each warm."""
    seconds, results = {name: [] for name in found}, {}
    for classify in steps(found.values(), f"{what}: warming up"):
        classify(setting.texts[:24], setting.labels)
    for _, name in steps(itertools.product(range(setting.turns), found), what):
        took, results[name] = timed(setting, lambda name=name: found[name](setting.texts, setting.labels))
        seconds[name].append(took)
    return seconds, results


def alone(setting: Setting, load: Callable[[], Classify]) -> dict:
    """The peaks of a way that is loaded and classifies while nothing else is on the device, in bytes.

    `allocated_before`, cuBLAS's workspace mostly, is part of both peaks. `device_used` is what the device has not free
    after the work, with the context of CUDA and whatever other processes hold.
    """
    release(setting)
    if not setting.on_cuda:
        load()(setting.texts, setting.labels)
        empty = dict.fromkeys(("allocated_before", "peak_allocated", "peak_reserved", "device_used"))
        return empty | {"reason": NO_CUDA}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    classify = load()
    classify(setting.texts, setting.labels)
    wait(setting)
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_before": before,
        "peak_allocated": torch.cuda.max_memory_allocated(),
        "peak_reserved": torch.cuda.max_memory_reserved(),
        "device_used": total - free,
    }


def compared(results: list[dict], others: list[dict]) -> dict:
    """How far results agree with others: `same_answers`, a share, and `largest_difference` of scores."""
    try:
        found = quantization.agreement(results, others)
    except ValueError as error:  # scores that are no numbers, as fp16 may give
        return {"same_answers": None, "largest_difference": None, "reason": str(error)}
    return {"same_answers": round(found.share, 4), "largest_difference": found.largest_difference}


def ratio(seconds: dict[str, list[float]], name: str, baseline: str) -> float:
    """How many times as fast as the baseline a way is: the median over the turns."""
    return round(statistics.median(b / own for own, b in zip(seconds[name], seconds[baseline])), 3)


# ------------------------------------------------------------------------------------------------------------ hardware


def hardware(setting: Setting) -> dict:
    """The device, versions and date; nothing of it names the machine."""
    found = machine.described() | {"python": platform.python_version(), "device": setting.device}
    facts = ("compute_capability", "total_memory", "driver", "cuda", "cudnn")
    if not setting.on_cuda:
        return found | {"name": "CPU"} | dict.fromkeys(facts) | {"reason": NO_CUDA}
    device = torch.cuda.get_device_properties(0)
    capability, cudnn = f"{device.major}.{device.minor}", torch.backends.cudnn.version()
    values = capability, device.total_memory, driver(), torch.version.cuda, cudnn
    own = {"name": device.name, "products_in_fp32": torch.get_float32_matmul_precision()}
    return found | own | dict(zip(facts, values))


def driver() -> str | None:
    """The version of NVIDIA's driver; None where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None


# --------------------------------------------------------------------------------------------------------------- speed


def speed(setting: Setting) -> dict:
    """Ours and the pipeline in three precisions: texts a second, ratios, and the best labels.

    `speed` is the ratio to the pipeline's default in fp32, `speed_same_precision` to its default in the same precision,
    `speed_to_best_batch` to the fastest that the pipeline does in that precision.
    """
    chosen = ways(setting)
    seconds, results = interleaved(setting, opened(setting, chosen), "speed")
    rows = {way.name: speed_row(setting, way, seconds, results) for way in chosen}
    best = {precision: best_batch(chosen, seconds, precision) for precision in DTYPES}
    for way in chosen:
        rows[way.name]["speed_to_best_batch"] = ratio(seconds, way.name, best[way.precision])
    differ = [name for name, row in rows.items() if row["must_agree"] and row["same_answers"] != 1]
    return {
        "texts": len(setting.texts), "labels": len(setting.labels), "turns": setting.turns,
        "rows": rows, "best_batch": best, "wrong": [f"{name}: other best labels than {BASELINE}" for name in differ],
    }  # fmt: skip


def speed_row(setting: Setting, way: Way, seconds: dict, results: dict) -> dict:
    """The figures of one way; random weights score labels alike, so that of their answers only those in fp32 count."""
    same = compared(results[way.name], results[BASELINE])
    if way.precision != "fp32" and not setting.answers_in_16_bits and "reason" not in same:
        same |= {"same_answers": None, "reason": "random weights score all labels alike: in 16 bits it says nothing"}
    return {
        "seconds": round(statistics.median(seconds[way.name]), 4),
        "texts_per_second": round(statistics.median(len(setting.texts) / took for took in seconds[way.name]), 2),
        "speed": ratio(seconds, way.name, BASELINE),
        "speed_same_precision": ratio(seconds, way.name, Way(way.precision, batch_size=1).name),
        "must_agree": way.precision == "fp32",
        **same,
    }


def best_batch(chosen: list[Way], seconds: dict, precision: str) -> str:
    """The name of the pipeline's fastest way in a precision."""
    names = [way.name for way in chosen if way.precision == precision and way.batch_size is not None]
    return min(names, key=lambda name: statistics.median(seconds[name]))


# --------------------------------------------------------------------------------------------------------------- peaks


def peaks(setting: Setting) -> dict:
    """What torch's allocator hands out and reserves at most for each way, alone; and what empty_cache gives back."""
    rows = {}
    for way in steps(ways(setting), "peaks"):
        rows[way.name] = alone(setting, lambda way=way: way.of(on_device(setting, way.precision)))
        rows[way.name]["weights"] = weights(setting, way.precision)
    return {"rows": rows, "empty_cache": emptied(setting)}


def weights(setting: Setting, precision: str) -> int:
    """Bytes of the weights, from the config."""
    config = door.read_config(door.find(setting.checkpoint))
    return sum(memory.parameters(config).values()) * DTYPES[precision].itemsize


def emptied(setting: Setting) -> dict:
    """Bytes allocated, reserved and used of the device before and after empty_cache, while the model stays; and the
    seconds of the same work warm, and after it, when the memory must be asked for anew."""
    if not setting.on_cuda:
        return {"before": None, "after": None, "seconds_warm": None, "seconds_after": None, "reason": NO_CUDA}
    release(setting)
    classify = Way("fp32").of(on_device(setting, "fp32"))
    classify(setting.texts, setting.labels)
    warm, _ = timed(setting, lambda: classify(setting.texts, setting.labels))
    before = held()
    torch.cuda.empty_cache()
    after = held()
    again, _ = timed(setting, lambda: classify(setting.texts, setting.labels))
    return {"before": before, "after": after, "seconds_warm": round(warm, 4), "seconds_after": round(again, 4)}


def held() -> dict[str, int]:
    """What torch's allocator has handed out, what it has reserved, and what the device has not free, in bytes."""
    free, total = torch.cuda.mem_get_info()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    return {"allocated": allocated, "reserved": reserved, "device_used": total - free}


# ----------------------------------------------------------------------------------------------------------- attention


def attention(setting: Setting) -> dict:
    """SDPA beside eager attention, in the model's own forward pass and in ours: peak bytes, predicted, and seconds.

    `counted` is what a pass takes beyond the weights and its input, `predicted` what memory.predict says of BERT's own
    and inference.predict of ours. The predictions are for CPUs: CUDA rounds each tensor up to 512 bytes.
    """
    rows = {}
    for precision in ("fp32", "fp16"):
        loaded = on_device(setting, precision)
        for kind, batch in steps(itertools.product(("sdpa", "eager"), setting.batches), f"attention, {precision}"):
            model = zsc.attention.use(loaded, kind).model
            for whose, forward in forwards(setting, model, batch).items():
                row = forward_row(setting, forward)
                predicted = predictions(setting, model.config, kind, batch)[whose] if precision == "fp32" else None
                row["predicted"] = predicted
                if predicted is None:
                    row["reason"] = "in 16 bits the prediction asks this CPU for workspaces that a GPU does not take"
                rows[f"{whose}, {precision}, {kind}, {batch} x {setting.length}"] = row
    return {"rows": rows}


def forwards(setting: Setting, model: torch.nn.Module, batch: int) -> dict[str, Callable]:
    """{whose: function that runs the pass} over a batch of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (batch, setting.length), generator=generator).to(setting.device)
    types, mask, groups = torch.zeros_like(ids), torch.ones_like(ids), [(batch, setting.length)]

    def own():
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    return {"BERT's own": own, "ours": lambda: inference.logits(model, ids.flatten(), types.flatten(), groups)}


def forward_row(setting: Setting, forward: Callable) -> dict:
    """Bytes and seconds of one pass, once it is warm."""
    forward()
    release(setting)
    counted = memory.tensor_peak(forward, device=setting.device)
    reserved = torch.cuda.max_memory_reserved() if setting.on_cuda else None
    took = statistics.median(timed(setting, forward)[0] for _ in range(2 * setting.turns))
    why = {} if setting.on_cuda else {"peak_reserved_reason": NO_CUDA}
    return {"counted": counted, "peak_reserved": reserved, "seconds": round(took, 5)} | why


def predictions(setting: Setting, config: object, kind: str, batch: int) -> dict[str, int]:
    """The bytes of activations that are predicted for a pass in fp32."""
    tokens = inference.filled(batch * setting.length) if setting.on_cuda else inference.CHUNK_TOKENS
    groups = [(batch, setting.length)]
    return {
        "BERT's own": memory.predict(config, batch, setting.length, attention=kind).peak_activations,
        "ours": inference.predict(config, groups, attention=kind, chunk=tokens).peak_activations,
    }


# ----------------------------------------------------------------------------------------------------------- streaming


def streaming(setting: Setting) -> dict:
    """Layers streamed to the device beside resident ones: peaks, seconds, and scores, which must be the same."""
    rows = {}
    for precision in CLOSE:
        for block in (None, *setting.blocks) if precision == "fp32" else (None,):
            name = f"{precision}, {f'blocks of {block:,} tokens' if block else 'default blocks'}"
            rows[name] = streamed_row(setting, precision, block, f"streaming, {name}")
    far = [name for name, row in rows.items() if not row["close"]]
    return {"rows": rows, "wrong": [f"{name}: other scores than with resident layers" for name in far]}


def streamed_row(setting: Setting, precision: str, block: int | None, what: str) -> dict:
    """The figures of streamed layers beside those of resident ones, in turns."""

    def resident():
        return Way(precision).of(on_device(setting, precision))

    def streamed():
        return Way(precision).of(
            offloading.stream_layers(setting.checkpoint, dtype=DTYPES[precision], device=setting.device, block=block)
        )

    both = {"resident": resident, "streamed": streamed}
    found = {name: alone(setting, load) for name, load in both.items()}
    seconds, results = interleaved(setting, {name: load() for name, load in both.items()}, what)
    for name, took in seconds.items():
        found[name]["seconds"] = round(statistics.median(took), 4)
    same = compared(results["streamed"], results["resident"])
    close = same["largest_difference"] is not None and same["largest_difference"] <= CLOSE[precision]
    return found | {"speed": ratio(seconds, "streamed", "resident"), "close": close, **same}


# ------------------------------------------------------------------------------------------------- the article's table

# row: (way, what it means here, what the article says of memory, speed and accuracy)
ARTICLE = {
    "original": (Way("fp32", batch_size=1), "the pipeline in fp32, one pair at a time", ("3.2 GB", 1.0, 1.0)),
    "fp16": (Way("fp16", batch_size=1), "the same in fp16", ("1.8 GB", 1.3, 0.998)),
    "dynamic batching": (Way("fp16"), "ours in fp16, batches under a budget of tokens", ("1.2 GB", 1.5, 0.998)),
    "sequence length": (Way("fp16"), "ours in fp16, and texts are cut", ("0.9 GB", 1.8, 0.995)),
}
LEFT_OUT = {
    "the GB of an RTX 3080": "it is another card: bytes are those of this one",
    "accuracy on the article's texts": "it names no texts and no measure. Here it is the share of texts with the best "
    "label of the original, and the share that is right, on the committed test set",
    "accuracy of the real checkpoint": "its weights are not here, base-shape's are random: answers are those of mini",
    "texts cut at 128 tokens, as in the article's program": "no text here is longer: nothing would change",
    "int8": "the table has no row for it, and it runs on CPUs only",
}


def article(setting: Setting) -> dict:
    """The rows of the article's table (section 7), each with the levers of those above it, as they are measured here.

    `memory` is what the allocator handed out at most, beyond what was there before; `speed` and `memory_share` are
    ratios to the original. `together` are those of the last row, where all levers are pulled.
    """
    chosen, rows = {row: way for row, (way, *_) in ARTICLE.items()}, {}
    chosen["sequence length"] = replace(chosen["sequence length"], cut=setting.cut)
    with warnings.catch_warnings(action="ignore"):  # that texts are cut
        for row, way in steps(chosen.items(), "article: peaks"):
            rows[row] = alone(setting, lambda way=way: way.of(on_device(setting, way.precision)))
        seconds, _ = interleaved(setting, opened(setting, chosen.values()), "article: speed")
        answers = article_answers(setting, chosen)
    for row, way in chosen.items():
        _, means, (size, fast, kept) = ARTICLE[row]
        rows[row] |= {"speed": ratio(seconds, way.name, chosen["original"].name), **answers[row], "way": way.name}
        rows[row] |= {"means": means, "article": {"memory": size, "speed": fast, "accuracy": kept}}
        rows[row] |= memory_share(rows[row], rows["original"])
    together = {key: rows["sequence length"][key] for key in ("memory_share", "speed")}
    together |= {} if setting.on_cuda else {"reason": NO_CUDA}
    together["article"] = {"memory_share": 0.28, "speed": 1.8}
    left_out = [{"what": what, "reason": reason} for what, reason in LEFT_OUT.items()]
    return {"rows": rows, "together": together, "left_out": left_out}


def memory_share(row: dict, original: dict) -> dict:
    """A row's `memory` beyond what was there before it, and its share of the original's; null on a CPU."""
    if row["peak_allocated"] is None:
        return {"memory": None, "memory_share": None}
    own, whole = (found["peak_allocated"] - found["allocated_before"] for found in (row, original))
    return {"memory": own, "memory_share": round(own / whole, 3)}


def article_answers(setting: Setting, chosen: dict[str, Way]) -> dict[str, dict]:
    """{row: shares of texts with the original's best label, and with the right one}, of `trained`, by kind of text."""
    headlines = samples.test_set("topics_familiar")
    asked = {
        "headlines": (headlines[:: setting.every], samples.topics(headlines)),
        "long_texts": (samples.long_texts(*setting.long_texts), samples.PASSAGES),
    }
    found, rows = opened(setting, chosen.values(), setting.trained), {row: {} for row in chosen}
    for kind, (records, labels) in steps(asked.items(), "article: answers"):
        texts, topics = [record["text"] for record in records], [record["topic"] for record in records]
        best = {row: [one["labels"][0] for one in found[way.name](texts, labels)] for row, way in chosen.items()}
        for row, answers in best.items():
            rows[row] |= {f"same_{kind}": equal(answers, best["original"]), f"right_{kind}": equal(answers, topics)}
    return rows


def equal(answers: list[str], others: list[str]) -> float:
    """The share of answers that are the same in both lists."""
    return round(sum(a == b for a, b in zip(answers, others, strict=True)) / len(answers), 4)


# --------------------------------------------------------------------------------------------------------------- table

# of each section, the columns that are printed
COLUMNS = {
    "speed": ("texts_per_second", "speed", "speed_same_precision", "speed_to_best_batch", "same_answers"),
    "peaks": ("weights", "allocated_before", "peak_allocated", "peak_reserved", "device_used"),
    "attention": ("counted", "predicted", "peak_reserved", "seconds"),
    "streaming": ("speed", "largest_difference", "streamed", "resident"),
    "article": ("memory", "memory_share", "speed", "same_headlines", "same_long_texts", "right_headlines"),
}


def table(record: dict) -> str:
    """The record for people: a table for each section."""
    parts = []
    for section, found in record["sections"].items():
        facts = {key: value for key, value in found.items() if key not in ("rows", "left_out")}
        lines = [f"{key}: {in_words(key, value)}" for key, value in facts.items() if value not in (None, [])]
        lines += [f"left out: {one['what']} ({one['reason']})" for one in found.get("left_out", [])]
        parts.append(f"== {section} ==\n" + "\n".join([*aligned(section, found.get("rows", {})), *lines]))
    return "\n\n".join(parts)


def aligned(section: str, rows: dict[str, dict]) -> list[str]:
    """Lines of a table with one row for each name."""
    if not rows:
        return []
    columns = COLUMNS.get(section, ())
    cells = [["", *columns]]
    cells += [[name, *(in_words(key, row.get(key)) for key in columns)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]


BYTES = {"weights", "counted", "predicted", "memory", "total_memory", "allocated", "reserved"}


def in_words(key: str, value: object) -> str:
    """A figure for people."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        kept = {inner: one for inner, one in value.items() if inner in ("peak_allocated", "seconds")} or value
        return ", ".join(f"{inner} {in_words(inner, one)}" for inner, one in kept.items())
    if isinstance(value, int) and (key in BYTES or key.startswith(("peak_", "allocated_", "device_"))):
        return memory.format_size(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------------------------------- main

# the cheap ones first, so that a run that is cut off has most of it
SECTIONS = {
    "hardware": hardware,
    "attention": attention,
    "streaming": streaming,
    "speed": speed,
    "peaks": peaks,
    "article": article,
}


def asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; ends the program where there is no CUDA device and none was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the record (default: records/gpu-DEVICE.json)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script")
    parser.add_argument("--small", action="store_true", help="as little work as tries the script")
    found = parser.parse_args(arguments)
    if found.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here: to try the script on the CPU, give --device cpu --small.")
    return found


def output_file(device: str) -> Path:
    """Where the record of this device goes by default."""
    name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
    return machine.RECORDS / f"gpu-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}.json"


def attempted(section: Callable[[Setting], dict], setting: Setting) -> dict:
    """What a section found, or its error, which is printed; the device is let go of either way."""
    try:
        found = section(setting)
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
    with suppress(RuntimeError):  # an error of CUDA that stays: the next section tells it
        release(setting)  # only here, where the error is gone, is what its frames held gone too
    return found


def failures(record: dict) -> list[str]:
    """What went wrong, in words: sections that failed, and answers that differ."""
    sections = record["sections"].items()
    failed = [f"{name}: {found['error']}" for name, found in sections if "error" in found]
    return failed + [f"{name}: {what}" for name, found in sections for what in found.get("wrong", [])]


def measured(setting: Setting, output: Path) -> dict:
    """The record of all sections, written after each."""
    checkpoint = setting.checkpoint.removeprefix(f"{ROOT}/")
    record = {"small": setting.small, "checkpoint": checkpoint, "complete": False, "seconds": {}, "sections": {}}
    bar = tqdm(SECTIONS.items())
    for name, section in bar:
        bar.set_description(name)
        start = time.perf_counter()
        record["sections"][name] = attempted(section, setting)
        record["seconds"][name] = round(time.perf_counter() - start, 1)
        record["complete"] = len(record["sections"]) == len(SECTIONS)
        machine.write(output, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, section by section, and print; the exit status."""
    told = asked(arguments)
    transformers.logging.set_verbosity_error()  # it would advise on batch sizes
    transformers.logging.disable_progress_bar()
    setting, output = setting_for(told.device, told.small), told.output or output_file(told.device)
    output.parent.mkdir(parents=True, exist_ok=True)
    wake(setting)
    record = measured(setting, output)
    print(f"{table(record)}\n\n{output.name}: {sum(record['seconds'].values()):.0f} seconds")
    for failure in (failed := failures(record)):
        print("FAILED", failure)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
