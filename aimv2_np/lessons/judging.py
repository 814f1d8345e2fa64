"""How an exercise is judged: an answer is missing, wrong (with a hint), or right.

An exercise is a function that takes the answers. It returns a sentence for whoever is right, and
raises `Wrong` with a hint for whoever is not:

    @exercise("01.count")
    def count(answer: Any) -> str:
        number(answer, 34 * 45, {46 * 35: "whole patches only: round down"})
        return "34 rows of 45."

Judge by values that are worked out here in another way than the lesson does it, or by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import AIMv2Error

__all__ = ["Unanswered", "Verdict", "Wrong", "array", "call", "check", "choice", "exercise",
           "exercises", "number"]  # fmt: skip

Array: TypeAlias = NDArray[Any]
Judge: TypeAlias = Callable[..., str]

_MARKS = {"right": "✓ right", "wrong": "✗ not right", "unanswered": "… not answered yet"}
_known: dict[str, Judge] = {}


class Wrong(Exception):
    """An answer is wrong; the message is a hint."""


class Unanswered(Exception):
    """There is no answer."""


@dataclass(frozen=True)
class Verdict:
    """What is said of an answer. `status`: "right", "wrong" or "unanswered"."""

    status: str
    says: str = ""

    def __repr__(self) -> str:
        mark = _MARKS[self.status]
        return f"{mark}: {self.says}" if self.says else mark


def exercise(name: str) -> Callable[[Judge], Judge]:
    """Enter the judge of an exercise, "lesson.name"."""

    def enter(judge: Judge) -> Judge:
        if name in _known:
            raise ValueError(f"the exercise {name!r} is defined twice")
        _known[name] = judge
        return judge

    return enter


def exercises(lesson: str) -> dict[str, Judge]:
    """The judges of a lesson, such as "01", by name, in their order.

    Raises:
        AIMv2Error: there is no such lesson.
    """
    try:
        import_module(f".lesson_{lesson}", __package__)
    except ModuleNotFoundError as error:
        raise AIMv2Error(f"there is no lesson {lesson!r} with exercises") from error
    return {name: judge for name, judge in _known.items() if name.startswith(f"{lesson}.")}


def check(name: str, *answers: Any) -> Verdict:
    """Judge the answers to an exercise. `...` in an answer's place is no answer.

    Raises:
        AIMv2Error: there is no such exercise.
    """
    judges = exercises(name.split(".")[0])
    if name not in judges:
        raise AIMv2Error(f"there is no exercise {name!r}; there are {', '.join(judges)}")
    if any(_missing(answer) for answer in answers):
        return Verdict("unanswered")
    try:
        return Verdict("right", judges[name](*answers))
    except Unanswered:
        return Verdict("unanswered")
    except Wrong as hint:
        return Verdict("wrong", str(hint))


def _missing(answer: Any) -> bool:
    if isinstance(answer, list | tuple):
        return any(map(_missing, answer))
    return answer is ... or answer is None


# ---------------------------------------------------------------------------- comparisons


def call(function: Any, *inputs: Any) -> Any:
    """What the reader's function returns for copies of some inputs.

    Raises:
        Unanswered: `...`.
        Wrong: it is no function, it raised, or it returned nothing.
    """
    if not callable(function):
        raise Wrong(f"a function is asked for, found {_kind(function)}")
    copies = [x.copy() if isinstance(x, np.ndarray) else x for x in inputs]
    try:
        with np.errstate(all="ignore"):  # what overflows is judged by what comes out
            result = function(*copies)
    except Exception as error:
        shapes = ", ".join(str(x.shape) for x in inputs if isinstance(x, np.ndarray))
        given = f" for arrays of the shapes {shapes}" if shapes else ""
        raise Wrong(f"the function raised {type(error).__name__}{given}: {error}") from error
    if result is None:
        raise Wrong("the function returns nothing: it should end in `return …`")
    if _missing(result):
        raise Unanswered
    return result


def number(answer: Any, right: float, hints: Mapping[Any, str] | None = None, *,
           within: float = 1e-6) -> None:  # fmt: skip
    """An answer that must be one number, up to a relative error.

    `hints`: what is wrong about numbers that one may well arrive at.

    Raises:
        Wrong: another number, or none.
    """
    try:
        found = float(answer)
    except (TypeError, ValueError):
        raise Wrong(f"a number is asked for, found {_kind(answer)}") from None
    if _close(found, right, within):
        return
    for value, hint in (hints or {}).items():
        if _close(found, value, within):
            raise Wrong(hint)
    if math.isnan(found):
        raise Wrong("a number is asked for, found NaN")
    raise Wrong(f"{found:g} is too {'large' if found > right else 'small'}")


def _close(found: float, right: float, within: float) -> bool:
    return abs(found - right) <= within * max(abs(right), 1e-12)


def choice(answer: Any, right: Any, hints: Mapping[Any, str], options: Sequence[Any] = ()) -> None:
    """An answer that must be one of a few.

    `hints` says of each wrong one what speaks against it.

    Raises:
        Wrong: another one.
    """
    options = [*dict.fromkeys([*options, right, *hints])]
    if isinstance(answer, str):
        answer = answer.strip()
    if answer not in options:
        raise Wrong(f"choose one of {', '.join(map(repr, sorted(options, key=str)))}")
    if answer != right:
        raise Wrong(hints.get(answer, "look again"))


def array(
    answer: Any,
    right: Array,
    hints: Sequence[tuple[Array, str]] = (),
    *,
    within: float = 1e-4,
    what: str = "the result",
) -> None:
    """An answer that must be an array, up to an error relative to the largest number in it.

    `hints`: arrays that one may well arrive at, and what is wrong about each.

    Raises:
        Wrong: no array of numbers, another shape, NaN, or other numbers; the hint says which.
    """
    try:
        found = np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"an array is asked for, found {_kind(answer)}") from None
    for wrong, hint in hints:
        if found.shape == np.shape(wrong) and _near(found, wrong, within):
            raise Wrong(hint)
    if found.shape != right.shape:
        raise Wrong(f"the shape of {what} should be {right.shape}, found {found.shape}")
    if not np.isfinite(found[np.isfinite(right)]).all():
        raise Wrong(f"there is NaN or infinity in {what}")
    if not _near(found, right, within):
        off = int((~np.isclose(found, right, rtol=0, atol=within * _size(right))).sum())
        raise Wrong(f"{what}: right shape, but {off} of {right.size} numbers differ")


def _near(found: Array, right: Array, within: float) -> bool:
    return bool(np.allclose(found, right, rtol=0, atol=within * _size(np.asarray(right))))


def _size(right: Array) -> float:
    return max(float(np.abs(right[np.isfinite(right)]).max(initial=0)), 1e-12)


def _kind(answer: Any) -> str:
    """What an answer is, for a message."""
    if isinstance(answer, np.ndarray):
        return f"an array of the shape {answer.shape}"
    name = "function" if callable(answer) else type(answer).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
