"""Other layouts of activations are read as ours where only one reading is possible.

Every expected value is looked up by its indices, not made by transposing.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from aimv2_np.verify.shapes import ShapeMismatch, reconciled

B, H, N, E = 2, 3, 10, 4  # all different, and none of them 1
D, ROWS, COLUMNS = H * E, 2, 5


def token(b: int, n: int, d: int) -> float:
    """A number of its own for each channel of each token."""
    return float(1000 * b + 20 * n + d)


def filled(shape: tuple[int, ...], where: Any) -> np.ndarray:
    """An array whose entry at some indices is that of the token, batch and channel they mean."""
    array = np.empty(shape)
    for index in product(*map(range, shape)):
        array[index] = token(*where(*index))
    return array


TOKENS = filled((B, N, D), lambda b, n, d: (b, n, d))
HEADS = filled((B, H, N, E), lambda b, h, n, e: (b, n, h * E + e))
LAYOUTS = [
    ("norm_1", "", TOKENS, TOKENS),
    ("norm_1", "tokens first", filled((N, B, D), lambda n, b, d: (b, n, d)), TOKENS),
    ("norm_1", "channels before", filled((B, D, N), lambda b, d, n: (b, n, d)), TOKENS),
    ("norm_1", "batch and tokens", filled((B * N, D), lambda r, d: (r // N, r % N, d)), TOKENS),
    ("embed", "channels first", filled((B, D, 2, 5), lambda b, d, y, x: (b, 5 * y + x, d)), TOKENS),
    ("embed", "grid", filled((B, 2, 5, D), lambda b, y, x, d: (b, 5 * y + x, d)), TOKENS),
    ("attn.q", "", HEADS, HEADS),
    ("attn.q", "heads split", TOKENS, HEADS),
    ("attn.k", "tokens first", filled((N, B, D), lambda n, b, d: (b, n, d)), HEADS),
    ("attn.v", "heads after", filled((B, N, H, E), lambda b, n, h, e: (b, n, h * E + e)), HEADS),
    (
        "attn.context",
        "batch and heads",
        filled((B * H, N, E), lambda r, n, e: (r // H, n, r % H * E + e)),
        HEADS,
    ),
    (
        "head.k",
        "6 heads for 3",
        filled((B, 6, N, 2), lambda b, h, n, e: (b, n, 2 * h + e)),
        HEADS,
    ),
    ("attn.q", "no batch", TOKENS[0], HEADS[:1]),
    ("norm_1", "axes of length 1", TOKENS[0], TOKENS[:1]),
    ("pooled", "axes of length 1", TOKENS[:, :1], TOKENS[:, 0]),
    ("head.context", "heads split", TOKENS[:, 0], HEADS[:, :, :1]),
    ("attn.pattern", "batch and heads", HEADS.reshape(B * H, N, E), HEADS),
    ("pos_embed", "axes of length 1", TOKENS[:1], TOKENS[0]),
    ("pos_embed", "first of a batch", TOKENS, TOKENS[0]),
    ("pos_embed", "grid", filled((2, 5, D), lambda y, x, d: (0, 5 * y + x, d)), TOKENS[0]),
    ("pos_embed", "grid", filled((1, 2, 5, D), lambda b, y, x, d: (0, 5 * y + x, d)), TOKENS[0]),
    (
        "pos_embed",
        "channels first, grid",
        filled((1, D, 2, 5), lambda b, d, y, x: (0, 5 * y + x, d)),
        TOKENS[0],
    ),
    ("pos_embed", "channels first", filled((D, N), lambda d, n: (0, n, d)), TOKENS[0]),
    ("pixel_values", "channels last", np.moveaxis(HEADS, 1, -1), HEADS),
]


@pytest.mark.parametrize(("name", "how", "given", "expected"), LAYOUTS)
def test_layouts(name: str, how: str, given: np.ndarray, expected: np.ndarray) -> None:
    found, said = reconciled(f"vision.{name}", given, expected.shape, (ROWS, COLUMNS))
    np.testing.assert_array_equal(found, expected)
    assert said.startswith(how)
    assert bool(said) == bool(how)


def test_what_can_be_read_in_two_ways_is_not_read() -> None:
    """With as many tokens as texts, (N, B, D) and (B, N, D) look the same."""
    given = np.arange(2 * 2 * 6.0).reshape(2, 2, 6)
    with pytest.raises(ShapeMismatch, match=r"two ways .*give it as \(2, 3, 2, 2\)"):
        reconciled("text.blocks.0.attn.q", given, (2, 3, 2, 2))
    same = np.zeros((2, 2, 6))  # it makes no difference here
    assert reconciled("text.blocks.0.attn.q", same, (2, 3, 2, 2))[0].shape == (2, 3, 2, 2)


@pytest.mark.parametrize("shape", [(), (7,), (B, N, D + 1), (B + 1, N, D), (B, N, D, 2), (0, N, D)])
def test_other_sizes_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch) as caught:
        reconciled("vision.norm", np.zeros(shape), (B, N, D))
    assert f"expected ({B}, {N}, {D})" in str(caught.value)
    assert str(shape).replace(",)", ")") in str(caught.value)
