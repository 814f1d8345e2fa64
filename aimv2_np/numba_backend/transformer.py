"""All blocks of an encoder at once: buffers, who sits where, and the one call of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import kernels_for
from .formats import Format
from .kernels import PHASES
from .packing import PackedBlocks, aligned_zeros, padded, task_memory
from .pool import run

__all__ = ["transformer"]

Array = NDArray[Any]
_LEAST = 5_000_000  # multiplications, some 50 µs of a core: what two threads' hand-over costs
_F = np.float32
_TINY = 1e-30  # what float32 can still add to the squares of a lane without a token, which are 0


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
    threads: int,
    *,
    lengths: list[int],
    causal: bool = False,
    key_mask: Array | None = None,
) -> Array:
    """layers.transformer on tokens (T, D) of sequences of some lengths, one after the other.

    `key_mask`: (sequences, longest), False for keys that nobody sees.
    """
    isa = blocks.isa
    kernels = kernels_for(isa, blocks.dtype)
    threads = threads if _worth_sharing(x, blocks) else 1
    slots, tasks, sequences = _places(lengths, isa.panel)
    width, head_width = x.shape[1], x.shape[1] // heads
    rows = -(-head_width // isa.heads_rows) * isa.heads_rows  # with zeros, for attention's tiles
    tokens = aligned_zeros(-(-len(x) // isa.panel), padded(width), isa.panel)
    kernels.to_lanes(np.ascontiguousarray(x, _F), tokens)
    run(
        kernels.run_blocks,
        threads,
        np.zeros((PHASES * len(blocks), 16), np.int64),  # counters: two cache lines a phase
        tokens,
        *_tokens(tokens.shape, len(tasks), rows, heads, padded(blocks.hidden), kernels.form),
        *task_memory(threads, kernels.size),
        aligned_zeros(threads, kernels.size["KEYS"], isa.panel),  # scores
        aligned_zeros(threads, rows, isa.panel),  # a head's output
        *(slots, tasks, sequences, blocks.norms, blocks.addresses(), *blocks.scales),
        *(head_width, _F(max(eps, _TINY)), causal),
        np.ones((0, 0), bool) if key_mask is None else np.ascontiguousarray(key_mask, bool),
    )
    out = np.empty(x.shape, _F)
    kernels.from_lanes(tokens, out)
    return out


def _tokens(
    shape: tuple[int, ...], queries: int, rows: int, heads: int, hidden: int, form: Format
) -> tuple[Array, ...]:
    """Memory for kernels.run_blocks, from normed to measures.

    `shape` is that of the tokens, `queries` the number of panels when each sequence starts one.
    """
    panels, width, panel = shape
    nothing = np.zeros((0, 0, 0), _F)
    return (
        aligned_zeros(panels, width // form.per, panel),  # normed
        aligned_zeros(2, queries, heads, rows // form.per, panel),  # queries, keys
        aligned_zeros(queries, heads, rows, panel // form.per),  # values
        aligned_zeros(panels, width // form.per, panel),  # context
        aligned_zeros(panels, hidden // form.per, panel),
        aligned_zeros(panels, width // form.channels, panel) if form.scaled else nothing,  # words
        aligned_zeros(panels, hidden // form.channels, panel) if form.scaled else nothing,
        aligned_zeros(panels if form.scaled else 0, panel),  # measures
    )


def _worth_sharing(x: Array, blocks: PackedBlocks) -> bool:
    """Whether there is so much to compute that waking other threads is worth it."""
    width, hidden = x.shape[1], blocks.hidden
    work: int = len(x) * width * (4 * width + 3 * hidden) * len(blocks)
    return work > _LEAST
