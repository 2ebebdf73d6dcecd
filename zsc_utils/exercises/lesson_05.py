"""What lesson 05 asks: weights on disk."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("pickle-peak", "times", "peak of loading a pickle, in multiples of the file", 1),
    Guess("mapped-peak", "times", "peak of from_pretrained while it loads, in multiples of the file", 1),
    Guess("quarter-read", "mb", "resident memory after a quarter of a mapped file was read", 102),
    Guess("reading-share", "percent", "reading's time as a share of computing's, layers streamed", 100),
    Guess("smallest-budget", "mb", "smallest budget that runs the base model in fp32", 200),
]
