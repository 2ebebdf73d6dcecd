// The page: it reads the form, asks bill.js, and writes the answer in words, a bar and tables.

"use strict";

const asked = new URLSearchParams(location.search).get("lang") ?? navigator.language;
const language = asked.startsWith("zh") ? "zh" : "en";
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------ words and numbers

function say(name, values = {}) {
  const text = (TEXTS[name] ?? [name, name])[LANGUAGES.indexOf(language)];
  return text.replace(/{(\w+)}/g, (_, value) => values[value]);
}

const whole = (number) => number.toLocaleString("en-US");
const ONE_DIGIT = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
const inMB = (bytes) => `${(bytes / 1e6).toLocaleString("en-US", ONE_DIGIT)} MB`;
const roundedUp = (bytes) => inMB(Math.ceil(bytes / 1e5) * 1e5); // so that it is large enough as a budget or a limit
const roundedDown = (bytes) => inMB(Math.floor(bytes / 1e5) * 1e5);
const seconds = (time) => time.toLocaleString("en-US", { maximumSignificantDigits: 2 });
const join = (sentences) => sentences.join(language === "zh" ? "" : " ");

function settingInWords({ precision, attention, maxTokens, chunk, block, waiting, threads }) {
  const values = { precision, attention: attention ? attention + say("comma") : "" };
  const words = say("words of a setting", { ...values, maxTokens: whole(maxTokens), chunk });
  const streamed = block ? say("words of a block", { block: whole(block) }) : "";
  const filed = block && waiting === false ? say("words of waiting") : "";
  return words + streamed + filed + (threads ? say("words of threads", { threads }) : "");
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

const DARK = ["embeddings", "norm"]; // colours on which words are white

const colourOf = (kind, name) => (kind === "weights" && CONSTANTS.COLOURS[name] ? name : kind);

function swatch(colour, hatched) {
  const style = `background-color: ${CONSTANTS.COLOURS[colour]}`;
  return make("span", { class: `swatch${hatched ? " hatched" : ""}`, style, "aria-hidden": "true" });
}

// Words of a line of the bill. A tensor called "weights" or "positions" is another thing than weights by part.
function lineInWords(kind, name) {
  if (kind === "weights") return say("weights of", { part: say(name) });
  return say(kind === "activations" && name === "positions" ? "positions of tokens" : name);
}

function row(kind, name, bytes, attributes = {}) {
  const mark = swatch(colourOf(kind, name), kind === "other");
  return make("tr", attributes, make("th", { scope: "row" }, mark, lineInWords(kind, name)), sizeCell(bytes));
}

const headOf = (first) => make("thead", {}, make("tr", {},
  make("th", { scope: "col" }, say(first)), make("th", { scope: "col", class: "size" }, say("bytes"))));

const sizeCell = (bytes) => make("td", { "class": "size", "data-bytes": bytes }, whole(bytes));

// ----------------------------------------------------------------------------------------------------------- answers

// What a process holds besides its growth: [kind, name, bytes].
function libraries(form) {
  return [
    ["other", "libraries anonymous", form.anonymous],
    ["file-backed", "libraries mapped", form.whole - form.anonymous],
    ["file-backed", "library pages", CONSTANTS.LIBRARY_PAGES_BYTES],
  ];
}

function showVerdict(form, answer) {
  const { problem, container } = answer, kind = problem ? "problem" : container.verdict;
  const sentences = problem ? problemInWords(answer) : verdictInWords(form, answer);
  const size = problem ? "" : container.limit === null ? roundedUp(container.all) :
    `${roundedUp(container.all)} / ${inMB(container.limit)}`;
  $("verdict").className = kind;
  $("verdict").replaceChildren(make("strong", {}, say(`verdict ${kind}`)), make("span", {}, size));
  $("reasons").textContent = join(sentences);
}

function problemInWords({ problem: [name, values], smallest, smallestLossy }) {
  if (name !== "budget") return [say(`problem ${name}`, { ...values, name: values.name && say(values.name) })];
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
    say("sum process", { growth: inMB(answer.growth), rest: inMB(total - answer.growth) });
  showBar(form, [...answer.lines, ...rest], total);
  const totalRow = (name, bytes) =>
    make("tr", { "data-total": name }, make("th", { scope: "row" }, say(name)), sizeCell(bytes));
  const caption = tensorsOnly ? say("bill of a pass", { pairs: whole(answer.pairs), length: whole(form.length) }) :
    say("bill", { setting: settingInWords(answer.chosen) });
  const line = ([kind, name, bytes]) => row(kind, name, bytes, { "data-line": name, "data-kind": kind });
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

function showBar(form, lines, total) {
  const { container, workers, engine: own } = form; // tensors alone are not compared with a container
  const limit = own === "transformers" || container === null ? null : Math.floor(container / workers);
  const full = Math.max(total, limit ?? 0) * (limit ? 1.02 : 1); // with room to the right of the limit's line
  const share = (bytes) => `${(100 * bytes / full).toFixed(3)}%`;
  const pieces = lines.map(([kind, name, bytes]) => {
    const words = lineInWords(kind, name), colour = colourOf(kind, name);
    const style = `width: ${share(bytes)}; background-color: ${CONSTANTS.COLOURS[colour]}; ` +
      `color: ${DARK.includes(colour) ? "#fff" : "#000"}`;
    const title = `${words}: ${inMB(bytes)}`, hatched = kind === "other" ? " hatched" : "";
    const short = TEXTS[`short ${name}`] ? say(`short ${name}`) : kind === "weights" ? say(name) : words;
    return make("div", { class: `piece${hatched}`, style, title }, make("span", {}, short, make("br"), inMB(bytes)));
  });
  const spoken = lines.map(([kind, name, bytes]) => `${lineInWords(kind, name)} ${inMB(bytes)}`).join("; ");
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
  for (const id of ["heading", "number", "sum", "bar", "bill"]) $(id).hidden = !answer.lines;
  if (answer.lines) showBill(form, answer);
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
