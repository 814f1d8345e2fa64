"""The result that `aimv2-np doctor` expects, computed again by transformers in float64."""

import numpy as np
import pytest
import torch
from transformers import Aimv2Model

import aimv2_np
from aimv2_np import doctor
from aimv2_np.cli_options import DEFAULT_MODEL
from aimv2_np.hub import PACKAGED

from .helpers import all_float64

pytestmark = pytest.mark.compare


def transformers_logits() -> np.ndarray:
    """Of the doctor's test picture and texts, in float64 throughout."""
    folder = PACKAGED / DEFAULT_MODEL
    model = Aimv2Model.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)
    ours = aimv2_np.load(folder)
    pixels = ours.preprocess(doctor._test_image())
    ids, mask = ours.tokenize(doctor.TEXTS)
    assert mask.min() == 0  # with padding in the mask transformers' text encoder is causal
    with torch.no_grad(), all_float64():
        out = model.eval()(
            pixel_values=torch.from_numpy(pixels).double(),
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
        )
    return out.logits_per_image[0].numpy()


def test_the_recorded_logits_are_those_of_transformers() -> None:
    logits = transformers_logits()
    line = f"LOGITS = ({', '.join(f'{logit:.6f}' for logit in logits)})"
    # 1e-6: as many digits as were recorded
    np.testing.assert_allclose(
        doctor.LOGITS, logits, rtol=0, atol=1e-6, err_msg=f"aimv2_np/doctor.py needs\n{line}"
    )
