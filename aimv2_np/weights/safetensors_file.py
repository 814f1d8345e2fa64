"""The safetensors format: a length, a JSON header, and the tensors' bytes one after another.

    8 bytes   N, little-endian
    N bytes   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    the rest  the data, which the offsets cover without gap or overlap

The official library copies every tensor it is asked for; a model should read its weights where
they lie. So only the header is read here, and it is checked as strictly as the official library
does (and, where that is lenient, as the specification says: no key twice, no space in front).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .files import SourceFile, foreign_format, open_source, parse_json_object, shown
from .stored import DTYPE_BITS, StoredTensor, tensor_bytes

__all__ = ["SafetensorsFile", "read_safetensors"]

HEADER_LIMIT = 100_000_000  # bytes; safetensors/src/tensor.rs, MAX_HEADER_SIZE
_BROKEN = "the download is probably incomplete; fetch it again"


@dataclass(frozen=True)
class SafetensorsFile:
    """The header of a file: its tensors by key, in the order of their bytes, and its metadata."""

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


def read_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of a safetensors file; no tensor is read.

    Raises:
        CheckpointError: it cannot be opened, or it is not a whole, valid safetensors file.
    """
    source = open_source(path)
    header, data_begin = _header(source)
    metadata = _metadata(header.pop("__metadata__", None), path)
    tensors = [_tensor(source, key, entry, data_begin) for key, entry in header.items()]
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors")
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.offset + tensor.nbytes))
    _check_coverage(source, tensors, data_begin)
    return SafetensorsFile(path, {tensor.key: tensor for tensor in tensors}, metadata)


def _header(source: SourceFile) -> tuple[dict[str, Any], int]:
    """The parsed header, and the position where the data begins."""
    path, start = source.path, source.read(0, 64)
    if start[8:9] != b"{":
        foreign = foreign_format(start)
        if foreign:
            raise CheckpointError(f"{path}: {foreign}")
    if len(start) < 9:
        raise CheckpointError(f"{path}: too short for safetensors ({len(start)} bytes); {_BROKEN}")
    length = int.from_bytes(start[:8], "little")
    if length > HEADER_LIMIT:
        raise CheckpointError(
            f"{path}: the header claims {length} bytes, at most {HEADER_LIMIT} are allowed; "
            "this is not a safetensors file"
        )
    if 8 + length > source.size:
        raise CheckpointError(
            f"{path}: the header claims {length} bytes, the file has {source.size}; {_BROKEN}"
        )
    if start[8:9] != b"{":
        raise CheckpointError(f"{path}: the header does not begin with '{{'; not safetensors")
    where = f"{path}: the safetensors header"
    return parse_json_object(source.read(8, length), where), 8 + length


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise CheckpointError(
            f"{path}: key '__metadata__' must map strings to strings, found {shown(value)}"
        )
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _sizes(entry: dict[str, Any], field: str, where: str) -> tuple[int, ...]:
    """A field that must be a list of non-negative integers."""
    value = entry.get(field)
    if not isinstance(value, list) or not all(map(_is_size, value)):
        found = shown(value) if field in entry else "nothing"
        raise CheckpointError(
            f"{where}: {field} must be a list of non-negative integers, found {found}"
        )
    return tuple(value)


def _tensor(source: SourceFile, key: str, entry: Any, data_begin: int) -> StoredTensor:
    """One entry of the header, checked against its own dtype and shape and the file's size."""
    where = f"{source.path}: key {shown(key)}"
    if not isinstance(entry, dict):
        raise CheckpointError(
            f"{where}: expected an object with dtype, shape and data_offsets, found {shown(entry)}"
        )
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        found = shown(dtype) if "dtype" in entry else "nothing"
        raise CheckpointError(f"{where}: unknown dtype {found}, expected one such as 'F32'")
    shape, offsets = _sizes(entry, "shape", where), _sizes(entry, "data_offsets", where)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where}: data_offsets must be [begin, end] with begin <= end, found {list(offsets)}"
        )
    begin, end = offsets
    if data_begin + end > source.size:
        raise CheckpointError(
            f"{where}: its data ends at byte {data_begin + end}, beyond the end of the file "
            f"({source.size} bytes); {_BROKEN}"
        )
    nbytes = tensor_bytes(shape, dtype, where)
    if nbytes != end - begin:
        raise CheckpointError(
            f"{where}: shape {list(shape)} of {dtype} takes {nbytes} bytes, "
            f"its data_offsets span {end - begin}"
        )
    return StoredTensor(source, key, dtype, shape, data_begin + begin, nbytes)


def _check_coverage(source: SourceFile, tensors: list[StoredTensor], begin: int) -> None:
    """Check that the tensors, sorted by position, cover the data exactly once."""
    previous = None
    for tensor in tensors:
        if tensor.offset < begin and previous is not None:
            raise CheckpointError(
                f"{tensor.where}: its data overlaps that of key {shown(previous.key)}"
            )
        if tensor.offset > begin:
            raise CheckpointError(
                f"{tensor.where}: {tensor.offset - begin} bytes before its data belong to no tensor"
            )
        begin, previous = tensor.offset + tensor.nbytes, tensor
    if begin != source.size:
        raise CheckpointError(
            f"{source.path}: {source.size - begin} bytes after the last tensor belong to no "
            "tensor; the file was not written whole"
        )
