"""The commands `plan` and `export` of the command line, which concern a checkpoint and no texts."""

from zsc_utils._exports import FORMATS, is_export, read_export
from zsc_utils._sizes import format_size, in_columns
from zsc_utils._text import default_name
from zsc_utils.onnx_plan import make as plan_of_export

PLAN = """Print what a budget buys: the levers that would be chosen, and what each part of the bill takes, in bytes that
are predicted. No weights are loaded. With --length and --labels also what one such text takes.

  python -m zsc_utils plan --checkpoint base-shape --budget 150MB
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


def add_export(command):
    command.set_defaults(run=export)
    command.add_argument("folder", metavar="FOLDER", help="a new folder, or an empty one")
    name = "mini, base-shape, a folder or a ModelScope id (default: $ZSC_CHECKPOINT, or mini)"
    command.add_argument("--checkpoint", default=default_name(), metavar="NAME", help=name)
    kinds = "fp32 has the scores of the checkpoint, int8 a quarter of its bytes (default: fp32)"
    command.add_argument("--precision", choices=list(FORMATS.values()), default="fp32", help=kinds)


def plan(arguments):
    """Print the plan of a budget and the predicted memory of one text; returns the exit status."""
    if arguments.labels is not None and arguments.length is None:
        raise ValueError("--labels: give --length too, the tokens of a text with a label")
    if is_export(arguments.checkpoint):
        if arguments.length is not None:
            raise ValueError(f"--length: {arguments.checkpoint} is an export; its plan has no bill of one text")
        export = read_export(arguments.checkpoint)
        print(plan_of_export(export, arguments.budget, arguments.precision, arguments.offload))
        return 0
    from zsc_utils import plan as planning  # only here: what runs an export needs no torch

    chosen = planning.Chosen(arguments.precision, None, arguments.offload)
    made = planning.make(arguments.checkpoint, arguments.budget, arguments.allow_lossy, chosen=chosen)
    print(made)
    if arguments.length is not None:
        print(bill_of_a_text(made, arguments.length, 1 if arguments.labels is None else arguments.labels))
    return 0


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
    return f"a text with {pairs}: {many}\n{in_columns(rows)}"


def export(arguments):
    """Export a checkpoint and print what was written; returns the exit status."""
    from zsc_utils import onnx_export

    folder = onnx_export.export(arguments.checkpoint, arguments.folder, arguments.precision)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {arguments.checkpoint} in {arguments.precision}, {format_size(size)}")
    return 0
