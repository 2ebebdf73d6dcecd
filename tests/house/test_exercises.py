"""Each exercise: its solution is right, its stub is no error, two or more likely wrong answers get a hint of their own.

Stubs and solutions are the notebooks' cells; those whose notebook does not hold them yet stand at the end of this file.
"""

from collections import Counter

import pytest
from attempts import CELLS, EXERCISES, NOTEBOOKS, attempt, wrong_answers

from zsc_utils import exercises

WRONG = list(wrong_answers())


def judge(name, source):
    return exercises.judge(name, attempt(name, source))


def solution(name):
    return CELLS.get(f"solution-{name}", SOLUTIONS.get(name, ""))


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right(name):
    assert solution(name), f"{name}: neither its notebook nor this file holds a solution"
    judged = judge(name, solution(name))
    assert judged.right is True, judged


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_filled_in_and_no_error(name):
    """A stub that is a program to mend is wrong from the start."""
    stub = CELLS.get(f"try-{name}", STUBS.get(name, f"def {EXERCISES[name].attempt}(*given):\n    return ..."))
    judged = judge(name, stub)
    assert judged.right is (False if name in TO_MEND else None), judged
    assert "Your code raised" not in judged.says


@pytest.mark.parametrize("name", EXERCISES)
def test_three_dots_are_not_filled_in(name):
    assert exercises.judge(name, ...).right is None


@pytest.mark.parametrize("name", EXERCISES)
def test_an_attempt_of_another_kind_gets_one_line(name):
    for strange in ("two", 7, None, lambda *given: None, lambda *given: "12", lambda: 1, lambda *given: []):
        judged = exercises.judge(name, strange)
        assert judged.right is False and "\n" not in str(judged) and len(str(judged)) < 400, judged


@pytest.mark.parametrize("file, entry", WRONG, ids=[f"{entry['exercise']}: {entry['says']}" for _, entry in WRONG])
def test_a_wrong_answer_gets_its_own_hint(file, entry):
    assert set(entry) == {"exercise", "code", "says", "thinks"}
    assert EXERCISES[entry["exercise"]].lesson.endswith(f"lesson_{file[:2]}")
    judged = judge(entry["exercise"], entry["code"])
    assert judged.right is False and entry["says"] in judged.says, judged
    assert "Your code raised" not in judged.says  # the check names the term, it does not stumble over it


def test_every_exercise_has_two_wrong_answers_whose_hints_differ():
    said = {name: set() for name in EXERCISES}
    for _, entry in WRONG:
        said[entry["exercise"]].add(entry["says"])
    assert not {name: hints for name, hints in said.items() if len(hints) < 2}
    assert len(WRONG) == sum(map(len, said.values())) and len(WRONG) >= 30


def test_a_hint_is_not_for_two_mistakes():
    """The whole message of each wrong answer, not only the fragment that is looked for."""
    told = Counter((entry["exercise"], str(judge(entry["exercise"], entry["code"]))) for _, entry in WRONG)
    assert max(told.values()) == 1


@pytest.mark.parametrize("file", sorted({file for file, _ in WRONG}))
def test_wrong_answers_bear_the_name_of_their_notebook(file):
    assert file in {notebook.stem for notebook in NOTEBOOKS.values()}


def test_nothing_is_kept_here_for_an_exercise_that_there_is_not():
    assert {*SOLUTIONS, *STUBS, *TO_MEND} <= set(EXERCISES)


# ------------------------------------------------------------------------------------- until the notebooks hold them

TO_MEND = ["worker-two-bugs"]

STUBS = {
    "prefetch": "def prefetch(read, count):\n    yield ...",
    "fit-60mb": 'fit_60mb = {"memory_budget": ..., "allow_lossy": ...}',
    "whose-bytes": 'def whose_bytes(pages):\n    return {"rss": ..., "pss": ..., "container": ...}',
    "online-softmax": "def online_softmax(state, scores, values):\n    return ..., ..., ...",
    "four-bits-in-groups": "def four_bits_in_groups(row):\n    return ..., ...",
    "worker-two-bugs": """
import json

def worker_two_bugs(part, answers, output):
    unfinished = output / "unfinished"
    with unfinished.open("w") as file:
        for answer in answers:
            file.write(json.dumps(answer) + "\\n")
    unfinished.rename(output / f"part-{part:04}.jsonl")
""",
}

SOLUTIONS = {
    "my-predict": """
def my_predict(B, S, h, f):
    u, wide = 4 * B * S * h, 4 * B * S * f
    return max(6 * u, 3 * u + 2 * wide, 6 * u + wide)
""",
    "weights-bytes": """
def weights_bytes(config):
    h, f = config.hidden_size, config.intermediate_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    attention = 4 * (h * h + h) + 2 * h
    feed_forward = (h * f + f) + (f * h + h) + 2 * h
    head = (h * h + h) + (h + 1) * config.num_labels
    layers = config.num_hidden_layers * (attention + feed_forward)
    return 4 * (rows * h + 2 * h + layers + head)
""",
    "whose-bytes": """
def whose_bytes(pages):
    mapped = [page for page in pages if page["mapped_by"]]
    return {
        "rss": sum(page["resident"] for page in mapped),
        "pss": sum(page["resident"] / page["mapped_by"] for page in mapped),
        "container": sum(page["resident"] for page in pages),
    }
""",
    "rows-to-int8": """
import numpy as np

def rows_to_int8(rows):
    largest = np.abs(rows).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales
""",
    "four-bits-in-groups": """
import numpy as np

def four_bits_in_groups(row):
    groups = row.reshape(-1, 32)
    largest = np.abs(groups).max(axis=1)
    scales = np.where(largest > 0, largest / 7, 1)
    whole = (np.rint(groups / scales[:, None]) + 8).astype(np.uint8).ravel()
    return whole[0::2] | whole[1::2] << 4, scales
""",
    "int8-bytes": """
def int8_bytes(inputs, outputs):
    return inputs * outputs + 4 * outputs + 4 * outputs
""",
    "token-budget-batches": """
def token_budget_batches(lengths, max_tokens):
    batches = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
""",
    "useful-share": """
def useful_share(lengths, batches):
    slots = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return sum(lengths[i] for batch in batches for i in batch) / slots
""",
    "all-pairs": """
def all_pairs(texts, labels, template):
    return [(text, template.format(label)) for text in texts for label in labels]
""",
    "sliding": """
import numpy as np

def sliding(scores, window):
    place = np.arange(len(scores))
    near = np.abs(place[:, None] - place) <= window
    scores = np.where(near, scores, -np.inf)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
""",
    "online-softmax": """
import numpy as np

def online_softmax(state, scores, values):
    maximum, total, weighted = state
    new = max(maximum, scores.max())
    shrink, raised = np.exp(maximum - new), np.exp(scores - new)
    return new, total * shrink + raised.sum(), weighted * shrink + raised @ values
""",
    "matrix-bytes": """
def matrix_bytes(batch, heads, length):
    return 4 * batch * heads * length * length
""",
    "prefetch": """
from concurrent.futures import ThreadPoolExecutor

def prefetch(read, count):
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(read, 0)
        for number in range(count):
            layer = coming.result()
            if number + 1 < count:
                coming = reader.submit(read, number + 1)
            yield layer
""",
    "fit-60mb": 'fit_60mb = {"memory_budget": "60MB", "allow_lossy": True}',
    "disk-speed": """
def disk_speed(layer_bytes, layers, block_tokens, tokens_per_second):
    seconds = block_tokens / tokens_per_second / layers
    return layer_bytes / seconds / 1e6
""",
    "worker-two-bugs": """
import json
import uuid

def worker_two_bugs(part, answers, output):
    result = output / f"part-{part:04}.jsonl"
    if result.exists():
        return
    unfinished = output / f"unfinished-{uuid.uuid4()}"
    with unfinished.open("w") as file:
        for answer in answers:
            file.write(json.dumps(answer) + "\\n")
    unfinished.replace(result)
""",
    "resume": """
def resume(total, rows, names):
    return [
        (first, min(first + rows, total)) for first in range(0, total, rows)
        if f"part-{first}.jsonl" not in names
    ]
""",
    "workers-for-memory": """
def workers_for_memory(limit, shared, own):
    return max(0, (limit - shared) // own)
""",
}
