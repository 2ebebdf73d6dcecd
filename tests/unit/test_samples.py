"""The test set is what the model card says it is, and training never saw it."""

from collections import Counter, defaultdict

import corpus
import evaluate
import pytest

from zsc_utils import samples


@pytest.mark.parametrize("name", samples.TEST_SETS)
def test_no_text_stands_twice(name):
    texts = [record["text"] for record in samples.test_set(name)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", ["topics_new", "topics_familiar"])
def test_topics_are_twelve_with_26_headlines_each(name):
    records = samples.test_set(name)
    assert Counter(r["topic"] for r in records) == dict.fromkeys(samples.topics(records), 26)
    assert len(samples.topics(records)) == 12


def test_half_of_the_reviews_only_imply_and_half_praise():
    counts = Counter((r["domain"], r["polarity"], r["stated"]) for r in samples.test_set("reviews"))
    assert set(counts.values()) == {5} and len(counts) == 12 * 4


def test_nli_has_three_hypotheses_for_each_text():
    records = samples.test_set("nli")
    assert len(records) == 120
    assert all(len({r["entailment"], r["neutral"], r["contradiction"]}) == 3 for r in records)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="topics_old.*topics_familiar"):
        samples.test_set("topics_old")


# --------------------------------------------------------------------------------------- what training may have seen


def test_labels_kept_for_the_test_are_no_labels_of_training():
    kept = {record["topic"] for record in samples.test_set("topics_new") + evaluate.records_of("topics_new")}
    assert kept | {"表扬", "批评", "夸奖", "吐槽"} == set(corpus.TEST_LABELS)
    used = corpus.label_pool() + [label for pair in corpus.polarity_labels() for label in pair]
    used += [h for e in corpus.nli() for h in (*e.entailment, *e.neutral, *e.contradiction)]
    assert not [label for label in used if any(word in label for word in corpus.TEST_LABELS)]


def test_unseen_words_stand_in_no_training_text():
    texts = [text for text, *_ in corpus.headlines()] + [text for text, *_ in corpus.own_reviews()]
    texts += [example.text for example in corpus.nli()]
    assert not [text for text in texts if any(word in text for word in corpus.UNSEEN_WORDS)]


def test_domains_kept_for_the_test_are_no_training_domains():
    assert not {domain for _, domain, _ in corpus.own_reviews()} & {*evaluate.KEPT_OUT_DOMAINS}


def test_the_test_set_of_the_card_is_what_was_asked_for():
    topics, reviews, nli = map(evaluate.records_of, TESTS)
    assert set(Counter(record["topic"] for record in topics).values()) == {25} and len(topics) == 400
    assert set(Counter((r["domain"], r["polarity"], r["stated"]) for r in reviews).values()) == {5}
    assert len(reviews) == 300 and len(nli) == 100
    assert all(len({r["entailment"], r["neutral"], r["contradiction"]}) == 3 for r in nli)
    assert {record["topic"] for record in topics} > {*evaluate.EARLIER_LABELS, *evaluate.UNSEEN_TOPICS}
    assert all(not 40 < len(record["text"]) < evaluate.LONG for record in topics + reviews)


TESTS = ("topics_new", "reviews", "nli")  # the files of the card's test set
BOTH = [*((samples.test_set, name) for name in samples.TEST_SETS), *((evaluate.records_of, name) for name in TESTS)]


@pytest.mark.parametrize("read, name", BOTH)
def test_no_training_text_is_like_a_test_text(read, name):
    """Less than 0.35 of the character pairs in common."""
    sizes, holders = [], defaultdict(list)
    for number, record in enumerate(record for own in corpus.OWN for record in corpus.records(own)):
        pairs = corpus.bigrams(record["text"])
        sizes.append(len(pairs))
        for pair in pairs:
            holders[pair].append(number)
    for record in read(name):
        mine = corpus.bigrams(record["text"])
        common = Counter(number for pair in mine for number in holders[pair])
        shares = [count / (len(mine) + sizes[number] - count) for number, count in common.items()]
        assert max(shares, default=0) < 0.35, record["text"]
