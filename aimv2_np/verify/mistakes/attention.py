"""Attention: how q, k, v are split into heads, what is scaled, who sees whom."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...layers import merge_heads, split_heads
from ...ops import Array
from ..lanes import rounded
from ..walk import Step, short
from . import mistake

_HEADS = "head h owns the channels h·E to (h+1)·E of q, of k and of v"
_QKV = ("*.attn.q", "*.attn.k", "*.attn.v")


def which(s: Step) -> int:
    """Of q, k and v, 0 to 2."""
    return "qkv".index(s.name[-1])


def projected(s: Step, weight: Array) -> Array:
    """One of q, k, v by another matrix."""
    return split_heads(ops.linear(s["norm_1"], weight), s.heads)


# ---------------------------------------------------------------------------- heads


@mistake(
    "qkv-interleaved",
    *_QKV,
    says="the rows of the qkv matrix are taken head by head: q, k, v of head 0, then of head 1",
    remedy="the first third of the rows is q, the second k, the last v; then split into heads",
    seen_in="ports",
)
def qkv_interleaved(s: Step) -> Any:
    """(H, 3, E) for (3, H, E)."""
    whole = np.concatenate(s.p.qkv)  # (3·D, D)
    rows = whole.reshape(s.heads, 3, -1, whole.shape[1])[:, which(s)]
    return projected(s, rows.reshape(-1, whole.shape[1]))


@mistake(
    "qkv-minor",
    *_QKV,
    says="q, k and v alternate along the rows of the qkv matrix: channel by channel",
    remedy="the first third of the rows is q, the second k, the last v; then split into heads",
)
def qkv_minor(s: Step) -> Any:
    """(D, 3) for (3, D)."""
    return projected(s, np.concatenate(s.p.qkv)[which(s) :: 3])


@mistake(
    "qk-swapped",
    "*.attn.q",
    "*.attn.k",
    says="q and k are exchanged",
    remedy="the qkv matrix holds q, then k, then v",
)
def qk_swapped(s: Step) -> Any:
    """k for q, q for k: the scores are transposed."""
    return projected(s, s.p.qkv[1 - which(s)])


@mistake(
    "kv-swapped",
    "*.attn.k",
    "*.attn.v",
    says="k and v are exchanged",
    remedy="the qkv matrix holds q, then k, then v",
)
def kv_swapped(s: Step) -> Any:
    """v for k, k for v."""
    return projected(s, s.p.qkv[3 - which(s)])


@mistake(
    "qv-swapped",
    "*.attn.q",
    "*.attn.v",
    says="q and v are exchanged",
    remedy="the qkv matrix holds q, then k, then v",
)
def qv_swapped(s: Step) -> Any:
    """v for q, q for v."""
    return projected(s, s.p.qkv[2 - which(s)])


@mistake(
    "head-dim-64",
    *_QKV,
    says="heads are 64 wide",
    remedy="AIMv2's heads are 128 wide (num_attention_heads of the config): "
    "twice as many heads, each with half the width, are another model",
    seen_in="ports",
)
def head_dim_64(s: Step) -> Any:
    """Twice as many heads."""
    width = merge_heads(s.value).shape[-1]
    wide = 64 if width // s.heads == 128 else width // s.heads // 2
    return split_heads(merge_heads(s.value), width // max(wide, 1))


@mistake(
    "heads-halved",
    *_QKV,
    says="there are half as many heads, each twice as wide",
    remedy="take num_attention_heads from the config",
)
def heads_halved(s: Step) -> Any:
    """Half as many heads."""
    return split_heads(merge_heads(s.value), max(s.heads // 2, 1))


@mistake(
    "heads-one",
    *_QKV,
    says="there is only one head",
    remedy="take num_attention_heads from the config",
)
def heads_one(s: Step) -> Any:
    """One head of the whole width."""
    return split_heads(merge_heads(s.value), 1)


@mistake(
    "heads-interleaved",
    *_QKV,
    says="channel c is given to head c mod H",
    remedy=_HEADS,
)
def heads_interleaved(s: Step) -> Any:
    """(E, H) for (H, E)."""
    merged = merge_heads(s.value)
    return merged.reshape(*merged.shape[:2], -1, s.heads).transpose(0, 3, 1, 2)


def _unmerged(context: Array) -> Array:
    """The memory of (B, H, N, E) read as (B, N, D)."""
    batch, heads, tokens, width = context.shape
    return np.ascontiguousarray(context).reshape(batch, tokens, heads * width)


@mistake(
    "heads-not-merged",
    "*.attn.out",
    says="the heads' outputs are reshaped to the width without moving the head axis back",
    remedy="(B, H, N, E) → (B, N, H, E) → (B, N, H·E)",
)
def heads_not_merged(s: Step) -> Any:
    """Before the output projection."""
    return ops.linear(_unmerged(s["attn.context"]), s.p.proj)


@mistake(
    "context-not-merged",
    "*.attn.context",
    says="the heads' outputs, as given, were reshaped without moving the head axis back",
    remedy="(B, H, N, E) → (B, N, H, E) → (B, N, H·E)",
)
def context_not_merged(s: Step) -> Any:
    """The same, where the merged context itself can be seen."""
    return split_heads(_unmerged(s.value), s.heads)


@mistake(
    "heads-not-split",
    *_QKV,
    says="q, k and v are reshaped to heads without moving the head axis forward",
    remedy="(B, N, D) → (B, N, H, E) → (B, H, N, E)",
)
def heads_not_split(s: Step) -> Any:
    """The memory of (B, N, D) read as (B, H, N, E)."""
    return merge_heads(s.value).reshape(s.value.shape)


# ---------------------------------------------------------------------------- scores


@mistake(
    "scale-missing",
    "*.attn.scores",
    says="the scores are not divided by sqrt(head width)",
    remedy="q kᵀ / sqrt(E)",
    seen_in="ports",
)
def scale_missing(s: Step) -> Any:
    """q kᵀ."""
    return s.value * np.sqrt(s["attn.q"].shape[-1])


@mistake(
    "scale-width",
    "*.attn.scores",
    says="the scores are divided by sqrt(width) instead of sqrt(head width)",
    remedy="q kᵀ / sqrt(E), E = width / heads",
    seen_in="ports",
)
def scale_width(s: Step) -> Any:
    """1 / sqrt(D)."""
    return s.value / np.sqrt(s["attn.q"].shape[1])


@mistake(
    "scale-twice",
    "*.attn.scores",
    says="the scores are divided by sqrt(head width) twice",
    remedy="scale q or the scores, not both: q kᵀ / sqrt(E)",
)
def scale_twice(s: Step) -> Any:
    """1 / E."""
    return s.value / np.sqrt(s["attn.q"].shape[-1])


@mistake(
    "qk-norm",
    "*.attn.q",
    "*.attn.k",
    says="q and k are normalised head by head (QK norm)",
    remedy="AIMv2 has no QK norm",
)
def qk_norm(s: Step) -> Any:
    """RMSNorm without a weight over the head's width."""
    return ops.rms_norm(s.value, np.ones(s.value.shape[-1]), 1e-6)


@mistake(
    "softmax-queries",
    "*.attn.pattern",
    says="softmax runs over the queries instead of over the keys",
    remedy="softmax over the last axis of the scores (queries, keys)",
)
def softmax_queries(s: Step) -> Any:
    """Columns sum to 1; those of hidden keys are 0 / 0."""
    e = np.exp(s["attn.scores"] - s["attn.scores"].max(axis=-2, keepdims=True))
    return e / e.sum(axis=-2, keepdims=True)


@mistake(
    "softmax-missing",
    "*.attn.pattern",
    says="softmax is missing: the scores themselves are the weights",
    remedy="pattern = softmax(scores) over the keys",
)
def softmax_missing(s: Step) -> Any:
    """The scores, 0 where they are hidden."""
    return np.where(np.isneginf(s["attn.scores"]), 0, s["attn.scores"])


@mistake(
    "softmax-plus-one",
    "*.attn.pattern",
    says="softmax has a 1 more in its denominator",
    remedy="exp(x) / Σ exp(x)",
)
def softmax_plus_one(s: Step) -> Any:
    """Softmax with an extra key whose score is 0."""
    scores = s["attn.scores"]
    peak = np.maximum(scores.max(axis=-1, keepdims=True), 0)
    e = np.exp(scores - peak)
    return e / (e.sum(axis=-1, keepdims=True) + np.exp(-peak))


@mistake(
    "softmax-bf16",
    "*.attn.pattern",
    rough=True,
    says="softmax is computed in bfloat16",
    remedy="compute softmax in float32, then cast",
)
def softmax_bf16(s: Step) -> Any:
    """Scores and their weights, both rounded."""
    return rounded(ops.softmax(rounded(s["attn.scores"], "bfloat16")), "bfloat16")


@mistake(
    "vision-causal",
    "vision.blocks.*.attn.scores",
    says="the vision encoder is causal: a patch sees only those before it",
    remedy="the released vision encoders look at all patches: no mask",
)
def vision_causal(s: Step) -> Any:
    """The mask of autoregressive pre-training."""
    return np.where(np.tri(s.value.shape[-1], dtype=bool), s.value, -np.inf)


@mistake(
    "pattern-transposed",
    "*.attn.pattern",
    says="the attention weights are transposed before they meet the values",
    remedy="context = pattern @ v, pattern (queries, keys)",
)
def pattern_transposed(s: Step) -> Any:
    """Keys for queries."""
    return s.value.swapaxes(-1, -2)


# ---------------------------------------------------------------------------- the way out


@mistake(
    "no-proj",
    "*.attn.out",
    says="the output projection of attention is missing",
    remedy="attention ends in a linear map, attn.proj",
)
def no_proj(s: Step) -> Any:
    """The context itself."""
    return merge_heads(s["attn.context"])


@mistake(
    "no-attention-residual",
    "*.resid_mid",
    says="the residual connection around attention is missing",
    remedy="x = x + attention(norm_1(x))",
)
def no_attention_residual(s: Step) -> Any:
    """f(x) for x + f(x)."""
    return s["attn.out"]


@mistake(
    "no-attention",
    "*.resid_mid",
    says="attention is not added to the residual stream",
    remedy="x = x + attention(norm_1(x))",
)
def attention_left_out(s: Step) -> Any:
    """x for x + f(x)."""
    assert short(s.name) == "resid_mid"
    return s.x
