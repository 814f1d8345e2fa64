"""The definitions against values worked by hand and against the plain formula in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aimv2_np import ops

RNG = np.random.default_rng(0)


def test_linear_by_hand() -> None:
    x = np.array([[1.0, 2.0]])
    weight = np.array([[1.0, 0.0], [0.0, 10.0], [1.0, 1.0]])
    assert ops.linear(x, weight).tolist() == [[1, 20, 3]]
    assert ops.linear(x, weight, np.array([100.0, 0, 0])).tolist() == [[101, 20, 3]]


def test_rms_norm_by_hand() -> None:
    x = np.array([3.0, -4.0])  # mean square 12.5, no mean subtracted
    out = ops.rms_norm(x, np.array([1.0, 2.0]), eps=0.0)
    assert out == pytest.approx([3 / math.sqrt(12.5), -8 / math.sqrt(12.5)])
    # eps is added to the mean square, inside the root
    assert ops.rms_norm(np.zeros(2) + 1e-3, np.ones(2), eps=3e-6)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("x", [-1000.0, -90.0, -1.5, 0.0, 0.3, 40.0, 1000.0])
def test_silu_is_x_times_sigmoid_and_never_overflows(x: float) -> None:
    wanted = x / (1 + math.exp(-x)) if x > -700 else 0.0
    for dtype in (np.float32, np.float64):
        out = ops.silu(np.array([x], dtype))
        assert out.dtype == dtype
        assert out[0] == pytest.approx(wanted, rel=4e-7, abs=1e-30)


def test_softmax_by_hand() -> None:
    out = ops.softmax(np.array([[0.0, math.log(3.0)], [1000.0, 1000.0], [-np.inf, -np.inf]]))
    assert out[0] == pytest.approx([0.25, 0.75])
    assert out[1].tolist() == [0.5, 0.5]
    assert out[2].tolist() == [0.0, 0.0]  # a query that sees no key


def naive_attention(q, k, v, visible):
    """Attention in Python loops: for one head, q (N, E), k and v (M, E), visible (N, M)."""
    out = np.zeros((len(q), v.shape[1]))
    for i, query in enumerate(q):
        keys = [j for j in range(len(k)) if visible[i][j]]
        e = [math.exp(sum(query * k[j]) / math.sqrt(len(query))) for j in keys]
        out[i] = sum((w * v[j] for w, j in zip(e, keys, strict=True)), np.zeros(v.shape[1]))
        out[i] /= sum(e)
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_against_loops(causal: bool, masked: bool) -> None:
    q, k, v = RNG.normal(size=(3, 2, 3, 4, 5))  # B=2, H=3, N=4, E=5
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], bool) if masked else None
    out = ops.attention(q, k, v, causal=causal, key_mask=mask)
    for b, h in np.ndindex(2, 3):
        seen = np.tri(4, dtype=bool) if causal else np.ones((4, 4), bool)
        seen = seen & mask[b] if masked else seen
        assert out[b, h] == pytest.approx(naive_attention(q[b, h], k[b, h], v[b, h], seen))


def test_attention_with_one_query() -> None:
    q, k, v = RNG.normal(size=(1, 2, 1, 5)), *RNG.normal(size=(2, 1, 2, 7, 5))
    out = ops.attention(q, k, v)
    assert out.shape == (1, 2, 1, 5)
    assert out[0, 1] == pytest.approx(
        naive_attention(q[0, 1], k[0, 1], v[0, 1], np.ones((1, 7), bool))
    )


def test_l2_normalize_by_hand() -> None:
    out = ops.l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert out.tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert ops.l2_normalize(np.array([3e-9, 4e-9])) == pytest.approx([0.6, 0.8])


def test_patch_embed_is_the_convolution_and_floors_the_grid() -> None:
    pixels = RNG.normal(size=(1, 2, 7, 11))  # patch 3: 2 rows, 3 columns; the rest is left out
    weight, bias = RNG.normal(size=(4, 2, 3, 3)), RNG.normal(size=4)
    out = ops.patch_embed(pixels, weight, bias)
    assert out.shape == (1, 6, 4)
    for n, (row, column) in enumerate(np.ndindex(2, 3)):  # row by row
        window = pixels[0, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        for d in range(4):
            assert out[0, n, d] == pytest.approx((window * weight[d]).sum() + bias[d])


def test_sincos_positions_by_hand() -> None:
    table = ops.sincos_positions(rows=2, columns=3, width=8, dtype=np.float64)
    x, y, slow = 2, 1, 10000**-0.5  # the last patch; frequencies 1 and 10000^(-1/2)
    wanted = [
        *(math.sin(x), math.sin(x * slow), math.cos(x), math.cos(x * slow)),
        *(math.sin(y), math.sin(y * slow), math.cos(y), math.cos(y * slow)),
    ]
    assert table.shape == (6, 8)
    assert table[5] == pytest.approx(wanted)


def test_sincos_positions_are_rounded_once() -> None:
    exact = ops.sincos_positions(34, 45, 1024, np.float64)
    single = ops.sincos_positions(34, 45, 1024, np.float32)
    assert np.array_equal(single, exact.astype(np.float32))


def test_resample_positions_by_hand() -> None:
    """A 4×4 grid with a ridge in row 1, doubled: new row i lies at old row (i - 0.5) / 2."""
    ridge = np.repeat([0.0, 1.0, 0.0, 0.0], 4)[:, None]
    doubled = ops.resample_positions(ridge, 8, 4).reshape(8, 4)
    assert doubled.std(axis=1).max() < 1e-15  # nothing varies along a row

    # Keys' kernel with a = -1/2, by hand, at the distances a doubling has
    at = {0.25: 0.8671875, 0.75: 0.2265625, 1.25: -0.0703125, 1.75: -0.0234375}
    # row 4 lies at 1.75: all four neighbours exist, and their weights sum to 1
    assert sum(at.values()) == 1
    assert doubled[4, 0] == pytest.approx(at[0.75])
    # row 2 lies at 0.75: row -1 does not exist, so the other three weights are normalised
    assert doubled[2, 0] == pytest.approx(at[0.25] / (at[0.75] + at[0.25] + at[1.25]))


def test_resample_positions_shrinks_with_a_widened_kernel() -> None:
    """A 4×4 grid halved: new row 0 lies at old row 0.5, and the kernel is twice as wide."""
    ridge = np.repeat([1.0, 0.0, 0.0, 0.0], 4)[:, None]
    halved = ops.resample_positions(ridge, 2, 4).reshape(2, 4)
    # distances of rows 0, 1, 2, 3 from 0.5, halved: 0.25, 0.25, 0.75, 1.25
    at = {0.25: 0.8671875, 0.75: 0.2265625, 1.25: -0.0703125}
    assert halved[0, 0] == pytest.approx(at[0.25] / (2 * at[0.25] + at[0.75] + at[1.25]))


def test_resample_positions_keeps_constants_and_the_same_grid() -> None:
    table = RNG.normal(size=(16, 3))
    assert ops.resample_positions(table, 4, 4) == pytest.approx(table)
    for rows, columns in [(2, 2), (3, 7), (9, 5)]:
        out = ops.resample_positions(np.full((16, 3), 2.5, np.float32), rows, columns)
        assert out.shape == (rows * columns, 3)
        assert out.dtype == np.float32
        assert out == pytest.approx(np.float32(2.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ops_keep_the_dtype(dtype: type) -> None:
    x = RNG.normal(size=(1, 2, 3, 4)).astype(dtype)
    weight = np.ones(4, dtype)
    results = [
        ops.rms_norm(x, weight, 1e-5),
        ops.silu(x),
        ops.softmax(x),
        ops.l2_normalize(x),
        ops.attention(x, x, x, causal=True, key_mask=np.ones((1, 3), bool)),
        ops.linear(x, np.ones((2, 4), dtype)),
    ]
    assert {r.dtype for r in results} == {np.dtype(dtype)}
