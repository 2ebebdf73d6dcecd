"""Distillation: a small model learns from a teacher's logits and hidden states; no labelled answers are needed."""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.nn.functional import kl_div, log_softmax, mse_loss
from tqdm.auto import tqdm

from zsc_utils import checkpoint as door
from zsc_utils._bert import rebuilt, with_weights
from zsc_utils._products import times_as_long
from zsc_utils._text import whole_number
from zsc_utils._types import Name
from zsc_utils.checkpoint import Checkpoint
from zsc_utils.language import several

TEXTS = 8  # texts in a step
LABELS = 6  # labels of a text in a step, at most
NEIGHBOURS = 64  # texts of similar length; a step draws its texts from them, so that there is little padding
TOKENS = 64  # tokens of a pair; longer texts are cut
WARM_UP = 50  # steps in which the learning rate rises; at most a tenth of all steps, plus one


@dataclass(frozen=True)
class Lesson:
    """The training data and the settings; together with a step's number they determine what the step computes."""

    texts: tuple
    labels: tuple  # one tuple for each text
    steps: int
    rate: float
    seed: int

    def pairs(self, step):
        """The texts of a step, each with labels drawn at random from its own: [(text, labels), ...]."""
        rng = random.Random(f"{self.seed} {step}")
        first = rng.randrange(max(1, len(self.texts) - NEIGHBOURS + 1))
        near = range(first, min(len(self.texts), first + NEIGHBOURS))
        chosen = rng.sample(near, min(TEXTS, len(near)))
        return [(self.texts[i], rng.sample(self.labels[i], min(LABELS, len(self.labels[i])))) for i in chosen]

    def rate_of(self, step):
        """The learning rate of a step: it rises during the warm-up, then falls linearly to 0."""
        return self.rate * min(1, (step + 1) / min(WARM_UP, 1 + self.steps // 10)) * (1 - step / self.steps)


def distil(
    student: Checkpoint,
    teacher: Checkpoint,
    texts: Sequence[str],
    labels: Sequence,
    steps: int,
    *,
    rate: float = 5e-4,
    seed: int = 0,
    folder: Name | None = None,
    watch: Callable | None = None,
    every: int = 100,
    progress: bool = True,
) -> Checkpoint:
    """Train a copy of `student` for `steps` steps to give the outputs of `teacher`; return it as a new Checkpoint.

    A step takes 8 texts of similar length, each with up to 6 of its labels, without a template. A pair of text and
    label is cut to 64 tokens. `labels` is one list for all texts, or one for each. The loss adds the squared error of
    the logits and the Kullback-Leibler divergence of each text's softmax of entailment logits over its labels. If
    `attention.shrink` cut the student from a whole model of the teacher's depth and width, the hidden states after each
    layer also learn the input of the teacher's next kept layer. Squared errors are divided by the teacher's variance.
    Embeddings are not trained. The student computes in bf16 where this processor is faster in it, else in fp32.

    The same arguments and number of threads give the same weights on the same machine. Every `every` steps the state is
    saved in `folder`, and an interrupted run resumes from it. `watch(step, checkpoint)` is called every `every` steps
    and after the last. Raises ValueError for a student not in fp32 on a CPU; a teacher with other classes or another
    vocabulary, or not on a CPU; empty or too long texts and labels; and a `folder` with the state of another run.
    """
    check(student, teacher, texts, labels, steps, every)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    shared = isinstance(labels[0], str)
    own = tuple(tuple(labels if shared else labels[i]) for i in order)
    lesson = Lesson(tuple(texts[i] for i in order), own, steps, rate, seed)
    learner, master = trainable(student), replace(teacher, model=rebuilt(teacher.model, lambda *_: None))
    parameters = [p for p in learner.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    state = State(folder, (lesson, student, teacher), learner.model, optimizer)
    desc, unit = several("distil | step")
    with tqdm(total=steps, initial=state.step, desc=desc, unit=unit, disable=not progress) as bar:
        while state.step < steps:
            loss = step_loss(learner, master, lesson.pairs(state.step))
            for group in optimizer.param_groups:
                group["lr"] = lesson.rate_of(state.step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.2f}")
            if state.step % every == 0 or state.step == steps:
                state.keep()
                if watch is not None:
                    watch(state.step, finished(learner, student))
    return finished(learner, student)


def check(student, teacher, texts, labels, steps, every):
    """Raise ValueError for arguments of `distil` with which training is not possible."""
    for checkpoint in (student, teacher):
        door.check_loaded(checkpoint)
    model = student.model
    if {t.dtype for t in model.state_dict().values()} != {torch.float32} or model.device.type != "cpu":
        raise ValueError(f"student {student.name!r}: give one in fp32 on the CPU; quantize it afterwards")
    if teacher.model.device.type != "cpu":
        raise ValueError(f"teacher {teacher.name!r} is on {teacher.model.device}: the student learns on the CPU")
    classes = [(c.model.config.num_labels, c.entailment_id, c.contradiction_id) for c in (student, teacher)]
    if classes[0] != classes[1] or teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        raise ValueError(f"{student.name!r} has other classes or another vocabulary than its teacher {teacher.name!r}")
    for name, count in (("steps", steps), ("every", every)):
        whole_number(name, count)
    if isinstance(texts, str) or isinstance(labels, str):
        raise ValueError("texts and labels: give lists, not a string")
    if not texts or not labels or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("texts and labels: give at least one of each, and no text that is empty")
    lists = [labels] if isinstance(labels[0], str) else labels
    if lists is labels and len(labels) != len(texts):
        raise ValueError(
            f"{len(labels)} lists of labels for {len(texts)} texts: give one for each, or one list for all"
        )
    if not all(own and all(isinstance(label, str) and label.strip() for label in own) for own in lists):
        raise ValueError("labels: each list needs at least one label, and no label that is empty")
    longest = max(dict.fromkeys(label for own in lists for label in own), key=len)
    if len(student.tokenizer(longest).input_ids) > TOKENS // 2:
        raise ValueError(f"label {longest[:20] + '…'!r} is too long: a pair is cut to {TOKENS} tokens, text and label")


def trainable(student):
    """A copy of the student in which all weights except the embeddings are copied and have gradients."""

    def own(module, name):
        if not module._parameters:
            return None
        if name.startswith("bert.embeddings"):
            weights = {key: tensor.detach() for key, tensor in module._parameters.items()}
        else:
            weights = {key: Parameter(tensor.detach().clone()) for key, tensor in module._parameters.items()}
        return with_weights(module, weights)

    return replace(student, model=rebuilt(student.model, own))


def finished(learner, student):
    """A Checkpoint with a copy of the learner's present weights; the embeddings are shared."""

    def still(module, _):
        if not module._parameters:
            return None
        copied = {key: t.detach().clone() if t.requires_grad else t.detach() for key, t in module._parameters.items()}
        return with_weights(module, copied)

    return replace(student, model=rebuilt(learner.model, still), name=f"{student.name}, distilled")


def step_loss(student, teacher, pairs):
    """The loss of one step: of the logits, of the comparison of labels, and of the hidden states."""
    texts = [text for text, labels in pairs for _ in labels]
    hypotheses = [label for _, labels in pairs for label in labels]
    inputs = student.tokenizer(
        texts, hypotheses, padding=True, truncation="only_first", max_length=TOKENS, return_tensors="pt"
    )
    depths = depths_of(student, teacher)
    whole = teacher.model.dtype == torch.float32  # a teacher in fewer bits runs as it is
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bf16() and whole):
        wanted = teacher.model(**inputs, output_hidden_states=depths is not None)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
        found = student.model(**inputs, output_hidden_states=depths is not None)
    ours, theirs = found.logits.float(), wanted.logits.float()
    loss, start = mse_loss(ours, theirs) / theirs.var(), 0
    for _, labels in pairs:
        lists = [log_softmax(side[start : start + len(labels), student.entailment_id], 0) for side in (ours, theirs)]
        loss = loss + kl_div(*lists, log_target=True, reduction="sum") / len(pairs)
        start += len(labels)
    real = inputs["attention_mask"].bool()
    for layer, depth in enumerate(depths or []):
        one, other = found.hidden_states[layer + 1][real].float(), wanted.hidden_states[depth][real].float()
        loss = loss + mse_loss(one, other) / other.var()
    return loss


def depths_of(student, teacher):
    """For each student layer, the number of teacher layers whose output it learns; None if it was not cut from one.

    A student layer also stands for the dropped layers that followed it.
    """
    here, there = student.model.config, teacher.model.config
    whole = there.num_hidden_layers == getattr(here, "kept_of", None) and not hasattr(there, "kept_of")
    if not whole or here.hidden_size != there.hidden_size:
        return None
    return [*here.kept_layers[1:], here.kept_of]


class State:
    """The progress of a run: in memory, and in a file if a folder was given."""

    def __init__(self, folder, work, model, optimizer):
        self.step, self.model, self.optimizer, self.file = 0, model, optimizer, None
        if folder is None:
            return
        self.file, self.work = Path(folder).expanduser() / "distil.pt", digest(*work)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.is_file():
            self.take_up()

    def trained(self):
        """{name: weights} that training changes; the others are shared with the student and must not change."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def take_up(self):
        """Resume from the file's state; raises ValueError if it is broken or belongs to another run."""
        try:
            kept = torch.load(self.file, weights_only=True)
            work, step, weights, optimizer = (kept[key] for key in ("work", "step", "weights", "optimizer"))
        except Exception as error:  # a broken pickle can raise almost anything
            raise ValueError(f"{self.file} is no state of distil, or broken ({error}): name another folder") from error
        if work != self.work:
            raise ValueError(f"{self.file} is of another student, teacher, lesson, rate or seed: name another folder")
        self.step = step
        with torch.no_grad():
            for name, parameter in self.trained().items():
                parameter.copy_(weights[name])
        self.optimizer.load_state_dict(optimizer)

    def keep(self):
        """Write the state to the file atomically."""
        if self.file is None:
            return
        weights = {name: parameter.detach() for name, parameter in self.trained().items()}
        state = {"work": self.work, "step": self.step, "weights": weights, "optimizer": self.optimizer.state_dict()}
        with tempfile.TemporaryDirectory(dir=self.file.parent) as scratch:
            torch.save(state, Path(scratch) / "whole")
            os.replace(Path(scratch) / "whole", self.file)


def digest(lesson, *checkpoints):
    """A SHA-256 hex digest of a Lesson and of checkpoints, weights included; it tells one run from another."""
    found = hashlib.sha256(repr(lesson).encode())
    for checkpoint in checkpoints:
        found.update(checkpoint.model.config.to_json_string().encode())
        for name, tensor in checkpoint.model.state_dict().items():
            dense = tensor.to_dense() if tensor.is_mkldnn else tensor
            found.update(name.encode())
            found.update(dense.contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


def has_bf16():
    """Whether this processor multiplies faster in bf16: known ones take under 0.5 or over 1 times fp32's seconds."""
    return times_as_long(torch.bfloat16) < 0.7
