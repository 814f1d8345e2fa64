"""The layers of AIMv2, written once in terms of a backend's ops (`be`).

Each function takes a `tap`, which is shown every named activation; the names are the package's
public interface (trace.py). `causal` and `key_mask` say what attention may see, as in
`ops.attention_scores`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ops import Array
from .trace import NO_TAP, Tap

if TYPE_CHECKING:
    from .backend import Backend
    from .weights.tree import BlockParams, Blocks, HeadParams


def split_heads(x: Array, heads: int) -> Array:
    """(B, N, D) to (B, H, N, E): head h owns the channels h·E to (h+1)·E."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """(B, H, N, E) to (B, N, D)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attend(
    be: Backend,
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    key_mask: Array | None = None,
    tap: Tap = NO_TAP,
) -> Array:
    """Scaled dot-product attention; all scores exist at once only for a tap that wants them."""
    if tap.wants("scores") or tap.wants("pattern"):
        scores = tap("scores", be.attention_scores(q, k, causal=causal, key_mask=key_mask))
        context = tap("pattern", be.softmax(scores)) @ v  # (B, H, N, M) @ (B, H, M, E)
    else:
        context = be.attention(q, k, v, causal=causal, key_mask=key_mask)
    return tap("context", context)


def self_attention(
    be: Backend,
    x: Array,
    p: BlockParams,
    heads: int,
    *,
    causal: bool = False,
    key_mask: Array | None = None,
    tap: Tap = NO_TAP,
) -> Array:
    """Multi-head self-attention without biases (aim/v1 Attention): (B, N, D) to (B, N, D)."""
    q, k, v = (
        tap(name, split_heads(be.linear(x, weight), heads))  # (B, H, N, E)
        for name, weight in zip("qkv", p.qkv, strict=True)
    )
    context = attend(be, q, k, v, causal=causal, key_mask=key_mask, tap=tap)
    return tap("out", be.linear(merge_heads(context), p.proj))


def swiglu_mlp(be: Backend, x: Array, p: BlockParams, tap: Tap = NO_TAP) -> Array:
    """`fc2(silu(fc1 x) · fc3 x)` (arXiv 2002.05202): fc1 is the gate, fc3 goes up, fc2 down."""
    gate = tap("gate", be.linear(x, p.fc1))  # (B, N, F)
    up = tap("up", be.linear(x, p.fc3))
    hidden = tap("hidden", be.silu(gate) * up)
    return tap("out", be.linear(hidden, p.fc2))


def block(
    be: Backend,
    x: Array,
    p: BlockParams,
    heads: int,
    eps: float,
    *,
    causal: bool = False,
    key_mask: Array | None = None,
    tap: Tap = NO_TAP,
) -> Array:
    """One pre-norm transformer block (aim/v1 Block): (B, N, D) to (B, N, D)."""
    normed = tap("norm_1", be.rms_norm(x, p.norm_1, eps))
    attn = tap.scope("attn.")
    x = x + self_attention(be, normed, p, heads, causal=causal, key_mask=key_mask, tap=attn)
    normed = tap("norm_2", be.rms_norm(tap("resid_mid", x), p.norm_2, eps))
    return tap("resid_post", x + swiglu_mlp(be, normed, p, tap.scope("mlp.")))


def transformer(
    be: Backend,
    x: Array,
    blocks: Blocks,
    heads: int,
    eps: float,
    *,
    causal: bool = False,
    key_mask: Array | None = None,
    tap: Tap = NO_TAP,
) -> Array:
    """All blocks, each in the backend's own form, or composed where a tap must see inside."""
    for i, p in enumerate(blocks):
        if tap is NO_TAP:
            x = be.block(be, x, p, heads, eps, causal=causal, key_mask=key_mask)
        else:
            inner = tap.scope(f"blocks.{i}.")
            x = block(be, x, p, heads, eps, causal=causal, key_mask=key_mask, tap=inner)
    return x


def attention_pool(be: Backend, x: Array, p: HeadParams, heads: int, tap: Tap = NO_TAP) -> Array:
    """The pooling head: one learned query looks at all patches; (B, N, D) to (B, D).

    The query is `cls_token` itself: there is no query projection
    (aim/v1 AttentionPoolingClassifier).
    """
    head = tap.scope("head.")
    k = head("k", split_heads(be.linear(x, p.k), heads))  # (B, H, N, E)
    v = head("v", split_heads(be.linear(x, p.v), heads))
    query = split_heads(p.cls_token[None, None, :], heads)  # (1, H, 1, E)
    query = np.broadcast_to(query, (*k.shape[:2], 1, k.shape[-1]))
    context = merge_heads(attend(be, query, k, v, tap=head))[:, 0]  # (B, D)
    return tap("pooled", be.linear(context, p.linear_weight, p.linear_bias))
