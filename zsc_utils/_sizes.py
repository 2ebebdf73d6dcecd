"""Parse and format sizes: "300MB" is 300,000,000 bytes, because MB is 10^6."""

import math
import re

from zsc_utils._types import Size
from zsc_utils.language import translated

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def parse_size(size: Size) -> int:
    """Return the number of bytes of a size: "300MB", "1.5 GB", "64MiB", or an int of bytes.

    MB is 10^6 bytes, MiB is 2^20. Raises ValueError if it is not a positive size, TypeError for another type.
    """
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise TypeError(f'size {size!r}: give a string such as "300MB" or a whole number of bytes')
    if isinstance(size, int):
        count = size
    elif match := re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", size, re.IGNORECASE):
        count = round(float(match.group(1).replace("_", "")) * UNITS[(match.group(2) or "B").upper()])
    else:
        raise ValueError(f'size {size!r} is not a size: write it as "300MB", "1.5GB" or "64MiB"')
    if count < 1:
        raise ValueError(f"size {size!r}: a size is at least one byte")
    return count


def format_size(count: int) -> str:
    """Format a number of bytes: 409_079_820 -> "409.1 MB"; below 1 kB, whole bytes."""
    unit = next((unit for unit in ("TB", "GB", "MB", "KB") if abs(count) >= UNITS[unit]), None)
    return f"{count / UNITS[unit]:.1f} {unit.replace('K', 'k')}" if unit else f"{count:d} B"


def rounded_up(size: int) -> str:
    """Format a size in MB, rounded up, so that it is large enough as a budget."""
    return f"{math.ceil(size / 1e5) / 10:.1f} MB"


def in_columns(rows: dict[str, int]) -> str:
    """Format {purpose: bytes} as lines: the bytes in MB as a column, then the purpose, which may be long."""
    return "\n".join(f"{size / 1e6:>8.1f} MB  {translated(what)}" for what, size in rows.items())
