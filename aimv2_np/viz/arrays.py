"""What the pictures show, as plain NumPy: no matplotlib here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AIMv2Error
from ..images import CLIP_MEAN, CLIP_STD

__all__ = ["among", "as_rgb", "grid_of", "nearest_patches", "needed", "patch_side"]

Array = NDArray[Any]


def as_rgb(image: ArrayLike) -> Array:
    """An image as colours to look at: (Y, X, 3), 0 to 1.

    Takes what models take or give: uint8 (Y, X, 3), float (Y, X, 3) from 0 to 1, or normalised
    pixels (3, Y, X), or (1, 3, Y, X), whose normalisation (CLIP's mean and deviation) is undone.

    Raises:
        AIMv2Error: none of these.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.asarray(pixels / 255 if pixels.dtype == np.uint8 else np.clip(pixels, 0, 1))
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        rgb = pixels.transpose(1, 2, 0) * CLIP_STD + np.array(CLIP_MEAN)
        return np.asarray(np.clip(rgb, 0, 1))
    raise AIMv2Error(
        f"an image to draw is (Y, X, 3), or normalised (3, Y, X); found the shape {pixels.shape}"
    )


def patch_side(size: tuple[int, ...], patches: int, side: int | None = None) -> int:
    """The side of a patch, in pixels, where an image of a size (Y, X) gives so many patches.

    Raises:
        AIMv2Error: no side, or several, fit, or `side` does not.
    """
    height, width = size
    sides = [p for p in range(1, min(height, width) + 1) if (height // p) * (width // p) == patches]
    if side in sides:
        return side
    if side is None and len(sides) == 1:
        return sides[0]
    asked = "" if side is None else f" of {side} × {side} pixels"
    advice = f"; pass patch_size=, one of {sides}" if sides else ""
    raise AIMv2Error(f"{height} × {width} pixels do not give {patches} patches{asked}{advice}")


def grid_of(values: Array, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of N patches: those given, or those of a square.

    Raises:
        AIMv2Error: they do not fit.
    """
    count = len(values)
    rows, columns = grid or (round(count**0.5),) * 2
    if rows * columns != count:
        raise AIMv2Error(f"{count} patches are no grid of {rows} × {columns}; pass grid=")
    return rows, columns


def among(index: int, count: int, what: str) -> None:
    """An index that must be one of `count`.

    Raises:
        AIMv2Error: it is not.
    """
    if not 0 <= index < count:
        raise AIMv2Error(f"there is no {what} {index}: there are {count}, from 0")


def needed(trace: Mapping[str, Array], *names: str) -> list[Array]:
    """Activations of a trace.

    Raises:
        AIMv2Error: some were not recorded.
    """
    missing = [name for name in names if name not in trace]
    if missing:
        raise AIMv2Error(
            f"the trace lacks {', '.join(missing[:3])}; record all with model.trace(images), or "
            f"with names={missing[:3]!r}"
        )
    return [np.asarray(trace[name]) for name in names]


def depth_of(trace: Mapping[str, Array], tower: str) -> int:
    """How many blocks of a tower a trace has recorded the end of, from the first on.

    Raises:
        AIMv2Error: none.
    """
    depth = 0
    while f"{tower}.blocks.{depth}.resid_post" in trace:
        depth += 1
    if not depth:
        needed(trace, f"{tower}.blocks.0.resid_post")
    return depth


def nearest_patches(
    features: ArrayLike, others: ArrayLike, picked: Sequence[int]
) -> list[tuple[int, int, float]]:
    """For each picked patch of one image the most similar one of another: (patch, other, cosine).

    features (N, D), others (M, D).

    Raises:
        AIMv2Error: there is no such patch.
    """
    for patch in picked:
        among(patch, len(np.asarray(features)), "patch")
    a, b = (np.asarray(x, np.float64) for x in (features, others))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosines = a[list(picked)] @ b.T
    best = cosines.argmax(axis=1)
    return [(p, int(j), float(c[j])) for p, j, c in zip(picked, best, cosines, strict=True)]
