"""Preprocessing: how an image file becomes pixel values.

A mistake here takes a RawImage and gives one with some steps replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ...image_files import load_image
from ...images import ImageProcessor
from ...ops import Array
from ..lanes import rounded
from ..raw import RawImage, resized, window
from ..resampling import (
    Taps,
    antialiased,
    areas,
    corners,
    first_pixels,
    four_pixels,
    resample,
    two_pixels,
)
from . import mistake

Replaced = Callable[[RawImage], RawImage]

_NUMBERS = "(pixel / 255 - image_mean) / image_std, with the numbers of preprocessor_config.json"
_SIZE = "resize so that the shorter edge fits (the longer is cut to whole pixels), crop the centre"
_FILTER = "bicubic as Pillow's: antialiased where an image is made smaller, stored in 8 bits"


def _raw(id: str, says: str, remedy: str, seen_in: str = "") -> Callable[[Replaced], Replaced]:
    entered = mistake(id, "raw.pixel_values", says=says, remedy=remedy, seen_in=seen_in)
    return cast(Callable[[Replaced], Replaced], entered)


def _setting(id: str, says: str, remedy: str, seen_in: str = "", **settings: Any) -> None:
    """Other settings of the processor."""
    _raw(id, says, remedy, seen_in)(lambda r: r.setting(**settings))


# ---------------------------------------------------------------------------- numbers

_setting(
    "imagenet-normalisation",
    "ImageNet's mean and deviation are used",
    _NUMBERS,
    seen_in="the original README's example, ports",
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
)
_setting(
    "half-normalisation",
    "pixels are scaled to -1…1: mean and deviation are 0.5",
    _NUMBERS,
    seen_in="ports",
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
)
_setting(
    "no-normalisation",
    "pixels are scaled to 0…1 and not normalised",
    _NUMBERS,
    seen_in="ports",
    do_normalize=False,
)
_setting("mean-missing", "the mean is not subtracted", _NUMBERS, image_mean=(0.0, 0.0, 0.0))
_setting(
    "deviation-missing",
    "there is no division by the standard deviation",
    _NUMBERS,
    image_std=(1.0, 1.0, 1.0),
)
_setting(
    "no-rescale",
    "pixels of 0…255 are normalised as if they were 0…1",
    _NUMBERS,
    seen_in="ports",
    do_rescale=False,
)
_setting(
    "pixels-as-they-are",
    "pixel values are 0…255: neither rescaled nor normalised",
    _NUMBERS,
    seen_in="ports",
    do_rescale=False,
    do_normalize=False,
)
_setting("rescale-256", "pixels are divided by 256", _NUMBERS, rescale_factor=1 / 256)


@_raw("rescaled-twice", "pixels are divided by 255 twice", _NUMBERS, seen_in="ports")
def rescaled_twice(r: RawImage) -> RawImage:
    """By the decoder, and again by the processor."""
    return r.setting(rescale_factor=r.processor.rescale_factor**2)


@_raw("normalisation-bgr", "mean and deviation are in the order blue, green, red", _NUMBERS)
def normalisation_bgr(r: RawImage) -> RawImage:
    """Red normalised as blue."""
    p = r.processor
    return r.setting(image_mean=p.image_mean[::-1], image_std=p.image_std[::-1])


@_raw(
    "bgr", "channels are in the order blue, green, red", "red comes first", "ports that use OpenCV"
)
def bgr(r: RawImage) -> RawImage:
    """As OpenCV reads images."""
    return replace(r, decode=lambda raw: r.decode(raw)[:, :, ::-1])


def _kept_in(dtype: str) -> None:
    def patch(r: RawImage) -> RawImage:
        return replace(r, scale=lambda raw, pixels: rounded(r.scale(raw, pixels), dtype))

    remedy = "keep them in float32, or say that the port computes in less"
    _raw(f"pixels-{dtype}", f"pixel values are kept in {dtype}", remedy)(patch)


_kept_in("bfloat16")
_kept_in("float16")


# ---------------------------------------------------------------------------- the filter

_setting("bilinear", "images are resized bilinearly", _FILTER, seen_in="ports", resample=2)
_setting("lanczos", "images are resized with Lanczos' filter", _FILTER, resample=1)
_setting("nearest", "images are resized to the nearest pixel", _FILTER, resample=0)


def _by(taps: Callable[[int, int], Taps]) -> Callable[[RawImage, Array], Array]:
    return lambda r, pixels: resample(pixels, r.size(pixels), taps)


def _resampling(id: str, says: str, taps: Callable[[int, int], Taps], seen_in: str) -> None:
    """Another way to resize, in floating point."""

    def patch(r: RawImage) -> RawImage:
        return replace(r, resize=_by(taps)) if r.processor.do_resize else r

    _raw(id, says, _FILTER, seen_in)(patch)


_resampling(
    "no-antialias",
    "bicubic resizing looks at four pixels only: there is no antialiasing",
    four_pixels,
    seen_in="OpenCV, torch without antialias=True",
)
_resampling(
    "bilinear-no-antialias",
    "images are resized bilinearly and without antialiasing",
    two_pixels,
    seen_in="OpenCV's default, torch without antialias=True",
)
_resampling(
    "resize-align-corners",
    "images are resized bilinearly, corner to corner",
    corners,
    seen_in="torch with align_corners=True",
)
_resampling(
    "nearest-corner",
    "images are resized to the pixel at a new pixel's corner, not at its centre",
    first_pixels,
    seen_in="OpenCV's and torch's nearest",
)
_resampling("area", "images are resized by averaging areas", areas, seen_in="OpenCV's INTER_AREA")


@_raw(
    "resize-unclamped",
    "what bicubic resizing shoots beyond 0…255 is not cut off",
    _FILTER,
    seen_in="torch on floats",
)
def resize_unclamped(r: RawImage) -> RawImage:
    """In floating point throughout."""
    if not r.processor.do_resize:
        return r
    return replace(r, resize=_by(antialiased), store=lambda raw, pixels: pixels)


# ---------------------------------------------------------------------------- size and crop


def _sized(id: str, says: str, seen_in: str = "") -> Callable[[Replaced], Replaced]:
    """A mistake with images that are resized and cropped."""

    def enter(patch: Replaced) -> Replaced:
        def where_it_applies(r: RawImage) -> RawImage:
            return patch(r) if r.processor.do_resize and r.processor.do_center_crop else r

        return _raw(id, says, _SIZE, seen_in)(where_it_applies)

    return enter


def _shortest(r: RawImage) -> int:
    size = r.processor.size
    return size if isinstance(size, int) else min(size)


@_sized("squashed", "images are resized to a square, whatever their shape", seen_in="ports")
def squashed(r: RawImage) -> RawImage:
    """Both edges."""
    return r.setting(size=r.processor.crop_size)


@_sized(
    "margin",
    "images are resized to size / 0.875 before the crop: a margin is lost",
    seen_in="the original README's example, timm, torchvision",
)
def margin(r: RawImage) -> RawImage:
    """ImageNet's habit: 256 for 224."""
    return r.setting(size=int(_shortest(r) / 0.875))


@_sized("no-crop", "images are resized and not cropped")
def no_crop(r: RawImage) -> RawImage:
    """The longer edge stays longer."""
    return r.setting(do_center_crop=False)


@_sized("crop-top-left", "the top left is cut out instead of the centre")
def crop_top_left(r: RawImage) -> RawImage:
    """From row 0, column 0."""
    return replace(r, crop=lambda raw, pixels: window(pixels, 0, 0, raw.processor.crop_size))


@_sized(
    "crop-rounded",
    "the crop's offset is rounded, not cut: it can begin a pixel too far down or right",
    seen_in="torchvision's CenterCrop",
)
def crop_rounded(r: RawImage) -> RawImage:
    """round(n / 2) for n // 2: half-way to the even number."""

    def crop(raw: RawImage, pixels: Array) -> Array:
        height, width = raw.processor.crop_size
        top, left = round((len(pixels) - height) / 2), round((pixels.shape[1] - width) / 2)
        return window(pixels, top, left, (height, width))

    return replace(r, crop=crop)


@_sized("crop-first", "the centre is cut out before resizing", seen_in="Pillow's ImageOps.fit")
def crop_first(r: RawImage) -> RawImage:
    """The largest centred square, then resized."""

    def decode(raw: RawImage) -> Array:
        pixels = r.decode(raw)
        (height, width), side = pixels.shape[:2], min(pixels.shape[:2])
        return window(pixels, (height - side) // 2, (width - side) // 2, (side, side))

    return replace(r, decode=decode)


def _fitted(r: RawImage, pixels: Array, edge: int) -> Array:
    """Resized so that `edge` pixels become as many as the shortest edge should have."""
    height, width = (max(round(_shortest(r) * n / edge), 1) for n in pixels.shape[:2])
    return resized(r.processor, pixels, size=(height, width))


@_sized("resize-rounded", "the longer edge is rounded to whole pixels", seen_in="ports")
def resize_rounded(r: RawImage) -> RawImage:
    """round for int."""
    return replace(r, resize=lambda raw, pixels: _fitted(raw, pixels, min(pixels.shape[:2])))


def _whole(r: RawImage) -> RawImage:
    """All of an image, resized so that its longer edge fits."""
    return replace(
        r,
        resize=lambda raw, pixels: _fitted(raw, pixels, max(pixels.shape[:2])),
        crop=lambda raw, pixels: pixels,
    )


@_sized("long-edge", "images are resized so that the longer edge fits: they are too small")
def long_edge(r: RawImage) -> RawImage:
    """Neither cropped nor padded."""
    return _whole(r)


@_sized("letterboxed", "images are made to fit as a whole, padded with black", seen_in="ports")
def letterboxed(r: RawImage) -> RawImage:
    """Padded before they are normalised."""
    return replace(_whole(r), crop=r.crop)


@_sized("letterboxed-mean", "images are made to fit as a whole, padded with the mean colour")
def letterboxed_mean(r: RawImage) -> RawImage:
    """Padded with 0 after they are normalised."""
    return replace(_whole(r), layout=lambda raw, values: r.layout(raw, r.crop(raw, values)))


@_raw(
    "default-size",
    "images are resized and cropped to 224, the processor's default",
    "take size and crop_size from preprocessor_config.json; a native model resizes nothing",
    seen_in="CLIPImageProcessor without its file",
)
def default_size(r: RawImage) -> RawImage:
    """The class's defaults."""
    p = ImageProcessor()
    return r.setting(do_resize=True, do_center_crop=True, size=p.size, crop_size=p.crop_size)


@_raw(
    "resized-to-patches",
    "images are resized to a whole number of patches",
    "a native model takes images as they are, and cuts off what fills no patch",
    seen_in="ports",
)
def resized_to_patches(r: RawImage) -> RawImage:
    """To the multiple of the patch below."""

    def resize(raw: RawImage, pixels: Array) -> Array:
        size = tuple(n // raw.patch * raw.patch for n in pixels.shape[:2])
        return resized(raw.processor, pixels, do_resize=True, size=size)

    return r if r.processor.do_resize else replace(r, resize=resize)


# ---------------------------------------------------------------------------- orientation


def _turned(id: str, says: str, turn: Callable[[Array], Array]) -> None:
    remedy = "row 0 is the top of the image, column 0 its left"
    _raw(id, says, remedy)(lambda r: replace(r, decode=lambda raw: turn(r.decode(raw))))


_turned("upside-down", "images are upside down", lambda pixels: pixels[::-1])
_turned("mirrored", "left and right are exchanged", lambda pixels: pixels[:, ::-1])


@_raw(
    "exif-ignored",
    "the orientation that a file states is ignored: a photograph can lie on its side",
    "turn images by their EXIF orientation (Pillow: ImageOps.exif_transpose)",
    seen_in="many",
)
def exif_ignored(r: RawImage) -> RawImage:
    """As stored; only an image from a file can show it."""
    if r.decode is not RawImage.decode:
        return r  # another mistake builds on decoding: it comes after this one
    return replace(r, decode=lambda raw: np.asarray(load_image(raw.source, exif=False)))


@_raw(
    "channels-last-memory",
    "the memory of (Y, X, 3) is read as (3, Y, X)",
    "move the axis: transpose(2, 0, 1), not reshape(3, Y, X)",
)
def channels_last_memory(r: RawImage) -> RawImage:
    """Reshaped instead of transposed."""
    return replace(r, layout=lambda raw, v: np.ascontiguousarray(v).reshape(3, *v.shape[:2]))


@_raw("columns-first", "rows and columns are exchanged: (3, X, Y)", "pixel values are (3, Y, X)")
def columns_first(r: RawImage) -> RawImage:
    """The transposed image."""
    return replace(r, layout=lambda raw, values: np.moveaxis(values, -1, 0).swapaxes(1, 2))
