"""What lesson 07 asks: many processes."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("second-worker", "mb", "memory that a second worker with shared weights costs", 400),
    Guess("second-model", "mb", "memory that the second worker's model costs", 409),
    Guess("two-workers-speed", "times", "speed of two workers with one thread against one with two", 2),
    Guess("rows-that-arrive", "rows", "rows, of 240, that arrive by the plain way", 240),
    Guess("again", "seconds", "time of the same call once more", 10),
    Guess("shared-against-int8", "workers", "workers from which on shared fp32 is smaller than int8", 2),
    Guess("rows-lost", "rows", "rows that are missing after a kill", 32),
    Guess("rows-twice", "rows", "rows that come twice after a kill", 32),
]
