"""Write pages/constants.js: what the calculator in pages/ takes from zsc_utils, so that no number stands in two places.

Run it after one of those numbers has changed: python scripts/page_constants.py. A test says when that is.
Two of them are measured: what a process holds before its plan, with torch and without. With `--measure` they are
measured anew, in fresh processes on Linux, and rounded up to 10 MB; otherwise the file's own stay.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import zsc_utils as zsc
from zsc_utils import _container, attention, checkpoint, formats, inference, memory, onnx_plan, plan, plots, scaling

FILE = Path(__file__).parent.parent / "pages" / "constants.js"
OPENING = """// Written by scripts/page_constants.py from zsc_utils: change the numbers there, then run it.

"use strict";

const CONSTANTS = """
NAMES = {
    memory: ("PHASES", "QUERY_BLOCKS", "KEY_BLOCK"),
    inference: ("CHUNK_TOKENS", "STEP_TOKENS", "INT8_BLOCK"),
    attention: ("ATTENTIONS", "WINDOW_TOKENS"),
    plan: (
        "MOST_PAIRS", "MAX_TOKENS", "TOKENIZER_BYTES", "KERNEL_BYTES", "INT8_KERNEL_BYTES", "MKL_BYTES",
        "WORKSPACE_BYTES", "HALVES_WORKSPACE_BYTES", "HEAP_BYTES", "HOLES", "STREAMED",
    ),
    formats: ("HALVES",),
    _container: ("LIBRARY_PAGES_BYTES",),
    scaling: ("OBJECT_STORE_BYTES",),
}  # fmt: skip
OF_EXPORTS = (
    "MAX_TOKENS", "CHUNK", "ATTENTION_TOKENS", "ATTENTION_SCORES", "STREAMED", "PACKED_MULTIPLE", "TOKENIZER_BYTES",
    "LAYER_BYTES", "RUNTIME_BYTES", "HOLES", "HOLES_STREAMED",
)  # fmt: skip
CONFIG = {  # the page's short names
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
    "intermediate": "intermediate_size", "vocabulary": "vocab_size", "positions": "max_position_embeddings",
    "types": "type_vocab_size", "classes": "num_labels",
}  # fmt: skip
STEP_BYTES = 10_000_000  # measured numbers are rounded up to a multiple of this
BEFORE_A_PLAN = """import json, sys, zsc_utils
started = zsc_utils.ZeroShotClassifier(sys.argv[1]).plan.started
print(json.dumps({"whole": started["VmRSS"], "anonymous": started["RssAnon"]}))"""


def taken() -> dict:
    """Return what is taken from the rooms of zsc_utils, by name."""
    found = {name: getattr(room, name) for room, names in NAMES.items() for name in names}
    found["ITEM_BYTES"] = {precision: dtype.itemsize for precision, dtype in formats.DTYPES.items()}
    found["FORMATS"] = [
        {"name": form.name, "precision": form.precision, "embeddings": form.embeddings} for form in formats.FORMATS
    ]
    found["ONNX"] = {name: getattr(onnx_plan, name) for name in OF_EXPORTS}
    found["COLOURS"] = plots.BYTES | {"other": plots.OTHER}
    found["CHECKPOINTS"] = {name: facts(name) for name in ("base-shape", "mini")}
    return found


def facts(name: str) -> dict:
    """Return what the page knows of a checkpoint: sizes, format, and bytes of its files; `tokenizerBytes` is the size
    of tokenizer.json in its export."""
    subject, source = plan.subject_of(name), checkpoint.resolve(name)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "tokenizer.json"
        checkpoint.read_tokenizer(source.folder, source.config).backend_tokenizer.save(str(exported))
        size = exported.stat().st_size
    return {
        "config": {short: getattr(subject.config, key) for short, key in CONFIG.items()},
        "format": subject.config.zsc_format,
        "stored": subject.stored,
        "tokenizer": subject.tokenizer,
        "tokenizerBytes": size,
    }


def measured() -> dict:
    """Return the bytes that a fresh process holds before its plan, with torch and without."""
    with tempfile.TemporaryDirectory() as folder:
        return {"torch": held_by("mini"), "export": held_by(zsc.export("mini", Path(folder) / "mini", "int8"))}


def held_by(name) -> dict:
    command = [sys.executable, "-c", BEFORE_A_PLAN, str(name)]
    held = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {kind: math.ceil(size / STEP_BYTES) * STEP_BYTES for kind, size in held.items()}


def written(file: Path = FILE) -> dict:
    """Return the constants that a file holds."""
    return json.loads(file.read_text(encoding="utf-8").removeprefix(OPENING).rstrip(";\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure anew what a process holds before its plan")
    anew = parser.parse_args().measure
    constants = taken() | {"PROCESSES": measured() if anew else written()["PROCESSES"]}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in constants.items())
    FILE.write_text(f"{OPENING}{{\n{lines}\n}};\n", encoding="utf-8")
    print(os.path.relpath(FILE))


if __name__ == "__main__":
    main()
