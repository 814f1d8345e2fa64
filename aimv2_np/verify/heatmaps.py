"""Pictures of an error: over the patches of an image, the tokens of a text, the heads.

An activation is folded into maps, and each becomes a small PNG inside the page. Colour is
logarithmic: what errs by less than a hundredth of the largest is as dark as what is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops import Array
from ..pages.markup import Markup, el, number
from ..pages.pictures import CIVIDIS, encoded, gradient, ramp
from .finding import Finding
from .measure import hidden_as_finite
from .walk import Case

__all__ = ["Maps", "heat_maps", "maps_of"]

_MOST = 4  # images whose maps are shown
_CELLS = 96  # along a map's side at most: of what is finer the largest is seen
_CELLS_SMALL = 48  # the same of a map per head
_NO_TOKEN = -1.0  # cells after a text's end
_DECADES = 2  # of the colours
_STEPS = 250  # colours of the palette; after them the two of a hatch, and nothing
_HATCH = ((255, 255, 255), (200, 0, 90))
_ZOOM = 8  # pixels along a cell where a hatch must be seen


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one kind by caption, all in one scale of colours.

    A cell holds an error as a multiple of the activation's typical size there, NaN where it is
    not finite, less than 0 where there is no token.
    """

    title: str
    rows: str
    columns: str
    by_caption: dict[str, Array]
    square: bool = True  # a cell is as wide as it is high
    images: dict[str, int] = field(default_factory=dict)  # a caption's image in the case

    def top(self, noise: float) -> float:
        """The brightest colour's error: the largest, unless rounding would be seen as well."""
        cells = np.concatenate([a.ravel() for a in self.by_caption.values()])
        return float(cells[np.isfinite(cells)].max(initial=noise * 10**_DECADES))


def heat_maps(finding: Finding, case: Case) -> list[Markup]:
    """What the error of a finding looks like, as figures."""
    return [_figure(maps, case, maps.top(finding.wrong.noise.worst)) for maps in maps_of(finding)]


# ---------------------------------------------------------------------------- folding


def maps_of(finding: Finding) -> Iterator[Maps]:
    """The error over patches, tokens or channels, and over heads if there are any."""
    if finding.found is None or np.shape(finding.found) != np.shape(finding.truth):
        return
    name = finding.wrong.name
    error, truth = _error(np.asarray(finding.found, np.float64), np.asarray(finding.truth))
    if name == "pixel_values":
        yield _of_images("over the pixels", _relative(error, truth, axes=(1,)))
    elif error.ndim == 4:
        yield from _over_tokens(finding, _relative(error, truth, axes=(1, 3)))
        yield from _over_heads(finding, error, truth)
    elif error.ndim == 3 or (error.ndim == 2 and name.endswith("pos_embed")):
        yield from _over_tokens(finding, np.atleast_2d(_relative(error, truth, axes=(-1,))))
    elif error.ndim == 2:
        rows, columns = _axes(name)
        over = {"": _relative(error, truth, axes=())}
        yield Maps(f"by {rows} and {columns}", rows, columns, over, square=False)


def _error(found: Array, truth: Array) -> tuple[Array, Array]:
    """found - truth, NaN where found is not finite, and the truth; both where scores are hidden."""
    found, truth = hidden_as_finite(found, truth)
    return np.where(np.isfinite(found), found, np.nan) - truth, truth


def _relative(error: Array, truth: Array, axes: tuple[int, ...]) -> Array:
    """The lengths of vectors along some axes, over the true lengths' root mean square."""
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.square(error).sum(axis=axes))
        size = np.sqrt(np.square(truth).sum(axis=axes).mean())
    return np.asarray(lengths / (size if size > 0 else 1.0))


def _axes(name: str) -> tuple[str, str]:
    """What the rows and the columns of a matrix are."""
    if name.startswith("logits_per"):
        return ("image", "text") if name.endswith("image") else ("text", "image")
    if name == "input_ids":
        return "text", "token"
    return ("text" if name.startswith("text") else "image"), "channel"


def _over_tokens(finding: Finding, over: Array) -> Iterator[Maps]:
    """(B, N): a map per image, or one of all texts."""
    folded = _folded(finding, over)
    if folded is not None:
        yield _of_images("over the patches", folded)
    elif over.size > len(over):
        rows = "text" if finding.wrong.name.startswith("text.") else "image"
        cells = over if finding.real is None else np.where(finding.real, over, _NO_TOKEN)
        yield Maps("over the tokens", rows, "token", {"": cells}, square=False)


def _folded(finding: Finding, over: Array) -> Array | None:
    """(…, N) as (…, rows, columns) where the N are an image's patches."""
    grid = finding.grid
    if grid is None or not finding.wrong.name.startswith("vision."):
        return None
    return over.reshape(-1, *grid) if over.shape[-1] == grid[0] * grid[1] else None


def _over_heads(finding: Finding, error: Array, truth: Array) -> Iterator[Maps]:
    """(B, H, N, …): a map per head, or one of all heads, for the worst image or text."""
    name, real = finding.wrong.name, finding.real
    total = np.square(error).sum(axis=(1, 2, 3))
    worst = int(np.argmax(np.where(np.isnan(total), np.inf, total)))
    of = f"of {'text' if name.startswith('text.') else 'image'} {worst}"
    keys = name.endswith(("scores", "pattern"))
    over = _relative(error, truth, axes=() if keys else (3,))[worst]
    seen = None if real is None else real[worst]
    if keys and over.shape[1] > 1:
        if seen is not None:
            over = np.where(seen[:, None] & seen, over, _NO_TOKEN)
        yield Maps(f"over queries and keys {of}, by head", "query", "key", _by_head(over))
        return
    over = over.reshape(len(over), -1)  # (H, N)
    folded = _folded(finding, over)
    if folded is not None:
        yield Maps(f"over the patches {of}, by head", "row", "column", _by_head(folded))
    else:
        over = over if seen is None else np.where(seen, over, _NO_TOKEN)
        yield Maps(f"by head {of}", "head", "token", {"": over}, square=False)


def _by_head(over: Array) -> dict[str, Array]:
    return {f"head {i}": cells for i, cells in enumerate(over)}


def _of_images(title: str, over: Array) -> Maps:
    """(B, Y, X): the worst images, in their order."""
    largest = np.where(np.isnan(over), np.inf, over).max(axis=(1, 2))
    chosen = sorted(int(i) for i in np.argsort(-largest, kind="stable")[:_MOST])
    images = {f"image {i}" if len(over) > 1 else "": i for i in chosen}
    if len(chosen) < len(over):
        title = f"{title} of the {_MOST} worst images of {len(over)}"
    return Maps(title, "row", "column", {c: over[i] for c, i in images.items()}, images=images)


# ---------------------------------------------------------------------------- drawing


def _figure(maps: Maps, case: Case, top: float) -> Markup:
    """Maps beside each other, with the images they are of, and their scale."""
    small = len(maps.by_caption) > 1
    shown = [
        el(
            "div",
            *_photograph(maps.images.get(caption), case),
            _map(maps, caption, cells, top),
            class_="pair",
        )
        for caption, cells in maps.by_caption.items()
    ]
    size = "small" if small and not maps.images else "single" if maps.square else "wide"
    return el(
        "figure",
        el("figcaption", "Error ", maps.title),
        el("div", *shown, class_=f"maps {size}"),
        _scale(maps, top),
        class_="heat",
    )


def _map(maps: Maps, caption: str, cells: Array, top: float) -> Markup:
    rows, columns = cells.shape
    pooled = _pooled(cells, _CELLS if len(maps.by_caption) <= _MOST else _CELLS_SMALL)
    style, wide = f"aspect-ratio:{columns}/{rows}", None
    if not maps.square:
        style = f"height:{max(24, min(18 * len(pooled), 320))}px"
        wide = f"max-width:{60 + max(28 * columns, 120)}px"
    picture = el(
        "img",
        src=_png(pooled, top),
        alt=f"error {maps.title}: {_peak(maps, cells)}",
        style=style,
    )
    below = [_ends(maps.columns, columns, "x")] if columns > 1 else []
    named = [el("b", caption)] if caption else []
    beside = _ends(maps.rows, rows, "y")
    axes = el("div", beside, picture, *below, class_="axes", style=wide)
    return el("div", *named, axes, class_="map")


def _ends(what: str, count: int, side: str) -> Markup:
    """The first and the last number along a side."""
    last = [el("span", count - 1)] if count > 1 else []
    return el("span", el("span", f"{what} 0"), *last, class_=f"ends {side}")


def _peak(maps: Maps, cells: Array) -> str:
    """Where a map is largest, for who cannot see it."""
    broken = np.isnan(cells)
    row, column = np.unravel_index(int(np.where(broken, np.inf, cells).argmax()), cells.shape)
    where = f"{maps.rows} {row}, {maps.columns} {column}"
    if broken.any():
        return f"{broken.mean():.0%} of it is not finite, first at {where}"
    return f"largest, {number(float(cells[row, column]))} of the typical size, at {where}"


def _scale(maps: Maps, top: float) -> Markup:
    """What the colours mean."""
    parts = [
        el("span", f"≤ {number(top / 10**_DECADES)}"),
        el("span", class_="bar", style=f"background:{gradient(CIVIDIS)}"),
        el("span", f"{number(top)} of the typical size"),
    ]
    if any(np.isnan(cells).any() for cells in maps.by_caption.values()):
        parts += [el("span", class_="hatch"), el("span", "not finite")]
    return el("div", *parts, class_="scale")


def _pooled(cells: Array, most: int) -> Array:
    """At most so many along each side: the largest of several cells."""
    for axis in (0, 1):
        several = -(-cells.shape[axis] // most)
        starts = np.arange(0, cells.shape[axis], several)
        cells = np.maximum.reduceat(cells, starts, axis=axis)
    return cells


def _png(cells: Array, top: float) -> str:
    """A picture of a map: a pixel is a cell, or more are where some must be hatched."""
    from PIL import Image

    zoom = np.ones((_ZOOM, _ZOOM) if np.isnan(cells).any() else (1, 1))
    cells = np.kron(cells, zoom)
    with np.errstate(all="ignore"):
        level = 1 + np.log10(cells / top) / _DECADES
    colour = np.rint(np.clip(np.nan_to_num(level), 0, 1) * (_STEPS - 1))
    down, across = np.indices(cells.shape)
    hatch = np.where((down + across) % _ZOOM < _ZOOM // 2, _STEPS, _STEPS + 1)
    colour = np.where(cells < 0, _STEPS + 2, np.where(np.isnan(cells), hatch, colour))
    image = Image.fromarray(colour.astype(np.uint8), "P")
    image.putpalette(_palette().tobytes())
    return encoded(image, "png", optimize=True, transparency=_STEPS + 2)


def _palette() -> Array:
    return np.concatenate([ramp(CIVIDIS, _STEPS), _HATCH, [[0, 0, 0]]]).astype(np.uint8)


def _photograph(image: int | None, case: Case) -> list[Markup]:
    """The image that a map is of, so that patches can be told."""
    pixels: Any = case.pixel_values
    if image is None or pixels is None or pixels.shape[1] != 3:
        return []
    from PIL import Image

    values = np.nan_to_num(np.asarray(pixels[image], np.float32))
    low, high = values.min(), values.max()
    values = (values - low) / max(high - low, 1e-30) * 255
    picture = Image.fromarray(values.transpose(1, 2, 0).astype(np.uint8))
    picture.thumbnail((224, 224))
    source = encoded(picture, "jpeg", quality=80)
    return [el("img", src=source, alt=f"image {image}", class_="photo")]
