"""transformers' AIMv2, with our weights, run and watched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from ...config import LiTConfig, TextConfig, VisionConfig
from ...errors import VerificationError
from ...ops import Array
from ..candidate import Candidate
from ..walk import Case, Model
from .torch_modules import Taps, recorded, to_numpy

__all__ = ["TAPS", "build", "candidate", "watch"]


def _tower(path: str, name: str) -> Taps:
    layer, block = f"{path}encoder.layers.{{i}}", f"{name}blocks.{{i}}."
    return {
        f"{layer}.rms_norm1": (f"{block}norm_1", None),
        f"{layer}.attention.q_proj": (f"{block}attn.q", None),
        f"{layer}.attention.k_proj": (f"{block}attn.k", None),
        f"{layer}.attention.v_proj": (f"{block}attn.v", None),
        f"{layer}.attention.out_proj": (f"{block}attn.out", f"{block}attn.context"),
        f"{layer}.rms_norm2": (f"{block}norm_2", f"{block}resid_mid"),
        f"{layer}.ffn.gate_proj": (f"{block}mlp.gate", None),
        f"{layer}.ffn.up_proj": (f"{block}mlp.up", None),
        f"{layer}.ffn.down_proj": (f"{block}mlp.out", f"{block}mlp.hidden"),
        layer: (f"{block}resid_post", None),
        f"{path}rms_norm": (f"{name}norm", None),
    }


def _vision(path: str) -> Taps:
    return {
        f"{path}embeddings.patch_embed": ("vision.patch_embed", "pixel_values"),
        f"{path}embeddings.rms_norm": ("vision.patch_norm", None),
        f"{path}embeddings.position_embedding": ("vision.pos_embed", None),
        f"{path}embeddings": ("vision.embed", None),
        f"{path}head.k_proj": ("vision.head.k", None),
        f"{path}head.v_proj": ("vision.head.v", None),
        f"{path}head.output_proj": ("vision.pooled", "vision.head.context"),
        **_tower(path, "vision."),
    }


_TEXT: Taps = {
    "text_model.embeddings.token_embedding": ("text.token_embed", "input_ids"),
    "text_model.embeddings.position_embedding": ("text.pos_embed", None),
    "text_model.embeddings": ("text.embed", None),
    **_tower("text_model.", "text."),
}
_JOINT: Taps = {
    "visual_projection": ("image_features", None),
    "text_projection": ("text_features", None),
}
TAPS: Taps = {**_vision("vision_model."), **_vision(""), **_TEXT, **_JOINT}


# ---------------------------------------------------------------------------- the model


def _module() -> Any:
    """transformers' module of AIMv2, also beside a torchvision that cannot be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise VerificationError(
            "the candidate 'transformers' needs torch and transformers: pip install torch "
            "transformers"
        ) from error
    try:
        import_module("torchvision")
    except Exception:  # whatever is wrong with it: AIMv2 does without
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        from transformers.models.aimv2 import modeling_aimv2
    except Exception as error:
        raise VerificationError(
            f"transformers' AIMv2 cannot be imported: {error}; pip install 'transformers>=4.54'"
        ) from error
    return modeling_aimv2


def _fields(config: VisionConfig | TextConfig) -> dict[str, Any]:
    fields = asdict(config)
    if fields.get("image_size", 0) is None:
        fields["image_size"] = 224  # means nothing where positions are computed
    return fields


def build(model: Model, dtype: str = "float32", attention: str = "eager") -> Any:
    """transformers' model with the weights of ours, in evaluation mode."""
    import torch

    theirs = _module()
    c = model.config
    if isinstance(c, LiTConfig):
        config = theirs.Aimv2Config(
            vision_config=_fields(c.vision),
            text_config=_fields(c.text),
            projection_dim=c.projection_dim,
        )
        config.max_logit_scale = c.max_logit_scale
        kind = theirs.Aimv2Model
    else:
        config, kind = theirs.Aimv2VisionConfig(**_fields(c)), theirs.Aimv2VisionModel
    config._attn_implementation = attention
    built = kind(config)
    state = {name: torch.from_numpy(np.array(a, np.float32)) for name, a in _weights(model)}
    missing, unknown = built.load_state_dict(state, strict=False)
    if missing or unknown:
        raise VerificationError(f"transformers' AIMv2 has other weights: {missing}, {unknown}")
    return built.to(getattr(torch, dtype)).eval()


def _weights(model: Model) -> list[tuple[str, Array]]:
    """Our parameters under transformers' names."""
    p: Any = model.params
    if not isinstance(model.config, LiTConfig):
        return _vision_weights(p, "")
    return [
        *_vision_weights(p.vision, "vision_model."),
        ("text_model.embeddings.token_embedding.weight", p.text.text_embedding),
        ("text_model.embeddings.position_embedding.weight", p.text.positional_embedding),
        *_tower_weights(p.text, "text_model."),
        ("visual_projection.weight", p.image_projector),
        ("text_projection.weight", p.text_projector),
        ("logit_scale", p.log_logit_scale),
    ]


def _vision_weights(p: Any, path: str) -> list[tuple[str, Array]]:
    found = [
        (f"{path}embeddings.patch_embed.weight", p.patch_weight),
        (f"{path}embeddings.patch_embed.bias", p.patch_bias),
        (f"{path}embeddings.rms_norm.weight", p.patch_norm),
        *_tower_weights(p, path),
    ]
    if p.pos_embed is not None:
        found.append((f"{path}embeddings.position_embedding.weight", p.pos_embed))
    if p.head is not None:
        found += [
            (f"{path}head.cls_token", p.head.cls_token[None, None]),
            (f"{path}head.k_proj.weight", p.head.k),
            (f"{path}head.v_proj.weight", p.head.v),
            (f"{path}head.output_proj.weight", p.head.linear_weight),
            (f"{path}head.output_proj.bias", p.head.linear_bias),
        ]
    return found


def _tower_weights(p: Any, path: str) -> list[tuple[str, Array]]:
    found = [(f"{path}rms_norm.weight", p.post_trunk_norm)]
    for i in range(len(p.blocks)):
        block, layer = p.blocks[i], f"{path}encoder.layers.{i}."
        found += [
            (f"{layer}rms_norm1.weight", block.norm_1),
            *(
                (f"{layer}attention.{n}_proj.weight", w)
                for n, w in zip("qkv", block.qkv, strict=True)
            ),
            (f"{layer}attention.out_proj.weight", block.proj),
            (f"{layer}rms_norm2.weight", block.norm_2),
            (f"{layer}ffn.gate_proj.weight", block.fc1),
            (f"{layer}ffn.up_proj.weight", block.fc3),
            (f"{layer}ffn.down_proj.weight", block.fc2),
        ]
    return found


# ---------------------------------------------------------------------------- running


def watch(built: Any, case: Case) -> dict[str, Array]:
    """Every activation of one case that can be seen from outside."""
    import torch

    inputs = {}
    dtype = next(built.parameters()).dtype
    if case.pixel_values is not None:
        inputs["pixel_values"] = torch.from_numpy(np.array(case.pixel_values)).to(dtype)
    if case.input_ids is not None:
        inputs["input_ids"] = torch.from_numpy(np.array(case.input_ids))
    if case.attention_mask is not None:
        inputs["attention_mask"] = torch.from_numpy(np.array(case.attention_mask))
    with recorded(built, TAPS) as found, torch.inference_mode():
        if case.pixel_values is None or case.input_ids is None:
            found |= _one_tower(built, case, inputs)
        else:
            out = built(**inputs)
            found |= _outputs(out, ("image_embeds", "text_embeds"))
            found |= _outputs(out, ("logits_per_image", "logits_per_text"))
    return found


def _one_tower(built: Any, case: Case, inputs: dict[str, Any]) -> dict[str, Array]:
    if not hasattr(built, "vision_model"):
        built(**inputs)
        return {}
    tower, projection = (
        (built.vision_model, built.visual_projection)
        if case.input_ids is None
        else (built.text_model, built.text_projection)
    )
    pooled = tower(**inputs).pooler_output
    name = "vision.pooled" if case.input_ids is None else "text.pooled"
    projection(pooled)  # its hook keeps the features
    return {name: np.asarray(to_numpy(pooled))}


def _outputs(out: Any, names: Sequence[str]) -> dict[str, Array]:
    arrays = {name: to_numpy(getattr(out, name)) for name in names}
    return {name: array for name, array in arrays.items() if array is not None}


def candidate(
    model: Model, cases: Sequence[Case], dtype: str = "float32", attention: str = "eager"
) -> Candidate:
    """transformers' AIMv2 as it is, with our weights."""
    built = build(model, dtype, attention)
    activations = {case.name: watch(built, case) for case in cases}
    name = f"transformers {version('transformers')}, {attention}, {dtype}"
    return Candidate(name, activations, dtype)
