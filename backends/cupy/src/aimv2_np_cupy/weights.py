"""Parameters on a device: q, k and v in one matrix, the gate and what goes up in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aimv2_np.weights.tree import BlockParams, with_blocks

__all__ = ["Block", "Matrix", "placed"]

Array = Any
_VECTORS = ("norm", "bias", "cls_token", "embed")


class Matrix(NamedTuple):
    """A weight that is multiplied with, (out, in), and whether in tf32."""

    array: Array
    tf32: bool

    def moved(self, put: Callable[[Array], Array]) -> Matrix:
        """The same, where `put` puts it."""
        return Matrix(put(self.array), self.tf32)

    def rows(self, start: int, end: int) -> Matrix:
        """Some of its outputs."""
        return Matrix(self.array[start:end], self.tf32)


@dataclass(frozen=True, eq=False)
class Block:
    """A block's parameters, with the names that layers.py asks for."""

    norm_1: Array
    fused_qkv: Matrix  # (3 D, D)
    proj: Matrix
    norm_2: Array
    fused_gate_up: Matrix  # (2 F, D)
    fc2: Matrix

    def moved(self, put: Callable[[Array], Array]) -> Block:
        """The same, where `put` puts its arrays."""
        return Block(
            put(self.norm_1), self.fused_qkv.moved(put), self.proj.moved(put),
            put(self.norm_2), self.fused_gate_up.moved(put), self.fc2.moved(put),
        )  # fmt: skip

    @property
    def qkv(self) -> tuple[Matrix, Matrix, Matrix]:
        """Each a part of the fused one."""
        width = len(self.fused_qkv.array) // 3
        q, k, v = (self.fused_qkv.rows(i * width, (i + 1) * width) for i in range(3))
        return q, k, v

    @property
    def fc1(self) -> Matrix:
        """The gate."""
        return self.fused_gate_up.rows(0, len(self.fused_gate_up.array) // 2)

    @property
    def fc3(self) -> Matrix:
        """The up projection."""
        half = len(self.fused_gate_up.array) // 2
        return self.fused_gate_up.rows(half, 2 * half)


def placed(params: Any, asarray: Callable[[Any, Any], Array], dtype: Any, tf32: bool) -> Any:
    """A tree of parameters as a device's arrays in a dtype; one block after the other."""

    def put(array: Any) -> Array:
        return asarray(array, dtype)

    def matrix(*parts: Any) -> Matrix:
        return Matrix(put(np.concatenate(parts) if len(parts) > 1 else parts[0]), tf32)

    def block(p: BlockParams) -> Any:
        return Block(
            put(p.norm_1), matrix(*p.qkv), matrix(p.proj),
            put(p.norm_2), matrix(p.fc1, p.fc3), matrix(p.fc2),
        )  # fmt: skip

    params = _rest(with_blocks(params, lambda blocks: tuple(map(block, blocks))), put, matrix)
    if hasattr(params, "log_logit_scale"):  # in 16 bits the scale would be off by a hundredth
        return params._replace(log_logit_scale=asarray(params.log_logit_scale, np.float32))
    return params


def _rest(value: Any, put: Callable[[Any], Array], matrix: Callable[..., Matrix]) -> Any:
    """What is in no block: matrices are what is multiplied with, all else are arrays."""
    if value is None:
        return None
    placed: dict[str, Any] = {}
    for name, inner in value._asdict().items():
        if name == "blocks" or inner is None:
            placed[name] = inner
        elif hasattr(inner, "_asdict"):
            placed[name] = _rest(inner, put, matrix)
        elif name == "patch_weight":  # a product of rows of patches
            placed[name] = matrix(np.asarray(inner).reshape(len(inner), -1))
        elif name == "log_logit_scale":
            placed[name] = inner
        elif np.ndim(inner) < 2 or any(part in name for part in _VECTORS):
            placed[name] = put(inner)
        else:
            placed[name] = matrix(inner)
    return type(value)(**placed)
