"""What lessons 01 and 01b ask: the bytes of one forward pass, and the meters of a process."""

from types import SimpleNamespace
from typing import Any

from zsc_utils.exercises import Guess, Wrong, exercise
from zsc_utils.exercises._numbers import compare, missing_terms, number

GUESSES: list[Guess] = [
    Guess("whole-process", "mb", "the whole process that runs the base model on one text", 3000, 1800),
    Guess("parameter-count", "million", "the parameters of the base model", 110, 110),
    Guess("peak-512", "mb", "peak activations of one text of 512 tokens", 1500, (1000, 2000)),
    Guess("depth", "times", "peak activations with 24 layers against those with 2", 12),
    Guess("attention-peak", "tokens", "the length from which on eager attention is the peak of the pass", 128),
    Guess(
        "article-among-headlines", "times", "the growth of the peak when one headline of a batch becomes an article", 2
    ),
    Guess("four-readers", "times", "the resident bytes of four processes that share a file, over proportional ones", 1),
]

# (B, S, h, f): the base model; a batch; a narrow feed-forward network, where another moment is the peak
PASSES = ((1, 512, 768, 3072), (4, 128, 384, 1536), (2, 64, 256, 512))


def pencil(B, S, h, f):
    """(u, the wide tensor, the peak) in bytes: the largest of the moments in lesson 01's table."""
    u, wide = 4 * B * S * h, 4 * B * S * f
    return u, wide, max(6 * u, 3 * u + 2 * wide, 6 * u + wide)


@exercise(
    "my-predict",
    "Write my_predict(B, S, h, f): the peak activation bytes of B texts of S tokens in fp32 with SDPA, "
    "for hidden size h and a feed-forward network of width f.",
)
def my_predict(attempt: Any) -> str:
    for shape in PASSES:
        got = number(attempt(*shape), f"my_predict{shape}")
        peak, slack = (
            pencil(*shape)[2],
            8 * shape[0] * shape[1],
        )  # LayerNorm keeps two numbers a token, or they are left out
        if not peak <= got <= peak + slack:
            raise Wrong(lacking(shape, got, attempt))
    return "The largest of the moments, in bytes. memory.predict adds only small terms to it."


def lacking(shape, got, attempt):
    """Which term a wrong prediction lacks."""
    B, S, h, f = shape
    u, wide, peak = pencil(*shape)
    doubled = number(attempt(B, 2 * S, h, f), "my_predict")
    known = {
        peak / 4: "That is how many numbers there are. In fp32 each takes 4 bytes.",
        2 * u + 2 * wide: "One u is missing: the embeddings' output. BertModel.forward holds it until it returns.",
        3 * u + wide: "One wide tensor is missing: GELU needs its input and its output at the same time.",
        2 * wide: "The three states beside the two wide tensors are missing: 3 u.",
        6 * u: "Attention is not the peak here: the wide tensor and its GELU are larger.",
        peak / B: "The batch is missing: each of the B texts has its own activations.",
        3 * u + 2 * wide: "For f = 2 h another moment is the peak: the end of the feed-forward network. "
        "GELU's output, the dense layer, its sum and LayerNorm are alive there: 6 u and one wide tensor.",
    }
    for value, says in known.items():
        if value != peak and value <= got <= value + 8 * B * S:
            return says
    if got > 4 * peak and (got / peak) % 1 == 0:
        return f"That is {got / peak:.0f} peaks. Layers do not add up: each frees its tensors before the next begins."
    if got and abs(doubled / got - 2) > 0.01:
        return (
            f"Twice the tokens take {doubled / got:.2g} times the bytes. With SDPA nothing grows with the square of S."
        )
    return f"my_predict{shape} returns {got:,.0f}, which is {got / u:.3g} u. Which moment has that many u?"


SIZES = (  # the first one's sizes are unrelated, so that no two terms are equal by chance
    dict(vocab_size=1009, max_position_embeddings=61, type_vocab_size=7, hidden_size=48,
         intermediate_size=176, num_hidden_layers=5, num_attention_heads=4, num_labels=5),
    dict(vocab_size=21128, max_position_embeddings=512, type_vocab_size=2, hidden_size=768,
         intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_labels=3),
)  # fmt: skip


def parameter_terms(c):
    """The parameters of a BERT classifier, {term: count}."""
    h, f, layers = c.hidden_size, c.intermediate_size, c.num_hidden_layers
    return {
        "the word embeddings": c.vocab_size * h,
        "the position embeddings": c.max_position_embeddings * h,
        "the token types": c.type_vocab_size * h,
        "the LayerNorm of the embeddings": 2 * h,
        "query, key and value": layers * 3 * h * h,
        "attention's output matrix": layers * h * h,
        "attention's biases": layers * 4 * h,
        "the two feed-forward matrices": layers * 2 * h * f,
        "the feed-forward biases": layers * (f + h),
        "the two LayerNorms of each layer": layers * 4 * h,
        "the pooler": h * h + h,
        "the classifier": (h + 1) * c.num_labels,
    }


def missing(got, c):
    """Which terms a wrong count of parameters lacks, as a sentence, or "" if it is none of them."""
    h, layers, terms = c.hidden_size, c.num_hidden_layers, parameter_terms(c)
    biases = terms["attention's biases"] + terms["the feed-forward biases"] + h + c.num_labels
    norms = terms["the LayerNorm of the embeddings"] + terms["the two LayerNorms of each layer"]
    lack = sum(terms.values()) - got
    known = {
        biases: "Missing: every bias. A linear layer has one number for each output besides its matrix.",
        norms: "Missing: every LayerNorm, 2 h each: one after the embeddings, two in each layer.",
        biases + norms: "Missing: every bias and every LayerNorm. Matrices are not all.",
        h + c.num_labels: "Missing: the biases of the pooler and of the classifier.",
        h: "Missing: the pooler's bias.",
        c.num_labels: "Missing: the classifier's bias.",
        layers * 2 * h: "Missing: one of the two LayerNorms of each layer, or half of each: weight and bias, 2 h.",
        layers * 4 * h: "Missing: attention's four biases, or the two LayerNorms of each layer. Both are 4 h a layer.",
        (c.type_vocab_size - 2) * h: f"type_vocab_size is {c.type_vocab_size} here, not 2: read it from the config.",
        (c.num_labels - 3) * (h + 1): f"num_labels is {c.num_labels} here, not 3: read it from the config.",
    }
    if lack and lack in known:
        return known[lack]
    absent = missing_terms(got, terms)
    return f"Missing: {', '.join(absent)}." if absent else ""


@exercise(
    "weights-bytes",
    "Write weights_bytes(config): the bytes of a BERT classifier's weights in fp32, from the sizes in its config.",
)
def weights_bytes(attempt: Any) -> str:
    for sizes in SIZES:
        count = sum(parameter_terms(SimpleNamespace(**sizes)).values())
        got = number(attempt(SimpleNamespace(**sizes)), "weights_bytes(config)")
        if got == 4 * count:
            continue
        if got == count:
            raise Wrong("That is the number of parameters. In fp32 each takes 4 bytes.")
        if says := missing(got / 4, SimpleNamespace(**sizes)):
            raise Wrong(says)
        compare(got, 4 * count, f"weights_bytes of {sizes['num_hidden_layers']} layers", {})
    return "Every matrix, bias and LayerNorm is counted once, at 4 bytes a number."


PAGES = (
    dict(what="heap", kind="anonymous", resident=120, mapped_by=1),
    dict(what="weights", kind="file", resident=360, mapped_by=3),
    dict(what="libraries", kind="file", resident=90, mapped_by=2),
    dict(what="a file that was read", kind="file", resident=200, mapped_by=0),
)


@exercise(
    "whose-bytes",
    "Write whose_bytes(pages): return {'rss': ..., 'pss': ..., 'container': ...} in MB for one process of a container. "
    "Each item of pages has resident (MB) and mapped_by (how many processes of the container map it; 0: only cached).",
)
def whose_bytes(attempt: Any) -> str:
    got = attempt([dict(page) for page in PAGES])
    if not isinstance(got, dict) or set(got) != {"rss", "pss", "container"}:
        raise Wrong("whose_bytes returns a dict with the keys rss, pss and container.")
    cached = "Pages that no process maps are page cache: they are in no process's Rss or Pss."
    compare(got["rss"], 570, "rss", {
        770: cached, 120: "File-backed pages are in Rss too, as far as they are resident.",
        285: "Rss does not divide: each process counts a shared page in full.",
    })  # fmt: skip
    compare(got["pss"], 285, "pss", {
        485: cached, 570: "Pss divides each page by the number of processes that map it.",
        120: "Shared pages are in Pss too, each divided by the processes that map it.",
    })  # fmt: skip
    compare(got["container"], 770, "container", {
        570: "The page cache is missing: pages that were read and that no process maps are charged too.",
        1380: "A shared page is charged to the container once, not once for each process.",
        1580: "A shared page is charged to the container once, not once for each process.",
        120: "File-backed pages are charged to the container too.", 485: "A container does not divide shared pages.",
        285: "A container does not divide shared pages, and is charged for cached ones.",
    })  # fmt: skip
    return "Rss counts a shared page in full, Pss its share, the container once, and cached pages besides."


ROOMS = ((128, 190_000_000), (512, 60_000_000), (64, 400_000))  # (length, room): the last is too small for any text


@exercise(
    "largest-batch",
    "Write largest_batch(config, length, room): how many padded texts of that length have activations of at most "
    "room bytes.",
)
def largest_batch(attempt: Any) -> str:
    from transformers import BertConfig

    from zsc_utils.memory import predict

    config = BertConfig()
    exact = predict(config, 5, 128, padded=True).peak_activations  # of a batch that fits exactly
    unpadded = predict(config, 100, 512).peak_activations  # the mask takes the room of two texts here
    small = BertConfig(hidden_size=64, num_attention_heads=1, intermediate_size=256)
    narrow = [(small, length, predict(small, 5, length, padded=True).peak_activations) for length in (300, 512)]
    usual = [(config, length, room) for length, room in (*ROOMS, (128, exact), (512, unpadded))]
    for config, length, room in (*usual, *narrow):
        fits = largest(config, length, room)
        call = f"largest_batch(config, {length}, {room:,})"
        one = predict(config, 1, length, padded=True).peak_activations
        got = number(attempt(config, length, room), call)
        if got == fits:
            continue
        if fits == 0:
            raise Wrong(f"{call} returns {got:,.0f}, but not even one text fits: return 0.")
        if got == fits + 1:
            raise Wrong("One too many: that is the first batch that does not fit.")
        if config is small and got == room // one:
            raise Wrong("Some bytes come once, whatever the batch: room // (bytes of one text) is too few. "
                        "Try one batch after the other.")  # fmt: skip
        if got == fits - 1:
            raise Wrong("One too few: a batch that takes exactly room bytes fits.")
        if got == largest(config, length, room, padded=False):
            raise Wrong("The mask is missing: with padded=True it has a term that grows with the square of the length.")
        if got == largest(config, length, room, what="total"):
            raise Wrong("That counts the weights too. room is what is left beside them: compare peak_activations.")
        compare(got, fits, call, {})
    return "The largest batch that fits, by arithmetic alone: nothing was run."


def largest(config, length, room, padded=True, what="peak_activations"):
    """The largest batch of texts of that length whose bytes fit into the room; 0 if none does."""
    from zsc_utils.memory import predict

    batch = 0
    while getattr(predict(config, batch + 1, length, padded=padded), what) <= room:
        batch += 1
    return batch


STATUS = """Name:\tpython
VmPeak:\t  901232 kB
VmHWM:\t  412345 kB
VmRSS:\t  400001 kB
RssAnon:\t  250000 kB
RssFileHuge:\t    2048 kB
RssFile:\t  150001 kB
Threads:\t5
"""


@exercise(
    "read-status",
    "Write read_status(text, name): the bytes that a line of /proc/self/status, such as 'VmRSS', gives.",
)
def read_status(attempt: Any) -> str:
    for name, kilobytes in {"VmRSS": 400_001, "VmHWM": 412_345, "RssAnon": 250_000, "RssFile": 150_001}.items():
        compare(attempt(STATUS, name), kilobytes * 1024, f'read_status(text, "{name}")', {
            kilobytes: "That is the number in the file, which counts units of 1,024 bytes.",
            kilobytes * 1000: "This file says kB and means 1,024 bytes, not 1,000.",
            901_232 * 1024: "That is the first line that begins with Vm. Compare the whole name before the colon.",
            2048 * 1024: "That is RssFileHuge, which only begins like RssFile. Compare the name up to the colon.",
            250_000 * 1024: "That is the first line that begins with Rss. Compare the whole name before the colon.",
        })  # fmt: skip
    return "Your own meter. memory.resident reads the same file."


GROUP = dict(anon=180, file=240, active_file=90, inactive_file=150, kernel=30)  # MB of a container


@exercise(
    "working-set",
    "Write working_set(usage, stat): the bytes charged to a container, less the file pages not used for some time.",
)
def working_set(attempt: Any) -> str:
    compare(attempt(450, dict(GROUP)), 300, "working_set(450, stat)", {
        450: "That is all that is charged. inactive_file is not part of the working set.",
        210: "Only inactive_file is subtracted: active file pages are in use.",
        360: "It is the inactive file pages that are subtracted: active ones are in use.",
        180: "Anonymous bytes are not all: active file pages and the kernel's own pages belong to it too.",
    })  # fmt: skip
    if number(attempt(100, dict(GROUP)), "working_set(100, stat)") != 0:
        raise Wrong("The two files are read one after the other: where the result would be negative, return 0.")
    return "This is what kubectl top shows, and what Kubernetes compares before it evicts a pod."
