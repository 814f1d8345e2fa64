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

In bfloat16 a row holds pairs of channels, in int8 four (formats.py); `put`, `total` and their like
know which (words.py). Threads take tasks from shared counters and wait for each other after each
phase. The capital names are constants that `compiled.py` fills in; `product_tile` is a micro-kernel
of `intrinsics.py`, `load` and `splat` are made by `vectors.py`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, name-defined, call-arg, var-annotated"
# ruff: noqa: F821
from __future__ import annotations

import numpy as np

from .intrinsics import fetch_add, give_way, number_at, read_shared
from .vectors import at_least, at_most, root, store, times_power, zero_where_below

__all__ = ["PHASES"]

PHASES = 9  # of a block, in run_blocks
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


def silu(x):
    """ops.silu, to three units in the last place."""
    return x / (exp(_ZERO - x) + _ONE)


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


def multiply(task, blocks, weights, tokens, own):
    """A task: STACK blocks of ROWS rows of weights by GROUP panels of tokens.

    for a piece of K:                 DEPTH steps; the tokens' pieces stay in L2
        for a block of the stack:     the weights' piece stays in L1
            for a panel:              one tile

    Returns the first block and panel, and how many of each there are. A step is a word.
    """
    sums, scratch = own
    group, stack = divmod(task, blocks_of(blocks, STACK))
    block, panel = stack * STACK, group * GROUP
    stacked, panels = min(STACK, blocks - block), min(GROUP, len(tokens) - panel)
    steps = tokens.shape[1]
    for start in range(0, steps, DEPTH):
        some = min(DEPTH, steps - start)
        for b in range(stacked):
            piece = weights + ROWS * CHANNELS * NARROW * (steps * (block + b) + start)
            piece = ready(piece, ROWS * CHANNELS * some, scratch.ctypes.data)
            for p in range(panels):
                place = at(sums, b * GROUP + p, 0)
                product_tile(some, piece, at(tokens, panel + p, start), place, start)
    return block, panel, stacked, panels


def tasks_of(blocks, tokens):
    """How many tasks a product has."""
    return blocks_of(blocks, STACK) * blocks_of(len(tokens), GROUP)


def add_all(crew, phase, weights, scale, tokens, measures, x, own):
    """`x += W tokens` for every token: attention's way out, and fc2."""
    counters, threads = crew
    scales, offsets = scale
    blocks = blocks_of(x.shape[1], ROWS)
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, own)
        for b in range(stacked):
            channel = (block + b) * ROWS
            for p in range(panels):
                for row in range(min(ROWS, x.shape[1] - channel)):
                    done = at(own[0], b * GROUP + p, row)
                    product = total(done, channel + row, panel + p, scales, offsets, measures)
                    place = at(x, panel + p, channel + row)
                    store(place, load(place) + product)
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def swiglu(sums, row, output, panel, scale, measures):
    """`silu(gate) · up` of one channel."""
    scales, offsets = scale
    gate = total(at(sums, row), output, panel, scales, offsets, measures)
    up = total(at(sums, HALF + row), output + HALF, panel, scales, offsets, measures)
    return silu(gate) * up


def swiglu_all(crew, phase, weights, scale, tokens, measures, hidden, own):
    """`silu(fc1 x) · fc3 x`: a block is HALF rows of fc1, then the same of fc3."""
    counters, threads = crew
    channels = hidden.shape[1] * PER
    blocks = blocks_of(channels, HALF)
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, own)
        for b in range(stacked):
            channel, output = (block + b) * HALF, (block + b) * ROWS
            for p in range(panels):
                sums = own[0][b * GROUP + p]
                for row in range(0, min(HALF, channels - channel), PER):
                    one = other = swiglu(sums, row, output + row, panel + p, scale, measures)
                    if PER == 2:
                        above = output + row + 1
                        other = swiglu(sums, row + 1, above, panel + p, scale, measures)
                    put(hidden[panel + p], channel + row, one, other)
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def qkv_all(crew, phase, weights, scale, tokens, measures, qk, values, slots, channels, width, own):
    """Queries (scaled), keys and values, each token to where attention wants it."""
    counters, threads = crew
    scales, offsets = scale
    blocks = blocks_of(3 * channels, ROWS)
    query_scale = np.float32(1 / np.sqrt(width))
    task = next_task(counters, phase)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, own)
        for b in range(stacked):
            first = (block + b) * ROWS
            for p in range(panels):
                sums = own[0][b * GROUP + p]
                for row in range(min(ROWS, 3 * channels - first)):
                    place = at(sums, row)
                    product = total(place, first + row, panel + p, scales, offsets, measures)
                    if first + row < channels:
                        product = product * query_scale
                    store(place, product)
                send_block(sums, first, qk, values, slots, channels, width, panel + p)
        task = next_task(counters, phase)
    meet(counters, phase, threads)


def send_block(sums, first, qk, values, slots, channels, width, panel):
    """A block's rows for a panel to their tokens' slots in (panels, H, E, PANEL)."""
    start = panel * PANEL
    count = min(PANEL, len(slots) - start)
    slot = slots[start]
    together = slot % PANEL == 0 and slots[start + count - 1] == slot + count - 1
    for row in range(0, min(ROWS, 3 * channels - first), PER):
        which, channel = divmod(first + row, channels)
        head, inside = divmod(channel, width)
        if together and width % PER == 0:  # one panel to another
            one, other = load(at(sums, row)), load(at(sums, row + PER - 1))
            if which < 2:
                put(qk[which, slot // PANEL, head], inside, one, other)
            else:
                put_values(values[slot // PANEL, head], inside, one, other)
        else:
            for i in range(row, min(row + PER, 3 * channels - first)):
                scatter(
                    sums[i], first + i, qk, values, slots[start : start + count], channels, width
                )


def scatter(numbers, output, qk, values, slots, channels, width):
    """One channel of some tokens to their slots, one by one."""
    which, channel = divmod(output, channels)
    head, inside = divmod(channel, width)
    for lane in range(len(slots)):
        to, there = divmod(slots[lane], PANEL)
        if which < 2:
            place(qk[which, to, head], inside, there, numbers[lane])
        else:
            place_values(values[to, head], inside, there, numbers[lane])


def normalise_all(crew, phase, x, weight, eps, wide, words, measures):
    """ops.rms_norm of every token: squares are summed in runs, as float32 wants it.

    `x` may have channels beyond those of `weight`, which are 0 and stay so.
    """
    counters, threads = crew
    channels = len(weight)
    panel = next_task(counters, phase)
    while panel < len(x):
        squares = splat(_ZERO)
        for start in range(0, channels, RUN):
            run = splat(_ZERO)
            for channel in range(start, min(start + RUN, channels)):
                number = load(at(x, panel, channel))
                run = run + number * number
            squares = squares + run
        scale = splat(_ONE) / root(squares / np.float32(channels) + eps)
        for channel in range(0, channels, PER):
            one = other = load(at(x, panel, channel)) * scale * weight[channel]
            if PER == 2:
                odd = min(channel + 1, channels - 1)  # of an odd number, x is 0 behind the last
                other = load(at(x, panel, channel + 1)) * scale * weight[odd]
            put(wide[panel], channel, one, other)
        narrow(wide, panel, words, measures)
        panel = next_task(counters, phase)
    meet(counters, phase, threads)


def narrow_all(crew, phase, wide, words, measures):
    """Every panel as a product of integers reads it; nothing to do for other formats."""
    if SCALED:
        counters, threads = crew
        panel = next_task(counters, phase)
        while panel < len(wide):
            narrow(wide, panel, words, measures)
            panel = next_task(counters, phase)
        meet(counters, phase, threads)


def linear_all(thread, threads, counters, weights, bias, tokens, out, all_sums, all_scratch):
    """ops.linear in float32: tokens (panels, I, PANEL) to out (panels, O, PANEL)."""
    own = all_sums[thread], all_scratch[thread]
    blocks = blocks_of(len(bias), ROWS)
    task = next_task(counters, 0)
    while task < tasks_of(blocks, tokens):
        block, panel, stacked, panels = multiply(task, blocks, weights, tokens, own)
        for b in range(stacked):
            channel = (block + b) * ROWS
            for p in range(panels):
                for row in range(min(ROWS, len(bias) - channel)):
                    product = load(at(own[0], b * GROUP + p, row))
                    store(at(out, panel + p, channel + row), product + bias[channel + row])
        task = next_task(counters, 0)


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


def pack(thread, threads, counters, matrix, width, packed, sums, lanes, first, lane, inverses):
    """Rows of weights (O, width) as packed (blocks, words, ROWS, CHANNELS), in the stored format.

    Output `row` is number `first + row` of those that fill `lanes` lanes of a block, from lane
    `lane` on.
    `matrix` is an address: to Numba, a mapped file is an array of another type than others.
    """
    begin = next_task(counters, 0) * lanes
    while begin < len(inverses):
        for row in range(begin, min(begin + lanes, len(inverses))):
            block, inside = divmod(first + row, lanes)
            total = 0
            for k in range(width):
                number = encode(number_at(matrix + 4 * (row * width + k)), inverses[row])
                packed[block, k // CHANNELS, lane + inside, k % CHANNELS] = number
                if SCALED:
                    total += np.int64(number)
            if SCALED:
                sums[block, lane + inside] = total
        begin = next_task(counters, 0) * lanes


def convert(thread, threads, counters, numbers, stored):
    """float32 numbers, from an address on, in the format that weights are stored in; no scales."""
    begin = next_task(counters, 0) * SOME
    while begin < len(stored):
        for i in range(begin, min(begin + SOME, len(stored))):
            stored[i] = encode(number_at(numbers + 4 * i), _ONE)
        begin = next_task(counters, 0) * SOME


# ---------------------------------------------------------------------------- the whole


def run_blocks(
    thread, threads, counters, x, normed, qk, values, context, hidden, words, hidden_narrowed,
    measures, all_sums, all_scratch, all_scores, all_out,
    slots, tasks, sequences, norms, weights, scales, offsets, width, eps, causal, seen,
):  # fmt: skip
    """layers.transformer: all blocks, x (panels, D, PANEL) changed in place, by all threads.

    All threads meet after each of a block's phases. What begins with all_ holds every thread's own.
    `words` and `hidden_narrowed` are what products of integers read; others read what was written.
    """
    crew, own = (counters, threads), (all_sums[thread], all_scratch[thread])
    scores, out = all_scores[thread], all_out[thread]
    channels = norms.shape[2]
    normed_words = words if SCALED else normed
    context_words = words if SCALED else context
    hidden_words = hidden_narrowed if SCALED else hidden
    for i in range(len(weights)):
        phase = PHASES * i
        to_qkv, proj, to_hidden, fc2 = weights[i]
        qkv_scale, proj_scale, hidden_scale, fc2_scale = (
            (scales[i, 0], offsets[i, 0]), (scales[i, 1], offsets[i, 1]),
            (scales[i, 2], offsets[i, 2]), (scales[i, 3], offsets[i, 3]),
        )  # fmt: skip
        normalise_all(crew, phase, x, norms[i, 0], eps, normed, normed_words, measures)
        qkv_all(
            crew, phase + 1, to_qkv, qkv_scale, normed_words, measures,
            qk, values, slots, channels, width, own,
        )  # fmt: skip
        attend_all(
            crew, phase + 2, width, qk, values, tasks, sequences, causal, seen, context, scores, out
        )
        narrow_all(crew, phase + 3, context, context_words, measures)
        add_all(crew, phase + 4, proj, proj_scale, context_words, measures, x, own)
        normalise_all(crew, phase + 5, x, norms[i, 1], eps, normed, normed_words, measures)
        swiglu_all(crew, phase + 6, to_hidden, hidden_scale, normed_words, measures, hidden, own)
        narrow_all(crew, phase + 7, hidden, hidden_words, measures)
        add_all(crew, phase + 8, fc2, fc2_scale, hidden_words, measures, x, own)
