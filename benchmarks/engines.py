"""int8 engines side by side on base-shape: ours, torch's quantize_dynamic, ONNX Runtime's own; fp32 is 1.

pip install -e '.[bench]', then python benchmarks/engines.py [--output FOLDER] [--quick]. The engines take turns in one
run, each with the threads that torch uses; medians are reported.
"""

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import machine
import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

import zsc_utils as zsc
from zsc_utils import quantization

SHAPES = [(32, 32), (8, 128), (2, 512), (4, 128)]  # batches of 512 to 1,024 tokens
TURNS, QUICK_TURNS = 7, 3


def torch_engine(model):
    @torch.inference_mode()
    def run(ids, mask):
        return model(input_ids=ids, attention_mask=mask).logits.numpy()

    return run


def onnx_engine(model, folder):
    """ONNX Runtime with its own dynamic int8 quantisation, embeddings included."""
    ids = torch.ones(2, 16, dtype=torch.long)
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=512)}
    names = {"input_ids": dynamic, "attention_mask": dynamic}
    torch.onnx.export(model, kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, dynamic_shapes=names,
                      f=folder / "fp32.onnx", dynamo=True, verbose=False)  # fmt: skip
    quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


def engines(folder):
    base = zsc.load("base-shape")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantize_dynamic is deprecated, which is why it is only compared with
        dynamic = torch.ao.quantization.quantize_dynamic(base.model, {torch.nn.Linear}, dtype=torch.qint8)
        made = {
            "fp32": torch_engine(base.model),
            "int8, ours": torch_engine(quantization.quantize(base, "int8").model),
        }
        if "lowered_from" not in machine.described():  # these two take no notice of what lowers the others
            made["int8, quantize_dynamic"] = torch_engine(dynamic)
            eager = zsc.load("base-shape", attention="eager").model
            made["int8, ONNX Runtime"] = onnx_engine(eager, folder)
    return made


def measure(found, turns):
    """{shape: {engine: tokens a second}}, and how far each engine's logits are from fp32's."""
    speeds, differences = {}, {}
    for batch, length in SHAPES:
        ids = torch.randint(200, 20_000, (batch, length))
        mask = torch.ones_like(ids)
        outputs = {name: run(ids, mask) for name, run in found.items()}
        seconds = {name: [] for name in found}
        for _ in range(turns):
            for name, run in found.items():
                start = time.perf_counter()
                run(ids, mask)
                seconds[name].append(time.perf_counter() - start)
        speeds[f"{batch} x {length}"] = {name: ids.numel() / statistics.median(s) for name, s in seconds.items()}
        for name, logits in outputs.items():
            differences[name] = max(differences.get(name, 0.0), float(np.abs(logits - outputs["fp32"]).max()))
    return speeds, differences


def main():
    arguments = machine.asked("engines", __doc__)
    turns = QUICK_TURNS if arguments.quick else TURNS
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        speeds, differences = measure(engines(Path(folder)), turns)
    for shape, found in speeds.items():
        print(shape)
        for name, tokens in found.items():
            print(f"  {name:24}{tokens:8,.0f} tokens/s  {tokens / found['fp32']:.2f}")
    differences = {name: round(value, 4) for name, value in differences.items()}
    print("largest difference of a logit from fp32's:", differences)
    result = {
        "onnxruntime": onnxruntime.__version__,
        "turns": turns,
        "largest_difference_of_a_logit": differences,
        "tokens_per_second": {shape: {n: round(v) for n, v in f.items()} for shape, f in speeds.items()},
    }
    machine.record("engines", result, arguments.output)


if __name__ == "__main__":
    main()
