"""Other libraries' preprocessing and tokenisation: right ones pass, mistakes are named."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.tokenization_clip import CLIPTokenizer

import aimv2_np
from aimv2_np.images import CLIP_MEAN, CLIP_STD, ImageProcessor
from aimv2_np.verify import Candidate, Case, Report, reference
from aimv2_np.verify.inputs import Inputs, make_inputs
from aimv2_np.verify.locate import CaseResult
from aimv2_np.verify.mistakes import preprocessing, tokens  # noqa: F401
from aimv2_np.verify.preprocess import compare_raw

pytestmark = pytest.mark.compare

SIZES = [64, 224, 336, 448]
BICUBIC = v2.InterpolationMode.BICUBIC


@cache
def pipeline(size: int) -> tuple[Any, Inputs]:
    model = reference("emoji-lit")
    model.processor = ImageProcessor.for_size(size)
    return model, make_inputs(model)


def images(size: int, exif: bool = True) -> list[Image.Image]:
    sources = [Image.fromarray(s) if isinstance(s, np.ndarray) else s
               for s in pipeline(size)[1].sources]  # fmt: skip
    return [ImageOps.exif_transpose(s) for s in sources] if exif else sources


def compared(size: int, given: dict[str, Any]) -> Report:
    model, inputs = pipeline(size)
    taps, findings = compare_raw(model, inputs, Candidate("port", {"raw": given}))
    return Report(model.name, "port", "float32", [CaseResult(Case("raw"), taps)], findings)


def assert_right(size: int, given: dict[str, Any]) -> list[str]:
    """Nothing is found; the notes."""
    report = compared(size, given)
    assert report.ok, str(report)
    return [tap.remark for tap in report.results[0].taps]


def assert_named(size: int, given: dict[str, Any], *ids: str) -> None:
    (finding,) = compared(size, given).findings
    assert finding.causes[0].proved
    assert finding.causes[0].id in ids


@pytest.mark.parametrize("size", SIZES)
def test_transformers_processors_pass(size: int) -> None:
    settings = {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "return_tensors": "np",
    }
    slow = CLIPImageProcessorPil()(images(size), **settings)["pixel_values"]
    assert assert_right(size, {"pixel_values": np.stack(slow)}) == ["", "", ""]
    settings["return_tensors"] = "pt"
    fast = CLIPImageProcessor()(images(size), **settings)["pixel_values"]
    notes = assert_right(size, {"pixel_values": fast.numpy()})
    assert any("levels of 255" in note for note in notes)


def test_transformers_processor_ignores_the_orientation_of_an_open_image() -> None:
    settings = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    found = CLIPImageProcessorPil()(images(64, exif=False), **settings)["pixel_values"]
    assert_named(64, {"pixel_values": np.stack(found)}, "exif-ignored")


def transformed(size: int, *steps: Any) -> dict[str, Any]:
    whole = v2.Compose([*steps, v2.Normalize(CLIP_MEAN, CLIP_STD)])
    return {f"pixel_values_{i}": whole(image).numpy() for i, image in enumerate(images(size))}


@pytest.mark.parametrize("size", SIZES)
def test_torchvisions_transforms_round_the_crop(size: int) -> None:
    as_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    on_pillow = (v2.Resize(size, BICUBIC), v2.CenterCrop(size), as_float)
    assert_named(size, transformed(size, *on_pillow), "crop-rounded")
    on_tensors = (v2.ToImage(), v2.Resize(size, BICUBIC), v2.CenterCrop(size))
    scaled = v2.ToDtype(torch.float32, scale=True)
    assert_named(size, transformed(size, *on_tensors, scaled), "crop-rounded")


def resized(image: Image.Image, size: int, clamp: bool = True, **options: Any) -> Any:
    """By torch on floats, then cropped; (3, Y, X)."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    height, width = pixels.shape[2:]
    long = int(size * max(height, width) / min(height, width))
    shape = (long, size) if width <= height else (size, long)
    pixels = torch.nn.functional.interpolate(pixels, shape, **options)[0]
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    pixels = pixels[:, top : top + size, left : left + size]
    pixels = (pixels.clamp(0, 255) if clamp else pixels) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return ((pixels - mean) / std).numpy()


def by_torch(size: int, **options: Any) -> dict[str, Any]:
    found = [resized(image, size, **options) for image in images(size)]
    return {f"pixel_values_{i}": pixels for i, pixels in enumerate(found)}


@pytest.mark.parametrize("size", SIZES)
def test_torchs_resizing_passes_where_it_is_the_same_filter(size: int) -> None:
    notes = assert_right(size, by_torch(size, mode="bicubic", antialias=True))
    assert all("levels of 255" in note for note in notes)


RESIZING: dict[str, dict[str, Any]] = {
    "resize-unclamped": {"mode": "bicubic", "antialias": True, "clamp": False},
    "no-antialias": {"mode": "bicubic"},
    "bilinear-no-antialias": {"mode": "bilinear"},
    "bilinear": {"mode": "bilinear", "antialias": True},
    "resize-align-corners": {"mode": "bilinear", "align_corners": True},
    "nearest-corner": {"mode": "nearest"},
    "resize-unclamped + no-antialias": {"mode": "bicubic", "clamp": False},
}


@pytest.mark.parametrize("named", RESIZING)
def test_torchs_other_resizing_is_named(named: str) -> None:
    assert_named(64, by_torch(64, **RESIZING[named]), named)


def test_transformers_tokenizer_passes() -> None:
    inputs = pipeline(64)[1]
    theirs = CLIPTokenizer.from_pretrained(aimv2_np.load("emoji-lit").info["folder"])
    for padding in ("longest", "max_length"):
        out = theirs(inputs.texts, padding=padding, truncation=True, max_length=32)
        given = {name: np.array(out[name]) for name in ("input_ids", "attention_mask")}
        assert_right(64, given)
    out = theirs(inputs.texts, padding="longest", max_length=32, padding_side="left",
                 truncation=True)  # fmt: skip
    left = {name: np.array(out[name]) for name in ("input_ids", "attention_mask")}
    assert_named(64, left, "padded-left")
    untruncated = theirs(inputs.texts, padding="longest")
    ids = {"input_ids": np.array(untruncated["input_ids"])}
    assert_named(64, ids, "not-cut")
