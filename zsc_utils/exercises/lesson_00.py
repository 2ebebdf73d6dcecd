"""What lesson 00 asks: what a pair is, how logits become scores, what a run costs, what opening a checkpoint costs."""

import numpy as np

from zsc_utils.exercises import Guess, Wrong, exercise, filled

GUESSES: list[Guess] = [
    Guess("sport-share", "percent", "the score of the label sport for the headline about a club's shares", 90),
    Guess("unseen-right", "right", "four texts with labels that training never had", 2),
    Guess("opening-mini", "mb", "the growth of the process when a second copy of mini is opened and used", 120),
]


@exercise("neutral", "Write the class of each sentence: entailment, neutral or contradiction.")
def neutral(attempt):
    pages, bought = (filled(attempt[premise]) for premise in ("这本书共三百页", "看完又给同学买了一本"))
    strange = {pages, bought} - {"entailment", "neutral", "contradiction"}
    if strange:
        raise Wrong(f"{strange.pop()!r} is no class: write entailment, neutral or contradiction.")
    if pages == "contradiction":
        raise Wrong(
            "Three hundred pages do not say that the book is bad: a fact that leaves it open is no contradiction."
        )
    if pages == "entailment":
        raise Wrong("Three hundred pages do not say that the book is good: the text leaves it open.")
    if bought == "neutral":
        raise Wrong("A second copy for a classmate implies that the reader liked the book, though no word says so.")
    if bought == "contradiction":
        raise Wrong("Would somebody who dislikes a book buy it again? The second sentence does not contradict praise.")
    return "A plain fact is neutral; what a text implies counts as entailed."


@exercise("label-scores", "Return the score of each label from logits of shape (labels, 3).")
def label_scores(attempt):
    logits = np.array([[2.0, 0.5, -1.0], [1.0, 3.0, 2.0], [-2.5, 0.0, 4.0]])
    found = np.asarray(filled(attempt(logits)))
    if found.shape != (3,):
        raise Wrong(f"One score for each label is asked: shape (3,), not {found.shape}. Only one column takes part.")
    powers = np.exp(logits)
    if np.allclose(found, powers[:, 0] / powers.sum(1)):
        raise Wrong(
            "This is each label alone, against its other classes. Here labels compete: divide by the sum over labels."
        )
    if np.allclose(found, logits[:, 0] / logits[:, 0].sum()):
        raise Wrong("The exponential is missing: logits may be negative, scores may not.")
    if np.allclose(found, powers[:, 0]):
        raise Wrong("The division is missing: scores add up to 1.")
    if not np.allclose(found, powers[:, 0] / powers[:, 0].sum()):
        raise Wrong("Take the entailment column (the first one) only: the exponential of each, divided by their sum.")
    with np.errstate(all="ignore"):
        large = np.asarray(attempt(logits + 1000))
    if not np.allclose(large, found):
        raise Wrong(
            "Right for small logits. With a logit of 1,000 the exponential overflows: subtract the largest first."
        )
    return "Softmax over the entailment logits, safe for large ones too."


@exercise("count-pairs", "Return how many pairs the model reads, and in how many batches.")
def count_pairs(attempt):
    pairs, batches = filled(attempt(10, 3, 8))
    if pairs == 13:
        raise Wrong("Pairs are not the sum: each of 10 texts meets each of 3 labels.")
    if pairs != 30:
        raise Wrong(f"10 texts and 3 labels make 30 pairs, not {pairs}.")
    if batches == 3:
        raise Wrong(
            "30 pairs in batches of 8: three batches are full, and 6 pairs are left. The last batch counts too."
        )
    if tuple(attempt(10, 4, 8)) != (40, 5):
        raise Wrong("40 pairs in batches of 8 are exactly 5 batches: round up, do not add 1.")
    if batches != 4:
        raise Wrong(f"30 pairs in batches of 8 are 4 batches, not {batches}.")
    return "Texts x labels pairs. The number of batches grows with them, the memory of one batch does not."
