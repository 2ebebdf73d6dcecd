"""How each way to classify does, in memory and speed, without a limit and in ever smaller containers.

pip install -e '.[bench]', then python benchmarks/containers.py [--quick] [--turns N] [--only NAME] [--older PYTHON].
24 texts x 9 labels on base-shape by every way of contenders.py. Each run is a fresh process in a memory control group
of its own, with a cold page cache. The kernel charges a group for Python, libraries, weights and cached pages. A
container counts as too small if the process is killed, fails, or takes more than PATIENCE times its own time. Then the
headlines of the test set x 12 labels on `mini`, moved off its int8 grid: the share with the baseline's best label.

`--quick`: a third of the texts, one turn, every eighth headline, two batch sizes in place of four, less patience; the
search for the smallest container begins at a guess. `--only`: some ways again, put into the record that there is.
`--older`: the Python of an environment with transformers 4, for the ways that need it (see benchmarks/README.md).

Needs Linux, and root: control groups (version 1 or 2) and dropping the page cache. This process imports no library, for
a container is not charged for pages that another process has mapped. So run nothing beside it that has torch loaded.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import machine
from contenders import BASELINE, HEAP, NEARLY, QUICK_SIZES, SIZES, WAYS

LIMITS_MB = (1024, 768, 512, 384, 256, 192, 160, 128, 112, 96)
TURNS, TEXTS = 3, 24
QUICK_TURNS, QUICK_TEXTS, QUICK_EVERY = 1, 8, 8
PATIENCE, QUICK_PATIENCE = 4, 3  # times the seconds without a limit, then it counts as not done
HERE = Path(__file__).parent
GROUPS = Path("/sys/fs/cgroup")
LIBRARIES = ("onnxruntime", "sentence_transformers", "accelerate")
FIGURES = ("first", "seconds", "whole", "anonymous", "file_backed", "charged")
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
NO_GROUPS = "needs root on Linux, to make control groups of memory in /sys/fs/cgroup and to drop the page cache"


# -------------------------------------------------------------------------------------------------------- a container


@contextmanager
def group(limit=None, groups=GROUPS):
    """A control group, with a limit of that many bytes or without: yields its folder. Nothing in it may use swap."""
    second = (groups / "cgroup.controllers").exists()
    parent = groups if second else groups / "memory"
    try:
        if second and "memory" not in (parent / "cgroup.subtree_control").read_text().split():
            (parent / "cgroup.subtree_control").write_text("+memory")
        folder = parent / f"containers-{os.getpid()}"
        folder.mkdir()
    except OSError as error:
        raise OSError(f"{error}: containers.py {NO_GROUPS}") from error
    try:
        confine(folder, limit)
        yield folder
    finally:
        remove(folder)


def confine(folder, limit):
    """Write a limit into the files of a control group: those of version 2, or of version 1."""
    if limit is not None:
        for name in ("memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            if (folder / name).exists():
                (folder / name).write_text(str(limit))
    if (folder / "memory.swap.max").exists():
        (folder / "memory.swap.max").write_text("0")


def charged(folder):
    """The most bytes that a control group was charged for; None where the kernel does not tell (before Linux 5.19)."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        if (folder / name).exists():
            return int((folder / name).read_text())
    return None


def remove(folder):
    """Remove a control group; a killed process leaves it a little later."""
    for attempt in range(100):
        try:
            return folder.rmdir()
        except OSError:
            if attempt == 99:
                raise
            time.sleep(0.1)


def drop_caches():
    """Make every run begin with nothing cached."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        raise OSError(f"{error}: containers.py {NO_GROUPS}") from error


def strangers():
    """The ids of other processes that hold a library which a container should be charged for."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            held = maps.read_text()
        except OSError:  # it has ended, or is not ours to read
            continue
        if "libtorch_cpu" in held or "onnxruntime_pybind" in held:
            found.append(int(maps.parent.name))
    return found


# -------------------------------------------------------------------------------------------------------------- a run


def run(job, place, pythons, patience=None):
    """Do a job of contenders.py in a fresh process in the group at `place`: its figures, or why there are none.

    The shell joins the group before Python begins, so that all of it is charged.
    """
    way = WAYS[job["way"]]
    inside = 'echo $$ > "$0" && exec "$@"'
    command = ["sh", "-c", inside, place / "cgroup.procs", pythons[way.older], HERE / "contenders.py"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **(HEAP if way.tuned else {})}
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
        start = time.time()
        child = subprocess.Popen(
            [*command, json.dumps(job | {"start": start})], stdout=told, stderr=errors, env=environment
        )
        try:
            kinds = watched(child, start, patience)
        finally:  # none is left behind, when this is interrupted too
            child.kill()
            child.wait()
        if kinds is None:
            return "not done"
        if child.returncode:
            errors.seek(0)
            print(f"  {job['way']}: {(errors.read().strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
            return "killed" if child.returncode == -9 else "failed"
        told.seek(0)
        return json.loads(told.read().splitlines()[-1]) | kinds


def watched(child, start, patience):
    """The most anonymous and file-backed bytes that a process held at once, read until it ends; None if it is not done
    in time."""
    highest = {"anonymous": 0, "file_backed": 0}
    while child.poll() is None:
        now = resident(child.pid)
        highest = {"anonymous": max(highest["anonymous"], now.get("RssAnon", 0)),
                   "file_backed": max(highest["file_backed"], now.get("RssFile", 0))}  # fmt: skip
        if patience is not None and time.time() - start > patience:
            return None
        time.sleep(0.02)
    return highest


def resident(pid):
    """{kind: bytes} of a process; empty if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith("Rss"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields}


def measured(job, pythons, limit=None, patience=None):
    """One run with a cold cache, and what its group was charged."""
    drop_caches()
    with group(limit) as place:
        found = run(job, place, pythons, patience)
        return found if isinstance(found, str) else found | {"charged": charged(place)}


# --------------------------------------------------------------------------------------------------------- its record


def descend(limits, tried, guess=None):
    """{limit: result of `tried(limit)`}: from the largest limit, or the smallest that holds a guess, down to the first
    that is too small. If that is the first one tried, up to the first that is large enough."""
    found = {}
    first = 0 if guess is None else max((i for i, limit in enumerate(limits) if limit >= guess), default=0)
    for limit in limits[first:]:
        found[limit] = tried(limit)
        if isinstance(found[limit], str):
            break
    for limit in reversed(limits[:first]) if isinstance(found[limits[first]], str) else ():
        found[limit] = tried(limit)
        if not isinstance(found[limit], str):
            break
    return found


def again(runs, tried):
    """One more turn of the smallest container that worked in all turns so far; a larger one where it does not."""
    for limit in sorted(runs):
        if isinstance(runs[limit][-1], str):
            continue
        runs[limit].append(tried(limit))
        if not isinstance(runs[limit][-1], str):
            break


def middle(runs):
    """The record of some turns: medians, and the least and the most of each; a container that failed once failed."""
    if isinstance(runs[-1], str):
        return runs[-1]
    told = {name: [one[name] for one in runs] for name in FIGURES if runs[0].get(name) is not None}
    spread = {name: [min(values), max(values)] for name, values in told.items()}
    return {name: statistics.median(values) for name, values in told.items()} | {"spread": spread, "turns": len(runs)}


class Contender:
    """One way with all its runs."""

    def __init__(self, name, folder, pythons):
        self.name, self.way, self.folder, self.pythons = name, WAYS[name], folder, pythons
        self.options, self.alone, self.limited = dict(self.way.options), [], {}
        self.share, self.share_of_long, self.error = None, None, None

    @contextmanager
    def kept_from_ending_all(self):
        """Keep an error of this way, and go on with the others; without the baseline there is nothing to compare."""
        try:
            yield
        except RuntimeError as error:
            if self.name == BASELINE:
                raise
            self.error = str(error)
            print(self.error, file=sys.stderr)

    def job(self, asked="speed", model="base-shape", work="work", options=None):
        return {
            "way": self.name, "folder": str(self.folder / model), "work": str(self.folder / f"{work}.json"),
            "options": self.options if options is None else options, "asked": asked,
        }  # fmt: skip

    def take_the_fastest_size(self, sizes):
        """Look for the best batch size: the smallest of these that is nearly as fast as the fastest."""
        found = measured(self.job("sizes", options={"sizes": sizes}), self.pythons)
        if isinstance(found, str):
            raise RuntimeError(f"{self.name}: {found} while batch sizes were tried")
        seconds = [found[str(size)] for size in sizes]
        self.options["batch_size"] = min(s for s, t in zip(sizes, seconds) if t <= NEARLY * min(seconds))

    def take_a_turn(self, limits, search, patience=PATIENCE):
        """Run once without a limit; then look for the smallest container, or run in the one that was found."""
        alone = measured(self.job(), self.pythons)
        if isinstance(alone, str):
            raise RuntimeError(f"{self.name}: {alone} without a limit")
        self.alone.append(alone)
        longest = patience * (alone["first"] + alone["seconds"])

        def tried(limit):
            return measured(self.job(), self.pythons, limit * 10**6, longest)

        if self.limited:
            return again(self.limited, tried)
        guess = (alone["anonymous"] + alone["file_backed"] / 2) / 1e6 if search else None
        self.limited = {limit: [found] for limit, found in descend(limits, tried, guess).items()}

    def answers(self, work):
        """The best labels on `mini`."""
        options = self.options if self.way.on_mini is None else self.way.on_mini
        with group() as place:
            found = run(self.job("answers", "mini", work, options), place, self.pythons)
        if isinstance(found, str):
            raise RuntimeError(f"{self.name}: {found} on mini")
        return found["answers"]

    def record(self):
        """All that is kept of it."""
        way = self.way
        told = {"setup": "tuned" if way.tuned else "documented", "exact": way.exact, "beforehand": way.beforehand,
                "options": self.options, "agreement": self.share}  # fmt: skip
        if way.cuts:
            told["agreement_on_long_texts"] = self.share_of_long
        containers = {str(limit): middle(runs) for limit, runs in sorted(self.limited.items(), reverse=True)}
        return told | middle(self.alone) | {"containers": containers}


def same(answers, wanted):
    """The share of texts with the same best label."""
    return round(sum(a == b for a, b in zip(answers, wanted, strict=True)) / len(wanted), 4)


def compare(contenders, baseline):
    """Ask all contenders for their answers on `mini`, and compare them with the baseline's."""
    wanted = {work: baseline.answers(work) for work in ("headlines", "long")}
    for one in contenders:
        with one.kept_from_ending_all():
            if one.way.answers:
                one.share = same(one.answers("headlines"), wanted["headlines"])
            if one.way.cuts:
                one.share_of_long = same(one.answers("long"), wanted["long"])


# ---------------------------------------------------------------------------------------------------------- all of them


def possible(older):
    """({name of a way that can run here}, {name of one that cannot: why})."""
    why = {}
    for name, way in WAYS.items():
        if way.older and not older:
            why[name] = "needs an environment with transformers 4 (--older)"
        elif not way.lowered and "lowered_from" in machine.described():
            why[name] = "takes no notice of what lowers this processor"
    return [name for name in WAYS if name not in why], why


def earlier(result, only, output):
    """The ways of the record that `--only` adds to. Raises ValueError if it has none of this work, nor the baseline."""
    there = machine.records("containers", output).get(result["kind"], {}) if only else {}
    if any(there.get(name) != result[name] for name in ("texts", "limits", "every")):
        there = {}
    if only and BASELINE not in {*only, *there.get("ways", {})}:
        raise ValueError(
            f"--only: there is no record of {result['kind']} with {result['texts']} texts to add to; "
            f"name {BASELINE!r} too, or leave out --only"
        )
    return there.get("ways", {})


def chosen(only, older):
    """([names to run], {name: why it does not run here}). Raises ValueError for a name that is not in WAYS."""
    names, why = possible(older)
    if strange := sorted(set(only or ()) - set(WAYS)):
        raise ValueError(f"--only {', '.join(strange)}: there are {'; '.join(WAYS)}")
    if barred := [f"{name} {why[name]}" for name in only or () if name in why]:
        raise ValueError(f"--only: {'; '.join(barred)}")
    return [name for name in names if not only or name in only], why


def versions(python, names):
    """{library: version} in the environment of that Python."""
    code = f"import json, importlib.metadata as m; print(json.dumps({{name: m.version(name) for name in {names!r}}}))"
    return json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True).stdout)


def described(arguments):
    """The record without its ways."""
    quick, older = arguments.quick, arguments.older
    result = machine.described() | {name: version(name.replace("_", "-")) for name in LIBRARIES}
    result |= {"turns": arguments.turns or (QUICK_TURNS if quick else TURNS), "limits": list(LIMITS_MB)}
    result |= {"texts": QUICK_TEXTS if quick else TEXTS, "every": QUICK_EVERY if quick else 1}
    result["patience"] = QUICK_PATIENCE if quick else PATIENCE
    result["sizes"] = "from a guess" if quick else "all, from the largest"
    if older:
        result["older"] = versions(older, ["torch", "transformers", "sentence-transformers", "modelscope"])
    return result


def prepare(folder, result, older):
    """Make all that the ways read, in a process of its own."""
    asked = ["--every", str(result["every"]), "--texts", str(result["texts"]), *(["--older", older] if older else [])]
    command = [sys.executable, HERE / "preparation.py", folder, *asked]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(HERE.parent)})


def take_turns(contenders, result, output, search):
    """All turns of all ways; the record is written after each way of the first turn, for all of them take long."""
    for turn in range(result["turns"]):
        for one in [one for one in contenders if not (turn and one.error)]:
            begun = time.time()
            with one.kept_from_ending_all():
                if one.way.sized and not turn:
                    one.take_the_fastest_size(QUICK_SIZES if search else SIZES)
                one.take_a_turn(result["limits"], search, result["patience"])
            if one.error:
                result["left_out"][one.name] = f"it failed: {one.error}"
                result["ways"].pop(one.name, None)
                machine.record("containers", result, output)
                continue
            ways = result["ways"] | {one.name: one.record()}
            result["ways"] = {name: ways[name] for name in WAYS if name in ways}
            smallest = min((limit for limit, runs in one.limited.items() if not isinstance(runs[-1], str)), default="-")
            told = f"{one.alone[-1]['whole'] / 1e6:.0f} MB, {one.alone[-1]['seconds']:.1f} s; smallest {smallest} MB"
            print(f"turn {turn + 1}, {one.name}: {told} ({time.time() - begun:.0f} s)", flush=True)
            machine.record("containers", result, output)


def main():
    more = {
        "--turns": {"type": int, "metavar": "N", "help": f"{TURNS}, or {QUICK_TURNS} with --quick"},
        "--only": {"nargs": "+", "metavar": "NAME", "help": "some ways again"},
        "--older": {"metavar": "PYTHON", "help": "of an environment with transformers 4"},
    }
    arguments = machine.asked("containers", __doc__, more)
    result = described(arguments)
    try:
        names, why = chosen(arguments.only, arguments.older)
        result["ways"] = earlier(result, arguments.only, arguments.output)
    except ValueError as error:
        sys.exit(str(error))
    result["left_out"] = {name: reason for name, reason in why.items() if name not in result["ways"]}
    with group():  # whether it can be made is known before anything is prepared
        drop_caches()
    if others := strangers():
        print(f"warning: processes {others} hold libraries, for which no container is charged", file=sys.stderr)
    result["beside"] = len(others)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache")} | QUIET
        prepare(folder, result, arguments.older)
        pythons = {False: sys.executable, True: arguments.older}
        contenders = [Contender(name, folder, pythons) for name in names]
        compare(contenders, Contender(BASELINE, folder, pythons))
        take_turns(contenders, result, arguments.output, arguments.quick)
    print(json.dumps(machine.record("containers", result, arguments.output), indent=1))
    return 1 if any(one.error for one in contenders) else 0


if __name__ == "__main__":
    sys.exit(main())
