"""Backends: tables of functions that compute what `ops.py` defines.

The NumPy backend is the table with nothing replaced. Another backend is such a table with some
entries replaced, built in or offered by a plug-in under the entry-point group
"aimv2_np.backends": the entry point names a function `device -> Backend`. The model calls
`be.<op>` and never asks which backend it has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

import numpy as np

from . import layers, ops
from .errors import BackendUnavailable
from .weights.tree import with_blocks

__all__ = [
    "AUTO",
    "NUMPY",
    "Backend",
    "available_backends",
    "get_backend",
    "host_dtype",
    "in_scope",
]

ENTRY_POINT_GROUP = "aimv2_np.backends"
AUTO = "numba"  # what "auto" stands for: the fastest on a CPU

Op = Callable[..., Any]
Method = TypeVar("Method", bound=Callable[..., Any])


def _as_they_are(params: Any, dtype: str) -> Any:
    """All blocks at once: arrays that look into the files, or were converted once and for all."""
    return with_blocks(params, tuple)


@dataclass(frozen=True)
class Backend:
    """What a model needs in order to run; every default is the definition itself.

    The fine entries stand for one step each. The coarse ones, `block`, `transformer` and
    `attention_pool`, are where a fast backend fuses: they take the backend itself first, and their
    defaults compose the finer ones. A trace always runs the composed form, so that every activation
    exists; `block` and `attention_pool` get the tap that keeps nothing. `transformer` also takes
    sequences of different `lengths` that lie one after another, as in `layers.transformer`: each
    sees itself alone. (In NumPy and Numba no bit of one depends on the others; a library's products
    may round otherwise where there are more rows.)

    `dtypes` are names that a user passes to `load`. They may be ones that NumPy lacks or that stand
    for more than an array's dtype, "bfloat16" and "int8": on the host everything is then float32.

    `prepare` gets parameters in `host_dtype(dtype)` whose blocks are yet unread, so that one after
    the other can be packed or uploaded: `with_blocks(params, lambda blocks: tuple(map(pack,
    blocks)))` of weights/tree.py. Reading them finds what is wrong with a file, so it must do so.

    `offloads`: images are prepared in threads while the device computes, those of one size run as
    one batch, and results, which `fetch` begins to bring to the host, are waited for when the next
    batch is on its way.

    Pixels that lie on the backend's device, from `normalize` or a user, come through `from_dlpack`,
    and `asarray` casts them.

    Parameters are what `prepare` returned. Activations are what `asarray` and the ops return; they
    must support `+`, `*`, indexing, `reshape`, `swapaxes`, `shape` and `T`, and `@` with what
    `softmax` returns. Token ids, `key_mask` and the index of each text's end arrive as NumPy
    arrays.
    """

    name: str
    dtypes: tuple[str, ...]
    offloads: bool = False  # a device computes, and the host goes on

    scope: Op = nullcontext  # () -> a context in which operators on its arrays are right
    asarray: Op = np.asarray  # (host array, dtype) -> array
    to_numpy: Op = np.asarray  # array -> host array
    fetch: Op | None = None  # array -> a function that waits for the host's; None: to_numpy does
    concatenate: Op = np.concatenate  # (arrays, axis) -> array
    from_dlpack: Op = np.from_dlpack  # another library's array on this device -> array
    broadcast_to: Op = np.broadcast_to  # (array, shape) -> array
    prepare: Op = _as_they_are  # (params, dtype) -> params, once per load: upload, pack

    normalize: Op = ops.normalize  # host bytes (..., Y, X, C), (C, 256) values -> (..., C, Y, X)
    patch_embed: Op = ops.patch_embed  # (B, C, Y, X) -> (B, N, D)
    embed_tokens: Op = ops.embed_tokens  # (B, T) -> (B, T, D)
    rms_norm: Op = ops.rms_norm  # (..., D) -> (..., D)
    linear: Op = ops.linear  # (..., I) -> (..., O)
    silu: Op = ops.silu
    softmax: Op = ops.softmax
    attention_scores: Op = ops.attention_scores  # (B, H, N, E), (B, H, M, E) -> (B, H, N, M)
    attention: Op = ops.attention  # (B, H, N, E), twice (B, H, M, E) -> (B, H, N, E)
    l2_normalize: Op = ops.l2_normalize  # (..., D) -> (..., D)

    block: Op = layers.block  # (B, N, D) -> (B, N, D)
    transformer: Op = layers.transformer  # all blocks; with lengths=, sequences that lie packed
    attention_pool: Op = layers.attention_pool  # (B, N, D) -> (B, D)


NUMPY = Backend("numpy", dtypes=("float32", "float64"))


def in_scope(method: Method) -> Method:
    """A method of a model that computes with operators, in the scope of its backend."""

    @wraps(method)
    def run(self: Any, *args: Any, **how: Any) -> Any:
        with self.backend.scope():
            return method(self, *args, **how)

    return cast(Method, run)


def host_dtype(dtype: str) -> np.dtype[Any]:
    """In which NumPy holds pixels, positions and parameters of a model that computes in `dtype`."""
    return np.dtype(dtype if dtype in ("float16", "float32", "float64") else "float32")


def _plugins() -> dict[str, EntryPoint]:
    """What is imported only when it is asked for: the built-in backend "numba", then plug-ins."""
    built_in = EntryPoint("numba", "aimv2_np.numba_backend:make_backend", ENTRY_POINT_GROUP)
    found = {built_in.name: built_in}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(point.name, point)
    return found


def available_backends() -> dict[str, str]:
    """Every known backend with "" if it can run here, else the reason why not."""
    reasons = {"numpy": ""}
    for name in _plugins():
        try:
            get_backend(name)
            reasons[name] = ""
        except BackendUnavailable as error:
            reasons[name] = str(error)
    return reasons


def get_backend(name: str | Backend = "auto", *, device: int | str | None = None) -> Backend:
    """The backend of a name; "auto" is the fastest one that this version has for a CPU.

    "module:function" is a plug-in that no distribution names yet.

    Raises:
        BackendUnavailable: no such backend, or it cannot run here. Nothing falls back silently.
    """
    if isinstance(name, Backend):
        if device is not None:
            raise BackendUnavailable(f"a Backend was passed: make it for {device=} yourself")
        return name
    if name == "auto":
        name = AUTO
    if name == "numpy":
        if device not in (None, "cpu"):
            raise BackendUnavailable(f"the numpy backend runs on the CPU, not on {device!r}")
        return NUMPY
    plugins = _plugins()
    if ":" in name:  # one that is being written
        plugins[name] = EntryPoint(name, name, ENTRY_POINT_GROUP)
    if name not in plugins:
        known = ", ".join(["auto", "numpy", *plugins])
        raise BackendUnavailable(f"there is no backend {name!r}; here: {known}")
    try:
        backend = plugins[name].load()(device)
    except BackendUnavailable:
        raise
    except Exception as error:  # a plug-in is foreign code: whatever breaks in it is its failure
        raise BackendUnavailable(
            f"the plug-in for backend {name!r} ({plugins[name].value}) failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(backend, Backend):
        raise BackendUnavailable(f"the plug-in for backend {name!r} returned {type(backend)}")
    return backend
