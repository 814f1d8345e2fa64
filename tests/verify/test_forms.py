"""The forms of fast kernels compute what the definitions do: to float64's rounding, and no further.

What they are for is to err otherwise, by as much: that is checked in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aimv2_np import ops
from aimv2_np.verify.forms import fused

RNG = np.random.default_rng(0)
X, WEIGHT, BIAS = (RNG.standard_normal(shape) for shape in ((2, 5, 48), (32, 48), 32))
Q, K, V = (RNG.standard_normal((2, 3, 130, 16)) for _ in range(3))
ALONE = np.s_[:, :, :1]  # one query, as in the pooling head
MASK = np.arange(130) < np.array([[130], [70]])
PIXELS, KERNEL = RNG.standard_normal((2, 3, 14, 20)), RNG.standard_normal((32, 3, 6, 6))

CALLS: dict[str, tuple[str, Callable[[], tuple[Any, ...]], dict[str, Any]]] = {
    "linear": ("linear", lambda: (X, WEIGHT), {}),
    "linear with a bias": ("linear", lambda: (X, WEIGHT, BIAS), {}),
    "patch_embed": ("patch_embed", lambda: (PIXELS, KERNEL, BIAS), {}),
    "rms_norm": ("rms_norm", lambda: (X, WEIGHT[0], 1e-5), {}),
    "silu": ("silu", lambda: (X * 30,), {}),
    "softmax": ("softmax", lambda: (X * 9,), {}),
    "softmax of hidden ones": ("softmax", lambda: (np.where(X > 0, X, -np.inf),), {}),
    "l2_normalize": ("l2_normalize", lambda: (X,), {}),
    **{
        f"{op} {name}": (op, lambda q=q, more=more: (Q[q], K, *more), sees)
        for op, more in (("attention", (V,)), ("attention_scores", ()))
        for name, q, sees in (
            ("", np.s_[:], {}),
            ("causal", np.s_[:], {"causal": True}),
            ("masked", np.s_[:], {"key_mask": MASK}),
            ("causal and masked", np.s_[:], {"causal": True, "key_mask": MASK}),
            ("one query", ALONE, {}),
        )
    },
}


@pytest.mark.parametrize("call", CALLS)
def test_the_same_to_rounding(call: str) -> None:
    op, arguments, sees = CALLS[call]
    true = getattr(ops, op)(*arguments(), **sees)
    for dtype, far in ((np.float64, 1e-13), (np.float32, 2e-5)):
        given = [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in arguments()]
        found = [getattr(fused(seed), op)(*given, **sees) for seed in (0, 1)]
        assert all(array.dtype == dtype for array in found)
        for array in found:
            np.testing.assert_allclose(array, true, rtol=far, atol=far)


def test_a_row_that_sees_nothing_gives_zeros() -> None:
    hidden = np.zeros((2, 130), bool)
    assert not fused(0).attention(Q, K, V, key_mask=hidden).any()
    assert not fused(0).softmax(np.full((2, 3), -np.inf)).any()


@pytest.mark.parametrize("call", ["linear", "rms_norm", "attention ", "attention_scores "])
def test_they_round_otherwise(call: str) -> None:
    """Each seed's bits are its own, and repeatable."""
    op, arguments, sees = CALLS[call]
    given = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in arguments()]
    plain, first, again, second = (
        getattr(be, op)(*given, **sees) for be in (ops, fused(0), fused(0), fused(1))
    )
    assert (first == again).all()
    assert (first != plain).any()
    assert op == "attention" or (first != second).any()
