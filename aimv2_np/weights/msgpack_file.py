"""Flax's msgpack files: nested dictionaries whose leaves are arrays in an extension type.

    leaf  = extension 1 (array) or 3 (NumPy scalar), holding
            [shape, dtype name, bytes]                            (flax/serialization.py)

Of msgpack (github.com/msgpack/msgpack, spec.md) these files use six kinds of values, so a small
reader walks over the file and notes where each array lies. The msgpack library would
copy every array twice. Nothing is allocated because a length says so: a length only moves the
position, and the position never leaves the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError
from .files import SourceFile, foreign_format, open_source, shown
from .stored import MOST_AXES, StoredTensor, tensor_bytes

__all__ = ["read_msgpack"]

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ARRAY_EXTENSIONS = (1, 3)
_MOST_DEPTH = 32  # dictionaries inside dictionaries; the original needs 6
_LONGEST_TEXT = 1_000  # bytes of a key or dtype name
_MOST_ENTRIES = 100_000  # the largest model has 400

# First byte -> bytes of the length that follows it; "fix" forms carry the length themselves.
_MAPS = {0xDE: 2, 0xDF: 4}
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_INTEGERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def read_msgpack(path: Path) -> dict[str, StoredTensor]:
    """Find the arrays of a flax msgpack file, keyed "a.b.c" for nested keys; none is read.

    Raises:
        CheckpointError: it cannot be opened, or is not nested dictionaries of arrays.
    """
    source = open_source(path)
    start = source.read(0, 64)
    foreign = foreign_format(start)
    if foreign:
        raise CheckpointError(f"{path}: {foreign}")
    tensors: dict[str, StoredTensor] = {}
    with source.open() as file:
        reader = _Reader(source, file)
        for tensor in reader.tree(()):
            if tensor.key in tensors:
                raise CheckpointError(f"{tensor.where}: occurs twice")
            tensors[tensor.key] = tensor
    if reader.at != source.size:
        raise CheckpointError(f"{path}: {source.size - reader.at} bytes follow the last value")
    if not tensors:
        raise CheckpointError(f"{path}: holds no arrays")
    return tensors


class _Reader:
    """A position in the file, moving forward."""

    def __init__(self, source: SourceFile, file: BinaryIO) -> None:
        self.source = source
        self.file = file
        self.at = 0
        self.entries = 0
        self.where = f"{source.path}"

    def fail(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {problem} (at byte {self.at})")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.file.seek(self.skip(count))
        return self.file.read(count)

    def skip(self, count: int) -> int:
        """Move on by `count` bytes; returns where they began."""
        begin = self.at
        if count > self.source.size - begin:
            raise self.fail(
                f"the file ends inside a value that needs {count} bytes; "
                "the download is probably incomplete, fetch it again"
            )
        self.at += count
        return begin

    def length(self, fixed: range, sized: dict[int, int], expected: str) -> int:
        """The length at the head of a value whose kind is given by its possible first bytes."""
        first = self.take(1)[0]
        if first in fixed:
            return first - fixed.start
        if first not in sized:
            self.at -= 1
            raise self.fail(f"expected {expected}, found the type byte 0x{first:02x}")
        return int.from_bytes(self.take(sized[first]), "big")

    def text(self, expected: str) -> str:
        count = self.length(range(0xA0, 0xC0), _STRINGS, expected)
        if count > _LONGEST_TEXT:
            raise self.fail(f"{expected} has {count} bytes; this is no AIMv2 checkpoint")
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{expected} is not UTF-8") from None

    def tree(self, parents: tuple[str, ...]) -> Iterator[StoredTensor]:
        """The arrays of a dictionary and of those inside it, in the order of the file."""
        if len(parents) > _MOST_DEPTH:
            raise self.fail(f"dictionaries are nested more than {_MOST_DEPTH} deep")
        for _ in range(self.length(range(0x80, 0x90), _MAPS, "a dictionary or an array")):
            self.entries += 1
            if self.entries > _MOST_ENTRIES:
                raise self.fail(f"more than {_MOST_ENTRIES} entries; this is no AIMv2 checkpoint")
            path = (*parents, self.text("a string as key"))
            self.where = f"{self.source.path}: key {shown('.'.join(path))}"
            first = self.take(1)[0]
            self.at -= 1
            if first in _EXTENSIONS or first in _FIXED_EXTENSIONS:
                yield self.tensor(".".join(path))
            else:
                yield from self.tree(path)

    def tensor(self, key: str) -> StoredTensor:
        """One array: the extension's head, then shape, dtype name and bytes."""
        first = self.take(1)[0]
        count = _FIXED_EXTENSIONS.get(first)
        if count is None:
            count = int.from_bytes(self.take(_EXTENSIONS[first]), "big")
        code = int.from_bytes(self.take(1), "big", signed=True)
        if code not in _ARRAY_EXTENSIONS:
            raise self.fail(f"extension type {code} is no array (type 1)")
        end = self.skip(count) + count
        self.at = end - count
        if self.length(range(0x90, 0xA0), _LISTS, "[shape, dtype, bytes]") != 3:
            raise self.fail("an array must be [shape, dtype, bytes]")
        shape = self.shape()
        dtype = self.text("a dtype name")
        if dtype not in _DTYPES:
            raise self.fail(f"dtype {shown(dtype)}, expected one of {', '.join(_DTYPES)}")
        nbytes = self.length(range(0), _BYTES, "the array's bytes")
        offset = self.skip(nbytes)
        needed = tensor_bytes(shape, _DTYPES[dtype], self.where)
        if nbytes != needed:
            raise self.fail(
                f"shape {list(shape)} of {dtype} takes {needed} bytes, the file has {nbytes}"
            )
        if self.at != end:
            raise self.fail(f"the array's extension should end at byte {end}")
        return StoredTensor(self.source, key, _DTYPES[dtype], shape, offset, nbytes)

    def shape(self) -> tuple[int, ...]:
        axes = self.length(range(0x90, 0xA0), _LISTS, "a shape")
        if axes > MOST_AXES:  # before the loop: a list may claim four thousand million entries
            raise self.fail(f"the shape has {axes} axes")
        number = range(0x00, 0x80), _INTEGERS, "a non-negative size"
        return tuple(self.length(*number) for _ in range(axes))
