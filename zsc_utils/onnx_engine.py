"""Compute logits with ONNX Runtime, without torch, for a folder that `zsc_utils.export` has written.

Each layer has sessions of its own, which read its matrices from their file and keep them packed, as products need them:
that takes about the bytes of the file. The sessions of streamed layers are made for each block, and closed after it.
"""

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
from tokenizers import Tokenizer

from zsc_utils import onnx_plan as planning
from zsc_utils._exports import INT8, TOKENIZER, WEIGHTS, Exported, MappedWeights, check_tensors, read_export
from zsc_utils._process import tight_heap, trim_heap
from zsc_utils._types import CheckpointError, Name, Size
from zsc_utils.batching import Batch, PairTokenizer, TokenBudget

PREFIXES = {"embed": "embeddings.", "attend": "", "classify": ""}  # of the weights' names, by graph
GRAPHS = (*PREFIXES, "project", "finish")  # the last two once for each layer
PROJECT = ("query", "key", "value")
LEVELS = (127, 63)  # largest int8 activations: 8 bits, or 7 bits where products of 8 bits overflow (AVX2)
PROBE_TOKENS = 64  # tokens that the probe for overflow multiplies
# parts of ONNX Runtime's messages when memory runs out
OUT_OF_MEMORY = ("bad allocation", "bad_alloc", "Failed to allocate memory", "out of memory")


class Layer(NamedTuple):
    """The two sessions of a layer."""

    project: onnxruntime.InferenceSession
    finish: onnxruntime.InferenceSession


class OnnxEngine:
    """An Engine for an exported folder. The arguments are those of ZeroShotClassifier.

    An export runs in the precision in which it was made, on the CPU, with full attention. Loading it changes the malloc
    settings of glibc for the whole process, as a budget does. Raises ValueError if a lever asks for something else, and
    CheckpointError if the folder is broken.
    """

    def __init__(
        self,
        folder: Name,
        *,
        precision: str | None = None,
        attention: str | None = None,
        offload: bool | None = None,
        memory_budget: Size | None = None,
        allow_lossy: bool = False,
        max_tokens: int | None = None,
    ):
        self.checkpoint: Exported = read_export(folder)
        if attention not in (None, "sdpa"):
            raise ValueError(f"attention {attention!r}: exports have full attention; leave it out")
        self.plan = planning.make(self.checkpoint, memory_budget, precision, offload, max_tokens)
        self.budget = TokenBudget(self.plan.setting.max_tokens, self.plan.setting.block)
        with tight_heap():
            self.weights = MappedWeights(self.checkpoint.folder / WEIGHTS)
            check_tensors(self.weights, self.checkpoint)
            self.graphs = {name: read_graph(self.checkpoint.folder / f"{name}.onnx") for name in GRAPHS}
            self.sessions = {name: self.session(name, prefix) for name, prefix in PREFIXES.items()}
            self.levels = {}
            if self.checkpoint.precision == INT8:
                level = largest_level(self.graphs["project"], self.checkpoint.config["hidden_size"])
                self.levels = {"levels": np.array(level, np.float32)}
            numbers = range(0 if self.plan.setting.block else self.checkpoint.config["num_hidden_layers"])
            self.loaded = []
            self.loaded = [self.layer(number) for number in numbers]
            self.tokenizer = read_tokenizer(self.checkpoint)
        self.pool = ThreadPoolExecutor(self.plan.setting.threads)
        self.run_each_layer_once()
        trim_heap()  # memory that was needed only to read the tokenizer and the graphs
        self.again = partial(
            OnnxEngine, self.checkpoint.folder, offload=offload, memory_budget=memory_budget, max_tokens=max_tokens
        )

    def __reduce__(self):
        """Copies, and other processes, load the folder again: sessions and mappings cannot be copied."""
        return self.again, ()

    @property
    def classes(self) -> int:
        return self.checkpoint.config["num_labels"]

    @property
    def entailment_id(self) -> int:
        return self.checkpoint.entailment_id

    @property
    def contradiction_id(self) -> int:
        return self.checkpoint.contradiction_id

    def logits(self, block: Sequence[Batch]) -> list[np.ndarray]:
        """Return logits (pairs, classes), float32, of each Batch. Raises MemoryError, with all tensors freed."""
        self.weights.check()
        try:
            logits = self.forward(block)
        except (MemoryError, RuntimeException, Fail) as error:
            if not is_lack_of_memory(error):
                raise
            said = first_line(error)
        else:
            for batch in block:
                self.plan.look(batch.ids)
            return logits
        gc.collect()  # outside the except clause: the error's traceback no longer holds the arrays
        trim_heap()
        raise MemoryError(said)

    def session(self, name, prefix):
        """Return a session of a graph, with the weights whose names begin with `prefix`."""
        graph, file = self.weights.placed(self.graphs[name], prefix), self.checkpoint.folder / f"{name}.onnx"
        try:
            return onnxruntime.InferenceSession(graph, options(self.checkpoint.folder), providers=PROVIDERS)
        except Exception as error:  # its errors share no base class
            if is_lack_of_memory(error):
                raise MemoryError(first_line(error)) from error
            raise CheckpointError(f"{file} is missing or broken: {error}. Export the checkpoint anew") from error

    def layer(self, number):
        """Return a layer's sessions: those that are loaded, or new ones."""
        if self.loaded:
            return self.loaded[number]
        trim_heap()  # the last layer's matrices, and holes between activations
        with tight_heap():
            return Layer(*(self.session(name, f"layers.{number}.") for name in ("project", "finish")))

    def run_each_layer_once(self):
        """Run the sessions of loaded layers with one token.

        What a session allocates in its first run, it keeps. Within a real batch, these small blocks would lie between
        large ones that are freed, and glibc could not join the holes: `mini` took up to 50 MB more.
        """
        one = np.zeros((1, self.checkpoint.config["hidden_size"]), np.float32)
        for layer in self.loaded:
            for session, inputs in ((layer.project, {"x": one}), (layer.finish, {"x": one, "heard": one})):
                self.pool.submit(session.run, None, inputs | self.levels).result()  # in the thread of later runs

    def forward(self, block):
        """Return the logits of each Batch. All batches pass a layer before the next layer begins."""
        states, count = [self.embed(batch) for batch in block], self.checkpoint.config["num_hidden_layers"]
        for number in range(count):
            layer = self.layer(number)
            if self.plan.setting.block and number + 1 < count:
                self.weights.expect(self.weights.inside(f"layers.{number + 1}"))
            for place, batch in enumerate(block):
                x, last = states[place], number + 1 == count
                heard = self.attention(x, layer.project, batch.groups, first_only=last)
                states[place] = x = first_tokens(x, batch.groups) if last else x
                self.in_chunks(layer.finish, {"x": x, "heard": heard} | self.levels, {"y": x})
            del layer  # before the next one is made
        return [self.classify(x) for x in states]

    def embed(self, batch):
        """Return the first layer's input, (tokens, hidden). Of the words' table, only the rows that occur are read."""
        places = np.concatenate([np.tile(np.arange(length), pairs) for pairs, length in batch.groups])
        x = self.scaled("embeddings.words", self.weights.rows("embeddings.words", batch.ids), batch.ids)
        for name, numbers in (("embeddings.types", batch.types), ("embeddings.positions", places)):
            x += self.scaled(name, self.weights.array(name)[numbers], numbers)
        self.in_chunks(self.sessions["embed"], {"x": x}, {"y": x})
        return x

    def scaled(self, name, rows, numbers):
        """Return rows of an embedding table in fp32; in int8, each row has a scale."""
        return rows * self.weights.array(f"{name}.scale")[numbers][:, None] if self.levels else rows

    def attention(self, x, project, groups, first_only):
        """Return the attention (tokens, hidden) of x; with `first_only`, (pairs, hidden) of each pair's first token."""
        queries, keys, values = (np.empty_like(x) for _ in range(3))
        self.in_chunks(project, {"x": x} | self.levels, {"queries": queries, "keys": keys, "values": values})
        heard = np.empty((sum(pairs for pairs, _ in groups), x.shape[1]), np.float32) if first_only else queries

        def attend(part):
            q, k, v = (each[part.tokens].reshape(part.pairs, part.length, -1) for each in (queries, keys, values))
            asking = np.ascontiguousarray(q[:, part.asking])
            (found,) = self.sessions["attend"].run(None, {"queries": asking, "keys": k, "values": v})
            if first_only:
                heard[part.numbers] = found[:, 0]
            else:
                q[:, part.asking] = found  # q is a view of `heard`

        self.together(attend, planning.pieces(groups, first_only))
        return heard

    def classify(self, x):
        """Return logits (pairs, classes) from the last state of each pair's first token."""
        logits = np.empty((len(x), self.classes), np.float32)
        self.in_chunks(self.sessions["classify"], {"x": x} | self.levels, {"logits": logits})
        return logits

    def in_chunks(self, session, inputs, outputs):
        """Run a session on some rows of `inputs` at a time, {name: array (tokens, size)}, and fill `outputs` likewise.

        An output may overwrite an input. An input that is a single number goes into each run.
        """
        chunk, rows = self.plan.setting.chunk, len(next(iter(outputs.values())))

        def run(start):
            part = slice(start, start + chunk)
            given = {name: array[part] if array.ndim else array for name, array in inputs.items()}
            for output, result in zip(outputs.values(), session.run(list(outputs), given)):
                output[part] = result

        self.together(run, range(0, rows, chunk))

    def together(self, work, parts):
        """Call `work` on each part. Each part is computed in one thread, and several at a time: so no thread waits for
        others within an operator."""
        for _ in self.pool.map(work, parts):
            pass


def first_tokens(x, groups):
    """Return the state of each pair's first token, (pairs, hidden)."""
    lengths = np.repeat([length for _, length in groups], [pairs for pairs, _ in groups])
    return x[np.cumsum(lengths) - lengths]


def read_tokenizer(checkpoint):
    """Return the PairTokenizer of an export."""
    file = checkpoint.folder / TOKENIZER
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises a bare Exception
        raise CheckpointError(f"{file} is missing or broken: {error}. Export the checkpoint anew") from error
    return PairTokenizer(backend, checkpoint.config["model_max_length"])


# ------------------------------------------------------------------------------------------------------------ sessions


PROVIDERS = ["CPUExecutionProvider"]


def options(folder=None):
    """Return options of a session: one thread, and no memory is kept between runs (arena, pattern). `folder` holds the
    weights."""
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.enable_cpu_mem_arena = chosen.enable_mem_pattern = False
    # at higher levels, Add and Gelu become one operator that takes longer
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if folder:
        chosen.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    chosen.log_severity_level = 3  # errors only
    return chosen


def read_graph(file):
    """Return the bytes of a graph's file."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} is missing or broken: {error}. Export the checkpoint anew") from error


def is_lack_of_memory(error):
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def first_line(error):
    return str(error).strip().split("\n")[0][:200]


def largest_level(project, size):
    """Return the largest int8 activation whose products are exact on this processor: 127, or 63.

    Some processors add two 8-bit products in 16 bits, where 2 x 255 x 127 does not fit, and return wrong sums without
    an error. So the graph `project` (its bytes) multiplies tokens of the largest value with the largest weights, and
    the results are compared with the known ones. `size` is the hidden size.
    """
    matrix = np.full((size, size), 127, np.int8)
    matrix[:, ::2] = -127
    known = probe(project, matrix)
    return next((level for level in LEVELS if is_exact(known, matrix, level)), LEVELS[-1])


def probe(project, matrix):
    """Return a session of the graph `project` with the same matrix three times, scales of 1 and no biases."""
    size, known = len(matrix), {}
    for name in PROJECT:
        known |= {name: matrix, f"{name}.scale": np.ones(size, np.float32), f"{name}.bias": np.zeros(size, np.float32)}
    chosen, values = options(), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in known.values()]
    chosen.add_external_initializers(list(known), values)
    return onnxruntime.InferenceSession(project, chosen, providers=PROVIDERS)


def is_exact(project, matrix, level):
    """Return whether the products of 1 and -1, as int8 activations up to `level`, with +-127 are exact."""
    x = np.ones((PROBE_TOKENS, len(matrix)), np.float32)
    x[::2] = -1
    found = project.run(None, {"x": x, "levels": np.array(level, np.float32)})
    return all(np.allclose(each, x * matrix[0] * len(matrix), rtol=1e-3) for each in found)
