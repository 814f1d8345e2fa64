"""The residual stream of an image along depth: how long its vectors are, how patches differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ops import Array
from ..viz.components import as_colours
from ..viz.components import components as components_of

__all__ = ["Components", "Residual", "components", "residual"]


@dataclass(frozen=True, eq=False)
class Residual:
    """Lengths (Euclidean norms) of vectors, a number per patch.

    `stream` (L + 1, N): what enters the first block, and what leaves each; `attention` and `mlp`
    (L, N): what each block's attention and MLP add to it.
    """

    stream: NDArray[np.float32]
    attention: NDArray[np.float32]
    mlp: NDArray[np.float32]


def residual(trace: Mapping[str, Array], depth: int) -> Residual:
    """The lengths of a trace's first image, of an encoder with `depth` blocks."""

    def lengths(*names: str) -> NDArray[np.float32]:
        found = [np.linalg.norm(trace[f"vision.{name}"][0], axis=-1) for name in names]
        return np.stack(found).astype(np.float32)

    blocks = [f"blocks.{i}" for i in range(depth)]
    return Residual(
        lengths("embed", *(f"{block}.resid_post" for block in blocks)),
        lengths(*(f"{block}.attn.out" for block in blocks)),
        lengths(*(f"{block}.mlp.out" for block in blocks)),
    )


# ---------------------------------------------------------------------------- components


@dataclass(frozen=True, eq=False)
class Components:
    """The first three principal components of the patches' directions, at every depth.

    `names` says where, as in "embedding", "block 0", "features"; `scores` (depths, N, 3); `shares`
    (depths, 3): the part of the variance that lies along each; `colours` uint8 (depths, N, 3).
    A component's sign is chosen so that it goes on from the depth before.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def colours(self) -> NDArray[np.uint8]:
        """The scores from 0 to 255, each component by itself, with its ends clipped."""
        return np.asarray(np.rint(as_colours(self.scores) * 255), np.uint8)


def components(
    trace: Mapping[str, Array], depth: int, *, tick: Callable[[str], object] = str
) -> Components:
    """The components of a trace's first image.

    Of directions, because RMSNorm, through which all that follows reads the stream, keeps only
    these: without it a few long vectors would be all that is seen.
    """
    where = {"embedding": "embed"}
    where |= {f"block {i}": f"blocks.{i}.resid_post" for i in range(depth)} | {"features": "norm"}
    scores: list[Array] = []
    shares: list[Array] = []
    for name, activation in where.items():
        tick(f"components of {name}")
        x = trace[f"vision.{activation}"][0].astype(np.float64)
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        found, share = components_of(x)
        if scores:
            found = found * np.where((found * scores[-1]).sum(axis=0) < 0, -1, 1)
        scores.append(found)
        shares.append(share)
    return Components(tuple(where), np.stack(scores), np.stack(shares))
