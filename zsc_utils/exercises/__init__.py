"""Guesses, exercises and bets of the lessons: kept, checked at once, and answered where something is measured.

`guess` keeps a reader's guess and `answer` compares it with the measurement. `check` says whether a reader's solution
is right, or which term it lacks. `bet` keeps a bet on a verdict of the ledger. What a lesson asks for is in lesson_NN.
"""

import difflib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isfinite
from typing import TYPE_CHECKING, Any

from zsc_utils import claims
from zsc_utils.exercises import _store
from zsc_utils.language import columns, in_use, padded, translated, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Exercise", "Guess", "Judged", "NotFilledIn", "Wrong", "all_exercises", "all_guesses", "answer", "bet", "bets",
    "chart", "check", "exercise", "filled", "guess", "how_far", "judge", "measured", "score_bets",
]  # fmt: skip

LESSONS = range(9)
SYMBOLS = {"mb": "MB", "gb": "GB", "kb": "KB", "percent": "%", "seconds": "s"}  # other units are written as they are
YOU, ARTICLE = "#D55E00", "#0072B2"  # colours of the chart
KEPT = "\u00a0"  # a space at which no line is broken
ORIGINS = ("measured", "computed", "predicted")  # where the value of an answer comes from


@dataclass(frozen=True)
class Guess:
    """A question whose answer a lesson measures, such as Guess("peak-512", "mb", "peak of one text", 1500).

    `unit` is the keyword of `guess` and `answer`. `naive` is the guess that stands in the lesson. `article` is the
    article's figure, or its range (from, to), if it has one.
    """

    name: str
    unit: str
    asks: str
    naive: float
    article: float | tuple[float, float] | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """The article's figure as a range (from, to), or None."""
        return self.article if isinstance(self.article, tuple) or self.article is None else (self.article,) * 2


@dataclass(frozen=True)
class Exercise:
    """An exercise: `asks` is one sentence, `judge` takes an attempt, raises Wrong or returns what is right about it.

    An attempt is a function or a value. In a lesson it bears the exercise's name with _ for -: `my_predict`.
    """

    name: str
    asks: str
    judge: Callable[[Any], str]
    lesson: str
    returns: bool = True  # False for a function that only writes, so that its None is no mistake

    @property
    def attempt(self) -> str:
        """The name that the attempt has in a lesson's cell."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Judged:
    """What `check` prints about an attempt: `right` is True, False, or None while nothing is filled in."""

    right: bool | None
    says: str

    def __str__(self) -> str:
        return f"{ {True: '✓', False: '✗', None: '…'}[self.right] } {self.says}"


class Wrong(Exception):
    """Raised by a check: its message tells the reader which term is missing."""


class NotFilledIn(Exception):
    """Raised where an attempt still holds the stub's `...`."""


# --------------------------------------------------------------------------------------------------------- registry

_exercises: dict[str, Exercise] = {}


def exercise(name: str, asks: str, returns: bool = True) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Register the decorated function as the check of an exercise. ValueError for a name that is taken.

    `returns=False` is for a function that returns nothing even when it is right.

    >>> @exercise("two-bytes", "Return the bytes of a count of numbers in fp16.")
    ... def two_bytes(attempt):
    ...     if attempt(3) != 6:
    ...         raise Wrong("fp16 takes two bytes a number")
    ...     return "two bytes a number"
    """

    def register(judge):
        known = _exercises.get(name)
        if known and known.lesson != judge.__module__:
            raise ValueError(f"exercise {name!r} is in {known.lesson} already")
        _exercises[name] = Exercise(name, asks, judge, judge.__module__, returns)
        return judge

    return register


def _lessons():
    return [import_module(f"zsc_utils.exercises.lesson_{number:02}") for number in LESSONS]


def all_exercises() -> dict[str, Exercise]:
    """Return the exercises of all lessons, {name: Exercise}, in the lessons' order."""
    _lessons()
    return dict(sorted(_exercises.items(), key=lambda item: item[1].lesson))


def all_guesses() -> dict[str, Guess]:
    """Return the questions of all lessons, {name: Guess}, in their order. ValueError for a name that stands twice."""
    found: dict[str, Guess] = {}
    for lesson in _lessons():
        for one in lesson.GUESSES:
            if one.name in found:
                raise ValueError(f"guess {one.name!r} stands twice, the second time in {lesson.__name__}")
            found[one.name] = one
    return found


def _find(what, name, known):
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f". There are {', '.join(known)}"
        raise ValueError(f"no {what} is called {name!r}{hint}")
    return known[name]


# ---------------------------------------------------------------------------------------------------------- guesses


def guess(name: str, **amount: float) -> None:
    """Keep the reader's guess and print one line: guess("peak-512", mb=1500). A guess of `...` is not made yet.

    Raises ValueError for a name that no lesson asks, another unit than the lesson's, and what is not a finite number.

    >>> guess("peak-512", mb=1500)
    Your guess: 1,500 MB for peak activations of one text of 512 tokens.
    """
    asked, value = _amount("guess", name, amount)
    if value is ...:
        _store.forget("guesses", name)
        print(translated(f"… No guess yet: write a number for {asked.asks}, in place of the three dots."))
        return
    _store.keep("guesses", name, value)
    print(translated(f"Your guess: {_show(value, asked.unit)} for {asked.asks}."))


def answer(name: str, by: str = "measured", **amount: float) -> None:
    """Print the guess, the article's figure if it has one, the true value, and how far off they are; keep it all.

    `by` says where the value comes from: "measured", "computed" (by a formula), or "predicted". Raises ValueError for
    another word, and as `guess` does.

    >>> guess("depth", times=12)
    Your guess: 12 times for peak activations with 24 layers against those with 2.
    >>> answer("depth", times=1.0)
    Peak activations with 24 layers against those with 2:
      you          12 times   12 times too high
      measured      1 times
    """
    if by not in ORIGINS:
        raise ValueError(f"answer: by={by!r} is none of {', '.join(ORIGINS)}")
    asked, value = _amount("answer", name, amount)
    if value is ...:
        raise ValueError(f'answer("{name}", {asked.unit}=...): the measurement is missing; write a number')
    _store.keep("measured", name, value)
    guessed = _store.kept("guesses").get(name)
    lines = [("you", "no guess", "")]
    if guessed is not None:
        lines = [("you", _show(guessed, asked.unit), how_far(guessed, value, asked.unit))]
    if asked.range:
        ends = " to ".join(_number(end) for end in dict.fromkeys(asked.range))
        lines.append(("the article", f"{ends} {_symbol(asked.unit)}", _article_off(asked, value)))
    lines.append((by, _show(value, asked.unit), ""))
    cells = [[translated(cell, part=True) for cell in line] for line in lines]
    wide = max(columns(amount) for _, amount, _ in cells)
    told = [f"  {padded(who, 13)}{padded(amount, wide, right=True)}   {off}".rstrip() for who, amount, off in cells]
    asks = translated(f"{asked.asks}:", part=True)
    if in_use() == "en":
        asks = f"{asks[:1].upper()}{asks[1:]}"
    print("\n".join([asks, *told]))


def measured() -> dict[str, tuple[float, float]]:
    """Return the guesses that were measured, {name: (guess, measurement)}, in the lessons' order."""
    guesses, found = _store.kept("guesses"), _store.kept("measured")
    return {name: (guesses[name], found[name]) for name in all_guesses() if name in guesses and name in found}


def _amount(what, name, amount):
    """The question of that name and the amount given for it; ValueError if one of the two is wrong."""
    asked = _find("guess", name, all_guesses())
    if list(amount) != [asked.unit]:
        given = ", ".join(amount) or "none"
        raise ValueError(f'{name} is asked in {asked.unit}, not in {given}: {what}("{name}", {asked.unit}=...)')
    value = amount[asked.unit]
    if value is ...:
        return asked, value
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or not isfinite(float(value)):
        raise ValueError(f"{what}: {asked.unit}={value!r} is no finite number; write one, such as {asked.naive}")
    return asked, value if isinstance(value, int) else float(value)


def how_far(guessed: float, found: float, unit: str) -> str:
    """Say how far a guess is from a measurement: "87 times too high", "12 % too low", "equal".

    Shares differ by percentage points, for a percentage of a percentage can be read in two ways.
    """
    if guessed == found or _show(guessed, unit) == _show(found, unit):
        return "equal"
    side = "too high" if guessed > found else "too low"
    if unit == "percent":
        return f"{_number(abs(guessed - found))} percentage points {side}"
    if guessed <= 0 or found <= 0:
        return f"{side} by {_show(abs(guessed - found), unit)}"
    larger = max(guessed / found, found / guessed)
    if larger >= 2:
        return f"{larger:,.0f} times {side}" if larger >= 9.95 else f"{larger:.1f} times {side}"
    share = abs(guessed / found - 1)
    return f"{share:.0%} {side}".replace("%", " %") if share >= 0.01 else f"less than 1 % {side}"


def _article_off(asked, found):
    """How far the article's figure or range is from a measurement."""
    low, high = asked.range
    if low == high:
        return how_far(low, found, asked.unit)
    if low <= found <= high:
        return "the measurement is in this range"
    return f"at least {how_far(low if found < low else high, found, asked.unit)}"


def _number(value):
    """A number for readers: whole ones in full, others with three digits."""
    if isinstance(value, int) or abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _symbol(unit):
    return SYMBOLS.get(unit, unit)


def _show(value, unit):
    return f"{_number(value)} {_symbol(unit)}"


# -------------------------------------------------------------------------------------------------------- exercises


def check(name: str, attempt: Any) -> None:
    """Print one line about a reader's attempt: right (✓), wrong (✗, with the missing term), or not filled in yet (…).

    Raises ValueError for a name that no lesson has.

    >>> check("matrix-bytes", lambda batch, heads, length: 4 * batch * length * length)
    ✗ The heads are missing: each of them has a matrix of its own.
    """
    print(judge(name, attempt))


def judge(name: str, attempt: Any) -> Judged:
    """Return what `check` prints. An exception of the attempt is told in one line, with its type and its line."""
    asked = _find("exercise", name, all_exercises())
    nothing: list[bool] = []  # of each result: is it None?
    try:
        right, says = True, asked.judge(_watched(attempt, nothing))
    except NotFilledIn:
        right, says = None, f"Not filled in yet. {asked.asks}"
    except Exception as error:
        right, says = False, str(error) if isinstance(error, Wrong) else _told(error, attempt)
        if asked.returns and nothing and all(nothing):
            says = "Your function returns nothing: is `return` missing?"
    return Judged(right, translated(says))


def filled(value: Any) -> Any:
    """Return a value that an attempt gave. NotFilledIn for `...`, or a tuple, list or dict that holds it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if value is ... or any(part is ... for part in inside):
        raise NotFilledIn
    return value


def _watched(attempt, nothing):
    """The attempt, filled in; a function is wrapped so that each of its results is, and `nothing` knows the None."""
    filled(attempt)
    if not callable(attempt):
        return attempt

    def watched(*args, **named):
        result = attempt(*args, **named)
        nothing.append(result is None)
        return filled(result)

    return watched


def _told(error, attempt):
    """An exception in one line: its type, its message, and the line of the attempt that raised it."""
    words = " ".join(str(error).split())
    told = f"{type(error).__name__}: {words}" if words else type(error).__name__
    file = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"Your code raised {told}" + (f" (line {lines[-1]} of its cell)" if lines else "")


# ------------------------------------------------------------------------------------------------------------- bets


def bet(claim_id: str, verdict: str) -> None:
    """Keep a bet on a claim's verdict and print one line. ValueError for a claim or a verdict that there is not."""
    claim = _find("claim", claim_id, {claim.id: claim for claim in claims.read()})
    verdicts = claims.VERDICTS[1:]
    if verdict not in verdicts:
        raise ValueError(f"verdict {verdict!r}: choose one of {', '.join(verdicts)}")
    _store.keep("bets", claim_id, verdict)
    figure = f" ({claim.figure})" if claim.figure else ""
    print(translated(f"Your bet: {verdict}. The claim: {claim.says}{figure}."))


def bets() -> dict[str, str]:
    """Return the reader's bets, {claim id: verdict}, in the ledger's order."""
    kept = _store.kept("bets")
    return {claim.id: kept[claim.id] for claim in claims.read() if claim.id in kept}


def score_bets(ledger: Iterable[claims.Claim] | None = None) -> str:
    """Return the bets beside the ledger's verdicts, a line for each, and a last line that counts those that were right.

    >>> print(score_bets([]))
    No bets yet: bet("parameter-count", "refuted") keeps one.
    """
    decided = list(claims.read() if ledger is None else ledger)
    kept = _store.kept("bets")
    rows = [(claim, kept[claim.id]) for claim in decided if claim.id in kept]
    if not rows:
        return translated('No bets yet: bet("parameter-count", "refuted") keeps one.')
    lines = [
        f"{'✓' if yours == claim.verdict else '✗'} {claim.id:<28}"
        f"{padded(translated(f'you: {yours}'), 25)}{translated(f'ledger: {claim.verdict}')}"
        for claim, yours in rows
    ]
    right = sum(yours == claim.verdict for claim, yours in rows)
    return "\n".join([*lines, translated(f"{right} of {len(rows)} bets right")])


# ------------------------------------------------------------------------------------------------------------ chart


def chart(axes: "Axes", names: Sequence[str] | None = None) -> None:
    """Draw the reader's guesses and the article's figures as ratios to the measurement, on a log axis.

    A row for each guess that was measured; `names` chooses among them, and the figure's height follows them. Zero and
    less have no place on a log axis: such rows are left out, and the axis says how many. Raises ValueError for a name
    that no lesson asks.
    """
    asked, found = all_guesses(), measured()
    for name in names or ():
        _find("guess", name, asked)
    chosen = [name for name in found if names is None or name in names]
    rows = [name for name in chosen if min(found[name]) > 0]
    if not rows:
        axes.set_axis_off()
        nothing = translated("No guess was measured yet.")
        axes.text(0.5, 0.5, nothing, ha="center", va="center", transform=axes.transAxes)
        return
    for place, name in enumerate(rows):
        guessed, value = found[name]
        _chart_row(axes, place, guessed / value, asked[name].range, value)
    axes.axvline(1, color="black", linewidth=1)
    amounts = [translated(_show(found[name][1], asked[name].unit), part=True) for name in rows]
    asks = [translated(f"{asked[name].asks}:", part=True) for name in rows]
    told = [f"{words} {amount.replace(' ', KEPT)}".replace("： ", "：") for words, amount in zip(asks, amounts)]
    axes.set_yticks(range(len(rows)), ["\n".join(wrapped(words, 42)) for words in told], fontsize=8)
    if figure := axes.get_figure(root=True):
        figure.set_figheight(1.2 + 0.42 * len(rows))
    axes.set(xscale="log", ylim=(len(rows) - 0.4, -0.6), title=translated(_chart_title(rows, asked, found)))
    left_out = f" ({len(chosen) - len(rows)} left out: not above zero)" if len(chosen) > len(rows) else ""
    axes.set_xlabel(translated(f"guess or article / measurement; 1 is equal{left_out}"))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.25)


def _chart_row(axes, place, ratio, article, value):
    """One question: the reader's point above, the article's point or range below, both with their names."""
    lines = [("you", [ratio], -0.18, "o", YOU)]
    if article and min(article) > 0:
        lines.append(("article", [end / value for end in article], 0.2, "-D", ARTICLE))
    for who, ends, height, style, colour in lines:
        axes.plot(ends, [place + height] * len(ends), style, color=colour, markersize=5)
        told = f"{who} " + " to ".join(_ratio(end) for end in dict.fromkeys(ends))
        side = {"xytext": (6, 0)} if ends[-1] >= 1 else {"xytext": (-6, 0), "ha": "right"}
        anchor = ends[-1] if ends[-1] >= 1 else ends[0]  # the name stands on the side away from the line at 1
        axes.annotate(translated(told), (anchor, place + height), textcoords="offset points", va="center", color=colour,
                      fontsize=8, **side)  # fmt: skip


def _ratio(ratio):
    return f"{ratio:,.0f}x" if ratio >= 9.95 else f"{ratio:.2g}x"


def _chart_title(rows, asked, found):
    """How often the reader and the article were within a factor of two."""

    def near(ratio):
        return 0.5 <= ratio <= 2

    you = sum(near(found[name][0] / found[name][1]) for name in rows)
    told = [(asked[name].range, found[name][1]) for name in rows if asked[name].range]
    article = sum(any(near(end / value) for end in ends) or ends[0] <= value <= ends[1] for ends, value in told)
    title = f"Within a factor of two: you in {you} of {len(rows)}"
    return f"{title}, the article in {article} of {len(told)}" if told else title
