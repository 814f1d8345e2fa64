"""An explanation as one self-contained HTML page.

All is there without its script: a first patch, the probabilities, the plot, the components. The
script lets a reader pick patches, blocks, heads and texts. What it needs lies in the page, too:
numbers in the element "data", attention in one packed element a block.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..ops import Array
from ..pages.markup import Markup, document, el
from ..pages.pictures import CIVIDIS
from . import drawings, sections
from .attention import AttentionMaps
from .explanation import Explanation
from .parts import first_patch
from .reading import how_made, reading
from .residual_plot import scale_of
from .texts import against_others

__all__ = ["page"]

_PICKING = (
    "Pick a patch in one of the large images: hover over it, tap it, or use the arrow keys while "
    "the image has the focus."
)
_NO_SCRIPT = "Without JavaScript this page shows one patch and one block; nothing can be chosen."


def page(found: Explanation) -> str:
    """The page of an explanation."""
    here = Path(__file__)
    script = here.with_name("page.js").read_text(encoding="utf-8")
    style = here.with_name("page.css").read_text(encoding="utf-8")
    rows, columns = found.grid
    photo = drawings.photograph(found.picture)
    row, column = divmod(first_patch(found), columns)
    sizes = f"--rows:{rows};--columns:{columns};--row:{row};--column:{column}"
    root = f":root{{{sizes};--photo:url({photo})}}"
    main = el(
        "main",
        _header(found),
        *sections.texts(found),
        sections.attention(found),
        sections.residual(found),
        *sections.pooling(found),
        sections.components(found),
        reading(found),
        how_made(found),
    )
    parts = [main, *_packed(found.attention), _data(found), el("script", Markup(script))]
    title = f"{found.image}: what {found.model} does with it"
    return document(title, *parts, style=f"{root}\n{style}", head=_policy(script))


def _policy(script: str) -> Markup:
    """Nothing is fetched, and no other script runs: the browser sees to it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return el("meta", http_equiv="Content-Security-Policy", content=Markup(rules))


def _header(found: Explanation) -> Markup:
    rows, columns = found.grid
    height, width = found.picture.shape[:2]
    facts = [
        f"{height} × {width} pixels",
        f"{rows} × {columns} patches",
        f"{found.depth} blocks of {found.attention.levels.shape[1]} heads",
        found.dtype,
        f"aimv2-np {__version__}",
    ]
    return el(
        "header",
        el("p", "aimv2-np explain", class_="program"),
        el("h1", f"What {found.model} does with {found.image}"),
        el("p", " · ".join(facts), class_="facts"),
        el("p", _PICKING, data_js="", hidden=""),
        el("noscript", el("p", _NO_SCRIPT)),
    )


# ---------------------------------------------------------------------------- for the script


def _data(found: Explanation) -> Markup:
    """What the script reads. It holds no text of a user's: labels are in the page."""
    maps, stream = found.attention, found.residual
    scale = scale_of(stream)
    data: dict[str, Any] = {
        "rows": found.grid[0],
        "columns": found.grid[1],
        "patch": first_patch(found),
        "depth": found.depth,
        "blocks": maps.blocks,
        "heads": maps.levels.shape[1],
        "queryCell": maps.query_cell,
        "keyCell": maps.key_cell,
        "heat": CIVIDIS,
        "veil": drawings.VEIL,
        "diverging": drawings.DIVERGING,
        "scale": [scale.low, scale.high],
        "stream": _floats(stream.stream),
        "added": _floats(np.stack([stream.attention, stream.mlp])),
    }
    if found.texts is not None:
        shown = found.texts.ranking()[: sections.MOST_TEXTS]
        terms, constant = found.texts.contributions, found.texts.constant
        by_patch = np.stack([against_others(terms)[shown], terms[shown]])
        by_none = np.stack([against_others(constant)[shown], constant[shown]])
        data["terms"] = _floats(np.concatenate([by_patch, by_none[..., None]], axis=-1))
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return el("script", Markup(text), type="application/json", id="data")


def _packed(maps: AttentionMaps) -> list[Markup]:
    """Of each block the peaks, as float32, and the levels, deflated."""
    return [
        el(
            "script",
            Markup(_base64(zlib.compress(_bytes(peaks) + levels.tobytes(), 9))),
            type="text/plain",
            class_="maps",
        )
        for levels, peaks in zip(maps.levels, maps.peaks, strict=True)
    ]


def _floats(values: Array) -> str:
    return _base64(_bytes(values))


def _bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
