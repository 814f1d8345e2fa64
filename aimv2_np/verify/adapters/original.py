"""The original code (aim.v2.torch of apple/ml-aim), with our weights, run and watched."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ...config import LiTConfig, VisionConfig
from ...errors import VerificationError
from ..candidate import Candidate
from ..names import MODULES
from ..walk import Case, Model
from .running import Shelf, each_case
from .torch_modules import as_tensors, recorded, state_dict, to_numpy

__all__ = ["build", "candidate", "watch"]

_OUTPUTS = ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")  # in its order


def _models() -> Any:
    try:
        return import_module("aim.v2.torch.models")
    except Exception as error:  # whatever it needs and does not find
        raise VerificationError(
            f"the candidate 'original' needs the original code, aim.v2.torch: {error}; install "
            "aim-v1 and aim-v2 of the repository apple/ml-aim"
        ) from error


def build(model: Model, dtype: str = "float32") -> Any:
    """The original's model with the weights of ours, in evaluation mode."""
    models, c = _models(), model.config
    import torch

    built = _lit(models, c) if isinstance(c, LiTConfig) else _vision(models, c)
    built = built.to(getattr(torch, dtype))
    built.load_state_dict(state_dict(model, "original", dtype))
    return built.eval()


def _vision(models: Any, c: VisionConfig) -> Any:
    return models.AIMv2VisionEncoder(
        img_size=c.image_size or c.patch_size,  # means nothing where positions are computed
        patch_size=c.patch_size,
        embed_dim=c.hidden_size,
        mlp_hidden_dim=c.intermediate_size,
        num_blocks=c.num_hidden_layers,
        num_heads=c.num_attention_heads,
        num_channels=c.num_channels,
        pos_embed_type="sincos" if c.grid_size is None else "absolute",
        head_type="attention-pool" if c.use_head else None,
        head_num_heads=c.num_attention_heads,
        head_linear_bias=True,
    )


def _lit(models: Any, c: LiTConfig) -> Any:
    return models.AIMv2LiT(
        img_size=c.vision.image_size,
        patch_size=c.vision.patch_size,
        projection_dim=c.projection_dim,
        vision_embed_dim=c.vision.hidden_size,
        vision_mlp_hidden_dim=c.vision.intermediate_size,
        vision_num_blocks=c.vision.num_hidden_layers,
        vision_num_heads=c.vision.num_attention_heads,
        text_embed_dim=c.text.hidden_size,
        text_mlp_embed_dim=c.text.intermediate_size,
        text_num_blocks=c.text.num_hidden_layers,
        text_num_heads=c.text.num_attention_heads,
        vocab_size=c.text.vocab_size,
        max_context_length=c.text.max_position_embeddings,
        eos_token_id=c.text.eos_token_id,
        max_logit_scale=c.max_logit_scale,
        num_channels=c.vision.num_channels,
    )


def watch(built: Any, case: Case) -> Shelf:
    """Every activation of one case that can be seen from outside.

    The original takes no padding mask: it is causal, and padding follows the end of a text.
    """
    import torch

    dtype = str(next(built.parameters()).dtype).removeprefix("torch.")
    inputs = as_tensors(case, dtype)
    pixels, ids = inputs.get("pixel_values"), inputs.get("input_ids")
    with recorded(built, MODULES["original"]) as found, torch.inference_mode():
        if not hasattr(built, "image_encoder"):
            built(pixels)
        elif pixels is not None and ids is not None:
            outputs = zip(_OUTPUTS, built(pixels, ids, output_features=True), strict=True)
            found.update({n: a for n, t in outputs if (a := to_numpy(t)) is not None})
        elif pixels is not None:
            built.encode_image(pixels)
        else:
            built.encode_text(ids)
    return found


def candidate(model: Model, cases: Sequence[Case], dtype: str = "float32") -> Candidate:
    """The original code as it is, with our weights.

    Raises:
        VerificationError: it cannot be imported, or fails in every case.
    """
    built = build(model, dtype)
    found, notes = each_case("the original code", cases, lambda case: watch(built, case))
    return Candidate(f"original, {dtype}", found, dtype, notes)
