"""Each op of a backend against its definition in float64 (`aimv2_np/ops.py`).

An op may err by `ALLOWED` times what the definition does that computes in float32 with numbers of
the dtype. Parameters are those that `prepare` returned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ... import ops
from ...backend import Backend, host_dtype
from ...verify.lanes import DTYPES, cast_tree, rounded
from ...verify.locate import ALLOWED
from .. import random_models
from .test_models import JUDGED_AS

RNG = np.random.default_rng(11)
WIDTHS = (1, 5, 48, 77)
MASK = np.arange(77) < np.array([[77], [30]])
SEES: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "masked": {"key_mask": MASK},
    "causal and masked": {"causal": True, "key_mask": MASK},
}


def drawn(*shape: int) -> Any:
    """Numbers of a size as activations have it."""
    return RNG.standard_normal(shape)


def held(array: Any, dtype: str) -> Any:
    """A float64 array as the nearest numbers of a dtype, in what the host has of it."""
    narrow = JUDGED_AS.get(dtype, dtype)
    narrow = narrow if narrow in DTYPES else "bfloat16"
    return rounded(np.asarray(array, host_dtype(dtype)), narrow)


def judge(op: str, be: Backend, dtype: str, inputs: list[Any], *rest: Any, **how: Any) -> None:
    """One op, given arrays and what else it takes."""
    if dtype not in (*DTYPES, *JUDGED_AS):
        pytest.skip(f"{dtype}: no measure of a single op's error; whole models are judged")
    true = getattr(ops, op)(*inputs, *rest, **how)
    hosts = [held(array, dtype) for array in inputs]
    usual = held(getattr(ops, op)(*hosts, *rest, **how), dtype)
    found = getattr(be, op)(*(be.asarray(host, dtype) for host in hosts), *rest, **how)
    check(be.to_numpy(found), usual, true)


def check(found: Any, usual: Any, true: Any) -> None:
    """A result beside that of the definition in the dtype, and that in float64."""
    assert found.shape == true.shape
    hidden = np.isneginf(true)
    np.testing.assert_array_equal(np.isneginf(found), hidden)
    off = [
        np.abs(np.where(hidden, 0, array - np.where(hidden, 0, true))) for array in (found, usual)
    ]
    least = np.finfo(usual.dtype).eps * np.abs(np.where(hidden, 0, true)).max()
    assert off[0].max() <= ALLOWED * max(off[1].max(), least)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("op", ["silu", "softmax", "l2_normalize"])
def test_ops_without_parameters(op: str, width: int, be: Backend, dtype: str) -> None:
    """Of vectors of any width."""
    judge(op, be, dtype, [drawn(2, 7, width) * 4])


@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("head", [1, 15, 64, 128])
def test_attention(head: int, sees: str, be: Backend, dtype: str) -> None:
    """Of heads of any width, whatever may be seen."""
    judge("attention", be, dtype, [drawn(2, 3, 77, head) for _ in range(3)], **SEES[sees])


@pytest.mark.parametrize("sees", SEES)
def test_attention_scores(sees: str, be: Backend, dtype: str) -> None:
    """Minus infinity where a query may not look."""
    judge("attention_scores", be, dtype, [drawn(2, 3, 77, 32) for _ in range(2)], **SEES[sees])


def test_attention_of_a_single_query(be: Backend, dtype: str) -> None:
    """As the pooling head has it."""
    keys, values = drawn(2, 3, 200, 32), drawn(2, 3, 200, 32)
    judge("attention", be, dtype, [drawn(2, 3, 1, 32), keys, values])


def test_a_query_that_sees_nothing(be: Backend, dtype: str) -> None:
    """Gives zeros."""
    q = be.asarray(held(drawn(1, 2, 9, 16), dtype), dtype)
    found = be.to_numpy(be.attention(q, q, q, key_mask=np.zeros((1, 9), bool)))
    assert not found.any()


# ---------------------------------------------------------------------------- with parameters


@pytest.fixture
def lit(be: Backend, dtype: str) -> tuple[Any, Any]:
    """Parameters of a model, on the host and as the backend prepared them."""
    made = random_models.make("lit").params
    params = cast_tree(made, lambda array: array.astype(host_dtype(dtype)))
    return params, be.prepare(params, dtype)


def test_rms_norm(lit: tuple[Any, Any], be: Backend, dtype: str) -> None:
    """That of patches, which is no part of a block."""
    host, there = lit
    x = drawn(2, 7, 48)
    usual = ops.rms_norm(held(x, dtype), held(host.vision.patch_norm, dtype), 1e-5)
    found = be.rms_norm(be.asarray(held(x, dtype), dtype), there.vision.patch_norm, 1e-5)
    true = ops.rms_norm(x, host.vision.patch_norm.astype(np.float64), 1e-5)
    check(be.to_numpy(found), held(usual, dtype), true)


def test_linear(lit: tuple[Any, Any], be: Backend, dtype: str) -> None:
    """The projection of embeddings, which is no part of a block."""
    host, there = lit
    x = drawn(5, 48)
    usual = ops.linear(held(x, dtype), held(host.image_projector, dtype))
    found = be.linear(be.asarray(held(x, dtype), dtype), there.image_projector)
    true = ops.linear(x, host.image_projector.astype(np.float64))
    check(be.to_numpy(found), held(usual, dtype), true)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (30, 66), (31, 44)])
def test_patch_embed(
    height: int, width: int, lit: tuple[Any, Any], be: Backend, dtype: str
) -> None:
    """What is no whole patch is left out."""
    host, there = lit[0].vision, lit[1].vision
    pixels = drawn(2, 3, height, width)
    given = (held(a, dtype) for a in (pixels, host.patch_weight, host.patch_bias))
    usual = ops.patch_embed(*given)
    there_pixels = be.asarray(held(pixels, dtype), dtype)
    found = be.patch_embed(there_pixels, there.patch_weight, there.patch_bias)
    weights = (a.astype(np.float64) for a in (host.patch_weight, host.patch_bias))
    check(be.to_numpy(found), held(usual, dtype), ops.patch_embed(pixels, *weights))


def test_embed_tokens(lit: tuple[Any, Any], be: Backend, dtype: str) -> None:
    """Rows of the table."""
    host, there = lit
    ids = RNG.integers(0, 50, (3, 9))
    found = be.to_numpy(be.embed_tokens(ids, there.text.text_embedding))
    table = host.text.text_embedding.astype(np.float64)
    check(found, held(table[ids], dtype), table[ids])
