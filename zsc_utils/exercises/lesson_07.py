"""What lesson 07 asks: many processes."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from zsc_utils.exercises import Guess, Wrong, exercise
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess("second-worker", "mb", "memory that a second worker with shared weights costs", 300),
    Guess("second-model", "mb", "memory that the second worker's model costs", 182),
    Guess("two-workers-speed", "times", "speed of two workers with one thread against one with two", 2),
    Guess("rows-that-arrive", "rows", "rows, of 240, that arrive by the plain way", 240),
    Guess("again", "seconds", "time of the same call once more", 10),
    Guess("shared-against-int8", "workers", "workers from which on shared fp32 is smaller than int8", 2),
    Guess("rows-lost", "rows", "rows that are missing after a kill", 12),
    Guess("rows-twice", "rows", "rows that come twice after a kill", 12),
]

PATIENCE = 2.0  # seconds that two attempts wait for each other


TWO_PARTS = "two parts"


def answers_of(part):
    """The answers of a part: three dicts."""
    return [{"position": 3 * part + n, "label": f"label {n}"} for n in range(3)]


def results(output):
    """The result files in a folder, {name: answers or None}: None for one that is no whole file of answers."""
    found = {}
    for file in sorted(output.glob("part-*.jsonl")):
        try:
            found[file.name] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except (ValueError, OSError):
            found[file.name] = None
    return found


def name_of(part):
    return f"part-{part:04}.jsonl"


@exercise(
    "worker-two-bugs",
    "worker_two_bugs(part, answers, output) writes the answers, one JSON object a line, to part-0000.jsonl (the part's "
    "number) in the folder output. It has two bugs. Mend them: other workers, in threads or processes, write into the "
    "same folder, and any of them may die.",
    returns=False,
)
def worker_two_bugs(attempt: Any) -> str:
    for look in (one_part, interrupted):
        with tempfile.TemporaryDirectory() as folder:
            look(attempt, Path(folder))
    left = [wrong for look in (at_once, done_already) if (wrong := bug_found(look, attempt))]
    if len(left) == 2 and TWO_PARTS in str(left[0]):  # a stub's line names no bug: the reader is looking for them
        raise Wrong("Both bugs are still there.")
    if left:
        raise left[0]
    return "A result appears when it is whole, workers do not share unfinished files, and done parts are skipped."


def bug_found(look, attempt):
    """The Wrong that a look at the attempt raises, or None."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            look(attempt, Path(folder))
    except Wrong as wrong:
        return wrong
    return None


def one_part(attempt, output):
    """A part alone: nothing is to be seen before it is complete, then all of it."""
    seen = []

    def watched():
        for row in answers_of(2):
            seen.append(results(output))
            yield row

    attempt(2, watched(), output)
    if any(seen):
        raise Wrong("The result is visible before it is complete: a reader, or a restart, takes half of it for all. "
                    "Write to another name, then rename.")  # fmt: skip
    if name_of(2) not in results(output):
        held = ", ".join(sorted(file.name for file in output.iterdir())) or "nothing"
        raise Wrong(f"There is no {name_of(2)} when the worker is done; in the folder is: {held}.")
    if results(output)[name_of(2)] != answers_of(2):
        raise Wrong(f"{name_of(2)} does not hold the three answers, one JSON object a line.")


def interrupted(attempt, output):
    """A worker that dies in the middle, and the part done again."""

    def dying():
        yield answers_of(1)[0]
        raise MemoryError("the worker dies here")

    with suppress(MemoryError):  # whether the caller learns of it is not asked
        attempt(1, dying(), output)
    if results(output):
        raise Wrong("A worker died in the middle of a part, and its half is there as a result.")
    attempt(1, iter(answers_of(1)), output)
    if results(output).get(name_of(1)) != answers_of(1):
        raise Wrong("A part whose first worker died is not done again: what that worker left is in the way, "
                    "or is taken for a result.")  # fmt: skip


def done_already(attempt, output):
    """A part that has a result is not computed again."""
    (output / name_of(3)).write_text("".join(json.dumps(row) + "\n" for row in answers_of(3)), encoding="utf-8")
    taken = []

    def computing():
        for row in answers_of(3):
            taken.append(row)
            yield row

    attempt(3, computing(), output)
    if taken:
        raise Wrong("A part that has its result is computed again. Look for the result first: after a power cut, that "
                    "is the work of days.")  # fmt: skip
    if results(output)[name_of(3)] != answers_of(3):
        raise Wrong("A result that was there is gone or changed. Leave it as it is.")


def at_once(attempt, output):
    """Two workers at once: on two parts, then on the same part, as when a slow worker was taken for dead."""
    for parts in ((4, 5), (6, 6)):
        errors = together(attempt, parts, output)
        found = results(output)
        if errors or any(found.get(name_of(part)) != answers_of(part) for part in parts):
            what = TWO_PARTS if len(set(parts)) == 2 else "the same part, one of them taken for dead,"
            raise Wrong(f"Two workers at once on {what} write into one unfinished file. Give each attempt a name that "
                        "no other one has: tempfile.mkstemp or uuid; threads have one process number.")  # fmt: skip


def together(attempt: Callable, parts: tuple[int, int], output: Path) -> list[Exception]:
    """Run two attempts that take turns, row by row; return their errors."""
    turns, errors = threading.Barrier(2), []

    def answers(part) -> Iterator[dict]:
        for row in answers_of(part):
            take_turns()
            yield row
        take_turns()

    def take_turns():
        try:
            turns.wait(PATIENCE)
        except threading.BrokenBarrierError:
            return  # the other one failed, or has no more rows: go on alone

    def work(part):
        try:
            attempt(part, answers(part), output)
        except Exception as error:
            errors.append(error)
            turns.abort()

    workers = [threading.Thread(target=work, args=(part,), daemon=True) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(4 * PATIENCE)
    return errors


def as_pairs(got):
    """What an attempt returned, as a list of pairs."""
    pairs = list(got) if isinstance(got, Iterable) and not isinstance(got, str) else [got]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise Wrong("Return a list of pairs: the first row of a part, and the row after its last.")
    return [tuple(pair) for pair in pairs]


@exercise(
    "resume",
    "Write resume(total, rows, names): total rows are cut into parts of `rows`; names are those of the files in the "
    "output folder. A whole part from row 64 has part-64.jsonl. Return the (first, end) of each part still to do.",
)
def resume(attempt: Any) -> str:
    names = ["part-0.jsonl", "part-64.jsonl", ".part-32.jsonl.unfinished", "settings.json", "part-128.jsonl"]
    got = as_pairs(attempt(150, 32, list(names)))
    right = [(32, 64), (96, 128)]
    if got == [(32, 63), (96, 127)]:
        raise Wrong("The end is wrong: it is the row after the last one. The part from 32 ends at 64.")
    if got == [(32, 32), (96, 32)]:
        raise Wrong("The second number is not how many rows there are. It is the row after the last one.")
    if got == [(96, 128), (128, 150)]:
        raise Wrong("Parts are done in any order. Look for each part's own file; the number of files says nothing.")
    if got == [(96, 128)]:
        raise Wrong("An unfinished file is no result: its worker died. That part is still to do.")
    if got == [(128, 150)]:
        raise Wrong("The files that are no results were counted too. Look for each part's own file.")
    if got != right:
        raise Wrong(f"Parts 0, 64 and 128 have their results; to do are two others. You return {got}.")
    other = as_pairs(attempt(150, 32, ["part-0.jsonl", "copy-of-part-32.jsonl"]))
    if other != [(32, 64), (64, 96), (96, 128), (128, 150)]:
        end = other[-1] if other else None
        if end == (128, 160):
            raise Wrong("The last part is shorter: it ends with the last row, 150.")
        if end == (96, 128):
            raise Wrong("The last part, which is shorter than the others, is forgotten.")
        if other == [(64, 96), (96, 128), (128, 150)]:
            raise Wrong("copy-of-part-32.jsonl only ends like a result. Compare the whole name.")
        raise Wrong(f"Of the results only part-0.jsonl is there, so four parts are to do. You return {other}.")
    if as_pairs(attempt(64, 32, ["part-0.jsonl", "part-32.jsonl"])):
        raise Wrong("All parts are there, and something is still to do.")
    return "Each part without its own whole file, whatever the order in which workers finished."


@exercise(
    "workers-for-memory",
    "Write workers_for_memory(limit, shared, own): how many workers fit into `limit` MB, if all of them share the same "
    "`shared` MB of mapped weights and each has `own` MB besides.",
)
def workers_for_memory(attempt: Any) -> str:
    for limit, shared, own in ((2000, 409, 330), (1000, 400, 100), (1390, 409, 330)):
        right = (limit - shared) // own
        mistakes = {
            limit
            // (shared + own): "The weights are mapped: their pages are there once, whatever the number of workers.",
            limit // own: "The shared weights are not free: they are there once.",
            -(-(limit - shared) // own): "The last of these workers does not fit whole. Round down.",
            (limit - shared) / own: "Half a worker does no work: return a whole number.",
        }
        compare(attempt(limit, shared, own), right, f"workers_for_memory({limit}, {shared}, {own})", mistakes)
    if attempt(300, 409, 330) != 0:
        raise Wrong("In 300 MB not even the weights of 409 MB fit: 0 workers, not fewer.")
    return "What is shared is paid once, the rest by each worker."
