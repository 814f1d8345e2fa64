"""The kernels, as plain Python that Numba compiles once per instruction set (`compiled.py`).

One idea carries all of them: **tokens lie in the lanes of a vector**. T tokens are cut into panels
of `PANEL`, and a panel holds its channels one after the other:

    activations (panels, D, PANEL):   channel 0   ████████████████   one number per token
                                      channel 1   ████████████████
                                      …

So a product broadcasts weights and streams tokens, and what it stores is laid out as the next
product reads it: nothing is ever packed again. Sums over channels (norms) and over keys (softmax)
add whole vectors; there is no horizontal step anywhere. Attention alone needs every sequence to
start at a panel: `slots` says where each token goes.

Threads take tasks from shared counters and wait for each other after each phase. The capital names
are constants that `compiled.py` fills in; `product_tile` is a micro-kernel of `intrinsics.py`,
`load` and `splat` are made by `vectors.py`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, name-defined, call-arg, var-annotated"
# ruff: noqa: F821
from __future__ import annotations

import numpy as np

from .intrinsics import fetch_add, give_way, read_shared
from .vectors import at_least, at_most, root, store, times_power, zero_where_below

__all__ = ["PHASES"]

PHASES = 7  # of a block, in run_blocks
_ONE, _ZERO = np.float32(1), np.float32(0)
# exp: 2^n e^r with |r| ≤ ln 2 / 2. ln 2 in two parts, the first exact in products with n (Cody and
# Waite); adding 1.5 · 2^23 rounds to an integer; the polynomial is e^r's best of degree 6.
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(c) for c in (1.44269504, 0.693359375, -2.12194440e-4))
_MAGIC, _HIGHEST, _LOWEST = (np.float32(c) for c in (12582912.0, 89.0, -86.9))
_C2, _C3, _C4, _C5, _C6 = (
    np.float32(c) for c in (0.5000000, 0.16666655, 0.041666884, 0.008369149, 0.0013873)
)


def exp(x):
    """e^x of a vector, to two units in the last place; below -86.9 it is 0, NaN stays NaN."""
    y = at_least(at_most(x, _HIGHEST), _LOWEST)
    shifted = y * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    e = ((((r * _C6 + _C5) * r + _C4) * r + _C3) * r + _C2) * r * r + r + _ONE
    return zero_where_below(times_power(e, shifted), x, _LOWEST)


def at(array, *row):
    """The address of a row of tokens, array[row], in a contiguous array."""
    return array[row].ctypes.data


# ---------------------------------------------------------------------------- threads


def next_task(counters, phase):
    """The number of a task that no other thread has taken."""
    return fetch_add(counters.ctypes.data + 128 * phase, 1)


def meet(counters, phase, threads):
    """Wait until every thread has finished the phase; after a while, without holding a core."""
    here = counters.ctypes.data + 128 * phase + 64
    fetch_add(here, 1)
    waited = 0
    while read_shared(here) < threads:
        waited += 1
        if waited > PATIENCE:
            give_way()


def blocks_of(count, size):
    """How many blocks of a size hold so many."""
    return (count + size - 1) // size


# ---------------------------------------------------------------------------- products


def multiply(task, blocks, weights, tokens, sums):
    """A task: STACK blocks of ROWS rows of weights by GROUP panels of tokens.

    for a piece of K:                 DEPTH steps; the tokens' pieces stay in L2
        for a block of the stack:     the weights' piece stays in L1
            for a panel:              one tile

    Returns the first block and panel, and how many of each there are.
    """
    group, stack = divmod(task, blocks_of(blocks, STACK))
    block, panel = stack * STACK, group * GROUP
    stacked, panels = min(STACK, blocks - block), min(GROUP, len(tokens) - panel)
    steps = tokens.shape[1]
    for start in range(0, steps, DEPTH):
        some = min(DEPTH, steps - start)
        for b in range(stacked):
            piece = weights + 4 * ROWS * (steps * (block + b) + start)
            for p in range(panels):
                place = at(sums, b * GROUP + p, 0)
                product_tile(some, piece, at(tokens, panel + p, start), place, start)
    return block, panel, stacked, panels


def tasks_of(blocks, tokens):
    """How many tasks a product has."""
    return blocks_of(blocks, STACK) * blocks_of(len(tokens), GROUP)


def add_all(crew, phase, weights, tokens, x, sums):
    """`x += W tokens` for every token: attention's way out, and fc2."""
    counters, threads = crew
    blocks = blocks_of(x.shape[1], ROWS)
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, sums)
        for b in range(stacked):
            channel = (block + b) * ROWS
            for p in range(panels):
                for row in range(min(ROWS, x.shape[1] - channel)):
                    place = at(x, panel + p, channel + row)
                    store(place, load(place) + load(at(sums, b * GROUP + p, row)))
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def swiglu_all(crew, phase, weights, tokens, hidden, sums):
    """`silu(fc1 x) · fc3 x`: a block is HALF rows of fc1, then the same of fc3 (ops.silu)."""
    counters, threads = crew
    blocks = blocks_of(hidden.shape[1], HALF)
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, sums)
        for b in range(stacked):
            channel = (block + b) * HALF
            for p in range(panels):
                for row in range(min(HALF, hidden.shape[1] - channel)):
                    gate = load(at(sums, b * GROUP + p, row))
                    up = load(at(sums, b * GROUP + p, HALF + row))
                    silu = gate / (exp(_ZERO - gate) + _ONE)
                    store(at(hidden, panel + p, channel + row), silu * up)
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def qkv_all(crew, phase, weights, tokens, qkv, slots, width, sums):
    """Queries (scaled), keys and values, each token to where attention wants it."""
    counters, threads = crew
    channels = tokens.shape[1]
    blocks = blocks_of(3 * channels, ROWS)
    scale = np.float32(1 / np.sqrt(width))
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, sums)
        for b in range(stacked):
            first = (block + b) * ROWS
            for row in range(min(ROWS, 3 * channels - first)):
                which, channel = divmod(first + row, channels)
                factor = scale if which == 0 else _ONE
                for p in range(panels):
                    source = sums[b * GROUP + p, row]
                    send(source, qkv[which], channel, width, slots, panel + p, factor)
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def send(source, heads, channel, width, slots, panel, factor):
    """One channel of a panel, times a factor, to its tokens' slots in (panels, H, E, PANEL)."""
    head, inside = divmod(channel, width)
    start = panel * PANEL
    count = min(PANEL, len(slots) - start)
    slot = slots[start]
    if slot % PANEL == 0 and slots[start + count - 1] == slot + count - 1:  # one panel to another
        store(at(heads, slot // PANEL, head, inside), load(source.ctypes.data) * factor)
    else:
        for lane in range(count):
            to, there = divmod(slots[start + lane], PANEL)
            heads[to, head, inside, there] = source[lane] * factor


def normalise_all(crew, phase, x, weight, eps, out):
    """ops.rms_norm of every token: squares are summed in runs, as float32 wants it."""
    counters, threads = crew
    channels = x.shape[1]
    panel = next_task(counters, phase)
    while panel < len(x):
        total = splat(_ZERO)
        for start in range(0, channels, RUN):
            run = splat(_ZERO)
            for channel in range(start, min(start + RUN, channels)):
                number = load(at(x, panel, channel))
                run = run + number * number
            total = total + run
        scale = splat(_ONE) / root(total / np.float32(channels) + eps)
        for channel in range(channels):
            store(at(out, panel, channel), load(at(x, panel, channel)) * scale * weight[channel])
        panel = next_task(counters, phase)
    meet(counters, phase, threads)


# ---------------------------------------------------------------------------- layouts


def to_lanes(rows, panels):
    """(T, D) to (panels, D, PANEL); lanes without a token are left as they are."""
    for token in range(len(rows)):
        panel, lane = divmod(token, PANEL)
        for channel in range(rows.shape[1]):
            panels[panel, channel, lane] = rows[token, channel]


def from_lanes(panels, rows):
    """The way back."""
    for token in range(len(rows)):
        panel, lane = divmod(token, PANEL)
        for channel in range(rows.shape[1]):
            rows[token, channel] = panels[panel, channel, lane]


# ---------------------------------------------------------------------------- the whole


def run_blocks(
    thread, threads, counters, x, normed, qkv, context, hidden, all_sums, all_scores, all_out,
    slots, tasks, sequences, norms, weights, width, eps, causal, seen,
):  # fmt: skip
    """layers.transformer: all blocks, x (panels, D, PANEL) changed in place, by all threads.

    All threads meet after each of a block's phases. What begins with all_ holds every thread's own.
    """
    crew = counters, threads
    sums, scores, out = all_sums[thread], all_scores[thread], all_out[thread]
    for i in range(len(weights)):
        phase = PHASES * i
        to_qkv, proj, to_hidden, fc2 = weights[i]
        normalise_all(crew, phase, x, norms[i, 0], eps, normed)
        qkv_all(crew, phase + 1, to_qkv, normed, qkv, slots, width, sums)
        attend_all(
            crew, phase + 2, width, qkv, tasks, sequences, causal, seen, context, scores, out
        )
        add_all(crew, phase + 3, proj, context, x, sums)
        normalise_all(crew, phase + 4, x, norms[i, 1], eps, normed)
        swiglu_all(crew, phase + 5, to_hidden, normed, hidden, sums)
        add_all(crew, phase + 6, fc2, hidden, x, sums)
