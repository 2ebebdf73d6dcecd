"""The door for what people bring: texts, labels and templates, checked, or refused by name.

Nothing here needs torch.
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
    """A text on its way from an input to its result.

    `number` is its place in the input, as its source counts. `text` is what is to be classified; where there is
    nothing, `error` says why. `labels` are its own, where texts have labels of their own. `kept` goes into its result
    as it is, such as an id. `where` is how errors name the text; else it is named by its number.
    """

    number: int
    text: object = None
    error: Exception | None = None
    labels: Any = None
    kept: dict = field(default_factory=dict)
    where: str = ""


def default_name(otherwise: str = "mini") -> str:
    """The checkpoint that notebooks and the command use: the variable ZSC_CHECKPOINT, or else `otherwise`."""
    return os.environ.get("ZSC_CHECKPOINT") or otherwise


def whole_number(name: str, value: object, advice: str = "give a whole number", least: int = 1) -> int:
    """The value, if it is a whole number and at least that; else ValueError, with the advice."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} {value!r}: {advice}, {least} or more")
    return value


# --------------------------------------------------------------------------------------------------------------- texts

# Characters that are not seen: controls but for tab and line breaks, format characters such as zero width and direction
# marks, fillers, variation selectors, tags. Source: Unicode's categories Cc and Cf, and Default_Ignorable_Code_Point.
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
JOINER = "\u200d"


def visible(string: str) -> str:
    """The string without characters that are not seen; the joiner inside an emoji stays, for it makes another one."""
    if string.isascii() and string.isprintable():
        return string
    return UNSEEN.sub(lambda match: JOINER * joins(match), string)


def joins(match: re.Match) -> bool:
    """Whether unseen characters are, or hold, the joiner of two emoji."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return JOINER in match[0] and is_emoji(before) and is_emoji(after)


def is_emoji(character: str) -> bool:
    """Whether this is a symbol, or the tone of a skin, which follows one."""
    return unicodedata.category(character or " ") == "So" or "\U0001f3fb" <= character <= "\U0001f3ff"


def as_list(what: str, several: object, wanted: str) -> list:
    """A list, tuple, array, column or Series as a list; TypeError for what has no order or no length."""
    if isinstance(several, Mapping | set | frozenset | str | bytes) or not (
        hasattr(several, "__len__") and hasattr(several, "__iter__")
    ):
        raise TypeError(f"{what}: give {wanted}, not {type(several).__name__}")
    return list(several)  # type: ignore[call-overload]


def check_texts(texts: object) -> list[str]:
    """The texts as a list of strings, or an error that names the first that cannot be classified."""
    if isinstance(texts, bytes):
        check_text(texts, 0)
    several = as_list("sequences", texts, "a text or a list of texts")
    return [check_text(text, position) for position, text in enumerate(several)]


def check_text(text: object, where: int | str) -> str:
    """The text as a string, or an error; `where` names it, by its position or in words."""
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
    """Raise for half a character, such as an emoji cut in two, which no tokenizer takes."""
    try:
        string.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a character at {error.start} ({string[error.start]!r}): "
            "read its source as UTF-8, or with errors='replace'"
        ) from error


# --------------------------------------------------------------------------------------------------- labels, templates


def is_per_text(labels: object) -> bool:
    """Whether each text has labels of its own: a list of lists, or an iterator."""
    if isinstance(labels, str | Mapping):
        return False
    if hasattr(labels, "__next__"):
        return True
    return hasattr(labels, "__iter__") and any(
        hasattr(label, "__len__") and not isinstance(label, str | bytes) for label in labels
    )


def check_labels(labels: object) -> list[str]:
    """The labels as a list of strings; a string is split at `,` and `，`."""
    if isinstance(labels, str):
        labels = [label.strip() for label in re.split("[,，]", labels) if label.strip()]
    several = as_list("candidate_labels", labels, "a list or a string")
    if not several:
        raise ValueError("candidate_labels is empty: give at least one label")
    first: dict[str, str] = {}  # of what is the same label but for white space and unseen characters
    for position, label in enumerate(several):
        if not isinstance(label, str):
            raise TypeError(f"label {position} is {label!r}, a {type(label).__name__}: labels are strings")
        seen = "".join(visible(label).split())
        if not seen:
            raise ValueError(f"label {position} is empty ({label!r}): leave it out")
        check_characters(f"label {position}", label)
        if seen in first:
            twice = label if label == first[seen] else f"{first[seen]!r} and {label!r}, which are the same,"
            raise ValueError(f"candidate_labels holds {twice} more than once: give each label once")
        first[seen] = label
    return [str(label) for label in several]


def read_labels(labels: object) -> tuple[list[str], list[str], list | None]:
    """(labels, the words for each in its hypothesis, their ids or None) of labels as people give them.

    A mapping is {label: its description}, or {id: label} if a key is no string.
    """
    if not isinstance(labels, Mapping):
        checked = check_labels(labels)
        return checked, checked, None
    words, ids = check_labels(list(labels.values())), list(labels)
    return (check_labels(ids) if all(isinstance(key, str) for key in ids) else words), words, ids


class TemplateError(ValueError, AttributeError):
    """A template that is not one. The pipeline of transformers raises AttributeError for None: this is one too."""


def check_template(template: object) -> None:
    if not isinstance(template, str) or [*map(template.count, ("{}", "{", "}"))] != [1, 1, 1]:
        raise TemplateError(
            f"hypothesis_template {template!r}: it needs {{}} exactly once, where the label goes, and no other brace, "
            "as in '这篇文章的标题是{}'"
        )
    check_characters("hypothesis_template", template)


def fill(template: str, labels: Sequence[str]) -> list[str]:
    """The hypotheses: each label in the place of the template's one `{}`."""
    check_template(template)
    return [template.replace("{}", label) for label in labels]
