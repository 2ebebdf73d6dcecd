"""Tables and charts of the benchmarks, from the records of every kind of machine that there are.

python benchmarks/report.py. A table stands between the lines `<!-- records: NAME -->` and `<!-- end -->`: the tables in
docs/measured.md, details of the lab in benchmarks/README.md, a picture and a summary in README.md and, in Chinese, in
README.zh-CN.md. A chart stands in benchmarks/figures. Each names its processor, and nothing else in those pages is
changed.
"""

import re
import textwrap
from pathlib import Path

from machine import RECORDS, records, weights_of_mini, write
from matplotlib import pyplot

from zsc_utils import plots
from zsc_utils.language import in_use, speaking, translated, wrapped

README = Path(__file__).parent.parent / "README.md"
README_ZH = README.with_name("README.zh-CN.md")
METHOD = Path(__file__).parent / "README.md"
MEASURED = README.parent / "docs" / "measured.md"
FIGURES = Path(__file__).parent / "figures"
LIBRARIES = ("onnxruntime", "sentence_transformers", "accelerate")  # whose versions the record has, by module
BASELINE = "transformers pipeline"
# what README.zh-CN.md and its chart say, but for what the package says; names of ways are the package's
CHINESE = {
    ", ": "，",
    "; ": "；",
    "1 thread": "1 个线程",
    "{} threads": "{} 个线程",
    "1 turn": "1 轮",
    "median of {} turns": "{} 轮的中位数",
    "{} texts": "{} 段文本",
    "answers to every {}th headline": "每 {} 条新闻标题取一条比较答案",
    "over {} MB": "超过 {} MB",
    "Texts a second over the whole process on {}: this project and its peers": (
        "{} 上每秒文本数与整个进程的内存：本项目与同类方案"
    ),
    "the pipeline of transformers → ours": "transformers 的 pipeline → 我们的方案",
    "whole process": "整个进程",
    "smallest container": "最小的容器",
    "speed without a limit": "不设上限时的速度",
    "Ours is the way with the smallest container: {}.": "“我们的方案”取所需容器最小的方式：{}。",
    "*{0}* on {1}": "在 {1} 上是*{0}*",
}


def said(english: str, *values: object) -> str:
    """Words of README and its chart in the language in use, with values in their braces."""
    return (CHINESE[english] if in_use() == "zh" else english).format(*values)


def made_on(record: dict) -> str:
    """Machine, turns, versions and date of a record, in a line."""
    names = [name for name in ("torch", "transformers", *LIBRARIES) if name in record]
    threads, turns = record["threads"], record["turns"]
    machine = [record["processor"], said("{} threads" if threads > 1 else "1 thread", threads)]
    machine.append(said("median of {} turns" if turns > 1 else "1 turn", turns))
    if "texts" in record:
        machine.append(said("{} texts", record["texts"]))
    parts = [said(", ").join(machine)]
    if record.get("every", 1) > 1:
        parts.append(said("answers to every {}th headline", record["every"]))
    versions = said(", ").join(f"{name} {record[name]}" for name in names)
    return said("; ").join([*parts, versions, record["date"]])


def head(record: dict, *columns: str) -> list[str]:
    """The first two lines of a table, which name processor and kind."""
    cells = (f"{record['processor']}: {record['kind']}", *columns)
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def source(record: dict) -> str:
    """Where a table comes from, in a line."""
    file = f"benchmarks/records/{record['kind']}.json"
    return f"Recorded in [{file}]({file}): {made_on(record)}.{of_other_weights(record)}"


def of_other_weights(record: dict) -> str:
    """What to say of answers that `mini` gave before it was trained further; "" for those of the bundled weights."""
    other = record.get("mini", weights_of_mini()) != weights_of_mini()
    return " The same answers are those of an earlier `mini`." if other and {"ways", "engines"} & record.keys() else ""


def peers(record: dict) -> list[str]:
    """A record of process growth after imports, lines of Markdown: an older meter, which no benchmark uses any more."""
    lines = head(record, "process grew by (older meter)", "texts a second", "speed", "same answers")
    for engine, one in record["engines"].items():
        cells = (
            f"{one['total'] / 1e6:.0f} MB | {one['texts_per_second']:.2f} | {one['speed']:.2f} | {one['agreement']:.1%}"
        )
        lines.append(f"| {engine} | {cells} |")
    if other := record.get("ModelScope"):  # measured by itself, after the others, by another meter still
        name, size = f"ModelScope's, on transformers {other['transformers']}", f"{other['total'] / 1e6:.0f} MB"
        lines.append(f"| {name} | {size} | {other['texts_per_second']:.2f} | | |")
    return lines


def offloading(record: dict) -> list[str]:
    """The record of offloading.py, lines of Markdown."""
    lines = head(record, "process grew by", "seconds")
    for engine, size in record["bytes"].items():
        lines.append(f"| {engine} | {size / 1e6:.0f} MB | {record['seconds'][engine]:.1f} |")
    furthest = max(record["furthest_score"].values())
    return [*lines, "", f"Scores are those of the model in memory, {f'to {furthest:.0e}' if furthest else 'exactly'}."]


def smallest(one: dict) -> int | None:
    """The smallest container in which a way worked, in MB; None if there is none."""
    return min((int(limit) for limit, each in one["containers"].items() if not isinstance(each, str)), default=None)


def complete(record: dict) -> bool:
    """Whether a record of containers is by the meter of today: an older one was charged too little."""
    return "texts" in record


def there(record: dict, one: dict) -> tuple[str, str]:
    """Cells: the smallest container, and the speed in it, as a multiple of the baseline's without a limit."""
    limit = smallest(one)
    if limit is None:
        return said("over {} MB", max(map(int, one["containers"]))), ""
    return f"{limit} MB", f"{record['ways'][BASELINE]['seconds'] / one['containers'][str(limit)]['seconds']:.2f}"


def process(one: dict) -> str:
    """Cell: the whole process, and its anonymous and file-backed bytes, where they were measured."""
    kinds = f" ({one['anonymous'] / 1e6:.0f}; {one['file_backed'] / 1e6:.0f})" if "anonymous" in one else ""
    return f"{one['whole'] / 1e6:.0f} MB{kinds}"


def answers(one: dict) -> str:
    """Cell: the share of texts with the baseline's best label; of longer texts too, where a way cuts them."""
    if one.get("agreement") is None:
        return ""
    longer = one.get("agreement_on_long_texts")
    return f"{one['agreement']:.1%}" + (f", longer texts {longer:.1%}" if longer is not None else "")


def containers(record: dict) -> list[str]:
    """A record of containers.py, lines of Markdown."""
    columns = ["smallest container", "speed there", "speed without a limit", "whole process (anonymous; file-backed)"]
    lines = head(record, *columns, "first answer", "same answers")
    baseline = record["ways"][BASELINE]["seconds"]
    for way, one in record["ways"].items():
        own = f"{baseline / one['seconds']:.2f} | {process(one)} | {one['first']:.1f} s | {answers(one)}"
        lines.append(f"| {way} | {' | '.join(there(record, one))} | {own} |")
    lines += [f"| {way} | not measured here: {why} | | | | | |" for way, why in record.get("left_out", {}).items()]
    texts = f"{record['texts']} texts with 9 labels. " if complete(record) else ""
    lines += ["", f"{texts}Sizes of containers, in MB: {', '.join(map(str, record['limits']))}."]
    if not complete(record):
        return [*lines, "An older meter: pages of libraries that another process held too were not charged."]
    if record["beside"]:
        lines[-1] += f" {record['beside']} other processes held libraries too, so containers were charged too little."
    return lines


def spread(one: dict, name: str, unit: float, places: int) -> str:
    """A median with the least and the most of all turns."""
    least, most = (f"{value / unit:.{places}f}" for value in one["spread"][name])
    return f"{one[name] / unit:.{places}f}" + (f" ({least} to {most})" if one["turns"] > 1 else "")


def details(record: dict) -> list[str]:
    """How each way was set up, and what turns differed by; and what it took in every container that was tried."""
    columns = ["set up", "answers", "prepared beforehand", "batch", "seconds", "whole process, MB", "charged, MB"]
    lines = head(record, *columns, "first answer, s", "seconds in each container, MB: s")
    for way, one in record["ways"].items():
        tried = [
            f"{limit}: {each if isinstance(each, str) else format(each['seconds'], '.1f')}"
            for limit, each in one["containers"].items()
        ]
        cells = [one["setup"], "exact" if one["exact"] else "lossy", one["beforehand"]]
        cells += [str(one["options"].get("batch_size", "")), spread(one, "seconds", 1, 1)]
        cells += [spread(one, name, 1e6, 0) if name in one else "" for name in ("whole", "charged")]
        lines.append(f"| {' | '.join([way, *cells, spread(one, 'first', 1, 1), '; '.join(tried)])} |")
    if others := record.get("older"):
        lines += ["", f"In the older environment: {', '.join(f'{name} {number}' for name, number in others.items())}."]
    search = "" if record["sizes"].startswith("all") else " Larger ones than the smallest that worked were left out."
    return [*lines, "", f"{record['texts']} texts. Containers were tried {record['sizes']}.{search}"]


def side_by_side(found: dict[str, dict]) -> list[str]:
    """The smallest container of each way, and the speed in it, on all kinds of machine; lines of Markdown."""
    names = list(dict.fromkeys(way for record in found.values() for way in record["ways"]))
    titles = [kind if complete(record) else f"{kind} (older meter)" for kind, record in found.items()]
    lines = [f"| smallest container, speed there | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for way in names:
        cells = [", ".join(filter(None, there(r, r["ways"][way]))) if way in r["ways"] else "" for r in found.values()]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def chart(record: dict) -> list[str]:
    """The chart of a record of containers.py, lines of Markdown."""
    alt = said("Texts a second over the whole process on {}: this project and its peers", record["processor"])
    return [f"![{alt}](benchmarks/figures/{figure_name(record)})", ""] if complete(record) else []


def figure_name(record: dict) -> str:
    """The name of the chart of a record, in the language in use."""
    return f"{record['kind']}-containers{'-zh' if in_use() == 'zh' else ''}.svg"


TABLES = {
    "containers": lambda record: [*chart(record), *containers(record)],
    "peers": peers,
    "offloading": offloading,
}
DETAILS = {"containers": details}


def shown(name: str, folder: Path) -> dict[str, dict]:
    """{kind: record} of what is shown; growth is not shown of a machine whose whole processes were measured."""
    found = records(name, folder)
    newer = {kind for kind, record in records("containers", folder).items() if complete(record)}
    return {kind: record for kind, record in found.items() if name != "peers" or kind not in newer}


def block(name: str, folder: Path = RECORDS) -> str:
    """All that is shown of one benchmark: each kind with its table, after all kinds beside each other."""
    found = shown(name, folder)
    parts = ["\n".join([*TABLES[name](record), "", source(record)]) for record in found.values()]
    beside = ["\n".join(side_by_side(found))] if name == "containers" and len(found) > 1 else []
    return "\n\n".join([*beside, *parts])


def details_block(name: str, folder: Path = RECORDS) -> str:
    """All that the page on method shows of one benchmark."""
    found = {kind: record for kind, record in records(name, folder).items() if complete(record)}
    return "\n\n".join("\n".join([*DETAILS[name](record), "", source(record)]) for record in found.values())


def picture(folder: Path = RECORDS) -> str:
    """README's picture: the chart of the first kind of processor that has one; nothing if none has."""
    charts = [chart(record) for record in records("containers", folder).values() if complete(record)]
    return "\n".join(charts[0]).rstrip() if charts else ""


def summary(folder: Path = RECORDS) -> str:
    """Three rows for README: the pipeline as it comes, and our way with the smallest container, on each processor."""
    found = [record for record in records("containers", folder).values() if complete(record)]
    rows, names = {"whole process": [], "smallest container": [], "speed without a limit": []}, []
    for record in found:
        base = record["ways"][BASELINE]
        ours = {way: one for way, one in record["ways"].items() if way.startswith("ours") and smallest(one)}
        way = min(ours, key=lambda name: (smallest(ours[name]), ours[name]["seconds"]))
        names.append(way)
        rows["whole process"].append(f"{base['whole'] / 1e6:.0f} MB → **{ours[way]['whole'] / 1e6:.0f} MB**")
        rows["smallest container"].append(f"{there(record, base)[0]} → **{smallest(ours[way])} MB**")
        rows["speed without a limit"].append(f"1 → **{base['seconds'] / ours[way]['seconds']:.1f}**")
    titles = [f"{record['processor']}: {record['kind']}" for record in found]
    first = said("the pipeline of transformers → ours")
    lines = [f"| {first} | {' | '.join(titles)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {said(row)} | {' | '.join(cells)} |" for row, cells in rows.items()]
    told = said("; ").join(said("*{0}* on {1}", translated(way), one["kind"]) for way, one in zip(names, found))
    return "\n".join([*lines, "", said("Ours is the way with the smallest container: {}.", told)])


FRONT = {"picture": picture, "summary": summary}


def put(page: str, name: str, told: str) -> str:
    """A page's text with `told` in the place `name`. Raises ValueError if there is no such place, or several."""
    place = re.compile(rf"(<!-- records: {name} -->\n)(?:(?!<!-- records).)*?(<!-- end -->)", re.DOTALL)
    if len(place.findall(page)) != 1:
        raise ValueError(f"no place, or several, between <!-- records: {name} --> and <!-- end -->")
    return place.sub(lambda found: f"{found[1]}\n{told}\n\n{found[2]}", page)


def filled(page: str, folder: Path = RECORDS) -> str:
    """The text of docs/measured.md with every table as the records have it. Raises ValueError as `put` does."""
    for name in TABLES:
        page = put(page, name, block(name, folder).replace("](benchmarks/", "](../benchmarks/"))
    return page


def filled_method(page: str, folder: Path = RECORDS) -> str:
    """The text of the page on method with its tables. Raises ValueError as `put` does."""
    for name in DETAILS:
        page = put(page, name, details_block(name, folder).replace("](benchmarks/", "]("))
    return page


def filled_front(page: str, folder: Path = RECORDS) -> str:
    """README's text with its picture and its summary, in the language in use. Raises ValueError as `put` does."""
    for name, told in FRONT.items():
        page = put(page, name, told(folder))
    return page


def draw(record: dict, file: Path) -> None:
    """The chart of a record of containers.py, in the language in use."""
    settings = {"svg.hashsalt": "peers", "svg.fonttype": "none", "figure.constrained_layout.use": True, "font.size": 9}
    below = textwrap.fill(made_on(record), 130)
    if in_use() == "zh":
        plots.use_chinese_font()  # measures the text; a reader's own font draws it
        settings["font.sans-serif"] = [plots.CHINESE]
        below = "\n".join(wrapped(made_on(record), 130))
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8.5, 5.5))
        figure.supxlabel(below, fontsize=7)
        plots.frontier(axes, record)
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    shown_now = [one for one in records("containers").values() if complete(one)]
    drawn = set()
    for page, language in ((README, "en"), (README_ZH, "zh")):
        with speaking(language):
            for record in shown_now:
                draw(record, FIGURES / figure_name(record))
                drawn.add(figure_name(record))
            write(page, filled_front(page.read_text(encoding="utf-8")))
    for file in FIGURES.glob("*.svg"):
        if file.name not in drawn:
            file.unlink()  # of a record that is no longer shown
    with speaking("en"):
        write(MEASURED, filled(MEASURED.read_text(encoding="utf-8")))
        write(METHOD, filled_method(METHOD.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
