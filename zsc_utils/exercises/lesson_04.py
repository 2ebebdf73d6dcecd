"""What lessons 04 and 04b ask: attention, its matrix and its shortcuts; long texts, chunks and fewer layers."""

from typing import Any

import numpy as np

from zsc_utils.batching import windows
from zsc_utils.exercises import Guess, Wrong, exercise
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess("one-matrix", "mb", "attention scores of one layer at 512 tokens", 100),
    Guess("matrices-at-once", "matrices", "score matrices that exist at the same time, of 12 layers", 12),
    Guess("half-with-sdpa", "tokens", "length from which on SDPA halves the peak", 256),
    Guess("sliding-of-eager", "percent", "attention's bytes with a window against eager, at 4,096 tokens", 50),
    Guess("sliding-of-sdpa", "percent", "attention's bytes with a window against SDPA, at 4,096 tokens", 50),
    Guess("windows-right", "percent", "right answers for texts of 200 characters, read in windows of 40 tokens", 50),
    Guess("chunks-of-eager", "percent", "activations with SDPA and chunks against eager, 32 texts of 512 tokens", 50),
    Guess("half-the-layers", "percent", "right answers with 6 of 12 layers and nothing taught", 50),
    Guess("checkpointing-training", "percent", "memory that checkpointing saves in a training step", 30),
    Guess("checkpointing-inference", "percent", "memory that checkpointing saves in inference", 30),
]


def softmax(scores):
    """Softmax over the last axis."""
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


@exercise(
    "sliding",
    "Write sliding(scores, window): softmax of each row of the n x n scores, where token i sees only tokens j with "
    "|i - j| <= window. Numpy arrays.",
)
def sliding(attempt: Any) -> str:
    scores = np.random.default_rng(0).normal(0, 2, (9, 9))
    place = np.arange(9)
    near = np.abs(place[:, None] - place) <= 2
    got = np.asarray(attempt(scores.copy(), 2), dtype=float)
    if got.shape != scores.shape:
        raise Wrong(f"The result has the shape {got.shape}, not {scores.shape}: one weight for each pair of tokens.")
    if not np.isfinite(got).all():
        raise Wrong("Some weights are no numbers. Every token sees itself, so no row is empty.")
    if np.allclose(got, softmax(np.where(near, scores, -np.inf))):
        return "What is outside the window has the weight 0, and each row sums to 1."
    known = {
        "Nothing is masked: token 0 still sees token 8.": softmax(scores),
        "A score of 0 is no mask: exp(0) is 1. Put -inf where a token is not seen.": softmax(np.where(near, scores, 0)),
        "The weights are cut after softmax, so rows sum to less than 1. Mask the scores first.": softmax(scores) * near,
        "The softmax runs over the wrong axis: each row sums to 1.": softmax(np.where(near, scores, -np.inf).T).T,
        "The window lacks its last token: |i - j| = window is seen.": softmax(
            np.where(np.abs(place[:, None] - place) < 2, scores, -np.inf)
        ),
    }
    for says, wrong in known.items():
        if np.allclose(got, wrong):
            raise Wrong(says)
    seen = got > 1e-9
    if not (seen & near).any(1).all() or (seen & ~near).sum() > (seen & near).sum():
        raise Wrong("The mask is the wrong way round: near tokens are seen, far ones are not.")
    if not np.triu(seen, 1).any() or not np.tril(seen, -1).any():
        raise Wrong("The window has one side only. A token sees as many tokens after it as before it.")
    rows = ", ".join(f"{total:.2f}" for total in got.sum(1)[:3])
    raise Wrong(f"The first rows sum to {rows}; each should be the softmax of the scores in its window.")


# scores of two tiles each; exp of the large ones overflows unless the running maximum is subtracted
TILES = (
    ((2.0, 3.0), (0.5, -1.0)), ((1.0, 2.0), (0.5, 3.0)), ((900.0, 901.0), (902.0, 899.0)), ((900.0, 901.0), (1.0, 2.0)),
)  # fmt: skip


def inverted(scores, values):
    """The result if the old sums are multiplied by exp(new maximum - old maximum)."""
    top, total, weighted = -np.inf, 0.0, np.zeros(values[0].shape[1])
    for tile, value in zip(scores, values):
        new = max(top, tile.max())
        grown = np.exp(new - top) if np.isfinite(top) else 0.0
        raised = np.exp(tile - new)
        top, total, weighted = new, total * grown + raised.sum(), weighted * grown + raised @ value
    return weighted / total


def divided(scores, values):
    """Results if weighted is divided by total in each tile: with what was divided before multiplied again, or not."""
    found = {}
    for says, undone in (
        ("weighted is divided by total in each tile, and at the end once more. Keep the sum: the end divides it.", 1),
        ("weighted is divided by total in each tile, so old tiles are divided again and again. Keep the sum.", 0),
    ):
        top, total, weighted = -np.inf, 0.0, np.zeros(values[0].shape[1])
        for tile, value in zip(scores, values):
            new = max(top, tile.max())
            shrunk, raised = np.exp(top - new), np.exp(tile - new)
            kept = weighted * shrunk * (total if undone else 1)
            total = total * shrunk + raised.sum()
            top, weighted = new, (kept + raised @ value) / total
        found[says] = weighted / total
    return found


def known_states(scores, values):
    """Results of wrong ways to merge tiles, {what is wrong: result}."""
    found = {
        "The exponent is inverted. Old sums shrink: multiply by exp(old maximum - new maximum).": inverted(
            scores, values
        ),
        **divided(scores, values),
    }
    for says, keeps_total, keeps_weighted, tile_only in (
        ("The old sums still count from the old maximum. Multiply both by exp(old maximum - new maximum).", 1, 1, 0),
        ("The old total still counts from the old maximum. Rescale it as you rescale weighted.", 1, 0, 0),
        ("The old weighted values still count from the old maximum. Rescale them as you rescale total.", 0, 1, 0),
        ("The maximum is the new tile's alone. It is the larger of the old maximum and the tile's.", 1, 1, 1),
        ("The last tile is all that is left. Add to the old sums, rescaled.", None, None, 1),
    ):
        top, total, weighted = -np.inf, 0.0, np.zeros(values[0].shape[1])
        for tile, value in zip(scores, values):
            new = tile.max() if tile_only else max(top, tile.max())
            shrunk = np.exp(top - new) if np.isfinite(top) else 0.0
            raised = np.exp(tile - new)
            kept_total = 0 if keeps_total is None else total * (1 if keeps_total else shrunk)
            kept_weighted = 0 if keeps_weighted is None else weighted * (1 if keeps_weighted else shrunk)
            top, total, weighted = new, kept_total + raised.sum(), kept_weighted + raised @ value
        found[says] = weighted / total
    return found


@exercise(
    "online-softmax",
    "Write online_softmax(state, scores, values): take one more tile (n scores, n x d values) into "
    "state = (maximum, total, weighted), and return the new state. It begins as (-inf, 0, zeros); at the end "
    "weighted / total is attention's output.",
)
def online_softmax(attempt: Any) -> str:
    rng = np.random.default_rng(0)
    for case in TILES:
        scores = [np.array(tile) for tile in case]
        values = [rng.normal(0, 1, (2, 3)) for _ in scores]
        state = (-np.inf, 0.0, np.zeros(3))
        with np.errstate(all="ignore"):
            for tile, value in zip(scores, values):
                state = attempt(state, tile.copy(), value.copy())
                if not isinstance(state, tuple | list) or len(state) != 3:
                    raise Wrong("The state is three things: (maximum, total, weighted).")
            got = np.asarray(state[2], dtype=float) / state[1]
        if got.shape != (3,):
            raise Wrong(f"weighted / total has the shape {got.shape}. It is one row of values: (3,).")
        right = softmax(np.concatenate(scores)) @ np.concatenate(values)
        if not np.allclose(got, right):
            raise Wrong(online_mistake(got, scores, values))
    return "Two tiles give what all scores at once would, and no score is held twice."


def online_mistake(got, scores, values):
    """What is wrong with an output of merged tiles."""
    if not np.isfinite(got).all() and max(tile.max() for tile in scores) < 100:
        return ("The output is no number, even for small scores. The first maximum is -inf: exp(old - new) is 0, but "
                "exp(new - old) is infinite.")  # fmt: skip
    if not np.isfinite(got).all():
        return "The sums overflow for scores of 900. Subtract the running maximum before exp."
    for says, wrong in known_states(scores, values).items():
        if np.allclose(got, wrong):
            return says
    return f"The output is off by {np.abs(got - softmax(np.concatenate(scores)) @ np.concatenate(values)).max():.2g}."


@exercise(
    "matrix-bytes",
    "Write matrix_bytes(batch, heads, length): the bytes of one layer's attention scores in fp32, as eager attention "
    "builds them.",
)
def matrix_bytes(attempt: Any) -> str:
    for batch, heads, length in ((1, 12, 512), (3, 5, 100)):
        numbers = batch * heads * length**2
        compare(attempt(batch, heads, length), 4 * numbers, f"matrix_bytes({batch}, {heads}, {length})", {
            numbers: "That is how many scores there are. In fp32 each takes 4 bytes.",
            4 * numbers / heads: "The heads are missing: each of them has a matrix of its own.",
            4 * numbers / length: "Each token is compared with each other one: length x length, not length.",
            4 * numbers / batch: "The batch is missing: each text has its own matrix.",
            4 * numbers * 12: "Layers do not add up: a layer's matrix is freed before the next one is made.",
            8 * numbers: "That is two matrices, before and after scaling. Wanted is one.",
        })  # fmt: skip
    return "Batch x heads x length x length numbers of four bytes: twice the length, four times the bytes."


# -------------------------------------------------------------------------------------------------------- lesson 04b


@exercise(
    "text-windows",
    "Write text_windows(count, room, overlap): a list of (start, stop) of windows of `room` tokens. Each shares "
    "`overlap` tokens with the one before; the last is moved back so that it is full.",
)
def text_windows(attempt: Any) -> str:
    for count, room, overlap in ((100, 40, 10), (101, 40, 10), (30, 40, 10), (95, 20, 0)):
        right = [(part[0], part[-1] + 1) for part in windows(range(count), room, overlap)]
        call = f"text_windows({count}, {room}, {overlap})"
        got = attempt(count, room, overlap)
        pairs = as_pairs(got)
        if pairs is None:
            raise Wrong(f"{call} is no list of pairs (start, stop).")
        if pairs != right:
            raise Wrong(f"{call}: {window_mistake(pairs, right, room, overlap)}")
    return "Each token is in a window, each window is full, and neighbours share what you asked for."


def as_pairs(got):
    """A list of pairs of ints, or None."""
    if not isinstance(got, list | tuple):
        return None
    pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in got]
    whole = all(len(pair) == 2 and all(isinstance(end, int | np.integer) for end in pair) for pair in pairs)
    return [(int(start), int(stop)) for start, stop in pairs] if whole and pairs else None


def window_mistake(pairs, right, room, overlap):
    """What is wrong with the windows of a text, as a sentence."""
    count, step = right[-1][1], room - overlap
    starts = [start for start, _ in pairs]
    if max(stop for _, stop in pairs) > count or min(starts) < 0:
        return f"a window ends at {max(stop for _, stop in pairs)}; the text has {count} tokens."
    missing = sorted(set(range(count)) - {token for pair in pairs for token in range(*pair)})
    if missing:
        return f"token {missing[0]} is in no window. The last window ends with the text."
    short = [pair for pair in pairs if pair[1] - pair[0] < min(room, count)]
    if short:
        return f"the window {short[0]} is not full. Move the last one back, to start at {max(0, count - room)}."
    if len(pairs) > len(right):
        if any(second - first < step for first, second in zip(starts, starts[1:-1])):
            return f"windows start every {starts[1] - starts[0]} tokens. The step is room - overlap, {step}."
        return f"{len(pairs)} windows, where {len(right)} are enough: the last two end at the same token."
    return (
        f"the second window starts at {starts[1:2] or starts[:1]}; with the overlap it starts at {right[1:2] or right}."
    )


@exercise(
    "kept-layers",
    "Write kept_layers(count, keep): the numbers of the layers to keep, rising, from 0 to count - 1, at distances as "
    "even as possible.",
)
def kept_layers(attempt: Any) -> str:
    for count, keep in ((12, 6), (12, 2), (24, 7), (12, 12)):
        call = f"kept_layers({count}, {keep})"
        got = attempt(count, keep)
        if not isinstance(got, list | tuple | np.ndarray) or any(isinstance(one, bool | str) for one in got):
            raise Wrong(f"{call} returns {type(got).__name__}, not a list of numbers.")
        if not all(isinstance(one, int | np.integer) for one in got):
            raise Wrong(f"{call}: a layer's number is an integer. Round it.")
        problem = layer_mistake([int(one) for one in got], count, keep)
        if problem:
            raise Wrong(f"{call}: {problem}")
    return "The first and the last layer stay, and no gap is more than one layer wider than another."


def layer_mistake(kept, count, keep):
    """What is wrong with the numbers of kept layers, as a sentence, or ""."""
    if len(kept) != keep:
        return f"{len(kept)} layers are kept, not {keep}."
    if kept != sorted(set(kept)):
        return "the numbers do not rise, or one stands twice."
    gaps = {after - before for before, after in zip(kept, kept[1:])}
    if kept[0] != 0:
        return f"the first kept layer is {kept[0]}. Layer 0 is the one that knows the embeddings."
    if kept[-1] != count - 1:
        if gaps == {1}:
            return f"these are the first {keep} layers. The last one, {count - 1}, prepares what the classifier reads."
        return f"the last kept layer is {kept[-1]}, not {count - 1}. There are {keep - 1} gaps, not {keep}."
    if max(gaps) - min(gaps) > 1:
        return f"one gap is {min(gaps)} and another {max(gaps)}. Make them as even as possible."
    return ""


@exercise(
    "chunk-bytes",
    "Write chunk_bytes(tokens, hidden, wide, chunk): the fp32 bytes of a feed-forward network in chunks. For all "
    "tokens: the layer's input and attention's output. For one chunk: the wide tensor before and after GELU.",
)
def chunk_bytes(attempt: Any) -> str:
    for tokens, hidden, wide, chunk in ((512, 768, 3072, 64), (100, 768, 3072, 512), (300, 50, 170, 40)):
        all_tokens, some = tokens * hidden, min(chunk, tokens) * wide
        got, call = attempt(tokens, hidden, wide, chunk), f"chunk_bytes{tokens, hidden, wide, chunk}"
        compare(got, 8 * (all_tokens + some), call, {
            8 * (all_tokens + tokens * wide): "That is without chunks: only `chunk` tokens are wide at the same time.",
            8 * (all_tokens + chunk * wide): "The chunk has more tokens than the text. Then all tokens are one chunk.",
            8 * all_tokens + 4 * some: "The wide tensor exists twice: before GELU and after it.",
            4 * all_tokens + 8 * some: "Two tensors exist for all tokens: the layer's input and attention's output.",
            8 * some: "The hidden states of all tokens are missing: they exist as long as the chunks need them.",
            8 * (all_tokens + min(chunk, tokens) * 4 * hidden): "`wide` is not always 4 x hidden: use what is given.",
            2 * (all_tokens + some): "That is how many numbers there are. In fp32 each takes 4 bytes.",
        })  # fmt: skip
    return (
        "Hidden states for all tokens, the wide tensor for one chunk: the peak no longer has 4 x hidden for each token."
    )
