"""The record of peers.py as README shows it: a table, a line on the machine, and a chart."""

from matplotlib import pyplot

from zsc_utils import plots

PEERS = ("onnxruntime", "sentence_transformers", "accelerate")  # whose versions the record has, by module


def table(record):
    """The record as README shows it, lines of Markdown."""
    lines = ["| | process grew by | texts a second | speed | same answers |", "|---|---|---|---|---|"]
    for engine, one in record["engines"].items():
        cells = (
            f"{one['total'] / 1e6:.0f} MB | {one['texts_per_second']:.2f} | {one['speed']:.2f} | {one['agreement']:.1%}"
        )
        lines.append(f"| {engine} | {cells} |")
    if other := record.get("ModelScope"):  # measured by itself, after the others
        name, size = f"ModelScope's, on transformers {other['transformers']}", f"{other['total'] / 1e6:.0f} MB"
        lines.append(f"| {name} | {size} | {other['texts_per_second']:.2f} | | |")
    return lines


def made_on(record):
    """Machine, versions and date of the record, in a line."""
    versions = ", ".join(f"{name} {record[name]}" for name in ("torch", "transformers", *PEERS))
    return f"{record['processor']}, {record['threads']} threads; {versions}; {record['date']}"


def draw(record, file):
    """The chart that README shows."""
    with pyplot.rc_context(
        {"svg.hashsalt": "peers", "svg.fonttype": "none", "figure.constrained_layout.use": True, "font.size": 9}
    ):
        figure, axes = pyplot.subplots(figsize=(8.5, 3.6))
        plots.frontier(axes, record)
        axes.set_title("Less memory to the left, more speed above", loc="left")
        figure.supxlabel(made_on(record), fontsize=7)
        figure.savefig(file, metadata={"Date": None})
