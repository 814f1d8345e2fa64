"""All blocks of an encoder at once: buffers, who sits where, and the one call of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import constants, kernels_for
from .isa import InstructionSet
from .kernels import PHASES
from .packing import PackedBlocks, aligned_zeros
from .pool import run

__all__ = ["transformer"]

Array = NDArray[Any]
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
    threads = threads if _worth_sharing(x, blocks) else 1
    slots, tasks, sequences = _places(lengths, isa.panel)
    tokens = aligned_zeros(-(-len(x) // isa.panel), x.shape[1], isa.panel)
    kernels.to_lanes(np.ascontiguousarray(x, _F), tokens)
    run(
        kernels.run_blocks,
        threads,
        np.zeros((PHASES * len(blocks), 16), np.int64),  # counters: two cache lines a phase
        *(tokens, *_buffers(tokens.shape, len(tasks), heads, blocks.hidden, threads, size)),
        *(slots, tasks, sequences, blocks.norms, blocks.addresses()),
        *(x.shape[1] // heads, _F(eps), causal),
        np.ones((0, 0), bool) if key_mask is None else np.ascontiguousarray(key_mask, bool),
    )
    out = np.empty(x.shape, _F)
    kernels.from_lanes(tokens, out)
    return out


def _buffers(
    shape: tuple[int, ...],
    queries: int,
    heads: int,
    hidden: int,
    threads: int,
    size: dict[str, int],
) -> tuple[Array, ...]:
    """Memory for kernels.run_blocks: normed, qkv, context, hidden, and each thread's own.

    `shape` is that of the tokens, `queries` the number of panels when each sequence starts one.
    """
    panels, width, panel = shape
    rows = -(-(width // heads) // size["HEAD_ROWS"]) * size["HEAD_ROWS"]
    return (
        aligned_zeros(*shape),
        aligned_zeros(3, queries, heads, rows, panel),
        aligned_zeros(*shape),
        aligned_zeros(panels, hidden, panel),
        aligned_zeros(threads, size["STACK"] * size["GROUP"], size["ROWS"], panel),
        aligned_zeros(threads, size["KEYS"], panel),
        aligned_zeros(threads, rows, panel),
    )


def _worth_sharing(x: Array, blocks: PackedBlocks) -> bool:
    """Whether there is so much to compute that waking other threads is worth it."""
    width, hidden = x.shape[1], blocks.hidden
    work: int = len(x) * width * (4 * width + 3 * hidden) * len(blocks)
    return work > _LEAST
