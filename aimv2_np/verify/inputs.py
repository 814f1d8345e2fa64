"""Test inputs that expose mistakes: a few calls of the model, and raw images and texts.

Square images hide exchanged axes, texts of one length hide masks, and a batch as large as another
hides a transposition. So there are grids that are not square, texts that are padded and one that is
not, one bright pixel, a gradient in one direction only, one in one channel only.

The file is safetensors, so that any language can read it:

    {case}/pixel_values      float32 (B, 3, Y, X)     a call of the model: images, texts, or both
    {case}/input_ids         int64 (K, T)
    {case}/attention_mask    int64 (K, T)
    raw/image_{i}            uint8 (Y, X, 3)          for the preprocessing
    raw/file_{i}             uint8 (bytes,)           the same, as a PNG file with an orientation

and in the metadata "aimv2_np.verify", the format's number; "model"; "cases", a JSON list of
{"name", "interpolate"} in order (interpolate: learned positions are resampled to the grid);
"texts", a JSON list for the tokenizer. Images and files are numbered together: 0, 1, 2.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from ..config import TextConfig
from ..errors import AIMv2Warning, CheckpointError, VerificationError
from ..hub import samples
from ..image_files import ORIENTATION, load_image
from ..images import ImageProcessor
from ..ops import Array
from ..tokenizer import Tokenizer
from ..weights.safetensors_file import read_safetensors
from ..writing import written_whole
from .walk import Case

__all__ = ["RAW", "Inputs", "make_inputs", "read_inputs", "write_inputs"]

RAW = "raw"  # stands for a case's name where a candidate gives what it made of raw inputs
_FORMAT = "aimv2_np.verify"
_VERSION = "1"
_REMEDY = "'aimv2-np verify inputs MODEL --out FILE' makes one"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a port is to run on.

    `cases` are calls of the model. `images`, `files` (encoded, numbered after the images) and
    `texts` are for the preprocessing and the tokenizer alone.
    """

    cases: list[Case]
    images: list[Array]  # uint8 (Y, X, 3)
    texts: list[str]
    files: list[bytes] = field(default_factory=list)
    model: str = ""

    @property
    def sources(self) -> list[Any]:
        """All raw images in the order of their numbers, as an ImageProcessor takes them."""
        return [*self.images, *map(_opened, self.files)]


def _opened(file: bytes) -> PIL.Image.Image:
    try:
        return PIL.Image.open(io.BytesIO(file))
    except PIL.UnidentifiedImageError:
        raise VerificationError(f"a raw file ({len(file)} bytes) is no image; {_REMEDY}") from None


def make_inputs(pipeline: Any, size: str = "small") -> Inputs:
    """Inputs for a model (a VisionPipeline or LiTPipeline, perhaps without a tokenizer).

    `size` is "small", or "full" for more images in a batch. The same model and size give the same.

    Raises:
        VerificationError: another size.
    """
    if size not in ("small", "full"):
        raise VerificationError(f"size {size!r:.80}: expected 'small' or 'full'")
    reads = hasattr(pipeline, "text")
    first, *others = _image_cases(pipeline, size)
    texts: list[str] = []
    if reads:
        tokenizer = pipeline.tokenizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AIMv2Warning)  # one text is too long on purpose
            texts = [] if tokenizer is None else _texts(tokenizer)
            ids, mask, alone = _tokens(tokenizer, texts, pipeline.text.config)
        first = replace(first, name="pairs", input_ids=ids, attention_mask=mask)
        others.append(Case("alone", input_ids=alone))
    edge = _edge(pipeline)
    images = [_muted(_scene("scene-street")), _chart(*_chart_size(edge, pipeline.processor))]
    return Inputs([first, *others], images, texts, [_turned()], pipeline.name)


# ---------------------------------------------------------------------------- images


def _scene(name: str) -> Array:
    """A packaged picture, uint8 (Y, X, 3)."""
    return np.asarray(load_image(samples()[name]))


def _photograph(height: int, width: int) -> Array:
    scene = PIL.Image.fromarray(_scene("scene-street"))
    return np.asarray(PIL.ImageOps.fit(scene, (width, height)))


def _bright_pixel(height: int, width: int) -> Array:
    """One, far from the centre and from any symmetry."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[height * 3 // 10, width * 7 // 10] = 255
    return pixels


def _across(height: int, width: int) -> Array:
    """From black on the left to white on the right."""
    ramp = np.linspace(0, 255, width)[None, :, None]
    return np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8)


def _down_in_blue(height: int, width: int) -> Array:
    """From top to bottom in one channel, the others grey."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[:, :, 2] = np.linspace(0, 255, height)[:, None]
    return pixels


def _noise(height: int, width: int, low: int = 0, high: int = 256) -> Array:
    return np.random.default_rng(0).integers(low, high, (height, width, 3), np.uint8)


_PATTERNS = (_photograph, _bright_pixel, _across, _down_in_blue, _noise)


def _image_cases(pipeline: Any, size: str) -> Iterator[Case]:
    """A batch of squares, then one image each of a wide and a tall grid."""
    c = pipeline.vision.config
    grids: dict[str, tuple[int, int]]
    if c.grid_size is None:  # at least 112 patches: what the native checkpoint was trained on
        # no side a multiple of the patch: what is left over is cut off
        beyond = c.patch_size // 3, c.patch_size // 2
        grids = {"squares": (11, 11), "wide": (8, 15), "tall": (12, 10)}
        batch = 2
    else:
        side, beyond, batch = c.grid_size, (0, 0), 4
        # wide: as many patches as the table has rows, in another shape; tall: fewer
        half = side // 2 if side % 2 == 0 else 1
        tall = side + (side + 2) // 3, max(side // 2, 1)
        grids = {"squares": (side, side), "wide": (half, side * side // half), "tall": tall}
    for name, grid in grids.items():
        height, width = (n * c.patch_size + more for n, more in zip(grid, beyond, strict=True))
        many = 1 if name != "squares" else batch if size == "small" else len(_PATTERNS)
        pixels = [pattern(height, width) for pattern in _PATTERNS[:many]]
        interpolate = c.grid_size is not None and name != "squares"
        yield Case(name, _normalized(pipeline.processor, pixels), interpolate=interpolate)


def _normalized(processor: ImageProcessor, pixels: Sequence[Array]) -> Array:
    """Images of one size as they are, (B, 3, Y, X)."""
    return np.stack(replace(processor, do_resize=False, do_center_crop=False)(list(pixels)))


# ---------------------------------------------------------------------------- raw images


def _edge(pipeline: Any) -> int:
    """The shortest edge that images are resized to; for a native model, one of modest size."""
    processor: ImageProcessor = pipeline.processor
    if not processor.do_resize:
        return 10 * int(pipeline.vision.config.patch_size)
    return processor.size if isinstance(processor.size, int) else min(processor.size)


def _muted(pixels: Array) -> Array:
    """Without black and white: bicubic overshoots there, and Pillow, which cuts that off between
    its two passes, differs from other correct resizing by up to ten levels."""
    return np.round(24 + np.arange(256) * 0.8).astype(np.uint8)[pixels]


def _chart_size(edge: int, processor: ImageProcessor) -> tuple[int, int]:
    """An upright image that is made smaller, whose new height is no whole number, but rounds up,
    and of which an odd number of rows is cut off: 3 more than a multiple of 4."""
    width, crop = edge * 4 // 3, processor.crop_size[0]
    for height in range(width * 13 // 10, width * 2):
        new = edge * height / width
        if new % 1 > 0.5 and (int(new) - crop) % 4 == 3:
            return height, width
    return width * 13 // 10, width


def _chart(height: int, width: int) -> Array:
    """Bars of black and white, a grey one, then noise above and thin diagonal stripes below."""
    pixels = _noise(height, width, 64, 192)
    rows, columns = np.indices((height, width))
    stripes = np.where((rows + columns) % 3 == 0, 180, 76)[..., None]
    pixels[height // 2 :] = (stripes * [1.0, 0.9, 0.8]).astype(np.uint8)[height // 2 :]
    for i, level in enumerate((0, 255, 128)):
        pixels[:, i * width // 8 : (i + 1) * width // 8] = level
    return pixels


def _turned() -> bytes:
    """A PNG file of a picture that lies on its side, with the orientation that says so."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    file = io.BytesIO()
    lying = np.rot90(_muted(_scene("cat"))[:, 40:216])
    PIL.Image.fromarray(np.ascontiguousarray(lying)).save(file, "PNG", exif=exif)
    return file.getvalue()


# ---------------------------------------------------------------------------- texts

# Upper case, two spaces, an accent as a character of its own, an apostrophe, digits, punctuation.
_NORMAL = "Two  Cafe\u0301s, a dog's photo: 42!"
_WORDS = ("a", "cat", "and", "the", "photo", "of", "dog", "in", "house")


def _texts(tokenizer: Tokenizer) -> list[str]:
    """An ordinary text, an empty one, a word repeated, one that just fits, one that is too long."""
    fits = _filling(tokenizer, tokenizer.max_length)
    return [_NORMAL, "", "cat cat cat cat", fits, f"the dog {fits}"]


def _filling(tokenizer: Tokenizer, length: int) -> str:
    """A text of a number of tokens."""
    words: list[str] = []

    def tokens(more: Sequence[str]) -> int:
        return int(tokenizer(" ".join(more), max_length=10 * length).input_ids.shape[1])

    for i in range(length):
        word = _WORDS[i % len(_WORDS)]
        words.append(word if tokens([*words, word]) <= length else "a")
        if tokens(words) >= length:
            break
    return " ".join(words)


def _tokens(
    tokenizer: Tokenizer | None, texts: Sequence[str], c: TextConfig
) -> tuple[Array, Array, Array]:
    """Ids and mask of the texts (K, T), and ids of one text that is not padded, (1, T)."""
    if tokenizer is not None:
        return *tokenizer(texts), tokenizer("a photo of a cat").input_ids
    rng, most = np.random.default_rng(0), c.max_position_embeddings - 2
    words = np.setdiff1d(np.arange(c.vocab_size - 1), [c.eos_token_id, c.eos_token_id - 1])
    drawn = [rng.choice(words, n) for n in (min(7, most), 0, min(4, most), most, most)]
    drawn[2][:] = drawn[2][:1]
    begin, end = max(c.eos_token_id - 1, 0), c.eos_token_id  # as in CLIP's vocabulary
    ids = np.full((len(drawn), most + 2), end, np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(drawn):
        ids[i, : len(row) + 1] = begin, *row
        mask[i, : len(row) + 2] = 1
    return ids, mask, ids[:1, : len(drawn[0]) + 2]


# ---------------------------------------------------------------------------- the file

_FIELDS = ("pixel_values", "input_ids", "attention_mask")


def write_inputs(path: str | os.PathLike[str], inputs: Inputs, model_name: str) -> None:
    """Write one safetensors file; it appears under its name only when it is complete.

    Raises:
        AIMv2Error: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, Array] = {}
    for case in inputs.cases:
        arrays |= {f"{case.name}/{f}": a for f in _FIELDS if (a := getattr(case, f)) is not None}
    arrays |= {f"{RAW}/image_{i}": image for i, image in enumerate(inputs.images)}
    for i, file in enumerate(inputs.files, len(inputs.images)):
        arrays[f"{RAW}/file_{i}"] = np.frombuffer(file, np.uint8)
    cases = json.dumps([{"name": c.name, "interpolate": c.interpolate} for c in inputs.cases])
    lists = {"cases": cases, "texts": json.dumps(inputs.texts)}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with written_whole(Path(path)) as partial:
        save_file(whole, partial, metadata={_FORMAT: _VERSION, "model": model_name, **lists})


def read_inputs(path: str | os.PathLike[str]) -> Inputs:
    """Read a file of test inputs.

    Raises:
        VerificationError: no such file, or not one of test inputs; says what is wrong with it.
    """
    try:
        file = read_safetensors(Path(path))
        arrays = {name: tensor.plain() for name, tensor in file.tensors.items()}
    except CheckpointError as error:
        raise VerificationError(f"{error} (expected a file of test inputs: {_REMEDY})") from error
    reader = _Reader(str(path), file.metadata, arrays)
    if file.metadata.get(_FORMAT) != _VERSION:
        found = file.metadata.get(_FORMAT)
        raise reader.error(
            f"its metadata have no '{_FORMAT}'"
            if found is None
            else f"it has format {found!r:.80}, this version of aimv2-np reads {_VERSION}"
        )
    cases, (images, files) = reader.cases(), reader.raw()
    inputs = Inputs(cases, images, reader.texts(), files, file.metadata.get("model", ""))
    if arrays:
        raise reader.error(f"{next(iter(arrays))!r:.80} belongs to no case")
    return inputs


@dataclass(frozen=True)
class _Reader:
    """Takes the parts of a file one after another; what is left belongs to none."""

    path: str
    metadata: dict[str, str]
    arrays: dict[str, Array]

    def error(self, what: str) -> VerificationError:
        return VerificationError(f"{self.path}: no file of test inputs: {what}; {_REMEDY}")

    def cases(self) -> list[Case]:
        """The calls of the model, in order."""
        cases = [self.case(listed) for listed in self.listed("cases")]
        names = [case.name for case in cases]
        if not cases or len(set(names)) < len(names):
            raise self.error("its metadata 'cases' are empty, or two have the same name")
        return cases

    def case(self, listed: Any) -> Case:
        """One call of the model."""
        name = listed.get("name") if isinstance(listed, dict) else None
        interpolate = listed.get("interpolate", False) if isinstance(listed, dict) else None
        if not isinstance(name, str) or name in ("", RAW) or not isinstance(interpolate, bool):
            raise self.error(
                f"a case is {listed!r:.80}, expected {{'name': ..., 'interpolate': true or false}}"
            )
        pixels = self.taken(f"{name}/pixel_values", "float32 (B, 3, Y, X)", "f", 4)
        ids = self.taken(f"{name}/input_ids", "int64 (K, T)", "iu", 2)
        mask = self.taken(f"{name}/attention_mask", "int64 (K, T)", "iu", 2)
        if pixels is None and ids is None:
            raise self.error(f"case {name!r:.80} has neither pixel_values nor input_ids")
        if mask is not None and (ids is None or ids.shape != mask.shape):
            raise self.error(f"case {name!r:.80} has an attention_mask unlike its input_ids")
        return Case(name, pixels, ids, mask, interpolate)

    def raw(self) -> tuple[list[Array], list[bytes]]:
        """Raw images and files, numbered together."""
        images = list(self.numbered("image", 0, "uint8 (Y, X, 3)", 3))
        if any(image.shape[2] != 3 for image in images):
            raise self.error("a raw image has not three channels")
        files = self.numbered("file", len(images), "uint8 (bytes,)", 1)
        return images, [file.tobytes() for file in files]

    def numbered(self, kind: str, first: int, expected: str, axes: int) -> Iterator[Array]:
        """raw/{kind}_{i} for i = first, first + 1, ..."""
        for i in count(first):
            array = self.taken(f"{RAW}/{kind}_{i}", expected, "u", axes)
            if array is None:
                return
            yield array

    def texts(self) -> list[str]:
        """The texts for the tokenizer."""
        texts = self.listed("texts")
        if not all(isinstance(text, str) for text in texts):
            raise self.error("its metadata 'texts' hold something else than strings")
        return texts

    def listed(self, key: str) -> list[Any]:
        """A JSON list of the metadata."""
        try:
            value = json.loads(self.metadata.get(key, "null"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list):
            raise self.error(f"its metadata {key!r} are no JSON list")
        return value

    def taken(self, name: str, expected: str, kinds: str, axes: int) -> Array | None:
        """An array of the file, which is then done with; None if there is none."""
        array = self.arrays.pop(name, None)
        if array is not None and (
            array.dtype.kind not in kinds or array.ndim != axes or not array.size
        ):
            raise self.error(f"{name!r:.80} is {array.dtype} {array.shape}, expected {expected}")
        return array
