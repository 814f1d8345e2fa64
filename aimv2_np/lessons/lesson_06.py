"""The exercises of lesson 06, the whole vision encoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Wrong, array, call, exercise, number


@exercise("06.block")
def block(function: Any) -> str:
    """By hand, with functions of one number: x = 3; norms add 1 and 10, attention is 100 y, the MLP
    1000 y."""

    def attention(y: Any) -> Any:
        return 100 * y

    def mlp(y: Any) -> Any:
        return 1000 * y

    def norm_1(y: Any) -> Any:
        return y + 1

    def norm_2(y: Any) -> Any:
        return y + 10

    found = call(function, 3.0, attention, mlp, norm_1, norm_2)
    middle = 3 + 100 * 4
    hints = {
        middle: "this is attention's half; the MLP comes after it",
        1000 * (middle + 10): "x + is missing before the MLP: both are added to the stream",
        400 + 1000 * 410: "the stream that attention is added to is missing: x + attention(…)",
        1000 * 410: "nothing is added to the stream: x + attention(…), then x + mlp(…)",
        middle + 1000 * 13: "the MLP should read the stream after attention was added to it",
        404 + 1000 * 414: "the first x is not normalised: x + attention(norm_1(x))",
        3 + 1000 * (middle + 10): "attention's part was lost: add the MLP to x + attention(…)",
        middle + 1000 * (middle + 1): "norm_1 was used twice; the MLP has a norm of its own",
        1303 + 1000 * 1304: "norm_1 stands before attention, norm_2 before the MLP",
        303 + 1000 * 303: "the norms are missing",
        304 + 1000 * 304 + 10: "the norms stand before attention and MLP, not after the sums",
    }
    try:
        number(found, middle + 1000 * (middle + 10), hints)
    except Wrong as wrong:
        if str(wrong) in hints.values():
            raise
        raise Wrong(
            f"{wrong}. For x = 3, norms that add 1 and 10, an attention that multiplies by 100 and "
            f"an MLP that multiplies by 1000 it should be {middle + 1000 * (middle + 10)}"
        ) from None
    return "x = x + attention(norm_1(x)), then x = x + mlp(norm_2(x))."


@exercise("06.nearest")
def nearest(function: Any) -> str:
    """By loops, on rows of different lengths, for which dot product and distance say otherwise."""
    a = np.array([[1.0, 0.2, 0.0], [0.0, 3.0, 0.5], [0.1, 0.0, 0.4]])
    b = np.array([[9.0, 9.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.5, 0.1], [0.5, 0.3, 4.0]])
    cosine = [[float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for y in b] for x in a]
    dot, apart = a @ b.T, np.array([[np.linalg.norm(x - y) for y in b] for x in a])
    table = np.array(cosine)
    hints = [
        (dot.argmax(axis=1), "this is the largest dot product, and favours long rows: bring both "
         "to length 1"),
        (apart.argmin(axis=1), "this is the smallest distance, and favours rows of its length"),
        (table.argmin(axis=1), "this is the smallest cosine"),
        (table.argmax(axis=0), "this says for each row of b which of a is most similar"),
        (table.max(axis=1), "these are the cosines; asked for is which row (argmax)"),
        (table, "these are all cosines; asked for is the largest in each row (argmax)"),
        ((dot / np.linalg.norm(a, axis=1, keepdims=True)).argmax(axis=1), "b's rows need length "
         "1, too: a long row wins"),
    ]  # fmt: skip
    array(call(function, a, b), table.argmax(axis=1), hints, what="the numbers")
    return "length 1 for both, one matrix product, and the largest in each row."


@exercise("06.parameters")
def parameters(answer: Any) -> str:
    """q, k, v, proj: 4 · 1,048,576. fc1, fc3, fc2: 3 · 2,883,584. Two norms: 2,048."""
    attention, mlp, norms = 4 * 1_048_576, 3 * 2_883_584, 2048
    right = attention + mlp + norms
    hints = {
        attention + mlp: "close: two norms have a weight for each channel",
        attention + mlp + 1024: "there are two norms in a block",
        attention * 3 // 4 + mlp + norms: "attention has four matrices: q, k, v, and the mixing "
        "of the heads",
        attention + mlp * 2 // 3 + norms: "SwiGLU has three matrices: gate, up, down",
        24 * right: "that is all 24 blocks",
        4 * right: "these are the bytes in float32",
        attention + norms: "the MLP is missing",
        mlp + norms: "attention is missing",
    }
    number(answer, right, hints)
    return "12.8 million, 24 times: 308 of the model's 309 million."


@exercise("06.share")
def share(function: Any) -> str:
    """By power iteration on the covariance, on 8 vectors of width 5 whose mean is not 0."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(8, 5)) * np.array([3.0, 1.5, 1.0, 0.5, 0.2]) + np.array([4, -3, 2, 0, 1])

    def power(y: Any) -> float:
        covariance, v = y.T @ y, np.ones(y.shape[1])
        for _ in range(2000):
            v = covariance @ v
            v /= np.linalg.norm(v)
        return float(v @ covariance @ v) / float(np.trace(covariance))

    right = power(x - x.mean(axis=0))
    s = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    hints = {
        power(x): "the mean was not subtracted",
        float(s[0] / s.sum()): "variances are the *squares* of the singular values",
        float(s[0] ** 2): "divide by the sum over all components",
        float(s[0]): "this is the first singular value; its square, as a share of all squares",
        100 * right: "as a number from 0 to 1, please",
        1 - right: "this is what the others have",
        power(x - x.mean(axis=1, keepdims=True)): "subtract the mean over the N vectors, axis 0",
    }
    found = call(function, x)
    if np.shape(found) != ():
        raise Wrong(f"one number is asked for, found the shape {np.shape(found)}")
    number(found, right, hints, within=1e-4)
    return "s₁² / Σ s²."
