"""docs/changing-a-lesson.md is true: its files, commands and tests are there, and its example turns red and green."""

import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import edition
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "changing-a-lesson.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
NAMED = sorted(set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PROSE)))
LESSON = "03_batching"
MADE = (".venv/", "build/")  # what `make` writes, and git ignores
A_FILE = re.compile(r"[\w.-]+/\S*|[\w.-]+\.(?:py|md|toml|ipynb|html|js)|Makefile")


def file_of(name: str) -> Path:
    """The file that a name such as `notebooks/NN_name.ipynb` means in one lesson; a Chinese notebook's is its prose."""
    file = ROOT / name.replace("NN_name", LESSON).replace("NN", LESSON[:2])
    return file.with_suffix(".md") if file.parent == edition.CHINESE and file.suffix == ".ipynb" else file


@cache
def sources() -> str:
    """All that the project's code says."""
    files = [ROOT / "Makefile", ROOT / "claims.toml", *(ROOT / "notebooks").glob("*.ipynb")]
    files += [file for folder in ("scripts", "tests", "zsc_utils") for file in (ROOT / folder).rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.name != Path(__file__).name)


def lacking(name: str) -> str:
    """What is not there of what a name in backticks means; "" if all is."""
    words = shlex.split(name)
    wrong = [word for word in words if (variable := re.match(r"([A-Z_]+)=", word)) and variable[1] not in sources()]
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        wrong += [word for word in words[1:] if f"\n{word}: " not in sources() and f"\n{word}:\n" not in sources()]
    elif words[:3] == ["python", "-m", "pytest"]:
        wrong += [word for word in words[3:] if not file_of(word).exists()]
    elif words[0] == "python" and len(words) > 1:
        wrong += lacking_of_script(*words[1:])
    elif A_FILE.fullmatch(name) and not name.startswith(MADE):
        wrong += [] if file_of(name).exists() else [name]
    elif name.startswith("test_"):
        wrong += [] if f"def {name}(" in sources() else [name]
    elif not name.startswith(MADE):
        wrong += [] if name.rstrip("…()") in sources() or lesson(name) else [name]
    return " ".join(wrong)


def lacking_of_script(script: str, *arguments: str) -> list[str]:
    """The script if it is not there, or those of its arguments that it does not know."""
    if not file_of(script).is_file():
        return [script]
    text = file_of(script).read_text(encoding="utf-8")
    return [word for word in arguments if f'"{word}"' not in text and not lesson(word)]


def lesson(word: str) -> bool:
    """Whether a word stands for a lesson."""
    return (ROOT / "notebooks" / f"{word.replace('NN_name', LESSON)}.ipynb").is_file()


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_there(name):
    assert lacking(name) == ""


@pytest.mark.parametrize(
    "name",
    ["scripts/none.py", "none.md", "make none", "python scripts/none.py", "python scripts/minutes.py --none",
     "python -m pytest tests/none", "NONE_SUCH=zh make lab", "test_that_there_is_not", "no-such-tag",
     "notebooks/zh/NN_none.ipynb"],
)  # fmt: skip
def test_what_is_not_there_is_found(name):
    assert lacking(name)


def test_each_test_of_the_table_stands_in_the_file_of_its_row():
    rows = re.findall(r"^\| `(tests/\S+\.py)`: (.+?) \|", PAGE, re.MULTILINE)
    assert len(rows) >= 14
    for file, names in rows:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in text, f"{name} is not in {file}"


def test_it_is_short():
    assert len(PAGE.splitlines()) < 150


# -------------------------------------------------------------------------------------------------------- the example


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The files of the lesson of the example, where they may be changed."""
    monkeypatch.setattr(edition, "ENGLISH", tmp_path)
    monkeypatch.setattr(edition, "CHINESE", tmp_path / "zh")
    (tmp_path / "zh").mkdir()
    shutil.copy(ROOT / "notebooks" / f"{LESSON}.ipynb", tmp_path)
    for name in (f"{LESSON}.md", f"{LESSON}.toml", "terms.md"):
        shutil.copy(ROOT / "notebooks" / "zh" / name, tmp_path / "zh")
    return tmp_path


def apply(file: Path, changes: str) -> None:
    """Replace the lines of a file that begin with - by those that begin with +, one for one."""
    text = file.read_text(encoding="utf-8")
    for was, becomes in zip(*(re.findall(rf"^{sign}(.*)$", changes, re.MULTILINE) for sign in ("-", r"\+"))):
        assert text.count(was) == 1, f"{was}: is the example of docs/changing-a-lesson.md still current?"
        text = text.replace(was, becomes)
    file.write_text(text, encoding="utf-8")


def test_the_example_turns_red_as_it_says_and_green_again(copied):
    """If the cell of the example was changed, the page gets the new sentence and the hashes that are told here."""
    english, chinese = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert edition.faults(LESSON) == []
    apply(copied / f"{LESSON}.ipynb", english)
    shown = re.findall(rf"^ +{LESSON} · (.+)$", PAGE, re.MULTILINE)
    assert edition.faults(LESSON) == shown
    assert f"Left contains {len(shown)} more items, first extra item: '{shown[0]}'" in PAGE
    apply(copied / "zh" / f"{LESSON}.md", chinese)
    assert edition.faults(LESSON) == []
