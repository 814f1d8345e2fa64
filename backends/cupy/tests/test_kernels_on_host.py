"""Every kernel but the attentions against float64, run on the CPU (host_shim/).

Errors are given in units: the unit roundoff of the dtype, the most by which a correctly rounded
number may be off, relatively. A kernel computes in float and rounds once, so 16-bit results must be
within 1 unit, and the 2 % on top are what float itself adds. In float32 every step rounds; the
bounds there are about twice what was measured, which stands beside them.
"""

from ctypes import c_float, c_int, c_longlong

import numpy as np
import pytest

from aimv2_np import ops

ONE_ROUNDING = 1.02


def units(host, got, expected, size=None):
    """The largest error in units of `size`, by default of the expected number itself."""
    size = np.abs(expected) if size is None else size
    smallest = float(np.finfo(np.float16).smallest_normal)  # below it float16 has fewer digits
    return np.max(np.abs(got.astype(float) - expected) / np.maximum(size, smallest)) / host.unit


def bound(host, float32):
    return float32 if host.name == "float32" else ONE_ROUNDING


def test_the_formats_of_the_shim_are_numpys(host16):
    every = np.arange(2**16, dtype=np.uint16).view(host16.dtype)
    floats = np.empty(len(every), np.float32)
    host16.library.to_floats(every.ctypes, floats.ctypes, len(every))
    np.testing.assert_array_equal(floats, every.astype(np.float32))

    exact = floats[np.isfinite(floats)].astype(float)
    ties = (exact[:-1] + exact[1:]) / 2  # and what lies beside the ties
    near = np.nextafter(ties.astype("f4"), np.float32(9))
    wide = np.random.default_rng(0).normal(size=20000) * np.logspace(-12, 12, 20000)
    many = np.concatenate([floats, ties.astype("f4"), near, wide.astype("f4")])
    got = np.empty(len(many), host16.dtype)
    host16.library.from_floats(many.ctypes, got.ctypes, len(many))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = many.astype(host16.dtype)
    np.testing.assert_array_equal(got.astype("f4"), expected.astype("f4"))


@pytest.mark.parametrize("width", [1, 7, 96, 1024, 1031])
@pytest.mark.parametrize("threads", [32, 128])
def test_rms_norm(host, width, threads):
    rng = np.random.default_rng(width)
    x = host.array(rng.normal(size=(3, width)) * [[1e-2], [1], [100]])
    weight = host.array(rng.normal(size=width))
    y, untouched = host.result(x.shape)
    host.launch("rms_norm", (3,), threads, x, weight, y, c_int(width), c_float(1e-5))
    expected = ops.rms_norm(x.astype(float), weight.astype(float), float(np.float32(1e-5)))
    assert units(host, y, expected) < bound(host, float32=6)  # measured: 3.2
    assert untouched()


@pytest.mark.parametrize("width", [1, 33, 64, 200])
def test_rms_norm_of_the_stream(host, width):
    """It is float32 whatever the weights are, so that only the result is rounded."""
    rng = np.random.default_rng(width)
    x = (rng.normal(size=(3, width)) * [[1e-2], [1], [100]]).astype(np.float32)
    weight = host.array(rng.normal(size=width))
    y, untouched = host.result(x.shape)
    host.launch("rms_norm_stream", (3,), 64, x, weight, y, c_int(width), c_float(1e-5))
    expected = ops.rms_norm(x.astype(float), weight.astype(float), float(np.float32(1e-5)))
    assert units(host, y, expected) < bound(host, float32=6)
    assert untouched()


def test_a_row_is_normed_alike_in_any_batch(host):
    rng = np.random.default_rng(0)
    x, weight = host.array(rng.normal(size=(4, 200))), host.array(rng.normal(size=200))
    batch, _ = host.result(x.shape)
    alone, _ = host.result(x[2:3].shape)
    host.launch("rms_norm", (4,), 64, x, weight, batch, c_int(200), c_float(1e-5))
    host.launch("rms_norm", (1,), 64, x[2:3], weight, alone, c_int(200), c_float(1e-5))
    np.testing.assert_array_equal(alone[0], batch[2])


@pytest.mark.parametrize("hidden", [1, 13, 64, 344])
def test_swiglu(host, hidden):
    rng = np.random.default_rng(hidden)
    gate_up = host.array(rng.normal(size=(3, 2 * hidden)) * 3)
    gate_up[0, 0], gate_up[1, 0] = -1000, 1000  # exp(1000) is infinite; silu there is 0 and x
    y, untouched = host.result((3, hidden))
    host.launch("swiglu", (3,), 32, gate_up, y, c_int(hidden))
    gate, up = np.split(gate_up.astype(float), 2, axis=1)
    expected = ops.silu(gate) * up
    assert units(host, y, expected) < bound(host, float32=5)  # measured: 2.4
    assert untouched()


# Batch, channels, rows and columns of pixels, patch: whole patches, some left over, one, long ones
IMAGES = [(2, 3, 28, 42, 14), (1, 3, 31, 47, 14), (1, 1, 5, 5, 5), (2, 4, 9, 20, 3)]


@pytest.mark.parametrize("shape", IMAGES)
def test_patchify(host, shape):
    *shape, patch = shape
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = ops.cut_patches(pixels, patch).astype(host.dtype)  # moved and rounded: no error
    rows, untouched = host.result(expected.shape)
    blocks = expected.shape[0] * expected.shape[1]
    host.launch("patchify", (blocks,), 96, pixels, rows, *map(c_int, (*shape[1:], patch)))
    np.testing.assert_array_equal(rows, expected)
    assert untouched()


@pytest.mark.parametrize("shape", [(2, 28, 42, 3), (1, 1, 1, 1), (3, 31, 5, 3), (1, 7, 300, 4)])
def test_normalize(host_of, shape):
    host, rng = host_of("float32"), np.random.default_rng(0)
    batch, height, width, channels = shape
    images = rng.integers(256, size=shape, dtype=np.uint8)
    values = rng.normal(size=(channels, 256)).astype(np.float32)
    pixels, untouched = host.result((batch, channels, height, width))
    sizes = map(c_int, (channels, height, width))
    host.launch("normalize", (batch * height,), 96, images, values, pixels, *sizes)
    expected = np.stack([values[c][images[..., c]] for c in range(channels)], axis=1)
    np.testing.assert_array_equal(pixels, expected)
    assert untouched()


@pytest.mark.parametrize("keys", [1, 3, 33, 100])
@pytest.mark.parametrize(("heads", "width"), [(2, 20), (1, 64), (2, 128), (1, 256)])
def test_pool(host, keys, heads, width):
    rng = np.random.default_rng(keys)
    batch, D = 2, heads * width
    query = host.array(rng.normal(size=(heads, width)) * 2)
    fused = host.array(rng.normal(size=(batch, keys, 2, heads, width)))
    out, untouched = host.result((batch, D))
    strides = c_longlong(2 * D), c_longlong(keys * 2 * D)
    k, v = fused[:, :, 0], fused[:, :, 1]
    host.launch("pool", (heads, batch), 256, query, k, v, out, c_int(keys), c_int(width), *strides)

    q = np.broadcast_to(query[None, :, None].astype(float), (batch, heads, 1, width))
    k, v = (x.astype(float).swapaxes(1, 2) for x in (k, v))
    expected = ops.attention(q, k, v).reshape(batch, D)
    size = ops.attention(q, k, np.abs(v)).reshape(batch, D)  # what a sum of values errs by
    assert units(host, out, expected, size) < bound(host, float32=14)  # measured: 6.7
    assert untouched()


def test_pool_gives_zeros_where_nothing_is_seen_and_passes_nan_on(host_of):
    host = host_of("float32")
    query, fused = np.full((1, 8), 1e30, np.float32), np.ones((2, 5, 8), np.float32)
    keys = np.full((2, 5, 8), -1e30, np.float32)  # scores: -inf throughout
    keys[1, 3] = np.nan
    out, _ = host.result((2, 8))
    strides = c_longlong(8), c_longlong(40)
    host.launch("pool", (1, 2), 256, query, keys, fused, out, c_int(5), c_int(8), *strides)
    np.testing.assert_array_equal(out, [[0] * 8, [np.nan] * 8])
