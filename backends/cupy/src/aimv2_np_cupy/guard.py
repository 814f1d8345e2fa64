"""Every entry of a backend's table on its own device, with errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial, wraps
from typing import Any

from aimv2_np.backend import Backend
from aimv2_np.errors import BackendUnavailable, first_line

from .device import Device

__all__ = ["guarded"]


def guarded(backend: Backend, device: Device) -> Backend:
    """The same table; each entry runs on its device, as do operators in its scope.

    Memory that runs out is a BackendUnavailable that says what to do, and what CUDA's libraries
    raise is one, too.
    """

    def guard(op: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(op)
        def run(*args: Any, **how: Any) -> Any:
            with _scope(device):
                return op(*args, **how)

        return run

    def fetch(x: Any) -> Callable[[], Any]:
        assert backend.fetch is not None
        return guard(backend.fetch(x))  # what fails on the device shows when it is waited for

    entries = {f.name: getattr(backend, f.name) for f in fields(backend)}
    guards: dict[str, Any] = {name: guard(e) for name, e in entries.items() if callable(e)}
    return replace(backend, **guards | {"scope": partial(_scope, device), "fetch": guard(fetch)})


@contextmanager
def _scope(device: Device) -> Iterator[None]:
    try:
        with device.current():
            yield
    except device.out_of_memory as error:
        raise BackendUnavailable(
            f"the GPU's memory is too small for this: {first_line(error)}; pass fewer images at "
            "once, or load in a smaller dtype"
        ) from error
    except device.failures as error:
        raise BackendUnavailable(f"the GPU failed: {first_line(error)}") from error
