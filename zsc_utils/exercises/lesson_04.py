"""What lesson 04 asks: attention, its matrix and its shortcuts."""

from typing import Any

import numpy as np

from zsc_utils.exercises import Guess, Wrong, exercise
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess("one-matrix", "mb", "attention scores of one layer at 512 tokens", 100),
    Guess("matrices-at-once", "matrices", "score matrices that exist at the same time, of 12 layers", 12),
    Guess("half-with-sdpa", "tokens", "length from which on SDPA halves the peak", 256),
    Guess("sliding-of-eager", "percent", "attention's bytes with a window against eager, at 4,096 tokens", 50),
    Guess("sliding-of-sdpa", "percent", "attention's bytes with a window against SDPA, at 4,096 tokens", 50),
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


def known_states(scores, values):
    """Results of wrong ways to merge tiles, {what is wrong: result}."""
    found = {}
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
