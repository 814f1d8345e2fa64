"""The few things that the backend does on a device. Everything else is in terms of these.

`Cuda` does them with CuPy; tests have another one that does the same with NumPy, by which shapes,
strides and launches are judged where there is no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, cached_property
from typing import Any, Protocol, cast

import ml_dtypes
import numpy as np

from aimv2_np.errors import BackendUnavailable

from .blas import Blas, BlasError, load
from .compiling import CompilationFailed, compile_cubin, file_of, include_dirs
from .cudnn_attention import FROM, CudnnAttention, installed
from .transfer import Download, Upload

__all__ = ["STORED", "Cuda", "Device", "MemoryIsFull", "stored"]

Array = Any
# In which numbers of a dtype are kept; tf32 rounds only what is multiplied.
STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "tf32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


_NO_MEMORY = 2  # cudaErrorMemoryAllocation


class MemoryIsFull(Exception):
    """Memory ran out in one of CUDA's libraries."""


def stored(array: Array) -> str:
    """The dtype of an array as kernels are named by it."""
    return str(array.dtype)


class Device(Protocol):
    """Memory, products, kernels, and a queue that does them in order while the host goes on."""

    xp: Any  # a module with NumPy's functions, for its arrays
    failures: tuple[type[Exception], ...]  # what its libraries raise
    out_of_memory: tuple[type[Exception], ...]

    def current(self) -> AbstractContextManager[Any]:
        """What `xp` makes and what is queued in this context is this device's."""
        ...

    def asarray(self, given: Any, dtype: Any) -> Array:
        """A NumPy array there, or one of its own, in a dtype."""
        ...

    def upload(self, images: Any) -> Array:
        """A batch of bytes there, while what is queued is computed."""
        ...

    def from_dlpack(self, given: Any) -> Array:
        """What another library made, without a copy where it lies on this device."""
        ...

    def fetch(self, array: Array) -> Callable[[], Any]:
        """Begin to bring an array of its own to the host; what is returned waits for it."""
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

    def queue(self) -> Hashable:
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
        runtime = cupy.cuda.runtime
        failures = runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError
        self.failures: tuple[type[Exception], ...] = (*failures, BlasError, CompilationFailed)
        self.out_of_memory: tuple[type[Exception], ...] = (
            cupy.cuda.memory.OutOfMemoryError,
            MemoryIsFull,
        )
        self.capability = int(cupy.cuda.Device(index).compute_capability)
        self.blas = Blas(load(runtime.runtimeGetVersion()))
        with self.current():
            self.upload, self.fetch = Upload(cupy), Download(cupy)

    def current(self) -> AbstractContextManager[Any]:
        """CuPy's context of the device."""
        device: AbstractContextManager[Any] = self.xp.cuda.Device(self.index)
        return device

    def asarray(self, given: Any, dtype: Any) -> Array:
        """Uploaded, if it is NumPy's, through CuPy's pinned memory."""
        return self.xp.asarray(given).astype(dtype, copy=False)

    def from_dlpack(self, given: Any) -> Array:
        """As CuPy's.

        Raises:
            BackendUnavailable: it lies on another device.
        """
        array = given if isinstance(given, self.xp.ndarray) else self.xp.from_dlpack(given)
        if array.device.id != self.index:
            raise BackendUnavailable(
                f"the array lies on device {array.device.id}, the model on device {self.index}"
            )
        return array

    def adopt(self, array: Array, source: Device) -> Array:
        """Copied from device to device; each waits for what the other one has queued."""
        if source is cast(Device, self):
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
        stream = self.xp.cuda.get_current_stream().ptr
        with self._memory():
            self.blas.multiply(stream, x, weight, out, add=add, tf32=tf32)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Where memory runs out in CUDA's libraries, it is the same error as in CuPy's pool."""
        try:
            yield
        except BlasError as error:
            raise (MemoryIsFull(str(error)) if error.full else error) from None
        except self.xp.cuda.runtime.CUDARuntimeError as error:
            full = error.status == _NO_MEMORY
            raise (MemoryIsFull(str(error)) if full else error) from None

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
        return None if run is None else lambda: run(self.xp.cuda.get_current_stream().ptr)

    @cached_property
    def _cudnn(self) -> CudnnAttention | None:
        return installed()

    def queue(self) -> Hashable:
        """The current stream's address, which is one for all where each thread has its own."""
        stream = self.xp.cuda.get_current_stream()
        own = stream.ptr == self.xp.cuda.runtime.streamPerThread
        return stream.ptr, threading.get_ident() if own else 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph, with a workspace of its own for cuBLAS (NVIDIA's sizes)."""
        size = 32 << 20 if self.capability >= 90 else 4 << 20
        workspace = self.xp.empty(size, np.uint8)
        stream = self.xp.cuda.Stream(non_blocking=True)
        self.blas.ready()
        with self._memory(), stream, self.blas.workspace(workspace):
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
        self.xp.get_default_pinned_memory_pool().free_all_blocks()

    @cached_property
    def _function(self) -> Callable[[str, str], Any]:
        @cache
        def find(kernel: str, dtype: str) -> Any:
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
