"""What a page is made of, against the trace, against values worked by hand, and other formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import LABELS, PICTURE, lit, native, of_lit, of_native, trace_of_lit, wide_image
from golden_cases import CAT, RANDOM_LIT
from PIL import Image

import aimv2_np
from aimv2_np.config import OFFICIAL, LiTConfig
from aimv2_np.errors import AIMv2Error, AIMv2Warning, ConfigError, ImageError
from aimv2_np.explain import explain
from aimv2_np.explain.attention import MOST_WEIGHTS, attention_maps, cells_for, pooled
from aimv2_np.explain.depth import Components, components, residual
from aimv2_np.explain.texts import against_others, contributions

# ---------------------------------------------------------------------------- attention


@pytest.mark.parametrize("model", [lit, native])
def test_attention_is_that_of_the_trace(model: Any) -> None:
    found = (of_lit if model is lit else of_native)().attention
    names = ["vision.blocks.*.attn.pattern"]
    trace = model().trace(images=[PICTURE if model is lit else CAT], names=names)
    assert len(trace) == len(found.blocks)
    for i, pattern in enumerate(trace.values()):
        for head, wanted in enumerate(pattern[0]):
            weights = found.weights(i, head)
            peaks = wanted.max(axis=1, keepdims=True)
            assert weights.shape == wanted.shape
            assert (np.abs(weights - wanted) <= 0.004 * peaks).all()
            np.testing.assert_allclose(weights.max(axis=1), wanted.max(axis=1), rtol=1e-5)


def test_cells_share_maps_and_places() -> None:
    """By loops over patches: 3 × 5 patches in query cells of 2 × 2, key cells of 3 × 3."""
    grid, query, key = (3, 5), 2, 3
    pattern = np.random.default_rng(0).random((15, 15))
    wanted, count = np.zeros((6, 2)), np.zeros(6)
    for asking in range(15):
        cell = asking // 5 // query * 3 + asking % 5 // query
        count[cell] += 1
        for read in range(15):
            wanted[cell, read // 5 // key * 2 + read % 5 // key] += pattern[asking, read]
    np.testing.assert_allclose(pooled(pattern, grid, query, key), wanted / count[:, None])
    np.testing.assert_array_equal(pooled(pattern, grid, 1, 1), pattern)


@pytest.mark.parametrize(
    ("name", "grid", "cells"),
    [
        ("large-patch14-224", (16, 16), (1, 1)),
        ("3B-patch14-224", (16, 16), (2, 1)),
        ("large-patch14-336", (24, 24), (2, 1)),
        ("large-patch14-448", (32, 32), (2, 2)),
        ("large-patch14-native", (34, 45), (3, 2)),
        ("large-patch14-native", (64, 64), (4, 4)),
        ("large-patch14-native", (1, 4096), (14, 14)),
    ],
)
def test_cells_are_as_small_as_the_page_can_bear(
    name: str, grid: tuple[int, int], cells: tuple[int, int]
) -> None:
    config = OFFICIAL[name].config
    vision = config.vision if isinstance(config, LiTConfig) else config
    maps = vision.num_hidden_layers * vision.num_attention_heads
    assert cells_for(grid, maps, MOST_WEIGHTS) == cells

    def held(query: int, key: int) -> int:
        sides = [math.ceil(side / cell) for cell in (query, key) for side in grid]
        return maps * math.prod(sides)

    query, key = cells
    assert held(query, key) <= MOST_WEIGHTS
    if cells != (1, 1):
        assert held(*((query - 1, key) if query > key else (query, key - 1))) > MOST_WEIGHTS


def test_cells_end_where_one_holds_all() -> None:
    assert cells_for((2, 3), maps=7, most=1) == (3, 3)


def test_large_grids_keep_sums() -> None:
    found = of_native(most_weights=4 * 180 * 336).attention
    assert (found.query_cell, found.key_cell) == (2, 2)
    assert found.levels.shape == (2, 2, 11 * 16, 11 * 16)
    np.testing.assert_allclose(found.weights(1, 1).sum(axis=1), 1, atol=0.01)


def test_some_blocks() -> None:
    found = explain(lit(), PICTURE, blocks=[4, 1, 4]).attention
    assert found.blocks == (1, 4)
    np.testing.assert_array_equal(found.levels[1], of_lit().attention.levels[4])


def test_maps_of_a_single_patch() -> None:
    q = np.ones((1, 2, 1, 4), np.float32)
    maps = attention_maps({f"vision.blocks.0.attn.{n}": q for n in "qk"}, (1, 1), [0])
    assert maps.weights(0, 1).tolist() == [[1.0]]


# ---------------------------------------------------------------------------- depth


def test_lengths_by_hand() -> None:
    trace = {
        "vision.embed": np.array([[[3.0, 4.0], [0.0, 0.0]]]),
        "vision.blocks.0.attn.out": np.array([[[1.0, 0.0], [0.0, 2.0]]]),
        "vision.blocks.0.mlp.out": np.array([[[4.0, 8.0], [5.0, 10.0]]]),
        "vision.blocks.0.resid_post": np.array([[[8.0, 15.0], [5.0, 12.0]]]),
    }
    found = residual(trace, 1)
    assert found.stream.tolist() == [[5, 0], [17, 13]]
    assert found.attention.tolist() == [[1, 2]]
    np.testing.assert_allclose(found.mlp, [[math.sqrt(80), math.sqrt(125)]], rtol=1e-6)


def test_what_blocks_add_is_what_the_stream_gains() -> None:
    trace, found = trace_of_lit(), of_lit().residual
    assert found.stream.shape == (7, 64)
    for i in range(6):
        before = trace["vision.embed" if i == 0 else f"vision.blocks.{i - 1}.resid_post"]
        mid, after = (trace[f"vision.blocks.{i}.resid_{name}"] for name in ("mid", "post"))
        np.testing.assert_allclose(
            found.attention[i], np.linalg.norm(mid - before, axis=-1)[0], rtol=1e-3
        )
        np.testing.assert_allclose(found.mlp[i], np.linalg.norm(after - mid, axis=-1)[0], rtol=1e-3)
        np.testing.assert_allclose(
            found.stream[i + 1], np.linalg.norm(after, axis=-1)[0], rtol=1e-3
        )


def test_components_see_directions_and_keep_their_signs() -> None:
    """A patch ten times as long changes nothing; a mirrored depth has the same signs."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 12, 6))
    longer = x * np.where(np.arange(12) == 5, 10, 1)[:, None]
    trace = {"vision.embed": x, "vision.blocks.0.resid_post": longer, "vision.norm": -x}
    found = components(trace, 1)
    assert found.names == ("embedding", "block 0", "features")
    np.testing.assert_allclose(found.scores[1], found.scores[0], atol=1e-9)
    np.testing.assert_allclose(found.scores[2], found.scores[0], atol=1e-9)


def test_colours_go_from_end_to_end() -> None:
    scores = np.stack([np.linspace(-7, 3, 101), np.zeros(101), np.arange(101) == 50.0], axis=1)
    colours = Components(("one",), scores[None], np.ones((1, 3))).colours[0]
    assert colours[[0, 2, 26, 74, 98, 100], 0].tolist() == [0, 0, 64, 191, 255, 255]
    assert set(colours[:, 1]) == {128}  # what differs nowhere lies in the middle
    assert set(colours[:, 2]) == {128}  # so does what only clipped patches differ in


# ---------------------------------------------------------------------------- texts


@pytest.mark.parametrize(("dtype", "most"), [("float64", 1e-12), ("float32", 1e-5)])
def test_contributions_sum_to_the_logits(dtype: str, most: float) -> None:
    trace = trace_of_lit(dtype)
    terms, constant = contributions(lit(dtype), trace)
    assert terms.shape == (5, 64)
    logits = trace["logits_per_image"][0]
    most *= np.abs(logits).max()
    np.testing.assert_allclose(terms.sum(axis=1) + constant, logits, atol=most)
    assert np.abs(constant).max() > 1e-3  # so that it must be there


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_contributions_of_narrow_weights(dtype: str) -> None:
    found = explain(aimv2_np.load("emoji-lit", dtype=dtype), PICTURE, LABELS).texts
    assert found is not None
    sums = found.contributions.sum(axis=1) + found.constant
    np.testing.assert_allclose(sums, found.logits, atol=1e-4 * np.abs(found.logits).max())


def test_a_contribution_is_what_the_logit_loses_without_the_patch() -> None:
    """With its value out of the sum, attention and length as they were; head by head, in loops."""
    model, trace = lit("float64"), trace_of_lit()
    head, projector = model.params.vision.head, np.asarray(model.params.image_projector)
    pattern, values = trace["vision.head.pattern"][0, :, 0], trace["vision.head.v"][0]
    length = np.linalg.norm(trace["image_features"][0])

    def logits(kept: Any) -> Any:
        context = np.concatenate([p[kept] @ v[kept] for p, v in zip(pattern, values, strict=True)])
        features = projector @ (head.linear_weight @ context + head.linear_bias)
        return model.logit_scale * trace["text_embeds"] @ (features / length)

    everything = np.arange(64)
    np.testing.assert_allclose(logits(everything), trace["logits_per_image"][0], rtol=1e-9)
    terms, constant = contributions(model, trace)
    for patch in (0, 17, 40, 63):
        lost = logits(everything) - logits(np.delete(everything, patch))
        np.testing.assert_allclose(terms[:, patch], lost, atol=1e-10)
    np.testing.assert_allclose(constant, logits(everything[:0]), atol=1e-10)


def test_a_model_that_pools_otherwise_is_refused() -> None:
    model = aimv2_np.load("emoji-lit", backend="numpy", quirks="pool-mean")
    with pytest.raises(ConfigError, match="does not sum to the logits"):
        explain(model, PICTURE, LABELS)
    assert explain(model, PICTURE).texts is None


@pytest.mark.parametrize("quirks", ["transformers", "original", "ovis2", "vllm"])
def test_a_model_with_a_library_s_quirks_is_explained(quirks: str) -> None:
    model = aimv2_np.load("emoji-lit", backend="numpy", quirks=quirks)
    found = explain(model, PICTURE, LABELS).texts
    assert found is not None
    sums = found.contributions.sum(axis=1) + found.constant
    np.testing.assert_allclose(sums, found.logits, atol=1e-4)


def test_against_the_others_by_hand() -> None:
    terms = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    assert against_others(terms).tolist() == [[-3, -1.5], [-1.5, -1.5], [4.5, 3]]
    assert against_others(terms[:1]).tolist() == [[1, 0]]


def test_probabilities_are_those_of_classify() -> None:
    found = of_lit().texts
    assert found is not None
    wanted = lit().classify(PICTURE, LABELS).probabilities[0]
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4)
    assert found.labels[found.ranking()[0]] == LABELS[int(wanted.argmax())]


def test_texts_that_fit_alike_keep_their_order() -> None:
    texts = of_lit().texts
    assert texts is not None
    alike = replace(texts, probabilities=np.array([0.1, 0.3, 0.1, 0.3, 0.1, *[0.0] * 20]))
    assert alike.ranking()[:5] == [1, 3, 0, 2, 4]
    assert alike.ranking()[5:] == list(range(5, 25))


@pytest.mark.parametrize("texts", [None, ["a"]])
def test_exif_turns_the_image_unless_told_otherwise(tmp_path: Path, texts: Any) -> None:
    image = Image.open(PICTURE).convert("RGB")
    exif = image.getexif()
    exif[274] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    upright = explain(lit(), PICTURE, texts).picture
    turned, raw = (explain(lit(), tmp_path / "turned.png", texts, exif=e) for e in (True, False))
    np.testing.assert_array_equal(raw.picture, upright)
    np.testing.assert_allclose(turned.picture, np.rot90(upright.astype(int), -1), atol=12)


def test_the_prompt_frames_the_texts() -> None:
    found = explain(lit(), PICTURE, LABELS, prompt="{}").texts
    assert found is not None
    wanted = lit().classify(PICTURE, LABELS, prompt="{}").probabilities[0]
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4)
    assert of_lit().texts is not None
    assert np.abs(found.probabilities - of_lit().texts.probabilities).max() > 0.005


# ---------------------------------------------------------------------------- all of it


def test_what_belongs_to_the_image() -> None:
    found = of_lit()
    assert found.grid == (8, 8)
    assert found.depth == 6
    assert found.image == PICTURE.name
    trace = trace_of_lit()
    np.testing.assert_allclose(found.pooling, trace["vision.head.pattern"][0, :, 0], atol=1e-5)
    again = lit().preprocess(found.picture)[0]
    np.testing.assert_array_equal(again, lit().preprocess(PICTURE)[0])


def test_a_native_model_takes_any_grid() -> None:
    with pytest.warns(AIMv2Warning, match="6 patches"):
        found = explain(native(), wide_image())
    assert found.grid == (2, 3)
    assert (found.pooling, found.texts) == (None, None)
    assert found.attention.levels.shape[2:] == (6, 6)
    np.testing.assert_array_equal(found.picture, wide_image()[:28, :42])


def test_where_files_lie_is_not_told() -> None:
    found = of_native()
    assert (found.model, found.image) == ("transformers", Path(CAT).name)
    assert of_lit().model == "emoji-lit"


def test_json_holds_the_numbers() -> None:
    said = of_lit().to_json()
    assert [text["label"] for text in said["texts"]][:2] == ["cat", "dog"]
    for text in said["texts"]:
        total = sum(text["contributions"]) + text["constant"]
        assert total == pytest.approx(text["logit"], abs=1e-4)
    assert sum(text["probability"] for text in said["texts"]) == pytest.approx(1)
    assert len(said["lengths"]["stream"]) == 7
    assert np.sum(said["pooling"], axis=1) == pytest.approx(1)


def test_what_is_being_done_is_told() -> None:
    told: list[str] = []
    explain(native(), CAT, tick=told.append)
    assert told[:3] == ["the model", "attention of block 0", "attention of block 1"]
    assert told[-1] == "components of features"


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vision-only model"):
        explain(native(), CAT, ["a"])
    with pytest.raises(ConfigError, match="0 to 5, found 6"):
        explain(lit(), PICTURE, blocks=[0, 6])
    with pytest.raises(ConfigError, match="0 to 5, found none"):
        explain(lit(), PICTURE, blocks=[])
    with pytest.raises(ConfigError, match="no {} where"):
        explain(lit(), PICTURE, LABELS, prompt="a photo")
    with pytest.raises(ImageError):
        explain(lit(), tmp_path / "none.png")
    with pytest.raises(AIMv2Error, match="no text|at least one"):
        explain(lit(), PICTURE, [])
    with pytest.raises(AIMv2Error, match="cannot write"):
        of_lit().write(tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_nan_is_an_error(tower: str) -> None:
    model = aimv2_np.load(RANDOM_LIT, backend="numpy")
    encoder = getattr(model, tower)
    broken = np.full_like(encoder.params.post_trunk_norm, np.nan)
    encoder.params = encoder.params._replace(post_trunk_norm=broken)
    with pytest.raises(AIMv2Error, match="computed NaN"):
        explain(model, CAT, ["a", "b"])
