"""The backend "numba": AIMv2 on a CPU at the speed of its vector units.

    kernels.py, attention.py   what is computed, in plain Python
    words.py        how tokens are written and weights are read in each number format
    formats.py      float32, bfloat16, int8
    compiled.py     the kernels compiled for an instruction set and a format, and kept on disk
    intrinsics.py   the micro-kernel of all products, and what Numba cannot say
    isa.py          instruction sets and their tiles
    vectors.py      vectors as a type of Numba's; narrow_vectors.py: those of bfloat16 and integers
    packing.py      weights, laid out for the micro-kernel at load
    packed_folder.py   the same, written to a file that a later load maps
    pool.py         the threads
    transformer.py  buffers, and the one call that runs all blocks
    edges.py        what runs before and after them

README.md explains the loops in pictures and how to add an instruction set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numba import config

from ..backend import NUMPY, Backend, host_dtype
from ..errors import BackendUnavailable
from ..weights.tree import BlockParams, LiTParams, VisionParams
from .compiled import kernels_for
from .edges import (
    attention_pool,
    embed_tokens,
    halve,
    linear,
    pack_patches,
    patch_embed,
)
from .formats import DTYPES, TEXT_DTYPE
from .isa import InstructionSet, choose
from .packing import pack, pack_blocks
from .pool import thread_count
from .transformer import transformer

__all__ = ["backend_for", "make_backend", "warm_up"]

Array = Any


def make_backend(device: int | str | None = None) -> Backend:
    """The backend for this processor's best instruction set, or for AIMV2_NP_ISA.

    Raises:
        BackendUnavailable: Numba has no folder for its cache, a device other than the CPU was asked
            for, or the environment forces an instruction set that cannot run here.
    """
    if device not in (None, "cpu"):
        raise BackendUnavailable(f"the numba backend runs on the CPU, not on {device!r}")
    if getattr(config, "DISABLE_JIT", False):
        raise BackendUnavailable(
            "NUMBA_DISABLE_JIT is set, and kernels that are not compiled do not run; unset it, or "
            'load with backend="numpy"'
        )
    isa = choose()
    thread_count()  # says what is wrong with AIMV2_NP_THREADS
    try:
        kernels_for(isa, "float32")  # compiles nothing yet
    except RuntimeError as error:  # Numba's, where it finds no folder for its cache
        raise BackendUnavailable(
            f"Numba has nowhere to keep compiled code: {error}; set NUMBA_CACHE_DIR to a folder "
            "that can be written to"
        ) from error
    return backend_for(isa)


def backend_for(isa: InstructionSet) -> Backend:
    """The backend for an instruction set; tests make those that this processor lacks, too."""
    return replace(
        NUMPY,
        name="numba",
        dtypes=DTYPES,
        asarray=_asarray,
        prepare=partial(_prepare, isa=isa),
        patch_embed=patch_embed,
        embed_tokens=embed_tokens,
        attention_pool=attention_pool,
        transformer=_transformer,
    )


def warm_up(isa: InstructionSet, dtypes: Sequence[str] = DTYPES) -> int:
    """Compile every kernel that the cache on disk lacks; returns how many those were."""
    vector, square = np.ones(8, np.float32), np.ones((8, 8), np.float32)
    one = BlockParams(vector, (square,) * 3, square, vector, square, square, square)
    needed = {*dtypes, *(TEXT_DTYPE[dtype] for dtype in dtypes)}
    for dtype in needed:
        if dtype != "float32":
            halve(square, isa)
        transformer(square[:1], pack_blocks((one,), isa, dtype), 1, 1e-5, 1, lengths=[1])
    linear(square, pack([square], isa, "float32"), vector, isa)  # the patch embedding's
    return sum(len(kernels_for(isa, dtype).compiled) for dtype in {*needed, "float32"})


def _asarray(host: Any, dtype: str) -> Array:
    """Activations outside the blocks are float32, also where `dtype` is one that NumPy lacks."""
    return np.asarray(host, host_dtype(dtype))


def _prepare(params: Any, dtype: str, *, isa: InstructionSet) -> Any:
    """The parameters with the large ones packed; everything else stays in float32."""
    if isinstance(params, LiTParams):
        vision, text = (_prepare(p, dtype, isa=isa) for p in (params.vision, params.text))
        return params._replace(vision=vision, text=text)
    if isinstance(params, VisionParams):
        patches: Any = pack_patches(params.patch_weight, isa)
        params = params._replace(patch_weight=patches)
        return params._replace(blocks=pack_blocks(params.blocks, isa, dtype))
    dtype = TEXT_DTYPE[dtype]
    if dtype != "float32":
        params = params._replace(text_embedding=halve(params.text_embedding, isa))
    return params._replace(blocks=pack_blocks(params.blocks, isa, dtype))


def _transformer(
    be: Backend,
    x: Array,
    blocks: Any,
    heads: int,
    eps: float,
    *,
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
        thread_count(),
        lengths=[tokens] * batch if lengths is None else list(lengths),
        causal=causal,
        key_mask=None if key_mask is None else np.asarray(key_mask),
    )
    return flat.reshape(batch, tokens, width)
