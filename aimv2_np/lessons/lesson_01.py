"""The exercises of lesson 01, from pixels to patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from .judging import array, call, exercise, number


@exercise("01.count")
def count(answer: Any) -> str:
    """34 rows of 45, by long division."""
    rounded = "what does not fill a patch is dropped: round down, each side on its own"
    hints = {
        35 * 46: rounded,
        34 * 46: rounded,
        35 * 45: rounded,
        640 * 480 / 14**2: rounded,
        640 * 480 // 14**2: "round down each side on its own, not the quotient of the areas",
        16 * 16: "the native model does not resize: these are the patches of 224 × 224",
    }
    number(answer, 34 * 45, hints)
    return "34 rows of 45. 4 rows and 10 columns of pixels are never seen."


@exercise("01.normalise")
def normalise(function: Any) -> str:
    """By loops over channels and pixels of a picture of 2 × 3."""
    raw = np.array(
        [[[0, 51, 255], [255, 0, 102], [10, 20, 30]], [[5, 5, 5], [60, 70, 80], [204, 153, 0]]],
        np.uint8,
    )
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.5])
    right = np.empty((3, 2, 3))
    for c in range(3):
        for y in range(2):
            for x in range(3):
                right[c, y, x] = (int(raw[y, x, c]) / 255 - mean[c]) / std[c]
    first = raw.transpose(2, 0, 1) / 255
    m, s = mean[:, None, None], std[:, None, None]
    hints = [
        (right.transpose(1, 2, 0), "the numbers are right, but the channels should come first"),
        (right.transpose(0, 2, 1), "rows and columns are exchanged: transpose(2, 0, 1)"),
        ((first - mean) / std, "mean and deviation were applied along the columns of pixels; apply "
         "them while the channels are the last axis"),
        (first, "neither the mean nor the deviation was used"),
        (first - m, "close, but it was not divided by the deviation"),
        (first / s, "close, but the mean was not subtracted"),
        (first - m / s, "subtract the mean first, then divide: parentheses"),
        ((255 * first - m) / s, "the bytes were not divided by 255"),
        ((first - m) * s, "divide by the deviation; it was multiplied"),
        ((first - m) / s**2, "that was the variance; divide by the deviation itself"),
        (right[::-1], "the channels come out in the order blue, green, red"),
    ]  # fmt: skip
    array(call(function, raw, mean, std), right, hints)
    return "mean, deviation, and channels first."


@exercise("01.where")
def where(answer: Any) -> str:
    """Row 7 of patches holds rows 98 to 111, column 2 holds columns 28 to 41."""
    hints = {
        2 * 16 + 7: "row and column are exchanged: patches are numbered row by row",
        7 * 14 + 2: "a row has 224 / 14 = 16 patches, not 14",
        8 * 16 + 3: "rows and columns count from 0: round down",
        7 + 2: "a whole row of patches lies before each next one: row · 16 + column",
        7 * 16 + 3: "columns count from 0: 37 // 14",
        100 * 224 + 37: "this numbers the pixels; which patch is it?",
    }
    number(answer, 7 * 16 + 2, hints)
    return "row 7, column 2: 7 · 16 + 2."


@exercise("01.together")
def together(function: Any) -> str:
    """By copying patch after patch to its place; two rows of three patches, so no square."""
    P, Y, X = 2, 4, 6
    patches = np.arange(6 * 3 * P * P, dtype=np.float64).reshape(6, 3 * P * P)
    right, columnwise, last = np.zeros((3, Y, X)), np.zeros((3, Y, X)), np.zeros((3, Y, X))
    for n, patch in enumerate(patches):
        row, column = divmod(n, X // P)
        place = np.s_[:, row * P : row * P + P, column * P : column * P + P]
        right[place] = patch.reshape(3, P, P)
        last[place] = patch.reshape(P, P, 3).transpose(2, 0, 1)
        column, row = divmod(n, Y // P)
        place = np.s_[:, row * P : row * P + P, column * P : column * P + P]
        columnwise[place] = patch.reshape(3, P, P)
    hints = [
        (columnwise, "the patches run column by column; they should run row by row"),
        (last, "inside a patch the channels come first: (3, P, P)"),
        (patches.reshape(3, Y, X), "reshape alone leaves the numbers in their order: first "
         "reshape to (rows, columns, 3, P, P), then transpose"),
        (right.transpose(1, 2, 0), "the picture is right, but the channels should come first"),
    ]  # fmt: skip
    array(call(function, patches, P, Y, X), right, hints, what="the picture")
    return "cut and put together again, nothing is lost."


@exercise("01.parameters")
def parameters(answer: Any) -> str:
    """3 · 14 · 14 = 588 inputs, 1024 outputs and as many biases."""
    hints = {
        588 * 1024: "these are the weights; there is a bias, too",
        196 * 1024: "a patch has three channels; and there is a bias",
        196 * 1024 + 1024: "a patch has three channels",
        588 * 1024 + 588: "there is one bias for each of the D outputs",
        588 * 1024 + 2 * 1024: "the norm after it is not counted",
    }
    number(answer, 588 * 1024 + 1024, hints)
    return "588 · 1024 + 1024, 0.2 % of the model's 309 million."
