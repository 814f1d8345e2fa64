"""Matrices, bars and curves, with their labels and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AIMv2Error
from ..outputs import Classification
from .arrays import Array
from .canvas import (
    AMOUNTS,
    COLOURS,
    SIGNED,
    Axes,
    canvas,
    label,
    names_or_numbers,
    open_frame,
)

__all__ = ["bars", "curves", "matrix", "probabilities", "roofline"]

MOST_NAMED = 24  # rows or columns whose names can still be read
MOST_WRITTEN = 144  # cells whose number can still be read
LINE = 0.17  # inches that a name needs
MARKERS = "osD^vPX"


def matrix(
    values: ArrayLike,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    y: str = "row",
    x: str = "column",
    unit: str = "",
    title: str = "",
    signed: bool | None = None,
    written: str | None = None,
    ax: Axes | None = None,
) -> Any:
    """A matrix (M, N) as colours: scores, patterns, similarities, confusions.

    Args:
        values: -inf, as masked scores are, and NaN are left white.
        rows: their names, by default numbers.
        columns: the same.
        y: what the rows are.
        x: what the columns are.
        unit: what the numbers are, beside the scale of colours.
        title: of the picture.
        signed: colours that tell plus from minus; by default where some values are negative.
        written: format of a number in each cell, such as ".2f"; by default none.
        ax: where to draw.

    Raises:
        AIMv2Error: no matrix, or no finite number in it; names that do not fit it; too many cells
            to write numbers into.
    """
    cells = np.asarray(values, np.float64)
    if cells.ndim != 2 or not cells.size:
        raise AIMv2Error(f"a matrix has two axes; found the shape {cells.shape}")
    if written is not None and cells.size > MOST_WRITTEN:
        raise AIMv2Error(f"{cells.size} cells are too many to write numbers into")
    cells = np.where(np.isfinite(cells), cells, np.nan)
    if np.isnan(cells).all():
        raise AIMv2Error("the matrix holds no finite number")
    signed = bool(np.nanmin(cells) < 0) if signed is None else signed
    largest = np.nanmax(np.abs(cells))
    low, high = (-largest, largest) if signed else (np.nanmin(cells), np.nanmax(cells))
    height, width = cells.shape
    named = rows is not None or height <= MOST_NAMED // 2
    flat = named and 2 * height < width and 4.4 / width < LINE  # names of square cells overlap
    needed = max(2.2, LINE * height + 0.8 if flat else 4.4 * height / width + 0.6)
    figure, ax = canvas(ax, width=5.6, height=min(7.0, needed))
    colours = ax.imshow(
        cells,
        cmap=SIGNED if signed else AMOUNTS,
        vmin=low,
        vmax=high,
        interpolation="nearest",
        aspect="equal" if 0.25 < height / width < 4 and not flat else "auto",
    )
    figure.colorbar(colours, ax=ax, label=unit, shrink=0.85)
    _names(ax, rows, columns, (height, width))
    if written is not None:
        _write(ax, colours, cells, written)
    of = f" of {unit}" if unit else ""
    label(
        ax,
        title=title,
        x=x,
        y=y,
        alt=f"{title or 'A matrix'}: {height} × {width} values{of}, {y} by {x}, from "
        f"{np.nanmin(cells):.3g} to {np.nanmax(cells):.3g}.",
    )
    return figure


def _names(ax: Axes, rows: Any, columns: Any, shape: tuple[int, int]) -> None:
    """Names along the sides, where they were given or there is room for numbers."""
    for axis, names, count in ((ax.yaxis, rows, shape[0]), (ax.xaxis, columns, shape[1])):
        if names is not None or count <= MOST_NAMED // 2:
            axis.set_ticks(range(count), names_or_numbers(names, count))
    if columns is not None and sum(map(len, columns)) > 40:
        for name in ax.get_xticklabels():  # each ends below its column
            name.set(rotation=60, rotation_mode="anchor", ha="right", va="center")


def _write(ax: Axes, colours: Any, cells: Array, written: str) -> None:
    """The number in each cell, light on dark or dark on light."""
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            red, green, blue, _ = colours.cmap(colours.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ink = "white" if dark else "black"
            text = format(value, written)
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)


def bars(
    values: Mapping[str, float], *, unit: str = "", title: str = "", ax: Axes | None = None
) -> Any:
    """One horizontal bar for each name, in the order given."""
    figure, ax = canvas(ax, height=0.9 + 0.32 * len(values))
    found = ax.barh(list(values), list(values.values()), color=COLOURS[0])
    ax.bar_label(found, fmt="%.3g", padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    open_frame(ax)
    words = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    label(ax, title=title, x=unit, alt=f"{title or 'Bars'}, {unit}: {words}.")
    return figure


def probabilities(
    result: Classification, *, image: int = 0, most: int = 8, ax: Axes | None = None
) -> Any:
    """What `model.classify` says of one image: the `most` probable texts, best first."""
    best = result.top(most)[image]
    percent = {name: 100 * p for name, p in best}
    title = result.images[image].replace("\\", "/").rsplit("/", 1)[-1]
    figure, ax = canvas(ax, height=0.9 + 0.32 * len(percent))
    found = ax.barh(list(percent), list(percent.values()), color=COLOURS[0])
    ax.bar_label(found, fmt="%.1f %%", padding=3)
    ax.set_xlim(0, 115)
    ax.set_xticks(range(0, 101, 20))
    ax.invert_yaxis()
    open_frame(ax)
    words = ", ".join(f"{name} {p:.1f} %" for name, p in percent.items())
    label(ax, title=title, x="probability [%]", alt=f"How well texts fit {title}: {words}.")
    return figure


def curves(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    x_label: str = "",
    y_label: str = "",
    title: str = "",
    log: str = "",
    ax: Axes | None = None,
) -> Any:
    """Curves over one x, told apart by colour and by marker; `log` is "", "x", "y" or "xy"."""
    figure, ax = canvas(ax)
    for i, (name, y) in enumerate(series.items()):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        every = max(1, np.size(y) // 24)  # markers that touch would hide the curve
        ax.plot(x, np.asarray(y), label=name, markersize=4, markevery=every, **style)
    if "x" in log:
        ax.set_xscale("log")
        if np.size(x) <= MOST_NAMED // 2:
            ax.set_xticks(np.ravel(x), [f"{value:g}" for value in np.ravel(x)], minor=False)
            ax.set_xticks([], minor=True)
    if "y" in log:
        ax.set_yscale("log")
    open_frame(ax)
    ax.legend(frameon=False)
    ends = [
        f"{name} from {np.ravel(y)[0]:.3g} to {np.ravel(y)[-1]:.3g}" for name, y in series.items()
    ]
    alt = f"{title or 'Curves'}, {y_label} over {x_label}: {'; '.join(ends)}."
    label(ax, title=title, x=x_label, y=y_label, alt=alt)
    return figure


def roofline(
    points: Mapping[str, tuple[float, float]],
    *,
    peak: float,
    bandwidth: float,
    title: str = "",
    ax: Axes | None = None,
) -> Any:
    """How fast something runs below what a machine can do.

    Args:
        points: name -> (FLOP for each byte moved, GFLOP/s reached).
        peak: the most that the machine computes, GFLOP/s.
        bandwidth: the most that it moves, GB/s.
        title: of the picture.
        ax: where to draw.
    """
    figure, ax = canvas(ax)
    intensities = [intensity for intensity, _ in points.values()] + [peak / bandwidth]
    x = np.geomspace(min(intensities) / 4, max(intensities) * 4, 200)
    ax.plot(x, np.minimum(peak, bandwidth * x), color="black", label="what the machine can do")
    for i, (name, (intensity, reached)) in enumerate(points.items()):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        ax.plot([intensity], [reached], linestyle="none", markersize=8, label=name, **style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    open_frame(ax)
    ax.legend(frameon=False)
    words = ", ".join(f"{name} {g:.3g} GFLOP/s" for name, (_, g) in points.items())
    label(
        ax,
        title=title,
        x="FLOP for each byte moved",
        y="GFLOP/s",
        alt=f"{title or 'A roofline'}: memory moves {bandwidth:.3g} GB/s, the processor computes "
        f"{peak:.3g} GFLOP/s at most; reached: {words}.",
    )
    return figure
