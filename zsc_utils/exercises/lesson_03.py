"""What lesson 03 asks: pairs, padding and batches."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("padding-share", "percent", "tokens that are padding, in batches of 16 as they come", 10),
    Guess("decimals", "decimals", "decimals that scores keep when nothing is padded", 3),
    Guess("batch-dominates", "pairs", "pairs of 128 tokens whose activations weigh more than the weights", 8),
    Guess("one-string", "texts", "headlines, of 39, that get another label if the pair is one string", 10),
    Guess("batching-speed", "times", "speed with batches by length against batches as they come", 2, 1.5),
    Guess("stream-growth", "mb", "growth of the process for 600 texts beyond that for 100", 50),
]
