"""What is promised exactly, tried in a process of its own, at the level to which its environment lowers the processor.

levels.py prints a JSON object: {"engines": ..., "threads": {number: {check: [what was found, ...]}}}.
tests/journeys/test_levels.py starts it, once for each level, and says what has to come out.
"""

import json
import os
import re

os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler announces itself otherwise
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # four threads on two cores would keep each other from working

import torch
from transformers import BertConfig, BertForSequenceClassification

import zsc_utils as zsc
from zsc_utils import _int8, _products, inference, memory, plan, quantization, samples

THREADS = (1, 2, 4)
GROUPS = ([(1, 1)], [(2, 113), (2, 50)], [(1, 512)])
LABELS = ["财经", "体育", "军事", "旅游"]


def model_of_real_size():
    """Two layers of StructBERT-base's width."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=99, num_hidden_layers=2, num_labels=3)
    return BertForSequenceClassification(config).eval()


def of_engine(model, engine):
    """The model in int8, its products made by this engine."""
    chosen, _int8.int8_engine = _int8.int8_engine, lambda streamed=False: engine
    try:
        return quantization.quantize(zsc.Checkpoint(model, None, "real size", 0, 2, None), "int8").model
    finally:
        _int8.int8_engine = chosen


def packed_bytes(model, int8=False):
    """[predicted, counted] peaks of the classifier's own pass, for each of GROUPS."""
    found = []
    for groups in GROUPS:
        ids = torch.ones(sum(pairs * length for pairs, length in groups), dtype=torch.long)
        types = ids * 0
        predicted = inference.predict(model.config, groups, int8=int8).peak_activations
        found.append([predicted, memory.tensor_peak(lambda: inference.logits(model, ids, types, groups))])  # noqa: B023
    return found


def own_bytes(model):
    """[predicted, counted] peaks of BERT's own forward, with and without padding."""
    found = []
    for batch, length, padded in [(1, 1, False), (3, 113, False), (4, 64, True)]:
        ids = torch.ones(batch, length, dtype=torch.long)
        mask, types = ids.clone(), ids * 0
        mask[0, -1] = int(not padded)
        predicted = memory.predict(model.config, batch, length, padded=padded).peak_activations
        with torch.inference_mode():
            counted = memory.tensor_peak(
                lambda: model(input_ids=ids, attention_mask=mask, token_type_ids=types)  # noqa: B023
            )
        found.append([predicted, counted])
    return found


def worst_product(engine):
    """How far products of int8 are from exact ones, for numbers of the whole range, and for its ends alone."""
    generator, largest = torch.Generator().manual_seed(0), _products.activation_range()
    worst = 0
    for ends in (False, True):
        whole, rows = (
            torch.randint(-most, most + 1, shape, generator=generator)
            for most, shape in ((largest, (64, 3072)), (127, (768, 3072)))
        )
        if ends:
            whole, rows = largest * whole.sign(), 127 * rows.sign()
        given = whole.to(torch.int8) if engine == "plain" else (whole + largest + 1).to(torch.uint8)
        product = _products.ready_product(engine, rows.to(torch.int8), largest)(given)
        exact = (whole.double() @ rows.double().T).float()  # fp32 holds whole numbers up to 2**24, and rounds beyond
        worst = max(worst, ((product - exact).abs() / exact.abs().clamp_min(2**24)).max().item())
    return worst


def scores_of(classify, texts):
    return [
        [dict(zip(found["labels"], found["scores"]))[label] for label in LABELS] for found in classify(texts, LABELS)
    ]


def kept_budget(texts, allow_lossy):
    """[budget, bytes that the process grew by] for the smallest budget of base-shape, which a refusal names."""
    try:
        plan.make("base-shape", "1MB", allow_lossy)
    except ValueError as error:
        named = re.findall(r"([\d.]+) MB \(", str(error))
        smallest = min(named, key=float) if allow_lossy else named[0]
    classify = zsc.ZeroShotClassifier("base-shape", memory_budget=f"{smallest}MB", allow_lossy=allow_lossy)
    classify(texts, LABELS)
    return [float(smallest) * 1e6, classify.plan.measured]


def main():
    torch.set_num_threads(2)
    texts = [record["text"] for record in samples.test_set("topics_familiar")[:4]]
    engines = sorted({_products.int8_engine(), _products.int8_engine(streamed=True)})
    found = {"engines": engines, "range": _products.activation_range(), "threads": {}}
    found["budgets"] = [kept_budget(texts[:1], allow_lossy) for allow_lossy in (True, False)]  # while the heap is empty
    model = model_of_real_size()
    found["products"] = {engine: worst_product(engine) for engine in engines if engine != "widened"}
    mini, int8 = zsc.ZeroShotClassifier("mini"), zsc.ZeroShotClassifier("mini", precision="int8")
    streamed = zsc.ZeroShotClassifier("mini", precision="int8", offload=True)
    for threads in THREADS:
        torch.set_num_threads(threads)
        found["threads"][threads] = {
            "own": own_bytes(model),
            "fp32": packed_bytes(model),
            "int8": {engine: packed_bytes(of_engine(model, engine), engine) for engine in {*engines, "widened"}},
            "scores": scores_of(mini, texts),
            "int8 scores": scores_of(int8, texts),
        }
    torch.set_num_threads(2)
    found["int8 streamed"] = scores_of(streamed, texts)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
