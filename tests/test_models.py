"""What must hold for any input: properties of the encoders, and the errors of wrong input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN, RANDOM_LIT, inputs, load
from PIL import Image

import aimv2_np
from aimv2_np import ops
from aimv2_np.backend import NUMPY
from aimv2_np.checks import check_pixels
from aimv2_np.config import OFFICIAL

RNG = np.random.default_rng(0)
NATIVE_RANGE = "was trained on 112 to 4096"


@pytest.fixture(scope="module")
def lit() -> Any:
    return load("lit")


@pytest.fixture(scope="module")
def native() -> Any:
    return load("vision-native")


@pytest.fixture(scope="module")
def absolute() -> Any:
    return load("vision-absolute")


def texts(*lengths: int, total: int = 9) -> np.ndarray:
    """Token ids like the tokenizer's: begin (97), some words, end and padding (98)."""
    ids = np.full((len(lengths), total), 98)
    ids[:, 0] = 97
    for row, length in zip(ids, lengths, strict=True):
        row[1 : 1 + length] = RNG.integers(0, 97, length)
    return ids


# ---------------------------------------------------------------------------- batches


def test_batch_size_and_order_do_not_matter(lit: Any) -> None:
    pixels, ids = RNG.normal(size=(3, 3, 42, 42)), texts(2, 7, 4)
    whole = lit(pixels, ids)
    turned = lit(pixels[::-1], ids[::-1])
    assert turned.logits_per_image[::-1, ::-1] == pytest.approx(whole.logits_per_image, rel=1e-12)
    for i in range(3):
        alone = lit(pixels[i : i + 1], ids[i : i + 1])
        assert alone.image_embeds[0] == pytest.approx(whole.image_embeds[i], rel=1e-12)
        assert alone.text_embeds[0] == pytest.approx(whole.text_embeds[i], rel=1e-12)


def test_logits_both_ways_and_towers_alone(lit: Any) -> None:
    pixels, ids = RNG.normal(size=(2, 3, 42, 42)), texts(2, 7, 4)
    both = lit(pixels, ids)
    assert both.logits_per_image.shape == (2, 3)
    assert np.array_equal(both.logits_per_text, both.logits_per_image.T)
    cosine = both.image_embeds @ both.text_embeds.T
    assert both.logits_per_image == pytest.approx(lit.logit_scale * cosine)
    image, text = lit(pixel_values=pixels), lit(input_ids=ids)
    assert np.array_equal(image.image_embeds, both.image_embeds)
    assert np.array_equal(text.text_embeds, both.text_embeds)
    assert image.logits_per_image is None
    assert text.vision_model_output is None
    assert ops.l2_normalize(lit.image_features(pixels)) == pytest.approx(both.image_embeds)
    assert ops.l2_normalize(lit.text_features(ids)) == pytest.approx(both.text_embeds)


@pytest.mark.parametrize(
    ("stored", "scale"), [(-3.0, 1.0), (0.0, 1.0), (2.0, np.exp(2.0)), (9.0, 100.0)]
)
def test_the_scale_is_clamped_then_exponentiated(lit: Any, stored: float, scale: float) -> None:
    params = lit.params._replace(log_logit_scale=np.array(stored))
    assert aimv2_np.LiT(lit.config, params).logit_scale == pytest.approx(scale)
    lower = replace(lit.config, max_logit_scale=5.0)
    assert aimv2_np.LiT(lower, params).logit_scale == pytest.approx(min(scale, 5.0))


# ---------------------------------------------------------------------------- text


def test_a_later_token_never_changes_an_earlier_feature(lit: Any) -> None:
    ids = texts(7)
    before = lit.text(ids).last_hidden_state
    for position in range(1, 8):
        changed = ids.copy()
        changed[0, position] = (changed[0, position] + 1) % 97
        for mask in (None, np.ones_like(ids)):  # causal whatever mask is passed
            after = lit.text(changed, mask).last_hidden_state
            assert np.array_equal(after[:, :position], before[:, :position])
            assert not np.allclose(after[:, position], before[:, position])


def test_padding_does_not_change_a_text(lit: Any) -> None:
    short = texts(4, total=6)
    padded = np.concatenate([short, np.full((1, 8), 98)], axis=1)
    mask = np.concatenate([np.ones((1, 6)), np.zeros((1, 8))], axis=1)
    wanted = lit.text_features(short)
    assert lit.text_features(padded) == pytest.approx(wanted, rel=1e-12)
    assert lit.text_features(padded, mask) == pytest.approx(wanted, rel=1e-12)


def test_the_mask_hides_keys(lit: Any) -> None:
    ids = texts(7)
    mask = np.array([[1, 1, 0, 1, 1, 1, 1, 1, 1]])
    other = ids.copy()
    other[0, 2] = (other[0, 2] + 1) % 97
    assert np.array_equal(lit.text_features(ids, mask), lit.text_features(other, mask))
    assert not np.allclose(lit.text_features(ids), lit.text_features(ids, mask))


def test_the_first_end_token_is_pooled(lit: Any) -> None:
    ids = texts(3)  # ends at position 4, then padding with the same id
    out = lit.text(ids)
    assert np.array_equal(out.pooler_output[0], out.last_hidden_state[0, 4])
    assert not np.allclose(out.last_hidden_state[0, 4], out.last_hidden_state[0, -1])


def test_a_text_longer_than_the_context_keeps_its_end(lit: Any) -> None:
    ids = texts(18, 3, total=20)  # the context is 16
    cut = ids[:, :16].copy()
    cut[0, 15] = 98
    given = ids.copy()
    with pytest.warns(aimv2_np.AIMv2Warning, match="1 of 2 texts .* 16 tokens .* end token kept"):
        out = lit.text(ids)
    assert np.array_equal(ids, given)  # the caller's array is left alone
    assert np.array_equal(out.last_hidden_state, lit.text(cut).last_hidden_state)
    assert np.array_equal(out.pooler_output[0], out.last_hidden_state[0, 15])


def test_a_mask_is_cut_with_its_texts(lit: Any) -> None:
    ids = texts(18, total=20)
    mask = np.ones_like(ids)
    mask[0, 3] = 0
    with pytest.warns(aimv2_np.AIMv2Warning, match="cut"):
        masked = lit.text(ids, mask).pooler_output
    with pytest.warns(aimv2_np.AIMv2Warning, match="cut"):
        plain = lit.text(ids).pooler_output
    assert not np.allclose(masked, plain)


def test_padding_beyond_the_context_is_no_loss(lit: Any) -> None:
    """No warning (the test configuration would turn it into an error), and the same feature."""
    ids = texts(5, total=30)
    assert np.array_equal(lit.text(ids).pooler_output, lit.text(ids[:, :16]).pooler_output)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[97, 98], [97, 5, 98]], None, "padded to one length, found list"),
        ([[97, 98]], [[1], [1, 1]], "expected an attention_mask"),
        (np.full((2, 5), 3), None, r"text 1 of 2 has no end-of-text token \(98\)"),
        ([[97, 98], [97, 3]], None, r"text 2 of 2 has no end-of-text token"),
        ([[97, 99]], None, r"range from 97 to 99, but the vocabulary has the ids 0 to 98"),
        ([[-1, 98]], None, r"range from -1"),
        ([97, 98], None, r"shape \(2,\), expected \(B, T\)"),
        (np.zeros((0, 5), int), None, r"shape \(0, 5\)"),
        ([[0.5, 98.0]], None, "float64, expected integers"),
        ([[97, 98]], [[1, 1, 1]], r"attention_mask is \(1, 3\), but input_ids are \(1, 2\)"),
        ([[97, 98]], [[1, 2]], "other values than 0"),
        ([[97, 98]], [[1, 0]], "hides the end-of-text token"),
    ],
)
def test_wrong_tokens_are_one_clear_error(lit: Any, ids: Any, mask: Any, message: str) -> None:
    with pytest.raises(aimv2_np.TokenizerError, match=message):
        lit.text(ids, mask)


# ---------------------------------------------------------------------------- images


def test_a_permutation_of_pixels_moves_patches_as_it_should(native: Any) -> None:
    """Swapping two patches of the image swaps their embeddings before positions are added."""
    pixels = RNG.normal(size=(1, 3, 28, 42))  # 2 rows, 3 columns
    swapped = pixels.copy()
    swapped[..., :14, 28:], swapped[..., 14:, :14] = pixels[..., 14:, :14], pixels[..., :14, 28:]
    before, after = _patch_norm(native, pixels), _patch_norm(native, swapped)
    order = [0, 1, 3, 2, 4, 5]  # row 0 column 2 is patch 2, row 1 column 0 is patch 3
    assert np.array_equal(after[0], before[0, order])


def _patch_norm(model: Any, pixels: np.ndarray) -> np.ndarray:
    with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE):
        return model.trace(pixel_values=pixels, names="vision.patch_norm")["vision.patch_norm"]


def test_without_positions_a_permutation_of_patches_permutes_the_features(absolute: Any) -> None:
    params = absolute.params._replace(pos_embed=np.zeros_like(absolute.params.pos_embed))
    model = aimv2_np.VisionEncoder(absolute.config, params)
    pixels = RNG.normal(size=(1, 3, 42, 42))
    tiles = pixels.reshape(1, 3, 3, 14, 3, 14)
    transposed = tiles.transpose(0, 1, 4, 3, 2, 5).reshape(pixels.shape)  # patch (r, c) to (c, r)
    out = model(pixels).last_hidden_state.reshape(3, 3, -1)
    moved = model(transposed).last_hidden_state.reshape(3, 3, -1)
    assert moved == pytest.approx(out.swapaxes(0, 1), rel=1e-6, abs=1e-6)


def test_pixels_beyond_the_last_whole_patch_do_not_count(native: Any) -> None:
    pixels = RNG.normal(size=(1, 3, 28, 42))
    wider = np.pad(pixels, [(0, 0), (0, 0), (0, 13), (0, 13)], constant_values=7.0)
    with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE):
        same = native(wider).last_hidden_state == native(pixels).last_hidden_state
    assert same.all()


def test_rows_and_columns_are_told_apart(native: Any) -> None:
    pixels = RNG.normal(size=(1, 3, 28, 42))
    turned = pixels.swapaxes(2, 3)
    with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE):
        a = native(pixels).last_hidden_state.reshape(2, 3, -1)
        b = native(turned).last_hidden_state.reshape(3, 2, -1)
    assert not np.allclose(a, b.swapaxes(0, 1))


def test_images_of_different_sizes_give_the_same_numbers_as_one_by_one(native: Any) -> None:
    images = [RNG.integers(0, 256, size, dtype=np.uint8) for size in
              [(42, 70, 3), (28, 31, 3), (42, 70, 3), (14, 14, 3)]]  # fmt: skip
    with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE):
        together = native.patch_features(images)
        alone = [native.patch_features(image)[0] for image in images]
    assert [f.shape for f in together] == [(15, 32), (4, 32), (15, 32), (1, 32)]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("height", "width", "warns"),
    [(154, 140, True), (154, 154, False), (112, 196, False), (896, 896, False), (896, 910, True)],
)
def test_the_range_of_the_native_checkpoint(height: int, width: int, warns: bool) -> None:
    """112 to 4096 patches: 11×10 = 110, 11×11 = 121, 8×14 = 112, 64×64 = 4096, 64×65 = 4160."""
    config = OFFICIAL["large-patch14-native"].config
    pixels = np.broadcast_to(np.float32(0), (1, 3, height, width))
    if warns:
        with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE):
            check_pixels(pixels, config, "float32", NUMPY, interpolate=False)
    else:  # the test configuration turns an unexpected AIMv2Warning into an error
        assert check_pixels(pixels, config, "float32", NUMPY, interpolate=False) is not None


@pytest.mark.parametrize("size", [(28, 28), (56, 56), (42, 56), (43, 43), (14, 126)])
def test_another_size_is_an_error_unless_positions_are_resampled(
    absolute: Any, size: tuple[int, int]
) -> None:
    pixels = RNG.normal(size=(2, 3, *size))
    with pytest.raises(aimv2_np.ImageError, match="learned for 42×42.*interpolate_positions=True"):
        absolute(pixels)
    out = absolute(pixels, interpolate_positions=True)
    rows, columns = size[0] // 14, size[1] // 14
    assert out.last_hidden_state.shape == (2, rows * columns, 36)
    table = ops.resample_positions(absolute.params.pos_embed, rows, columns)
    assert np.array_equal(absolute.positions(*size), table)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((3, 42, 42)), r"\(3, 42, 42\), expected \(B, C, Y, X\)"),
        (np.zeros((0, 3, 42, 42)), r"shape \(0, 3, 42, 42\)"),
        (np.zeros((1, 4, 42, 42)), "have 4 channels, expected 3"),
        (np.zeros((1, 42, 42, 3)), "have 42 channels"),
        (np.zeros((1, 3, 42, 42), np.uint8), "uint8.*preprocess"),
        (np.zeros((1, 3, 13, 42)), "13×42 pixels is smaller than a patch"),
        ([np.zeros((3, 42, 42)), np.zeros((3, 42, 56))], "several sizes run one by one"),
        (np.full((1, 3, 42, 42), np.nan), "NaN"),
        (np.full((1, 3, 42, 42), -np.inf), "infinity"),
    ],
)
def test_wrong_pixels_are_one_clear_error(absolute: Any, pixels: Any, message: str) -> None:
    with pytest.raises(aimv2_np.ImageError, match=message):
        absolute(pixels)


# ---------------------------------------------------------------------------- public methods


def test_a_vision_only_model_says_that_it_has_no_text(absolute: Any) -> None:
    for method in (absolute.classify, absolute.encode_text, absolute.tokenize):
        with pytest.raises(aimv2_np.ConfigError, match="vision-only.*large-patch14-224-lit"):
            method("a cat")


def test_pooling_of_a_vision_only_model_is_asked_for(absolute: Any) -> None:
    image = RNG.integers(0, 256, (60, 50, 3), dtype=np.uint8)
    with pytest.raises(aimv2_np.ConfigError, match="pool='mean'"):
        absolute.encode_image(image)
    with pytest.raises(aimv2_np.ConfigError, match="'max'"):
        absolute.encode_image(image, pool="max")
    vector = absolute.encode_image(image, pool="mean", normalize=False)
    assert np.array_equal(vector[0], absolute.patch_features(image)[0].mean(axis=0))
    unit = absolute.encode_image(image, pool="mean")
    assert np.linalg.norm(unit) == pytest.approx(1)


def test_classify_gives_the_softmax_of_the_logits() -> None:
    model = aimv2_np.load(RANDOM_LIT, dtype="float64")
    images = RNG.integers(0, 256, (2, 60, 50, 3), dtype=np.uint8)
    labels = ["a cat", "two dogs"]
    result = model.classify(images, labels)
    tokens = model.tokenize([f"a photo of {label}" for label in labels])
    logits = model(model.preprocess(images), *tokens).logits_per_image
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result.probabilities == pytest.approx(wanted)
    assert result.labels == tuple(labels)
    assert len(result.images) == 2
    best = result.top(1)[0][0]
    assert best[1] == pytest.approx(wanted[0].max())
    assert best[0] == labels[int(wanted[0].argmax())]
    assert all(label in str(result) for label in labels)
    plain = model.classify(images, labels, prompt="{}")
    assert not np.allclose(plain.probabilities, result.probabilities)
    with pytest.raises(aimv2_np.ConfigError, match="has no {}"):
        model.classify(images, labels, prompt="a photo")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b"cat", "expected a string or a list of strings, found bytes"),
        ([None], "text 1 of 1: expected a string, found NoneType"),
        (["cat", 2], "text 2 of 2: expected a string, found int"),
        ({"a", "b"}, "found set"),
        ([], "no text at all"),
        (None, "found NoneType"),
    ],
)
def test_what_are_no_labels(texts: Any, message: str) -> None:
    model = aimv2_np.load(RANDOM_LIT)
    with pytest.raises(aimv2_np.TokenizerError, match=message):
        model.classify(np.zeros((50, 60, 3), np.uint8), texts)


@pytest.mark.parametrize("prompt", [None, ["{}"], b"{}", "a photo"])
def test_what_are_no_prompts(prompt: Any) -> None:
    model = aimv2_np.load(RANDOM_LIT)
    with pytest.raises(aimv2_np.ConfigError, match="has no {}"):
        model.classify(np.zeros((50, 60, 3), np.uint8), ["a cat"], prompt=prompt)


def test_an_iterator_of_images_is_read_once() -> None:
    model = aimv2_np.load(RANDOM_LIT)
    images = list(RNG.integers(0, 256, (2, 50, 60, 3), dtype=np.uint8))
    found = model.classify(iter(images), ["a cat", "a dog"])
    assert np.array_equal(
        found.probabilities, model.classify(images, ["a cat", "a dog"]).probabilities
    )
    assert found.images == (
        "image 1 (array (50, 60, 3) uint8)",
        "image 2 (array (50, 60, 3) uint8)",
    )


def test_the_table_of_a_classification() -> None:
    table = aimv2_np.Classification(("cat", "sun"), np.array([[0.25, 0.75]]), ("a.jpg",))
    assert str(table).splitlines() == [
        "a.jpg",
        "  sun   75.0 %  ███████████████",
        "  cat   25.0 %  █████",
    ]
    nan = aimv2_np.Classification(("cat",), np.array([[np.nan]]), ("a.jpg",))
    assert "nan %" in str(nan)


def test_nan_in_the_weights_is_an_error_not_an_answer() -> None:
    model = aimv2_np.load(RANDOM_LIT)
    model.params = model.params._replace(
        text_projector=np.full_like(model.params.text_projector, np.nan)
    )
    with pytest.raises(aimv2_np.AIMv2Error, match="computed NaN; load"):
        model.classify(np.zeros((50, 60, 3), np.uint8), ["a cat"])


def test_exif_is_passed_on() -> None:
    """An image that lies on its side: with `exif=False` the model sees it lying."""
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:30] = 255
    lying = Image.fromarray(pixels)
    lying.getexif()[0x0112] = 6
    raw, upright = pixels, np.rot90(pixels, -1)
    lit, native = aimv2_np.load(RANDOM_LIT), load("vision-absolute")
    for exif, seen in [(True, upright), (False, raw)]:
        for method in (lit.preprocess, lit.encode_image, lit.patch_features, native.preprocess):
            assert np.array_equal(method(lying, exif=exif), method(seen))
        found = native.encode_image(lying, pool="mean", exif=exif)
        assert np.array_equal(found, native.encode_image(seen, pool="mean"))
        found = lit.classify(lying, ["a", "b"], exif=exif).probabilities
        assert np.array_equal(found, lit.classify(seen, ["a", "b"]).probabilities)
        for model in (lit, native):
            found = model.trace(lying, names="pixel_values", exif=exif)["pixel_values"]
            assert np.array_equal(found, model.preprocess(seen))


def test_positions_are_resampled_by_every_method_that_offers_it(lit: Any, absolute: Any) -> None:
    pixels = RNG.normal(size=(1, 3, 28, 56))
    wanted = absolute(pixels, interpolate_positions=True).last_hidden_state
    traced = absolute.trace(pixel_values=pixels, names="*.norm", interpolate_positions=True)
    assert np.array_equal(traced["vision.norm"], wanted)
    wanted = lit.vision(pixels, interpolate_positions=True).pooler_output
    out = lit(pixels, interpolate_positions=True)
    assert np.array_equal(out.vision_model_output.pooler_output, wanted)
    traced = lit.trace(pixel_values=pixels, names="*.pooled", interpolate_positions=True)
    assert np.array_equal(traced["vision.pooled"], wanted)
    features = lit.image_features(pixels, interpolate_positions=True)
    assert np.array_equal(ops.l2_normalize(features), out.image_embeds)
    with pytest.raises(aimv2_np.ImageError, match="learned for 42×42"):
        lit.image_features(pixels)


def test_embeddings_as_they_are_projected() -> None:
    model = aimv2_np.load(RANDOM_LIT)
    image = RNG.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    raw = model.encode_image(image, normalize=False)
    assert np.array_equal(raw, model.image_features(model.preprocess(image)))
    assert not np.allclose(np.linalg.norm(raw), 1)
    assert np.allclose(model.encode_image(image), raw / np.linalg.norm(raw))
    raw = model.encode_text("a cat", normalize=False)
    assert np.array_equal(raw, model.text_features(*model.tokenize("a cat")))
    assert np.allclose(model.encode_text("a cat"), raw / np.linalg.norm(raw))


def test_a_vision_only_model_with_a_head_uses_it(lit: Any) -> None:
    info = {"name": "with a head", "parameters": 1}
    model = aimv2_np.VisionPipeline(
        lit.config.vision, lit.params.vision, lit.backend, "float64",
        processor=lit.processor, info=info,
    )  # fmt: skip
    image = RNG.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    pooled = lit.vision(lit.preprocess(image)).pooler_output
    assert np.array_equal(model.encode_image(image, normalize=False), pooled)
    assert np.linalg.norm(model.encode_image(image)) == pytest.approx(1)


def test_many_texts_run_in_batches_with_the_same_result(monkeypatch: Any) -> None:
    model = aimv2_np.load(RANDOM_LIT, dtype="float64")
    words = ["cat", "dog", "a red bird", "sun"] * 40
    batches, run = [], model.text.forward
    monkeypatch.setattr(
        model.text, "forward", lambda ids, mask: batches.append(len(ids)) or run(ids, mask)
    )
    features = model.encode_text(words)
    assert features.shape == (160, 40)
    assert batches == [64, 64, 32]
    assert features == pytest.approx(np.tile(model.encode_text(words[:4]), (40, 1)))


def test_nothing_passed_is_an_error(lit: Any) -> None:
    with pytest.raises(aimv2_np.ConfigError, match="pass pixel_values, input_ids, or both"):
        lit()
    with pytest.raises(aimv2_np.ConfigError, match="attention_mask was passed without input_ids"):
        lit(np.zeros((1, 3, 42, 42)), attention_mask=[[1]])


def test_warnings_point_at_the_line_of_the_user(native: Any) -> None:
    pixels = RNG.normal(size=(1, 3, 28, 42))
    for call in (native, native.patch_features):
        given = pixels if call is native else np.zeros((28, 42, 3), np.uint8)
        with pytest.warns(aimv2_np.AIMv2Warning, match=NATIVE_RANGE) as caught:
            call(given)
        assert caught[0].filename == __file__


def test_hidden_states_and_attentions_only_when_asked(lit: Any) -> None:
    given = inputs("lit")
    plain = lit(**given).vision_model_output
    assert plain.hidden_states is None
    assert plain.attentions is None
    full = lit(**given, output_hidden_states=True, output_attentions=True)
    image, text = full.vision_model_output, full.text_model_output
    assert len(image.hidden_states) == 3  # the embedding and two blocks
    assert [a.shape for a in image.attentions] == [(2, 3, 9, 9)] * 2
    assert [a.shape for a in text.attentions] == [(3, 2, 9, 9)] * 2
    assert text.attentions[0].sum(axis=-1) == pytest.approx(1)
    assert np.array_equal(image.last_hidden_state, plain.last_hidden_state)
    assert np.triu(text.attentions[0], k=1).max() == 0


def test_the_float32_model_uses_the_file_where_it_lies() -> None:
    model = load("lit", "transformers", "float32")
    block = model.params.vision.blocks[0]
    for array in (*block.qkv, block.proj, block.fc1, model.params.text.text_embedding):
        assert array.dtype == np.float32
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_the_model_says_what_it_is() -> None:
    model = aimv2_np.load(GOLDEN / "lit" / "transformers-sharded")
    assert model.info["layout"] == "transformers-sharded"
    assert model.info["stored"] == {"F32": 52}
    assert "float32, numba" in repr(model)
