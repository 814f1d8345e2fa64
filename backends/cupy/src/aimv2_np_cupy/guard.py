"""Every entry of a backend's table on its own device, with errors in our words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from functools import wraps
from typing import Any

from aimv2_np.backend import Backend
from aimv2_np.errors import BackendUnavailable

__all__ = ["guarded"]


def guarded(
    backend: Backend,
    on_device: Callable[[], AbstractContextManager[Any]],
    out_of_memory: type[BaseException],
) -> Backend:
    """The same table; each entry runs in `on_device()`.

    Memory that runs out is a BackendUnavailable that says what to do, not CuPy's error.
    """

    def guard(op: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(op)
        def run(*args: Any, **how: Any) -> Any:
            try:
                with on_device():
                    return op(*args, **how)
            except out_of_memory as error:
                said = str(error).splitlines()[0] if str(error) else "it is full"
                raise BackendUnavailable(
                    f"the GPU's memory is too small for this: {said}; pass fewer images at once, "
                    "or load in a smaller dtype"
                ) from error

        return run

    entries = {f.name: getattr(backend, f.name) for f in fields(backend)}
    guards: dict[str, Any] = {name: guard(e) for name, e in entries.items() if callable(e)}
    return replace(backend, **guards)
