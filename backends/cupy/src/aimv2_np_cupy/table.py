"""The backend's table: every op of aimv2_np in terms of a `Device`.

Coarse entries run our kernels and products with fused weights; the fine ones, which a trace runs,
are products, kernels, or float32 arithmetic of the array library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aimv2_np import layers
from aimv2_np.backend import NUMPY, Backend

from .device import STORED, Device, prefix, rows_of, stored
from .weights import Matrix, placed

__all__ = ["DTYPES", "table"]

Array = Any
DTYPES = tuple(STORED)
_THREADS = 256
_TENSOR_CORES = (64, 128)  # head widths of attention.cu
_QUERIES, _PLAIN_QUERIES = 64, 16  # of a block of attention.cu, and of attention_plain.cu
_WIDEST = 256  # head width of attention_plain.cu and pool.cu


def table(device: Device) -> Backend:
    """The backend for a device."""
    ops = Ops(device)
    return replace(
        NUMPY,
        name="cupy",
        dtypes=DTYPES,
        asarray=lambda host, dtype: device.asarray(host, STORED[dtype]),
        to_numpy=ops.to_numpy,
        concatenate=device.xp.concatenate,
        broadcast_to=device.xp.broadcast_to,
        prepare=ops.prepare,
        patch_embed=ops.patch_embed,
        embed_tokens=lambda ids, rows: rows[device.asarray(ids, np.int64)],
        rms_norm=ops.rms_norm,
        linear=ops.linear,
        silu=ops.in_float32(lambda xp, x: x / (1 + xp.exp(-x))),
        softmax=ops.in_float32(_softmax),
        attention_scores=ops.attention_scores,
        attention=ops.attention,
        l2_normalize=ops.in_float32(_l2_normalize),
        attention_pool=ops.attention_pool,
        transformer=ops.transformer,
    )


def _softmax(xp: Any, x: Array) -> Array:
    peak = x.max(axis=-1, keepdims=True)
    e = xp.exp(x - xp.where(xp.isneginf(peak), 0, peak))
    total = e.sum(axis=-1, keepdims=True)
    return e / xp.where(total == 0, 1, total)


def _l2_normalize(xp: Any, x: Array) -> Array:
    norm = xp.sqrt(xp.square(x).sum(axis=-1, keepdims=True))
    return x / xp.maximum(norm, np.float32(1e-12))


class Ops:
    """The ops of one device."""

    def __init__(self, device: Device) -> None:
        self.device, self.xp = device, device.xp

    def prepare(self, params: Any, dtype: str) -> Any:
        """Parameters uploaded in a dtype, those that are multiplied together fused."""
        kept = STORED[dtype]
        return placed(params, lambda array: self.device.asarray(array, kept), dtype == "tf32")

    def to_numpy(self, x: Array) -> Any:
        """In float32, or float16 if that is what it is."""
        host = self.device.to_numpy(x)
        return host.astype(np.float32) if host.dtype == STORED["bfloat16"] else host

    def in_float32(self, function: Any) -> Any:
        """An op by the array library, computed in float32."""

        def op(x: Array) -> Array:
            return function(self.xp, x.astype(np.float32)).astype(x.dtype)

        return op

    # ------------------------------------------------------------------------ products

    def product(self, x: Array, weight: Matrix, out: Array | None = None) -> Array:
        """`x weightᵀ` of rows; added to `out` if that is given."""
        x = self.xp.ascontiguousarray(x.astype(weight.array.dtype, copy=False))
        add = out is not None
        if out is None:
            out = self.xp.empty((len(x), len(weight.array)), x.dtype)
        if len(x):
            self.device.multiply(x, weight.array, out, add=add, tf32=weight.tf32)
        return out

    def linear(self, x: Array, weight: Matrix | Array, bias: Array | None = None) -> Array:
        """ops.linear: (..., I) to (..., O). Logits are products of activations: never in tf32."""
        if not isinstance(weight, Matrix):
            weight = Matrix(self.xp.ascontiguousarray(weight), tf32=False)
        out, shape = None, (*x.shape[:-1], len(weight.array))
        if bias is not None:
            rows = math.prod(shape[:-1])
            out = self.xp.array(self.xp.broadcast_to(bias, (rows, shape[-1])), order="C")
        return self.product(rows_of(x), weight, out).reshape(shape)

    def patch_embed(self, pixels: Array, weight: Matrix, bias: Array) -> Array:
        """ops.patch_embed: (B, C, Y, X) to (B, N, D)."""
        batch, channels, height, width = pixels.shape
        kept, inner = weight.array.dtype, weight.array.shape[1]
        patch = math.isqrt(inner // channels)
        count = (height // patch) * (width // patch)
        rows = self.xp.empty((batch * count, inner), kept)
        given = self.xp.ascontiguousarray(pixels.astype(np.float32, copy=False))
        self.device.launch("patchify", stored(rows), (len(rows),), _THREADS,
                           given, rows, channels, height, width, patch)  # fmt: skip
        return self.linear(rows, weight, bias).reshape(batch, count, -1)

    # ------------------------------------------------------------------------ kernels

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """ops.rms_norm: (..., D) to (..., D)."""
        x = self.xp.ascontiguousarray(x)
        out, rows = self.xp.empty_like(x), rows_of(x)
        if len(rows):
            self.device.launch("rms_norm", stored(x), (len(rows),), _THREADS,
                               x, weight, out, rows.shape[1], float(eps))  # fmt: skip
        return out

    def gated(self, gate_up: Array) -> Array:
        """silu(gate) · up of rows that hold both, (R, 2 F) to (R, F)."""
        rows, hidden = len(gate_up), gate_up.shape[1] // 2
        out = self.xp.empty((rows, hidden), gate_up.dtype)
        self.device.launch("swiglu", stored(out), (rows,), _THREADS, gate_up, out, hidden)
        return out

    def attend(self, qkv: Array, heads: int, lengths: Sequence[int], causal: bool) -> Array:
        """Attention of packed sequences, (ΣN, 3 D) to (ΣN, D); each sees itself alone."""
        tokens, width = qkv.shape[0], qkv.shape[1] // 3
        head, out = width // heads, self.xp.empty((tokens, width), qkv.dtype)
        starts = self.device.asarray(prefix(lengths), np.int32)
        parts = (qkv[:, i * width :] for i in range(3))
        args = (*parts, out, starts, np.int64(3 * width), np.int64(head), int(causal))
        on_tensor_cores = qkv.dtype.itemsize == 2 and head in _TENSOR_CORES
        queries = _QUERIES if on_tensor_cores else _PLAIN_QUERIES
        grid = (-(-max(lengths) // queries), heads, len(lengths))
        if on_tensor_cores:
            self.device.launch(f"attention_{head}", stored(qkv), grid, 128, *args)
        else:
            self.device.launch("attention_plain", stored(qkv), grid, 128, *args, head)
        return out

    def transformer(
        self, be: Backend, x: Array, blocks: Sequence[Any], heads: int, eps: float, *,
        lengths: Sequence[int] | None = None, causal: bool = False, key_mask: Any = None,
    ) -> Array:  # fmt: skip
        """layers.transformer, with fused products and attention over packed sequences."""
        if key_mask is not None or x.shape[-1] // heads > _WIDEST:
            how: dict[str, Any] = {"lengths": lengths, "causal": causal, "key_mask": key_mask}
            return layers.transformer(be, x, blocks, heads, eps, **how)
        batch, tokens, width = x.shape
        each = [tokens] * batch if lengths is None else list(lengths)
        stream = self.xp.array(x.reshape(-1, width))  # its own: it is added to
        for p in blocks:
            normed = self.rms_norm(stream, p.norm_1, eps)
            context = self.attend(self.product(normed, p.fused_qkv), heads, each, causal)
            self.product(context, p.proj, stream)
            normed = self.rms_norm(stream, p.norm_2, eps)
            self.product(self.gated(self.product(normed, p.fused_gate_up)), p.fc2, stream)
        return stream.reshape(batch, tokens, width)

    def attention_pool(self, be: Backend, x: Array, p: Any, heads: int, **traced: Any) -> Array:
        """layers.attention_pool: one learned query; (B, N, D) to (B, D)."""
        batch, tokens, width = x.shape
        if width // heads > _WIDEST:
            return layers.attention_pool(be, x, p, heads)
        keys, values = (self.product(rows_of(x), matrix) for matrix in (p.k, p.v))
        out = self.xp.empty((batch, width), keys.dtype)
        strides = np.int64(width), np.int64(tokens * width)
        self.device.launch("pool", stored(out), (heads, batch), _THREADS,
                           p.cls_token, keys, values, out, tokens, width // heads,
                           *strides)  # fmt: skip
        return self.linear(out, p.linear_weight, p.linear_bias)

    # ------------------------------------------------------------------------ for traces

    def attention_scores(
        self, q: Array, k: Array, *, causal: bool = False, key_mask: Any = None
    ) -> Array:
        """ops.attention_scores, in float32."""
        xp = self.xp
        q, k = q.astype(np.float32), k.astype(np.float32)
        scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1]))
        if causal:
            seen = xp.tril(xp.ones(scores.shape[-2:], dtype=bool))
            scores = xp.where(seen, scores, np.float32(-np.inf))
        if key_mask is not None:
            seen = self.device.asarray(key_mask, bool)[:, None, None, :]
            scores = xp.where(seen, scores, np.float32(-np.inf))
        return scores

    def attention(self, q: Array, k: Array, v: Array, **sees: Any) -> Array:
        """ops.attention: one image at a time, so that few scores exist at once."""
        context = self.xp.empty(q.shape, q.dtype)
        mask = sees.pop("key_mask", None)
        for i in range(len(q)):
            one = slice(i, i + 1)
            seen = None if mask is None else mask[one]
            scores = self.attention_scores(q[one], k[one], key_mask=seen, **sees)
            pattern = _softmax(self.xp, scores)
            context[one] = (pattern @ v[one].astype(np.float32)).astype(q.dtype)
        return context
