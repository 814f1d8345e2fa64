"""Every entry of a backend's table on its own device, with errors in our words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from typing import Any

from aimv2_np.backend import Backend
from aimv2_np.errors import BackendUnavailable

from .device import Device

__all__ = ["guarded"]


def guarded(backend: Backend, device: Device) -> Backend:
    """The same table; each entry runs on its device.

    Memory that runs out is a BackendUnavailable that says what to do, and what CUDA's libraries
    raise is one, too.
    """

    def guard(op: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(op)
        def run(*args: Any, **how: Any) -> Any:
            try:
                with device.current():
                    return op(*args, **how)
            except device.out_of_memory as error:
                said = str(error).splitlines()[0] if str(error) else "it is full"
                raise BackendUnavailable(
                    f"the GPU's memory is too small for this: {said}; pass fewer images at once, "
                    "or load in a smaller dtype"
                ) from error
            except device.failures as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise BackendUnavailable(f"the GPU failed: {said}") from error

        return run

    entries = {f.name: getattr(backend, f.name) for f in fields(backend)}
    guards: dict[str, Any] = {
        name: guard(entry) for name, entry in entries.items() if callable(entry) and name != "scope"
    }
    return replace(backend, **guards)
