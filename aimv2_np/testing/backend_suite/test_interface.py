"""What a backend says of itself, and how it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import aimv2_np

from ...backend import Backend, available_backends, host_dtype


def test_it_is_found_by_its_name(pytestconfig: pytest.Config, be: Backend) -> None:
    """And can run here."""
    name = pytestconfig.getoption("--backend")
    assert ":" in name or available_backends()[name] == ""
    assert be.name
    assert be.dtypes


def test_arrays_go_there_and_back(dtype: str, be: Backend) -> None:
    """Shapes stay; numbers do that the dtype holds exactly."""
    host = np.arange(-12, 12).reshape(2, 3, 4).astype(host_dtype(dtype))
    back = be.to_numpy(be.asarray(host, dtype))
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, host)


def test_its_own_arrays_come_back_as_they_are(dtype: str, be: Backend) -> None:
    """By DLPack: as pixels that a user holds on its device."""
    host = np.arange(24).reshape(1, 3, 2, 4).astype(host_dtype(dtype))
    x = be.asarray(host, dtype)
    np.testing.assert_array_equal(be.to_numpy(be.asarray(be.from_dlpack(x), dtype)), host)


def test_bytes_become_pixels(dtype: str, be: Backend) -> None:
    """To the last bit: they are looked up."""
    rng = np.random.default_rng(3)
    image = rng.integers(256, size=(30, 41, 3), dtype=np.uint8)
    values = rng.integers(-100, 100, size=(3, 256)).astype(np.float32)
    found = be.to_numpy(be.asarray(be.normalize(image, values), dtype))
    np.testing.assert_array_equal(found, np.stack([values[c][image[..., c]] for c in range(3)]))


def test_activations_can_be_computed_with(dtype: str, be: Backend) -> None:
    """What layers.py does to them besides calling ops."""
    host = (np.arange(24) % 7 - 3).reshape(1, 4, 6).astype(host_dtype(dtype))
    x = be.asarray(host, dtype)
    for found, true in (
        (x + x, host + host),
        (x * x, host * host),
        (x[:, 1:3], host[:, 1:3]),
        (x.reshape(1, 4, 2, 3).swapaxes(1, 2), host.reshape(1, 4, 2, 3).swapaxes(1, 2)),
        (x[0].T, host[0].T),
        (be.broadcast_to(x, (2, 4, 6)), np.broadcast_to(host, (2, 4, 6))),
        (be.concatenate([x, x], axis=1), np.concatenate([host, host], axis=1)),
    ):
        np.testing.assert_array_equal(be.to_numpy(found), true)


def test_patterns_times_values(dtype: str, be: Backend) -> None:
    """What a trace multiplies with `@`: here each query sees a single key, and takes its value."""
    q, k, v = (np.ones((2, 3, n, 8), host_dtype(dtype)) for n in (5, 1, 1))
    v *= np.arange(8)
    scores = be.attention_scores(be.asarray(q, dtype), be.asarray(k, dtype))
    found = be.softmax(scores) @ be.asarray(v, dtype)
    np.testing.assert_array_equal(be.to_numpy(found), np.broadcast_to(v, (2, 3, 5, 8)))


def test_a_dtype_that_it_does_not_have(be: Backend) -> None:
    """One clear error, before anything is read."""
    with pytest.raises(aimv2_np.BackendUnavailable, match="float1024"):
        aimv2_np.load("emoji-lit", backend=be, dtype="float1024")


def test_a_device_that_does_not_exist(pytestconfig: pytest.Config) -> None:
    """Refused, not replaced by another."""
    name = pytestconfig.getoption("--backend")
    with pytest.raises(aimv2_np.BackendUnavailable):
        aimv2_np.load("emoji-lit", backend=name, device="no such device")


def test_the_temperature_is_a_number(dtype: str, be: Backend) -> None:
    """Of no dimension, and not rounded to 16 bits."""
    model: Any = aimv2_np.load("emoji-lit", backend=be, dtype=dtype)
    plain: Any = aimv2_np.load("emoji-lit", backend="numpy")
    exact = plain.logit_scale
    assert model.logit_scale.shape == ()
    np.testing.assert_allclose(model.logit_scale, exact, rtol=1e-5)


def test_many_images(dtype: str, be: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several batches, as a list and as an iterator: each is the one that was given."""
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 64 * 5)  # five images
    rng = np.random.default_rng(5)
    images = [rng.integers(256, size=(64, 64, 3), dtype=np.uint8) for _ in range(12)]
    model = aimv2_np.load("emoji-lit", backend=be, dtype=dtype)
    alone = np.concatenate([model.encode_image(image) for image in images])
    for given in (images, iter(images)):
        found = model.encode_image(given)
        assert (found @ alone.T).argmax(axis=1).tolist() == list(range(12))
        assert np.linalg.norm(found - alone, axis=1).max() < 0.05
    assert model.patch_features(images).shape == (12, 64, 192)


def test_the_packaged_model(dtype: str, be: Backend) -> None:
    """Loaded, and asked: it still knows a pizza from a dog."""
    model = aimv2_np.load("emoji-lit", backend=be, dtype=dtype)
    found = model.classify(aimv2_np.samples()["pizza"], ["a pizza", "a dog", "a car"])
    assert found.probabilities.argmax() == 0
