"""The teacher: e5 as a bi-encoder says how well a topic label fits a text, before any training."""

import numpy as np
import torch
from tqdm import tqdm

TEMPLATES = ["{}", "这是一条关于{}的新闻"]


@torch.inference_mode()
def embed(model, tokenizer, texts, what, batch=128):
    """Unit vectors (len(texts), hidden): the mean of the encoder's last states, as e5 was trained to be read."""
    vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in tqdm(range(0, len(order), batch), desc=f"embed {what}", mininterval=5):
        rows = order[start : start + batch]
        inputs = tokenizer(["query: " + texts[i] for i in rows], padding=True, truncation=True, max_length=64,
                           return_tensors="pt")  # fmt: skip
        states = model.bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean).numpy()
    return vectors


def fit(model, tokenizer, texts, labels):
    """How well each label fits each text, (texts, labels): cosine over the templates, less the label's mean, scaled.

    Without the subtraction labels that are near to everything win everywhere.
    """
    text_vectors = embed(model, tokenizer, texts, "texts")
    cosine = sum(
        text_vectors @ embed(model, tokenizer, [t.format(label) for label in labels], f"labels as {t}").T
        for t in TEMPLATES
    )
    centred = cosine - cosine.mean(0)
    return centred / centred.std()
