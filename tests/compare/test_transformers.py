"""Our models beside transformers' on random models of odd shapes, and where transformers is wrong.

Both read the same files: transformers' `save_pretrained` writes them, `aimv2_np.load` reads them.
Each model runs twice: in float64 throughout, where even the last block must agree to 1e-12, and in
float32 as both libraries run it by default.
"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import (
    Aimv2Config,
    Aimv2Model,
    Aimv2TextConfig,
    Aimv2VisionConfig,
    Aimv2VisionModel,
)

from .helpers import (
    BOUNDED,
    DOUBLE,
    REPAIRED,
    SINGLE,
    all_float64,
    any_patch_count,
    assert_equal,
    assert_same_encoder,
    assert_same_lit,
    load,
    randomise,
)

pytestmark = pytest.mark.compare

GOLDEN = Path(__file__).parents[1] / "golden" / "lit"
EVERYTHING = {"output_hidden_states": True, "output_attentions": True}

# ---------------------------------------------------------------------------- random models

seeds = st.integers(0, 2**31)


@st.composite
def towers(draw: st.DrawFn, multiple_of: int = 1) -> dict[str, int]:
    """Sizes that a vision and a text tower share; widths are rarely powers of two."""
    heads = draw(st.integers(1, 4))
    head_width = draw(st.integers(3, 17)) * multiple_of
    return {
        "hidden_size": heads * head_width,
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(5, 90)),
        "num_hidden_layers": draw(st.integers(1, 3)),
    }


@st.composite
def vision_configs(draw: st.DrawFn, native: bool = False, **fixed: Any) -> Aimv2VisionConfig:
    patch = draw(st.integers(2, 9))
    side = draw(st.integers(1, 7)) * patch + draw(st.integers(0, patch - 1))
    return Aimv2VisionConfig(
        **draw(towers(multiple_of=4 if native else 1)),
        patch_size=patch,
        image_size=224 if native else side,  # meaningless in native checkpoints, but there
        num_channels=draw(st.sampled_from([3, 3, 1, 4])),
        is_native=native,
        **{"use_head": draw(st.booleans()), **fixed},
    )


@st.composite
def text_configs(draw: st.DrawFn) -> Aimv2TextConfig:
    vocabulary = draw(st.integers(8, 60))
    return Aimv2TextConfig(
        **draw(towers()),
        vocab_size=vocabulary,
        max_position_embeddings=draw(st.integers(4, 14)),
        eos_token_id=draw(st.integers(0, vocabulary - 1)),
    )


def tokens(config: Aimv2TextConfig, lengths: list[int], seed: int) -> dict[str, np.ndarray]:
    """Random texts: `lengths` tokens, then the end token, then padding with the end token."""
    end, others = config.eos_token_id, np.arange(config.vocab_size - 1)
    others = np.where(others < end, others, others + 1)  # every id but the end token
    ids = np.full((len(lengths), max(lengths) + 1), end)
    mask = np.zeros_like(ids)
    rng = np.random.default_rng(seed)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.choice(others, length)
        mask[row, : length + 1] = 1
    return {"input_ids": ids, "attention_mask": mask}


def both(model: Any, inputs: dict[str, np.ndarray], dtype: str) -> tuple[Any, Any]:
    """Our output and theirs, for the same inputs and the same files."""
    model = model.to(getattr(torch, dtype)).eval()
    model.set_attn_implementation("eager")  # sdpa returns no attentions
    floats = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in inputs.items()}
    with TemporaryDirectory() as folder, torch.no_grad(), any_patch_count():
        model.save_pretrained(folder)
        ours = load(Path(folder), dtype=dtype)(**floats, **EVERYTHING)
        theirs = model(**{k: torch.from_numpy(v) for k, v in floats.items()}, **EVERYTHING)
    return ours, theirs


# ---------------------------------------------------------------------------- vision


def check_vision(config: Aimv2VisionConfig, shape: tuple[int, int, int], seed: int) -> None:
    """All outputs of a random vision model for random images of (B, Y, X)."""
    batch, height, width = shape
    model = Aimv2VisionModel(config).double()
    randomise(model, seed)
    pixels = np.random.default_rng(seed).normal(size=(batch, config.num_channels, height, width))
    with all_float64():
        assert_same_encoder(*both(model, {"pixel_values": pixels}, "float64"), DOUBLE)
    assert_same_encoder(*both(model, {"pixel_values": pixels}, "float32"), SINGLE)


@BOUNDED
@given(config=vision_configs(), batch=st.integers(1, 3), seed=seeds)
def test_vision_models_with_learned_positions(
    config: Aimv2VisionConfig, batch: int, seed: int
) -> None:
    check_vision(config, (batch, config.image_size, config.image_size), seed)


@BOUNDED
@given(
    config=vision_configs(native=True),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    beyond=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    batch=st.integers(1, 2),
    seed=seeds,
)
def test_native_models_on_any_grid(
    config: Aimv2VisionConfig,
    grid: tuple[int, int],
    beyond: tuple[int, int],
    batch: int,
    seed: int,
) -> None:
    """Grids that are not square, and pixels beyond the last whole patch."""
    patch = config.patch_size
    height, width = (n * patch + more % patch for n, more in zip(grid, beyond, strict=True))
    check_vision(config, (batch, height, width), seed)


# ---------------------------------------------------------------------------- image and text


@BOUNDED
@given(
    vision=vision_configs(use_head=True),
    text=text_configs(),
    projection=st.integers(1, 40),
    log_scale=st.floats(-2, 7),  # clamped to [0, ln 100 = 4.6]
    images=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 13), min_size=1, max_size=4),
    seed=seeds,
)
def test_image_text_models(
    vision: Aimv2VisionConfig,
    text: Aimv2TextConfig,
    projection: int,
    log_scale: float,
    images: int,
    lengths: list[int],
    seed: int,
) -> None:
    """Both towers, embeddings and logits; texts of unequal length, padded and masked."""
    sections = {"vision_config": vision.to_dict(), "text_config": text.to_dict()}
    model = Aimv2Model(Aimv2Config(**sections, projection_dim=projection)).double()
    randomise(model, seed)
    model.logit_scale.data.fill_(log_scale)
    lengths = [min(length, text.max_position_embeddings - 1) for length in lengths]
    side, rng = vision.image_size, np.random.default_rng(seed)
    inputs = tokens(text, lengths, seed)
    inputs["pixel_values"] = rng.normal(size=(images, vision.num_channels, side, side))
    scale = math.exp(min(max(log_scale, 0), math.log(100)))
    with all_float64():
        assert_same_lit(*both(model, inputs, "float64"), DOUBLE, scale)
    assert_same_lit(*both(model, inputs, "float32"), SINGLE, scale)


# ---------------------------------------------------------------------------- text-noncausal


@pytest.fixture
def golden_text() -> tuple[Any, Any, np.ndarray]:
    """The golden image-text model's text tower, ours and theirs, and two unpadded texts."""
    ours = load(GOLDEN / "transformers").text
    theirs = Aimv2Model.from_pretrained(GOLDEN / "transformers").text_model.eval()
    ids = tokens(theirs.config, [6, 6], seed=3)["input_ids"]
    return ours, theirs, ids


def earlier_change(model: Any, ids: np.ndarray, mask: np.ndarray | None) -> float:
    """How much the features of tokens 0 to 3 change when token 4 becomes another one."""
    other = ids.copy()
    other[:, 4] = (other[:, 4] + 1) % 90  # never the end token, which is 98
    with torch.no_grad():
        before, after = (model(one, mask).last_hidden_state for one in (ids, other))
    return float(np.abs(np.asarray(before - after)[:, :4]).max())


def with_torch(model: Any, attention: str) -> Any:
    """Their text tower, called with NumPy arrays."""
    model.set_attn_implementation(attention)

    def call(ids: np.ndarray, mask: np.ndarray | None) -> Any:
        return model(torch.from_numpy(ids), None if mask is None else torch.from_numpy(mask))

    return call


def padded(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same texts with one token of padding, and their mask."""
    longer = np.pad(ids, ((0, 0), (0, 1)), mode="edge")  # padding repeats the end token
    mask = np.ones_like(longer)
    mask[:, -1] = 0
    return longer, mask


@pytest.mark.parametrize(
    ("attention", "masked"), [("eager", False), ("sdpa", False), ("sdpa", True)]
)
def test_transformers_text_is_still_not_causal(
    golden_text: Any, attention: str, masked: bool
) -> None:
    """The discrepancy text-noncausal: a later token changes an earlier feature.

    The original is causal always (aim-v2/aim/v2/torch/models.py: the text encoder's blocks are
    made with is_causal=True), so ours is right. When this fails, transformers was repaired.
    """
    ours, theirs, ids = golden_text
    mask = np.ones_like(ids) if masked else None
    assert earlier_change(with_torch(theirs, attention), ids, mask) > 0.01, REPAIRED
    assert earlier_change(ours, ids, mask) == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_text_is_causal_where_a_text_is_padded(
    golden_text: Any, attention: str
) -> None:
    """The way around it, which every other comparison takes: a mask with padding in it."""
    ours, theirs, ids = golden_text
    ids, mask = padded(ids)
    theirs = with_torch(theirs, attention)
    assert earlier_change(theirs, ids, mask) == 0
    assert earlier_change(ours, ids, mask) == 0
    with torch.no_grad():
        expected = theirs(ids, mask)
    assert_equal(ours(ids, mask).last_hidden_state, expected.last_hidden_state, SINGLE)
    assert_equal(ours(ids, mask).pooler_output, expected.pooler_output, SINGLE)


def test_transformers_without_a_mask_still_gives_the_recorded_wrong_logits() -> None:
    """The golden logits were recorded with transformers 5.23 and are off by 5.7."""
    inputs = load_file(GOLDEN / "inputs.safetensors")
    expected = load_file(GOLDEN / "expected.safetensors")
    del inputs["attention_mask"]
    theirs = Aimv2Model.from_pretrained(GOLDEN / "transformers").eval()
    with torch.no_grad():
        wrong = theirs(**{k: torch.from_numpy(v) for k, v in inputs.items()})
    recorded = expected["transformers_no_mask_logits_per_image"]
    np.testing.assert_allclose(wrong.logits_per_image, recorded, atol=1e-4, err_msg=REPAIRED)
    ours = load(GOLDEN / "transformers")(**inputs)
    np.testing.assert_allclose(ours.logits_per_image, expected["logits_per_image"], atol=1e-4)
    assert np.abs(ours.logits_per_image - recorded).max() > 5


def test_bfloat16_weights_move_transformers_as_far_as_ours() -> None:
    """What the rounding of the golden weights does to the image embeddings is nobody's mistake."""
    inputs = load_file(GOLDEN / "inputs.safetensors")
    original = load_file(GOLDEN / "expected.safetensors")["image_embeds"]
    theirs = Aimv2Model.from_pretrained(GOLDEN / "transformers-bf16", dtype=torch.float32).eval()
    with torch.no_grad():
        moved = theirs(**{k: torch.from_numpy(v) for k, v in inputs.items()}).image_embeds
    ours = load(GOLDEN / "transformers-bf16")(**inputs).image_embeds
    largest = np.abs(original).max()
    assert np.abs(moved.numpy() - original).max() / largest == pytest.approx(2.588e-2, rel=1e-3)
    assert np.abs(ours - moved.numpy()).max() / largest < 1e-5
