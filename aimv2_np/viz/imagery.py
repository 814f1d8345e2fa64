"""Images, and the patches they are cut into."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AIMv2Error
from .arrays import as_rgb
from .canvas import Axes, canvas, label

__all__ = ["image", "patches"]

MOST_NUMBERED = 100  # patches whose number can still be read


def image(
    pixels: ArrayLike, *, patch: int | None = None, title: str = "", ax: Axes | None = None
) -> Any:
    """An image, as `as_rgb` takes it, with its patch grid if `patch`, a side in pixels, is given.

    Pixels beyond the last whole patch, which a model does not see, are greyed.
    """
    rgb = as_rgb(pixels)
    height, width = rgb.shape[:2]
    figure, ax = canvas(ax, width=4.2, height=4.2 * min(2.0, max(0.5, height / width)))
    ax.imshow(rgb, interpolation="nearest")
    words = f"{title or 'An image'}: {height} rows of {width} pixels"
    if patch is not None:
        rows, columns = height // patch, width // patch
        _grid(ax, rows, columns, patch)
        ax.axhspan(rows * patch - 0.5, height - 0.5, color="0.5", alpha=0.7, linewidth=0)
        ax.axvspan(columns * patch - 0.5, width - 0.5, color="0.5", alpha=0.7, linewidth=0)
        words += f", cut into {rows} rows of {columns} patches of {patch} × {patch}"
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    label(ax, title=title, x="column [pixels]", y="row [pixels]", alt=words + ".")
    return figure


def _grid(ax: Axes, rows: int, columns: int, patch: int) -> None:
    """Lines between patches, dark over light so that they show on any colour."""
    for colour, width in (("white", 1.2), ("black", 0.5)):
        x, y = np.arange(columns + 1) * patch - 0.5, np.arange(rows + 1) * patch - 0.5
        ax.hlines(y, x[0], x[-1], color=colour, linewidth=width, alpha=0.6)
        ax.vlines(x, y[0], y[-1], color=colour, linewidth=width, alpha=0.6)


def patches(
    pixels: ArrayLike,
    patch: int,
    *,
    numbered: bool | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Any:
    """The patches of an image as a sheet, apart, row by row, as the model takes them.

    They are numbered if `numbered`; by default if there are no more than 100.

    Raises:
        AIMv2Error: the image is smaller than a patch.
    """
    rgb = as_rgb(pixels)
    rows, columns = rgb.shape[0] // patch, rgb.shape[1] // patch
    if not rows * columns:
        raise AIMv2Error(f"an image of {rgb.shape[:2]} pixels has no patch of {patch} × {patch}")
    numbered = rows * columns <= MOST_NUMBERED if numbered is None else numbered
    figure, ax = canvas(ax, width=5.4, height=5.4 * min(2.0, max(0.3, rows / columns)))
    for i, (row, column) in enumerate(np.ndindex(rows, columns)):
        tile = rgb[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        extent = (column + 0.05, column + 0.95, row + 0.95, row + 0.05)
        ax.imshow(tile, extent=extent, interpolation="nearest")
        if numbered:
            ax.text(column + 0.1, row + 0.1, str(i), fontsize=7, va="top", bbox=_PLATE)
    ax.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    words = f"{rows * columns} patches of {patch} × {patch} pixels, row by row from 0."
    label(ax, title=title, alt=f"{title + ': ' if title else ''}{words}")
    return figure


_PLATE = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
