"""Offload layers with accelerate, for comparison and for GPUs that are too small."""

import copy
import io
import tempfile
from contextlib import redirect_stderr

import torch
from safetensors import SafetensorError
from transformers import BertForSequenceClassification

from zsc_utils import checkpoint as door
from zsc_utils._types import Name
from zsc_utils.checkpoint import Checkpoint, CheckpointError
from zsc_utils.formats import FORMATS, format_of


def dispatch(
    folder: Name,
    *,
    max_memory: dict | None = None,
    offload_folder: Name | None = None,
    dtype: torch.dtype = torch.float32,
) -> Checkpoint:
    """Return a Checkpoint whose layers accelerate places where there is room: GPU first, then CPU memory, then disk.

    `max_memory` limits each device, such as {0: "2GB", "cpu": "200MB"}, in accelerate's format. Without it, GPU memory
    is used first; if there is no GPU, all layers are on disk and the rest is in memory. Layers on disk are copied to
    `offload_folder`, or to a temporary folder that is deleted with the model. A layer is never split.
    Raises CheckpointError as `load` does, and for a folder whose format is not plain fp32 weights; ValueError if
    `max_memory` leaves the whole model on disk, which accelerate does not support.
    """
    import accelerate  # only here, because nothing else needs it

    source = door.resolve(folder)
    name, folder, config = source.name, source.folder, copy.deepcopy(source.config)
    if format_of(config) is not FORMATS[0]:
        raise CheckpointError(f"{name} is stored as {config.zsc_format}, which accelerate cannot read: save it in fp32")
    with accelerate.init_empty_weights(include_buffers=False):
        model = BertForSequenceClassification(config)
    whole = {"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"}
    spare = None if offload_folder else tempfile.TemporaryDirectory(prefix="zsc_utils-offload-")
    try:
        with redirect_stderr(io.StringIO()):  # hides a progress bar for each tensor
            model = accelerate.load_checkpoint_and_dispatch(
                model.eval(),
                str(folder),
                device_map="auto" if max_memory or torch.cuda.is_available() else whole,
                max_memory=max_memory,
                no_split_module_classes=["BertLayer"],
                offload_folder=str(offload_folder or (spare and spare.name)),
                dtype=dtype,
            )
    except SafetensorError as error:  # its message: device disk is invalid
        raise ValueError(f"max_memory {max_memory!r}: too little for anything to stay in memory; give more") from error
    model.offload_folder = spare  # lives as long as the model
    return door.opened(source, model)
