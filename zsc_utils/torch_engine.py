"""Logits by torch: our own pass where the model is BERT as it is, layer by layer where layers stay in their file, and
the model's own forward where somebody has put hooks on it."""

import gc
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import BertForSequenceClassification

from zsc_utils import inference
from zsc_utils import plan as planning
from zsc_utils._tensors import has_foreign_hooks
from zsc_utils._types import Attention, Name, Precision, Size
from zsc_utils.attention import use
from zsc_utils.batching import Batch, PairTokenizer, TokenBudget
from zsc_utils.checkpoint import Checkpoint, resolve
from zsc_utils.offloading import StreamedModel, block_logits
from zsc_utils.quantization import precision_of, quantize

GPU_TOKENS = 16_384  # of a batch on a GPU, which is idle with few; a plan has the number for CPUs


class TorchEngine:
    """An Engine for a Checkpoint: levers pulled, by hand or by a `plan`, where its model is.

    `chunk`: tokens that go through linear layers at a time, None for what the device likes. The arguments are those of
    ZeroShotClassifier, and so is what is raised.
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
        source = checkpoint if isinstance(checkpoint, Checkpoint) else resolve(checkpoint)  # once, for all who ask
        chosen = planning.Chosen(precision, attention, offload)
        self.plan = planning.make(source, memory_budget, allow_lossy, max_tokens, chosen)
        self.checkpoint = planning.realise(self.plan, source)
        self.budget = TokenBudget(self.plan.setting.max_tokens, self.plan.setting.block)
        self.chunk = self.plan.setting.chunk

    @property
    def tokenizer(self) -> PairTokenizer:
        return PairTokenizer.of(self.checkpoint.tokenizer)

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
        """Logits (pairs, classes), float32, of each Batch; MemoryError when memory runs out, with nothing held."""
        logits = within_memory(lambda: [each.float().cpu().numpy() for each in self.forward(block)])
        if self.plan is not None:
            for batch in block:
                self.plan.look(batch.ids)
        return logits

    @torch.inference_mode()
    def forward(self, block):
        """Logits (pairs, classes) of each Batch, where the model is."""
        model, device = self.checkpoint.model, device_of(self.checkpoint.model)
        batches = [(*(torch.from_numpy(part).to(device) for part in batch[:2]), batch.groups) for batch in block]
        if isinstance(model, StreamedModel):
            return block_logits(model, batches, self.chunk or inference.CHUNK_TOKENS)
        if is_plain(model):
            return [inference.logits(model, *batch, chunk=self.chunk) for batch in batches]
        return [group_by_group(model, *batch) for batch in batches]


def device_of(model):
    """Where a model wants its input: where it is, or, of one that accelerate has dispatched, where it computes."""
    return torch.device(getattr(getattr(model, "_hf_hook", None), "execution_device", None) or model.device)


def pulled_on_gpu(checkpoint, precision, attention, offload):
    """A checkpoint on a GPU with the levers that were chosen by hand."""
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
    """Whether what a model takes can be predicted."""
    return is_plain(model) or isinstance(model, StreamedModel)


def is_plain(model):
    """Whether the model's own forward would compute what `inference` does: BERT, with nobody's hooks on its modules."""
    is_bert = type(model).forward is BertForSequenceClassification.forward
    return is_bert and not any(map(has_foreign_hooks, model.modules()))


def group_by_group(model, ids, types, groups):
    """Logits by the model's own forward, pairs of one length at a time."""
    inputs = zip(inference.by_group(ids, groups), inference.by_group(types, groups))
    return torch.cat([model(input_ids=ids, token_type_ids=types).logits for ids, types in inputs])


# ------------------------------------------------------------------------------------------------------- out of memory

# what torch's allocator for the CPU says, which has no class for it, CUDA and its libraries, C++, and oneDNN when it
# lacks room for a kernel
OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc",
    "could not create a primitive", "could not execute a primitive", "could not create a memory",
)  # fmt: skip


def within_memory(forward: Callable[[], list]) -> list:
    """What `forward()` returns; MemoryError, whatever the library's own error is, if memory ran out."""
    try:
        return forward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().split("\n")[0][:200]
    # only here, where the error is gone, are the tensors that its frames held gone too
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise MemoryError(said)


def is_out_of_memory(error):
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        any(words in said for words in OUT_OF_MEMORY) and "descriptor" not in said  # which it has for no such shape
    )
