"""timm's AIMv2, with our weights, run and watched: vision encoders with learned positions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ...config import LiTConfig
from ...errors import VerificationError
from ..candidate import Candidate
from ..names import MODULES
from ..walk import Case, Model
from .running import Refused, Shelf, each_case
from .torch_modules import as_tensors, recorded, state_dict

__all__ = ["build", "candidate", "watch"]


def _timm() -> Any:
    try:
        return import_module("timm")
    except Exception as error:  # a torchvision that does not fit its torch raises RuntimeError
        raise VerificationError(
            f"the candidate 'timm' needs timm, and a torch and torchvision that fit each other: "
            f"{error}; pip install timm"
        ) from error


def build(model: Model, dtype: str = "float32", *, other_grids: bool = False) -> Any:
    """timm's model with the weights of ours, in evaluation mode.

    `other_grids`: learned positions are resampled to each image's grid, as timm does it.

    Raises:
        VerificationError: timm has no such model.
    """
    timm, c = _timm(), model.config
    import torch

    if isinstance(c, LiTConfig) or c.use_head or c.grid_size is None:
        lacks = (
            "texts" if isinstance(c, LiTConfig) else "the pooling head" if c.use_head else
            "positions for native resolution"
        )  # fmt: skip
        raise VerificationError(
            f"timm's AIMv2 has no {lacks}: it can be compared with the vision-only models of a "
            "fixed size (large-patch14-224 and such)"
        )
    built = timm.create_model(
        "aimv2_large_patch14_224",
        pretrained=False,
        num_classes=0,
        img_size=c.image_size,
        patch_size=c.patch_size,
        in_chans=c.num_channels,
        embed_dim=c.hidden_size,
        depth=c.num_hidden_layers,
        num_heads=c.num_attention_heads,
        mlp_ratio=(c.intermediate_size + 0.5) / c.hidden_size,  # timm rounds the product down
        dynamic_img_size=other_grids,
    ).to(getattr(torch, dtype))
    built.load_state_dict(state_dict(model, "timm", dtype))
    return built.eval()


def watch(built: Any, case: Case) -> Shelf:
    """Every activation of one case that can be seen from outside.

    Raises:
        Refused: it has no images.
    """
    import torch

    if case.pixel_values is None:
        raise Refused("it has no images")
    dtype = str(next(built.parameters()).dtype).removeprefix("torch.")
    pixels = as_tensors(case, dtype)["pixel_values"]
    with recorded(built, MODULES["timm"]) as found, torch.inference_mode():
        built.forward_features(pixels)
    return found


def candidate(model: Model, cases: Sequence[Case], dtype: str = "float32") -> Candidate:
    """timm's AIMv2 as it is, with our weights.

    Raises:
        VerificationError: timm has no such model, or fails in every case.
    """
    built = build(model, dtype, other_grids=any(case.interpolate for case in cases))
    found, notes = each_case("timm", cases, lambda case: watch(built, case))
    return Candidate(f"timm {_timm().__version__}, {dtype}", found, dtype, notes)
