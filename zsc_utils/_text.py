"""Check the texts, labels and templates that users give. Errors name the wrong one.

This module does not import torch.
"""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TEMPLATE = "{}"  # the label alone is the hypothesis


@dataclass(frozen=True)
class Row:
    """A row of the input: a text to classify, or the error that replaces it.

    `number` is its position in the input, as its source counts (from 0 or 1). `error` says why there is no `text`.
    `labels` are the row's own labels, if each text has its own. `kept` holds fields that are copied to the result, such
    as an id. `where` names the text in error messages; if it is empty, `number` does.
    """

    number: int
    text: object = None
    error: Exception | None = None
    labels: Any = None
    kept: dict = field(default_factory=dict)
    where: str = ""


def default_name(otherwise: str = "mini") -> str:
    """Return the environment variable ZSC_CHECKPOINT, or `otherwise`: the checkpoint for notebooks and commands."""
    return os.environ.get("ZSC_CHECKPOINT") or otherwise


def whole_number(name: str, value: object, advice: str = "give a whole number", least: int = 1) -> int:
    """Return the value if it is an int and at least `least`; else raise ValueError with the advice."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} {value!r}: {advice}, {least} or more")
    return value


# --------------------------------------------------------------------------------------------------------------- texts

# Invisible characters: controls except tab, LF and CR; format characters such as zero-width and direction marks;
# fillers, variation selectors and tags. Source: Unicode's categories Cc and Cf, and Default_Ignorable_Code_Point.
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
JOINER = "\u200d"


def visible(string: str) -> str:
    """Return the string without invisible characters. A joiner between two emoji stays: it makes them one emoji."""
    if string.isascii() and string.isprintable():
        return string
    return UNSEEN.sub(lambda match: JOINER * joins(match), string)


def joins(match: re.Match) -> bool:
    """Return whether a match of UNSEEN contains the joiner and stands between two emoji."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return JOINER in match[0] and is_emoji(before) and is_emoji(after)


def is_emoji(character: str) -> bool:
    """Return whether a character is a symbol (Unicode category So) or a skin tone, which follows a symbol."""
    return unicodedata.category(character or " ") == "So" or "\U0001f3fb" <= character <= "\U0001f3ff"


def as_list(what: str, several: object, wanted: str) -> list:
    """Return a list, tuple, array or Series as a list. TypeError for strings, dicts, sets and what has no length."""
    if isinstance(several, Mapping | set | frozenset | str | bytes) or not (
        hasattr(several, "__len__") and hasattr(several, "__iter__")
    ):
        raise TypeError(f"{what}: give {wanted}, not {type(several).__name__}")
    return list(several)  # type: ignore[call-overload]


def check_texts(texts: object) -> list[str]:
    """Return the texts as a list of strings, or raise an error that names the first one that cannot be classified."""
    if isinstance(texts, bytes):
        check_text(texts, 0)
    several = as_list("sequences", texts, "a text or a list of texts")
    return [check_text(text, position) for position, text in enumerate(several)]


def check_text(text: object, where: int | str) -> str:
    """Return the text as a str, or raise a TypeError or ValueError that names it by `where`, a position or words."""
    if not isinstance(text, str):
        kind = type(text).__name__
        advice = "only strings can be classified"
        if isinstance(text, bytes):
            advice = "decode it first, as with text.decode('utf-8') or 'gb18030'"
        elif text is None or text != text:  # NaN
            advice = "there is no text; leave it out"
        raise TypeError(f"text {where} is {text!r}, a {kind}: {advice}")
    if not visible(text).strip():
        raise ValueError(f"text {where} is empty ({text[:20]!r}): leave it out, it has no class")
    check_characters(f"text {where}", text)
    return str(text)


def check_characters(what: str, string: str) -> None:
    """Raise ValueError for a lone surrogate: half a character, such as half an emoji. No tokenizer accepts it."""
    try:
        string.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a character at {error.start} ({string[error.start]!r}): "
            "read its source as UTF-8, or with errors='replace'"
        ) from error


# --------------------------------------------------------------------------------------------------- labels, templates


def is_per_text(labels: object) -> bool:
    """Return whether each text has its own labels: `labels` is an iterator, or a list that contains lists."""
    if isinstance(labels, str | Mapping):
        return False
    if hasattr(labels, "__next__"):
        return True
    return hasattr(labels, "__iter__") and any(
        hasattr(label, "__len__") and not isinstance(label, str | bytes) for label in labels
    )


def check_labels(
    labels: object, several: str = "candidate_labels", each: str = "label", wanted: str = "a list or a string"
) -> list[str]:
    """Return the labels as a list of strings; a string is split at `,` and `，`. Empty or repeated ones are errors.

    `several`, `each` and `wanted` are what errors call the list, a label in it, and what should be given.
    """
    if isinstance(labels, str):
        labels = [label.strip() for label in re.split("[,，]", labels) if label.strip()]
    given = as_list(several, labels, wanted)
    if not given:
        raise ValueError(f"{several} is empty: give at least one label")
    first: dict[str, str] = {}  # {label without white space and invisible characters: label as given}
    for position, label in enumerate(given):
        if not isinstance(label, str):
            raise TypeError(f"{each} {position} is {label!r}, a {type(label).__name__}: labels are strings")
        seen = "".join(visible(label).split())
        if not seen:
            raise ValueError(f"{each} {position} is empty ({label!r}): leave it out")
        check_characters(f"{each} {position}", label)
        if seen in first:
            twice = label if label == first[seen] else f"{first[seen]!r} and {label!r}, which are the same,"
            raise ValueError(f"{several} holds {twice} more than once: give each label once")
        first[seen] = label
    return [str(label) for label in given]


def read_labels(labels: object) -> tuple[list[str], list[str], list | None]:
    """Return (labels, the words of each in its hypothesis, their ids or None).

    A mapping is {label: description}, or {id: label} if a key is not a string.
    """
    if not isinstance(labels, Mapping):
        checked = check_labels(labels)
        return checked, checked, None
    words, ids = check_labels(list(labels.values())), list(labels)
    return (check_labels(ids) if all(isinstance(key, str) for key in ids) else words), words, ids


class TemplateError(ValueError, AttributeError):
    """A template is wrong. It is an AttributeError too, because transformers' pipeline raises that for None."""


def check_template(template: object) -> None:
    if not isinstance(template, str) or [*map(template.count, ("{}", "{", "}"))] != [1, 1, 1]:
        raise TemplateError(
            f"hypothesis_template {template!r}: it needs {{}} exactly once, where the label goes, and no other brace, "
            "as in '这篇文章的标题是{}'"
        )
    check_characters("hypothesis_template", template)


def fill(template: str, labels: Sequence[str]) -> list[str]:
    """Return the hypotheses: each label in the place of the template's `{}`. TemplateError for a wrong template."""
    check_template(template)
    return [template.replace("{}", label) for label in labels]
