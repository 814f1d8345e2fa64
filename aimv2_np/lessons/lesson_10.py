"""The exercises of lesson 10, how fast can it go?"""

from __future__ import annotations

from typing import Any

import numpy as np

from .judging import array, call, exercise, number


@exercise("10.intensity")
def intensity(function: Any) -> str:
    """By hand: 2 · 3 · 5 · 7 = 210 FLOP; 15 + 35 + 21 = 71 numbers."""
    hints = {
        210 / 71: "a float32 has 4 bytes",
        105 / 284: "a multiplication and an addition are 2 FLOP",
        210 / 60: "the tokens are moved, too: T·K are read and T·O written",
        210 / 4 / 50: "what is written counts, too: T·O",
        210 / 4 / 36: "the tokens that are read count, too: T·K",
        284 / 210: "FLOP for each byte, not bytes for each FLOP",
        210: "these are the FLOP; divide by the bytes",
    }
    number(call(function, 3, 5, 7), 210 / 284, hints)
    number(call(function, 1000, 1000, 1), 2e6 / (4 * 1_002_000))
    return "with one token it is about a half: each weight is 4 bytes and 2 FLOP."


@exercise("10.roof")
def roof(function: Any) -> str:
    """Left of the ridge, on it, and right of it."""
    slope = {
        200: "where there are few FLOP for each byte, memory decides",
        200 * 4: "memory: FLOP for each byte times bytes in a second",
        20: "that is the bandwidth; multiply it by FLOP for each byte",
        20 / 4: "multiply: GB/s times FLOP for each byte is GFLOP/s",
        4 / 20: "multiply: GB/s times FLOP for each byte is GFLOP/s",
    }
    number(call(function, 4, 200, 20), 80, slope)
    number(call(function, 10, 200, 20), 200)
    flat = {100 * 20: "no step is faster than the multipliers: take the smaller of the two"}
    number(call(function, 100, 200, 20), 200, flat)
    number(call(function, 3, 90, 40), 90)
    return "the smaller of the two limits."


@exercise("10.tokens")
def tokens(answer: Any) -> str:
    """10 FLOP a byte are needed; 4 bytes of a weight give 2 FLOP to each token."""
    hints = {
        10: "10 FLOP for each byte are needed, and a token gives 2 for each weight of 4 bytes",
        5: "a weight has 4 bytes: T tokens do 2·T FLOP with it",
        40: "a token does 2 FLOP with each weight: a multiplication and an addition",
        80: "a weight of 4 bytes, 2 FLOP for each token: T / 2 FLOP for each byte",
    }
    number(answer, 20, hints)
    return "T / 2 = 200 / 20."


@exercise("10.tokens8")
def tokens8(function: Any) -> str:
    """Two tokens whose steps are known: 0.5 from -20 on, 1/255 from 0 on; one by one."""
    x = np.array([[-20.0, 107.5, 3.3, -0.2], [0.0, 1.0, 0.61, 0.25]])
    right = np.array([
        [-20.0, 107.5, 3.5, 0.0],
        [0.0, 1.0, 156 / 255, 64 / 255],
    ])  # fmt: skip
    integers = np.array([[0.0, 255.0, 47.0, 40.0], [0.0, 255.0, 156.0, 64.0]])
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    whole = (x.max() - x.min()) / 255
    steps = (x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True)) / 255
    least = x.min(axis=1, keepdims=True)
    hints = [
        (integers, "these are the integers; return the numbers they stand for"),
        (np.round(x / step) * step, "this is the weights' form, from -127 to 127; here 0 stands "
         "for a token's least number"),
        (np.round((x - x.min()) / whole) * whole + x.min(), "each token has a least and a "
         "largest number of its own: axis=1"),
        (right - least, "add the least number again"),
        (x, "nothing was rounded"),
        (np.round(x), "these are whole numbers; the step is (largest - least) / 255"),
        (np.round((x - least) / steps * 256 / 255) * steps * 255 / 256 + least,
         "between the integers 0 and 255 lie 255 steps, not 256"),
        (np.floor((x - least) / steps) * steps + least, "round to nearest, not down"),
    ]  # fmt: skip
    array(call(function, x), right, hints, within=1e-6)
    return "a step and a least number for each token, found when a product is about to read it."
