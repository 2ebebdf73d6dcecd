"""What lesson 03 asks: pairs, padding and batches."""

from typing import Any

from zsc_utils.exercises import Guess, Wrong, exercise, filled
from zsc_utils.exercises._numbers import compare

GUESSES: list[Guess] = [
    Guess("padding-share", "percent", "tokens that are padding, in batches of 16 as they come", 10),
    Guess("batch-dominates", "pairs", "pairs of 64 tokens whose activations weigh more than the weights", 8),
    Guess("stream-growth", "mb", "growth of the process from 100 to 400 streamed texts", 50),
]

# (lengths of pairs, most tokens of a batch): mixed, equal, one that is longer than the budget, one alone
BUDGETS = (([20, 90, 22, 18, 95, 21, 60, 19], 100), ([16] * 10, 64), ([30, 200, 31], 100), ([12], 512))


@exercise(
    "token-budget-batches",
    "Write token_budget_batches(lengths, max_tokens): lists of indices, each index once. A batch is padded to its "
    "longest pair and has at most max_tokens tokens; a pair that is longer is alone. Make few batches.",
)
def token_budget_batches(attempt: Any) -> str:
    for lengths, most in BUDGETS:
        batches = [list(filled(batch)) for batch in attempt(list(lengths), most)]
        check_indices(batches, lengths)
        check_budget(batches, lengths, most)
        enough = max(len(greedy(lengths, most, longest_first)) for longest_first in (True, False))
        if len(batches) > enough:
            raise Wrong(too_many(batches, enough, lengths))
    return "Each pair once, no batch over the budget, and few batches."


def check_indices(batches, lengths):
    """Wrong unless the batches hold each index once, and none is empty."""
    if not all(batches):
        raise Wrong("A batch is empty. Begin a new one only if the last one has a pair.")
    held = sorted(index for batch in batches for index in batch)
    if len(set(held)) < len(held):
        raise Wrong("A pair is in two batches. Each index is wanted once.")
    if set(held) - set(range(len(lengths))):
        raise Wrong("The batches hold lengths. Wanted are indices into lengths, from 0.")
    if len(held) < len(lengths):
        raise Wrong(f"{len(lengths) - len(held)} of {len(lengths)} pairs are lost. Is the last batch returned?")


def check_budget(batches, lengths, most):
    """Wrong if a batch of several pairs is over the budget, by its padded tokens."""
    for batch in batches:
        real, longest = sum(lengths[i] for i in batch), max(lengths[i] for i in batch)
        padded = longest * len(batch)
        if len(batch) == 1 or padded <= most:
            continue
        if real <= most:
            raise Wrong(
                f"A batch has {real} tokens, but {padded} with padding, over {most}. Count its longest pair for each."
            )
        raise Wrong(f"A batch has {padded} tokens, over {most}: a limit on pairs is none on tokens.")


def greedy(lengths, most, longest_first):
    """Batches in the order of lengths, each filled as far as the budget allows."""
    batches = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest_first):
        if not batches or max(lengths[i] for i in (batches[-1][0], index)) * (len(batches[-1]) + 1) > most:
            batches.append([])
        batches[-1].append(index)
    return batches


def too_many(batches, enough, lengths):
    """Why there are more batches than need be."""
    if len(batches) == len(lengths):
        return "Each pair is alone in its batch. Put pairs together while the budget allows."
    return f"{len(batches)} batches, where {enough} are enough. Sort by length first: then neighbours are alike."


@exercise(
    "useful-share",
    "Write useful_share(lengths, batches): the share, from 0 to 1, of computed tokens that are no padding. "
    "Each batch (a list of indices) is padded to its longest pair.",
)
def useful_share(attempt: Any) -> str:
    lengths = [20, 90, 22, 18, 95, 21]
    for batches in ([[0, 1, 2], [3, 4, 5]], [[1, 4], [0, 2, 3, 5]], [[0, 1, 2, 3, 4], [5]]):
        slots = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
        real = [sum(lengths[i] for i in batch) for batch in batches]
        right = sum(real) / sum(slots)
        mistakes = {
            1 - right: "That is the share of padding. The useful share is the rest: 1 minus it.",
            sum(r / s for r, s in zip(real, slots)) / len(batches): "That is the mean of the batches' shares. "
            "A large batch has more tokens than a small one: divide the sums.",
            sum(real)
            / (len(lengths) * max(lengths)): "A batch is padded to its own longest pair, not to the longest of all.",
            sum(slots) / sum(real): "That is computed tokens for each useful one. A share is at most 1: turn it round.",
            100 * right: "A share is from 0 to 1. That is percent.",
        }
        compare(attempt(list(lengths), [list(batch) for batch in batches]), right, "useful_share", mistakes)
    return "Tokens of pairs, divided by the slots of their batches."


@exercise(
    "all-pairs",
    "Write all_pairs(texts, labels, template): a list of (text, hypothesis), all labels of the first text, then of the "
    "next. The label stands in place of the template's {}.",
)
def all_pairs(attempt: Any) -> str:
    texts, labels, first = ["央行下调利率", "国足赢了"], ["财经", "体育", "旅游"], "这篇文章的标题是{}"
    check_pairs(attempt, texts, labels, first)
    second = "这是{}新闻"
    if list(attempt(list(texts), list(labels), second)) == list(attempt(list(texts), list(labels), first)):
        raise Wrong("Another template, and the pairs are the same. Do not write the template into the function.")
    check_pairs(attempt, texts, labels, second)
    return "Each text with each label, as two strings: the tokenizer can mark premise and hypothesis."


def check_pairs(attempt, texts, labels, template):
    """Wrong unless an attempt gives all pairs, in order."""
    right = [(text, template.format(label)) for text in texts for label in labels]
    got = list(attempt(list(texts), list(labels), template))
    if any(isinstance(filled(one), str) for one in got):
        raise Wrong(
            "That is one string a pair. The tokenizer needs two, or all tokens are premise: (text, hypothesis)."
        )
    got = [tuple(one) for one in got]
    if got == right:
        return
    if got == [(text, label) for text in texts for label in labels]:
        raise Wrong("The hypothesis is the bare label. Put it into the template: template.format(label).")
    if got == [(hypothesis, text) for text, hypothesis in right]:
        raise Wrong("The text is the premise and comes first.")
    if sorted(got) == sorted(right):
        raise Wrong("The order is another: all labels of the first text come first.")
    if len(got) < len(right):
        raise Wrong(
            f"{len(got)} pairs for {len(texts)} texts and {len(labels)} labels. Each text goes with each label."
        )
    raise Wrong(f"The first pair is {got[0]!r}. Wanted is (text, hypothesis).")
