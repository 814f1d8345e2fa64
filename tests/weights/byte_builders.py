"""Files built byte by byte, so that tests can break any part of them.

The safetensors bytes follow the format's specification, not our reader; the msgpack bytes come
from the msgpack library, packed as flax/serialization.py does.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import numpy as np

PATCH_KERNEL = "preprocessor.patchifier.proj.weight"
NAMES = {np.dtype("f8"): "F64", np.dtype("f4"): "F32", np.dtype("f2"): "F16"}


def entry(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def raw_safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    return raw_safetensors(json.dumps(header).encode(), data)


def stored(arrays: dict[str, np.ndarray], padding: int = 0, **metadata: str) -> bytes:
    """Arrays as a safetensors file; uint16 stands for BF16; `padding` spaces end the header."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for key, array in arrays.items():
        name = NAMES.get(array.dtype, "BF16" if array.dtype == np.uint16 else "I64")
        header[key] = entry(name, list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return raw_safetensors(json.dumps(header).encode() + b" " * padding, data)


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper 16 bits of float32, rounded to nearest, ties to even (no NaN here)."""
    bits = np.asarray(array, np.float32, order="C").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def leaf(array: np.ndarray, dtype: str | None = None, code: int = 1) -> msgpack.ExtType:
    """One array as flax packs it."""
    payload = (list(array.shape), dtype or array.dtype.name, array.tobytes())
    return msgpack.ExtType(code, msgpack.packb(payload, use_bin_type=True))


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, last = key.split(".")
        here = tree
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return tree


def pack(tree: Any) -> bytes:
    """A tree as msgpack; lone surrogates become bytes that are not UTF-8."""
    return msgpack.packb(tree, use_bin_type=True, unicode_errors="surrogatepass")
