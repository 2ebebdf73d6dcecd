"""What lesson 01 asks: the bytes of one forward pass."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("whole-process", "mb", "the whole process that runs the base model on one text", 3000, (2000, 4000)),
    Guess("parameter-count", "millions", "parameters of the base model", 110, 110),
    Guess("weights-fp32", "mb", "weights of the base model in fp32", 440, 440),
    Guess("weights-fp16", "mb", "weights of the base model in fp16", 220, 220),
    Guess("peak-512", "mb", "peak activations of one text of 512 tokens", 1500, (1000, 2000)),
    Guess("depth", "times", "peak activations with 24 layers against those with 2", 12),
    Guess("attention-peak", "tokens", "length from which on eager attention is the peak of the pass", 128),
    Guess("article-among-headlines", "times", "growth of the peak when one headline of a batch becomes an article", 2),
]
