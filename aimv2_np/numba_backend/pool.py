"""Threads that run one kernel together.

A kernel is called with its thread's number and how many there are; it shares out the work itself
(kernels.next_task, kernels.meet). Numba's own threading layers are not used: one of them breaks
when two threads call at once, another when a process forks.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..machine import cores

__all__ = ["THREADS", "run", "share", "thread_count"]

Array = NDArray[np.int64]
_MOST = 1024  # threads
_DONE = 1 << 40  # more tasks taken and more threads arrived than there ever are
THREADS = "AIMV2_NP_THREADS"  # environment variable: how many, instead of all usable cores


class _Pool:
    """The workers beside the caller; made when first needed, forgotten in a forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # kernels wait for each other: never two sets of them at once
        self.workers: ThreadPoolExecutor | None = None
        self.size = 0

    def get(self, size: int) -> ThreadPoolExecutor:
        if self.workers is None or self.size < size:
            if self.workers is not None:
                self.workers.shutdown(wait=False)
            self.workers = ThreadPoolExecutor(size, thread_name_prefix="aimv2_np")
            self.size = size
        return self.workers


_pool = _Pool()


def _forget() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def thread_count() -> int:
    """How many threads kernels use: AIMV2_NP_THREADS, else the usable cores.

    Raises:
        BackendUnavailable: the environment asks for something else than 1 to 1024.
    """
    wanted = os.environ.get(THREADS, "")
    if not wanted:
        return _usable_cores()
    if not re.fullmatch(r"\d{1,4}", wanted) or not 1 <= int(wanted) <= _MOST:
        raise BackendUnavailable(f"{THREADS}={wanted[:40]}: expected a number from 1 to {_MOST}")
    return int(wanted)


@lru_cache  # asked at each run, and it reads files
def _usable_cores() -> int:
    """Those that this process may use, or as many as a container grants it."""
    found = cores()
    return max(1, min(found["usable"] or 1, int(found["granted"] or found["usable"] or 1)))


def share(kernel: Callable[..., Any], threads: int, *arguments: Any, phases: int = 1) -> None:
    """`run` with fresh counters: of a phase, one for each thread's tasks and one to meet at."""
    run(kernel, threads, np.zeros((phases, threads + 1, 8), np.int64), *arguments)


def run(kernel: Callable[..., Any], threads: int, counters: Array, *arguments: Any) -> None:
    """`kernel(thread, threads, counters, *arguments)` in so many threads at once, this one too.

    Threads wait for each other inside the kernel. So it is compiled, or read from the cache, before
    any other joins in: by a call that finds nothing to do. And if this one fails, interrupted
    perhaps, the counters are set to where nobody has anything to do or to wait for.
    """
    with _pool.lock:
        if threads == 1:
            kernel(0, 1, counters, *arguments)
            return
        if not getattr(kernel, "signatures", True):
            kernel(0, 1, np.full_like(counters, _DONE), *arguments)
        others: list[Any] = []
        try:
            workers = _pool.get(threads - 1)
            for i in range(1, threads):
                others.append(workers.submit(kernel, i, threads, counters, *arguments))
            kernel(0, threads, counters, *arguments)
        except BaseException:
            counters[:] = _DONE
            raise
        finally:
            for other in others:
                other.result()
