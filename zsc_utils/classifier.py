"""The drop-in: texts x labels -> pairs -> batches -> logits -> scores -> results.

Called as the transformers zero-shot pipeline is called, with results of the same shape. The text is the premise, each
label put into the template a hypothesis; how sure the model is that the text entails it becomes the label's score.
"""

import os
import re

import torch

from zsc_utils.checkpoint import Checkpoint, load


class ZeroShotClassifier:
    """Classify Chinese texts by labels given at call time.

    >>> classify = ZeroShotClassifier("mini")
    >>> classify("央行下调利率", ["财经", "体育"])["labels"]
    ['财经', '体育']

    `checkpoint` is a Checkpoint or a name for `zsc_utils.load`. It runs where the checkpoint's model is.
    """

    def __init__(self, checkpoint="mini", *, batch_size=16):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size {batch_size!r}: give the number of pairs in a forward pass, 1 or more")
        if not isinstance(checkpoint, Checkpoint | str | os.PathLike):
            raise TypeError(f"checkpoint {checkpoint!r}: give a Checkpoint or the name of one")
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
        self.batch_size = batch_size

    def __repr__(self):
        return f"ZeroShotClassifier({self.checkpoint!r})"

    def __call__(self, sequences, candidate_labels, hypothesis_template="{}", multi_label=False):
        """Score every label for every text.

        `sequences` is a text or a list of texts; `candidate_labels` a list of labels, or one string that separates them
        by `,` or `，`. Returns {"sequence", "labels", "scores"} with the best label first, a list of them for a list of
        texts. Single label: scores of a text sum to 1 (softmax of the entailment logits over the labels). Multi label,
        or one label only: each score stands alone (softmax over contradiction and entailment). A text too long for the
        model is cut at its end, never the hypothesis.

        Raises ValueError or TypeError, naming value and position, for input that has no answer: an empty text or list,
        a text or label that is no string, a label given twice, a template without exactly one `{}`, a hypothesis that
        leaves no room for a text. The pipeline of transformers lets some of these pass.
        """
        texts = check_texts([sequences] if isinstance(sequences, str) else sequences)
        labels = check_labels(candidate_labels)
        hypotheses = fill(hypothesis_template, labels)
        logits = self.logits([(text, hypothesis) for text in texts for hypothesis in hypotheses])
        scores = self.scores(logits.view(len(texts), len(labels), -1), multi_label)
        results = [ranked(text, labels, row) for text, row in zip(texts, scores.tolist())]
        return results[0] if isinstance(sequences, str) else results

    def logits(self, pairs):
        """Logits (len(pairs), classes), fp32, of (text, hypothesis) pairs, `batch_size` pairs to a forward pass."""
        steps = range(0, len(pairs), self.batch_size)
        return torch.cat([self.forward(pairs[start : start + self.batch_size]) for start in steps])

    @torch.inference_mode()
    def forward(self, pairs):
        """Logits of one batch of (text, hypothesis) pairs, padded to its longest."""
        tokenizer, model = self.checkpoint.tokenizer, self.checkpoint.model
        texts, hypotheses = map(list, zip(*pairs))
        check_room(tokenizer, hypotheses)
        # real pairs: the tokenizer puts [SEP] between and marks the hypothesis with token type 1
        inputs = tokenizer(texts, hypotheses, truncation="only_first", padding=True, return_tensors="pt")
        return model(**inputs.to(model.device)).logits.float().cpu()

    def scores(self, logits, multi_label):
        """Scores (texts, labels) from logits (texts, labels, classes)."""
        entailment = logits[..., self.checkpoint.entailment_id]
        if multi_label or logits.shape[1] == 1:
            return torch.sigmoid(entailment - logits[..., self.checkpoint.contradiction_id])  # softmax over the two
        return entailment.softmax(dim=1)


def check_texts(texts):
    """The texts as a list, or an error that names the first that cannot be classified."""
    if not isinstance(texts, list | tuple):
        raise TypeError(f"sequences: give a text or a list of texts, not {type(texts).__name__}")
    if not texts:
        raise ValueError("sequences is an empty list: give at least one text")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {position} is {text!r}, a {type(text).__name__}: only strings can be classified")
        if not text.strip():
            raise ValueError(f"text {position} is empty ({text!r}): leave it out, it has no class")
    return list(texts)


def check_labels(labels):
    """The labels as a list; a string is split at `,` and `，`."""
    if isinstance(labels, str):
        labels = [label.strip() for label in re.split("[,，]", labels) if label.strip()]
    if not isinstance(labels, list | tuple):
        raise TypeError(f"candidate_labels: give a list or a string, not {type(labels).__name__}")
    if not labels:
        raise ValueError("candidate_labels is empty: give at least one label")
    for position, label in enumerate(labels):
        if not isinstance(label, str):
            raise TypeError(f"label {position} is {label!r}, a {type(label).__name__}: labels are strings")
        if not label.strip():
            raise ValueError(f"label {position} is empty ({label!r}): leave it out")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"candidate_labels holds {', '.join(twice)} more than once: give each label once")
    return list(labels)


def fill(template, labels):
    """The hypotheses: each label in the place of the template's one `{}`."""
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ValueError(
            f"hypothesis_template {template!r}: it needs {{}} exactly once, where the label goes, "
            "as in '这篇文章的标题是{}'"
        )
    return [template.replace("{}", label) for label in labels]


def check_room(tokenizer, hypotheses):
    """Raise when a hypothesis leaves no room for a text beside it."""
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(pair=True)
    for hypothesis, ids in zip(hypotheses, tokenizer(hypotheses, add_special_tokens=False).input_ids):
        if len(ids) >= room:
            raise ValueError(
                f"the hypothesis {hypothesis[:20] + '…'!r} has {len(ids)} tokens and leaves no room for a text: "
                f"the model reads {room}. Shorten the label or the template"
            )


def ranked(text, labels, scores):
    """One result, best label first; equal scores keep the order of the labels."""
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    return {"sequence": text, "labels": [labels[i] for i in order], "scores": [scores[i] for i in order]}
