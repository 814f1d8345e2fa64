"""Uploads in a stream of their own: an image goes up while those before it are computed.

There are two buffers of pinned memory, each with one on the device, and they take turns. Small
arrays go CuPy's way.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Upload"]

Array = Any
SMALLEST = 64 << 10  # bytes


@dataclass
class Slot:
    """A pinned buffer and its counterpart on the device, and the events that make them free."""

    pinned: Any
    there: Array
    sent: Any = None  # the pinned one was read
    taken: Any = None  # the other one was


class Upload:
    """From NumPy's arrays to arrays on the device that is current when it is made."""

    def __init__(self, xp: Any) -> None:
        self.xp, self.lock = xp, threading.Lock()
        self.stream = xp.cuda.Stream(non_blocking=True)
        self.slots = deque([self._slot(SMALLEST), self._slot(SMALLEST)])

    def __call__(self, host: Any) -> Array:
        """For what is queued from now on in the current stream; `host` may be changed at once."""
        if host.nbytes < SMALLEST:
            return self.xp.asarray(host)
        with self.lock:
            slot = self._free(host.nbytes)
            np.frombuffer(slot.pinned, host.dtype, host.size).reshape(host.shape)[...] = host
            slot.there.data.copy_from_host_async(slot.pinned.ptr, host.nbytes, self.stream)
            slot.sent = self.stream.record()
            current = self.xp.cuda.get_current_stream()
            current.wait_event(slot.sent)
            array = slot.there[: host.nbytes].view(host.dtype).reshape(host.shape).copy()
            slot.taken = current.record()
            return array

    def _free(self, size: int) -> Slot:
        """The slot whose turn it is, when it is free."""
        slot = self.slots.popleft()
        if slot.sent is not None:
            slot.sent.synchronize()
            self.stream.wait_event(slot.taken)
        if slot.there.nbytes < size:
            slot = self._slot(size)
        self.slots.append(slot)
        return slot

    def _slot(self, size: int) -> Slot:
        with self.stream:  # CuPy's pool gives such memory to this stream alone
            return Slot(self.xp.cuda.alloc_pinned_memory(size), self.xp.empty(size, np.uint8))
