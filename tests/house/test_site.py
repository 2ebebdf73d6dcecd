"""README, docs/ and the pages of `make run`: their code runs, their links lead somewhere, what is generated is current.

Minutes are counted: the opening of each lesson of the second edition states what scripts/minutes.py counts.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import defects
import inject
import lesson_map
import minutes
import nbformat
import pytest
import site_pages
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from zsc_utils import claims
from zsc_utils import language as spoken

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="


def read(file):
    return nbformat.read(file, as_version=4)


# ----------------------------------------------------------------------------------------------- what the pages say


def blocks(kind):
    """(document, block) of each block of code of a kind in README and docs."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(rf"^```{kind}\n(.*?)^```$", document.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            found.append((document.name, block))
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("documents")
    news = ["央行下调利率，房贷月供将减少", "主队加时赛逆转夺冠", "古镇推出夜游路线"]
    (folder / "texts.txt").write_text("\n".join(news), "utf-8")
    (folder / "news.txt").write_text("\n".join(news), "utf-8")
    reviews = ["做工精细，用了一年没坏", "客服一直不回消息", "味道很好", "包装破了"] * 2
    (folder / "reviews.csv").write_text("review\n" + "\n".join(reviews), "utf-8")
    (folder / "comments").mkdir()
    (folder / "comments" / "one.csv").write_text("comment\n" + "\n".join(reviews), "utf-8")
    rows = [f"{text},{label}" for text, label in zip(news, ["财经", "体育", "旅游"])] * 3
    (folder / "labelled.csv").write_text("内容,类别\n" + "\n".join(rows), "utf-8")
    return folder


# each document's blocks share their names, in the order of the document; torch is loaded once for all of them
RUN = """
import json, sys, traceback
spaces = {}
for document, block in json.load(sys.stdin):
    try:
        exec(compile(block, document, "exec"), spaces.setdefault(document, {"__name__": "__main__"}))
    except BaseException:
        traceback.print_exc()
        sys.exit(f"this block of {document} fails:\\n{block}")
"""
RUN_COMMANDS = """
import json, sys
from zsc_utils.__main__ import main
for line in json.load(sys.stdin):
    status = main(line)
    if status:
        sys.exit(f"exit status {status}: {line}")
"""


def run_in(folder, code, given):
    ours = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment = {name: value for name, value in os.environ.items() if name != "ZSC_CHECKPOINT"} | ours
    return subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True, cwd=folder,
        env=environment,
    )  # fmt: skip


def test_every_block_of_python_runs(files):
    """About a minute: a Ray cluster, an export and an evaluation are among them."""
    found = blocks("python")
    assert {name for name, _ in found} >= {"README.md", "classifier.md", "command.md", "without-torch.md", "scaling.md"}
    done = run_in(files, RUN, found)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_command_of_the_manual_runs(files):
    lines = [shlex.split(line) for _, block in blocks("sh") for line in block.splitlines()]
    assert {line[1] for line in lines} == {"classify", "plan", "evaluate", "export"}
    assert all(line[0] == "zsc" for line in lines)
    shutil.rmtree(files / "mini-int8", ignore_errors=True)  # the export of a block above
    done = run_in(files, RUN_COMMANDS, [line[1:] for line in lines])
    assert done.returncode == 0, done.stderr[-3000:]
    assert (files / "results.jsonl").is_file() and (files / "results.csv").is_file()


def anchors(document):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{document.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{document.name}: {target}"


def test_the_readme_is_a_page_and_a_half():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert text.count("\n![") == 1  # one picture
    assert all(f"docs/{file.name}" in text for file in DOCUMENTS[1:])


# ----------------------------------------------------------------------------------------------- minutes, and the map


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_opening_states_the_minutes_that_are_counted(file):
    notebook = read(file)
    assert minutes.stated(notebook) == minutes.minutes(notebook), "run: make save"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_opening_asks_a_question(file):
    read(file)
    assert lesson_map.lesson(file).question.endswith("?"), "a line **Question** ...?, or a title that ends in one"


def test_the_map_in_the_readme_is_current():
    text = README.read_text("utf-8")
    found = lesson_map.lessons(ROOT / "notebooks")
    assert lesson_map.readme(text, found, claims.read()) == text, "run: python scripts/lesson_map.py"


def test_the_map_in_notebook_00_is_current():
    cell = lesson_map.map_cell(read(NOTEBOOKS[0]))
    found = lesson_map.lessons(ROOT / "notebooks")
    assert lesson_map.put(cell.source, "lessons", lesson_map.table(found)) == cell.source, "run: make save"


def lesson_of(*more, name="03", seconds=None):
    opening = f"# {name} · Batching: how many at a time?\n\n**Minutes** 40\n\nwords"
    cells = [new_markdown_cell(opening, id="opening"), *more]
    return new_notebook(cells=cells, metadata={} if seconds is None else {"seconds": seconds})


HUNDRED = " ".join(["word"] * 100)


def tagged(tag, source="x = 1", name="cell-1", **more):
    return new_code_cell(source, id=name, metadata={"tags": [tag], **more})


def test_minutes_are_words_exercises_and_seconds():
    read = [new_markdown_cell(HUNDRED, id="prose"), new_code_cell(HUNDRED, id="code")]
    skipped = [
        tagged("solution", HUNDRED, "solution-a"), tagged("check", HUNDRED, "check-a"),
        tagged("exercise", HUNDRED, "try-a"), new_markdown_cell(HUNDRED, id="hints-a"),
    ]  # fmt: skip
    notebook = lesson_of(*read, *skipped, seconds={"code": 90, "prose": 30})
    assert minutes.words(notebook.cells) == 200 + len(notebook.cells[0].source.split())
    assert minutes.exercises(notebook.cells) == 1 and minutes.seconds(notebook) == 120
    assert minutes.exact(notebook) == pytest.approx(2.12 + 5 + 2, abs=0.02) and minutes.minutes(notebook) == 10
    assert minutes.seconds(notebook, read[:1]) == 30  # of a part
    two = lesson_of(new_markdown_cell("?", id="exercise-a"), new_markdown_cell("?", id="exercise-b"), seconds={})
    assert minutes.exercises(two.cells) == 2 and minutes.minutes(two) == 10


def test_a_notebook_that_was_never_timed_has_no_minutes():
    with pytest.raises(ValueError, match="never timed; run: make save"):
        minutes.minutes(lesson_of())
    with pytest.raises(ValueError, match="lacks a line"):
        minutes.stated(new_notebook(cells=[new_markdown_cell("# 01 · A")]))


def test_writing_minutes_changes_the_opening_and_nothing_else(tmp_path):
    file = tmp_path / "03_batching.ipynb"
    nbformat.write(lesson_of(new_markdown_cell(" ".join([HUNDRED] * 20), id="prose"), seconds={}), file)
    before = file.read_text("utf-8")
    assert minutes.write(file) and not minutes.write(file)
    assert file.read_text("utf-8") == before.replace("**Minutes** 40", "**Minutes** 20")


def test_a_map_is_made_from_openings(tmp_path):
    nbformat.write(lesson_of(), tmp_path / "03_batching.ipynb")
    asked = lesson_of(name="04")
    asked.cells[0].source = "# 04 · Attention\n\n**Question** what does a\nmatrix cost?\n\n**Minutes** 25\n"
    nbformat.write(asked, tmp_path / "04_attention.ipynb")
    table = lesson_map.table(lesson_map.lessons(tmp_path), "notebooks/").splitlines()
    assert table[2:] == [
        "| [03 batching](notebooks/03_batching.ipynb) | how many at a time? | 40 |",
        "| [04 attention](notebooks/04_attention.ipynb) | what does a matrix cost? | 25 |",
    ]


@pytest.mark.parametrize(
    "opening, complaint",
    [
        ("# Batching\n\n**Minutes** 5", "03.ipynb: the opening lacks a title"),
        ("# 03 · Batching\n\n**Minutes** 5", "03.ipynb: the opening lacks a line `[*][*]Question"),
        ("# 03 · Batching: why?", "03.ipynb: the opening lacks a line `[*][*]Minutes"),
    ],
)
def test_an_opening_that_lacks_a_part_is_refused_by_name(opening, complaint):
    with pytest.raises(ValueError, match=complaint):
        lesson_map.lesson(Path("03.ipynb"), new_notebook(cells=[new_markdown_cell(opening)]))


@pytest.mark.parametrize(
    "source", ["## The map\n\n| old |\n|---|\n| row |\n\nMore.", "## The map\n\nMAP\n\nMore.", "## The map\n\nMore."]
)
def test_a_map_cell_gets_the_place_of_its_table_once(source):
    made = lesson_map.put(lesson_map.marked(source), "lessons", "| new |")
    assert made.startswith("## The map\n\n") and "More." in made and made.count("| new |") == 1
    assert "old" not in made and "MAP" not in made and lesson_map.marked(made) == made


def test_a_page_without_a_place_for_the_map_is_refused():
    with pytest.raises(ValueError, match="0 places between <!-- lessons -->"):
        lesson_map.put("# A page", "lessons", "| table |")


# -------------------------------------------------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site of two lessons, the first with a picture, a solution and a check, and wide things."""
    folder = tmp_path_factory.mktemp("site")
    picture = new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})
    wide = "| " + " | ".join(["column_of_a_table"] * 12) + " |"
    first = lesson_of(
        new_markdown_cell(f"## Padding\n\nA 标签 is padded.\n\n{wide}\n{'|---' * 12}|\n", id="padding"),
        new_code_cell("x = '" + "wide " * 60 + "'", id="draw-a", outputs=[picture]),
        new_markdown_cell("a_word_that_is_far_too_long_for_a_phone" * 4, id="long-word"),
        tagged("solution", "answer = 42", "solution-a"),
        tagged("check", "assert answer == 42", "check-a"),
        new_markdown_cell("## Next\n\n[next](04_attention.ipynb)", id="next"),
    )
    second = lesson_of(new_markdown_cell("## Matrices </script>", id="matrices"), name="04")
    files = [Path("03_batching.ipynb"), Path("04_attention.ipynb")]
    made = site_pages.Site(folder, [lesson_map.lesson(*one) for one in zip(files, [first, second])])
    made.add(0, first)
    made.add(1, second)
    made.finish(claims.read())
    return folder


def page(site, name):
    return (site / name).read_text("utf-8")


def test_the_index_maps_the_lessons(site):
    index = page(site, "index.html")
    assert index.count("how many at a time?") == 2 and index.count("40 minutes") == 2 and "80 minutes in all" in index
    assert index.count(f'src="data:image/png;base64,{PIXEL}"') == 1  # the second lesson has no figure
    assert claims.score(claims.read()) in index and 'href="01_memory_analysis.html"' in index
    assert ("calculator.html" in index) == (ROOT / "pages" / "calculator.html").is_file()


def test_a_drawing_in_html_is_a_picture_too():
    drawn = new_output(
        "display_data", data={"text/html": '<img alt="a &lt; b" style="x" src="data:image/svg+xml,%3Csvg">'}
    )
    table = new_output("display_data", data={"text/html": "<table></table>"})
    cells = [new_code_cell("1", id=f"cell-{i}", outputs=[out]) for i, out in enumerate([table, drawn])]
    assert site_pages.first_picture(new_notebook(cells=cells)) == ("data:image/svg+xml,%3Csvg", "a < b")
    assert site_pages.first_picture(new_notebook(cells=cells[:1])) is None


def test_solutions_are_folded_and_checks_left_out(site):
    made = page(site, "03_batching.html")
    ((name, solution),) = re.findall(
        r'<details class="folded"><summary>(.*?)</summary>(.*?)</details>', made, re.DOTALL
    )
    assert name == "Solution" and "42" in solution and "assert" not in made
    assert "wide wide" in re.sub(r"<details.*?</details>", "", made, flags=re.DOTALL)  # other cells are not


def test_each_page_has_a_bar_of_links(site):
    first, second = page(site, "03_batching.html"), page(site, "04_attention.html")
    assert 'href="04_attention.html" rel="next"' in first and 'rel="prev"' not in first
    assert 'href="03_batching.html" rel="prev"' in second and 'rel="next"' not in second
    assert first.count('href="index.html"') == 2  # above and below
    assert 'href="04_attention.html">next' in first  # a link of the lesson itself
    assert 'alt="Figure drawn by the cell draw-a"' in first


def test_the_calculator_is_copied_and_linked_if_there_is_one(tmp_path):
    assert site_pages.copy_calculator(tmp_path / "site", tmp_path / "none") == ""
    (tmp_path / "pages").mkdir()
    for name in ("calculator.html", "bill.js"):
        (tmp_path / "pages" / name).write_text("x")
    assert site_pages.copy_calculator(tmp_path / "site", tmp_path / "pages") == "calculator.html"
    assert {file.name for file in (tmp_path / "site").iterdir()} == {"calculator.html", "bill.js"}


def test_what_the_search_reads_leads_to_cells_that_there_are(site):
    held = page(site, "sections.js").removeprefix("const SECTIONS = ").rstrip(";\n")
    assert "</script>" not in held
    found = json.loads(held)
    assert [one["title"] for one in found] == [
        "03 · Batching: how many at a time?", "03 · Batching › Padding", "03 · Batching › Next",
        "04 · Batching: how many at a time?", "04 · Batching › Matrices </script>",
    ]  # fmt: skip
    for one in found:
        name, anchor = one["page"].split("#")
        assert f'id="{anchor}"' in page(site, name)
    assert "wide wide" in found[1]["text"]


SEARCH = """
const fs = require("fs"), vm = require("vm"), [folder, asked] = process.argv.slice(1);
const made = () => ({ children: [], textContent: "", addEventListener() {}, replaceChildren() { this.children = []; },
  appendChild(one) { this.children.push(one); return one; } });
const none = /data-none="([^"]*)"/.exec(fs.readFileSync(folder + "/index.html", "utf8"))[1];
const parts = { search: Object.assign(made(), { value: "" }), found: Object.assign(made(), { dataset: { none } }) };
const space = { document: { getElementById: (id) => parts[id], createElement: made }, URLSearchParams,
  location: { search: "?q=" + encodeURIComponent(asked) } };
space.globalThis = space.window = space;
vm.createContext(space);
for (const name of ["minisearch.js", "sections.js", "search.js"])
  vm.runInContext(fs.readFileSync(folder + "/" + name, "utf8"), space);
const told = (one) => one.href || one.textContent || one.children.map(told)[0];
console.log(JSON.stringify(parts.found.children.map(told)));
"""


@pytest.mark.parametrize(
    "asked, first", [("padd", "03_batching.html#cell-id=padding"), ("标签", "03_batching.html#cell-id=padding"),
                     ("matrices", "04_attention.html#cell-id=matrices"), ("xyzzy", "No lesson has “xyzzy”.")]
)  # fmt: skip
def test_the_search_finds_a_section(site, asked, first):
    assert found_by_search(site, asked)[0] == first


def found_by_search(site, asked):
    """Where the search of an index leads to, best first, or what it says instead."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the search was not run")
    done = subprocess.run(["node", "-e", SEARCH, str(site), asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MEASURE = """<!DOCTYPE html><iframe id="page" src="{}" style="width:390px;height:800px;border:0"></iframe>
<script>onload = () => {{
  const held = document.getElementById("page").contentDocument, width = held.documentElement.clientWidth;
  const scrolls = (one) => one && (/auto|scroll/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  const over = [...held.querySelectorAll("body *")].filter(
    (one) => one.getBoundingClientRect().right > width + 1 && !scrolls(one.parentElement));
  document.title = [width, held.documentElement.scrollWidth, over.length].join(" ");
}};</script>"""


@pytest.mark.parametrize("name", ["index.html", "03_batching.html"])
def test_no_page_is_wider_than_a_phone(site, name):
    """Wide code, tables and words scroll inside their boxes or wrap: nothing stands outside of the window."""
    assert measured(site, name) == "390 390 0"


def measured(site, name):
    """The width of a phone, that of a page in it, and how many parts stand outside."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed: the width of pages was not measured")
    (site / "measure.html").write_text(MEASURE.format(name), "utf-8")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run([browser, *options, (site / "measure.html").as_uri()], capture_output=True, text=True)
    return re.findall("<title>(.*?)</title>", done.stdout)[0]


# ------------------------------------------------------------------------------------------------ the Chinese edition


OPENINGS = {"en": ("Batching", "how many at a time?", ": "), "zh": ("批处理", "一次多少？", "：")}
CELLS = (
    ("padding", "## 填充\n\n标签先填充。批量。"),
    ("others", "## 其他\n\n充分利用内存，再填写标签。"),
    ("away", "[字节]({}pages/calculator.html#layers=2) [命令]({}docs/command.md) [下一课](04_attention.ipynb#cell)"),
    ("drawn", "![图]({}benchmarks/figures/amx-containers.svg)"),
)


def edition_of(folder, language):
    """The folder of one edition in the folder of a site: a lesson with links out of its folder, and a figure."""
    name, question, colon = OPENINGS[language]
    steps = {"en": "../", "zh": "../../"}[language]
    words = [(cell, source.format(*[steps] * source.count("{}"))) for cell, source in CELLS]
    cells = [("opening", f"# 03 · {name}{colon}{question}"), *words]
    figure = new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})
    code = [new_code_cell("1", id="draw-a", outputs=[figure]), tagged("solution", "answer = 42", "solution-a")]
    notebook = new_notebook(cells=[*(new_markdown_cell(source, id=cell) for cell, source in cells), *code])
    own = folder / "zh" if language == "zh" else folder
    made = site_pages.Site(
        own, [lesson_map.Lesson(Path("03_batching.ipynb"), "03", name, question, 40)], language, True
    )
    made.add(0, notebook)
    made.finish(claims.read())
    return own


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """{language: the folder of an edition} of a site of two."""
    folder = tmp_path_factory.mktemp("editions") / "site"
    return {language: edition_of(folder, language) for language in OPENINGS}


def words_of(page):
    """What a reader reads of a page: no tags, styles, scripts, code or pictures."""
    page = re.sub(r"<(style|script|code|pre)\b.*?</\1>", " ", page, flags=re.DOTALL)
    said = re.findall(r'(?:aria-label|placeholder|data-none|alt)="([^"]*)"', page)
    return re.sub(r"<[^>]*>", " ", page) + " ".join(said)


def test_every_word_of_the_chinese_pages_is_chinese(editions):
    for name in ("index.html", "03_batching.html"):
        held = page(editions["zh"], name)
        assert held.count('<html lang="zh-CN">') == 1
        words = words_of(held).replace("English", "")
        assert not re.search(r"(?:\b[a-z]{2,}[ ,]+){3}", words), name
        for said in ("Lessons", "Index", "Search", "Calculator", "Solution", "Figure", "figure", "minutes", "claim"):
            assert not re.search(rf"\b{said}\b", words), (name, said)
    index = page(editions["zh"], "index.html")
    assert "全部课程共 40 分钟，约 1 小时" in index and "前面的词。<a" in index  # without a gap
    assert "<title>用更少的内存做零样本分类</title>" in index
    assert "34 条说法中 34 条已有结论：" in index and 'href="01_memory_analysis.html"' in index
    assert 'alt="第一幅图，由单元格 draw-a 画出"' in index
    assert "<summary>参考答案</summary>" in page(editions["zh"], "03_batching.html")
    assert spoken.in_use() == "en"


def test_the_english_pages_stay_english_where_chinese_is_spoken(editions, tmp_path):
    spoken.use("zh")
    try:
        made = site_pages.Site(tmp_path, [])
        made.finish(claims.read())
    finally:
        spoken.use("en")
    index = page(tmp_path, "index.html")
    assert claims.score(claims.read()) in index and "台账" not in index


@pytest.mark.parametrize("name", ["index.html", "03_batching.html", "calculator.html?lang=zh"])
def test_no_chinese_page_is_wider_than_a_phone(editions, name):
    assert measured(editions["zh"], name) == "390 390 0"


@pytest.mark.parametrize("name", ["index.html", "03_batching.html"])
def test_a_page_leads_to_itself_in_the_other_edition(editions, site, name):
    english, chinese = page(editions["en"], name), page(editions["zh"], name)
    times = 1 if name == "index.html" else 2  # above and below
    assert len(re.findall(f'<a [^>]*href="zh/{name}"[^>]*>中文</a>', english)) == times
    assert len(re.findall(f'<a [^>]*href="\\.\\./{name}"[^>]*>English</a>', chinese)) == times
    assert "中文</a>" not in page(site, name)  # without a second edition


@pytest.mark.parametrize("language", ["en", "zh"])
def test_links_that_leave_the_notebooks_lead_to_the_checkout(editions, language):
    folder = editions[language]
    made = page(folder, "03_batching.html")
    targets = re.findall(r'(?:href|src)="([^"]*(?:command\.md|amx-containers\.svg|calculator\.html)[^"]*)"', made)
    assert len(targets) == 5  # the calculator is in the two bars too
    for target in targets:
        assert (folder / re.split("[#?]", target)[0]).is_file(), target
    assert 'href="calculator.html#layers=2"' in made and 'href="04_attention.html#cell"' in made


@pytest.mark.parametrize("language, other", [("en", 'data-zh="zh/index.html"'), ("zh", 'data-en="../index.html"')])
def test_the_calculator_speaks_as_the_page_that_links_to_it(editions, language, other):
    assert f'href="calculator.html?lang={language}"' in page(editions[language], "index.html")
    calculator = page(editions[language], "calculator.html")
    assert other in calculator and f'data-{language}="index.html"' in calculator


def test_the_search_of_the_chinese_edition_finds_words_not_characters(editions):
    zh = editions["zh"]
    assert found_by_search(zh, "填充") == ["03_batching.html#cell-id=padding"]  # the other section has 填 and 充 apart
    assert set(found_by_search(zh, "标签")) == {f"03_batching.html#cell-id={cell}" for cell in ("padding", "others")}
    assert found_by_search(zh, "标签 批量") == found_by_search(zh, "批量") == ["03_batching.html#cell-id=padding"]
    assert found_by_search(zh, "充") == ["03_batching.html#cell-id=others", "03_batching.html#cell-id=padding"][::-1]
    assert found_by_search(zh, "没有这个词") == ["没有哪一课里有“没有这个词”。"]
    held = json.loads(page(zh, "sections.js").removeprefix("const SECTIONS = ").rstrip(";\n"))
    assert [one["title"] for one in held] == ["03 · 批处理：一次多少？", "03 · 批处理 › 填充", "03 · 批处理 › 其他"]


SAYS = re.compile(r'"([^"]+)" \| said|said\(\s*"([^"]+)"|partial\(said, "([^"]+)"')


def test_every_english_text_of_the_pages_has_its_chinese_and_no_chinese_is_left_over():
    files = [*site_pages.TEMPLATES.glob("*.j2"), Path(site_pages.__file__)]
    said = {text for file in files for found in SAYS.findall(file.read_text("utf-8")) for text in found if text}
    assert said - {"words"} == site_pages.words().keys() and len(said) > 10  # an example in a comment
    for english, chinese in site_pages.words().items():
        assert sorted(re.findall(r"{\d}", english)) == sorted(re.findall(r"{\d}", chinese)), english
        assert re.search("[一-鿿]", chinese), english


@pytest.mark.parametrize("name", [file.name for file in sorted(site_pages.TEMPLATES.glob("*.j2"))])
def test_no_words_of_a_template_are_english_in_both_editions(name):
    text = (site_pages.TEMPLATES / name).read_text("utf-8")
    text = re.sub(r"{[{%#].*?[}%#]}|<[^>]*>", "", text, flags=re.DOTALL)
    assert not re.search("[A-Za-z]{2}", text), text


def test_a_language_or_a_word_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="language 'fr'"):
        site_pages.Site(tmp_path, [], "fr")
    with pytest.raises(KeyError, match="no such words"):
        site_pages.said("no such words", language="zh")


# ------------------------------------------------------------------------------------------ defects for the gates


@pytest.mark.parametrize("defect", defects.DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_says_that_it_changed_something_if_and_only_if_it_did(defect, tmp_path):
    for name in ("README.md", "claims.toml"):
        shutil.copy(ROOT / name, tmp_path)
    texts = {file: file.read_text("utf-8") for file in tmp_path.iterdir()}
    places = []
    for file in NOTEBOOKS:
        notebook = nbformat.read(file, as_version=4)
        before = json.dumps(notebook)
        what = defect.make(tmp_path, file, notebook)
        changed = json.dumps(notebook) != before or any(f.read_text("utf-8") != texts[f] for f in texts)
        assert changed == bool(what), f"{file.stem}: {what}"
        for written in texts:
            written.write_text(texts[written], "utf-8")
        places.append(what)
    if not any(places):
        pytest.skip("no lesson has a place for this defect")


def test_there_are_forty_defects_of_different_names():
    assert len({defect.name for defect in defects.DEFECTS}) == len(defects.DEFECTS) == 40


def test_a_copy_of_the_checkout_is_brought_back(tmp_path):
    (root := tmp_path / "root").mkdir()
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for name, text in (("kept.txt", "a"), ("ignored.txt", "b"), (".gitignore", "ignored.txt\n")):
        (root / name).write_text(text)
    copy = inject.Copy(tmp_path / "copy", root)
    assert {file.name for file in copy.folder.iterdir()} == {"kept.txt", ".gitignore"}
    (copy.folder / "kept.txt").write_text("spoilt")
    copy.undo()
    assert (copy.folder / "kept.txt").read_text() == "a" and (root / "kept.txt").read_text() == "a"


def test_the_table_counts_what_is_caught():
    outcomes = [
        inject.Outcome("a", "03: cell", inject.CAUGHT, "house: test_x"),
        inject.Outcome("b", "", inject.NO_PLACE),
    ]
    lines = inject.table([*outcomes, inject.Outcome("c", "04: cell", inject.MISSED)]).splitlines()
    assert lines[1].split() == ["a", "caught", "house:", "test_x", "03:", "cell"]
    assert lines[-1] == "1 caught, 1 not caught, 1 without a place"
