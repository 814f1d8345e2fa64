"""A CUDA backend for aimv2_np: `aimv2_np.load(..., backend="cupy", device=0)`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimv2_np.backend import Backend

__all__ = ["make_backend"]


def make_backend(device: int | str | None = None) -> Backend:
    """The backend for a GPU: 0, "0", "cuda:0", or several, "0,1": each computes a part of a batch.

    Raises:
        BackendUnavailable: CUDA cannot be used here; says why, and what to do.
    """
    from .device import Cuda
    from .guard import guarded
    from .machine import Machine, devices_of, require_dtype
    from .table import table

    machine = Machine()
    indices = devices_of(machine, device)
    cudas = [Cuda(index) for index in indices]
    backend = table(*cudas)
    prepare = partial(_prepare, backend.prepare, partial(require_dtype, machine, indices))
    backend = replace(backend, prepare=prepare)
    return guarded(backend, cudas[0])


def _prepare(prepare: Any, require: Any, params: Any, dtype: str) -> Any:
    """As `prepare`, where the device has units for the dtype."""
    require(dtype)
    return prepare(params, dtype)
