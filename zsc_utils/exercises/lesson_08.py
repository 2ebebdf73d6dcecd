"""What lesson 08 asks: what libraries cost a process, how many workers fit, which engine for a container."""

from zsc_utils.exercises import Guess, Wrong, exercise, filled

GUESSES: list[Guess] = [
    Guess("torch-process", "mb", "a process that has imported torch and transformers and loaded no model", 100),
    Guess("lean-process", "mb", "a process that has imported numpy, tokenizers and onnxruntime", 100),
    Guess("smallest-pipeline", "mb", "the smallest container in which the pipeline of transformers finishes", 1024),
    Guess("smallest-ours", "mb", "the smallest container in which one of our ways finishes", 256),
]


@exercise("workers-that-fit", "Return how many workers fit in a container if they share their file-backed pages.")
def workers_that_fit(attempt):
    found = filled(attempt(512, 60, 70))
    if found == 512 // (60 + 70):
        raise Wrong("That counts the file-backed pages once for each worker: they are in memory once for all.")
    if found == 512 // 60:
        raise Wrong("The file-backed pages are missing: the container is charged for them, once.")
    if found == 512 / 60 or found == (512 - 70) / 60:
        raise Wrong("A part of a worker does not run: round down.")
    if found != (512 - 70) // 60:
        raise Wrong(f"512 MB, less 70 MB of shared files, at 60 MB for each worker are 7 workers, not {found}.")
    if filled(attempt(50, 60, 70)) != 0:
        raise Wrong("In 50 MB not even the files fit: the answer is 0, never below it.")
    return "Files once, anonymous pages for each worker."


@exercise("word-bytes", "Return the bytes of the table of words that a run reads, in fp32.")
def word_bytes(attempt):
    ids, hidden = [5, 7, 5, 9, 5], 768
    found = filled(attempt(ids, hidden))
    if found == len(ids) * hidden * 4:
        raise Wrong("A word that occurs three times is still one row of the table: count different ids.")
    if found == 3 * hidden:
        raise Wrong("The bytes of a number are missing: fp32 takes 4.")
    if found == 3 * 4:
        raise Wrong("A row has a number for each of the hidden dimensions: `hidden` is missing.")
    if found == (max(ids) + 1) * hidden * 4:
        raise Wrong("That is the table up to the largest id. Rows are read singly, by their place in the file.")
    if found != 3 * hidden * 4:
        raise Wrong(f"Three different rows of 768 numbers of 4 bytes are {3 * hidden * 4:,} bytes, not {found:,}.")
    return "Only the rows of words that occur, each once."


@exercise("pick-engine", "Return the name of the fastest way that fits the container, exact if that is asked.")
def pick_engine(attempt):
    ways = {
        "pipeline": dict(smallest=512, speed=1.0, exact=True),
        "int8": dict(smallest=192, speed=3.4, exact=False),
        "int8 streamed": dict(smallest=112, speed=2.4, exact=False),
        "fp32 streamed": dict(smallest=192, speed=0.9, exact=True),
    }
    found = filled(attempt(ways, 256, False))
    if found == "int8 streamed":
        raise Wrong("That is the way with the smallest container. Of those that fit, the fastest is asked.")
    if found != "int8":
        raise Wrong(f"In 256 MB, int8 is the fastest of the three that fit, not {found!r}.")
    tight = filled(attempt(ways, 128, False))
    if tight != "int8 streamed":
        raise Wrong(f"In 128 MB only 'int8 streamed' fits, not {tight!r}: compare `smallest` with the limit.")
    exact = filled(attempt(ways, 512, True))
    if not ways.get(exact, {}).get("exact"):
        raise Wrong(f"Exact scores were asked, and {exact!r} rounds: `exact` is missing.")
    if exact != "pipeline":
        raise Wrong("In 512 MB two exact ways fit, and the pipeline is the faster one.")
    if attempt(ways, 64, False) is not None:
        raise Wrong("Nothing fits in 64 MB: return None.")
    return "First what fits, then what is allowed, then the fastest."
