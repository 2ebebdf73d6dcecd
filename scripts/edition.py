"""The Chinese edition: one source for code, Chinese prose beside it. Checks it, and builds its notebooks.

`notebooks/zh/NN_name.md` holds the Chinese prose of a lesson: a part for each cell of prose, begun by a line
`<!-- cell-id hash -->` with the hash of the English prose that it renders. `NN_name.toml` holds what is Chinese in the
code: string literals and comments, English = Chinese, as they stand in the source. Nothing else in the code differs.

    python scripts/edition.py check [NN_name ...]    what is missing, stale or different, cell by cell
    python scripts/edition.py begin NN_name          files for a new translation, with the English text in them
    python scripts/edition.py minutes                the minutes of the English openings and map, into the Chinese ones
    python scripts/edition.py build                  today's prose into `notebooks/zh/NN_name.ipynb`, outputs kept

scripts/run_notebooks.py executes the Chinese notebooks and keeps them. For a change of prose alone, `build` is enough.
"""

import argparse
import ast
import hashlib
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "notebooks", ROOT / "notebooks" / "zh"
BEGINS = re.compile(r"^<!-- ([a-z][a-z0-9-]*) ([0-9a-f]{12}) -->\n", re.MULTILINE)
MINUTES = re.compile(r"(?:(?<=^\*\*Minutes\*\* )|(?<=^\*\*时间（分钟）\*\* ))\d+|\d+(?= \|$)", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")


def hash_of(text: str) -> str:
    """A short hash of a cell's English prose."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def prose(stem: str) -> dict[str, tuple[str, str]]:
    """{cell id: (hash of the English prose, Chinese prose)} of a lesson."""
    parts = BEGINS.split((CHINESE / f"{stem}.md").read_text(encoding="utf-8"))[1:]
    return {cell: (rendered, text.strip("\n")) for cell, rendered, text in zip(parts[::3], parts[1::3], parts[2::3])}


def words(stem: str) -> dict[str, str]:
    """{a literal or comment of the code: the same in Chinese} of a lesson."""
    return tomllib.loads((CHINESE / f"{stem}.toml").read_text(encoding="utf-8"))


def literals(source: str):
    """Yields (start, end, text) of each comment and each string literal, prefix and quotes included, in order."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    opened = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":  # from Python 3.12 on, an f-string is many tokens
            opened.append(start)
        elif name == "FSTRING_END" and len(opened) == 1:
            yield opened[0], end, source[opened.pop() : end]
        elif name == "FSTRING_END":
            opened.pop()
        elif name in ("STRING", "COMMENT") and not opened:
            yield start, end, source[start:end]


def translated(source: str, table: dict[str, str]) -> str:
    """The code with each literal and comment that the table has put into Chinese."""
    for start, end, text in reversed([*literals(source)]):
        source = source[:start] + table.get(text, text) + source[end:]
    return source


# the package follows the variable, and so do the processes that a lesson starts
SPEAKS_CHINESE = 'import os\n\nos.environ["ZSC_LANGUAGE"] = "zh"  # zsc_utils 打印的文字用中文\n\n'


def deeper(source: str) -> str:
    """The code of a cell for a folder below: paths out of the folder go one step further up."""
    return re.sub(r'(["\'])\.\.(?=[/"\'])', r"\1../..", source)


def build(stem: str):
    """The Chinese notebook of a lesson, not executed. Raises KeyError for a cell without Chinese prose."""
    notebook, chinese, table = nbformat.read(ENGLISH / f"{stem}.ipynb", as_version=4), prose(stem), words(stem)
    begun = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = chinese[cell.id][1].replace("](../", "](../../")
        else:
            cell.source, cell.outputs, cell.execution_count = deeper(translated(cell.source, table)), [], None
            if not begun:
                cell.source, begun = SPEAKS_CHINESE + cell.source.replace("import os\n", ""), True
    notebook.metadata.pop("fingerprints", None)
    notebook.metadata.pop("seconds", None)
    return notebook


def with_outputs(built, kept):
    """The built notebook with what the executed one holds, where the code is the same; where it differs, no outputs."""
    outputs = {cell.id: cell for cell in kept.cells if cell.cell_type == "code"}
    for cell in built.cells:
        if cell.id in outputs and cell.source == outputs[cell.id].source:
            cell.outputs, cell.execution_count = outputs[cell.id].outputs, outputs[cell.id].execution_count
    built.metadata = kept.metadata
    return built


# ------------------------------------------------------------------------------------------------------- what differs


def faults(stem: str) -> list[str]:
    """What is missing, stale or different in the Chinese edition of a lesson, as sentences."""
    cells = nbformat.read(ENGLISH / f"{stem}.ipynb", as_version=4).cells
    chinese, table = prose(stem), words(stem)
    english = {cell.id: cell.source for cell in cells if cell.cell_type == "markdown"}
    found = [f"{cell}: no English cell of prose has this id" for cell in chinese if cell not in english]
    found += [f"{cell}: not translated" for cell in english if cell not in chinese]
    for cell in english.keys() & chinese.keys():
        rendered, text = chinese[cell]
        if rendered != hash_of(english[cell]):
            found.append(f"{cell}: the English prose has changed; its hash is {hash_of(english[cell])} now")
        found += [f"{cell}: {what}" for what in differences(english[cell], text)]
        found += [f"{cell}: {word} is a word that terms.md avoids" for word in avoided(text)]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    there = {text for source in code for _, _, text in literals(source)}
    found += [f"{text}: stands in no code of the lesson" for text in table if text not in there]
    found += [f"{text}: {word} is a word that terms.md avoids" for text in table.values() for word in avoided(text)]
    return found + [what for pair in table.items() for what in differences_of_code(*pair)]


@cache
def terms() -> tuple[list[str], list[str]]:
    """(the terms in use, the words to avoid) of notebooks/zh/terms.md, longest first."""
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \|([^|]*)\|$", (CHINESE / "terms.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    used = {word.strip() for row, _ in rows for word in re.split("[、，；/]", re.sub(r"（[^）]*）", "", row))}
    lists = [found[1] for _, remark in rows if (found := re.search("避免：([^；（。]*)", remark))]
    avoid = {word.strip() for words in lists for word in words.split("、")}
    return (*(sorted(filter(None, words), key=len, reverse=True) for words in (used, avoid - used)),)


def avoided(chinese: str) -> list[str]:
    """The words to avoid that stand in a text, other than as a part of a term in use: 单元 in 单元格."""
    used, avoid = terms()
    longer = [term for term in used if any(word in term for word in avoid)]
    left = re.sub("|".join(map(re.escape, longer)) or "$^", "", chinese)
    return [word for word in avoid if word in left]


SAME = {
    "headings": re.compile(r"^(#+) ", re.MULTILINE),
    "links": re.compile(r"\]\(([^)]*)\)"),
    "code": re.compile(r"(?<!`)`([^`\n]+)`(?!`)"),
    "formulas": re.compile(r"\$([^$\n]+)\$"),
    "folded parts": re.compile(r"</?(details|summary)>"),
    "rows of tables": re.compile(r"^(\|)", re.MULTILINE),
    "code blocks": re.compile(r"^(```\w*)", re.MULTILINE),
}


def differences(english: str, chinese: str):
    """What differs in form between two proses of one cell: numbers, headings, links, code, formulas, tables."""
    numbers = [Counter(NUMBER.findall(plain(text))) for text in (english, chinese)]
    if numbers[0] != numbers[1]:
        missing, added = numbers[0] - numbers[1], numbers[1] - numbers[0]
        yield f"numbers differ: English alone {[*missing.elements()]}, Chinese alone {[*added.elements()]}"
    for what, pattern in SAME.items():
        one, other = (Counter(pattern.findall(text)) for text in (english, chinese))
        if one != other:
            yield f"{what} differ: English alone {[*(one - other)]}, Chinese alone {[*(other - one)]}"
    for paragraph in re.split(r"\n\s*\n", plain(chinese)):
        latin, own = len(re.findall(r"[A-Za-z]{2,}", paragraph)), len(re.findall(r"[一-鿿]", paragraph))
        if latin > 6 and own < 2 * latin:
            yield f"a paragraph is not Chinese: {paragraph.strip()[:60]}"


def plain(text: str) -> str:
    """Prose without code, links' targets, HTML and the numbers of lists."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<[^>]*>", " ", text, flags=re.DOTALL)
    return re.sub(r"^\s*\d{1,2}\. ", "", text, flags=re.MULTILINE)


def differences_of_code(english: str, chinese: str):
    """What differs between a literal or comment and its Chinese, but for words."""
    if english.startswith("#") or chinese.startswith("#"):
        if not (english.startswith("#") and chinese.startswith("#") and "\n" not in chinese):
            yield f"{english}: a comment stays a comment"
        return
    try:
        one, other = (ast.parse(text, mode="eval").body for text in (english, chinese))
    except SyntaxError:
        yield f"{english}: its Chinese is no literal"
        return
    if inside(one) != inside(other):
        yield f"{english}: what stands in braces, or the numbers, differ"


def inside(literal) -> tuple:
    """What a literal holds besides words: its expressions with their formats, in any order, and its numbers."""
    parts = [ast.unparse(part) for part in ast.walk(literal) if isinstance(part, ast.FormattedValue)]
    texts = [part.value for part in ast.walk(literal) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return type(literal), Counter(parts), Counter(number for text in texts for number in re.findall(r"\d+", text))


# ------------------------------------------------------------------------------------------------------- the commands


def begin(stem: str) -> None:
    """Write the two files of a new translation, in English where Chinese shall stand. Exits if one is there."""
    cells = nbformat.read(ENGLISH / f"{stem}.ipynb", as_version=4).cells
    files = [CHINESE / f"{stem}.md", CHINESE / f"{stem}.toml"]
    if there := [file.name for file in files if file.exists()]:
        sys.exit(f"{', '.join(there)}: begun already")
    parts = [f"<!-- {c.id} {hash_of(c.source)} -->\n{c.source.strip()}\n" for c in cells if c.cell_type == "markdown"]
    files[0].write_text("\n".join(parts), encoding="utf-8")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    texts = dict.fromkeys(t for source in code for _, _, t in literals(source) if re.search(r"[A-Za-z]{3}", t))
    files[1].write_text("".join(f"{quoted(text)} = {quoted(text)}\n" for text in texts), encoding="utf-8")


def renumber(stem: str) -> None:
    """Bring the Chinese opening and map in step if the minutes, and nothing else, have changed in the English ones."""
    file = CHINESE / f"{stem}.md"
    cells = nbformat.read(ENGLISH / f"{stem}.ipynb", as_version=4).cells
    for cell in (cell for cell in cells if cell.id in ("opening", "map")):
        rendered, chinese = prose(stem)[cell.id]
        english, before = MINUTES.findall(cell.source), MINUTES.findall(chinese)
        earlier = with_minutes(cell.source, before) if len(english) == len(before) else ""
        if rendered == hash_of(earlier) != hash_of(cell.source):
            old, new = f"{rendered} -->\n{chinese}", f"{hash_of(cell.source)} -->\n{with_minutes(chinese, english)}"
            file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def with_minutes(text: str, minutes: list[str]) -> str:
    """A text with other minutes in the places where it has some."""
    others = iter(minutes)
    return MINUTES.sub(lambda _: next(others), text)


def quoted(text: str) -> str:
    """A TOML string on one line."""
    if "'" not in text and "\n" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def lessons() -> list[str]:
    """The stems of all lessons that have Chinese prose."""
    return sorted(file.stem for file in CHINESE.glob("*.toml"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("check", "begin", "minutes", "build"))
    parser.add_argument("lessons", nargs="*")
    arguments = parser.parse_args()
    stems, wrong = arguments.lessons or lessons(), 0
    for stem in stems:
        if arguments.command == "begin":
            begin(stem)
        elif arguments.command == "minutes":
            renumber(stem)
        elif arguments.command == "build":
            file = CHINESE / f"{stem}.ipynb"
            built = build(stem)
            nbformat.write(with_outputs(built, nbformat.read(file, as_version=4)) if file.exists() else built, file)
        else:
            found = faults(stem)
            wrong += len(found)
            print(*(f"{stem} · {what}" for what in found), sep="\n", end="\n" * bool(found))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
