"""Activations as other programs lay them out, read as ours where only one reading is possible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ops import Array

__all__ = ["ShapeMismatch", "foreign", "reconciled"]

_HEADED = ("q", "k", "v", "context")  # last parts of names whose arrays are (B, H, N, E)


class ShapeMismatch(Exception):
    """An activation has no shape that can be read as ours."""


def reconciled(
    name: str, found: Array, expected: tuple[int, ...], grid: tuple[int, int] | None = None
) -> tuple[Array, str]:
    """The array in the expected shape, and in words what had to be done ("" for nothing).

    Raises:
        ShapeMismatch: no reading fits, or several do and give different numbers.
    """
    if found.shape == expected:
        return found, ""
    fitting = [(a, how) for a, how in _readings(name, found, expected, grid) if a.shape == expected]
    if not fitting:
        said = f"shape {_words(found.shape)}, expected {_words(expected)}"
        raise ShapeMismatch(said + _advice(found.shape, expected))
    first, how = fitting[0]
    for other, another in fitting[1:]:
        if not np.array_equal(first, other, equal_nan=True):
            raise ShapeMismatch(
                f"shape {_words(found.shape)} can be read in two ways ({how}; {another}): give it "
                f"as {_words(expected)}"
            )
    return first, how


def foreign(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a shape is that of another run or model, and of no mistake in this one."""
    return _foreign(found, expected) != ""


def _foreign(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """In what way: "empty", "batch" or "width"; "" where it is not."""
    if 0 in found:
        return "empty"
    if len(found) != len(expected) or len(found) < 2:
        return ""
    other = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    if other == [0]:
        return "batch"
    return "width" if other == [2] and len(found) == 3 else ""


def _advice(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What such a shape may come from."""
    kind = _foreign(found, expected)
    if kind == "batch":
        return f": {found[0]} of {expected[0]} in the batch; was it run on these inputs?"
    if kind == "width":
        return f": {found[-1]} wide instead of {expected[-1]}; is it another model's?"
    return ": it is empty" if kind else ""


def _words(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _readings(
    name: str, a: Array, expected: tuple[int, ...], grid: tuple[int, int] | None
) -> Iterator[tuple[Array, str]]:
    """Every way in which the array could have been laid out."""
    last = name.rsplit(".", 1)[-1]
    yield from _squeezed(a, expected)
    if len(expected) == 4 and last in _HEADED:
        yield from _split(a, expected)
    elif len(expected) == 4 and last in ("scores", "pattern"):
        if a.ndim == 3 and a.shape[0] == expected[0] * expected[1]:
            yield a.reshape(expected), "batch and heads split"
    elif len(expected) == 4 and a.ndim == 4:
        yield a.transpose(0, 3, 1, 2), "channels last"
    if len(expected) == 3:
        yield from _tokens(a, expected, grid)
    if len(expected) == 2 and last == "pos_embed":
        yield from _positions(a, expected, grid)


def _squeezed(a: Array, expected: tuple[int, ...]) -> Iterator[tuple[Array, str]]:
    """Axes of length 1 more or less."""
    longer = [n for n in a.shape if n != 1] == [n for n in expected if n != 1]
    if longer and a.ndim != len(expected):
        yield a.reshape(expected), "axes of length 1"


def _split(a: Array, expected: tuple[int, ...]) -> Iterator[tuple[Array, str]]:
    """To (B, H, N, E)."""
    batch, heads, tokens, width = expected
    if a.ndim == 3 and a.shape == (batch * heads, tokens, width):
        yield a.reshape(expected), "batch and heads split"
    if a.ndim == 3 and a.shape == (batch, tokens, heads * width):
        yield a.reshape(batch, tokens, heads, width).swapaxes(1, 2), "heads split"
    if a.ndim == 3 and a.shape == (tokens, batch, heads * width):
        turned = a.swapaxes(0, 1).reshape(batch, tokens, heads, width)
        yield turned.swapaxes(1, 2), "tokens first, heads split"
    if a.ndim == 2 and batch == 1 and a.shape == (tokens, heads * width):
        yield a.reshape(1, tokens, heads, width).swapaxes(1, 2), "no batch, heads split"
    if tokens == 1 and a.shape == (batch, heads * width):
        yield a.reshape(expected), "heads split"
    if a.ndim == 4 and a.shape == (batch, tokens, heads, width):
        yield a.swapaxes(1, 2), "heads after tokens"
    if a.ndim == 4 and a.shape[0] == batch and a.shape[2] == tokens and a.size == np.prod(expected):
        merged = a.swapaxes(1, 2).reshape(batch, tokens, heads, width)
        yield merged.swapaxes(1, 2), f"{a.shape[1]} heads for {heads}"


def _tokens(
    a: Array, expected: tuple[int, ...], grid: tuple[int, int] | None
) -> Iterator[tuple[Array, str]]:
    """To (B, N, D)."""
    batch, tokens, width = expected
    if a.ndim == 3:
        yield a.swapaxes(0, 1), "tokens first"
        yield a.swapaxes(1, 2), "channels before tokens"
    if grid is not None and a.ndim == 4 and a.shape == (batch, width, *grid):
        yield a.reshape(batch, width, tokens).swapaxes(1, 2), "channels first, grid flattened"
    if grid is not None and a.ndim == 4 and a.shape == (batch, *grid, width):
        yield a.reshape(expected), "grid flattened"
    if a.ndim == 2 and a.shape == (batch * tokens, width):
        yield a.reshape(expected), "batch and tokens split"


def _positions(
    a: Array, expected: tuple[int, ...], grid: tuple[int, int] | None
) -> Iterator[tuple[Array, str]]:
    """To (N, D)."""
    tokens, width = expected
    if a.ndim == 3 and a.shape[1:] == expected:
        yield a[0], "first of a batch"
    one = a[0] if a.ndim > 2 and a.shape[0] == 1 else a
    if grid is not None and one.shape == (*grid, width):
        yield one.reshape(expected), "grid flattened"
    if grid is not None and one.shape == (width, *grid):
        yield one.reshape(width, tokens).T, "channels first, grid flattened"
    if one.shape == (width, tokens):
        yield one.T, "channels first"
