"""Uploads by a model of CUDA's streams, in which nothing runs before somebody waits for it.

So a buffer that is written too early shows: what was queued to read it reads something else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aimv2_np_cupy.upload import SMALLEST, Upload


class Event:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.done = stream, False

    def synchronize(self) -> None:
        while not self.done:
            self.stream.step()


class Stream:
    """Work in order, done as late as possible."""

    def __init__(self, **_: Any) -> None:
        self.work: deque[Callable[[], None]] = deque()

    def step(self) -> None:
        self.work.popleft()()

    def record(self) -> Event:
        event = Event(self)
        self.work.append(lambda: setattr(event, "done", True))
        return event

    def wait_event(self, event: Event) -> None:
        self.work.append(event.synchronize)

    def finish(self) -> None:
        while self.work:
            self.step()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class There(np.ndarray[Any, Any]):
    """An array of the device: copies of it are queued in the current stream."""

    xp: Any

    @property
    def data(self) -> Any:  # type: ignore[override]
        def copy(host: bytearray, size: int, stream: Stream) -> None:
            stream.work.append(lambda: self.view(np.ndarray).__setitem__(
                slice(0, size), np.frombuffer(host, np.uint8, size)))  # fmt: skip

        return SimpleNamespace(copy_from_host_async=copy)

    def copy(self, order: Any = "C") -> Any:
        into = np.full_like(np.asarray(self), 255)
        CURRENT.work.append(lambda: into.__setitem__(..., np.asarray(self)))
        return into


CURRENT = Stream()


class Pinned(bytearray):
    """Pinned memory; its address is itself."""

    @property
    def ptr(self) -> Pinned:
        return self


def fake() -> Any:
    cuda = SimpleNamespace(
        Stream=Stream, alloc_pinned_memory=Pinned, get_current_stream=lambda: CURRENT
    )
    return SimpleNamespace(
        cuda=cuda,
        empty=lambda size, dtype: np.zeros(size, dtype).view(There),
        asarray=lambda host: ("small", host),
    )


@pytest.fixture(autouse=True)
def _idle() -> None:
    CURRENT.work.clear()


def images(count: int, size: int = SMALLEST) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(255, size=(size // 256, 256), dtype=np.uint8) for _ in range(count)]


def test_many_uploads_before_anything_is_read() -> None:
    upload, hosts = Upload(fake()), images(7)
    there = [upload(host) for host in hosts]
    CURRENT.finish()
    for host, array in zip(hosts, there, strict=True):
        np.testing.assert_array_equal(array, host)


def test_the_host_may_change_its_array_at_once() -> None:
    upload, host = Upload(fake()), images(1)[0]
    before = host.copy()
    there = upload(host)
    host[:] = 0
    CURRENT.finish()
    np.testing.assert_array_equal(there, before)


def test_two_go_up_while_nothing_is_computed() -> None:
    """Only the third must wait for a buffer."""
    upload = Upload(fake())
    first, second, third = images(3)
    upload(first), upload(second)
    assert len(CURRENT.work) > 0
    assert not any(slot.sent.done for slot in upload.slots)
    upload(third)
    assert sorted(slot.sent.done for slot in upload.slots) == [False, False]
    assert upload.stream.work  # of the second and third


def test_larger_ones_get_larger_buffers() -> None:
    upload = Upload(fake())
    hosts = [*images(2), *images(3, 4 * SMALLEST), *images(2)]
    there = [upload(host) for host in hosts]
    CURRENT.finish()
    for host, array in zip(hosts, there, strict=True):
        np.testing.assert_array_equal(array, host)


def test_shapes_dtypes_and_views() -> None:
    upload = Upload(fake())
    host = np.arange(SMALLEST, dtype=np.float32).reshape(4, -1)[:, ::2]
    there = upload(host)
    CURRENT.finish()
    assert there.dtype == np.float32
    np.testing.assert_array_equal(there, host)
    assert upload(np.zeros(3))[0] == "small"
