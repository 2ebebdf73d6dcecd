"""The help of the command in the language in use; in English it is argparse's own.

Chinese lines are broken anew, because a character takes two columns. Names of arguments and examples stay.
"""

import argparse
import re
import sys
from itertools import groupby
from typing import NoReturn

from zsc_utils.language import columns, in_use, padded, translated, wrapped

HEADINGS = ("usage:", "positional arguments:", "options:")  # argparse's own
ROW = re.compile(r"(  \S+(?: \S+)*)(  +)(\S.*)")  # of a table in a description: what, and what about it


class Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's, whose texts are translated."""

    def format_help(self) -> str:
        told = super().format_help()
        for heading in HEADINGS:
            told = re.sub(f"^{heading}", translated(heading), told, flags=re.MULTILINE)
        return told

    def _expand_help(self, action):
        return translated(super()._expand_help(action))

    def _split_lines(self, text, width):
        return super()._split_lines(text, width) if in_use() == "en" else wrapped(text, width)

    def _fill_text(self, text, width, indent):
        return super()._fill_text(text if in_use() == "en" else described(text, width), width, indent)


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are translated."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {told_error(message)}\n")


def told_error(message: object) -> str:
    """Return the line that tells an error, in the language in use."""
    return translated(f"error: {translated(str(message))}")


def described(text: str, width: int) -> str:
    """Return a description in the language in use: each paragraph broken anew, and the lines of tables and examples."""
    lines: list[str] = []
    for kind, block in groupby(text.splitlines(), key=lambda line: line[:2] if line[:2] in ("", "  ") else "words"):
        if kind == "words":
            lines += wrapped(translated(" ".join(block)), width)
        else:
            lines += [part for line in block for part in row(line, width)]
    return "\n".join(lines)


def row(line: str, width: int) -> list[str]:
    """Return the lines of a table's row, its second column below each other. An example is one line, its remark too."""
    found = ROW.fullmatch(line)
    if found is None:
        return [line]
    what, between, about = found.groups()
    if about.startswith("#"):
        return [f"{what}{between}{translated(about)}"]
    beside = columns(what + between)
    first, *others = wrapped(translated(about), width - beside)
    return [padded(translated(what), beside) + first, *(" " * beside + other for other in others)]
