"""The machine at hand and its records: one file for each kind of machine, named by what the processor can do.

The kind is what this process can use: the processor's instructions, lowered by what the environment tells oneDNN and
torch. A record file holds a section for each benchmark. Recording replaces one section in the file of this kind.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

RECORDS = Path(__file__).parent / "records"

# instructions as /proc/cpuinfo names them; a kind is the first whose instructions are all there
AVX2, VNNI = {"avx2"}, {"avx_vnni"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AVX512_VNNI = AVX512 | {"avx512_vnni"}
AVX512_BF16 = AVX512_VNNI | {"avx512_bf16"}
AMX = AVX512_BF16 | {"amx_tile", "amx_int8"}
KINDS = {
    "amx": AMX,
    "avx512-vnni-bf16": AVX512_BF16,
    "avx512-vnni": AVX512_VNNI,
    "avx512": AVX512,
    "avx2-vnni": AVX2 | VNNI,
    "avx2": AVX2,
    "x86": {"sse2"},
    "arm-i8mm": {"asimd", "i8mm"},
    "arm": {"asimd"},
}
TOLD = {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"}  # in a record

# what is left under each value of oneDNN's variable, in capitals or not, and of torch's; another value lowers nothing
ONEDNN = {
    "SSE41": set(),
    "AVX": set(),
    "AVX2": AVX2,
    "AVX2_VNNI": AVX2 | VNNI,
    "AVX2_VNNI_2": AVX2 | VNNI,
    "AVX512_CORE": AVX512,
    "AVX512_CORE_VNNI": AVX512_VNNI,
    "AVX512_CORE_BF16": AVX512_BF16,
    "AVX512_CORE_FP16": AVX512_BF16 | VNNI,
    "AVX10_1_512": AVX512_BF16 | VNNI,
}
ATEN = {"default": set(), "avx2": AVX2 | VNNI}
# the last one is MKL's: it slows products in fp32, and no kind is named by it
LOWERING = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


def cpuinfo() -> str:
    """What Linux tells of the processors; nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.exists() else ""


def fields(info: str) -> dict[str, str]:
    """The lines `name: value` of a /proc/cpuinfo, those of its last processor."""
    pairs = [line.split(":", 1) for line in info.splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, value in pairs}


def usable(info: str, environment: Mapping[str, str]) -> set[str]:
    """The instructions of a /proc/cpuinfo that the environment leaves."""
    field = fields(info)
    left = set(field.get("flags", field.get("Features", "")).split())
    onednn, aten = (environment.get(variable, "") for variable in LOWERING[:2])
    for kept in (ONEDNN.get(onednn.upper()), ATEN.get(aten)):
        if kept is not None:
            left -= (AMX | VNNI) - kept
    return left


def kind(info: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The kind of this machine, or of the one that a /proc/cpuinfo and an environment describe.

    Where nothing is known of the instructions, it is the name that Python has for the architecture.
    """
    info = cpuinfo() if info is None else info
    there = usable(info, os.environ if environment is None else environment)
    return next((name for name, needed in KINDS.items() if needed <= there), platform.machine())


def described(info: str | None = None, environment: Mapping[str, str] | None = None) -> dict:
    """Date, processor, kind, the instructions that matter, threads and versions.

    `lowered_by` has all three variables if one is set. A processor that they lower says so in its name, and says `in
    part` unless all three are set. No variable lowers ONNX Runtime.
    """
    info = cpuinfo() if info is None else info
    environment = os.environ if environment is None else environment
    processor = fields(info).get("model name", platform.machine())
    own, whole = kind(info, environment), kind(info, {})
    told = {variable: environment.get(variable) for variable in LOWERING}
    if own != whole:
        processor += f", a larger one ({whole}) lowered to {own}" + ("" if all(told.values()) else " in part")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "kind": own,
        **({"lowered_from": whole} if own != whole else {}),
        "instructions": sorted(TOLD & usable(info, environment)),
        **({"lowered_by": told} if any(told.values()) else {}),
        **libraries(),
    }


def libraries() -> dict:
    """Threads and versions of torch and transformers.

    A process that has not imported torch asks another: a container is not charged for pages that this process maps.
    """
    if "torch" in sys.modules:
        import torch
        import transformers

        return {
            "threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__
        }  # fmt: skip
    return asked_elsewhere(str(Path(__file__).parent))


@cache
def asked_elsewhere(folder: str) -> dict:
    """What `libraries` returns in a process that imports torch; `folder` has this file."""
    code = "import json, torch, machine; print(json.dumps(machine.libraries()))"
    return json.loads(subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True).stdout)


@cache
def weights_of_mini() -> str:
    """A short hash of the bundled weights: answers of `mini` that a record counts are those of these weights."""
    file = Path(__file__).parent.parent / "zsc_utils" / "data" / "mini" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def record(section: str, result: dict, output: Path | None = None) -> dict:
    """Put the result of a benchmark, with a description of this machine, into the file of its kind; that section.

    Other sections and other kinds stay as they are. `output` is the folder, else RECORDS.
    """
    made = described() | {"mini": weights_of_mini()} | result
    file = (RECORDS if output is None else Path(output)) / f"{made['kind']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    sections = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    sections[section] = made
    write(file, json.dumps(dict(sorted(sections.items())), indent=1, ensure_ascii=False) + "\n")
    return made


def records(section: str, folder: Path = RECORDS) -> dict[str, dict]:
    """{kind: section} of all files that hold it, in the order of their names."""
    files = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
    return {name: files[name][section] for name in sorted(files) if section in files[name]}


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all: what was there stays until the new one is complete."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def asked(section: str, description: str, more: Mapping[str, dict] | None = None) -> argparse.Namespace:
    """What a benchmark was told on its command line: where to record, and to be quick; `more` options are its own.

    Ends the program before it measures if a lowered processor would replace the record of one that is of this kind.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, metavar="FOLDER", default=RECORDS, help="where records lie")
    parser.add_argument("--quick", action="store_true", help="fewer turns, fewer texts; the record says how many")
    for option, settings in (more or {}).items():
        parser.add_argument(option, **settings)
    arguments = parser.parse_args()
    made, there = described(), records(section, arguments.output).get(kind(), {"lowered_from": None})
    if "lowered_from" in made and "lowered_from" not in there:
        parser.error(f"{made['kind']} has a record by {there['processor']}; give a lowered one another --output FOLDER")
    return arguments
