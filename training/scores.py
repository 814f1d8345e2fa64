"""How well scores put the right one first. NumPy alone, so that the default tests can judge it."""

import numpy as np


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many wrong columns score no lower than each row's right one: (N, M) to (N,)."""
    own = np.take_along_axis(scores, right[:, None], axis=1)
    return (~(scores < own)).sum(axis=1) - 1  # so that NaN is no success


def summary(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 of rows, percent."""
    found = ranks(scores, right)
    return {f"top-{k}": round(100 * float((found < k).mean()), 2) for k in (1, 5)}
