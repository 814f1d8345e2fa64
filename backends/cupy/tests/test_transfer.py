"""Transfers by a model of CUDA's streams, in which nothing runs before somebody waits for it.

So a buffer that is written too early shows: what was queued to read it reads something else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aimv2_np_cupy.transfer import Download, Upload


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
    """An array of the device: copies of it are queued, in the current stream or another one."""

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

    def get(self, stream: Stream, out: Any, blocking: bool) -> Any:
        assert not blocking
        assert out.shape == self.shape
        stream.work.append(lambda: out.__setitem__(..., np.asarray(self)))


CURRENT = Stream()


class Pinned(bytearray):
    """Pinned memory; its address is itself."""

    @property
    def ptr(self) -> Pinned:
        return self


class Xp:
    """What is asked of CuPy; `left` is how many more buffers there is memory for."""

    def __init__(self, left: float = np.inf) -> None:
        self.left = left
        self.cuda = SimpleNamespace(
            Stream=Stream, alloc_pinned_memory=Pinned, get_current_stream=lambda: CURRENT
        )

    def ascontiguousarray(self, array: Any) -> Any:
        return array if array.ndim else array.reshape(1)  # as CuPy does

    def empty(self, size: int, dtype: Any) -> Any:
        if self.left == 0:
            raise MemoryError
        self.left -= 1
        return np.zeros(size, dtype).view(There)


@pytest.fixture(autouse=True)
def _idle() -> None:
    CURRENT.work.clear()


def images(count: int, rows: int = 8) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(255, size=(rows, 16), dtype=np.uint8) for _ in range(count)]


def test_many_uploads_before_anything_is_read() -> None:
    upload, hosts = Upload(Xp()), images(7)
    there = [upload(host) for host in hosts]
    CURRENT.finish()
    for host, array in zip(hosts, there, strict=True):
        np.testing.assert_array_equal(array, host)


def test_the_host_may_change_its_array_at_once() -> None:
    upload, host = Upload(Xp()), images(1)[0]
    before = host.copy()
    there = upload(host)
    host[:] = 0
    CURRENT.finish()
    np.testing.assert_array_equal(there, before)


def test_a_batch_goes_up_while_the_one_ahead_is_computed() -> None:
    """The host waits when it is four ahead, and then for no more than the batch of its slot."""
    upload, done = Upload(Xp()), []
    upload(images(1)[0])
    for batch in range(1, 9):
        CURRENT.work.append(lambda batch=batch: done.append(batch))  # type: ignore[misc]
        upload(images(1)[0])
        assert done == list(range(1, batch - 3))


def test_larger_ones_get_larger_buffers() -> None:
    upload = Upload(Xp())
    hosts = [*images(2), *images(3, 32), *images(2)]
    there = [upload(host) for host in hosts]
    CURRENT.finish()
    for host, array in zip(hosts, there, strict=True):
        np.testing.assert_array_equal(array, host)


def test_memory_that_runs_out_spoils_nothing() -> None:
    xp = Xp()
    upload = Upload(xp)
    xp.left = 0
    for _ in range(3):
        with pytest.raises(MemoryError):
            upload(images(1)[0])
    xp.left = np.inf
    host = images(1)[0]
    there = upload(host)
    CURRENT.finish()
    np.testing.assert_array_equal(there, host)


def test_a_result_comes_back_while_the_next_batch_is_computed() -> None:
    """It waits for what was queued before it, and for nothing queued later."""
    download, done = Download(Xp()), []
    array = np.zeros((3, 4), np.float32).view(There)
    CURRENT.work.append(lambda: array.__setitem__(..., 1))
    waiting = download(array)
    CURRENT.work.append(lambda: done.append("the next batch"))
    np.testing.assert_array_equal(waiting(), np.ones((3, 4)))
    assert done == []


def test_a_single_number_stays_one() -> None:
    waiting = Download(Xp())(np.array(3.0).view(There))
    CURRENT.finish()
    assert waiting().shape == ()
    assert waiting() == 3


def test_a_result_that_nobody_waits_for_is_waited_for() -> None:
    """Its pinned memory would else be written to when it is already someone else's."""
    download = Download(Xp())
    waiting = download(np.zeros(3, np.float32).view(There))
    done = waiting.done
    assert not done.done
    del waiting
    assert done.done


def test_nothing_comes_back_as_nothing() -> None:
    assert Download(Xp())(np.zeros((0, 4), np.float32).view(There))().shape == (0, 4)
