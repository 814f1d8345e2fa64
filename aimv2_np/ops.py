"""The mathematics of AIMv2: pure functions on NumPy arrays.

This file is the definition; every backend is judged by it. Functions keep the dtype they are given
(float32 or float64) and accumulate in it. Axis letters, here and in the whole package:

    B batch   N patches   T text tokens   D width   H heads   E head width (D/H)   F MLP hidden
    P patch side   C channels   Y, X image rows, columns   I, O inputs, outputs of a linear map
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # NumPy's here; in layers and models the backend's


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x Wᵀ + b`: (..., I) and (O, I) give (..., O)."""
    y = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """`w · x / sqrt(mean(x²) + eps)` over the last axis (arXiv 1910.07467).

    No mean is subtracted, and the weight is used as it is, not as 1 + w.
    """
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight


def silu(x: Array) -> Array:
    """`x · sigmoid(x)`, elementwise."""
    with np.errstate(over="ignore"):  # exp(-x) may reach infinity; x / inf = 0 is then the limit
        return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """`exp(x) / Σ exp(x)` over the last axis; a row that is -inf throughout gives zeros."""
    peak = np.max(x, axis=-1, keepdims=True)
    peak = np.where(np.isneginf(peak), x.dtype.type(0), peak)
    e = np.exp(x - peak)  # the row maximum is subtracted so that exp cannot overflow
    total = np.sum(e, axis=-1, keepdims=True)
    return e / np.where(total == 0, x.dtype.type(1), total)


def attention_scores(
    q: Array, k: Array, *, causal: bool = False, key_mask: Array | None = None
) -> Array:
    """`q kᵀ / sqrt(E)`, -inf where a query may not look: q (B, H, N, E), k (B, H, M, E).

    `causal`: query i sees keys 0 to i only. `key_mask`: (B, M), False for keys that nobody sees.
    Returns (B, H, N, M).
    """
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], dtype=bool)), scores, -np.inf)
    if key_mask is not None:
        scores = np.where(key_mask[:, None, None, :], scores, -np.inf)
    return scores.astype(q.dtype, copy=False)


def attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, key_mask: Array | None = None
) -> Array:
    """`softmax(attention_scores) v`: v (B, H, M, E), the result (B, H, N, E).

    One head of one image at a time: the scores then take N·M numbers, not B·H·N·M.
    """
    context = np.empty_like(q)
    for b, h in np.ndindex(q.shape[:2]):
        one = np.s_[b : b + 1, h : h + 1]
        mask = None if key_mask is None else key_mask[b : b + 1]
        scores = attention_scores(q[one], k[one], causal=causal, key_mask=mask)
        context[one] = softmax(scores) @ v[one]
    return context


def l2_normalize(x: Array) -> Array:
    """`x / max(‖x‖, 1e-12)` over the last axis; 1e-12 is torch's F.normalize."""
    norm = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))
    return x / np.maximum(norm, x.dtype.type(1e-12))


def normalize(image: Array, values: Array) -> Array:
    """Bytes (..., Y, X, C) to pixels (..., C, Y, X): `values` (C, 256), what each stands for."""
    return np.stack([values[c][image[..., c]] for c in range(len(values))], axis=-3)


def cut_patches(pixels: Array, patch: int) -> Array:
    """Pixels (B, C, Y, X) as one row per patch, (B, N, C·P·P), row by row.

    Pixels beyond the last whole patch are left out, as a convolution leaves them.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    pixels = pixels[:, :, : rows * patch, : columns * patch]
    tiles = pixels.reshape(batch, channels, rows, patch, columns, patch)
    return tiles.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def patch_embed(pixels: Array, weight: Array, bias: Array) -> Array:
    """A convolution whose kernel and stride are one patch, as a matrix product.

    pixels (B, C, Y, X), weight (D, C, P, P), bias (D,) to (B, N, D) (aim/v1 PatchEmbed).
    """
    return linear(cut_patches(pixels, weight.shape[-1]), weight.reshape(len(weight), -1), bias)


def embed_tokens(input_ids: Array, table: Array) -> Array:
    """Look up one row per token: ids (B, T), table (V, D) to (B, T, D)."""
    return table[input_ids]


def sincos_positions(rows: int, columns: int, width: int, dtype: Any) -> Array:
    """2-D sine/cosine positions of a grid, (rows·columns, D), laid out [sin x|cos x|sin y|cos y].

    The angle is coordinate / 10000^(i / (D/4)), i below D/4, computed in float64.
    Trap: x, the column, comes first; the original's `emb_h` holds the column
    (aim/v1 get_2d_sincos_pos_embed, after ViT-MAE).
    """
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    x, y = (np.outer(np.arange(count), frequency) for count in (columns, rows))
    grid = np.empty((rows, columns, 4, width // 4), dtype)
    grid[:, :, 0], grid[:, :, 1] = np.sin(x), np.cos(x)
    grid[:, :, 2], grid[:, :, 3] = np.sin(y)[:, None], np.cos(y)[:, None]
    return grid.reshape(rows * columns, width)


def resample_positions(table: Array, rows: int, columns: int) -> Array:
    """A learned square table (N, D) resampled to another grid, (rows·columns, D).

    Convention: separable bicubic with a = -0.5, pixel centres at i + 0.5 (`align_corners=False`),
    widened when shrinking (antialias), each row of weights normalised: that of Pillow, of timm's
    `resample_abs_pos_embed` and of torch's `interpolate(mode="bicubic", antialias=True)`.
    """
    side = math.isqrt(len(table))
    grid = table.reshape(side, side, -1)
    down, across = _bicubic(side, rows), _bicubic(side, columns)
    grid = np.einsum("ri,cj,ijd->rcd", down, across, grid, optimize=True)
    return grid.reshape(rows * columns, -1).astype(table.dtype)


def _bicubic(old: int, new: int) -> Array:
    """The (new, old) matrix of a 1-D bicubic resampling (Keys' kernel with a = -0.5)."""
    scale = old / new
    centre = (np.arange(new)[:, None] + 0.5) * scale
    t = np.abs(np.arange(old) + 0.5 - centre) / max(scale, 1.0)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
