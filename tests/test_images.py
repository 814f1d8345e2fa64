"""Preprocessing against values worked by hand, and every way an image can be wrong."""

from __future__ import annotations

import io
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import CAT, RANDOM_LIT
from PIL import Image, ImageOps

from aimv2_np.errors import AIMv2Warning, ConfigError, ImageError
from aimv2_np.images import ImageProcessor, as_list, load_image

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
PLAIN = ImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel has its own grey: 1, 2, 3, … row by row, so that black is padding."""
    grey = np.arange(1, height * width + 1, dtype=np.uint8).reshape(height, width, 1)
    return grey.repeat(3, 2)


def one(processor: ImageProcessor, image: Any, **options: Any) -> np.ndarray:
    (pixels,) = processor(image, **options)
    return pixels


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# ---------------------------------------------------------------------------- the arithmetic


def test_a_constant_colour_is_rescaled_and_normalised() -> None:
    image = Image.new("RGB", (500, 300), (255, 0, 128))
    pixels = one(ImageProcessor.for_size(224), image)
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
    expected = (np.array([255, 0, 128]) / 255 - MEAN) / STD
    np.testing.assert_allclose(pixels[:, 0, 0], expected, rtol=1e-6)
    assert (pixels == pixels[:, :1, :1]).all(), "resizing changes nothing where all is one colour"


def test_each_step_can_be_switched_off() -> None:
    image = np.array([[[0, 51, 102], [153, 204, 255]]], np.uint8)
    values = image.astype(np.float64).transpose(2, 0, 1)
    assert one(PLAIN, image).dtype == np.float32
    np.testing.assert_array_equal(one(PLAIN, image), values)
    steps = {"do_resize": False, "do_center_crop": False}
    scaled = one(ImageProcessor(**steps, do_normalize=False), image)
    np.testing.assert_allclose(scaled, values / 255, rtol=1e-7)
    normal = one(ImageProcessor(**steps, do_rescale=False), image)
    np.testing.assert_allclose(
        normal, (values - MEAN[:, None, None]) / STD[:, None, None], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("length", "crop", "kept"),
    [
        (5, 2, [2, 3]),  # three too many: the extra one goes at the end
        (5, 3, [2, 3, 4]),
        (4, 1, [2]),
        (2, 5, [0, 0, 1, 2, 0]),  # three too few: the extra one comes first
        (3, 5, [0, 1, 2, 3, 0]),
        (1, 2, [0, 1]),
        (4, 4, [1, 2, 3, 4]),
    ],
)
def test_centre_crop_offsets(length: int, crop: int, kept: list[int]) -> None:
    column = ImageProcessor(**_plain_but(do_center_crop=True, crop_size=(crop, 1)))
    assert one(column, numbered(length, 1))[0, :, 0].tolist() == kept
    row = ImageProcessor(**_plain_but(do_center_crop=True, crop_size=(1, crop)))
    assert one(row, numbered(1, length))[0, 0].tolist() == kept


def _plain_but(**settings: Any) -> dict[str, Any]:
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    return dict.fromkeys(steps, False) | settings


def test_a_crop_may_cut_one_way_and_pad_the_other() -> None:
    processor = ImageProcessor(**_plain_but(do_center_crop=True, crop_size=(4, 2)))
    expected = [[0, 0], [2, 3], [6, 7], [0, 0]]
    assert one(processor, numbered(2, 4))[0].tolist() == expected


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (3, 5, 4, (4, 6)),  # 4 · 5 / 3 = 6.67, truncated
        (5, 3, 4, (6, 4)),
        (480, 640, 224, (224, 298)),  # 298.67
        (10, 2000, 224, (224, 44800)),
        (1, 1, 224, (224, 224)),
        (50, 20, (7, 9), (7, 9)),
    ],
)
def test_resized_sizes(height: int, width: int, size: Any, expected: tuple[int, int]) -> None:
    processor = ImageProcessor(**_plain_but(do_resize=True, size=size))
    assert one(processor, np.zeros((height, width, 3), np.uint8)).shape == (3, *expected)


def _bicubic(values: np.ndarray, size: int) -> np.ndarray:
    """One axis resampled with the cubic of Keys (a = -1/2), widened when shrinking, in float64."""
    scale = len(values) / size
    stretch = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    x = np.abs((np.arange(len(values)) + 0.5 - centres[:, None]) / stretch)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return (weights / weights.sum(1, keepdims=True)) @ values


@pytest.mark.parametrize(("height", "width"), [(31, 47), (140, 90), (9, 8)])
def test_resizing_is_an_antialiased_bicubic(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(60, 190, (height, width, 3)).astype(np.uint8)
    processor = ImageProcessor(**_plain_but(do_resize=True, size=(33, 40)))
    rows = _bicubic(image.reshape(height, -1).astype(np.float64), 33).reshape(33, width, 3)
    expected = _bicubic(rows.transpose(1, 0, 2).reshape(width, -1), 40).reshape(40, 33, 3)
    found = one(processor, image).transpose(2, 1, 0)
    assert np.abs(found - expected).max() < 1.5, "Pillow rounds to 8 bits after each axis"


# ---------------------------------------------------------------------------- modes


def first_pixel(image: Image.Image) -> tuple[int, ...]:
    return load_image(image).getpixel((0, 0))  # type: ignore[return-value]


def test_transparency_is_laid_over_white() -> None:
    for alpha, expected in [(0, (255, 255, 255)), (255, (10, 20, 30)), (51, (206, 208, 210))]:
        assert first_pixel(Image.new("RGBA", (2, 2), (10, 20, 30, alpha))) == expected
        array = np.full((2, 2, 4), (10, 20, 30, alpha), np.uint8)
        assert load_image(array).getpixel((1, 1)) == expected
    assert first_pixel(Image.new("LA", (1, 1), (0, 0))) == (255, 255, 255)


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 40, 50, 60])
    image.putpixel((1, 0), 1)
    opened = Image.open(io.BytesIO(saved(image, "PNG", transparency=0)))
    assert [load_image(opened).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]
    assert first_pixel(image) == (9, 9, 9)


def test_grey_cmyk_and_one_bit() -> None:
    assert first_pixel(Image.new("L", (1, 1), 77)) == (77, 77, 77)
    assert first_pixel(Image.new("1", (1, 1), 1)) == (255, 255, 255)
    assert first_pixel(Image.new("CMYK", (1, 1), (255, 0, 0, 0))) == (0, 255, 255)
    for shape in [(2, 3), (2, 3, 1)]:
        assert load_image(np.full(shape, 9, np.uint8)).getpixel((2, 1)) == (9, 9, 9)


def test_sixteen_bit_grey_is_clipped_not_scaled() -> None:
    image = Image.fromarray(np.array([[0, 200, 256, 65535]], np.uint16))
    opened = Image.open(io.BytesIO(saved(image, "PNG")))
    assert np.asarray(load_image(opened))[0, :, 0].tolist() == [0, 200, 255, 255]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "lime")]
    options = {"save_all": True, "append_images": frames[1:], "lossless": True}
    (tmp_path / "moving").write_bytes(saved(frames[0], format, **options))
    assert load_image(tmp_path / "moving").getpixel((1, 1)) == (255, 0, 0)


def test_progressive_jpeg() -> None:
    image = load_image(CAT)
    again = Image.open(io.BytesIO(saved(image, "JPEG", quality=95, progressive=True)))
    assert again.info["progressive"]
    difference = np.asarray(load_image(again)).astype(int) - np.asarray(image)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_unless_told_otherwise(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(numbered(2, 3))
    opened = Image.open(io.BytesIO(saved(stored, "PNG", exif=exif.tobytes())))
    upright = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(load_image(opened), upright)
    assert upright.size == ((3, 2) if orientation < 5 else (2, 3))
    np.testing.assert_array_equal(load_image(opened, exif=False), stored)
    assert one(PLAIN, opened, exif=False).shape == (3, 2, 3)


def test_a_photograph_lying_on_its_side_worked_by_hand() -> None:
    """Orientation 6: the stored left column, from the bottom up, is the upright top row."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(saved(Image.fromarray(numbered(2, 3)), "PNG", exif=exif)))
    assert one(PLAIN, image)[0].tolist() == [[4, 1], [5, 2], [6, 3]]


@pytest.mark.parametrize("exif", [b"nonsense", b"MM\0*\0\0"])
def test_unreadable_exif_is_a_warning(exif: bytes) -> None:
    data = saved(Image.new("RGB", (4, 3), "red"), "PNG", exif=exif)
    with pytest.warns(AIMv2Warning, match="EXIF data cannot be read"):
        assert load_image(Image.open(io.BytesIO(data))).size == (4, 3)
    assert load_image(Image.open(io.BytesIO(data)), exif=False).size == (4, 3)


# ---------------------------------------------------------------------------- what is accepted


def test_one_image_or_several() -> None:
    image = Image.new("RGB", (3, 2))
    array = np.zeros((5, 2, 3, 3), np.uint8)
    assert as_list(image) == [image]
    assert as_list("photo.jpg") == ["photo.jpg"]
    assert as_list((image, "photo.jpg")) == [image, "photo.jpg"]
    assert as_list(name for name in "ab") == ["a", "b"]
    assert [a.shape for a in as_list(array)] == [(2, 3, 3)] * 5
    assert [a.shape for a in as_list(array[0])] == [(2, 3, 3)]
    assert len(as_list(array[0, :, :, 0])) == 1


def test_paths_pil_images_and_arrays_give_the_same() -> None:
    path = CAT
    with Image.open(path) as image:
        found = ImageProcessor.for_size(42)([path, str(path), image, np.asarray(image)])
    assert len(found) == 4
    for pixels in found[1:]:
        np.testing.assert_array_equal(pixels, found[0])


def test_sizes_may_differ_where_nothing_is_cropped() -> None:
    processor = ImageProcessor.for_size(None)
    found = processor([np.zeros((20, 30, 3), np.uint8), np.zeros((14, 15, 3), np.uint8)])
    assert [pixels.shape for pixels in found] == [(3, 20, 30), (3, 14, 15)]


def test_files_are_closed_and_images_of_the_user_are_left_alone(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("this system does not list open files in /proc")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    before = len(os.listdir(handles))
    kept = [load_image(CAT) for _ in range(3)]
    for _ in range(3):
        with pytest.raises(ImageError):
            load_image(tmp_path / "bad.png")
    assert len(os.listdir(handles)) == before
    load_image(kept[0])
    assert kept[0].getpixel((0, 0))


# ---------------------------------------------------------------------------- what is refused


@pytest.fixture
def files(tmp_path: Path) -> Path:
    jpeg = CAT.read_bytes()
    (tmp_path / "text.jpg").write_text("this is no photograph")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "truncated.jpg").write_bytes(jpeg[:9000])
    (tmp_path / "header.jpg").write_bytes(jpeg[:30])
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.jpg", "no such file"),
        ("text.jpg", "is not an image"),
        ("empty.jpg", "is not an image, or is empty"),
        ("truncated.jpg", "truncated"),
        ("header.jpg", "cannot be decoded|is not an image"),
        ("folder.jpg", "is a folder"),
        ("dangling.jpg", "link to nothing"),
        ("pipe.jpg", "no regular file"),
        ("nul\0.jpg", "no file can have this name"),
        ("half\ud800.jpg", "no file can have this name"),
        ("x" * 5000, "cannot be opened"),
    ],
)
def test_unusable_files(files: Path, name: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        ImageProcessor()([Image.new("RGB", (9, 9)), str(files / name)])
    shown = str(files) if "\0" in name or "\ud800" in name else str(files / name)
    assert str(caught.value).startswith(f"image 2 of 2 ({shown}")
    with pytest.raises(ImageError, match=message) as caught:
        load_image(files / name)
    assert str(caught.value).startswith(str(files))
    assert str(caught.value).isprintable()


def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "secret.png").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # the superuser may read every file
            os.seteuid(65534)
        with pytest.raises(ImageError, match="no permission"):
            load_image(tmp_path / "secret.png")
    finally:
        os.seteuid(user)


def test_no_permission_as_the_system_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.png").write_bytes(b"")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png: no permission to read it"):
        load_image(tmp_path / "secret.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3)), "expected dtype uint8 .* found float64; scale it .0..1 times 255"),
        (np.zeros((4, 4, 3), bool), "found bool"),
        (np.zeros((4, 4, 3), np.uint16), "found uint16"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\).* expected shape \(Y, X, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), "channels come first: np.moveaxis"),
        (np.zeros(4, np.uint8), "expected shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (Image.new("La", (4, 4)), "cannot convert mode La"),
        (b"\xff\xd8", r"found bytes; .*io\.BytesIO"),
        (None, "found NoneType"),
        (3, "found int"),
        (Path, "found type"),
        ("https://example.org/cat.jpg", "addresses are not fetched"),
        ("", "''.*no such file"),
    ],
)
def test_unusable_sources(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(source)
    with pytest.raises(ImageError, match=r"^image 3 of 3 .*" + message):
        ImageProcessor()([Image.new("RGB", (9, 9))] * 2 + [source])


def test_a_closed_image() -> None:
    image = Image.open(CAT)
    image.close()
    with pytest.raises(ImageError, match="the image was closed"):
        load_image(image)


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 4, 4, 3), np.uint8), {"a": "b"}, {"a"}])
def test_no_images(images: Any) -> None:
    with pytest.raises(ImageError, match="expected an image or a list of images"):
        ImageProcessor()(images)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [11, 20])
def test_decompression_bombs(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above the limit (11 · 11) and raises above twice the limit (20 · 20)."""
    Image.new("RGB", (side, side)).save(tmp_path / "bomb.png")
    load_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"bomb\.png: .*raise PIL.Image.MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3)])
def test_a_shape_too_extreme_to_resize(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"would be resized to .* less extreme shape"):
        ImageProcessor()(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "image",
    [Image.new("L", (9, 9)), Image.new("RGBA", (9, 9)), np.zeros((9, 9, 4), np.uint8)],
    ids=["grey", "RGBA", "array"],
)
def test_without_conversion_only_three_channels_are_taken(image: Any) -> None:
    with pytest.raises(ImageError, match="do_convert_rgb is false"):
        ImageProcessor(do_convert_rgb=False)(image)


@pytest.mark.filterwarnings("ignore::aimv2_np.errors.AIMv2Warning", "ignore::UserWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA"])
def test_damaged_files_give_an_image_or_an_image_error(format: str, tmp_path: Path) -> None:
    """60 mutations of each format; a decoder must not let its own exceptions out."""
    draw = random.Random(format)
    whole = saved(load_image(CAT).resize((40, 30)), format)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(min(len(data), 400))] = draw.randrange(256)
        if draw.random() < 0.4:
            del data[draw.randrange(len(data)) :]
        (tmp_path / "damaged").write_bytes(data)
        try:
            assert load_image(tmp_path / "damaged").mode == "RGB"
        except ImageError:
            refused += 1
    assert refused, "none of the mutations did any harm"


# ---------------------------------------------------------------------------- settings


def test_the_defaults_are_the_official_settings() -> None:
    raw = json.loads((RANDOM_LIT / "preprocessor_config.json").read_text())
    assert ImageProcessor.from_json(raw) == ImageProcessor.for_size(42)
    assert ImageProcessor.from_json({}) == ImageProcessor.for_size(224) == ImageProcessor()
    native = ImageProcessor.for_size(None)
    assert (native.do_resize, native.do_center_crop, native.do_normalize) == (False, False, True)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"size": 30, "crop_size": 20}, {"size": 30, "crop_size": (20, 20)}),
        ({"size": {"shortest_edge": 30}}, {"size": 30}),
        ({"size": {"height": 3, "width": 4}}, {"size": (3, 4)}),
        ({"crop_size": {"height": 3, "width": 4}}, {"crop_size": (3, 4)}),
        ({"image_mean": 0.5, "resample": 2}, {"image_mean": (0.5, 0.5, 0.5), "resample": 2}),
        ({"do_resize": None, "size": None}, {"do_resize": False}),
        ({"image_processor_type": "CLIPImageProcessorFast", "do_pad": False, "x": 1}, {}),
    ],
)
def test_forms_of_settings(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    assert ImageProcessor.from_json(raw) == ImageProcessor(**expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", 1),
        ("do_normalize", "yes"),
        ("size", 0),
        ("size", "224"),
        ("size", None),
        ("size", True),
        ("size", {"longest_edge": 4}),
        ("size", {"shortest_edge": -4}),
        ("size", {"height": 4}),
        ("size", {"shortest_edge": 3, "longest_edge": 4}),
        ("crop_size", {"shortest_edge": 4}),
        ("crop_size", 2.5),
        ("resample", 9),
        ("resample", "bicubic"),
        ("rescale_factor", "1/255"),
        ("rescale_factor", float("nan")),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", ["a", "b", "c"]),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", None),
        ("image_processor_type", "ViTImageProcessor"),
        ("do_pad", True),
        ("default_to_square", True),
    ],
)
def test_malformed_settings_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^some/file\.json: {key} is .*, expected "):
        ImageProcessor.from_json({key: value}, "some/file.json")


def test_all_malformed_settings_are_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        ImageProcessor.from_json({"size": -1, "resample": 17, "image_std": 0})
    assert all(key in str(caught.value) for key in ("size", "resample", "image_std"))
    with pytest.raises(ConfigError, match="expected a JSON object, found list"):
        ImageProcessor.from_json([])  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- and back


@pytest.mark.parametrize("do_rescale", [True, False])
@pytest.mark.parametrize("do_normalize", [True, False])
def test_a_picture_comes_back_from_its_pixels(do_rescale: bool, do_normalize: bool) -> None:
    processor = replace(PLAIN, do_rescale=do_rescale, do_normalize=do_normalize)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(processor.picture(one(processor, image)), image)


def test_a_picture_ends_at_black_and_white() -> None:
    pixels = np.array([-300.0, 300.0, 7.4]).reshape(3, 1, 1)
    assert PLAIN.picture(pixels).tolist() == [[[0, 255, 7]]]
