"""What a port makes of raw images: right ones pass, mistakes are named; and what is malformed.

Texts are judged in `test_preprocess_texts.py`, ways to resample in
`test_preprocess_resampling.py`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from preprocess_reports import compared, pipeline, taps

from aimv2_np.errors import VerificationError
from aimv2_np.images import ImageProcessor
from aimv2_np.verify import Candidate
from aimv2_np.verify.inputs import Inputs
from aimv2_np.verify.lanes import rounded
from aimv2_np.verify.mistakes import Mistake, every
from aimv2_np.verify.preprocess import compare_raw
from aimv2_np.verify.raw import RawImage

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PER_CHANNEL = np.array(STD)[:, None, None]
IMAGES = [m for m in every() if m.at("raw.pixel_values")]


# ---------------------------------------------------------------------------- a port of its own


@dataclasses.dataclass
class Port:
    """A preprocessing written here, as somebody would write it from the paper and Pillow."""

    size: int | None
    mean: Any = MEAN
    std: Any = STD
    scale: float = 255
    resample: Any = Image.Resampling.BICUBIC
    bgr: bool = False
    exif: bool = True
    square: bool = False
    margin: float = 1.0
    offset: Callable[[float], int] = int

    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        opened = [Image.open(io.BytesIO(file)) for file in inputs.files]
        upright = [ImageOps.exif_transpose(image) if self.exif else image for image in opened]
        images = [*map(Image.fromarray, inputs.images), *upright]
        return {f"pixel_values_{i}": self.one(image) for i, image in enumerate(images)}

    def one(self, image: Image.Image) -> np.ndarray:
        if self.size is not None:
            short = int(self.size / self.margin)
            width, height = image.size
            size = (short, short) if self.square else (
                short if width <= height else int(short * width / height),
                short if height <= width else int(short * height / width),
            )  # fmt: skip
            image = image.resize(size, self.resample)
            left, top = ((n - self.size) / 2 for n in image.size)
            box = self.offset(left), self.offset(top)
            image = image.crop((*box, box[0] + self.size, box[1] + self.size))
        pixels = np.asarray(image, float)[:, :, ::-1] if self.bgr else np.asarray(image, float)
        return ((pixels / self.scale - np.array(self.mean)) / np.array(self.std)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [70, 224, None])
def test_a_port_that_is_right_passes(size: int | None) -> None:
    report = compared(size, Port(size)(pipeline(size)[1]))
    assert report.ok, str(report)
    assert len(taps(report)) == 3
    assert max(tap.excess for tap in taps(report)) < 1
    assert not any(tap.note for tap in taps(report))


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PORTS: dict[str, dict[str, Any]] = {
    "imagenet-normalisation": IMAGENET,
    "half-normalisation": {"mean": 0.5, "std": 0.5},
    "no-normalisation": {"mean": 0.0, "std": 1.0},
    "mean-missing": {"mean": 0.0},
    "deviation-missing": {"std": 1.0},
    "no-rescale": {"scale": 1},
    "rescaled-twice": {"scale": 255**2},
    "rescale-256": {"scale": 256},
    "pixels-as-they-are": {"scale": 1, "mean": 0.0, "std": 1.0},
    "normalisation-bgr": {"mean": MEAN[::-1], "std": STD[::-1]},
    "bgr": {"bgr": True},
    "bilinear": {"resample": Image.Resampling.BILINEAR},
    "lanczos": {"resample": Image.Resampling.LANCZOS},
    "nearest": {"resample": Image.Resampling.NEAREST},
    "squashed": {"square": True},
    "margin": {"margin": 0.875},
    "crop-rounded": {"offset": round},
    "exif-ignored": {"exif": False},
    "imagenet-normalisation + bgr": {"bgr": True, **IMAGENET},
    "imagenet-normalisation + margin": {"margin": 0.875, **IMAGENET},
    "bilinear + squashed": {"square": True, "resample": Image.Resampling.BILINEAR},
    "rescale-256 + exif-ignored": {"exif": False, "scale": 256},
}


@pytest.mark.parametrize("named", PORTS)
def test_the_mistake_of_a_port_is_named(named: str) -> None:
    report = compared(70, Port(70, **PORTS[named])(pipeline(70)[1]))
    (finding,) = report.findings
    assert finding.causes[0].proved
    assert finding.causes[0].id == named
    assert finding.alike == []
    assert named in str(report)
    assert report.exit_code == 1


def test_only_the_image_with_an_orientation_shows_that_it_is_ignored() -> None:
    report = compared(70, Port(70, exif=False)(pipeline(70)[1]))
    assert report.findings[0].wrong.name == "pixel_values_2"
    assert report.findings[0].right_cases == ["pixel_values_0", "pixel_values_1"]


# ---------------------------------------------------------------------------- what is right, too


def test_layouts_and_batches_are_read() -> None:
    right = Port(70)(pipeline(70)[1])
    last = {name: a.transpose(1, 2, 0) for name, a in right.items()}
    report = compared(70, last)
    assert report.ok
    assert {tap.note for tap in taps(report)} == {"channels last"}
    assert compared(70, {name: a[None] for name, a in right.items()}).ok
    assert compared(70, {"pixel_values": np.stack(list(right.values()))}).ok
    assert compared(70, {"pixel_values": np.stack(list(last.values()))}).ok
    assert len(taps(compared(70, {"pixel_values_1": right["pixel_values_1"]}))) == 1


def test_native_images_may_lack_what_fills_no_patch() -> None:
    right = Port(None)(pipeline(None)[1])
    cut = {n: a[:, : a.shape[1] // 14 * 14, : a.shape[2] // 14 * 14] for n, a in right.items()}
    report = compared(None, cut)
    assert report.ok
    assert {tap.note for tap in taps(report)} == {"cut to whole patches"}
    # but not of a model that crops
    one = right["pixel_values_0"][:, :56, :56]
    assert "shape (3, 56, 56), expected (3, 70, 70)" in str(compared(70, {"pixel_values_0": one}))


def by_one_level(size: int, levels: float) -> dict[str, np.ndarray]:
    """As right as another resampling is: off by so many levels of 255 here and there."""
    rng = np.random.default_rng(0)
    right = Port(size)(pipeline(size)[1])
    step = levels / 255 / PER_CHANNEL
    return {name: a + step * rng.integers(-1, 2, a.shape) for name, a in right.items()}


def test_one_level_of_255_is_right_and_noted_two_are_not() -> None:
    report = compared(70, by_one_level(70, 1.0))
    assert report.ok
    assert all("levels of 255" in tap.remark for tap in taps(report))
    report = compared(70, by_one_level(70, 2.0))
    assert not report.ok
    assert not any(cause.proved for cause in report.findings[0].causes)


def test_a_mistake_is_named_beside_another_resampling() -> None:
    off = by_one_level(70, 1.0)
    given = {name: off[name] * PER_CHANNEL for name in off}  # deviation-missing
    (finding,) = compared(70, given).findings
    assert finding.causes[0].id == "deviation-missing"
    assert finding.causes[0].proved


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_numbers_are_right_for_a_port_that_says_so(dtype: str) -> None:
    given = {n: rounded(a, dtype) for n, a in Port(None)(pipeline(None)[1]).items()}
    assert compared(None, given, dtype).ok
    (finding,) = compared(None, given).findings
    assert finding.causes[0].id == f"pixels-{dtype}"


# ---------------------------------------------------------------------------- the library


def test_the_steps_give_what_the_processor_gives() -> None:
    odd = ImageProcessor(size=(40, 75), crop_size=(61, 50), resample=1, do_normalize=False)
    for processor in (*(ImageProcessor.for_size(n) for n in (70, 224, 336, None)), odd):
        for source in pipeline(70)[1].sources:
            expected = processor(source)[0]
            np.testing.assert_array_equal(
                RawImage(source, processor).pixel_values(), expected, strict=True
            )


# What cannot show where images are neither resized nor cropped, or are resized already.
FIXED = {
    "bilinear", "lanczos", "nearest", "no-antialias", "bilinear-no-antialias", "area",
    "resize-align-corners", "nearest-corner", "resize-unclamped", "squashed", "margin", "no-crop",
    "crop-top-left", "crop-rounded", "crop-first", "resize-rounded", "long-edge", "letterboxed",
    "letterboxed-mean",
}  # fmt: skip
HIDDEN = {70: {"resized-to-patches"}, 224: {"resized-to-patches", "default-size"}, None: FIXED}


def mistaken(size: Any, *mistakes: Mistake) -> dict[str, np.ndarray]:
    """What a port with these mistakes gives."""
    model, inputs = pipeline(size)
    given = {}
    for i, source in enumerate(inputs.sources):
        raw: Any = RawImage(source, model.processor, 14)
        for mistake in mistakes:
            raw = mistake.patch(raw)
        given[f"pixel_values_{i}"] = raw.pixel_values()
    return given


@pytest.mark.parametrize("size", [70, None])
@pytest.mark.parametrize("mistake", IMAGES, ids=lambda m: m.id)
def test_every_mistake_is_told_from_every_other(mistake: Mistake, size: int | None) -> None:
    report = compared(size, mistaken(size, mistake))
    if mistake.id in HIDDEN[size]:
        assert report.ok
        return
    (finding,) = report.findings
    assert [cause.id for cause in finding.causes] == [mistake.id]
    assert finding.causes[0].proved


def test_mistakes_show_at_the_official_size_too() -> None:
    model, inputs = pipeline(224)
    right = [model.processor(source)[0] for source in inputs.sources]
    for mistake in IMAGES:
        given = mistaken(224, mistake).values()
        same = all(map(np.array_equal, given, right))
        assert same == (mistake.id in HIDDEN[224]), mistake.id


@pytest.mark.parametrize(
    "pair",
    [
        ("mirrored", "letterboxed"),
        ("resize-unclamped", "no-antialias"),
        ("pixels-bfloat16", "rescale-256"),
    ],
    ids=" + ".join,
)
def test_pairs_are_named(pair: tuple[str, str]) -> None:
    finding = compared(70, mistaken(70, *every(pair))).findings[0]
    assert finding.causes[0].proved
    assert {m.id for m in finding.causes[0].mistakes} == set(pair)
    assert finding.alike == []


# ---------------------------------------------------------------------------- malformed


def test_what_no_mistake_explains_is_said_to_be_unknown() -> None:
    given = {"pixel_values_0": np.random.default_rng(0).normal(size=(3, 64, 64)),
             "input_ids": np.ones((5, 32), int)}  # fmt: skip
    report = compared("emoji-lit", given)
    assert "unknown at pixel_values_0, unknown at input_ids" in report.verdict
    assert report.to_json()["ok"] is False


def test_values_that_cannot_be_compared_are_explained() -> None:
    pixels = np.full((3, 70, 70), np.nan)
    words = np.full((3, 70, 70), "x")
    for given, said in (
        (pixels, "NaN in 100% of it"),
        (words, "expected numbers"),
        (np.zeros((3, 5, 6)), "shape (3, 5, 6), expected (3, 70, 70)"),
        (np.zeros(4), "shape (4,), expected (3, 70, 70)"),
    ):
        assert said in str(compared(70, {"pixel_values_0": given}))
    report = compared("emoji-lit", {"input_ids": np.zeros((4, 32), int)})
    assert "int64 of shape (4, 32), expected numbers of (5, 32)" in str(report)
    assert "expected numbers" in str(compared("emoji-lit", {"input_ids": np.full((5, 32), "x")}))


def test_names_that_these_inputs_do_not_know_are_refused() -> None:
    for name, said in (("pixel_values_3", "pixel_values_0, pixel_values_1"), ("x", "input_ids")):
        with pytest.raises(VerificationError, match=f"raw/{name}, but .*{said}"):
            compared("emoji-lit", {name: np.zeros(3)})
    with pytest.raises(VerificationError, match=r"shape \(2, 3, 70, 70\), expected \(3, 3, Y, X\)"):
        compared(70, {"pixel_values": np.zeros((2, 3, 70, 70))})


def test_a_candidate_that_gives_nothing_raw_is_not_judged() -> None:
    model, inputs = pipeline(70)
    assert compare_raw(model, inputs, Candidate("port", {})) == ([], [])
