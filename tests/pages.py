"""What reads HTML pages: their elements, their words, their pictures; and a name to break them."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from typing import Any

import numpy as np
import PIL.Image

HOSTILE = '<script>alert("1")</script>&\'"><img src=x onerror=a()>\n\x00\u202e\ud800'
VOID = {"br", "img", "input", "meta"}


class Parsed(HTMLParser):
    """A page as elements with their attributes; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        wanted = [given for name, given in self.elements if name == tag]
        return [g for g in wanted if class_ is None or class_ in (g.get("class") or "").split()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pictures(text: str) -> list[Any]:
    """The heat maps of a page, in order, as (Y, X, 4)."""
    found = []
    for img in Parsed(text).all("img"):
        kind, data = str(img["src"]).split(";base64,")
        image = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        if kind == "data:image/png":
            found.append(np.asarray(image.convert("RGBA")))
    return found
