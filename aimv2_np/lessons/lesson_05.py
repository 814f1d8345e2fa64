"""The exercises of lesson 05, SwiGLU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, Wrong, array, call, exercise, number


@exercise("05.silu")
def silu(function: Any) -> str:
    """By hand, at logarithms: sigmoid(ln 3) is 3/4, sigmoid(-ln 3) is 1/4."""
    three = math.log(3)
    z = np.array([[three, -three, 0.0], [math.log(9), -math.log(4), math.log(7)]])
    gate = np.array([[0.75, 0.25, 0.5], [0.9, 0.2, 0.875]])
    hints = [
        (gate, "this is the sigmoid; multiply it by z"),
        (z * (1 - gate), "the sign of the exponent: sigmoid(z) is 1 / (1 + exp(-z))"),
        (np.maximum(z, 0), "this is ReLU"),
        (z + gate, "z times sigmoid(z), not plus"),
        (np.tanh(z), "this is tanh"),
        (z * np.array([[math.erfc(-v / math.sqrt(2)) / 2 for v in row] for row in z]),
         "this is GELU"),
    ]  # fmt: skip
    array(call(function, z), z * gate, hints)
    large = np.asarray(call(function, np.array([-1000.0, 1000.0])), np.float64)
    if np.isnan(large).any():
        raise Wrong("right for small numbers, but NaN for -1000 or 1000: exp(1000) is infinite, "
                    "and infinity / infinity is NaN. With exp(-z) below the line alone, there is "
                    "z / infinity = 0")  # fmt: skip
    array(large, np.array([0.0, 1000.0]), what="silu of -1000 and 1000")
    return "0 far below 0, z far above it."


@exercise("05.swiglu")
def swiglu(function: Any) -> str:
    """By loops over patches and neurons, 3 patches of width 4, 5 neurons."""
    rng = np.random.default_rng(5)
    x, fc1, fc3, fc2 = (rng.normal(size=s) for s in ((3, 4), (5, 4), (5, 4), (4, 5)))

    def made(gates: Array, ups: Array, hidden: Any) -> Array:
        rows = np.zeros((3, 4))
        for n, v in enumerate(x):
            for f in range(5):
                rows[n] += hidden(math.fsum(gates[f] * v), math.fsum(ups[f] * v)) * fc2[:, f]
        return rows

    hints = [
        (made(fc3, fc1, _gated), "fc1 and fc3 are exchanged: SiLU is applied to the gate, x fc1ᵀ"),
        (made(fc1, fc3, lambda g, u: g * u), "SiLU is missing"),
        (made(fc1, fc3, lambda g, u: _gated(g, 1.0)), "the up projection, x fc3ᵀ, is missing"),
        (made(fc1, fc3, lambda g, u: _gated(g, 1.0) + u), "gate and up are multiplied, not added"),
        (made(fc1, fc3, lambda g, u: _gated(g, u) / g), "this is the sigmoid of the gate; SiLU is "
         "z times sigmoid(z)"),
        (made(fc1, fc3, lambda g, u: _gated(g * u, 1.0)), "SiLU is applied to the gate alone, "
         "before it is multiplied by up"),
        (x + made(fc1, fc3, _gated), "the stream is added outside; only what the MLP adds is "
         "asked for"),
    ]  # fmt: skip
    array(call(function, x, fc1, fc3, fc2), made(fc1, fc3, _gated), hints, what="what is added")
    return "gate, up, product, down."


def _gated(gate: float, up: float) -> float:
    """silu(gate) · up."""
    return gate / (1 + math.exp(-gate)) * up


@exercise("05.both")
def both(function: Any) -> str:
    """Number by number: 2 patches of width 3, 4 neurons."""
    rng = np.random.default_rng(50)
    x, matrix = rng.normal(size=(2, 3)), rng.normal(size=(8, 3))

    def made(gate_row: Any, up_row: Any) -> Array:
        rows = [[_gated(float(v @ matrix[gate_row(f)]), float(v @ matrix[up_row(f)]))
                 for f in range(4)] for v in x]  # fmt: skip
        return np.array(rows)

    hints = [
        (made(lambda f: 4 + f, lambda f: f), "the gate's rows come first; here up's were taken so"),
        (made(lambda f: 2 * f, lambda f: 2 * f + 1), "the rows do not alternate: first all of the "
         "gate's, then all of up's"),
        (made(lambda f: f, lambda f: f), "the same half was used twice"),
    ]  # fmt: skip
    array(call(function, x, matrix), made(lambda f: f, lambda f: 4 + f), hints, what="hidden")
    return "one product, cut in the middle."


@exercise("05.neurons")
def neurons(answer: Any) -> str:
    """2 · 768 · 3072 = 3 · 768 · 2048."""
    hints = {
        3072: "that is 4D, for two matrices; SwiGLU has three",
        1536: "that is half as many; three matrices for two are two thirds",
        8 * 768: "two thirds of 4D, which is 8/3 of D, not 8 times D",
        2 * 768 * 3072: "these are the parameters; how many neurons?",
        3 * 768 * 2048: "these are the parameters; how many neurons?",
        1024: "one third of 4D; it is two thirds, as three matrices take the place of two",
    }
    number(answer, 2048, hints)
    return "8/3 · 768. AIMv2's large vision encoder takes 2816, a little more than 8/3 · 1024."


@exercise("05.lowest")
def lowest(answer: Any) -> str:
    """By bisection of the derivative, 1 + e^-z + z e^-z, whose sign changes once below 0."""
    low, high = -2.0, -1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        falling = 1 + (1 + middle) * math.exp(-middle) < 0
        low, high = (middle, high) if falling else (low, middle)
    value = low / (1 + math.exp(-low))
    hints = {
        value: "that is how small it is; at which z?",
        -value: "that is how far it dips; at which z?",
        -low: "the sign: it is below 0",
        0.0: "SiLU is 0 there, and smaller still left of it",
    }
    number(answer, low, hints, within=0.006)
    return "z = −1.278, where SiLU is −0.278: at its lowest, silu(z) = z + 1."
