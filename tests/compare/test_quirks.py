"""`quirks=` beside the libraries themselves: equal where they deviate and the plain model is not.

Each comparison runs in float64 throughout, to 1e-12, and in float32 as both libraries do.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Aimv2Model

import aimv2_np
from aimv2_np.errors import VerificationError
from aimv2_np.verify.adapters import original

from .helpers import DOUBLE, REPAIRED, all_float64, assert_equal, difference, load

pytestmark = pytest.mark.compare

RANDOM_LIT = Path(__file__).parents[1] / "data" / "random-lit"
DEVIATES = 0.01  # of the largest value, at least: far above any rounding
WORDS = np.random.default_rng(0).integers(0, 97, (2, 6))
IDS = np.concatenate([WORDS, np.full((2, 2), 98)], axis=1)  # the end, and one more: padding
ROUNDING = 1e-5  # float32 on both sides, in this one model; measured: 3.2e-6 at most
PRECISIONS = [("float64", DOUBLE), ("float32", ROUNDING)]


def transformers(attention: str, dtype: str) -> Any:
    model = Aimv2Model.from_pretrained(RANDOM_LIT, attn_implementation=attention)
    return model.to(getattr(torch, dtype)).eval()


def images(size: tuple[int, int], dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, *size)).astype(dtype)


def mask_of(kind: str) -> np.ndarray | None:
    mask = np.ones_like(IDS)
    if kind == "padded":
        mask[:, 7] = 0
    return None if kind == "none" else mask


# ---------------------------------------------------------------------------- texts

# attention, the quirk, and the masks with which transformers is not causal
TEXTS = [
    ("sdpa", "transformers", ("none", "ones"), PRECISIONS),
    ("eager", "transformers-eager", ("none",), PRECISIONS),
    ("flex_attention", "transformers-eager", ("none",), PRECISIONS[1:]),  # all it computes in
]


@pytest.mark.parametrize(
    ("attention", "quirk", "mask", "deviates", "dtype", "tolerance"),
    [
        (attention, quirk, mask, mask in wrong, *precision)
        for attention, quirk, wrong, precisions in TEXTS
        for mask in ("none", "ones", "padded")
        for precision in precisions
    ],
)
def test_texts(
    attention: str, quirk: str, mask: str, deviates: bool, dtype: str, tolerance: float
) -> None:
    given = {"input_ids": IDS, "attention_mask": mask_of(mask)}
    theirs = transformers(attention, dtype).text_model
    with torch.no_grad(), all_float64() if dtype == "float64" else nullcontext():
        tensors = {k: None if v is None else torch.from_numpy(v) for k, v in given.items()}
        wanted = theirs(**tensors, output_hidden_states=True)
    found = load(RANDOM_LIT, dtype=dtype, quirks=quirk).text(**given, output_hidden_states=True)
    assert_equal(found.last_hidden_state, wanted.last_hidden_state, tolerance)
    assert_equal(found.pooler_output, wanted.pooler_output, tolerance)
    for mine, other in zip(found.hidden_states, wanted.hidden_states, strict=True):
        assert_equal(mine, other, tolerance)
    plain = load(RANDOM_LIT, dtype=dtype).text(**given).last_hidden_state
    apart = difference(plain, wanted.last_hidden_state)
    if deviates:
        assert apart > DEVIATES, REPAIRED
    else:
        assert apart < tolerance


def test_attentions_without_a_mask() -> None:
    theirs = transformers("eager", "float32").text_model
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(IDS), output_attentions=True).attentions
    model = load(RANDOM_LIT, quirks="transformers-eager")
    found = model.text(IDS, output_attentions=True).attentions
    for mine, other in zip(found, wanted, strict=True):
        assert_equal(mine, other, ROUNDING)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_classification_of_texts_of_equal_length(backend: str) -> None:
    """What a user of transformers gets: a tokenizer's mask, all ones."""
    texts, cat = ["a cat", "a dog"], RANDOM_LIT.parent / "cat.jpg"
    model = aimv2_np.load(RANDOM_LIT, backend=backend, quirks="transformers")
    tokens, pixels = model.tokenize(texts), model.preprocess(cat)
    assert tokens.attention_mask.all()
    with torch.no_grad():
        wanted = transformers("sdpa", "float32")(
            pixel_values=torch.from_numpy(pixels),
            **{name: torch.from_numpy(part) for name, part in tokens._asdict().items()},
        )
    assert_equal(model(pixels, *tokens).logits_per_image, wanted.logits_per_image, ROUNDING)
    probabilities = torch.softmax(wanted.logits_per_image, dim=1)
    assert_equal(model.classify(cat, texts, prompt="{}").probabilities, probabilities, ROUNDING)
    plain = aimv2_np.load(RANDOM_LIT, backend=backend)(pixels, *tokens).logits_per_image
    assert difference(plain, wanted.logits_per_image) > DEVIATES, REPAIRED


# ---------------------------------------------------------------------------- images


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("size", [(42, 42), (50, 45), (14, 126), (126, 14)])
def test_images_of_any_size_with_as_many_patches(
    size: tuple[int, int], asked: bool, dtype: str, tolerance: float
) -> None:
    pixels = images(size, dtype)
    theirs = transformers("sdpa", dtype)
    with torch.no_grad(), all_float64() if dtype == "float64" else nullcontext():
        wanted = theirs.get_image_features(
            torch.from_numpy(pixels), interpolate_pos_encoding=asked, output_hidden_states=True
        )
    model = load(RANDOM_LIT, dtype=dtype, quirks="transformers")
    out = model.vision(pixels, interpolate_positions=asked)
    assert_equal(out.last_hidden_state, wanted.last_hidden_state, tolerance)
    features = model.image_features(pixels, interpolate_positions=asked)
    assert_equal(features, wanted.pooler_output, tolerance)
    plain = load(RANDOM_LIT, dtype=dtype).vision(pixels, interpolate_positions=True)
    square = size[0] // 14 == size[1] // 14
    assert (difference(plain.last_hidden_state, wanted.last_hidden_state) > DEVIATES) != square
    before = load(RANDOM_LIT, dtype=dtype, quirks="ovis2").vision(pixels).last_hidden_state
    assert_equal(before, wanted.hidden_states[-1], tolerance)  # what Ovis2 takes


@pytest.mark.parametrize("size", [(28, 28), (28, 63), (56, 56)])
def test_images_that_transformers_cannot_take(size: tuple[int, int]) -> None:
    pixels = images(size)
    with pytest.raises(RuntimeError, match="must match the size"):
        transformers("sdpa", "float32").vision_model(torch.from_numpy(pixels))
    with pytest.raises(aimv2_np.ImageError, match="exactly 9"):
        load(RANDOM_LIT, quirks="transformers").vision(pixels)


@pytest.mark.parametrize("size", [(28, 42), (42, 28), (14, 126), (15, 30), (50, 45)])
def test_the_original_where_it_is_installed(size: tuple[int, int]) -> None:
    """In a machine without it: the numbers recorded in tests/test_quirks.py."""
    model = load(RANDOM_LIT, quirks="original")
    try:
        theirs = original.build(model)
    except VerificationError as error:
        pytest.skip(str(error))
    pixels = images(size)
    with torch.no_grad():
        pooled, blocks = theirs.image_encoder(torch.from_numpy(pixels), output_features=True)
    out = model.vision(pixels, output_hidden_states=True)
    assert_equal(out.pooler_output, pooled, ROUNDING)
    assert_equal(out.hidden_states[-1], blocks[-1], ROUNDING)
    before = load(RANDOM_LIT, quirks="vllm").vision(pixels).last_hidden_state
    assert_equal(before, blocks[-1], ROUNDING)
