"""Rasterise the drawings, each in several styles, once, into one array per artist and style.

    python render.py           # data/drawings/<artist>-<style>.npz

Few artists drew all emoji, so each drawing is also rendered as others might have drawn it: with an
outline around every shape, as line art, and outlined in other colours. Icons stay as they are. A
style is a CSS style sheet, which overrides what the SVG says. Pixels are RGBA, 96 × 96, with colour
multiplied by alpha, as resampling and compositing want them. What is there is kept if it was made
from the same drawings in the same way.
"""

import colorsys
import hashlib
import io
import json
import math
import random
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from emoji import drawings, svg
from fetch import EMOJI_SETS, TRAINED_ON, VALIDATION
from paths import DRAWINGS

SIZE = 96  # pixels; the model sees 64

_SHAPES = "path,circle,ellipse,rect,polygon,polyline"
_STROKE = "stroke-linejoin:round;stroke-linecap:round"
_OUTLINED = f"{_SHAPES}{{stroke:#111;stroke-width:1.8%;{_STROKE}}}"
STYLES = {  # style sheets
    "plain": None,
    "outlined": _OUTLINED,
    "line": f"{_SHAPES}{{fill:#fff;stroke:#000;stroke-width:2%;{_STROKE}}}",
    "recoloured": _OUTLINED,  # after `recoloured`
}
_HEX = re.compile(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


def styles(artist: str) -> tuple[str, ...]:
    """The styles an artist is rendered in; what is black on white already stays as it is."""
    return tuple(STYLES) if artist in EMOJI_SETS and "monotone" not in artist else ("plain",)


def recoloured(document: str) -> str:
    """Each colour of a drawing moved on its own: nobody mixes quite the same palette.

    Greys stay grey. The source of chance is the drawing itself: it always gets the same colours.
    """
    rng = random.Random(document)

    def moved(colour: str) -> str:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        hue, light, saturation = colorsys.rgb_to_hls(
            *(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        )
        hue = (hue + rng.gauss(0, 0.06)) % 1
        light = min(max(light + rng.gauss(0, 0.12), 0), 1)
        saturation = min(saturation * math.exp(rng.gauss(0, 0.3)), 1)
        mixed = colorsys.hls_to_rgb(hue, light, saturation)
        return "#" + "".join(f"{round(255 * part):02x}" for part in mixed)

    new = {colour: moved(colour) for colour in sorted(set(_HEX.findall(document)))}
    return _HEX.sub(lambda match: new[match[0]], document)


def rasterise(document: str, size: int = SIZE, style: str | None = None) -> Image.Image:
    """An SVG document as a square RGBA image, not premultiplied."""
    png = resvg_py.svg_to_bytes(svg_string=document, width=size, height=size, style_sheet=style)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if image.size == (size, size):
        return image
    square = Image.new("RGBA", (size, size))  # a drawing that is not square keeps its proportions
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def premultiplied(image: Image.Image) -> np.ndarray:
    """RGBA uint8 (4, size, size), colour multiplied by alpha."""
    pixels = np.asarray(image, np.uint16).transpose(2, 0, 1)
    colour = (pixels[:3] * pixels[3:] + 127) // 255
    return np.concatenate([colour, pixels[3:]]).astype(np.uint8)


def render(artist: str, style: str) -> Path:
    """All drawings of an artist in a style: `pixels` (N, 4, 96, 96) and `classes` (N,)."""
    target = DRAWINGS / f"{artist}-{style}.npz"
    documents, found = svg(artist), drawings(artist)
    redrawn = recoloured if style == "recoloured" else str
    source = [redrawn(documents[name]) for name, _ in found]
    recipe = json.dumps([source, found, STYLES[style], SIZE])
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    if target.exists():
        with np.load(target) as file:
            if file.get("recipe", "") == digest:
                return target
    pixels = [premultiplied(rasterise(document, style=STYLES[style])) for document in source]
    classes = np.array([c for _, c in found], np.int32)
    scratch = target.with_suffix(".part.npz")
    np.savez(scratch, pixels=np.stack(pixels), classes=classes, recipe=digest)
    return scratch.rename(target)


def main() -> None:
    """Every artist we train on in every style, and the validation artist as drawn."""
    DRAWINGS.mkdir(parents=True, exist_ok=True)
    jobs = [(artist, style) for artist in TRAINED_ON for style in styles(artist)]
    with ProcessPoolExecutor() as pool:
        for path in pool.map(render, *zip(*jobs, (VALIDATION, "plain"), strict=True)):
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
