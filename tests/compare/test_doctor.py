"""The result that `aimv2-np doctor` expects, computed again by transformers in float64."""

from pathlib import Path

import numpy as np
import pytest

import aimv2_np
from aimv2_np import doctor

pytestmark = pytest.mark.compare


def transformers_logits():
    import torch
    from transformers import Aimv2Model

    folder = Path(aimv2_np.__file__).parent / "models_data" / "random-lit"
    model = Aimv2Model.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)
    ours = aimv2_np.load(folder)
    pixels = ours.preprocess(doctor._test_image())
    ids, mask = ours.tokenize(doctor.TEXTS)
    assert mask.min() == 0  # with padding in the mask transformers' text encoder is causal
    with torch.no_grad():
        out = model.eval()(
            pixel_values=torch.from_numpy(pixels).double(),
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
        )
    return out.logits_per_image[0].numpy()


def test_the_recorded_logits_are_those_of_transformers():
    # 1e-6: as many digits as were recorded (transformers' RMSNorm rounds to float32 even here)
    np.testing.assert_allclose(transformers_logits(), doctor.LOGITS, rtol=0, atol=1e-6)
