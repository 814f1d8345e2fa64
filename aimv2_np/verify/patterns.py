"""What an error looks like, in words: everywhere or in some rows, a factor, a permutation."""

from __future__ import annotations

import numpy as np

from ..ops import Array
from .measure import hidden_as_finite, hides, rows_of

__all__ = ["ALL", "describe", "simple"]

ALL = "all its vectors differ"

_MANY = 0.9  # of all rows, heads or channels count as all of them
_CLEAR = 0.999  # how much a pattern must explain to be mentioned
_HUGE = 1e100  # beyond it squares overflow
_ROUNDING = 1e-5  # of the largest value


def describe(
    name: str,
    found: Array,
    truth: Array,
    real: Array | None = None,
    grid: tuple[int, int] | None = None,
) -> list[str]:
    """Sentences on how an activation differs from the truth, the most telling first."""
    found, truth = (np.asarray(a, np.float64) for a in (found, truth))
    if np.abs(np.nan_to_num(found, posinf=0, neginf=0)).max(initial=0.0) > _HUGE:
        return ["some numbers are huge"]
    seen = _seen(rows_of(name, found, real), rows_of(name, truth, real))
    found, truth = hidden_as_finite(found, truth)
    undefined = ~np.isfinite(found)
    found = np.where(undefined, truth, found)
    rows, right = rows_of(name, found, real), rows_of(name, truth, real)
    error = rows - right
    if np.abs(error).max(initial=0.0) <= _ROUNDING * np.abs(right).max(initial=0.0):
        some = undefined.any() and not undefined.all()
        return ["all finite values are right"] if some else []
    return [*(seen or simple(rows, right)), *_where(name, error, found, truth, grid)]


def simple(rows: Array, right: Array) -> list[str]:
    """Whether rows are the right ones up to a factor, an offset or their order, all finite."""
    return [*_factor(rows, right), *_offset(rows - right), *_permuted(rows, right)]


def _seen(rows: Array, right: Array) -> list[str]:
    """Whether queries see keys that they should not, or do not see those that they should."""
    hidden, low = np.isneginf(right), hides(rows, right)
    said = []
    if (hidden & ~low).any():
        said.append(f"{(hidden & ~low).sum() / hidden.sum():.0%} of what should be hidden is seen")
    if (low & ~hidden).any():
        said.append(
            f"{(low & ~hidden).sum() / (~hidden).sum():.0%} of what should be seen is hidden"
        )
    return said


def _share(left: Array, error: Array) -> float:
    """How much of an error is explained by what leaves `left` of it."""
    return float(1 - np.square(left).sum() / np.square(error).sum())


def _factor(rows: Array, right: Array) -> list[str]:
    """A constant factor, or one per row."""
    error = rows - right
    factor = float((rows * right).sum() / max(np.square(right).sum(), 1e-300))
    if _share(rows - factor * right, error) > _CLEAR:
        return [f"it is {factor:.6g} times what it should be"]
    each = (rows * right).sum(axis=1, keepdims=True)
    each = each / np.maximum(np.square(right).sum(axis=1, keepdims=True), 1e-300)
    if right.shape[1] > 2 and _share(rows - each * right, error) > _CLEAR:
        low, high = (f"{end:.5g}" for end in (each.min(), each.max()))
        return [f"each vector has the right direction and the wrong length ({low} to {high})"]
    return []


def _offset(error: Array) -> list[str]:
    """The same vector added to every row."""
    if len(error) > 2 and _share(error - error.mean(axis=0), error) > _CLEAR:
        return ["the same vector is added to every token"]
    return []


def _permuted(rows: Array, right: Array) -> list[str]:
    """The right rows, or the right channels, in another order."""
    error = rows - right
    if right.shape[1] > 1 and _share(np.sort(rows) - np.sort(right), error) > _CLEAR:
        return ["each vector has the right numbers in the wrong order"]
    first = [a[np.lexsort(a.round(4).T[:3])] for a in (rows, right)]  # rows sorted by their start
    if len(rows) > 1 and _share(first[0] - first[1], error) > _CLEAR:
        return ["the right vectors stand in the wrong order"]
    return []


def _by_patch(found: Array, truth: Array) -> tuple[int, Array] | None:
    """The image or text with the largest error, and that of each of its tokens, (N,)."""
    if truth.ndim < 3 or found.shape != truth.shape:
        return None
    error = np.square(found - truth)
    each = np.sqrt(error.sum(axis=(1, 3) if error.ndim == 4 else -1))  # (B, N)
    worst = int(each.max(axis=1).argmax())
    return worst, each[worst]


def _where(
    name: str, error: Array, found: Array, truth: Array, grid: tuple[int, int] | None
) -> list[str]:
    """In which tokens, heads or channels the error is."""
    said = []
    lengths = np.sqrt(np.square(error).sum(axis=1))
    share = float((lengths > 0.01 * lengths.max()).mean())
    said.append(f"{share:.0%} of its vectors differ" if share < _MANY else ALL)
    worst = _by_patch(found, truth)
    if grid is not None and worst and share < _MANY and worst[1].size == grid[0] * grid[1]:
        image, each = worst
        rows, columns = np.nonzero(each.reshape(grid) > 0.01 * each.max())
        said.append(f"patches in rows {_span(rows)}, columns {_span(columns)} of image {image}")
    if truth.ndim == 4 and found.shape == truth.shape and truth.shape[1] > 1:
        heads = np.sqrt(np.square(found - truth).sum(axis=(0, 2, 3)))
        wrong = np.flatnonzero(heads > 0.01 * heads.max())
        if len(wrong) < _MANY * len(heads):
            said.append(f"only in heads {', '.join(map(str, wrong))}")
    channels = np.sqrt(np.square(error).sum(axis=0))
    wrong = np.flatnonzero(channels > 0.01 * channels.max())
    if len(wrong) < 0.5 * len(channels):
        said.append(f"{len(wrong)} of {len(channels)} channels differ ({_span(wrong)})")
    return said


def _span(numbers: Array) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low} to {high}"
