"""The table of an Evaluation, as plain text."""

from zsc_utils._text import visible
from zsc_utils._ways import LEAN_LIBRARIES_BYTES, TORCH_LIBRARIES_BYTES
from zsc_utils.language import columns, padded, translated

SHOWN = 10  # confusions and left-out rows that a table shows
UNMEASURED = "not measured here"


def table_of(evaluation):
    """Yield the lines of an Evaluation as plain text, in the language in use."""
    return map(translated, lines_of(evaluation))


def lines_of(evaluation):
    """Yield the lines of an Evaluation; those of its tables, whose columns are as wide as their words, translated."""
    first = evaluation.report()
    yield f"{evaluation.checkpoint}: {evaluation.texts} texts, {len(evaluation.labels)} labels"
    if evaluation.bad:
        yield f"left out: {counted(len(evaluation.bad), 'row')}"
        yield from (f"  row {bad.row}: {bad.reason}" for bad in evaluation.bad[:SHOWN])
        if len(evaluation.bad) > SHOWN:
            yield f"  and {len(evaluation.bad) - SHOWN} more"
    yield from ("", "with 95 % intervals; seconds and growth with loading; growth is beyond Python and its libraries")
    head = ["way", "accuracy", "macro F1", f"same as {first.way}", "largest difference", "seconds", "growth"]
    yield from aligned([[*map(translated, head)], *map(row_of_way, evaluation.reports.values())])
    yield f"Python and its libraries: about {LEAN_LIBRARIES_BYTES / 1e6:.0f} MB for an export, else about " + (
        f"{TORCH_LIBRARIES_BYTES / 1e6:.0f} MB, for torch"
    )
    yield from ("", f"{first.way}, each label")
    scores = [[s.label, *map(number, s[1:4]), str(s.support)] for s in first.per_label]
    yield from aligned([[*map(translated, ("label", "precision", "recall", "F1", "texts"))], *scores])
    yield from confusions_of(first)
    yield from ("", threshold_line(first))


def row_of_way(report):
    agreed = ["", ""]
    if report.agreement is not None:
        agreed = [
            interval(report.agreement.share, report.agreement.interval),
            f"{report.agreement.largest_difference:.4f}",
        ]
    growth = translated(UNMEASURED) if report.growth is None else f"{report.growth / 1e6:.0f} MB"
    accuracy, f1 = (
        interval(report.accuracy, report.accuracy_interval),
        interval(report.macro_f1, report.macro_f1_interval),
    )
    return [report.way, accuracy, f1, *agreed, f"{report.seconds:.1f}", growth]


def confusions_of(report):
    if not report.confusions:
        return
    yield from ("", f"{report.way}, confusions that occur most")
    for confusion in report.confusions[:SHOWN]:
        yield f"{confusion.true}, but said {confusion.said}: {counted(confusion.count, 'text')}"
        yield from (f"  {shortened(text)}" for text in confusion.examples)


def threshold_line(report, accuracy=0.95):
    found = report.threshold_for(accuracy)
    if found is None:
        return f"{report.way}: no threshold of the best score makes {accuracy:.0%} of the answers right"
    return (
        f"{report.way}: {accuracy:.0%} of the answers are right if a best score under {found.threshold:.4f} means "
        f'"none of these"; {found.answered:.0%} of these texts are answered then'
    )


def counted(count, what):
    return f"{count} {what}{'s' * (count != 1)}"


def number(value):
    return "-" if value != value else f"{value:.3f}"


def interval(value, ends):
    return translated(f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})", part=True)


def shortened(text, most=40):
    """Return the beginning of a text, on one line and without characters that a terminal would obey."""
    line = " ".join(visible(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def aligned(rows):
    """Yield the lines of a table, the first column to the left, the others to the right; Chinese is two wide."""
    widths = [max(map(columns, cells)) for cells in zip(*rows)]
    for first, *others in rows:
        cells = [padded(cell, size, right=True) for cell, size in zip(others, widths[1:])]
        yield "  ".join([padded(first, widths[0]), *cells])
