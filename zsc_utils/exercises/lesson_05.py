"""What lesson 05 asks: weights on disk."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from zsc_utils.exercises import Guess, Wrong, exercise, filled
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess("pickle-peak", "times", "peak of loading a pickle, in multiples of the file", 1),
    Guess("mapped-peak", "times", "peak of from_pretrained while it loads, in multiples of the file", 1),
    Guess("quarter-read", "mb", "resident memory after a quarter of a mapped file was read", 182),
    Guess("reading-share", "percent", "reading's time as a share of computing's, layers streamed", 100),
    Guess("smallest-budget", "mb", "smallest budget that runs a third of the base model's layers in fp32", 30),
]

LAYERS = 5
PATIENCE = 2.0  # seconds that an attempt has for what takes microseconds
AHEAD = 0.6  # seconds in which a reader that goes too far ahead has begun


class Disk:
    """A stand-in for a file of layers: knows which were read, in which order, and by which thread."""

    def __init__(self, fails_at=None):
        self.begun = [threading.Event() for _ in range(LAYERS + 1)]
        self.threads = {}
        self.fails_at = fails_at

    def read(self, number):
        """Return layer `number`. OSError for the one that fails."""
        self.threads[number] = threading.get_ident()
        self.begun[number].set()
        if number == self.fails_at:
            raise OSError(f"layer {number} cannot be read")
        return f"layer {number}"


@contextmanager
def silent_threads():
    """An attempt's thread that ends with an error prints nothing below the cell."""
    before, threading.excepthook = threading.excepthook, lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


def layers_of(attempt: Callable, disk: Disk, computing: Callable[[int], None], stuck: str) -> list:
    """The layers that an attempt yields; `computing(number)` runs with each. Wrong with `stuck` if it never ends."""
    layers, errors = [], []

    def work():
        try:
            for number, layer in enumerate(attempt(disk.read, LAYERS)):
                layers.append(filled(layer))
                computing(number)
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    with silent_threads():
        worker.start()
        worker.join(PATIENCE * 4)
    if worker.is_alive():
        raise Wrong(stuck)
    if errors:
        raise errors[0]
    return layers


@exercise(
    "prefetch",
    "Write a generator prefetch(read, count) that yields read(0), read(1), ... in order. While one layer is in use, a "
    "thread reads the next one, and no more than that one.",
)
def prefetch(attempt: Any) -> str:
    disk = Disk()

    def computing(number):
        first = number == 0
        if first and all(event.is_set() for event in disk.begun[:LAYERS]):
            raise Wrong("All layers are read before the first is in use: all of them are in memory at once.")
        if number + 1 < LAYERS and not disk.begun[number + 1].wait(PATIENCE):
            raise Wrong(f"While layer {number} is in use, nobody reads layer {number + 1}: the disk waits.")
        if number + 1 == LAYERS and disk.begun[LAYERS].wait(0.1):
            raise Wrong(f"read({LAYERS}) is called, one layer too many: {LAYERS} layers have the numbers 0 to "
                        f"{LAYERS - 1}. Do not read ahead of the last one.")  # fmt: skip
        if number + 1 in disk.threads and disk.threads[number + 1] == threading.get_ident():
            raise Wrong("The next layer is read first, in the same thread, so reading and computing take turns. "
                        "Let another thread read.")  # fmt: skip
        if first and disk.begun[2].wait(AHEAD):
            raise Wrong("While layer 0 is in use, layers 1 and 2 are read: three are in memory. A full queue holds "
                        "one, and the reader another one in its hand.")  # fmt: skip

    layers = layers_of(attempt, disk, computing, "It never ends. What tells the loop that there are no more layers?")
    if layers != [f"layer {number}" for number in range(LAYERS)]:
        kept = [int(layer.split()[1]) for layer in layers if isinstance(layer, str) and layer.startswith("layer ")]
        raise Wrong(f"Of {LAYERS} layers come {kept}: each is wanted once, in order. Is the last one given out?")
    try:
        layers = layers_of(
            attempt, Disk(fails_at=2), lambda _: None,
            "When a layer cannot be read, the loop waits for ever: the reader's error must reach it.",
        )  # fmt: skip
    except OSError:
        return "The next layer is read while one is in use, two are in memory, and an error reaches the loop."
    raise Wrong(f"Layer 2 cannot be read, and the loop ends after {len(layers)} layers as if all were well. "
                "Raise the reader's error where the layer is asked for.")  # fmt: skip


FIT_BYTES = 60_000_000


@exercise(
    "fit-60mb",
    "Give fit_60mb = {option: value, ...}, the options with which ZeroShotClassifier('base-shape', **fit_60mb) plans "
    "to grow by 60 MB at most. Any precision will do.",
)
def fit_60mb(attempt: Any) -> str:
    from zsc_utils import plan

    if not isinstance(attempt, dict):
        raise Wrong('The options are a dict, such as {"memory_budget": "100MB"}.')
    options = dict(attempt)
    budget, lossy = options.pop("memory_budget", None), options.pop("allow_lossy", False)
    levers = {name: options.pop(name) for name in ("precision", "attention", "offload") if name in options}
    most = options.pop("max_tokens", None)
    if options:
        there = "memory_budget, allow_lossy, precision, attention, offload, max_tokens"
        raise Wrong(f"ZeroShotClassifier has no option {', '.join(map(str, options))}. Here count {there}.")
    with two_threads():
        try:
            made = plan.make("base-shape", budget, lossy, most, plan.Chosen(**levers))
        except ValueError as error:
            raise Wrong(f"The plan refuses: {error}") from error
    planned = f"{made.predicted / 1e6:.0f} MB ({made.setting})"
    if made.predicted <= FIT_BYTES:
        return f"The plan takes {planned}."
    if budget is None and not levers.get("offload"):
        raise Wrong(f"That takes {planned}: without memory_budget and offload all layers stay in memory.")
    if budget is None:
        raise Wrong(
            f"That takes {planned}. Without memory_budget the plan takes the fastest setting, not the smallest."
        )
    raise Wrong(f"That takes {planned}, over 60 MB: the budget itself is too large.")


@contextmanager
def two_threads():
    """A plan counts the threads that torch has: here two, on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@exercise(
    "disk-speed",
    "Write disk_speed(layer_bytes, layers, block_tokens, tokens_per_second): the MB/s that a disk must read so that "
    "the next layer is there when a block has gone through this one. tokens_per_second is that of all layers.",
)
def disk_speed(attempt: Any) -> str:
    for size, layers, block, speed in ((28_350_000, 12, 4096, 1000.0), (7_100_000, 24, 1024, 400.0)):
        right = size * layers * speed / block / 1e6
        compare(attempt(size, layers, block, speed), right, f"disk_speed({size}, {layers}, {block}, {speed:g})", {
            right / layers: "tokens_per_second is for all layers: one layer takes only its share of that time.",
            right / layers**2: "Divide the time by the layers, not the speed: one layer is faster than the model.",
            right * block: "A layer is read once for a block, not once for a token.",
            right * 1e6: "That is bytes a second. Wanted are MB: divide by 10^6.",
            right * 1e6 / 2**20: "One MB is 10^6 bytes here, not 2^20.",
            1 / right: "That is seconds for each MB. Turn it round.",
        })  # fmt: skip
    return "A layer's bytes, divided by the time that a block takes in one layer. Larger blocks need slower disks."
