"""The residual stream along depth, drawn: one plot for the mean and for the picked patch."""

from __future__ import annotations

from ..ops import Array
from ..pages.markup import Markup, el, number
from ..pages.plots import LogScale, decades, every, line, percent, stretched
from .depth import Residual

__all__ = ["residual_plot", "residual_table", "scale_of"]

_KINDS = {"stream": "the stream", "attention": "attention adds", "mlp": "MLP adds"}
_WIDE, _NARROW = 32, 9  # numbers of blocks that fit below on a desk and on a phone


def scale_of(found: Residual) -> LogScale:
    """The scale that holds every patch's lengths."""
    kinds = (getattr(found, name) for name in _KINDS)
    ends = [float(end) for lengths in kinds for end in (lengths.min(), lengths.max())]
    return LogScale.around(ends, steps=(1, 2, 5))


def residual_plot(found: Residual) -> Markup:
    """Lines of the means; the script draws those of a patch into the empty ones."""
    scale, depth = scale_of(found), len(found.mlp)
    means = {name: getattr(found, name).mean(axis=1) for name in _KINDS}
    drawn = [
        el("path", class_=f"{name} mean", d=_line(values, scale, depth))
        for name, values in means.items()
    ]
    drawn += [el("path", class_=f"{name} one", d="") for name in _KINDS]
    keys = (el("li", _sample(name), text) for name, text in _KINDS.items())
    plot = el(
        "svg",
        el("g", el("text", "length", transform="rotate(-90)", y=-44),
           el("text", "block", x=-8, y="100%", dy=24), class_="titles"),
        decades(scale),
        _blocks(depth),
        el("rect", x=0, y=0, width=percent(1 / depth), height="100%", class_="here"),
        stretched(*drawn),
        class_="curves",
        role="img",
        aria_label="lengths along depth; the table below holds the numbers",
    )  # fmt: skip
    return el("figure", el("ul", *keys, class_="legend"), el("div", plot, class_="plot"))


def _line(values: Array, scale: LogScale, depth: int) -> str:
    """The stream stands at the edges of the blocks, what is added at their middles."""
    first = 0.0 if len(values) > depth else 0.5
    return line([((i + first) / depth, scale.y(float(v))) for i, v in enumerate(values)])


def _blocks(depth: int) -> Markup:
    wide, narrow = every(depth, _WIDE), every(depth, _NARROW)
    parts = [el("line", x1=percent(i / depth), x2=percent(i / depth), y2="100%")
             for i in range(depth + 1)]  # fmt: skip
    parts += [
        el("text", i, x=percent((i + 0.5) / depth), y="100%", dy=24,
           class_=None if i % narrow == 0 else "fine")
        for i in range(0, depth, wide)
    ]  # fmt: skip
    return el("g", *parts, class_="blocks")


def _sample(name: str) -> Markup:
    drawn = el("path", d="M2 6h24", class_=f"{name} one")
    return el("svg", drawn, width=28, height=12, class_="sample", aria_hidden="true")


def residual_table(found: Residual) -> Markup:
    """The means in numbers."""
    heads = ("block", "stream before", "attention adds", "MLP adds", "stream after")
    stream, attention, mlp = (
        getattr(found, name).mean(axis=1) for name in ("stream", "attention", "mlp")
    )
    rows = [
        el(
            "tr",
            el("th", i, scope="row"),
            *(el("td", number(float(v))) for v in (stream[i], attention[i], mlp[i], stream[i + 1])),
        )
        for i in range(len(mlp))
    ]
    head = el("thead", el("tr", *(el("th", name, scope="col") for name in heads)))
    table = el("table", head, el("tbody", *rows))
    label = "mean lengths by block"
    box = el("div", table, class_="box", tabindex=0, role="region", aria_label=label)
    return el("details", el("summary", "The means in numbers"), box)
