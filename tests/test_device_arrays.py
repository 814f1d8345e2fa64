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
    """Nothing is fetched but, once, the temperature, a single number."""

    def fetched(model: Any, *given: Any, **how: Any) -> list[tuple[int, ...]]:
        FETCHED.clear()
        model(*given, **how)
        return FETCHED.copy()

    model = lit(DEVICE)
    assert fetched(model, *GIVEN, as_numpy=False) == [()]
    assert fetched(model.vision, GIVEN[0], as_numpy=False) == []
    assert fetched(model.text, *GIVEN[1:], as_numpy=False) == []
    assert len(fetched(model, *GIVEN)) == 8  # logits, embeddings, features and pooled of each
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


OFFLOADING = replace(NUMPY, offloads=True)


def test_images_are_prepared_in_threads_and_run_as_batches(monkeypatch: Any) -> None:
    """The same but for rounding: NumPy's products differ with the number of rows."""
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 150)
    plain = aimv2_np.load("emoji-lit", backend="numpy")
    ahead = aimv2_np.load("emoji-lit", backend=OFFLOADING)
    given = images(11)
    for found, wanted in (
        (ahead.encode_image(iter(given)), plain.encode_image(given)),
        (ahead.patch_features(given), plain.patch_features(given)),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_images_of_several_sizes_run_as_packs(monkeypatch: Any) -> None:
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 20)
    info = {"name": "native", "parameters": 1}
    native = random_models.make("native")
    config = native.config
    parts = config, native.params, OFFLOADING, "float32"
    processor = aimv2_np.ImageProcessor.for_size(None)
    model = aimv2_np.VisionPipeline(*parts, processor=processor, info=info)
    plain = aimv2_np.VisionPipeline(
        config, native.params, NUMPY, "float32", processor=processor, info=info
    )
    sizes = [(2, 3), (2, 3), (1, 1), (4, 2), (3, 3)]
    rng, P = np.random.default_rng(0), config.patch_size
    given = [rng.integers(256, size=(P * y, P * x, 3), dtype=np.uint8) for y, x in sizes]
    with pytest.warns(aimv2_np.AIMv2Warning):
        found, wanted = model.patch_features(given), plain.patch_features(given)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def test_a_batch_is_queued_before_the_one_ahead_of_it_is_waited_for(monkeypatch: Any) -> None:
    """And a result begins to come back before the next batch is queued."""
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 64)  # one image
    happened: list[str] = []

    def transformer(be: Any, x: Any, *args: Any, **how: Any) -> Any:
        happened.append("queued")
        return NUMPY.transformer(NUMPY, x, *args, **how)

    def fetch(x: Any) -> Any:
        happened.append("fetching")

        def wait() -> Any:
            happened.append("there")
            return np.asarray(x)

        return wait

    be = replace(OFFLOADING, transformer=transformer, fetch=fetch)
    aimv2_np.load("emoji-lit", backend=be).patch_features(images(3))
    each = ["queued", "fetching"]
    assert happened == [*each, *each, "there", *each, "there", "there"]


def test_an_iterator_is_read_as_far_as_needed(monkeypatch: Any) -> None:
    monkeypatch.setattr("aimv2_np.pipelines.PATCH_BATCH", 64)
    read = []

    def given() -> Any:
        for i, image in enumerate(images(4)):
            read.append(i)
            yield image

    model = aimv2_np.load("emoji-lit", backend="numpy")
    each = model._each(given(), True, lambda x, pooled: pooled)
    next(each)
    assert read == [0, 1]
    with pytest.raises(aimv2_np.ImageError, match="no image at all"):
        model.encode_image(iter([]))
    with pytest.raises(aimv2_np.ImageError, match="image 2 .no such file.png.: "):
        model.encode_image(iter([images(1)[0], "no such file.png"]))


def test_an_image_that_cannot_be_read_is_said_from_a_thread() -> None:
    model = aimv2_np.load("emoji-lit", backend=OFFLOADING)
    with pytest.raises(aimv2_np.ImageError, match="image 4 of 6"):
        model.encode_image([*images(3), "no such file.png", *images(2)])
