"""kernels.py and attention.py compiled for an instruction set, and kept on disk.

Each instruction set gets its own copies of the kernels, whose global names hold its constants and
micro-kernels: no closures, which Numba's cache on disk cannot tell apart. A copy's name carries the
instruction set and a digest of the sources, so that neither another tile nor an older version of
any file is ever taken from the cache.
"""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from numba import njit
from numba.core import event

from . import attention, kernels
from .intrinsics import make_microkernel
from .isa import InstructionSet
from .vectors import make_load, make_splat

__all__ = ["constants", "kernels_for"]

_DEPTH = 512  # steps of K at a time: a block's weights, 12 to 24 KB, stay in first-level cache
_GROUP = 8  # panels that a task computes: their pieces, 256 or 512 KB, stay in second-level cache
_STACK = 4  # blocks of rows that a task computes, and that use those pieces again
_KEYS = 64  # keys that attention takes at a time
_RUN = 64  # squares that a norm sums before it adds them to the others
_PATIENCE = 200  # looks at a counter before a waiting thread gives way


def constants(isa: InstructionSet) -> dict[str, int]:
    """The capital names in kernels.py and attention.py."""
    return {
        **{"PANEL": isa.panel, "ROWS": isa.rows, "HALF": isa.rows // 2},
        **{"DEPTH": _DEPTH, "GROUP": _GROUP, "STACK": _STACK},
        **{"HEAD_ROWS": isa.heads_rows, "KEYS": max(_KEYS, isa.panel)},
        **{"RUN": _RUN, "PATIENCE": _PATIENCE},
    }


def _digest() -> str:
    """Of the sources that end up in compiled code."""
    here = Path(__file__).parent
    files = ("attention", "compiled", "intrinsics", "isa", "kernels", "vectors")
    return hashlib.sha256(b"".join((here / f"{f}.py").read_bytes() for f in files)).hexdigest()[:12]


def _announce(isa: InstructionSet) -> list[str]:
    """Say so, once, when something has to be compiled; a warm cache compiles nothing.

    Returns the list to which the names of what is compiled will be added.
    """

    class Notice(event.Listener):
        def on_start(self, compilation: Any) -> None:
            kernel = compilation.data["dispatcher"]
            if not getattr(kernel, "__qualname__", "").endswith(f"_{isa.name}"):
                return  # somebody else's
            compiled.append(kernel.__name__)
            if len(compiled) == 1:
                print(
                    f"aimv2_np: compiling the kernels for {isa.name}, once (about 10 s)",
                    file=sys.stderr,
                )

        def on_end(self, compilation: Any) -> None:
            pass

    compiled: list[str] = []
    event.register("numba:compile", Notice())  # type: ignore[no-untyped-call]
    return compiled


@lru_cache
def kernels_for(isa: InstructionSet) -> SimpleNamespace:
    """The compiled kernels by name; each compiles at its first call unless the cache has it.

    `compiled` lists those that had to be.
    """
    tile = {"vectors": isa.vectors, "lanes": isa.lanes}
    row = 4 * isa.panel  # bytes from a channel of a panel to the next
    scope: dict[str, Any] = {
        **vars(kernels),
        **vars(attention),
        **constants(isa),
        "load": make_load(isa.panel),
        "splat": make_splat(isa.panel),
        "product_tile": make_microkernel(isa.rows, **tile, a_row=4, a_step=4 * isa.rows),
        "scores_tile": make_microkernel(isa.heads_rows, **tile, a_row=4, a_step=row),
        "values_tile": make_microkernel(isa.heads_rows, **tile, a_row=row, a_step=4),
    }
    version = f"{_digest()}_{isa.name}"
    compiled = _announce(isa)
    definitions = [
        member
        for module in (kernels, attention)
        for member in vars(module).values()
        if isinstance(member, FunctionType) and member.__module__ == module.__name__
    ]
    for definition in definitions:
        copy = FunctionType(definition.__code__, scope, definition.__name__)
        copy.__qualname__ = f"{definition.__name__}_{version}"
        copy.__module__ = definition.__module__
        scope[definition.__name__] = njit(
            cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}
        )(copy)
    found = {f.__name__: scope[f.__name__] for f in definitions}
    return SimpleNamespace(**found, load=scope["load"], compiled=compiled)
