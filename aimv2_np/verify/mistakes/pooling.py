"""The pooling head of the image encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...layers import merge_heads, split_heads
from ...ops import Array
from ..walk import Step
from . import mistake

_RIGHT = "the query cls_token attends over k(x), v(x) of the normed features; then linear"


def _out(s: Step, context: Array) -> Array:
    return ops.linear(context, s.p.head.linear_weight, s.p.head.linear_bias)


@mistake(
    "pool-mean",
    "vision.pooled",
    says="the image feature is the mean of the patches instead of the pooling head's",
    remedy=_RIGHT,
    seen_in="ports",
)
def pool_mean(s: Step) -> Any:
    """The mean over patches."""
    return s["norm"].mean(axis=1)


@mistake(
    "pool-first",
    "vision.pooled",
    says="the image feature is the first patch's, as if it were a class token",
    remedy=f"there is no class token in the trunk: {_RIGHT}",
)
def pool_first(s: Step) -> Any:
    """Token 0."""
    return s["norm"][:, 0]


@mistake(
    "pool-max",
    "vision.pooled",
    says="the image feature is the maximum over the patches",
    remedy=_RIGHT,
)
def pool_max(s: Step) -> Any:
    """The maximum over patches."""
    return s["norm"].max(axis=1)


@mistake(
    "pool-q-proj",
    "vision.head.scores",
    says="the pooling head's query is projected (here by k's matrix)",
    remedy=f"there is no query projection: {_RIGHT}",
    seen_in="ports",
)
def pool_q_proj(s: Step) -> Any:
    """k(cls_token) as the query."""
    k = s["head.k"]
    query = split_heads(ops.linear(s.p.head.cls_token[None, None], s.p.head.k), s.heads)
    return ops.attention_scores(np.broadcast_to(query, (*k.shape[:2], 1, k.shape[-1])), k)


@mistake(
    "pool-scale-missing",
    "vision.head.scores",
    says="the pooling head's scores are not divided by sqrt(head width)",
    remedy="q kᵀ / sqrt(E), in the pooling head, too",
)
def pool_scale_missing(s: Step) -> Any:
    """q kᵀ."""
    return s.value * np.sqrt(s["head.k"].shape[-1])


@mistake(
    "pool-scale-width",
    "vision.head.scores",
    says="the pooling head's scores are divided by sqrt(width) instead of sqrt(head width)",
    remedy="q kᵀ / sqrt(E), E = width / heads",
)
def pool_scale_width(s: Step) -> Any:
    """1 / sqrt(D)."""
    return s.value / np.sqrt(s["head.k"].shape[1])


@mistake(
    "pool-kv-swapped",
    "vision.head.k",
    "vision.head.v",
    says="the pooling head's k and v are exchanged",
    remedy="head.k makes keys, head.v values",
)
def pool_kv_swapped(s: Step) -> Any:
    """v for k, k for v."""
    weight = s.p.head.v if s.name.endswith("k") else s.p.head.k
    return split_heads(ops.linear(s["norm"], weight), s.heads)


@mistake(
    "pool-before-norm",
    "vision.head.k",
    "vision.head.v",
    says="the pooling head looks at the residual stream before the final norm",
    remedy=_RIGHT,
)
def pool_before_norm(s: Step) -> Any:
    """k and v of what the norm has not seen."""
    weight = s.p.head.k if s.name.endswith("k") else s.p.head.v
    return split_heads(ops.linear(s.x, weight), s.heads)


@mistake(
    "pool-no-bias",
    "vision.pooled",
    says="the pooling head's last layer lacks its bias",
    remedy="pooled = linear(context) + bias",
)
def pool_no_bias(s: Step) -> Any:
    """W x."""
    return s.value - s.p.head.linear_bias


@mistake(
    "pool-no-linear",
    "vision.pooled",
    says="the pooling head's last layer is missing",
    remedy="pooled = linear(context) + bias",
)
def pool_no_linear(s: Step) -> Any:
    """The context itself."""
    return merge_heads(s["head.context"])[:, 0]


@mistake(
    "pool-query-residual",
    "vision.pooled",
    says="the pooling head adds its query to what it found",
    remedy=_RIGHT,
)
def pool_query_residual(s: Step) -> Any:
    """A residual connection around the head's attention."""
    return _out(s, merge_heads(s["head.context"])[:, 0] + s.p.head.cls_token)
