"""The backend "numba": AIMv2 on a CPU at the speed of its vector units.

    kernels.py      what is computed, in plain Python
    compiled.py     the same, compiled for an instruction set and kept on disk
    intrinsics.py   the micro-kernel of all products, and what Numba cannot say
    isa.py          instruction sets and their tiles
    packing.py      weights, laid out for the micro-kernel at load
    pool.py         the threads
    transformer.py  buffers, and the one call that runs all blocks

README.md explains the loops in pictures and how to add an instruction set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..backend import NUMPY, Backend, host_dtype
from ..errors import BackendUnavailable
from ..weights.tree import BlockParams, Blocks, with_blocks
from .compiled import kernels_for
from .isa import InstructionSet, choose
from .packing import PackedBlocks, pack_blocks
from .pool import thread_count
from .transformer import transformer

__all__ = ["make_backend", "warm_up"]

Array = Any


def make_backend(device: int | str | None = None) -> Backend:
    """The backend for this processor's best instruction set, or for AIMV2_NP_ISA.

    Raises:
        BackendUnavailable: Numba has no folder for its cache, a device other than the CPU was asked
            for, or the environment forces an instruction set that cannot run here.
    """
    if device not in (None, "cpu"):
        raise BackendUnavailable(f"the numba backend runs on the CPU, not on {device!r}")
    isa = choose()
    try:
        kernels_for(isa)  # compiles nothing yet
    except RuntimeError as error:  # Numba's, where it finds no folder for its cache
        raise BackendUnavailable(
            f"Numba has nowhere to keep compiled code: {error}; set NUMBA_CACHE_DIR to a folder "
            "that can be written to"
        ) from error
    return replace(
        NUMPY,
        name="numba",
        dtypes=("float32",),
        asarray=_asarray,
        prepare=partial(_prepare, isa=isa),
        transformer=partial(_transformer, isa=isa),
    )


def warm_up(isa: InstructionSet) -> int:
    """Compile every kernel that the cache on disk lacks; returns how many those were."""
    vector, square = np.ones(8, np.float32), np.ones((8, 8), np.float32)
    one = BlockParams(vector, (square,) * 3, square, vector, square, square, square)
    transformer(square[:1], pack_blocks((one,), isa), 1, 1e-5, isa, 1, lengths=[1])
    return len(kernels_for(isa).compiled)


def _asarray(host: Any, dtype: str) -> Array:
    """Activations outside the blocks are float32, also where `dtype` is one that NumPy lacks."""
    return np.asarray(host, host_dtype(dtype))


def _prepare(params: Any, dtype: str, *, isa: InstructionSet) -> Any:
    """The parameters with all blocks packed; everything else stays as it is."""
    return with_blocks(params, partial(_pack, isa=isa))


def _pack(blocks: Blocks, isa: InstructionSet) -> PackedBlocks:
    """pack_blocks on one block after the other, so that never two are in memory unpacked."""

    def alone(block: BlockParams) -> PackedBlocks:
        return pack_blocks((block,), isa)

    each = list(map(alone, blocks))
    norms = np.concatenate([one.norms for one in each])
    return PackedBlocks(norms, tuple(one.weights[0] for one in each), each[0].hidden)


def _transformer(
    be: Backend,
    x: Array,
    blocks: Any,
    heads: int,
    eps: float,
    *,
    isa: InstructionSet,
    lengths: Sequence[int] | None = None,
    causal: bool = False,
    key_mask: Array | None = None,
) -> Array:
    """layers.transformer, fused: (B, N, D) to (B, N, D); `lengths` of what lies packed in one."""
    batch, tokens, width = x.shape
    flat = transformer(
        x.reshape(-1, width),
        blocks,
        heads,
        eps,
        isa,
        thread_count(),
        lengths=[tokens] * batch if lengths is None else list(lengths),
        causal=causal,
        key_mask=None if key_mask is None else np.asarray(key_mask),
    )
    return flat.reshape(batch, tokens, width)
