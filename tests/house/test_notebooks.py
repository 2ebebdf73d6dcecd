"""What every notebook keeps: executed in order, outputs compared, the house's opening and closing, no machine's traces.

nbval runs the cells and compares outputs; this file checks that there is something to compare.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import run_notebooks

from zsc_utils.exercises import all_exercises

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMPARED_SHARE = 0.70
# stems of the notebooks of the second edition, which keep the rules of check_second_edition too
SECOND_EDITION: tuple[str, ...] = tuple(file.stem for file in NOTEBOOKS)

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file):
    return nbformat.read(file, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def ignored(cell):
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def tagged(cell, *tags):
    return bool({*tags} & {*cell.metadata.get("tags", [])})


def asserts(cell):
    return re.search(r"^\s*assert ", cell.source, re.MULTILINE) is not None


def compared(cell):
    """nbval compares the cell's output - text, since pictures are left out - or the cell asserts something."""
    texts = [out for out in cell.outputs if out.output_type == "stream" or "text/plain" in out.get("data", {})]
    speaks = any("Figure size" not in str(out) for out in texts)
    return asserts(cell) or (speaks and not ignored(cell))


def with_their_checks(cells):
    """Lists of a code cell and the `check` cells after it, which assert what the cell measured."""
    groups = []
    for cell in cells:
        if groups and tagged(cell, "check"):
            groups[-1].append(cell)
        else:
            groups.append([cell])
    return groups


def compared_share(cells):
    groups = with_their_checks(cells)
    return sum(any(map(compared, group)) for group in groups) / len(groups)


def check(notebook):
    """All that is wrong with a notebook, as a list of sentences; empty when it keeps the rules."""
    cells = code_cells(notebook)
    wrong = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        wrong.append("not executed in order from 1")
    for cell in cells:
        if any(out.output_type == "error" for out in cell.outputs):
            wrong.append(f"{cell.id}: an error stands in its output")
        if any(out.get("name") == "stderr" for out in cell.outputs):
            wrong.append(f"{cell.id}: stderr stands in its output")
        if len(cell.source.splitlines()) > 30:
            wrong.append(f"{cell.id}: {len(cell.source.splitlines())} lines of code, over 30")
    for group in with_their_checks(cells):
        if ignored(group[0]) and not any(map(asserts, group)):
            wrong.append(f"{group[0].id}: its output is not compared and it asserts nothing")
    code = "\n".join(cell.source for cell in cells)
    if re.search(r"\bplan\b|memory_budget", code) and "set_num_threads" not in code:
        wrong.append("plans without saying how many threads, so what it prints depends on the machine")
    if not any(cell.outputs for cell in cells):
        wrong.append("no outputs: stripped, or never run")
    kept = notebook.metadata.get("fingerprints", {})
    changed = [cell.id for cell in cells if kept.get(cell.id) != run_notebooks.fingerprint(cell)]
    if changed:
        wrong.append(f"{', '.join(changed)}: code or outputs were changed after the cells were run; run: make save")
    ids = [cell.get("id", "") for cell in notebook.cells]
    wrong += [f"{i!r}: a cell id is words, like predict-activations" for i in ids if not is_words(i)]
    wrong += [f"{i}: stands twice as a cell id" for i in set(ids) if ids.count(i) > 1]
    return wrong + check_frame(notebook)


def is_words(cell_id):
    return re.fullmatch(r"[a-z]+[0-9]*(-[a-z0-9]+)*", cell_id) and not re.fullmatch(r"[0-9a-f]{8}", cell_id)


def check_frame(notebook):
    """The opening, the first code cell, the closing, and the number of cells."""
    wrong = []
    opening = notebook.cells[0].source
    for part in ("# ", "**You will be able to**", "**Minutes**", "**You need to know**"):
        if part not in opening:
            wrong.append(f"the opening lacks {part!r}")
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("## Remember", "## Exercises", "## Next"):
        if part not in prose:
            wrong.append(f"the closing lacks {part!r}")
    first = code_cells(notebook)[0].source
    if len(first.split("\n\n")[0].splitlines()) > 4 or len(first.splitlines()) > 6:
        wrong.append("the first code cell has more than four lines of imports and one for the font")
    if any(re.search(r"^\s*[%!]", cell.source, re.MULTILINE) for cell in code_cells(notebook)):
        wrong.append("a magic or a shell command stands in a cell")
    in_sight = [cell for cell in notebook.cells if not tagged(cell, "check", "exercise", "solution")]
    if not 25 <= len(in_sight) <= 60:
        wrong.append(f"{len(in_sight)} cells, not 25 to 60")
    return wrong


# ------------------------------------------------------------------------------------ the rules of the second edition

MOST_WORDS = 25
HINTS = re.compile(r"<details>\s*<summary>Hint ([12])</summary>(.*?)</details>", re.DOTALL)


def check_second_edition(stem, notebook):
    """All that is wrong with a notebook of the second edition, as a list of sentences."""
    wrong = []
    for cell in code_cells(notebook):
        lines = cell.source.splitlines()
        if max(map(len, lines)) > 88:
            wrong.append(f"{cell.id}: {max(map(len, lines))} columns of code, over 88")
        if len(lines) > 25:
            wrong.append(f"{cell.id}: {len(lines)} lines of code, over 25")
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if folded != tagged(cell, "check", "solution"):
            wrong.append(f"{cell.id}: folded are cells tagged check or solution, and no others")
        if tagged(cell, "check") != cell.id.startswith("check-"):
            wrong.append(f"{cell.id}: cells tagged check have ids that begin with check-, and no others")
        if tagged(cell, "check") and not asserts(cell):
            wrong.append(f"{cell.id}: a check cell that asserts nothing")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            wrong += [f"{cell.id}: {words} words in: {text}" for words, text in long_sentences(cell.source)]
    return wrong + check_exercises(stem, notebook)


def long_sentences(markdown):
    """(number of words, sentence) of each sentence of prose that is too long. Tables, code and tags are no prose."""
    text = re.sub(r"```.*?```|<style.*?</style>|\$\$.*?\$\$", "\n\n", markdown, flags=re.DOTALL)
    text = re.sub(r"^(\|.*|#+ .*|( {4}|\t)(?![-*\d]).*)$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"</?(summary|details|p|li|ul|ol|br|div|tr|td|th)\b[^>]*>", "\n\n", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "code", text)
    text = re.sub(r"<[^>]*>|[*_>]", "", re.sub(r"^(\s*)\*\s", r"\1- ", text, flags=re.MULTILINE))
    text = re.sub(r"\b(e\.g|i\.e|vs|etc|cf)\.", r"\1", text)
    found = []
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-+]|\d+\.)\s", text):
        for sentence in re.split(r"(?<=[.!?。！？])[)\"”’]*\s+|(?<=[。！？])", " ".join(paragraph.split())):
            words = re.findall(r"\w[\w.,'’-]*", sentence)
            if len(words) > MOST_WORDS:
                found.append((len(words), sentence))
    return found


def check_exercises(stem, notebook):
    """What is wrong with the exercises: each is four cells in order, and all of the lesson's are there."""
    wrong, cells = [], notebook.cells
    parts = {"exercise": [], "try": [], "hints": [], "solution": []}
    for number, cell in enumerate(cells):
        part, _, name = cell.id.partition("-")
        if part in parts:
            parts[part].append(name)
        if part == "try":
            four = cells[number - 1 : number + 3]
            if [cell.id for cell in four] != [f"{part}-{name}" for part in parts]:
                wrong.append(f"{name}: its cells are not exercise, try, hints, solution, one after the other")
            else:
                wrong += check_four(name, *four)
    elsewhere = {  # in the other notebook of a lesson of two parts
        cell.id for file in NOTEBOOKS if file.stem[:2] == stem[:2] and file.stem != stem for cell in read(file).cells
    }
    names = [
        name for name, one in all_exercises().items()
        if one.lesson.endswith(f"lesson_{stem[:2]}") and f"try-{name}" not in elsewhere
    ]  # fmt: skip
    for part, there in parts.items():
        if sorted(there) != sorted(names):
            wrong.append(f"cells {part}-...: {', '.join(there) or 'none'}; the lesson has {', '.join(names) or 'none'}")
    return wrong


def check_four(name, asks, stub, hints, solution):
    """What is wrong with the four cells of an exercise."""
    wrong = []
    if [cell.cell_type for cell in (asks, stub, hints, solution)] != ["markdown", "code", "markdown", "code"]:
        return [f"{name}: its cells are not markdown, code, markdown, code"]
    if not tagged(stub, "exercise") or not tagged(solution, "solution"):
        wrong.append(f"{name}: the stub is tagged exercise, the solution solution")
    if len(stub.source.splitlines()) > 12:
        wrong.append(f"{name}: the stub has {len(stub.source.splitlines())} lines, over 12")
    for cell in (stub, solution):
        if not re.search(rf'^check\("{name}", {name.replace("-", "_")}\)$', cell.source.splitlines()[-1]):
            wrong.append(f"{cell.id}: does not end in the call of check")
    if [number for number, _ in HINTS.findall(hints.source)] != ["1", "2"] or hints.source.count("<details") != 2:
        wrong.append(f"{name}: there are not two hints, Hint 1 and Hint 2")
    said = ["".join(out.get("text", "") for out in cell.outputs)[:1] for cell in (stub, solution)]
    if said[0] not in ("…", "✗") or said[1] != "✓":
        wrong.append(f"{name}: the stub's check does not say … or ✗, or the solution's does not say ✓")
    return wrong


def test_there_are_notebooks_numbered_from_zero():
    """A lesson of two parts has a second notebook with a b behind its number."""
    numbers = [file.name.split("_")[0] for file in NOTEBOOKS]
    lessons = [number for number in numbers if not number.endswith("b")]
    assert [int(number) for number in lessons] == list(range(len(lessons))) and lessons
    assert {number.removesuffix("b") for number in numbers} == set(lessons) and len({*numbers}) == len(numbers)


@every_notebook
def test_the_rules_are_kept(file):
    assert check(read(file)) == []


@pytest.mark.parametrize("stem", SECOND_EDITION)
def test_the_rules_of_the_second_edition_are_kept(stem):
    assert check_second_edition(stem, read(ROOT / "notebooks" / f"{stem}.ipynb")) == []


@every_notebook
def test_no_absolute_path_and_no_host_name(file):
    found = re.findall(r"/(?:home|root|Users|work|tmp|usr|opt|var)/[\w./-]+|[A-Z]:\\\\\w+", file.read_text("utf-8"))
    assert found == []


@pytest.mark.parametrize("file, following", list(zip(NOTEBOOKS, NOTEBOOKS[1:])), ids=lambda file: file.stem)
def test_each_closes_with_a_link_to_the_next(file, following):
    assert following.name in read(file).cells[-1].source


@every_notebook
def test_links_between_notebooks_lead_somewhere(file):
    for target in re.findall(r"\]\(([\w./-]+\.ipynb)", file.read_text("utf-8")):
        assert (file.parent / target).is_file(), target


def calls(word):
    """(name, unit) of each call guess("name", unit=...) or answer("name", ..., unit=...) in all notebooks."""
    code = "\n".join(cell.source for file in NOTEBOOKS for cell in code_cells(read(file)))
    return re.findall(rf'^\s*{word}\(\s*f?"([^"]+)",(?:\s*by="\w+",)?\s*(\w+)=', code, re.MULTILINE)


def test_each_guess_is_answered_in_its_own_unit():
    answers = [(re.sub(r"{\w+}", ".+", name), unit) for name, unit in calls("answer")]  # some names are put together
    guesses = calls("guess")
    unanswered = [
        (name, unit)
        for name, unit in guesses
        if not any(unit == given and re.fullmatch(pattern, name) for pattern, given in answers)
    ]
    assert len(guesses) > 40 and unanswered == []


def test_most_outputs_are_really_compared(capsys):
    """Prints, for each notebook, the share of code cells whose output nbval compares or that assert something."""
    shares = {}
    for file in NOTEBOOKS:
        shares[file.stem] = compared_share(code_cells(read(file)))
    with capsys.disabled():
        for name, share in shares.items():
            print(f"\n  {name}: {share:.0%} of code cells compared or asserting", end="")
        print()
    assert min(shares.values()) >= COMPARED_SHARE


# -------------------------------------------------------------------------- each rule catches the notebook it is for


def spoil(change):
    """A good notebook with one thing wrong."""
    notebook = read(NOTEBOOKS[0])
    change(notebook, code_cells(notebook))
    return check(notebook)


NEXT = code_cells(read(NOTEBOOKS[0]))[1].id  # the cell that most of these spoil


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda n, c: c[2].update(execution_count=None), "not executed in order"),
        (lambda n, c: c[0].update(execution_count=2), "not executed in order"),
        (lambda n, c: [cell.update(outputs=[]) for cell in c], "no outputs"),
        (lambda n, c: c[1].update(source=c[1].source + "  # more"), f"{NEXT}: code or outputs were changed"),
        (lambda n, c: c[1].outputs.append(nbformat.v4.new_output("stream")), f"{NEXT}: code or outputs were changed"),
        (lambda n, c: n.metadata.pop("fingerprints"), "code or outputs were changed"),
        (lambda n, c: c[1].outputs.append(nbformat.v4.new_output("error", ename="E")), "an error stands"),
        (lambda n, c: c[1].outputs.append(nbformat.v4.new_output("stream", name="stderr")), "stderr stands"),
        (lambda n, c: c[1].update(source="x = 1\n" * 31), "31 lines of code"),
        (lambda n, c: c[1].update(source="1", metadata={"tags": ["nbval-ignore-output"]}), "asserts nothing"),
        (
            lambda n, c: c[1].update(source="classify = ZeroShotClassifier('mini', memory_budget='1GB')"),
            "how many threads",
        ),
        (lambda n, c: c[1].update(id="3f2a9b1c"), "a cell id is words"),
        (lambda n, c: c[1].update(id=c[2].id), "stands twice"),
        (lambda n, c: n.cells[0].update(source="# Title"), "the opening lacks"),
        (lambda n, c: n.cells.pop(), "the closing lacks '## Next'"),
        (lambda n, c: c[0].update(source="a\nb\nc\nd\ne"), "more than four lines"),
        (lambda n, c: c[1].update(source="%matplotlib inline"), "a magic"),
        (lambda n, c: n.update(cells=n.cells[:1] + n.cells[-6:]), "not 25 to 60"),
    ],
)
def test_each_rule_catches_what_it_is_for(change, complaint):
    assert complaint in " ".join(spoil(change))


def code(source, cell_id, *tags, folded=False, says=""):
    """A code cell that was run, and printed `says` if anything."""
    metadata = {"tags": list(tags)} | ({"jupyter": {"source_hidden": True}} if folded else {})
    outputs = [nbformat.v4.new_output("stream", text=says)] if says else []
    return nbformat.v4.new_code_cell(source, id=cell_id, execution_count=1, metadata=metadata, outputs=outputs)


HINTED = "<details><summary>Hint 1</summary>Look.</details>\n<details><summary>Hint 2</summary>There.</details>"


def second_edition():
    """A small notebook that keeps the rules: a measurement with its check, and the exercises of lesson 07."""
    cells = [
        nbformat.v4.new_markdown_cell("# A lesson\n\n" + "word " * 25 + "\n\n" + "| a table |" * 30, id="opening"),
        code("size = measure()", "measure", "nbval-ignore-output", says="17 MB"),
        code("assert size > 0", "check-size", "check", folded=True),
    ]
    for name in (name for name, one in all_exercises().items() if one.lesson.endswith("07")):
        call = f'check("{name}", {name.replace("-", "_")})'
        cells += [
            nbformat.v4.new_markdown_cell("Write it.", id=f"exercise-{name}"),
            code(f"def it(): return ...\n{call}", f"try-{name}", "exercise", says="… Not filled in yet."),
            nbformat.v4.new_markdown_cell(HINTED, id=f"hints-{name}"),
            code(f"def it(): return 1\n{call}", f"solution-{name}", "solution", folded=True, says="✓ It is."),
        ]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_good_notebook_of_the_second_edition_passes():
    notebook = second_edition()
    assert check_second_edition("07_scaling_out", notebook) == []
    assert len(notebook.cells) > 10


# by their ids, the cells of the example that are spoiled
SPOILED = [
    (lambda c: c["measure"].update(source="x = 1  #" + "-" * 88), "columns of code, over 88"),
    (lambda c: c["measure"].update(source="x = 1\n" * 26), "26 lines of code, over 25"),
    (lambda c: c["measure"].metadata.update(jupyter={"source_hidden": True}), "folded are cells tagged"),
    (lambda c: c["check-size"].metadata.pop("jupyter"), "folded are cells tagged"),
    (lambda c: c["check-size"].update(source="size > 0"), "a check cell that asserts nothing"),
    (lambda c: c["check-size"].update(id="size"), "ids that begin with check-"),
    (lambda c: c["opening"].update(source="word " * 26 + "end."), "27 words in"),
    (lambda c: c["exercise-resume"].update(id="resume"), "cells exercise-...:"),
    (lambda c: c["hints-resume"].update(id="help-resume"), "one after the other"),
    (lambda c: c["try-resume"].update(id="try-again"), "one after the other"),
    (lambda c: c["try-resume"].metadata.update(tags=[]), "the stub is tagged exercise"),
    (lambda c: c["try-resume"].update(source="x = 1\n" * 12 + 'check("resume", resume)'), "13 lines, over 12"),
    (lambda c: c["try-resume"].update(source="def resume(): return ..."), "does not end in the call of check"),
    (lambda c: c["solution-resume"].update(source='check("pairs", resume)'), "does not end in the call of check"),
    (lambda c: c["hints-resume"].update(source=HINTED + HINTED), "there are not two hints"),
    (lambda c: c["hints-resume"].update(source=HINTED.replace("Hint 2", "Hint")), "there are not two hints"),
    (lambda c: c["solution-resume"].outputs[0].update(text="✗ No."), "the solution's does not say"),
    (lambda c: c["try-resume"].outputs[0].update(text="✓ Yes."), "the stub's check does not say"),
    (lambda c: c["exercise-resume"].update(cell_type="code", outputs=[]), "not markdown, code, markdown, code"),
]


@pytest.mark.parametrize("spoil_it, complaint", SPOILED)
def test_each_rule_of_the_second_edition_catches_what_it_is_for(spoil_it, complaint):
    notebook = second_edition()
    spoil_it({cell.id: cell for cell in notebook.cells})
    assert complaint in " ".join(check_second_edition("07_scaling_out", notebook))


def test_an_exercise_that_its_notebook_lacks_is_named():
    found = check_exercises("04_attention", second_edition())
    assert any("the lesson has sliding, online-softmax, matrix-bytes" in sentence for sentence in found)


def test_a_check_cell_counts_with_the_cell_before_it():
    cells = code_cells(second_edition())
    assert compared_share(cells[:2]) == 1 and compared_share(cells[:1]) == 0
    cells[1].source = "size > 0"
    assert compared_share(cells[:2]) == 0


@pytest.mark.parametrize(
    "markdown, sentences",
    [
        ("word " * 26, 1),
        ("word " * 13 + "ends here. " + "word " * 13, 0),
        ("word " * 26 + "ends. " + "word " * 26, 2),
        ("> " + "**word** " * 26, 1),
        ("- " + "word " * 20 + "\n- " + "word " * 20, 0),
        ("* " + "word " * 20 + "\n* " + "word " * 20, 0),
        ("1. " + "word " * 20 + "\n2. " + "word " * 20, 0),
        ("| " + "word " * 40 + "|", 0),
        ("    " + "word " * 40, 0),
        ("```\n" + "word " * 40 + "\n```", 0),
        ("word " * 24 + "`one two three four`", 0),
        ("word " * 24 + "[link](some/where/far-away.html).", 0),
        ("word " * 23 + "1.5 e.g. three", 1),
        ("<details><summary>" + "word " * 20 + "</summary>" + "word " * 20 + "</details>", 0),
    ],
)
def test_sentences_of_prose_are_counted(markdown, sentences):
    assert len(long_sentences(markdown)) == sentences


# ------------------------------------------------------------------------------------------------------- the runner


def notebook_of(*sources):
    cells = [nbformat.v4.new_markdown_cell("# A <small> lesson", id="opening")]
    stale = [nbformat.v4.new_output("stream", text="of an earlier run")]
    for i, source in enumerate(sources):
        cells.append(nbformat.v4.new_code_cell(source, id=f"cell-{i}", execution_count=i + 1, outputs=stale))
    return nbformat.v4.new_notebook(cells=cells)


# Jupyter's client and kernel talk over loopback; this is `ip link set lo up` where ip is not installed
LOOPBACK_UP = 'import fcntl, socket, struct; s = socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 1))'


@pytest.fixture(scope="module")
def alone():
    """The beginning of a command that runs in a network namespace of its own, or [] where the machine forbids that."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        return []
    up = f"ip link set lo up 2>/dev/null || {sys.executable} -c '{LOOPBACK_UP}'; exec \"$@\""
    return ["unshare", "-rn", "sh", "-c", up, "sh"]


@pytest.fixture(scope="module")
def ran(alone, tmp_path_factory):
    """(what came of the runner on two notebooks, the folder of its pages): the first third of notebook 00, a small one.

    10 seconds for two tests: the runner and the kernel of notebook 00 each import torch and transformers.
    """
    (folder := tmp_path_factory.mktemp("notebooks") / "in").mkdir()
    shutil.copy(ROOT / "notebooks" / "matplotlibrc", folder)
    notebook = read(ROOT / "notebooks" / "00_start_here.ipynb")
    notebook.cells = notebook.cells[: len(notebook.cells) // 3]
    for cell in code_cells(notebook):
        cell.outputs = []
    nbformat.write(notebook, folder / "00_start_here.ipynb")
    guessing = "from zsc_utils.exercises import guess\nguess('peak-512', mb=1)\nprint('one' + 'two')"
    nbformat.write(notebook_of(guessing), folder / "01_lesson.ipynb")
    command = [sys.executable, ROOT / "scripts" / "run_notebooks.py", "--notebooks", folder, "--output", folder / "out"]
    environment = os.environ | {"ZSC_GUESSES": str(folder / "of-the-reader.json")}
    return subprocess.run([*alone, *command], capture_output=True, text=True, env=environment), folder / "out" / "site"


def test_runner_writes_pages_and_an_index_and_prints_the_ledger(ran):
    done, site = ran
    assert done.returncode == 0, done.stderr[-2000:]
    page, index = ((site / name).read_text("utf-8") for name in ("01_lesson.html", "index.html"))
    assert "onetwo" in page and "of an earlier run" not in page
    assert 'href="00_start_here.html"' in index and 'href="01_lesson.html"' in index
    assert "A &lt;small&gt; lesson" in index
    for file in site.iterdir():
        assert not re.search(r"<script[^>]+src=.http", file.read_text("utf-8"))  # a page opens without a network
    assert "claims decided" in done.stdout and str(site / "index.html") in done.stdout
    assert "01_lesson · cell-0" in done.stderr  # the progress bar names notebook and cell


def test_runner_keeps_guesses_of_its_own(ran):
    done, site = ran
    assert done.returncode == 0, done.stderr[-2000:]
    assert "peak-512" in (site.parent / "guesses.json").read_text("utf-8")
    assert not (site.parents[1] / "of-the-reader.json").exists()


def test_notebook_00_runs_without_a_network(ran, alone):
    """Its first third, where nothing but loopback exists."""
    if not alone:
        pytest.skip("this machine forbids network namespaces (unshare -rn)")
    done, site = ran
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"entailment +-?[0-9]", (site / "00_start_here.html").read_text("utf-8"))  # the logits of a pair


def test_runner_stops_at_a_failing_cell_and_names_it(tmp_path, monkeypatch):
    """In this process, which has imported what the runner needs."""
    (folder := tmp_path / "in").mkdir()
    nbformat.write(notebook_of("x = 0", "1 / x", "print('after')"), folder / "00_bad.ipynb")
    nbformat.write(notebook_of("print('never')"), folder / "01_next.ipynb")
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", "--notebooks", str(folder), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        run_notebooks.main()
    said = stopped.value.code  # a string: Python writes it to stderr and ends with status 1
    assert "00_bad.ipynb, cell 'cell-1'" in said and "ZeroDivisionError: division by zero" in said
    assert not (tmp_path / "site" / "01_next.html").exists()
