"""Pairs of text and hypothesis: joined, sorted into batches under a budget of tokens, halved when memory runs out."""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral

import torch

LONG_WORD = 128  # characters; BERT's tokenizer makes [UNK] of words over 100

# ------------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around a pair, as (id, token type): `before` the text, `between`, `after` the hypothesis;
    and the token types of the two."""

    before: tuple
    between: tuple
    after: tuple
    text_type: int
    hypothesis_type: int

    def __len__(self):
        return len(self.before) + len(self.between) + len(self.after)


def frame_of(tokenizer):
    """The Frame of a tokenizer, found by asking it for a pair."""
    probe = tokenizer("一", "一")
    tokens = list(zip(probe.input_ids, probe.token_type_ids, probe.sequence_ids()))
    text, hypothesis = ([i for i, (_, _, part) in enumerate(tokens) if part == side] for side in (0, 1))
    special = [(token, kind) for token, kind, _ in tokens]
    return Frame(
        before=tuple(special[: text[0]]),
        between=tuple(special[text[-1] + 1 : hypothesis[0]]),
        after=tuple(special[hypothesis[-1] + 1 :]),
        text_type=special[text[0]][1],
        hypothesis_type=special[hypothesis[0]][1],
    )


class Pairs:
    """(text, hypothesis) pairs as token ids: each text and each hypothesis tokenised once, identical pairs kept once.

    Each side is a string, or a tuple of ids if it was tokenised before. `ids` lists the pairs that are different,
    each as (ids of the text, ids of the hypothesis); `lengths` their tokens, special ones included; `position[i]` says
    which of them the i-th given pair is. A text too long for the model is cut at its end, never the hypothesis, which
    the caller has made sure leaves room.
    """

    def __init__(self, tokenizer, pairs):
        self.tokenizer, self.frame = tokenizer, frame_of(tokenizer)
        texts, hypotheses = (tokenised(tokenizer, side) for side in zip(*pairs))
        numbers = {}
        self.position = [
            numbers.setdefault((texts[text], hypotheses[hypothesis]), len(numbers)) for text, hypothesis in pairs
        ]
        self.ids = list(numbers)
        self.lengths = [min(self.longest, self.whole_length(*ids)) for ids in self.ids]

    def __len__(self):
        return len(self.ids)

    def first_cut(self):
        """The first pair that is cut, in words, or None."""
        cut = (number for number, ids in enumerate(self.ids) if self.whole_length(*ids) > self.longest)
        return next(map(self.describe, cut), None)

    @property
    def longest(self):
        """The most tokens that the model reads."""
        return self.tokenizer.model_max_length

    def whole_length(self, text, hypothesis):
        return len(self.frame) + len(text) + len(hypothesis)

    def describe(self, number):
        """The pair with this number in words, for errors."""
        text, hypothesis = (
            self.tokenizer.decode(ids[:20]).replace(" ", "") + "…" * (len(ids) > 20) for ids in self.ids[number]
        )
        return f"the pair of text {text!r} and hypothesis {hypothesis!r} ({self.lengths[number]} tokens)"

    def tensors(self, numbers):
        """(ids, token types, groups) of these pairs, one behind the other, as `inference.logits` takes them."""
        joined = [pair for number in numbers for pair in self.joined(number)]
        ids, types = torch.tensor(joined).T.contiguous()
        lengths = groupby(self.lengths[number] for number in numbers)
        return ids, types, [(len(list(same)), length) for length, same in lengths]

    def joined(self, number):
        """The pair as a list of (id, token type)."""
        (text, hypothesis), frame = self.ids[number], self.frame
        text = text[: self.longest - len(frame) - len(hypothesis)]
        return [
            *frame.before, *((token, frame.text_type) for token in text),
            *frame.between, *((token, frame.hypothesis_type) for token in hypothesis),
            *frame.after,
        ]  # fmt: skip


def tokenised(tokenizer, strings):
    """{string: its token ids}, each string tokenised once, without special tokens, no further than the model reads."""
    longest = tokenizer.model_max_length
    return {
        string: tokens_of(tokenizer, string, longest) if isinstance(string, str) else string
        for string in dict.fromkeys(strings)
    }


def tokens_of(tokenizer, string, longest=math.inf):
    """The tokens of a string, at most `longest`; then of a book only the beginning is looked at."""
    characters = min(4 * longest, len(string))
    while True:
        found = tokenizer(
            string[:characters], add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=True
        )
        ids, whole = found.input_ids, characters >= len(string)
        if not whole:  # what is near the cut may be part of a word, and other tokens than the word is
            ids = [token for token, (_, end) in zip(ids, found.offset_mapping) if end <= characters - LONG_WORD]
        if whole or len(ids) >= longest:
            return tuple(ids[: min(longest, len(ids))])
        characters *= 4


# ----------------------------------------------------------------------------------------------------------- batches


def bucket(length: int) -> int:
    """The next length with at most four bits after its first: 16 lengths between a power of two and the next.

    Whoever pads to it meets few shapes, so that a library's caches of kernels stay small, for a sixteenth more at most.
    """
    step = 1 << max(0, length.bit_length() - 5)
    return -(-length // step) * step


def token_budget_batches(lengths: Sequence[int], max_tokens: int, *, padded: bool = True) -> list[list[int]]:
    """Lists of indices into `lengths`, each index once, longest first: batches of at most `max_tokens` tokens.

    `padded`: for models that pad a batch to its longest. Then padding counts, batches are measured at a `bucket`, and a
    pair under three quarters of a batch's longest begins another. What is longer than the budget is alone in its batch.
    Raises ValueError for a budget or a length that is no whole number over 0.
    """
    for name, value in [("max_tokens", max_tokens), *(("length", length) for length in lengths)]:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} {value!r}: give a whole number, 1 or more")
    max_tokens, lengths = int(max_tokens), [int(length) for length in lengths]  # numpy's have no bit_length
    batches, tokens, longest = [], 0, 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens += longest if padded else lengths[index]
        if not batches or tokens > max_tokens or (padded and lengths[index] < 0.75 * longest):
            batches.append([])
            tokens = longest = bucket(lengths[index]) if padded else lengths[index]
        batches[-1].append(index)
    return batches


def padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of tokens that is padding, from 0 to 1, when each batch is padded to its longest."""
    slots = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths) / slots


# ----------------------------------------------------------------------------------------------------- out of memory


@dataclass
class TokenBudget:
    """The most tokens of a batch, and of a block of batches that pass the layers together, 0 where each goes alone;
    both are lowered for good when memory ran out below them."""

    max_tokens: int
    block: int = 0


def run(pairs, classes, budget, forward, progress=lambda count: None):
    """`forward(batches)` over all pairs in unpadded batches under a TokenBudget: (rows, errors).

    `forward` takes a block, a list of lists of pair numbers, and returns (pairs, classes) for each; `rows`
    (len(pairs), classes) holds all of it. When memory runs out, a block is halved first, then the batch, what is done
    is kept, and `budget` is lowered. `errors` {number: MemoryError} has the pairs that do not fit even alone; their
    rows are NaN. `progress` is told how many pairs each block has finished.
    """
    rows, errors = torch.full((len(pairs), classes), torch.nan), {}
    waiting = token_budget_batches(pairs.lengths, budget.max_tokens, padded=False)[::-1]
    while waiting:
        block = next_block(waiting, pairs.lengths, budget)
        found, said = attempt(forward, block)
        if found is not None:
            for batch, part in zip(block, found):
                rows[batch] = part
        elif len(block) > 1:
            budget.block = sum(pairs.lengths[number] for batch in block for number in batch) // 2
        elif len(block[0]) > 1:
            budget.max_tokens = min(budget.max_tokens, sum(pairs.lengths[number] for number in block[0]) // 2)
        else:
            (number,) = block[0]
            errors[number] = MemoryError(
                f"{pairs.describe(number)} does not fit into memory, even alone: free some, shorten the text, "
                f"or use a smaller model or int8 (the allocator said: {said})"
            )
        if found is None and sum(map(len, block)) > 1:
            waiting += block[::-1]
        else:
            progress(sum(map(len, block)))
    return rows, errors


def next_block(waiting, lengths, budget):
    """Batches from the end of `waiting`, as many as the block may hold, at least one; halved where the budget is lower
    by now."""

    def tokens(batch):
        return sum(lengths[number] for number in batch)

    block = []
    while waiting and (not block or sum(map(tokens, block)) + tokens(waiting[-1]) <= budget.block):
        batch = waiting.pop()
        if len(batch) > 1 and tokens(batch) > budget.max_tokens:
            middle = -(-len(batch) // 2)
            waiting += [batch[middle:], batch[:middle]]
        else:
            block.append(batch)
    return block


def attempt(forward, block):
    """(what `forward(block)` returns, None), or (None, what the error said) when memory ran out."""
    try:
        return forward(block), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().split("\n")[0][:200]
    # only here, where the error is gone, are the tensors that its frames held gone too
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None, said


# what torch's allocator for the CPU says, which has no class for it, CUDA and its libraries, C++, and oneDNN when it
# lacks room for a kernel
OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc",
    "could not create a primitive", "could not execute a primitive", "could not create a memory",
)  # fmt: skip


def is_out_of_memory(error):
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        any(words in said for words in OUT_OF_MEMORY) and "descriptor" not in said  # which it has for no such shape
    )
