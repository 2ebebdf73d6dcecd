"""The defects that scripts/inject.py puts into a checkout, one at a time.

A defect is a function of (root of the copy, file of a notebook, the notebook). It changes the notebook, or a file below
the root, and says what it changed; None if there is no place for it. The same input always gives the same defect.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from nbformat.v4 import new_code_cell, new_output

TURNED = {"0": "7", **{str(digit): str(digit - 1) for digit in range(1, 10)}}


@dataclass(frozen=True)
class Defect:
    """A defect: its name, one sentence about it, and the function that makes it."""

    name: str
    says: str
    make: Callable


DEFECTS: list[Defect] = []


def defect(says: str):
    """Add the decorated function to DEFECTS, by its name with - for _."""

    def added(make):
        DEFECTS.append(Defect(make.__name__.replace("_", "-"), says, make))
        return make

    return added


def tags(cell):
    return cell.metadata.get("tags", [])


def code(notebook, *, shown=False):
    """Its code cells that everybody runs; only those whose outputs nbval compares if `shown`."""
    cells = [
        c for c in notebook.cells if c.cell_type == "code" and not {"exercise", "solution", "check"} & set(tags(c))
    ]
    return [c for c in cells if not shown or ("nbval-ignore-output" not in tags(c) and printed(c))]


def printed(cell):
    """The outputs of a cell that are printed text."""
    return [out for out in cell.get("outputs", []) if out.output_type == "stream"]


def replaced(cells, pattern, new, *, flags=re.MULTILINE):
    """Replace the first match of a pattern in the first cell that has one; say where."""
    for cell in cells:
        changed, count = re.subn(pattern, new, cell.source, count=1, flags=flags)
        if count and changed != cell.source:
            cell.source = changed
            return cell.id
    return None


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in tags(cell)]


def prose(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def in_file(file, pattern, new):
    """Replace the first match of a pattern in a file; say what stood there."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        return None
    file.write_text(text[: found.start()] + found.expand(new) + text[found.end() :], encoding="utf-8")
    return f"{file.name}: {found[0].strip()[:40]}"


# ---------------------------------------------------------------------------------------- the frame of a notebook


@defect("the opening has no minutes")
def no_minutes(root, file, notebook):
    return replaced(notebook.cells[:1], r"^\*\*Minutes\*\*.*$", "")


@defect("the opening states ten minutes more than are counted")
def minutes_differ(root, file, notebook):
    return replaced(notebook.cells[:1], r"(\*\*Minutes\*\* )(\d+)", lambda found: f"{found[1]}{int(found[2]) + 10}")


@defect("the opening does not say what you need to know")
def no_knowledge(root, file, notebook):
    return replaced(notebook.cells[:1], r"\*\*You need to know\*\*", "")


@defect("there is nothing to remember")
def no_remember(root, file, notebook):
    return replaced(prose(notebook), r"^## Remember$", "## The end")


@defect("the link to the next lesson is gone")
def no_next(root, file, notebook):
    return replaced(notebook.cells[-1:], r"\]\(\d\d\w*_[^)]*\)", "]")


@defect("a link leads nowhere")
def dead_link(root, file, notebook):
    return replaced(prose(notebook), r"\]\((\d\d\w*_)\w+\.ipynb", r"](\1nowhere.ipynb")


@defect("a cell's id is a number that an editor made")
def hex_id(root, file, notebook):
    cell = code(notebook)[2]
    was, cell.id = cell.id, "3f2a9b1c"
    return was


@defect("an id stands twice")
def id_twice(root, file, notebook):
    first, second = code(notebook)[2:4]
    second.id = first.id
    return first.id


# ---------------------------------------------------------------------------------------------- cells and outputs


@defect("a line of code is wider than 88 columns")
def wide_line(root, file, notebook):
    cell = code(notebook)[3]
    cell.source += "\nsomething = " + " + ".join(["1"] * 25)
    return cell.id


@defect("a cell has 40 lines")
def long_cell(root, file, notebook):
    cell = code(notebook)[3]
    cell.source += "\n_ = 0" * 40
    return cell.id


@defect("a cell holds a magic")
def magic(root, file, notebook):
    cell = code(notebook)[3]
    cell.source = "%matplotlib inline\n" + cell.source
    return cell.id


@defect("cells were run out of order")
def out_of_order(root, file, notebook):
    cells = code(notebook)
    cells[2].execution_count, cells[3].execution_count = cells[3].execution_count, cells[2].execution_count
    return cells[2].id


@defect("outputs are stripped")
def stripped(root, file, notebook):
    for cell in code(notebook):
        cell.outputs = []
    return "all cells"


@defect("a path of the author's machine stands in an output")
def absolute_path(root, file, notebook):
    cell = code(notebook, shown=True)[0]
    printed(cell)[0].text += "/ho" + "me/author/models/mini\n"
    return cell.id


@defect("a warning stands in an output")
def warning_shown(root, file, notebook):
    cell = code(notebook, shown=True)[0]
    cell.outputs.append(new_output("stream", name="stderr", text="UserWarning: a text is cut\n"))
    return cell.id


@defect("an output is not compared, and nothing is asserted about it")
def not_compared(root, file, notebook):
    for cell in code(notebook, shown=True):
        if "assert" not in cell.source:
            cell.metadata["tags"] = [*tags(cell), "nbval-ignore-output"]
            return cell.id
    return None


@defect("a number in an output is stale")
def stale_number(root, file, notebook):
    for cell in code(notebook, shown=True):
        out = printed(cell)[0]
        if found := re.search(r"\d(?=\D*$)", out.text):
            out.text = out.text[: found.start()] + TURNED[found[0]] + out.text[found.end() :]
            return cell.id
    return None


@defect("two figures are swapped")
def swapped_figures(root, file, notebook):
    held = [out for cell in code(notebook) for out in cell.outputs if "image/png" in out.get("data", {})]
    if len(held) < 2:
        return None
    held[0].data["image/png"], held[1].data["image/png"] = held[1].data["image/png"], held[0].data["image/png"]
    return "the first two figures"


# ------------------------------------------------------------------------------------------------ what cells compute


@defect("MB are taken for 2^20 bytes")
def wrong_unit(root, file, notebook):
    return replaced(code(notebook, shown=True), r"/ 1e6", "/ 2**20")


@defect("percent are not multiplied by 100")
def wrong_percent(root, file, notebook):
    return replaced(code(notebook), r"100 \* ", "")


@defect("a guess is in another unit than its answer")
def guess_unit(root, file, notebook):
    return replaced(code(notebook), r"(guess\(\"[\w-]+\", )\w+=", r"\1furlongs=")


@defect("a guess is never answered")
def never_answered(root, file, notebook):
    return replaced(code(notebook), r"^answer\(.*\)$", "pass")


@defect("inference_mode is dropped")
def no_inference_mode(root, file, notebook):
    return replaced(code(notebook), r"torch\.inference_mode\(\)", "torch.enable_grad()")


@defect("the model is left in training mode")
def no_eval(root, file, notebook):
    if found := replaced(code(notebook), r"\.eval\(\)", ""):
        return found
    return replaced(code(notebook), r"^(\w+) = zsc\.load\((.*)\)$", r"\1 = zsc.load(\2)\n\1.model.train()")


@defect("the seed is gone")
def no_seed(root, file, notebook):
    without = replaced(code(notebook), r"(default_rng|Generator)\(\d+\)", r"\1()")
    return without or replaced(code(notebook), r"^(\s*).*(manual_seed|random\.seed)\(\d+\)$", r"\1pass")


@defect("the logit of contradiction is taken for that of entailment")
def other_class(root, file, notebook):
    return replaced(code(notebook, shown=True), r"entailment_id", "contradiction_id")


@defect("a plus in a formula is a minus")
def wrong_sign(root, file, notebook):
    return replaced(code(notebook, shown=True), r"(?<=[\w)]) \+ (?=[\w(])", " - ")


@defect("a product lacks its last factor")
def lost_factor(root, file, notebook):
    return replaced(code(notebook, shown=True), r"(?<=[\w)]) \* \d+(?=$|\)|,| )", "")


@defect("a cell that plans does not say how many threads")
def no_threads(root, file, notebook):
    return replaced(code(notebook), r"^torch\.set_num_threads\(\d+\)$", "pass")


# --------------------------------------------------------------------------------------- hidden checks and exercises


@defect("a hidden cell checks nothing")
def empty_check(root, file, notebook):
    for cell in tagged(notebook, "check"):
        cell.source = re.sub(r"^(\s*)assert .*$", r"\1pass", cell.source, flags=re.MULTILINE)
        return cell.id
    return None


@defect("a check is not folded away")
def unfolded_check(root, file, notebook):
    for cell in tagged(notebook, "check"):
        cell.metadata.pop("jupyter", None)
        return cell.id
    return None


@defect("a hidden cell is empty")
def hidden_nothing(root, file, notebook):
    cell = new_code_cell("x = 1", id="check-nothing", metadata={"tags": ["check"], "jupyter": {"source_hidden": True}})
    last = max((c.execution_count or 0 for c in notebook.cells if c.cell_type == "code"), default=0)
    cell.execution_count = last + 1
    place = max(number for number, each in enumerate(notebook.cells) if each.cell_type == "code")
    notebook.cells.insert(place + 1, cell)
    return cell.id


@defect("an exercise has one hint")
def one_hint(root, file, notebook):
    hints = [cell for cell in prose(notebook) if cell.source.count("<details>") == 2]
    return replaced(hints, r"<details>.*?</details>\s*", "", flags=re.DOTALL)


@defect("a solution is not marked as one, so that learners get it")
def untagged_solution(root, file, notebook):
    for cell in tagged(notebook, "solution"):
        cell.metadata.pop("tags")
        return cell.id
    return None


@defect("a solution is wrong")
def wrong_solution(root, file, notebook):
    return replaced(tagged(notebook, "solution"), r"^(\s*)return .+$", r"\1return 0")


@defect("a stub gives the solution away")
def stub_solved(root, file, notebook):
    solutions = {cell.id.removeprefix("solution-"): cell for cell in tagged(notebook, "solution")}
    for cell in tagged(notebook, "exercise"):
        if solution := solutions.get(cell.id.removeprefix("try-")):
            cell.source = solution.source
            return cell.id
    return None


# ------------------------------------------------------------------------------------------------- prose and ledger


@defect("a measured number is typed in prose")
def typed_number(root, file, notebook):
    cell = prose(notebook)[3]
    cell.source += "\n\nThis takes 417.3 MB and 12.6 seconds."
    return cell.id


@defect("a verdict is typed in prose")
def typed_verdict(root, file, notebook):
    cell = prose(notebook)[3]
    cell.source += "\n\nSo the claim is refuted."
    return cell.id


@defect("a claim has another id in claims.toml")
def wrong_claim_id(root, file, notebook):
    return in_file(root / "claims.toml", r'^id = "([\w-]+)"', r'id = "\1-too"')


@defect("the map of the lessons has other minutes")
def stale_map(root, file, notebook):
    return in_file(root / "README.md", r"(_\w+\.ipynb\) \| .* \| )\d+ \|", r"\g<1>99 |")
