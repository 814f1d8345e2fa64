"""The two usage examples of transformers' AIMv2 page, in transformers and in ours.

The page's checkpoints are replaced by small random ones of the same kind, saved with the files that
the official repositories hold; the calls are the page's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import CAT, RANDOM_LIT
from PIL import Image
from transformers import (
    Aimv2Config,
    Aimv2Model,
    Aimv2VisionConfig,
    Aimv2VisionModel,
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
)

from .helpers import REPAIRED, SINGLE, assert_equal, load, randomise

pytestmark = pytest.mark.compare

TEXTS = ["Picture of a dog.", "Picture of a cat.", "Picture of a horse."]
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of large-patch14-native's kind: images are neither resized nor cropped."""
    folder = tmp_path_factory.mktemp("native")
    model = Aimv2VisionModel(Aimv2VisionConfig(**TOWER, is_native=True, use_head=False))
    randomise(model, seed=4)
    model.save_pretrained(folder)
    raw = json.loads((RANDOM_LIT / "preprocessor_config.json").read_text())
    raw |= {"do_resize": False, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of large-patch14-224-lit's kind: images of 42 pixels, tests/data's tiny tokenizer."""
    folder = tmp_path_factory.mktemp("lit")
    text = {**TOWER, "vocab_size": 99, "max_position_embeddings": 20, "eos_token_id": 98}
    config = Aimv2Config(
        vision_config={**TOWER, "image_size": 42, "use_head": True},
        text_config=text,
        projection_dim=16,
    )
    model = Aimv2Model(config)
    randomise(model, seed=6)
    model.save_pretrained(folder)
    shutil.copy(RANDOM_LIT / "preprocessor_config.json", folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copy(RANDOM_LIT / name, folder)
    tokenizer = json.loads((RANDOM_LIT / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 20}))
    return folder


def test_vision_features_of_an_image_at_its_own_size(native: Path) -> None:
    """The page's first example."""
    image = Image.open(CAT)
    processor = AutoImageProcessor.from_pretrained(native)
    model = AutoModel.from_pretrained(native)
    inputs = processor(images=image, return_tensors="pt")
    outputs = model(**inputs)

    (features,) = load(native).patch_features([image])
    assert_equal(features, outputs.last_hidden_state[0], SINGLE)
    assert features.shape == (32 * 21, 24)  # columns × rows of whole patches


def zero_shot(folder: Path, texts: list[str], **options: Any) -> torch.Tensor:
    """The page's second example, as it stands there: probabilities, (images, texts)."""
    image = Image.open(CAT)
    processor = AutoProcessor.from_pretrained(folder, **options)
    model = AutoModel.from_pretrained(folder)
    inputs = processor(images=image, text=texts, return_tensors="pt", padding=True)
    outputs = model(**inputs)
    return outputs.logits_per_image.softmax(dim=-1)


def test_zero_shot_classification(lit: Path) -> None:
    """The page's second example.

    With this vocabulary the horse takes more tokens, so the batch is padded and transformers is
    causal. `backend="pil"`: its default resizes with torchvision, whose rounding differs (below).
    """
    answer = load(lit).classify(CAT, TEXTS, prompt="{}")
    assert_equal(answer.probabilities, zero_shot(lit, TEXTS, backend="pil"), SINGLE)
    assert answer.probabilities.std() > 0.1  # not the uniform answer that agrees by itself


def test_texts_of_equal_length_meet_transformers_mistake(lit: Path) -> None:
    """With CLIP's own vocabulary the page's texts are of equal length, as these two are here.

    Nothing is padded, so transformers is not causal (text-noncausal) and its probabilities are not
    the original's; padding the batch by one token gives the original's, and ours.
    """
    texts = TEXTS[:2]
    answer = load(lit).classify(CAT, texts, prompt="{}").probabilities
    theirs = zero_shot(lit, texts, backend="pil").detach().numpy()
    assert np.abs(theirs - answer).max() > 0.01, REPAIRED
    longer = zero_shot(lit, TEXTS, backend="pil")[:, :2]  # the same two, padded for the horse
    assert_equal(answer, longer / longer.sum(), SINGLE)


def test_transformers_default_image_backend_is_not_pillow(lit: Path) -> None:
    """Without `backend="pil"` pixels differ where they are resized: here by 1.06 of 255 levels.

    Ours are equal to the Pillow backend's to the last bit (test_images.py), which is what the
    checkpoints were published with.
    """
    ours = load(lit).preprocess(CAT)
    default, pillow = (
        AutoImageProcessor.from_pretrained(lit, **options)(Image.open(CAT), return_tensors="pt")
        for options in ({}, {"backend": "pil"})
    )
    np.testing.assert_array_equal(ours, pillow.pixel_values)
    levels = np.abs(ours - default.pixel_values.numpy()).max() * 255 * 0.27577711
    assert 0.5 < levels < 2


def test_processor_saved_by_transformers_5(lit: Path, tmp_path: Path) -> None:
    """A checkpoint saved anew together with its processor, whose mean is not the official one.

    There is no preprocessor_config.json then: transformers 5 writes processor_config.json.
    """
    processor = AutoProcessor.from_pretrained(lit, backend="pil", image_mean=[0.1, 0.2, 0.3])
    AutoModel.from_pretrained(lit).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    expected = processor(images=Image.open(CAT), return_tensors="pt").pixel_values
    np.testing.assert_array_equal(load(tmp_path).preprocess(CAT), expected)
