"""The backend table and its discovery; a plug-in stands in for a real one."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from golden_cases import difference, expected, inputs, load

import aimv2_np
from aimv2_np import backend as backends
from aimv2_np import layers, ops


def make(device: Any) -> backends.Backend:
    return replace(backends.NUMPY, name="plain")


def unavailable(device: Any) -> backends.Backend:
    raise aimv2_np.BackendUnavailable("no GPU was found; install a driver")


def broken(device: Any) -> backends.Backend:
    raise ImportError("libfoo.so: cannot open shared object file")


def wrong(device: Any) -> str:
    return "not a backend"


@pytest.fixture
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        EntryPoint(name, f"{__name__}:{function}", backends.ENTRY_POINT_GROUP)
        for name, function in [
            ("plain", "make"), ("gpu", "unavailable"), ("bad", "broken"), ("odd", "wrong"),
            ("gone", "nothing"),
        ]
    ]  # fmt: skip
    monkeypatch.setattr(backends, "entry_points", lambda group: found)


def test_the_numpy_backend_is_the_table_with_nothing_replaced() -> None:
    for name in ("patch_embed", "rms_norm", "linear", "silu", "softmax", "attention"):
        assert getattr(backends.NUMPY, name) is getattr(ops, name)
    assert backends.NUMPY.block is layers.block
    assert backends.get_backend("auto") is backends.NUMPY


@pytest.mark.usefixtures("_plugins")
def test_plug_ins_are_found_and_broken_ones_explain_themselves() -> None:
    assert backends.get_backend("plain").name == "plain"
    assert backends.available_backends() == {
        "numpy": "",
        "plain": "",
        "gpu": "no GPU was found; install a driver",
        "bad": f"the plug-in for backend 'bad' ({__name__}:broken) failed: "
        "ImportError: libfoo.so: cannot open shared object file",
        "odd": "the plug-in for backend 'odd' returned <class 'str'>",
        "gone": f"the plug-in for backend 'gone' ({__name__}:nothing) failed: "
        f"AttributeError: module '{__name__}' has no attribute 'nothing'",
    }


@pytest.mark.usefixtures("_plugins")
def test_an_unknown_backend_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(aimv2_np.BackendUnavailable, match="'cupy'; here: auto, numpy, plain, gpu"):
        load_with(backend="cupy")
    with pytest.raises(aimv2_np.BackendUnavailable, match="no GPU"):
        load_with(backend="gpu")


def load_with(**options: Any) -> Any:
    return aimv2_np.load("random-lit", **options)


def test_dtypes_and_devices_that_numpy_does_not_have() -> None:
    for dtype in ("bfloat16", "int8", "float128"):
        with pytest.raises(
            aimv2_np.BackendUnavailable, match=f"float32 or float64, not in '{dtype}"
        ):
            load_with(dtype=dtype)
    with pytest.raises(aimv2_np.BackendUnavailable, match="runs on the CPU"):
        load_with(backend="numpy", device=0)


def test_the_model_calls_the_table_and_nothing_else() -> None:
    """A backend of its own array type: NumPy functions that slipped into the model would fail."""
    calls: set[str] = set()

    def spy(name: str, function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.add(name)
            return function(*args, **kwargs)

        return wrapped

    names = [f for f in backends.Backend.__dataclass_fields__ if f not in ("name", "dtypes")]
    table = {name: spy(name, getattr(backends.NUMPY, name)) for name in names}
    model, given = load("lit"), inputs("lit")
    spied = aimv2_np.LiT(model.config, model.params, replace(backends.NUMPY, **table), "float64")
    out = spied(**given)
    assert calls == set(names) - {"prepare", "synchronize", "attention_scores", "softmax"}
    assert difference(out.logits_per_image, expected("lit")["logits_per_image"]) < 3e-6


def test_a_replaced_op_changes_the_result_and_two_backends_live_side_by_side() -> None:
    model, given = load("vision-absolute"), inputs("vision-absolute")["pixel_values_0"]
    relu = replace(backends.NUMPY, name="relu", silu=lambda x: np.maximum(x, 0))
    other = aimv2_np.VisionEncoder(model.config, model.params, relu, "float64")
    before = model(given).last_hidden_state
    assert not np.allclose(other(given).last_hidden_state, before)
    assert np.array_equal(model(given).last_hidden_state, before)
