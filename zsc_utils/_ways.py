"""The ways to run a checkpoint, and which of them fits a process of a given size.

A way is an engine (torch, or an export without torch), a precision, and whether layers are in memory or streamed. The
whole process is predicted: Python and its libraries, and the growth that the engine's plan predicts. Nothing is loaded
or exported for it, and torch is not needed.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsc_utils import onnx_plan
from zsc_utils._container import LIBRARY_PAGES_BYTES
from zsc_utils._exports import FORMATS, INT8, STATED, Exported
from zsc_utils._sizes import format_size, rounded_up
from zsc_utils.language import columns, padded, several, translated

# what a process with the engine's libraries holds before anything is loaded. Measured on Linux, in fresh processes, and
# rounded up to 10 MB. With torch, scikit-learn is counted, which transformers imports where it is installed.
# With torch it is read from the process that plans, which has torch loaded; the number is for systems without /proc.
TORCH_LIBRARIES_BYTES = 400_000_000
LEAN_LIBRARIES_BYTES = 70_000_000


@dataclass(frozen=True)
class Way:
    """A way to run a checkpoint: `grows` has the predicted growth of each of its settings, the fastest first, in bytes.

    `lossy`: its weights have fewer bits than the checkpoint's. `libraries` is what Python and its libraries hold.
    """

    torch: bool
    precision: str
    streamed: bool
    lossy: bool
    libraries: int
    grows: tuple[int, ...]

    def __str__(self):
        engine, layers = "torch" if self.torch else "without torch", "streamed" if self.streamed else "in memory"
        return f"{engine}, {self.precision}, layers {layers}"

    def whole(self, limit: int | None = None) -> int:
        """Return the bytes of the whole process, of its fastest setting that fits the limit; if none does, of its
        smallest."""
        fitting = (grown for grown in self.grows if limit is None or grown <= self.budget(limit))
        return self.beside + next(fitting, min(self.grows))

    def fits(self, limit: int) -> bool:
        return min(self.grows) <= self.budget(limit)

    def budget(self, limit: int) -> int:
        """Return what the limit leaves to a plan, in bytes, rounded down to a number of MB that a person can type."""
        return math.floor((limit - self.beside) / 1e5) * 100_000

    @property
    def beside(self) -> int:
        """What comes on top of a plan: the libraries, and pages of them that are touched for the first time later."""
        return self.libraries + LIBRARY_PAGES_BYTES

    @property
    def slowness(self) -> tuple[int, bool]:
        """What ways are sorted by, the fastest first.

        As in the benchmark of containers: int8 first, and there ONNX Runtime before torch; in other precisions torch
        is first. Layers in memory come before streamed ones, which are as fast only while a block is full.
        """
        ranks = (False, True) if self.precision == INT8 else (True, False)
        return 2 * (self.precision != INT8) + ranks.index(self.torch), self.streamed


def of_export(export: Exported, offload: bool | None = None, lossy: bool = False) -> list[Way]:
    """Return the Ways of an export: layers in memory, and streamed; with `offload`, only one of the two."""
    found = []
    for streamed in (False, True) if offload is None else (offload,):
        settings = onnx_plan.settings_for(export, None, streamed)
        grows = tuple(sum(onnx_plan.bill(export, setting).values()) for setting in settings)
        found.append(Way(False, export.precision, streamed, lossy, LEAN_LIBRARIES_BYTES, grows))
    return found


def to_export(
    name: str, config: Any, tokenizer: Any, precision: str, chosen: str | None = None, offload: bool | None = None
) -> list[Way]:
    """Return the Ways of exports that do not exist yet, of a checkpoint in `precision`, from its configuration alone.

    `tokenizer` is that of transformers. There are none if `export` refuses the checkpoint: it has no int8 weights in
    fp32, and no activation but GELU. `chosen` is the only precision that is wanted.
    """
    if config.hidden_act != "gelu":
        return []
    stated = {key: kind(getattr(config, key)) for key, kind in STATED.items() if hasattr(config, key)}
    stated["model_max_length"] = tokenizer.model_max_length
    vocabulary = len(tokenizer.backend_tokenizer.to_str(pretty=True).encode())  # the bytes of its file
    made: list[Way] = []
    for each in [kind for kind in FORMATS.values() if kind == (chosen or kind)]:
        if precision == INT8 != each:
            continue
        export = Exported(name, Path(), each, stated, stored_bytes=0, tokenizer_bytes=vocabulary)
        made += of_export(export, offload, lossy=each == INT8 != precision)
    return made


@dataclass(frozen=True)
class Ways:
    """All ways to run the checkpoint `name`. `offload`: by hand, or None. `made`: `name` is an export already."""

    name: str
    ways: Sequence[Way]
    offload: bool | None = None
    made: bool = False

    def best(self, limit: int, allow_lossy: bool) -> Way | None:
        """Return the fastest way that fits the limit; without `allow_lossy`, of those that keep the scores."""
        fitting = [way for way in self.ways if way.fits(limit) and (allow_lossy or not way.lossy)]
        return min(fitting, key=lambda way: way.slowness, default=None)

    def advice(self, limit: int, allow_lossy: bool) -> str:
        """Return one line that says what to do, in the language in use.

        Raises ValueError if no way fits, or only ways that change scores; the message names the fastest of these.
        """
        if chosen := self.best(limit, allow_lossy):
            return translated(f"the fastest that fits is {chosen}: {self.how(chosen, limit)}")
        refusal = f"{self.name!r} in {format_size(limit)}: no way "
        if lossy := self.best(limit, True):
            exact = smallest([way for way in self.ways if not way.lossy])
            raise ValueError(
                f"{refusal}that keeps the scores fits, the smallest takes {exact}. With allow_lossy=True the fastest "
                f"is {lossy}: {self.how(lossy, limit)}"
            )
        raise ValueError(f"{refusal}fits, the smallest takes {smallest(self.ways)}")

    def how(self, way: Way, limit: int) -> str:
        """Return the call or the commands of a way. Their budget is what the limit leaves to the plan."""
        budget = f"{way.budget(limit) / 1e6:.1f}MB"
        if way.torch:
            levers = f"precision={way.precision!r}, " * way.lossy + "offload=True, " * bool(self.offload)
            return f"ZeroShotClassifier({self.name!r}, {levers}memory_budget={budget!r})"
        folder = self.name if self.made else f"{Path(self.name).name}-{way.precision}"
        classify = f"zsc classify FILE --labels A,B --checkpoint {shlex.quote(folder)} --budget {budget}"
        classify += " --offload" * bool(self.offload)
        if self.made:
            return classify
        export = f"zsc export {shlex.quote(folder)} --checkpoint {shlex.quote(self.name)} --precision {way.precision}"
        return f"{export} && {classify}"

    def table(self, limit: int | None) -> str:
        """Return a table in the language in use: a line for each way, and one that says what is counted.

        Without a limit, "whole process" is that of the fastest setting; with one, see Way.whole.
        """
        where = "with its fastest settings" if limit is None else f"in a container of {format_size(limit)}"
        head, kinds = several("way | whole process | smallest | scores | fits"), several("exact | lossy")
        yes, no = several("yes | no")
        rows = [head] + [
            [
                translated(str(way)), rounded_up(way.whole(limit)), rounded_up(way.whole(0)), kinds[way.lossy],
                "" if limit is None else yes if way.fits(limit) else no,
            ]
            for way in self.ways
        ]  # fmt: skip
        widths = [max(map(columns, column)) for column in zip(*rows)]
        lines = [translated(f"{self.name} {where}, predicted at most")]
        for first, *others in rows:
            cells = [padded(first, widths[0]), *(padded(c, size, right=True) for c, size in zip(others, widths[1:]))]
            lines.append("  ".join(cells).rstrip())
        beside = {"with" if way.torch else "without": rounded_up(way.beside) for way in self.ways}
        counted = ", ".join(f"{size} {engine} torch" for engine, size in beside.items())
        return "\n".join([*lines, translated(f"Python and its libraries are counted: {counted}")])


def smallest(ways):
    """Describe the way whose whole process is the smallest, and how large that is."""
    least = min(ways, key=lambda way: way.whole(0))
    return f"{rounded_up(least.whole(0))} ({least})"
