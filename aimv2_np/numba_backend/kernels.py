"""The kernels, as plain Python that Numba compiles once per instruction set (`compiled.py`).

One idea carries all of them: **tokens lie in the lanes of a vector**. T tokens are cut into panels
of `PANEL`, and a panel holds its channels one after the other:

    activations (panels, D, PANEL):   channel 0   ████████████████   one number per token
                                      channel 1   ████████████████
                                      …

So a product broadcasts weights and streams tokens, and what it stores is laid out as the next
product reads it: nothing is ever packed again. Sums over channels (norms) and over keys (softmax)
add whole vectors; there is no horizontal step anywhere. Attention alone needs every sequence to
start at a chunk of KEYS keys: `slots` says where each token goes.

In bfloat16 a row holds pairs of channels, in int8 four (formats.py); `put`, `total` and their like
know which (words.py). Threads take tasks from shared counters and wait for each other after each
phase. The capital names are constants that `compiled.py` fills in; `product_tile` is a micro-kernel
of `intrinsics.py`, `load` and `splat` are made by `vectors.py`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, name-defined, call-arg, var-annotated"
# ruff: noqa: F821
from __future__ import annotations

import numpy as np

from .intrinsics import fetch_add, give_way, read_shared
from .vectors import at_least, at_most, root, store

__all__ = ["FINISHES", "PHASES"]

FINISHES = ("add", "add_bias", "gate", "send")  # what `multiply` may end in
PHASES = 9  # of a block, in run_blocks
_ONE, _ZERO = np.float32(1), np.float32(0)
# e^x is 2^n e^r with |r| ≤ ln 2 / 2. ln 2 in two parts, the first exact in products with n (Cody
# and Waite); adding 1.5 · 2^23 rounds to an integer; the polynomial is e^r's best of degree 6.
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(c) for c in (1.44269504, 0.693359375, -2.12194440e-4))
_MAGIC, _HIGHEST, _LN2 = (np.float32(c) for c in (12582912.0, 89.0, 0.69314718))
_C2, _C3, _C4, _C5, _C6 = (
    np.float32(c) for c in (0.5000000, 0.16666655, 0.041666884, 0.008369149, 0.0013873)
)


def exp(x):
    """e^x of a vector, to two units in the last place; about 0 below -86.9, NaN stays NaN."""
    y = at_least(at_most(x, _HIGHEST), np.float32(LOWEST * _LN2))
    shifted = y * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    e = near_zero((y - n * _LN2_HIGH) - n * _LN2_LOW)
    return times_power(e, n, shifted)


def exp2(x):
    """2^x of a vector, x at most 127, likewise: shorter, for softmax."""
    y = at_least(x, np.float32(LOWEST))
    shifted = y + _MAGIC
    n = shifted - _MAGIC
    return times_power(near_zero((y - n) * _LN2), n, shifted)


def near_zero(r):
    """e^r, by a polynomial."""
    return ((((r * _C6 + _C5) * r + _C4) * r + _C3) * r + _C2) * r * r + r + _ONE


def silu(x):
    """ops.silu, to three units in the last place."""
    return x / (exp(_ZERO - x) + _ONE)


def at(array, *row):
    """The address of a row of tokens, array[row], in a contiguous array."""
    return array[row].ctypes.data


# ---------------------------------------------------------------------------- threads


def next_task(crew, phase, count):
    """The number of a task, of `count`, that no other thread has taken; `count` if none is left.

    A thread first takes tasks from its own part of them, then from the others'. Those who number
    tasks by tokens first keep most tokens in the caches of one core, from phase to phase.
    """
    counters, thread, threads = crew
    for i in range(threads):
        whose = (thread + i) % threads
        task = whose * count // threads + fetch_add(at(counters, phase, whose), 1)
        if task < (whose + 1) * count // threads:
            return task
    return count


def meet(crew, phase):
    """Wait until every thread has finished the phase; after a while, without holding a core."""
    counters, _, threads = crew
    here = at(counters, phase, threads)
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


def multiply(crew, phase, weights, outputs, tokens, own, state):
    """A product of weights, `outputs` rows in blocks of ROWS, and tokens; by all threads.

    A task is STACK blocks by a group of panels. A step of K is a word. `finish` is one of the
    functions below: `multiply_add` is this one with `add` (compiled.py).

    for a piece of K:                 DEPTH steps; the tokens' pieces stay in L2
        for a block of the stack:
            for a panel:              one tile, and `finish` after its last piece
    """
    sums, scratch = own
    blocks, (panels, steps, _) = blocks_of(outputs, ROWS), tokens.shape
    size = group_size(panels, crew[2])
    stacks = blocks_of(blocks, STACK)
    count = stacks * blocks_of(panels, size)
    task = next_task(crew, phase, count)
    while task < count:
        group, stack = divmod(task, stacks)
        block, panel = stack * STACK, group * size
        stacked = min(STACK, blocks - block)
        for start in range(0, steps, DEPTH):
            some = min(DEPTH, steps - start)
            for b in range(stacked):
                piece = weights + BYTES * (steps * (block + b) + start)
                share = BYTES * some // SHARES
                following = piece + BYTES * steps  # the next block's
                if b + 1 == stacked:  # the next piece, or the next stack
                    place = start + some if start + some < steps else steps * stacked
                    following = weights + BYTES * (steps * block + place)
                piece = ready(piece, ROWS * CHANNELS * some, scratch.ctypes.data)
                for p in range(min(size, panels - panel)):
                    tile = sums[b * GROUP + p]
                    from_here, ahead = at(tokens, panel + p, start), following + p * share
                    product_tile(some, piece, from_here, at(tile, 0), start, ahead)
                if start + some == steps:
                    for p in range(min(size, panels - panel)):
                        finish(sums[b * GROUP + p], block + b, panel + p, state)
        task = next_task(crew, phase, count)
    meet(crew, phase)


def group_size(panels, threads):
    """Panels in a group: as equal as can be, as many groups as threads or a multiple, if possible.

    At most GROUP, and not below LEAST: each group reads all weights.
    """
    groups = threads * blocks_of(panels, GROUP * threads)
    return max(LEAST, blocks_of(panels, groups))


def add(tile, block, panel, state):
    """`x += W tokens`: attention's way out, and fc2."""
    x, scale, measures = state
    first = block * ROWS
    for row in range(min(ROWS, x.shape[1] - first)):
        place = at(x, panel, first + row)
        product = total(at(tile, row), first + row, panel, scale, measures)
        store(place, load(place) + product)


def add_bias(tile, block, panel, state):
    """`W tokens + b`, in float32: ops.linear."""
    out, bias = state
    first = block * ROWS
    for row in range(min(ROWS, len(bias) - first)):
        store(at(out, panel, first + row), load(at(tile, row)) + bias[first + row])


def gate(tile, block, panel, state):
    """`silu(fc1 x) · fc3 x`: a block is HALF rows of fc1, then the same of fc3."""
    hidden, scale, measures = state
    channel, output = block * HALF, block * ROWS
    for row in range(0, min(HALF, hidden.shape[1] * PER - channel), PER):
        one = other = swiglu(tile, row, output + row, panel, scale, measures)
        if PER == 2:
            other = swiglu(tile, row + 1, output + row + 1, panel, scale, measures)
        put(hidden[panel], channel + row, one, other)


def swiglu(tile, row, output, panel, scale, measures):
    """`silu(gate) · up` of one channel."""
    opened = silu(total(at(tile, row), output, panel, scale, measures))
    return opened * total(at(tile, HALF + row), output + HALF, panel, scale, measures)


def send(tile, block, panel, state):
    """Queries (scaled, for exp2), keys and values, each token to where attention wants it."""
    qk, values, slots, channels, width, query_scale, scale, measures = state
    there = slots[panel * PANEL : (panel + 1) * PANEL]
    slot, first, row = there[0], block * ROWS, 0
    together = slot % PANEL == 0 and there[-1] == slot + len(there) - 1  # one panel to another
    rows = min(ROWS, 3 * channels - first)
    for i in range(rows):
        product = total(at(tile, i), first + i, panel, scale, measures)
        store(at(tile, i), product * query_scale if first + i < channels else product)
    while row < rows:
        which = (first + row >= channels) + (first + row >= 2 * channels)
        channel = first + row - which * channels
        head = channel // width
        inside = channel - head * width
        end = min(rows, row + width - inside)  # as far as this head goes
        if not together or width % PER_HEADS != 0:
            scatter(tile[row:end], qk, values, which, head, inside, there)
        elif which < 2:
            target = qk[which, head, slot // PANEL]
            for i in range(row, end, PER_HEADS):
                put_head(target, inside + i - row, *side_by_side(tile, i))
        else:
            target = values[head, slot // KEYS]
            for i in range(row, end, PER_HEADS):
                put_values(target, inside + i - row, slot % KEYS, *side_by_side(tile, i))
        row = end


def side_by_side(tile, row):
    """What makes a word of a head: one row twice, or two."""
    return load(at(tile, row)), load(at(tile, row + PER_HEADS - 1))


def scatter(rows, qk, values, which, head, inside, slots):
    """Some channels of a head of some tokens to their slots, one by one."""
    for row in range(len(rows)):
        for lane in range(len(slots)):
            if which < 2:
                to, there = divmod(slots[lane], PANEL)
                place_head(qk[which, head, to], inside + row, there, rows[row, lane])
            else:
                to, there = divmod(slots[lane], KEYS)
                place_values(values[head, to], inside + row, there, rows[row, lane])


def normalise_all(crew, phase, x, weight, eps, wide, words, measures):
    """ops.rms_norm of every token: squares are summed in runs, as float32 wants it.

    `x` may have channels beyond those of `weight`, which are 0 and stay so.
    """
    channels = len(weight)
    panel = next_task(crew, phase, len(x))
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
        panel = next_task(crew, phase, len(x))
    meet(crew, phase)


def narrow_all(crew, phase, wide, words, measures):
    """Every panel as a product of integers reads it; nothing to do for other formats."""
    if SCALED:
        panel = next_task(crew, phase, len(wide))
        while panel < len(wide):
            narrow(wide, panel, words, measures)
            panel = next_task(crew, phase, len(wide))
        meet(crew, phase)


def linear_all(thread, threads, counters, weights, bias, tokens, out, all_sums, all_scratch):
    """ops.linear in float32: tokens (panels, I, PANEL) to out (panels, O, PANEL)."""
    own = all_sums[thread], all_scratch[thread]
    crew = counters, thread, threads
    multiply_add_bias(crew, 0, weights, len(bias), tokens, own, (out, bias))


# ---------------------------------------------------------------------------- layouts


def copy(source, target):
    """Tokens (T, D), of which one side is transposed: cache line by cache line."""
    tokens, channels = target.shape
    for start in range(0, channels, SQUARE):
        for token in range(tokens):
            for channel in range(start, min(start + SQUARE, channels)):
                target[token, channel] = source[token, channel]


def to_lanes(thread, threads, counters, rows, panels):
    """(T, D) to (panels, D, PANEL); lanes without a token are left as they are."""
    crew = counters, thread, threads
    panel = next_task(crew, 0, len(panels))
    while panel < len(panels):
        some = rows[panel * PANEL : (panel + 1) * PANEL]
        copy(some, panels[panel].T[: len(some)])
        panel = next_task(crew, 0, len(panels))


def from_lanes(thread, threads, counters, panels, rows):
    """The way back."""
    crew = counters, thread, threads
    panel = next_task(crew, 0, len(panels))
    while panel < len(panels):
        some = rows[panel * PANEL : (panel + 1) * PANEL]
        copy(panels[panel].T[: len(some)], some)
        panel = next_task(crew, 0, len(panels))


def pack(
    thread, threads, counters, matrix, width, packed, sums, lanes, first, lane, inverses, all_rows
):  # fmt: skip
    """Rows of weights (O, width) as packed (blocks, words, ROWS), in the stored format.

    Output `row` is number `first + row` of those that fill `lanes` lanes of a block, from lane
    `lane` on. `all_rows` holds a row of words for each thread.
    `matrix` is an address: to Numba, a mapped file is an array of another type than others.
    """
    crew, count = (counters, thread, threads), blocks_of(len(inverses), lanes)
    words = all_rows[thread]
    begin = next_task(crew, 0, count) * lanes
    while begin < len(inverses):
        for row in range(begin, min(begin + lanes, len(inverses))):
            block, inside = divmod(first + row, lanes)
            stored = words.ctypes.data
            weight_sum = encode(matrix + 4 * row * width, stored, width, inverses[row])
            for k in range(len(words)):
                packed[block, k, lane + inside] = words[k]
            if SCALED:
                sums[block, lane + inside] = weight_sum
        begin = next_task(crew, 0, count) * lanes


def convert(thread, threads, counters, numbers, stored):
    """float32 numbers, from an address on, in the format that weights are stored in; no scales."""
    crew, count = (counters, thread, threads), blocks_of(len(stored), SOME)
    begin = next_task(crew, 0, count) * SOME
    while begin < len(stored):
        some = min(SOME, len(stored) - begin)
        encode(numbers + 4 * begin, stored[begin:].ctypes.data, some, _ONE)
        begin = next_task(crew, 0, count) * SOME


# ---------------------------------------------------------------------------- the whole


def run_blocks(
    thread, threads, counters, x, normed, qk, values, context, hidden, words, hidden_narrowed,
    measures, all_sums, all_scratch, all_scores, all_out,
    slots, queries, sequences, norms, weights, scales, offsets, width, eps, causal, seen,
):  # fmt: skip
    """layers.transformer: all blocks, x (panels, D, PANEL) changed in place, by all threads.

    All threads meet after each of a block's phases. What begins with all_ holds every thread's own.
    `words` and `hidden_narrowed` are what products of integers read; others read what was written.
    """
    crew, own = (counters, thread, threads), (all_sums[thread], all_scratch[thread])
    scores, out = all_scores[thread], all_out[thread]
    channels, query_scale = norms.shape[2], np.float32(np.log2(np.e) / np.sqrt(width))
    normed_words = words if SCALED else normed
    context_words = words if SCALED else context
    hidden_words = hidden_narrowed if SCALED else hidden
    both = blocks_of(hidden.shape[1] * PER, HALF) * ROWS  # rows of fc1 and fc3, in whole blocks
    for i in range(len(weights)):
        phase = PHASES * i
        to_qkv, proj, to_hidden, fc2 = weights[i]
        qkv_scale, proj_scale, hidden_scale, fc2_scale = (
            (scales[i, 0], offsets[i, 0]), (scales[i, 1], offsets[i, 1]),
            (scales[i, 2], offsets[i, 2]), (scales[i, 3], offsets[i, 3]),
        )  # fmt: skip
        normalise_all(crew, phase, x, norms[i, 0], eps, normed, normed_words, measures)
        to_send = qk, values, slots, channels, width, query_scale, qkv_scale, measures
        multiply_send(crew, phase + 1, to_qkv, 3 * channels, normed_words, own, to_send)
        attend_all(
            crew, phase + 2, width, qk, values, queries, sequences, causal, seen,
            context, scores, out,
        )  # fmt: skip
        narrow_all(crew, phase + 3, context, context_words, measures)
        to_add = x, proj_scale, measures
        multiply_add(crew, phase + 4, proj, x.shape[1], context_words, own, to_add)
        normalise_all(crew, phase + 5, x, norms[i, 1], eps, normed, normed_words, measures)
        to_gate = hidden, hidden_scale, measures
        multiply_gate(crew, phase + 6, to_hidden, both, normed_words, own, to_gate)
        narrow_all(crew, phase + 7, hidden, hidden_words, measures)
        to_add = x, fc2_scale, measures
        multiply_add(crew, phase + 8, fc2, x.shape[1], hidden_words, own, to_add)
