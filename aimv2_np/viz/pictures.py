"""A matplotlib Figure that says in words what it shows. This module alone imports matplotlib."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

__all__ = ["Picture"]

DPI = 100


class Picture(Figure):
    """A Figure with an alternative text, `alt`, which a notebook keeps beside the image.

    It does not belong to pyplot: a notebook shows it once, as a cell's last value or by
    `display`, and `savefig` writes it to a file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._said: list[str] = []

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        return " ".join(self._said)

    def say(self, sentence: str) -> None:
        """Add to the alternative text."""
        self._said.append(sentence)

    def png(self) -> bytes:
        """The picture as a PNG file; the first call gives the same bytes in every run.

        Later calls may move some pixels: matplotlib goes on arranging what it has arranged.
        """
        file = BytesIO()
        self.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        return file.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """For IPython: the image, and its words for whoever cannot see it."""
        image = base64.b64encode(self.png()).decode()
        return {"image/png": image, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}
