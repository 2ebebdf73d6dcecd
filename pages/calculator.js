// The page: it reads the form, asks bill.js, and writes the answer in words, a bar and tables.

"use strict";

const language = languageOf(new URLSearchParams(location.search).get("lang"), navigator.language);
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------ words and numbers

function say(name, values = {}) {
  const text = (TEXTS[name] ?? [name, name])[LANGUAGES.indexOf(language)];
  return text.replace(/{(\w+)}/g, (_, value) => values[value]);
}

const whole = (number) => number.toLocaleString("en-US");
const ONE_DIGIT = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
const inMB = (bytes) => `${(bytes / 1e6).toLocaleString("en-US", ONE_DIGIT)} MB`;
const inUnits = (bytes) => (bytes > 0 && bytes < 1e5 ? `${whole(Math.ceil(bytes / 1e3))} kB` : inMB(bytes));
const roundedUp = (bytes) => inMB(Math.ceil(bytes / 1e5) * 1e5); // so that it is large enough as a budget or a limit
const roundedDown = (bytes) => inMB(Math.floor(bytes / 1e5) * 1e5);
const seconds = (time) => time.toLocaleString("en-US", { maximumSignificantDigits: 2 });
const join = (sentences) => sentences.join(language === "zh" ? "" : " ");

function settingInWords({ precision, attention, maxTokens, chunk, block, waiting, threads }) {
  const values = { precision, attention: attention ? attention + say("comma") : "" };
  const words = say("words of a setting", { ...values, maxTokens: whole(maxTokens), chunk });
  const streamed = block ? say("words of a block", { block: whole(block) }) : "";
  const filed = block && waiting === false ? say("words of waiting") : "";
  return words + streamed + filed + (threads ? say(threads === 1 ? "words of a thread" : "words of threads", { threads }) : "");
}

// ----------------------------------------------------------------------------------------------------------- the form

const engine = () => document.querySelector("[name=engine]:checked").value;
const inputs = () => [...document.querySelectorAll("#form [id]")].filter((each) => each.matches("input, select"));

// A number as bill.js takes it: in bytes where the input is in MB; null where it is empty.
function numberOf(input) {
  if (input.value === "") return null;
  const unit = Number(input.dataset.unit ?? 1);
  return unit === 1 ? Number(input.value) : Math.round(Number(input.value) * unit);
}

function valueOf(input) {
  if (input.type === "checkbox") return input.checked;
  return input.type === "number" ? numberOf(input) : input.value;
}

function formOf() {
  const given = Object.fromEntries(inputs().map((input) => [input.id, valueOf(input)]));
  const limits = { size: given.budget, container: "container", none: null }, own = engine();
  return {
    ...given,
    engine: own,
    precision: given.precision || null,
    offload: { "": null, "yes": true, "no": false }[given.offload],
    budget: limits[given.budgetKind],
    disk: given.disk === null ? null : given.disk,
    overwrites: own === "torch" ? given.chunk > 0 : given.overwrites, // with a plan, chunks are always of that kind
  };
}

// Put a checkpoint's sizes into the form. Those of own sizes stay as they are, and can be changed.
function fillCheckpoint() {
  const name = $("checkpoint").value, known = CONSTANTS.CHECKPOINTS[name];
  const { config = {}, format, tokenizer, tokenizerBytes } = known ?? {};
  for (const key of ["layers", "hidden", "heads", "intermediate", "vocabulary", "positions", "types", "classes"]) {
    if (known) $(key).value = config[key];
    $(key).disabled = Boolean(known);
  }
  for (const key of ["format", "tokenizer"]) $(key).disabled = Boolean(known);
  if (known) [$("format").value, $("tokenizer").value] = [format, tokenizer];
  if (known) $("tokenizerBytes").value = tokenizerBytes / 1e6;
}

// What a process holds before its plan depends on the engine; transformers' pass needs torch too.
function fillProcess() {
  const { whole: held, anonymous } = CONSTANTS.PROCESSES[engine() === "export" ? "export" : "torch"];
  [$("whole").value, $("anonymous").value] = [held / 1e6, anonymous / 1e6];
}

function showInputs() {
  for (const part of document.querySelectorAll("[data-for]")) {
    part.hidden = !part.dataset.for.split(" ").includes(engine());
  }
  $("window").closest("label").hidden ||= $("attention").value !== "sliding";
  $("hypothesis").closest("label").hidden ||= $("attention").value !== "sliding";
  $("budget").disabled = $("budgetKind").value !== "size";
  $("overwrites").closest("label").hidden ||= $("chunk").value === "0";
}

// The inputs as a link's hash, and back.
function toHash() {
  const pairs = inputs().map((input) => [input.id, input.type === "checkbox" ? String(input.checked) : input.value]);
  return new URLSearchParams([["engine", engine()], ...pairs]).toString();
}

function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const radio = document.querySelector(`[name=engine][value="${CSS.escape(given.get("engine") ?? "")}"]`);
  if (radio) radio.checked = true;
  fillProcess();
  if (given.has("checkpoint")) $("checkpoint").value = given.get("checkpoint");
  fillCheckpoint();
  for (const input of inputs().filter((each) => given.has(each.id) && !each.disabled)) {
    if (input.type === "checkbox") input.checked = given.get(input.id) === "true";
    else input.value = given.get(input.id);
  }
}

// ---------------------------------------------------------------------------------------------------------- elements

// An element with attributes and children: texts or elements.
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const DARK = ["embeddings", "norm", "libraries"]; // colours on which words are white
const INT8_ENGINES = ["packed", "plain", "widened"]; // of int8 products, as the form names them

const colourOf = (kind, name) => (kind === "weights" && CONSTANTS.COLOURS[name] ? name : kind);

// Lines of one colour are told apart by patterns, which the page's style draws: {name of a line: its classes}.
const PATTERNS = { other: [0, 1, 2, 3], libraries: [null, 1, 3] };

function patternsOf(lines) {
  const found = {};
  for (const [kind, patterns] of Object.entries(PATTERNS)) {
    const names = lines.filter(([each]) => each === kind).map(([, name]) => name);
    names.forEach((name, number) => {
      const pattern = patterns[number % patterns.length];
      if (pattern !== null) found[name] = ` pattern-${pattern}`;
    });
  }
  return found;
}

function swatch(colour, pattern = "") {
  const style = `background-color: ${CONSTANTS.COLOURS[colour]}`;
  return make("span", { class: `swatch${pattern}`, style, "aria-hidden": "true" });
}

// Words of a line of the bill. A tensor called "weights" or "positions" is another thing than weights by part.
function lineInWords(kind, name) {
  if (kind === "weights") return say("weights of", { part: say(name) });
  return say(kind === "activations" && name === "positions" ? "positions of tokens" : name);
}

function row(kind, name, bytes, pattern) {
  const mark = swatch(colourOf(kind, name), pattern), attributes = { "data-line": name, "data-kind": kind };
  return make("tr", attributes, make("th", { scope: "row" }, mark, lineInWords(kind, name)), sizeCell(bytes));
}

const headOf = (first) => make("thead", {}, make("tr", {},
  make("th", { scope: "col" }, say(first)), make("th", { scope: "col", class: "size" }, say("bytes"))));

const sizeCell = (bytes) => make("td", { "class": "size", "data-bytes": bytes }, whole(bytes));

// ----------------------------------------------------------------------------------------------------------- answers

// What a process holds besides its growth: [kind, name, bytes].
function libraries(form) {
  return [
    ["libraries", "libraries anonymous", form.anonymous],
    ["libraries", "libraries mapped", form.whole - form.anonymous],
    ["libraries", "library pages", CONSTANTS.LIBRARY_PAGES_BYTES],
  ];
}

const LITTLE = 0.05; // of a container: less than this to spare is said

function showVerdict(form, answer) {
  const { problem, container } = answer, kind = problem ? "problem" : container.verdict;
  const sentences = problem ? problemInWords(answer) : verdictInWords(form, answer);
  const size = problem ? "" : container.limit === null ? roundedUp(container.all) :
    `${roundedUp(container.all)} / ${inMB(container.limit)}`;
  const spare = kind === "fits" ? container.limit - container.all : 0;
  const words = kind === "fits" && spare < LITTLE * container.limit ? "verdict just fits" : `verdict ${kind}`;
  $("verdict").className = kind;
  $("verdict").replaceChildren(
    make("strong", {}, say(words, { spare: roundedDown(spare) })), make("span", {}, size));
  $("reasons").textContent = join(sentences);
}

function problemInWords({ problem: [name, values], smallest, smallestLossy }) {
  if (name !== "budget") {
    const words = { name: values.name && say(values.name), can: values.can?.replaceAll(", ", say("and")) };
    return [say(`problem ${name}`, { ...values, ...words })];
  }
  const found = [say("problem budget", { budget: inMB(values.budget), smallest: roundedUp(smallest.total) })];
  if (smallestLossy && smallestLossy.total !== smallest.total) {
    found.push(say("with lossy", { smallest: roundedUp(smallestLossy.total) }));
  }
  return found;
}

function verdictInWords({ container: limit, workers, engine: own, budget: asked, whole: held }, { container, budget }) {
  const { verdict, all, undroppable, most } = container, sizes = { all: roundedUp(all), workers };
  const given = asked === "container" ? [say("budget given", { budget: `"${roundedDown(budget)}"` })] : [];
  if (asked === "container" && workers > 1) given.push(say("not container"));
  const values = { ...sizes, kept: roundedUp(undroppable), limit: limit && inMB(limit), most: whole(most ?? 0),
    libraries: inMB(held) };
  const found = verdict === "none" ? [] : [say(`all ${verdict}`, values)];
  if (verdict === "slow" || verdict === "killed") {
    if (workers > 1) found.push(say("one of workers", sizes));
  }
  const needed = own === "transformers" ? "at least this container" : "smallest container";
  return [...found, say(needed, sizes), ...given];
}

function showBill(form, answer) {
  const tensorsOnly = form.engine === "transformers", rest = tensorsOnly ? [] : libraries(form);
  const total = answer.growth + add(rest.map(([, , bytes]) => bytes));
  $("heading").textContent = say(tensorsOnly ? "heading tensors" : "heading process");
  $("number").textContent = roundedUp(total);
  $("sum").textContent = tensorsOnly ? tensorsInWords(answer) :
    say("sum process", {
      growth: inMB(answer.growth), held: inMB(form.whole), later: inMB(CONSTANTS.LIBRARY_PAGES_BYTES),
    });
  const patterns = patternsOf([...answer.lines, ...rest]);
  showBar(form, [...answer.lines, ...rest], total, patterns);
  const totalRow = (name, bytes) =>
    make("tr", { "data-total": name }, make("th", { scope: "row" }, say(name)), sizeCell(bytes));
  const caption = tensorsOnly ? say("bill of a pass", { pairs: whole(answer.pairs), length: whole(form.length) }) :
    say("bill", { setting: settingInWords(answer.chosen) });
  const line = ([kind, name, bytes]) => row(kind, name, bytes, patterns[name]);
  $("bill").replaceChildren(
    make("caption", {}, caption), headOf("what"),
    make("tbody", {}, ...answer.lines.map(line),
      totalRow(tensorsOnly ? "total tensors" : "total growth", answer.growth), ...rest.map(line)),
    make("tfoot", {}, ...(tensorsOnly ? phaseRows(answer.footprint) : [totalRow("total process", total)])),
  );
}

function tensorsInWords({ footprint: { weights, peakActivations, peak } }) {
  const values = { weights: inMB(weights), activations: inMB(peakActivations), phase: say(peak.phase) };
  return say("sum tensors", values);
}

// The most activations of each phase of the forward pass.
function phaseRows({ phases }) {
  return CONSTANTS.PHASES.map((phase) => make("tr", { "data-phase": phase },
    make("th", { scope: "row" }, say("phase of", { phase: say(phase) })), sizeCell(phases[phase])));
}

function showBar(form, lines, total, patterns) {
  const { container, workers, engine: own } = form; // tensors alone are not compared with a container
  const limit = own === "transformers" || container === null ? null : Math.floor(container / workers);
  const full = Math.max(total, limit ?? 0) * (limit ? 1.02 : 1); // with room to the right of the limit's line
  const share = (bytes) => `${(100 * bytes / full).toFixed(3)}%`;
  const pieces = lines.map(([kind, name, bytes]) => {
    const words = lineInWords(kind, name), colour = colourOf(kind, name);
    const style = `width: ${share(bytes)}; background-color: ${CONSTANTS.COLOURS[colour]}; ` +
      `color: ${DARK.includes(colour) ? "#fff" : "#000"}`;
    const title = `${words}: ${inUnits(bytes)}`, size = inUnits(bytes);
    const short = TEXTS[`short ${name}`] ? say(`short ${name}`) : kind === "weights" ? say(name) : words;
    return make("div", { class: `piece${patterns[name] ?? ""}`, style, title }, make("span", {}, short, make("br"), size));
  });
  const spoken = lines.map(([kind, name, bytes]) => `${lineInWords(kind, name)} ${inUnits(bytes)}`).join("; ");
  $("bar").setAttribute("role", "img");
  $("bar").setAttribute("aria-label", say("bar", { pieces: spoken }));
  const mark = limit === null ? [] : [limitMark(limit, workers, limit / full)];
  $("bar").replaceChildren(make("div", { class: "track" }, ...pieces), ...mark);
  keepWhatFits();
}

// Words that a piece of the bar has no room for are left out; the bill below has them all.
function keepWhatFits() {
  for (const words of document.querySelectorAll("#bar .piece span")) {
    const piece = words.parentElement;
    words.hidden = false;
    words.hidden = words.offsetHeight > piece.clientHeight || words.scrollWidth > piece.clientWidth;
  }
}

function limitMark(limit, workers, place) {
  const words = say(workers > 1 ? "limit of workers" : "limit", { limit: inMB(limit), workers });
  const style = `left: ${(100 * place).toFixed(3)}%`;
  return make("div", { class: `limit${place < 0.5 ? " early" : ""}`, style }, make("span", {}, words));
}

// What the words of a bill mean, folded away: those that it has.
function showWords({ lines }, engines) {
  const purposes = lines.filter(([, name]) => TEXTS[`meaning ${name}`]).map(([, name]) => [say(name), `meaning ${name}`]);
  const found = [...purposes, ...engines.map((name) => [name, `meaning int8 ${name}`])];
  const items = found.flatMap(([word, meaning]) => [make("dt", {}, word), make("dd", {}, say(meaning))]);
  const folded = make("details", {}, make("summary", {}, say("meanings")), make("dl", {}, ...items));
  $("words").replaceChildren(...(items.length ? [folded] : []));
}

function showPlan(form, answer) {
  if (!answer.settings) return $("plan").replaceChildren();
  const own = answer.chosen && settingInWords(answer.chosen);
  const chosen = answer.settings.findIndex((each) => settingInWords(each) === own);
  const rows = answer.settings.map((setting, number) => {
    const passed = chosen === -1 || number < chosen;
    const kind = number === chosen ? "chosen" : !setting.allowed ? "not allowed" : passed ? "too much" : "later";
    const attributes = { class: kind === "chosen" ? kind : passed ? "passed" : null, "data-chosen": kind === "chosen" };
    const words = make("th", { scope: "row" }, say(kind) + settingInWords(setting));
    return make("tr", attributes, words, sizeCell(setting.total));
  });
  const words = say("plan words", { smallest: roundedUp(answer.smallest.total) });
  $("plan").replaceChildren(make("h2", {}, say("plan")), make("p", { class: "lead" }, words),
    make("table", {}, headOf("setting"), make("tbody", {}, ...rows)));
}

function showPassing(form, { batch, reading, chosen }) {
  if (!batch) return $("passing").replaceChildren();
  const counts = { pairs: whole(batch.pairs), batches: whole(batch.batches), together: whole(batch.together) };
  const sentences = [say("batches", { ...counts, length: whole(form.length) })];
  if (batch.activations) sentences.push(say("activations of a batch", { activations: whole(batch.activations) }));
  const paragraphs = [join(sentences)];
  if (reading.read !== null) paragraphs.push(join(readingInWords(reading, chosen)));
  $("passing").replaceChildren(make("h2", {}, say("passing")), ...paragraphs.map((text) => make("p", {}, text)));
}

function readingInWords({ streamed, layerBytes, read, compute }, { block }) {
  const values = { bytes: whole(layerBytes), read: seconds(read), block: whole(block) };
  const found = [say(streamed ? "reading streamed" : "reading loaded", values)];
  if (compute === null) return found;
  const wait = Math.max(0, read - compute), times = { ...values, compute: seconds(compute), wait: seconds(wait) };
  return [...found, say(wait > 0 ? "compute waits" : "compute hidden", times)];
}

function showNotes(form, answer) {
  const shared = answer.container?.shared ?? 0, store = inMB(CONSTANTS.OBJECT_STORE_BYTES);
  const names = [
    "note others", ...(form.workers > 1 ? ["note ray"] : []), ...(form.workers > 1 && shared ? ["note shared"] : []),
    "note libraries", "note linux", ...(CONSTANTS.HALVES.includes(form.precision) ? ["note halves"] : []),
  ];
  $("notes").replaceChildren(...names.map((name) => make("li", {}, say(name, { store, shared: inMB(shared) }))));
}

function update() {
  showInputs();
  const form = formOf(), answer = calculator.answer(form);
  showVerdict(form, answer);
  $("results").hidden = !answer.lines && !answer.settings;
  for (const id of ["heading", "number", "sum", "bar", "bill", "words"]) $(id).hidden = !answer.lines;
  if (answer.lines) {
    showBill(form, answer);
    showWords(answer, form.engine === "torch" ? INT8_ENGINES : []);
  }
  showPlan(form, answer);
  showPassing(form, answer);
  showNotes(form, answer);
  $("link").href = `#${toHash()}`;
  $("other").href = `?lang=${LANGUAGES.find((each) => each !== language)}#${toHash()}`;
}

// ----------------------------------------------------------------------------------------------------------- beginning

document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
document.title = say("title");
for (const part of document.querySelectorAll("[data-text]")) part.textContent = say(part.dataset.text);
$("other").textContent = say("other");
$("other").lang = language === "zh" ? "en" : "zh-CN";
$("index").href = $("index").dataset[language]; // a site of two editions has two: scripts/site_pages.py writes them
$("index").hidden = location.pathname.endsWith("/pages/calculator.html"); // in a checkout, the site is elsewhere
$("window").value = CONSTANTS.WINDOW_TOKENS;
fromHash(location.hash);
addEventListener("resize", keepWhatFits);
addEventListener("hashchange", () => { fromHash(location.hash); update(); });
$("form").addEventListener("submit", (event) => event.preventDefault());
$("form").addEventListener("input", (event) => {
  if (event.target.id === "checkpoint") fillCheckpoint();
  if (event.target.name === "engine") fillProcess();
  update();
});
update();
