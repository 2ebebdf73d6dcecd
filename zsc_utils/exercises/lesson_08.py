"""What lesson 08 asks: what libraries cost a process, what becomes of it in a container, which engine to choose."""

from zsc_utils.exercises import Guess, Wrong, exercise, filled

GUESSES: list[Guess] = [
    Guess("torch-alone", "mb", "a process that has imported torch and nothing else", 100),
    Guess("lean-process", "mb", "a process that has imported numpy, tokenizers and onnxruntime", 100),
    Guess("smallest-pipeline", "mb", "the smallest container in which the pipeline of transformers finishes", 1024),
    Guess("smallest-ours", "mb", "the smallest container in which one of our ways finishes", 256),
    Guess("import-line", "mb", "the line `import torch` in a process that uses it for nothing", 230),
]


FATES = ("fits", "slow", "killed")


@exercise("fits-slow-killed", 'Return "fits", "slow" or "killed" for a process in a container of that limit.')
def fits_slow_killed(attempt):
    for limit in (256, 192, 128):
        if filled(found := attempt(limit, 162, 47)) not in FATES:
            raise Wrong(f"Return one of the three words {', '.join(FATES)}, not {found!r}.")
    if attempt(256, 162, 47) != "fits":
        raise Wrong("162 and 47 MB are 209 MB, less than 256: no page has to leave memory, so it fits.")
    if attempt(192, 162, 47) == "fits":
        raise Wrong("209 MB are more than 192. Files are charged too: their pages are taken back and read again. Slow.")
    if attempt(192, 162, 47) == "killed":
        raise Wrong("Of 209 MB, 47 are parts of files: the kernel takes those back, and nobody is killed. It is slow.")
    if attempt(128, 162, 47) != "killed":
        raise Wrong("162 MB are anonymous: no file has them, so the kernel cannot take them back. 128 MB are too few.")
    if attempt(100, 60, 200) != "slow":
        raise Wrong("60 MB are anonymous, and 100 hold them. The 200 MB of files come and go: slow, not killed.")
    if attempt(209, 162, 47) != "fits":
        raise Wrong("A limit is the most that is allowed: 209 of 209 MB are not over it.")
    return "Both together decide whether it fits; the anonymous pages alone, whether it is killed."


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
    if exact == "fp32 streamed":
        raise Wrong("512 fits into 512: compare with <=. Then two exact ways fit, and the pipeline is the faster one.")
    if exact != "pipeline":
        raise Wrong("In 512 MB two exact ways fit, and the pipeline is the faster one.")
    fast = {**ways, "fp32": dict(smallest=448, speed=4.0, exact=True)}
    if filled(attempt(fast, 512, False)) != "fp32":
        raise Wrong("Where exact scores are not asked, exact ways count too: here one of them is the fastest.")
    if attempt(ways, 64, False) is not None:
        raise Wrong("Nothing fits in 64 MB: return None.")
    return "First what fits, then what is allowed, then the fastest."
