"""What lesson 02 asks: fewer bits for a weight."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("bits-to-lose", "bits", "bits of 32 that a weight loses before answers change", 8),
    Guess("largest-error", "steps", "largest error of a rounded weight, in steps of the scale", 1),
    Guess("fp16-growth", "percent", "growth of the process with fp16 weights, as a share of fp32's", 60, 60),
    Guess("int8-share", "percent", "bytes of the int8 model, as a share of fp32's", 25, 30),
    Guess("fp16-speed", "times", "speed of fp16 against fp32 on this CPU", 2, 1.3),
    Guess("bf16-speed", "times", "speed of bf16 against fp32 on this CPU", 2),
    Guess("int8-speed", "times", "speed of int8 against fp32 on this CPU", 4),
    Guess("int8-same-answers", "percent", "texts that keep their best label in int8", 95),
]
