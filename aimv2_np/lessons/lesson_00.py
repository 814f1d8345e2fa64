"""The exercises of lesson 00, a tour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .judging import Wrong, array, call, choice, exercise, number


@exercise("00.similar")
def similar(answer: Any) -> str:
    """Judged by the angle between the vectors, of which a cosine is only one reading."""
    from .. import load, samples

    names, pictures = ("penguin", "banana", "rocket", "airplane"), samples()
    model = load("emoji-lit", backend="numpy")
    bird, *others = model.encode_image([pictures[name] for name in ("bird", *names)])
    distance = [float(np.linalg.norm(bird - other)) for other in others]
    nearest = names[int(np.argmin(distance))]
    cosine = {name: float(bird @ other) for name, other in zip(names, others, strict=True)}
    choice(answer, nearest, dict.fromkeys(names, "another picture's cosine is larger"), names)
    return (
        f"'{nearest}', with {cosine[nearest]:.2f}; 'penguin', the other bird, has "
        f"{cosine['penguin']:.2f}. What is alike to this small model need not be alike to you."
    )


@exercise("00.probabilities")
def probabilities(function: Any) -> str:
    """By hand: cosines 1, 0.6, 0 and 0, 0.8, 1, each times ln 10, so powers of ten."""
    image = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    scale = math.log(10)
    powers = np.array([[10.0, 10**0.6, 1.0], [1.0, 10**0.8, 10.0]])  # (B, K)
    plain = np.exp(np.log10(powers))  # a scale of 1
    found = call(function, image, texts, scale)
    hints = [
        (powers, "these are the exponentials: divide each row by its sum"),
        (np.log10(powers) * scale, "these are the scores: softmax is missing"),
        (plain / plain.sum(axis=1, keepdims=True), "the scale is missing"),
        (powers / powers.sum(), "each image's row must sum to 1, not the whole array"),
        (powers / powers.sum(axis=0), "the columns sum to 1: sum over the texts, the last axis"),
    ]
    array(found, powers / powers.sum(axis=1, keepdims=True), hints)
    large = call(function, image, texts, 1000.0)
    if not np.isfinite(np.asarray(large, np.float64)).all():
        raise Wrong(
            "right for a small scale, but for 1000 exp overflows: subtract each row's largest "
            "score first"
        )
    return "each row sums to 1, and a large scale does not overflow."


@exercise("00.numbers")
def numbers(answer: Any) -> str:
    """24 · 8 · 256²."""
    one = 8 * 256 * 256
    hints = {
        one: "this is one block; there are 24",
        24 * 256 * 256: "this is one head in each block; there are 8",
        256 * 256: "this is one head of one block",
        24 * 8 * 256: "every patch has a weight for *every* patch: 256 × 256 in a head",
        4 * 24 * one: "these are the bytes in float32; the numbers were asked for",
    }
    number(answer, 24 * one, hints)
    return "12.6 million, 50 MB in float32. That is why a trace takes names=."
