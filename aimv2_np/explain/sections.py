"""The sections of the page, each with its question, as they are before anything is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ops import Array
from ..pages.markup import Markup, el, number
from . import drawings
from .attention import AttentionMaps
from .parts import (
    first_map,
    first_patch,
    heat_scale,
    peak,
    percent,
    picture,
    place,
    radio,
    section,
    tile,
)
from .residual_plot import residual_plot, residual_table
from .texts import Texts, against_others

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = ["MOST_TEXTS", "attention", "components", "pooling", "residual", "texts"]

MOST_TEXTS = 20  # the most probable ones, which can be chosen
_COMPONENTS = ("all three as red, green and blue", "the first", "the second", "the third")
_ASKED = ("whom the outlined patch attends to", "who attends to it")

# ---------------------------------------------------------------------------- texts


def texts(found: Explanation) -> Iterator[Markup]:
    """Probabilities, and which patches raise them, where there were texts."""
    said = found.texts
    if said is None:
        return
    shown = said.ranking()[:MOST_TEXTS]
    terms = against_others(said.contributions)[shown[0]].reshape(found.grid)
    most, least = (place(int(at), found.grid[1]) for at in (terms.argmax(), terms.argmin()))
    alt = f"what each patch adds for {said.labels[shown[0]]}: most at {most}, least at {least}"
    rows = [radio("text", i, _text(said, k), "text", first=i == 0) for i, k in enumerate(shown)]
    if hidden := len(said.labels) - len(shown):
        rest = 100 * (1 - said.probabilities[shown].sum())
        rows.append(el("p", f"… {hidden} more, {rest:.1f} % together"))
    yield section(
        "texts",
        "Which text fits?",
        "The probability of each text among these, and what each patch of the image adds for the "
        "chosen one (orange) or against it (blue).",
        el(
            "div",
            el(
                "div",
                picture(found, "for-text", drawings.diverging(terms), alt),
                _two_sides(float(np.abs(terms).max())),
            ),
            el(
                "div",
                el("div", *rows, class_="texts", role="radiogroup", aria_label="texts"),
                *([_compared()] if len(said.labels) > 1 else []),
                el("p", class_="status", id="for-text-status", aria_live="polite"),
            ),
            class_="beside",
        ),
    )


def _text(said: Texts, k: int) -> Markup:
    """A text with its probability, as a number and as a bar."""
    shown = f"{100 * said.probabilities[k]:.1f}"
    return el(
        "span",
        el("span", said.labels[k] or "(empty text)", class_="label", dir="auto"),
        el("span", f"{shown} %", class_="number"),
        el("span", el("span", style=f"width:{shown}%"), class_="share"),
        class_="row",
    )


def _compared() -> Markup:
    """Whether a logit is shown as it is, or what of it decides."""
    choices = ("against the mean of the other texts", "the logit alone")
    return _choices("against", "What a patch adds", choices, data_js="", hidden="")


def _choices(group: str, legend: str, choices: Sequence[str], **given: object) -> Markup:
    """What can be chosen, the first of it at first."""
    inside = [
        radio(group, i, el("span", what), "choice", first=i == 0) for i, what in enumerate(choices)
    ]
    return el("fieldset", el("legend", legend), *inside, class_="choices", **given)


def _two_sides(most: float) -> Markup:
    less, more = (f"rgb{colour}" for colour in drawings.DIVERGING)
    bar = f"background:linear-gradient(90deg,{less},transparent,{more})"
    return el(
        "div",
        el("output", f"-{number(most)}", class_="least"),
        el("span", class_="bar", style=bar),
        el("output", f"+{number(most)}", class_="most"),
        class_="scale",
    )


# ---------------------------------------------------------------------------- attention


def attention(found: Explanation) -> Markup:
    """Whom the first patch attends to, in the middle block, in every head."""
    maps, patch, index = found.attention, first_patch(found), first_map(found)
    read = _read(found, index, patch)
    tiles = [
        radio("head", i - 1, _head(name, row, maps.key_cell), "pick", first=i == 0)
        for i, (name, row) in enumerate(read.items())
    ]
    mean = read["mean"]
    asked = place(patch, found.grid[1], maps.query_cell)
    alt = f"{asked}, block {maps.blocks[index]}, mean of heads: {peak(mean, maps.key_cell)}"
    cells = {"cell": maps.query_cell, "lines": maps.key_cell}
    return section(
        "attention",
        "Whom does a patch attend to?",
        "The brighter a patch, the more the outlined one reads from it.",
        el(
            "div",
            el(
                "div",
                picture(found, "attends", drawings.heat(mean), alt, **cells),
                heat_scale(float(mean.max())),
            ),
            el(
                "div",
                _choices("asked", "Shown", _ASKED, data_js="", hidden=""),
                _block_slider(maps, index),
                el("p", "Heads, each in its own scale:", class_="above"),
                el("div", *tiles, class_="tiles", role="radiogroup", aria_label="heads"),
            ),
            class_="beside",
        ),
        el("p", class_="status", id="attends-status", aria_live="polite"),
    )


def _read(found: Explanation, index: int, patch: int) -> dict[str, Array]:
    """What a patch reads from each, (rows, columns): in the mean of the heads, and in each."""
    maps, columns = found.attention, found.grid[1]
    cell = maps.query_cell
    row, column = divmod(patch, columns)
    query = row // cell * -(-columns // cell) + column // cell
    heads = [maps.weights(index, head)[query] for head in range(maps.levels.shape[1])]
    named = {"mean": np.mean(heads, axis=0)} | {f"head {h}": read for h, read in enumerate(heads)}
    return {name: drawings.spread(r, found.grid, maps.key_cell) for name, r in named.items()}


def _head(name: str, values: Array, cell: int = 1) -> Markup:
    """A head's map, in its own scale."""
    most = f"≤ {percent(float(values.max()))}"
    return tile(drawings.heat(values), f"{name}: {peak(values, cell)}", name, most)


def _block_slider(maps: AttentionMaps, index: int) -> Markup:
    slider = el(
        "input",
        type="range",
        id="block",
        min=0,
        max=len(maps.blocks) - 1,
        value=index,
        disabled="",  # until the script runs
        aria_valuetext=f"block {maps.blocks[index]}",
    )
    named = el("span", "Block ", el("output", maps.blocks[index], id="block-number"))
    ends = el("span", el("span", maps.blocks[0]), el("span", maps.blocks[-1]), class_="ends")
    return el("label", named, slider, ends, class_="slider")


# ---------------------------------------------------------------------------- depth


def residual(found: Explanation) -> Markup:
    """The stream along depth."""
    return section(
        "residual",
        "What does each block add?",
        "The length of a patch's vector on its way through the blocks, and the lengths of what "
        "attention and MLP add to it. Thin lines are the mean over all patches, thick lines the "
        "outlined patch.",
        residual_plot(found.residual),
        el("p", class_="status", id="residual-status", aria_live="polite"),
        residual_table(found.residual),
    )


def pooling(found: Explanation) -> Iterator[Markup]:
    """What the learned query looks at, where there is a pooling head."""
    if found.pooling is None:
        return
    rows = {"mean": found.pooling.mean(axis=0)}
    rows |= {f"head {h}": row for h, row in enumerate(found.pooling)}
    tiles = [_head(name, row.reshape(found.grid)) for name, row in rows.items()]
    yield section(
        "pooling",
        "What does the pooling head look at?",
        "One learned query reads the last features of all patches into one vector. Each map is in "
        "its own scale, from 0 to the number below it.",
        el("div", *tiles, class_="tiles"),
    )


def components(found: Explanation) -> Markup:
    """The patches' principal components at every depth, as colours or one by one."""
    colours, shares = found.components.colours, found.components.shares
    tiles = [
        _depth(name, colours[d].reshape(*found.grid, 3), shares[d])
        for d, name in enumerate(found.components.names)
    ]
    return section(
        "components",
        "Which patches are alike?",
        "Patches of like colour point in like directions: the first three principal components of "
        "the patches at each depth. The number is their share of what differs between patches.",
        _choices("component", "Components", _COMPONENTS),
        el("div", *tiles, class_="tiles"),
    )


def _depth(name: str, colours: Array, shares: Array) -> Markup:
    """A depth's picture of all components and of each; the style shows the one that is chosen."""
    drawn = [(drawings.coloured(colours), float(shares.sum()))]
    for c, share in enumerate(shares):
        drawn.append((drawings.heat(colours[..., c], veil=(255, 255)), float(share)))
    versions = [
        el(
            "span",
            tile(source, f"{name}: {_COMPONENTS[i]}", name, f"{100 * share:.0f} %", over=False),
            class_=f"version c{i}",
        )
        for i, (source, share) in enumerate(drawn)
    ]
    return el("span", *versions)
