"""Every way to classify that is measured, once: how it is set up, what is prepared beforehand, and its code.

`containers.py` runs this file in a fresh process for each measurement. Libraries are imported where they are used, so
that a process holds only those of one way. The file itself needs only Python: an older environment can run it too.
`preparation.py` makes the folder that each way reads.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import machine

BASELINE = "transformers pipeline"
SIZES, QUICK_SIZES = (4, 8, 16, 32), (8, 32)  # batch sizes of which the fastest is looked for
NEARLY = 1.03  # a smaller batch is taken if it needs at most this many times the seconds of the fastest
# what an expert sets for a process in little memory: glibc gives blocks over 1 MiB back at once, one arena for all
# threads, MKL keeps no buffers. It costs up to a fifth of the speed; zsc_utils sets the like for itself
HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    "MALLOC_ARENA_MAX": "1",
    "MKL_DISABLE_FAST_MM": "1",
}
ON_DISK = {"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"}


def by_pipeline(folder, batch_size=1, longest=512, model=None, ordered=False):
    """transformers' zero-shot pipeline; `ordered`: the longest texts first, so that a batch has texts of one length."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=longest)
    model = model or transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    classify = transformers.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)

    def run(texts, labels):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]) if ordered else i)
        found = classify([texts[i] for i in order], labels, hypothesis_template="{}", batch_size=batch_size)
        best = {i: one["labels"][0] for i, one in zip(order, found)}
        return [best[i] for i in range(len(texts))]

    return run


def by_tuned_pipeline(folder, batch_size=8):
    """The pipeline in bf16 where the processor has it, in fp32 mapped from safetensors elsewhere."""
    import transformers

    dtype = "bfloat16" if has_bf16() else "float32"
    place = folder / "bf16" if has_bf16() else folder  # stored in bf16 beforehand
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place, dtype=dtype)
    return by_pipeline(folder, batch_size, model=model, ordered=True)


def by_quantized(folder):
    """torch's quantize_dynamic after each load, then two texts with all their labels as one padded batch."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model = torch.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8).eval()
    run = of_model(folder, model)
    return lambda texts, labels: in_batches(run, 2 * len(labels), ordered=False)(texts, labels)


def by_prepared_quantized(folder, batch_size=8):
    """The state that quantize_dynamic made, saved once: mapped, and loaded into a skeleton without weights."""
    import torch
    import transformers
    from torch.ao.nn.quantized.dynamic import Linear

    with torch.device("meta"):
        model = transformers.AutoModelForSequenceClassification.from_config(
            transformers.AutoConfig.from_pretrained(folder)
        )
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Linear(module.in_features, module.out_features))
    model.load_state_dict(torch.load(folder / "quantized.pt", mmap=True, weights_only=True), assign=True)
    positions = torch.arange(model.config.max_position_embeddings)[None]
    embeddings = model.bert.embeddings  # its buffers are not stored
    embeddings.position_ids, embeddings.token_type_ids = positions, torch.zeros_like(positions)
    return in_batches(of_model(folder, model.eval()), batch_size)


def by_accelerate(folder, batch_size=8):
    """The pipeline with the encoder's weights on disk: load_checkpoint_and_dispatch writes them anew at each load."""
    import accelerate
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    with accelerate.init_empty_weights():
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    spare = tempfile.TemporaryDirectory()
    model = accelerate.load_checkpoint_and_dispatch(
        model.eval(), str(folder), device_map=ON_DISK, offload_folder=spare.name
    )
    model.spare = spare  # it lives as long as the model
    return by_pipeline(folder, batch_size, model=model)


def by_prepared_accelerate(folder, batch_size=32):
    """The same, read from the safetensors file where it lies: transformers' own device_map."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, device_map=ON_DISK, offload_folder=folder / "offload"
    )
    return by_pipeline(folder, batch_size, model=model, ordered=True)


def by_cross_encoder(folder, batch_size=32, file=None, halves=False):
    """sentence-transformers' CrossEncoder, which sorts pairs by length. `file`: of its ONNX backend."""
    import sentence_transformers

    settings = {"model_kwargs": {"file_name": file, "provider": "CPUExecutionProvider"}, "backend": "onnx"}
    if not file:
        place = folder / "bf16" if halves and has_bf16() else folder
        settings = {"model_kwargs": {"dtype": "bfloat16"}} if place != folder else {}
        folder = place
    model = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=512, **settings)

    def classify(texts, labels):
        pairs = [(text, label) for text in texts for label in labels]
        return best(model.predict(pairs, batch_size=batch_size, show_progress_bar=False)[:, 0], labels)

    return classify


def by_cross_encoder_onnx(folder, batch_size=32):
    """CrossEncoder on its ONNX backend, with the int8 file that its own export made for this processor."""
    file = next((folder / "cross-encoder" / "onnx").glob("*qint8*.onnx"))
    return by_cross_encoder(folder / "cross-encoder", batch_size, f"onnx/{file.name}")


def by_modelscope(folder):
    """ModelScope's own pipeline, which takes the labels of a text as one batch."""
    import modelscope.models.nlp.structbert.text_classification
    import modelscope.preprocessors.nlp  # noqa: F401
    from modelscope.pipelines import pipeline

    classify = pipeline("zero-shot-classification", str(folder / "modelscope"), device="cpu")
    return lambda texts, labels: [classify(text, candidate_labels=labels)["labels"][0] for text in texts]


def by_onnx(folder):
    """ONNX Runtime with its own int8 as its documentation has it: transformers' tokenizer, eight pairs at a time."""
    import onnxruntime
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)
    session = onnxruntime.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])

    def run(pairs):
        inputs = tokenizer(
            [text for text, _ in pairs], [label for _, label in pairs], return_tensors="np",
            padding=True, truncation="only_first",
        )  # fmt: skip
        return session.run(None, dict(inputs))[0][:, 0]

    return in_batches(run, 8)


def by_tuned_onnx(folder, precision="int8", batch_size=8):
    """The same model as an expert would run it in little memory: no torch, no transformers, weights mapped from a file
    beside the graph, no arena, no pattern of memory, no packed copies."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512, strategy="only_first")
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    file = folder / "tuned" / f"{precision}.onnx"
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}

    def run(pairs):
        found = tokenizer.encode_batch(pairs)
        inputs = {name: np.array([getattr(each, key) for each in found]) for name, key in names.items()}
        return session.run(None, inputs)[0][:, 0]

    return in_batches(run, batch_size)


def by_us(folder, **options):
    """ZeroShotClassifier."""
    import zsc_utils

    classify = zsc_utils.ZeroShotClassifier(folder, **options)
    return lambda texts, labels: [found["labels"][0] for found in classify(texts, labels)]


def by_export(folder, precision, **options):
    """ZeroShotClassifier on an export, without torch."""
    return by_us(folder / f"export-{precision}", **options)


# --------------------------------------------------------------------------------------------------------------- tools


def has_bf16():
    """Whether the processor multiplies bf16, as this process may use it."""
    return bool({"avx512_bf16", "bf16"} & machine.usable(machine.cpuinfo(), os.environ))


def of_model(folder, model):
    """A function that gives the entailment of pairs, by a model of torch."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)

    @torch.inference_mode()
    def run(pairs):
        inputs = tokenizer(
            [text for text, _ in pairs], [label for _, label in pairs], return_tensors="pt",
            padding=True, truncation="only_first",
        )  # fmt: skip
        return model(**inputs).logits[:, 0].tolist()

    return run


def in_batches(run, size, ordered=True):
    """Classify by `run`, which takes `size` pairs and returns their entailment; `ordered`: longest texts first."""

    def classify(texts, labels):
        pairs = [(text, label) for text in texts for label in labels]
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) if ordered else i)
        found = [0.0] * len(pairs)
        for start in range(0, len(pairs), size):
            part = order[start : start + size]
            for i, entailment in zip(part, run([pairs[i] for i in part])):
                found[i] = entailment
        return best(found, labels)

    return classify


def best(entailments, labels):
    """The best label of each text, from the entailment of all pairs in a row."""
    rows = range(0, len(entailments), len(labels))
    return [max(zip(entailments[row : row + len(labels)], labels), key=lambda pair: pair[0])[1] for row in rows]


# ---------------------------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Way:
    """One way to classify. `load(folder, **options)` returns a function (texts, labels) -> the best label of each text.

    `tuned`: as an expert sets it up, with HEAP; else as its documentation says. `lossy`: its answers may differ from
    the baseline's. `halves`: it runs in bf16 where the processor has it, and is lossy there. `beforehand`: what is made
    once and not measured. `on_mini`: options on `mini`, where the budgets of base-shape mean nothing. `sized`: the best
    batch size is looked for. `cuts`: it cuts texts, so it is asked longer ones too. `older`: it needs the environment
    with transformers 4. `lowered`: it follows the variables that lower a processor. `answers`: it reads `mini` too.
    """

    load: Callable
    options: dict = field(default_factory=dict)
    tuned: bool = False
    lossy: bool = False
    halves: bool = False
    beforehand: str = "nothing"
    on_mini: dict | None = None
    sized: bool = False
    cuts: bool = False
    older: bool = False
    lowered: bool = True
    answers: bool = True

    @property
    def exact(self) -> bool:
        return not (self.lossy or (self.halves and has_bf16()))


EXPORT = "an export of our own"
WAYS = {
    BASELINE: Way(by_pipeline),
    "transformers pipeline, best batch": Way(by_pipeline, sized=True),
    "transformers pipeline, tuned": Way(
        by_tuned_pipeline, tuned=True, halves=True, sized=True, beforehand="weights stored in bf16 where it is used"
    ),
    "transformers pipeline, cut at 64 tokens": Way(by_pipeline, {"longest": 64}, lossy=True, cuts=True),
    "quantize_dynamic": Way(by_quantized, lossy=True),
    "quantize_dynamic, tuned": Way(
        by_prepared_quantized, tuned=True, lossy=True, sized=True, beforehand="the quantised state"
    ),
    "accelerate": Way(by_accelerate),
    "accelerate, tuned": Way(by_prepared_accelerate, tuned=True, sized=True, beforehand="a safetensors file"),
    "CrossEncoder": Way(by_cross_encoder),
    "CrossEncoder, tuned": Way(
        by_cross_encoder, {"halves": True}, tuned=True, halves=True, sized=True,
        beforehand="weights stored in bf16 where it is used",
    ),
    "CrossEncoder, ONNX int8": Way(
        by_cross_encoder_onnx, tuned=True, lossy=True, sized=True, older=True, lowered=False,
        beforehand="its own int8 file",
    ),
    "ModelScope": Way(by_modelscope, older=True, answers=False),
    "ONNX Runtime, int8": Way(by_onnx, lossy=True, lowered=False, beforehand="its own int8 file"),
    "ONNX Runtime, int8, tuned": Way(
        by_tuned_onnx, tuned=True, lossy=True, sized=True, lowered=False, beforehand="its own int8, weights beside it"
    ),
    "ONNX Runtime, fp32, tuned": Way(
        by_tuned_onnx, {"precision": "fp32"}, tuned=True, sized=True, lowered=False, beforehand="weights beside it"
    ),
    "ours": Way(by_us),
    "ours in 150 MB": Way(by_us, {"memory_budget": "150MB"}, on_mini={"offload": True}),
    "ours in 80 MB": Way(by_us, {"memory_budget": "80MB"}, on_mini={"offload": True}),
    "ours, int8 in 150 MB": Way(
        by_us, {"memory_budget": "150MB", "precision": "int8"}, lossy=True, on_mini={"precision": "int8"}
    ),
    "ours, int8 in 55 MB": Way(
        by_us, {"memory_budget": "55MB", "precision": "int8"}, lossy=True,
        on_mini={"precision": "int8", "offload": True}, beforehand="our int8 file",
    ),
    "ours without torch, fp32 streamed": Way(
        by_export, {"precision": "fp32", "offload": True, "max_tokens": 512}, lowered=False, beforehand=EXPORT
    ),
    "ours without torch, int8": Way(by_export, {"precision": "int8"}, lossy=True, lowered=False, beforehand=EXPORT),
    "ours without torch, int8 streamed": Way(
        by_export, {"precision": "int8", "memory_budget": "100MB"}, lossy=True, lowered=False, beforehand=EXPORT,
        on_mini={"precision": "int8", "offload": True},
    ),
}  # fmt: skip


def seconds_of(sizes, way, folder, texts, labels):
    """{batch size: seconds} on every fourth text, each after a first call."""
    seconds = {}
    for size in sizes:
        classify = way.load(folder, **way.options, batch_size=size)
        classify(texts[:1], labels[:2])
        begun = time.perf_counter()
        classify(texts[::4], labels)
        seconds[size] = time.perf_counter() - begun
    return seconds


def main():
    """Do one job of containers.py, given as JSON; print what was found as JSON in the last line.

    A job names `way`, `folder`, `work` (a JSON file: texts, labels), `options`, the time it `start`ed, and what is
    `asked`: "speed", "answers", or "sizes" (the seconds of each batch size).
    """
    job = json.loads(sys.argv[1])
    way, folder = WAYS[job["way"]], Path(job["folder"])
    texts, labels = json.loads(Path(job["work"]).read_text(encoding="utf-8"))
    with contextlib.redirect_stdout(sys.stderr):  # some libraries print
        if job["asked"] == "sizes":
            found = seconds_of(job["options"]["sizes"], way, folder, texts, labels)
        else:
            classify = way.load(folder, **job["options"])
            classify(texts[:1], labels[:2])
            first = time.time() - job["start"]
            begun = time.perf_counter()
            answers = classify(texts, labels)
            found = {"first": first, "seconds": time.perf_counter() - begun, "whole": highest()}
            found = {"answers": answers} if job["asked"] == "answers" else found
    print(json.dumps(found))


def highest():
    """The most bytes that this process has held: the kernel's own mark."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


if __name__ == "__main__":
    main()
