import nbformat
from nbformat.v4 import new_notebook, new_markdown_cell, new_code_cell
cells=[]
def md(id, text): cells.append(new_markdown_cell(text.strip("\n"), id=id))
def code(id, text, *tags): cells.append(new_code_cell(text.strip("\n"), id=id, metadata={"tags": list(tags)} if tags else {}))
V="nbval-ignore-output"

md("opening", """
# 02 · Quantization: how few bits will do?

**You will be able to** turn a row of weights into whole numbers and back by hand, say what each precision saves in bytes and
costs in speed and in right answers, and keep a quantised model in a file that opens again bit for bit.

**Minutes** 40

**You need to know** notebook 01: what the weights weigh, and which bytes are a process's own.
""")
md("the-largest-item", """
In the bill of notebook 01 one item towered over the rest: the weights, 409 MB of 426. Each of the 102 million numbers takes four
bytes. Does it need them? A weight such as `-0.0237481` was learnt by taking thousands of noisy little steps; its seventh digit is
surely not knowledge.

The article says: fp16 saves 40 % at almost no loss, bf16 is good where the hardware has it, int8 brings memory down to 30 %.
**Guess:** how many bits can a weight lose before answers change: 8? 16? 24?
""")
code("imports", """
import torch
import zsc_utils as zsc
from zsc_utils import claims, memory, plots, quantization, samples
""")
code("load-checkpoint", """
mini = zsc.load(zsc.default_name("mini"))
matrix = mini.model.bert.encoder.layer[0].intermediate.dense.weight.detach()
print(tuple(matrix.shape), "the first six weights of the first row:")
print([round(value, 5) for value in matrix[0, :6].tolist()])
""")
md("by-hand", """
## One row, by hand

Eight bits can tell 256 values apart: the whole numbers from -127 to 127, say. So we choose a **scale** - the size of one step - such
that the largest weight of the row becomes 127, divide, and round. (`mini` is stored in int8 already, as you may know from its
model card, so its weights would come back exactly. For a fair trial we shake them a little first.)
""")
code("row-to-int8", """
torch.manual_seed(0)
row = matrix[0] + torch.randn(matrix.shape[1]) * 1e-3
scale = row.abs().max() / 127
whole = (row / scale).round().to(torch.int8)
back = whole * scale
print("scale", f"{scale:.6f}")
print("weights", [round(value, 4) for value in row[:6].tolist()])
print("in int8", whole[:6].tolist())
print("back   ", [round(value, 4) for value in back[:6].tolist()])
""")
md("rounding-error", """
**Guess** before you run the next cell: what is the largest error that a weight can suffer, in units of the scale?
""")
code("largest-error", """
error = (back - row).abs()
print(f"largest error {error.max() / scale:.2f} steps, on average {error.mean() / scale:.2f}")
print(f"as a share of the row's own size: {error.norm() / row.norm():.2%}")
assert error.max() <= 0.5001 * scale
""")
md("outliers", """
Half a step, of course: that is what rounding does. And the step is set by the *largest* weight. So what does one outlier do to its
neighbours? Let us plant one, ten times as large as the rest, and look at two ways to choose scales: one for the whole matrix, or
one for each row.
""")
code("plant-an-outlier", """
spoilt = matrix + torch.randn_like(matrix) * 1e-3
spoilt[7, 7] = 10 * spoilt.abs().max()

def error_of(scale):
    return ((spoilt / scale).round() * scale - spoilt).norm(dim=1) / spoilt.norm(dim=1)

one_for_all = error_of(spoilt.abs().max() / 127)
one_a_row = error_of(spoilt.abs().amax(1, keepdim=True) / 127)
rest = torch.arange(len(spoilt)) != 7
print(f"one scale for all: {one_for_all[rest].mean():.1%} error in the other rows")
print(f"one scale a row:   {one_a_row[rest].mean():.1%}")
assert one_a_row[rest].mean() < one_for_all[rest].mean() / 5
""")
code("draw-errors", """
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(7, 2.6))
bins = torch.logspace(-3, 0.2, 60).tolist()
axes.hist(one_for_all.tolist(), bins, color=plots.OTHER, label="one scale for the matrix")
axes.hist(one_a_row.tolist(), bins, color=plots.CHOSEN, label="one scale a row")
axes.set(xscale="log", xlabel="error of a row, as a share of its size", ylabel="rows",
         title="One outlier spoils a whole matrix, or only its own row")
axes.legend(frameon=False)
plt.show()
assert one_a_row.median() < 0.05
""")
md("rows-cost-little", """
A scale takes four bytes; a row of 768 weights saves 2 304. So every row gets its own: that is what `quantization.rows_to_int8` does,
in the same way. While the model runs, activations become int8 too, with one scale a *token*, so that a text's scores do
not depend on what else is in its batch.
""")
code("rows-in-the-module", """
rows, scales = quantization.rows_to_int8(row[None])
print("the module rounds as we did:", torch.equal(rows[0], whole), "·", f"{scales[0]:.6f}")
assert torch.equal(rows[0], whole)
""")
md("half-precision", """
## Sixteen bits: two ways to spend them

A floating-point number has a sign, an exponent (how large) and a mantissa (how exact). fp16 and bf16 both have 16 bits and spend them
differently. **Guess:** which of the two can hold 70 000?
""")
code("half-formats", """
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    info = torch.finfo(dtype)
    third, large = torch.tensor([1 / 3, 70_000]).to(dtype).tolist()
    print(f"{str(dtype):15} step at 1: {info.eps:.0e}  largest {info.max:.0e}  "
          f"1/3 is {third:.7f}  70000 is {large:.0f}")
""")
md("half-explained", """
fp16 is more exact and overflows early; bf16 has fp32's range with two or three digits. Weights are small numbers, so both hold
them; activations of some models run over in fp16.

## Bytes

Now all of StructBERT-base. `quantize` takes a checkpoint and returns a new one. Beside it stands what the article uses, torch's own
`quantize_dynamic`: it turns linear layers into int8 and leaves embeddings as they are.
""")
code("quantise-all", """
base = zsc.load(zsc.default_name("base-shape"))
variants = {"fp32": base} | {p: quantization.quantize(base, p) for p in ("fp16", "bf16", "int8")}
for name, checkpoint in variants.items():
    size = quantization.weight_bytes(checkpoint)
    print(f"{name:5} {size:>12,} bytes  {size / quantization.weight_bytes(base):.1%}")
assert quantization.weight_bytes(variants["int8"]) <= 0.27 * quantization.weight_bytes(base)
""")
code("int8-share", """
def part_of(name):
    if "LayerNorm" in name:
        return "norm"
    inside = "attention" if ".attention." in name else "feed-forward" if ".layer." in name else "head"
    return "embeddings" if "embeddings" in name else inside

def bytes_by_part(size_of):
    parts = dict.fromkeys(("embeddings", "attention", "feed-forward", "norm", "head"), 0)
    for name, weight in base.model.named_parameters():
        parts[part_of(name)] += weight.numel() * size_of(name, weight)
    return parts

parts = bytes_by_part(lambda name, weight: 4)
linear_only = bytes_by_part(lambda name, w: 1 if w.ndim == 2 and "embeddings" not in name else 4)
dynamic_share = sum(linear_only.values()) / sum(parts.values())
ours = quantization.weight_bytes(variants["int8"]) / quantization.weight_bytes(base)
embeddings = linear_only["embeddings"] / sum(linear_only.values())
print(f"linear layers only: {dynamic_share:.1%}, of which embeddings are {embeddings:.0%}\\n")
assert claims.decide("int8-share", f"{dynamic_share:.0%} with its code, {ours:.0%} with embeddings too",
                     literally=dynamic_share <= 0.30, in_part=ours <= 0.30)
""")
code("draw-bytes", """
rows = {"fp32": parts, "fp16 or bf16": {part: size // 2 for part, size in parts.items()},
        "int8, linear only": linear_only,
        "int8, embeddings too": bytes_by_part(lambda name, w: 1 if w.ndim == 2 else 4)}
figure, axes = plt.subplots(figsize=(7, 2.6))
plots.stacked_bytes(axes, rows)
axes.set_title("Left alone, the embeddings become the largest item of an int8 model")
plt.show()
assert linear_only["embeddings"] > linear_only["attention"]
""")
md("speed", """
## Speed

Fewer bytes to fetch, so it must be faster. **Guess**, for this machine's CPU: fp32 is 1. What are fp16, bf16 and int8?

The five take turns within one run, so that a busy moment of the machine meets all of them; we take medians. Expect other numbers
on your machine: they hang on which *instructions* it has.
""")
code("instructions", """
from pathlib import Path
info = Path("/proc/cpuinfo")
flags = set(info.read_text().split()) if info.exists() else set()
known = {"int8": {"avx512_vnni", "avx_vnni"}, "bf16": {"avx512_bf16", "amx_bf16"}, "fp16": {"avx512_fp16"}}
has = {kind: bool(flags & names) for kind, names in known.items()}
print({kind: "instructions" if there else "no instructions" for kind, there in has.items()})
assert set(has) == {"int8", "bf16", "fp16"}
""", V)
code("article-code", """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    dynamic = torch.ao.quantization.quantize_dynamic(base.model, {torch.nn.Linear}, dtype=torch.qint8)
print(*sorted({str(w.message)[:100] for w in told}), sep="\\n")
assert any("deprecated" in str(w.message) for w in told)
""", V)
code("time-engines", """
import statistics, time
models = {name: checkpoint.model for name, checkpoint in variants.items()} | {"quantize_dynamic": dynamic}
ids = torch.randint(200, 20_000, (4, 128))
seconds = {name: [] for name in models}
with torch.inference_mode():
    for turn in range(5):
        for name, model in models.items():
            start = time.perf_counter()
            model(input_ids=ids)
            seconds[name].append(time.perf_counter() - start)
speed = {name: statistics.median(seconds["fp32"][1:]) / statistics.median(times[1:])
         for name, times in seconds.items()}
print({name: f"{ratio:.2f}" for name, ratio in speed.items()}, "times fp32's speed")
assert speed["int8"] > 1.1
""", V)
code("draw-speed", """
figure, axes = plt.subplots(figsize=(7, 2.2))
order = sorted(speed, key=speed.get)
bars = axes.barh(order, [speed[name] for name in order],
                 color=[plots.CHOSEN if name == "int8" else plots.OTHER for name in order])
axes.bar_label(bars, fmt="%.2f", padding=3)
axes.axvline(1, color="black", linewidth=0.8)
axes.set(xlabel="speed, fp32 = 1", title="Fewer bits are faster only where the CPU has instructions for them")
plt.show()
assert len(order) == 5
""", V)
md("speed-explained", """
A CPU without instructions for a half format converts every number to fp32 and back, and is slower than without: bytes saved, time
lost. int8 is different: eight-bit multiplications have been in CPUs for long.

The verdicts: *dynamic quantization is best suited to a CPU*, *bf16 serves where the hardware has it*.
""")
code("dynamic-on-cpu", """
found = f"{speed['quantize_dynamic']:.1f} times fp32's speed on this CPU"
assert claims.decide("dynamic-on-cpu", found, noisy=True,
                     literally=speed["quantize_dynamic"] > 1, in_part=speed["int8"] > 1)
""", V)
code("bf16-hardware", """
if has["bf16"]:
    assert claims.decide("bf16-hardware", f"{speed['bf16']:.1f} times fp32's speed", noisy=True,
                         literally=speed["bf16"] > 1)
else:
    print(f"NOT TESTED HERE: no bf16 instructions. Without them: {speed['bf16']:.2f} of fp32's speed")
    assert speed["bf16"] < 1.5
""", V)
md("right-answers", """
## Right answers

Bytes and speed were measured on random weights. For answers we need a model that knows something: `mini`, on headlines and reviews
of the committed test set, which no training saw. But `mini` comes from an int8 file: its weights would survive int8 without a
scratch. So we first move each of them by up to half a step, at random: as much as rounding had moved them, off the grid. That
is our fp32.

**Guess:** of a hundred texts, how many get another best label in int8?
""")
code("classify-all", """
generator = torch.Generator().manual_seed(0)
for weight in mini.model.parameters():
    if weight.ndim == 2:
        step = weight.detach().abs().amax(1, keepdim=True) / 127
        weight.data += step * (torch.rand(weight.shape, generator=generator) - 0.5)
familiar, reviews = samples.test_set("topics_familiar")[::8], samples.test_set("reviews")[::3]
topics, polar = samples.topics(familiar), ["好评", "差评"]
truth = [r["topic"] for r in familiar] + [polar[r["polarity"] != "positive"] for r in reviews]

def answers(checkpoint):
    classify = zsc.ZeroShotClassifier(checkpoint, batch_size=32)
    return classify([r["text"] for r in familiar], topics) + classify([r["text"] for r in reviews], polar)

results = {"fp32": answers(mini)}
for precision in quantization.PRECISIONS:
    results[precision] = answers(quantization.quantize(mini, precision))
print(len(truth), "texts")
""")
code("agreement", """
for precision in quantization.PRECISIONS:
    found = quantization.agreement(results["fp32"], results[precision], truth)
    low, high = found.interval
    print(f"{precision}: same best label {found.share:.1%} ({low:.1%} to {high:.1%}), right "
          f"{found.right[1]} instead of {found.right[0]}, scores move by up to {found.largest_difference:.3f}")
    assert found.share >= 0.98 and found.right[1] >= found.right[0] - 0.01 * len(truth)
""", V)
md("interval-explained", """
The interval belongs to the number: so few texts say little about the last percent. Whoever tells you "99.8 % accuracy kept" owes you
the number of texts. The whole test set takes too long for a notebook; `benchmarks/agreement.py` ran it, and left this record:
""")
code("agreement-recorded", """
import json
recorded = Path("..") / "benchmarks"
for precision, found in json.loads((recorded / "agreement.json").read_text())["off the grid"].items():
    low, high = found["interval"]
    print(f"{precision}: {found['same'] / found['texts']:.1%} ({low:.1%} to {high:.1%}) of {found['texts']} texts, "
          f"right {found['right'][1]} instead of {found['right'][0]}")
""")
md("keeping-it", """
## Keeping it

You quantised; now you want to keep the small model and never load the large one again. The article says: `save_pretrained`.
""")
code("save-quantised", """
import tempfile
scratch = tempfile.TemporaryDirectory()
folder, problem = Path(scratch.name), ""
try:
    dynamic.save_pretrained(folder / "dynamic")
except Exception as error:
    problem = type(error).__name__
assert claims.decide("save-quantised", f"it raises {problem}", literally=not problem)
""")
md("save-explained", """
A model of packed integers is no longer the kind of thing that `save_pretrained` knows. Ours is a table of int8 rows with their
scales, under BERT's own names, in a safetensors file: no pickle, nothing that could run code.
""")
code("save-and-open", """
saved = folder / "int8"
if not saved.exists():
    quantization.save(variants["int8"], saved)
again = zsc.load(saved)
with torch.inference_mode():
    same = torch.equal(again.model(input_ids=ids).logits, variants["int8"].model(input_ids=ids).logits)
print(sorted(file.name for file in saved.iterdir()))
print(f"{(saved / 'model.safetensors').stat().st_size:,} bytes; logits equal, bit for bit: {same}")
assert same
""")
code("process-growth", """
def load_and_run(name):
    checkpoint = zsc.load(name)
    with torch.inference_mode():
        checkpoint.model(input_ids=torch.arange(200, 712).view(4, 128))

half = folder / "fp16"
if not half.exists():
    quantization.save(variants["fp16"], half)
grown = {name: memory.process_peak(load_and_run, where)
         for name, where in (("fp32", base.name), ("fp16", str(half)), ("int8", str(saved)))}
for name, peak in grown.items():
    print(f"{name}: {peak.anonymous / 1e6:4.0f} MB anonymous, {peak.file_backed / 1e6:4.0f} MB of file, "
          f"{peak.total / grown['fp32'].total:.0%} of fp32")
assert grown["int8"].total < 0.4 * grown["fp32"].total
""", V)
md("article-fp16", """
The article makes two promises for fp16: that it *saves 40 % at almost no loss*, and, in its table of results, 1.8 GB instead
of 3.2 (56 %) at 1.3 times the speed and 99.8 % of the accuracy. We hold both against a child process's growth, the ratio of speeds
above, and the answers above.
""")
code("fp16-saves", """
share = grown["fp16"].total / grown["fp32"].total
agrees = quantization.agreement(results["fp32"], results["fp16"]).share
found = f"{1 - share:.0%} less growth, {agrees:.1%} the same answers, {speed['fp16']:.2f} times the speed"
assert claims.decide("fp16-saves", found, noisy=True, in_part=share <= 0.7 and agrees >= 0.98,
                     literally=share <= 0.6 and agrees >= 0.995 and speed["fp16"] > 0.9)
""", V)
code("result-fp16", """
found = f"{share:.0%} of the growth, {speed['fp16']:.2f}x on this CPU, {agrees:.1%} the same answers"
assert claims.decide("result-fp16", found, noisy=True, in_part=share <= 0.6 and agrees >= 0.98,
                     literally=share <= 0.57 and speed["fp16"] >= 1.3 and agrees >= 0.998)
""", V)
md("deploy", """
## What would you deploy?

On a CPU: int8, from its own file. Which engine multiplies the eight-bit numbers is a choice of its own; the table below was recorded by
`benchmarks/engines.py`, all engines taking turns in one run: torch's `quantize_dynamic`, ONNX Runtime's own int8, and ours, which asks
oneDNN directly. fp16 and bf16 belong where the hardware has them: GPUs, and the newest server CPUs.
""")
code("engines", """
record = json.loads((recorded / "engines.json").read_text())
print("recorded on", record["processor"], record["instructions"], "torch", record["torch"])
names = list(record["tokens_per_second"]["8 x 128"])
print(f"{'tokens a second':24}", *(f"{shape:>9}" for shape in record["tokens_per_second"]))
for name in names:
    print(f"{name:24}", *(f"{found[name]:>9,}" for found in record["tokens_per_second"].values()))
""")
code("on-a-gpu", """
if torch.cuda.is_available():
    there = ids.cuda()
    for precision in ("fp32", "fp16", "bf16"):
        model = variants[precision].model.cuda()
        with torch.inference_mode():
            times = []
            for _ in range(5):
                start = time.perf_counter()
                model(input_ids=there).logits.cpu()
                times.append(time.perf_counter() - start)
        print(f"{torch.cuda.get_device_name()} {precision}: {1000 * statistics.median(times[1:]):.1f} ms")
        assert times
else:
    print("NOT TESTED HERE: no CUDA device")
""", V)
md("remember", """
## Remember

1. A weight needs about eight bits if every row has its own scale; the error of rounding is half a step, and an outlier sets the step.
2. Leave nothing out: with linear layers in int8 only, embeddings become 44 % of what is left.
3. Fewer bits save bytes everywhere; time only where the processor has instructions for them.
""")
md("exercise-four-bits", """
## Exercises

**1.** What would *four* bits do? Whole numbers from -7 to 7: compute the error of our row, and compare it with eight bits.
""")
code("solution-four-bits", """
for largest in (127, 7):
    step = row.abs().max() / largest
    error = ((row / step).round() * step - row).norm() / row.norm()
    print(f"-{largest} to {largest}: error {error:.1%}")
""")
md("exercise-scale", """
**2.** How many bytes do all the scales of int8 base-shape take, and which share of the model is that?
""")
code("solution-scales", """
scales = sum(t.numel() * t.element_size() for name, t in variants["int8"].model.state_dict().items()
             if name.endswith("scale"))
print(f"{scales:,} bytes, {scales / quantization.weight_bytes(variants['int8']):.2%}")
""")
md("exercise-twice", """
**3.** Quantise a checkpoint to fp16, keep it, open it, and try to open it with `dtype=torch.bfloat16`. What should happen?
""")
code("solution-twice", """
try:
    zsc.load(half, dtype=torch.bfloat16)
except zsc.CheckpointError as error:
    print(error)
scratch.cleanup()
""")
md("next", """
## Next

**03 · Batching** turns from the weights to the activations: how to send a million pairs through a byte budget, and never run out of
memory again.
""")
nb=new_notebook(cells=cells, metadata={"kernelspec":{"display_name":"Python 3","language":"python","name":"python3"},"language_info":{"name":"python"}})
for c in cells:
    for l in c.source.splitlines():
        if c.cell_type=="code" and len(l)>112: print(c.id,len(l))
    if c.cell_type=="code" and len(c.source.splitlines())>22: print(c.id, len(c.source.splitlines()))
import sys
nbformat.write(nb,sys.argv[1]); print(len(cells), sum(c.cell_type=="markdown" for c in cells))
