"""Activations that a port records otherwise than it computes with them.

Where a wrong activation, let flow on in the reference, would make a right one wrong, the port did
not compute the right one from it. So it records it elsewhere, say scores before they are scaled, or
it was fed right inputs step by step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from ..ops import Array
from .locate import CaseResult, TapResult, stream
from .measure import error_of
from .search import Search, strands_of
from .shapes import ShapeMismatch, reconciled
from .walk import grid_of, section_of, short

__all__ = ["Shown", "alike_in_blocks", "shown_by"]

_SEEN = 3.0  # times the noise: how far what follows must move for its not moving to show
_NEARER = 2.0  # times: so much nearer to the truth than to what would follow


class Shown(NamedTuple):
    """A right activation that comes later.

    `moves`: it would be wrong if the wrong one flowed on; else the wrong one changes nothing later.
    """

    tap: TapResult
    moves: bool


def shown_by(search: Search, result: CaseResult, wrong: TapResult) -> Shown | None:
    """What shows that nothing was computed from a wrong activation as it is given."""
    strands, place = {stream(wrong.name), "joint"}, search.order[wrong.name]
    later = [t for t in result.taps if stream(t.name) in strands and search.order[t.name] > place]
    right = {t.name: t for t in later if t.ok}
    for name, moved in _moved(search, result, wrong, right):
        tap = right[name]
        if moved >= max(_SEEN * tap.noise.overall, _NEARER * tap.error.overall):
            return Shown(tap, moves=True)
    if any(not t.ok and short(t.name) != short(wrong.name) for t in later):
        return None
    for name, moved in _moved(search, result, wrong, right, as_given=False):
        if moved >= _SEEN * right[name].noise.overall:
            return Shown(right[name], moves=False)
    return None


def _moved(
    search: Search, result: CaseResult, wrong: TapResult, names: Collection[str], *,
    as_given: bool = True,
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """How far activations move if the wrong one flows on; not `as_given`: if zeros do."""
    case = result.case
    found = search.candidate.get(case.name, wrong.name) if as_given else None

    def injected(name: str, value: Array, _: Array) -> Array:
        if name != wrong.name:
            return value
        try:
            given = np.zeros(()) if found is None else found
            array, _how = reconciled(name, given, np.shape(value), grid_of(search.model, case))
        except ShapeMismatch:
            return np.zeros_like(value)  # whatever it is, what is computed from it moves
        return np.asarray(array, value.dtype)

    both = case.pixel_values is not None and case.input_ids is not None
    joint = both and any(stream(name) == "joint" for name in names)
    towers = ("image", "text") if joint else strands_of(wrong.name)
    for seen, shown, real in search.beside(result, towers, injected) if names else ():
        for name in (n for n in seen if n in names):
            yield name, error_of(name, shown[name], seen[name], real).overall


def alike_in_blocks(search: Search, wrong: TapResult, right: TapResult) -> set[tuple[str, str]]:
    """The same step of other blocks, by case and name, where the same is right or it is shown."""
    tower = wrong.name.partition(".")[0]
    both = [_block(tap.name) for tap in (wrong, right)]
    found = set()
    for result in search.results:
        taps = {tap.name: tap for tap in result.taps}
        for name, tap in taps.items():
            block = _block(name)
            same = name.startswith(f"{tower}.") and short(name) == short(wrong.name)
            if tap.ok or block is None or not same:
                continue
            if both[1] is None or both[0] is None:
                by = shown_by(search, result, tap)
                shown = by.tap if by else None
            else:
                there = f"{tower}.blocks.{block + both[1] - both[0]}.{short(right.name)}"
                shown = taps.get(there)
            if shown is not None and shown.ok:
                found.add((tap.case, name))
    return found


def _block(name: str) -> int | None:
    """The number of the block that makes an activation."""
    section = section_of(name)
    return int(section.rpartition(".")[2]) if ".blocks." in section else None
