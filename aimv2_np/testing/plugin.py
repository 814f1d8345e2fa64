"""What the suite is run on: a backend by name, in each of its dtypes.

pytest loads it, through verify/pytest_plugin.py, where `aimv2_np.testing` is what is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..backend import Backend, get_backend, host_dtype
from ..errors import BackendUnavailable
from ..verify.lanes import cast_tree


def pytest_addoption(parser: pytest.Parser) -> None:
    """--backend, --device."""
    group = parser.getgroup("aimv2_np.testing", "the backend that is tested")
    told = "its name, as load(..., backend=) takes it, or module:function"
    group.addoption("--backend", default="numpy", help=told)
    group.addoption("--device", default=None, help="its device, as load(..., device=) takes it")


def _backend(config: pytest.Config) -> Backend:
    """The backend that was asked for; a run without it ends at once, and is no success."""
    name, device = config.getoption("--backend"), config.getoption("--device")
    try:
        number = int(device) if isinstance(device, str) and device.isdecimal() else device
        return get_backend(name, device=number)
    except BackendUnavailable as error:
        raise pytest.UsageError(f"--backend {name}: {error}") from None


def pytest_configure(config: pytest.Config) -> None:
    """Find the backend before anything else."""
    _backend(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `dtype` runs in each that the backend offers."""
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", _backend(metafunc.config).dtypes)


@pytest.fixture(scope="session")
def be(pytestconfig: pytest.Config) -> Backend:
    """The backend that is tested."""
    return _backend(pytestconfig)


@pytest.fixture(autouse=True)
def _in_scope(be: Backend) -> Iterator[None]:
    """Operators on its arrays run where these lie."""
    with be.scope():
        yield


@pytest.fixture
def on(be: Backend) -> Callable[[Any, str], Any]:
    """A model of `random_models` with this backend, in a dtype."""

    def move(model: Any, dtype: str) -> Any:
        params = cast_tree(model.params, lambda array: array.astype(host_dtype(dtype)))
        return type(model)(model.config, be.prepare(params, dtype), be, dtype)

    return move
