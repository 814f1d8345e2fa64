"""transformers' AIMv2, with our weights, run and watched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

from ...config import LiTConfig, TextConfig, VisionConfig
from ...errors import VerificationError
from ...ops import Array
from ..candidate import Candidate
from ..names import MODULES
from ..walk import Case, Model
from .running import Shelf, each_case
from .torch_modules import as_tensors, recorded, state_dict, to_numpy

__all__ = ["build", "candidate", "watch"]

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
    theirs = _module()
    import torch

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
    built = kind(config).to(getattr(torch, dtype))
    state = state_dict(model, "transformers", dtype)
    missing, unknown = built.load_state_dict(state, strict=False)
    if missing or unknown:
        raise VerificationError(f"transformers' AIMv2 has other weights: {missing}, {unknown}")
    return built.eval()


# ---------------------------------------------------------------------------- running


def watch(built: Any, case: Case) -> Shelf:
    """Every activation of one case that can be seen from outside."""
    import torch

    inputs = as_tensors(case, str(built.dtype).removeprefix("torch."))
    with recorded(built, MODULES["transformers"]) as found, torch.inference_mode():
        if case.pixel_values is None or case.input_ids is None:
            _one_tower(built, case, inputs)
        else:
            out = built(**inputs)
            found.update(_outputs(out, ("image_embeds", "text_embeds")))
            found.update(_outputs(out, ("logits_per_image", "logits_per_text")))
    return found


def _one_tower(built: Any, case: Case, inputs: dict[str, Any]) -> None:
    if not hasattr(built, "vision_model"):
        built(**inputs)
        return
    tower, projection = (
        (built.vision_model, built.visual_projection)
        if case.input_ids is None
        else (built.text_model, built.text_projection)
    )
    projection(tower(**inputs).pooler_output)  # its hooks keep what it takes and makes


def _outputs(out: Any, names: Sequence[str]) -> dict[str, Array]:
    arrays = {name: to_numpy(getattr(out, name)) for name in names}
    return {name: array for name, array in arrays.items() if array is not None}


def candidate(
    model: Model, cases: Sequence[Case], dtype: str = "float32", attention: str = "eager"
) -> Candidate:
    """transformers' AIMv2 as it is, with our weights.

    Raises:
        VerificationError: it cannot be imported, or fails in every case.
    """
    built = build(model, dtype, attention)
    found, notes = each_case("transformers", cases, lambda case: watch(built, case))
    name = f"transformers {version('transformers')}, {attention}, {dtype}"
    return Candidate(name, found, dtype, notes)
