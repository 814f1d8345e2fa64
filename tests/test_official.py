"""The official weights against the figures that transformers recorded from them.

    pytest -m official

loads three checkpoints (4.2 GB) from the hub or its cache and skips, saying why, where they cannot
be had. The photograph is COCO val2017's 000000039769.jpg (two cats): the environment variable
AIMV2_COCO_IMAGE says where it lies, else it is downloaded.

The default run, which has no weights, tests the checks themselves: on the golden models they pass
for the right figures and fail for wrong ones.
"""

from __future__ import annotations

import os
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import aimv2_np
from aimv2_np import layers
from aimv2_np.backend import NUMPY
from aimv2_np.errors import CheckpointError
from aimv2_np.hub import resolve
from aimv2_np.models import LiT

Array = NDArray[Any]

GOLDEN = Path(__file__).parent / "golden"
PHOTO = "val2017/000000039769.jpg"
PHOTO_VARIABLE = "AIMV2_COCO_IMAGE"

# transformers' tests/models/aimv2/test_modeling_aimv2.py, with the tolerances they were recorded
# for: last_hidden_state[0, 0:7, 0:4] within 1e-3; logits within 1e-3 plus a thousandth.
ATOL = 1e-3
LARGE_224 = [
    [0.0510, 0.0806, -0.0990, -0.0154],
    [2.7850, -2.5143, -0.3320, 2.4196],
    [2.8179, -2.4089, -0.2770, 2.3218],
    [2.7641, -2.4114, -0.3684, 2.2998],
    [2.7972, -2.3180, -0.4490, 2.2302],
    [2.8584, -2.5322, -0.2302, 2.4936],
    [-2.7849, 2.4121, 1.3670, -1.5514],
]
NATIVE = [
    [-1.3342, 0.3720, 0.0963, 0.4159],
    [-1.5328, 0.4677, 0.0936, 0.4321],
    [-0.3775, -0.2758, -0.0803, -0.5367],
    [-1.3877, 0.5561, -1.9064, -1.1766],
    [-0.5148, 0.0108, -0.4515, -0.6402],
    [-0.3400, -0.1711, -0.1855, -0.4219],
    [-1.2877, -0.0585, -0.1646, 0.7420],
]
LIT_TEXTS = ["a photo of a cat", "a photo of a dog"]
LIT_LOGITS = [[33.3550, 26.4255]]

HINT = (
    "If the difference is small (about 0.01), look at the input first: the figures may have been "
    "recorded with torchvision's resize, whose pixels differ by up to one of 255 levels"
)

# ---------------------------------------------------------------------------- what is needed


def official_model(name: str, **where: Any) -> Any:
    """An official model, or a skip where its files cannot be had.

    Only fetching may skip: files that are there but do not load are a failure.
    """
    try:
        resolve(name, **where)
    except CheckpointError as error:
        pytest.skip(f"the weights of {name} cannot be had: {error}")
    return aimv2_np.load(name, backend="numpy", **where)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The COCO photograph, 640 × 480, or a skip that says how to provide it."""
    if PHOTO_VARIABLE in os.environ:
        return Path(os.environ[PHOTO_VARIABLE])
    path = tmp_path_factory.mktemp("coco") / "photo.jpg"
    try:
        with urllib.request.urlopen(f"http://images.cocodataset.org/{PHOTO}", timeout=30) as answer:
            path.write_bytes(answer.read())
    except OSError as error:
        pytest.skip(f"no COCO {PHOTO}: {error}; download it and set {PHOTO_VARIABLE} to its path")
    return path


# ---------------------------------------------------------------------------- the checks


def check_features(features: Array, shape: tuple[int, int], figures: list[list[float]]) -> None:
    """The features of one image, (N, D), begin with the recorded figures."""
    assert features.shape == shape
    expected = np.array(figures)
    found = features[: len(expected), : expected.shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL, err_msg=HINT)


def not_causal(be: Any, *block: Any, **options: Any) -> Array:
    """A block in which every token sees every other one: the mistake text-noncausal."""
    return layers.block(be, *block, **{**options, "causal": False})


def readings(model: LiT, pixel_values: Array, input_ids: Array) -> dict[str, Array]:
    """The logits of a causal text tower, which is the original's, and of one that is not."""
    mistaken = LiT(model.config, model.params, replace(NUMPY, block=not_causal), model.dtype)
    return {
        "causal": model(pixel_values, input_ids).logits_per_image,
        "not causal": mistaken(pixel_values, input_ids).logits_per_image,
    }


def reading_of(logits: dict[str, Array], figures: Any) -> str:
    """Which reading the recorded figures belong to; exactly one has to match."""
    expected = np.asarray(figures)
    matching = [
        name
        for name, values in logits.items()
        if values.shape == expected.shape and np.allclose(values, expected, rtol=1e-3, atol=ATOL)
    ]
    shown = "; ".join(f"{name}: {values.tolist()}" for name, values in logits.items())
    assert len(matching) == 1, f"{len(matching)} readings match {figures}: {shown}. {HINT}"
    return matching[0]


# ---------------------------------------------------------------------------- official weights


@pytest.mark.official
def test_large_224(photo: Path) -> None:
    (features,) = official_model("large-patch14-224").patch_features([photo])
    check_features(features, (256, 1024), LARGE_224)


@pytest.mark.official
def test_native(photo: Path) -> None:
    """640 × 480 gives 45 columns and 34 rows: neither square nor a multiple of the patch."""
    (features,) = official_model("large-patch14-native").patch_features([photo])
    check_features(features, (34 * 45, 1024), NATIVE)


@pytest.mark.official
def test_lit(photo: Path) -> None:
    """Both texts are equally long, so the figure may come from a tower that was not causal."""
    model = official_model("large-patch14-224-lit")
    tokens = model.tokenize(LIT_TEXTS)
    name = reading_of(readings(model, model.preprocess(photo), tokens.input_ids), LIT_LOGITS)
    warnings.warn(f"the recorded logits {LIT_LOGITS} belong to the {name} reading", stacklevel=1)


# ---------------------------------------------------------------------------- without weights


def golden(case: str) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    """A golden model, its inputs, and what the original code made of them."""
    inputs, expected = (
        load_file(GOLDEN / case / f"{name}.safetensors") for name in ("inputs", "expected")
    )
    return aimv2_np.load(GOLDEN / case / "transformers", backend="numpy"), inputs, expected


def test_the_check_of_features_passes_and_fails_as_it_should() -> None:
    model, inputs, expected = golden("vision-absolute")
    features = model(inputs["pixel_values_0"]).last_hidden_state[0]
    figures = np.round(expected["last_hidden_state_0"][0, :7, :4], 4)
    check_features(features, features.shape, figures.tolist())
    wrong = figures.copy()
    wrong[6, 3] += 2 * ATOL
    for shape, other in ((features.shape, wrong), (features.T.shape, figures)):
        with pytest.raises(AssertionError):
            check_features(features, shape, other.tolist())
    with pytest.raises(AssertionError, match="torchvision's resize"):
        check_features(features, features.shape, LARGE_224)


def test_both_readings_are_told_apart() -> None:
    """By the original's logits and by those that transformers gives without a mask."""
    model, inputs, expected = golden("lit")
    logits = readings(model, inputs["pixel_values"], inputs["input_ids"])
    right, wrong = (expected[p + "logits_per_image"] for p in ("", "transformers_no_mask_"))
    assert reading_of(logits, right) == "causal"
    assert reading_of(logits, wrong) == "not causal"
    with pytest.raises(AssertionError, match="0 readings match"):
        reading_of(logits, LIT_LOGITS)
    with pytest.raises(AssertionError, match="2 readings match"):
        reading_of({**logits, "not causal": logits["causal"]}, right)


def test_weights_that_cannot_be_had_skip_and_say_why(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="large-patch14-224 cannot be had: "):
        official_model("large-patch14-224", cache_dir=tmp_path, local_files_only=True)


def test_weights_that_are_there_but_do_not_load_are_a_failure(tmp_path: Path) -> None:
    repository = tmp_path / "models--apple--aimv2-large-patch14-224"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        official_model("large-patch14-224", cache_dir=tmp_path, local_files_only=True)
