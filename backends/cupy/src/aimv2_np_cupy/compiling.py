"""From a kernel's name to machine code: the sources in kernels/, their defines, NVRTC's options.

Nothing here needs a device or a driver, so that a machine without either can compile every kernel
for any architecture. What NVRTC prints with `--ptxas-options=-v` is kept: `ptxas.py` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).parent / "kernels"
HEADERS = ("common.cuh", "ptx.cuh")

# The C++ type in which a dtype is stored.
STORAGE = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}


@dataclass(frozen=True)
class Kernel:
    """One source file: the functions that can be launched, and the dtypes it compiles for."""

    entries: tuple[str, ...]
    dtypes: tuple[str, ...] = tuple(STORAGE)


KERNELS = {
    "rms_norm": Kernel(("rms_norm", "rms_norm_stream")),
    "swiglu": Kernel(("swiglu",)),
    "normalize": Kernel(("normalize",), ("float32",)),
    "patchify": Kernel(("patchify",)),
    "pool": Kernel(("pool",)),
    "attention": Kernel(("attention_64", "attention_128"), ("float16", "bfloat16")),
    "attention_plain": Kernel(("attention_plain",)),
}


class CompilationFailed(Exception):
    """NVRTC refused a kernel; `log` is what it printed."""

    def __init__(self, name: str, dtype: str, arch: int, log: str) -> None:
        super().__init__(f"kernel {name} in {dtype} does not compile for sm_{arch}:\n{log}")
        self.log = log


def source(name: str) -> str:
    """The text of a kernel's file, or of a header."""
    return (SOURCES / (name if name in HEADERS else f"{name}.cu")).read_text(encoding="utf-8")


def options(dtype: str, arch: int, include_dirs: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """NVRTC's options: `arch` is 90 for sm_90, `include_dirs` hold cuda_fp16.h and its like."""
    return (
        f"--gpu-architecture=sm_{arch}",
        "--std=c++17",
        f"--define-macro=STORAGE={STORAGE[dtype]}",
        "--ptxas-options=-v",
        *(f"--include-path={folder}" for folder in include_dirs),
    )


def compile_cubin(
    name: str, dtype: str, arch: int, include_dirs: Sequence[str | Path] = ()
) -> tuple[bytes, str]:
    """The cubin of a kernel and the compiler's log.

    Raises `ValueError` for a kernel or dtype that does not exist, `CompilationFailed` with the
    log where NVRTC refuses.
    """
    if name not in KERNELS:
        raise ValueError(f"no kernel {name!r}; there are {', '.join(KERNELS)}")
    if dtype not in KERNELS[name].dtypes:
        raise ValueError(f"{name} has no {dtype!r}; it has {', '.join(KERNELS[name].dtypes)}")
    from cupy_backends.cuda.libs import nvrtc

    texts = [source(header).encode() for header in HEADERS]
    names = [header.encode() for header in HEADERS]
    program = nvrtc.createProgram(source(name), f"{name}.cu", texts, names)
    try:
        nvrtc.compileProgram(program, options(dtype, arch, include_dirs))
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program) or str(error)
        raise CompilationFailed(name, dtype, arch, log) from error
    finally:
        nvrtc.destroyProgram(program)


def file_of(entry: str) -> str:
    """The kernel, and so the file, that a function belongs to."""
    return next(name for name, kernel in KERNELS.items() if entry in kernel.entries)


def include_dirs() -> list[Path]:
    """Where NVRTC finds cuda_fp16.h and its like: in NVIDIA's wheels of its CUDA, or a toolkit."""
    from cupy_backends.cuda.libs import nvrtc

    of_13 = nvrtc.getVersion()[0] >= 13
    wheels = [folder for folder in wheel_include_dirs() if (folder.parent.name == "cu13") == of_13]
    toolkit = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "include"
    return [*wheels, *([toolkit] if toolkit.is_dir() else [])]


def wheel_include_dirs() -> list[Path]:
    """The folders of headers in NVIDIA's wheels, if they are installed.

    nvidia/<library>/include for CUDA 12, nvidia/cu13/include for CUDA 13.
    """
    spec = find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or ())
    return [folder for root in roots for folder in sorted(Path(root).glob("*/include"))]
