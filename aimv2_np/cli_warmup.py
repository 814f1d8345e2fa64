"""The command `aimv2-np warmup`: compile the Numba kernels ahead of the first model."""

from __future__ import annotations

import argparse
import time

from .cli_screen import echo, echo_json

__all__ = ["warmup"]


def warmup(args: argparse.Namespace) -> int:
    """Compile what the cache on disk does not have, and say how long it took."""
    from .backend import get_backend

    get_backend("numba")  # its errors say what is missing
    from .numba_backend import warm_up
    from .numba_backend.formats import DTYPES
    from .numba_backend.isa import choose

    isa, began = choose(), time.perf_counter()
    compiled = warm_up(isa, [args.dtype] if args.dtype else DTYPES)
    seconds = time.perf_counter() - began
    if args.json:
        echo_json({"instruction_set": isa.name, "compiled": compiled, "seconds": round(seconds, 3)})
    elif compiled:
        echo(f"{isa.name}: {compiled} kernels compiled in {seconds:.1f} s; the cache keeps them")
    else:
        echo(f"{isa.name}: nothing to compile, the cache has all kernels")
    return 0
