"""From image files to the arrays a vision encoder takes, exactly as the official checkpoints do it.

The steps and their settings come from a checkpoint's preprocessor_config.json: convert to RGB,
resize so that the shortest edge fits (bicubic), crop the centre, rescale to 0..1, normalise. The
reference is transformers' CLIP image processor on Pillow (image_processing_pil_clip.py, 5.23), and
the results equal its results to the last bit. That is why Pillow does the resizing here: its
bicubic filter works in 8-bit steps, and no formula in floats gives the same pixels.

Y and X are an image's height and width in pixels; sizes are (height, width) throughout.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from .errors import ConfigError, ImageError
from .image_files import ImageSource, as_list, describe, load_image, only_rgb, open_image, to_rgb
from .ops import normalize

S = TypeVar("S")
T = TypeVar("T")

__all__ = ["ImageProcessor", "ImageSource", "as_list", "load_image"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # the hub's preprocessor_config.json, all 16
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The largest resized image, in pixels: the figure that Pillow takes for the largest harmless one
# (PIL.Image.MAX_IMAGE_PIXELS as shipped, a quarter of a gigabyte in RGB).
MAX_RESIZED_PIXELS = 89_478_485


@dataclass(frozen=True)
class ImageProcessor:
    """The preprocessing of a checkpoint; fields are those of its preprocessor_config.json.

    The defaults are those of transformers' CLIPImageProcessor, which also fill in what a file
    leaves out. `size` is the shortest edge as one number, or (height, width); `crop_size` is
    (height, width); `resample` is Pillow's number of the filter, 3 being bicubic.
    """

    do_convert_rgb: bool = True
    do_resize: bool = True
    size: int | tuple[int, int] = 224
    resample: int = 3
    do_center_crop: bool = True
    crop_size: tuple[int, int] = (224, 224)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    @classmethod
    def from_json(
        cls, raw: Mapping[str, Any], source: str = "preprocessor_config.json"
    ) -> ImageProcessor:
        """The processor that a parsed preprocessor_config.json describes.

        `size` may be an integer (old CLIP files), {"shortest_edge"} or {"height", "width"}.

        Raises:
            ConfigError: a malformed value, or a step that CLIP's processor does not have; all of
                them in one message, which begins with `source`.
        """
        return cls(**_parsed(raw, source))

    @classmethod
    def for_size(cls, image_size: int | None) -> ImageProcessor:
        """What the official checkpoints use: resize and crop to a square; None is native.

        The native checkpoint takes images as they are: neither resized nor cropped.
        """
        if image_size is None:
            return cls(do_resize=False, do_center_crop=False)
        return cls(size=image_size, crop_size=(image_size, image_size))

    def __call__(self, images: Any, *, exif: bool = True) -> list[NDArray[np.float32]]:
        """One float32 array (3, Y, X) per image, for one image or several.

        Args:
            images: a path, a PIL image, a uint8 array (Y, X, 3), or a sequence of these, as
                `as_list` takes them.
            exif: turn images upright as `load_image` says.

        Raises:
            ImageError: an image cannot be used; says which, and why.
        """
        values = self.values
        return [normalize(crop, values) for crop in self.crops(images, exif=exif)]

    def crops(self, images: Any, *, exif: bool, threads: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Each image upright, resized and cropped, not normalised: (Y, X, 3), one after the other.

        Iterators are read as far as needed. That many threads prepare as many of the next images.
        """
        sources = images if isinstance(images, Iterator) else as_list(images)
        of = f" of {len(sources)}" if isinstance(sources, list) else ""

        def crop(source: tuple[int, Any]) -> NDArray[np.uint8]:
            at, given = source
            where = describe(given, "" if of == " of 1" else f"image {at}{of}")
            image = open_image(given, exif, where)
            convert = to_rgb if self.do_convert_rgb else only_rgb
            return self._crop(convert(image, where), where)

        return _map_ahead(crop, enumerate(sources, 1), threads)

    def picture(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """What preprocessed pixels (3, Y, X) show, uint8 (Y, X, 3).

        The inverse of rescaling and normalising, exact for pixels that this processor made.
        """
        table = self.values
        low, high = table[:, 0, None, None], table[:, 255, None, None]
        values = np.rint((pixels - low) / (high - low) * 255)
        return np.asarray(np.clip(values, 0, 255).transpose(1, 2, 0), np.uint8)

    def _crop(self, image: PIL.Image.Image, where: str) -> NDArray[np.uint8]:
        """Resize and crop an image of three 8-bit channels."""
        if self.do_resize:
            height, width = self._resized(image.height, image.width, where)
            image = image.resize((width, height), resample=self.resample)
        pixels: NDArray[np.uint8] = np.asarray(image)  # (Y, X, 3)
        if self.do_center_crop:
            pixels = _center_crop(pixels, self.crop_size)
        return pixels

    def _resized(self, height: int, width: int, where: str) -> tuple[int, int]:
        """The size to resize to; the longer edge is truncated to an integer, not rounded."""
        if isinstance(self.size, tuple):
            new = self.size
        else:
            long = int(self.size * max(height, width) / min(height, width))
            new = (long, self.size) if width <= height else (self.size, long)
        if new[0] * new[1] > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{where}: {width} × {height} pixels would be resized to {new[1]} × {new[0]}, more "
                f"than {MAX_RESIZED_PIXELS:,} pixels; crop it to a less extreme shape first"
            )
        return new

    @property
    def values(self) -> NDArray[np.float32]:
        """The value of each channel for each of the 256 pixel values, (3, 256).

        Rescaling and normalising treat every pixel alike, so 256 results per channel are all there
        are. The dtypes are transformers': rescaled in float64, rounded, normalised in float32.
        """
        values = np.arange(256)
        scaled = values.astype(np.float64) * self.rescale_factor if self.do_rescale else values
        table = np.tile(scaled.astype(np.float32), (3, 1))
        if self.do_normalize:
            mean = np.array(self.image_mean, np.float32)[:, None]
            std = np.array(self.image_std, np.float32)[:, None]
            table = (table - mean) / std
        return table


def _map_ahead(function: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """As `map`, with so many of the next results made in threads."""
    if threads == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # the caller stopped, or one failed
                future.cancel()


def _center_crop(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The centre of (Y, X, 3) in the given size; what lies outside the image is black.

    With an odd number of pixels too many, the extra one is cut at the bottom or right; with an odd
    number too few, the extra one is added at the top or left.
    """
    height, width = size
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2  # < 0: padding
    inside = pixels[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if inside.shape[:2] == size:
        return inside
    cropped = np.zeros((height, width, 3), np.uint8)
    y, x = max(-top, 0), max(-left, 0)
    cropped[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return cropped


# ---------------------------------------------------------------------------- the JSON file


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _per_channel(value: Any) -> tuple[float, float, float]:
    try:
        red, green, blue = value if isinstance(value, list | tuple) else [value] * 3
        return _number(red), _number(green), _number(blue)
    except ValueError:
        raise ValueError("three numbers, or one for all channels") from None


def _deviation(value: Any) -> tuple[float, float, float]:
    deviations = _per_channel(value)
    if min(deviations) <= 0:
        raise ValueError("three positive numbers, or one for all channels")
    return deviations


def _filter(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in range(6):
        raise ValueError("the number of one of Pillow's filters, 0 to 5 (3 is bicubic)")
    return value


def _edge(value: Any, expected: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(expected)
    return value


def _size(value: Any) -> int | tuple[int, int]:
    expected = '{"shortest_edge": n}, {"height": n, "width": n}, or one integer, n > 0'
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        return _edge(value["shortest_edge"], expected)
    if isinstance(value, Mapping):
        return _height_width(value, expected)
    return _edge(value, expected)


def _crop_size(value: Any) -> tuple[int, int]:
    expected = '{"height": n, "width": n}, or one integer, n > 0'
    if isinstance(value, Mapping):
        return _height_width(value, expected)
    edge = _edge(value, expected)
    return edge, edge


def _height_width(value: Mapping[str, Any], expected: str) -> tuple[int, int]:
    if set(value) != {"height", "width"}:
        raise ValueError(expected)
    return _edge(value["height"], expected), _edge(value["width"], expected)


def _clip(value: Any) -> None:
    if not isinstance(value, str) or not value.startswith("CLIP"):
        raise ValueError("CLIPImageProcessor; others preprocess differently")


def _absent(value: Any) -> None:
    if value:
        raise ValueError("false; AIMv2's preprocessing has no such step")


# Each setting: the step that needs it, and what reads it. A switch is its own step.
_SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "do_convert_rgb": ("", _switch),
    "do_resize": ("", _switch),
    "size": ("do_resize", _size),
    "resample": ("do_resize", _filter),
    "do_center_crop": ("", _switch),
    "crop_size": ("do_center_crop", _crop_size),
    "do_rescale": ("", _switch),
    "rescale_factor": ("do_rescale", _number),
    "do_normalize": ("", _switch),
    "image_mean": ("do_normalize", _per_channel),
    "image_std": ("do_normalize", _deviation),
}
# Keys that are no settings of ours, but change what transformers does.
_CHECKS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "image_processor_type": ("", _clip),
    "do_pad": ("", _absent),
    "default_to_square": ("", _absent),
    "use_square_size": ("", _absent),
}


def _parsed(raw: Any, source: str) -> dict[str, Any]:
    """The settings a preprocessor_config.json states.

    What it leaves out keeps its default. null is another matter: it turns a switch off, and is an
    error for a setting that a step needs, as in transformers.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: expected a JSON object, found {type(raw).__name__}")
    settings: dict[str, Any] = {}
    problems = []
    for key, (step, read) in {**_SETTINGS, **_CHECKS}.items():
        value = raw.get(key)
        if key not in raw or (value is None and (key in _CHECKS or not raw.get(step, True))):
            continue
        try:
            settings[key] = False if value is None and read is _switch else read(value)
        except ValueError as error:
            problems.append(f"{key} is {value!r}, expected {error}")
    if problems:
        raise ConfigError(f"{source}: " + "\n  ".join(problems))
    return {key: value for key, value in settings.items() if key in _SETTINGS}
