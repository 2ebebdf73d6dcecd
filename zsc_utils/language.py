"""The language in which lessons speak to a reader: English, as it stands in the code, or Chinese, from one table.

Every text that leaves the package for a reader passes `translated`. The English text is the key, so code stays
readable, and a text that the table lacks stays English. Arguments, names and keys are English in both languages.

The table is data/zh.toml. `{0}` to `{9}` in it stand for what varies: `{n0}` for a number only, `{s0}` for a size such
as "12.6 MB". Any other brace is a brace. What varies is translated too, if the table has it, or each item of it, if it
is a list. The section [parts] is for such contents alone: its entries are too short to be looked for in whole lines.
Errors hold other things: `{w0}` stands for words of the reader, such as a file's name, which stay as they are, and
`{t0}` for a text that may be as long as a line, such as another error, which is translated.

An error itself is English in both languages, for programs read it. What shows it to a reader translates it: the command
does, and a notebook once `use` or the environment variable has chosen Chinese.
"""

import os
import re
import sys
import tomllib
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

__all__ = ["columns", "in_use", "padded", "pieces", "several", "speaking", "translated", "use", "wrapped"]

TABLE = Path(__file__).parent / "data" / "zh.toml"
LANGUAGES = ("en", "zh")
VARIABLE = "ZSC_LANGUAGE"
PARTS = "parts"  # the section of the table that is for what varies in other entries
PLACEHOLDER = re.compile(r"\{([nswt]?\d)\}")
NUMBER = r"[-+−]?[\d,]*\.?\d+(?:e[-+]?\d+)?"
ANY, LIST, ITEM = ".+?", "(?:(?!; ).)+?", "(?:(?![;,] ).)+?"  # anything, a list, an item of one
KINDS = {"n": NUMBER, "s": rf"{NUMBER} [kMGT]?B", "w": ANY, "t": ANY}  # what a placeholder of a kind matches
LETTER = re.compile("[A-Za-z]")
CHINESE = re.compile("[\u3400-\u9fff]")
OPENING, CLOSING = "（“《", "，。：；？！）、”》…"  # marks that belong to what follows, and to what comes before
MARKS = OPENING + CLOSING
PIECE = re.compile(f"[ \\t\\n]+|[{OPENING}]|[{CLOSING}]+|[\u3400-\u9fff]|[^ \\t\\n{OPENING}{CLOSING}\u3400-\u9fff]+")


def known(language: str) -> str:
    """Return the name of a language; ValueError for one that there is not."""
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return language


def asked_for() -> str:
    """Return the language of the environment variable, such as "zh" for "zh_CN.UTF-8".

    A variable must not keep programs from starting: for a language that there is not it warns, and takes English.
    """
    value = os.environ.get(VARIABLE) or LANGUAGES[0]
    language = re.split(r"[-_.]", value.lower())[0]
    if language in LANGUAGES:
        return language
    warnings.warn(f"{VARIABLE} is {value!r}: choose one of {', '.join(LANGUAGES)}; it is English now", stacklevel=2)
    return LANGUAGES[0]


_chosen = asked_for()


def use(language: str) -> None:
    """Speak "en" or "zh" from now on. ValueError for another word.

    Child processes do not know of it: they follow the environment variable ZSC_LANGUAGE, as this process does before.
    """
    global _chosen
    _chosen = known(language)
    watch_notebook()


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak "en" or "zh" inside a `with`, and after it what was spoken before. ValueError for another word."""
    before = in_use()
    use(language)
    try:
        yield
    finally:
        use(before)


def in_use() -> str:
    """Return "en" or "zh"."""
    return _chosen


def translated(text: str, part: bool = False) -> str:
    """Return a text in the language in use; where the table has no entry for all of it, line by line.

    A `part` of a line that the caller puts together, such as "12 times", is looked for in [parts] too.

    >>> translated("equal")
    'equal'
    """
    if _chosen == "en":
        return text
    return _part(text) if part else _whole(text)


def several(texts: str) -> list[str]:
    """Return short texts that have one entry together, since each alone may mean something else elsewhere.

    >>> several("yes | no")
    ['yes', 'no']
    """
    return translated(texts).split(" | ")


# --------------------------------------------------------------------------------------------------------- the table


@cache
def entries() -> dict[str, dict[str, str]]:
    """Return the table, {section: {English: Chinese}}. It is read when a text is first wanted in Chinese."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


@cache
def _compiled(anything: str) -> tuple[dict[str, str], list[tuple[re.Pattern, str]]]:
    """The entries, exact ones and patterns, whose placeholders match `anything`.

    Whole texts do without [parts], and parts without the wordless patterns of other sections. Patterns that begin with
    words come first, then those with most letters, so that the most special one is found.
    """
    chosen: dict[str, str] = {}
    for section, own in entries().items():
        if section != PARTS or anything != ANY:
            chosen |= own
    varying = [english for english in chosen if PLACEHOLDER.search(english)]
    if anything != ANY:
        varying = [english for english in varying if english in entries()[PARTS] or LETTER.search(literal(english))]
    varying.sort(key=lambda english: (english.startswith("{"), -len(literal(english))))
    exact = {english: chinese for english, chinese in chosen.items() if not PLACEHOLDER.search(english)}
    return exact, [(_pattern(english, anything), chosen[english]) for english in varying]


def literal(english: str) -> str:
    """Return what an entry says without its placeholders."""
    return PLACEHOLDER.sub("", english)


def _pattern(english, anything):
    """The regular expression of an entry, with a named group for each placeholder; what is no number is `anything`."""
    words, seen = PLACEHOLDER.split(english), set()
    expression = re.escape(words[0])
    for name, after in zip(words[1::2], words[2::2]):
        kind = KINDS.get(name[0], anything)
        expression += (f"(?P=p{name})" if name in seen else f"(?P<p{name}>{kind})") + re.escape(after)
        seen.add(name)
    return re.compile(expression, re.DOTALL)


def _found(text, anything):
    """The Chinese of a text that has an entry; None for another, and for an entry without words that changes none."""
    exact, patterns = _compiled(anything)
    if text in exact:
        return exact[text]
    for pattern, chinese in patterns:
        if match := pattern.fullmatch(text):
            contents = {name[1:]: words for name, words in match.groupdict().items()}
            found = {name: words if name[0] == "w" else _part(words) for name, words in contents.items()}
            if found != contents or CHINESE.search(chinese) or not exact.keys().isdisjoint(contents.values()):
                return _filled(chinese, found)
    return None


@lru_cache(4096)
def _whole(text):
    """A text that leaves the package."""
    return _around_space(text, _by_line)


def _by_line(text):
    """A text, line by line if there is no entry for all of it."""
    if found := _found(text, ANY):
        return found
    return "\n".join(map(_whole, text.split("\n"))) if "\n" in text else text


@lru_cache(4096)
def _part(text):
    """What stood in the place of a placeholder."""
    return _around_space(text, _listed)


def _listed(text):
    """An item of a list, or a list: an entry, the items if each has one, an entry with lists in it, or some items."""
    mark, chinese = ("; ", "；") if "; " in text else (", ", "，")
    items = text.split(mark)
    if found := _found(text, ITEM):
        return found
    if not all(_found(item, ITEM) or not LETTER.search(item) for item in items) and (found := _found(text, LIST)):
        return found
    if len(items) == 1 or items == (found := [*map(_part, items)]):
        return text
    return chinese.join(found)


def _around_space(text, way: Callable[[str], str]):
    """What `way` makes of a text without the white space around it, which stays; numbers alone stay as they are."""
    core = text.strip()
    return text.replace(core, way(core), 1) if LETTER.search(core) else text


def _filled(chinese, parts):
    """A Chinese entry with its parts."""
    result = ""
    for number, piece in enumerate(PLACEHOLDER.split(chinese)):
        result = _joined(result, parts[piece] if number % 2 else piece)
    return result


def _joined(before, after):
    """Two pieces of a text. Between Chinese there is no space; between Chinese and a letter or digit there is one."""
    left, right = before.rstrip(" ")[-1:], after.lstrip(" ")[:1]
    chinese = [bool(CHINESE.match(one)) for one in (left, right)]
    if not left or not right:
        return before + after
    if all(chinese) or left in MARKS or right in MARKS:
        return before.rstrip(" ") + after.lstrip(" ")
    if any(chinese) and re.match(r"[\w%`]{2}", left + right):
        return f"{before.rstrip(' ')} {after.lstrip(' ')}"
    return before + after


# ------------------------------------------------------------------------------------------------------------ columns


def columns(text: str) -> int:
    """Return how many columns a text takes where letters have one width: Chinese ones take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """Return a text with spaces after it, or before it (`right`), so that it takes `width` columns.

    >>> padded("equal", 8) + "|", padded("相等", 8, right=True) + "|"
    ('equal   |', '    相等|')
    """
    spaces = " " * (width - columns(text))
    return spaces + text if right else text + spaces


def pieces(text: str) -> list[str]:
    """Return the parts of a text between which a line may be broken: words, each with the space before it, and Chinese
    characters, each with its marks.

    >>> pieces("每个词 4 字（B）。")
    ['每', '个', '词', ' 4', ' 字', '（B）。']
    """
    found, before = [""], ""
    for token in PIECE.findall(text):
        if token.strip(" \t\n") == "":
            before += " "
        elif token in OPENING:
            before += token
        elif token[0] in CLOSING and not before:
            found[-1] += token
        else:
            found.append(before + token)
            before = ""
    return [piece for piece in [*found, before] if piece.strip()]


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, each at most `width` columns. A word that is wider has a line of its own.

    >>> wrapped("每个词元 4 字节。", 12)
    ['每个词元 4', '字节。']
    """
    lines = [""]
    for piece in pieces(text):
        if lines[-1] and columns(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]}{piece}".lstrip(" ")
    return lines


# ------------------------------------------------------------------------------------------------ errors in a notebook

WORDS = ("args", "strerror", "msg")  # where errors keep what they say: all, those of the system, those of imports


def watch_notebook() -> None:
    """Have IPython show errors of this package in Chinese, if this process is a notebook's and Chinese is in use.

    A handler of errors that somebody else has set stays.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and _chosen != "en" and not shell.custom_exceptions:
        shell.set_custom_exc((Exception,), _show)


def _show(shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None) -> None:
    """Show an error as IPython does, with the words of this package's errors in the language in use.

    They are changed for the moment only: a program that looks at the error later finds it in English.
    """
    places = [(one, name) for one in _chain(error) if _is_ours(one) for name in WORDS if getattr(one, name, None)]
    kept = [getattr(one, name) for one, name in places]
    try:
        for (one, name), words in zip(places, kept):
            setattr(one, name, _told(words))
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)
    finally:
        for (one, name), words in zip(places, kept):
            setattr(one, name, words)


def _told(words):
    """The words of an error in the language in use: a text, or a tuple in which texts may be."""
    if isinstance(words, tuple):
        return tuple(map(_told, words))
    return translated(words) if isinstance(words, str) else words


def _chain(error):
    """An error, and those during whose handling it came."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen


def _is_ours(error):
    """Whether this package raised an error: the innermost place of its traceback is in it."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        trace, name = trace.tb_next, trace.tb_frame.f_globals.get("__name__", "")
    return name.split(".")[0] == __package__


watch_notebook()
