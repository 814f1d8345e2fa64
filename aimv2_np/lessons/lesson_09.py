"""The exercises of lesson 09, zero-shot classification."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Wrong, array, call, exercise, number


@exercise("09.embed")
def embed(function: Any) -> str:
    """By loops: 4 vectors of width 3 to a space of 2."""
    rng = np.random.default_rng(9)
    pooled, W = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    plain, right, before = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for b, row in enumerate(pooled):
        plain[b] = [math.fsum(weight * row) for weight in W]
        right[b] = plain[b] / math.hypot(*plain[b])
        before[b] = plain[b] / math.hypot(*row)
    hints = [
        (plain, "projected, but not of length 1"),
        (before, "project first, then normalise: this has length 1 before the projection"),
        (plain / np.sqrt((plain**2).sum()), "each row has a length of its own; this is that of the "
         "whole array"),
        (plain / np.sqrt((plain**2).sum(axis=0)), "the columns have length 1: sum over the last "
         "axis"),
        (right**2 * np.sign(plain), "the length is the *root* of the sum of squares"),
        (plain / (plain**2).sum(axis=1, keepdims=True), "the length is the *root* of the sum of "
         "squares"),
        (plain / np.abs(plain).sum(axis=1, keepdims=True), "this is divided by the sum of absolute "
         "values; the length is the root of the sum of squares"),
    ]  # fmt: skip
    array(call(function, pooled, W), right, hints, what="the embeddings")
    return "projected, and then of length 1."


@exercise("09.two")
def two(answer: Any) -> str:
    """100 · 0.05 = 5, so 1 / (1 + e⁻⁵)."""
    hints = {
        1 / (1 + math.exp(-0.05)): "without the scale; multiply the cosines by 100",
        1 / (1 + math.exp(5)): "that is the other text's",
        0.30 / 0.55: "softmax takes exponentials",
        math.exp(5): "that is how many times more probable the first is than the second",
        30: "that is the first logit",
        5: "that is the difference of the logits; softmax takes exponentials",
        0.99: "right so far; give a third digit",
        99.33: "as a number between 0 and 1",
    }
    number(answer, 1 / (1 + math.exp(-5)), hints, within=6e-4)
    return "0.993. A difference of 0.05 decides, if the scale is 100."


@exercise("09.scale")
def scale(function: Any) -> str:
    """Powers of e, by hand: inside, below 1, above 100."""
    for stored, right in ((math.log(10), 10.0), (math.log(50), 50.0)):
        found = _one(function, stored)
        if math.isclose(found, stored, rel_tol=1e-6):
            raise Wrong("this is the logarithm itself; the scale is its exponential")
        if math.isclose(found, 1 / right, rel_tol=1e-6):
            raise Wrong("this is the temperature; the scale is one over it")
        number(found, right)
    below, above = _one(function, -1.0), _one(function, 5.0)
    if math.isclose(above, math.exp(5), rel_tol=1e-6):
        raise Wrong("right between 0 and ln 100, but a stored 5 gives 148; 100 is the most")
    if math.isclose(below, math.exp(-1), rel_tol=1e-6):
        raise Wrong("right from 0 on, but a stored -1 gives 0.37; 1 is the least")
    number(above, 100.0)
    number(below, 1.0)
    return "1 at least, 100 at most."


def _one(function: Any, stored: float) -> float:
    found = np.asarray(call(function, stored))
    if found.size != 1 or not np.issubdtype(found.dtype, np.number):
        raise Wrong(f"a number is asked for, found the shape {found.shape}")
    return float(found.reshape(()))


@exercise("09.ensemble")
def ensemble(function: Any) -> str:
    """By loops: 3 prompts, 2 classes, 4 wide."""
    vectors = np.random.default_rng(90).normal(size=(3, 2, 4))
    for one in vectors.reshape(-1, 4):
        one /= math.hypot(*one)
    mean = np.array([[math.fsum(vectors[:, k, d]) / 3 for d in range(4)] for k in range(2)])
    right = np.array([row / math.hypot(*row) for row in mean])
    hints = [
        (mean, "close, but a mean of vectors of length 1 is shorter than 1"),
        (3 * mean, "this is the sum; its length is not 1"),
        (vectors[0], "this is the first prompt alone"),
        (mean / np.sqrt((mean**2).sum()), "each class has a length of its own; this is that of the "
         "whole array"),
        (mean / np.sqrt((mean**2).sum(axis=0)), "the columns have length 1: sum over the last "
         "axis"),
    ]  # fmt: skip
    over_classes = vectors.mean(axis=1)
    over_classes /= np.sqrt((over_classes**2).sum(axis=1, keepdims=True))
    hints.append((over_classes, "this is the mean over the classes; take it over the prompts"))
    array(call(function, vectors), right, hints, what="the classes' vectors")
    return "one vector for each class, of length 1 again."


@exercise("09.confusion")
def confusion(function: Any) -> str:
    """Counted one by one; a class that nobody found, and pairs that occur more than once."""
    right, found = np.array([0, 0, 0, 1, 2, 2, 2, 3]), np.array([0, 1, 1, 1, 0, 2, 2, 0])
    counts = np.zeros((4, 4))
    for i, j in zip(right, found, strict=True):
        counts[i, j] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    hints = [
        (counts.T, "rows and columns are exchanged: a row is the right class"),
        ((counts > 0).astype(float), "it counts each pair once: counts[right, found] += 1 does not "
         "add up repeated pairs; np.add.at does"),
        (shares, "these are shares; counts are asked for"),
        (np.diag(np.diag(counts)), "these are only the right ones"),
    ]  # fmt: skip
    array(call(function, right, found, 4), counts, hints, what="the confusion matrix")
    return "the diagonal counts the right ones."
