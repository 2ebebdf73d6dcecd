"""What the package's code can say: the texts of its errors, warnings and other literals, with 7 or a size where
something varies.

A name is looked up: a variable of the function, a parameter with what calls give for it, or a constant. A call is what
the function returns. An attribute in ATTRIBUTES is what classes hold under its name, or are made with.
"""

import ast
import itertools
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "zsc_utils"
ANYTHING = ["7"]  # stands for what varies
SIZE = ["7.5 MB"]
MOST, DEEP = 60, 5  # texts of one place, and names that are followed
ATTRIBUTES = ("key", "where")  # words that readers of files give


@cache
def trees():
    """{file: its syntax tree} of the package, without the checks of exercises."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if not file.stem.startswith("lesson_")]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def nodes(tree, scopes):
    """Yield (node, the module and the functions around it)."""
    for node in ast.iter_child_nodes(tree):
        inner = (*scopes, node) if isinstance(node, ast.FunctionDef) else scopes
        yield node, inner
        yield from nodes(node, inner)


@cache
def everything():
    """[(file, node, the module and the functions around it)] of the package."""
    return [(file, *one) for file, tree in trees().items() for one in nodes(tree, (tree,))]


@cache
def calls():
    """{name of a function: its calls, each with the functions around it}."""
    found = {}
    for _, node, scopes in everything():
        if isinstance(node, ast.Call):
            found.setdefault(ast.unparse(node.func).split(".")[-1], []).append((node, scopes))
    return found


@cache
def functions():
    """{name: [(the module and the functions around it and it, the function)]}."""
    found = {}
    for _, node, scopes in everything():
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append((scopes, node))
    return found


@cache
def assigned():
    """{name: [(value, around)]} of what modules and classes hold, and of what is given to a class by that name."""
    found = {}
    for tree in trees().values():
        for body in (node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)):
            for node in (node for node in body if isinstance(node, ast.Assign)):
                pairs = [(node.targets[0], node.value)]
                if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple):
                    pairs = zip(node.targets[0].elts, node.value.elts)
                for name, value in pairs:
                    found.setdefault(ast.unparse(name), []).append((value, (tree,)))
    for node, scopes in (call for name, own in calls().items() if name[:1].isupper() for call in own):
        for word in node.keywords:
            found.setdefault(word.arg, []).append((word.value, scopes))
    return found


def texts(node, scopes, depth=0):
    """All texts that an expression may give, as far as they can be read in the code."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return joined([texts(part, scopes, depth) for part in node.values])
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, scopes, depth) if node.conversion != ord("r") else ANYTHING
    if isinstance(node, ast.IfExp | ast.BoolOp):
        parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
        return [text for part in parts for text in texts(part, scopes, depth)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return joined([texts(part, scopes, depth) for part in (node.left, node.right)])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*texts(node.left, scopes, depth), ""]
    if isinstance(node, ast.Name | ast.Attribute | ast.Call) and depth < DEEP:
        follow = {ast.Name: of_name, ast.Attribute: of_attribute, ast.Call: of_call}[type(node)]
        return list(dict.fromkeys(follow(node, scopes, depth + 1))) or ANYTHING
    return ANYTHING


def joined(parts):
    return ["".join(one) for one in itertools.islice(itertools.product(*parts), MOST)]


def given(places, depth):
    return [text for value, around in places for text in texts(value, around, depth)]


def of_name(node, scopes, depth):
    """What a name may stand for: in the innermost function that says so, or as a constant."""
    for scope in (one for one in reversed(scopes) if isinstance(one, ast.FunctionDef)):
        inside = [one.value for one in ast.walk(scope)
                  if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == node.id]  # fmt: skip
        if places := [*((value, scopes) for value in inside), *parameter(scope, node.id, scopes)]:
            return given(places, depth)
    return given(assigned().get(node.id, []), depth) if node.id.isupper() else []


def parameter(function, name, scopes):
    """What is given for a parameter, by default and in the calls of the function."""
    names = [one.arg for one in function.args.args]
    if name not in names:
        return []
    place = names.index(name)
    default = place - len(names) + len(function.args.defaults)
    found = [(function.args.defaults[default], scopes)] if default >= 0 else []
    place -= names[0] == "self"
    for call, around in calls().get(function.name, []):
        found += [(word.value, around) for word in call.keywords if word.arg == name]
        found += [(value, around) for value in call.args[place : place + 1]]
    return found


def of_attribute(node, scopes, depth):
    """What an attribute may be, in words."""
    return [*filter(is_words, given(assigned()[node.attr], depth))] if node.attr in ATTRIBUTES else []


def of_call(node, scopes, depth):
    """What a function of the package returns: of this module, or the only one of that name."""
    name = ast.unparse(node.func).split(".")[-1]
    if name in ("format_size", "rounded_up"):
        return SIZE
    if name in ("translated", "str"):
        return texts(node.args[0], scopes, depth)
    named = functions().get(name, [])
    own = [(around, one) for around, one in named if around[0] is scopes[0]]
    if len(own or named) != 1:
        return ANYTHING
    ((around, function),) = own or named
    returned = [one.value for one in ast.walk(function) if isinstance(one, ast.Return) and one.value is not None]
    return given([(value, around) for value in returned], depth)


# ------------------------------------------------------------------------------------------------------ what is said


def is_error(node):
    """Whether a node makes an error or a warning."""
    made = isinstance(node, ast.Call) and node.args and ast.unparse(node.func)
    return bool(made) and made.endswith(("Error", "warnings.warn"))


@cache
def errors():
    """[(file: line, text)] of all errors and warnings of the package that have words."""
    found = []
    for file, node, scopes in everything():
        if is_error(node):
            told = [text for part in node.args[:2] for text in texts(part, scopes) if is_words(text)]
            found += [(f"{file.stem}:{node.lineno}", text) for text in dict.fromkeys(told)]
    return found


@cache
def translations():
    """All texts that the package has translated at once, rather than when an error is shown."""
    made = [call for name in ("translated", "several") for call in calls()[name]]
    return {text for node, scopes in made for text in texts(node.args[0], scopes)}


@cache
def literals():
    """All texts of the package's code, as they stand."""
    found = set()
    for _, node, scopes in everything():
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            found |= set(texts(node, scopes, DEEP))
    return found


def is_words(text):
    """Whether a text has a word in it."""
    return bool(re.search("[A-Za-z]{3}", text))
