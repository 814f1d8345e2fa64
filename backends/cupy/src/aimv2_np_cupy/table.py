"""The backend's table: every op of aimv2_np in terms of a `Device`.

Coarse entries run our kernels and products with fused weights; the fine ones, which a trace runs,
are products, kernels, or float32 arithmetic of the array library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aimv2_np import layers
from aimv2_np.backend import NUMPY, Backend

from .device import STORED, Device, rows_of
from .executor import Executor, Layers, Packed
from .launches import WIDEST, Launches
from .replicas import Replicas
from .weights import Matrix, placed

__all__ = ["DTYPES", "table"]

Array = Any
DTYPES = tuple(STORED)


def table(device: Device, *others: Device) -> Backend:
    """The backend for a device; `others` compute a part of each batch."""
    ops = Ops(device, others)
    return replace(
        NUMPY,
        name="cupy",
        dtypes=DTYPES,
        offloads=True,
        scope=device.current,
        asarray=lambda host, dtype: device.asarray(host, STORED[dtype]),
        to_numpy=ops.to_numpy,
        fetch=ops.fetch,
        from_dlpack=device.from_dlpack,
        concatenate=device.xp.concatenate,
        broadcast_to=device.xp.broadcast_to,
        prepare=ops.prepare,
        normalize=ops.normalize,
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


def _first_keys(key_mask: Any) -> tuple[int, ...] | None:
    """How many keys each sequence sees if those are its first, else None: (B, N)."""
    seen = key_mask.sum(axis=1)
    first = np.arange(key_mask.shape[1]) < seen[:, None]
    return tuple(map(int, seen)) if (first == key_mask).all() else None


def _l2_normalize(xp: Any, x: Array) -> Array:
    norm = xp.sqrt(xp.square(x).sum(axis=-1, keepdims=True))
    return x / xp.maximum(norm, np.float32(1e-12))


class Ops:
    """The ops of one device; all blocks at once may also run on others."""

    def __init__(self, device: Device, others: Sequence[Device]) -> None:
        self.device, self.xp, self.run = device, device.xp, Launches(device)
        each = [Executor(one) for one in (device, *others)]
        self.blocks = Replicas(each) if others else each[0]

    def prepare(self, params: Any, dtype: str) -> Any:
        """Parameters uploaded in a dtype, those that are multiplied together fused."""
        kept = STORED[dtype]
        return placed(params, self.device.asarray, kept, dtype == "tf32")

    def to_numpy(self, x: Array) -> Any:
        """In float32, or float16 if that is what it is."""
        return self.fetch(x)()

    def fetch(self, x: Array) -> Callable[[], Any]:
        """The same, begun now: what is returned waits for it."""
        waiting = self.device.fetch(x)

        def host() -> Any:
            array = waiting()
            return array.astype(np.float32) if array.dtype == STORED["bfloat16"] else array

        return host

    def in_float32(self, function: Any) -> Any:
        """An op by the array library, computed in float32."""

        def op(x: Array) -> Array:
            return function(self.xp, x.astype(np.float32)).astype(x.dtype)

        return op

    def linear(self, x: Array, weight: Matrix | Array, bias: Array | None = None) -> Array:
        """ops.linear: (..., I) to (..., O). Logits are products of activations: never in tf32."""
        if not isinstance(weight, Matrix):
            weight = Matrix(self.xp.ascontiguousarray(weight), tf32=False)
        shape = (*x.shape[:-1], len(weight.array))
        rows = rows_of(self.xp.ascontiguousarray(x.astype(weight.array.dtype, copy=False)))
        if bias is None:
            out = self.xp.empty((len(rows), shape[-1]), rows.dtype)
        else:
            out = self.xp.array(self.xp.broadcast_to(bias, (len(rows), shape[-1])), order="C")
        self.run.product(rows, weight, out, add=bias is not None)
        return out.reshape(shape)

    def normalize(self, images: Any, values: Any) -> Array:
        """ops.normalize: NumPy's bytes go up, and become pixels there."""
        *batch, height, width, channels = images.shape
        pixels = self.xp.empty((*batch, channels, height, width), np.float32)
        given = self.device.upload(images), self.device.asarray(values, np.float32)
        self.run.normalize(*given, pixels.reshape(-1, channels, height, width))
        return pixels

    def patch_embed(self, pixels: Array, weight: Matrix, bias: Array) -> Array:
        """ops.patch_embed: (B, C, Y, X) to (B, N, D)."""
        batch, channels, height, width = pixels.shape
        inner = weight.array.shape[1]
        patch = math.isqrt(inner // channels)
        count = (height // patch) * (width // patch)
        rows = self.xp.empty((batch * count, inner), weight.array.dtype)
        given = self.xp.ascontiguousarray(pixels.astype(np.float32, copy=False))
        self.run.patchify(given, patch, rows)
        return self.linear(rows, weight, bias).reshape(batch, count, -1)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """ops.rms_norm: (..., D) to (..., D)."""
        x = self.xp.ascontiguousarray(x)
        out = self.xp.empty_like(x)
        self.run.rms_norm(rows_of(x), weight, eps, rows_of(out))
        return out

    def transformer(
        self, be: Backend, x: Array, blocks: Sequence[Any], heads: int, eps: float, *,
        lengths: Sequence[int] | None = None, causal: bool = False, key_mask: Any = None,
    ) -> Array:  # fmt: skip
        """layers.transformer, with fused products and attention over packed sequences."""
        batch, tokens, width = x.shape
        each = (tokens,) * batch if lengths is None else tuple(lengths)
        seen = each if key_mask is None else _first_keys(key_mask)
        if seen is None or width // heads > WIDEST:
            how: dict[str, Any] = {"lengths": lengths, "causal": causal, "key_mask": key_mask}
            return layers.transformer(be, x, blocks, heads, eps, **how)
        rows = self.xp.ascontiguousarray(rows_of(x))
        out = self.xp.empty_like(rows)
        self.blocks.run(Layers(tuple(blocks), heads, eps, causal), rows, Packed(each, seen), out)
        return out.reshape(x.shape)

    def attention_pool(self, be: Backend, x: Array, p: Any, heads: int, **traced: Any) -> Array:
        """layers.attention_pool: one learned query; (B, N, D) to (B, D)."""
        batch, _, width = x.shape
        if width // heads > WIDEST:
            return layers.attention_pool(be, x, p, heads)
        keys, values = (rows_of(self.linear(x, matrix)) for matrix in (p.k, p.v))
        out = self.xp.empty((batch, width), keys.dtype)
        self.run.pool(p.cls_token, keys, values, heads, out)
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
