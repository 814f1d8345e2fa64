"""What the adapters share: a case's inputs, what is seen of it, and one case after another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ...errors import VerificationError
from ...ops import Array
from ..walk import Case

__all__ = ["INPUTS", "Refused", "Shelf", "each_case", "inputs_of"]

Made = TypeVar("Made")
INPUTS = ("pixel_values", "input_ids", "attention_mask")


class Refused(Exception):
    """A case that a candidate cannot run, and why."""


class Shelf(MutableMapping[str, Array]):
    """Arrays by name in a temporary file, which goes with this object.

    A large model makes gigabytes of activations, and they are compared one block at a time.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="aimv2-np-")  # noqa: SIM115
        self._places: dict[str, tuple[int, Any, tuple[int, ...]]] = {}

    def __setitem__(self, name: str, array: Array) -> None:
        array = np.asarray(array, order="C")
        self._places[name] = self._file.seek(0, 2), array.dtype, array.shape
        self._file.write(array.tobytes())

    def __getitem__(self, name: str) -> Array:
        offset, dtype, shape = self._places[name]
        self._file.seek(offset)
        data = self._file.read(dtype.itemsize * int(np.prod(shape)))
        return np.frombuffer(data, dtype).reshape(shape)

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def inputs_of(case: Case) -> dict[str, Array]:
    """A case's arrays, those that it has."""
    return {name: a for name in INPUTS if (a := getattr(case, name)) is not None}


def each_case(
    name: str, cases: Sequence[Case], run: Callable[[Case], Made]
) -> tuple[dict[str, Made], tuple[str, ...]]:
    """What the candidate makes of each case, and notes on those in which it fails.

    Raises:
        VerificationError: it fails in all.
    """
    found, failed = {}, dict[str, Exception]()
    for case in cases:
        try:
            found[case.name] = run(case)
        except VerificationError:
            raise
        except Exception as error:  # whatever a port raises
            failed[case.name] = error
    if not found:
        said = "; ".join(f"{case}: {_said(error)}" for case, error in failed.items())
        raise VerificationError(
            f"{name} fails in every case: {said or 'there are none'}"
        ) from next(iter(failed.values()), None)
    return found, tuple(f"case {case} was left out: {_said(e)}" for case, e in failed.items())


def _said(error: Exception) -> str:
    """An error in one line."""
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, Refused) else f"{type(error).__name__}: {line}"
