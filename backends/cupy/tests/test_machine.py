"""What is said where CUDA cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from aimv2_np.errors import BackendUnavailable
from aimv2_np_cupy.machine import Machine, devices_of, require_dtype


class Fake(Machine):
    """A machine with two cards, of which anything can be told otherwise."""

    def __init__(self, **told: Any) -> None:
        self.told: dict[str, Any] = {
            "wheels": ["cupy-cuda12x"],
            "cupy": None,
            "library": 12000,
            "driver": 12040,
            "runtime": 12090,
            "count": 2,
            "name": "Tesla T4",
            "capability": (7, 5),
        } | told
        for name in self.told:
            setattr(self, name, lambda *_, name=name: self.answer(name))

    def answer(self, name: str) -> Any:
        value = self.told[name]
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.parametrize(
    ("device", "indices"),
    [
        (None, [0]),
        (0, [0]),
        (1, [1]),
        ("1", [1]),
        ("cuda:1", [1]),
        ("0,1", [0, 1]),
        ("1, 0", [1, 0]),
    ],
)
def test_devices(device: Any, indices: list[int]) -> None:
    assert devices_of(Fake(), device) == indices


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"cupy": ModuleNotFoundError("cupy")}, r"CuPy is not installed: pip install .*cuda12"),
        ({"cupy": ImportError("libfoo.so: no such file")}, "cannot be imported: libfoo"),
        (
            {"wheels": ["cupy-cuda12x", "cupy-cuda13x"]},
            "both installed .* pip uninstall -y cupy-cuda12x cupy-cuda13x",
        ),
        ({"driver": 0}, "no NVIDIA driver"),
        (
            {"runtime": 13000},
            r"supports CUDA 12\.4, this CuPy needs 13\.0: update .* CuPy for CUDA 12",
        ),
        (
            {"library": RuntimeError("libcublas.so.12: x\nmore")},
            "cuBLAS cannot be loaded: .*: x; pip",
        ),
        ({"count": 0}, "shows no GPU"),
    ],
)
def test_what_is_missing_is_said(told: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendUnavailable, match=words):
        devices_of(Fake(**told), None)


@pytest.mark.parametrize("device", [2, -1, "gpu", "cuda:7", 1.0, "0,2", "1,1", ","])
def test_devices_that_do_not_exist(device: Any) -> None:
    with pytest.raises(BackendUnavailable, match="there are 0: Tesla T4, 1: Tesla T4"):
        devices_of(Fake(), device)


@pytest.mark.parametrize("dtype", ["tf32", "float16", "bfloat16"])
def test_dtypes_that_a_card_is_too_old_for(dtype: str) -> None:
    with pytest.raises(BackendUnavailable, match=rf"{dtype} needs .* 8\.0; .*T4, has 7\.5"):
        require_dtype(Fake(), [0], dtype)
    require_dtype(Fake(capability=(8, 0)), [0, 1], dtype)
    require_dtype(Fake(), [0], "float32")


def test_this_machine() -> None:
    """Either CUDA can be used here, or there is one sentence about why not."""
    said = ""
    try:
        devices_of(Machine(), None)
    except BackendUnavailable as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
