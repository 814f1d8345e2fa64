"""The errors of a case over its activations, in the order of computation, as one SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from ..pages.markup import Markup, el, lines, number, times
from ..pages.plots import LogScale, decades, every, line, percent, stretched
from .locate import ALLOWED, CaseResult, TapResult, stream

__all__ = ["curves", "legend"]

_TOWERS = {"vision": "image encoder", "text": "text encoder", "join": "joint"}
_WIDE, _NARROW = 36, 11  # labels of blocks that fit beside each other on a desk and on a phone
_LABELLED = 0.1  # of the width: what a tower needs to be named on a phone


def curves(result: CaseResult) -> Markup:
    """Error end to end, of each step alone, and rounding's, by activation."""
    taps = result.taps
    scale = _scale(taps)
    label = f"errors of the activations of case {result.case.name}, in the order of computation"
    return el(
        "svg",
        _axes(),
        decades(scale),
        _blocks(taps),
        _towers(taps),
        _drawn(taps, scale),
        _wrong_below(taps),
        *_first_wrong(result, scale),
        _tooltips(taps),
        class_="curves",
        role="img",
        aria_label=label,
    )


def _scale(taps: Sequence[TapResult]) -> LogScale:
    errors = [(t.error.overall, t.noise.overall, t.noise.overall * ALLOWED) for t in taps]
    return LogScale.around((e for group in errors for e in group), otherwise=(1e-7, 1.0))


# ---------------------------------------------------------------------------- the drawing


def _drawn(taps: Sequence[TapResult], scale: LogScale) -> Markup:
    """The band that is allowed, and the three curves, each strand by itself."""
    band, floor, error, own = [], [], [], []
    for strand in _groups(taps, lambda tap: stream(tap.name)):
        at = [(i + 0.5) / len(taps) for i, _ in strand]
        edges = [strand[0][0] / len(taps), *at, (strand[-1][0] + 1) / len(taps)]
        noise = [t.noise.overall for _, t in strand]
        ends = [noise[0], *noise, noise[-1]]
        upper = [(x, scale.y(e * ALLOWED)) for x, e in zip(edges, ends, strict=True)]
        lower = [(x, scale.y(e)) for x, e in zip(edges, ends, strict=True)]
        band.append(line([*upper, *reversed(lower)]) + "Z")
        floor.append(line(lower))
        points = zip(at, (t for _, t in strand), strict=True)
        error.append(line([(x, scale.y(t.error.overall)) for x, t in points]))
        own += [
            line([(x, scale.y(t.own.overall))])
            for x, (_, t) in zip(at, strand, strict=True)
            if t.own is not None
        ]
    parts = {"allowed": band, "noise": floor, "own": own, "error": error}
    return stretched(*(el("path", class_=name, d="".join(drawn)) for name, drawn in parts.items()))


def _groups(
    taps: Sequence[TapResult], key: Callable[[TapResult], object]
) -> list[list[tuple[int, TapResult]]]:
    """Activations that follow each other and have something in common, with their numbers."""
    return [list(group) for _, group in groupby(enumerate(taps), key=lambda pair: key(pair[1]))]


# ---------------------------------------------------------------------------- axes


def _axes() -> Markup:
    """What the two directions are."""
    up = el("text", "error ÷ size", transform="rotate(-90)", x=0, y=-44)
    return el("g", up, el("text", "block", x=-8, y="100%", dy=24), class_="titles")


def _blocks(taps: Sequence[TapResult]) -> Markup:
    """The numbers of the blocks, below; on a narrow screen only some."""
    sections = _groups(taps, lambda tap: tap.section)
    blocks = [s for s in sections if ".blocks." in s[0][1].section]
    wide, narrow = (every(len(blocks), fit) for fit in (_WIDE, _NARROW))
    parts = []
    for section in blocks:
        first, last = section[0][0], section[-1][0] + 1
        block = int(section[0][1].section.rpartition(".")[2])
        x = percent(first / len(taps))
        parts.append(el("line", x1=x, x2=x, y2="100%"))
        if block % wide == 0:
            middle = percent((first + last) / 2 / len(taps))
            some = None if block % narrow == 0 else "fine"
            parts.append(el("text", block, x=middle, y="100%", dy=24, class_=some))
    return el("g", *parts, class_="blocks")


def _towers(taps: Sequence[TapResult]) -> Markup:
    """Which tower computes what, above; lines between them."""
    groups = _groups(taps, lambda tap: _tower(tap.section))
    parts = []
    for group in groups:
        first, last = group[0][0] / len(taps), (group[-1][0] + 1) / len(taps)
        at: dict[str, object] = {"x": percent(first), "dx": 4}
        if group is not groups[0]:
            parts.append(el("line", x1=at["x"], x2=at["x"], y1=-20, y2="100%"))
            if group is groups[-1]:
                fine = "fine" if last - first < _LABELLED else None
                at = {"x": percent(last), "text_anchor": "end", "class_": fine}
        parts.append(el("text", _TOWERS[_tower(group[0][1].section)], y=-8, **at))
    return el("g", *parts, class_="towers")


def _tower(section: str) -> str:
    return section.partition(".")[0]


# ---------------------------------------------------------------------------- marks


def _wrong_below(taps: Sequence[TapResult]) -> Markup:
    """A bar below the foot along everything that is wrong."""
    parts = []
    for group in _groups(taps, lambda tap: tap.ok):
        if not group[0][1].ok:
            x, width = percent(group[0][0] / len(taps)), percent(len(group) / len(taps))
            parts.append(el("rect", x=x, y="100%", width=width, height=6))
    return el("g", *parts, class_="wrong-below")


def _first_wrong(result: CaseResult, scale: LogScale) -> Iterable[Markup]:
    """A ring and a line at the first wrong activation of each stream.

    Named half-way up, between what is wrong and what is right, where there are no curves.
    """
    for row, of in enumerate(("image", "text", "joint")):
        wrong = result.first_wrong(of)
        if wrong is None:
            continue
        at = (result.taps.index(wrong) + 0.5) / len(result.taps)
        x, y = percent(at), percent(scale.y(wrong.error.overall))
        side = {"dx": 8} if at < 0.5 else {"dx": -8, "text_anchor": "end"}
        yield el(
            "g",
            el("line", x1=x, x2=x, y2="100%"),
            el("circle", cx=x, cy=y, r=5),
            el("text", el("tspan", "first wrong: ", class_="fine"), wrong.name,
               x=x, y="45%", dy=18 * row, **side),
            class_="first-wrong",
        )  # fmt: skip


def _tooltips(taps: Sequence[TapResult]) -> Markup:
    """A stripe per activation that tells its numbers where a mouse rests on it."""
    width = percent(1 / max(len(taps), 1))
    return el(
        "g",
        *(
            el("rect", el("title", lines(t.name, _numbers(t))), width=width, height="100%",
               x=percent(i / len(taps)))
            for i, t in enumerate(taps)
        ),
        class_="tooltips",
    )  # fmt: skip


def _numbers(tap: TapResult) -> str:
    if tap.problem:
        return tap.problem
    return f"{number(tap.error.overall)}, {times(tap.excess)} rounding"


def legend() -> Markup:
    """What the lines mean."""
    keys = {
        "error": "error, end to end",
        "own": "error of each step alone",
        "noise": "rounding: a correct run's error",
        "allowed": f"allowed: up to {ALLOWED:g} × rounding",
        "wrong-below": "wrong",
    }
    return el("ul", *(el("li", _sample(key), text) for key, text in keys.items()), class_="legend")


def _sample(key: str) -> Markup:
    """A bit of a curve."""
    if key in ("allowed", "wrong-below"):
        height = 10 if key == "allowed" else 6
        mark = el("rect", y=6 - height / 2, width=28, height=height)
        drawn = el("g", mark, class_=key)
    else:
        path = "M4 6h0M14 6h0M24 6h0" if key == "own" else "M2 6h24"
        drawn = el("path", d=path, class_=key)
    return el("svg", drawn, width=28, height=12, class_="sample", aria_hidden="true")
