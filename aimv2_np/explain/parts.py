"""Parts of the page: pictures on which a patch is picked, tiles, choices; and words for places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ops import Array
from ..pages.markup import Markup, el
from ..pages.pictures import CIVIDIS, gradient

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = [
    "first_map",
    "first_patch",
    "heat_scale",
    "peak",
    "percent",
    "picture",
    "place",
    "radio",
    "section",
    "tile",
]

# ---------------------------------------------------------------------------- where it begins


def first_patch(found: Explanation) -> int:
    """The patch that is shown first: what the pooling head looks at most, else the middle."""
    if found.pooling is not None:
        return int(found.pooling.mean(axis=0).argmax())
    rows, columns = found.grid
    return rows // 2 * columns + columns // 2


def first_map(found: Explanation) -> int:
    """Of the blocks whose attention is here, the middle one."""
    return len(found.attention.blocks) // 2


# ---------------------------------------------------------------------------- in words


def place(patch: int, columns: int, cell: int = 1) -> str:
    """A patch in words, or the cell that it belongs to."""
    row, column = divmod(patch, columns)
    if cell == 1:
        return f"patch {patch} (row {row}, column {column})"
    row, column = row // cell * cell, column // cell * cell
    return f"the {cell} × {cell} patches from row {row}, column {column}"


def percent(part: float) -> str:
    """A part of 1, as the script writes it."""
    return f"{100 * part:.3g} %" if part < 0.0995 else f"{100 * part:.1f} %"


def peak(values: Array, cell: int = 1) -> str:
    """Where a map (rows, columns) is largest."""
    where = place(int(np.argmax(values)), values.shape[1], cell)
    return f"most, {percent(float(values.max()))}, at {where}"


# ---------------------------------------------------------------------------- elements


def section(name: str, title: str, lead: str, *parts: Markup) -> Markup:
    """A question, what is shown, and the answer."""
    return el("section", el("h2", title), el("p", lead), *parts, id=name)


def picture(
    found: Explanation, name: str, source: str, alt: str, *, cell: int = 1, lines: int = 1
) -> Markup:
    """The image under a map, with an outline around the cell of the first patch.

    `lines`: a line after every so many patches.
    """
    rows, columns = found.grid
    top, left = (at // cell * cell for at in divmod(first_patch(found), columns))
    sides = {
        "left": left / columns,
        "top": top / rows,
        "width": min(cell, columns - left) / columns,
        "height": min(cell, rows - top) / rows,
    }
    style = ";".join(f"{side}:{100 * share:.4g}%" for side, share in sides.items())
    drawn = el("img", src=source, alt=alt, class_="overlay")
    mark = el("span", class_="mark", style=style, aria_hidden="true")
    given = {"class_": "picture", "id": name, "data_cell": cell, "style": f"--lines:{lines}"}
    return el("div", drawn, mark, **given)


def tile(source: str, alt: str, name: str, detail: str, *, over: bool = True) -> Markup:
    """A small map, over the image or alone, with its name and a number."""
    drawn = el("img", src=source, alt=alt, class_="overlay")
    framed = el("span", drawn, class_="small picture" if over else "small plain")
    caption = el("span", el("b", name), el("span", detail, class_="detail"), class_="caption")
    return el("span", framed, caption, class_="tile")


def radio(group: str, value: int, inside: Markup, kind: str, *, first: bool) -> Markup:
    """One of several that can be chosen."""
    checked = "" if first else None
    given = el("input", type="radio", name=group, value=value, checked=checked)
    return el("label", given, inside, class_=kind)


def heat_scale(most: float) -> Markup:
    """What the colours of a map mean."""
    return el(
        "div",
        el("span", "0"),
        el("span", class_="bar", style=f"background:{gradient(CIVIDIS)}"),
        el("output", percent(most), class_="most"),
        class_="scale",
    )
