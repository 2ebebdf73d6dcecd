"""A small model learns from the one it was cut from: not from answers, but from all that the teacher says to a pair."""

import hashlib
import os
import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.nn.functional import kl_div, log_softmax, mse_loss
from tqdm.auto import tqdm

from zsc_utils import checkpoint as door

TEXTS = 8  # of a step
LABELS = 6  # that a text gets in a step, at most
NEIGHBOURS = 64  # texts of like length from which those of a step are drawn, so that little is padding
TOKENS = 64  # of a pair; longer texts are cut
WARM_UP = 50  # steps over which the rate rises


@dataclass(frozen=True)
class Lesson:
    """What is taught, and in which order: everything that a step does follows from this and from its number."""

    texts: tuple
    labels: tuple  # a list for each text
    steps: int
    rate: float
    seed: int

    def pairs(self, step):
        """The texts of a step, each with labels drawn from its list: [(text, labels), ...]."""
        rng = random.Random(f"{self.seed} {step}")
        first = rng.randrange(max(1, len(self.texts) - NEIGHBOURS + 1))
        near = range(first, min(len(self.texts), first + NEIGHBOURS))
        chosen = rng.sample(near, min(TEXTS, len(near)))
        return [(self.texts[i], rng.sample(self.labels[i], min(LABELS, len(self.labels[i])))) for i in chosen]

    def rate_of(self, step):
        """The learning rate: up in the first steps, then down to 0 in a straight line."""
        return self.rate * min(1, (step + 1) / WARM_UP) * (1 - step / self.steps)


def distil(
    student, teacher, texts, labels, steps, *, rate=3e-4, seed=0, folder=None, watch=None, every=100, progress=True
):
    """A new Checkpoint: `student` after `steps` steps towards what `teacher` says of the same pairs.

    A step takes 8 texts, each with up to 6 of its labels. `labels` is one list for all texts, or one for each; no
    answer is needed. What is brought together: the logits, how each text's labels compare (Kullback-Leibler divergence
    of the entailment logits' softmax), and, for a student from `attention.shrink` of this teacher, the hidden states
    after each layer with those of the teacher where the next layer was taken from. Embeddings stay as they are. In
    bf16 where the processor has instructions for it, which is faster, else in fp32.

    The same arguments give the same weights on the same machine. `folder`: where the state is kept every `every` steps,
    and taken up again if the work was interrupted. `watch(step, checkpoint)` is called every `every` steps and at the
    end. Raises ValueError for a student that is not in fp32 on a CPU, for a teacher with other classes or tokens, for
    texts or labels without use, and for a `folder` that holds the state of other work.
    """
    check(student, teacher, texts, labels, steps)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    shared = isinstance(labels[0], str)
    own = tuple(tuple(labels if shared else labels[i]) for i in order)
    lesson = Lesson(tuple(texts[i] for i in order), own, steps, rate, seed)
    learner, master = trainable(student), replace(teacher, model=door.rebuilt(teacher.model, lambda *_: None))
    parameters = [p for p in learner.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    state = State(folder, lesson, learner.model, optimizer)
    with tqdm(total=steps, initial=state.step, desc="distil", unit="step", disable=not progress) as bar:
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


def check(student, teacher, texts, labels, steps):
    """Raise for what cannot be taught."""
    model = student.model
    if {t.dtype for t in model.state_dict().values()} != {torch.float32} or model.device.type != "cpu":
        raise ValueError(f"student {student.name!r}: give one in fp32 on the CPU; quantize it afterwards")
    if teacher.model.config.num_labels != model.config.num_labels or (
        teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab()
    ):
        raise ValueError(f"{student.name!r} has other classes or another vocabulary than its teacher {teacher.name!r}")
    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps {steps!r}: give a whole number, 1 or more")
    if not texts or not labels or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("texts and labels: give at least one of each, and no text that is empty")
    lists = [labels] if isinstance(labels[0], str) else labels
    if lists is labels and len(labels) != len(texts):
        raise ValueError(
            f"{len(labels)} lists of labels for {len(texts)} texts: give one for each, or one list for all"
        )
    if not all(own and all(isinstance(label, str) and label.strip() for label in own) for own in lists):
        raise ValueError("labels: each list needs at least one label, and no label that is empty")


def trainable(student):
    """A copy of the student whose weights, the embeddings' aside, are its own and have gradients."""

    def own(module, name):
        if not module._parameters:
            return None
        if name.startswith("bert.embeddings"):
            weights = {key: tensor.detach() for key, tensor in module._parameters.items()}
        else:
            weights = {key: Parameter(tensor.detach().clone()) for key, tensor in module._parameters.items()}
        return door.with_weights(module, weights)

    return replace(student, model=door.rebuilt(student.model, own))


def finished(learner, student):
    """The learner as it is now, as a Checkpoint like any other."""

    def still(module, _):
        if not module._parameters:
            return None
        return door.with_weights(module, {key: tensor.detach().clone() for key, tensor in module._parameters.items()})

    return replace(student, model=door.rebuilt(learner.model, still), name=f"{student.name}, distilled")


def step_loss(student, teacher, pairs):
    """The loss of one step: logits, comparisons, hidden states."""
    texts = [text for text, labels in pairs for _ in labels]
    hypotheses = [label for _, labels in pairs for label in labels]
    inputs = student.tokenizer(
        texts, hypotheses, padding=True, truncation="only_first", max_length=TOKENS, return_tensors="pt"
    )
    depths = depths_of(student, teacher)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
        with torch.no_grad():
            wanted = teacher.model(**inputs, output_hidden_states=depths is not None)
        found = student.model(**inputs, output_hidden_states=depths is not None)
    ours, theirs = found.logits.float(), wanted.logits.float()
    loss, start = mse_loss(ours, theirs), 0
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
    """After how many of the teacher's layers each of the student's stands; None if it was not cut from one like it.

    A layer stands for those that were dropped behind it, too.
    """
    here, there = student.model.config, teacher.model.config
    whole = there.num_hidden_layers == getattr(here, "kept_of", None) and not hasattr(there, "kept_of")
    if not whole or here.hidden_size != there.hidden_size:
        return None
    return [*here.kept_layers[1:], here.kept_of]


def has_bf16():
    """Whether this processor multiplies bf16; where it does not, bf16 is slow."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class State:
    """How far the work is: in memory, and in a folder, if there is one."""

    def __init__(self, folder, lesson, model, optimizer):
        self.step, self.model, self.optimizer = 0, model, optimizer
        self.file = None if folder is None else Path(folder).expanduser() / "distil.pt"
        self.work = hashlib.sha256(repr(lesson).encode()).hexdigest()
        if self.file is not None and self.file.is_file():
            kept = torch.load(self.file, weights_only=True)
            if kept["work"] != self.work:
                raise ValueError(f"{self.file} is of other texts, labels, steps, rate or seed: name another folder")
            self.step = kept["step"]
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])

    def keep(self):
        """Write the state, whole or not at all."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {"work": self.work, "step": self.step, "model": self.model.state_dict()}
        with tempfile.TemporaryDirectory(dir=self.file.parent) as scratch:
            torch.save(state | {"optimizer": self.optimizer.state_dict()}, Path(scratch) / "whole")
            os.replace(Path(scratch) / "whole", self.file)
