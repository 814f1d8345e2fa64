"""cuBLAS's gemmEx, called in the library itself: CuPy's binding refuses while a graph is recorded.

The C interface is NVIDIA's documented one. Handles are CuPy's, one for each thread and device.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Blas", "BlasError", "load"]

_KINDS = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType_t
_FLOAT, _TF32 = 68, 77  # cublasComputeType_t: sums in float32, of what is given or of tf32
_TRANSPOSED, _AS_IT_IS, _DEFAULT = 1, 0, -1  # cublasOperation_t, cublasGemmAlgo_t
_ZERO, _ONE = ctypes.c_float(0), ctypes.c_float(1)

_INT, _POINTER = ctypes.c_int, ctypes.c_void_p
_MATRIX = [_POINTER, _INT, _INT]  # where, in which numbers, how far from one column to the next
_SIGNATURES = {
    "cublasGemmEx": [_POINTER, *[_INT] * 5, _POINTER, *_MATRIX * 2, _POINTER, *_MATRIX, _INT, _INT],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
}


class BlasError(Exception):
    """cuBLAS refused; says the function and its status."""


def load() -> ctypes.CDLL:
    """The library of CuPy's CUDA, from NVIDIA's wheel or a toolkit.

    Raises what cuda-pathfinder, which comes with CuPy, says where there is none.
    """
    from cuda import pathfinder

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)


class Blas:
    """Products of rows on the current device, in a stream."""

    def __init__(self, library: Any) -> None:
        self._functions = {name: getattr(library, name) for name in _SIGNATURES}
        for name, types in _SIGNATURES.items():
            self._functions[name].argtypes, self._functions[name].restype = types, _INT
        self._local = threading.local()

    def multiply(
        self, handle: int, stream: int, x: Any, weight: Any, out: Any, *, add: bool, tf32: bool
    ) -> None:
        """`out = x weightᵀ` (+ out): (M, K), (N, K), (M, N), rows one after another.

        cuBLAS counts columns first: it sees outᵀ = weight xᵀ, of which nothing has to be turned but
        the weight. Sums are float32 whatever is stored.
        """
        (rows, inner), columns = x.shape, len(weight)
        kind, scale = _KINDS[str(x.dtype)], ctypes.byref(_ONE)
        self._call("cublasSetStream_v2", handle, stream)
        if (lent := getattr(self._local, "workspace", None)) is not None:
            self._call("cublasSetWorkspace_v2", handle, lent.data.ptr, lent.nbytes)
        self._call(
            "cublasGemmEx", handle, _TRANSPOSED, _AS_IT_IS, columns, rows, inner,
            scale, weight.data.ptr, kind, inner, x.data.ptr, kind, inner,
            scale if add else ctypes.byref(_ZERO), out.data.ptr, kind, columns,
            _TF32 if tf32 else _FLOAT, _DEFAULT,
        )  # fmt: skip

    @contextmanager
    def workspace(self, memory: Any) -> Iterator[None]:
        """This thread's products use this memory; so a graph has what it needs to itself.

        cuBLAS's own is shared by all that is queued with a handle.
        """
        self._local.workspace = memory
        try:
            yield
        finally:
            self._local.workspace = None

    def _call(self, name: str, *args: Any) -> None:
        status = self._functions[name](*args)
        if status != 0:
            raise BlasError(f"{name} failed with status {status}")
