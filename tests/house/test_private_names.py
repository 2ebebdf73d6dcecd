"""The private names of torch and transformers that zsc_utils leans on, and what to do on the day one of them goes.

A name with an underscore in front, or an operator of torch.ops, may change with any release. The versions are pinned:
a new pin that lacks one turns a test red here, by name.
"""

import ast
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.bert.modeling_bert import BertLayer
from transformers.utils import output_capturing

ROOM = Path(__file__).parents[2] / "zsc_utils"
HOW_ATTENTION_IS_CHOSEN = "ask transformers' documentation how a config names its attention function"
HOW_MODULES_ARE_MADE = "_bert.with_weights copies a module by hand: make it anew from its class, and set its parameters"
PRIVATE = {
    "_attn_implementation": HOW_ATTENTION_IS_CHOSEN,
    "_parameters": HOW_MODULES_ARE_MADE,
    "_buffers": HOW_MODULES_ARE_MADE,
    "_modules": HOW_MODULES_ARE_MADE,
    "_forward_hooks": "_tensors.has_foreign_hooks: look where torch keeps hooks now",
    "_forward_pre_hooks": "_tensors.has_foreign_hooks: look where torch keeps hooks now",
    "_hf_hook": "accelerate's mark on a module it has dispatched: look for its new one",
    "_active_collector": "attention.looked_at: how transformers tells a layer that hidden states are collected",
    "_output_capturing_hooks_installed": "transformers' mark of its own hooks: a copied module must not carry it",
    "_int_mm": "the engine of plain int8 rows: without it products are packed, or made in fp32",
}
OPERATORS = {
    "onednn.qlinear_prepack": "the engine of packed int8 rows: without it products are plain, or made in fp32",
    "onednn.qlinear_pointwise": "the engine of packed int8 rows: without it products are plain, or made in fp32",
    "aten.gelu_": "GELU in its own place: without it take the activation function, and count its output in the bill",
}


def private_names():
    """Attributes and names in strings that begin with one underscore and are none of ours."""
    ours, found = set(), set()
    for file in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                ours.add(node.name)
            name = getattr(node, "attr", None) or (
                getattr(node, "value", None) if isinstance(node, ast.Constant) else ""
            )
            if isinstance(name, str) and name.isidentifier() and name.startswith("_") and not name.startswith("__"):
                found.add(name)
    return found - ours - {"_", "_text", "_size", "_heads", "_hooks"}  # a room, and endings of names


def operators():
    found = set()
    for file in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            words = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if words.startswith("torch.ops.") and words.count(".") == 3:
                found.add(words.removeprefix("torch.ops."))
    return found


def test_the_lists_hold_what_is_used_and_nothing_else():
    assert private_names() == PRIVATE.keys()
    assert operators() == OPERATORS.keys()


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_is_there_in_the_pinned_versions(name):
    config = transformers.BertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    layer = BertLayer(config)
    if name == "_hf_hook":
        import accelerate

        accelerate.hooks.add_hook_to_module(layer, accelerate.hooks.ModelHook())
    if name == "_output_capturing_hooks_installed":
        model = transformers.BertModel(config)
        model(torch.tensor([[1]]), output_hidden_states=True)
        assert name in vars(model)
        return
    assert any(hasattr(owner, name) for owner in (config, layer, torch, output_capturing)), PRIVATE[name]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_there_in_the_pinned_version(name):
    space, operator = name.split(".")
    if space == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    assert hasattr(getattr(torch.ops, space), operator), OPERATORS[name]
