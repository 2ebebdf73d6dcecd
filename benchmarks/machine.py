"""What a record says of the machine it was made on."""

import datetime
import platform
from pathlib import Path

import torch
import transformers

INSTRUCTIONS = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"}


def described():
    """Date, processor with the instructions that matter here, threads and versions."""
    file = Path("/proc/cpuinfo")
    info = file.read_text() if file.exists() else f"model name: {platform.machine()}"
    field = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in info.splitlines() if ":" in line}
    return {
        "date": datetime.date.today().isoformat(),
        "processor": field.get("model name", platform.machine()),
        "instructions": sorted(INSTRUCTIONS & set(field.get("flags", "").split())),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
