"""Batches hold every pair once within their budget; where memory runs out, only what did not fit is done again."""

import dataclasses
import gc
import math
import re
import resource
import threading
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_bert
from transformers import BertTokenizer

import zsc_utils as zsc
from zsc_utils import memory, torch_engine
from zsc_utils._text import visible
from zsc_utils.batching import Pairs, PairTokenizer, TokenBudget, bucket, padding, run, token_budget_batches
from zsc_utils.torch_engine import within_memory

drawn = settings(deadline=None, max_examples=200, derandomize=True)
LENGTHS = st.lists(st.integers(1, 512), max_size=60)
BUDGETS = st.integers(1, 4000)


def flat(batches):
    return [index for batch in batches for index in batch]


# ----------------------------------------------------------------------------------------------------------- batches


@drawn
@given(LENGTHS, BUDGETS, st.booleans())
def test_every_index_comes_once_and_the_longest_first(lengths, budget, padded):
    batches = token_budget_batches(lengths, budget, padded=padded)
    assert all(batches)
    assert flat(batches) == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@drawn
@given(LENGTHS, BUDGETS)
def test_unpadded_batches_are_full_and_never_over_the_budget(lengths, budget):
    batches = [[lengths[i] for i in batch] for batch in token_budget_batches(lengths, budget, padded=False)]
    assert all(sum(batch) <= budget or len(batch) == 1 for batch in batches)
    assert all(sum(batch) + after[0] > budget for batch, after in zip(batches, batches[1:]))


@drawn
@given(LENGTHS, BUDGETS)
def test_padded_batches_are_full_and_never_over_the_budget(lengths, budget):
    """Measured at the bucket of the longest, so that a library that pads to it stays within too."""
    batches = [[lengths[i] for i in batch] for batch in token_budget_batches(lengths, budget)]
    assert all(len(batch) * bucket(batch[0]) <= budget or len(batch) == 1 for batch in batches)
    assert all(length >= 0.75 * bucket(batch[0]) for batch in batches for length in batch[1:])
    for batch, after in zip(batches, batches[1:]):
        assert (len(batch) + 1) * bucket(batch[0]) > budget or after[0] < 0.75 * bucket(batch[0])


@drawn
@given(LENGTHS, BUDGETS, st.booleans(), st.randoms(use_true_random=False))
def test_batches_depend_on_the_lengths_only(lengths, budget, padded, random):
    mixed = random.sample(lengths, len(lengths))
    one, other = (
        [[given[i] for i in batch] for batch in token_budget_batches(given, budget, padded=padded)]
        for given in (lengths, mixed)
    )
    assert one == other
    assert token_budget_batches(lengths, budget) == token_budget_batches(tuple(lengths), budget)


@pytest.mark.parametrize("value", [0, -1, True, False, 1.5, 2.0, "8", None])
def test_lengths_and_budgets_that_are_none_are_refused_by_name(value):
    with pytest.raises(ValueError, match=f"^max_tokens {value!r}: give a whole number, 1 or more"):
        token_budget_batches([3, 4], value)
    with pytest.raises(ValueError, match=f"^length {value!r}: give a whole number, 1 or more"):
        token_budget_batches([3, value], 8, padded=False)


def test_lengths_may_be_numpy_s():
    assert token_budget_batches(np.array([3, 4, 4]), np.int64(8)) == [[1, 2], [0]]


@drawn
@given(st.integers(1, 10**6))
def test_a_bucket_adds_a_sixteenth_at_most_and_is_its_own_bucket(length):
    assert length <= bucket(length) <= length * 17 / 16
    assert bucket(bucket(length)) == bucket(length) <= bucket(length + 1)


@pytest.mark.parametrize("power", range(12))
def test_an_octave_has_sixteen_buckets_at_most(power):
    """Up to 16 every length is its own: there are no fewer."""
    octave = {bucket(length) for length in range(2**power + 1, 2 ** (power + 1) + 1)}
    assert len(octave) == min(16, 2**power) and max(octave) == 2 ** (power + 1)


@drawn
@given(LENGTHS.filter(bool), BUDGETS, st.booleans())
def test_padding_is_a_share(lengths, budget, padded):
    share = padding(lengths, token_budget_batches(lengths, budget, padded=padded))
    assert 0 <= share < 1
    assert padding(lengths, [[i] for i in range(len(lengths))]) == 0


def test_padding_of_an_example():
    """Two batches of 2 x 4 and 2 x 2 places, of which 7 and 3 are taken."""
    assert padding([4, 2, 3, 1], [[0, 2], [1, 3]]) == pytest.approx(2 / 12)


# ------------------------------------------------------------------------------------------------------------- pairs


@pytest.fixture(params=["oracle", "mini"])
def tokenizer(request):
    """Two that frame a pair differently: [CLS] text [SEP] hypothesis [SEP], and <s> text </s></s> hypothesis </s>."""
    return request.getfixturevalue(request.param).tokenizer


def test_the_two_tokenizers_have_different_frames(oracle, mini):
    assert [len(PairTokenizer.of(checkpoint.tokenizer).frame) for checkpoint in (oracle, mini)] == [3, 4]


TEXTS = {
    "plain": "央行下调利率",
    "blanks": " 央 行\n\t利率　",
    "nothing that counts": "\u200b",
    "unknown characters": "\U0001f600龘𠮷",
    "special tokens as words": "央行[SEP]财经[CLS]x",
    "too long": "体育 " * 400,
    "too long with special tokens": "体[SEP]育 " * 300,
    "too long, a book": "体育，新闻 hello 3.14 " * 2000,
    "far behind blanks": " " * 9000 + "央行",
}


@pytest.mark.parametrize("hypothesis", ["财经", "是[SEP]体育", "财经" * 200, "　龘"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_joined_pair_is_what_the_tokenizer_makes_of_it(tokenizer, text, hypothesis):
    expected = tokenizer(visible(TEXTS[text]), hypothesis, truncation="only_first", split_special_tokens=True)
    pairs = Pairs(tokenizer, [(TEXTS[text], hypothesis)])
    ids, types, groups = pairs.tensors([0])
    assert ids.tolist() == expected.input_ids
    assert types.tolist() == expected.token_type_ids
    assert groups == [(1, len(expected.input_ids))] and pairs.lengths == [len(expected.input_ids)]
    assert (len(ids) == 512) == text.startswith("too long")


def test_a_word_that_is_cut_with_a_long_text_leaves_the_tokens_before_it_as_they_are():
    """A word of 150 letters is [UNK], the part of it before character 2,048 is many pieces."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] aaa b ##b c".split()
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=512)
    text = "aaa " * 490 + "b" * 150 + " c" * 300
    expected = tokenizer(text, "c", truncation="only_first")
    assert Pairs(tokenizer, [(text, "c")]).tensors([0])[0].tolist() == expected.input_ids


class Counting(PairTokenizer):
    """A tokenizer that counts what it is given."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer.backend_tokenizer, tokenizer.model_max_length)
        self.seen = Counter()

    def tokens(self, string, longest=math.inf):
        self.seen[string] += 1
        return super().tokens(string, longest)


def test_every_text_and_hypothesis_is_tokenised_once(tokenizer):
    texts, hypotheses = ["央行", "体育 新闻", "央行财经"], ["财经", "体育"]
    asked = [(text, hypothesis) for text in texts for hypothesis in hypotheses] * 2
    counting = Counting(tokenizer)
    pairs = Pairs(counting, asked)
    pairs.tensors(range(len(pairs)))
    assert counting.seen == Counter(texts + hypotheses)


def test_identical_pairs_are_kept_once_and_found_again(tokenizer):
    asked = [("央行", "财经"), ("体育", "财经"), ("央行", "财经"), ("央行", "体育"), ("体育", "财经")]
    pairs = Pairs(tokenizer, asked)
    assert len(pairs) == 3 and pairs.position == [0, 1, 0, 2, 1]
    for (text, hypothesis), number in zip(asked, pairs.position):
        assert pairs.tensors([number])[0].tolist() == tokenizer(text, hypothesis).input_ids


def test_pairs_that_come_again_have_the_logits_they_have_alone(oracle):
    classify = zsc.ZeroShotClassifier(oracle, max_tokens=64)
    asked = [(text, label) for text in ("央行" * 9, "体育", "央行" * 9, "财经" * 30) for label in ("体育", "财经")]
    alone = np.concatenate([classify.logits([pair]) for pair in asked])
    assert len(np.unique(alone, axis=0)) == 6
    assert np.allclose(classify.logits(asked), alone, atol=1e-5)


def test_tensors_hold_the_pairs_in_the_order_asked_and_say_where_they_lie(tokenizer):
    pairs = Pairs(tokenizer, [("央行" * count, "财经") for count in (1, 5, 9)] + [("财经" * 5, "财经")])
    assert pairs.lengths[1] == pairs.lengths[3]
    one, five, nine, _ = pairs.lengths
    ids, types, groups = pairs.tensors([2, 1, 3, 0, 1])
    assert groups == [(1, nine), (2, five), (1, one), (1, five)]
    alone = [pairs.tensors([number]) for number in (2, 1, 3, 0, 1)]
    assert torch.equal(ids, torch.cat([i for i, _, _ in alone]))
    assert torch.equal(types, torch.cat([t for _, t, _ in alone]))
    assert ids.dtype == types.dtype == torch.long and ids.is_contiguous() and types.is_contiguous()


def test_a_pair_is_described_by_both_its_sides_and_its_length(tokenizer):
    said = Pairs(tokenizer, [("央行", "财经"), ("体育" * 800, "体育")]).describe(1)
    assert "text '体育体育" in said and "hypothesis '体育'" in said and "(512 tokens)" in said
    assert len(said) < 120  # however long the text is


# ----------------------------------------------------------------------------------------------------- out of memory


class Lengths:
    """Stands for Pairs where nothing but their lengths matters."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def describe(self, number):
        return f"pair {number}"

    def tokens(self, numbers):
        return sum(self.lengths[number] for number in numbers)


class Forward:
    """Rows that say which pair they are of; keeps what it was asked, and raises where `fails(call, numbers)`."""

    def __init__(self, fails=lambda call, numbers: False, error=MemoryError):
        self.fails, self.error, self.asked, self.done = fails, error, [], []

    def __call__(self, block):
        return within_memory(lambda: self.work(*block))

    def work(self, numbers):
        self.asked.append(numbers)
        if self.fails(len(self.asked) - 1, numbers):
            raise self.error()
        self.done.append(numbers)
        return [rows_of(numbers)]


class Blocks:
    """As Forward, for blocks of several batches: raises for one of more tokens than there is memory for."""

    def __init__(self, pairs, memory_for=math.inf, error=MemoryError):
        self.pairs, self.memory_for, self.error, self.asked, self.done = pairs, memory_for, error, [], []

    def tokens(self, block):
        return self.pairs.tokens(flat(block))

    def __call__(self, block):
        return within_memory(lambda: self.work(block))

    def work(self, block):
        self.asked.append(block)
        if self.tokens(block) > self.memory_for:
            raise self.error()
        self.done.append(block)
        return [rows_of(batch) for batch in block]


def rows_of(numbers):
    return np.array([[number, -number] for number in numbers], np.float32)


def allocator(words):
    return lambda: RuntimeError(f"[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: {words}: you tried")


OUT_OF_MEMORY = {
    "torch's allocator": allocator("can't allocate memory"),
    "torch's allocator on Windows": allocator("not enough memory"),
    "a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a GPU's libraries": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "Python": MemoryError,
    "C++": lambda: RuntimeError("std::bad_alloc"),
    "oneDNN": lambda: RuntimeError("could not create a primitive"),
}
BATCHES = {
    "of equal pairs": [40] * 13,
    "of many lengths": [512, 300, 300, 299, 150, 100, 64, 60, 3, 2, 1],
    "of one pair each": [250, 240, 230],
    "of short pairs": list(range(1, 50)),
}


@pytest.fixture(scope="module")
def quick_collections():
    """The garbage collector passes over what was there before, or each of its many calls here would take long."""
    gc.freeze()
    yield
    gc.unfreeze()


def halves(pairs, batch, budget):
    """A batch in halves of halves, as far as the budget asks."""
    if len(batch) == 1 or pairs.tokens(batch) <= budget:
        return [batch]
    middle = (len(batch) + 1) // 2
    return halves(pairs, batch[:middle], budget) + halves(pairs, batch[middle:], budget)


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.usefixtures("quick_collections")
def test_memory_that_runs_out_at_any_call_costs_that_batch_only(lengths, error):
    pairs, planned = Lengths(lengths), Forward()
    run(pairs, 2, TokenBudget(200), planned)
    for call, failed in enumerate(planned.asked):
        forward, budget = Forward(lambda count, _, call=call: count == call, error), TokenBudget(200)
        rows, errors = run(pairs, 2, budget, forward)
        alone = len(failed) == 1
        assert list(errors) == (failed if alone else [])
        assert budget.max_tokens == (200 if alone else pairs.tokens(failed) // 2)
        # what was done is kept, what failed is halved, and so is what is over the new budget
        rest = planned.asked[call + alone :]
        again = [half for batch in rest for half in halves(pairs, batch, budget.max_tokens)]
        assert forward.asked == planned.asked[: call + 1] + again
        done = flat(forward.done)
        assert sorted([*done, *errors]) == list(range(len(pairs)))
        assert np.array_equal(rows[done], rows_of(done)) and np.isnan(rows[list(errors)]).all()


@pytest.mark.usefixtures("quick_collections")
@drawn
@given(LENGTHS, BUDGETS, st.integers(1, 3000))
def test_whatever_the_memory_what_fits_is_computed_once(lengths, budget, memory_for):
    """Memory for so many tokens: what is longer is an error, the rest comes out, after few failures."""
    pairs = Lengths(lengths)
    forward, told = Forward(lambda _, numbers: pairs.tokens(numbers) > memory_for), []
    budget = TokenBudget(first := budget)
    rows, errors = run(pairs, 2, budget, forward, told.append)
    fit = [number for number, length in enumerate(lengths) if length <= memory_for]
    assert sorted(flat(forward.done)) == fit and set(errors) == set(range(len(pairs))) - set(fit)
    assert np.array_equal(rows[fit], rows_of(fit).reshape(-1, 2)) and np.isnan(rows[list(errors)]).all()
    assert sum(told) == len(pairs) and all(told)
    failures = [numbers for numbers in forward.asked if len(numbers) > 1 and numbers not in forward.done]
    assert len(failures) <= first.bit_length() and first / budget.max_tokens >= 2 ** len(failures)


def test_a_pair_that_never_fits_is_an_error_that_names_it():
    pairs = Lengths([30, 90, 20, 10, 30])
    rows, errors = run(pairs, 2, TokenBudget(1000), Forward(lambda _, numbers: 1 in numbers))
    assert list(errors) == [1] and isinstance(errors[1], MemoryError)
    assert str(errors[1]).startswith("pair 1 does not fit into memory, even alone: free some")
    assert np.isnan(rows[1]).all() and np.array_equal(rows[[0, 2, 3, 4]], rows_of([0, 2, 3, 4]))


def test_a_lowered_budget_holds_for_what_comes_later():
    pairs, budget = Lengths([50] * 8), TokenBudget(400)
    run(pairs, 2, budget, Forward(lambda call, _: call == 0))
    forward = Forward()
    run(pairs, 2, budget, forward)
    assert budget.max_tokens == 200 and [len(batch) for batch in forward.asked] == [4, 4]


@pytest.mark.parametrize("sizes", [[8, 8], [7, 8], [8, 7], [5, 8]])
@pytest.mark.parametrize("limit", ["max_tokens", "block"])
def test_threads_that_run_out_of_memory_together_lower_the_budget_once(sizes, limit):
    """Batches, or blocks of batches, of so many pairs of 100 tokens; the limit is 800, and memory is there for 400."""
    budget = TokenBudget(800) if limit == "max_tokens" else TokenBudget(100, 800)
    together, left = threading.Barrier(2, timeout=60), []

    def forward(block):
        if sum(map(len, block)) > 4:
            if len(seen.failed) == 0:
                seen.failed.append(together.wait())
            raise MemoryError
        return [rows_of(batch) for batch in block]

    seen = threading.local()

    def work(size):
        seen.failed = []
        rows, errors = run(Lengths([100] * size), 2, budget, forward)
        left.append(not errors and np.array_equal(rows, rows_of(range(size))))

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert left == [True, True]
    assert getattr(budget, limit) in {100 * size // 2 for size in sizes}  # not a quarter, nor more than before


def test_a_thread_that_fails_late_does_not_raise_a_budget_that_another_has_lowered():
    budget = TokenBudget(100, 800)

    def forward(block):
        if len(block) == 8:
            budget.block = 200  # by another thread, while this one computes
            raise MemoryError
        return [rows_of(batch) for batch in block]

    rows, errors = run(Lengths([100] * 8), 2, budget, forward)
    assert budget.block == 200 and not errors and np.array_equal(rows, rows_of(range(8)))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for the matmul primitive"),  # there is none for a shape
        IndexError("index out of range"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_no_want_of_memory(error):
    forward, budget = Forward(lambda call, _: True, lambda: error), TokenBudget(100)
    with pytest.raises(type(error)) as caught:
        run(Lengths([10] * 4), 2, budget, forward)
    assert caught.value is error and len(forward.asked) == 1 and budget.max_tokens == 100


def test_what_the_failed_pass_held_is_gone_before_the_next():
    """Even what only the garbage collector frees, such as a frame that keeps its own error."""
    held = []

    def forward(block):
        (numbers,) = block
        assert not any(reference() is not None for reference in held)
        activations = torch.ones(100)
        held.append(weakref.ref(activations))
        if len(numbers) > 1:
            kept = allocator("can't allocate memory")()
            raise kept
        return [rows_of(numbers)]

    gc.disable()  # it might come by itself just in time
    try:
        rows, errors = run(Lengths([10] * 4), 2, TokenBudget(100), lambda block: within_memory(lambda: forward(block)))
    finally:
        gc.enable()
    assert not errors and np.array_equal(rows, rows_of(range(4))) and len(held) == 2 + 4


def test_memory_that_ran_out_is_given_back_to_the_system_once(monkeypatch):
    """Freed memory that the heap keeps is of no use to whoever maps some, such as oneDNN for a kernel."""
    given_back = []
    monkeypatch.setattr(torch_engine, "trim_heap", lambda: given_back.append(1))
    assert within_memory(lambda: [1]) == [1] and not given_back
    with pytest.raises(MemoryError, match="^you tried$"):
        within_memory(lambda: (_ for _ in ()).throw(MemoryError("you tried")))
    with pytest.raises(KeyError):
        within_memory(lambda: {}[1])
    assert len(given_back) == 1


# ------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.usefixtures("quick_collections")
@drawn
@given(LENGTHS, BUDGETS, st.integers(0, 9000))
def test_a_block_is_full_and_never_over_its_tokens_unless_it_is_one_batch(lengths, max_tokens, tokens):
    pairs = Lengths(lengths)
    forward, budget = Blocks(pairs), TokenBudget(max_tokens, tokens)
    rows, errors = run(pairs, 2, budget, forward)
    assert not errors and np.array_equal(rows, rows_of(range(len(pairs))).reshape(-1, 2))
    assert flat(forward.asked) == token_budget_batches(lengths, max_tokens, padded=False)  # as without blocks
    assert all(forward.tokens(block) <= tokens or len(block) == 1 for block in forward.asked)
    for block, after in zip(forward.asked, forward.asked[1:]):
        assert forward.tokens(block) + pairs.tokens(after[0]) > tokens
    assert budget == TokenBudget(max_tokens, tokens)


def test_without_a_block_each_batch_goes_alone():
    forward = Blocks(Lengths([1] * 10))
    run(forward.pairs, 2, TokenBudget(3), forward)
    assert [len(block) for block in forward.asked] == [1] * 4


def test_a_block_is_halved_before_its_batches_and_stays_so():
    """Four batches of 100 tokens, memory for 250, then for one batch, then for half a batch."""
    pairs, out_of_memory = Lengths([50] * 8), allocator("can't allocate memory")
    for memory_for, sizes, left in [
        (250, [[2, 2, 2, 2], [2, 2], [2, 2]], (100, 200)),
        (100, [[2, 2, 2, 2], [2, 2], [2], [2], [2], [2]], (100, 100)),
        (50, [[2, 2, 2, 2], [2, 2], [2], [1, 1], *[[1]] * 8], (50, 50)),
    ]:
        forward, budget = Blocks(pairs, memory_for, out_of_memory), TokenBudget(100, 400)
        rows, errors = run(pairs, 2, budget, forward)
        assert not errors and np.array_equal(rows, rows_of(range(8)))
        assert [[len(batch) for batch in block] for block in forward.asked] == sizes
        assert (budget.max_tokens, budget.block) == left
        again = Blocks(pairs, memory_for)
        run(pairs, 2, budget, again)
        assert again.asked == again.done


@pytest.mark.usefixtures("quick_collections")
@drawn
@given(LENGTHS, BUDGETS, st.integers(0, 9000), st.integers(1, 9000))
def test_whatever_the_memory_for_blocks_what_fits_is_computed_once(lengths, max_tokens, tokens, memory_for):
    forward, told, budget = Blocks(Lengths(lengths), memory_for), [], TokenBudget(max_tokens, tokens)
    rows, errors = run(forward.pairs, 2, budget, forward, told.append)
    fit = [number for number, length in enumerate(lengths) if length <= memory_for]
    assert sorted(flat(flat(forward.done))) == fit and set(errors) == set(range(len(lengths))) - set(fit)
    assert np.array_equal(rows[fit], rows_of(fit).reshape(-1, 2)) and np.isnan(rows[list(errors)]).all()
    assert sum(told) == len(lengths)
    failed = [block for block in forward.asked if block not in forward.done]
    halved, alone = [block for block in failed if len(block) > 1], [flat(b) for b in failed if len(b) == 1]
    assert budget.block <= tokens / 2 ** len(halved)
    assert budget.max_tokens <= max_tokens / 2 ** sum(len(batch) > 1 for batch in alone)
    assert any(len(batch) > 1 for batch in alone) or budget.max_tokens == max_tokens  # no batch before the block


# -------------------------------------------------------------------------------------------------------- real limits


def needing_memory(oracle, attention, heads):
    """A Checkpoint whose states are large enough that a batch is many MB."""
    model = toy_bert(
        attention, vocab_size=len(oracle.tokenizer), hidden_size=256, num_attention_heads=heads, intermediate_size=512,
        num_hidden_layers=2, initializer_range=0.1,
    )  # fmt: skip
    return dataclasses.replace(oracle, model=model)


def within(megabytes, checkpoint, ask, max_tokens):
    """In a child: `ask(classifier)` with so much memory above what a few short pairs have taken, and its budget.

    RLIMIT_DATA counts what the kernel calls VmData. The short pairs come first, for threads and oneDNN's kernels take
    memory once: 64 to 256 rows are multiplied, and without room for a thread's stack tokenizers hangs.
    """
    classify = zsc.ZeroShotClassifier(checkpoint, max_tokens=max_tokens)
    for count in range(1, 5):
        classify.logits([("体" * 40, "育" * 20 + "体" * more) for more in range(count)])
    torch.zeros(2**18).exp()  # short pairs start torch's threads on some processors only; a stack takes 8 MB
    classify.logits([("体" * more, "育") for more in range(1, 17)])  # and tokenizers' threads
    unlimited = resource.RLIM_INFINITY
    limit = memory.resident("self")["VmData"] + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, unlimited))
    try:
        return ask(classify), classify.budget.max_tokens
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (unlimited, unlimited))


def test_a_batch_too_large_for_the_memory_is_halved_and_the_answers_are_the_same(oracle):
    """One batch of 24 pairs takes some 40 MB; there are 12."""
    checkpoint = needing_memory(oracle, "sdpa", heads=4)
    texts, labels = ["央行体育财经" * 50 + "体" * more for more in range(8)], ["体育", "财经", "军事"]

    def ask(classify):
        return classify(texts, labels)

    free = ask(zsc.ZeroShotClassifier(checkpoint))
    answers, max_tokens = memory.process_peak(within, 12, checkpoint, ask, 8192).result
    assert max_tokens < 8192 / 2
    for one, other in zip(free, answers):
        assert one["sequence"] == other["sequence"]
        assert dict(zip(one["labels"], one["scores"])) == pytest.approx(
            dict(zip(other["labels"], other["scores"])), abs=1e-5
        )


def test_a_pair_too_large_for_the_memory_is_named_and_the_others_are_answered(oracle):
    """Eager scores of 512 tokens in 16 heads are 17 MB, twice; there are 12 MB, plenty for short texts."""
    checkpoint, texts = needing_memory(oracle, "eager", heads=16), ["央行", "体育财经" * 200, "财经"]

    def ask(classify):
        with pytest.raises(MemoryError) as called:
            classify(texts, ["体育", "财经"])
        return str(called.value), list(classify.stream(texts, ["体育", "财经"]))

    (called, streamed), _ = memory.process_peak(within, 12, checkpoint, ask, 1024).result
    assert re.fullmatch(r"the pair of text '体育财经.*' and hypothesis '体育' \(512 tokens\) does not fit .*", called)
    # all of the message but the bytes of the allocation that failed, which depend on what was free
    same = [re.sub(r"allocate \d+ bytes", "allocate so many bytes", said) for said in (streamed[1]["error"], called)]
    assert streamed[1] | {"error": same[0]} == {"sequence": texts[1], "position": 1, "error": f"MemoryError: {same[1]}"}
    free = zsc.ZeroShotClassifier(checkpoint)([texts[0], texts[2]], ["体育", "财经"])
    for one, other in zip(free, (streamed[0], streamed[2])):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
