"""Principal components of patch features, and their colours: for the pictures and for the page."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array

__all__ = ["as_colours", "components", "oriented", "principal_components"]

_ENDS = 2, 98  # percent of the scores between which colours change: one odd patch takes none
_SMALL = 256  # rows of a matrix whose eigenvectors are found in no time
_SPARE = 8  # vectors that are iterated beyond those asked for, so that these settle sooner
_ROUNDS, _SETTLED = 60, 1e-7


def principal_components(features: ArrayLike, count: int = 3) -> Array:
    """The coordinates of N features (N, D) along their first principal components, (N, count).

    The mean is subtracted. A component's sign, which is arbitrary, is chosen so that its largest
    coordinate is positive. Where there are fewer components, coordinates are zero.
    """
    return oriented(components(features, count)[0])


def oriented(scores: Array) -> Array:
    """Scores (N, count), each component with the sign that makes its largest one positive."""
    largest = np.take_along_axis(scores, np.abs(scores).argmax(axis=0)[None], axis=0)
    return np.asarray(scores * np.where(largest < 0, -1, 1))


def components(features: ArrayLike, count: int = 3) -> tuple[Array, Array]:
    """The same, of any sign, and each component's share of the variance, (count,).

    From the eigenvectors of the smaller of the two products, (N, N) or (D, D).
    """
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    wide = x.shape[0] <= x.shape[1]
    values, vectors = _leading(x @ x.T if wide else x.T @ x, count)
    values = np.maximum(values, 0)
    found = vectors * np.sqrt(values) if wide else x @ vectors
    total = np.square(x).sum()
    scores, shares = np.zeros((len(x), count)), np.zeros(count)
    scores[:, : found.shape[1]] = found
    shares[: len(values)] = values / total if total > 0 else 0
    return scores, shares


def _leading(product: Array, count: int) -> tuple[Array, Array]:
    """The largest eigenvalues of a symmetric matrix (M, M), descending, and their vectors.

    Of a large one by subspace iteration, which costs M² a round where all eigenvectors cost M³;
    what does not settle, because the values lie close together, is left to all of them.
    """
    if len(product) > _SMALL:
        start = np.random.default_rng(0).standard_normal((len(product), count + _SPARE))
        basis = np.linalg.qr(start)[0]
        for _ in range(_ROUNDS):
            image = product @ basis
            values, turn = np.linalg.eigh(basis.T @ image)
            values, turn = values[::-1][:count], turn[:, ::-1][:, :count]
            vectors = basis @ turn
            if np.linalg.norm(image @ turn - vectors * values) <= _SETTLED * abs(values[0]):
                return values, vectors
            basis = np.linalg.qr(image)[0]
    values, vectors = np.linalg.eigh(product)  # ascending
    return values[::-1][:count], vectors[:, ::-1][:, :count]


def as_colours(scores: Array) -> Array:
    """Scores (…, N, count) from 0 to 1, each component by itself, with its ends clipped.

    What differs nowhere lies in the middle.
    """
    low, high = np.percentile(scores, _ENDS, axis=-2, keepdims=True)
    differs = high > low
    part = (scores - low) / np.where(differs, high - low, 1)
    return np.asarray(np.where(differs, np.clip(part, 0, 1), 0.5))
