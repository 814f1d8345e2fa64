"""cuBLAS's gemmEx, called in the library itself: CuPy's binding refuses while a graph is recorded.

The C interface is NVIDIA's documented one.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Blas", "BlasError", "load"]

_KINDS = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType_t
_FLOAT, _TF32 = 68, 77  # cublasComputeType_t: sums in float32, of what is given or of tf32
_TRANSPOSED, _AS_IT_IS, _DEFAULT = 1, 0, -1  # cublasOperation_t, cublasGemmAlgo_t
# cublasMath_t: without it, parts of a sum may be added in the 16 bits of what is multiplied
_ADD_IN_FLOAT = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
_FULL = 3  # CUBLAS_STATUS_ALLOC_FAILED
_ZERO, _ONE = ctypes.c_float(0), ctypes.c_float(1)

_INT, _POINTER = ctypes.c_int, ctypes.c_void_p
_MATRIX = [_POINTER, _INT, _INT]  # where, in which numbers, how far from one column to the next
_SIGNATURES = {
    "cublasCreate_v2": [_POINTER],
    "cublasDestroy_v2": [_POINTER],
    "cublasSetMathMode": [_POINTER, _INT],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    "cublasGemmEx": [_POINTER, *[_INT] * 5, _POINTER, *_MATRIX * 2, _POINTER, *_MATRIX, _INT, _INT],
}


class BlasError(Exception):
    """cuBLAS refused; says the function and its status."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} failed with status {status}")
        self.full = status == _FULL


def load(runtime: int) -> ctypes.CDLL:
    """The library that CuPy itself uses, of a CUDA such as 12090.

    Raises:
        ImportError, OSError: there is none, or one of another CUDA is in its place.
    """
    # From the package, which finds it in NVIDIA's wheels, too.
    from cupy_backends.cuda.libs import cublas  # noqa: F401

    major = runtime // 1000
    if sys.platform == "win32":
        return ctypes.CDLL(f"cublas64_{major}.dll")
    return ctypes.CDLL(f"libcublas.so.{major}", os.RTLD_NOLOAD | os.RTLD_NOW)


class _Handle:
    """A handle on the device that is current when it is made; one thread's alone."""

    def __init__(self, blas: Blas) -> None:
        self.address, self.destroy = ctypes.c_void_p(), blas.functions["cublasDestroy_v2"]
        blas.call("cublasCreate_v2", ctypes.byref(self.address))
        blas.call("cublasSetMathMode", self.address, _ADD_IN_FLOAT)

    def __del__(self) -> None:
        if self.address:
            self.destroy(self.address)


class Blas:
    """Products of rows on one device, which must be current, in a stream."""

    def __init__(self, library: Any) -> None:
        self.functions = {name: getattr(library, name) for name in _SIGNATURES}
        for name, types in _SIGNATURES.items():
            self.functions[name].argtypes, self.functions[name].restype = types, _INT
        self._local = threading.local()

    def ready(self) -> Any:
        """This thread's handle. Making one allocates, so it must be there when recording begins."""
        if not hasattr(self._local, "handle"):
            self._local.handle = _Handle(self)
        return self._local.handle.address

    def multiply(
        self, stream: int, x: Any, weight: Any, out: Any, *, add: bool, tf32: bool
    ) -> None:
        """`out = x weightᵀ` (+ out): (M, K), (N, K), (M, N), rows one after another.

        cuBLAS counts columns first: it sees outᵀ = weight xᵀ, of which nothing has to be turned but
        the weight. Sums are float32 whatever is stored; `out` may be float32, too.
        """
        (rows, inner), columns, handle = x.shape, len(weight), self.ready()
        kind, scale = _KINDS[str(x.dtype)], ctypes.byref(_ONE)
        self.call("cublasSetStream_v2", handle, stream)
        if (lent := getattr(self._local, "workspace", None)) is not None:
            self.call("cublasSetWorkspace_v2", handle, lent.data.ptr, lent.nbytes)
        self.call(
            "cublasGemmEx", handle, _TRANSPOSED, _AS_IT_IS, columns, rows, inner,
            scale, weight.data.ptr, kind, inner, x.data.ptr, kind, inner,
            scale if add else ctypes.byref(_ZERO), out.data.ptr, _KINDS[str(out.dtype)], columns,
            _TF32 if tf32 else _FLOAT, _DEFAULT,
        )  # fmt: skip

    @contextmanager
    def workspace(self, memory: Any) -> Iterator[None]:
        """This thread's products use this memory, so a graph has what it needs to itself.

        cuBLAS's own is shared by all that is queued with a handle.
        """
        self._local.workspace = memory
        try:
            yield
        finally:
            self._local.workspace = None

    def call(self, name: str, *args: Any) -> None:
        """One function of the library; its status is an exception if it is none of success."""
        status = self.functions[name](*args)
        if status != 0:
            raise BlasError(name, status)
