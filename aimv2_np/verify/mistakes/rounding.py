"""Precision: numbers that do not fit the dtype they are kept in.

That a port computes in less than it says is found without a mistake of its own: its errors are
those of a correct run in the smaller dtype (diagnose.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..lanes import rounded
from ..walk import Step
from . import mistake
from .attention import projected, which


@mistake(
    "fp16-overflow",
    "*.mlp.hidden",
    "*.resid_mid",
    "*.resid_post",
    "*.mlp.out",
    rough=True,
    says="numbers beyond 65504, float16's largest, become infinite",
    remedy="keep the residual stream and the MLP's products in float32 or bfloat16",
)
def fp16_overflow(s: Step) -> Any:
    """Through float16."""
    return rounded(s.value, "float16")


@mistake(
    "fp16-saturated",
    "*.mlp.hidden",
    "*.resid_mid",
    "*.resid_post",
    "*.mlp.out",
    rough=True,
    says="numbers are clamped to float16's range, 65504",
    remedy="keep the residual stream and the MLP's products in float32 or bfloat16",
)
def fp16_saturated(s: Step) -> Any:
    """Clamped."""
    return np.clip(s.value, -65504, 65504)


@mistake(
    "residual-bf16",
    "*.resid_mid",
    "*.resid_post",
    rough=True,
    says="the residual stream is kept in bfloat16",
    remedy="add in float32",
)
def residual_bf16(s: Step) -> Any:
    """Rounded after each addition."""
    return rounded(s.value, "bfloat16")


@mistake(
    "weights-bf16",
    "*.attn.q",
    "*.attn.k",
    "*.attn.v",
    rough=True,
    says="the weights were rounded to bfloat16",
    remedy="load the float32 weights as they are stored, or compare in bfloat16",
)
def weights_bf16(s: Step) -> Any:
    """Rounded matrices, everything else as it should be."""
    return projected(s, rounded(s.p.qkv[which(s)], "bfloat16"))


@mistake(
    "scores-fp16",
    "*.attn.scores",
    rough=True,
    says="the attention scores are kept in float16",
    remedy="keep scores in float32 until softmax is done",
)
def scores_fp16(s: Step) -> Any:
    """Rounded, infinite beyond 65504."""
    return rounded(s.value, "float16")
