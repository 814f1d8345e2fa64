"""kernels.py, attention.py and words.py compiled for an instruction set and a number format.

Each pair of these gets its own copies of the kernels, whose global names hold its constants and
micro-kernels: no closures, which Numba's cache on disk cannot tell apart. A copy's name carries the
pair and a digest of the sources, so that neither another tile nor an older version of any file is
ever taken from the cache.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import FunctionType, SimpleNamespace
from typing import Any

from numba import njit
from numba.core import event

from . import attention, kernels, words
from .formats import Format, format_of
from .intrinsics import make_microkernel
from .isa import InstructionSet, features
from .narrow_vectors import make_pair, make_store_bfloats, make_widen
from .vectors import make_load, make_splat, make_times_power

__all__ = ["constants", "kernels_for"]

_DEPTH = 512  # words of K at a time: a block's weights, 8 to 24 KB, stay in first-level cache
_GROUP = 8  # panels that a task computes at most: their pieces, 128 to 512 KB, stay in L2,
_LEAST = 4  # and at least, if there are so many
_SHARES = 3  # tiles that bring as many weights nearer as one of them reads
_STACK = 4  # blocks of rows that a task computes, and that use those pieces again
_KEYS = 128  # keys that attention takes at a time
_RUN = 64  # squares that a norm sums before it adds them to the others
_SQUARE = 16  # channels of a token that are transposed together: a cache line of them
_SOME = 1 << 16  # numbers that a task converts
_PATIENCE = 200  # looks at a counter before a waiting thread gives way
_CALLED = ("run_blocks", "linear_all", "pack", "convert", "to_lanes", "from_lanes")  # from Python


def constants(isa: InstructionSet, form: Format) -> dict[str, int]:
    """The capital names in kernels.py, attention.py and words.py."""
    return {
        **{"PANEL": isa.panel, "ROWS": isa.rows, "HALF": isa.rows // 2},
        **{"DEPTH": _DEPTH, "GROUP": _GROUP, "LEAST": _LEAST, "STACK": _STACK, "SHARES": _SHARES},
        **{"HEAD_ROWS": isa.heads_rows, "KEYS": max(_KEYS, isa.panel)},
        **{"RUN": _RUN, "SOME": _SOME, "SQUARE": _SQUARE, "PATIENCE": _PATIENCE},
        **{"CHANNELS": form.channels, "NARROW": form.weights.itemsize},
        "BYTES": isa.rows * form.channels * form.weights.itemsize,  # of a block's weights in a step
        **{"PER": form.per, "PER_HEADS": form.per_heads},
        "SCALED": form.scaled,
        "LOWEST": -152 if _scales(isa) else -126,  # powers of 2 from here on are taken as 0
    }


def _scales(isa: InstructionSet) -> bool:
    """Whether this machine multiplies with a power of 2 in one instruction."""
    return "avx512f" in isa.needs and features().issuperset(isa.needs)


def _forms(form: Format) -> dict[str, str]:
    """Which of the functions in words.py a format takes."""
    narrow = {2: "narrow_to_halves", 4: "narrow_to_bytes"}
    return {
        "put": f"put_{form.per}",
        "put_head": f"put_{form.per_heads}",
        "put_values": f"put_values_{form.per_heads}",
        "place": f"place_{form.per}",
        "place_head": f"place_{form.per_heads}",
        "place_values": "place_1" if form.per_heads == 1 else "place_values_2",
        "ready": "ready_widened" if form.widened else "ready_as_they_are",
        "total": "total_of_integers" if form.scaled else "total_of_numbers",
        "narrow": narrow[form.channels] if form.scaled else "narrow_nothing",
        "put_weights": f"put_weights_{form.dtype}",
    }


@lru_cache
def _digest() -> str:
    """Of the sources that end up in compiled code."""
    here = Path(__file__).parent
    files = ["attention", "compiled", "formats", "intrinsics", "isa", "kernels", "narrow_vectors"]
    files += ["vectors", "words"]
    return hashlib.sha256(b"".join((here / f"{f}.py").read_bytes() for f in files)).hexdigest()[:12]


@lru_cache
def _say(name: str) -> None:
    """One line, once, before the first kernel is compiled; a warm cache compiles nothing."""
    print(
        f"aimv2_np: compiling the kernels for {name}, once (about 10 s for each dtype)",
        file=sys.stderr,
    )


def _watch(version: str, name: str) -> list[str]:
    """The list to which the names of what is compiled will be added."""

    class Notice(event.Listener):
        def on_start(self, compilation: Any) -> None:
            kernel = compilation.data["dispatcher"]
            if not getattr(kernel, "__qualname__", "").endswith(version):
                return  # somebody else's
            compiled.append(kernel.__name__)
            _say(name)

        def on_end(self, compilation: Any) -> None:
            pass

    compiled: list[str] = []
    event.register("numba:compile", Notice())  # type: ignore[no-untyped-call]
    return compiled


def _micro_kernels(isa: InstructionSet, form: Format) -> dict[str, Any]:
    """The tiles of the format, and what else is made for a width of vectors."""
    row = 4 * isa.panel  # bytes from a row of a panel to the next
    product = form.dot, isa.rows, isa.vectors, isa.lanes
    heads = form.heads_dot, isa.heads_rows, isa.vectors, isa.lanes
    wider = "int8" if form.scaled else "bfloat16"
    size = constants(isa, form)
    pairs = form.heads_dot == "bfloats_avx512"
    return {
        "load": make_load(isa.panel),
        "load_one": make_load(1),
        "splat": make_splat(isa.panel),
        "widen": make_widen(wider, isa.panel),
        "widen_one": make_widen(wider, 1),
        "product_tile": make_microkernel(
            *product, a_row=4, a_step=4 * isa.rows, fetched=size["BYTES"] // _SHARES
        ),
        "scores_tile": make_microkernel(*heads, a_row=4, a_step=row, fetched=4 * isa.heads_rows),
        "values_tile": make_microkernel(
            *heads,
            a_row=4 * size["KEYS"] // form.per_heads,  # from a channel's values to the next one's
            a_step=4,
            fetched=4 * isa.heads_rows,
            rescaled=True,
        ),
        "pair": make_pair(native=pairs),
        "store_bfloats": make_store_bfloats(native=pairs),
        "times_power": make_times_power(native=_scales(isa)),
    }


def _compiled(definition: Any, scope: dict[str, Any], version: str) -> Any:
    """A copy of a function with other global names."""
    copy = FunctionType(definition.__code__, scope, definition.__name__)
    copy.__qualname__ = f"{definition.__name__}_{version}"
    copy.__module__ = definition.__module__
    return njit(**_options(definition.__name__))(copy)


def _options(name: str) -> dict[str, Any]:
    """How a function is compiled; what is only called by others needs no wrapper, a quarter less
    to compile.
    """
    inner = name not in _CALLED
    return {
        **{
            "cache": not inner,
            "nogil": True,
            "error_model": "numpy",
            "fastmath": {"contract", "nsz"},
        },
        **{"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner},
    }


_one_at_a_time = Lock()


def _renew() -> None:
    """A forked child may have got the lock while it was held."""
    global _one_at_a_time
    _one_at_a_time = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def kernels_for(isa: InstructionSet, dtype: str) -> SimpleNamespace:
    """The compiled kernels by name; each compiles at its first call unless the cache has it.

    Beside them: `form`, their format; `size`, their constants; `compiled`, which had to be.
    """
    with _one_at_a_time:
        return _made(isa, dtype)


@lru_cache
def _made(isa: InstructionSet, dtype: str) -> SimpleNamespace:
    form = format_of(isa, dtype)
    modules = (kernels, attention, words)
    scope: dict[str, Any] = {}
    for module in modules:
        scope |= vars(module)
    size = constants(isa, form)
    scope |= size | _micro_kernels(isa, form)
    version = f"{_digest()}_{isa.name}_{dtype}"
    compiled = _watch(version, isa.name)
    definitions = [
        member
        for module in modules
        for member in vars(module).values()
        if isinstance(member, FunctionType) and member.__module__ == module.__name__
    ]
    for definition in definitions:
        scope[definition.__name__] = _compiled(definition, scope, version)
    scope |= {name: scope[which] for name, which in _forms(form).items()}
    for finish in kernels.FINISHES:
        own = scope | {"finish": scope[finish]}
        scope[f"multiply_{finish}"] = _compiled(kernels.multiply, own, f"{version}_{finish}")
    found = {f.__name__: scope[f.__name__] for f in definitions if f is not kernels.multiply}
    return SimpleNamespace(**found, load=scope["load"], form=form, size=size, compiled=compiled)
