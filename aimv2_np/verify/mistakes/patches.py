"""The patch embedding: how pixels become rows, and rows tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...ops import Array
from ..walk import Step
from . import mistake

_RIGHT = "a convolution with a kernel (width, 3, P, P), stride P: the patch's rows before columns"


def _embedded(s: Step, weight: Array, bias: Array | None = None, pixels: Any = None) -> Array:
    pixels = s["pixel_values"] if pixels is None else pixels
    return ops.patch_embed(pixels, weight, s.p.patch_bias if bias is None else bias)


@mistake(
    "conv-transposed",
    "vision.patch_embed",
    says="the patch kernel's rows and columns are exchanged",
    remedy=f"the kernel is (out, in, row, column): {_RIGHT}",
    seen_in="ports",
)
def conv_transposed(s: Step) -> Any:
    """OIWH for OIHW."""
    return _embedded(s, s.p.patch_weight.swapaxes(2, 3))


@mistake(
    "conv-hwi",
    "vision.patch_embed",
    says="the patch kernel, stored (out, in, row, column), is read as (out, row, column, in)",
    remedy=f"transpose the kernel, or flatten pixels channel first: {_RIGHT}",
    seen_in="ports to channels-last frameworks",
)
def conv_hwi(s: Step) -> Any:
    """The same memory in another shape."""
    kernel = s.p.patch_weight
    out, channels, rows, columns = kernel.shape
    return _embedded(s, kernel.reshape(out, rows, columns, channels).transpose(0, 3, 1, 2))


@mistake(
    "conv-flipped",
    "vision.patch_embed",
    says="the patch kernel is flipped: a convolution in the mathematical sense",
    remedy="deep learning's convolution is a correlation: no flip",
)
def conv_flipped(s: Step) -> Any:
    """Rows and columns reversed."""
    return _embedded(s, s.p.patch_weight[:, :, ::-1, ::-1])


@mistake(
    "conv-bgr",
    "vision.patch_embed",
    says="the patch kernel's or the pixels' channels are reversed (BGR)",
    remedy="channels are red, green, blue",
)
def conv_bgr(s: Step) -> Any:
    """Blue first."""
    return _embedded(s, s.p.patch_weight[:, ::-1])


@mistake(
    "patch-order",
    "vision.patch_embed",
    says="the patches run column by column instead of row by row",
    remedy="patch number = row · columns + column",
    seen_in="ports",
)
def patch_order(s: Step) -> Any:
    """The transposed grid."""
    rows, columns = s.grid
    value = s.value.reshape(len(s.value), rows, columns, -1)
    return value.swapaxes(1, 2).reshape(s.value.shape)


@mistake(
    "patch-upside-down",
    "vision.patch_embed",
    says="the image is upside down: its last row of patches comes first",
    remedy="row 0 is the top of the image",
)
def patch_upside_down(s: Step) -> Any:
    """Rows of pixels reversed."""
    rows, columns = s.grid
    patch = s.p.patch_weight.shape[-1]
    whole = s["pixel_values"][:, :, : rows * patch, : columns * patch]
    return _embedded(s, s.p.patch_weight, pixels=whole[:, :, ::-1])


@mistake(
    "patch-no-bias",
    "vision.patch_embed",
    says="the patch embedding's bias is missing",
    remedy="the patch embedding is the only layer of the trunk with a bias: add it",
)
def patch_no_bias(s: Step) -> Any:
    """A bias of zeros."""
    return _embedded(s, s.p.patch_weight, np.zeros_like(s.p.patch_bias))
