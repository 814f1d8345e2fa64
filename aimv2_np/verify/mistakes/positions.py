"""Where a patch is: learned tables and two-dimensional sines and cosines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops import Array
from ..lanes import rounded
from ..walk import Step
from . import Patch, mistake

_RIGHT = "[sin x | cos x | sin y | cos y], x the column, angle = coordinate / 10000^(i / (width/4))"


def _coordinates(s: Step) -> tuple[Array, Array]:
    """The column and the row of each patch, both (N,)."""
    rows, columns = s.grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    return 1.0 * x, 1.0 * y


def _frequency(s: Step, base: float = 10000.0) -> Array:
    """Of the sines and cosines, (D/4,)."""
    quarter = s.value.shape[-1] // 4
    return np.asarray(base ** (-np.arange(quarter) / quarter))


def _angles(s: Step) -> tuple[Array, Array]:
    """Of columns and of rows, each (N, D/4)."""
    x, y = _coordinates(s)
    return np.outer(x, _frequency(s)), np.outer(y, _frequency(s))


def _layout(x: Array, y: Array) -> Array:
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def _sincos(id: str, **about: Any) -> Callable[[Patch], Patch]:
    """Enter a mistake in computed positions: where they are learned it changes nothing."""

    def enter(positions: Patch) -> Patch:
        def patch(s: Step) -> Any:
            return positions(s) if s.encoder.params.pos_embed is None else s.value

        mistake(id, "vision.pos_embed", **about)(patch)
        return positions

    return enter


@_sincos(
    "sincos-order",
    says="the row's half of the positions comes first",
    remedy=f"the column comes first: {_RIGHT}",
    seen_in="ports, ViT-MAE helpers",
)
def sincos_order(s: Step) -> Any:
    """[sin y | cos y | sin x | cos x]."""
    x, y = _angles(s)
    return _layout(y, x)


@_sincos(
    "sincos-interleaved",
    says="sines and cosines alternate instead of lying one after the other",
    remedy=_RIGHT,
    seen_in="ports",
)
def sincos_interleaved(s: Step) -> Any:
    """[sin x0, cos x0, sin x1, ...]."""
    halves = [np.stack([np.sin(a), np.cos(a)], axis=-1).reshape(len(a), -1) for a in _angles(s)]
    return np.concatenate(halves, axis=1)


@_sincos("sincos-cos-first", says="the cosines come before the sines", remedy=_RIGHT)
def sincos_cos_first(s: Step) -> Any:
    """[cos x | sin x | cos y | sin y]."""
    x, y = _angles(s)
    return np.concatenate([np.cos(x), np.sin(x), np.cos(y), np.sin(y)], axis=1)


def _narrow(id: str, dtype: str) -> None:
    """Coordinates, frequencies, angles and what is made of them, all in a small dtype."""

    @_sincos(
        id,
        rough=True,
        says=f"the angles of the positions are computed in {dtype}",
        remedy="compute the angles in float32 or float64, and cast the sines and cosines",
        seen_in="older transformers",
    )
    def positions(s: Step) -> Any:
        frequency = rounded(_frequency(s), dtype)
        angles = (np.outer(rounded(axis, dtype), frequency) for axis in _coordinates(s))
        return rounded(_layout(*(rounded(angle, dtype) for angle in angles)), dtype)


_narrow("sincos-dtype", "bfloat16")
_narrow("sincos-dtype-fp16", "float16")


@_sincos(
    "sincos-half",
    says="the positions' exponents run to width/2 instead of width/4 (or the base is 100)",
    remedy=_RIGHT,
)
def sincos_half(s: Step) -> Any:
    """i / (width/2): the frequencies fall half as fast."""
    frequency = _frequency(s, math.sqrt(10000.0))
    return _layout(*(np.outer(axis, frequency) for axis in _coordinates(s)))


@_sincos(
    "sincos-from-one",
    says="rows and columns are counted from 1",
    remedy="the first patch is at row 0, column 0",
)
def sincos_from_one(s: Step) -> Any:
    """One more in both directions."""
    return _layout(*(np.outer(axis + 1, _frequency(s)) for axis in _coordinates(s)))


@_sincos(
    "sincos-normalized",
    says="rows and columns are scaled to 0…1 before the sines are taken",
    remedy="coordinates are the patch's row and column, whole numbers",
)
def sincos_normalized(s: Step) -> Any:
    """As DETR's positions."""
    rows, columns = s.grid
    x, y = _angles(s)
    return _layout(x / max(columns - 1, 1), y / max(rows - 1, 1))


@mistake(
    "pos-transposed",
    "vision.pos_embed",
    says="the positions run column by column instead of row by row",
    remedy="patch number = row · columns + column, for patches and positions alike",
)
def pos_transposed(s: Step) -> Any:
    """The table of the transposed grid."""
    rows, columns = s.grid
    grid = s.value.reshape(rows, columns, -1)
    return grid.swapaxes(0, 1).reshape(s.value.shape)


@mistake(
    "pos-interpolate",
    "vision.pos_embed",
    says="the request to interpolate positions is ignored: the table is used as it is",
    remedy="resample the table to the image's grid",
    seen_in="transformers",
)
def pos_interpolate(s: Step) -> Any:
    """The table of the square grid, where another one of as many patches was asked for."""
    table = s.encoder.params.pos_embed
    return s.value if table is None or len(table) != len(s.value) else table


@mistake(
    "pos-slice",
    "vision.pos_embed",
    says="an image of another size takes the first rows of the position table as they are",
    remedy="resample the table to the image's grid, or refuse images of another size",
    seen_in="the original code",
)
def pos_slice(s: Step) -> Any:
    """table[:N]."""
    table = s.encoder.params.pos_embed
    return s.value if table is None or len(table) < len(s.value) else table[: len(s.value)]


@mistake(
    "pos-bilinear",
    "vision.pos_embed",
    says="the position table is resampled bilinearly, without antialiasing",
    remedy="bicubic with a = -0.5, pixel centres at i + 0.5, antialiased when shrinking",
)
def pos_bilinear(s: Step) -> Any:
    """torch's interpolate(mode="bilinear", align_corners=False)."""
    table = s.encoder.params.pos_embed
    side = 0 if table is None else math.isqrt(len(table))
    if table is None or s.grid == (side, side):
        return s.value
    grid = table.reshape(side, side, -1)
    down, across = (_linear(side, new) for new in s.grid)
    return np.einsum("ri,cj,ijd->rcd", down, across, grid).reshape(s.value.shape)


def _linear(old: int, new: int) -> Array:
    """The (new, old) matrix of linear interpolation."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))


@mistake(
    "no-positions",
    "*.pos_embed",
    says="no positions are added",
    remedy="embed = patches or tokens + positions",
)
def no_positions(s: Step) -> Any:
    """Zeros."""
    return np.zeros_like(s.value)


@mistake(
    "pos-reversed",
    "*.pos_embed",
    says="the positions run from the last to the first",
    remedy="the first row of the table belongs to the first patch or token",
)
def pos_reversed(s: Step) -> Any:
    """The table upside down."""
    return s.value[::-1]
