"""How tokens and weights are written and read in each number format (formats.py).

A function whose name ends in `_1`, `_2` or `_widened` … is one of several forms of the same step;
`compiled.py` gives the kernels the one that fits, under the name in front of the ending.

    put            PER channels of a panel
    put_head       PER_HEADS channels of queries or keys; put_values, of values
    place          one channel of one token; place_head and place_values likewise: slow, for
                   sequences that start inside a panel
    ready          a piece of weights, as the micro-kernel reads it
    total          a product's sums as numbers
    narrow         a panel's channels as a product of integers reads them
    encode         numbers as weights are stored, by put_weights

Rows of words are float32 arrays, whatever their bits mean. The rules of kernels.py hold here too.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, name-defined, call-arg, var-annotated"
# ruff: noqa: F821
from __future__ import annotations

import numpy as np

from .kernels import at
from .narrow_vectors import four_bytes, from_integers, store_bfloat, store_bytes, two_halves
from .vectors import at_least, at_most, store

_ZERO, _STEPS, _TINY = np.float32(0), np.float32(255), np.float32(1e-30)

# ---------------------------------------------------------------------------- tokens, written


def put_1(rows, channel, one, other):
    """A channel of a panel; `other` is the same one."""
    store(at(rows, channel), one)


def put_2(rows, channel, even, odd):
    """Two channels as one row of pairs of bfloat16."""
    store(at(rows, channel // 2), pair(even, odd))


def put_values_1(rows, channel, token, one, other):
    """A channel of a panel of tokens, from the row's `token` on."""
    store(at(rows, channel) + 4 * token, one)


def put_values_2(rows, channel, token, even, odd):
    """Two channels as a row of bfloat16 each: pairs of tokens, which are the steps over keys."""
    store_bfloats(at(rows, channel) + 2 * token, even)
    store_bfloats(at(rows, channel + 1) + 2 * token, odd)


def place_1(rows, channel, lane, number):
    """One number."""
    rows[channel, lane] = number


def place_2(rows, channel, lane, number):
    """One bfloat16, in its half of a word."""
    store_bfloat(at(rows, channel // 2) + 4 * lane + 2 * (channel % 2), number)


def place_values_2(rows, channel, lane, number):
    """One bfloat16 in a row of them."""
    store_bfloat(at(rows, channel) + 2 * lane, number)


# ---------------------------------------------------------------------------- weights, read


def ready_as_they_are(piece, count, scratch):
    """A piece of weights that the micro-kernel reads from where it lies."""
    return piece


def ready_widened(piece, count, scratch):
    """`count` weights from narrow ones: bfloat16 to float32, int8 to int16."""
    whole = count // PANEL * PANEL
    for i in range(0, whole, PANEL):
        widen(piece + NARROW * i, scratch + 2 * NARROW * i)
    for i in range(whole, count):
        widen_one(piece + NARROW * i, scratch + 2 * NARROW * i)
    return scratch


# ---------------------------------------------------------------------------- integers


def total_of_numbers(place, output, panel, scale, measures):
    """Sums are what they are."""
    return load(place)


def total_of_integers(place, output, panel, scale, measures):
    """Σ w t of weights w = scale · integer, and tokens t = step · integer + least."""
    scales, offsets = scale
    step, least = load(at(measures, panel, 0)), load(at(measures, panel, 1))
    return from_integers(load(place)) * (step * scales[output]) + least * offsets[output]


def narrow_nothing(wide, panel, words, measures):
    """Products read tokens as they were written."""


def _measure(wide, panel, measures):
    """Each token's least channel, and 255 over how far its largest is from that.

    `measures` gets the step between two integers, and the least channel: NaN, if a channel is not a
    finite number.
    """
    least = most = load(at(wide, panel, 0))
    odd = splat(_ZERO)
    for channel in range(wide.shape[1]):
        number = load(at(wide, panel, channel))
        least, most = at_most(least, number), at_least(most, number)
        odd = odd + number * _ZERO
    span = most - least + odd
    store(at(measures, panel, 0), span / _STEPS)
    store(at(measures, panel, 1), least + odd)
    return least, splat(_STEPS) / at_least(span, _TINY)


def narrow_to_bytes(wide, panel, words, measures):
    """A panel's channels in 255 steps of each token's own, four to a word."""
    least, scale = _measure(wide, panel, measures)
    for word in range(words.shape[1]):
        a = (load(at(wide, panel, 4 * word)) - least) * scale
        b = (load(at(wide, panel, 4 * word + 1)) - least) * scale
        c = (load(at(wide, panel, 4 * word + 2)) - least) * scale
        d = (load(at(wide, panel, 4 * word + 3)) - least) * scale
        store(at(words, panel, word), four_bytes(a, b, c, d))


def narrow_to_halves(wide, panel, words, measures):
    """The same, two to a word."""
    least, scale = _measure(wide, panel, measures)
    for word in range(words.shape[1]):
        a = (load(at(wide, panel, 2 * word)) - least) * scale
        b = (load(at(wide, panel, 2 * word + 1)) - least) * scale
        store(at(words, panel, word), two_halves(a, b))


# ---------------------------------------------------------------------------- weights, written


def encode(numbers, stored, count, scale):
    """Numbers times a scale, as weights are stored; returns their sum, where they are integers."""
    whole, weight_sum = count // PANEL * PANEL, 0
    for i in range(0, whole, PANEL):
        weight_sum += put_weights(stored + NARROW * i, load(numbers + 4 * i) * scale)
    for i in range(whole, count):
        weight_sum += put_weights(stored + NARROW * i, load_one(numbers + 4 * i) * scale)
    return weight_sum


def put_weights_float32(place, vector):
    """As they are."""
    store(place, vector)
    return 0


def put_weights_bfloat16(place, vector):
    """The upper half of each float32, rounded to the nearest, ties to even."""
    store_bfloats(place, vector)
    return 0


def put_weights_int8(place, vector):
    """Rounded to integers."""
    return store_bytes(place, vector)
