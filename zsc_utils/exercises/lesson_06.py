"""What lesson 06 asks: all levers together."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("memory-left", "percent", "growth of the process with all levers, as a share of the original's", 30, 28),
    Guess("speed-together", "times", "speed with all levers against the original", 2, 1.8),
    Guess("changed-answers", "texts", "headlines, of 39, that get another label in int8", 2),
    Guess("cut-answers", "texts", "texts, of 20, that get another label when cut at 64 tokens", 1, 0.1),
    Guess("original-process", "mb", "the original's whole process", 3000, 3200),
]
