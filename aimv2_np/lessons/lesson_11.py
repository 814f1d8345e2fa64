"""The exercises of lesson 11, write a backend."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from ..backend import NUMPY
from .judging import Wrong, array, call, choice, exercise


@exercise("11.rms_norm")
def rms_norm(function: Any) -> str:
    """By hand: mean squares of 25 - 0.25 and 4 - 0.25, so that the roots are 5 and 2."""
    weight, eps = np.array([1.0, 2.0, -1.0]), 0.25
    first = np.array([1.0, 2.0, math.sqrt(3 * 24.75 - 5)])
    second = np.array([-1.0, 3.0, math.sqrt(3 * 3.75 - 10)])
    x = np.stack([first, second])
    right = np.stack([first / 5, second / 2]) * weight
    size = np.sqrt((x**2).sum(axis=1, keepdims=True) + eps)
    spread = x - x.mean(axis=1, keepdims=True)
    hints = [
        (right / weight, "the weight is missing"),
        (right / weight * (1 + weight), "multiply by the weight, not by 1 + weight"),
        (x / size * weight, "take the mean of the squares, not their sum"),
        (x / np.sqrt((x**2).mean() + eps) * weight, "each row has a mean of its own"),
        (spread / np.sqrt((spread**2).mean(axis=1, keepdims=True) + eps) * weight,
         "no mean is subtracted: that would be LayerNorm"),
        (x / (np.sqrt((x**2).mean(axis=1, keepdims=True)) + eps) * weight,
         "eps is added to the mean square, under the root"),
        (x / np.sqrt((x**2).mean(axis=1, keepdims=True)) * weight, "eps is missing"),
        (x / ((x**2).mean(axis=1, keepdims=True) + eps) * weight, "the root is missing"),
    ]  # fmt: skip
    array(call(function, x, weight, eps), right, hints)
    deep = np.stack([x, x[::-1]])
    middle = deep / np.sqrt((deep**2).mean(axis=1, keepdims=True) + eps) * weight
    hints = [(middle, "right for (N, D), but with more axes the last is not axis 1: axis=-1")]
    three = call(function, deep, weight, eps)
    array(three, np.stack([right, right[::-1]]), hints, what="the norm of (2, 2, 3)")
    return "over the last axis, whatever comes before it."


@exercise("11.softmax")
def softmax(function: Any) -> str:
    """By hand: exponentials 1, 2, 5; one of them hidden; all of them hidden."""
    logs, nothing = np.log([[1.0, 2.0, 5.0]]), np.full((1, 3), -np.inf)
    some = np.where([[True, False, True]], logs, -np.inf)
    x = np.concatenate([logs, some, logs + 2000])
    right = np.array([[1.0, 2.0, 5.0], [8 / 6, 0.0, 40 / 6], [1.0, 2.0, 5.0]]) / 8
    small = call(function, x[:2])
    e = np.exp(x[:2])
    hints = [(e, "divide each row by its sum"), (e / e.sum(), "each row has a sum of its own")]
    array(small, right[:2], hints)
    large = np.asarray(call(function, x), np.float64)
    if not np.isfinite(large).all():
        raise Wrong("NaN or infinity for large scores: subtract each row's own largest before exp")
    array(large, right, what="softmax with large scores")
    empty = np.asarray(call(function, np.concatenate([logs, nothing])), np.float64)
    if not np.isfinite(empty).all():
        raise Wrong(
            "a row of -inf alone gives NaN: its largest is -inf, and -inf - (-inf) is none; it "
            "should give zeros"
        )
    uniform = np.array([[1 / 8, 2 / 8, 5 / 8], [1 / 3] * 3])
    hints = [(uniform, "where nothing may be seen, nothing gets a weight: zeros, not thirds")]
    array(empty, np.array([[1 / 8, 2 / 8, 5 / 8], [0.0] * 3]), hints, what="a row of -inf")
    return "large scores do not overflow, and where nothing is seen there are zeros."


@exercise("11.merged")
def merged(function: Any) -> str:
    """By softmax over all five keys at once, one number after the other."""
    scores, values = [0.5, 2.0, -1.0, 3.5, 1.0], np.arange(10.0).reshape(5, 2) ** 1.5

    def part(some: slice) -> tuple[float, float, Any]:
        m = max(scores[some])
        weights = [math.exp(a - m) for a in scores[some]]
        c = sum(w * v for w, v in zip(weights, values[some], strict=True))
        return m, math.fsum(weights), c

    one, two = part(slice(2)), part(slice(2, None))
    weights = [math.exp(a) / math.fsum(map(math.exp, scores)) for a in scores]
    right = sum(w * v for w, v in zip(weights, values, strict=True))
    (m1, s1, c1), (m2, s2, c2) = one, two
    m = max(m1, m2)
    sums = math.exp(m1 - m) * s1 + math.exp(m2 - m) * s2
    hints = [
        ((c1 + c2) / (s1 + s2), "the two are relative to different maxima: scale each by "
         "exp(its m - the larger m) first"),
        (np.asarray(right) * sums, "divide by the sum in the end"),
        ((c1 / s1 + c2 / s2) / 2, "the halves do not weigh the same: their sums differ"),
        ((math.exp(m1 - m) * c1 + math.exp(m2 - m) * c2) / (s1 + s2),
         "the sums are scaled as the weighted sums are"),
        ((c1 * math.exp(m - m1) + c2 * math.exp(m - m2)) / (s1 * math.exp(m - m1)
         + s2 * math.exp(m - m2)), "exp(its m - the larger m), not the other way round"),
    ]  # fmt: skip
    array(call(function, *one, *two), np.asarray(right), hints, what="the context")
    array(call(function, *two, *one), np.asarray(right), what="the context, halves exchanged")
    far = call(function, m1 + 2000, s1, c1, m2 + 2000, s2, c2)
    if not np.isfinite(np.asarray(far, np.float64)).all():
        raise Wrong("exp overflows for large scores: use only differences to the larger m")
    array(far, np.asarray(right), what="the context of large scores")
    return "so attention can be split among threads, or machines."


@exercise("11.entry")
def entry(answer: Any) -> str:
    """As backends/README.md has it."""
    each = "it runs in every call, on what flows through the model"
    hints = {
        "asarray": f"{each}: pixels, not weights",
        "linear": f"{each}; it should find its weights where they are needed",
        "block": each,
        "transformer": each,
        "patch_embed": each,
        "offloads": "it only says that a device computes while the host goes on",
        "to_numpy": "it brings results back",
        "dtypes": "it only lists names",
        "name": "it is only a name",
    }
    choice(answer, "prepare", hints, [field.name for field in fields(NUMPY)])
    return "it runs once per load; cast, upload, or lay out anew."
