"""The exercises of lesson 12, check a port, and the port that one of them is about."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .judging import Array, Wrong, call, choice, exercise, number

PATCH = 8


@exercise("12.error")
def error(function: Any) -> str:
    """By hand: the difference has the length 5, the truth the length 10."""
    truth = np.array([[[8.0, 0.0], [0.0, 6.0]]])
    found = truth + np.array([[[0.0, 3.0], [-4.0, 0.0]]])
    hints = {
        5.0: "this is the length of the difference; divide it by the length of the truth",
        0.25: "these are squares: take the roots",
        5.0 / float(np.linalg.norm(found)): "divide by the length of the truth, not of what was "
        "found",
        4.0: "the largest difference says nothing of the size of the truth",
        2.5: "this is the root of the mean square of the difference; divide by that of the truth",
        1.75: "this is the mean difference; take lengths",
    }
    number(call(function, found, truth), 0.5, hints)
    other = truth * np.array([[[1.0, 1.0], [1.0, 3.0]]])
    says = {
        12.0 / 8.0: "the largest difference over the largest number; take the lengths of all",
        12.0 / 14.0: "sums of absolute values; take lengths, the roots of sums of squares",
        12.0 / float(np.linalg.norm(other)): "divide by the length of the truth, not of what "
        "was found",
    }
    number(call(function, other, truth), 1.2, says)
    return "a port that gives nothing but zeros is off by 1."


@exercise("12.first")
def first(function: Any) -> str:
    """Three curves whose beginning is known."""
    names = ["patch_embed", "embed", "norm_1", "attn.out", "resid_mid", "norm_2"]

    def asked(*excess: float) -> Any:
        found = call(function, dict(zip(names, excess, strict=True)), 8.0)
        if isinstance(found, list | tuple):
            raise Wrong("one name is asked for, the first, not all")
        return found

    largest = "this is the one with the largest error; errors grow or shrink on the way, what "\
        "counts is where they begin"  # fmt: skip
    hints = {
        "resid_mid": largest,
        "norm_2": "this is the last one that is wrong",
        "norm_1": "this is the last one that is right",
        "patch_embed": "its error is allowed",
    }
    choice(asked(1.2, 0.9, 6.5, 40.0, 90000.0, 300.0), "attn.out", hints, names)
    again = {
        "norm_2": "wrong once, but not first: after it errors may be small again",
        "embed": "an error of exactly what is allowed is allowed",
        "resid_mid": "an activation after the first wrong one can look right by chance",
    }
    choice(asked(1.0, 8.0, 8.1, 2.0, 0.5, 9.0), "norm_1", again, names)
    return "the step at fault lies between the one before it and this one."


@exercise("12.telling")
def telling(answer: Any) -> str:
    """Cut row by row and column by column, in loops; the two must differ."""
    try:
        pixels = np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"an array is asked for, found a {type(answer).__name__}") from None
    if pixels.ndim != 4 or pixels.shape[:2] != (1, 3) or not pixels.size:
        raise Wrong(f"the shape should be (1, 3, Y, X), found {pixels.shape}")
    if not np.isfinite(pixels).all():
        raise Wrong("it holds NaN or infinity")
    rows, columns = (side // PATCH for side in pixels.shape[2:])
    if rows * PATCH != pixels.shape[2] or columns * PATCH != pixels.shape[3] or not rows:
        raise Wrong("its sides should be whole multiples of 8")
    by_row = [_patch(pixels, r, c) for r in range(rows) for c in range(columns)]
    by_column = [_patch(pixels, r, c) for c in range(columns) for r in range(rows)]
    if min(rows, columns) == 1:
        raise Wrong("with a single row or column of patches both orders are the same")
    if np.ptp(by_row, axis=0).max() == 0:
        raise Wrong("all its patches are alike, so no order shows")
    if np.array_equal(by_row, by_column):
        raise Wrong(
            "its grid of patches is its own mirror image about the diagonal: both orders give the "
            "same sequence"
        )
    return "whatever is not symmetric will do; the verifier also takes grids that are not square."


def _patch(pixels: Array, row: int, column: int) -> Array:
    y, x = row * PATCH, column * PATCH
    return pixels[0, :, y : y + PATCH, x : x + PATCH]


# ---------------------------------------------------------------------------- a mystery

_MISTAKE = "".join(map(chr, (112, 97, 114, 97, 108, 108, 101, 108, 45, 98, 108, 111, 99, 107)))


@lru_cache(maxsize=1)
def _port() -> Any:
    from .. import load

    return load("emoji-lit", backend="numpy", quirks=[_MISTAKE])


def mystery(pixel_values: Array) -> dict[str, Array]:
    """A port of emoji-lit's image encoder with one mistake: pixels to activations by name."""
    out = _port().vision(pixel_values, output_hidden_states=True)
    states = {f"vision.blocks.{i}.resid_post": x for i, x in enumerate(out.hidden_states[1:])}
    return {**states, "vision.norm": out.last_hidden_state}


@exercise("12.mystery")
def mystery_(answer: Any) -> str:
    """The verifier names what was planted here."""
    if isinstance(answer, str) and answer.strip() != _MISTAKE:
        from ..verify.mistakes import every

        known = [mistake.id for mistake in every()]
        if answer.strip() not in known:
            raise Wrong(
                "the verifier knows no such mistake; its id is the word after 'cause' in "
                "print(verdict(mystery))"
            )
        raise Wrong("that mistake would show in other places; print(verdict(mystery))")
    choice(answer, _MISTAKE, {})
    return "the MLP does not see what attention added. Some other models do so on purpose."
