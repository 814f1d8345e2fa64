"""The Numba backend's bfloat16 beside torch's: both against float64, on the same weights.

With both forms of it: pairs of bfloat16 as AVX512-BF16 has them (spelled out where the processor
lacks it), and weights widened to float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN
from transformers import Aimv2Model, Aimv2VisionConfig, Aimv2VisionModel

import aimv2_np
from aimv2_np.hub import PACKAGED
from aimv2_np.numba_backend import backend_for
from aimv2_np.numba_backend.isa import INSTRUCTION_SETS

from .helpers import randomise

pytestmark = pytest.mark.compare

FORMS = pytest.mark.parametrize("name", ["avx512bf16", "avx2"])


def backend(name: str) -> Any:
    return backend_for(next(isa for isa in INSTRUCTION_SETS if isa.name == name))


def error(found: Any, truth: Any) -> float:
    """Root of the mean squared difference."""
    return float(np.sqrt(np.mean((np.asarray(found, float) - truth) ** 2)))


@FORMS
@pytest.mark.parametrize("folder", [PACKAGED / "emoji-lit", GOLDEN / "lit" / "transformers"])
def test_image_and_text_embeddings_err_no_more_than_torchs(name: str, folder: Path) -> None:
    exact = aimv2_np.load(folder, dtype="float64")
    ours = aimv2_np.load(folder, backend=backend(name), dtype="bfloat16")
    theirs = Aimv2Model.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
    size = exact.config.vision.image_size
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(4, 3, size, size)).astype(np.float32)
    ids = rng.integers(5, exact.config.text.vocab_size - 2, (4, 7))
    ids[:, -1] = exact.config.text.eos_token_id
    ids[0, -2] = exact.config.text.eos_token_id  # padding: transformers' text tower is then causal
    mask = np.ones_like(ids)
    mask[0, -1] = 0
    with torch.inference_mode():
        out = theirs(
            pixel_values=torch.tensor(pixels).bfloat16(),
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
        )
    truth, found = (m(pixels, ids, mask) for m in (exact, ours))
    for field in ("image_embeds", "text_embeds"):
        torchs = error(getattr(out, field).float(), getattr(truth, field))
        assert error(getattr(found, field), getattr(truth, field)) <= torchs, field


@FORMS
def test_patch_features_of_a_wider_model_err_no_more_than_torchs(name: str, tmp_path: Path) -> None:
    config = Aimv2VisionConfig(
        **{"hidden_size": 384, "intermediate_size": 1056, "num_hidden_layers": 6},
        **{"num_attention_heads": 3, "image_size": 140, "use_head": False},
    )
    model = Aimv2VisionModel(config).eval()
    randomise(model, seed=0)
    model.save_pretrained(tmp_path)
    pixels = np.random.default_rng(1).normal(size=(2, 3, 140, 140)).astype(np.float32)
    truth = aimv2_np.load(tmp_path, dtype="float64")(pixels).last_hidden_state
    ours = aimv2_np.load(tmp_path, backend=backend(name), dtype="bfloat16")
    with torch.inference_mode():
        theirs = model.bfloat16()(torch.tensor(pixels).bfloat16()).last_hidden_state.float()
    assert error(ours(pixels).last_hidden_state, truth) <= error(theirs, truth)
