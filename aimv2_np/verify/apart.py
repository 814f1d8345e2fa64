"""What would tell two mistakes apart that look alike in what a candidate gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ops import Array
from ..trace import activation_names
from .candidate import Candidate
from .locate import real_tokens
from .measure import error_of
from .mistakes import Mistake
from .walk import Case, Model, State, keep, run, section_of, sections

__all__ = ["told_apart"]

_CLEAR = 1e-3  # of an activation's size: more than rounding in any dtype but the narrowest


def told_apart(
    model: Model,
    cases: Sequence[Case],
    candidate: Candidate,
    one: Sequence[Mistake],
    other: Sequence[Mistake],
    of: str,
) -> str:
    """An activation that differs between two mistakes and that the candidate does not give yet.

    "" where they compute the same in every case.
    """
    for case in cases:
        given = set(candidate.names(case.name))
        name = _first_difference(model, case, one, other, given, of)
        if name:
            return f"{name} of {case.name}"
    return ""


def _first_difference(
    model: Model,
    case: Case,
    one: Sequence[Mistake],
    other: Sequence[Mistake],
    given: set[str],
    of: str,
) -> str:
    order = sections(model, case, of)
    apart = [m for m in (*one, *other) if (m in one) != (m in other)]
    names = activation_names(model.config)
    made_in = {section_of(n) for n in names if any(m.at(n) for m in apart)}
    last = max((i for i, section in enumerate(order) if section in made_in), default=-1)
    if of == "joint" or made_in - {"vision.embed", "text.embed"}:
        last = len(order) - 1  # what differs flows on: it may show later only
    states: list[State] = [{}, {}]
    with np.errstate(all="ignore"):
        for section in order[: last + 1]:
            seen: list[dict[str, Array]] = [{}, {}]
            for i, mistakes in enumerate((one, other)):
                try:
                    states[i] = run(
                        model, case, section, states[i], keep(seen[i]),
                        wants=lambda name: True, mistakes=mistakes,
                    )  # fmt: skip
                except ValueError:
                    return ""
            real = real_tokens(states[0])
            for name, value in seen[0].items():
                new = name in seen[1] and name not in given
                if new and _differ(name, value, seen[1][name], real):
                    return name
    return ""


def _differ(name: str, a: Array, b: Array, real: Array | None) -> bool:
    if np.shape(a) != np.shape(b):
        return True
    return error_of(name, a, b, real).overall > _CLEAR
