"""Models with the known deviations of other libraries: what they compute, and what they refuse.

The judges are numbers that those libraries computed: recorded in tests/golden (transformers 5.23,
the original code) or here (the original code at bd9e068, from the same weights and inputs).
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import CAT, GOLDEN, HEADS, RANDOM_LIT, difference, expected, inputs
from safetensors.numpy import load_file, save_file

import aimv2_np
from aimv2_np import ConfigError, pipelines
from aimv2_np.backend import NUMPY
from aimv2_np.cli import main
from aimv2_np.quirks import QUIRKS, quirky
from aimv2_np.verify.mistakes import every

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "numba"])
ROUNDING = 1e-5  # float32 on both sides; what differs without a quirk differs by more than 0.01
# Channel 0 of the original code's features, of images cut from those of tests/golden.
TWO_ROWS = """
    0.4695481 1.2055975 0.7909948 -0.9330366 0.6892467 -0.8006520
    -0.4402486 -0.1470531 0.3001761 0.3245295 -0.9640336 -1.4102739
"""
ONE_ROW = """
    0.6427005 -0.6959260 -0.1206660 -0.9456386 -1.1815251 0.2673346 0.3488086 -1.6549399 0.3207341
    -0.3297997 -0.4817221 0.8401110 -3.0643029 0.9738018 -0.3947624 -0.1516277 -1.3343935 -1.1269722
"""


def load(case: str, quirks: Any, **options: Any) -> Any:
    heads = HEADS[case]
    return aimv2_np.load(GOLDEN / case / "original", num_heads=heads, quirks=quirks, **options)


def small(quirks: Any, backend: Any = "numpy", **options: Any) -> Any:
    return aimv2_np.load(RANDOM_LIT, backend=backend, quirks=quirks, **options)


# ---------------------------------------------------------------------------- text-noncausal


@BACKENDS
@pytest.mark.parametrize("name", ["transformers", "transformers-eager"])
def test_without_a_mask_transformers_is_not_causal(name: str, backend: str) -> None:
    given, wanted = inputs("lit"), expected("lit")
    del given["attention_mask"]
    wrong = wanted["transformers_no_mask_logits_per_image"]
    out = load("lit", name, backend=backend)(**given)
    assert difference(out.logits_per_image, wrong) < ROUNDING
    assert difference(out.text_embeds, wanted["transformers_no_mask_text_embeds"]) < ROUNDING
    plain = load("lit", None, backend=backend)(**given)
    assert difference(plain.logits_per_image, wanted["logits_per_image"]) < ROUNDING
    assert difference(plain.logits_per_image, wrong) > 0.01


@pytest.mark.parametrize("name", ["transformers", "transformers-eager"])
def test_where_a_token_is_masked_transformers_is_causal(name: str) -> None:
    out = load("lit", name)(**inputs("lit"))
    assert difference(out.logits_per_image, expected("lit")["logits_per_image"]) < ROUNDING


def test_a_mask_of_ones_counts_as_none_for_sdpa_only() -> None:
    wanted = expected("lit")
    given = inputs("lit") | {"attention_mask": np.ones_like(inputs("lit")["input_ids"])}
    sdpa = load("lit", "transformers")(**given).logits_per_image
    eager = load("lit", "transformers-eager")(**given).logits_per_image
    assert difference(sdpa, wanted["transformers_no_mask_logits_per_image"]) < ROUNDING
    assert difference(eager, wanted["logits_per_image"]) < ROUNDING


def test_texts_are_one_batch_since_its_padding_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "TEXT_BATCH", 2)
    texts = ["a cat", "a dog", "a cat on a mat"]
    plain, given = small(None), small("transformers")
    assert difference(given.encode_text(texts), plain.encode_text(texts)) < ROUNDING
    assert difference(given.encode_text(texts[:2]), plain.encode_text(texts[:2])) > 0.01
    assert np.allclose(np.linalg.norm(given.encode_text(texts[:2]), axis=1), 1, atol=1e-6)
    raw = given.encode_text(texts[:2], normalize=False)
    assert difference(raw, given.text_features(*given.tokenize(texts[:2]))) == 0


# ---------------------------------------------------------------------------- positions


@BACKENDS
@pytest.mark.parametrize(("shape", "channel"), [((28, 42), TWO_ROWS), ((14, 126), ONE_ROW)])
def test_the_original_slices_its_positions(
    shape: tuple[int, int], channel: str, backend: str
) -> None:
    wanted = np.array(channel.split(), float).reshape(2, -1)
    images = np.concatenate([inputs("vision-absolute")["pixel_values_0"]] * 3, axis=3)
    images = images[:, :, : shape[0], : shape[1]]
    features = load("vision-absolute", "original", backend=backend)(images).last_hidden_state
    assert difference(features[:, :, 0], wanted) < ROUNDING
    plain = load("vision-absolute", None, backend=backend)
    with pytest.raises(aimv2_np.ImageError, match="learned for 42×42"):
        plain(images)
    resampled = plain(images, interpolate_positions=True).last_hidden_state
    assert difference(resampled[:, :, 0], wanted) > 0.01


def test_sliced_positions_are_those_of_a_smaller_model(tmp_path: Path) -> None:
    """A model whose table is the first four rows takes 28×28 without any quirk."""
    tensors = load_file(GOLDEN / "vision-absolute" / "original" / "model.safetensors")
    tensors["preprocessor.pos_embed"] = tensors["preprocessor.pos_embed"][:, :4]
    save_file(tensors, tmp_path / "model.safetensors")
    image = inputs("vision-absolute")["pixel_values_0"][:, :, 5:33, 9:37]
    wanted = aimv2_np.load(tmp_path, num_heads=3, backend="numpy")(image).last_hidden_state
    found = load("vision-absolute", "original", backend="numpy")(image).last_hidden_state
    assert difference(found, wanted) < 1e-6


def test_images_that_a_library_cannot_take_are_refused() -> None:
    original, transformers = small("original"), small("transformers")
    for model, shape, words in (
        (original, (56, 56), "16 patches; .* at most 9"),
        (transformers, (56, 56), "16 patches; .* exactly 9"),
        (transformers, (28, 28), "4 patches; .* exactly 9"),
        (original, (13, 56), "smaller than a patch"),
    ):
        with pytest.raises(aimv2_np.ImageError, match=words):
            model(np.zeros((1, 3, *shape), np.float32), interpolate_positions=True)
    one_row = np.zeros((1, 3, 14, 126), np.float32)
    for asked in (True, False):  # transformers does not look at what was asked
        transformers(one_row, interpolate_positions=asked)
    assert small(["transformers", "original"])(one_row[..., :28]).image_embeds.shape == (1, 40)


def test_native_models_have_no_table_to_slice() -> None:
    given = inputs("vision-native")["pixel_values_1"]
    with pytest.warns(aimv2_np.AIMv2Warning) as warned:
        features = load("vision-native", "original", backend="numpy")(given).last_hidden_state
    assert len(warned) == 1
    assert difference(features, expected("vision-native")["last_hidden_state_1"]) < ROUNDING


# ---------------------------------------------------------------------------- no-final-norm


@BACKENDS
@pytest.mark.parametrize("name", ["ovis2", "vllm"])
def test_features_before_the_final_norm(name: str, backend: str) -> None:
    wanted = expected("vision-absolute")
    model = load("vision-absolute", name, backend=backend)
    features = model(inputs("vision-absolute")["pixel_values_0"]).last_hidden_state
    assert difference(features, wanted["block_1_0"]) < ROUNDING
    assert difference(features, wanted["last_hidden_state_0"]) > 0.01


def test_ovis2_leaves_the_text_encoder_alone() -> None:
    wanted = expected("lit")
    out = load("lit", "ovis2", backend="numpy")(**inputs("lit"))
    image, text = out.vision_model_output, out.text_model_output
    assert difference(image.last_hidden_state, wanted["vision_block_1"]) < ROUNDING
    assert difference(text.pooler_output, wanted["text_pooler_output"]) < ROUNDING


# ---------------------------------------------------------------------------- everything else


@BACKENDS
def test_traces_hidden_states_and_attentions(backend: str) -> None:
    model = small("transformers", backend)
    ids = np.array([[97, 3, 4, 5, 98], [97, 9, 8, 7, 98]])
    all_of_it = {"output_hidden_states": True, "output_attentions": True}
    out = model(input_ids=ids, **all_of_it).text_model_output
    trace = model.trace(input_ids=ids)
    assert list(trace) == aimv2_np.activation_names(model.config, images=False)
    assert difference(out.attentions[1], trace["text.blocks.1.attn.pattern"]) == 0
    assert difference(out.hidden_states[2], trace["text.blocks.1.resid_post"]) == 0
    assert difference(out.last_hidden_state, trace["text.norm"]) == 0
    assert out.attentions[0][..., 0, 4].min() > 0  # the first token sees the last one
    plain = small(None)(input_ids=ids, **all_of_it).text_model_output
    assert plain.attentions[0][..., 0, 4].max() == 0
    kept = model.trace(input_ids=ids, names="*.resid_post")
    assert list(kept) == ["text.blocks.0.resid_post", "text.blocks.1.resid_post"]


def test_images_run_one_by_one() -> None:
    model, images = small("ovis2"), [CAT, np.zeros((50, 60, 3), np.uint8)]
    features = model.patch_features(images)
    for one, image in zip(features, model.preprocess(images), strict=True):
        alone = model(image[None]).vision_model_output.last_hidden_state
        assert difference(one[None], alone) == 0
    assert difference(features, small(None).patch_features(images)) > 0.01
    embeds = model.encode_image(images)
    assert difference(embeds, model(model.preprocess(images)).image_embeds) < ROUNDING
    assert model.classify(images, ["a cat", "a dog"]).probabilities.shape == (2, 2)
    vision = load("vision-absolute", "ovis2", backend="numpy")
    features = vision.patch_features(images)
    pooled = vision.encode_image(images, pool="mean", normalize=False)
    assert difference(pooled, features.mean(axis=1)) < ROUNDING
    trace = vision.trace(images, names="vision.norm")
    assert difference(features, trace["vision.norm"]) < ROUNDING


def test_every_mistake_of_an_encoder_is_a_quirk() -> None:
    """Each runs, also on a nested list, and all but a few change a number here."""
    pixels = np.random.default_rng(0).normal(size=(1, 3, 42, 42)).astype(np.float32)
    ids = np.array([[97, 3, 4, 5, 98], [97, 9, 8, 98, 98]])
    plain = aimv2_np.load(RANDOM_LIT, backend="numpy")
    before, changed, ran = plain(pixels, ids).logits_per_image, 0, 0
    for mistake in every():
        if not mistake.patterns[0].startswith(("vision.", "text.", "*")):
            continue
        model = quirky([mistake.id], "numpy")(plain)
        found = model(pixels.tolist(), ids.tolist()).logits_per_image  # type: ignore[operator]
        ran, changed = ran + 1, changed + (not np.array_equal(found, before))
    assert ran > 100
    assert changed > 0.8 * ran


def test_the_table_is_whole() -> None:
    known = {mistake.id for mistake in every()}
    assert {"transformers", "transformers-eager", "original", "ovis2", "vllm"} <= set(QUIRKS)
    for quirk in QUIRKS.values():
        assert set(quirk.mistakes) <= known
        assert quirk.says
        assert quirk.source


def test_a_model_says_that_it_has_quirks() -> None:
    model = small(["transformers", "rms-eps"])
    assert model.info["quirks"] == ["transformers", "rms-eps"]
    assert repr(model).endswith("float32, numpy, with the quirks of transformers, rms-eps>")
    assert "quirks" not in small(None).info
    assert repr(small(None)).endswith("float32, numpy>")
    assert small(iter(["vllm"])).info["quirks"] == ["vllm"]
    assert repr(small("gelu")) == repr(small(["gelu"]))


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("quirks", "words"),
    [
        (
            "transformer",
            "no quirk 'transformer': known are transformers, .*, original, ovis2, vllm",
        ),
        (["original", "text-noncausl"], "such as text-noncausal"),
        ("", "no quirk ''"),
        (5, "expected a name or a list of names"),
        ([None], "expected a name or a list of names"),
        ("logit-scale-log", "'logit-scale-log' concerns logit_scale"),
        (["l2-missing"], "only what the encoders compute"),
    ],
)
def test_unknown_quirks(quirks: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(quirks)


def test_an_unknown_quirk_is_found_before_a_model_is() -> None:
    with pytest.raises(ConfigError, match="no quirk"):
        aimv2_np.load("not-there/at-all", quirks="none")


def test_backends_that_cannot_have_quirks() -> None:
    with pytest.raises(aimv2_np.BackendUnavailable, match="numpy and numba, not on mine"):
        small("original", replace(NUMPY, name="mine"))
    with pytest.raises(aimv2_np.BackendUnavailable, match='load with backend="numpy"'):
        small("conv-bgr", "numba")


def test_packed_folders_take_no_quirks(tmp_path: Path) -> None:
    assert main(["pack", str(RANDOM_LIT), "--out", str(tmp_path / "packed")]) == 0
    with pytest.raises(aimv2_np.CheckpointError, match="takes no quirks; load what it was packed"):
        aimv2_np.load(tmp_path / "packed", quirks="original")


def test_the_verifier_is_imported_only_for_quirks() -> None:
    code = (
        "import sys, aimv2_np; a = sys.argv[1]; aimv2_np.load(a, backend='numpy');"
        "assert 'aimv2_np.verify' not in sys.modules;"
        "aimv2_np.load(a, backend='numpy', quirks='vllm'); assert 'aimv2_np.verify' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(RANDOM_LIT)], check=True, timeout=120)
