"""Each entry of the table runs on the device that it is for, and its errors are ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy_device import NumpyDevice

from aimv2_np.errors import BackendUnavailable
from aimv2_np.testing import random_models
from aimv2_np_cupy.guard import guarded
from aimv2_np_cupy.table import table


class Here(NumpyDevice):
    """Counts how often it was entered, and whether it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.depth = 0, 0

    @contextmanager
    def current(self) -> Iterator[None]:
        self.entered += 1
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


def test_every_entry_runs_on_the_device() -> None:
    here, plain = Here(), table(NumpyDevice())

    def seen(op: Any) -> Any:
        def run(*args: Any, **how: Any) -> Any:
            assert here.depth > 0
            return op(*args, **how)

        return run

    entries = {f.name: getattr(plain, f.name) for f in fields(plain) if f.name != "scope"}
    watched = replace(plain, **{n: seen(e) for n, e in entries.items() if callable(e)})
    be = guarded(watched, here)
    model = random_models.make("lit")
    moved = type(model)(model.config, be.prepare(model.params, "float32"), be, "float32")
    case, _ = random_models.cases("lit")
    out = moved(case.pixel_values, case.input_ids, case.attention_mask)
    assert here.entered > 10
    assert here.depth == 0
    np.testing.assert_array_equal(
        out.logits_per_image,
        type(model)(model.config, plain.prepare(model.params, "float32"), plain, "float32")(
            case.pixel_values, case.input_ids, case.attention_mask
        ).logits_per_image,
    )


def test_what_a_library_raises_is_ours() -> None:
    def broken(*_: Any) -> Any:
        raise FloatingPointError("cudaErrorIllegalAddress: an illegal address\nmore")

    be = guarded(replace(table(NumpyDevice()), linear=broken), Here())
    with pytest.raises(BackendUnavailable, match="the GPU failed: cudaErrorIllegal.* address$"):
        be.linear(np.ones((1, 2)), np.ones((2, 2)))


def test_operators_run_there_too() -> None:
    """`x + positions` is no entry of the table, and CuPy computes it where the thread is."""
    here = Here()

    class Watched(np.ndarray[Any, Any]):
        def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **how: Any) -> Any:
            assert here.depth > 0, ufunc
            plain = [a.view(np.ndarray) if isinstance(a, Watched) else a for a in args]
            return getattr(ufunc, method)(*plain, **how).view(Watched)

        def __getitem__(self, key: Any) -> Any:
            assert here.depth > 0, key
            return super().__getitem__(key)

    plain = table(NumpyDevice())

    def watched(op: Any) -> Any:
        return lambda *args, **how: op(*args, **how).view(Watched)

    made = {
        name: watched(getattr(plain, name))
        for name in ("patch_embed", "embed_tokens", "rms_norm", "linear", "transformer")
    }
    be = guarded(replace(plain, **made, scope=here.current), here)
    model = random_models.make("lit")
    moved = type(model)(model.config, be.prepare(model.params, "float32"), be, "float32")
    case, _ = random_models.cases("lit")
    moved(case.pixel_values, case.input_ids, case.attention_mask, as_numpy=False)
    moved.vision.packed([*case.pixel_values])
    assert here.depth == 0


def test_what_fails_later_is_ours_too() -> None:
    """Faults show when a result is waited for; operators in the scope fail, too."""

    def broken() -> Any:
        raise FloatingPointError("an illegal address")

    be = guarded(replace(table(NumpyDevice()), fetch=lambda x: broken), Here())
    assert be.fetch is not None
    waiting = be.fetch(np.ones(2))
    with pytest.raises(BackendUnavailable, match="the GPU failed: an illegal address"):
        waiting()
    words = "memory is too small for this: MemoryError"
    with pytest.raises(BackendUnavailable, match=words), be.scope():
        raise MemoryError


def test_memory_that_runs_out_is_said() -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("Out of memory allocating 1,000 bytes\nand more")

    be = guarded(replace(table(NumpyDevice()), linear=full), Here())
    with pytest.raises(BackendUnavailable, match=r"allocating 1,000 bytes; pass fewer images"):
        be.linear(np.ones((1, 2)), np.ones((2, 2)))
