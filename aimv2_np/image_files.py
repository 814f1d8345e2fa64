"""Reading images: from a path, a PIL image or an array to an 8-bit RGB image, or one clear error.

What can be wrong with an image a user hands over is dealt with here, so that `images.py` can be
about the preprocessing alone. Pillow decodes; how transparency, grey, 16 bits and the other modes
become RGB follows transformers 5.23 (`convert_to_rgb` in its image_transforms.py).

Y and X are an image's height and width in pixels.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from .errors import AIMv2Warning, ImageError, warn

__all__ = [
    "ImageSource",
    "as_list",
    "describe",
    "load_image",
    "no_image",
    "only_rgb",
    "open_image",
    "to_rgb",
]

ImageSource: TypeAlias = str | os.PathLike[str] | PIL.Image.Image | NDArray[np.uint8]
Opened: TypeAlias = PIL.Image.Image | NDArray[np.uint8]

ORIENTATION = 0x0112  # the EXIF tag
# EXIF 2.32, table "Orientation": what turns the stored image upright. 1 is upright.
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def as_list(images: Any) -> list[Any]:
    """One image, or several, as a list: several are a list, tuple, iterator, or (B, Y, X, 3) array.

    Raises:
        ImageError: there is no image in it, or it is a collection without an order.
    """
    if isinstance(images, np.ndarray):
        several = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | bytes | bytearray | os.PathLike | PIL.Image.Image):
        several = [images]
    elif isinstance(images, Sequence | Iterator):
        several = list(images)
    elif isinstance(images, Mapping | set | frozenset):
        raise ImageError(f"expected an image or a list of images, found a {type(images).__name__}")
    else:
        several = [images]
    if not several:
        raise no_image()
    return several


def no_image() -> ImageError:
    """The error for a collection with nothing in it."""
    return ImageError("expected an image or a list of images, found no image at all")


def load_image(source: Any, *, exif: bool = True, position: str = "") -> PIL.Image.Image:
    """An image in RGB, from a path, a PIL image, or a uint8 array (Y, X, 3), (Y, X) or (Y, X, 4).

    Of an animation it is the first frame. Traps, all of them transformers' ways:

    * Transparency is laid over white, not dropped. (transformers does so with PIL images and
      arrays; a path that it opens itself loses the alpha channel instead.)
    * 16-bit and 32-bit grey is clipped, not scaled: all above 255 is white. Scale such an image
      down before, e.g. `(pixels // 257).astype(np.uint8)`. 16-bit colour is read as 8-bit.
    * An array is always (Y, X, channels). transformers guesses, and takes an array that is 1, 3 or
      4 pixels high for one with its channels first.

    Args:
        source: the image.
        exif: turn the image upright by its EXIF orientation (the default: a photograph from a
            phone is stored lying on its side, and a model sees what it is given). False leaves it
            as stored, which is what transformers' processor does with PIL images.
        position: which image of a batch it is, for messages: "image 3 of 8".

    Raises:
        ImageError: it cannot be read, or is no such thing; begins with `position` and the path.
    """
    where = describe(source, position)
    return to_rgb(open_image(source, exif, where), where)


# ---------------------------------------------------------------------------- opening


def describe(source: Any, position: str) -> str:
    """How messages name an image: "image 3 of 8 (photo.jpg)"."""
    if isinstance(source, PIL.Image.Image):
        name = getattr(source, "filename", "") or f"PIL image, mode {source.mode}"
    elif isinstance(source, np.ndarray):
        name = f"array {source.shape} {source.dtype}"
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
    else:
        name = type(source).__name__
    # backslashes for what cannot be printed: a path may hold NUL or half a surrogate pair
    name = name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0") or "''"
    return f"{position} ({name})" if position else name


def open_image(source: Any, exif: bool, where: str) -> Opened:
    """The image with the channels it is stored with, all of it read, upright if asked.

    Raises:
        ImageError: as `load_image`, which describes `source` and `exif`.
    """
    if isinstance(source, np.ndarray):
        _check_array(source, where)
        return source
    if isinstance(source, PIL.Image.Image):
        return _decoded(lambda: source, exif, where)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        _check_file(path, where)
        with _opened(path, where) as file:
            return _decoded(lambda: PIL.Image.open(file), exif, where)
    if isinstance(source, bytes | bytearray):
        remedy = "for the bytes of a file pass PIL.Image.open(io.BytesIO(...))"
    else:
        remedy = "convert it to a uint8 array (Y, X, 3) first"
    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
    raise ImageError(
        f"{where}: expected a path, a PIL image or a NumPy array, found {kind}; {remedy}"
    )


def _check_file(path: str, where: str) -> None:
    """Raise for what is no regular file; one that is not (a pipe) could be waited on for ever."""
    if path.startswith(("http://", "https://", "data:")):
        raise ImageError(f"{where}: addresses are not fetched; download the image, pass its path")
    if os.path.isdir(path):
        raise ImageError(f"{where}: is a folder; pass the image files in it, as a list")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ImageError(f"{where}: is no regular file, or a link to nothing; pass an image file")


def _opened(path: str, where: str) -> Any:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        folder = "" if os.path.isabs(path) else f" (the current folder is {os.getcwd()})"
        raise ImageError(f"{where}: no such file{folder}; check the spelling") from None
    except PermissionError:
        raise ImageError(f"{where}: no permission to read it; check its owner and mode") from None
    except ValueError:  # Python's for NUL and for half a surrogate pair
        raise ImageError(f"{where}: no file can have this name; check its characters") from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise ImageError(f"{where}: cannot be opened: {reason}; check the path") from error


def _decoded(opener: Callable[[], PIL.Image.Image], exif: bool, where: str) -> PIL.Image.Image:
    """Open and decode an image; its file may be closed afterwards."""
    try:
        image = opener()
        _check_size(image, where)
        image.load()
        return _upright(image, where) if exif else image
    except (ImageError, AIMv2Warning):
        raise
    except PIL.UnidentifiedImageError:
        formats = "JPEG, PNG, WebP, GIF, TIFF, BMP or another format that Pillow reads"
        raise ImageError(f"{where}: is not an image, or is empty; expected {formats}") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ImageError(f"{where}: {error}; {_BOMB_REMEDY}") from None
    except Exception as error:
        # Pillow's forty decoders raise OSError, SyntaxError, EOFError, struct.error, zlib.error,
        # IndexError, ... on damaged files, and ValueError on a closed image: no list is complete.
        raise ImageError(
            f"{where}: cannot be decoded: {error or type(error).__name__}; the file is truncated "
            "or damaged, or the image was closed: fetch or open it again"
        ) from error


def _upright(image: PIL.Image.Image, where: str) -> PIL.Image.Image:
    """Turned or mirrored as the EXIF orientation says; unreadable EXIF data is as good as none."""
    try:
        orientation: Any = image.getexif().get(ORIENTATION)
    except (SyntaxError, ValueError, struct.error) as error:
        warn(
            f"{where}: its EXIF data cannot be read ({error}), so it is taken as upright; "
            "exif=False leaves EXIF data alone"
        )
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


_BOMB_REMEDY = (
    "a small file that claims to be this large may be an attack on the memory; if you trust it, "
    "raise PIL.Image.MAX_IMAGE_PIXELS or make it smaller first"
)


def _check_size(image: PIL.Image.Image, where: str) -> None:
    """Raise for an empty image and for one so large that Pillow would at least warn."""
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{where}: has no pixels ({image.width} × {image.height})")
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ImageError(
            f"{where}: {image.width} × {image.height} is more than the {limit:,} pixels that "
            f"Pillow takes for harmless; {_BOMB_REMEDY}"
        )


# ---------------------------------------------------------------------------- to RGB


def _check_array(array: NDArray[Any], where: str) -> None:
    """Raise for an array that is not (Y, X), (Y, X, 1), (Y, X, 3) or (Y, X, 4) in uint8."""
    if array.dtype != np.uint8:
        scale = " (0..1 times 255, rounded)" if array.dtype.kind == "f" else ""
        raise ImageError(
            f"{where}: expected dtype uint8 with values 0..255, found {array.dtype}; "
            f"scale it{scale} and convert with .astype(np.uint8)"
        )
    if array.ndim not in (2, 3) or _channels(array) not in (1, 3, 4):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; its channels come first: np.moveaxis(array, 0, -1)" if first else ""
        raise ImageError(f"{where}: expected shape (Y, X, 3), (Y, X) or (Y, X, 4){hint}")
    if array.size == 0:
        raise ImageError(f"{where}: the array has no pixels")


def _channels(image: Opened) -> int:
    if isinstance(image, PIL.Image.Image):
        return len(image.getbands())
    return int(image.shape[2]) if image.ndim == 3 else 1


def to_rgb(image: Opened, where: str) -> PIL.Image.Image:
    """In RGB; transparency, be it a channel or a colour, is laid over white.

    An array is blended in float64 and a PIL image by Pillow, as transformers does it; the two
    differ by one step here and there.

    Raises:
        ImageError: Pillow cannot convert this mode.
    """
    if isinstance(image, np.ndarray):
        if _channels(image) == 4:
            alpha = image[:, :, 3:] / 255
            image = np.round(alpha * image[:, :, :3] + (1 - alpha) * 255).astype(np.uint8)
        return PIL.Image.fromarray(np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3)))
    try:
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = PIL.Image.alpha_composite(white, image)
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ImageError(
            f"{where}: Pillow cannot convert mode {image.mode} to RGB ({error}); convert it first"
        ) from error


def only_rgb(image: Opened, where: str) -> PIL.Image.Image:
    """For do_convert_rgb false: the stored channels as they are, which must be three of 8 bits.

    Raises:
        ImageError: there are not three.
    """
    if _channels(image) != 3:
        raise ImageError(
            f"{where}: do_convert_rgb is false and the image has {_channels(image)} channel(s), "
            "expected 3; convert it to RGB, or set do_convert_rgb"
        )
    return PIL.Image.fromarray(np.asarray(image))
