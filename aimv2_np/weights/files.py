"""Opening what a user points at: regular files only, and JSON that can be trusted.

A path may be a folder, a pipe, a web page saved under the wrong name, a Git LFS pointer or a
pickle. Each is recognised here, so that the readers of the formats meet bytes and nothing else.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError

__all__ = ["SourceFile", "foreign_format", "open_source", "parse_json_object", "shown"]

_INTEGER_DIGITS = 20  # 2^64 has 20; longer ones cannot be a size and cost quadratic time to parse
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zipped; plain


def shown(value: object, limit: int = 160) -> str:
    """A key or value as an error message quotes it: escaped, and never a page long."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]!r}… ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a path into a CheckpointError."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise CheckpointError(
            f"{path}: no permission to read it; change its mode or owner (chmod, chown)"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{shown(str(path))}: cannot be read: {error}") from error


@dataclass(frozen=True)
class SourceFile:
    """A regular, readable, non-empty file and its size in bytes."""

    path: Path
    size: int

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, opened for reading; a failing disk becomes a CheckpointError."""
        with _explained(self.path), self.path.open("rb") as file:
            yield file

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer where the file ends before."""
        with self.open() as file:
            file.seek(offset)
            return file.read(count)

    @cached_property
    def map(self) -> mmap.mmap:
        """The file, memory-mapped read-only; every zero-copy array of this file looks into it.

        Raises:
            CheckpointError: the file has become shorter since it was opened.
        """
        with self.open() as file:
            if os.fstat(file.fileno()).st_size < self.size:
                raise CheckpointError(f"{self.path}: the file has become shorter; fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def release(self) -> None:
        """Stop counting what was read through the map as this process's memory.

        Arrays of this file stay valid: what is used again is mapped again, as a rule out of the
        system's cache. Does nothing where there is no `madvise` (Windows).
        """
        mapped = vars(self).get("map")
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def open_source(path: Path) -> SourceFile:
    """Check that a path is a regular, readable, non-empty file.

    Symbolic links are followed: the hub's cache consists of them.

    Raises:
        CheckpointError: it is missing, a folder, a device or pipe, empty, or not readable.
    """
    if "\0" in str(path):
        raise CheckpointError(f"{shown(str(path))}: cannot be read: a path has no null bytes")
    with _explained(path):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise CheckpointError(f"{path}: is a folder, expected a file of weights")
    if not stat.S_ISREG(status.st_mode):  # before opening: opening a pipe would wait for ever
        raise CheckpointError(f"{path}: is not a regular file (a device, pipe or socket)")
    source = SourceFile(path, status.st_size)
    with source.open():
        pass
    if source.size == 0:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); fetch it again")
    return source


def foreign_format(start: bytes) -> str | None:
    """What a file is, judged by its first bytes, when it is one of the usual mistakes."""
    if start.startswith(_PICKLES):
        return (
            "this is a PyTorch pickle; aimv2_np never unpickles, because that can run any code; "
            "convert it with safetensors.torch.save_file"
        )
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "this is a web page, not the weights; download the file itself"
    return None


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no key twice, no NaN, no endless numbers.

    Raises:
        CheckpointError: it is anything else; the message begins with `where`.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            twice, _ = Counter(key for key, _ in items).most_common(1)[0]
            raise CheckpointError(f"{where}: key {shown(twice)} occurs twice")
        return result

    def integer(digits: str) -> int:
        if len(digits) > _INTEGER_DIGITS:
            raise CheckpointError(f"{where}: a number of {len(digits)} digits is no size")
        return int(digits)

    def constant(name: str) -> None:
        raise CheckpointError(f"{where}: {name} is not JSON")

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_constant=constant,
        )
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{where}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise CheckpointError(f"{where}: the JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
