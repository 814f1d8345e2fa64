"""The packaged model in transformers and in ours: one folder, the same numbers at every layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import CAT
from PIL import Image
from transformers import Aimv2Model, AutoModel, AutoProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import aimv2_np
from aimv2_np.hub import PACKAGED

from .helpers import DOUBLE, SINGLE, all_float64, assert_equal, assert_same_lit, load

pytestmark = pytest.mark.compare

FOLDER = PACKAGED / "emoji-lit"
SAMPLES = aimv2_np.samples()
# Of unequal length, so that the batch is padded: without, transformers' text is not causal.
TEXTS = ["cat", "a photo of a slice of pizza", "two dogs in the rain, an umbrella and the sun"]
VARIED = [t for t, _ in json.loads((CAT.parent / "clip_tokens.json").read_text())]
EVERYTHING = {"output_hidden_states": True, "output_attentions": True}


@pytest.fixture(scope="module")
def ours() -> Any:
    return load(FOLDER)


@pytest.fixture(scope="module")
def pixels_of() -> Callable[[Any], torch.Tensor]:
    """Transformers' image processor, as a function."""
    processor = CLIPImageProcessorPil.from_pretrained(FOLDER)
    return lambda images: processor(images, return_tensors="pt").pixel_values


def theirs(dtype: torch.dtype) -> Any:
    return Aimv2Model.from_pretrained(FOLDER, attn_implementation="eager", dtype=dtype).eval()


def test_transformers_finds_every_weight_and_no_other() -> None:
    _, report = Aimv2Model.from_pretrained(FOLDER, output_loading_info=True)
    assert not any(report.values()), report


@pytest.mark.parametrize(("name", "tolerance"), [("float64", DOUBLE), ("float32", SINGLE)])
def test_every_layer(pixels_of: Any, name: str, tolerance: float) -> None:
    """Hidden states and attentions of all blocks of both towers, embeddings, logits."""
    dtype, model = getattr(torch, name), load(FOLDER, dtype=name)
    pictures = [Image.open(path) for path in (SAMPLES["cat"], SAMPLES["scene-two-dogs"], CAT)]
    given = dict(CLIPTokenizer.from_pretrained(FOLDER)(TEXTS, padding=True, return_tensors="pt"))
    assert (given["attention_mask"] == 0).any()  # text-noncausal: without padding theirs is wrong
    given["pixel_values"] = pixels_of(pictures).to(dtype)
    with torch.no_grad(), all_float64() if name == "float64" else nullcontext():
        expected = theirs(dtype)(**given, **EVERYTHING)
    found = model(**{key: value.numpy() for key, value in given.items()}, **EVERYTHING)
    assert len(found.vision_model_output.hidden_states) == 7
    assert len(found.text_model_output.hidden_states) == 5
    assert_same_lit(found, expected, tolerance, scale=float(model.logit_scale))


@pytest.mark.parametrize("path", [*SAMPLES.values(), CAT], ids=lambda path: path.stem)
def test_pixels(ours: Any, pixels_of: Any, path: Path) -> None:
    np.testing.assert_array_equal(ours.preprocess(path), pixels_of(Image.open(path)))


@pytest.mark.filterwarnings("ignore:cut to 32 tokens:aimv2_np.errors.AIMv2Warning")
def test_tokens(ours: Any) -> None:
    """Five hundred varied texts, padded together and cut; no warning of unknown characters."""
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    expected = tokenizer(VARIED, padding=True, truncation=True, return_tensors="np")
    found = ours.tokenize(VARIED)
    assert found.input_ids.shape == (len(VARIED), 32)
    np.testing.assert_array_equal(found.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(found.attention_mask, expected["attention_mask"])


def test_zero_shot_as_transformers_documents_it(ours: Any) -> None:
    """AIMv2's page, its second example, with the folder in the place of the checkpoint's name."""
    processor = AutoProcessor.from_pretrained(FOLDER, backend="pil")
    model = AutoModel.from_pretrained(FOLDER, dtype=torch.float32)
    image = Image.open(SAMPLES["cat"])
    given = processor(images=image, text=TEXTS, return_tensors="pt", padding=True)
    assert (given["attention_mask"] == 0).any()
    with torch.no_grad():
        expected = model(**given).logits_per_image.softmax(dim=-1)
    assert_equal(ours.classify(image, TEXTS, prompt="{}").probabilities, expected, SINGLE)
