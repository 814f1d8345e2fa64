"""What this machine can do at best: multiplications on all cores, and bytes from memory.

    python benchmarks/calibrate.py

The peak is that of our own micro-kernel on panels that stay in first-level cache, so a share of it
says what everything around the micro-kernel costs. Nothing is looked up in a table. Where a dtype's
instruction is missing, the peak is that of what stands in for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Barrier
from typing import Any

import numpy as np
from numba import njit

from aimv2_np.machine import cores
from aimv2_np.numba_backend.formats import DTYPES, format_of
from aimv2_np.numba_backend.intrinsics import make_microkernel
from aimv2_np.numba_backend.isa import choose

__all__ = ["bandwidth", "peak"]

CORES = cores()["usable"] or 1
PANELS = 16 << 10  # bytes of both panels: half of the smallest first-level cache in use
RUN = 0.05  # seconds of a trial: many times what starting the threads takes
TRIALS = 10
STREAM = 1 << 29  # bytes to read from memory: many times any cache


@lru_cache
def _loop(dtype: str) -> Callable[..., None]:
    """A loop around the micro-kernel that products in a dtype use here."""
    isa = choose()
    dot = format_of(isa, dtype).dot
    tile = make_microkernel(dot, isa.rows, isa.vectors, isa.lanes, a_row=4, a_step=4 * isa.rows)

    @njit(nogil=True)
    def loop(times: int, steps: int, a: Any, b: Any, c: Any) -> None:
        for _ in range(times):
            tile(steps, a.ctypes.data, b.ctypes.data, c.ctypes.data, 0, 0)

    return loop


def peak(dtype: str) -> float:
    """The best GFLOP/s of several trials on all cores (GOP/s, where the numbers are integers)."""
    isa, loop = choose(), _loop(dtype)
    steps = PANELS // (4 * (isa.rows + isa.panel)) // 4 * 4
    words = steps * isa.rows, steps * isa.panel, isa.rows * isa.panel
    panels = [[np.zeros(count, np.float32) for count in words] for _ in range(CORES)]
    loop(1, steps, *panels[0])  # compiles
    start = time.perf_counter()
    loop(1000, steps, *panels[0])
    times = max(1, int(1000 * RUN / (time.perf_counter() - start)))
    seconds = _fastest([partial(loop, times, steps, *each) for each in panels])
    products = CORES * times * steps * isa.rows * isa.panel * format_of(isa, dtype).channels
    return 2e-9 * products / seconds


@njit(nogil=True)
def _total(numbers: Any) -> int:
    """Of integers, whose sum may be taken in any order, so in vectors."""
    total = 0
    for i in range(numbers.size):
        total += numbers[i]
    return total


def bandwidth() -> float:
    """The best GB/s at which all cores together read memory, one address after the other."""
    parts = np.array_split(np.ones(STREAM // 8, np.int64), CORES)
    _total(parts[0][:8])  # compiles
    return 1e-9 * STREAM / _fastest([partial(_total, part) for part in parts])


def _fastest(tasks: list[Callable[[], Any]]) -> float:
    """Seconds from the first task's start to the last one's end: the shortest of the trials."""
    ready = Barrier(len(tasks))

    def timed(task: Callable[[], Any]) -> tuple[float, float]:
        ready.wait()
        start = time.perf_counter()
        task()
        return start, time.perf_counter()

    found = []
    with ThreadPoolExecutor(len(tasks)) as pool:
        for _ in range(TRIALS):
            starts, ends = zip(*pool.map(timed, tasks), strict=True)
            found.append(max(ends) - min(starts))
    return float(min(found))


if __name__ == "__main__":
    print(f"{CORES} cores, tiles for {choose().name}: reads {bandwidth():.1f} GB/s")
    for dtype in DTYPES:
        print(f"{dtype}: {peak(dtype):.0f} GFLOP/s")
