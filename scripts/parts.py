"""Parts of a lesson: its beginning, its sections between `## ` headings, and its exercises; and which needs which.

A part can be left out if no part that stays uses a name that it defines or changes. The beginning (the opening, the
imports, the checkpoint) always stays.
"""

import ast
from dataclasses import dataclass, field

import minutes

EXERCISE_CELLS = ("exercise-", "try-", "hints-", "solution-")
CHANGING = {"append", "extend", "update", "add", "insert", "setdefault", "pop", "clear", "sort"}
LEFT_OUT = ("Next", "The map")  # they speak of the whole collection


@dataclass
class Part:
    """A part of a lesson. `kind` is "beginning", "section", "remember" or "exercise". `cells` are in order."""

    kind: str
    title: str
    cells: list = field(default_factory=list)
    minutes: float = 0.0
    needs: set[int] = field(default_factory=set)  # numbers of other parts of the lesson


def exercise_of(cell, known) -> str:
    """The exercise of `known` names that a cell belongs to; "" if it belongs to none."""
    named = (cell.id.removeprefix(begins) for begins in EXERCISE_CELLS if cell.id.startswith(begins))
    return next((name for name in named if name in known), "")


def heading(cell) -> str:
    """The `## ` heading of a cell, or ""."""
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return next((line[3:].strip() for line in lines if line.startswith("## ")), "")


def kind_of(title: str) -> str:
    return "remember" if title == "Remember" else "section"


def split(notebook) -> list[Part]:
    """The parts of a notebook in order, with their minutes and needs. Raises ValueError if it was never timed."""
    parts, exercises = [Part("beginning", "Beginning")], {}
    known = {cell.id.removeprefix("exercise-") for cell in notebook.cells if cell.id.startswith("exercise-")}
    for cell in notebook.cells:
        name = exercise_of(cell, known)
        if (title := heading(cell)) and not name:
            parts.append(Part(kind_of(title), title))
        if name and name not in exercises:
            exercises[name] = Part("exercise", name)
            parts.append(exercises[name])
        part = exercises[name] if name else parts[-1]  # what stands after an exercise goes with it
        part.cells.append(cell)
    parts = [part for part in parts if part.title not in LEFT_OUT and part.title != "Exercises"]
    for part in parts:
        part.minutes = minutes.exact(notebook, part.cells)
    find_needs(parts)
    return parts


def find_needs(parts: list[Part]) -> None:
    """Set what each part needs: all earlier parts that define or change a name that it uses, and what these need."""
    made = [names(part)[0] for part in parts]
    for number, part in enumerate(parts):
        if part.kind == "exercise":
            continue  # an exercise stands alone
        used = names(part)[1]
        for earlier in range(number):
            if made[earlier] & used:
                part.needs |= {earlier} | parts[earlier].needs


def names(part: Part) -> tuple[set[str], set[str]]:
    """(names that the code of a part defines or changes, names that it takes from before)."""
    found = Names()
    for cell in part.cells:
        if cell.cell_type == "code":
            found.read(ast.parse(cell.source).body)
    return found.made | found.changed, found.used | (found.later - found.made)


SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def loaded(node) -> set[str]:
    """The names that a node takes from outside: those that it loads, without the own ones of functions and loops."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    inner = set().union(*(loaded(child) for child in ast.iter_child_nodes(node)))
    if isinstance(node, SCOPES):
        inner -= stored(node) | {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    return inner


def stored(node) -> set[str]:
    """The names that a node gives a value to."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            found.add(each.id)
        elif isinstance(each, ast.alias):
            found.add((each.asname or each.name).split(".")[0])
        elif isinstance(each, ast.ExceptHandler | ast.FunctionDef | ast.ClassDef) and each.name:
            found.add(each.name)
    return found


class Names:
    """The names of code that is read in order: `made` gets a value, `changed` holds an object that is changed, `used`
    is taken from before, and `later` is what functions take when they are called."""

    def __init__(self):
        self.made, self.changed, self.used, self.later = set(), set(), set(), set()

    def read(self, statements) -> None:
        for one in statements:
            self.changed |= {root for node in ast.walk(one) if (root := root_of_change(node))}
            if isinstance(one, ast.FunctionDef | ast.ClassDef):
                self.later |= loaded(one)
                self.made.add(one.name)
            elif hasattr(one, "body"):  # for, while, if, with, try
                self.enter(one)
            else:
                self.used |= loaded(one) - self.made
                if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name):
                    self.used |= {one.target.id} - self.made
                self.made |= stored(one)

    def enter(self, one) -> None:
        """Read a statement that holds others: what stands in its head first."""
        inside = {"body", "orelse", "finalbody", "handlers"}
        for name, value in ast.iter_fields(one):
            for node in value if isinstance(value, list) else [value]:
                if name not in inside and isinstance(node, ast.AST):
                    self.used |= loaded(node) - self.made
                    self.made |= stored(node)
        self.read(one.body)
        for handler in getattr(one, "handlers", []):
            self.used |= (loaded(handler.type) if handler.type else set()) - self.made
            self.made |= {handler.name} if handler.name else set()
            self.read(handler.body)
        for name in ("orelse", "finalbody"):
            self.read(getattr(one, name, []))


def root_of_change(node) -> str:
    """The name of the object that `results["x"] = 1`, `box.size = 2` or `rows.append(3)` changes; "" if it is none."""
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        inner = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
        inner = node.func.value
    else:
        return ""
    while isinstance(inner, ast.Subscript | ast.Attribute):
        inner = inner.value
    return inner.id if isinstance(inner, ast.Name) else ""
