"""Whom the patches of an image attend to, in every block and head, small enough for a page.

Where an image has too many patches, several share a map (its query cells) or a place in it (its key
cells): a map then holds the mean over the queries of a cell of the sum over the keys of a cell, so
that it still sums to 1. A weight is kept in 8 bits, as the square root of its part of the largest
weight of its map: small ones stay apart, and none is off by more than 0.4 % of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import Array

__all__ = ["MOST_WEIGHTS", "AttentionMaps", "attention_maps", "cells_for", "pooled"]

MOST_WEIGHTS = 2**24  # of all maps together: all of Large-224's 24 × 8 × 256² fit
_LEVELS = 255


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The maps of some blocks. Q query cells, K key cells, both row by row.

    `levels` uint8 (blocks, H, Q, K) and `peaks` float32 (blocks, H, Q), the largest weight of each
    map, stand for the weights: see `weights`. A cell is a square of so many patches a side, smaller
    at the right and the lower edge of the grid.
    """

    blocks: tuple[int, ...]
    query_cell: int
    key_cell: int
    levels: NDArray[np.uint8]
    peaks: NDArray[np.float32]

    def weights(self, index: int, head: int) -> NDArray[np.float32]:
        """The maps of `blocks[index]` in one head, (Q, K); each row sums to 1, nearly."""
        part = self.levels[index, head].astype(np.float32) / _LEVELS
        return np.asarray(np.square(part) * self.peaks[index, head][:, None])


def attention_maps(
    trace: Mapping[str, Array],
    grid: tuple[int, int],
    blocks: Sequence[int],
    *,
    most: int = MOST_WEIGHTS,
    tick: Callable[[str], object] = str,
) -> AttentionMaps:
    """The maps of a trace's first image, from its queries and keys: one head's N × N at a time."""
    heads = trace[f"vision.blocks.{blocks[0]}.attn.q"].shape[1]
    query_cell, key_cell = cells_for(grid, len(blocks) * heads, most)
    shape = (len(blocks), heads, _count(grid, query_cell), _count(grid, key_cell))
    levels, peaks = np.empty(shape, np.uint8), np.empty(shape[:3], np.float32)
    for i, block in enumerate(blocks):
        tick(f"attention of block {block}")
        q, k = (trace[f"vision.blocks.{block}.attn.{name}"][:1] for name in "qk")
        for h in range(heads):
            pattern = ops.softmax(ops.attention_scores(q[:, h : h + 1], k[:, h : h + 1]))[0, 0]
            levels[i, h], peaks[i, h] = _quantised(pooled(pattern, grid, query_cell, key_cell))
    return AttentionMaps(tuple(blocks), query_cell, key_cell, levels, peaks)


def cells_for(grid: tuple[int, int], maps: int, most: int) -> tuple[int, int]:
    """Sides of the query and the key cells, as small as `most` weights allow; queries first."""
    query = key = 1
    while maps * _count(grid, query) * _count(grid, key) > most and key < max(grid):
        query, key = (query + 1, key) if query == key else (query, key + 1)
    return query, key


def pooled(pattern: Array, grid: tuple[int, int], query_cell: int, key_cell: int) -> Array:
    """(N, N) as (Q, K): the mean over each cell of queries, the sum over each cell of keys."""
    pattern = _cell_sums(pattern, grid, key_cell)
    if query_cell == 1:
        return pattern
    sizes = _cell_sums(np.ones((1, len(pattern)), pattern.dtype), grid, query_cell)
    return _cell_sums(pattern.T, grid, query_cell).T / sizes.T


def _cell_sums(x: Array, grid: tuple[int, int], cell: int) -> Array:
    """(M, N) as (M, cells): sums over the patches of each cell."""
    if cell == 1:
        return x
    folded = x.reshape(len(x), *grid)
    for axis in (1, 2):
        folded = np.add.reduceat(folded, np.arange(0, folded.shape[axis], cell), axis=axis)
    return folded.reshape(len(x), -1)


def _count(grid: tuple[int, int], cell: int) -> int:
    return math.prod(-(-side // cell) for side in grid)


def _quantised(weights: Array) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights (Q, K) as levels and the largest of each row."""
    peaks = weights.max(axis=1).astype(np.float32)
    levels = np.rint(np.sqrt(weights / peaks[:, None]) * _LEVELS)
    return levels.astype(np.uint8), peaks
