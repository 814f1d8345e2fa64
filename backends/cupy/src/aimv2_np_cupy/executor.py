"""All blocks of a model: memory laid out once for a shape, launches recorded once.

A block is eight launches, a model hundreds. At small batches telling the device of each takes
longer than the device needs for it. So a shape that comes twice is recorded as a CUDA graph, and
from then on is one launch. A graph knows addresses: it has memory of its own, into which its input
is copied.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimv2_np.errors import warn

from .device import Device, prefix, stored
from .launches import Launches
from .weights import Block

__all__ = ["Executor", "Layers", "bucket", "shares"]

Array = Any
PLANS = 8  # shapes whose memory and graph are kept
MOST = 61440  # sequences at once: with those that fill a bucket, what a grid takes


@dataclass(frozen=True)
class Layers:
    """The blocks, and how they are run."""

    blocks: tuple[Block, ...]
    heads: int
    eps: float
    causal: bool


@dataclass(frozen=True)
class Packed:
    """Sequences, one after another: how long each is, and how many of its keys it sees."""

    lengths: tuple[int, ...]
    seen: tuple[int, ...]

    @property
    def rows(self) -> int:
        """The tokens of all."""
        return sum(self.lengths)

    def part(self, some: slice) -> Packed:
        """Some of the sequences."""
        return Packed(self.lengths[some], self.seen[some])


def bucket(batch: int) -> int:
    """For how many sequences of one length memory is laid out: at most an eighth too many."""
    step = 1 << max(batch.bit_length() - 4, 0)
    return -(-batch // step) * step


def shares(lengths: Sequence[int], rows: int) -> Iterator[tuple[slice, slice]]:
    """Sequences in their order, with at most `rows` tokens at a time, but at least one sequence.

    Not more than a grid takes. Each share as which sequences and which rows.
    """
    begin = first = last = 0
    for i, length in enumerate(lengths):
        if i > begin and (last + length - first > rows or i - begin == MOST):
            yield slice(begin, i), slice(first, last)
            begin, first = i, last
        last += length
    yield slice(begin, len(lengths)), slice(first, last)


class Plan:
    """The memory of one shape, in which the blocks run, and their launches once recorded."""

    def __init__(
        self, device: Device, layers: Layers, lengths: Sequence[int], dtype: Any, *, whole: bool
    ) -> None:
        """`whole`: sequences are of one length, and never padded."""
        self.device, self.layers, self.lengths = device, layers, lengths
        self.recorded: Callable[[], None] | None = None
        first, rows = layers.blocks[0], sum(lengths)
        width, hidden = len(first.norm_1), first.fc2.array.shape[1]

        def memory(columns: int, dtype: Any = dtype) -> Array:
            return device.xp.empty((rows, columns), dtype)

        self.stream = memory(width, np.float32)
        self.normed, self.qkv = memory(width), memory(3 * width)
        self.gate_up, self.hidden = memory(2 * hidden), memory(hidden)
        self.starts = device.asarray(prefix(lengths), np.int32)
        self.library: Callable[[], None] | None = None
        if whole:
            batch, heads = len(lengths), layers.heads
            self.library = device.library_attention(
                self.qkv, self.normed, batch, heads, layers.causal
            )
        self.seen, self.told = device.asarray(np.array(lengths), np.int32), tuple(lengths)

    def steps(self) -> None:
        """layers.transformer on `stream`, which is float32. `normed` also holds the context."""
        run, how = Launches(self.device), self.layers
        for p in how.blocks:
            run.rms_norm(self.stream, p.norm_1, how.eps, self.normed)
            run.product(self.normed, p.fused_qkv, self.qkv)
            self.attention(run)
            run.product(self.normed, p.proj, self.stream, add=True)
            run.rms_norm(self.stream, p.norm_2, how.eps, self.normed)
            run.product(self.normed, p.fused_gate_up, self.gate_up)
            run.swiglu(self.gate_up, self.hidden)
            run.product(self.hidden, p.fc2, self.stream, add=True)

    def attention(self, run: Launches) -> None:
        """A library's where there is one, else ours: from `qkv` to `normed`."""
        if self.library is not None:
            return self.library()
        run.attention(self.qkv, self.layers.heads, self.lengths, self.starts, self.seen,
                      self.layers.causal, self.normed)  # fmt: skip

    def run(self, x: Array, seen: tuple[int, ...], out: Array) -> None:
        """`x` (rows, D) through the blocks to `out`. Rows too many are zeros, and ignored."""
        rows, told = len(x), seen + tuple(self.lengths[len(seen) :])
        self.stream[:rows] = x
        self.stream[rows:] = 0
        if told != self.told:
            self.seen[:], self.told = self.device.asarray(np.array(told), np.int32), told
        (self.recorded or self.steps)()
        out[...] = self.stream[:rows]


class Executor:
    """Runs blocks on one device. Threads may share it: what they ask for is queued in turn."""

    def __init__(self, device: Device) -> None:
        self.device, self.lock = device, threading.Lock()
        self.plans: OrderedDict[Hashable, Plan] = OrderedDict()  # the latest used last
        self.rows: int | None = None  # tokens at once, since memory did not suffice for more

    def run(self, layers: Layers, x: Array, packed: Packed, out: Array) -> None:
        """Packed sequences `x` (ΣN, D) to `out`; each sees itself alone.

        Where memory runs out, it goes on with half as many tokens at once, and says so once.

        Raises:
            The device's `out_of_memory`: not even one sequence fits.
        """
        for some, rows in shares(packed.lengths, self.rows or packed.rows):
            self._share(layers, x[rows], packed.part(some), out[rows])

    def _share(self, layers: Layers, x: Array, packed: Packed, out: Array) -> None:
        try:
            with self.lock:
                return self._planned(layers, x, packed, out)
        except self.device.out_of_memory:
            others = self._release()
            if not others and len(packed.lengths) == 1:
                raise
            if not others:
                self._halve(packed)
        self.run(layers, x, packed, out)

    def _planned(self, layers: Layers, x: Array, packed: Packed, out: Array) -> None:
        lengths = packed.lengths
        if len(set(lengths)) > 1:  # such a pack hardly comes twice
            plan = Plan(self.device, layers, lengths, x.dtype, whole=False)
            return plan.run(x, packed.seen, out)
        batch, whole = bucket(len(lengths)), packed.seen == lengths
        key = (layers, batch, lengths[0], stored(x), whole, self.device.queue())
        kept = self.plans.pop(key, None)
        plan = kept or Plan(self.device, layers, lengths[:1] * batch, x.dtype, whole=whole)
        if kept and kept.recorded is None:
            plan.recorded = self.device.record(plan.steps)
        plan.run(x, packed.seen, out)
        self.plans[key] = plan
        while len(self.plans) > PLANS:
            self.plans.popitem(last=False)

    def _release(self) -> bool:
        """Give up the memory of all shapes; whether there was any."""
        with self.lock:
            held = bool(self.plans)
            self.plans.clear()
            self.device.release()
        return held

    def _halve(self, packed: Packed) -> None:
        with self.lock:
            first, half = self.rows is None, max(packed.rows // 2, 1)
            self.rows = min(self.rows or half, half)
        if first:
            warn(
                f"the GPU's memory is too small for {len(packed.lengths)} sequences at once: it "
                "goes on with fewer at a time"
            )
