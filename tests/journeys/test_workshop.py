"""A workshop: what is picked fits, nothing that is picked lacks a name, learners get no solutions.

Its wheels are not downloaded here.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import parts as dividing
import pytest
import workshop
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
HUNDRED = " ".join(["word"] * 100)


def cell(name, source, tag=None, **more):
    return new_code_cell(source, id=name, metadata={"tags": [tag]} if tag else {}, **more)


def prose(name, source):
    return new_markdown_cell(source, id=name)


def exercise(name, header=""):
    return [
        prose(f"exercise-{name}", f"{header}**{name}** {HUNDRED}"),
        cell(f"try-{name}", f"{name} = ...", "exercise"),
        prose(f"hints-{name}", "<details><summary>Hint 1</summary>a</details>"),
        cell(f"solution-{name}", f"{name} = 1", "solution", outputs=[new_output("stream", text="right")]),
    ]


def lesson(number, extra=0):
    """A lesson: Used needs `rows`, which Changed fills; Alone needs neither; Apart takes `extra` minutes."""
    opening = f"# {number} · A lesson: how?\n\n**Minutes** 40\n\n[03](03_c.ipynb), [09](09_x.ipynb)"
    cells = [
        prose("opening", opening), cell("imports", "import math\nrows = []"),
        prose("first", f"## First\n\n{HUNDRED}"),
        cell("machine", "print(1)", "nbval-ignore-output", outputs=[new_output("stream", text="2 cores")]),
        prose("alone", f"## Alone\n\n{HUNDRED}"), cell("try-alone", "apart = math.pi"),
        prose("changed", f"## Changed\n\n{HUNDRED}"), cell("fill", "rows.append(3)"),
        prose("apart", "## Apart\n\n" + " ".join([HUNDRED] * extra)), cell("far", "y = 1"),
        prose("used", "## Used\n\nfew words"), cell("use", "print(rows[0])"),
        prose("map", "## The map\n\nall"), prose("remember", "## Remember\n\nit"), prose("exercises", "## Exercises"),
        *exercise("one"), *exercise("two"), prose("next", "## Next\n\n[03](03_c.ipynb)"),
    ]  # fmt: skip
    return new_notebook(cells=cells, metadata={"seconds": {"fill": 60}})


def titles(one):
    return [one.parts[number].title for number in sorted(one.picked)]


@pytest.fixture
def folder(tmp_path):
    for number, extra in (("00", 150), ("01", 45), ("03", 150)):
        nbformat.write(lesson(number, extra), tmp_path / f"{number}_c.ipynb")
    return tmp_path


def picked(folder, length):
    files = [folder / f"{name}_c.ipynb" for name in workshop.COURSES[length] if (folder / f"{name}_c.ipynb").is_file()]
    return workshop.pick([workshop.read(file) for file in files], length)


# --------------------------------------------------------------------------------------------------------- its parts


def test_a_lesson_is_divided_at_its_headings_and_exercises():
    found = dividing.split(lesson("00", 1))
    assert [(part.kind, part.title) for part in found] == [
        ("beginning", "Beginning"), ("section", "First"), ("section", "Alone"), ("section", "Changed"),
        ("section", "Apart"), ("section", "Used"), ("remember", "Remember"), ("exercise", "one"), ("exercise", "two"),
    ]  # fmt: skip
    by_title = {part.title: part for part in found}
    assert [one.id for one in by_title["one"].cells] == ["exercise-one", "try-one", "hints-one", "solution-one"]
    assert [one.id for one in by_title["Alone"].cells] == ["alone", "try-alone"]  # no exercise bears that name
    assert by_title["Changed"].minutes == pytest.approx(1.04 + 1, abs=0.05)  # 60 seconds are its cell's
    assert by_title["one"].minutes == pytest.approx(6.02, abs=0.05)


def test_a_part_needs_what_defines_or_changes_its_names():
    found = dividing.split(lesson("00", 1))
    needs = {part.title: {found[number].title for number in part.needs} for part in found}
    assert needs["Used"] == {"Beginning", "Changed"}
    assert needs["Alone"] == needs["Changed"] == {"Beginning"} and needs["First"] == needs["one"] == set()


@pytest.mark.parametrize(
    "code, name",
    [("a = 1", "a"), ("a['x'] = 1", "a"), ("a.b.c = 1", "a"), ("a += 1", "a"), ("a.update(x=1)", "a"),
     ("a[0] += 1", "a"),
     ("def a(): pass", "a"), ("import a.b", "a"), ("from x import a", "a"), ("for a in b: pass", "a"),
     ("a[0].append(1)", "a"), ("with b as a: pass", "a"), ("if b:\n    a, c = 1, 2", "a")]
)  # fmt: skip
def test_every_way_to_make_or_change_a_name_is_seen(code, name):
    part = dividing.Part("section", "s", [cell("one", code)])
    assert name in dividing.names(part)[0]
    assert "z" not in dividing.names(dividing.Part("section", "s", [cell("one", "z.read(); print(z[0], z.b)")]))[0]


@pytest.mark.parametrize(
    "code, used",
    [("a = 1\nprint(a)", "print"), ("a = a + 1", "a"), ("a += 1", "a"), ("for a in b:\n    a", "b"),
     ("[a for a in b]", "b"), ("def f(a):\n    c = a\n    return c + d", "d"), ("def f():\n    return a\na = 1", ""),
     ("with a as b:\n    b.x", "a"), ("def f():\n    try:\n        a\n    except E as e:\n        e", "a E"),
     ("try:\n    a\nexcept E as e:\n    e", "a E"), ("if a:\n    b = 1\nb", "a"), ("lambda a: a * b", "b")]
)  # fmt: skip
def test_a_name_is_used_if_it_comes_from_before(code, used):
    assert dividing.names(dividing.Part("section", "s", [cell("one", code)]))[1] == set(used.split())


# ----------------------------------------------------------------------------------------------------- what is picked


@pytest.mark.parametrize("length", workshop.COURSES)
def test_what_is_picked_fits_and_leaves_time_for_questions(folder, length):
    lessons = picked(folder, length)
    taken = sum(one.minutes for one in lessons) + workshop.WELCOME + workshop.CLOSING + workshop.BREAKS[length]
    assert 0 < taken <= length * 0.9 + 1e-9
    for one in lessons:
        assert {"Beginning", "First", "Remember", "one"} <= set(titles(one))
        assert all(one.parts[number].needs <= one.picked for number in one.picked)
    assert "Apart" not in titles(lessons[0])  # longer than any workshop has room for
    assert "Used" in titles(lessons[0])  # what comes after it is picked all the same, with what it needs


def test_a_longer_workshop_has_more(folder):
    assert [len(picked(folder, length)) for length in workshop.COURSES] == [1, 3, 3]
    assert sum(one.minutes for one in picked(folder, 180)) > sum(one.minutes for one in picked(folder, 90))


def test_a_lesson_that_does_not_fit_goes_and_a_first_one_is_refused(tmp_path):
    for number, words in (("00", 400), ("01", 6000)):
        long = lesson(number)
        long.cells[2].source += " word" * words
        nbformat.write(long, tmp_path / f"{number}_c.ipynb")
    assert [one.opening.number for one in picked(tmp_path, 90)] == ["00"]
    (tmp_path / "00_c.ipynb").rename(tmp_path / "kept")
    (tmp_path / "01_c.ipynb").rename(tmp_path / "00_c.ipynb")
    with pytest.raises(ValueError, match="45 minutes: 00_c.ipynb takes 6[0-9] of 30 at least"):
        picked(tmp_path, 45)


def test_lessons_that_were_never_timed_are_refused(folder):
    untimed = lesson("00")
    del untimed.metadata["seconds"]
    nbformat.write(untimed, folder / "00_c.ipynb")
    with pytest.raises(ValueError, match="00_c.ipynb: its cells were never timed; run: make save"):
        workshop.read(folder / "00_c.ipynb")


# --------------------------------------------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The lessons that there are; the seconds of one that was never timed count as none."""
    folder = tmp_path_factory.mktemp("lessons")
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        notebook.metadata.setdefault("seconds", {})
        nbformat.write(notebook, folder / file.name)
    return folder


def made(folder, output, length):
    command = [sys.executable, ROOT / "scripts" / "workshop.py", "--minutes", str(length), "--no-wheelhouse"]
    command += ["--notebooks", folder, "--output", output]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module", params=workshop.COURSES)
def written(real, tmp_path_factory, request):
    output = tmp_path_factory.mktemp("workshop") / "out"
    done = made(real, output, request.param)
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param, output


def notebooks(folder):
    return {file.name: nbformat.read(file, as_version=4) for file in sorted(folder.glob("*.ipynb"))}


def test_the_agenda_has_every_minute(written):
    length, output = written
    agenda = (output / "agenda.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d):(\d\d) \| (\d+) \| (.+) \|$", agenda, re.MULTILINE)
    begins = [60 * int(hours) + int(minutes) for hours, minutes, _, _ in rows]
    assert begins[0] == 0 and begins == sorted(begins)
    assert all(begin + int(row[2]) == after for begin, row, after in zip(begins, rows, begins[1:]))
    assert begins[-1] + int(rows[-1][2]) == length
    assert "exercise" in agenda and ("Break" in agenda) == (length == 180)
    assert {name[:2] for name in notebooks(output / "learner")} <= set(workshop.COURSES[length])


def test_learners_get_no_solution_and_no_output_and_instructors_get_both(written):
    _, output = written
    learner, instructor = notebooks(output / "learner"), notebooks(output / "instructor")
    assert learner.keys() == instructor.keys() and learner
    for name in learner:
        ids = [one.id for one in learner[name].cells]
        assert not [one for one in ids if one.startswith("solution-")]
        assert [one.id for one in instructor[name].cells if not one.id.startswith("solution-")] == ids
        assert any(one.id.startswith("solution-") for one in instructor[name].cells)
        assert not any(one.get("outputs") or one.get("execution_count") for one in learner[name].cells)
        assert any(one.get("outputs") for one in instructor[name].cells)


def test_no_cell_of_a_workshop_lacks_a_name(written, real):
    """Each name that the whole lesson defines at the top is defined in the workshop's notebook before it is used."""
    _, output = written
    for name, notebook in notebooks(output / "learner").items():
        whole = dividing.Part("section", "", nbformat.read(real / name, as_version=4).cells)
        known, defined = dividing.names(whole)[0], set()
        for one in notebook.cells:
            makes, uses = dividing.names(dividing.Part("section", "", [one]))
            defined |= makes
            assert uses & known <= defined, f"{name}, {one.id}: {uses & known - defined}"


def test_links_lead_to_lessons_of_the_workshop(written):
    _, output = written
    for notebook in notebooks(output / "learner").values():
        for one in notebook.cells:
            for target in re.findall(r"\]\((\d\d_\w+\.ipynb)", one.source):
                assert (output / "learner" / target).is_file(), target


def test_the_module_and_the_records_are_beside_the_notebooks(written):
    _, output = written
    assert (output / "zsc_utils" / "data" / "mini").is_dir() and (output / "claims.toml").is_file()
    assert list((output / "benchmarks" / "records").glob("*.json"))
    assert (output / "learner" / "matplotlibrc").is_file()
    project = tomllib.loads((output / "pyproject.toml").read_text("utf-8"))["project"]
    named = [project["readme"], *project["license-files"]]
    assert all((output / name).is_file() for name in named)  # what its installation reads


def test_wrong_answers_are_those_of_the_exercises_that_were_picked(folder, tmp_path):
    (told := tmp_path / "answers").mkdir()
    entry = "[[wrong]]\nexercise = \"{}\"\ncode = '''\n{} = 2\n'''\nsays = \"a term\"\nthinks = \"so\"\n"
    (told / "00_c.toml").write_text("".join(entry.format(name, name) for name in ("one", "other")), "utf-8")
    page = workshop.wrong_answers(picked(folder, 45), told)
    assert "## 00, one" in page and "```python\none = 2\n```" in page and "- thinks: so" in page
    assert "… a term …" in page and "other" not in page
    assert "None is written" in workshop.wrong_answers(picked(folder, 45), tmp_path / "none")


def test_what_varies_is_told_with_the_output_of_the_authors(folder):
    assert "## 00, cell `machine`\n\n```text\n2 cores\n```" in workshop.varies(picked(folder, 45))


def test_the_minutes_and_links_of_a_part_are_its_own(folder):
    lessons = picked(folder, 45)
    opening = workshop.cells_of(lessons[0], lessons, solutions=False)[0].source
    stated = int(re.search(r"\*\*Minutes\*\* (\d+)", opening)[1])
    assert abs(stated - lessons[0].minutes) <= 2.5
    assert opening.endswith("03, 09")  # neither is part of a workshop of 45 minutes


@pytest.mark.parametrize("length", ["60", "0", "ninety"])
def test_other_lengths_are_refused_by_name(real, tmp_path, length):
    done = made(real, tmp_path / "out", length)
    assert done.returncode == 1 and done.stderr == f"MINUTES={length}: choose one of 45, 90, 180\n"
    assert not (tmp_path / "out").exists()


def test_the_wheels_are_of_the_pinned_versions_and_torch_comes_first(folder):
    pins = workshop.pinned(["notebooks"])
    assert pins[0].startswith("torch==") and all("==" in pin for pin in pins)
    assert not [pin for pin in pins if pin.startswith(("zsc-utils", "ray"))]
    assert [pin for pin in workshop.pinned(["notebooks", "scale"]) if pin.startswith("ray")]
    assert workshop.extras(picked(folder, 90)) == ["notebooks"]
