"""What joins images and texts: projections, normalisation, temperature."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...ops import Array
from ..walk import Step
from . import mistake

_SCALE = "logit_scale = exp(clamp(log_logit_scale, 0, ln 100))"


def _projector(s: Step, other: bool = False) -> Array:
    image = s.name.startswith("image") != other
    return s.p.image_projector if image else s.p.text_projector


def _pooled(s: Step) -> Array:
    return s.before["vision.pooled" if s.name.startswith("image") else "text.pooled"]


@mistake(
    "projection-transposed",
    "image_features",
    "text_features",
    says="the projection into the shared space is transposed",
    remedy="features = pooled @ Wᵀ, W stored (out, in)",
)
def projection_transposed(s: Step) -> Any:
    """W for Wᵀ; only a square one can be."""
    weight = _projector(s)
    return _pooled(s) @ weight if weight.shape[0] == weight.shape[1] else s.value


@mistake(
    "projection-missing",
    "image_features",
    "text_features",
    says="the projection into the shared space is missing",
    remedy="features = pooled @ projectorᵀ",
)
def projection_missing(s: Step) -> Any:
    """The pooled features themselves."""
    return _pooled(s)


@mistake(
    "projectors-swapped",
    "image_features",
    "text_features",
    says="the projections of images and texts are exchanged",
    remedy="image_projector for images, text_projector for texts",
)
def projectors_swapped(s: Step) -> Any:
    """Each other's, where the widths allow it."""
    weight = _projector(s, other=True)
    return ops.linear(_pooled(s), weight) if weight.shape == _projector(s).shape else s.value


@mistake(
    "projection-dim",
    "image_features",
    "text_features",
    says="the shared space is too narrow: only its first 512 channels are computed",
    remedy="projection_dim is 768 in the official checkpoint; transformers' class default is 512",
    seen_in="transformers, community checkpoints",
)
def projection_dim(s: Step) -> Any:
    """Channels cut off."""
    return s.value[..., : 512 if s.value.shape[-1] > 512 else s.value.shape[-1] // 3 * 2]


@mistake(
    "projection-normed",
    "image_features",
    "text_features",
    says="the pooled features are normalised before the projection",
    remedy="project, then normalise",
)
def projection_normed(s: Step) -> Any:
    """Only the length differs: the embeddings are the same."""
    return ops.linear(ops.l2_normalize(_pooled(s)), _projector(s))


@mistake(
    "l2-missing",
    "image_embeds",
    "text_embeds",
    says="the embeddings are not normalised",
    remedy="divide each vector by its length before the product",
)
def l2_missing(s: Step) -> Any:
    """The features themselves."""
    return s[s.name.replace("embeds", "features")]


@mistake(
    "l2-batch",
    "image_embeds",
    "text_embeds",
    says="the embeddings are normalised over the batch instead of over the channels",
    remedy="each vector has length 1: sum over the last axis",
)
def l2_batch(s: Step) -> Any:
    """Over the first axis."""
    features = s[s.name.replace("embeds", "features")]
    return features / np.sqrt(np.square(features).sum(axis=0, keepdims=True))


@mistake(
    "logit-scale-log",
    "logit_scale",
    says="the temperature is not exponentiated",
    remedy=_SCALE,
    seen_in="ports",
)
def logit_scale_log(s: Step) -> Any:
    """The stored logarithm."""
    return s.p.log_logit_scale


@mistake(
    "logit-scale-unclamped",
    "logit_scale",
    says="the temperature is not clamped",
    remedy=_SCALE,
    seen_in="ports",
)
def logit_scale_unclamped(s: Step) -> Any:
    """exp alone: differs where the stored logarithm is above ln 100."""
    return np.exp(s.p.log_logit_scale)


@mistake(
    "logit-scale-missing",
    "logit_scale",
    says="the logits are cosines: the temperature is missing",
    remedy=_SCALE,
)
def logit_scale_missing(s: Step) -> Any:
    """1."""
    return np.ones_like(s.value)


@mistake(
    "logit-scale-inverse",
    "logit_scale",
    says="the temperature is inverted: exp(-x) for exp(x)",
    remedy=_SCALE,
)
def logit_scale_inverse(s: Step) -> Any:
    """exp(-log_logit_scale)."""
    return 1 / s.value


@mistake(
    "logits-transposed",
    "logits_per_image",
    says="logits_per_image is (texts, images)",
    remedy="logits_per_image is (images, texts), logits_per_text its transpose",
)
def logits_transposed(s: Step) -> Any:
    """The other one."""
    return s.value.T


@mistake(
    "logits-softmax",
    "logits_per_image",
    says="the logits are probabilities already",
    remedy="logits are what softmax is applied to",
)
def logits_softmax(s: Step) -> Any:
    """After softmax over the texts."""
    return ops.softmax(s.value)
