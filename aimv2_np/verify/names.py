"""What other programs call the activations: tables from their names to ours.

`{i}` is a block's number: transformers' "encoder.layers.{i}.rms_norm1" puts out our
"vision.blocks.{i}.norm_1". The adapters watch the modules of live models by these tables, and
schemes.py reads the names in files by them. "softmax" after a module's name is the one that it
computes: no module of its own, but a node of an ONNX graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["MODULES", "TABLES", "TEXT_TABLES", "Taps"]

# A pattern of modules' names -> the activation that the module puts out, and the one it takes in;
# None for what is of no interest.
Taps: TypeAlias = Mapping[str, tuple[str | None, str | None]]


# ---------------------------------------------------------------------------- transformers


def _transformers_tower(path: str, tower: str) -> Taps:
    layer, block = f"{path}encoder.layers.{{i}}", f"{tower}blocks.{{i}}."
    return {
        f"{layer}.rms_norm1": (f"{block}norm_1", None),
        f"{layer}.attention.q_proj": (f"{block}attn.q", None),
        f"{layer}.attention.k_proj": (f"{block}attn.k", None),
        f"{layer}.attention.v_proj": (f"{block}attn.v", None),
        f"{layer}.attention.softmax": (f"{block}attn.pattern", f"{block}attn.scores"),
        f"{layer}.attention.out_proj": (f"{block}attn.out", f"{block}attn.context"),
        f"{layer}.rms_norm2": (f"{block}norm_2", f"{block}resid_mid"),
        f"{layer}.ffn.gate_proj": (f"{block}mlp.gate", None),
        f"{layer}.ffn.up_proj": (f"{block}mlp.up", None),
        f"{layer}.ffn.down_proj": (f"{block}mlp.out", f"{block}mlp.hidden"),
        layer: (f"{block}resid_post", None),
        f"{path}rms_norm": (f"{tower}norm", None),
    }


def _transformers_vision(path: str) -> Taps:
    return {
        f"{path}embeddings.patch_embed": ("vision.patch_embed", "pixel_values"),
        f"{path}embeddings.rms_norm": ("vision.patch_norm", None),
        f"{path}embeddings.position_embedding": ("vision.pos_embed", None),
        f"{path}embeddings": ("vision.embed", None),
        f"{path}head.k_proj": ("vision.head.k", None),
        f"{path}head.v_proj": ("vision.head.v", None),
        f"{path}head.softmax": ("vision.head.pattern", "vision.head.scores"),
        f"{path}head.output_proj": ("vision.pooled", "vision.head.context"),
        **_transformers_tower(path, "vision."),
    }


def _transformers_text(path: str) -> Taps:
    return {
        f"{path}embeddings.token_embedding": ("text.token_embed", "input_ids"),
        f"{path}embeddings.position_embedding": ("text.pos_embed", None),
        f"{path}embeddings": ("text.embed", None),
        **_transformers_tower(path, "text."),
    }


def _transformers_outputs(path: str, tower: str) -> dict[str, str]:
    """The fields of its outputs; of hidden states the first is what enters the blocks."""
    return {
        f"{path}last_hidden_state": f"{tower}norm",
        f"{path}pooler_output": f"{tower}pooled",
        **{
            f"{path}{name}{number}": ours
            for name, number, ours in (
                ("hidden_states", ".0", f"{tower}embed"),
                ("hidden_states", "_0", f"{tower}embed"),
                ("hidden_states", ".{i}", f"{tower}blocks.{{i-1}}.resid_post"),
                ("hidden_states", "_{i}", f"{tower}blocks.{{i-1}}.resid_post"),
                ("attentions", ".{i}", f"{tower}blocks.{{i}}.attn.pattern"),
                ("attentions", "_{i}", f"{tower}blocks.{{i}}.attn.pattern"),
            )
        },
    }


_TRANSFORMERS: Taps = {
    **_transformers_vision("vision_model."),
    **_transformers_vision(""),
    **_transformers_text("text_model."),
    "visual_projection": ("image_features", "vision.pooled"),
    "text_projection": ("text_features", "text.pooled"),
}
_TRANSFORMERS_OUTPUTS = {
    name: ours
    for path, tower in (("vision_model", "vision."), ("text_model", "text."))
    for prefix in (f"{path}.", f"{path}_output.")
    for name, ours in _transformers_outputs(prefix, tower).items()
}


# ---------------------------------------------------------------------------- timm, the original


_TIMM: Taps = {
    "patch_embed.proj": ("vision.patch_embed", "pixel_values"),
    "patch_embed.norm": ("vision.patch_norm", None),
    "blocks": (None, "vision.embed"),
    "blocks.{i}.norm1": ("vision.blocks.{i}.norm_1", None),
    "blocks.{i}.attn.qkv": ("vision.blocks.{i}.attn.qkv", None),
    "blocks.{i}.attn.softmax": ("vision.blocks.{i}.attn.pattern", "vision.blocks.{i}.attn.scores"),
    "blocks.{i}.attn.proj": ("vision.blocks.{i}.attn.out", "vision.blocks.{i}.attn.context"),
    "blocks.{i}.norm2": ("vision.blocks.{i}.norm_2", "vision.blocks.{i}.resid_mid"),
    "blocks.{i}.mlp.fc1_g": ("vision.blocks.{i}.mlp.gate", None),
    "blocks.{i}.mlp.fc1_x": ("vision.blocks.{i}.mlp.up", None),
    "blocks.{i}.mlp.fc2": ("vision.blocks.{i}.mlp.out", "vision.blocks.{i}.mlp.hidden"),
    "blocks.{i}": ("vision.blocks.{i}.resid_post", None),
    "norm": ("vision.norm", None),
}


def _original_tower(path: str, tower: str) -> Taps:
    theirs, block = f"{path}trunk.blocks.{{i}}", f"{tower}blocks.{{i}}."
    return {
        f"{path}preprocessor": (f"{tower}embed", None),
        f"{theirs}.norm_1": (f"{block}norm_1", None),
        f"{theirs}.attn.qkv": (f"{block}attn.qkv", None),
        f"{theirs}.attn.softmax": (f"{block}attn.pattern", f"{block}attn.scores"),
        f"{theirs}.attn.proj": (f"{block}attn.out", f"{block}attn.context"),
        f"{theirs}.norm_2": (f"{block}norm_2", f"{block}resid_mid"),
        f"{theirs}.mlp.fc1": (f"{block}mlp.gate", None),
        f"{theirs}.mlp.fc3": (f"{block}mlp.up", None),
        f"{theirs}.mlp.fc2": (f"{block}mlp.out", f"{block}mlp.hidden"),
        theirs: (f"{block}resid_post", None),
        f"{path}trunk.post_trunk_norm": (f"{tower}norm", None),
    }


def _original_vision(path: str) -> Taps:
    return {
        f"{path}preprocessor.patchifier.proj": ("vision.patch_embed", "pixel_values"),
        f"{path}preprocessor.patchifier.norm": ("vision.patch_norm", None),
        f"{path}preprocessor.pos_embed": ("vision.pos_embed", None),
        **_original_tower(path, "vision."),
        f"{path}head.k": ("vision.head.k", None),
        f"{path}head.v": ("vision.head.v", None),
        f"{path}head.softmax": ("vision.head.pattern", "vision.head.scores"),
        f"{path}head.linear": ("vision.pooled", "vision.head.context"),
    }


def _original_text(path: str) -> Taps:
    return {
        f"{path}preprocessor.text_embedding": ("text.token_embed", "input_ids"),
        **_original_tower(path, "text."),
        f"{path}head": ("text.pooled", None),
    }


_ORIGINAL: Taps = {
    **_original_vision("image_encoder."),
    **_original_vision(""),
    **_original_text("text_encoder."),
    "image_projector": ("image_features", "vision.pooled"),
    "text_projector": ("text_features", "text.pooled"),
}


MODULES: dict[str, Taps] = {
    "transformers": _TRANSFORMERS,
    "timm": _TIMM,
    "original": _ORIGINAL,
}


# ---------------------------------------------------------------------------- ONNX


def _onnx_tower(path: str, tower: str) -> dict[str, str]:
    """Tensors as torch.onnx.export(dynamo=False) calls them, of transformers' eager modules.

    The exporter's other form gives tensors such as "mul_3" no telling names: adapters/onnx.py
    knows them by the modules that the file says they come from.
    """
    layer, block = f"{path}/encoder/layers.{{i}}", f"{tower}blocks.{{i}}."
    masked = "Add" if tower == "text." else "Mul"
    return {
        f"{path}/embeddings/Add": f"{tower}embed",
        f"{path}/embeddings/position_embedding/Gather": f"{tower}pos_embed",
        f"{layer}/rms_norm1/Mul_1": f"{block}norm_1",
        f"{layer}/attention/q_proj/MatMul": f"{block}attn.q",
        f"{layer}/attention/k_proj/MatMul": f"{block}attn.k",
        f"{layer}/attention/v_proj/MatMul": f"{block}attn.v",
        f"{layer}/attention/{masked}": f"{block}attn.scores",
        f"{layer}/attention/Softmax": f"{block}attn.pattern",
        f"{layer}/attention/Reshape_3": f"{block}attn.context",
        f"{layer}/attention/out_proj/MatMul": f"{block}attn.out",
        f"{layer}/Add": f"{block}resid_mid",
        f"{layer}/rms_norm2/Mul_1": f"{block}norm_2",
        f"{layer}/ffn/gate_proj/MatMul": f"{block}mlp.gate",
        f"{layer}/ffn/up_proj/MatMul": f"{block}mlp.up",
        f"{layer}/ffn/Mul": f"{block}mlp.hidden",
        f"{layer}/ffn/down_proj/MatMul": f"{block}mlp.out",
        f"{layer}/Add_1": f"{block}resid_post",
        f"{path}/rms_norm/Mul_1": f"{tower}norm",
    }


def _onnx_vision(path: str) -> dict[str, str]:
    return {
        f"{path}/embeddings/patch_embed/Conv": "vision.patch_embed",
        f"{path}/embeddings/rms_norm/Mul_1": "vision.patch_norm",
        **_onnx_tower(path, "vision."),
        f"{path}/head/k_proj/MatMul": "vision.head.k",
        f"{path}/head/v_proj/MatMul": "vision.head.v",
        f"{path}/head/MatMul": "vision.head.scores",
        f"{path}/head/Softmax": "vision.head.pattern",
        f"{path}/head/ReduceMean": "vision.head.context",
        f"{path}/head/output_proj/Gemm": "vision.pooled",
    }


_ONNX = {
    **_onnx_vision("/vision_model"),
    **_onnx_vision(""),
    "/text_model/embeddings/token_embedding/Gather": "text.token_embed",
    **_onnx_tower("/text_model", "text."),
    "/visual_projection/MatMul": "image_features",
    "/text_projection/MatMul": "text_features",
}


# ---------------------------------------------------------------------------- names in files


def _watched(taps: Taps) -> dict[str, str]:
    """Names of a file that hooks wrote: a module's, for what it puts out; with .input for that."""
    table = {path: out for path, (out, _) in taps.items() if out is not None}
    return table | {f"{path}.input": into for path, (_, into) in taps.items() if into is not None}


TABLES: dict[str, dict[str, str]] = {
    "transformers": {
        **_watched(_TRANSFORMERS),
        **_TRANSFORMERS_OUTPUTS,
        **_transformers_outputs("", "vision."),
    },
    "timm": _watched(_TIMM),
    "original": _watched(_ORIGINAL),
    "onnx": _ONNX,
}

# What names without a tower mean where there are only texts.
TEXT_TABLES: dict[str, dict[str, str]] = {
    "transformers": {**_watched(_transformers_text("")), **_transformers_outputs("", "text.")},
    "original": _watched(_original_text("")),
}
