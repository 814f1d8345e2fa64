"""The runs that are set side by side: the truth in float64, and correct runs in a dtype.

How much a correct implementation errs is measured, not assumed: float32 as the definitions have it,
and in the forms of fast kernels with sums in other orders (forms.py); bfloat16 and float16 with
every activation and every weight rounded, likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from ..backend import NUMPY, Backend
from ..config import LiTConfig
from ..errors import VerificationError
from ..models import LiT, VisionEncoder
from ..ops import Array
from ..weights.tree import BlockParams, with_blocks
from .forms import fused
from .walk import Model, See

__all__ = [
    "DTYPES",
    "LAZY",
    "Lane",
    "as_dtype",
    "cast_tree",
    "is_small",
    "lanes",
    "rounded",
    "truth",
]

_SMALL = 512  # wide
_SEEDS = (0, 1)  # of the orders of sums
DTYPES = ("float64", "float32", "float16", "bfloat16")  # the most precise first

# Blocks stay in the files until a section needs one.
LAZY = replace(NUMPY, prepare=lambda params, dtype: params)


def as_dtype(name: Any) -> str:
    """One of DTYPES.

    Raises:
        VerificationError: another one.
    """
    if str(name) not in DTYPES:
        raise VerificationError(f"dtype {name}: a candidate computes in {', '.join(DTYPES)}")
    return str(name)


def rounded(value: Array, dtype: str) -> Array:
    """A value as the nearest number of a dtype, in the array's own dtype."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.floating):
        return value
    if dtype == "bfloat16":
        bits = np.atleast_1d(value.astype(np.float32)).view(np.uint32)
        odd = (bits >> 16) & 1  # half-way goes to the even one
        wide = ((bits + 0x7FFF + odd) & np.uint32(0xFFFF0000)).view(np.float32)
        wide = np.where(np.isfinite(value), wide.reshape(value.shape), value)
        return np.asarray(wide, dtype=value.dtype)
    with np.errstate(over="ignore"):
        return np.asarray(value.astype(dtype).astype(value.dtype))


@dataclass(frozen=True)
class Lane:
    """A model that runs beside others, and what happens to each of its activations."""

    model: Model
    see: See


def truth(model: Model) -> Model:
    """The model in float64, its blocks read when they are needed, or kept if it is small."""

    def wide(array: Array) -> Array:
        return np.asarray(array, np.float64)

    return _rebuilt(model, NUMPY, "float64", wide, keep=is_small(model))


def is_small(model: Model) -> bool:
    """Whether its blocks are worth keeping, and its products too small to share."""
    config: Any = getattr(model.config, "vision", model.config)
    return bool(config.hidden_size <= _SMALL)


def lanes(model: Model, dtype: str) -> list[Lane]:
    """Correct runs in a dtype, from the model in float64."""
    if dtype in ("float64", "float32"):
        cast = _caster(dtype)
        return [
            Lane(_rebuilt(model, backend, dtype, cast), lambda name, value: value)
            for backend in (NUMPY, *map(fused, _SEEDS))
        ]

    def narrow(array: Array) -> Array:
        return rounded(np.asarray(array, np.float32), dtype)

    def see(name: str, value: Array) -> Array:
        if name == "logit_scale":  # its logarithm is what is kept
            value = np.exp(rounded(np.log(value), dtype))
        return rounded(value, dtype)

    return [Lane(_rebuilt(model, be, "float32", narrow), see) for be in (NUMPY, fused(_SEEDS[0]))]


def _caster(dtype: str) -> Callable[[Array], Array]:
    return lambda array: np.asarray(array, dtype)


# ---------------------------------------------------------------------------- parameters


def _rebuilt(
    model: Model, be: Backend, dtype: str, cast: Callable[[Array], Array], *, keep: bool = False
) -> Model:
    """The same model with every parameter cast, blocks when they are asked for or to `keep`."""
    hold: Any = tuple if keep else lambda blocks: blocks
    params = with_blocks(model.params, lambda blocks: hold(_CastBlocks(blocks, cast)))
    kind: Any = LiT if isinstance(model.config, LiTConfig) else VisionEncoder
    rebuilt: Model = kind(model.config, cast_tree(params, cast), be, dtype)
    vars(rebuilt)["planted"] = getattr(model, "planted", ())  # a model with quirks keeps them
    return rebuilt


def cast_tree(value: Any, cast: Callable[[Array], Array]) -> Any:
    """A tree of parameters with every array cast."""
    if isinstance(value, _CastBlocks) or value is None:
        return value
    if hasattr(value, "_fields"):
        return type(value)(*(cast_tree(inner, cast) for inner in value))
    if isinstance(value, tuple):
        return tuple(cast_tree(inner, cast) for inner in value)
    return cast(value)


@dataclass(frozen=True, eq=False)
class _CastBlocks(Sequence[BlockParams]):
    """Blocks that are cast when they are asked for; none is kept."""

    blocks: Sequence[BlockParams]
    cast: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[BlockParams]:
        return (cast_tree(block, self.cast) for block in self.blocks)

    @overload
    def __getitem__(self, i: int) -> BlockParams: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[BlockParams]: ...
    def __getitem__(self, i: Any) -> Any:
        found = self.blocks[i]
        return cast_tree(found, self.cast)
