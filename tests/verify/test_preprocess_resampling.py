"""Other ways to resize than Pillow's, as some ports have: against Pillow, NumPy and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from aimv2_np.verify import resampling

# ---------------------------------------------------------------------------- resampling

SIZES = [(30, 12), (31, 13), (20, 20), (9, 25)]  # old, new


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bicubic_in_floats_is_pillows_on_floats(old: int, new: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (old, 2 * old)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((2 * new, new), Image.Resampling.BICUBIC))
    found = resampling.resample(
        np.repeat(image[:, :, None], 3, axis=2), (new, 2 * new), resampling.antialiased
    )
    np.testing.assert_allclose(found[:, :, 1], expected, atol=1e-3)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_areas_are_those_of_pixels_cut_into_equal_parts(old: int, new: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, old)
    expected = np.repeat(values, new).reshape(new, old).mean(axis=1)
    assert_along(resampling.areas, values, expected)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_linear_between_two_pixels(old: int, new: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, old)
    centres, ends = (np.arange(new) + 0.5) * old / new - 0.5, np.linspace(0, old - 1, new)
    pixels = np.arange(old)
    assert_along(resampling.two_pixels, values, np.interp(centres, pixels, values))
    assert_along(resampling.corners, values, np.interp(ends, pixels, values))
    assert_along(
        resampling.first_pixels, values, values[np.floor(np.arange(new) * old / new).astype(int)]
    )


def test_bicubic_of_four_pixels() -> None:
    values = np.array([0.0, 0, 0, 1, 0, 0, 0, 0])
    # half-way between two: Keys' kernel at 1/2 and 3/2 with a = -3/4
    assert_along(resampling.four_pixels, values, np.array([0, 19 / 32, -3 / 32, 0]))
    assert_along(
        resampling.four_pixels, np.array([4.0, 0, 0, 0]), np.array([2.0, 0])
    )  # beyond the edge is the edge


def assert_along(taps: Any, values: np.ndarray, expected: np.ndarray) -> None:
    """A column of pixels resized becomes another."""
    column = np.broadcast_to(values[:, None, None], (len(values), 1, 3))
    found = resampling.resample(column, (len(expected), 1), taps)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-9)
