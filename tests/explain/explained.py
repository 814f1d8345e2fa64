"""Explanations to test: of the packaged model, and of a native one on a wide image."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from golden_cases import CAT, load

import aimv2_np
from aimv2_np.explain import Explanation, explain

LABELS = ("cat", "pizza", "dog", "house", "car")
PICTURE = aimv2_np.samples()["scene-cat-and-pizza"]


@cache
def lit(dtype: str = "float32") -> Any:
    return aimv2_np.load("emoji-lit", backend="numpy", dtype=dtype)


@cache
def native() -> Any:
    return load("vision-native", "transformers", dtype="float32")


@cache
def of_lit() -> Explanation:
    return explain(lit(), PICTURE, LABELS)


@cache
def of_native(most_weights: int = 2**24) -> Explanation:
    return explain(native(), CAT, most_weights=most_weights)


@cache
def trace_of_lit(dtype: str = "float64") -> Any:
    return lit(dtype).trace(PICTURE, [f"a photo of {label}" for label in LABELS])


def wide_image() -> Any:
    """2 × 3 patches of 14 pixels, and some pixels that make no patch."""
    return np.random.default_rng(3).integers(0, 256, (30, 50, 3), dtype=np.uint8)
