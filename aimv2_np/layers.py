"""The layers of AIMv2, written once in terms of a backend's ops (`be`).

Each function takes a `tap`, which is shown every named activation; the names are the package's
public interface (trace.py). `sees` is what attention may see: `causal` and `key_mask`, as in
`ops.attention_scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

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


def sequences(x: Array, lengths: Sequence[int]) -> list[Array]:
    """The sequences that lie in (1, ΣN, D) one after another, each (1, N_i, D)."""
    ends = accumulate(lengths)
    return [x[:, end - length : end] for length, end in zip(lengths, ends, strict=True)]


def attend(be: Backend, q: Array, k: Array, v: Array, *, tap: Tap = NO_TAP, **sees: Any) -> Array:
    """Scaled dot-product attention; all scores exist at once only for a tap that wants them."""
    if tap.wants("scores") or tap.wants("pattern"):
        scores = tap("scores", be.attention_scores(q, k, **sees))
        context = tap("pattern", be.softmax(scores)) @ v  # (B, H, N, M) @ (B, H, M, E)
    else:
        context = be.attention(q, k, v, **sees)
    return tap("context", context)


def self_attention(
    be: Backend, x: Array, p: BlockParams, heads: int, *, tap: Tap = NO_TAP, **sees: Any
) -> Array:
    """Multi-head self-attention without biases (aim/v1 Attention): (B, N, D) to (B, N, D)."""
    q, k, v = (
        tap(name, split_heads(be.linear(x, weight), heads))  # (B, H, N, E)
        for name, weight in zip("qkv", p.qkv, strict=True)
    )
    context = attend(be, q, k, v, tap=tap, **sees)
    return tap("out", be.linear(merge_heads(context), p.proj))


def swiglu_mlp(be: Backend, x: Array, p: BlockParams, tap: Tap = NO_TAP) -> Array:
    """`fc2(silu(fc1 x) · fc3 x)` (arXiv 2002.05202): fc1 is the gate, fc3 goes up, fc2 down."""
    gate = tap("gate", be.linear(x, p.fc1))  # (B, N, F)
    up = tap("up", be.linear(x, p.fc3))
    hidden = tap("hidden", be.silu(gate) * up)
    return tap("out", be.linear(hidden, p.fc2))


def block(
    be: Backend, x: Array, p: BlockParams, heads: int, eps: float, *, tap: Tap = NO_TAP, **sees: Any
) -> Array:
    """One pre-norm transformer block (aim/v1 Block): (B, N, D) to (B, N, D)."""
    normed = tap("norm_1", be.rms_norm(x, p.norm_1, eps))
    attended = self_attention(be, normed, p, heads, tap=tap.scope("attn."), **sees)
    x = tap("resid_mid", x + attended)
    normed = tap("norm_2", be.rms_norm(x, p.norm_2, eps))
    return tap("resid_post", x + swiglu_mlp(be, normed, p, tap.scope("mlp.")))


def transformer(
    be: Backend,
    x: Array,
    blocks: Blocks,
    heads: int,
    eps: float,
    *,
    lengths: Sequence[int] | None = None,
    tap: Tap = NO_TAP,
    **sees: Any,
) -> Array:
    """All blocks, each in the backend's own form, or composed where a tap must see inside.

    With `lengths`, x is (1, ΣN, D): sequences one after another, of which each sees itself alone
    and gets, to the last bit, what it gets in a call of its own. No tap, no `key_mask` then.
    """
    if lengths is not None:
        alone = (be.transformer(be, s, blocks, heads, eps, **sees) for s in sequences(x, lengths))
        return be.concatenate(list(alone), axis=1)
    one = be.block if tap is NO_TAP else block
    for i, p in enumerate(blocks):
        x = one(be, x, p, heads, eps, tap=tap.scope(f"blocks.{i}."), **sees)
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
    query = be.broadcast_to(query, (*k.shape[:2], 1, k.shape[-1]))
    context = merge_heads(attend(be, query, k, v, tap=head))[:, 0]  # (B, D)
    return tap("pooled", be.linear(context, p.linear_weight, p.linear_bias))
