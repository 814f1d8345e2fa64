"""The steps of a block, each one product or one kernel, into memory that is given.

Nothing allocates, so the same calls can run, or be recorded into a graph (executor.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .device import Device, stored
from .weights import Matrix

__all__ = ["WIDEST", "Launches"]

Array = Any
_THREADS = 256
_TENSOR_CORES = (64, 128)  # head widths of attention.cu
_QUERIES, _PLAIN_QUERIES = 64, 16  # of a block of attention.cu, and of attention_plain.cu
WIDEST = 256  # head width of attention_plain.cu and pool.cu


class Launches:
    """What a device is asked to run. Arrays are contiguous rows, (rows, columns)."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def product(self, x: Array, weight: Matrix, out: Array, *, add: bool = False) -> None:
        """`out = x weightᵀ`, (R, I) to (R, O); added to `out`, which may be float32, with `add`."""
        if len(x):
            self.device.multiply(x, weight.array, out, add=add, tf32=weight.tf32)

    def rms_norm(self, x: Array, weight: Array, eps: float, out: Array) -> None:
        """ops.rms_norm: (R, D) to (R, D); of activations, or of the residual stream, in float32."""
        kernel = "rms_norm" if x.dtype == out.dtype else "rms_norm_stream"
        if len(x):
            self.device.launch(kernel, stored(out), (len(x),), _THREADS,
                               x, weight, out, x.shape[1], float(eps))  # fmt: skip

    def swiglu(self, gate_up: Array, out: Array) -> None:
        """silu(gate) · up of rows that hold both, (R, 2 F) to (R, F)."""
        self.device.launch("swiglu", stored(out), (len(out),), _THREADS,
                           gate_up, out, out.shape[1])  # fmt: skip

    def attention(
        self, qkv: Array, heads: int, lengths: Sequence[int], starts: Array, seen: Array,
        causal: bool, out: Array,
    ) -> None:  # fmt: skip
        """ops.attention of packed sequences, (ΣN, 3 D) to (ΣN, D); each sees itself alone.

        `starts` (S + 1,) and `seen` (S,) lie on the device, int32: where sequences begin, and how
        many of its own first keys each sees.
        """
        width = out.shape[1]
        head, parts = width // heads, (qkv[:, i * width :] for i in range(3))
        args = (*parts, out, starts, seen, np.int64(3 * width), np.int64(head), int(causal))
        on_tensor_cores = qkv.dtype.itemsize == 2 and head in _TENSOR_CORES
        queries = _QUERIES if on_tensor_cores else _PLAIN_QUERIES
        grid = (-(-max(lengths) // queries), heads, len(lengths))
        if on_tensor_cores:
            self.device.launch(f"attention_{head}", stored(qkv), grid, 128, *args)
        else:
            self.device.launch("attention_plain", stored(qkv), grid, 128, *args, head)

    def pool(self, query: Array, keys: Array, values: Array, heads: int, out: Array) -> None:
        """ops.attention of one query (D,), with keys and values (B·N, D), to (B, D)."""
        batch, width = out.shape
        tokens = len(keys) // batch
        strides = np.int64(width), np.int64(tokens * width)
        self.device.launch("pool", stored(out), (heads, batch), _THREADS,
                           query, keys, values, out, tokens, width // heads, *strides)  # fmt: skip

    def patchify(self, pixels: Array, patch: int, rows: Array) -> None:
        """ops.cut_patches of float32 pixels (B, C, Y, X) to (B·N, C·P·P)."""
        self.device.launch("patchify", stored(rows), (len(rows),), _THREADS,
                           pixels, rows, *pixels.shape[1:], patch)  # fmt: skip

    def normalize(self, images: Array, values: Array, pixels: Array) -> None:
        """ops.normalize of bytes (B, Y, X, C), by float32 values (C, 256), to (B, C, Y, X)."""
        batch, channels, height, width = pixels.shape
        self.device.launch("normalize", stored(pixels), (batch * height,), _THREADS,
                           images, values, pixels, channels, height, width)  # fmt: skip
