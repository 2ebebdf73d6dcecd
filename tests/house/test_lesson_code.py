"""What the code and the prose of lessons keep, found by reading them: no run would show these faults.

A forward pass with gradients gives the same answer and takes more memory; so does a model in training mode without
dropout. Random numbers without a seed, and a number typed in prose, are right on the day they are written.
"""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LEDGER = (ROOT / "claims.toml").read_text(encoding="utf-8")

# measured numbers that stand in prose, and why they may
TYPED = {
    "0.05 MB": "12 x 32 x 32 floats, computed in the sentence that holds it",
    "0.6 GB": "disk for temporary files, rounded up",
    "1.5 GB": "the limit of the container in which the lesson was run",
    "1.2 GB": "400,000 tokens of 768 floats, computed in its sentence; and the article's figure",
}
MEASURED = re.compile(r"(?<![\d.])\d[\d,]*\.\d+ (?:MB|GB|KB|ms|s|seconds|minutes|times)\b")
MEASURES = re.compile(r"perf_counter|tensor_peak|resident\(|\bplan\b|memory_budget")


def faults(notebook):
    """All faults that reading finds, as sentences that begin with the cell's id."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [f"{cell.id}: {what}" for cell in code for what in faults_of_code(cell.source)]
    whole = "\n".join(cell.source for cell in code)
    if MEASURES.search(whole) and not re.search(r"^\s*torch\.set_num_threads\(.+\)", whole, re.MULTILINE):
        found.append("the lesson measures or plans, and does not say how many threads")
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return found + [f"{cell.id}: {what}" for cell in prose for what in typed_numbers(cell.source)]


def faults_of_code(source):
    """What is wrong with one code cell."""
    if re.search(r"\bmodel\(", source) and not re.search(r"inference_mode|no_grad", source):
        yield "a forward pass with gradients"
    if "enable_grad" in source:
        yield "gradients are switched on"
    if ".train()" in source and ".eval()" not in source:
        yield "a model is left in training mode"
    if re.search(r"\bBert\w+\(\w+\)(?!\.eval\(\))", source):
        yield "a new model is in training mode: .eval() is missing"
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if re.fullmatch(r"torch\.rand\w*", name) and not any(each.arg == "generator" for each in call.keywords):
            yield f"{name} takes no generator"
        if name.endswith(("default_rng", "random.Random")) and not call.args:
            yield f"{name} has no seed"
    if source.count("Generator()") > source.count("Generator().manual_seed("):
        yield "a generator has no seed"


def typed_numbers(prose):
    """Numbers with a fraction and a unit that code should print. The article's own stand in the ledger."""
    for number in MEASURED.findall(prose):
        if number not in TYPED and not re.search(rf"(?<!\d){re.escape(number)}", LEDGER):
            yield f"{number} is typed, not computed"
    if "this page's machine" in prose:
        yield "what the machine of this run did is typed, not computed"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_reading_finds_no_fault(file):
    assert faults(nbformat.read(file, as_version=4)) == []


def test_what_may_be_typed_is_typed():
    prose = "\n".join(file.read_text(encoding="utf-8") for file in NOTEBOOKS)
    assert tomllib.loads(LEDGER) and [number for number in TYPED if number not in prose] == []


@pytest.mark.parametrize(
    "source, what",
    [
        ("mini.model(**pairs)", "a forward pass with gradients"),
        ("with torch.enable_grad():\n    run()", "gradients are switched on"),
        ("model.train()", "left in training mode"),
        ("BertForSequenceClassification(shape)", ".eval() is missing"),
        ("torch.randn(3, 4)", "torch.randn takes no generator"),
        ("np.random.default_rng()", "no seed"),
        ("random.Random()", "no seed"),
        ("torch.Generator()", "a generator has no seed"),
    ],
)
def test_each_fault_of_code_is_found(source, what):
    assert any(what in sentence for sentence in faults_of_code(source))


def test_a_typed_number_is_found_and_the_articles_are_not():
    assert [*typed_numbers("It takes 417.3 MB and 12.6 seconds.")] == [
        "417.3 MB is typed, not computed",
        "12.6 seconds is typed, not computed",
    ]
    assert [*typed_numbers("The article says 1.8 times, lesson 02, 3 MB")] == []
    assert [*typed_numbers("int8 is faster on this page's machine")]


def test_a_lesson_that_measures_without_threads_is_found():
    cells = [nbformat.v4.new_code_cell("time.perf_counter()")]
    assert "threads" in faults(nbformat.v4.new_notebook(cells=cells))[0]
