"""Compute logits with torch. A plain BERT runs in `inference`; a model whose layers stay in their file runs layer by
layer; a model with foreign hooks, or that is not BERT, runs its own forward."""

import gc
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import BertForSequenceClassification

from zsc_utils import inference
from zsc_utils import plan as planning
from zsc_utils._process import trim_heap
from zsc_utils._tensors import has_foreign_hooks
from zsc_utils._types import Attention, Name, Precision, Size
from zsc_utils.attention import use
from zsc_utils.batching import Batch, PairTokenizer, TokenBudget
from zsc_utils.checkpoint import Checkpoint, resolve
from zsc_utils.offloading import StreamedModel, block_logits
from zsc_utils.quantization import precision_of, quantize

GPU_TOKENS = 16_384  # tokens of a batch on a GPU; fewer do not keep it busy. For CPUs, the plan has the number


class TorchEngine:
    """An Engine for a Checkpoint, on the device of its model, with settings chosen by hand or by a `plan`.

    `chunk` is the number of tokens that pass the linear layers at a time; None means the default of the device. The
    arguments and errors are those of ZeroShotClassifier.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Name,
        *,
        precision: Precision | None = None,
        attention: Attention | None = None,
        offload: bool | None = None,
        memory_budget: Size | None = None,
        allow_lossy: bool = False,
        max_tokens: int | None = None,
    ):
        self.plan: planning.Plan | None = None
        self.pair_tokenizer: PairTokenizer | None = None
        if isinstance(checkpoint, Checkpoint):
            if memory_budget is None and device_of(checkpoint.model).type != "cpu":
                self.checkpoint = pulled_on_gpu(checkpoint, precision, attention, offload)
                tokens = getattr(checkpoint.model.config, "feed_forward_tokens", None)
                self.chunk = inference.filled(tokens) if tokens else None
                self.budget = TokenBudget(max_tokens or GPU_TOKENS, getattr(checkpoint.model, "block", 0))
                return
            if memory_budget is not None and not is_known(checkpoint.model):
                raise ValueError(
                    "memory_budget: modules of this model have hooks, so what it takes is not known. Remove them"
                )
        source = checkpoint if isinstance(checkpoint, Checkpoint) else resolve(checkpoint)  # looked up only once
        chosen = planning.Chosen(precision, attention, offload)
        self.plan = planning.make(source, memory_budget, allow_lossy, max_tokens, chosen)
        self.checkpoint = planning.realise(self.plan, source)
        self.budget = TokenBudget(self.plan.setting.max_tokens, self.plan.setting.block)
        self.chunk = self.plan.setting.chunk
        trim_heap()  # what reading took and no longer needs; of `mini` in fp32 some 20 MB, more after others were freed

    @property
    def tokenizer(self) -> PairTokenizer:
        tokenizer, made = self.checkpoint.tokenizer, self.pair_tokenizer
        if (
            made is None
            or made.backend is not tokenizer.backend_tokenizer
            or made.longest != tokenizer.model_max_length
        ):
            made = self.pair_tokenizer = PairTokenizer.of(tokenizer)
        return made

    @property
    def classes(self) -> int:
        return self.checkpoint.model.config.num_labels

    @property
    def entailment_id(self) -> int:
        return self.checkpoint.entailment_id

    @property
    def contradiction_id(self) -> int:
        return self.checkpoint.contradiction_id

    def logits(self, block: Sequence[Batch]) -> list[np.ndarray]:
        """Return logits (pairs, classes), float32, of each Batch. Raises MemoryError, with all tensors freed."""
        logits = within_memory(lambda: [each.float().cpu().numpy() for each in self.forward(block)])
        if self.plan is not None:
            for batch in block:
                self.plan.look(batch.ids)
            if self.plan.budget is not None:
                trim_heap()  # else freed tensors leave holes, more the longer it runs
        return logits

    @torch.inference_mode()
    def forward(self, block):
        """Return logits (pairs, classes) of each Batch, on the device of the model."""
        model, device = self.checkpoint.model, device_of(self.checkpoint.model)
        batches = [(*(torch.from_numpy(part).to(device) for part in batch[:2]), batch.groups) for batch in block]
        if isinstance(model, StreamedModel):
            return block_logits(model, batches, self.chunk or inference.CHUNK_TOKENS)
        if is_plain(model):
            return [inference.logits(model, *batch, chunk=self.chunk) for batch in batches]
        return [group_by_group(model, *batch) for batch in batches]


def device_of(model):
    """Return the device for a model's input: for a model dispatched by accelerate, the device where it computes."""
    return torch.device(getattr(getattr(model, "_hf_hook", None), "execution_device", None) or model.device)


def pulled_on_gpu(checkpoint, precision, attention, offload):
    """Return a checkpoint on a GPU with the settings that were chosen by hand."""
    if offload is not None:
        raise ValueError(
            f"offload {offload!r}: on a GPU give what offloading.stream_layers(..., device='cuda') returns"
        )
    if precision not in (None, precision_of(checkpoint)):
        checkpoint = quantize(checkpoint, precision)
    if attention not in (None, checkpoint.model.config._attn_implementation):
        checkpoint = use(checkpoint, attention)
    return checkpoint


def is_known(model):
    """Return whether the memory that a model needs can be predicted."""
    return is_plain(model) or isinstance(model, StreamedModel)


def is_plain(model):
    """Return whether `inference` computes the same as the model's own forward: it is BERT without foreign hooks."""
    is_bert = type(model).forward is BertForSequenceClassification.forward
    return is_bert and not any(map(has_foreign_hooks, model.modules()))


def group_by_group(model, ids, types, groups):
    """Return logits from the model's own forward, called once for each group of pairs with the same length."""
    inputs = zip(inference.by_group(ids, groups), inference.by_group(types, groups))
    return torch.cat([model(input_ids=ids, token_type_ids=types).logits for ids, types in inputs])


# ------------------------------------------------------------------------------------------------------- out of memory

# parts of out-of-memory messages: of torch's CPU allocator (it has no error class for this), of CUDA and its libraries,
# of C++, and of oneDNN if a kernel does not fit
OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc",
    "could not create a primitive", "could not execute a primitive", "could not create a memory",
)  # fmt: skip


def within_memory(forward: Callable[[], list]) -> list:
    """Return the result of `forward()`. If memory runs out, raise MemoryError, whatever error the library raised."""
    try:
        return forward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().split("\n")[0][:200]
    # outside the except clause: the error's traceback no longer holds the tensors, so their memory can be freed
    gc.collect()
    trim_heap()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise MemoryError(said)


def is_out_of_memory(error):
    """Return whether an error says that memory ran out, on a GPU or a CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        any(words in said for words in OUT_OF_MEMORY) and "descriptor" not in said  # oneDNN: unsupported shape
    )
