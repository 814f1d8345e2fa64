"""Where pictures are drawn: their colours, sizes and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import AIMv2Error

__all__ = ["AMOUNTS", "COLOURS", "SIGNED", "canvas", "label", "needs", "outline", "picture"]

Axes: TypeAlias = Any  # matplotlib's
Figure: TypeAlias = Any

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is faint on white
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
AMOUNTS = "cividis"
SIGNED = "PuOr"
FAINT = "0.85"


def needs(library: str, error: ImportError) -> AIMv2Error:
    """The error of a picture whose library cannot be imported."""
    return AIMv2Error(f"this picture needs {library}: {error}; pip install 'aimv2-np[notebooks]'")


def picture(rows: int = 1, columns: int = 1, *, width: float = 6.4, height: float = 4.0) -> Any:
    """An empty Picture and its axes, (rows, columns); sizes in inches.

    Raises:
        AIMv2Error: matplotlib cannot be imported.
    """
    try:
        from .pictures import Picture
    except ImportError as error:
        raise needs("matplotlib", error) from error

    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def canvas(ax: Axes | None, *, width: float = 6.4, height: float = 4.0) -> tuple[Figure, Axes]:
    """The axes to draw on, with their figure: those given, or those of a new picture."""
    if ax is not None:
        return ax.figure, ax
    figure, axes = picture(width=width, height=height)
    return figure, axes[0, 0]


def label(ax: Axes, *, title: str = "", x: str = "", y: str = "", alt: str = "") -> None:
    """Title, labels of the axes, and the sentence that describes these axes."""
    ax.set_title(title, fontsize="medium", loc="left")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if alt and hasattr(ax.figure, "say"):  # a figure of the user's own has no such text
        ax.figure.say(alt)


def open_frame(ax: Axes) -> None:
    """Lines only where the scales are, and a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def outline(ax: Axes, patch: int, columns: int, side: float, colour: str = "white") -> None:
    """A frame around one patch of an image that is drawn in pixels; it shows on any colour."""
    row, column = divmod(patch, columns)
    left, top = column * side - 0.5, row * side - 0.5
    x = np.array([0, 1, 1, 0, 0]) * side + left
    y = np.array([0, 0, 1, 1, 0]) * side + top
    ax.plot(x, y, color="black", linewidth=5, solid_joinstyle="miter")
    ax.plot(x, y, color=colour, linewidth=2.5, solid_joinstyle="miter")


def names_or_numbers(names: Sequence[str] | None, count: int) -> list[str]:
    """Labels of `count` rows or columns.

    Raises:
        AIMv2Error: another number of names.
    """
    if names is None:
        return [str(i) for i in range(count)]
    if len(names) != count:
        raise AIMv2Error(f"{len(names)} names for {count} rows or columns")
    return list(names)
