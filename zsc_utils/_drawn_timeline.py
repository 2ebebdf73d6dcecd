"""The picture of memory.timeline: a still curve with its peak, and a slider that goes through the steps."""

import html
import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from zsc_utils._sizes import format_size
from zsc_utils._svg import BOLD, MARGIN, QUIET, SHOWN_PIXELS, SMALL, WIDTH, Canvas, Picture, text_width
from zsc_utils.language import translated
from zsc_utils.plots import BYTES, CHOSEN

if TYPE_CHECKING:
    from zsc_utils._tensors import Step

PHASES = {"embed": "embeddings", ".attention": "attention", "encoder": "feed-forward"}  # words in names of modules
UNNAMED = "outside of modules"
CURVE = 150  # height of the curve
# Moves the line to a step and tells it. It runs in the page, without a kernel, so the slider works in static pages too.
MOVE = """
const box=this.parentElement,image=box.parentElement.querySelector('img'),names=JSON.parse(box.dataset.names),
rows=JSON.parse(box.dataset.steps),step=rows[this.value],
line=box.querySelector('i'),size=n=>(n/1e6).toFixed(3)+' MB';
line.style.cssText='position:absolute;border-left:2px solid #D55E00;left:'+image.clientWidth*(LEFT+SPAN*this.value/
Math.max(1,rows.length-1))+'px;top:'+(image.offsetTop+image.clientHeight*TOP)+'px;height:'+image.clientHeight*HIGH+'px';
box.querySelector('output').textContent=TOLD+size(step[0])+' · '+names[step[2]]
"""
TOLD = (
    "'step '+(+this.value+1)+' of '+rows.length+': '+(step[1]<0?'releases ':'allocates ')+size(Math.abs(step[1]))"
    "+', alive '"
)


def timeline_slider(steps: "Sequence[Step]") -> Picture:
    """Draw the tensor bytes alive after each step of `memory.timeline`, with a slider that goes through the steps.

    The picture itself is still: it shows the curve, its peak and what causes it. The slider below it moves a line and
    tells the step. It needs no kernel, so it works in JupyterLab and in static pages; where a page allows no scripts,
    the picture stays. Call `timeline` with the model, so that steps name their module. `numbers`: "peak" in bytes,
    "peak step" and "steps". Raises ValueError for no steps.

        timeline_slider(memory.timeline(lambda: model(input_ids=ids), model))
    """
    if not steps:
        raise ValueError("no steps: memory.timeline found no allocation")
    place = max(range(len(steps)), key=lambda number: steps[number].alive)
    peak = steps[place]
    module = peak.module.removeprefix("bert.").removeprefix("encoder.")
    cause = " ".join(filter(None, (module, peak.op))) or "an unnamed step"
    title = f"The peak is {format_size(peak.alive)}, at step {place + 1} of {len(steps)}"
    canvas = Canvas(title, "Tensor bytes alive after each allocation and release.")
    canvas.y -= 6  # the next line belongs to the one above
    canvas.paragraph(f"Peak: {cause}", SMALL, colour=QUIET)
    canvas.y += 6
    phases = dict.fromkeys(phase_of(step) for step in steps if step.alive * CURVE >= peak.alive)  # what can be seen
    canvas.key({UNNAMED if phase == "activations" else phase: BYTES[phase] for phase in phases})
    top = canvas.y + 16
    scale = draw_steps(canvas, steps, top, peak.alive)
    x = MARGIN + place * scale
    words = translated(f"peak {format_size(peak.alive)}")
    half = BOLD * text_width(words, SMALL) / 2
    canvas.path([(x - 4, top - 7), (x + 4, top - 7), (x, top - 1)], CHOSEN)
    canvas.text(min(max(x, MARGIN + half), WIDTH - MARGIN - half), top - 10, words, SMALL, "middle", weight="bold")
    canvas.y = top + CURVE
    canvas.axis(canvas.y, MARGIN, WIDTH - 2 * MARGIN, len(steps), "steps")
    canvas.y += 18
    alt = f"A curve of tensor bytes over {len(steps)} steps. It is highest, {format_size(peak.alive)}, at {cause}."
    numbers = {"peak": peak.alive, "peak step": place, "steps": len(steps)}
    return canvas.finished(alt, numbers, slider(steps, place, scale, top / (canvas.y + MARGIN), canvas.y + MARGIN))


def phase_of(step):
    """The part of the model that a step belongs to, as BYTES names it."""
    return next(
        (phase for word, phase in PHASES.items() if word in step.module), "head" if step.module else "activations"
    )


def draw_steps(canvas, steps, top, largest):
    """The curve as areas, one for each run of steps of one phase. Returns the units of a step.

    Areas have an edge of their own colour: of many steps, one that is alone would be too narrow to be seen.
    """
    scale, base = (WIDTH - 2 * MARGIN) / len(steps), top + CURVE
    for phase, run in groupby(enumerate(steps), key=lambda pair: phase_of(pair[1])):
        points = [(MARGIN + (number + side) * scale, base - CURVE * step.alive / largest)
                  for number, step in run for side in (0, 1)]  # fmt: skip
        canvas.path([(points[0][0], base), *points, (points[-1][0], base)], BYTES[phase], BYTES[phase])
    return scale


def slider(steps, place, scale, top, height):
    """HTML of the slider, at the peak first: its steps as data, and what moving it does."""
    said = [f"{step.module} {step.op}".strip() or translated(UNNAMED) for step in steps]
    names = {name: number for number, name in enumerate(dict.fromkeys(said))}
    rows = [[step.alive, step.change, names[name]] for step, name in zip(steps, said)]
    span = scale * (len(steps) - 1) / WIDTH
    move = (
        MOVE.replace("TOLD", translated(TOLD))
        .replace("LEFT", f"{(MARGIN + scale / 2) / WIDTH:.5f}")
        .replace("SPAN", f"{span:.5f}")
    )
    move = move.replace("TOP", f"{top:.5f}").replace("HIGH", f"{CURVE / height:.5f}").replace("\n", "")
    data = "".join(f" data-{key}='{as_attribute(value)}'" for key, value in {"steps": rows, "names": [*names]}.items())
    style = f"display:block;width:{SHOWN_PIXELS}px;max-width:100%"
    moved, name = html.escape(move, quote=True), translated("step of the timeline")
    # JupyterLab leaves the arrow keys to what has the attribute data-lm-suppress-shortcuts
    control = (f'<input type="range" aria-label="{name}" min="0" max="{len(steps) - 1}" value="{place}" '
               f'style="{style}" data-lm-suppress-shortcuts="true" oninput="{moved}">')  # fmt: skip
    told = html.escape(told_step(steps, place, said[place]))
    return f'<div{data}><i></i>{control}<output style="{style};min-height:3em">{told}</output></div>'


def told_step(steps, place, said):
    """What the slider says of a step, as MOVE says it."""
    change = f"{'releases' if steps[place].change < 0 else 'allocates'} {abs(steps[place].change) / 1e6:.3f} MB"
    return translated(f"step {place + 1} of {len(steps)}: {change}, alive {steps[place].alive / 1e6:.3f} MB · {said}")


def as_attribute(value):
    """A value as JSON for an HTML attribute in single quotes."""
    return html.escape(json.dumps(value, separators=(",", ":")), quote=False).replace("'", "&#39;")
