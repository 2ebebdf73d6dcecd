// The bill of a forward pass, in bytes. Arithmetic only: no DOM, no network. The numbers come from constants.js.
//
// Each object below is a room of zsc_utils, and its functions bear the names of that room's: read them side by side.
// `memory` is the model's own forward pass, `inference` ours, `plan` a budget with torch, and `onnxPlan` one without.
// A test compares them with Python on drawn settings, to the byte: tests/journeys/test_calculator.py.
//
// A config is {layers, hidden, heads, intermediate, vocabulary, positions, types, classes}. A number that depends on
// the machine is an argument: threads, the engine of int8 products ("unknown": the one that takes most), and whether
// MKL keeps its buffers. `calculator`, at the end, answers the page's form.

"use strict";

const add = (numbers) => numbers.reduce((total, number) => total + number, 0);
const bytesOf = (tensors) => add(Object.values(tensors));
const largestBy = (things, size) => things.reduce((best, thing) => (size(thing) > size(best) ? thing : best));
const smallestBy = (things, size) => largestBy(things, (thing) => -size(thing));
const upTo = (number, step) => Math.ceil(number / step) * step;
const unique = (things) => [...new Map(things.map((thing) => [JSON.stringify(thing), thing])).values()];
const moment = (phase, what, tensors) => ({ phase, what, tensors, bytes: bytesOf(tensors) });
const ENGINES = ["packed", "plain", "widened"]; // of int8 products, in _products.int8_engine
const inIntegers = (precision) => precision === "int8";
// bytes of a number of the hidden states: with int8 weights they stay in fp32
const itemOf = (precision) => (inIntegers(precision) ? CONSTANTS.ITEM_BYTES.fp32 : CONSTANTS.ITEM_BYTES[precision]);

// ------------------------------------------------------------------------------------------------ zsc_utils.memory

const memory = {
  // {part: how many parameters it has}; their sum is the number in the checkpoint's file
  parameters({ layers, hidden: h, intermediate: f, vocabulary, positions, types, classes }) {
    return {
      "embeddings": (vocabulary + positions + types) * h,
      "attention": layers * 4 * (h * h + h), // query, key, value, output, each with a bias
      "feed-forward": layers * (h * f + f + f * h + h),
      "norm": (1 + 2 * layers) * 2 * h, // after the embeddings, and two in each layer
      "head": h * h + h + h * classes + classes, // pooler and classifier
    };
  },

  // The tensor bytes of BertForSequenceClassification's own forward pass: weights by part, and every moment where
  // memory may peak. `chunk`: tokens of a feed-forward chunk, 0 for none. `overwrites`: chunks of
  // attention.chunk_feed_forward. In 16 bits, workspace that torch would have to measure is left out.
  predict(config, batch, length, options) {
    const { precision = "fp32" } = options;
    const s = this.shape(config, batch, length, { item: itemOf(precision), ...options });
    const parts = Object.entries(this.parameters(config)).map(([part, count]) => [part, count * s.item]);
    const moments = [
      ...this.embeddingMoments(s), ...this.attentionMoments(s),
      ...(s.overwrites ? this.overwritingMoments(s) : this.feedForwardMoments(s)), ...this.headMoments(s),
    ];
    return this.footprint(Object.fromEntries(parts), moments);
  },

  footprint(parts, moments) {
    const phases = {};
    for (const { phase, bytes } of moments) phases[phase] = Math.max(phases[phase] ?? 0, bytes);
    const peak = largestBy(moments, (each) => each.bytes);
    const weights = bytesOf(parts);
    return { parts, moments, phases, peak, weights, peakActivations: peak.bytes, total: weights + peak.bytes };
  },

  // The sizes of one forward pass, in bytes; they determine the bytes of each tensor.
  shape(config, batch, length, options) {
    const { item, attention = "sdpa", padded = false, chunk = 0, overwrites = false, threads = 1 } = options;
    const { window = CONSTANTS.WINDOW_TOKENS, hypothesis = 8 } = options;
    const { layers, hidden: h, heads, intermediate: f } = config;
    const tokens = batch * length, square = batch * length * length;
    const hidden = tokens * h * item; // most tensors of the pass have this size
    const masks = { sliding: tokens, sdpa: square, eager: square * item };
    const s = { config, batch, length, item, attention, padded, chunk, overwrites, threads, window, hypothesis };
    const mask = padded ? masks[attention] : 0;
    return {
      ...s, tokens, square, hidden, mask,
      intermediate: tokens * f * item,
      scores: attention === "eager" ? heads * square * item : 0,
      norm: hidden + 2 * tokens * item, // LayerNorm's output, with each token's mean and deviation
      // alive in every layer; BertModel.forward keeps the embeddings' output until it returns
      held: {
        "embeddings' output": layers > 1 && !overwrites ? hidden : 0, "layer input": hidden, "padding mask": mask,
      },
      headsMove: length > 1 && heads > 1, // whether to put heads before tokens changes the order in memory
    };
  },

  embeddingMoments(s) {
    const { hidden: u, tokens, square, item } = s;
    const lookedUp = { "words": u, "token types": u, "positions": s.length * s.config.hidden * item };
    const found = [
      moment("embeddings", "normed", { ...lookedUp, "words + types + positions": u, "LayerNorm": s.norm }),
    ];
    if (!s.padded || s.attention === "sliding") return found;
    const seen = { "embeddings' output": u, "mask as booleans": tokens };
    const indices = 8 * s.batch + 8 + 2 * 8 * s.length + s.length; // int64, and a row of booleans
    found.push(moment("embeddings", "mask spread", { ...seen, indices, "picked": tokens, "mask": square }));
    if (s.attention === "eager") {
      const asNumbers = (square + 2) * item; // 2: the values for masked and unmasked positions
      found.push(
        moment("embeddings", "mask as numbers", { ...seen, "mask": square, "mask as numbers": asNumbers }),
      );
    }
    return found;
  },

  attentionMoments(s) {
    const { hidden: u, scores: w, norm } = s;
    const held = { ...s.held, "query, key, value": 3 * u };
    const at = (what, tensors) => moment("attention", what, { ...held, ...tensors });
    const found = [at("value projected", {})];
    if (s.attention === "sdpa") {
      const asNumbers = s.padded ? s.square * s.item : 0;
      const inside = { "mask as numbers": asNumbers, "attention output": u };
      found.push(at("inside the kernel", { ...inside, ...this.kernelTensors(s, s.length) }));
    } else if (s.attention === "sliding") {
      found.push(at("inside a block", { "attention output": u, ...this.largestBlock(s) }));
    } else {
      const [scoring, weighting] = this.eagerProducts(s, s.length);
      const scale = 8 + s.item; // a Python float becomes a double, then a number of the scores' kind
      found.push(
        at("scores", { "scores": w, ...scoring }),
        at("scores scaled", { "scores": w, "scaled scores": w, "scale": scale }),
        at("weighted", { "weights": w, "attention output": u, ...weighting }),
      );
      if (s.headsMove) {
        found.push(at("heads joined", { "weights": w, "attention output": u, "heads joined": u }));
      }
    }
    const end = { ...s.held, "attention weights": w, "attention output": u, "dense": u };
    return [
      ...found,
      moment("attention", "output projected", end),
      moment("attention", "normed", { ...end, "residual sum": u, "LayerNorm": norm }),
    ];
  },

  // Rows of sliding attention that are computed together, and the keys that they see. The first token and the last
  // `hypothesis` tokens see all tokens; others see the first token and the tokens within the window.
  slidingBlocks(length, hypothesis, window) {
    const text = Math.max(1, length - hypothesis), size = Math.max(window, 64);
    const blocks = [{ start: 0, stop: 1, low: 0, high: length, banded: false }];
    for (let start = 1; start < text; start += size) {
      const stop = Math.min(start + size, text), high = Math.min(length, stop + window);
      const near = Math.max(0, start - window);
      const low = near > 1 ? near : 0; // at 1, keys from 0 on are contiguous and need no copy
      const banded = start + window < high - 1 || stop - 1 - window > Math.max(low, 1);
      blocks.push({ start, stop, low, high, banded });
    }
    if (text < length) blocks.push({ start: text, stop: length, low: 0, high: length, banded: false });
    return blocks;
  },

  largestBlock(s, firstOnly = false) {
    const width = s.config.hidden, blocks = this.slidingBlocks(s.length, s.hypothesis, s.window);
    const found = (firstOnly ? blocks.slice(0, 1) : blocks).map((block) => {
      const cutOff = block.low > 0 ? 1 : 0; // then the first token's key is copied in front of the others
      const rows = block.stop - block.start, keys = block.high - block.low + cutOff, banded = block.banded ? 1 : 0;
      return {
        "keys and values, copied": 2 * keys * width * s.item * cutOff,
        "band": rows * keys * banded,
        "band as numbers": rows * keys * s.item * banded,
        "block's output": rows * width * s.item,
        ...this.kernelTensors(s, rows, keys, 1),
      };
    });
    return largestBy(found, bytesOf);
  },

  // What eager attention's two products take besides their results: copies, to have batch and heads as one dimension.
  eagerProducts(s, queries) {
    const copied = s.headsMove && s.batch > 1 ? s.hidden : 0;
    return [{ "query and key, copied": copied * (queries > 1 ? 2 : 1) }, { "value, copied": copied }];
  },

  // What torch's flash attention for CPUs allocates besides its output.
  kernelTensors(s, queries, keys = s.length, batch = s.batch) {
    const sums = batch * s.config.heads * queries * 4;
    return { "log of sums": sums, "kernel scratch (per thread)": this.flashScratch(s, queries, keys) };
  },

  // Per thread one block of scores, two sums per query, and the output, in fp32; in 16 bits a second block of scores.
  flashScratch(s, queries, keys) {
    const [, block] = CONSTANTS.QUERY_BLOCKS.find(([least]) => queries >= least);
    const rows = Math.min(queries, block), columns = Math.min(keys, CONSTANTS.KEY_BLOCK);
    const fp32 = 4 * (rows * columns + 2 * rows + rows * Math.floor(s.config.hidden / s.config.heads));
    return s.threads * (fp32 + (s.item < 4 ? s.item * rows * columns : 0));
  },

  feedForwardMoments(s) {
    let held = { ...s.held, "attention weights": s.scores, "after attention": s.hidden };
    const chunks = s.chunk ? s.length / s.chunk : 1;
    const u = s.hidden / chunks, f = s.intermediate / chunks, found = [];
    const at = (what, tensors) => moment("feed-forward", what, { ...held, ...tensors });
    if (s.chunk) { // transformers collects the finished chunks, then joins them
      found.push(at("chunks joined", { "chunks done": chunks * u, "joined": s.hidden }));
      held = { ...held, "chunks done": (chunks - 1) * u };
    }
    const copy = chunks > 1 && s.batch > 1 ? u : 0; // a slice of several texts is not contiguous, so it is copied
    const end = { "after GELU": f, "dense": u };
    return [
      ...found,
      at("widened", { "chunk, copied": copy, "widened": f }),
      at("after GELU", { "widened": f, "after GELU": f }),
      at("narrowed", end),
      at("normed", { ...end, "residual sum": u, "LayerNorm": s.norm / chunks }),
    ];
  },

  // The network of attention.chunk_feed_forward: a chunk may hold tokens of several texts.
  overwritingMoments(s) {
    const share = Math.min(s.chunk || s.tokens, s.tokens), { hidden: h, intermediate: wide } = s.config;
    const held = { ...s.held, "after attention": s.hidden }, u = share * h * s.item, f = share * wide * s.item;
    const at = (what, tensors) => moment("feed-forward", what, { ...held, ...tensors });
    return [
      at("widened", { "widened": f }),
      at("narrowed", { "after GELU": f, "dense": u }),
      at("after GELU", { "widened": f, "after GELU": f }),
      at("normed", { "after GELU": f, "dense": u, "residual sum": u, "LayerNorm": u + 2 * share * s.item }),
    ];
  },

  headMoments(s) {
    const pooled = s.batch * s.config.hidden * s.item, last = s.hidden;
    const embedded = s.overwrites ? 0 : s.hidden;
    const states = { "embeddings' output": embedded, "last hidden state": last, "padding mask": s.mask };
    const logits = s.batch * s.config.classes * s.item;
    return [
      moment("pooler and head", "pooling", { ...states, "dense": pooled }),
      moment("pooler and head", "pooled", { ...states, "dense": pooled, "tanh": pooled }),
      moment("pooler and head", "classified", { "last hidden state": last, "pooled": pooled, "logits": logits }),
    ];
  },
};

// --------------------------------------------------------------------------------------------- zsc_utils.inference

const inference = {
  filled: (tokens) => upTo(tokens, CONSTANTS.STEP_TOKENS),

  // The tensor bytes of our forward pass. `groups`: (pairs, length) of each run of pairs of one length. `int8`: the
  // engine of an int8 model's products, "packed", "plain" or "widened", else null.
  predict(config, groups, { precision = "fp32", chunk = CONSTANTS.CHUNK_TOKENS, int8 = null, ...options }) {
    const item = itemOf(precision);
    const shapes = groups.map(([pairs, length]) => memory.shape(config, pairs, length, { ...options, item }));
    const tokens = this.filled(add(shapes.map((s) => s.tokens)));
    const first = this.filled(add(shapes.map((s) => s.batch)));
    const size = this.sizes(config, item, chunk, int8), oneLayer = config.layers === 1;
    const moments = [
      ...this.embeddingMoments(size, tokens),
      ...(oneLayer ? [] : this.attentionMoments(size, shapes, tokens)),
      ...this.attentionMoments(size, shapes, tokens, first),
      ...(oneLayer ? [] : this.feedForwardMoments(size, tokens)),
      ...this.feedForwardMoments(size, first),
      ...this.headMoments(size, first),
    ];
    const parts = Object.entries(memory.parameters(config)).map(([part, count]) => [part, count * item]);
    return memory.footprint(Object.fromEntries(parts), moments);
  },

  // The bytes that tensors take for a number of tokens.
  sizes(config, item, chunk, int8) {
    const states = (tokens) => tokens * config.hidden * item;
    const normed = (tokens) => states(tokens) + 2 * tokens * item;
    const product = (rows, wide, narrow, engine = int8) => {
      const output = rows * narrow * item;
      if (engine === null || engine === "widened") return output;
      const kept = rows * (wide + 4); // the input in int8, and one fp32 scale per token
      return kept + Math.max(Math.min(rows, CONSTANTS.INT8_BLOCK) * wide * 4, output);
    };
    const linear = (tokens, wide, narrow) => {
      const rows = [Math.min(tokens, chunk), tokens % chunk].filter((count) => count > 0);
      return Math.max(...rows.map((count) => product(count, wide, narrow)));
    };
    const widened = (...matrices) => ({
      "int8 rows in fp32": int8 === "widened" ? 4 * add(matrices.map(([wide, narrow]) => wide * narrow)) : 0,
    });
    return { config, item, chunk, int8, states, normed, product, linear, widened };
  },

  embeddingMoments(size, tokens) {
    const u = size.states(tokens), rows = size.int8 ? tokens * size.config.hidden : 0;
    return [
      moment("embeddings", "summed", { "words": u, "token types": u, "int8 rows": rows, "type ids": 8 * tokens }),
      moment("embeddings", "normed", { "words": u, "LayerNorm": size.normed(tokens) }),
    ];
  },

  // One layer's attention. In the last layer, only the `first` tokens of the pairs have queries.
  attentionMoments(size, shapes, tokens, first = null) {
    const u = size.states(tokens), query = size.states(first ?? tokens), h = size.config.hidden;
    const firstOnly = first !== null;
    const held = { "layer input": u, "first tokens": firstOnly ? query : 0, "query": query, "key": u, "value": u };
    const projected = { "chunk": size.linear(tokens, h, h), ...size.widened([h, h]) };
    const found = [moment("attention", "value projected", { ...held, ...projected })];
    for (const s of shapes) {
      const inside = { sdpa: this.sdpaMoments, eager: this.eagerMoments, sliding: this.slidingMoments }[s.attention];
      for (const [what, tensors] of inside(s, firstOnly ? 1 : s.length)) {
        found.push(moment("attention", what, { ...held, ...tensors }));
      }
    }
    return found;
  },

  sdpaMoments(s, queries) {
    const output = s.hidden * queries / s.length;
    return [["inside the kernel", { output, ...memory.kernelTensors(s, queries) }]];
  },

  slidingMoments(s, queries) {
    const output = s.hidden * queries / s.length;
    return [["inside a block", { output, ...memory.largestBlock(s, queries === 1) }]];
  },

  eagerMoments(s, queries) {
    const w = s.scores * queries / s.length, output = s.hidden * queries / s.length;
    const [scoring, weighting] = memory.eagerProducts(s, queries);
    const found = [
      ["scores", { "scores": w, ...scoring }],
      ["scores scaled", { "scores": w, "scaled scores": w, "scale": 8 + s.item }],
      ["weighted", { "weights": w, output, ...weighting }],
    ];
    if (s.headsMove && queries > 1) found.push(["heads joined", { "weights": w, output, "heads joined": output }]);
    return found;
  },

  // A layer after attention's kernel, one chunk at a time.
  feedForwardMoments(size, tokens) {
    const { hidden: h, intermediate: wide } = size.config, chunk = Math.min(tokens, size.chunk);
    const states = { "hidden states": size.states(tokens) };
    const found = { ...states, "found by attention": size.states(tokens), ...size.widened([h, h]) };
    const held = { ...states, ...size.widened([h, wide], [wide, h]) };
    const at = (what, tensors) => moment("feed-forward", what, { ...held, ...tensors });
    const rows = unique([chunk, tokens % size.chunk || chunk]);
    return [
      moment("attention", "output projected", { ...found, "chunk": size.linear(tokens, h, h) }),
      moment("attention", "normed", { ...found, "chunk": size.states(chunk), "LayerNorm": size.normed(chunk) }),
      at("widened", { "wide": size.linear(tokens, h, wide) }),
      ...rows.map((count) =>
        at("narrowed", { "wide": count * wide * size.item, "narrow": size.product(count, wide, h) })),
      at("normed", { "narrow": size.states(chunk), "LayerNorm": size.normed(chunk) }),
    ];
  },

  // The pooler over the pairs' first tokens, and the classifier, which is never in int8.
  headMoments(size, first) {
    const { hidden: h, classes } = size.config, states = size.states(first);
    const at = (what, tensors) => moment("pooler and head", what, { "first tokens": states, ...tensors });
    return [
      at("pooling", { "dense": size.product(first, h, h), ...size.widened([h, h]) }),
      at("pooled", { "dense": states, "tanh": states }),
      at("classified", { "pooled": states, "logits": size.product(first, h, classes, null) }),
    ];
  },
};

// -------------------------------------------------------------------------------------------------- zsc_utils.plan

// A subject is what is known of a folder before its weights are loaded: {config, format, stored, tokenizer,
// feedForwardTokens}. A machine is {threads, int8, int8Streamed, mklKeeps}: two engines, because layers that are
// streamed may take another. A setting is {precision, attention, maxTokens, chunk, block, waiting}.
const plan = {
  // What the format of a folder means: the precision in which its weights run, and what stays in the file.
  subject({ config, format, stored, tokenizer, feedForwardTokens = 0 }) {
    const { precision, embeddings } = CONSTANTS.FORMATS.find((each) => each.name === format);
    const fewer = format === "transformers" && stored < this.bytesOfWeights(config, "fp32");
    return {
      config, tokenizer, stored, precision,
      mapped: fewer ? null : embeddings ?? precision,
      beside: fewer ? stored : 0, // the file has fewer bits; weights become fp32 when read
      chunk: Math.min(CONSTANTS.CHUNK_TOKENS, inference.filled(feedForwardTokens || CONSTANTS.CHUNK_TOKENS)),
    };
  },

  // The precisions it can run in, its own first. Others must have fewer bits.
  precisions(subject) {
    const bits = (precision) => CONSTANTS.ITEM_BYTES[precision];
    const made = Object.keys(CONSTANTS.ITEM_BYTES).filter((each) => bits(each) < bits(subject.precision));
    return [subject.precision, ...made];
  },

  // The settings to try, the fastest first. `wish` holds what is chosen by hand: precision, attention, offload.
  settings(subject, maxTokens, wish) {
    const longest = subject.config.positions, attention = wish.attention ?? "sdpa";
    const streamed = CONSTANTS.STREAMED.map(([tokens, part, ...rest]) => [
      Math.min(maxTokens, tokens), Math.min(subject.chunk, part), ...rest,
    ]);
    const fewer = [768, 512, 256, 128].filter((tokens) => longest <= tokens && tokens < maxTokens);
    const batches = [maxTokens, ...fewer];
    if (batches.at(-1) > longest) batches.push(longest);
    const sizes = [
      ...batches.map((tokens) => [tokens, subject.chunk]),
      ...[128, 64].filter((part) => part < subject.chunk).map((part) => [batches.at(-1), part]),
      ...(attention === "sliding" ? [] : unique(streamed)),
    ].filter((each) => wish.offload === null || each.length > 2 === wish.offload);
    const precisions = this.precisions(subject).filter((each) => each === subject.precision || inIntegers(each));
    return unique((wish.precision ? [wish.precision] : precisions).flatMap((precision) =>
      sizes.map(([tokens, chunk, block = 0, waiting = true]) => {
        // streamed int8 gets chunks of 128 tokens at most
        const most = block && inIntegers(precision) ? Math.min(chunk, 128) : chunk;
        return { precision, attention, maxTokens: tokens, chunk: most, block, waiting };
      })));
  },

  // A machine whose int8 engines are known. Where one is "unknown", it is the one with which this setting takes most.
  known(subject, setting, machine) {
    if (!inIntegers(setting.precision)) return machine;
    const choices = (engine) => (engine === "unknown" ? ENGINES : [engine]);
    const machines = choices(machine.int8).flatMap((int8) =>
      choices(machine.int8Streamed).map((int8Streamed) => ({ ...machine, int8, int8Streamed })));
    if (machines.length === 1) return machines[0];
    return largestBy(machines, (each) => this.total(subject, setting, each));
  },

  // The bill of a setting: {purpose: bytes}.
  bill(subject, setting, anyMachine) {
    const machine = this.known(subject, setting, anyMachine);
    const { config, tokenizer } = subject, int8 = inIntegers(setting.precision);
    const shapes = 3 * Math.ceil(setting.chunk / CONSTANTS.STEP_TOKENS); // of products: 3, times the numbers of rows
    const activations = this.activations(config, setting, machine) + this.workspace(setting, machine);
    const bill = {
      "weights": bytesOf(this.weights(config, setting, machine)),
      "activations": activations,
      "kernels and buffers of products": (int8 ? CONSTANTS.INT8_KERNEL_BYTES : CONSTANTS.KERNEL_BYTES) * shapes,
      "tokenizer": CONSTANTS.TOKENIZER_BYTES[tokenizer] * config.vocabulary,
      "heap": CONSTANTS.HEAP_BYTES + Math.trunc(CONSTANTS.HOLES * activations),
    };
    if (machine.mklKeeps && !int8) bill["buffers that MKL keeps"] = CONSTANTS.MKL_BYTES * setting.chunk;
    if (setting.block) bill["hidden states that wait"] = this.waitingBytes(config, setting);
    return { ...bill, ...this.conversion(subject, setting) };
  },

  // What is in memory besides, while weights are made from a file in another precision.
  conversion(subject, setting) {
    const { config, precision, beside, stored } = subject, own = setting.precision === precision;
    const halved = CONSTANTS.HALVES.includes(setting.precision) && !own;
    if (setting.block && halved) return { "a layer as it is stored": this.halvedBytes(config) };
    if (setting.block && own && beside) {
      return { "a matrix as it is stored": 2 * config.hidden * config.intermediate };
    }
    if (!setting.block && halved) return { "what they are made from": stored };
    return !setting.block && own && beside ? { "what they are made from": beside } : {};
  },

  total(subject, setting, machine) {
    return bytesOf(this.bill(subject, setting, machine));
  },

  // {part: bytes} of the weights that are in memory at once. Streamed: one layer, and no words' embeddings.
  weights(config, setting, machine) {
    const { precision, block } = setting;
    if (!block) return this.weightsByPart(config, precision, machine);
    const parts = this.weightsByPart({ ...config, layers: 1, vocabulary: 0 }, precision, machine);
    if (!inIntegers(precision)) return parts;
    parts["embeddings"] += 4 * config.vocabulary; // each word's scale
    // read, and packed for the product; "widened" has fp32 matrices instead, among the activations
    if (machine.int8Streamed !== "widened") parts["feed-forward"] += 2 * config.hidden * config.intermediate;
    return parts;
  },

  bytesOfWeights(config, precision, machine) {
    return bytesOf(this.weightsByPart(config, precision, machine));
  },

  weightsByPart(config, precision, machine) {
    const counts = Object.entries(memory.parameters(config));
    if (inIntegers(precision)) return this.int8Parts(config, machine);
    return Object.fromEntries(counts.map(([part, count]) => [part, count * CONSTANTS.ITEM_BYTES[precision]]));
  },

  // In int8, a matrix takes one byte per number and four per row for the scale; with the "packed" engine, linear layers
  // take four more per row for zeros. Biases, norms and the classifier are in fp32.
  int8Parts(config, machine) {
    const { layers, hidden: h, intermediate: f, classes } = config, counts = memory.parameters(config);
    const row = machine.int8 === "packed" ? 8 : 4;
    const linear = (wide, narrow) => wide * narrow + (row + 4) * narrow; // 4: the bias
    return {
      "embeddings": counts["embeddings"] + 4 * counts["embeddings"] / h,
      "attention": layers * 4 * linear(h, h),
      "feed-forward": layers * (linear(h, f) + linear(f, h)),
      "norm": 4 * counts["norm"],
      "head": linear(h, h) + 4 * (h * classes + classes),
    };
  },

  // The most bytes that products take besides their results.
  workspace(setting, machine) {
    const halves = CONSTANTS.HALVES.includes(setting.precision) ? CONSTANTS.HALVES_WORKSPACE_BYTES : 0;
    return CONSTANTS.WORKSPACE_BYTES * machine.threads + halves;
  },

  // The tensor bytes of the worst batch of a setting. Settings share worst batches, so they are kept; see `make`.
  activations(config, setting, machine) {
    const { precision, attention, maxTokens, chunk } = setting, engine = this.engine(setting, machine);
    const key = [Object.values(config), precision, attention, maxTokens, chunk, engine, machine.threads].join();
    if (!this.worst.has(key)) this.worst.set(key, this.worstBatch(config, setting, engine, machine.threads));
    return this.worst.get(key);
  },

  worst: new Map(),

  // The engine of a setting's int8 products; null if it has none.
  engine({ precision, block }, { int8, int8Streamed }) {
    return inIntegers(precision) ? (block ? int8Streamed : int8) : null;
  },

  // Pairs of one length, and one pair for the tokens that remain.
  worstBatch(config, { precision, attention, maxTokens, chunk }, engine, threads) {
    const longest = config.positions, tokens = Math.max(maxTokens, longest);
    // with sliding attention, the text's blocks are largest when the hypothesis is shortest
    const hypotheses = attention === "sliding" ? [1, longest] : [1];
    let worst = 0;
    for (let pairs = 1; pairs <= CONSTANTS.MOST_PAIRS; pairs++) {
      for (const hypothesis of hypotheses) {
        const length = Math.min(longest, Math.floor(tokens / pairs));
        const rest = Math.min(longest, tokens - pairs * length);
        const groups = [[pairs, length], ...(rest > 0 ? [[1, rest]] : [])];
        const options = { precision, attention, chunk, int8: engine, threads, hypothesis };
        worst = Math.max(worst, inference.predict(config, groups, options).peakActivations);
      }
    }
    return worst;
  },

  // The hidden states of a block's other batches, each rounded up to a multiple of 64 tokens.
  waitingBytes(config, { precision, maxTokens, block, waiting }) {
    const largest = Math.max(maxTokens, config.positions);
    if (!waiting || block <= largest) return 0;
    const batches = Math.floor(2 * block / maxTokens) + 1;
    return (block - largest + batches * CONSTANTS.STEP_TOKENS) * config.hidden * itemOf(precision);
  },

  // A layer stored in fp32 that is streamed in 16 bits: its buffers, and the part that computes in 16 bits.
  halvedBytes({ hidden, intermediate: wide }) {
    const attention = 4 * hidden * (hidden + 1) + 2 * hidden, feedForward = 2 * hidden * wide + wide + 3 * hidden;
    return 2 * (attention + feedForward) + 2 * Math.max(attention, feedForward);
  },

  // The plan of a budget in bytes; without one (null), the first setting. `chosen` is null if none fits.
  make(subject, budget, machine, { maxTokens = CONSTANTS.MAX_TOKENS, lossy = false, ...wish }) {
    this.worst.clear();
    const chosenByHand = { precision: null, attention: null, offload: null, ...wish };
    const total = (setting) => this.total(subject, setting, machine);
    const all = this.settings(subject, maxTokens, chosenByHand);
    const kept = chosenByHand.precision ?? subject.precision;
    const allowed = budget === null ? all : all.filter(({ precision }) => lossy || precision === kept);
    const smallest = smallestBy(allowed, total), smallestLossy = smallestBy(all, total);
    return {
      settings: all.map((setting) => ({ ...setting, total: total(setting), allowed: allowed.includes(setting) })),
      chosen: (budget === null ? allowed[0] : allowed.find((each) => total(each) <= budget)) ?? null,
      smallest: { setting: smallest, total: total(smallest) },
      smallestLossy: { setting: smallestLossy, total: total(smallestLossy) },
    };
  },
};

// --------------------------------------------------------------------------------------------- zsc_utils.onnx_plan

// An export is {config, precision, tokenizerBytes}: the engine without torch. Its constants are those of onnx_plan.
const onnxPlan = {
  // The settings to try, the fastest first: layers in memory, then streamed, each with ever less at a time.
  settings({ config, precision }, threads, { maxTokens = null, offload = null }) {
    const { MAX_TOKENS, CHUNK, STREAMED } = CONSTANTS.ONNX, batch = maxTokens ?? MAX_TOKENS;
    const loaded = [[batch, CHUNK, 0, threads], [512, 64, 0, threads]];
    const sizes = offload === null ? [...loaded, ...STREAMED] : offload ? STREAMED : loaded;
    return sizes.map(([tokens, chunk, block, each]) => ({
      precision, maxTokens: Math.min(batch, Math.max(tokens, config.positions)), chunk, block,
      threads: Math.min(each, threads),
    }));
  },

  bill(exported, setting) {
    const { TOKENIZER_BYTES, LAYER_BYTES, RUNTIME_BYTES, HOLES, HOLES_STREAMED } = CONSTANTS.ONNX;
    const activations = this.activationBytes(exported.config, setting), streamed = setting.block > 0;
    return {
      "weights": bytesOf(this.weights(exported, setting)),
      "layers' sessions": LAYER_BYTES * (streamed ? 1 : exported.config.layers),
      "activations": activations,
      "tokenizer": TOKENIZER_BYTES * exported.tokenizerBytes,
      "heap": Math.trunc((streamed ? HOLES_STREAMED : HOLES) * activations),
      "ONNX Runtime": RUNTIME_BYTES,
    };
  },

  total(exported, setting) {
    return bytesOf(this.bill(exported, setting));
  },

  // {part: bytes} of the weights in memory at once, matrices as ONNX Runtime packs them. Of words' embeddings only the
  // scales are: the rest stays in the file. Of streamed layers, the one that computes. While a matrix is packed, its
  // bytes in the file are mapped too: the largest counts twice.
  weights({ config, precision }, { block }) {
    const { hidden: h, intermediate: f, classes, vocabulary } = config, layers = block ? 1 : config.layers;
    const item = CONSTANTS.ITEM_BYTES[precision], scales = inIntegers(precision) ? 4 : 0;
    const packed = (wide, narrow, bytes = item) => {
      const [rows, columns] = [wide, narrow].map((size) => upTo(size, CONSTANTS.ONNX.PACKED_MULTIPLE));
      return bytes * rows * columns + (bytes === 1 ? 4 * columns : 0);
    };
    const linear = (wide, narrow) => packed(wide, narrow) + (4 + scales) * narrow; // with the bias
    const counts = memory.parameters({ ...config, layers, vocabulary: 0 });
    const largest = [[h * h, "attention"], [h * f, "feed-forward"]].map(([count, part]) => [count * item, part]);
    const [twice, where] = largestBy([...largest, [4 * h * classes, "head"]], ([bytes]) => bytes);
    const parts = {
      "embeddings": item * counts["embeddings"] + scales * (vocabulary + config.positions + config.types),
      "attention": layers * 4 * linear(h, h),
      "feed-forward": layers * (linear(h, f) + linear(f, h)),
      "norm": 4 * counts["norm"],
      "head": linear(h, h) + packed(h, classes, 4) + 4 * classes,
    };
    return { ...parts, [where]: parts[where] + twice };
  },

  // Hidden states, queries, keys, values, and in each thread the larger of two steps: `attend`, a piece's keys,
  // values, queries and results, and two matrices of scores; `finish`, a chunk's wide tensors, its int8 copy, and six tensors of the hidden size.
  activationBytes({ hidden: h, intermediate: f, heads, positions: longest }, setting) {
    const { ATTENTION_TOKENS, ATTENTION_SCORES } = CONSTANTS.ONNX, tokens = Math.max(setting.maxTokens, longest);
    const rows = 2 * Math.max(ATTENTION_TOKENS, longest) + 3 * ATTENTION_TOKENS;
    const attend = 4 * (rows * h + 2 * heads * ATTENTION_SCORES);
    const finish = setting.chunk * (13 * f + 6 * 4 * h);
    return 4 * h * (Math.max(tokens, setting.block) + 3 * tokens) + setting.threads * Math.max(attend, finish);
  },

  make(exported, budget, threads, wish) {
    const settings = this.settings(exported, threads, wish), total = (setting) => this.total(exported, setting);
    const smallest = smallestBy(settings, total);
    return {
      settings: settings.map((setting) => ({ ...setting, total: total(setting), allowed: true })),
      chosen: (budget === null ? settings[0] : settings.find((each) => total(each) <= budget)) ?? null,
      smallest: { setting: smallest, total: total(smallest) },
    };
  },
};

// -------------------------------------------------------------------------------------------------- the page's form

// The form is flat: {engine: "torch", "export" or "transformers", the sizes of a config, format, tokenizer,
// tokenizerBytes, feedForwardTokens, length, labels, texts, precision, attention, window, hypothesis, padded, chunk,
// offload, maxTokens, budget, lossy, threads, int8, int8Streamed, mklKeeps, whole, anonymous, container, workers, disk,
// speed}. Sizes are in bytes, `disk` in bytes a second, `speed` in tokens a second. What is not given is null.
const calculator = {
  // {lines: [[part or purpose, bytes]], growth, ...}, or {problem: [name, values]} for what cannot run.
  answer(form) {
    const config = this.config(form), problem = this.problem(form, config);
    if (problem) return { problem };
    return { transformers: this.transformers, torch: this.torch, export: this.export }[form.engine].call(
      this, form, config,
    );
  },

  config({ layers, hidden, heads, intermediate, vocabulary, positions, types, classes }) {
    return { layers, hidden, heads, intermediate, vocabulary, positions, types, classes };
  },

  // What a checkpoint's file holds, in bytes. In 16 bits, transformers' format is that of "transformers-16".
  stored(config, format) {
    const bits = { "transformers": "fp32", "transformers-16": "fp16", "int8-rows": "int8", "int8-v1": "int8" };
    return plan.bytesOfWeights(config, bits[format] ?? format, { int8: "plain" });
  },

  subject(form, config) {
    const { format, tokenizer, overwrites, chunk } = form, feedForwardTokens = overwrites ? chunk : 0;
    const stored = this.stored(config, format), name = format === "transformers-16" ? "transformers" : format;
    return plan.subject({ config, format: name, stored, tokenizer, feedForwardTokens });
  },

  // Why a form has no answer: [name of the text that says it, its values], or null.
  problem(form, config) {
    const { engine, length, chunk, overwrites, attention, offload, precision } = form;
    const needed = Object.entries(LEAST).filter(([name]) => form[name] !== undefined);
    for (const [name, least] of needed) {
      if (!Number.isInteger(form[name]) || form[name] < least) return ["whole number", { name, least }];
    }
    for (const name of ["budget", "container", "disk", "speed"]) {
      const given = form[name] !== null && form[name] !== undefined && form[name] !== "container";
      if (given && !(form[name] > 0)) return ["positive", { name }];
    }
    const { hidden, heads, positions } = config;
    if (hidden % heads) return ["heads", { hidden, heads }];
    if (length > positions) return ["length", { length, positions }];
    if (form.budget === "container" && form.container === null) return ["no container", {}];
    if (engine === "transformers") {
      if (chunk && length % chunk && !overwrites) return ["chunk", { chunk, length }];
      if (form.padded && length === 1) return ["padded", {}];
      return inIntegers(precision) ? ["int8", {}] : null;
    }
    if (engine === "export") {
      return precision === null || ["fp32", "int8"].includes(precision) ? null : ["export", { precision }];
    }
    const can = plan.precisions(this.subject(form, config));
    if (precision !== null && !can.includes(precision)) return ["precision", { precision, can: can.join(", ") }];
    return attention === "sliding" && offload ? ["sliding", {}] : null;
  },

  // The model's own forward pass: tensors only. What its process takes besides is not predicted.
  transformers(form, config) {
    const { length, labels, texts, precision, ...options } = form, pairs = labels * texts;
    const footprint = memory.predict(config, pairs, length, { ...options, precision: precision ?? "fp32" });
    const weights = Object.entries(footprint.parts).map(([part, bytes]) => ["weights", part, bytes]);
    const tensors = Object.entries(footprint.peak.tensors).filter(([, bytes]) => bytes > 0);
    const mapped = (precision ?? "fp32") === "fp32" ? footprint.weights : 0;
    return {
      lines: [...weights, ...tensors.map(([name, bytes]) => ["activations", name, bytes])],
      growth: footprint.total, footprint, pairs,
      container: this.container(form, { growth: footprint.total, mapped, shared: mapped, sure: false }),
    };
  },

  // The plan of a budget, with torch.
  torch(form, config) {
    const { threads, int8, int8Streamed, mklKeeps, precision, attention, offload, maxTokens, lossy } = form;
    const subject = this.subject(form, config), machine = { threads, int8, int8Streamed, mklKeeps };
    const wish = { precision, attention, offload, lossy, ...(maxTokens === null ? {} : { maxTokens }) };
    const budget = this.budget(form), made = plan.make(subject, budget, machine, wish);
    if (!made.chosen) return { problem: ["budget", { budget }], ...made };
    const setting = made.chosen, bill = plan.bill(subject, setting, machine);
    const parts = plan.weights(config, setting, plan.known(subject, setting, machine));
    const mapped = !setting.block && setting.precision === subject.mapped && !inIntegers(setting.precision);
    const growth = bytesOf(bill), weights = mapped ? bill["weights"] : 0;
    return {
      ...made, budget, growth, lines: this.lines(bill, parts),
      batch: this.batch(form, config, setting, plan.known(subject, setting, machine)),
      container: this.container(form, { growth, mapped: weights, shared: weights, sure: true }),
      reading: this.reading(form, setting, this.layerBytes(config, setting, subject.stored), config.layers),
    };
  },

  // The plan of a budget, without torch.
  export(form, config) {
    const { threads, offload, maxTokens, tokenizerBytes } = form, precision = form.precision ?? "fp32";
    const exported = { config, precision, tokenizerBytes }, budget = this.budget(form);
    const made = onnxPlan.make(exported, budget, threads, { maxTokens, offload });
    if (!made.chosen) return { problem: ["budget", { budget }], ...made };
    const setting = made.chosen, bill = onnxPlan.bill(exported, setting), growth = bytesOf(bill);
    return {
      ...made, budget, growth, lines: this.lines(bill, onnxPlan.weights(exported, setting)),
      batch: this.batches(form, setting),
      container: this.container(form, { growth, mapped: 0, shared: 0, sure: true }), // packed weights stay
      reading: this.reading(form, setting, this.layerBytes(config, setting, 0), config.layers),
    };
  },

  // [kind, part or purpose, bytes] of a bill, its weights by part.
  lines({ weights, ...others }, parts) {
    const kinds = { "activations": "activations", "hidden states that wait": "activations" };
    return [
      ...Object.entries(parts).map(([part, bytes]) => ["weights", part, bytes]),
      ...Object.entries(others).map(([purpose, bytes]) => [kinds[purpose] ?? "other", purpose, bytes]),
    ];
  },

  // Bytes by which each worker may grow. What a container leaves is its limit, divided by the workers, without what a
  // process holds before its plan and the pages of libraries that it touches later (_container.container_budget).
  budget({ budget, container, workers, whole }) {
    if (budget !== "container") return budget;
    return Math.max(1, Math.floor(container / workers) - whole - CONSTANTS.LIBRARY_PAGES_BYTES);
  },

  // How the form's pairs go through: at most `together` in a batch.
  batches({ length, labels, texts }, { maxTokens }) {
    const pairs = labels * texts, together = Math.min(pairs, Math.max(1, Math.floor(maxTokens / length)));
    return { pairs, together, batches: Math.ceil(pairs / together) };
  },

  batch(form, config, setting, machine) {
    const batch = this.batches(form, setting), { precision, attention, chunk } = setting;
    const options = { precision, attention, chunk, int8: plan.engine(setting, machine), threads: form.threads };
    const { peakActivations } = inference.predict(config, [[batch.together, form.length]], options);
    return { ...batch, activations: peakActivations };
  },

  // The whole process, all workers, and whether a container holds them.
  //
  // `mapped`: weights that the kernel may drop and read again; `shared`: those that workers hold in common; `sure`:
  // whether `growth` is an upper bound. A container that is too small for all, but not for what cannot be dropped,
  // makes a process slow: its pages are read again and again. A smaller one has it killed.
  container({ container, workers, whole, anonymous }, { growth, mapped, shared, sure }) {
    const one = whole + CONSTANTS.LIBRARY_PAGES_BYTES + growth, all = workers * one - (workers - 1) * shared;
    const undroppable = workers * (anonymous + growth - mapped);
    const most = container === null ? null : Math.max(0, Math.floor((container - shared) / (one - shared)));
    const enough = container === null ? "none" : container >= all ? (sure ? "fits" : "unsure") : null;
    const verdict = enough ?? (container < undroppable ? "killed" : "slow");
    return { verdict, limit: container, one, all, undroppable, shared, most };
  },

  // Bytes of one layer as it is read from its file. A layer stored in fp32 is read in fp32, whatever it runs in.
  layerBytes(config, { precision }, stored) {
    const kept = !inIntegers(precision) && stored >= plan.bytesOfWeights(config, "fp32") ? "fp32" : precision;
    const [one, two] = [1, 2].map((layers) => plan.bytesOfWeights({ ...config, layers }, kept, { int8: "plain" }));
    return two - one;
  },

  // Seconds to read a streamed layer, against the seconds in which a block of tokens passes one.
  reading({ disk, speed }, { block }, layerBytes, layers) {
    const read = disk === null ? null : layerBytes / disk;
    const compute = speed === null || !block ? null : block / speed / layers;
    return { streamed: block > 0, layerBytes, read, compute };
  },
};

// the least whole number of each input; with fewer positions than plan.MOST_PAIRS, the worst batch has empty pairs
const LEAST = {
  layers: 1, hidden: 1, heads: 1, intermediate: 1, vocabulary: 1, positions: CONSTANTS.MOST_PAIRS, types: 1, classes: 1,
  length: 1, labels: 1, texts: 1, threads: 1, workers: 1, window: 1, hypothesis: 0, chunk: 0, tokenizerBytes: 1,
  whole: 1, anonymous: 1,
};
