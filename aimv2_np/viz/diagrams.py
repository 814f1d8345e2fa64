"""How a matrix product is cut into tiles."""

from __future__ import annotations

from typing import Any

from .canvas import COLOURS, FAINT, Axes, canvas, label

__all__ = ["tiles"]


def tiles(
    rows: int,
    columns: int,
    depth: int,
    *,
    tile: tuple[int, int],
    at: tuple[int, int] = (0, 0),
    title: str = "",
    ax: Axes | None = None,
) -> Any:
    """One tile of C = A B and what is read for it: a strip of A's rows, a strip of B's columns.

    Args:
        rows: of A (rows, depth) and of C (rows, columns).
        columns: of B (depth, columns) and of C.
        depth: what is summed over.
        tile: rows and columns of a tile of C, which stays in registers.
        at: which tile is shown, counted in tiles.
        title: of the picture.
        ax: where to draw.
    """
    height, width = tile
    top, left = at[0] * height, at[1] * width
    height, width = min(height, rows - top), min(width, columns - left)
    gap = 0.08 * (rows + columns + depth)
    right, down = depth + gap, depth + gap  # A lies left of C, B above it
    shape = (down + rows + 2 * gap) / (right + columns + 2 * gap)
    figure, ax = canvas(ax, width=6.0, height=6.0 * min(1.5, max(0.4, shape)))
    _matrix(ax, 0, down, rows, depth, f"A: {rows} × {depth}")
    _matrix(ax, right, 0, depth, columns, f"B: {depth} × {columns}")
    _matrix(ax, right, down, rows, columns, f"C: {rows} × {columns}")
    for x in range(0, columns + 1, tile[1]):
        ax.plot([right + x] * 2, [down, down + rows], color=FAINT, linewidth=0.7)
    for y in range(0, rows + 1, tile[0]):
        ax.plot([right, right + columns], [down + y] * 2, color=FAINT, linewidth=0.7)
    _fill(ax, 0, down + top, height, depth, COLOURS[4])
    _fill(ax, right + left, 0, depth, width, COLOURS[1])
    _fill(ax, right + left, down + top, height, width, COLOURS[2])
    ax.set(xlim=(-gap, right + columns + gap), ylim=(down + rows + gap, -gap), aspect="equal")
    ax.set_axis_off()
    flop, read = 2 * height * width * depth, (height + width) * depth
    label(
        ax,
        title=title or f"a tile of {height} × {width}: {flop:,} FLOP from {read:,} numbers read",
        alt=f"C = A B in tiles: for one tile of {height} × {width} of C, {height} rows of A and "
        f"{width} columns of B are read, {read:,} numbers for {flop:,} FLOP.",
    )
    return figure


def _matrix(ax: Axes, x: float, y: float, rows: int, columns: int, name: str) -> None:
    across, down = [x, x + columns, x + columns, x, x], [y, y, y + rows, y + rows, y]
    ax.plot(across, down, color="black", linewidth=1.2)
    ax.text(x, y, name, va="bottom", fontsize=9)


def _fill(ax: Axes, x: float, y: float, rows: int, columns: int, colour: str) -> None:
    ax.fill([x, x + columns, x + columns, x], [y, y, y + rows, y + rows], color=colour, alpha=0.9)
