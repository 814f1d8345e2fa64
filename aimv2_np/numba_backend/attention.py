"""Attention as kernels.py has it: a panel of queries in the lanes, keys one vector after the other.

No N × N array: KEYS keys at a time, with the largest score so far and the sum of weights carried
along (FlashAttention, arXiv 2205.14135). The rules of kernels.py hold here too.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, name-defined, call-arg, var-annotated"
# ruff: noqa: F821
from __future__ import annotations

import numpy as np

from .kernels import at, exp2, meet, next_task
from .vectors import at_least, store

_ONE, _ZERO, _MINUS_INFINITY = np.float32(1), np.float32(0), np.float32(-np.inf)
_FINITE, _POSITIVE = np.float32(-3e38), np.float32(1e-30)


def attend(qk, values, head, first, length, position, causal, seen, scores, out):
    """ops.attention of one head for one panel of queries, KEYS keys at a time.

    keys ↓, queries →        scores (KEYS, PANEL) ── 2^(score − maximum) ──→ weights, in place
    values · weights         out (E, PANEL), rescaled by how much each maximum has grown

    `out` has a row more, for that. `first`, `length`: the slot where the sequence starts, its
    tokens; `position` of the first query in it; `seen` (length or none): False for keys that nobody
    sees. A step of the first product is PER_HEADS channels, of the second PER_HEADS keys.
    """
    peak, total = splat(_MINUS_INFINITY), splat(_ZERO)
    queries = at(qk[0], head, (first + position) // PANEL, 0)
    steps, rows = qk.shape[3], len(out) - 1
    grown = out[rows:]
    for start in range(0, length, KEYS):
        panels = (min(KEYS, length - start) + PANEL - 1) // PANEL
        for panel in range(panels):
            keys = at(qk[1], head, (first + start) // PANEL + panel, 0)
            following = keys + 4 * PANEL * steps
            for row in range(0, PANEL, HEAD_ROWS):
                place, ahead = at(scores, panel * PANEL + row), following + 4 * row * steps
                scores_tile(steps, keys + 4 * row, queries, place, 0, ahead)
        if causal or start + panels * PANEL > length or len(seen) > 0:
            hide(scores, start, panels * PANEL, length, position, causal, seen)
        peak, total, scale = soften(scores, panels * PANEL, peak, total)
        store(at(grown, 0), scale)
        for row in range(0, rows, HEAD_ROWS):
            some = at(values, head, (first + start) // KEYS, row)
            values_tile(
                panels * PANEL // PER_HEADS, some, at(scores, 0), at(out, row), start, at(grown, 0)
            )
    inverse = splat(_ONE) / at_least(total, _POSITIVE)  # where nothing is seen, 0 · inverse
    for row in range(rows):
        store(at(out, row), load(at(out, row)) * inverse)


def hide(scores, start, keys, length, position, causal, seen):
    """Put -inf where a query may not look; `position` is that of the first query."""
    for key in range(keys):
        if start + key >= length or (len(seen) > 0 and not seen[start + key]):
            store(at(scores, key), splat(_MINUS_INFINITY))
        elif causal and start + key > position:
            for lane in range(min(PANEL, start + key - position)):
                scores[key, lane] = _MINUS_INFINITY


def soften(scores, keys, peak, total):
    """A step of the running softmax: weights in place; the new maximum and sum of each query.

    Also what earlier sums must be multiplied with. A query that has seen no key yet has a maximum
    of -inf, from which nothing could be subtracted.
    """
    highest = peak
    for key in range(keys):
        highest = at_least(highest, load(at(scores, key)))
    top = at_least(highest, _FINITE)
    scale = exp2(peak - top)
    total = total * scale
    for key in range(0, keys, PER_HEADS):
        one = other = exp2(load(at(scores, key)) - top)
        total = total + one
        if PER_HEADS == 2:
            other = exp2(load(at(scores, key + 1)) - top)
            total = total + other
        put_head(scores, key, one, other)
    return highest, total, scale


def attend_all(
    crew, phase, width, qk, values, queries, sequences, causal, seen, context, scores, out
):  # fmt: skip
    """Self-attention of every head; a task is one panel of queries of one head."""
    count = len(queries)
    task = next_task(crew, phase, count)
    while task < count:
        sequence, head, position = queries[task]
        first, length, token = sequences[sequence]
        keys = seen[sequence] if len(seen) > 0 else seen.reshape(-1)
        attend(qk, values, head, first, length, position, causal, keys, scores, out)
        give_back(out, width, context, head, token + position, min(PANEL, length - position))
        task = next_task(crew, phase, count)
    meet(crew, phase)


def give_back(out, width, context, head, token, count):
    """One head's sums for some tokens, from the one on, to where tokens lie without gaps."""
    panel, lane = divmod(token, PANEL)
    if lane == 0 and count == PANEL and width % PER == 0:
        for row in range(0, width, PER):
            one, other = load(at(out, row)), load(at(out, row + PER - 1))
            put(context[panel], head * width + row, one, other)
    else:
        for row in range(width):
            for i in range(count):
                to, there = divmod(token + i, PANEL)
                place(context[to], head * width + row, there, out[row, i])
