"""The commands `plan` and `export` of the command line, which concern a checkpoint and no texts."""

from zsc_utils._container import CONTAINER, memory_limit
from zsc_utils._exports import FORMATS, is_export, read_export
from zsc_utils._sizes import format_size, in_columns, parse_size
from zsc_utils._text import default_name
from zsc_utils._ways import Ways, of_export
from zsc_utils.language import translated
from zsc_utils.onnx_plan import make as make_for_export

PLAN = """Print what a budget buys: the levers that would be chosen, and what each part of the bill takes, in bytes that
are predicted. No weights are loaded. With --length and --labels also what one such text takes.

--budget limits what the process grows by. --container limits the whole process, Python and its libraries included: it
prints all ways to run the checkpoint, with torch and as an export without torch, which fit, and what to do for the
fastest of them that keeps the scores, or with --allow-lossy for the fastest. The exit status is 2 if there is none.

  python -m zsc_utils plan --checkpoint base-shape --budget 150MB
  python -m zsc_utils plan --checkpoint base-shape --container 250MB
  python -m zsc_utils plan --checkpoint base-shape --precision int8 --length 256 --labels 12
"""
EXPORT = """Write a checkpoint to a new folder that needs no torch: weights, ONNX graphs, tokenizer and a card.
The export needs torch, and memory for all weights. Afterwards `classify --checkpoint FOLDER` does without torch.

  python -m zsc_utils export mini-int8 --checkpoint mini --precision int8
  python -m zsc_utils classify news.txt --labels 财经,体育 --checkpoint mini-int8 --budget 90MB
"""


def add_plan(command):
    command.set_defaults(run=plan)
    command.add_argument("--length", type=int, metavar="TOKENS", help="of a text with a label")
    command.add_argument("--labels", type=int, metavar="COUNT", help="how many labels (with --length)")
    limit = "choose a way whose whole process fits; without SIZE, the limit of the container that this runs in"
    command.add_argument("--container", nargs="?", const=CONTAINER, metavar="SIZE", help=limit)
    command.add_argument("--engines", action="store_true", help="print all ways too, with torch and without")


def add_export(command):
    command.set_defaults(run=export)
    command.add_argument("folder", metavar="FOLDER", help="a new folder, or an empty one")
    name = "mini, base-shape, a folder or a ModelScope id (default: $ZSC_CHECKPOINT, or mini)"
    command.add_argument("--checkpoint", default=default_name(), metavar="NAME", help=name)
    kinds = "fp32 has the scores of the checkpoint, int8 a quarter of its bytes (default: fp32)"
    command.add_argument("--precision", choices=list(FORMATS.values()), default="fp32", help=kinds)


def plan(arguments):
    """Print the plan of a budget, or the ways that fit a container; returns the exit status."""
    if arguments.labels is not None and arguments.length is None:
        raise ValueError("--labels: give --length too, the tokens of a text with a label")
    if arguments.container is not None:
        return plan_container(arguments)
    found = ways_of(arguments) if arguments.engines else None  # before a plan takes memory
    print(plan_of_export(arguments) if is_export(arguments.checkpoint) else plan_of_checkpoint(arguments))
    if found is not None:
        print(f"\n{found.table(None)}")
    return 0


def plan_of_export(arguments):
    """Return the plan of an export as text."""
    if arguments.length is not None:
        raise ValueError(f"--length: {arguments.checkpoint} is an export; its plan has no bill of one text")
    export = read_export(arguments.checkpoint)
    return str(make_for_export(export, arguments.budget, arguments.precision, arguments.offload))


def plan_of_checkpoint(arguments):
    """Return the plan of a checkpoint as text, and with --length the predicted memory of one text."""
    from zsc_utils import plan as planning  # only here: what runs an export needs no torch

    chosen = planning.Chosen(arguments.precision, None, arguments.offload)
    made = planning.make(arguments.checkpoint, arguments.budget, arguments.allow_lossy, chosen=chosen)
    if arguments.length is None:
        return str(made)
    return f"{made}\n{bill_of_a_text(made, arguments.length, 1 if arguments.labels is None else arguments.labels)}"


def plan_container(arguments):
    """Print the ways to run the checkpoint and what to do for the best that fits; returns the exit status."""
    for option in ("budget", "length"):
        if getattr(arguments, option) is not None:
            raise ValueError(f"--container limits the whole process: leave out --{option}, or --container")
    limit = memory_limit() if arguments.container == CONTAINER else parse_size(arguments.container)
    if limit is None:
        raise ValueError("--container: nothing limits the memory of this process here; give a size, as 200MB")
    found = ways_of(arguments)
    print(found.table(limit), flush=True)
    print(found.advice(limit, arguments.allow_lossy or arguments.precision is not None))
    return 0


def ways_of(arguments):
    """Return the Ways of the checkpoint that have the precision and the layers chosen by hand."""
    name, precision, offload = arguments.checkpoint, arguments.precision, arguments.offload
    if is_export(name):
        export = make_for_export(read_export(name), None, precision, offload).subject  # it checks the two
        return Ways(name, of_export(export, offload), offload, made=True)
    from zsc_utils import plan as planning

    return planning.ways(name, planning.Chosen(precision, None, offload))


def bill_of_a_text(made, length, labels):
    """Describe the predicted bytes of a text of `length` tokens with `labels` labels: planned, and in transformers."""
    from zsc_utils import inference, memory
    from zsc_utils.formats import activations_dtype, in_integers

    config, setting = made.subject.config, made.setting
    longest = config.max_position_embeddings
    if not 1 <= length <= longest:
        raise ValueError(f"--length {length}: the model reads 1 to {longest} tokens")
    if labels < 1:
        raise ValueError(f"--labels {labels}: give 1 or more")
    together = min(labels, max(1, setting.max_tokens // length))  # equal lengths, so no list of batches is needed
    batches = -(-labels // together)
    options = dict(attention=setting.attention, dtype=activations_dtype(setting.precision))
    ours = inference.predict(
        config, [(together, length)], chunk=setting.chunk, int8=in_integers(setting.precision), **options
    )
    whole = memory.predict(config, labels, length, **options)
    pairs = f"{labels} pair{'s' * (labels > 1)} of {length} tokens"
    rows = {
        "  activations of such a batch": ours.peak_activations,
        "  of all pairs in one batch through transformers' forward pass": whole.peak_activations,
    }
    many = f"{batches} batch{'es' * (batches > 1)} of at most {together}"
    return f"{translated(f'a text with {pairs}: {many}')}\n{in_columns(rows)}"


def export(arguments):
    """Export a checkpoint and print what was written; returns the exit status."""
    from zsc_utils import onnx_export

    folder = onnx_export.export(arguments.checkpoint, arguments.folder, arguments.precision)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(translated(f"{folder}: {arguments.checkpoint} in {arguments.precision}, {format_size(size)}"))
    return 0
