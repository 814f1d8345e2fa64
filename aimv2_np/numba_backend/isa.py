"""Instruction sets: how wide a vector is, and which tile keeps the most of it in registers.

A tile is `rows` output channels × `vectors` vectors of tokens. All of its sums stay in registers
while the product walks along K, so rows · vectors + vectors + 1 must not exceed the registers (one
more where a product needs a register before it is added). `heads_rows` is the same for attention,
where it must divide the tokens of a panel.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache

from ..errors import BackendUnavailable

__all__ = ["FORCE", "INSTRUCTION_SETS", "InstructionSet", "choose"]

FORCE = "AIMV2_NP_ISA"  # environment variable: the name of an instruction set, for tests


@dataclass(frozen=True)
class InstructionSet:
    """One row of the table: what the kernels are generated for."""

    name: str
    needs: tuple[str, ...]  # features of the processor, as LLVM names them
    lanes: int  # float32 numbers in a vector
    rows: int
    vectors: int
    heads_rows: int
    bfloat16: str = ""  # the entry of intrinsics.DOTS that multiplies pairs of bfloat16, if any,
    int8: str = ""  # and the one for four bytes

    @property
    def panel(self) -> int:
        """Tokens in a panel."""
        return self.lanes * self.vectors


_AVX512 = ("avx512f", "avx512bw", "avx512vl")
_VNNI, _BF16 = (*_AVX512, "avx512vnni"), (*_AVX512, "avx512vnni", "avx512bf16")
INSTRUCTION_SETS = (  # the best first; 32 registers, but AVX2 and plain: 16
    InstructionSet("avx512bf16", _BF16, 16, 12, 2, 8, "bfloats_avx512", "bytes_avx512"),
    InstructionSet("avx512vnni", _VNNI, 16, 12, 2, 8, "", "bytes_avx512"),
    InstructionSet("avx512", _AVX512, 16, 12, 2, 8),
    InstructionSet("avx2", ("avx2", "fma"), 8, 6, 2, 4),
    InstructionSet("neon", ("neon",), 4, 8, 2, 8),
    InstructionSet("plain", (), 4, 4, 2, 4),  # what LLVM makes of it anywhere
)


@lru_cache
def features() -> frozenset[str]:
    """Of the processor that Numba compiles for, in LLVM's words."""
    from llvmlite import binding

    if os.environ.get("NUMBA_CPU_NAME", "host") != "host" or "NUMBA_CPU_FEATURES" in os.environ:
        named = os.environ.get("NUMBA_CPU_FEATURES", "").split(",")  # +avx2,-avx512f
        return frozenset(name[1:] for name in named if name.startswith("+"))

    found = {name for name, there in binding.get_host_cpu_features().items() if there}
    return frozenset(found) | ({"neon"} if platform.machine() in ("arm64", "aarch64") else set())


def choose() -> InstructionSet:
    """The best one, or the one that the environment asks for.

    Raises:
        BackendUnavailable: the environment asks for one that does not exist or cannot run here.
    """
    there = features()
    here = {isa.name: isa for isa in INSTRUCTION_SETS if there.issuperset(isa.needs)}
    name = os.environ.get(FORCE)
    if not name:
        return next(iter(here.values()))
    if name not in here:
        raise BackendUnavailable(
            f"{FORCE}={name}: this processor runs {', '.join(here)}; unset it to take the best"
        )
    return here[name]
