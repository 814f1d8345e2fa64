"""What an error looks like, in words: everywhere or in some rows, a factor, a permutation."""

from __future__ import annotations

import numpy as np

from ..ops import Array
from .measure import rows_of

__all__ = ["by_patch", "describe"]

_MANY = 0.9  # of all rows, heads or channels count as all of them
_CLEAR = 0.999  # how much a pattern must explain to be mentioned


def describe(
    name: str,
    found: Array,
    truth: Array,
    real: Array | None = None,
    grid: tuple[int, int] | None = None,
) -> list[str]:
    """Sentences on how an activation differs from the truth, the most telling first."""
    rows, right = (np.asarray(rows_of(name, a, real), np.float64) for a in (found, truth))
    hidden = ~np.isfinite(right) | ~np.isfinite(rows)
    rows, right = (np.where(hidden, 0.0, a) for a in (rows, right))
    error = rows - right
    if not error.any():
        return ["all finite values are right"] if hidden.any() else []
    said = [*_factor(rows, right), *_offset(error), *_permuted(rows, right)]
    said += _where(name, error, np.asarray(found), np.asarray(truth), grid)
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
        low, high = float(each.min()), float(each.max())
        return [
            f"each vector has the right direction and the wrong length ({low:.3g} to {high:.3g})"
        ]
    return []


def _offset(error: Array) -> list[str]:
    """The same vector added to every row."""
    if len(error) > 2 and _share(error - error.mean(axis=0), error) > _CLEAR:
        return ["the same vector is added to every token"]
    return []


def _permuted(rows: Array, right: Array) -> list[str]:
    """The right rows, or the right channels, in another order."""
    if not 2 <= len(rows) <= 5000:
        return []
    if np.allclose(np.sort(rows, axis=1), np.sort(right, axis=1), atol=1e-4 * np.abs(right).max()):
        return ["each vector has the right numbers in the wrong order"]
    norms = [np.stack([np.sort(np.abs(a).sum(axis=1)), np.sort(np.square(a).sum(axis=1))])
             for a in (rows, right)]  # fmt: skip
    if np.allclose(norms[0], norms[1], rtol=1e-4):
        return ["the right vectors stand in the wrong order"]
    return []


def by_patch(name: str, found: Array, truth: Array, real: Array | None = None) -> Array | None:
    """The error of each token of the first image or text, (N,), or None where there are none."""
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    if truth.ndim < 3 or found.shape != truth.shape:
        return None
    error = np.nan_to_num(found[0] - truth[0], posinf=0, neginf=0)
    axes = (*range(error.ndim - 2), error.ndim - 1)
    each = np.sqrt(np.square(error).sum(axis=axes))
    return each if real is None else np.where(real[0], each, 0.0)


def _where(
    name: str, error: Array, found: Array, truth: Array, grid: tuple[int, int] | None
) -> list[str]:
    """In which tokens, heads or channels the error is."""
    said = []
    lengths = np.sqrt(np.square(error).sum(axis=1))
    share = float((lengths > 0.01 * lengths.max()).mean())
    said.append(f"{share:.0%} of its vectors differ" if share < _MANY else "all its vectors differ")
    each = by_patch(name, found, truth)
    if grid is not None and each is not None and share < _MANY and each.size == grid[0] * grid[1]:
        rows, columns = np.nonzero(each.reshape(grid) > 0.01 * each.max())
        said.append(f"patches in rows {_span(rows)}, columns {_span(columns)} of the first image")
    if truth.ndim == 4 and found.shape == truth.shape and truth.shape[1] > 1:
        difference = np.nan_to_num(found - truth, posinf=0, neginf=0)
        heads = np.sqrt(np.square(difference).sum(axis=(0, 2, 3)))
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
