"""Load, classify and plan in a process from which something of this system is hidden: hidden.py WHAT.

Prints a JSON object of what came out; tests/journeys/test_other_systems.py says what has to.
"""

import ctypes
import json
import os
import sys
import types


def hide_proc():
    """As on macOS: nothing under /proc can be opened or seen."""

    def refuse(event, arguments):
        if event == "open" and str(arguments[0]).startswith("/proc"):
            raise FileNotFoundError(2, "hidden", str(arguments[0]))

    stat = os.stat

    def stat_but_proc(path, *more, **options):
        refuse("open", [os.fspath(path) if not isinstance(path, int) else ""])
        return stat(path, *more, **options)

    sys.addaudithook(refuse)
    os.stat = stat_but_proc


def hide_glibc():
    """As with another C library, such as musl or macOS's: no mallopt."""
    library = ctypes.CDLL

    def without_mallopt(name, *more, **options):
        return types.SimpleNamespace() if name is None else library(name, *more, **options)

    ctypes.CDLL = without_mallopt


def hide_onednn():
    """As in a build of torch without it, and without an int8 product."""
    import torch

    class Nothing:
        def __getattr__(self, name):
            raise AttributeError(name)

    def missing(*_):
        raise RuntimeError("_int_mm is not there")

    torch.backends.mkldnn.is_available = lambda: False
    torch.backends.mkldnn.set_flags(_enabled=False)
    torch.ops.mkldnn = torch.ops.onednn = Nothing()
    torch._int_mm = missing


def show_mps():
    """As on a Mac whose GPU torch can use."""
    import torch

    torch.backends.mps.is_available = torch.backends.mps.is_built = lambda: True
    torch.accelerator.is_available = lambda: True


HIDE = {
    "nothing": (),
    "proc and glibc": (hide_proc, hide_glibc),
    "onednn, with a GPU that is MPS": (hide_onednn, show_mps),
}
TEXTS = ["央行宣布下调利率", "国足客场一比零战胜对手，提前出线"]
LABELS = ["财经", "体育", "军事"]


def scores(classify):
    return [
        [dict(zip(found["labels"], found["scores"]))[label] for label in LABELS] for found in classify(TEXTS, LABELS)
    ]


def main(what):
    for hide in HIDE[what]:
        hide()
    import zsc_utils as zsc
    from zsc_utils import _products, plan

    ways = {
        "fp32": {},
        "int8": {"precision": "int8"},
        "int8, streamed": {"precision": "int8", "offload": True},
        "budget": {"memory_budget": "150MB", "allow_lossy": True},
    }
    classifiers = {name: zsc.ZeroShotClassifier("mini", **options) for name, options in ways.items()}
    found = {name: scores(classify) for name, classify in classifiers.items()}
    devices = {str(classify.checkpoint.model.device) for classify in classifiers.values()}
    refused = ""
    if hide_proc in HIDE[what]:
        try:
            zsc.memory.process_peak(int)
        except OSError as error:
            refused = str(error)
    print(json.dumps({
        "scores": found, "devices": sorted(devices), "engine": _products.int8_engine(), "refused": refused,
        "plan": str(plan.make("mini", "150MB", True)), "measured": classifiers["budget"].plan.measured,
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
