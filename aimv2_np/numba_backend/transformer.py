"""All blocks of an encoder at once: buffers, who sits where, and the one call of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import kernels_for
from .formats import Format
from .kernels import PHASES
from .packing import PackedBlocks, aligned_zeros, padded, task_memory
from .pool import share

__all__ = ["transformer"]

Array = NDArray[Any]
_LEAST = 5_000_000  # multiplications, some 50 µs of a core: what two threads' hand-over costs
_F = np.float32
_TINY = 1e-30  # what float32 can still add to the squares of a lane without a token, which are 0


def _places(lengths: list[int], keys: int) -> tuple[Array, Array, int]:
    """Where attention finds the tokens of each sequence: every one starts at a chunk of keys.

    Returns the slot of each token (T,); for each sequence its first slot, its length and its first
    token (S, 3); and how many chunks there are.
    """
    counts = np.array(lengths, np.int64)
    rooms = -(-counts // keys) * keys
    first = np.cumsum(rooms) - rooms
    token = np.cumsum(counts) - counts
    slots = np.arange(counts.sum()) + np.repeat(first - token, counts)
    return slots, np.stack([first, counts, token], axis=1), int(rooms.sum()) // keys


def _queries(counts: Array, heads: int, panel: int) -> Array:
    """Attention's tasks (panels · heads, 3): a sequence, a head, the place of the first query.

    In this order, so that one head's keys and values stay in a core's cache.
    """
    panels = -(-counts // panel)
    tasks = panels * heads
    sequence = np.repeat(np.arange(len(counts)), tasks)
    inside = np.arange(tasks.sum()) - np.repeat(np.cumsum(tasks) - tasks, tasks)
    head, place = np.divmod(inside, panels[sequence])
    return np.stack([sequence, head, place * panel], axis=1)


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
    keys = kernels.size["KEYS"]
    slots, sequences, chunks = _places(lengths, keys)
    queries = _queries(sequences[:, 1], heads, isa.panel)
    width, head_width = x.shape[1], x.shape[1] // heads
    rows = -(-head_width // isa.heads_rows) * isa.heads_rows  # with zeros, for attention's tiles
    tokens = aligned_zeros(-(-len(x) // isa.panel), padded(width), isa.panel)
    attention, hidden = (chunks, keys, heads, rows), padded(blocks.hidden)
    share(kernels.to_lanes, threads, np.ascontiguousarray(x, _F), tokens)
    share(
        kernels.run_blocks,
        threads,
        *(tokens, *_activations(tokens.shape, attention, hidden, kernels.form)),
        *task_memory(threads, kernels.size),
        aligned_zeros(threads, keys, isa.panel),  # scores
        aligned_zeros(threads, rows + 1, isa.panel),  # a head's output, and what attend keeps
        *(slots, queries, sequences, blocks.norms, blocks.addresses(), *blocks.scales),
        *(head_width, _F(max(eps, _TINY)), causal),
        np.ones((0, 0), bool) if key_mask is None else np.ascontiguousarray(key_mask, bool),
        phases=PHASES * len(blocks),
    )
    out = np.empty(x.shape, _F)
    share(kernels.from_lanes, threads, tokens, out)
    return out


def _activations(
    shape: tuple[int, ...], attention: tuple[int, int, int, int], hidden: int, form: Format
) -> tuple[Array, ...]:
    """Memory for kernels.run_blocks, from normed to measures.

    `shape` is that of the tokens; `attention` sees them as so many chunks of so many keys, and has
    so many heads of so many channels.
    """
    panels, width, panel = shape
    chunks, keys, heads, channels = attention
    per, per_heads, per_words = form.per, form.per_heads, form.channels
    narrowed = panels if form.scaled else 0
    return (
        aligned_zeros(panels, width // per, panel),  # normed
        aligned_zeros(2, heads, chunks * keys // panel, channels // per_heads, panel),  # q, k
        aligned_zeros(heads, chunks, channels, keys // per_heads),  # values
        aligned_zeros(panels, width // per, panel),  # context
        aligned_zeros(panels, hidden // per, panel),
        aligned_zeros(narrowed, width // per_words, panel),  # words
        aligned_zeros(narrowed, hidden // per_words, panel),
        aligned_zeros(narrowed, 2, panel),  # measures
    )


def _worth_sharing(x: Array, blocks: PackedBlocks) -> bool:
    """Whether there is so much to compute that waking other threads is worth it."""
    width, hidden = x.shape[1], blocks.hidden
    work: int = len(x) * width * (4 * width + 3 * hidden) * len(blocks)
    return work > _LEAST
