"""The first minute of benchmarks/gpu.py: does it say which kernel is wrong, and only that?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy_device
import pytest

from aimv2_np_cupy.compiling import KERNELS

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: import_module(f"gpu_{name}") for name in ("checks", "device", "plan")}


def wrong(gpu: Any, dtype: str) -> set[str]:
    bench = gpu["device"].Dry(until=math.inf)
    found = list(gpu["checks"].kernels(bench, gpu["plan"].DRY, dtype))
    return {record["what"].split(",")[0] for record in found if not record["ok"]}


def test_all_are_right(gpu: Any) -> None:
    assert wrong(gpu, "bfloat16") == wrong(gpu, "float32") == set()


@pytest.mark.parametrize(
    ("kernel", "dtype", "blamed"),
    [
        ("swiglu", "float32", {"swiglu"}),
        ("pool", "float16", {"pool"}),
        ("patchify", "tf32", {"patchify and its product"}),
        ("attention_128", "bfloat16", {"attention"}),
        ("attention_64", "float16", {"attention"}),
        ("attention_plain", "tf32", {"attention"}),
    ],
)
def test_one_number_in_a_row_that_is_off_shows(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, kernel: str, dtype: str, blamed: set[str]
) -> None:
    right = numpy_device.KERNELS[kernel]

    def broken(grid: Any, *args: Any) -> None:
        out = args[WRITES[kernel]]
        right(grid, *args)
        out[..., -1] += out.dtype.type(3)

    monkeypatch.setitem(numpy_device.KERNELS, kernel, broken)
    assert wrong(gpu, dtype) == blamed


WRITES = {"swiglu": 1, "pool": 3, "patchify": 1, "attention_128": 3, "attention_64": 3,
          "attention_plain": 3}  # fmt: skip


def test_a_norm_that_is_wrong_shows(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all that contains it."""

    right = numpy_device.rms_norm

    def broken(grid: Any, x: Any, weight: Any, out: Any, width: int, eps: float) -> None:
        right(grid, x, weight, out, width, eps)
        out *= out.dtype.type(1.25)

    for kernel in ("rms_norm", "rms_norm_stream"):
        monkeypatch.setitem(numpy_device.KERNELS, kernel, broken)
    assert wrong(gpu, "bfloat16") == {"rms_norm", "attention", "swiglu"}


def test_every_kernel_that_the_table_launches_is_checked(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = set()
    for name, kernel in numpy_device.KERNELS.items():

        def noting(*args: Any, name: str = name, kernel: Any = kernel) -> None:
            launched.add(name)
            kernel(*args)

        monkeypatch.setitem(numpy_device.KERNELS, name, noting)
    wrong(gpu, "bfloat16")
    entries = {entry for kernel in KERNELS.values() for entry in kernel.entries}
    assert launched == entries
