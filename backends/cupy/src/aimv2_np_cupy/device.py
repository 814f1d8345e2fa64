"""The few things that the backend does on a device. Everything else is in terms of these.

`Cuda` does them with CuPy; tests have another one that does the same with NumPy, by which shapes,
strides and launches are judged where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache, cached_property
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from .blas import Blas, load
from .cudnn_attention import FROM, CudnnAttention, installed
from .upload import Upload

__all__ = ["STORED", "Cuda", "Device", "stored"]

Array = Any
# In which numbers of a dtype are kept; tf32 rounds only what is multiplied.
STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "tf32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def stored(array: Array) -> str:
    """The dtype of an array as kernels are named by it."""
    return str(array.dtype)


class Device(Protocol):
    """Memory, products, kernels, and a queue that does them in order while the host goes on."""

    xp: Any  # a module with NumPy's functions, for its arrays
    out_of_memory: type[Exception]

    def current(self) -> AbstractContextManager[Any]:
        """What `xp` makes and what is queued in this context is this device's."""
        ...

    def asarray(self, given: Any, dtype: Any) -> Array:
        """A NumPy array there, or one of its own, in a dtype."""
        ...

    def from_dlpack(self, given: Any) -> Array:
        """What another library made, without a copy where it lies on this device."""
        ...

    def to_numpy(self, array: Array) -> Any:
        """An array of its own as NumPy's; waits for it."""
        ...

    def adopt(self, array: Array, source: Device) -> Array:
        """An array of another device as its own; after all that is queued there."""
        ...

    def multiply(self, x: Array, weight: Array, out: Array, *, add: bool, tf32: bool) -> None:
        """`out = x weightᵀ`, or `out += x weightᵀ`: (M, K), (N, K), (M, N), each row by row.

        Sums are float32; `tf32`: of float32 numbers rounded to 11 bits.
        """
        ...

    def launch(
        self, kernel: str, dtype: str, grid: tuple[int, ...], block: int, *args: Any
    ) -> None:
        """Run a kernel of `kernels/`, compiled for a dtype; ints are 32 bits, floats 32.

        Arrays are where their first number lies; their strides are arguments where it matters.
        """
        ...

    def library_attention(
        self, qkv: Array, out: Array, batch: int, heads: int, causal: bool
    ) -> Callable[[], None] | None:
        """Attention of `qkv` (B·N, 3·D) into `out` (B·N, D) by a library, where that is faster."""
        ...

    def queue(self) -> int:
        """Which queue this thread's work goes to."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, products and launches alone, not now but whenever what is returned is called."""
        ...

    def release(self) -> None:
        """Give memory that no array holds back to the driver."""
        ...


class Cuda:
    """A device by CuPy; its queue is the current stream."""

    def __init__(self, index: int) -> None:
        import cupy

        self.xp, self.index = cupy, index
        self.out_of_memory = cupy.cuda.memory.OutOfMemoryError
        self.capability = int(cupy.cuda.Device(index).compute_capability)
        self.blas = Blas(load())
        with self.current():
            self.upload = Upload(cupy)

    def current(self) -> AbstractContextManager[Any]:
        """CuPy's context of the device."""
        device: AbstractContextManager[Any] = self.xp.cuda.Device(self.index)
        return device

    def asarray(self, given: Any, dtype: Any) -> Array:
        """Uploaded, if it is NumPy's."""
        if isinstance(given, self.xp.ndarray):
            return self.xp.asarray(given).astype(dtype, copy=False)
        return self.upload(np.asarray(given)).astype(dtype, copy=False)

    def from_dlpack(self, given: Any) -> Array:
        """As CuPy's."""
        return given if isinstance(given, self.xp.ndarray) else self.xp.from_dlpack(given)

    def to_numpy(self, array: Array) -> Any:
        """Downloaded."""
        return self.xp.asnumpy(array)

    def adopt(self, array: Array, source: Device) -> Array:
        """Copied from device to device; each waits for what the other one has queued."""
        if source is self:
            return array
        stream = self.xp.cuda.get_current_stream
        with source.current():
            written = stream().record()
        with self.current():
            stream().wait_event(written)
            copy = self.xp.asarray(array)
            read = stream().record()
        with source.current():
            stream().wait_event(read)
        return copy

    def multiply(self, x: Array, weight: Array, out: Array, *, add: bool, tf32: bool) -> None:
        """By cuBLAS."""
        handle = self.xp.cuda.Device(self.index).cublas_handle
        self.blas.multiply(handle, self.queue(), x, weight, out, add=add, tf32=tf32)

    def launch(
        self, kernel: str, dtype: str, grid: tuple[int, ...], block: int, *args: Any
    ) -> None:
        """On the current stream."""
        narrowed = tuple(np.int32(a) if isinstance(a, int) else a for a in args)
        narrowed = tuple(np.float32(a) if isinstance(a, float) else a for a in narrowed)
        self._function(kernel, dtype)(grid, (block,), narrowed)

    def library_attention(
        self, qkv: Array, out: Array, batch: int, heads: int, causal: bool
    ) -> Callable[[], None] | None:
        """cuDNN's, if it is installed, for long sequences in 16 bits."""
        head = out.shape[1] // heads
        if len(out) // batch < FROM or out.dtype.itemsize != 2 or head % 8 or head > 128:
            return None
        if self._cudnn is None:
            return None
        run = self._cudnn.prepared(self.xp, qkv, out, batch, heads, causal)
        return lambda: run(self.queue())

    @cached_property
    def _cudnn(self) -> CudnnAttention | None:
        return installed()

    def queue(self) -> int:
        """The current stream's address."""
        return int(self.xp.cuda.get_current_stream().ptr)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph, with a workspace of its own for cuBLAS (NVIDIA's sizes)."""
        size = 32 << 20 if self.capability >= 90 else 4 << 20
        workspace = self.xp.empty(size, np.uint8)
        stream = self.xp.cuda.Stream(non_blocking=True)
        with stream, self.blas.workspace(workspace):
            stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # it would only say that the work was interrupted
                    stream.end_capture()
                raise
            graph = stream.end_capture()

        def launch(graph: Any = graph, kept: Any = workspace) -> None:
            graph.launch()

        return launch

    def release(self) -> None:
        """Of CuPy's pool."""
        self.xp.get_default_memory_pool().free_all_blocks()

    @cached_property
    def _function(self) -> Callable[[str, str], Any]:
        @cache
        def find(kernel: str, dtype: str) -> Any:
            from .compiling import compile_cubin, file_of, include_dirs

            file = file_of(kernel)
            cubin, _ = compile_cubin(file, dtype, self.capability, include_dirs())
            module = self.xp.cuda.function.Module()
            module.load(cubin)
            return module.get_function(kernel)

        return find


def rows_of(x: Array) -> Array:
    """The same numbers as (rows, width)."""
    return x.reshape(-1, x.shape[-1])


def prefix(lengths: Sequence[int]) -> Any:
    """Where each sequence begins among the tokens of all, and where the last ends, int32."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
