"""All benchmarks, one after the other, into the record of this kind of machine; then README's tables. `make bench`.

python benchmarks/run_all.py [--quick] [--output FOLDER]. One that fails is reported, and the rest goes on; the exit
status is then 1. README is written only if records are where it looks for them. Run nothing beside it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("engines", "agreement", "batching", "offloading", "distil", "containers")


def run(name: str, *options: str) -> bool:
    """Run a script of this folder, and print how long it took; whether it succeeded."""
    print(f"\n== {name} ==", flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, HERE / f"{name}.py", *options]).returncode
    took = f"{(time.perf_counter() - start) / 60:.1f} minutes"
    print(f"== {name}: {took}" + (f", FAILED with exit status {status}" if status else ""), flush=True)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns, fewer texts: 20 to 30 minutes")
    parser.add_argument("--output", metavar="FOLDER", help="where records lie, if not beside this file")
    arguments = parser.parse_args()
    options = ["--quick"] * arguments.quick + (["--output", arguments.output] if arguments.output else [])
    start = time.perf_counter()
    failed = [name for name in BENCHMARKS if not run(name, *options)]
    if not arguments.output and not run("report"):
        failed.append("report")
    print(f"\nall together: {(time.perf_counter() - start) / 60:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
