"""What is asked of CuPy to record a graph, by a stand-in that notes it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aimv2_np_cupy import blas
from aimv2_np_cupy.blas import BlasError
from aimv2_np_cupy.device import Cuda, MemoryIsFull

NO_NAMES = {"py"}  # of a file, in a docstring


class RuntimeFailure(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Memory:
    nbytes = 32 << 20


class Stream:
    def __init__(self, notes: list[str], non_blocking: bool) -> None:
        assert non_blocking
        self.notes = notes

    def __enter__(self) -> None:
        self.notes.append("enter")

    def __exit__(self, *_: object) -> None:
        self.notes.append("exit")

    def begin_capture(self) -> None:
        self.notes.append("begin")

    def end_capture(self) -> Any:
        self.notes.append("end")
        return SimpleNamespace(launch=lambda: self.notes.append("launch"))


class Blas:
    """Notes when its handle is there and whose workspace is used."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self.memory: Any = None

    def ready(self) -> None:
        self.notes.append("handle")

    def workspace(self, memory: Any) -> Any:
        self.memory = weakref.ref(memory)
        return Stream(self.notes, True)


def cuda(notes: list[str]) -> Any:
    device: Any = Cuda.__new__(Cuda)
    runtime = SimpleNamespace(CUDARuntimeError=RuntimeFailure)
    device.xp = SimpleNamespace(
        empty=lambda size, dtype: Memory(),
        cuda=SimpleNamespace(Stream=lambda non_blocking: Stream(notes, non_blocking),
                             runtime=runtime),
    )  # fmt: skip
    device.capability, device.blas = 90, Blas(notes)
    return device


def test_work_is_captured_and_launched_later() -> None:
    notes: list[str] = []
    device = cuda(notes)
    replay = device.record(lambda: notes.append("work"))
    assert notes == ["handle", "enter", "enter", "begin", "work", "end", "exit", "exit"]
    notes.clear()
    replay()
    assert notes == ["launch"]


def test_a_graph_keeps_its_workspace() -> None:
    device = cuda([])
    replay = device.record(lambda: None)
    gc.collect()
    assert device.blas.memory() is not None
    del replay
    gc.collect()
    assert device.blas.memory() is None


def test_work_that_fails_ends_the_capture() -> None:
    notes: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cuda(notes).record(broken)
    assert notes == ["handle", "enter", "enter", "begin", "end", "exit", "exit"]


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (RuntimeFailure(2), MemoryIsFull),
        (RuntimeFailure(700), RuntimeFailure),
        (BlasError("cublasGemmEx", 3), MemoryIsFull),
        (BlasError("cublasGemmEx", 7), BlasError),
    ],
)
def test_memory_that_runs_out_in_a_library_is_told_apart(raised: Any, becomes: Any) -> None:
    def work() -> None:
        raise raised

    with pytest.raises(becomes):
        cuda([]).record(work)


def test_each_threads_own_stream_is_a_queue_of_its_own() -> None:
    device = cuda([])
    device.xp.cuda.runtime.streamPerThread = 2
    pointers = iter([5, 5, 2])
    device.xp.cuda.get_current_stream = lambda: SimpleNamespace(ptr=next(pointers))
    first, again, own = (device.queue() for _ in range(3))
    assert first == again != own
    assert np.shape(own) == (2,)


def test_all_that_is_asked_of_cupy_exists() -> None:
    """Names that no test calls, because only a GPU could."""
    cupy: Any = pytest.importorskip("cupy", reason="CuPy is not installed")
    sources = [p.read_text() for p in Path(blas.__file__).parent.glob("*.py")]
    pattern = r"(?:\bxp|\bcupy)((?:\.[A-Za-z_]\w*)+)"
    names = {name[1:] for text in sources for name in re.findall(pattern, text)}
    assert len(names) > 20
    for name in sorted(names - NO_NAMES):
        attrgetter(name)(cupy)


def test_cublas_is_found_where_cupy_finds_it() -> None:
    """In a process of its own: whoever loaded it before would hide it."""
    pytest.importorskip("nvidia.cublas", reason="nvidia-cublas-cu12 is not installed")
    code = (
        "import cupy; from aimv2_np_cupy.blas import Blas, load; "
        "Blas(load(cupy.cuda.runtime.runtimeGetVersion()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
