"""Files that the command line reads and writes; written ones appear when they are complete."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import AIMv2Error
from .writing import written_whole

__all__ = ["check_target", "read_lines", "save_arrays"]


def read_lines(name: str) -> list[str]:
    """The lines of a UTF-8 file, "-" being standard input, without empty ones.

    Raises:
        AIMv2Error: it cannot be read, is not UTF-8, or has no text in it.
    """
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            raw = sys.stdin.buffer.read() if sys.stdin is not None else b""
        else:
            raw = Path(name).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise AIMv2Error(f"cannot read the texts from {shown}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise AIMv2Error(
            f"cannot read the texts from {shown}: byte {error.start} is not UTF-8; save it as UTF-8"
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    if not any(lines):
        raise AIMv2Error(f"{shown} holds no text; expected one text per line")
    return [line for line in lines if line]


def check_target(name: str, suffixes: Sequence[str], *, force: bool, option: str = "--out") -> Path:
    """The path of a file to be written, checked before any work is done.

    Raises:
        AIMv2Error: an unknown suffix, an existing file without `force`, or a folder in which
            nothing can be written.
    """
    path = Path(name)
    if path.suffix not in suffixes:
        raise AIMv2Error(f"{option} {name}: expected a name that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise AIMv2Error(f"{option} {name}: is a folder, expected the name of a file")
    if os.path.lexists(path) and not force:
        raise AIMv2Error(f"{option} {name}: exists already; --force replaces it")
    if not path.parent.is_dir():
        raise AIMv2Error(f"{option} {name}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise AIMv2Error(f"{option} {name}: no permission to write in the folder {path.parent}")
    return path


def save_arrays(
    target: Path,
    arrays: Mapping[str, NDArray[Any]],
    names: Mapping[str, Sequence[str]],
    about: Mapping[str, str],
    *,
    force: bool,
) -> None:
    """Write arrays with the names of their rows and what made them, as .npz or .safetensors.

    A .npz holds `names` and `about` as arrays of strings; a .safetensors as metadata, the names as
    JSON lists.

    Raises:
        AIMv2Error: the file cannot be written, or has come to exist and may not be replaced.
    """
    save = _save_npz if target.suffix == ".npz" else _save_safetensors
    with written_whole(target) as partial:
        save(partial, arrays, names, about)
        check_target(str(target), (target.suffix,), force=force)


def _save_npz(path: Path, arrays: Any, names: Any, about: Any) -> None:
    rows = {name: np.array(_storable(values), np.str_) for name, values in names.items() if values}
    strings = {name: np.array(value) for name, value in about.items()}
    members: dict[str, Any] = {**arrays, **rows, **strings}
    np.savez(path, **members)


def _save_safetensors(path: Path, arrays: Any, names: Any, about: Any) -> None:
    from safetensors.numpy import save_file

    rows = {name: json.dumps(list(values)) for name, values in names.items() if values}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(contiguous, path, metadata={**about, **rows})


def _storable(values: Sequence[str]) -> list[str]:
    """File names as text: bytes that are no UTF-8 are spelled out, as in messages."""
    return [value.encode("utf-8", "backslashreplace").decode() for value in values]
