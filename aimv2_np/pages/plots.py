"""Parts of a plot over depth, on a scale of powers of ten.

A plot is an SVG whose coordinates are percentages, so that it fills any width while its text keeps
its size; its lines lie in an inner SVG that is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .markup import Markup, el

__all__ = ["LogScale", "decades", "every", "line", "percent", "stretched"]

SIZE = 1000  # of the stretched drawing, both ways
_DECADES = 8  # more than these, and only some are labelled
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class LogScale(NamedTuple):
    """Values by powers of ten: `low` at the foot, `high` at the top."""

    low: int
    high: int

    @classmethod
    def around(cls, values: Iterable[float], otherwise: Sequence[float] = (1.0,)) -> LogScale:
        """Two decades or more that hold the values that are finite and positive."""
        shown = [value for value in values if math.isfinite(value) and value > 0] or otherwise
        low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
        return cls(low, max(high, low + 2))

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
    """Lines across, with powers of ten."""
    step = math.ceil((scale.high - scale.low) / _DECADES)
    parts = []
    for power in range(scale.high, scale.low - 1, -step):
        y = percent(scale.y(10.0**power))
        parts += [
            el("line", x2="100%", y1=y, y2=y),
            el("text", "10" + str(power).translate(_POWERS), x=-8, y=y, dy=4),
        ]
    return el("g", *parts, class_="decades")


def every(count: int, fit: int) -> int:
    """Of `count` labels show each first, second, fourth, …, so that `fit` remain."""
    return int(2 ** max(0, math.ceil(math.log2(max(count, 1) / fit))))
