"""Weights as the micro-kernel reads them, once, at load.

A block holds `rows` outputs, and in it the rows of one column lie side by side: (blocks, K, rows).
What is missing in the last block is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..weights.tree import BlockParams, Blocks
from .isa import InstructionSet

__all__ = ["PackedBlocks", "aligned_zeros", "pack_blocks"]

Array = NDArray[Any]


@dataclass(frozen=True)
class PackedBlocks(Sequence[BlockParams]):
    """All blocks of one encoder; as a sequence, each one unpacked again when it is asked for.

    The unpacked ones are for traces, which run the composed form.
    """

    norms: Array  # (blocks, 2, D)
    weights: tuple[tuple[Array, Array, Array, Array], ...]  # qkv, proj, fc1 with fc3, fc2
    hidden: int  # F

    def addresses(self) -> Array:
        """Where the weights lie, (blocks, 4) int64: asked for at each run, since a copy moves."""
        return np.array([[w.ctypes.data for w in four] for four in self.weights], np.int64)

    def __len__(self) -> int:
        return len(self.norms)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        norm_1, norm_2 = self.norms[i]
        width = len(norm_1)
        qkv, proj, pairs, fc2 = self.weights[i]
        q, k, v = unpack_rows(qkv, 3 * width).reshape(3, width, width)
        fc1, fc3 = unpack_pairs(pairs, self.hidden)
        proj, fc2 = unpack_rows(proj, width), unpack_rows(fc2, width)
        return BlockParams(norm_1, (q, k, v), proj, norm_2, fc1, fc3, fc2)


def aligned_zeros(*shape: int) -> Array:
    """Zeros in float32 that begin at a cache line, so that no vector crosses one."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + count].reshape(shape)


def pack_rows(matrices: tuple[Array, ...], rows: int) -> Array:
    """Matrices (O, K), one below the other, as (blocks, K, rows)."""
    steps, count = matrices[0].shape[1], sum(len(m) for m in matrices)
    packed = aligned_zeros(-(-count // rows), steps, rows)
    first = 0
    for matrix in matrices:
        _fill(packed, matrix, first)
        first += len(matrix)
    return packed


def pack_pairs(gate: Array, up: Array, rows: int) -> Array:
    """fc1 and fc3 (F, K): each block holds rows / 2 of one, then the same of the other."""
    half = rows // 2
    packed = aligned_zeros(-(-len(gate) // half), gate.shape[1], rows)
    _fill(packed[..., :half], gate)
    _fill(packed[..., half:], up)
    return packed


def _fill(packed: Array, matrix: Array, first: int = 0) -> None:
    """Put a matrix's rows into (blocks, K, rows), from row `first` on; little is copied at once."""
    rows = packed.shape[2]
    for start in range(0, len(matrix), rows):
        part = matrix[start : start + rows]
        places = first + start + np.arange(len(part))
        packed[places // rows, :, places % rows] = part


def unpack_rows(packed: Array, count: int) -> Array:
    """The rows of `pack_rows`, (count, K)."""
    blocks, steps, rows = packed.shape
    matrix: Array = packed.swapaxes(1, 2).reshape(blocks * rows, steps)
    return matrix[:count]


def unpack_pairs(packed: Array, count: int) -> tuple[Array, Array]:
    """The two matrices of `pack_pairs`, (count, K) each."""
    half = packed.shape[2] // 2
    return unpack_rows(packed[..., :half], count), unpack_rows(packed[..., half:], count)


def pack_blocks(blocks: Blocks, isa: InstructionSet) -> PackedBlocks:
    """Every block's weights packed, and where they lie."""
    packed = tuple(
        (
            pack_rows(block.qkv, isa.rows),
            pack_rows((block.proj,), isa.rows),
            pack_pairs(block.fc1, block.fc3, isa.rows),
            pack_rows((block.fc2,), isa.rows),
        )
        for block in blocks
    )
    norms = np.stack([np.stack([block.norm_1, block.norm_2]) for block in blocks])
    return PackedBlocks(norms, packed, len(blocks[0].fc1))
