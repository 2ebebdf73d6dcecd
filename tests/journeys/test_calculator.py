"""The calculator in pages/ equals Python to the byte: its arithmetic in V8, and the page itself in a browser."""

import functools
import html
import itertools
import json
import math
import random
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import machine
import page_constants
import pytest
import torch
from py_mini_racer import MiniRacer
from transformers import BertConfig

from zsc_utils import _container, _exports, _int8, inference, memory, onnx_plan
from zsc_utils import checkpoint as door
from zsc_utils import plan as planning
from zsc_utils.formats import DTYPES

PAGES = Path(__file__).parents[2] / "pages"
CONSTANTS = page_constants.written()
SETTINGS = 300  # of each engine
ENGINES = ("transformers", "torch", "export")
MB = 10**6

# --------------------------------------------------------------------------------------------------- drawn settings


def drawn(engine, number):
    """A form of the page, as bill.js takes it."""
    rng = random.Random(f"{engine} {number}")
    heads, sizes = rng.choice([1, 2, 3, 4, 8, 12]), {}
    if rng.random() < 0.3:
        sizes = CONSTANTS["CHECKPOINTS"][rng.choice(["base-shape", "mini"])]["config"]
    form = {
        "engine": engine, "layers": rng.choice([1, 2, 3, 12]), "hidden": heads * rng.choice([4, 16, 32, 64]),
        "heads": heads, "intermediate": rng.choice([32, 300, 1536, 3072]), "vocabulary": rng.randint(100, 30_000),
        "positions": rng.choice([40, 64, 300, 512, 1024]), "types": 2, "classes": rng.choice([2, 3]),
        "format": rng.choice(["transformers", "transformers-16", "int8-rows", "fp16", "bf16", "int8-v1"]),
        "tokenizer": rng.choice(["vocab.txt", "tokenizer.json"]), "tokenizerBytes": rng.randint(10_000, 5_000_000),
        "labels": rng.randint(1, 12), "texts": rng.choice([1, 1, 1, 2, 5]), "attention": "sdpa", "window": 128,
        "hypothesis": 8, "padded": False, "chunk": 0, "overwrites": False, "precision": None, "offload": None,
        "maxTokens": rng.choice([None, None, 100, 512, 1000, 2048]), "budget": rng.choice([None, 1]), "lossy": False,
        "threads": rng.choice([1, 2, 7, 64]), "int8": "packed", "int8Streamed": "plain", "mklKeeps": False,
        "whole": 400_000_000, "anonymous": 300_000_000, "container": None, "workers": 1, "disk": None, "speed": None,
    } | sizes  # fmt: skip
    form["length"] = rng.choice([1, 2, form["positions"], rng.randint(1, form["positions"])])
    return form | {"transformers": of_forward, "torch": of_plan, "export": of_export}[engine](form, rng)


def of_forward(form, rng):
    length = form["length"]
    divisors = [chunk for chunk in range(1, length + 1) if length % chunk == 0]
    overwrites = rng.random() < 0.3
    return {
        "precision": rng.choice([None, None, "fp32", "fp16", "bf16"]),
        "attention": rng.choice(["sdpa", "eager", "sliding"]), "padded": length > 1 and rng.random() < 0.5,
        "overwrites": overwrites, "chunk": rng.randint(0, 600) if overwrites else rng.choice([0, *divisors]),
        "window": rng.choice([1, 16, 64, 128, 200]), "hypothesis": rng.choice([0, 1, 8, 40]),
    }  # fmt: skip


def of_plan(form, rng):
    own = next((f["precision"] for f in CONSTANTS["FORMATS"] if f["name"] == form["format"]), "fp32")
    can = [precision for precision, dtype in DTYPES.items() if dtype.itemsize < DTYPES[own].itemsize]
    attention = rng.choice([None, None, "sdpa", "eager", "sliding"])
    chunk = rng.choice([0, 0, 1, 64, 100, 200, 600])
    return {
        "precision": rng.choice([None, None, own, *can]), "attention": attention, "chunk": chunk,
        "overwrites": chunk > 0, "offload": rng.choice([None, None, False, True][: 3 if attention == "sliding" else 4]),
        "lossy": rng.random() < 0.4, "int8": rng.choice(["packed", "plain", "widened"]),
        "int8Streamed": rng.choice(["packed", "plain", "widened"]), "mklKeeps": rng.random() < 0.3,
    }  # fmt: skip


def of_export(form, rng):
    return {"precision": rng.choice(["fp32", "int8"]), "offload": rng.choice([None, None, False, True])}


# ------------------------------------------------------------------------------------------------------- in Python


@functools.cache
def expected(engine, number):
    """(form, Python's answer) of a drawn form. Its budget is near one of the totals, so that each setting is chosen."""
    form = drawn(engine, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: form["threads"])
        return form, {"transformers": forward, "torch": with_torch, "export": without_torch}[engine](form, patch)


def bert(form):
    chunks = {"feed_forward_tokens": form["chunk"]} if form["overwrites"] else {}
    return BertConfig(**{key: form[short] for short, key in page_constants.CONFIG.items()}, **chunks)


def as_export(form):
    """The Exported of a form's sizes."""
    config = {key: form[short] for short, key in page_constants.CONFIG.items()}
    return _exports.Exported("drawn", Path("drawn"), form["precision"] or "fp32", config, 0, form["tokenizerBytes"])


def forward(form, patch):
    """memory.predict. In 16 bits, without the workspace that torch is asked for, and with the kernels of fp32."""
    asked = memory.checked_shape
    patch.setattr(memory, "checked_shape", lambda *args: asked(*args, ask=False))
    patch.setattr(memory, "workspace", lambda *_: 0)
    footprint = memory.predict(
        bert(form), form["labels"] * form["texts"], form["length"], attention=form["attention"],
        padded=form["padded"], ffn_chunk=form["chunk"], dtype=DTYPES[form["precision"] or "fp32"],
        threads=form["threads"], window=form["window"], hypothesis=form["hypothesis"],
    )  # fmt: skip
    alive = {name: size for name, size in footprint.peak.tensors.items() if size}
    return {
        "lines": [list(line) for line in (*footprint.weights_by_part.items(), *alive.items())],
        "growth": footprint.total, "weights": footprint.weights, "peakActivations": footprint.peak_activations,
        "phases": footprint.phases,
        "moments": largest((moment.phase, moment.what, moment.bytes) for moment in footprint.moments),
    }  # fmt: skip


def with_torch(form, patch):
    """plan.make for a folder of the form's format, on a machine of the form's kind."""
    config, stored = bert(form), stored_bytes(form)
    config.zsc_format = form["format"].removesuffix("-16")
    for room in (planning, inference, _int8):
        patch.setattr(room, "int8_engine", lambda streamed=False: form["int8Streamed" if streamed else "int8"])
    patch.setattr(planning, "MKL_KEEPS_BUFFERS", form["mklKeeps"])
    patch.setattr(torch.backends.mkl, "is_available", lambda: True)
    patch.setattr(door, "resolve", lambda _: door.Source("drawn", Folder(form["tokenizer"]), config, stored))
    patch.setattr(door, "stored_bytes", lambda _: stored)
    chosen = planning.Chosen(form["precision"], form["attention"], form["offload"])
    subject = planning.subject_of("drawn")
    settings = planning.settings_for(subject, form["maxTokens"] or subject.max_tokens, chosen)
    give_budget(form, [subject.total(setting) for setting in settings])
    lossy, most = form["lossy"], form["maxTokens"]
    patch.setattr(planning, "subject_of", lambda _: subject)  # it keeps the totals
    return of_plans(form, settings, subject.total, lambda: planning.make("drawn", form["budget"], lossy, most, chosen))


@pytest.fixture(autouse=True, scope="module")
def no_word_of_exports():
    """A refused plan would read the tokenizer of the folder, to name an export that fits; the folder is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "exports_of", lambda *_: [])
        yield


class Folder:
    """A folder that holds one file, as far as a plan asks."""

    def __init__(self, file):
        self.file = file

    def __truediv__(self, name):
        return SimpleNamespace(is_file=lambda: name == self.file)


def stored_bytes(form):
    """The bytes of the tensors in the file of a folder of the form's format."""
    if form["format"].startswith("int8"):  # as in an export: one scale a row
        tensors = _exports.shapes(as_export(form).config, int8=True).values()
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors)
    return sum(memory.parameters(bert(form)).values()) * (4 if form["format"] == "transformers" else 2)


def without_torch(form, patch):
    """onnx_plan.make for an export of the form's sizes."""
    patch.setattr(onnx_plan, "threads", lambda: form["threads"])
    export, most, offload = as_export(form), form["maxTokens"], form["offload"]
    settings = onnx_plan.settings_for(export, most, offload)
    give_budget(form, [sum(onnx_plan.bill(export, setting).values()) for setting in settings])
    return of_plans(
        form, settings, lambda setting: sum(onnx_plan.bill(export, setting).values()),
        lambda: onnx_plan.make(export, form["budget"], None, offload, most),
    )  # fmt: skip


def give_budget(form, totals):
    if form["budget"] is not None:
        rng = random.Random(sum(totals))
        form["budget"] = rng.choice(totals) + rng.choice([-1, 0, 0, 1000, 10**7])


def of_plans(form, settings, total, make):
    """What the page shows of a plan: the totals of all settings, the chosen one and its bill, the smallest budgets."""
    totals = [total(setting) for setting in settings]
    try:
        plan = make()
    except ValueError as error:
        said = re.findall(r"(?:works is|allow_lossy=True) ([\d.]+) MB", str(error))
        return {"totals": totals, "chosen": None, "smallest": [float(size) for size in said]}
    return {"totals": totals, "chosen": settings.index(plan.setting), "bill": plan.bill, "growth": plan.predicted}


# ----------------------------------------------------------------------------------------------------------- in V8


@pytest.fixture(scope="module")
def v8():
    """The engine of Chromium and Node, without a page, in which bill.js runs and the words of texts.js are."""
    with MiniRacer() as engine:
        for name in ("constants.js", "bill.js", "texts.js"):
            engine.eval((PAGES / name).read_text(encoding="utf-8"))
        yield engine


@pytest.fixture(scope="module")
def answer(v8):
    return lambda form: json.loads(v8.eval(f"JSON.stringify(calculator.answer({json.dumps(form)}))"))


def of_page(form, answer):
    """The answer of bill.js to a form, in the shape of Python's."""
    if "footprint" in answer:
        footprint = answer["footprint"]
        found = {key: footprint[key] for key in ("weights", "peakActivations", "phases")}
        found["moments"] = largest((one["phase"], one["what"], one["bytes"]) for one in footprint["moments"])
        return found | {"growth": answer["growth"], "lines": [[name, size] for _, name, size in answer["lines"]]}
    totals = [setting["total"] for setting in answer["settings"]]
    if "problem" in answer:
        named = [answer[key]["total"] for key in ("smallest", "smallestLossy") if key in answer]
        return {"totals": totals, "chosen": None, "smallest": [math.ceil(s / 1e5) / 10 for s in dict.fromkeys(named)]}
    bill = {"weights": sum(size for kind, _, size in answer["lines"] if kind == "weights")}
    bill |= {name: size for kind, name, size in answer["lines"] if kind != "weights"}
    settings = [{k: v for k, v in one.items() if k not in ("total", "allowed")} for one in answer["settings"]]
    return {"totals": totals, "chosen": settings.index(answer["chosen"]), "bill": bill, "growth": answer["growth"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_arithmetic_is_python_s_to_the_byte(answer, engine):
    for number in range(SETTINGS):
        form, python = expected(engine, number)
        assert of_page(form, answer(form)) == python, (number, form)


def largest(moments):
    """The most bytes of each place in a forward pass, those that are never the peak too. `moments`: (phase, what,
    bytes) of each."""
    found = {}
    for phase, what, size in moments:
        found[f"{phase}: {what}"] = max(found.get(f"{phase}: {what}", 0), size)
    return found


def test_every_moment_of_our_own_pass_is_python_s_to_the_byte(v8):
    for number in range(SETTINGS):
        form = drawn("transformers", number)
        rng, most = random.Random(number), form["positions"]
        groups = [(rng.randint(1, 9), rng.randint(1, most)) for _ in range(rng.choice([1, 2]))]
        options = {key: form[key] for key in ("attention", "threads", "hypothesis")} | {
            "chunk": rng.choice([64, 128, 256]), "int8": rng.choice([None, "packed", "plain", "widened"]),
        }  # fmt: skip
        kind = "fp32" if options["int8"] else form["precision"] or "fp32"
        ours = inference.predict(bert(form), groups, dtype=DTYPES[kind], ask=False, **options)
        given = f"{json.dumps(form)}, {json.dumps(groups)}, {json.dumps(options | {'precision': kind})}"
        page = json.loads(v8.eval(f"JSON.stringify(inference.predict({given}).moments)"))
        moments = largest((m.phase, m.what, m.bytes) for m in ours.moments)
        assert largest((m["phase"], m["what"], m["bytes"]) for m in page) == moments, (form, groups, options)


@pytest.mark.parametrize("engine", ["torch", "export"])
def test_the_drawn_budgets_choose_many_settings_and_refuse_some(engine):
    """Or the test above would compare a few of them again and again."""
    chosen = [expected(engine, number)[1]["chosen"] for number in range(SETTINGS)]
    assert len(set(chosen)) > 5 and SETTINGS / 100 < chosen.count(None) < SETTINGS / 4


@pytest.mark.parametrize("number", range(20))
def test_an_engine_that_is_not_known_is_the_one_with_the_largest_bill(answer, number):
    form = drawn("torch", number) | {"precision": "int8", "format": "transformers", "budget": None}
    unknown = answer(form | {"int8": "unknown", "int8Streamed": "unknown"})
    engines = itertools.product(["packed", "plain", "widened"], repeat=2)
    known = [answer(form | {"int8": one, "int8Streamed": other}) for one, other in engines]
    for place, setting in enumerate(unknown["settings"]):
        assert setting["total"] == max(one["settings"][place]["total"] for one in known)
    assert unknown["growth"] == sum(size for _, _, size in unknown["lines"]) == max(one["growth"] for one in known)


@pytest.mark.parametrize("number", range(30))
def test_the_batch_of_a_form_s_texts_is_inference_predict(answer, number):
    form = drawn("torch", number) | {"budget": None}
    page = answer(form)
    batch, setting = page["batch"], page["chosen"]
    pairs, int8 = form["labels"] * form["texts"], setting["precision"] == "int8"
    together = min(pairs, max(1, setting["maxTokens"] // form["length"]))
    footprint = inference.predict(
        bert(form), [(together, form["length"])], attention=setting["attention"], chunk=setting["chunk"],
        dtype=torch.float32 if int8 else DTYPES[setting["precision"]], threads=form["threads"], ask=False,
        int8=int8 and form["int8Streamed" if setting["block"] else "int8"],
    )  # fmt: skip
    assert batch == {
        "pairs": pairs, "together": together, "batches": -(-pairs // together),
        "activations": footprint.peak_activations,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- containers and disks


def held(form, answer, container, **others):
    return answer(form | {"container": container, **others})["container"]


def test_a_container_that_fits_holds_the_plan_python_and_its_libraries(answer):
    form = base_shape(budget=150 * MB)
    growth = answer(form)["growth"]
    needed = form["whole"] + _container.LIBRARY_PAGES_BYTES + growth
    assert held(form, answer, needed)["verdict"] == "fits"
    assert held(form, answer, needed - 1)["verdict"] == "slow"
    kept = form["anonymous"] + growth  # the layers are streamed: none of their bytes can be dropped
    assert held(form, answer, kept)["verdict"] == "slow" and held(form, answer, kept - 1)["verdict"] == "killed"
    two = held(form, answer, 2 * needed, workers=2)
    assert two["verdict"] == "fits" and two["most"] == 2
    less = held(form, answer, 2 * needed - 1, workers=2)
    assert less["verdict"] == "slow" and less["most"] == 1


def test_mapped_weights_count_once_for_all_workers_and_can_be_dropped(answer):
    form = base_shape(budget=None)
    weights = sum(memory.parameters(bert(form)).values()) * 4
    one, two = held(form, answer, None), held(form, answer, None, workers=2)
    assert two["all"] == 2 * one["all"] - weights
    assert one["undroppable"] == form["anonymous"] + answer(form)["growth"] - weights
    private = [{"precision": "int8"}, {"precision": "fp16"}, {"format": "int8-rows"}, {"format": "transformers-16"}]
    for options in private:  # these weights are made in each process
        made = held(form, answer, None, workers=2, **options)
        assert made["shared"] == 0 and made["all"] == 2 * made["one"], options
    assert held(form, answer, None, workers=2, format="bf16")["shared"] == weights // 2


def test_what_a_container_leaves_is_the_budget_of_each_worker(answer):
    form = base_shape(budget="container", container=1000 * MB, workers=2)
    left = 500 * MB - form["whole"] - _container.LIBRARY_PAGES_BYTES
    assert answer(form)["budget"] == left and answer(form)["container"]["verdict"] == "fits"
    assert answer(form | {"container": 900 * MB})["problem"][0] == "budget"


def test_transformers_own_pass_is_promised_nothing(answer):
    assert held(base_shape("transformers"), answer, 10**12)["verdict"] == "unsure"


def test_a_recorded_container_that_killed_or_took_too_long_is_not_said_to_fit(answer):
    """The containers of benchmarks/records: what the page calls large enough was large enough there."""
    ways = {"ours in 150 MB": ("torch", {"budget": 150 * MB}),
            "ours, int8 in 55 MB": ("torch", {"budget": 55 * MB, "precision": "int8"}),
            "ours without torch, int8": ("export", {"precision": "int8"}),
            "ours without torch, int8 streamed": ("export", {"precision": "int8", "budget": 100 * MB})}  # fmt: skip
    tried = 0
    for file in sorted(machine.RECORDS.glob("*.json")):
        recorded = json.loads(file.read_text(encoding="utf-8")).get("containers", {"ways": {}})["ways"]
        for way, (engine, options) in ways.items():
            form = base_shape(engine, budget=None) | options
            for limit, result in recorded.get(way, {"containers": {}})["containers"].items():
                said, tried = held(form, answer, int(limit) * MB)["verdict"], tried + 1
                assert isinstance(result, dict) or said != "fits", (way, limit)
    assert tried


def test_a_layer_is_read_in_its_bytes_over_those_of_a_second(answer):
    form = base_shape(budget=150 * MB, disk=200 * MB, speed=1000)
    counts = memory.parameters(bert(form))
    layer = counts["attention"] + counts["feed-forward"] + counts["norm"] - 2 * 768
    reading, block = answer(form)["reading"], answer(form)["chosen"]["block"]
    assert reading == {
        "streamed": True, "layerBytes": 4 * layer // 12, "read": 4 * layer / 12 / (200 * MB),
        "compute": pytest.approx(block / 1000 / 12),
    }  # fmt: skip


def base_shape(engine="torch", **options):
    facts = CONSTANTS["CHECKPOINTS"]["base-shape"]
    form = drawn(engine, 0) | facts["config"] | {key: facts[key] for key in ("format", "tokenizer", "tokenizerBytes")}
    plain = {
        "length": 64, "labels": 9, "texts": 1, "precision": None, "attention": "sdpa", "chunk": 0, "overwrites": False,
        "padded": False, "offload": None, "maxTokens": None, "lossy": False, "threads": 2, "mklKeeps": False,
        "int8": "packed", "int8Streamed": "plain",
    } | CONSTANTS["PROCESSES"]["export" if engine == "export" else "torch"]  # fmt: skip
    return form | plain | options


@pytest.mark.parametrize(
    "wrong, problem",
    [
        ({"layers": 0}, "whole number"), ({"length": 1.5}, "whole number"), ({"threads": None}, "whole number"),
        ({"positions": 39}, "whole number"), ({"budget": 0}, "positive"), ({"disk": -1}, "positive"),
        ({"heads": 7}, "heads"), ({"length": 513}, "length"), ({"budget": "container"}, "no container"),
        ({"engine": "transformers", "chunk": 7}, "chunk"), ({"engine": "transformers", "precision": "int8"}, "int8"),
        ({"engine": "transformers", "padded": True, "length": 1}, "padded"),
        ({"engine": "export", "precision": "fp16"}, "export"), ({"attention": "sliding", "offload": True}, "sliding"),
        ({"format": "int8-v1", "precision": "fp32"}, "precision"), ({"budget": 1000}, "budget"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_words_in_both_languages(answer, v8, wrong, problem):
    assert answer(base_shape() | wrong)["problem"][0] == problem
    english, chinese = texts(v8)[f"problem {problem}"]
    assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))


# -------------------------------------------------------------------------------------------------- words, constants


def texts(v8):
    return json.loads(v8.eval("JSON.stringify(TEXTS)"))


def test_every_word_of_the_page_is_there_in_both_languages(answer, v8):
    words, page = texts(v8), (PAGES / "calculator.html").read_text(encoding="utf-8")
    used = set(re.findall(r'data-text="([^"]+)"', page))
    used |= {name for engine in ENGINES for n in range(SETTINGS) for name in names(answer(expected(engine, n)[0]))}
    arithmetic, script = ((PAGES / name).read_text(encoding="utf-8") for name in ("bill.js", "calculator.js"))
    used |= {f"problem {name}" for name in re.findall(r'return \["([a-z0-9 ]+)"', arithmetic)}
    used |= set(re.findall(r'say\("([^"]+)"', script))
    assert not used - words.keys()
    for name, pair in words.items():
        assert len(pair) == 2 and all(pair) or name == "later", name
        assert len({tuple(sorted(re.findall(r"{\w+}", text))) for text in pair}) == 1, name


def names(answer):
    return {name for _, name, _ in answer.get("lines", [])}


def test_no_word_of_the_page_is_left_over(v8):
    """What a text is called stands in the page or a script; of some names only the beginning does."""
    files = [file.read_text(encoding="utf-8") for file in PAGES.iterdir() if file.name != "texts.js"]
    begun = ("problem ", "verdict ", "all ", "meaning ", "short ")
    for name in texts(v8):
        assert name.startswith(begun) or re.search(rf"\b{re.escape(name)}(?!\w)", "\n".join(files)), name


UNITS = re.compile(r"\d[\d,.]*\d|\d|[kMGT]?B\b|fp32|fp16|bf16|int8")
NO_WORDS = ("other", "format transformers", "ONNX Runtime", "tanh", "logits")  # names, which are the same in Chinese


def test_the_chinese_words_are_chinese_and_keep_numbers_and_units(v8):
    for name, (english, chinese) in texts(v8).items():
        assert sorted(UNITS.findall(english)) == sorted(UNITS.findall(chinese)), name
        assert not re.search("[一-鿿][A-Za-z0-9]|[A-Za-z0-9][一-鿿]", chinese), name  # a space stands between
        if re.search("[a-z]{2}", re.sub(r"{\w+}", "", english)) and name not in NO_WORDS:
            assert re.search("[一-鿿]", chinese), name


@pytest.mark.parametrize(
    "asked, browser, language",
    [(None, "en-GB", "en"), (None, "zh-CN", "zh"), (None, "zh", "zh"), (None, "fr", "en"), ("zh", "en-GB", "zh"),
     ("en", "zh-CN", "en"), ("zh-TW", "en", "zh"), ("", "zh", "en")],
)  # fmt: skip
def test_the_page_speaks_as_its_link_asks_or_else_as_the_browser(v8, asked, browser, language):
    assert v8.eval(f"languageOf({json.dumps(asked)}, {json.dumps(browser)})") == language


def test_the_page_fetches_nothing():
    for file in PAGES.iterdir():
        assert not re.search(r"https?:|//\w+\.\w+/|fetch\(|import\(", file.read_text(encoding="utf-8")), file.name


def test_the_constants_are_those_of_the_module():
    """If not: python scripts/page_constants.py."""
    taken = json.loads(json.dumps(page_constants.taken()))
    assert {name: value for name, value in CONSTANTS.items() if name != "PROCESSES"} == taken


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process holds")
def test_a_process_holds_no_more_before_its_plan_than_the_page_says():
    for engine, held in page_constants.measured().items():
        stated = CONSTANTS["PROCESSES"][engine]
        assert held["whole"] <= stated["whole"] + _container.LIBRARY_PAGES_BYTES and 2 * held["whole"] > stated["whole"]


# ---------------------------------------------------------------------------------------------------- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HARNESS = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="frame" src="PAGE" style="width: WIDTHpx; height: 800px"></iframe>
<script>
const forms = FORMS;
onload = () => {
  const page = document.getElementById("frame").contentDocument;
  const fill = (id, value) => {
    const input = page.getElementById(id) ?? page.querySelector(`[name=engine][value=${value}]`);
    if (typeof value === "boolean" || !input.id) input.checked = value !== false; else input.value = value;
    if (id === "engine" || id === "checkpoint") input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const sizes = (query, key) => [...page.querySelectorAll(query)].map((row) =>
    [row.dataset[key], Number(row.querySelector("[data-bytes]").dataset.bytes), row.dataset.kind]);
  const shown = forms.map((form) => {
    for (const [id, value] of Object.entries(form)) fill(id, value);
    page.getElementById("length").dispatchEvent(new Event("input", { bubbles: true }));
    return {
      lines: sizes("tr[data-line]", "line"), totals: Object.fromEntries(sizes("tr[data-total]", "total")),
      phases: Object.fromEntries(sizes("tr[data-phase]", "phase")), settings: sizes("#plan tbody tr", "chosen"),
      reasons: page.getElementById("reasons").textContent, verdict: page.getElementById("verdict").className,
      width: page.documentElement.scrollWidth, bar: page.getElementById("bar").getAttribute("aria-label"),
    };
  });
  const unlabelled = [...page.querySelectorAll("input, select")].filter((input) =>
    !input.closest("[hidden]") && !input.labels[0]?.innerText.trim()).map((input) => input.id);
  const answer = { shown, unlabelled, language: page.documentElement.lang, title: page.title };
  const said = Object.assign(document.createElement("pre"), { id: "answer", textContent: JSON.stringify(answer) });
  document.body.append(said);
};
</script>"""


def opened(folder, language, width, forms):
    """What the page shows for forms, one after the other, in a window of that width."""
    page, harness = f"{(PAGES / 'calculator.html').as_uri()}?lang={language}", folder / "harness.html"
    filled = HARNESS.replace("PAGE", page).replace("WIDTH", str(width)).replace("FORMS", json.dumps(forms))
    harness.write_text(filled, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command = [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if 'id="frame"' not in done.stdout:
        pytest.skip(f"{BROWSER} opens no file in {folder}: {done.stderr.strip()[-200:]}")  # as those of snap
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def typed(form):
    """{input: what a person types there} of a form."""
    kind = "none" if form["budget"] is None else "size"
    values = {"engine": form["engine"], "checkpoint": "own"} | form | {"budgetKind": kind}  # the first two fill others
    values |= {key: f"{form[key] / 1e6:.6f}" for key in ("budget", "tokenizerBytes", "whole", "anonymous") if form[key]}
    values["offload"] = {None: "", True: "yes", False: "no"}[form["offload"]]
    values["attention"] = form["attention"] or "sdpa"
    return {key: value if value is not None else "" for key, value in values.items()}


def of_shown(form, shown):
    """What the page shows, in the shape of Python's answer."""
    weights = sum(size for _, size, kind in shown["lines"] if kind == "weights")
    if form["engine"] == "transformers":
        growth = shown["totals"]["total tensors"]
        return {
            "lines": [[name, size] for name, size, _ in shown["lines"]], "growth": growth, "weights": weights,
            "peakActivations": growth - weights, "phases": shown["phases"],
        }  # fmt: skip
    totals = [size for _, size, _ in shown["settings"]]
    chosen = next((place for place, (is_chosen, _, _) in enumerate(shown["settings"]) if is_chosen), None)
    if chosen is None:
        said = re.findall(r"([\d.,]+) MB", shown["reasons"])
        return {"totals": totals, "chosen": None, "smallest": [float(size.replace(",", "")) for size in said[1:]]}
    own = shown["lines"][: -len(("anonymous", "file-backed", "touched later"))]  # without Python and its libraries
    bill = {"weights": weights} | {name: size for name, size, kind in own if kind != "weights"}
    return {"totals": totals, "chosen": chosen, "bill": bill, "growth": shown["totals"]["total growth"]}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the arithmetic is tested, the page is not")
@pytest.mark.parametrize("view, language, width", [(0, "en", 390), (1, "zh", 390), (2, "en", 1200), (3, "zh", 1200)])
def test_the_page_shows_what_python_says_and_fits_its_window(tmp_path, view, language, width):
    drawn_here = [expected(engine, number) for engine in ENGINES for number in range(view, 100, 4)]
    seen = opened(tmp_path, language, width, [typed(form) for form, _ in drawn_here])
    assert seen["language"][:2] == language and not seen["unlabelled"]
    for (form, python), shown in zip(drawn_here, seen["shown"], strict=True):
        assert of_shown(form, shown) == {key: value for key, value in python.items() if key != "moments"}, form
        assert shown["width"] <= width, form
        assert python.get("chosen", 0) is None or all(word in shown["bar"] for word in ("MB", ";"))
