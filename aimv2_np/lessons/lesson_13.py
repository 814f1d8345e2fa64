"""The exercises of lesson 13, frozen trunk, new task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, Wrong, array, call, choice, exercise, number


@exercise("13.iou")
def iou(function: Any) -> str:
    """By counting on fingers: 2 in both, 5 in one or both, of 8."""
    found = np.array([[True, True, True, False], [False, False, True, False]])
    right = np.array([[True, False, True, False], [False, True, False, False]])
    hints = {
        2.0: "this is the intersection; divide by the union",
        5 / 8: "this is the share of equal answers; background found is no merit here",
        2 / 4: "divide by the union, not by what was found alone",
        2 / 3: "divide by the union, not by what is right alone",
        4 / 7: "this is 2 · intersection / (found + right), the Dice score",
        2 / 7: "the union counts what is in both once",
        2 / 8: "divide by the union, not by all patches",
    }
    number(call(function, found, right), 2 / 5, hints)
    none = np.zeros_like(found)
    number(call(function, none, right), 0.0, within=1e-6)
    empty = float(np.asarray(call(function, none, none)))
    if math.isnan(empty):
        raise Wrong("right, but 0 / 0 where neither holds anything: say 1 then")
    number(empty, 1.0, {0.0: "right, but where neither holds anything they agree: 1"})
    return "2 of 5, and 1 for two empty arrays."


@exercise("13.nearest")
def nearest(function: Any) -> str:
    """By loops. Lengths differ, so that dot products and distances find others."""
    known = np.array([[1.0, 0.0], [4.0, 4.0], [0.0, 0.5], [-9.0, 1.0]])
    asked = np.array([[3.0, 0.2], [0.2, 3.0], [1.0, 1.1], [-1.0, -0.2], [0.1, 0.0]])
    labels = np.array([3, 1, 4, 7])
    rows = [[_cosine(a, k) for k in known] for a in asked]
    right = labels[[row.index(max(row)) for row in rows]]
    products, distances = asked @ known.T, np.array([[math.dist(a, k) for k in known]
                                                     for a in asked])  # fmt: skip
    hints = [
        (labels[products.argmax(axis=1)], "these are the largest dot products: long rows win; "
         "divide by the lengths"),
        (labels[distances.argmin(axis=1)], "these are the smallest distances; a cosine does not "
         "depend on the length"),
        (labels[np.array(rows).argmin(axis=1)], "these are the *least* similar ones"),
        (np.array(rows).argmax(axis=1), "these are the rows; return their labels"),
    ]  # fmt: skip
    array(call(function, asked, known, labels), right, hints, what="the labels")
    return "by direction, whatever the length."


def _cosine(a: Array, b: Array) -> float:
    return math.fsum(a * b) / (math.hypot(*a) * math.hypot(*b))


@exercise("13.parameters")
def parameters(answer: Any) -> str:
    """150 weights for each of 1024 numbers, and 150 biases."""
    hints = {
        150 * 1024: "each class has a bias, too",
        150 * 1024 + 1: "each class has a bias of its own",
        1025: "this is one class; there are 150",
        193: "this is this lesson's probe; here a feature is 1024 wide, and there are 150 classes",
        150 * 193: "a feature is 1024 wide here, not 192",
        150 * 1024 * 256: "all patches share the same weights",
        150 * 1025 * 256: "all patches share the same weights",
        150 * 1024 + 1024: "a bias for each class, not for each number of a feature",
    }
    number(answer, 150 * 1025, hints)
    return "153,750, beside 309 million that stay as they are."


@exercise("13.split")
def split(answer: Any) -> str:
    """By what must be new when it counts."""
    hints = {
        "frame": "the next frame of the same film is nearly the same picture: the answer has been "
        "seen",
        "film": "there are 40 films of 25 streets: some streets would be on both sides",
    }
    choice(answer, "street", hints, ("frame", "film", "street"))
    return "streets are what will be new."


@exercise("13.everything")
def everything(answer: Any) -> str:
    """Of 100 patches 5 in both, 100 in one or both."""
    hints = {
        1: "all drawings are found, but so is all the background: the union is everything",
        0.95: "the other way round: 95 % of what it finds is background",
        0: "it finds every drawing: the intersection is not empty",
        5: "as a share: 5 % is 0.05",
        0.1 / 1.05: "that is the Dice score",
    }
    number(answer, 5 / 100, hints)
    return "0.05: 5 of 100. And its accuracy is 5 %, too."
