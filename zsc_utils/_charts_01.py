"""Charts of lessons 01 and 01b: what the reader sees is drawn here, so that the lessons' cells show the idea."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from transformers import PretrainedConfig

from zsc_utils import plots
from zsc_utils.memory import format_size, predict

KINDS = {"anonymous": plots.BYTES["activations"], "file-backed": plots.BYTES["file-backed"]}


def gelu_and_layer_norm(before: torch.Tensor, norm_weight: torch.nn.LayerNorm) -> None:
    """Show two charts: the curve of GELU, and the numbers of one token (hidden size) before and after a LayerNorm."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.6))
    inputs = torch.linspace(-4, 4, 161)
    left.plot(inputs, torch.relu(inputs), color=plots.OTHER, linestyle=":")
    left.plot(inputs, torch.nn.functional.gelu(inputs), color=plots.BYTES["feed-forward"])
    left.annotate("GELU", (2.4, 2.4), (0.9, 2.9), color=plots.BYTES["feed-forward"])
    left.annotate("negative: 0", (-3.8, 0.25), color="#595959", fontsize=8)
    at_one = torch.nn.functional.gelu(torch.tensor([1.0, -1.0])).tolist()
    left.set(title=f"GELU(1) = {at_one[0]:.2f}, GELU(-1) = {at_one[1]:.2f}", xlabel="number", ylabel="result")
    with torch.inference_mode():
        sides = {"before": before, "after": norm_weight(before)}
    for (name, numbers), colour in zip(sides.items(), (plots.OTHER, plots.BYTES["norm"])):
        label = f"{name}: mean {numbers.mean():.1f}, deviation {numbers.std():.1f}"
        right.hist(numbers.numpy(), bins=40, color=colour, alpha=0.7, label=label)
    right.set(title="LayerNorm, one token", xlabel="number", ylabel=f"of {before.numel()} numbers")
    right.legend(frameon=False, fontsize=8, loc="upper right")
    pyplot.show()
