// Written by scripts/page_constants.py from zsc_utils: change the numbers there, then run it.

"use strict";

const CONSTANTS = {
  "PHASES": ["embeddings", "attention", "feed-forward", "pooler and head"],
  "QUERY_BLOCKS": [[768, 256], [192, 64], [1, 32]],
  "KEY_BLOCK": 512,
  "CHUNK_TOKENS": 256,
  "STEP_TOKENS": 64,
  "INT8_BLOCK": 256,
  "ATTENTIONS": ["eager", "sdpa", "sliding"],
  "WINDOW_TOKENS": 128,
  "MOST_PAIRS": 40,
  "MAX_TOKENS": 1024,
  "TOKENIZER_BYTES": {"vocab.txt": 350, "tokenizer.json": 900},
  "KERNEL_BYTES": 660000,
  "INT8_KERNEL_BYTES": 360000,
  "MKL_BYTES": 80000,
  "WORKSPACE_BYTES": 300000,
  "HALVES_WORKSPACE_BYTES": 4000000,
  "HEAP_BYTES": 4000000,
  "HOLES": 0.7,
  "STREAMED": [[1024, 256, 4096, true], [512, 128, 3072, true], [512, 128, 3072, false], [512, 64, 3072, false]],
  "HALVES": ["fp16", "bf16"],
  "LIBRARY_PAGES_BYTES": 20000000,
  "OBJECT_STORE_BYTES": 100000000,
  "ITEM_BYTES": {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1},
  "FORMATS": [{"name": "transformers", "precision": "fp32", "embeddings": null}, {"name": "int8-rows", "precision": "fp32", "embeddings": "int8"}, {"name": "fp16", "precision": "fp16", "embeddings": null}, {"name": "bf16", "precision": "bf16", "embeddings": null}, {"name": "int8-v1", "precision": "int8", "embeddings": null}],
  "ONNX": {"MAX_TOKENS": 512, "CHUNK": 128, "ATTENTION_TOKENS": 256, "ATTENTION_SCORES": 32768, "STREAMED": [[512, 128, 8192, 1024], [512, 128, 4096, 1024], [512, 64, 2048, 1024], [512, 64, 1024, 1024], [512, 64, 1024, 1]], "PACKED_MULTIPLE": 64, "TOKENIZER_BYTES": 13, "LAYER_BYTES": 500000, "RUNTIME_BYTES": 15000000, "HOLES": 1.0, "HOLES_STREAMED": 0.7},
  "COLOURS": {"embeddings": "#0072B2", "attention": "#E69F00", "feed-forward": "#009E73", "norm": "#000000", "head": "#F0E442", "activations": "#CC79A7", "file-backed": "#999999", "libraries": "#666666", "other": "#BBBBBB"},
  "CHECKPOINTS": {"base-shape": {"config": {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072, "vocabulary": 21128, "positions": 512, "types": 2, "classes": 3}, "format": "transformers", "stored": 409079820, "tokenizer": "vocab.txt", "tokenizerBytes": 413956}, "mini": {"config": {"layers": 12, "hidden": 384, "heads": 12, "intermediate": 1536, "vocabulary": 20251, "positions": 512, "types": 2, "classes": 3}, "format": "int8-rows", "stored": 29854208, "tokenizer": "tokenizer.json", "tokenizerBytes": 1248570}},
  "PROCESSES": {"torch": {"whole": 400000000, "anonymous": 300000000}, "export": {"whole": 70000000, "anonymous": 40000000}}
};
