"""Join (text, hypothesis) pairs, sort them into batches under a token budget, halve batches when memory runs out.

This module runs without torch: an Engine takes a Batch and returns its logits.
"""

import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from tokenizers import Tokenizer

from zsc_utils._text import visible
from zsc_utils._types import Groups, Tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

LOWERING = threading.Lock()  # one for all budgets: a lock within one could not be carried to another process
LONG_WORD = 128  # characters; BERT's tokenizer turns words of more than 100 characters into [UNK]

# ----------------------------------------------------------------------------------------------------------- tokenizer


@dataclass(frozen=True)
class Frame:
    """The special tokens of a pair, as tuples of (id, token type): `before` the text, `between` the text and the
    hypothesis, `after` the hypothesis. `text_type` and `hypothesis_type` are the token types of the two sides."""

    before: tuple
    between: tuple
    after: tuple
    text_type: int
    hypothesis_type: int

    def __len__(self):
        return len(self.before) + len(self.between) + len(self.after)


class PairTokenizer:
    """Tokenizes texts and hypotheses with a `tokenizers.Tokenizer`. `longest` is the maximum tokens of a pair.

    `of` makes one from a fast tokenizer of transformers, which wraps a `tokenizers.Tokenizer`.
    """

    def __init__(self, backend: Tokenizer, longest: int):
        self.backend, self.longest = backend, longest
        self.special = {number: t.content for number, t in backend.get_added_tokens_decoder().items() if t.special}
        self.frame = self.found_frame()

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase | PairTokenizer") -> "PairTokenizer":
        if isinstance(tokenizer, PairTokenizer):
            return tokenizer
        return cls(tokenizer.backend_tokenizer, tokenizer.model_max_length)

    def found_frame(self):
        """Return the Frame, found by encoding a test pair."""
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
        """Return the Encoding of a string or pair."""
        self.read_plainly()
        return self.backend.encode(*strings, add_special_tokens=add_special_tokens)

    def read_plainly(self):
        """Have strings read whole, without padding, and special tokens in them as the characters they are; whoever used
        the tokenizer before may have set it otherwise."""
        if self.backend.truncation is not None:
            self.backend.no_truncation()
        if self.backend.padding is not None:
            self.backend.no_padding()
        if not self.backend.encode_special_tokens:  # set only if need be: another thread may be encoding
            self.backend.encode_special_tokens = True

    def spelled(self, string):
        """Return [(token, end of its characters)] of a string in which nothing is a special token.

        A vocabulary of word pieces may hold special tokens as pieces: such a piece becomes its characters' tokens.
        """
        found, unknown = self.encoded(string), self.backend.token_to_id("[UNK]") or self.backend.token_to_id("<unk>")
        if self.special.keys().isdisjoint(found.ids):
            return [(token, end) for token, (_, end) in zip(found.ids, found.offsets)]
        tokens = []
        for token, (start, end) in zip(found.ids, found.offsets):
            word = self.special.get(token)
            forged = word is not None and word == unicodedata.normalize("NFKC", string[start:end])
            ids = [self.backend.token_to_id(character) for character in word] if forged else [token]
            tokens += [(unknown if number is None else number, end) for number in ids]
        return tokens

    def tokens(self, string: str, longest: int = sys.maxsize) -> Tokens:
        """Return the tokens of a string, at most `longest`; of a very long string, only the beginning is encoded.

        Characters that are not seen give none, and special tokens that the string spells out are text.
        """
        string = visible(string)
        characters = min(4 * longest, len(string))
        while True:
            whole = characters >= len(string)
            pairs = self.spelled(string if whole else string[:characters])
            # drop tokens near a cut: a word that is cut in two gives other tokens than the whole word
            ids = [token for token, end in pairs if whole or end <= characters - LONG_WORD]
            if whole or len(ids) >= longest:
                return tuple(ids[: min(longest, len(ids))])
            characters *= 4

    def lengths(self, strings: Sequence[str]) -> list[int]:
        """Return the number of tokens of each string, all of it."""
        self.read_plainly()
        found = self.backend.encode_batch_fast([visible(string) for string in strings], add_special_tokens=False)
        return [
            len(encoding) if self.special.keys().isdisjoint(encoding.ids) else len(self.tokens(string))
            for string, encoding in zip(strings, found)
        ]

    def each(self, strings: Iterable[str | Tokens]) -> dict[str | Tokens, Tokens]:
        """Return {string: its tokens}, at most `self.longest` each; each string is tokenized once."""
        return {
            string: self.tokens(string, self.longest) if isinstance(string, str) else string
            for string in dict.fromkeys(strings)
        }

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)


# --------------------------------------------------------------------------------------------------------------- pairs


class Batch(NamedTuple):
    """Concatenated pairs, without padding. `ids` and token `types` are (tokens,) int64. `groups` lists (pairs, length)
    for each run of neighbouring pairs with the same length in tokens."""

    ids: np.ndarray
    types: np.ndarray
    groups: Groups


class Pairs:
    """(text, hypothesis) pairs as token ids: each string is tokenized once, and identical pairs are stored once.

    Each side is a string, or a tuple of ids if it is tokenized already. `ids` lists the distinct pairs as (ids of the
    text, ids of the hypothesis). `lengths` are their tokens, special tokens included. `position[i]` is the index in
    `ids` of the i-th given pair. A text that is too long for the model is cut at its end. The hypothesis is never cut:
    the caller has checked that it leaves room for a text.
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
        """Return a description of the first pair that is cut, or None."""
        cut = (number for number, ids in enumerate(self.ids) if self.whole_length(*ids) > self.longest)
        return next(map(self.describe, cut), None)

    def whole_length(self, text, hypothesis):
        return len(self.frame) + len(text) + len(hypothesis)

    def describe(self, number):
        """Return a description of the pair with this number, for error messages."""
        text, hypothesis = (
            self.tokenizer.decode(ids[:20]).replace(" ", "") + "…" * (len(ids) > 20) for ids in self.ids[number]
        )
        return f"the pair of text {text!r} and hypothesis {hypothesis!r} ({self.lengths[number]} tokens)"

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Return the Batch of the pairs with these numbers, in this order."""
        joined = [pair for number in numbers for pair in self.joined(number)]
        ids, types = np.ascontiguousarray(np.array(joined, np.int64).T)
        lengths = groupby(self.lengths[number] for number in numbers)
        return Batch(ids, types, [(len(list(same)), length) for length, same in lengths])

    def tensors(self, numbers: Sequence[int]) -> "tuple[torch.Tensor, torch.Tensor, Groups]":
        """Return (ids, token types, groups) of these pairs as torch tensors, the input of `inference.logits`."""
        import torch  # imported only here: classifiers do not call this method

        ids, types, groups = self.batch(numbers)
        return torch.from_numpy(ids), torch.from_numpy(types), groups

    def joined(self, number):
        """Return the pair as a list of (id, token type)."""
        (text, hypothesis), frame = self.ids[number], self.frame
        text = text[: self.longest - len(frame) - len(hypothesis)]
        return [
            *frame.before, *((token, frame.text_type) for token in text),
            *frame.between, *((token, frame.hypothesis_type) for token in hypothesis),
            *frame.after,
        ]  # fmt: skip


def windows(ids: Sequence[int], room: int, overlap: int | None = None) -> list[Tokens]:
    """Split `ids` of a long text into tuples of `room` tokens that overlap by `overlap` tokens (default: a quarter).

    Each token is in at least one window. The last window is moved back so that it is full. Raises ValueError if
    `overlap` is negative or not less than `room`.
    """
    overlap = room // 4 if overlap is None else overlap
    if not 0 <= overlap < room:
        raise ValueError(f"overlap {overlap!r}: give a number of tokens under the {room} of a window")
    last = max(0, len(ids) - room)
    starts = [*range(0, last, room - overlap), last]
    return [tuple(ids[start : start + room]) for start in starts]


# ----------------------------------------------------------------------------------------------------------- batches


def bucket(length: int) -> int:
    """Return `length` rounded up to five significant bits: 16 different lengths from one power of two to the next.

    Padding to these lengths gives few shapes, so a library's kernel caches stay small. It adds at most 1/16 tokens.
    """
    step = 1 << max(0, length.bit_length() - 5)
    return -(-length // step) * step


def token_budget_batches(lengths: Sequence[int], max_tokens: int, *, padded: bool = True) -> list[list[int]]:
    """Return batches of at most `max_tokens` tokens: lists of indices into `lengths`, each index once, longest first.

    `padded` is for models that pad a batch to its longest pair. Then padding counts, and each pair counts as the
    batch's longest rounded up by `bucket`. A pair shorter than 3/4 of that length starts a new batch. A pair longer
    than `max_tokens` is alone in its batch. Raises ValueError if a value is not a whole number of 1 or more.
    """
    for name, value in [("max_tokens", max_tokens), *(("length", length) for length in lengths)]:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} {value!r}: give a whole number, 1 or more")
    max_tokens, lengths = int(max_tokens), [int(length) for length in lengths]  # bucket needs int.bit_length
    batches: list[list[int]] = []
    tokens = longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens += longest if padded else lengths[index]
        if not batches or tokens > max_tokens or (padded and lengths[index] < 0.75 * longest):
            batches.append([])
            tokens = longest = bucket(lengths[index]) if padded else lengths[index]
        batches[-1].append(index)
    return batches


def padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of tokens that are padding, from 0 to 1, if each batch is padded to its longest pair."""
    slots = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths) / slots


# ------------------------------------------------------------------------------------------------- through an engine


@dataclass
class TokenBudget:
    """Maximum tokens of a batch (`max_tokens`) and of a `block` of batches that pass each layer together (0: each
    batch is alone). If memory runs out, the limit is lowered permanently."""

    max_tokens: int
    block: int = 0


class Engine(Protocol):
    """The interface between a classifier, which needs no torch, and the code that computes logits."""

    budget: TokenBudget

    @property
    def tokenizer(self) -> PairTokenizer: ...
    @property
    def classes(self) -> int: ...  # columns of the logits; the classifier uses these two:
    @property
    def entailment_id(self) -> int: ...
    @property
    def contradiction_id(self) -> int: ...
    @property
    def checkpoint(self) -> Any: ...
    @property
    def plan(self) -> Any: ...

    def logits(self, block: Sequence[Batch]) -> list[np.ndarray]:
        """Return logits (pairs, classes), float32, of each Batch. Raises MemoryError, with all tensors freed."""
        ...


def run(
    pairs: Pairs,
    classes: int,
    budget: TokenBudget,
    forward: Callable[[list[list[int]]], list[np.ndarray]],
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, dict[int, MemoryError]]:
    """Call `forward` on all pairs, in unpadded batches under a TokenBudget, and return (rows, errors).

    `forward` takes a block (a list of batches, each a list of pair numbers) and returns an array (pairs, classes) for
    each batch. `rows` (len(pairs), classes) holds all results. If `forward` raises MemoryError, first the block is
    halved, then the batch; finished results are kept and `budget` is lowered. `errors` {number: MemoryError} holds
    pairs that do not fit alone; their rows are NaN. `progress` gets the number of pairs that each block has finished.
    """
    rows: np.ndarray = np.full((len(pairs), classes), np.nan, np.float32)
    errors: dict[int, MemoryError] = {}
    waiting = token_budget_batches(pairs.lengths, budget.max_tokens, padded=False)[::-1]
    while waiting:
        block = next_block(waiting, pairs.lengths, budget)
        found, said = attempt(forward, block)
        if found is not None:
            for batch, part in zip(block, found):
                rows[batch] = part
        elif len(block) > 1 or len(block[0]) > 1:
            lower(budget, block, pairs.lengths)
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


def lower(budget, block, lengths):
    """Lower the budget to half of a block, or of its only batch, that did not fit. If another thread has lowered it
    below that already, it stays: threads that fail together lower it once."""
    limit = "block" if len(block) > 1 else "max_tokens"
    tokens = sum(lengths[number] for batch in block for number in batch)
    with LOWERING:
        if tokens <= getattr(budget, limit):
            setattr(budget, limit, tokens // 2)


def attempt(forward, block):
    """Return (result of `forward(block)`, None), or (None, the error's message) if memory ran out."""
    try:
        return forward(block), None
    except MemoryError as error:
        return None, str(error)


def next_block(waiting, lengths, budget):
    """Remove batches from the end of `waiting` and return as many as fit into a block, at least one. A batch that is
    now over the budget is halved."""

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
