"""Several devices, each with the blocks as its own: a batch is divided among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any

from .device import Device
from .executor import Executor, Layers, Packed

__all__ = ["Replicas", "divided"]

Array = Any


def divided(lengths: Sequence[int], among: int) -> Iterator[tuple[int, slice, slice]]:
    """Sequences in their order as even shares of their tokens: (whose, which, their rows)."""
    ends = list(accumulate(lengths))

    def owner(i: int) -> int:
        begin = ends[i] - lengths[i]
        return min(among * begin // max(ends[-1], 1), among - 1)

    for k, group in groupby(range(len(lengths)), owner):
        some = list(group)
        first, last = some[0], some[-1]
        yield k, slice(first, last + 1), slice(ends[first] - lengths[first], ends[last])


class Replicas:
    """Executors of several devices with the interface of one. Arrays are the first device's."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self.executors = executors
        self.copies: dict[Layers, list[Layers]] = {}

    def run(self, layers: Layers, x: Array, packed: Packed, out: Array) -> None:
        """As Executor.run. All is sent before any device computes, and fetched after all began."""
        own, first = self._copies(layers), self.executors[0].device
        shares = [
            (k, self.executors[k].device.adopt(x[rows], first), some, rows)
            for k, some, rows in divided(packed.lengths, len(self.executors))
        ]
        results = []
        for k, given, some, rows in shares:
            executor = self.executors[k]
            with executor.device.current():
                result = executor.device.xp.empty_like(given)
                executor.run(own[k], given, packed.part(some), result)
            results.append((executor.device, result, rows))
        for device, result, rows in results:
            out[rows] = first.adopt(result, device)

    def _copies(self, layers: Layers) -> list[Layers]:
        """The blocks on each device, copied when they first run."""
        if layers not in self.copies:
            first = self.executors[0].device

            def on(device: Device) -> Layers:
                moved = (p.moved(lambda array: device.adopt(array, first)) for p in layers.blocks)
                return replace(layers, blocks=tuple(moved))

            self.copies[layers] = [on(executor.device) for executor in self.executors]
        return self.copies[layers]
