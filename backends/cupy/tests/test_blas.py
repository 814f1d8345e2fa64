"""gemmEx's arguments, by a library with cuBLAS's C interface that g++ builds for the CPU.

Its product is written from NVIDIA's definition: columns one after another, C = alpha op(A) op(B) +
beta C.
"""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from addressed import Array

from aimv2_np_cupy.blas import Blas, BlasError

SOURCE = """
#include <cstddef>
extern "C" {
void* stream; void* workspace; size_t bytes; int compute, mode, made, gone, types[3];
int cublasCreate_v2(void** handle) { return made++, *handle = (void*)77, 0; }
int cublasDestroy_v2(void*) { return gone++, 0; }
int cublasSetMathMode(void*, int given) { return mode = given, 0; }
int cublasSetStream_v2(void* handle, void* given) {
  stream = given, workspace = nullptr, bytes = 0;  // as the documentation says
  return handle == (void*)77 ? 0 : 1;
}
int cublasSetWorkspace_v2(void*, void* given, size_t size) {
  return workspace = given, bytes = size, 0;
}
int cublasGemmEx(void* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha,
                 const void* A, int a_type, int lda, const void* B, int b_type, int ldb,
                 const void* beta, void* C, int c_type, int ldc, int compute_type, int algorithm) {
  if (handle != (void*)77) return 1;
  if (algorithm != -1) return 15;
  if (k == 13) return 7;
  types[0] = a_type, types[1] = b_type, types[2] = c_type;
  if (a_type || b_type || c_type) return 0;
  if (lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m) return 7;
  auto a = (const float*)A, b = (const float*)B;
  auto c = (float*)C;
  compute = compute_type;
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double sum = 0;
      for (int l = 0; l < k; l++)
        sum += double(turn_a ? a[l + i * lda] : a[i + l * lda]) *
               (turn_b ? b[j + l * ldb] : b[l + j * ldb]);
      float old = *(const float*)beta ? *(const float*)beta * c[i + j * ldc] : 0;
      c[i + j * ldc] = *(const float*)alpha * sum + old;
    }
  return 0;
}
}
"""


def array(x: Any) -> Array:
    return np.ascontiguousarray(x, np.float32).view(Array)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: it builds the library")
    folder = tmp_path_factory.mktemp("blas")
    source, built = folder / "blas.cpp", folder / "blas.so"
    Path(source).write_text(SOURCE)
    subprocess.run(["g++", "-shared", "-fPIC", "-O1", source, "-o", built], check=True)
    return ctypes.CDLL(str(built))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (3, 5, 2), (4, 2, 7)])
def test_rows_times_a_weight(library: Any, rows: int, inner: int, columns: int, add: bool) -> None:
    rng = np.random.default_rng(0)
    x, weight = array(rng.normal(size=(rows, inner))), array(rng.normal(size=(columns, inner)))
    before = array(rng.normal(size=(rows, columns)) if add else np.full((rows, columns), np.nan))
    out = before.copy()
    Blas(library).multiply(5, x, weight, out, add=add, tf32=False)
    expected = np.asarray(x, float) @ np.asarray(weight, float).T + (before if add else 0)
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-6, atol=1e-6)


def value(library: Any, name: str, kind: Any = ctypes.c_void_p) -> Any:
    return kind.in_dll(library, name).value


def test_stream_workspace_and_units(library: Any) -> None:
    blas, one = Blas(library), array([[1.0]])
    memory = array(np.zeros(8))
    with blas.workspace(memory):
        blas.multiply(5, one, one, one.copy(), add=False, tf32=True)
    assert value(library, "stream") == 5
    assert value(library, "workspace") == memory.data.ptr
    assert value(library, "bytes", ctypes.c_size_t) == 32
    assert value(library, "compute", ctypes.c_int) == 77  # CUBLAS_COMPUTE_32F_FAST_TF32
    blas.multiply(6, one, one, one.copy(), add=False, tf32=False)
    assert value(library, "stream") == 6
    assert value(library, "workspace") is None
    assert value(library, "compute", ctypes.c_int) == 68  # CUBLAS_COMPUTE_32F


def test_sums_are_added_in_float32(library: Any) -> None:
    """Not in the 16 bits of what is multiplied, which cuBLAS may do unless told otherwise."""
    one = array([[1.0]])
    Blas(library).multiply(5, one, one, one.copy(), add=False, tf32=False)
    assert value(library, "mode", ctypes.c_int) == 16


@pytest.mark.parametrize(
    ("given", "result", "types"),
    [
        (np.float32, np.float32, [0, 0, 0]),
        (np.float16, np.float16, [2, 2, 2]),  # CUDA_R_16F
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16, [14, 14, 14]),  # CUDA_R_16BF
        (ml_dtypes.bfloat16, np.float32, [14, 14, 0]),
    ],
)
def test_types(library: Any, given: Any, result: Any, types: list[int]) -> None:
    one, out = (np.ones((1, 1), kind).view(Array) for kind in (given, result))
    Blas(library).multiply(5, one, one, out, add=True, tf32=False)
    assert list((ctypes.c_int * 3).in_dll(library, "types")) == types


def test_each_thread_has_a_handle_that_goes_with_it(library: Any) -> None:
    blas, one = Blas(library), array([[1.0]])
    made, gone = (value(library, name, ctypes.c_int) for name in ("made", "gone"))

    def work() -> None:
        for _ in range(2):
            blas.multiply(5, one, one, one.copy(), add=False, tf32=False)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    gc.collect()
    assert value(library, "made", ctypes.c_int) == made + 2
    assert value(library, "gone", ctypes.c_int) == gone + 2


def test_a_refusal_is_said(library: Any) -> None:
    one, thirteen = array([[1.0]]), array(np.ones((1, 13)))
    with pytest.raises(BlasError, match="cublasGemmEx failed with status 7") as caught:
        Blas(library).multiply(0, thirteen, thirteen, one, add=False, tf32=False)
    assert not caught.value.full
    assert BlasError("cublasCreate_v2", 3).full
