"""The kernels as a library for the CPU, one for each dtype: built by g++, launched by name."""

import ctypes
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np

from aimv2_np_cupy.compiling import SOURCES, STORAGE

HERE = Path(__file__).parent
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def build(dtype, library, sources=SOURCES, flags=()):
    """The kernels in `sources` for one dtype as a shared library."""
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra"]
    command += ["-Wno-unknown-pragmas", "-Wno-sign-compare", *flags, f"-DSTORAGE={STORAGE[dtype]}"]
    command += [] if dtype == "float32" else ["-DSIXTEEN_BITS"]
    command += [f"-I{sources}", str(HERE / "kernels_on_host.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)


class Host:
    """The kernels for one dtype, from a library that `build` made."""

    def __init__(self, dtype, library):
        self.name, self.dtype = dtype, DTYPES[dtype]
        # The unit roundoff: a correctly rounded result errs by at most this, relatively.
        self.unit = float(ml_dtypes.finfo(self.dtype).eps) / 2
        self.library = ctypes.CDLL(str(library))

    def array(self, x):
        """x rounded to the dtype."""
        return np.ascontiguousarray(x).astype(self.dtype)

    def launch(self, entry, grid, threads, *args):
        """Arguments: arrays, or ctypes numbers of the kernel's own types."""
        values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in args]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        x, y, z = (*grid, 1, 1)[:3]
        assert self.library.launch(entry.encode(), x, y, z, threads, pointers), entry

    def result(self, shape):
        """An array for results, full of NaN, and a function: did all around it stay so?"""
        size, margin = int(np.prod(shape)), 64
        room = np.full(size + 2 * margin, np.nan, self.dtype)

        def untouched():
            return bool(np.isnan(room[:margin]).all() and np.isnan(room[-margin:]).all())

        return room[margin : margin + size].reshape(shape), untouched
