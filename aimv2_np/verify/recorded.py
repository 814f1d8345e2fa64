"""Activations that a port records otherwise than it computes with them.

Where a wrong activation, let flow on in the reference, would make a right one wrong, the port did
not compute the right one from it. So it records it elsewhere, say scores before they are scaled, or
it was fed right inputs step by step.
"""

from __future__ import annotations

import numpy as np

from ..ops import Array
from .locate import CaseResult, TapResult, stream
from .measure import error_of
from .search import Search, strands_of
from .shapes import ShapeMismatch, reconciled
from .walk import grid_of, section_of, short

__all__ = ["alike_in_blocks", "shown_by"]

_CLEARLY = 4.0  # times what is allowed: what is surely wrong


def shown_by(search: Search, result: CaseResult, wrong: TapResult) -> TapResult | None:
    """A right activation that would be wrong if the wrong one, as it is given, flowed on."""
    case, place = result.case, search.order[wrong.name]
    strands = {stream(wrong.name), "joint"}
    later = [t for t in result.taps if t.ok and stream(t.name) in strands]
    right = {t.name: t for t in later if search.order[t.name] > place}
    found = search.candidate.get(case.name, wrong.name)

    def injected(name: str, value: Array, _: Array) -> Array:
        if name != wrong.name or found is None:
            return value
        try:
            array, _how = reconciled(name, found, np.shape(value), grid_of(search.model, case))
        except ShapeMismatch:
            return np.zeros_like(value)  # whatever it is, what is computed from it moves
        return np.asarray(array, value.dtype)

    both = case.pixel_values is not None and case.input_ids is not None
    joint = both and any(stream(name) == "joint" for name in right)
    towers = ("image", "text") if joint else strands_of(wrong.name)
    for seen, shown, real in search.beside(result, towers, injected) if right else ():
        for name in (n for n in seen if n in right):
            moved = error_of(name, shown[name], seen[name], real)
            if moved.over(right[name].noise) > _CLEARLY * right[name].allowed:
                return right[name]
    return None


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
                shown = shown_by(search, result, tap)
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
