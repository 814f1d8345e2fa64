"""The exercises of lesson 07, from patches to one vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, array, call, exercise, number


@exercise("07.head")
def head(function: Any) -> str:
    """By loops over patches, in float64, on 5 patches of width 6 and a head of width 4."""
    rng = np.random.default_rng(7)
    x, query, (k, v) = rng.normal(size=(5, 6)), rng.normal(size=4), rng.normal(size=(2, 4, 6))
    hints = [
        (_context(x, query, k, v, divided=1.0), "the scores were not divided by sqrt(E)"),
        (_context(x, query, k, v, divided=4.0), "divide by sqrt(E), not by E"),
        (_context(x, query, k, v, divided=math.sqrt(6)), "divide by the root of the head's width "
         "E = 4, not of D = 6"),
        (_context(x, query, k, v, divided=math.sqrt(5)), "divide by the root of the head's width, "
         "not of the number of patches"),
        (_context(x, query, v, k), "keys and values are exchanged"),
        (_context(x, 0 * query, k, v), "this is the plain mean of the values: the query was not "
         "used"),
        (_context(x, k @ (query @ k), k, v), "the query was multiplied by a matrix; it is used as "
         "it is"),
    ]  # fmt: skip
    array(call(function, x, query, k, v), _context(x, query, k, v), hints, what="the context")
    return "one row of weights, one weighted mean."


def _context(x: Array, query: Array, Wk: Array, Wv: Array, divided: float = 2.0) -> Array:
    """One patch after the other."""
    weights = [math.exp(math.fsum(query * (Wk @ patch)) / divided) for patch in x]
    context = np.zeros(len(Wv))
    for weight, patch in zip(weights, x, strict=True):
        context += weight / math.fsum(weights) * (Wv @ patch)
    return context


@exercise("07.parameters")
def parameters(answer: Any) -> str:
    """A query of 1024, three matrices, one bias."""
    square, width = 1024 * 1024, 1024
    hints = {
        3 * square + width: "either the query or the bias was forgotten; each has D numbers",
        3 * square: "query and bias are parameters, too",
        4 * square + 2 * width: "there are three matrices: the query has none",
        4 * square + width: "there are three matrices: the query has none",
        2 * square + 2 * width: "there are three matrices: k, v and the last layer",
        2 * square + width: "k, v and the last layer, the query, and the bias",
        3 * square + 4 * width: "k and v have no bias",
        3 * square // 8 + 2 * width: "the matrices of all 8 heads together are D × D",
    }
    number(answer, 3 * square + 2 * width, hints)
    return "3.1 million of the model's 437: a query, three matrices and a bias."


@exercise("07.zeros")
def zeros(answer: Any) -> str:
    """All scores are 0, so all 256 weights are the same."""
    hints = {
        0: "the *scores* are 0; softmax of equal scores gives equal weights",
        1: "that is exp(0); divide by the sum over 256 patches",
        256: "one over it",
        1 / 64: "with 256 patches, not 64",
        1 / 16: "there are 256 patches; √E does not matter where the scores are 0",
    }
    number(answer, 1 / 256, hints)
    return "1/256: the head would take the plain mean of the values."


@exercise("07.parts")
def parts(function: Any) -> str:
    """Number by number: 5 patches, 2 heads of width 3."""
    H, N, E = 2, 5, 3
    rng = np.random.default_rng(70)
    pattern, v, W = rng.random((H, N)), rng.normal(size=(H, N, E)), rng.normal(size=(6, 6))
    right, across, interleaved = np.zeros((N, 6)), np.zeros((N, 6)), np.zeros((N, 6))
    before, equal = np.zeros((N, 6)), np.zeros((N, 6))
    mixed = (pattern[:, :, None] * v).reshape(N, 6) @ W.T
    for n, d, h, e in np.ndindex(N, 6, H, E):
        told = pattern[h, n] * v[h, n, e]
        right[n, d] += W[d, h * E + e] * told
        across[n, d] += W[h * E + e, d] * told
        interleaved[n, d] += W[d, e * H + h] * told
        equal[n, d] += W[d, h * E + e] * v[h, n, e]
        before[n, h * E + e] = told
    hints = [
        (before, "close: these are the parts of the context; W is missing"),
        (across, "W is transposed: the pooled vector is W @ context"),
        (interleaved, "head h owns the channels h·E to (h + 1)·E: bring (H, N, E) to (N, H, E), "
         "then reshape"),
        (mixed, "reshape alone mixes patches and heads: bring (H, N, E) to (N, H, E) first"),
        (equal, "the weights of the pattern are missing"),
        (right.sum(axis=0), "this is the sum already; asked for is each patch's part of it"),
        (right.T, "this is (D, N); asked for is (N, D)"),
    ]  # fmt: skip
    array(call(function, pattern, v, W), right, hints, what="the parts")
    return "they sum to what the head gives without its bias."
