"""Arrays under another program's names, gathered under ours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import VerificationError
from ..ops import Array
from ..weights.files import shown
from .inputs import RAW
from .schemes import OURS, SCHEMES, Scheme, guessed, nearest, scheme_of, unfused
from .walk import Case

__all__ = ["Gathered", "Stored", "by_case", "gathered", "stored"]

_INPUTS = ("attention_mask",)  # what may be handed back and is no activation
_NARROW_FIRST = ("float16", "bfloat16", "float32", "float64")
_SHOWN = 3  # names that a note lists


class Stored(NamedTuple):
    """An array that is read when asked for: its shape, and its dtype by name ("bfloat16" too)."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Array]


def stored(array: Any) -> Stored:
    """An array in memory."""
    value = np.asarray(array)
    return Stored(value.shape, value.dtype.name, lambda: value)


def by_case(
    where: str, arrays: Mapping[str, Stored], cases: Sequence[str]
) -> dict[str, dict[str, Stored]]:
    """Arrays named {case}/{activation}, by both; with a single case its name may be left out.

    Raises:
        VerificationError: a name without a case, or with one that the inputs do not have.
    """
    found: dict[str, dict[str, Stored]] = {}
    for key, array in arrays.items():
        case, slash, name = key.partition("/")
        if not slash or case not in (*cases, RAW):
            if len(cases) != 1:
                said = f"has a case {shown(case)}" if slash and case else "names no case"
                raise VerificationError(
                    f"{where}: key {shown(key)} {said}: write {shown(f'{cases[0]}/{name or key}')};"
                    f" the cases are {', '.join(cases)}, and {RAW} for what raw images and texts "
                    "become"
                )
            case, name = cases[0], key  # ONNX's own names have slashes
        found.setdefault(case, {})[name] = array
    return found


@dataclass(frozen=True, eq=False)
class _Activations(Mapping[str, Array]):
    """Arrays by name, each read when asked for."""

    arrays: Mapping[str, Stored]
    owner: object = None

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


class Gathered(NamedTuple):
    """Activations by case under our names, the dtype of most numbers, and notes for the reader."""

    cases: dict[str, Mapping[str, Array]]
    dtype: str
    notes: tuple[str, ...]


def gathered(
    where: str,
    given: Mapping[str, Mapping[str, Stored]],
    cases: Sequence[Case],
    names: str | Path | None = None,
    owner: object = None,
    *,
    stated: str | None = None,
) -> Gathered:
    """Arrays by case and by their own names, under ours; those of case "raw" as they are.

    `stated` is the port's dtype, if it says so; else it is that of most numbers.

    Raises:
        VerificationError: no name is known.
    """
    texts_only = {case.name: case.pixel_values is None for case in cases}
    keys = [(key, texts_only[case]) for case in texts_only for key in given.get(case, ())]
    schemes, notes = _schemes(keys, names)
    found = {c: _named(given[c], schemes, alone) for c, alone in texts_only.items() if c in given}
    found |= {RAW: dict(given[RAW])} if RAW in given else {}
    if not any(found.values()):
        raise VerificationError(_nothing(where, [key for key, _ in keys]))
    numbers = Counter[str]()
    for case, arrays in found.items():
        for array in arrays.values() if case != RAW else ():
            numbers[array.dtype] += math.prod(array.shape)
    known = {dtype: count for dtype, count in numbers.items() if dtype in _NARROW_FIRST}
    unknown = [*_unknown(schemes, keys), *_unsplit(schemes, given, texts_only)]
    stored = max(known, key=lambda d: (known[d], _NARROW_FIRST.index(d)), default="float32")
    return Gathered(
        {case: _Activations(arrays, owner) for case, arrays in found.items() if arrays},
        stated or ("float32" if stored == "float64" else stored),
        (*notes, *([] if stated else _doubles(stored)), *unknown),
    )


def _doubles(stored: str) -> list[str]:
    """A note on how numbers stored as float64 are judged, of which few ports are meant to be."""
    judged = "stored as float64, judged as float32; state the dtype float64 to judge them as it"
    return [judged] if stored == "float64" else []


def _schemes(
    keys: Sequence[tuple[str, bool]], names: str | Path | None
) -> tuple[list[Scheme], list[str]]:
    """The schemes by which names are read, of which the first that knows one counts; a note."""
    if names is not None:
        return [scheme_of(names), OURS], []
    foreign = [key for key in keys if OURS.ours(*key) is None]
    scheme, known = guessed(foreign)
    if not known or 2 * known < len(foreign) < len(keys):
        return [OURS], []
    return [OURS, scheme], [f"{known} of {len(keys)} names read as those of {scheme.name}"]


def _ours(schemes: Sequence[Scheme], key: str, texts_only: bool) -> str | None:
    names = (scheme.ours(key, texts_only) for scheme in schemes)
    return next((name for name in names if name is not None), None)


def _named(
    arrays: Mapping[str, Stored], schemes: Sequence[Scheme], texts_only: bool
) -> dict[str, Stored]:
    """Arrays under our names; of two with the same, the one that was called so."""
    found: dict[str, Stored] = {}
    taken: dict[str, str] = {}
    for key, array in arrays.items():
        ours = _ours(schemes, key, texts_only)
        for name, take in unfused(ours, array.shape).items() if ours else ():
            if name in taken and ours not in (key, taken[name]):
                raise VerificationError(
                    f"{shown(key)} and {shown(taken[name])} both stand for {name}: give one"
                )
            if name not in found or key == ours:
                taken[name] = key
                found[name] = array._replace(read=partial(_taken, array, take))
    return found


def _taken(array: Stored, take: Callable[[Array], Array]) -> Array:
    return take(array.read())


def _unknown(schemes: Sequence[Scheme], keys: Iterable[tuple[str, bool]]) -> list[str]:
    """A note on names that are not known, unless they are of inputs."""
    unknown = [k for k, alone in keys if _ours(schemes, k, alone) is None and k not in _INPUTS]
    said = _listed(list(dict.fromkeys(unknown)))
    return [f"left out, as their names are not known: {said}"] if unknown else []


def _unsplit(
    schemes: Sequence[Scheme],
    given: Mapping[str, Mapping[str, Stored]],
    texts_only: Mapping[str, bool],
) -> list[str]:
    """A note on arrays that hold q, k and v in no way, or more than one, to tell them apart."""
    for case, alone in texts_only.items():
        for key, array in given.get(case, {}).items():
            ours = _ours(schemes, key, alone)
            if ours and not unfused(ours, array.shape):
                return [f"left out, as its parts cannot be told apart: {key}, shape {array.shape}"]
    return []


def _listed(keys: Sequence[str]) -> str:
    """The first few, each with the nearest name of ours, and how many there are."""
    near = [(key, nearest(key)) for key in keys[:_SHOWN]]
    said = [shown(key) + (f" (perhaps {name})" if name else "") for key, name in near]
    more = f", … ({len(keys)} names)" if len(keys) > _SHOWN else ""
    return ", ".join(said) + more


def _nothing(where: str, keys: Sequence[str]) -> str:
    if not keys:
        return f"{where}: holds no arrays"
    return (
        f"{where}: no name in it is known: {_listed(keys)}; expected names of ours, such as "
        f"'vision.blocks.0.norm_1', or those of {', '.join(SCHEMES)}; for others a JSON file says "
        'which is which: {"their name": "our name"}'
    )
