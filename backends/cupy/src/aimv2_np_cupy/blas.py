"""cuBLAS's gemmEx by CuPy's binding, which no document describes: all calls of it are here."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["multiply"]

_KINDS = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType_t
_FLOAT, _TF32 = 68, 77  # cublasComputeType_t
_TRANSPOSED, _AS_IT_IS, _DEFAULT = 1, 0, -1


def multiply(x: Any, weight: Any, out: Any, *, add: bool, tf32: bool) -> None:
    """`out = x weightᵀ` (+ out): (M, K), (N, K), (M, N), rows one after another.

    cuBLAS counts columns first: it sees outᵀ = weight xᵀ, of which nothing has to be turned but the
    weight. Sums are float32 whatever is stored.
    """
    import cupy
    from cupy_backends.cuda.libs import cublas

    (rows, inner), columns = x.shape, len(weight)
    one, other = (np.array(value, np.float32) for value in (1, 1 if add else 0))
    kind = _KINDS[str(x.dtype)]
    cublas.gemmEx(
        cupy.cuda.device.get_cublas_handle(), _TRANSPOSED, _AS_IT_IS, columns, rows, inner,
        one.ctypes.data, weight.data.ptr, kind, inner, x.data.ptr, kind, inner,
        other.ctypes.data, out.data.ptr, _KINDS[str(out.dtype)], columns,
        _TF32 if tf32 else _FLOAT, _DEFAULT,
    )  # fmt: skip
