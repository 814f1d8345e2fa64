"""Parts of a plot over depth, on a logarithmic scale.

A plot is an SVG whose coordinates are percentages, so that it fills any width while its text keeps
its size; its lines lie in an inner SVG that is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .markup import Markup, el, number

__all__ = ["LogScale", "decades", "every", "line", "percent", "stretched"]

SIZE = 1000  # of the stretched drawing, both ways
_DECADES = 8  # more than these, and only some are labelled
_FEW = 2.5  # decades, below which numbers are labelled, not powers
_STEPS = (1, 2, 5)
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class LogScale(NamedTuple):
    """Values by their logarithms to base ten: `low` at the foot, `high` at the top."""

    low: float
    high: float

    @classmethod
    def around(
        cls,
        values: Iterable[float],
        otherwise: Sequence[float] = (1.0,),
        steps: Sequence[int] = (1,),
    ) -> LogScale:
        """One that holds the values that are finite and positive.

        It begins and ends at a step, 1 or 1, 2 and 5, times a power of ten, and has a decade or,
        with powers alone, two.
        """
        shown = [value for value in values if math.isfinite(value) and value > 0] or otherwise
        low = max(mark for mark in _marks(min(shown), steps) if mark <= math.log10(min(shown)))
        high = min(mark for mark in _marks(max(shown), steps) if mark >= math.log10(max(shown)))
        return cls(low, max(high, low + (1 if len(steps) > 1 else 2)))

    def y(self, value: float) -> float:
        """How far below the top, from 0 to 1; 0 lies on the foot, what is no number on the top."""
        if not math.isfinite(value):
            return 0.0
        if value <= 0:
            return 1.0
        return min(max((self.high - math.log10(value)) / (self.high - self.low), 0.0), 1.0)


def percent(share: float) -> str:
    """A part of 1 as a coordinate."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def line(points: Sequence[tuple[float, float]]) -> str:
    """A path through points, from 0 to 1 both ways; a single one becomes a dot."""
    at = " ".join(f"{SIZE * x:.1f} {SIZE * y:.0f}" for x, y in points)
    return f"M{at}" + ("h0" if len(points) == 1 else "")


def stretched(*drawn: Markup) -> Markup:
    """Paths that fill the plot."""
    return el(
        "svg",
        *drawn,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )


def decades(scale: LogScale) -> Markup:
    """Lines across, with powers of ten or, where there are few, with numbers."""
    parts = []
    for mark, text in _labels(scale):
        y = percent((scale.high - mark) / (scale.high - scale.low))
        parts += [
            el("line", x2="100%", y1=y, y2=y),
            el("text", text, x=-8, y=y, dy=4),
        ]
    return el("g", *parts, class_="decades")


def _labels(scale: LogScale) -> list[tuple[float, str]]:
    """Where lines lie, as logarithms, and what stands beside them."""
    if scale.high - scale.low < _FEW:
        marks = sorted({*_marks(10**scale.low, _STEPS), *_marks(10**scale.high, _STEPS)})
        return [(m, number(10**m)) for m in marks if scale.low <= m <= scale.high]
    low, high = math.ceil(scale.low), math.floor(scale.high)
    step = math.ceil((high - low) / _DECADES)
    return [(p, "10" + str(p).translate(_POWERS)) for p in range(high, low - 1, -step)]


def _marks(value: float, steps: Sequence[int]) -> list[float]:
    """Logarithms of the steps' multiples of powers of ten around a value."""
    power = math.floor(math.log10(value))
    return [p + math.log10(s) for p in (power - 1, power, power + 1) for s in steps]


def every(count: int, fit: int) -> int:
    """Of `count` labels show each first, second, fourth, …, so that `fit` remain."""
    return int(2 ** max(0, math.ceil(math.log2(max(count, 1) / fit))))
