"""What runs before and after the blocks: 1 % of the work.

The patch embedding is a product like those of the blocks, in float32 whatever the model's dtype.
The pooling head is not: its query is a constant, so neither keys nor values need to exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..backend import Backend
from ..weights.stored import widened
from ..weights.tree import HeadParams
from .compiled import kernels_for
from .isa import InstructionSet
from .packing import PackedMatrix, aligned_zeros, mapped_zeros, pack, padded, task_memory
from .pool import share, thread_count

__all__ = [
    "PackedPatches",
    "attention_pool",
    "embed_tokens",
    "halve",
    "pack_patches",
    "patch_embed",
]

Array = Any  # NumPy's


@dataclass(frozen=True)
class PackedPatches:
    """The patch embedding's kernel (D, C, P, P) as a packed matrix (D, C·P·P)."""

    matrix: PackedMatrix
    size: int  # P
    isa: InstructionSet


def pack_patches(weight: Array, isa: InstructionSet) -> PackedPatches:
    """From the kernel as it is stored."""
    matrix = np.ascontiguousarray(weight.reshape(len(weight), -1))
    return PackedPatches(pack([matrix], isa, "float32"), weight.shape[-1], isa)


def patch_embed(pixels: Array, weight: PackedPatches, bias: Array) -> Array:
    """ops.patch_embed: (B, C, Y, X) to (B, N, D)."""
    patches = ops.cut_patches(pixels, weight.size)
    flat = linear(patches.reshape(-1, patches.shape[-1]), weight.matrix, bias, weight.isa)
    return flat.reshape(*patches.shape[:2], -1)


def linear(x: Array, matrix: PackedMatrix, bias: Array, isa: InstructionSet) -> Array:
    """ops.linear: (T, I) to (T, O), in float32."""
    kernels = kernels_for(isa, "float32")
    threads = thread_count()
    panels = -(-len(x) // isa.panel)
    tokens = aligned_zeros(panels, padded(x.shape[1]), isa.panel)
    outputs = aligned_zeros(panels, len(bias), isa.panel)
    share(kernels.to_lanes, threads, np.ascontiguousarray(x, np.float32), tokens)
    share(
        kernels.linear_all,
        threads,
        *(matrix.weights.ctypes.data, np.array(bias, np.float32), tokens, outputs),
        *task_memory(threads, kernels.size),
    )
    out = np.empty((len(x), len(bias)), np.float32)
    share(kernels.from_lanes, threads, outputs, out)
    return out


def halve(table: Array, isa: InstructionSet) -> Array:
    """float32 (V, D) as the bits of the nearest bfloat16 (uint16)."""
    numbers, threads = np.ascontiguousarray(table, np.float32), thread_count()
    halves = mapped_zeros(*numbers.shape, dtype=np.uint16)
    share(kernels_for(isa, "bfloat16").convert, threads, numbers.ctypes.data, halves.reshape(-1))
    return halves


def embed_tokens(input_ids: Array, table: Array) -> Array:
    """ops.embed_tokens of a table in float32, or in bfloat16 as `halve` makes it."""
    rows = ops.embed_tokens(input_ids, table)
    return widened(rows) if rows.dtype == np.uint16 else rows


def attention_pool(be: Backend, x: Array, p: HeadParams, heads: int, tap: Any = None) -> Array:
    """layers.attention_pool without keys and values: (B, N, D) to (B, D).

    A head's score of a patch is `q · (K x) = (Kᵀ q) · x`, one product with a vector that no patch
    changes; and its sum of values is `Σ w (V x) = V (Σ w x)`, V of one mean of patches.
    """
    width = x.shape[-1] // heads
    query, k, v = (a.reshape(heads, width, -1) for a in (p.cls_token, p.k, p.v))
    seen_as = (query.swapaxes(1, 2) @ k)[:, 0]  # (H, D)
    scores = x @ seen_as.T / np.float32(np.sqrt(width))  # (B, N, H)
    means = be.softmax(scores.swapaxes(1, 2)) @ x  # (B, H, D)
    context = (means[:, :, None] @ v.swapaxes(1, 2)).reshape(len(x), -1)  # (B, D)
    return be.linear(context, p.linear_weight, p.linear_bias)
