"""Our preprocessing beside transformers' CLIP image processor: equal to the last bit."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from aimv2_np.errors import ConfigError, ImageError
from aimv2_np.image_files import UPRIGHT
from aimv2_np.images import ImageProcessor

pytestmark = pytest.mark.compare

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

OFFICIAL = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "official": {},
    "official-336": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
    "native": {"do_resize": False, "do_center_crop": False},
    "no-resize": {"do_resize": False},
    "no-crop": {"do_center_crop": False},
    "no-rescale": {"do_rescale": False},
    "no-normalize": {"do_normalize": False},
    "resize-only": {"do_center_crop": False, "do_rescale": False, "do_normalize": False},
    "height-width": {"size": {"height": 40, "width": 75}, "crop_size": {"height": 33, "width": 61}},
    "integers": {"size": 50, "crop_size": 37},
    "crop-larger": {"size": {"shortest_edge": 30}, "crop_size": {"height": 41, "width": 64}},
    "crop-mixed": {"do_resize": False, "crop_size": {"height": 20, "width": 300}},
    "bilinear": {"resample": 2, "size": {"shortest_edge": 64}},
    "nearest": {"resample": 0, "size": {"shortest_edge": 64}},
    "lanczos": {"resample": 1, "size": {"shortest_edge": 64}},
    "other-numbers": {"image_mean": 0.5, "image_std": [0.1, 0.2, 0.3], "rescale_factor": 1 / 127.5},
    "nulls": {"do_resize": False, "size": None, "do_center_crop": None, "crop_size": None},
}


def theirs(raw: dict[str, Any], image: Any) -> np.ndarray:
    (pixels,) = CLIPImageProcessorPil(**raw)(images=image)["pixel_values"]
    return np.asarray(pixels)


def assert_same(raw: dict[str, Any], image: Any) -> None:
    expected = theirs(raw, image)
    (found,) = ImageProcessor.from_json(raw)(image, exif=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected, strict=expected.dtype == np.float32)


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Coarse blobs with fine noise, so that resizing has something to filter."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (-(-height // 5), -(-width // 7), channels))
    blobs = coarse.repeat(5, 0).repeat(7, 1)[:height, :width]
    return (blobs + rng.integers(0, 56, (height, width, channels))).astype(np.uint8)


def reopened(image: Image.Image, format: str, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def rgb(height: int = 61, width: int = 83, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed))


def rgba() -> Image.Image:
    return Image.fromarray(noise(61, 83, 4, 1))


def sixteen_bit() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 700, (61, 83)).astype(np.uint16)
    return reopened(Image.fromarray(values), "PNG")


def animated(format: str) -> Image.Image:
    frames = [rgb(seed=i) for i in range(3)]
    return reopened(frames[0], format, save_all=True, append_images=frames[1:], duration=40)


MODES: dict[str, Any] = {
    "RGB": rgb,
    "L": lambda: rgb().convert("L"),
    "LA": lambda: rgba().convert("LA"),
    "RGBA": rgba,
    "RGBA-file": lambda: reopened(rgba(), "PNG"),
    "RGBa": lambda: rgba().convert("RGBa"),
    "RGBX": lambda: rgb().convert("RGBX"),
    "P": lambda: rgb().convert("P", palette=Image.Palette.ADAPTIVE, colors=60),
    "P-transparent-index": lambda: reopened(rgb().quantize(20), "PNG", transparency=3),
    "P-transparent-bytes": lambda: reopened(
        rgb().quantize(20), "PNG", transparency=bytes(range(0, 200, 10))
    ),
    "PA": lambda: rgba().convert("PA"),
    "L-transparent": lambda: reopened(rgb().convert("L"), "PNG", transparency=90),
    "RGB-transparent": lambda: reopened(rgb(), "PNG", transparency=rgb().getpixel((4, 4))),
    "CMYK": lambda: rgb().convert("CMYK"),
    "CMYK-jpeg": lambda: reopened(rgb().convert("CMYK"), "JPEG"),
    "YCbCr": lambda: rgb().convert("YCbCr"),
    "LAB": lambda: Image.merge("LAB", rgb().split()),
    "HSV": lambda: rgb().convert("HSV"),
    "I": lambda: Image.fromarray(np.arange(61 * 83, dtype=np.int32).reshape(61, 83)),
    "F": lambda: Image.fromarray(np.linspace(-20, 300, 61 * 83, dtype=np.float32).reshape(61, 83)),
    "I;16": sixteen_bit,
    "1": lambda: rgb().convert("1"),
    "GIF": lambda: animated("GIF"),
    "APNG": lambda: animated("PNG"),
    "WebP": lambda: animated("WEBP"),
    "TIFF": lambda: reopened(rgb(), "TIFF"),
    "BMP": lambda: reopened(rgb(), "BMP"),
    "JPEG": lambda: reopened(rgb(), "JPEG", quality=80),
    "JPEG-progressive": lambda: reopened(rgb(), "JPEG", progressive=True),
    "JPEG-grey": lambda: reopened(rgb().convert("L"), "JPEG"),
}

SIZES = [(1, 1), (1, 2), (2, 1), (3, 300), (10, 2000), (2000, 10), (224, 224), (225, 223), (1, 99)]
SIZES += [(480, 640), (640, 480), (57, 401), (223, 224), (224, 1000), (448, 449), (1023, 767)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("config", ["official", "native", "height-width"])
def test_modes(mode: str, config: str) -> None:
    assert_same(OFFICIAL | CONFIGS[config], MODES[mode]())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(61, 83), (83, 60), (20, 90), (300, 300)])
def test_settings(config: str, size: tuple[int, int]) -> None:
    assert_same(OFFICIAL | CONFIGS[config], rgb(*size))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, int]) -> None:
    assert_same(OFFICIAL, rgb(*size))


def test_random_shapes_and_settings() -> None:
    draw = random.Random(0)
    for seed in range(60):
        raw = OFFICIAL | {
            "size": {"shortest_edge": draw.randint(1, 90)},
            "crop_size": {"height": draw.randint(1, 90), "width": draw.randint(1, 90)},
            "resample": draw.randrange(6),
            "do_resize": draw.random() < 0.8,
            "do_center_crop": draw.random() < 0.8,
            "rescale_factor": draw.random(),
            "image_mean": [draw.random() for _ in range(3)],
            "image_std": [draw.uniform(0.01, 2) for _ in range(3)],
        }
        assert_same(raw, rgb(draw.randint(1, 120), draw.randint(1, 120), seed))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays(channels: int) -> None:
    for seed in range(5):
        assert_same(OFFICIAL, noise(61, 83, channels, seed))


def test_defaults_fill_in_what_a_file_leaves_out() -> None:
    assert_same({}, rgb(301, 260))


def test_every_kind_of_pixel_value() -> None:
    """All 256 values in each channel, through the arithmetic alone."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for config in ("native", "other-numbers"):
        assert_same(OFFICIAL | CONFIGS["native"] | CONFIGS[config], ramp)


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "HSV", "LAB"])
def test_without_conversion_three_channels_are_taken_as_they_are(mode: str) -> None:
    image = rgb().convert(mode) if mode != "LAB" else Image.new("LAB", (83, 61), (90, 30, 200))
    assert_same(OFFICIAL | {"do_convert_rgb": False}, image)


def test_we_refuse_what_they_cannot_convert() -> None:
    image = Image.new("La", (20, 10))
    with pytest.raises(ValueError, match="not supported"):
        theirs(OFFICIAL, image)
    with pytest.raises(ImageError, match="mode La"):
        ImageProcessor()(image)


@pytest.mark.parametrize("key", ["size", "crop_size", "rescale_factor", "image_mean", "image_std"])
def test_we_refuse_a_null_that_they_cannot_use(key: str) -> None:
    with pytest.raises(ValueError, match="must"):
        theirs(OFFICIAL | {key: None}, rgb())
    with pytest.raises(ConfigError, match=key):
        ImageProcessor.from_json(OFFICIAL | {key: None})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_ignored_like_theirs_on_request_and_applied_by_default(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = reopened(rgb(), "JPEG", exif=exif.tobytes())
    assert_same(OFFICIAL, image)
    turned = image.transpose(UPRIGHT[orientation]) if orientation > 1 else image
    found = ImageProcessor.from_json(OFFICIAL)(image)[0]
    np.testing.assert_array_equal(found, theirs(OFFICIAL, turned))


def test_a_path_that_they_open_themselves_is_upright_by_default_with_them_too(
    tmp_path: Any,
) -> None:
    """Their load_image applies EXIF orientation to paths, unlike to PIL images."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "turned.jpg")
    rgb().save(path, exif=exif.tobytes())
    np.testing.assert_array_equal(ImageProcessor()(path)[0], theirs(OFFICIAL, path))


def test_a_path_that_they_open_themselves_loses_its_alpha(tmp_path: Any) -> None:
    """Pins the difference that load_image's docstring states, so that we notice a change."""
    path = str(tmp_path / "alpha.png")
    rgba().save(path)
    assert not np.array_equal(ImageProcessor()(path)[0], theirs(OFFICIAL, path))
    np.testing.assert_array_equal(ImageProcessor()(path)[0], theirs(OFFICIAL, Image.open(path)))


def test_batches_in_order() -> None:
    images = [rgb(40 + i, 60, seed=i) for i in range(4)]
    expected = CLIPImageProcessorPil(**OFFICIAL)(images=images)["pixel_values"]
    found = ImageProcessor.from_json(OFFICIAL)(images)
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))
