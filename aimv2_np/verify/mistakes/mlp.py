"""The MLP: SwiGLU and the residual connection around it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import ops
from ...ops import Array
from ..walk import Step
from . import mistake

_RIGHT = "hidden = silu(fc1 x) · fc3 x, then fc2"

_erf = np.vectorize(math.erf, otypes=[float])


@mistake(
    "gate-swap",
    "*.mlp.gate",
    "*.mlp.up",
    says="fc1 and fc3 are exchanged: SiLU is applied to the up projection",
    remedy=f"fc1 is the gate, fc3 goes up: {_RIGHT}",
    seen_in="ports",
)
def gate_swap(s: Step) -> Any:
    """fc3 for fc1, fc1 for fc3."""
    return ops.linear(s["norm_2"], s.p.fc3 if s.name.endswith("gate") else s.p.fc1)


@mistake(
    "silu-on-up",
    "*.mlp.hidden",
    says="SiLU is applied to the up projection (fc3) instead of to the gate (fc1)",
    remedy=_RIGHT,
)
def silu_on_up(s: Step) -> Any:
    """The same result as gate-swap, where only the product can be seen."""
    return s["mlp.gate"] * ops.silu(s["mlp.up"])


def _activation(id: str, what: str, f: Any) -> None:
    """Another function in SiLU's place."""

    def patch(s: Step) -> Any:
        return f(s["mlp.gate"]) * s["mlp.up"]

    mistake(id, "*.mlp.hidden", says=f"{what} instead of SiLU in the MLP", remedy=_RIGHT)(patch)


def _tanh_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_activation("gelu", "GELU", lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))))
_activation("gelu-tanh", "GELU (by tanh)", _tanh_gelu)
_activation(
    "quick-gelu", "CLIP's quick GELU, x · sigmoid(1.702 x),", lambda x: x * _sigmoid(1.702 * x)
)
_activation("relu", "ReLU", lambda x: np.maximum(x, 0))
_activation("gate-sigmoid", "a sigmoid (GLU)", _sigmoid)
_activation("gate-linear", "nothing (a bilinear product)", lambda x: x)


@mistake(
    "no-up",
    "*.mlp.hidden",
    says="the up projection (fc3) is left out: the MLP has no gate",
    remedy=_RIGHT,
)
def no_up(s: Step) -> Any:
    """silu(fc1 x)."""
    return ops.silu(s["mlp.gate"])


@mistake(
    "gate-added",
    "*.mlp.hidden",
    says="gate and up projection are added instead of multiplied",
    remedy=_RIGHT,
)
def gate_added(s: Step) -> Any:
    """silu(fc1 x) + fc3 x."""
    return ops.silu(s["mlp.gate"]) + s["mlp.up"]


@mistake(
    "no-mlp-residual",
    "*.resid_post",
    says="the residual connection around the MLP is missing",
    remedy="x = x + mlp(norm_2(x))",
)
def no_mlp_residual(s: Step) -> Any:
    """f(x) for x + f(x)."""
    return s["mlp.out"]


@mistake(
    "no-mlp",
    "*.resid_post",
    says="the MLP is not added to the residual stream",
    remedy="x = x + mlp(norm_2(x))",
)
def no_mlp(s: Step) -> Any:
    """x for x + f(x)."""
    return s["resid_mid"]


@mistake(
    "parallel-block",
    "*.norm_2",
    says="the MLP sees the block's input: attention and MLP run side by side",
    remedy="the MLP comes after attention: x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))",
)
def parallel_block(s: Step) -> Any:
    """norm_2 of what entered the block."""
    return ops.rms_norm(s.x, s.p.norm_2, s.encoder.config.rms_norm_eps)


@mistake(
    "mlp-residual-from-input",
    "*.resid_post",
    says="the MLP is added to the block's input: what attention added is lost",
    remedy="x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))",
)
def mlp_residual_from_input(s: Step) -> Any:
    """The residual stream of before attention."""
    return s.x + s["mlp.out"]
