"""Other ways to resize than Pillow's.

Each says for every new pixel along an axis which old ones it is made of: the number of the first,
(new,), and the weights of that one and of those after it, (new, n). Beyond the edge is the edge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ops import Array

__all__ = [
    "Taps",
    "antialiased",
    "areas",
    "corners",
    "first_pixels",
    "four_pixels",
    "resample",
    "two_pixels",
]

Taps = tuple[Array, Array]


def resample(pixels: Array, size: tuple[int, int], taps: Callable[[int, int], Taps]) -> Array:
    """Pixels (Y, X, 3) resized to (height, width), columns first as Pillow does."""
    pixels = np.asarray(pixels, np.float64)
    for axis in (1, 0):
        lines = pixels.swapaxes(0, axis)
        first, weights = taps(len(lines), size[axis])
        at = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, len(lines) - 1).astype(int)
        each = (weights[:, i, None, None] * lines[at[:, i]] for i in range(weights.shape[1]))
        pixels = np.asarray(sum(each)).swapaxes(0, axis)
    return pixels


def _centres(old: int, new: int) -> Array:
    """Where the new pixels' centres lie among the old pixels, (new,)."""
    return (np.arange(new) + 0.5) * old / new - 0.5


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel; a is -0.5 in Pillow and where torch antialiases, else -0.75 there."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def antialiased(old: int, new: int) -> Taps:
    """Pillow's bicubic, which looks at more pixels where an image is made smaller."""
    at, scale = _centres(old, new), max(old / new, 1.0)
    first = np.ceil(at - 2 * scale)
    pixels = first[:, None] + np.arange(int(4 * scale) + 1)
    weights = _cubic((at[:, None] - pixels) / scale, -0.5)
    weights = np.where((pixels >= 0) & (pixels < old), weights, 0)
    return first, weights / weights.sum(axis=1, keepdims=True)


def four_pixels(old: int, new: int) -> Taps:
    """Bicubic of the four nearest pixels, however much smaller an image is made."""
    at = _centres(old, new)
    first = np.floor(at) - 1
    return first, _cubic((at - first)[:, None] - np.arange(4), -0.75)


def two_pixels(old: int, new: int) -> Taps:
    """Linear between the two nearest pixels."""
    return _linear(_centres(old, new))


def corners(old: int, new: int) -> Taps:
    """The same where the first pixels' centres lie on each other, and the last ones'."""
    return _linear(np.arange(new) * ((old - 1) / max(new - 1, 1)))


def _linear(at: Array) -> Taps:
    first = np.floor(at)
    return first, 1 - np.abs((at - first)[:, None] - np.arange(2))


def first_pixels(old: int, new: int) -> Taps:
    """The pixel in which the new one begins."""
    return np.arange(new) * old // new, np.ones((new, 1))


def areas(old: int, new: int) -> Taps:
    """Each pixel by its share in the area of the new one."""
    begin = np.arange(new) * old / new
    first = np.floor(begin)
    pixels = first[:, None] + np.arange(int(np.ceil(old / new)) + 1)
    end = begin[:, None] + old / new
    shared = np.minimum(end, pixels + 1) - np.maximum(begin[:, None], pixels)
    return first, np.clip(shared, 0, None) * new / old
