"""What lesson 00 asks: what a pair is, and what opening a checkpoint costs."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("other-answers", "texts", "headlines, of 52, that get another best label if the pair is one string", 10),
    Guess("opening-mini", "mb", "growth of the process when a second copy of mini is opened and used", 120),
]
