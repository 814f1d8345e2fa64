"""The README of a conformance pack: conformance.md with the model's numbers and tables in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from ..config import LiTConfig
from ..hub import packaged_models
from ..trace import activation_names
from ..weights.layouts import LAYOUTS
from .inputs import RAW
from .locate import ALLOWED

__all__ = ["page"]

_INNERMOST = re.compile(r"<!-- if (\w+) -->(\n?)((?:(?!<!-- (?:if|end)).)*)<!-- end -->(\n?)", re.S)
_BLOCK = re.compile(r"\bblocks\.(\d+)\.")

Shapes = Mapping[str, tuple[int, ...]]


def page(pipeline: Any, about: Mapping[str, Any], expected: Shapes) -> str:
    """The page for a model; `about` is model.json, `expected` the shapes of the expected arrays."""
    template = Path(__file__).with_name("conformance.md").read_text(encoding="utf-8")
    lit = isinstance(pipeline.config, LiTConfig)
    vision = pipeline.config.vision if lit else pipeline.config
    holds = {
        "lit": lit,
        "alone": not lit,
        "learned": not vision.is_native,
        "native": vision.is_native,
        "head": vision.use_head,
        "raw": any(key.startswith(f"{RAW}/") for key in expected),
        "texts": f"{RAW}/input_ids" in expected,
        "resized": bool(about["preprocessing"] and about["preprocessing"]["do_resize"]),
    }
    values = {
        "model": about["model"],
        "version": about["aimv2_np"],
        "eps": f"{vision.rms_norm_eps:g}",
        "side": vision.grid_size,
        "end": pipeline.config.text.eos_token_id if lit else "",
        "most": f"{pipeline.config.max_logit_scale:g}" if lit else "",
        "shared": pipeline.config.projection_dim if lit else "",
        "allowed": f"{ALLOWED:g}",
        "deep": " and ".join(_complete(expected)),
        "activations": _activations(expected, activation_names(pipeline.config)),
        "parameters": _parameters({k: tuple(s) for k, s in about["parameters"].items()}),
        "licence": _licence(pipeline),
    }
    return Template(_chosen(template, holds)).substitute(values)


def _chosen(template: str, holds: Mapping[str, bool]) -> str:
    """The template with what stands between `if` and `end` where it holds, the innermost first."""

    def one(match: re.Match[str]) -> str:
        name, before, text, after = match.groups()
        return (text if before else text + after) if holds[name] else ("" if before else after)

    while _INNERMOST.search(template):
        template = _INNERMOST.sub(one, template)
    return template


# ---------------------------------------------------------------------------- tables


def _activations(expected: Shapes, order: Sequence[str]) -> str:
    """A row for each activation: in which cases it is, and its shape there."""
    rows: dict[str, dict[str, str]] = {}
    numbers: dict[str, list[int]] = {}
    place = {name: i for i, name in enumerate(order)}
    keys = [tuple(key.split("/", 1)) for key in expected if not key.startswith(f"{RAW}/")]
    for case, name in sorted(keys, key=lambda key: place[key[1]]):
        shape = expected[f"{case}/{name}"]
        i = _BLOCK.search(name)
        row = name if i is None or int(i[1]) == 0 else _BLOCK.sub("blocks.{i}.", name)
        rows.setdefault(row, {})[case] = f"`{case}` {list(shape)}"
        if row != name and i is not None:
            numbers.setdefault(row, []).append(int(i[1]))
    ranges = {row: f", i = {found[0]} … {found[-1]}" for row, found in numbers.items()}
    return _table(
        ("activation", "in the cases, with its shape there"),
        (
            (f"`{row}`{ranges.get(row, '')}", "; ".join(there.values()))
            for row, there in rows.items()
        ),
    )


def _complete(expected: Shapes) -> list[str]:
    """The cases in which blocks are shown, for images and for texts."""
    found = {
        kind: key.partition("/")[0]
        for key in expected
        for kind, tower in (("images", "/vision.blocks."), ("texts", "/text.blocks."))
        if tower in key
    }
    return [f"`{case}` for {kind}" for kind, case in found.items()]


def _parameters(shapes: Shapes) -> str:
    """A row for each parameter; of the blocks, for each of one."""
    layout = next(x for x in LAYOUTS if x.name == "transformers" and all(map(x.stored, shapes)))
    rows = {}
    for name, shape in shapes.items():
        theirs = ", ".join(f"`{_numberless(key)}`" for key, _ in layout.stored(name))
        lead = " (N, D)" if any(row.lead for _, row in layout.stored(name)) else ""
        rows[_numberless(name)] = f"`{_numberless(name)}`", str(list(shape)), theirs + lead
    return _table(("the original's name", "shape", "transformers' name"), rows.values())


def _numberless(name: str) -> str:
    return re.sub(r"\b(blocks|layers)\.\d+\.", r"\1.{i}.", name)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _licence(pipeline: Any) -> str:
    info: Mapping[str, Any] = getattr(pipeline, "info", {})
    if info.get("official"):
        return (
            f"The weights are Apple's, under Apple's research licence (`apple-amlr`), in the "
            f"repository apple/aimv2-{info['official']} of the Hugging Face hub; read it before "
            "you use them."
        )
    if info.get("name") in packaged_models():
        return (
            f"The weights of {info['name']} are a part of the package aimv2_np, in models_data/"
            f"{info['name']}, under the MIT licence; the model card beside them says whom to name."
        )
    return "The weights are under the licence of whoever published them."
