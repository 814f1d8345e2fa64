"""Several images in one packed batch: each has the numbers that it has alone, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN, RANDOM_LIT, load

import aimv2_np
from aimv2_np import layers, ops, pipelines
from aimv2_np.backend import NUMPY, get_backend
from aimv2_np.numba_backend.isa import INSTRUCTION_SETS, InstructionSet

RNG = np.random.default_rng(0)
RUNS = [(name, dtype) for name in ("numpy", "numba") for dtype in get_backend(name).dtypes]
BACKENDS = pytest.mark.parametrize(("backend", "dtype"), RUNS)
SIZES = [(154, 154), (112, 196), (168, 300), (154, 154), (300, 168)]  # 121, 112, 252, 121, 252
PATCHES = [121, 112, 252, 121, 252]


def pictures(*sizes: tuple[int, int]) -> list[Any]:
    return [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def spied(model: Any) -> list[tuple[int, list[int]]]:
    """The tokens and the lengths of each run through the blocks, filled as the model runs."""
    seen: list[tuple[int, list[int]]] = []
    vision, original = model.vision, model.backend.transformer

    def transformer(be: Any, x: Any, *args: Any, lengths: Any = None, **kwargs: Any) -> Any:
        if lengths is not None:
            seen.append((x.shape[1], list(lengths)))
        return original(be, x, *args, lengths=lengths, **kwargs)

    model.backend = vision.backend = replace(model.backend, transformer=transformer)
    return seen


def test_the_composed_form_is_attention_in_blocks_along_the_diagonal() -> None:
    """Judged by one run over all tokens, with scores of other sequences at minus infinity."""
    model, lengths = load("vision-native"), [5, 1, 9]
    x = RNG.standard_normal((1, 15, model.config.hidden_size))
    owner = np.repeat([0, 1, 2], lengths)
    apart = owner[:, None] != owner

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = ops.attention_scores(q, k)
        scores[..., apart] = -np.inf
        return ops.softmax(scores) @ v

    given = x, model.params.blocks, model.config.num_attention_heads, 1e-5
    wanted = layers.transformer(replace(NUMPY, attention=attention), *given)
    found = layers.transformer(NUMPY, *given, lengths=lengths)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert not np.allclose(layers.transformer(NUMPY, *given), wanted)


@BACKENDS
def test_native_images_of_mixed_sizes(backend: str, dtype: str) -> None:
    """The judge is a call of the model for each image, which packs nothing."""
    model = load("vision-native", dtype=dtype, backend=backend)
    images = pictures(*SIZES)
    pixels = model.preprocess(images)
    alone = [model(image[None]).last_hidden_state[0] for image in pixels]
    seen = spied(model)
    together = model.patch_features(images)
    assert [len(patches) for patches in together] == PATCHES
    for one, wanted in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, wanted, strict=True)
    means = model.encode_image(images, pool="mean", normalize=False)
    np.testing.assert_array_equal(means, [one.mean(axis=0) for one in alone], strict=True)
    assert seen == [(sum(PATCHES), PATCHES)] * 2


@pytest.mark.parametrize("isa", INSTRUCTION_SETS[2:], ids=lambda isa: isa.name)  # one of avx512's
def test_with_the_tiles_of_every_instruction_set(
    isa: InstructionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimv2_np.numba_backend.choose", lambda: isa)
    model = load("vision-native", dtype="float32", backend="numba")
    images = pictures((112, 196), (300, 168), (154, 154))
    together = model.patch_features(images)
    for one, image in zip(together, model.preprocess(images), strict=True):
        np.testing.assert_array_equal(one, model(image[None]).last_hidden_state[0])


@BACKENDS
def test_images_of_one_size(backend: str, dtype: str) -> None:
    """With the pooling head and the projection, and without."""
    images = pictures((80, 60), (42, 42), (50, 90))
    lit = aimv2_np.load(RANDOM_LIT, dtype=dtype, backend=backend)
    pixels = lit.preprocess(images)
    features = np.concatenate([lit.image_features(image[None]) for image in pixels])
    hidden = np.concatenate([lit.vision(image[None]).last_hidden_state for image in pixels])
    seen = spied(lit)
    np.testing.assert_array_equal(lit.encode_image(images, normalize=False), features)
    np.testing.assert_array_equal(lit.patch_features(images), hidden)
    assert [len(lengths) for _, lengths in seen] == [3, 3]
    assert len(set(seen[0][1])) == 1
    absolute = load("vision-absolute", dtype=dtype, backend=backend)
    hidden = np.concatenate(
        [absolute(image[None]).last_hidden_state for image in absolute.preprocess(images)]
    )
    np.testing.assert_array_equal(absolute.patch_features(images), hidden)


@BACKENDS
def test_the_packaged_model(backend: str, dtype: str) -> None:
    """Wider and deeper than the others, trained, and with projections."""
    model = aimv2_np.load("emoji-lit", dtype=dtype, backend=backend)
    images = list(aimv2_np.samples().values())[:7]
    alone = np.concatenate([model.encode_image(image) for image in images])
    np.testing.assert_array_equal(model.encode_image(images), alone)


@BACKENDS
def test_batches_are_bounded(backend: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In patches: 252 + 121 fit, 121 + 112 + 252 do not; an image that is larger runs alone."""
    model = load("vision-native", dtype=dtype, backend=backend)
    images = pictures(*SIZES)
    unbounded = model.patch_features(images)
    seen = spied(model)
    for bound, batches in [
        (373, [[121, 112], [252, 121], [252]]),
        (372, [[121, 112], [252], [121], [252]]),
        (200, [[121], [112], [252], [121], [252]]),
    ]:
        seen.clear()
        monkeypatch.setattr(pipelines, "PATCH_BATCH", bound)
        found = model.patch_features(images)
        assert seen == [(sum(lengths), lengths) for lengths in batches]
        assert all(np.array_equal(a, b) for a, b in zip(found, unbounded, strict=True))


@BACKENDS
def test_no_images(backend: str, dtype: str) -> None:
    native = load("vision-native", dtype=dtype, backend=backend)
    lit = aimv2_np.load(RANDOM_LIT, dtype=dtype, backend=backend)
    for call in (native.patch_features, lit.patch_features, lit.encode_image):
        with pytest.raises(aimv2_np.ImageError, match="found no image at all"):
            call([])
    with pytest.raises(aimv2_np.ImageError, match="found no image at all"):
        native.encode_image([], pool="mean")


def test_a_vision_model_with_a_pooling_head() -> None:
    """Its embedding is the pooling head's; the golden image-text model's encoder has one."""
    lit = aimv2_np.load(GOLDEN / "lit" / "transformers")
    parts = lit.vision.config, lit.vision.params, lit.backend, "float32"
    model = aimv2_np.VisionPipeline(*parts, processor=lit.processor, info=lit.info)
    images = pictures((60, 50), (42, 70))
    pooled = [model(image[None]).pooler_output for image in model.preprocess(images)]
    found = model.encode_image(images, normalize=False)
    np.testing.assert_array_equal(found, np.concatenate(pooled), strict=True)
