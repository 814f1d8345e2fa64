"""How far one activation is from another, as a fraction of its size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MERGED",
    "Distance",
    "distance",
    "error_of",
    "hidden_as_finite",
    "hides",
    "real_of",
    "rows_of",
]

Array = NDArray[Any]
_BELOW = 50.0  # a score so far below its row's largest is as good as -inf: softmax makes 0 of it
_LOW = -1e3  # the same, whatever the row's largest is
MERGED = ("attn.q", "attn.k", "attn.v", "attn.context", "head.k", "head.v", "head.context")


class Distance(NamedTuple):
    """‖found - truth‖ over all vectors, and of the worst one, both over the vectors' size.

    That size is the root mean square of the true vectors' lengths.
    """

    overall: float
    worst: float

    def over(self, floor: Distance) -> float:
        """As a multiple of another distance, by whichever of the two is the larger multiple."""
        return max(
            (mine / base if base > 0 else np.inf if mine > 0 else 0.0)
            for mine, base in zip(self, floor, strict=True)
        )

    def __or__(self, other: Distance) -> Distance:
        """The larger of each."""
        return Distance(max(self.overall, other.overall), max(self.worst, other.worst))


def rows_of(name: str, value: Array, real: Array | None = None) -> Array:
    """An activation as rows: one per token (heads merged), or per query and head.

    `real` (B, T): which tokens of a text are meant; the rows of others are left out.
    """
    value = np.asarray(value)
    if name.endswith(MERGED) and value.ndim == 4:  # (B, H, N, E) to (B, N, D)
        value = value.swapaxes(1, 2).reshape(value.shape[0], value.shape[2], -1)
    if real is not None and value.ndim == 3 and value.shape[:2] == real.shape:
        value = value[real]
    elif real is not None and value.ndim == 4 and value.shape[0::2][:2] == real.shape:
        value = value.swapaxes(1, 2)[real]  # (n, H, M)
    return value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)


def hides(found: Array, truth: Array) -> Array:
    """Which scores, (..., M), hide their keys; `truth` shows how large a row's scores should be."""
    hidden = np.isneginf(truth)
    most = np.where(hidden, -np.inf, truth).max(axis=-1, keepdims=True)
    below = np.where(np.isfinite(most), most - _BELOW, _LOW)
    return np.asarray(found <= np.where(hidden, below, _LOW))


def hidden_as_finite(found: Array, truth: Array) -> tuple[Array, Array]:
    """Two arrays of scores with 0 where both hide a key.

    Where only one does, they are as far apart as the largest score is from 0.
    """
    hidden = np.isneginf(truth)
    if not hidden.any():
        return found, truth
    largest = np.abs(truth[~hidden]).max(initial=1.0)
    low = hides(found, truth)
    seen = np.where(np.isnan(found), np.nan, largest)
    found = np.where(hidden, np.where(low, 0.0, seen), np.where(low, -largest, found))
    return found, np.where(hidden, 0.0, truth)


def _squares(rows: Array) -> Array:
    """The squared length of each row."""
    return np.asarray(np.einsum("rw,rw->r", rows, rows))


def distance(found: Array, truth: Array) -> Distance:
    """Between two arrays of rows, (R, W); truth in float64.

    Where truth is -inf, found must be so low that softmax makes 0 of it; where it is NaN, NaN.
    """
    found, truth = (np.asarray(a, np.float64) for a in (found, truth))
    with np.errstate(all="ignore"):
        squares, sizes = _squares(found - truth), _squares(truth)
        if not (np.isfinite(squares).all() and np.isfinite(sizes).all()):
            undefined = np.isnan(found) & np.isnan(truth)
            found, truth = np.where(undefined, 0.0, found), np.where(undefined, 0.0, truth)
            found, truth = hidden_as_finite(found, truth)
            squares, sizes = _squares(found - truth), _squares(truth)
        size = np.sqrt(sizes.mean()) or 1.0
        overall = float(np.sqrt(squares.mean()) / size)
        worst = float(np.sqrt(squares.max(initial=0.0)) / size)
    return Distance(*(np.inf if np.isnan(d) else d for d in (overall, worst)))


def real_of(name: str, real: Array | None) -> Array | None:
    """`real` for activations of the text encoder that have a row per token."""
    return real if name.startswith("text.") else None


def error_of(name: str, found: Array, truth: Array, real: Array | None = None) -> Distance:
    """How far an activation is from the true one; `real` (K, T): which tokens of texts count."""
    real = real_of(name, real)
    return distance(rows_of(name, found, real), rows_of(name, truth, real))
