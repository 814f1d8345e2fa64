"""The exercises of lesson 02, where is a patch?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Array, Wrong, array, call, exercise, number


@exercise("02.slice")
def slice_(answer: Any) -> str:
    """By counting: row 3, column 2 is the 21st patch; two rows of 8 and five more places."""
    hints = [
        (np.array([4, 2]), "that is (column, row); asked for is (row, column)"),
        (np.array([3, 2]), "that is where the patch is; which number has it in a row of 6?"),
        (np.array([3, 3]), "its number is 20, row · 6 + column; find that in a table of 8 columns"),
        (np.array([4, 1]), "first the patch's number in rows of 6, then its place in rows of 8"),
        (np.array([2, 5]), "patches, rows and columns count from 0"),
    ]
    array(answer, np.array([2, 4]), hints, what="a place")
    return "patch 3 · 6 + 2 = 20, and 20 = 2 · 8 + 4."


@exercise("02.line")
def line(function: Any) -> str:
    """Number by number, by Python's sin and cos, for 5 tokens of width 6."""
    right = _line(5, 6, 3)
    sin, cos = right[:, :3], right[:, 3:]
    interleaved = np.stack([sin, cos], axis=-1).reshape(5, 6)
    hints = [
        (np.concatenate([cos, sin], axis=1), "the sines come first"),
        (interleaved, "sines and cosines alternate; asked for is [sin | cos], one after the other"),
        (_line(5, 6, 6), "the exponent is i / (D/2), with i below D/2"),
        (_line(5, 6, 1.5), "the exponent is i / (D/2): on a line D is split in two, not in four"),
        (_line(5, 6, -3), "the exponent is negative: the frequencies fall from 1"),
        (_line(5, 6, 3, first=1), "tokens count from 0"),
        (sin, "the cosines are missing"),
        (right.T, "one row for each token, please: (T, D)"),
    ]
    array(call(function, 5, 6), right, hints, what="the positions")
    return "the first row is all 0, then all 1."


def _line(T: int, D: int, divided: float, first: int = 0) -> Array:
    """[sin | cos] of t · 10000^(-i / divided)."""
    made = np.empty((T, D))
    for t in range(T):
        for i in range(D // 2):
            angle = (t + first) / 10000 ** (i / divided)
            made[t, i], made[t, D // 2 + i] = math.sin(angle), math.cos(angle)
    return made


@exercise("02.apart")
def apart(function: Any) -> str:
    """By the vectors themselves, number by number, of places far from the origin."""
    for dy, dx, D in [(2, 3, 8), (0, 5, 16), (-4, 7, 32)]:
        found = call(function, dy, dx, D)
        across, down = _cosines(dx, D), _cosines(dy, D)
        of = f"for dy = {dy}, dx = {dx}, D = {D}: "
        hints = {
            across: f"{of}this is the columns' half; the rows' half is missing",
            down: f"{of}this is the rows' half; the columns' half is missing",
            across * down: f"{of}the two halves of the vectors add up; they are not multiplied",
            2 * (across + down): f"{of}twice too much: there are D/4 frequencies",
            _cosines(dx, 2 * D) + _cosines(dy, 2 * D): f"{of}there are D/4 frequencies, not D/2",
            _cosines(dx + dy, D): f"{of}columns and rows have a half each: add two sums of cosines",
            (across + down) * 2 / D: f"{of}this is the cosine; each vector has the length √(D/2)",
        }
        try:
            number(found, across + down, hints)
        except Wrong as wrong:
            raise Wrong(str(wrong) if str(wrong).startswith(of) else f"{of}{wrong}") from None
    return "it does not matter where they lie. That is what the formula is for."


def _cosines(offset: int, D: int) -> float:
    """The dot product of [sin | cos] at two coordinates, 11 and 11 + offset."""
    total = 0.0
    for i in range(D // 4):
        one, other = (c / 10000 ** (i / (D / 4)) for c in (11, 11 + offset))
        total += math.sin(one) * math.sin(other) + math.cos(one) * math.cos(other)
    return total


@exercise("02.halve")
def halve(function: Any) -> str:
    """Place by place: 4 × 4 places of width 3."""
    side, D = 4, 3
    table = np.arange(side * side * D, dtype=np.float64).reshape(-1, D) ** 1.5
    right, first = np.empty((4, D)), np.empty((4, D))
    for row in range(2):
        for column in range(2):
            corner = 2 * row * side + 2 * column
            block = [corner, corner + 1, corner + side, corner + side + 1]
            right[2 * row + column] = sum(table[n] for n in block) / 4
            first[2 * row + column] = table[corner]
    hints = [
        (table.reshape(4, 4, D).mean(axis=1), "this is the mean of four places in a row of the "
         "picture; a block is 2 × 2"),
        (table.reshape(4, 4, D).mean(axis=0), "this is the mean of a column; a block is 2 × 2"),
        (right * 4, "this is the sum; divide by 4"),
        (first, "this is the first of each block; take the mean of all four"),
        (right.reshape(2, 2, D).swapaxes(0, 1).reshape(4, D), "the new places run column by "
         "column; they should run row by row"),
        (right.reshape(2, 2, D), "the numbers are right; flatten the grid, (N/4, D)"),
    ]  # fmt: skip
    array(call(function, table), right, hints, what="the new table")
    return "(rows, 2, columns, 2, D), and the mean over both twos."


@exercise("02.parameters")
def parameters(answer: Any) -> str:
    """32 rows and columns of patches."""
    hints = {
        32 * 32: "that many places; each has a vector of D numbers",
        32 * 1024: "32 patches along one side; the grid is 32 × 32",
        448 * 448 * 1024: "a position for each patch, not for each pixel",
        16 * 16 * 1024: "that is the table of the 224 model",
        14 * 14 * 1024: "448 / 14 = 32 patches along one side",
    }
    number(answer, 32 * 32 * 1024, hints)
    return "1.05 million, of 309 million."
