"""All blocks of an encoder at once: buffers, who sits where, and the one call of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import constants, kernels_for
from .isa import InstructionSet
from .packing import PackedBlocks, aligned_zeros
from .pool import run

__all__ = ["transformer"]

Array = NDArray[Any]
_PHASES = 7  # of a block, in kernels.run_blocks
_LEAST = 5_000_000  # multiplications, some 50 µs of a core: what two threads' hand-over costs
_F = np.float32


def _places(lengths: list[int], panel: int) -> tuple[Array, Array, Array]:
    """Where attention finds the tokens of each sequence: every sequence starts at a panel.

    Returns the slot of each token (T,), the sequence of each panel, and for each sequence its first
    panel, its length and its first token (S, 3).
    """
    counts = np.array(lengths, np.int64)
    panels = -(-counts // panel)
    first = np.cumsum(panels) - panels
    token = np.cumsum(counts) - counts
    slots = np.arange(counts.sum()) + np.repeat(first * panel - token, counts)
    tasks = np.repeat(np.arange(len(counts)), panels)
    return slots, tasks, np.stack([first, counts, token], axis=1)


def transformer(
    x: Array,
    blocks: PackedBlocks,
    heads: int,
    eps: float,
    isa: InstructionSet,
    threads: int,
    *,
    lengths: list[int],
    causal: bool = False,
    key_mask: Array | None = None,
) -> Array:
    """layers.transformer on tokens (T, D) of sequences of some lengths, one after the other.

    `key_mask`: (sequences, longest), False for keys that nobody sees.
    """
    kernels, size = kernels_for(isa), constants(isa)
    panel, width = size["PANEL"], x.shape[1] // heads
    head_rows = -(-width // size["HEAD_ROWS"]) * size["HEAD_ROWS"]
    slots, tasks, sequences = _places(lengths, panel)
    tokens = aligned_zeros(-(-len(x) // panel), x.shape[1], panel)
    kernels.to_lanes(np.ascontiguousarray(x, _F), tokens)
    words = panel * (size["STACK"] * size["GROUP"] * size["ROWS"] + size["KEYS"] + head_rows)
    bias = np.zeros((0, 0), _F) if key_mask is None else np.where(key_mask, _F(0), _F(-np.inf))
    counters = np.zeros((_PHASES * len(blocks), 16), np.int64)  # two cache lines a phase
    run(
        kernels.run_blocks,
        threads if _worth_sharing(x, blocks) else 1,
        counters,
        tokens,
        aligned_zeros(*tokens.shape),
        aligned_zeros(3, len(tasks), heads, head_rows, panel),
        aligned_zeros(*tokens.shape),
        aligned_zeros(len(tokens), blocks.hidden, panel),
        aligned_zeros(threads, words),
        slots,
        tasks,
        sequences,
        blocks.norms,
        blocks.addresses(),
        width,
        _F(eps),
        causal,
        np.ascontiguousarray(bias),
    )
    out = np.empty(x.shape, _F)
    kernels.from_lanes(tokens, out)
    return out


def _worth_sharing(x: Array, blocks: PackedBlocks) -> bool:
    """Whether there is so much to compute that waking other threads is worth it."""
    width, hidden = x.shape[1], blocks.hidden
    work: int = len(x) * width * (4 * width + 3 * hidden) * len(blocks)
    return work > _LEAST
