"""The few things that the backend does on a device. Everything else is in terms of these.

`Cuda` does them with CuPy; tests have another one that does the same with NumPy, by which shapes,
strides and launches are judged where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any, Protocol

import ml_dtypes
import numpy as np

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
    """Memory, products and kernels."""

    xp: Any  # a module with NumPy's functions, for its arrays

    def asarray(self, host: Any, dtype: Any) -> Array:
        """A NumPy array there, in a dtype."""
        ...

    def to_numpy(self, array: Array) -> Any:
        """An array of its own as NumPy's."""
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


class Cuda:
    """A device by CuPy."""

    def __init__(self, index: int) -> None:
        import cupy

        self.xp, self.index = cupy, index
        self.capability = int(cupy.cuda.Device(index).compute_capability)

    def asarray(self, host: Any, dtype: Any) -> Array:
        """Uploaded."""
        return self.xp.asarray(np.asarray(host).astype(dtype, copy=False))

    def to_numpy(self, array: Array) -> Any:
        """Downloaded."""
        return self.xp.asnumpy(array)

    def multiply(self, x: Array, weight: Array, out: Array, *, add: bool, tf32: bool) -> None:
        """By cuBLAS."""
        from .blas import multiply

        multiply(x, weight, out, add=add, tf32=tf32)

    def launch(
        self, kernel: str, dtype: str, grid: tuple[int, ...], block: int, *args: Any
    ) -> None:
        """On the current stream."""
        narrowed = tuple(np.int32(a) if isinstance(a, int) else a for a in args)
        narrowed = tuple(np.float32(a) if isinstance(a, float) else a for a in narrowed)
        self._function(kernel, dtype)(grid, (block,), narrowed)

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
