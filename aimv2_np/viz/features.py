"""Numbers and features over an image's patches: maps, similarity, principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AIMv2Error
from .arrays import Array, among, as_rgb, grid_of, nearest_patches, patch_side
from .canvas import AMOUNTS, COLOURS, SIGNED, Axes, canvas, label, outline, picture
from .components import as_colours, components, oriented

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
    if picked is not None:
        among(picked, len(values), "patch")
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

    Raises:
        AIMv2Error: there is no such patch.
    """
    x = np.asarray(vectors, np.float64)
    rows, columns = grid_of(x, grid)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    for patch in picked:
        among(patch, len(x), "patch")
    across = min(4, len(picked))
    down = -(-len(picked) // across)
    figure, axes = picture(down, across, width=2.1 * across + 0.9, height=2.2 * down + 0.5)
    figure.suptitle(title, fontsize="medium")
    for ax in axes.ravel()[len(picked) :]:
        ax.set_visible(False)
    said = []
    for ax, p in zip(axes.ravel(), picked, strict=False):
        cosines = x @ x[p]
        shown = cosines.reshape(rows, columns)
        colours = ax.imshow(shown, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        outline(ax, p, columns, 1)
        ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
        label(ax, title=_place(p, columns))
        said.append(_likeness(cosines, p, columns))
    figure.colorbar(colours, ax=axes, label="cosine", shrink=0.8)
    figure.say(
        f"{title or 'Similarity'}: the cosine between the vectors of {len(picked)} framed patches "
        f"and those of all {rows} × {columns}, orange below 0, purple above. {'. '.join(said)}."
    )
    return figure


def _place(patch: int, columns: int) -> str:
    row, column = divmod(patch, columns)
    return f"row {row}, column {column}"


def _largest(values: Array) -> int:
    """Where values are largest: the first such place, also where rounding tells them apart."""
    return int(np.argmax(values >= values.max() - 1e-4 * np.ptp(values)))


def _likeness(cosines: Array, patch: int, columns: int) -> str:
    """In words, which others a patch's vector is most and least like."""
    others = np.delete(np.arange(len(cosines)), patch)
    if not len(others):
        return "A single patch"
    found = (others[_largest(sign * cosines[others])] for sign in (1, -1))
    most, least = (f"{_place(int(p), columns)} ({cosines[p]:.2f})" for p in found)
    return f"{_place(patch, columns).capitalize()} is most like {most}, least like {least}"


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
    scores, shares = components(x.reshape(-1, x.shape[-1]))
    scores = oriented(scores)
    colours = as_colours(scores)
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
        "a colour whose red, green and blue are its features' first three principal components, "
        f"{', '.join(f'{100 * share:.0f} %' for share in shares)} of what differs. "
        + _ends(scores, (rows, columns), titles)
    )
    return figure


def _ends(scores: Array, grid: tuple[int, int], titles: Sequence[str] | None) -> str:
    """In words, at which patches each component is largest and smallest."""

    def where(at: int) -> str:
        image, patch = divmod(at, grid[0] * grid[1])
        several = len(scores) > grid[0] * grid[1]
        name = titles[image] if titles else f"image {image}" if several else ""
        return f"{name + ', ' if name else ''}{_place(patch, grid[1])}"

    said = [
        f"Most {colour} at {where(_largest(score))}, least at {where(_largest(-score))}"
        for colour, score in zip(("red", "green", "blue"), scores.T, strict=True)
    ]
    return ". ".join(said) + "."


def nearest(
    features: ArrayLike,
    others: ArrayLike,
    pixels: ArrayLike,
    other_pixels: ArrayLike,
    picked: Sequence[int],
    *,
    patch_size: int | None = None,
    title: str = "",
) -> Any:
    """Picked patches of one image, and the most similar patch of another for each.

    features (N, D) and others (M, D) belong to the two images; a pair has one colour and number.
    `patch_size` is the side of a patch in pixels, needed where several fit.

    Raises:
        AIMv2Error: there is no such patch; the features do not fit the images.
    """
    pairs = nearest_patches(features, others, picked)
    figure, axes = picture(1, 2, width=7.6, height=4.0)
    figure.suptitle(title, fontsize="medium")
    sides = ((axes[0, 0], features, pixels, 0), (axes[0, 1], others, other_pixels, 1))
    places = []
    for ax, x, shown, which in sides:
        rgb = as_rgb(shown)
        side = patch_side(rgb.shape[:2], len(np.asarray(x)), patch_size)
        ax.imshow(rgb, interpolation="nearest")
        at = [int(pair[which]) for pair in pairs]
        _number(ax, at, rgb.shape[1] // side, side)
        places.append([_place(patch, rgb.shape[1] // side) for patch in at])
        ax.set(xticks=[], yticks=[])
    label(axes[0, 0], title="picked")
    label(axes[0, 1], title="most similar there")
    said = (
        f"{number}: {one}, and {other} ({cosine:.2f})"
        for number, (one, other, (*_, cosine)) in enumerate(zip(*places, pairs, strict=True), 1)
    )
    figure.say(
        f"{title or 'Nearest patches'}: {len(pairs)} patches of one image, the most similar ones "
        f"of another, and their cosines. {'; '.join(said)}."
    )
    return figure


def _number(ax: Axes, patches: Sequence[int], columns: int, side: int) -> None:
    """Frame patches and number them from 1; where several are one, it has all their numbers."""
    plate = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    for patch in dict.fromkeys(patches):
        numbers = [i for i, other in enumerate(patches) if other == patch]
        outline(ax, patch, columns, side, COLOURS[numbers[0] % len(COLOURS)])
        row, column = divmod(patch, columns)
        centre = (column + 0.5) * side - 0.5, (row + 0.5) * side - 0.5
        text = ", ".join(str(i + 1) for i in numbers)
        ax.text(*centre, text, ha="center", va="center", fontsize=8, bbox=plate)
