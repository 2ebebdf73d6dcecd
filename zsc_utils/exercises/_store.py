"""The file that keeps a reader's guesses, measurements and bets between lessons: guesses.json in the cache folder.

A file that is broken, or a folder that cannot be written, is told once and never stops a lesson.
"""

import json
import os
from math import isfinite
from pathlib import Path
from typing import Any

import platformdirs

from zsc_utils.language import translated

KINDS = ("guesses", "measured", "bets")
# what this process has kept; it is written with every change, so two notebooks that write at once lose nothing of it
_own: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_told: set[str] = set()


def store_file() -> Path:
    """Return the file of guesses; ZSC_GUESSES names another one. RuntimeError where there is no home folder."""
    named = os.environ.get("ZSC_GUESSES")
    return Path(named) if named else Path(platformdirs.user_cache_dir("zsc_utils")) / "guesses.json"


def kept(kind: str) -> dict[str, Any]:
    """Return what is kept of a kind, {name: value}: the file's entries, and over them those of this process."""
    return _read()[kind] | _own[kind]


def keep(kind: str, name: str, value: float | str) -> None:
    """Keep a value. The file is written whole or not at all; if it cannot be, that is told once."""
    _own[kind][name] = value
    _write({kind: entries | _own[kind] for kind, entries in _read().items()})


def forget(kind: str, name: str) -> None:
    """Keep a value no longer."""
    _own[kind].pop(name, None)
    whole = {kind: entries | _own[kind] for kind, entries in _read().items()}
    if whole[kind].pop(name, None) is not None:
        _write(whole)


def _read():
    """The file's entries, {kind: {name: value}}; empty ones for a file that is not there or cannot be read."""
    try:
        entries = json.loads(store_file().read_text(encoding="utf-8"))
        if not _is_whole(entries):
            raise ValueError("its entries are not guesses")
        return {kind: entries.get(kind, {}) for kind in KINDS}
    except FileNotFoundError:
        pass  # nothing has been kept yet
    except (OSError, ValueError, RuntimeError) as error:
        _tell("broken", f"Earlier guesses cannot be read ({_reason(error)}); new ones replace them.")
    return {kind: {} for kind in KINDS}


def _is_whole(entries):
    """Whether a file's content has the form that `keep` writes."""
    if not isinstance(entries, dict) or not all(isinstance(entries.get(kind, {}), dict) for kind in KINDS):
        return False
    numbers = [*entries.get("guesses", {}).values(), *entries.get("measured", {}).values()]
    numeric = all(isinstance(number, int | float) and isfinite(number) for number in numbers)
    return numeric and all(isinstance(verdict, str) for verdict in entries.get("bets", {}).values())


def _write(entries):
    """Replace the file by one with these entries, or tell once why that cannot be done."""
    try:
        file = store_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(entries, indent=1), encoding="utf-8")
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        _tell("unwritable", f"Your guesses are not kept after this session ({_reason(error)}).")


def _reason(error):
    """An error in some words, without a traceback."""
    return f"{type(error).__name__}: {error}"


def _tell(what, sentence):
    if what not in _told:
        _told.add(what)
        print(translated(sentence))
