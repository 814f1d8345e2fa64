"""The backend table and its discovery; a plug-in stands in for a real one."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import RANDOM_LIT, inputs, load

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
    assert backends.get_backend("numpy") is backends.NUMPY


def test_auto_is_numba_and_in_float64_numpy() -> None:
    assert backends.get_backend("auto").name == "numba"
    assert load_with().backend.name == "numba"
    assert load_with(dtype="float64").backend is backends.NUMPY


@pytest.mark.usefixtures("_plugins")
def test_plug_ins_are_found_and_broken_ones_explain_themselves() -> None:
    assert backends.get_backend("plain").name == "plain"
    assert backends.available_backends() == {
        "numpy": "",
        "numba": "",
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
    with pytest.raises(
        aimv2_np.BackendUnavailable, match="'cupy'; here: auto, numpy, numba, plain, gpu"
    ):
        load_with(backend="cupy")
    with pytest.raises(aimv2_np.BackendUnavailable, match="no GPU"):
        load_with(backend="gpu")


def test_a_numba_that_cannot_be_imported_is_a_backend_that_cannot_run() -> None:
    code = (
        "import sys\nsys.modules['numba'] = None\nfrom aimv2_np.backend import available_backends\n"
        "print(available_backends()['numba'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "backend 'numba'" in done.stdout
    assert "ModuleNotFoundError: import of numba" in done.stdout


def load_with(**options: Any) -> Any:
    return aimv2_np.load(RANDOM_LIT, **options)


def test_dtypes_and_devices_that_numpy_does_not_have() -> None:
    for dtype in ("bfloat16", "int8", "float128"):
        with pytest.raises(
            aimv2_np.BackendUnavailable, match=f"float32 or float64, not in '{dtype}"
        ):
            load_with(backend="numpy", dtype=dtype)
    with pytest.raises(aimv2_np.BackendUnavailable, match="runs on the CPU"):
        load_with(backend="numpy", device=0)


def plain_bfloat16() -> backends.Backend:
    """Lists dtypes that NumPy lacks and computes in float32, strict about what it is given."""

    def asarray(host: Any, dtype: str) -> Any:
        assert dtype in ("bfloat16", "int8")
        assert host.dtype == np.float32
        return host

    return replace(backends.NUMPY, name="wide", dtypes=("bfloat16", "int8"), asarray=asarray)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_dtype_that_numpy_lacks_is_float32_on_the_host(dtype: str, tmp_path: Path) -> None:
    """Every method works, and gives what the same computation in float32 gives."""
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    pixels, texts = np.ones((1, 3, 28, 56)), ["a cat", "two dogs"]
    plain, wide = load_with(backend="numpy"), load_with(backend=plain_bfloat16(), dtype=dtype)
    assert (wide.dtype, wide.info["dtype"]) == (dtype, dtype)
    assert f", {dtype}, wide" in repr(wide)
    for run in (
        lambda m: m.classify(image, texts).probabilities,
        lambda m: m.patch_features(image),
        lambda m: m(m.preprocess(image), *m.tokenize(texts)).logits_per_text,
        lambda m: m.image_features(pixels, interpolate_positions=True),
    ):
        np.testing.assert_array_equal(run(wide), run(plain), strict=True)
    wide.trace(image, texts).save(tmp_path / "trace.safetensors")
    trace = aimv2_np.Trace.load(tmp_path / "trace.safetensors")
    assert trace.metadata["dtype"] == dtype
    assert trace["pixel_values"].dtype == np.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_native_model_in_a_dtype_that_numpy_lacks(dtype: str) -> None:
    """Its positions are computed on the host; too large a pixel is what float32 cannot hold."""
    plain = load("vision-native", dtype="float32")
    wide = aimv2_np.VisionEncoder(plain.config, plain.params, plain_bfloat16(), dtype)
    pixels = np.random.default_rng(2).standard_normal((1, 3, 14 * 8, 14 * 14))
    np.testing.assert_array_equal(
        wide(pixels).last_hidden_state, plain(pixels).last_hidden_state, strict=True
    )
    with pytest.raises(aimv2_np.ImageError, match="too large for float32"):
        wide(1e300 * pixels)


def test_what_the_host_holds() -> None:
    wanted = {"bfloat16": "float32", "int8": "float32", "float16": "float16", "float64": "float64"}
    assert {name: backends.host_dtype(name).name for name in wanted} == wanted


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that refuses to meet NumPy's, as one in a GPU's memory would."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)  # shape, dtype, ndim, ...

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a NumPy function reached into the device's memory")

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        for arg in args:
            assert np.isscalar(arg) or isinstance(arg, DeviceArray) or arg.ndim == 0, ufunc
        return DeviceArray(getattr(ufunc, method)(*map(to_host, args), **kwargs))

    def __array_function__(self, *_: Any) -> Any:
        raise AssertionError("a NumPy function reached into the device's memory")

    def __getitem__(self, index: Any) -> Any:
        return DeviceArray(self.host[index])

    def reshape(self, *shape: Any) -> Any:
        return DeviceArray(self.host.reshape(*shape))

    def swapaxes(self, *axes: int) -> Any:
        return DeviceArray(self.host.swapaxes(*axes))

    @property
    def T(self) -> Any:
        return DeviceArray(self.host.T)


def to_host(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(to_host, value))
    return value.host if isinstance(value, DeviceArray) else value


def to_device(params: Any) -> Any:
    """A parameter tree with every array on the "device"."""
    if isinstance(params, np.ndarray):
        return DeviceArray(params)
    if params is None:
        return None
    return getattr(type(params), "_make", tuple)(map(to_device, params))


def device_backend(calls: set[str]) -> backends.Backend:
    """Every op computed by its definition, on arrays of the device only."""

    def on_device(name: str) -> Any:
        def op(*args: Any, **kwargs: Any) -> Any:
            calls.add(name)
            found = getattr(ops, name)(*map(to_host, args), **kwargs)
            return DeviceArray(found)

        return op

    names = [f for f in backends.Backend.__dataclass_fields__ if hasattr(ops, f)]
    return replace(
        backends.NUMPY,
        name="device",
        asarray=lambda host, dtype: DeviceArray(np.asarray(host, dtype)),
        to_numpy=to_host,
        concatenate=lambda arrays, axis: DeviceArray(np.concatenate(to_host(arrays), axis=axis)),
        broadcast_to=lambda x, shape: DeviceArray(np.broadcast_to(to_host(x), shape)),
        **{name: on_device(name) for name in names},
    )


def test_a_backend_with_arrays_of_its_own() -> None:
    """No NumPy function touches the backend's arrays, and every public method still works."""
    calls: set[str] = set()
    plain = aimv2_np.load(RANDOM_LIT, dtype="float64")
    device = copy.copy(plain)
    model = (plain.config, to_device(plain.params), device_backend(calls), "float64")
    aimv2_np.LiT.__init__(device, *model)
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    texts = ["a cat", "two dogs"]
    same = {
        "encode_image": lambda m: m.encode_image(image),
        "encode_text": lambda m: m.encode_text(texts),
        "classify": lambda m: m.classify(image, texts).probabilities,
        "patch_features": lambda m: m.patch_features(image),
        "call": lambda m: m(m.preprocess(image), *m.tokenize(texts)).logits_per_text,
        "scores": lambda m: m.trace(image, texts)["text.blocks.1.attn.scores"],
        "logits": lambda m: m.trace(image, texts)["logits_per_image"],
        "other size": lambda m: m.image_features(
            np.ones((1, 3, 28, 56)), interpolate_positions=True
        ),
    }
    for name, run in same.items():
        found = run(device)
        assert type(found) is np.ndarray, name
        assert np.allclose(found, run(plain), rtol=1e-12, atol=1e-12), name
    assert calls == {name for name in backends.Backend.__dataclass_fields__ if hasattr(ops, name)}


def test_a_replaced_op_changes_the_result_and_two_backends_live_side_by_side() -> None:
    model, given = load("vision-absolute"), inputs("vision-absolute")["pixel_values_0"]
    relu = replace(backends.NUMPY, name="relu", silu=lambda x: np.maximum(x, 0))
    other = aimv2_np.VisionEncoder(model.config, model.params, relu, "float64")
    before = model(given).last_hidden_state
    assert not np.allclose(other(given).last_hidden_state, before)
    assert np.array_equal(model(given).last_hidden_state, before)
