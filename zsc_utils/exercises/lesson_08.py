"""What lesson 08 asks: the process without torch."""

from zsc_utils.exercises import Guess

GUESSES: list[Guess] = [
    Guess("imports", "mb", "memory of a process that imported torch and transformers", 100),
    Guess("numpy-import", "mb", "the part of it that came with numpy", 10),
    Guess("torch-import", "mb", "the part of it that came with torch", 50),
    Guess("pipeline-container", "mb", "smallest container for the pipeline of transformers", 1000),
    Guess("our-container", "mb", "smallest container for the engine without torch", 300),
]
