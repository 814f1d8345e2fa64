"""From a file to pixel values and from texts to ids, step by step, so that a step can be mistaken.

With the steps as they are, this gives what ImageProcessor and Tokenizer give, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..image_files import load_image
from ..images import ImageProcessor
from ..ops import Array
from ..tokenizer import Tokenizer

__all__ = ["RawImage", "RawTexts", "resized", "window"]


def _without(table: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


# ---------------------------------------------------------------------------- images


def _decoded(r: RawImage) -> Array:
    return np.asarray(load_image(r.source))


def _resized(r: RawImage, pixels: Array) -> Array:
    return resized(r.processor, pixels)


def _stored(r: RawImage, pixels: Array) -> Array:
    return np.clip(np.round(pixels), 0, 255)


def _clipped(r: RawImage, pixels: Array) -> Array:
    return np.clip(pixels, 0, 255)


def _cropped(r: RawImage, pixels: Array) -> Array:
    height, width = r.processor.crop_size
    top, left = (len(pixels) - height) // 2, (pixels.shape[1] - width) // 2
    return (
        window(pixels, top, left, r.processor.crop_size) if r.processor.do_center_crop else pixels
    )


def resized(processor: ImageProcessor, pixels: Array, **settings: Any) -> Array:
    """Pixels (Y, X, 3) resized as a processor with these settings does, in levels of 255."""
    settings |= {"do_center_crop": False, "do_rescale": False, "do_normalize": False}
    only = replace(processor, **settings)
    return np.moveaxis(only(np.asarray(pixels, np.uint8))[0], 0, -1)


def window(pixels: Array, top: int, left: int, size: tuple[int, int]) -> Array:
    """A part of pixels (Y, X, 3); what lies outside them is 0."""
    framed = np.zeros((*size, 3), pixels.dtype)
    y, x = max(-top, 0), max(-left, 0)
    inside = pixels[top + y : top + size[0], left + x : left + size[1]]
    framed[y : y + len(inside), x : x + inside.shape[1]] = inside
    return framed


def _scaled(r: RawImage, pixels: Array) -> Array:
    p = r.processor
    factor = p.rescale_factor if p.do_rescale else 1.0
    values = np.asarray(np.asarray(pixels, np.float64) * factor, np.float32)
    if not p.do_normalize:
        return values
    return (values - np.array(p.image_mean, np.float32)) / np.array(p.image_std, np.float32)


def _channels_first(r: RawImage, values: Array) -> Array:
    return np.moveaxis(values, -1, 0)


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image, and the steps that make pixel values of it; a mistake replaces some.

    A step takes pixels (Y, X, 3) and returns them. Their values are levels of 255 up to `scale`.
    """

    source: Any  # as ImageProcessor takes it
    processor: ImageProcessor
    patch: int = 14
    decode: Callable[[RawImage], Array] = _decoded
    resize: Callable[[RawImage, Array], Array] = _resized
    store: Callable[[RawImage, Array], Array] = _stored  # to 8 bits, whatever resizing left
    crop: Callable[[RawImage, Array], Array] = _cropped
    scale: Callable[[RawImage, Array], Array] = _scaled
    layout: Callable[[RawImage, Array], Array] = _channels_first

    def setting(self, **settings: Any) -> RawImage:
        """With other settings of the processor."""
        return replace(self, processor=replace(self.processor, **settings))

    @property
    def parts(self) -> dict[str, Any]:
        """The steps and the processor's settings by name: what can be mistaken."""
        return _without(vars(self), "source", "processor") | vars(self.processor)

    def size(self, pixels: Array) -> tuple[int, int]:
        """The height and width that pixels are resized to."""
        height, width = resized(self.processor, pixels, resample=0).shape[:2]
        return height, width

    def pixel_values(self) -> Array:
        """What a port with these steps gives, (3, Y, X)."""
        pixels = self.store(self, self.resize(self, self.decode(self)))
        return self.layout(self, self.scale(self, self.crop(self, pixels)))

    def variants(self) -> list[RawImage]:
        """These steps, and where they resize in floating point also without rounding to 8 bits."""
        rounds = self.resize is not RawImage.resize and self.store is RawImage.store
        return [self, *([replace(self, store=_clipped)] if rounds else [])]

    def level(self) -> float:
        """The most by which one level of 255 changes a pixel value."""
        dark, bright = (self.scale(self, np.full((1, 1, 3), level)) for level in (0, 255))
        return float(np.abs(bright - dark).max()) / 255


# ---------------------------------------------------------------------------- texts


def _split(r: RawTexts) -> list[list[int]]:
    return r.encoded()


def _framed(r: RawTexts, row: list[int]) -> list[int]:
    return [r.begin, *row, r.end]


def _cut(r: RawTexts, row: list[int]) -> list[int]:
    longest = r.tokenizer.max_length
    return row if len(row) <= longest else [*row[: longest - 1], row[-1]]


def _padded(r: RawTexts, rows: Sequence[Sequence[int]]) -> Array:
    ids = np.full((len(rows), max(map(len, rows))), r.tokenizer.pad_token_id, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def _masked(r: RawTexts, rows: Sequence[Sequence[int]]) -> Array:
    lengths = np.array([len(row) for row in rows])
    return (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class RawTexts:
    """Texts, and the steps that make ids of them; a mistake replaces some."""

    texts: Sequence[str]
    tokenizer: Tokenizer
    backend: Any  # the tokenizers library's own object, which adds the begin and the end token
    split: Callable[[RawTexts], list[list[int]]] = _split  # without begin and end
    frame: Callable[[RawTexts, list[int]], list[int]] = _framed
    cut: Callable[[RawTexts, list[int]], list[int]] = _cut
    pad: Callable[[RawTexts, list[list[int]]], Array] = _padded  # to (K, T)
    mask: Callable[[RawTexts, list[list[int]]], Array] = _masked

    @property
    def parts(self) -> dict[str, Any]:
        """The steps by name: what can be mistaken."""
        return _without(vars(self), "texts", "tokenizer", "backend")

    @property
    def begin(self) -> int:
        """The begin token's id."""
        return int(self.backend.encode("").ids[0])

    @property
    def end(self) -> int:
        """The end token's id."""
        return self.tokenizer.eos_token_id

    def encoded(self, **parts: Any) -> list[list[int]]:
        """Ids of each text, with another `normalizer` or `pre_tokenizer` if given."""
        kept = {name: getattr(self.backend, name) for name in parts}
        try:
            for name, part in parts.items():
                setattr(self.backend, name, part)
            return [self.backend.encode(t, add_special_tokens=False).ids for t in self.texts]
        finally:
            for name, part in kept.items():
                setattr(self.backend, name, part)

    def tokens(self) -> dict[str, Array]:
        """What a port with these steps gives: input_ids and attention_mask, (K, T)."""
        rows = [self.cut(self, self.frame(self, row)) for row in self.split(self)]
        return {"input_ids": self.pad(self, rows), "attention_mask": self.mask(self, rows)}
