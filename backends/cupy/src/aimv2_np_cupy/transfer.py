"""To the device and back, in streams of their own and through pinned memory.

A batch of images goes up while the one ahead of it is computed, and results come back while the
next one is.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Download", "Upload"]

Array = Any


@dataclass
class Slot:
    """A pinned buffer and its counterpart on the device, and the events that make them free."""

    pinned: Any
    there: Array
    sent: Any = None  # the pinned one was read
    taken: Any = None  # the other one was


class Upload:
    """From NumPy's arrays to arrays on the device that is current when it is made.

    There are two slots, and they take turns. A host that is some batches ahead waits.
    """

    def __init__(self, xp: Any) -> None:
        self.xp, self.lock = xp, threading.Lock()
        self.stream = xp.cuda.Stream(non_blocking=True)
        self.slots = deque([self._slot(1), self._slot(1)])

    def __call__(self, host: Any) -> Array:
        """For what is queued from now on in the current stream; `host` may be changed at once."""
        with self.lock:
            slot = self._free(host.nbytes)
            np.frombuffer(slot.pinned, host.dtype, host.size).reshape(host.shape)[...] = host
            slot.there.data.copy_from_host_async(slot.pinned.ptr, host.nbytes, self.stream)
            sent = self.stream.record()
            current = self.xp.cuda.get_current_stream()
            current.wait_event(sent)
            array = slot.there[: host.nbytes].view(host.dtype).reshape(host.shape).copy()
            slot.sent, slot.taken = sent, current.record()
            return array

    def _free(self, size: int) -> Slot:
        """The slot whose turn it is, when it is free and large enough."""
        slot = self.slots[0]
        if slot.sent is not None:
            slot.sent.synchronize()
            self.stream.wait_event(slot.taken)
        if slot.there.nbytes < size:
            slot = self.slots[0] = self._slot(size)
        self.slots.rotate(-1)
        return slot

    def _slot(self, size: int) -> Slot:
        with self.stream:  # CuPy's pool gives such memory to this stream alone
            return Slot(self.xp.cuda.alloc_pinned_memory(size), self.xp.empty(size, np.uint8))


class Download:
    """From arrays on the device that is current when it is made to NumPy's."""

    def __init__(self, xp: Any) -> None:
        self.xp, self.stream = xp, xp.cuda.Stream(non_blocking=True)

    def __call__(self, array: Array) -> Fetched:
        """Begin to fetch an array, once what is queued is done; what is returned waits for it."""
        shape = array.shape
        array = self.xp.ascontiguousarray(array)  # CuPy's makes (1,) of ()
        pinned = self.xp.cuda.alloc_pinned_memory(max(array.nbytes, 1))
        host = np.frombuffer(pinned, array.dtype, array.size).reshape(array.shape)
        self.stream.wait_event(self.xp.cuda.get_current_stream().record())
        array.get(stream=self.stream, out=host, blocking=False)
        return Fetched(array, host.reshape(shape), self.stream.record())


class Fetched:
    """A result on its way. Until it is there neither memory may be used for anything else."""

    def __init__(self, array: Array, host: Any, done: Any) -> None:
        self.array, self.host, self.done = array, host, done

    def __call__(self) -> Any:
        """Wait for it."""
        self.done.synchronize()
        return self.host.copy()  # pinned memory goes back to its pool

    def __del__(self) -> None:
        self.done.synchronize()
