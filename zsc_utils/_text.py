"""The door for what people bring: texts, labels and templates, checked, or refused by name.

Nothing here needs torch.
"""

import os
import re
from collections.abc import Sequence
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


def check_texts(texts: object) -> list[str]:
    """The texts as a list, or an error that names the first that cannot be classified."""
    if not isinstance(texts, list | tuple):
        raise TypeError(f"sequences: give a text or a list of texts, not {type(texts).__name__}; or use stream")
    if not texts:
        raise ValueError("sequences is an empty list: give at least one text")
    for position, text in enumerate(texts):
        check_text(text, position)
    return list(texts)


def check_text(text: object, where: int | str) -> None:
    """Raise for a text that cannot be classified; `where` names it, by its position or in words."""
    if not isinstance(text, str):
        raise TypeError(f"text {where} is {text!r}, a {type(text).__name__}: only strings can be classified")
    if not text.strip():
        raise ValueError(f"text {where} is empty ({text!r}): leave it out, it has no class")
    check_characters(f"text {where}", text)


def check_characters(what: str, string: str) -> None:
    """Raise for half a character, such as an emoji cut in two, which no tokenizer takes."""
    try:
        string.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a character at {error.start} ({string[error.start]!r}): "
            "read its source as UTF-8, or with errors='replace'"
        ) from error


def is_per_text(labels: object) -> bool:
    """Whether each text has labels of its own: a list of lists, or an iterator."""
    if isinstance(labels, list | tuple):
        return any(isinstance(label, list | tuple) for label in labels)
    return hasattr(labels, "__next__")


def check_labels(labels: object) -> list[str]:
    """The labels as a list; a string is split at `,` and `，`."""
    if isinstance(labels, str):
        labels = [label.strip() for label in re.split("[,，]", labels) if label.strip()]
    if not isinstance(labels, list | tuple):
        raise TypeError(f"candidate_labels: give a list or a string, not {type(labels).__name__}")
    if not labels:
        raise ValueError("candidate_labels is empty: give at least one label")
    for position, label in enumerate(labels):
        if not isinstance(label, str):
            raise TypeError(f"label {position} is {label!r}, a {type(label).__name__}: labels are strings")
        if not label.strip():
            raise ValueError(f"label {position} is empty ({label!r}): leave it out")
        check_characters(f"label {position}", label)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"candidate_labels holds {', '.join(twice)} more than once: give each label once")
    return list(labels)


def check_template(template: object) -> None:
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ValueError(
            f"hypothesis_template {template!r}: it needs {{}} exactly once, where the label goes, "
            "as in '这篇文章的标题是{}'"
        )


def fill(template: str, labels: Sequence[str]) -> list[str]:
    """The hypotheses: each label in the place of the template's one `{}`."""
    check_template(template)
    return [template.replace("{}", label) for label in labels]
