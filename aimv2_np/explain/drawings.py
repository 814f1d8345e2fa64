"""Maps over the patches as small pictures: a pixel is a patch, the page stretches it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ops import Array
from ..pages.pictures import CIVIDIS, encoded, ramp

__all__ = ["DIVERGING", "VEIL", "coloured", "diverging", "heat", "photograph", "spread"]

# Okabe and Ito's blue and vermilion, for less and more: told apart by all kinds of colour vision
DIVERGING = ((0, 114, 178), (213, 94, 0))
VEIL = (130, 235)  # of 255: the image is seen through what is small
_SHARP = 256 * 256  # pixels up to which a picture is kept to the last bit


def photograph(picture: NDArray[np.uint8]) -> str:
    """The image as the model sees it: without loss if it is small, else as a JPEG."""
    from PIL import Image

    image = Image.fromarray(picture)
    if image.width * image.height <= _SHARP:
        return encoded(image, "png", optimize=True)
    return encoded(image, "jpeg", quality=90)


def heat(values: Array, veil: tuple[int, int] = VEIL) -> str:
    """Values (rows, columns) from 0 to the largest, in cividis; `veil` is how opaque both are."""
    part = values / max(float(values.max()), np.finfo(np.float32).tiny)
    colours = ramp(CIVIDIS, 256)[np.rint(part * 255).astype(int)]
    opaque = veil[0] + (veil[1] - veil[0]) * part
    return coloured(np.concatenate([colours, opaque[..., None]], axis=-1))


def diverging(values: Array) -> str:
    """Values (rows, columns) less and more than 0: the nearer to it, the more transparent."""
    part = values / max(float(np.abs(values).max()), np.finfo(np.float32).tiny)
    colours = np.array(DIVERGING)[(part > 0).astype(int)]
    return coloured(np.concatenate([colours, np.abs(part)[..., None] * VEIL[1]], axis=-1))


def coloured(colours: Array) -> str:
    """Colours (rows, columns, 3 or 4) or greys (rows, columns), from 0 to 255."""
    from PIL import Image

    image = Image.fromarray(np.rint(colours).astype(np.uint8))
    return encoded(image, "png", optimize=True)


def spread(values: Array, grid: tuple[int, int], cell: int) -> Array:
    """A value per cell, (K,), as one per patch, (rows, columns)."""
    rows, columns = grid
    cells = values.reshape(-(-rows // cell), -(-columns // cell))
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)[:rows, :columns]
