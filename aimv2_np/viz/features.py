"""Numbers and features over an image's patches: maps, similarity, principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AIMv2Error
from .arrays import Array, as_rgb, grid_of, nearest_patches, patch_side, principal_components
from .canvas import AMOUNTS, COLOURS, SIGNED, Axes, canvas, label, outline, picture

__all__ = ["nearest", "over_patches", "pca", "similarity"]


def over_patches(
    values: ArrayLike,
    pixels: ArrayLike | None = None,
    *,
    grid: tuple[int, int] | None = None,
    patch_size: int | None = None,
    unit: str = "",
    title: str = "",
    picked: int | None = None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    scale: bool = True,
    ax: Axes | None = None,
) -> Any:
    """One number per patch, (N,), as a map; over the image if `pixels` are given.

    Args:
        values: (N,), row by row.
        pixels: the image, as `as_rgb` takes it; it shines through.
        grid: (rows, columns) where there is no image; a square by default.
        patch_size: side of a patch in pixels, needed where several fit the image.
        unit: what the numbers are, beside the scale of colours.
        picked: a patch to frame.
        signed: colours that tell plus from minus.
        limits: of the colours; by default those of the values.
        scale: whether the scale of colours is drawn.
        ax: where to draw.

    Raises:
        AIMv2Error: the numbers do not fit the image or the grid.
    """
    values = np.asarray(values, np.float64)
    rgb, (rows, columns), side = _placed(values, pixels, grid, patch_size)
    figure, ax = canvas(ax, width=4.8, height=4.2 * min(2.0, max(0.5, rows / columns)))
    low, high = limits or _limits(values, signed)
    extent = (-0.5, columns * side - 0.5, rows * side - 0.5, -0.5)
    if rgb is not None:
        ax.imshow(rgb.mean(axis=2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    colours = ax.imshow(
        values.reshape(rows, columns),
        extent=extent,
        cmap=SIGNED if signed else AMOUNTS,
        vmin=low,
        vmax=high,
        alpha=1 if rgb is None else 0.75,
        interpolation="nearest",
    )
    ax.set(xlim=extent[:2], ylim=extent[2:])
    if scale:
        figure.colorbar(colours, ax=ax, label=unit, shrink=0.85)
    if picked is not None:
        outline(ax, picked, columns, side)
    largest = np.nanargmax(np.abs(values) if signed else values)
    row, column = divmod(int(largest), columns)
    label(
        ax,
        title=title,
        x="column [patches]" if rgb is None else "column [pixels]",
        y="row [patches]" if rgb is None else "row [pixels]",
        alt=f"{title or 'A map'}: {unit or 'a number'} of each of {rows} × {columns} patches, from "
        f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}, largest in row {row}, "
        f"column {column}.",
    )
    return figure


def _placed(
    values: Array, pixels: ArrayLike | None, grid: tuple[int, int] | None, side: int | None
) -> tuple[Array | None, tuple[int, int], int]:
    """The image, the grid that N values fill, and a patch's side (1 without an image)."""
    if pixels is None:
        return None, grid_of(values, grid), 1
    rgb = as_rgb(pixels)
    side = patch_side(rgb.shape[:2], len(values), side)
    return rgb, (rgb.shape[0] // side, rgb.shape[1] // side), side


def _limits(values: Array, signed: bool) -> tuple[float, float]:
    if signed:
        largest = float(np.nanmax(np.abs(values)))
        return -largest, largest
    return float(np.nanmin(values)), float(np.nanmax(values))


def similarity(
    vectors: ArrayLike,
    picked: Sequence[int],
    *,
    grid: tuple[int, int] | None = None,
    title: str = "",
) -> Any:
    """How similar a patch's vector is to every other's: a map of cosines for each picked patch.

    vectors (N, D): position embeddings, or features.
    """
    x = np.asarray(vectors, np.float64)
    rows, columns = grid_of(x, grid)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    across = min(4, len(picked))
    down = -(-len(picked) // across)
    figure, axes = picture(down, across, width=2.1 * across + 0.9, height=2.2 * down + 0.5)
    figure.suptitle(title, fontsize="medium")
    for ax in axes.ravel()[len(picked) :]:
        ax.set_visible(False)
    for ax, p in zip(axes.ravel(), picked, strict=False):
        cosines = (x @ x[p]).reshape(rows, columns)
        colours = ax.imshow(cosines, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        outline(ax, p, columns, 1)
        ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
        row, column = divmod(p, columns)
        label(ax, title=f"row {row}, column {column}")
    figure.colorbar(colours, ax=axes, label="cosine", shrink=0.8)
    figure.say(
        f"{title or 'Similarity'}: the cosine between the vectors of {len(picked)} framed patches "
        f"and those of all {rows} × {columns}, orange below 0, purple above."
    )
    return figure


def pca(
    features: ArrayLike,
    pixels: Sequence[ArrayLike] | None = None,
    *,
    grid: tuple[int, int] | None = None,
    titles: Sequence[str] | None = None,
    title: str = "",
) -> Any:
    """Patch features as colours: their first three principal components as red, green, blue.

    Patches of one colour have similar features. The components are those of all images together,
    each scaled from its 2nd to its 98th percentile.

    Args:
        features: (N, D) of one image or (B, N, D) of several.
        pixels: the images, shown above, one each.
        grid: (rows, columns) of the patches; a square by default.
        titles: one per image.
        title: of the whole.
    """
    x = np.asarray(features, np.float64)
    x = x[None] if x.ndim == 2 else x
    rows, columns = grid_of(x[0], grid)
    if pixels is not None and len(pixels) != len(x):
        raise AIMv2Error(f"{len(pixels)} images for the features of {len(x)}")
    colours = _as_colours(principal_components(x.reshape(-1, x.shape[-1])))
    above = pixels is not None
    figure, axes = picture(1 + above, len(x), width=2.1 * len(x) + 0.3, height=2.3 * (1 + above))
    figure.suptitle(title, fontsize="medium")
    for i, ax in enumerate(axes[-1]):
        ax.imshow(colours.reshape(len(x), rows, columns, 3)[i], interpolation="nearest")
    for ax, one in zip(axes[0], pixels if pixels is not None else (), strict=False):
        ax.imshow(as_rgb(one), interpolation="nearest")
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[0], titles or [""] * len(x), strict=True):
        label(ax, title=name)
    figure.say(
        f"{title or 'Patch features'}: each of {rows} × {columns} patches of {len(x)} image(s) in "
        "a colour whose red, green and blue are its features' first three principal components."
    )
    return figure


def _as_colours(coordinates: Array) -> Array:
    low, high = np.percentile(coordinates, [2, 98], axis=0)
    return np.asarray(np.clip((coordinates - low) / np.maximum(high - low, 1e-12), 0, 1))


def nearest(
    features: ArrayLike,
    others: ArrayLike,
    pixels: ArrayLike,
    other_pixels: ArrayLike,
    picked: Sequence[int],
    *,
    title: str = "",
) -> Any:
    """Picked patches of one image, and the most similar patch of another for each.

    features (N, D) and others (M, D) belong to the two images; a pair has one colour and number.
    """
    pairs = nearest_patches(features, others, picked)
    figure, axes = picture(1, 2, width=7.6, height=4.0)
    figure.suptitle(title, fontsize="medium")
    sides = ((axes[0, 0], features, pixels, 0), (axes[0, 1], others, other_pixels, 1))
    for ax, x, shown, which in sides:
        rgb = as_rgb(shown)
        side = patch_side(rgb.shape[:2], len(np.asarray(x)))
        columns = rgb.shape[1] // side
        ax.imshow(rgb, interpolation="nearest")
        for number, pair in enumerate(pairs):
            colour = COLOURS[number % len(COLOURS)]
            patch = int(pair[which])
            row, column = divmod(patch, columns)
            outline(ax, patch, columns, side, colour)
            centre = (column + 0.5) * side - 0.5, (row + 0.5) * side - 0.5
            plate = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
            ax.text(*centre, str(number + 1), ha="center", va="center", fontsize=8, bbox=plate)
        ax.set(xticks=[], yticks=[])
    label(axes[0, 0], title="picked")
    label(axes[0, 1], title="most similar there")
    figure.say(
        f"{title or 'Nearest patches'}: {len(pairs)} patches of one image and the most similar "
        "ones of another, with cosines " + ", ".join(f"{c:.2f}" for *_, c in pairs) + "."
    )
    return figure
