"""Where gpu.py runs: a GPU, or, to try the command, a stand-in for one on any CPU.

Both compute. The stand-in's times are made up, and its results are marked by `dry`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aimv2_np.errors import BackendUnavailable

__all__ = ["Bench", "Dry", "Gpu", "attend", "attend_by_library", "name_of"]

Array = Any
PLUGIN = Path(__file__).parents[1] / "backends" / "cupy"
PACKAGES = ("aimv2-np", "aimv2-np-cupy", "cupy-cuda12x", "cupy-cuda13x", "numpy", "torch",
            "transformers", "triton", "nvidia-cudnn-frontend")  # fmt: skip


class Bench(Protocol):
    """What a measurement needs of the machine."""

    dry: bool
    until: float  # when the time is over
    device: Any  # aimv2_np_cupy.device.Device
    place: str  # torch's word for the device
    compiler: str  # of torch.compile
    sdpa: dict[str, str]  # implementations of torch's attention, by a name of ours

    def backend(self) -> Any:
        """A fresh table of ours."""
        ...

    def about(self) -> dict[str, Any]:
        """The machine in words and numbers."""
        ...

    def wait(self) -> None:
        """Until the device is done."""
        ...

    def turn(self, run: Callable[[], Any], times: int) -> tuple[float, float]:
        """Seconds of one of `times` runs: by the device's events, by the host's clock."""
        ...

    def poison(self) -> None:
        """Fill free memory with NaN, so that what a kernel leaves unwritten shows."""
        ...

    def free(self) -> None:
        """Give unused memory back to the device."""
        ...

    def grown(self, library: str, run: Callable[[], Any]) -> int | None:
        """By how many bytes a library's memory grows while it runs, at most."""
        ...

    def used(self) -> int | None:
        """Bytes that our arrays take."""
        ...

    def captured(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """torch's work as a CUDA graph."""
        ...


def attend(bench: Bench, qkv: Array, heads: int, length: int) -> Callable[[], Array]:
    """Our attention kernel on sequences of one length, (ΣN, 3 D) to (ΣN, D)."""
    from aimv2_np_cupy.device import prefix
    from aimv2_np_cupy.launches import Launches

    device, (rows, columns) = bench.device, qkv.shape
    lengths = [length] * (rows // length)
    starts, seen = (device.asarray(a, np.int32) for a in (prefix(lengths), np.array(lengths)))
    out = device.xp.empty((rows, columns // 3), qkv.dtype)

    def run() -> Array:
        Launches(device).attention(qkv, heads, lengths, starts, seen, False, out)
        return out

    return run


def attend_by_library(
    bench: Bench, qkv: Array, heads: int, length: int
) -> Callable[[], Array] | None:
    """The same by the library that the plug-in uses for long sequences, if it would here."""
    rows, columns = qkv.shape
    out = bench.device.xp.empty((rows, columns // 3), qkv.dtype)
    library = bench.device.library_attention(qkv, out, rows // length, heads, False)
    if library is None:
        return None

    def run() -> Array:
        library()
        return out

    return run


def name_of(index: int) -> str:
    """A GPU's name, or why it cannot be used.

    Raises:
        BackendUnavailable: it cannot.
    """
    try:
        from aimv2_np_cupy import make_backend
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "the plug-in is not installed: pip install './backends/cupy[cuda13]'"
        ) from error
    make_backend(index)
    from cupy.cuda import runtime

    return str(runtime.getDeviceProperties(index)["name"].decode())


def packages() -> dict[str, str]:
    """The versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Gpu:
    """A GPU, by CuPy and torch.

    Raises:
        BackendUnavailable: CUDA cannot be used here; says why.
    """

    dry = False
    compiler = "inductor"
    sdpa = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"}  # noqa: RUF012

    def __init__(self, index: int, until: float) -> None:
        from aimv2_np_cupy import make_backend
        from aimv2_np_cupy.device import Cuda
        from aimv2_np_cupy.table import table

        make_backend(index)  # says what is wrong
        self.until = until
        self.device, self.index, self.place = Cuda(index), index, f"cuda:{index}"
        self.device.xp.cuda.Device(index).use()
        self.backend = partial(table, self.device)  # kernels are compiled once for all tables

    @cached_property
    def torch(self) -> Any:
        """The package, on this device and on the stream that CuPy uses, too."""
        import torch

        torch.cuda.set_device(self.index)
        ours = self.device.xp.cuda.get_current_stream().ptr
        assert torch.cuda.current_stream().cuda_stream == ours == 0, "not one stream"
        return torch

    def about(self) -> dict[str, Any]:
        """As CuPy and the driver say."""
        runtime = self.device.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.index)
        return {
            "name": properties["name"].decode(),
            "capability": self.device.capability,
            "memory_bytes": properties["totalGlobalMem"],
            "multiprocessors": properties["multiProcessorCount"],
            "driver_cuda": runtime.driverGetVersion(),
            "runtime_cuda": runtime.runtimeGetVersion(),
            "python": sys.version.split()[0],
            "packages": packages(),
        }

    def wait(self) -> None:
        """For all streams."""
        self.device.xp.cuda.runtime.deviceSynchronize()

    def turn(self, run: Callable[[], Any], times: int) -> tuple[float, float]:
        """Events on the stream that both libraries use."""
        cuda = self.device.xp.cuda
        begin, end = cuda.Event(), cuda.Event()
        self.wait()
        start = time.perf_counter()
        begin.record()
        for _ in range(times):
            run()
        end.record()
        self.wait()
        wall = time.perf_counter() - start
        return cuda.get_elapsed_time(begin, end) / 1e3 / times, wall / times

    def poison(self) -> None:
        """Later arrays are cut from this one."""
        self.free()
        self.device.xp.full(1 << 26, np.nan, np.float32)
        self.wait()

    def free(self) -> None:
        """Of both libraries."""
        self.wait()
        self.device.xp.get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            self.torch.cuda.empty_cache()

    def used(self) -> int | None:
        """By CuPy's pool."""
        return int(self.device.xp.get_default_memory_pool().used_bytes())

    def grown(self, library: str, run: Callable[[], Any]) -> int | None:
        """torch keeps account itself; of CuPy a hook does."""
        self.free()
        if library == "torch":
            cuda = self.torch.cuda
            before = cuda.memory_allocated()
            cuda.reset_peak_memory_stats()
            run()
            self.wait()
            return int(cuda.max_memory_allocated() - before)
        from cupy.cuda import MemoryHook

        pool = self.device.xp.get_default_memory_pool()
        before, most = pool.used_bytes(), [pool.used_bytes()]

        class Watching(MemoryHook):  # type: ignore[misc]
            name = "Watching"

            def malloc_postprocess(self, **_: Any) -> None:
                most[0] = max(most[0], pool.used_bytes())

        with Watching():
            for _ in range(3):  # memory laid out, recorded, replayed
                run()
            self.wait()
        return int(most[0] - before)

    def captured(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """Warm, then recorded once; each replay does the same on the same memory."""
        torch = self.torch
        aside = torch.cuda.Stream()
        with torch.cuda.stream(aside):
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            result = run()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


class Dry:
    """No GPU: the plug-in's table on NumPy, torch on the CPU, times that are made up."""

    dry = True
    place = "cpu"
    compiler = "eager"  # dynamo traces, nothing is compiled
    sdpa = {"cudnn": "MATH", "flash": "MATH"}  # noqa: RUF012

    def __init__(self, until: float) -> None:
        self.until = until
        sys.path[:0] = [str(PLUGIN / "src"), str(PLUGIN / "tests")]
        from numpy_device import NumpyDevice, make_backend

        self.device, self.backend = NumpyDevice(), make_backend
        self.ticks = 0

    def about(self) -> dict[str, Any]:
        """No GPU."""
        return {"name": "no GPU: a dry run", "packages": packages()}

    def wait(self) -> None:
        """NumPy is done."""

    def turn(self, run: Callable[[], Any], times: int) -> tuple[float, float]:
        """It runs, but the time is a count of turns."""
        for _ in range(times):
            run()
        self.ticks += 1
        return self.ticks / 1000, self.ticks / 1000

    def poison(self) -> None:
        """Nothing to fill."""

    def free(self) -> None:
        """Nothing to free."""

    def used(self) -> int | None:
        """Unknown."""
        return None

    def grown(self, library: str, run: Callable[[], Any]) -> int | None:
        """Unknown; it runs."""
        run()
        return None

    def captured(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """As it is."""
        return run
