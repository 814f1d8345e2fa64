"""Pictures that lie inside a page, and the colours of their maps."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CIVIDIS", "encoded", "gradient", "ramp"]

Stops = Sequence[tuple[int, int, int]]

# cividis: alike to the colour-blind, and lighter all the way (Nuñez et al. 2018)
CIVIDIS: Stops = ((0, 34, 78), (65, 77, 107), (124, 123, 120), (188, 175, 111), (254, 232, 56))


def encoded(image: Image, kind: str, **options: Any) -> str:
    """A picture as a data: address, in a format of Pillow's: "png" or "jpeg"."""
    written = BytesIO()
    image.save(written, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"


def ramp(stops: Stops, steps: int) -> NDArray[np.float64]:
    """Colours between stops that lie at equal distances, (steps, 3), from 0 to 255."""
    at, known = np.linspace(0, 1, steps), np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, known, band) for band in zip(*stops, strict=True)], axis=1)


def gradient(stops: Stops) -> str:
    """The same colours in CSS, from left to right."""
    return f"linear-gradient(90deg,{','.join(f'rgb{colour}' for colour in stops)})"
