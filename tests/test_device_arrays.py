"""Arrays that lie on a device: taken without a copy, returned on request, and computed ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import aimv2_np
from aimv2_np.backend import NUMPY
from aimv2_np.testing import random_models


class There:
    """An array on a device of kind 2, CUDA, which NumPy cannot read."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers
        self.shape, self.dtype = numbers.shape, numbers.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("it is not on the CPU")

    def astype(self, dtype: Any) -> There:
        return There(self.numbers.astype(dtype))


FETCHED: list[tuple[int, ...]] = []


def to_numpy(x: Any) -> Any:
    FETCHED.append(x.shape)
    return np.asarray(x)


DEVICE = replace(
    NUMPY,
    name="device",
    asarray=lambda given, dtype: np.array(given, dtype),
    from_dlpack=lambda given: given.numbers,
    to_numpy=to_numpy,
)


def lit(backend: Any) -> Any:
    model = random_models.make("lit")
    return type(model)(model.config, model.params, backend, "float32")


CASE = random_models.cases("lit")[0]
GIVEN = CASE.pixel_values, CASE.input_ids, CASE.attention_mask


def test_arrays_of_the_device_are_taken() -> None:
    """Pixels as they are, whatever their dtype; ids and masks are fetched."""
    model, plain = lit(DEVICE), lit(NUMPY)
    wanted = plain(*GIVEN).logits_per_image
    found = model(*map(There, GIVEN)).logits_per_image
    np.testing.assert_array_equal(found, wanted)
    pixels = There(CASE.pixel_values).astype(np.float16)
    found = model.vision(pixels).last_hidden_state
    np.testing.assert_array_equal(found, plain.vision(pixels.numbers).last_hidden_state)


def test_they_stay_there_on_request() -> None:
    """Nothing is fetched, but the temperature, a single number."""

    def fetched(model: Any, *given: Any, **how: Any) -> list[tuple[int, ...]]:
        FETCHED.clear()
        model(*given, **how)
        return FETCHED.copy()

    model = lit(DEVICE)
    assert fetched(model, *GIVEN, as_numpy=False) == [()]
    assert fetched(model.vision, GIVEN[0], as_numpy=False) == []
    assert fetched(model.text, *GIVEN[1:], as_numpy=False) == []
    assert len(fetched(model, *GIVEN)) == 9  # logits, embeddings, features and pooled of each
    assert len(fetched(model.vision, GIVEN[0])) == len(fetched(model.text, *GIVEN[1:])) == 2


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((3, 28, 28), np.float32), r"shape \(3, 28, 28\), expected \(B, C, Y, X\)"),
        (np.zeros((0, 3, 42, 42), np.float32), r"shape \(0, 3, 42, 42\)"),
        (np.zeros((1, 3, 42, 42), np.uint8), "uint8, expected normalised"),
        (np.zeros((1, 1, 42, 42), np.float32), "1 channels, expected 3"),
    ],
)
def test_they_are_checked(pixels: Any, words: str) -> None:
    with pytest.raises(aimv2_np.ImageError, match=words):
        lit(DEVICE).vision(There(pixels))


def test_another_device_is_one_clear_error() -> None:
    with pytest.raises(aimv2_np.ImageError, match=r"a There on device 0 .* by the numpy backend"):
        lit(NUMPY)(There(CASE.pixel_values))
    with pytest.raises(aimv2_np.TokenizerError, match="copy it to the CPU"):
        lit(NUMPY).text(There(CASE.input_ids))


def images(count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=(70, 90, 3), dtype=np.uint8) for _ in range(count)]


def test_threads_prepare_images_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 150)
    plain = aimv2_np.load("emoji-lit", backend="numpy")
    ahead = aimv2_np.load("emoji-lit", backend=replace(NUMPY, host_threads=3))
    given = images(11)
    np.testing.assert_array_equal(ahead.encode_image(iter(given)), plain.encode_image(given))
    np.testing.assert_array_equal(ahead.patch_features(given), plain.patch_features(given))


def test_a_batch_is_queued_before_the_one_ahead_of_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the device computes while the host waits for results and prepares images."""
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 64)  # one image
    happened: list[str] = []

    def transformer(be: Any, x: Any, *args: Any, **how: Any) -> Any:
        happened.append("queued")
        return NUMPY.transformer(NUMPY, x, *args, **how)

    def fetch(x: Any) -> Any:
        happened.append("fetched")
        return np.asarray(x)

    be = replace(NUMPY, host_threads=1, transformer=transformer, to_numpy=fetch)
    model = aimv2_np.load("emoji-lit", backend=be)
    happened.clear()
    model.patch_features(images(3))
    assert happened == ["queued", "queued", "fetched", "queued", "fetched", "fetched"]


def test_an_image_that_cannot_be_read_is_said_from_a_thread() -> None:
    model = aimv2_np.load("emoji-lit", backend=replace(NUMPY, host_threads=2))
    with pytest.raises(aimv2_np.ImageError, match="image 4 of 6"):
        model.encode_image([*images(3), "no such file.png", *images(2)])
