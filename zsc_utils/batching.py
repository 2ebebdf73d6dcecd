"""Pairs of text and hypothesis: joined, sorted into batches under a budget of tokens, halved when memory runs out.

Nothing here needs torch: what multiplies takes a Batch, and returns its logits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from tokenizers import Tokenizer

from zsc_utils._types import Groups, Tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

LONG_WORD = 128  # characters; BERT's tokenizer makes [UNK] of words over 100

# ----------------------------------------------------------------------------------------------------------- tokenizer


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


class PairTokenizer:
    """What makes tokens of texts and hypotheses: a `tokenizers.Tokenizer`, its Frame, and the `longest` pair in tokens.

    `of` takes it out of a tokenizer of transformers, which is a coat around one.
    """

    def __init__(self, backend: Tokenizer, longest: int):
        self.backend, self.longest = backend, longest
        self.frame = self.found_frame()

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase | PairTokenizer") -> "PairTokenizer":
        if isinstance(tokenizer, PairTokenizer):
            return tokenizer
        return cls(tokenizer.backend_tokenizer, tokenizer.model_max_length)

    def found_frame(self):
        """The Frame, found by asking for a pair."""
        probe = self.encoded("一", "一", add_special_tokens=True)
        tokens = list(zip(probe.ids, probe.type_ids, probe.sequence_ids))
        text, hypothesis = ([i for i, (_, _, part) in enumerate(tokens) if part == side] for side in (0, 1))
        special = [(token, kind) for token, kind, _ in tokens]
        return Frame(
            before=tuple(special[: text[0]]),
            between=tuple(special[text[-1] + 1 : hypothesis[0]]),
            after=tuple(special[hypothesis[-1] + 1 :]),
            text_type=special[text[0]][1],
            hypothesis_type=special[hypothesis[0]][1],
        )

    def encoded(self, *strings, add_special_tokens=False):
        """The library's Encoding of a string or a pair, whole: who used the tokenizer before may have had it cut."""
        if self.backend.truncation is not None:
            self.backend.no_truncation()
        if self.backend.padding is not None:
            self.backend.no_padding()
        return self.backend.encode(*strings, add_special_tokens=add_special_tokens)

    def tokens(self, string: str, longest: float = math.inf) -> Tokens:
        """The tokens of a string, at most `longest`; then of a book only the beginning is looked at."""
        characters = min(4 * longest, len(string))
        while True:
            whole = characters >= len(string)
            found = self.encoded(string if whole else string[:characters])
            ids = found.ids
            if not whole:  # what is near the cut may be part of a word, and other tokens than the word is
                ids = [token for token, (_, end) in zip(ids, found.offsets) if end <= characters - LONG_WORD]
            if whole or len(ids) >= longest:
                return tuple(ids[: min(longest, len(ids))])
            characters *= 4

    def each(self, strings: Iterable[str | Tokens]) -> dict[str | Tokens, Tokens]:
        """{string: its tokens}, each string tokenised once, no further than the model reads."""
        return {
            string: self.tokens(string, self.longest) if isinstance(string, str) else string
            for string in dict.fromkeys(strings)
        }

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)


# --------------------------------------------------------------------------------------------------------------- pairs


class Batch(NamedTuple):
    """Pairs one behind the other, without padding: `ids` and token `types`, both (tokens,) int64; and `groups`, (pairs,
    length) of neighbours that are of one length."""

    ids: np.ndarray
    types: np.ndarray
    groups: Groups


class Pairs:
    """(text, hypothesis) pairs as token ids: each text and each hypothesis tokenised once, identical pairs kept once.

    Each side is a string, or a tuple of ids if it was tokenised before. `ids` lists the pairs that are different,
    each as (ids of the text, ids of the hypothesis); `lengths` their tokens, special ones included; `position[i]` says
    which of them the i-th given pair is. A text too long for the model is cut at its end, never the hypothesis, which
    the caller has made sure leaves room.
    """

    def __init__(
        self,
        tokenizer: "PairTokenizer | PreTrainedTokenizerBase",
        pairs: Sequence[tuple[str | Tokens, str | Tokens]],
    ):
        self.tokenizer = PairTokenizer.of(tokenizer)
        self.frame, self.longest = self.tokenizer.frame, self.tokenizer.longest
        texts, hypotheses = (self.tokenizer.each(side) for side in zip(*pairs))
        numbers: dict[tuple[Tokens, Tokens], int] = {}
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

    def whole_length(self, text, hypothesis):
        return len(self.frame) + len(text) + len(hypothesis)

    def describe(self, number):
        """The pair with this number in words, for errors."""
        text, hypothesis = (
            self.tokenizer.decode(ids[:20]).replace(" ", "") + "…" * (len(ids) > 20) for ids in self.ids[number]
        )
        return f"the pair of text {text!r} and hypothesis {hypothesis!r} ({self.lengths[number]} tokens)"

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The Batch of these pairs, in that order."""
        joined = [pair for number in numbers for pair in self.joined(number)]
        ids, types = np.ascontiguousarray(np.array(joined, np.int64).T)
        lengths = groupby(self.lengths[number] for number in numbers)
        return Batch(ids, types, [(len(list(same)), length) for length, same in lengths])

    def tensors(self, numbers: Sequence[int]) -> "tuple[torch.Tensor, torch.Tensor, Groups]":
        """(ids, token types, groups) of these pairs, as `inference.logits` takes them."""
        import torch  # only here: for who calls torch by hand

        ids, types, groups = self.batch(numbers)
        return torch.from_numpy(ids), torch.from_numpy(types), groups

    def joined(self, number):
        """The pair as a list of (id, token type)."""
        (text, hypothesis), frame = self.ids[number], self.frame
        text = text[: self.longest - len(frame) - len(hypothesis)]
        return [
            *frame.before, *((token, frame.text_type) for token in text),
            *frame.between, *((token, frame.hypothesis_type) for token in hypothesis),
            *frame.after,
        ]  # fmt: skip


def windows(ids: Sequence[int], room: int, overlap: int | None = None) -> list[Tokens]:
    """`ids` of a long text in windows of `room` tokens that overlap by `overlap` (default: a quarter), as tuples.

    Every token is in one; the last window is moved back so that it is full. Raises ValueError for an overlap that
    leaves no way forward.
    """
    overlap = room // 4 if overlap is None else overlap
    if not 0 <= overlap < room:
        raise ValueError(f"overlap {overlap!r}: give a number of tokens under the {room} of a window")
    last = max(0, len(ids) - room)
    starts = [*range(0, last, room - overlap), last]
    return [tuple(ids[start : start + room]) for start in starts]


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


# ------------------------------------------------------------------------------------------------- through an engine


@dataclass
class TokenBudget:
    """The most tokens of a batch, and of a block of batches that pass the layers together, 0 where each goes alone;
    both are lowered for good when memory ran out below them."""

    max_tokens: int
    block: int = 0


class Engine(Protocol):
    """What a classifier asks of whoever multiplies; all that comes before and after needs no torch."""

    tokenizer: PairTokenizer
    classes: int  # columns of the logits, of which two are asked for:
    entailment_id: int
    contradiction_id: int
    budget: TokenBudget

    def logits(self, block: Sequence[Batch]) -> list[np.ndarray]:
        """Logits (pairs, classes), float32, of each Batch; MemoryError when memory runs out, with nothing held."""
        ...


def run(
    pairs: Pairs,
    classes: int,
    budget: TokenBudget,
    forward: Callable[[list[list[int]]], list[np.ndarray]],
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, dict[int, MemoryError]]:
    """`forward(batches)` over all pairs in unpadded batches under a TokenBudget: (rows, errors).

    `forward` takes a block, a list of lists of pair numbers, and returns (pairs, classes) for each; `rows`
    (len(pairs), classes) holds all of it. When it raises MemoryError, a block is halved first, then the batch, what is
    done is kept, and `budget` is lowered. `errors` {number: MemoryError} has the pairs that do not fit even alone;
    their rows are NaN. `progress` is told how many pairs each block has finished.
    """
    rows, errors = np.full((len(pairs), classes), np.nan, np.float32), {}
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


def attempt(forward, block):
    """(what `forward(block)` returns, None), or (None, what the error said) when memory ran out."""
    try:
        return forward(block), None
    except MemoryError as error:
        return None, str(error)


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
