"""The exercises of lesson 03, RMSNorm and the residual stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, Wrong, array, call, exercise, number


@exercise("03.third")
def third(answer: Any) -> str:
    """The squares 1, 1, 49, 49 have the mean 25, whose root is 5; 7 / 5 · 3."""
    hints = {
        7 / 5: "the weight of the third channel is missing",
        7 / 10 * 3: "this was divided by the length, the root of the *sum* of the squares",
        7 / 25 * 3: "this was divided by the mean square; take its root",
        3.0: "this is LayerNorm: RMSNorm subtracts no mean",
        7 / 5 * 4: "the weight is used as it is, not as 1 + w",
        7 / 4 * 3: "this was divided by the mean; take the root of the mean of the squares",
        5.0: "this is the RMS; divide the third number by it, and multiply by its weight",
        21.0: "this was not divided by the RMS",
    }
    number(answer, 4.2, hints)
    return "the RMS is 5, and 7 / 5 · 3 = 4.2."


@exercise("03.norm")
def norm(function: Any) -> str:
    """By loops and math.sqrt, on (2, 3, 4), with an eps that shows."""
    rng = np.random.default_rng(3)
    x, weight, eps = rng.normal(size=(2, 3, 4)) + 0.5, rng.normal(size=4), 0.25
    centred = x - x.mean(axis=-1, keepdims=True)
    square = np.square(x)
    everywhere = np.sqrt(square.mean() + eps)
    tokens = np.sqrt(square.mean(axis=(-2, -1), keepdims=True) + eps)
    right = _normed(x, weight, eps)
    outside = np.sqrt(square.mean(axis=-1, keepdims=True)) + eps
    hints = [
        (_normed(x, np.ones(4), eps), "the weight is missing"),
        (_normed(x, 1 + weight, eps), "the weight is used as it is, not as 1 + w"),
        (_normed(x, weight, 0), "eps is missing"),
        (x / outside * weight, "eps is added to the mean of the squares, under the root"),
        (x / (square.mean(axis=-1, keepdims=True) + eps) * weight, "the root is missing"),
        (x / np.sqrt(square.sum(axis=-1, keepdims=True) + eps) * weight, "this takes the sum of "
         "the squares; take their mean"),
        (x / np.linalg.norm(x, axis=-1, keepdims=True) * weight, "this divides by the length, the "
         "root of the *sum* of the squares; take their mean, and add eps"),
        (_normed(centred, weight, eps), "this is LayerNorm: subtract no mean"),
        (x / everywhere * weight, "each vector has an RMS of its own: axis=-1, keepdims=True"),
        (x / tokens * weight, "the mean runs over the last axis only"),
        (x / np.sqrt(square.mean(axis=1, keepdims=True) + eps) * weight, "the mean runs over "
         "the last axis, the channels, for x with any number of axes"),
    ]  # fmt: skip
    array(call(function, x, weight, eps), right, hints)
    array(call(function, x[0, 0], weight, eps), right[0, 0], what="the norm of a single vector")
    zeros = np.asarray(call(function, 0 * x, weight, eps), np.float64)
    if zeros.any():
        raise Wrong("a vector of zeros should stay one")
    return "a mean over the last axis, kept, so that it divides each vector."


def _normed(x: Array, weight: Array, eps: float) -> Array:
    """One vector after the other, one number after the other."""
    made = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        mean = math.fsum(float(v) ** 2 for v in x[index]) / x.shape[-1]
        for d, v in enumerate(x[index]):
            made[index][d] = float(v) / math.sqrt(mean + eps) * weight[d]
    return made


@exercise("03.fold")
def fold(function: Any) -> str:
    """Column by column: column d of V meets x_d, and so did w_d."""
    W, weight = np.arange(1.0, 13.0).reshape(3, 4), np.array([2.0, -1.0, 0.5, 3.0])
    right = np.stack([W[:, d] * weight[d] for d in range(4)], axis=1)
    hints = [
        (W, "the weight is missing"),
        (W / weight, "multiply; this divides"),
        (W * (1 + weight), "the weight is used as it is, not as 1 + w"),
        (right.T, "V has the shape of W, (O, D)"),
        (W @ weight, "this sums over the channels; each column of W is multiplied by its weight"),
    ]
    array(call(function, W, weight), right, hints, what="V")
    square = np.arange(9.0).reshape(3, 3) + 1
    by_rows = [(square * weight[:3, None], "this multiplies W's rows, which are outputs; channel d "
                "of x meets column d")]  # fmt: skip
    columns = np.stack([square[:, d] * weight[d] for d in range(3)], axis=1)
    array(call(function, square, weight[:3]), columns, by_rows, what="V for a square W")
    return "the columns of W take the weights. Some exports fold all norms so."


@exercise("03.count")
def count(answer: Any) -> str:
    """1 + 2 · 24."""
    hints = {
        24: "each block adds twice, and there is the embedding",
        25: "each block adds twice: attention, and MLP",
        48: "these are the additions; the embedding counts, too",
        50: "patches and positions together are the embedding, and count as one",
        13: "that is emoji-lit, with 6 blocks",
    }
    number(answer, 49, hints)
    return "the embedding, and two additions in each of 24 blocks."
