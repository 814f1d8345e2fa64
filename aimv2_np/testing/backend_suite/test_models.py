"""Whole models on a backend against the same in float64, judged by the verifier.

An activation may err by a multiple of what correct runs in the dtype do (`verify.locate.ALLOWED`).
int8 has no such measure: there the outputs' directions count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...backend import Backend, host_dtype
from ...config import VisionConfig
from ...trace import Recorder, activation_names
from ...verify import Candidate, Case, verify_cases
from ...verify.lanes import DTYPES
from .. import random_models

pytestmark = pytest.mark.filterwarnings("ignore::aimv2_np.errors.AIMv2Warning")  # small images

JUDGED_AS = {"tf32": "float16"}  # products of 11 significant bits, too
LEAST_COSINE = 0.99  # of outputs in dtypes that the verifier has no measure of
# width, hidden, heads, patches of 6 pixels up and across: ragged wherever something can be ragged
SHAPES = [
    (48, 40, 3, 1, 1),  # one token; heads of 16; fewer hidden channels than any tile has rows
    (60, 50, 4, 1, 37),  # heads of 15
    (128, 65, 1, 5, 7),
    (192, 513, 3, 13, 11),  # heads of 64, more than 128 tokens
]


def taps_of(model: Any, case: Case) -> dict[str, Any]:
    """Every activation of a case, in the form that is composed of single ops."""
    given = {"images": case.pixel_values is not None, "texts": case.input_ids is not None}
    recorder, pooled = Recorder(activation_names(model.config, **given)), {}
    tap, encoder = recorder.tap(), getattr(model, "vision", model)
    if given["images"]:
        pooled["image"] = encoder.forward(case.pixel_values, case.interpolate, tap=tap)[1]
    if given["texts"]:
        pooled["text"] = model.text.forward(case.input_ids, case.attention_mask, tap=tap)[1]
    if hasattr(model, "join"):
        model.join(pooled.get("image"), pooled.get("text"), tap)
    there = model.backend.to_numpy  # what entered the model, and the temperature, are NumPy's
    return {n: a if isinstance(a, np.ndarray) else there(a) for n, a in recorder.arrays.items()}


def outputs_of(model: Any, case: Case) -> dict[str, Any]:
    """What a call returns, computed in the backend's own form."""
    if not hasattr(model, "join"):
        out = model(case.pixel_values, interpolate_positions=case.interpolate)
        return {"vision.norm": out.last_hidden_state}
    out = model(case.pixel_values, case.input_ids, case.attention_mask)
    names = ("image_embeds", "text_embeds", "logits_per_image")
    return {name: array for name in names if (array := getattr(out, name)) is not None}


def judge(model: Any, cases: list[Case], taps: dict[str, dict[str, Any]], dtype: str) -> None:
    """By the verifier, or by directions."""
    if dtype in (*DTYPES, *JUDGED_AS):
        candidate = Candidate("backend", taps, JUDGED_AS.get(dtype, dtype))
        report = verify_cases(model, cases, candidate)
        assert report.ok, str(report)
        return
    for case in cases:
        for name, true in outputs_of(model, case).items():
            found = taps[case.name][name]
            assert cosines(found, true).min() >= LEAST_COSINE, f"{name} of {case.name}"


def cosines(a: Any, b: Any) -> Any:
    """Of the vectors of two arrays."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (np.asarray(a, np.float64) * b).sum(axis=-1) / lengths


def shaped(width: int, hidden: int, heads: int, rows: int, columns: int) -> tuple[Any, list[Case]]:
    """A model of other widths, and one case for it."""
    config = replace(
        random_models.vision(native=True, depth=2),
        hidden_size=width,
        intermediate_size=hidden,
        num_attention_heads=heads,
    )
    pixels = np.random.default_rng(3).standard_normal((2, 3, 6 * rows, 6 * columns))
    return random_models.made(config), [Case("one", pixels.astype(np.float32))]


@pytest.mark.parametrize("kind", ["native", "learned", "lit"])
def test_every_activation(kind: str, dtype: str, on: Any) -> None:
    """Of the composed form, and each step on its own."""
    model, cases = random_models.make(kind), random_models.cases(kind)
    moved = on(model, dtype)
    judge(model, cases, {case.name: taps_of(moved, case) for case in cases}, dtype)


@pytest.mark.parametrize("kind", ["native", "learned", "lit"])
def test_outputs(kind: str, dtype: str, on: Any) -> None:
    """Of the backend's own form, in which steps are fused."""
    model, cases = random_models.make(kind), random_models.cases(kind)
    moved = on(model, dtype)
    judge(model, cases, {case.name: outputs_of(moved, case) for case in cases}, dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_other_shapes(shape: tuple[int, int, int, int, int], dtype: str, on: Any) -> None:
    """Outputs of the backend's own form."""
    model, cases = shaped(*shape)
    moved = on(model, dtype)
    judge(model, cases, {case.name: outputs_of(moved, case) for case in cases}, dtype)


def test_what_comes_out(dtype: str, on: Any, be: Backend) -> None:
    """NumPy arrays, in what the host holds of the dtype."""
    model, cases = random_models.make("lit"), random_models.cases("lit")
    for name, array in outputs_of(on(model, dtype), cases[0]).items():
        assert type(array) is np.ndarray, name
        assert array.dtype.kind == "f"
        assert np.isfinite(array).all()


def test_nan_stays_with_its_image(dtype: str, on: Any, be: Backend) -> None:
    """A sequence that holds NaN gives NaN, and leaves the others of its batch alone."""
    model = on(random_models.make("learned"), dtype)
    x = np.random.default_rng(2).standard_normal((2, 9, 48)).astype(host_dtype(dtype))

    def through_blocks(host: Any) -> Any:
        given, config = be.asarray(host, dtype), model.config
        rest = model.params.blocks, config.num_attention_heads, config.rms_norm_eps
        return be.to_numpy(be.transformer(be, given, *rest))

    right = through_blocks(x)
    x[1, 4, 7] = np.nan
    found = through_blocks(x)
    np.testing.assert_array_equal(found[0], right[0])
    assert np.isnan(found[1]).all()


def test_a_config_is_not_a_shape() -> None:
    """The models above are those that they say they are."""
    model, (case,) = shaped(*SHAPES[1])
    assert isinstance(model.config, VisionConfig)
    assert outputs_of(model, case)["vision.norm"].shape == (2, 37, 60)
