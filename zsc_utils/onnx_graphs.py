"""ONNX graphs of BERT: five small ones for the engine without torch, and a whole one that other tools can open.

The engine's graphs hold no weights and do not say where in the file they are: the engine writes the places of a
layer's weights into the bytes of a graph. So one set of graphs is enough for all layers. Tokens of all pairs are
concatenated, without padding:

- `embed`: the sum of the embeddings of each token -> the first layer's input
- `project`: a layer's input -> queries, keys, values
- `attend`: queries, keys, values of pairs of one length -> their attention
- `finish`: attention and the layer's input -> the layer's output
- `classify`: the last state of each pair's first token -> logits

In int8, each token has one scale, as each column of a matrix has. The whole graph takes padded ids and a mask, holds
references to the weights' file, and uses operators of the ONNX standard only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zsc_utils._exports import WEIGHTS, open_place

OPSET, STEPS_OPSET, IR_VERSION = 21, 23, 10
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators, which do several steps in one
ZERO_POINT = 128  # int8 activations are stored as uint8 with this added, which products are fastest with


class Graph:
    """A graph that grows node by node. `int8`: whether matrices are int8. Tensors are referred to by their names."""

    opset = STEPS_OPSET  # the first with Attention

    def __init__(self, name: str, config: Mapping[str, Any], int8: bool):
        self.name, self.config, self.int8 = name, config, int8
        self.nodes: list = []
        self.inputs: list = []
        self.constants: dict[str, Any] = {}
        self.stored: dict[str, Any] = {}

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: Any) -> str:
        name = f"constant_{np.asarray(value).dtype}_{np.asarray(value).tolist()}"
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, kind: int, shape: Sequence[int]) -> str:
        """Return the name of a tensor of the weights' file. The graph leaves open where in the file it is."""
        size = math.prod(shape) * helper.tensor_dtype_to_np_dtype(kind).itemsize
        return self.refer(name, kind, shape, open_place(name), size)

    def refer(self, name: str, kind: int, shape: Sequence[int], offset: int | str, size: int) -> str:
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": WEIGHTS, "offset": offset, "length": size}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.stored[name] = tensor
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def model(self, outputs: Mapping[str, tuple]) -> onnx.ModelProto:
        """Return the model. `outputs` is {name: (tensor, shape)}; all outputs are fp32."""
        for name, (tensor, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        shown = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()]
        known = [*self.constants.values(), *self.stored.values()]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, shown, known)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="zsc_utils")

    # ------------------------------------------------------------------------------------------------------- steps

    def weights(self, name: str, wide: int, narrow: int) -> list[str]:
        """Return the names of a linear layer's matrix, bias and (in int8) scales."""
        matrix = self.weight(name, TensorProto.INT8 if self.int8 else TensorProto.FLOAT, (wide, narrow))
        vectors = ("bias", "scale") if self.int8 else ("bias",)
        return [matrix, *(self.weight(f"{name}.{part}", TensorProto.FLOAT, (narrow,)) for part in vectors)]

    def norm_weights(self, name: str) -> list[str]:
        size = self.config["hidden_size"]
        return [self.weight(f"{name}.{part}", TensorProto.FLOAT, (size,)) for part in ("weight", "bias")]

    def levels(self) -> str:
        """Declare the largest int8 activation as an input: 127, or 63 where products of 8 bits would overflow."""
        return self.input("levels", TensorProto.FLOAT, ())

    def tokens_to_int8(self, x: str, levels: str) -> tuple[str, str]:
        """Return (x as uint8 around ZERO_POINT, scale of each token)."""
        high, low = (
            self.add(reduce, x, self.constant(np.array([1])), keepdims=1) for reduce in ("ReduceMax", "ReduceMin")
        )
        largest = self.add("Max", high, self.add("Neg", low))  # faster than Abs, which writes all of x again
        scale = self.add("Max", self.add("Div", largest, levels), self.constant(np.float32(1e-12)))
        flat = self.add("Reshape", scale, self.constant(np.array([-1])))
        zeros = self.add("Expand", self.constant(np.uint8(ZERO_POINT)), self.add("Shape", flat))
        return self.add("QuantizeLinear", x, flat, zeros, axis=0), scale

    def product(self, x: Any, weights: list[str]) -> str:
        """Return x times a matrix, without the bias. In int8, x is what `tokens_to_int8` returns."""
        if not self.int8:
            return self.add("MatMul", x, weights[0])
        (whole, token_scale), (matrix, _, scale) = x, weights
        one, zero = self.constant(np.float32(1)), self.constant(np.uint8(ZERO_POINT))
        sums = self.add("MatMulIntegerToFloat", whole, matrix, one, scale, zero, domain=CONTRIB)
        return self.add("Mul", sums, token_scale)

    def ready(self, x: str, levels: str | None) -> Any:
        """Return x in the form in which `product` takes it."""
        return self.tokens_to_int8(x, levels) if levels else x

    def skip_norm(self, x: str, bias: str, skip: str, norm: list[str]) -> str:
        """Return LayerNorm(x + bias + skip). The one operator that does all of it takes five times as long on CPUs."""
        summed = self.add("Add", self.add("Add", x, bias), skip)
        return self.add("LayerNormalization", summed, *norm, axis=-1, epsilon=self.config["layer_norm_eps"])


def step_graphs(config: Mapping[str, Any], int8: bool) -> dict[str, onnx.ModelProto]:
    """Return the engine's five graphs by name, for a checkpoint's config as a dict."""
    makers: tuple[Callable, ...] = (embed, project, attend, finish, classify)
    return {make.__name__: make(Graph(make.__name__, config, int8)) for make in makers}


def embed(graph: Graph) -> onnx.ModelProto:
    size = graph.config["hidden_size"]
    x = graph.input("x", TensorProto.FLOAT, ("tokens", size))
    norm = graph.norm_weights("norm")
    y = graph.add("LayerNormalization", x, *norm, axis=-1, epsilon=graph.config["layer_norm_eps"])
    return graph.model({"y": (y, ("tokens", size))})


def project(graph: Graph) -> onnx.ModelProto:
    size = graph.config["hidden_size"]
    x = graph.input("x", TensorProto.FLOAT, ("tokens", size))
    x = graph.ready(x, graph.levels() if graph.int8 else None)
    outputs = {}
    for name, found in (("query", "queries"), ("key", "keys"), ("value", "values")):
        weights = graph.weights(name, size, size)
        outputs[found] = (graph.add("Add", graph.product(x, weights), weights[1]), ("tokens", size))
    return graph.model(outputs)


def attend(graph: Graph) -> onnx.ModelProto:
    size, heads = graph.config["hidden_size"], graph.config["num_attention_heads"]
    q = graph.input("queries", TensorProto.FLOAT, ("pairs", "asking", size))
    k, v = (graph.input(name, TensorProto.FLOAT, ("pairs", "length", size)) for name in ("keys", "values"))
    # ONNX Runtime's own MultiHeadAttention copies queries, keys and values by heads first, and so takes longer
    y = graph.add("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads)
    return graph.model({"y": (y, ("pairs", "asking", size))})


def finish(graph: Graph) -> onnx.ModelProto:
    size, wide = graph.config["hidden_size"], graph.config["intermediate_size"]
    heard, x = (graph.input(name, TensorProto.FLOAT, ("tokens", size)) for name in ("heard", "x"))
    levels = graph.levels() if graph.int8 else None
    output, first = graph.weights("output", size, size), graph.norm_weights("attention_norm")
    x = graph.skip_norm(graph.product(graph.ready(heard, levels), output), output[1], x, first)
    widen, narrow = graph.weights("widen", size, wide), graph.weights("narrow", wide, size)
    # BiasGelu, which does both steps, takes longer than the two on CPUs with AVX-512
    wider = graph.add("Gelu", graph.add("Add", graph.product(graph.ready(x, levels), widen), widen[1]), domain=CONTRIB)
    narrowed = graph.product(graph.ready(wider, levels), narrow)
    y = graph.skip_norm(narrowed, narrow[1], x, graph.norm_weights("norm"))
    return graph.model({"y": (y, ("tokens", size))})


def classify(graph: Graph) -> onnx.ModelProto:
    size, classes = graph.config["hidden_size"], graph.config["num_labels"]
    x = graph.input("x", TensorProto.FLOAT, ("pairs", size))
    pooler = graph.weights("pooler", size, size)
    x = graph.ready(x, graph.levels() if graph.int8 else None)
    pooled = graph.add("Tanh", graph.add("Add", graph.product(x, pooler), pooler[1]))
    matrix = graph.weight("classifier", TensorProto.FLOAT, (size, classes))
    bias = graph.weight("classifier.bias", TensorProto.FLOAT, (classes,))
    logits = graph.add("Add", graph.add("MatMul", pooled, matrix), bias)
    return graph.model({"logits": (logits, ("pairs", classes))})


# ----------------------------------------------------------------------------------------------------- the whole graph

EXACT_LEVELS = 63  # products of 7-bit activations are exact on every processor; 8 bits overflow on AVX2
MASKED = -1e9  # added to the attention scores of padding


class Whole(Graph):
    """A graph that says where in the weights' file each tensor is."""

    opset = OPSET  # an older one, which more tools read

    def __init__(self, config: Mapping[str, Any], int8: bool, entries: Mapping[str, tuple]):
        """`entries` is {name: (dtype, shape, offset in the file, bytes)}."""
        super().__init__("classifier", config, int8)
        self.entries = entries

    def placed(self, name: str) -> str:
        dtype, shape, start, size = self.entries[name]
        return self.refer(name, helper.np_dtype_to_tensor_dtype(dtype), shape, start, size)

    def table(self, name: str, ids: str) -> str:
        """Return the rows `ids` of an embedding table, in fp32."""
        rows = self.add("Gather", self.placed(name), ids, axis=0)
        if not self.int8:
            return rows
        scale = self.add("Gather", self.placed(f"{name}.scale"), ids, axis=0)
        scale = self.add("Unsqueeze", scale, self.constant(np.array([-1])))
        return self.add("Mul", self.add("Cast", rows, to=TensorProto.FLOAT), scale)

    def linear(self, x: str, name: str, int8: bool | None = None) -> str:
        """Return a linear layer's output for x (tokens, inputs)."""
        matrix, bias = self.placed(name), self.placed(f"{name}.bias")
        if not (self.int8 if int8 is None else int8):
            return self.add("Add", self.add("MatMul", x, matrix), bias)
        whole, token_scale = self.tokens_to_int8(x, self.constant(np.float32(EXACT_LEVELS)))
        sums = self.add("MatMulInteger", whole, matrix, self.constant(np.uint8(ZERO_POINT)))
        scaled = self.add("Mul", self.add("Cast", sums, to=TensorProto.FLOAT), token_scale)
        return self.add("Add", self.add("Mul", scaled, self.placed(f"{name}.scale")), bias)

    def norm(self, x: str, name: str) -> str:
        weights = self.placed(f"{name}.weight"), self.placed(f"{name}.bias")
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=self.config["layer_norm_eps"])

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(np.array(shape)))


def whole_graph(
    config: Mapping[str, Any], int8: bool, entries: Mapping[str, tuple], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the whole model: `input_ids`, `token_type_ids` and `attention_mask` (pairs, length) -> `logits`."""
    graph = Whole(config, int8, entries)
    ids, types, mask = (
        graph.input(name, TensorProto.INT64, ("pairs", "length"))
        for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    hidden = embedded(graph, ids, types)
    shape = graph.add("Shape", hidden)  # pairs, length, hidden
    hidden = graph.reshape(hidden, -1, config["hidden_size"])  # (tokens, hidden)
    shown = graph.add("Cast", mask, to=TensorProto.FLOAT)
    hides = graph.add("Mul", graph.add("Sub", graph.constant(np.float32(1)), shown), graph.constant(np.float32(MASKED)))
    hides = graph.add("Unsqueeze", hides, graph.constant(np.array([1, 2])))  # (pairs, 1, 1, length)
    for number in range(config["num_hidden_layers"]):
        hidden = layer(graph, f"layers.{number}", hidden, hides, shape)
    whole = graph.add("Reshape", hidden, shape)
    first = graph.add("Gather", whole, graph.constant(np.int64(0)), axis=1)  # (pairs, hidden)
    logits = graph.linear(graph.add("Tanh", graph.linear(first, "pooler")), "classifier", int8=False)
    model = graph.model({"logits": (logits, ("pairs", config["num_labels"]))})
    helper.set_model_props(model, dict(metadata))
    return model


def embedded(graph, ids, types):
    """Return the first layer's input, (pairs, length, hidden)."""
    length = graph.add("Gather", graph.add("Shape", ids), graph.constant(np.int64(1)), axis=0)
    places = graph.add("Range", graph.constant(np.int64(0)), length, graph.constant(np.int64(1)))
    words, kinds = graph.table("embeddings.words", ids), graph.table("embeddings.types", types)
    summed = graph.add("Add", graph.add("Add", words, kinds), graph.table("embeddings.positions", places))
    return graph.norm(summed, "embeddings.norm")


def layer(graph, name, hidden, hides, shape):
    """Return a layer's output (tokens, hidden)."""
    size, heads = graph.config["hidden_size"], graph.config["num_attention_heads"]

    def split(x):  # (pairs, heads, length, size of a head)
        x = graph.reshape(graph.add("Reshape", x, shape), 0, 0, heads, size // heads)
        return graph.add("Transpose", x, perm=(0, 2, 1, 3))

    q, k, v = (split(graph.linear(hidden, f"{name}.{part}")) for part in ("query", "key", "value"))
    q = graph.add("Mul", q, graph.constant(np.float32(1 / math.sqrt(size // heads))))
    scores = graph.add("Add", graph.add("MatMul", q, graph.add("Transpose", k, perm=(0, 1, 3, 2))), hides)
    heard = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), v)
    heard = graph.reshape(graph.add("Transpose", heard, perm=(0, 2, 1, 3)), -1, size)
    hidden = graph.norm(graph.add("Add", graph.linear(heard, f"{name}.output"), hidden), f"{name}.attention_norm")
    wide = graph.add("Gelu", graph.linear(hidden, f"{name}.widen"))
    return graph.norm(graph.add("Add", graph.linear(wide, f"{name}.narrow"), hidden), f"{name}.norm")
