"""HTML that cannot be broken by what it shows, documents, and numbers as a page shows them."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from ..cli_screen import printable

__all__ = ["Markup", "document", "el", "lines", "number", "times"]

_VOID = ("br", "img", "input", "meta")  # elements that have no end


class Markup(str):
    """Text that is HTML already; any other string is escaped where it enters a page."""


def el(tag: str, *inside: object, **attributes: object) -> Markup:
    """An element: `el("td", "a < b", class_="wrong")` is <td class="wrong">a &lt; b</td>.

    What is inside is escaped unless it is Markup. An underscore at an attribute's end is dropped,
    others become hyphens; an attribute that is None is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{''.join(_escaped(part) for part in inside)}</{tag}>")


def _escaped(value: object) -> str:
    return value if isinstance(value, Markup) else escape(printable(str(value)))


def lines(*parts: str) -> Markup:
    """Several lines, one below the other, as a tooltip shows them."""
    return Markup("&#10;".join(_escaped(part) for part in parts))


def document(title: str, *body: Markup, style: str, head: Markup | None = None) -> str:
    """A page in the shared style followed by its own, and what else belongs into its head."""
    shared = Path(__file__).with_name("base.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        head or Markup(""),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(f"{shared}\n{style}")),
    )
    return "<!DOCTYPE html>\n" + el("html", head, el("body", *body), lang="en") + "\n"


# ---------------------------------------------------------------------------- numbers


def number(value: float) -> str:
    """Three digits: 0.0000123 is 1.23e-5."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    digits, power = f"{value:.2e}".split("e")
    return f"{digits}e{int(power)}"


def times(value: float) -> str:
    """A multiple: two digits, since that is how well rounding is known."""
    if 0 < value < 1e4:
        return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×"
    return f"{number(value)} ×"
