"""The two attentions against float64, run on the CPU (host_shim/): packed, ragged, causal.

Errors are in units of `softmax(scores) |v|`, what a sum of values can err by. On the tensor cores a
share is rounded to the dtype (at most 1 unit) and so is the result (1 more): below 2.
attention_plain rounds the result alone; in float32 the scores err most, sums of up to 256 products
in a row, and exp makes their absolute error a relative one. What was measured stands beside.
"""

from ctypes import c_int, c_longlong

import numpy as np
import pytest

from aimv2_np import ops

HEADS = 2
# Lengths of packed sequences: less than a tile, a whole one, one more, none; several tiles of
# keys, so that the running maximum moves.
PACKS = [[1], [64], [65, 0, 17], [3, 150]]


def fused(host, lengths, width, seed=0):
    """q, k, v in one array (tokens, 3, H, E) that NaN surround: whoever reads beyond shows it."""
    tokens = sum(lengths)
    room = np.full((tokens + 128, 3, HEADS, width), np.nan, host.dtype)
    qkv = room[64 : 64 + tokens]
    qkv[:] = np.random.default_rng(seed).normal(size=qkv.shape)
    qkv[:, 0] *= host.dtype.type(2)  # scores of about ±6: some shares near 1, some near 0
    return qkv


def attend(host, entry, qkv, lengths, causal, seen=None):
    """The kernel's result (tokens, H, E), launched as its header says."""
    tokens, _, heads, width = qkv.shape
    out, untouched = host.result((tokens, heads, width))
    ends = np.cumsum([0, *lengths], dtype=np.int32)
    rows = 16 if entry == "attention_plain" else 64
    grid = (-(-max(lengths) // rows), heads, len(lengths))
    numbers = [c_longlong(3 * heads * width), c_longlong(width), c_int(causal)]
    if entry == "attention_plain":
        numbers.append(c_int(width))
    counts = np.array(seen or lengths, np.int32)
    host.launch(entry, grid, 128, qkv[:, 0], qkv[:, 1], qkv[:, 2], out, ends, counts, *numbers)
    assert untouched()
    return out


def expected(qkv, lengths, causal):
    """float64, and the size of its errors: both (tokens, H, E)."""
    results, sizes = [], []
    for part in np.split(qkv.astype(float), np.cumsum(lengths)[:-1]):
        q, k, v = part.transpose(1, 2, 0, 3)[:, None]  # each (1, H, N, E)
        if part.size:
            results.append(ops.attention(q, k, v, causal=causal)[0].swapaxes(0, 1))
            sizes.append(ops.attention(q, k, np.abs(v), causal=causal)[0].swapaxes(0, 1))
    return np.concatenate(results), np.concatenate(sizes)


def units(host, got, qkv, lengths, causal):
    result, size = expected(qkv, lengths, causal)
    return np.max(np.abs(got.astype(float) - result) / size) / host.unit


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", PACKS)
def test_attention(host16, lengths, causal, width):
    qkv = fused(host16, lengths, width)
    out = attend(host16, f"attention_{width}", qkv, lengths, causal)
    assert units(host16, out, qkv, lengths, causal) < 2  # measured: 1.52


@pytest.mark.parametrize("width", [8, 40, 256])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[1], [33, 0, 20]])
def test_attention_plain(host, lengths, causal, width):
    qkv = fused(host, lengths, width)
    out = attend(host, "attention_plain", qkv, lengths, causal)
    bound = 100 if host.name == "float32" else 1.02  # measured: 51 and 0.99
    assert units(host, out, qkv, lengths, causal) < bound


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_seen(host, causal):
    for entry, width in entries(host):
        lengths, seen = [70, 40, 5, 130], [66, 1, 0, 64]
        qkv = fused(host, lengths, width)
        out = attend(host, entry, qkv, lengths, causal, seen)
        ends = np.cumsum([0, *lengths])
        for begin, end, count in zip(ends, ends[1:], seen, strict=False):
            one, mask = qkv[begin:end].astype(float), np.arange(end - begin) < count
            q, k, v = one.transpose(1, 2, 0, 3)[:, None]
            result = ops.attention(q, k, v, causal=causal, key_mask=mask[None])[0].swapaxes(0, 1)
            size = np.abs(v).max()
            assert np.max(np.abs(out[begin:end].astype(float) - result)) / size < 100 * host.unit


def entries(host):
    wide = [] if host.name == "float32" else [("attention_64", 64)]
    return [("attention_plain", 24), *wide]


def test_a_packed_sequence_gets_what_it_gets_alone(host):
    for entry, width in entries(host):
        qkv = fused(host, [30, 70], width)
        packed = attend(host, entry, qkv, [30, 70], True)
        alone = attend(host, entry, qkv[30:], [70], True)
        np.testing.assert_array_equal(alone, packed[30:])


def test_nan_stays_in_its_sequence(host):
    for entry, width in entries(host):
        qkv = fused(host, [20, 20], width)
        qkv[5, 1, 0, 3] = np.nan  # a key of head 0
        out = attend(host, entry, qkv, [20, 20], False)
        assert np.isnan(out[:20, 0]).all()
        assert np.isfinite(out[20:].astype(float)).all()
        assert np.isfinite(out[:, 1].astype(float)).all()


def test_a_row_that_sees_nothing_gives_zeros(host_of):
    """ops.softmax: scores that are -inf throughout, here because the products overflow."""
    for dtype in ("float32", "bfloat16"):
        host = host_of(dtype)
        for entry, width in entries(host):
            qkv = fused(host, [10], width)
            qkv[:, 0], qkv[:, 1] = 1e30, -1e30
            np.testing.assert_array_equal(attend(host, entry, qkv, [10], False), 0)
