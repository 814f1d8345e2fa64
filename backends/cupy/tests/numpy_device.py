"""A device whose memory is NumPy's, and whose kernels are the definitions.

It is strict about what a GPU would not forgive: arrays are contiguous, shapes and dtypes are those
that a kernel reads, a launch has as many blocks as the work needs.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from aimv2_np import ops
from aimv2_np.backend import Backend
from aimv2_np.verify.lanes import rounded
from aimv2_np_cupy.compiling import KERNELS as COMPILED
from aimv2_np_cupy.compiling import file_of
from aimv2_np_cupy.device import STORED

Array = Any


class NumpyDevice:
    """The same as `Cuda`, in NumPy."""

    xp = np

    def asarray(self, host: Any, dtype: Any) -> Array:
        return np.array(host).astype(dtype)

    def to_numpy(self, array: Array) -> Any:
        return np.array(array)

    def multiply(self, x: Array, weight: Array, out: Array, *, add: bool, tf32: bool) -> None:
        for array in (x, weight, out):
            assert array.flags.c_contiguous
            assert array.ndim == 2
        assert x.dtype == weight.dtype == out.dtype
        wide = [array.astype(np.float32) for array in (x, weight)]
        if tf32:
            wide = [rounded(array, "float16") for array in wide]  # as many bits, in this range
        found = wide[0] @ wide[1].T
        out[...] = (found + out.astype(np.float32) if add else found).astype(out.dtype)

    def launch(
        self, kernel: str, dtype: str, grid: tuple[int, ...], block: int, *args: Any
    ) -> None:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        assert all(a.flags.c_contiguous for a in arrays) or kernel.startswith("attention")
        assert all(a.dtype in (STORED[dtype], np.int32, np.float32) for a in arrays)
        assert all(isinstance(a, np.ndarray | np.int64 | int | float) for a in args)
        assert dtype in COMPILED[file_of(kernel)].dtypes
        assert block % 32 == 0
        assert all(n > 0 for n in grid)
        assert all(n < 65536 for n in grid[1:])
        KERNELS[kernel](grid, *args)


def rms_norm(grid: Any, x: Array, weight: Array, out: Array, width: int, eps: float) -> None:
    assert grid == (x.size // width,)
    found = ops.rms_norm(x.reshape(-1, width).astype(np.float32), weight.astype(np.float32), eps)
    out[...] = found.reshape(out.shape).astype(out.dtype)


def swiglu(grid: Any, gate_up: Array, out: Array, hidden: int) -> None:
    assert gate_up.shape == (len(out), 2 * hidden)
    assert grid == (len(out),)
    gate, up = gate_up[:, :hidden].astype(np.float32), gate_up[:, hidden:].astype(np.float32)
    out[...] = (ops.silu(gate) * up).astype(out.dtype)


def patchify(
    grid: Any, pixels: Array, rows: Array, channels: int, height: int, width: int, patch: int
) -> None:
    assert pixels.dtype == np.float32
    assert pixels.shape[1:] == (channels, height, width)
    assert grid == (len(rows),)
    rows[...] = ops.cut_patches(pixels, patch).reshape(rows.shape).astype(rows.dtype)


def pool(
    grid: Any, query: Array, keys: Array, values: Array, out: Array, tokens: int, head: int,
    token_stride: np.int64, image_stride: np.int64,
) -> None:  # fmt: skip
    heads, batch = grid
    assert out.shape == (batch, heads * head)
    assert (token_stride, image_stride) == (heads * head, tokens * heads * head)
    assert head <= 256
    split = [
        a.reshape(batch, tokens, heads, head).swapaxes(1, 2).astype(np.float32)
        for a in (keys, values)
    ]
    q = np.broadcast_to(query.reshape(1, heads, 1, head), (batch, heads, 1, head))
    found = ops.attention(q.astype(np.float32), *split)
    out[...] = found.reshape(out.shape).astype(out.dtype)


def attention(
    queries: int, grid: Any, q: Array, k: Array, v: Array, out: Array, starts: Array,
    token_stride: np.int64, head_stride: np.int64, causal: int, head: int,
) -> None:  # fmt: skip
    lengths, heads = np.diff(starts), grid[1]
    assert grid == (-(-lengths.max() // queries), heads, len(lengths))
    assert starts.dtype == np.int32
    assert starts[-1] == len(q) == len(out)
    assert out.shape[1] == heads * head
    assert head_stride == head
    for part in (q, k, v):
        assert part.strides == (token_stride * part.itemsize, part.itemsize)
        if queries == 64:  # copied 16 bytes at a time
            assert part.ctypes.data % 16 == token_stride * part.itemsize % 16 == 0
    for begin, end in pairwise(starts):
        parts = (
            part[begin:end, : heads * head].reshape(1, -1, heads, head).swapaxes(1, 2)
            for part in (q, k, v)
        )
        found = ops.attention(*(a.astype(np.float32) for a in parts), causal=bool(causal))
        out[begin:end] = found.swapaxes(1, 2).reshape(end - begin, -1).astype(out.dtype)


KERNELS = {
    "rms_norm": rms_norm,
    "swiglu": swiglu,
    "patchify": patchify,
    "pool": pool,
    "attention_plain": partial(attention, 16),
    "attention_64": lambda *args: attention(64, *args, 64),
    "attention_128": lambda *args: attention(64, *args, 128),
}


def make_backend(device: Any = None) -> Backend:
    """The CuPy backend's table on this device."""
    from aimv2_np_cupy.machine import BackendUnavailable
    from aimv2_np_cupy.table import table

    if device not in (None, 0):
        raise BackendUnavailable(f"there is no device {device!r}")
    return table(NumpyDevice())
