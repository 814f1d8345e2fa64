"""A tensor as it lies in a file: where, how large, of which dtype; and how to get at its values.

Values that are stored in the dtype that is asked for are not read at all: the array is a read-only
view of the memory-mapped file, and the operating system pages it in. Other values are converted in
chunks read from the file, not from the map, so that the stored bytes never count as memory in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .files import SourceFile, shown

__all__ = [
    "DTYPE_BITS",
    "MOST_AXES",
    "PARAMETER_DTYPES",
    "StoredTensor",
    "is_finite",
    "tensor_bytes",
    "widened",
]

# Every dtype that a safetensors file can hold (safetensors/src/tensor.rs), in bits.
DTYPE_BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64},
    **{"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8},
    **{"BOOL": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
# Those that parameters may have, and how NumPy reads them. It has no bfloat16: the raw 16 bits
# are the upper half of the float32 of the same value.
PARAMETER_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

# What other files, such as traces, may hold besides.
_OTHER_DTYPES = {
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "C64": "<c8"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"},
}

_CHUNK = 1 << 20  # elements converted at a time
MOST_AXES = 32  # AIMv2 needs 4, numpy allows 64
_MOST_ELEMENTS = 1 << 59  # beyond this the bytes of float64 overflow numpy's sizes


def tensor_bytes(shape: tuple[int, ...], dtype: str, where: str) -> int:
    """The bytes that a tensor of this shape and dtype (a safetensors name) occupies.

    Raises:
        CheckpointError: more axes or elements than an array can have, or a broken last byte.
    """
    if len(shape) > MOST_AXES:
        raise CheckpointError(f"{where}: the shape has {len(shape)} axes, at most {MOST_AXES}")
    if math.prod(size or 1 for size in shape) > _MOST_ELEMENTS:  # numpy ignores sizes of 0, too
        raise CheckpointError(f"{where}: the shape {shown(shape)} is too large for any memory")
    total = math.prod(shape) * DTYPE_BITS[dtype]
    if total % 8:
        raise CheckpointError(f"{where}: shape {shown(shape)} of {dtype} does not fill whole bytes")
    return total // 8


def widened(bits: NDArray[Any]) -> NDArray[Any]:
    """The float32 numbers that the bits of bfloat16 (uint16) are the upper halves of."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def is_finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite; uint16 are the bits of bfloat16."""
    if values.dtype.kind == "u":  # all ones in the exponent
        return not bool(((values & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(values).all())


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file; `offset` counts from the beginning of the file, in bytes."""

    source: SourceFile
    key: str
    dtype: str  # a safetensors name, "F32"
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def where(self) -> str:
        """File and key, as error messages begin."""
        return f"{self.source.path}: key {shown(self.key)}"

    def array(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The values in `dtype`, read-only: a view of the mapped file if stored so, else a copy.

        Values that do not lie on a multiple of their size are copied too: BLAS and the kernels
        of other backends would otherwise do so at every use.

        Raises:
            CheckpointError: a value is too large for `dtype`, or the file has become shorter.
        """
        raw = np.dtype(PARAMETER_DTYPES[self.dtype])
        count = math.prod(self.shape)
        if count and self.dtype != "BF16" and raw == dtype and self.offset % raw.itemsize == 0:
            return self.mapped()
        values = np.empty(count, dtype)
        for start, chunk in self._chunks():
            self._convert(chunk, values[start : start + len(chunk)])
        values.flags.writeable = False
        return values.reshape(self.shape)

    def mapped(self) -> NDArray[Any]:
        """The stored bits where they lie, read-only; bfloat16 as uint16.

        Raises:
            CheckpointError: a dtype that NumPy does not have, or not on a multiple of its size.
        """
        names = PARAMETER_DTYPES | _OTHER_DTYPES
        if self.dtype not in names:
            raise CheckpointError(f"{self.where}: NumPy has no dtype for {self.dtype}")
        raw, count = np.dtype(names[self.dtype]), math.prod(self.shape)
        if self.offset % raw.itemsize:
            raise CheckpointError(f"{self.where}: does not lie on a multiple of its size")
        if not count:  # nothing to map
            return np.zeros(self.shape, raw)
        return np.frombuffer(self.source.map, raw, count, self.offset).reshape(self.shape)

    def plain(self) -> NDArray[Any]:
        """The values in the dtype they are stored in, as a copy; bfloat16 becomes float32.

        Raises:
            CheckpointError: a dtype that NumPy does not have, or a file that has become shorter.
        """
        if self.dtype in PARAMETER_DTYPES:
            dtype = "<f4" if self.dtype == "BF16" else PARAMETER_DTYPES[self.dtype]
            return np.array(self.array(np.dtype(dtype)))
        if self.dtype not in _OTHER_DTYPES:
            raise CheckpointError(f"{self.where}: NumPy has no dtype for {self.dtype}")
        data = self.source.read(self.offset, self.nbytes)
        if len(data) != self.nbytes:
            raise CheckpointError(f"{self.where}: the file has become shorter; fetch it again")
        values = np.frombuffer(bytearray(data), _OTHER_DTYPES[self.dtype])
        return values.reshape(self.shape)

    def has_nonfinite(self) -> bool:
        """Whether any value is NaN or infinite; reads the file in chunks."""
        return not all(is_finite(chunk) for _, chunk in self._chunks())

    def _chunks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The raw values, a bounded number at a time, each with the index it begins at."""
        raw, total = np.dtype(PARAMETER_DTYPES[self.dtype]), math.prod(self.shape)
        for start in range(0, total, _CHUNK):
            count = min(_CHUNK, total - start)
            data = self.source.read(self.offset + start * raw.itemsize, count * raw.itemsize)
            if len(data) != count * raw.itemsize:
                raise CheckpointError(f"{self.where}: the file has become shorter; fetch it again")
            yield start, np.frombuffer(data, raw)

    def _convert(self, raw: NDArray[Any], out: NDArray[Any]) -> None:
        if self.dtype == "BF16":
            raw = widened(raw)
        try:
            with np.errstate(over="raise", invalid="ignore"):  # a signalling NaN is no error here
                out[...] = raw
        except FloatingPointError:
            raise CheckpointError(
                f"{self.where}: holds a value too large for {out.dtype}; load with dtype='float64'"
            ) from None
