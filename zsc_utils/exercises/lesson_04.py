"""What lesson 04 asks: attention, its matrix and its shortcuts."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("one-matrix", "mb", "attention scores of one layer at 512 tokens", 100),
    Guess("matrices-at-once", "matrices", "score matrices that exist at the same time, of 12 layers", 12),
    Guess("half-with-sdpa", "tokens", "length from which on SDPA halves the peak", 256),
    Guess("sliding-of-eager", "percent", "attention's bytes with a window against eager, at 4,096 tokens", 50),
    Guess("sliding-of-sdpa", "percent", "attention's bytes with a window against SDPA, at 4,096 tokens", 50),
    Guess("checkpointing-training", "percent", "memory that checkpointing saves in a training step", 30),
    Guess("checkpointing-inference", "percent", "memory that checkpointing saves in inference", 30),
]
