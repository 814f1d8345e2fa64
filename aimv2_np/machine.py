"""What the machine can do: processor, cores, memory, instruction sets, and NumPy's BLAS.

Only looked at, never changed. What a system does not tell is None.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["blas", "cores", "instruction_sets", "memory", "processor"]

# Those that matter to matrix products, as Linux names them: x86, then ARM.
_INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
_THREADS = tuple(
    f"{prefix}openblas_get_num_threads{suffix}"
    for prefix in ("scipy_", "")
    for suffix in ("64_", "", "_64")
)


def _read(path: str) -> str:
    """A small file of the system; empty where there is none."""
    with suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def _field(text: str, *names: str) -> str | None:
    """The value of the first "name : value" line with one of the names."""
    for name in names:
        if match := re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE):
            return match[1].strip()
    return None


def processor() -> str | None:
    """What the processor calls itself."""
    named = _field(_read("/proc/cpuinfo"), "model name", "Model", "Hardware")
    return named or platform.processor() or platform.machine() or None


def instruction_sets() -> list[str]:
    """Those of the processor that matter here; where the system does not list them, NumPy's."""
    listed = _field(_read("/proc/cpuinfo"), "flags", "Features")
    if listed is not None:
        return [name for name in _INSTRUCTION_SETS if name in listed.split()]
    found = _numpy_config().get("SIMD Extensions", {})
    return [*found.get("baseline", []), *found.get("found", [])]


def cores() -> dict[str, Any]:
    """How many logical cores there are, may be used, and are granted (a container's quota)."""
    usable = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    granted = None
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal() and int(quota[1]):
        granted = round(int(quota[0]) / int(quota[1]), 2)
    return {"present": os.cpu_count(), "usable": usable, "granted": granted}


def memory() -> dict[str, int | None]:
    """Bytes of memory: in the machine, available now, and a container's limit."""
    listed = _read("/proc/meminfo")
    total, available = (_kilobytes(_field(listed, name)) for name in ("MemTotal", "MemAvailable"))
    if total is None and hasattr(os, "sysconf"):
        with suppress(ValueError, OSError):
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return {
        "total": total,
        "available": available,
        "limit": int(limit) if limit.isdecimal() else None,
    }


def _kilobytes(text: str | None) -> int | None:
    match = re.match(r"(\d+) kB", text or "")
    return 1024 * int(match[1]) if match else None


# ---------------------------------------------------------------------------- BLAS


def _numpy_config() -> dict[str, Any]:
    try:
        import numpy as np
    except ImportError:  # the doctor says so in another place
        return {}
    return dict(np.show_config(mode="dicts") or {})


def blas() -> dict[str, Any]:
    """The BLAS that NumPy was built with: its name and version, and the threads it runs."""
    built = _numpy_config().get("Build Dependencies", {}).get("blas", {})
    return {
        "name": built.get("name"),
        "version": built.get("version"),
        "threads": _openblas_threads(),
    }


def _openblas_threads() -> int | None:
    """Asks the OpenBLAS in this process; None where it is another BLAS or cannot be found."""
    for path in sorted(set(re.findall(r"/\S*openblas\S*", _read("/proc/self/maps")))):
        with suppress(OSError):
            library = ctypes.CDLL(path)
            for name in _THREADS:
                if hasattr(library, name):
                    return int(getattr(library, name)())
    return None
