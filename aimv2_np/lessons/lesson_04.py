"""The exercises of lesson 04, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, Wrong, array, call, exercise, number


@exercise("04.softmax")
def softmax(function: Any) -> str:
    """By hand: scores that are logarithms, so that weights are fractions."""
    weights = np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 4.0]])
    right = weights / np.array([[8.0], [10.0]])
    hints = [
        (weights, "these are the exponentials: divide each row by its sum"),
        (weights / weights.sum(), "each row should sum to 1, not the whole array"),
        (weights / weights.sum(axis=0), "the columns sum to 1: use the last axis"),
        (np.log(right), "this is the logarithm of softmax"),
    ]
    array(call(function, np.log(weights)), right, hints)
    three = np.log(np.stack([weights, weights[::-1]]))
    array(call(function, three), np.stack([right, right[::-1]]), what="softmax of (2, 2, 3)")
    large = np.asarray(call(function, np.log(weights) + 1000), np.float64)
    if not np.isfinite(large).all():
        raise Wrong("exp overflows for large scores: subtract each row's largest first")
    array(large, right, what="softmax of large scores")
    return "rows sum to 1, and large scores do not overflow."


@exercise("04.head")
def head(function: Any) -> str:
    """By loops over patches, in float64, on 5 patches of width 6 and a head of width 4."""
    rng = np.random.default_rng(4)
    x, (q, k, v) = rng.normal(size=(5, 6)), rng.normal(size=(3, 4, 6))
    hints = [
        (_context(x, q, k, v, divided=1.0), "the scores were not divided by sqrt(E)"),
        (_context(x, q, k, v, divided=4.0), "divide by sqrt(E), not by E"),
        (_context(x, q, k, v, divided=math.sqrt(6)), "divide by the root of the head's width "
         "E = 4, not of D = 6"),
        (_context(x, q, k, v, divided=math.sqrt(5)), "divide by the root of the head's width, "
         "not of the number of patches"),
        (_context(x, k, q, v), "queries and keys are exchanged"),
        (_scores(x, q, k, 2.0) @ (x @ v.T), "softmax is missing"),
        (_pattern(_scores(x, q, k, 2.0)).T @ (x @ v.T), "the pattern is transposed: row i weighs "
         "what patch i hears"),
        (_queries(x, q, k, v), "softmax runs over the patches that look (columns sum to 1); it "
         "should run over those looked at"),
    ]  # fmt: skip
    array(call(function, x, q, k, v), _context(x, q, k, v), hints, what="the context")
    return "scores, softmax, weighted mean."


def _scores(x: Array, Wq: Array, Wk: Array, divided: float) -> Array:
    count = len(x)
    scores = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            scores[i, j] = math.fsum((Wq @ x[i]) * (Wk @ x[j])) / divided
    return scores


def _pattern(scores: Array) -> Array:
    e = np.exp(scores)
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _context(x: Array, Wq: Array, Wk: Array, Wv: Array, divided: float = 2.0) -> Array:
    """One patch after the other: what it looks at, and the mean of what it hears."""
    context = np.zeros((len(x), len(Wv)))
    for i, row in enumerate(_scores(x, Wq, Wk, divided)):
        weights = [math.exp(score) for score in row]
        for j, weight in enumerate(weights):
            context[i] += weight / math.fsum(weights) * (Wv @ x[j])
    return context


def _queries(x: Array, Wq: Array, Wk: Array, Wv: Array) -> Array:
    e = np.exp(_scores(x, Wq, Wk, 2.0))
    return np.asarray(e / e.sum(axis=0) @ np.stack([Wv @ one for one in x]))


@exercise("04.split")
def split(function: Any) -> str:
    """Number by number: 5 patches, 2 heads of width 3."""
    N, H, E = 5, 2, 3
    x = np.arange(N * H * E, dtype=np.float64).reshape(N, H * E)
    right, interleaved = np.empty((H, N, E)), np.empty((H, N, E))
    for h, n, e in np.ndindex(H, N, E):
        right[h, n, e] = x[n, h * E + e]
        interleaved[h, n, e] = x[n, e * H + h]
    hints = [
        (x.reshape(H, N, E), "reshape alone mixes patches and heads: (N, H, E) first, then "
         "transpose"),
        (interleaved, "head h got the channels h, h + H, …; it owns h·E to (h + 1)·E"),
        (right.transpose(1, 0, 2), "(N, H, E) is right so far; the heads should come first"),
        (right.transpose(0, 2, 1), "this is (H, E, N); asked for is (H, N, E)"),
    ]  # fmt: skip
    array(call(function, x, H), right, hints, what="the heads' part")
    return "each head has its own channels of every patch."


@exercise("04.causal")
def causal(function: Any) -> str:
    """Number by number."""
    scores = np.arange(16, dtype=np.float64).reshape(4, 4) - 5
    right = np.array([[s if j <= i else -np.inf for j, s in enumerate(row)]
                      for i, row in enumerate(scores)])  # fmt: skip
    strict = np.array([[s if j < i else -np.inf for j, s in enumerate(row)]
                       for i, row in enumerate(scores)])  # fmt: skip
    after = np.array([[s if j >= i else -np.inf for j, s in enumerate(row)]
                      for i, row in enumerate(scores)])  # fmt: skip
    zeros = np.where(np.isinf(right), 0, right)
    hints = [
        (strict, "a token may look at itself: keep the diagonal"),
        (after, "this hides what came before; hidden must be what comes later, right of the "
         "diagonal"),
        (zeros, "a score of 0 is a score like any other: exp(0) = 1. Hidden is -inf"),
        (np.tril(np.ones((4, 4))), "this is the mask itself; use it to choose between scores and "
         "-inf"),
        (np.where(np.isinf(right), np.inf, right), "+inf takes all the weight; hidden is -inf"),
    ]  # fmt: skip
    found = call(function, scores)
    finite = [np.where(np.isinf(right), large, right) for large in (-1e4, -1e9, -1e10, -1e30)]
    says = "a large negative number hides nearly all; -inf hides all"
    hints += [(wrong, says) for wrong in finite]
    array(found, right, hints, what="the masked scores")
    return "softmax gives -inf a weight of 0."


@exercise("04.bytes")
def bytes_(answer: Any) -> str:
    """8 heads · 4096² weights · 4 bytes: 512 MiB."""
    square = 4096 * 4096
    hints = {
        square * 8: "these are the numbers; a float32 has 4 bytes",
        square * 4: "this is one head; there are 8",
        square: "this is one head's count of weights: 8 heads, 4 bytes each",
        square * 8 * 2: "float32 has 4 bytes, not 2",
        square * 8 * 4 * 24: "this is all 24 blocks; one was asked for",
        4096 * 8 * 4: "every patch has a weight for every patch: 4096 × 4096",
        512: "in bytes, please",
    }
    number(answer, square * 8 * 4, hints)
    return "512 MiB. So the library computes one head at a time unless a trace asks for patterns."
