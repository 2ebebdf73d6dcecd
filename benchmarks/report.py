"""Tables and charts of the benchmarks, from the records of every kind of machine that there are.

python benchmarks/report.py. A table stands between the lines `<!-- records: NAME -->` and `<!-- end -->`: the long ones
in docs/measured.md, a picture and a summary in README.md. A chart stands in benchmarks/figures. Each names its
processor, and nothing else in those pages is changed.
"""

import re
import textwrap
from pathlib import Path

from machine import RECORDS, records, write
from matplotlib import pyplot

from zsc_utils import plots

README = Path(__file__).parent.parent / "README.md"
MEASURED = README.parent / "docs" / "measured.md"
FIGURES = Path(__file__).parent / "figures"
PEERS = ("onnxruntime", "sentence_transformers", "accelerate")  # whose versions the record has, by module


def made_on(record: dict) -> str:
    """Machine, turns, versions and date of a record, in a line."""
    names = [name for name in ("torch", "transformers", *PEERS) if name in record]
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    turns = f"median of {record['turns']} turns" if record["turns"] > 1 else "1 turn"
    some = f"; answers to every {record['every']}th text" if record.get("every", 1) > 1 else ""
    versions = ", ".join(f"{name} {record[name]}" for name in names)
    return f"{record['processor']}, {threads}, {turns}{some}; {versions}; {record['date']}"


def head(record: dict, *columns: str) -> list[str]:
    """The first two lines of a table, which name processor and kind."""
    cells = (f"{record['processor']}: {record['kind']}", *columns)
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def source(record: dict) -> str:
    """Where a table comes from, in a line."""
    file = f"benchmarks/records/{record['kind']}.json"
    return f"Recorded in [{file}]({file}): {made_on(record)}."


def peers(record: dict) -> list[str]:
    """The record of peers.py, lines of Markdown."""
    lines = head(record, "process grew by", "texts a second", "speed", "same answers")
    for engine, one in record["engines"].items():
        cells = (
            f"{one['total'] / 1e6:.0f} MB | {one['texts_per_second']:.2f} | {one['speed']:.2f} | {one['agreement']:.1%}"
        )
        lines.append(f"| {engine} | {cells} |")
    if other := record.get("ModelScope"):  # measured by itself, after the others
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


def containers(record: dict) -> list[str]:
    """The record of containers.py, lines of Markdown: the smallest container in which each way worked."""
    lines = head(record, "smallest container", "speed there", "speed without a limit", "whole process", "first answer")
    baseline = record["ways"]["transformers pipeline"]["seconds"]
    for way, one in record["ways"].items():
        worked = {int(limit): each for limit, each in one["containers"].items() if not isinstance(each, str)}
        smallest = min(worked, default=None)
        there = f"over {max(map(int, one['containers']))} MB | "
        if smallest is not None:
            there = f"{smallest} MB | {baseline / worked[smallest]['seconds']:.2f}"
        cells = f"{there} | {baseline / one['seconds']:.2f} | {one['whole'] / 1e6:.0f} MB | {one['first']:.1f} s"
        lines.append(f"| {way} | {cells} |")
    return [*lines, "", f"Sizes that were tried, in MB: {', '.join(map(str, record['limits']))}."]


def chart(record: dict) -> list[str]:
    """The chart of a record of peers.py, lines of Markdown."""
    alt = f"Texts a second over process growth on {record['processor']}: this project and its peers"
    return [f"![{alt}](benchmarks/figures/{record['kind']}-peers.svg)", ""]


TABLES = {
    "containers": containers,
    "peers": lambda record: [*chart(record), *peers(record)],
    "offloading": offloading,
}


def block(name: str, folder: Path = RECORDS) -> str:
    """All that is shown of one benchmark: each kind with its table."""
    parts = []
    for record in records(name, folder).values():
        lines = TABLES[name](record)
        parts.append("\n".join([*lines, "", source(record)]))
    return "\n\n".join(parts)


def smallest(one: dict) -> int | None:
    """The smallest container in which a way worked, in MB; None if there is none."""
    return min((int(limit) for limit, each in one["containers"].items() if not isinstance(each, str)), default=None)


def summary(folder: Path = RECORDS) -> str:
    """Three rows for README: the pipeline as it comes, and our way with the smallest container, on each processor."""
    found = list(records("containers", folder).values())
    rows = {"whole process": [], "smallest container": [], "speed without a limit": []}
    names = []
    for record in found:
        base = record["ways"]["transformers pipeline"]
        ours = {way: one for way, one in record["ways"].items() if way.startswith("ours") and smallest(one)}
        way = min(ours, key=lambda name: (smallest(ours[name]), ours[name]["seconds"]))
        names.append(way)
        limit = f"{smallest(base)} MB" if smallest(base) else f"over {max(map(int, base['containers']))} MB"
        rows["whole process"].append(f"{base['whole'] / 1e6:.0f} MB → **{ours[way]['whole'] / 1e6:.0f} MB**")
        rows["smallest container"].append(f"{limit} → **{smallest(ours[way])} MB**")
        rows["speed without a limit"].append(f"1 → **{base['seconds'] / ours[way]['seconds']:.1f}**")
    titles = [f"{record['processor']}: {record['kind']}" for record in found]
    lines = [f"| the pipeline of transformers → ours | {' | '.join(titles)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(cells)} |" for row, cells in rows.items()]
    told = "; ".join(f"*{name}* on {record['kind']}" for name, record in zip(names, found))
    return "\n".join([*lines, "", f"Ours is the way with the smallest container: {told}."])


def picture(folder: Path = RECORDS) -> str:
    """README's picture: the chart of the first kind of processor that has one."""
    return "\n".join(chart(next(iter(records("peers", folder).values())))).rstrip()


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


def filled_front(page: str, folder: Path = RECORDS) -> str:
    """README's text with its picture and its summary. Raises ValueError as `put` does."""
    for name, told in FRONT.items():
        page = put(page, name, told(folder))
    return page


def draw(record: dict, file: Path) -> None:
    """The chart of a record of peers.py."""
    settings = {"svg.hashsalt": "peers", "svg.fonttype": "none", "figure.constrained_layout.use": True, "font.size": 9}
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8.5, 3.6))
        plots.frontier(axes, record)
        axes.set_title("Less memory to the left, more speed above", loc="left")
        figure.supxlabel(textwrap.fill(made_on(record), 130), fontsize=7)
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    for name, record in records("peers").items():
        draw(record, FIGURES / f"{name}-peers.svg")
    write(README, filled_front(README.read_text(encoding="utf-8")))
    write(MEASURED, filled(MEASURED.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
