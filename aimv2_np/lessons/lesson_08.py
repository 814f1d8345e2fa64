"""The exercises of lesson 08, the text encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from .judging import Wrong, array, call, exercise, number


@exercise("08.merge")
def merge(function: Any) -> str:
    """By hand."""
    cases: list[tuple[list[str], tuple[str, str], list[str]]] = [
        (["g", "u", "i", "t", "a", "r</w>"], ("i", "t"), ["g", "u", "it", "a", "r</w>"]),
        (["b", "a", "n", "a", "n", "a</w>"], ("a", "n"), ["b", "an", "an", "a</w>"]),
        (["a", "a", "a", "b</w>"], ("a", "a"), ["aa", "a", "b</w>"]),
        (["t", "h", "i", "n", "g</w>"], ("n", "g"), ["t", "h", "i", "n", "g</w>"]),
        (["th", "in", "g</w>"], ("in", "g</w>"), ["th", "ing</w>"]),
        (["ab", "c", "a", "bc</w>"], ("a", "bc"), ["ab", "c", "a", "bc</w>"]),
    ]
    for pieces, pair, right in cases:
        found = call(function, list(pieces), pair)
        if not isinstance(found, list | tuple) or not all(isinstance(p, str) for p in found):
            raise Wrong(f"a list of strings is asked for, found {found!r:.60}")
        if list(found) != right:
            raise Wrong(f"{pair} in {pieces} gives {list(found)}, it should be {right}")
    return "every occurrence, and only whole pieces."


@exercise("08.bytes")
def bytes_(answer: Any) -> str:
    """crème has 5 letters and 6 bytes, brûlée 6 letters and 8 bytes."""
    hints = {
        14: "begin and end token are missing",
        13: "é, è and û have two bytes each; begin and end token count, too",
        12: "these are the characters; a token is a byte here, and è, û and é have two each",
        11: "these are the letters; è, û and é have two bytes each, and begin and end token count",
        15: "there is no token for the space: it only parts the words",
        17: "there is no token for the space: it only parts the words",
        4: "without merges each byte is a token of its own",
    }
    number(answer, 6 + 8 + 2, hints)
    return "6 bytes and 8, a begin and an end. The space parts the words and is no token."


@exercise("08.causal")
def causal(answer: Any) -> str:
    """1 + 2 + … + 77, counted."""
    right = sum(row for row in range(1, 78))
    hints = {
        77 * 77: "these are all; token i sees the tokens 0 to i",
        77 * 76 // 2: "a token sees itself, too",
        77 * 77 / 2: "the diagonal belongs to those seen as a whole",
        77 * 76: "these are all but the diagonal; token i sees the tokens 0 to i",
        77: "that is the last row; the rows before it have 76, 75, …",
    }
    number(answer, right, hints)
    return "77 · 78 / 2, about half."


@exercise("08.end")
def end(function: Any) -> str:
    """By a loop. The end token has not the largest id here, and padding repeats it."""
    eos = 7
    ids = np.array([[1, 9, 7, 7, 7], [1, 3, 8, 9, 7], [1, 7, 7, 7, 7]])
    features = np.random.default_rng(8).normal(size=(3, 5, 2))
    right = np.empty((3, 2))
    for k, row in enumerate(ids):
        for t, one in enumerate(row):
            if one == eos:
                right[k] = features[k, t]
                break
    at = [features[[0, 1, 2], where] for where in ([4, 4, 4], [1, 3, 0], [0, 0, 0], [1, 3, 1])]
    hints = [
        (at[0], "this is the last position: where a text is padded, that is not its first end "
         "token"),
        (at[1], "this is the token before the end token"),
        (at[2], "this is the begin token, which has seen nothing but itself"),
        (at[3], "the end token has not always the largest id: look for eos"),
        (features[:, [2, 4, 1]], "each text its own position: features[np.arange(K), end]"),
        (features[ids == eos], "padding has the same id: take each text's first end token alone"),
        (features.mean(axis=1), "this is the mean; the first end token alone was asked for"),
    ]  # fmt: skip
    array(call(function, features, ids, eos), right, hints, what="the features")
    return "the first end token, whatever comes after it."


@exercise("08.same")
def same(answer: Any) -> str:
    """Begin, a, photo, of, a: five tokens before the one that differs."""
    hints = {
        7: "the fifth word differs",
        6: "the end token is the same token, but it has seen the whole text",
        4: "the begin token is a position, too",
        0: "a causal token has not seen what comes later",
        1: "more: a token has not seen what comes later",
        2: "the end token has seen the whole text, and the words before the animal count, too",
    }
    number(answer, 5, hints)
    return "the begin token and four words. From the animal on, each has seen something else."
