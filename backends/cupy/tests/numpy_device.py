"""A device whose memory is NumPy's, and whose kernels are the definitions.

It is strict about what a GPU would not forgive: arrays are contiguous, shapes and dtypes are those
that a kernel reads, a launch has as many blocks as the work needs.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
OTHERS = int(os.environ.get("NUMPY_DEVICES", "1")) - 1  # devices beside the first


class Recording:
    """NumPy, but nothing of it may be asked for while launches are recorded."""

    def __init__(self, device: NumpyDevice) -> None:
        self.device = device

    def __getattr__(self, name: str) -> Any:
        assert self.device.recorded is None, f"{name} is no launch"
        if name == "empty":
            return self.device.empty
        return getattr(np, name)


class NumpyDevice:
    """The same as `Cuda`, in NumPy. `memory` is how many bytes `empty` arrays may take."""

    out_of_memory = (MemoryError,)
    failures = (FloatingPointError,)

    def __init__(self, memory: float = np.inf) -> None:
        self.memory = memory
        self._thread = threading.local()  # recording is a thread's own matter
        self.xp: Any = Recording(self)
        self.held: list[weakref.ref[Array]] = []

    @property
    def recorded(self) -> list[Callable[[], None]] | None:
        """What this thread has recorded so far, if it is recording."""
        return getattr(self._thread, "recorded", None)

    def empty(self, shape: Any, dtype: Any = float) -> Array:
        """Full of NaN, so that what is read before it was written shows."""
        array = np.full(shape, np.nan, dtype)
        self.held = [ref for ref in self.held if ref() is not None]
        if sum(ref().nbytes for ref in self.held) + array.nbytes > self.memory:
            raise MemoryError
        self.held.append(weakref.ref(array))
        return array

    def current(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def asarray(self, given: Any, dtype: Any) -> Array:
        assert self.recorded is None
        return np.array(given).astype(dtype)

    def from_dlpack(self, given: Any) -> Array:
        return given if isinstance(given, np.ndarray) else np.from_dlpack(given)

    def upload(self, images: Any) -> Array:
        assert images.dtype == np.uint8
        return np.array(images)

    def fetch(self, array: Array) -> Callable[[], Any]:
        assert self.recorded is None
        host = np.array(array)
        return lambda: host

    def adopt(self, array: Array, source: Any) -> Array:
        return array if source is self else array.copy()

    def library_attention(
        self, qkv: Array, out: Array, batch: int, heads: int, causal: bool
    ) -> Callable[[], None] | None:
        return None

    def queue(self) -> int:
        return 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self._thread.recorded = launches = []
        work()
        self._thread.recorded = None

        def replay() -> None:
            for launch in launches:
                launch()

        return replay

    def release(self) -> None:
        pass

    def multiply(self, *args: Any, **how: Any) -> None:
        self._queue(partial(self._multiply, *args, **how))

    def launch(self, *args: Any) -> None:
        self._queue(partial(self._launch, *args))

    def _queue(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def _multiply(self, x: Array, weight: Array, out: Array, *, add: bool, tf32: bool) -> None:
        for array in (x, weight, out):
            assert array.flags.c_contiguous
            assert array.ndim == 2
        assert x.dtype == weight.dtype
        assert out.dtype in (x.dtype, np.float32)
        wide = [array.astype(np.float32) for array in (x, weight)]
        if tf32:
            wide = [rounded(array, "float16") for array in wide]  # as many bits, in this range
        found = wide[0] @ wide[1].T
        out[...] = (found + out.astype(np.float32) if add else found).astype(out.dtype)

    def _launch(
        self, kernel: str, dtype: str, grid: tuple[int, ...], block: int, *args: Any
    ) -> None:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        assert all(a.flags.c_contiguous for a in arrays) or kernel.startswith("attention")
        assert all(a.dtype in (STORED[dtype], np.int32, np.float32, np.uint8) for a in arrays)
        assert all(isinstance(a, np.ndarray | np.int64 | int | float) for a in args)
        assert dtype in COMPILED[file_of(kernel)].dtypes
        assert block % 32 == 0
        assert all(n > 0 for n in grid)
        assert all(n < 65536 for n in grid[1:])
        KERNELS[kernel](grid, *args)


def rms_norm_stream(grid: Any, x: Array, *args: Any) -> None:
    assert x.dtype == np.float32
    rms_norm(grid, x, *args)


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


def normalize(
    grid: Any, images: Array, values: Array, pixels: Array, channels: int, height: int, width: int
) -> None:
    assert (images.dtype, values.dtype, pixels.dtype) == (np.uint8, np.float32, np.float32)
    assert pixels.shape[1:] == (channels, height, width)
    assert grid == (len(pixels) * height,)
    pixels[...] = ops.normalize(images.reshape(-1, height, width, channels), values)


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
    queries: int, grid: Any, q: Array, k: Array, v: Array, out: Array, starts: Array, seen: Array,
    token_stride: np.int64, head_stride: np.int64, causal: int, head: int,
) -> None:  # fmt: skip
    lengths, heads = np.diff(starts), grid[1]
    assert grid == (-(-lengths.max() // queries), heads, len(lengths))
    assert starts.dtype == seen.dtype == np.int32
    assert starts[-1] == len(q) == len(out)
    assert out.shape[1] == heads * head
    assert head_stride == head
    for part in (q, k, v):
        assert part.strides == (token_stride * part.itemsize, part.itemsize)
        if queries == 64:  # copied 16 bytes at a time
            assert part.ctypes.data % 16 == token_stride * part.itemsize % 16 == 0
    assert seen.shape == lengths.shape
    for (begin, end), count in zip(pairwise(starts), seen, strict=True):
        parts = (
            part[begin:end, : heads * head].reshape(1, -1, heads, head).swapaxes(1, 2)
            for part in (q, k, v)
        )
        mask = (np.arange(end - begin) < count)[None]
        sees: dict[str, Any] = {"causal": bool(causal), "key_mask": mask}
        found = ops.attention(*(a.astype(np.float32) for a in parts), **sees)
        out[begin:end] = found.swapaxes(1, 2).reshape(end - begin, -1).astype(out.dtype)


KERNELS = {
    "rms_norm": rms_norm,
    "rms_norm_stream": rms_norm_stream,
    "swiglu": swiglu,
    "normalize": normalize,
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
    return table(NumpyDevice(), *(NumpyDevice() for _ in range(OTHERS)))
