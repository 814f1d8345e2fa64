"""The model's steps as fast kernels compute them: what the definitions give, up to rounding.

Sums run in another order, drawn with a seed. The scale is multiplied into the queries, a norm's
weight before its factor; exponentials are powers of two; attention goes through tiles of keys with
a running maximum.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from .. import ops
from ..backend import NUMPY, Backend
from ..ops import Array

__all__ = ["fused"]

_KEYS = 48  # in a tile
_LOG2_E = 1 / math.log(2)


def fused(seed: int) -> Backend:
    """NumPy, with every step in such a form and sums in an order of the seed's."""
    return replace(
        NUMPY,
        linear=partial(_linear, seed),
        patch_embed=partial(_patch_embed, seed),
        rms_norm=partial(_rms_norm, seed),
        silu=_silu,
        softmax=_softmax,
        attention_scores=partial(_attention_scores, seed),
        attention=_attention,
        l2_normalize=_l2_normalize,
    )


@lru_cache(maxsize=64)
def _order(seed: int, count: int) -> Array:
    """In which channels are summed."""
    return np.random.default_rng((seed, count)).permutation(count)


def _linear(seed: int, x: Array, weight: Array, bias: Array | None = None) -> Array:
    order = _order(seed, x.shape[-1])
    return ops.linear(x[..., order], weight[:, order], bias)


def _patch_embed(seed: int, pixels: Array, weight: Array, bias: Array) -> Array:
    rows = ops.cut_patches(pixels, weight.shape[-1])
    return _linear(seed, rows, weight.reshape(len(weight), -1), bias)


def _rms_norm(seed: int, x: Array, weight: Array, eps: float) -> Array:
    squares = np.square(x)[..., _order(seed, x.shape[-1])]
    return x * weight * (1 / np.sqrt(squares.mean(axis=-1, keepdims=True) + eps))


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x * (1 / (1 + np.exp2(x * x.dtype.type(-_LOG2_E))))


def _softmax(x: Array) -> Array:
    peak = x.max(axis=-1, keepdims=True)
    e = np.exp2((x - np.where(np.isneginf(peak), 0, peak)) * x.dtype.type(_LOG2_E))
    total = e.sum(axis=-1, keepdims=True)
    return e * (1 / np.where(total == 0, 1, total))


def _scores(q: Array, k: Array, first: int, causal: bool, key_mask: Array | None) -> Array:
    """Of scaled queries with some keys, those from the `first` on."""
    scores = q @ k.swapaxes(-1, -2)
    keys = np.arange(first, first + k.shape[2])
    if causal:
        scores = np.where(keys <= np.arange(q.shape[2])[:, None], scores, -np.inf)
    if key_mask is not None:
        scores = np.where(key_mask[:, None, None, keys], scores, -np.inf)
    return np.asarray(scores, q.dtype)


def _attention_scores(
    seed: int, q: Array, k: Array, *, causal: bool = False, key_mask: Array | None = None
) -> Array:
    order, scale = _order(seed, q.shape[-1]), q.dtype.type(1 / math.sqrt(q.shape[-1]))
    return _scores((q * scale)[..., order], k[..., order], 0, causal, key_mask)


def _attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, key_mask: Array | None = None
) -> Array:
    q = q * q.dtype.type(_LOG2_E / math.sqrt(q.shape[-1]))
    peak = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
    total, context = np.zeros_like(peak), np.zeros_like(q)
    for first in range(0, k.shape[2], _KEYS):
        tile = np.s_[:, :, first : first + _KEYS]
        scores = _scores(q, k[tile], first, causal, key_mask)
        highest = np.maximum(peak, scores.max(axis=-1, keepdims=True))
        base = np.where(np.isneginf(highest), 0, highest)
        e, fade = np.exp2(scores - base), np.exp2(peak - base)
        total = total * fade + e.sum(axis=-1, keepdims=True)
        context = context * fade + e @ v[tile]
        peak = highest
    return np.asarray(context / np.where(total == 0, 1, total), q.dtype)


def _l2_normalize(x: Array) -> Array:
    norm = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    return x * (1 / np.maximum(norm, x.dtype.type(1e-12)))
