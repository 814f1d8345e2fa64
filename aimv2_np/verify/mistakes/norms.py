"""RMSNorm, and where the norms stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...ops import Array
from ..lanes import rounded
from ..walk import Step, short
from . import mistake

_NORMS = ("*.norm_1", "*.norm_2", "*.patch_norm", "*.norm")
_EXACT = "x / sqrt(mean(x²) + 1e-5) * weight, over the channels of one token"


def before(s: Step) -> Array:
    """What a norm is applied to."""
    name = short(s.name)
    if name in ("patch_norm", "norm_2"):
        return s["patch_embed" if name == "patch_norm" else "resid_mid"]
    return s.x


def weight(s: Step) -> Array:
    """A norm's weight."""
    name = short(s.name)
    return getattr(s.p, "post_trunk_norm" if name == "norm" else name)


def _eps(s: Step) -> float:
    return float(s.encoder.config.rms_norm_eps)


@mistake(
    "rms-eps",
    *_NORMS,
    says="the norms add 1e-6 instead of 1e-5 to the mean square",
    remedy="rms_norm_eps is 1e-5 in every AIMv2 model",
    seen_in="ports, defaults of norm classes",
)
def rms_eps(s: Step) -> Any:
    """The default of many norm classes."""
    return ops.rms_norm(before(s), weight(s), 1e-6)


@mistake(
    "rms-eps-outside",
    *_NORMS,
    says="the norms add eps to the root instead of to the mean square",
    remedy=_EXACT,
)
def rms_eps_outside(s: Step) -> Any:
    """x / (sqrt(mean(x²)) + eps)."""
    x = before(s)
    return x / (np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True)) + _eps(s)) * weight(s)


@mistake(
    "rms-is-layernorm",
    *_NORMS,
    says="the norms are LayerNorms: they subtract the mean",
    remedy=f"RMSNorm subtracts nothing: {_EXACT}",
    seen_in="ports",
)
def rms_is_layernorm(s: Step) -> Any:
    """LayerNorm without a bias."""
    x = before(s)
    return ops.rms_norm(x - x.mean(axis=-1, keepdims=True), weight(s), _eps(s))


@mistake(
    "rms-plus-one",
    *_NORMS,
    says="the norms use their weight as 1 + weight",
    remedy="multiply by the weight as it is stored (1 + weight is Gemma's convention)",
    seen_in="ports",
)
def rms_plus_one(s: Step) -> Any:
    """Gemma's convention."""
    return ops.rms_norm(before(s), 1 + weight(s), _eps(s))


@mistake(
    "rms-no-weight",
    *_NORMS,
    says="the norms leave their weight out, or it was never loaded and is all ones",
    remedy="multiply by the checkpoint's norm weights",
)
def rms_no_weight(s: Step) -> Any:
    """A weight of ones."""
    return ops.rms_norm(before(s), np.ones_like(weight(s)), _eps(s))


@mistake(
    "rms-is-l2",
    *_NORMS,
    says="the norms divide by the vector's length, not by the root of its mean square",
    remedy=f"a factor sqrt(width) is missing: {_EXACT}",
)
def rms_is_l2(s: Step) -> Any:
    """Sum for mean."""
    x = before(s)
    return x / np.sqrt(np.square(x).sum(axis=-1, keepdims=True) + _eps(s)) * weight(s)


@mistake(
    "rms-all-tokens",
    *_NORMS,
    says="the norms take the mean square over all tokens of an image instead of over one token",
    remedy=f"the mean runs over the last axis only: {_EXACT}",
)
def rms_all_tokens(s: Step) -> Any:
    """One mean square for tokens and channels."""
    x = before(s)
    mean = np.square(x).mean(axis=(-2, -1), keepdims=True)
    return x / np.sqrt(mean + _eps(s)) * weight(s)


@mistake(
    "rms-rounding",
    *_NORMS,
    rough=True,
    says="the norms round their input, or the normalised vector, to bfloat16 before multiplying",
    remedy="compute the mean square and the quotient in float32, and round once at the end",
    seen_in="fused kernels",
)
def rms_rounding(s: Step) -> Any:
    """Rounded in the middle."""
    unit = ops.rms_norm(before(s), np.ones_like(weight(s)), _eps(s))
    return rounded(unit, "bfloat16") * weight(s)


@mistake(
    "norms-swapped",
    "*.norm_1",
    "*.norm_2",
    says="the weights of a block's two norms are exchanged",
    remedy="norm_1 stands before attention, norm_2 before the MLP",
)
def norms_swapped(s: Step) -> Any:
    """norm_1's weight for norm_2, and the other way round."""
    other = s.p.norm_2 if short(s.name) == "norm_1" else s.p.norm_1
    return ops.rms_norm(before(s), other, _eps(s))


@mistake(
    "no-norm-1",
    "*.norm_1",
    says="attention sees the residual stream without norm_1",
    remedy="x + attention(norm_1(x))",
)
def no_norm_1(s: Step) -> Any:
    """norm_1 left out."""
    return s.x


@mistake(
    "no-norm-2",
    "*.norm_2",
    says="the MLP sees the residual stream without norm_2",
    remedy="x + mlp(norm_2(x))",
)
def no_norm_2(s: Step) -> Any:
    """norm_2 left out."""
    return s["resid_mid"]


@mistake(
    "post-norm",
    "*.blocks.*.norm_1",
    "*.blocks.*.resid_mid",
    "*.blocks.*.norm_2",
    "*.blocks.*.resid_post",
    says="the norms stand after the residual additions (post-norm)",
    remedy="AIMv2 is pre-norm: x + attention(norm_1(x)), then x + mlp(norm_2(x))",
)
def post_norm(s: Step) -> Any:
    """norm(x + f(x)), as in the first transformers."""
    name = short(s.name)
    if name == "norm_1":
        return s.x
    if name == "resid_mid":
        return ops.rms_norm(s.value, s.p.norm_1, _eps(s))
    if name == "norm_2":
        return s["resid_mid"]
    return ops.rms_norm(s.value, s.p.norm_2, _eps(s))


@mistake(
    "residual-normed",
    "*.blocks.*.resid_mid",
    "*.blocks.*.resid_post",
    says="the residual additions start from the normed stream instead of the stream itself",
    remedy="x + attention(norm_1(x)): the first x is not normed",
)
def residual_normed(s: Step) -> Any:
    """norm(x) + f(norm(x))."""
    if short(s.name) == "resid_mid":
        return s["norm_1"] + s["attn.out"]
    return s["norm_2"] + s["mlp.out"]


@mistake(
    "no-final-norm",
    "*.norm",
    says="the features are taken before the final norm (post_trunk_norm)",
    remedy="apply post_trunk_norm after the last block: features and pooling come after it",
    seen_in="Ovis2, vLLM",
)
def no_final_norm(s: Step) -> Any:
    """The residual stream itself."""
    return s.x


@mistake(
    "no-patch-norm",
    "vision.patch_norm",
    says="the RMSNorm after the patch embedding is missing",
    remedy="embed = patch_norm(patch_embed(pixels)) + positions",
    seen_in="ports",
)
def no_patch_norm(s: Step) -> Any:
    """Straight to the positions."""
    return s["patch_embed"]


@mistake(
    "pos-before-norm",
    "vision.patch_norm",
    "vision.embed",
    says="the positions are added before the patch norm instead of after it",
    remedy="embed = patch_norm(patch_embed(pixels)) + positions",
    seen_in="ports",
)
def pos_before_norm(s: Step) -> Any:
    """norm(patches + positions)."""
    if short(s.name) == "patch_norm":
        return s.value
    return ops.rms_norm(s["patch_embed"] + s["pos_embed"], s.p.patch_norm, _eps(s))
