"""What a kernel takes of a multiprocessor: registers, spills, shared memory; ptxas says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .compiling import KERNELS, compile_cubin

ARCHITECTURES = (80, 90, 100, 120)  # A100; H100, H200; B200; RTX 50


class Usage(NamedTuple):
    """Registers and bytes of spills and stack of a thread, bytes of shared memory of a block."""

    registers: int
    spills: int
    stack: int
    shared: int


def usage(log: str) -> dict[str, Usage]:
    """The report in NVRTC's log, by entry."""
    found = {}
    for part in log.split("Compiling entry function ")[1:]:
        entry = re.match(r"'(\w+)'", part)
        assert entry is not None, part
        found[entry[1]] = Usage(
            registers=_number(r"Used (\d+) registers", part),
            spills=_number(r"(\d+) bytes spill stores", part)
            + _number(r"(\d+) bytes spill loads", part),
            stack=_number(r"(\d+) bytes stack frame", part),
            shared=_number(r"(\d+) bytes smem", part, missing=0),
        )
    return found


def _number(pattern: str, text: str, missing: int | None = None) -> int:
    match = re.search(pattern, text)
    if match is None and missing is None:
        raise ValueError(f"ptxas said nothing like {pattern!r}:\n{text}")
    return int(match[1]) if match else int(missing or 0)


def usages(include_dirs: Sequence[Path]) -> Iterator[tuple[str, str, int, Usage]]:
    """Every entry for every dtype and architecture, compiled now: (entry, dtype, arch, usage)."""
    for name, kernel in KERNELS.items():
        for dtype in kernel.dtypes:
            for arch in ARCHITECTURES:
                _, log = compile_cubin(name, dtype, arch, include_dirs)
                yield from ((entry, dtype, arch, used) for entry, used in usage(log).items())


def report(found: Iterable[tuple[str, str, int, Usage]]) -> str:
    """The table in reports/ptxas.txt: `python -m aimv2_np_cupy.ptxas > reports/ptxas.txt`."""
    from cupy_backends.cuda.libs import nvrtc

    version = ".".join(map(str, nvrtc.getVersion()))
    head = f"NVRTC {version}; bytes of shared memory per block, the rest per thread\n"
    head += f"{'entry':16} {'dtype':9} {'arch':>6} {'registers':>9} {'spills':>6} {'shared':>6}\n"
    return head + "".join(
        f"{entry:16} {dtype:9} {f'sm_{arch}':>6} {u.registers:9} {u.spills:6} {u.shared:6}\n"
        for entry, dtype, arch, u in sorted(found)
    )


if __name__ == "__main__":
    from .compiling import wheel_include_dirs

    print(report(usages(wheel_include_dirs())), end="")
