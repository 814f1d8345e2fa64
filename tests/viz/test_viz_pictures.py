"""Pictures as they are drawn: what is in them, in which units, and in which words."""

from __future__ import annotations

import base64
import sys
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

import aimv2_np
from aimv2_np import AIMv2Error, viz

pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def model() -> Any:
    return aimv2_np.load("emoji-lit", backend="numpy")


@pytest.fixture(scope="module")
def trace(model: Any) -> Any:
    samples = aimv2_np.samples()
    return model.trace([samples["scene-cat-and-pizza"], samples["cat"]], ["a cat", "a dog"])


def shown(ax: Any) -> np.ndarray:
    """The numbers of the topmost image of some axes."""
    return np.asarray(ax.images[-1].get_array())


def test_every_picture_is_described_and_can_be_written(model: Any, trace: Any) -> None:
    pixels, features = trace["pixel_values"], trace["vision.norm"]
    result = model.classify(aimv2_np.samples()["cat"], ["cat", "dog"])
    pictures = [
        viz.image(pixels[0], patch=8),
        viz.patches(pixels[0], 8),
        viz.over_patches(np.arange(64)),
        viz.attention(trace, 3, 2, 27),
        viz.attention(trace, 3),
        viz.pooling(trace),
        viz.similarity(trace["vision.pos_embed"], [0, 9, 18, 27, 36]),
        viz.pca(features, list(pixels), titles=["scene", "cat"]),
        viz.pca(features[0]),
        viz.nearest(features[0], features[1], pixels[0], pixels[1], [3, 30]),
        viz.norms(trace),
        viz.norms(trace, tower="text"),
        viz.contributions(trace),
        viz.matrix(trace["text.blocks.0.attn.scores"][0, 0], written=".1f"),
        viz.probabilities(result),
        viz.bars({"a": 1.0, "b": 2.0}, unit="ms"),
        viz.curves([1, 2, 3], {"a": [1, 4, 9]}, log="xy"),
        viz.roofline({"a": (2.0, 20.0)}, peak=100, bandwidth=20),
        viz.tiles(48, 64, 40, tile=(8, 16), at=(2, 1)),
    ]
    for picture in pictures:
        assert len(picture.alt) > 15
        assert picture.alt.endswith(".")
        with Image.open(BytesIO(picture.png())) as image:
            assert 150 < image.width < 1000
            assert 100 < image.height < 1000


def test_notebooks_get_the_image_and_its_words_once_the_same() -> None:
    picture = viz.bars({"a": 1.0, "b": 2.5}, unit="ms", title="times")
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == "times, ms: a 1, b 2.5."
    assert metadata == {"image/png": {"alt": data["text/plain"]}}
    again = viz.bars({"a": 1.0, "b": 2.5}, unit="ms", title="times")
    assert base64.b64decode(data["image/png"]) == again.png()
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_attention_shows_the_row_of_the_pattern(trace: Any) -> None:
    pattern = trace["vision.blocks.3.attn.pattern"]
    picture = viz.attention(trace, 3, 2, 27, image=1)
    np.testing.assert_array_equal(shown(picture.axes[1]).ravel(), pattern[1, 2, 27])
    picture = viz.attention(trace, 3, None, 5)
    np.testing.assert_allclose(shown(picture.axes[1]).ravel(), pattern[0, :, 5].mean(axis=0))
    assert "mean of heads, patch 5" in picture.alt


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"block": 9}, "lacks vision.blocks.9.attn.pattern"),
        ({"head": 6}, "there is no head 6: there are 6"),
        ({"patch": 64}, "there is no patch 64: there are 64"),
        ({"patch": -1}, "there is no patch -1"),
        ({"image": 2}, "there is no image 2: there are 2"),
    ],
)
def test_attention_that_does_not_exist_is_an_error(trace: Any, choice: Any, says: str) -> None:
    with pytest.raises(AIMv2Error, match=says):
        viz.attention(trace, **{"block": 0, "head": 0, "patch": 0, **choice})


def test_pictures_are_drawn_where_asked(trace: Any) -> None:
    figure, axes = viz.picture(1, 2, width=6, height=3)
    assert viz.attention(trace, 0, 0, 0, ax=axes[0, 0]) is figure
    assert viz.matrix(np.eye(3), title="ones", ax=axes[0, 1]) is figure
    assert "block 0, head 0, patch 0" in figure.alt
    assert "ones: 3 × 3 values" in figure.alt
    from matplotlib.figure import Figure  # a user's own, which has no words

    own = Figure()
    assert viz.norms(trace, ax=own.subplots()) is own


def test_patch_maps_lie_row_by_row_over_images_that_are_no_square() -> None:
    values = np.arange(6.0)
    pixels = np.zeros((29, 45, 3))  # 2 × 3 patches of 14
    picture = viz.over_patches(values, pixels, patch_size=14, unit="x")
    np.testing.assert_array_equal(shown(picture.axes[0]), [[0, 1, 2], [3, 4, 5]])
    assert picture.axes[0].images[-1].get_extent() == [-0.5, 41.5, 27.5, -0.5]
    assert "row 1, column 2" in picture.alt
    with pytest.raises(AIMv2Error, match="do not give 6 patches"):
        viz.over_patches(values, np.zeros((64, 64, 3)))


def test_norms_are_lengths(trace: Any) -> None:
    line = viz.norms(trace).axes[0].lines[0]
    lengths = [
        np.median(np.sqrt((trace[name].astype(float) ** 2).sum(-1)))
        for name in ("vision.embed", *(f"vision.blocks.{i}.resid_post" for i in range(6)))
    ]
    np.testing.assert_allclose(line.get_ydata(), lengths, rtol=1e-6)
    with pytest.raises(AIMv2Error, match=r"lacks vision.blocks.0.resid_post"):
        viz.norms({"vision.embed": np.zeros((1, 2, 3))})


def test_contributions_are_shares_of_the_stream() -> None:
    unit = np.zeros((1, 2, 4))
    unit[..., 0] = 1
    made = {
        "vision.embed": 2 * unit,
        "vision.blocks.0.attn.out": unit,
        "vision.blocks.0.resid_mid": 4 * unit,
        "vision.blocks.0.mlp.out": unit,
        "vision.blocks.0.resid_post": 5 * unit,
    }
    heights = [bar.get_height() for bar in viz.contributions(made).axes[0].patches]
    assert heights == [50.0, 25.0]


def test_the_band_of_norms_is_from_the_10th_to_the_90th_percentile() -> None:
    lengths = np.arange(101.0)
    made = {
        "vision.embed": np.stack([lengths, 0 * lengths], axis=1)[None],
        "vision.blocks.0.resid_post": np.stack([0 * lengths, 2 * lengths], axis=1)[None],
    }
    band = viz.norms(made).axes[0].collections[0].get_paths()[0].vertices
    assert [sorted(set(band[band[:, 0] == x, 1])) for x in (0, 1)] == [[10, 90], [20, 180]]


def test_the_pooling_head_s_maps_have_one_scale(trace: Any) -> None:
    pattern = trace["vision.head.pattern"][1, :, 0]
    axes = viz.pooling(trace, image=1).axes[:6]
    for ax, weights in zip(axes, pattern, strict=True):
        np.testing.assert_array_equal(shown(ax).ravel(), weights)
        assert ax.images[-1].get_clim() == (0, pattern.max())


def test_signs_have_a_scale_that_is_alike_on_both_sides() -> None:
    ax = viz.over_patches([-3.0, 1, 0, 2], signed=True).axes[0]
    assert ax.images[-1].get_clim() == (-3, 3)
    assert viz.matrix([[-3.0, 1]]).axes[0].images[-1].get_clim() == (-3, 3)
    assert viz.matrix([[2.0, 5]]).axes[0].images[-1].get_clim() == (2, 5)


def test_bars_of_probabilities_are_percents(model: Any) -> None:
    result = model.classify(aimv2_np.samples()["cat"], ["dog", "cat", "key"])
    ax = viz.probabilities(result, most=2).axes[0]
    p = sorted(result.probabilities[0])[::-1]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [100 * x for x in p[:2]])
    assert ax.get_yticklabels()[0].get_text() == "cat"


def test_a_roofline_is_the_lower_of_two_limits() -> None:
    ax = viz.roofline({"a": (2.0, 20.0)}, peak=100, bandwidth=20).axes[0]
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, [100 if i > 5 else 20 * i for i in x])
    assert [line.get_xydata().tolist() for line in ax.lines[1:]] == [[[2, 20]]]


def test_a_tile_s_work_and_reads_by_hand() -> None:
    assert "96 numbers for 512 FLOP" in viz.tiles(8, 64, 8, tile=(4, 8), at=(1, 2)).alt
    assert "one tile of 2 × 8 of C" in viz.tiles(6, 64, 8, tile=(4, 8), at=(1, 2)).alt  # cut off


def test_matrix_tells_masked_from_small() -> None:
    picture = viz.matrix([[1.0, -np.inf], [2.0, 3.0]], rows=["a", "b"], written=".0f")
    assert [t.get_text() for t in picture.axes[0].texts] == ["1", "2", "3"]
    assert np.ma.getmaskarray(picture.axes[0].images[0].get_array())[0, 1]
    for values, names in (([1.0, 2.0], None), (np.eye(2), ["one"]), (np.zeros((0, 2)), None)):
        with pytest.raises(AIMv2Error):
            viz.matrix(values, rows=names)
    with pytest.raises(AIMv2Error, match="too many to write"):
        viz.matrix(np.eye(20), written=".1f")


@pytest.mark.parametrize(("rows", "columns"), [(12, 45), (3, 40), (10, 40), (24, 90)])
def test_names_of_rows_do_not_overlap(rows: int, columns: int) -> None:
    picture = viz.matrix(np.ones((rows, columns)), rows=[f"row {i}" for i in range(rows)])
    picture.png()
    boxes = [t.get_window_extent() for t in picture.axes[0].get_yticklabels()]
    assert len(boxes) == rows
    assert all(below.y1 <= above.y0 + 1 for above, below in pairwise(boxes))


def test_a_matrix_of_nothing_is_an_error() -> None:
    with pytest.raises(AIMv2Error, match="no finite number"):
        viz.matrix(np.full((2, 2), -np.inf))


def test_pairs_that_meet_in_one_patch_keep_their_numbers() -> None:
    features, others = np.eye(4), np.eye(4)[[0, 0, 0, 1]]  # 0 is most like 0, 1 like 3
    pixels = np.zeros((6, 6, 3))
    picture = viz.nearest(features, others, pixels, pixels, [0, 1, 0], patch_size=3)
    numbers = [[t.get_text() for t in ax.texts] for ax in picture.axes]
    assert numbers == [["1, 3", "2"], ["1, 3", "2"]]
    assert "2: row 0, column 1, and row 1, column 1 (1.00)" in picture.alt
    for side in (None, 2):
        with pytest.raises(AIMv2Error):
            viz.nearest(features[:2], others[:2], pixels, pixels, [0], patch_size=side)


def test_words_say_which_vectors_are_alike() -> None:
    vectors = [[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]]
    said = viz.similarity(vectors, [0, 2]).alt
    assert "Row 0, column 0 is most like row 0, column 1 (0.60)" in said
    assert "least like row 1, column 1 (-1.00)" in said
    assert "Row 1, column 0 is most like row 0, column 1 (0.80)" in said
    nearly = [[1, 0], [1, 0.3], [1, 0.3 - 1e-9], [0, 1]]  # alike but for rounding
    assert "Row 0, column 0 is most like row 0, column 1" in viz.similarity(nearly, [0]).alt
    for draw in (viz.similarity, viz.over_patches):
        with pytest.raises(AIMv2Error, match="there is no patch 4"):
            draw(np.eye(4), [4]) if draw is viz.similarity else draw(np.ones(4), picked=4)


def test_words_say_where_components_are_large() -> None:
    points = np.zeros((2, 4, 3))
    points[1, 3] = 9, 0, 0
    points[0, 1] = 0, 4, 0
    said = viz.pca(points, titles=["a", "B"]).alt
    assert "Most red at B, row 1, column 1, least at a, row 0, column 1" in said
    assert "Most red at image 1, row 1" in viz.pca(points).alt
    assert "Most red at row 1, column 1" in viz.pca(points[1]).alt
    assert "84 %, 16 %, 0 % of what differs" in said  # 42.4 ± 28.8 of 84.9


def test_images_grey_what_no_patch_holds() -> None:
    picture = viz.image(np.zeros((30, 45, 3)), patch=14)
    assert "2 rows of 3 patches" in picture.alt
    with pytest.raises(AIMv2Error, match="no patch of 14 × 14"):
        viz.patches(np.zeros((10, 45, 3)), 14)


# ---------------------------------------------------------------------------- sliders


def test_sliders_draw_what_they_say(trace: Any) -> None:
    explorer = viz.explore_attention(trace, block=1, head=2, patch=3)
    assert "block 1, head 2, patch 3" in explorer.shown.value
    explorer.patch.value = 40
    explorer.block.value = 5
    assert "block 5, head 2, patch 40" in explorer.shown.value
    explorer.head.value = -1
    assert "block 5, mean of heads, patch 40" in explorer.shown.value
    assert explorer.shown.value.startswith('<img alt="')
    assert (explorer.patch.max, list(explorer.block.options)) == (63, list(range(6)))


def test_where_no_widget_runs_the_still_picture_is_there(trace: Any) -> None:
    explorer = viz.explore_attention(trace, block=1, head=2, patch=3)
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    with Image.open(BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert image.size == (800, 370)
    assert "block 1, head 2, patch 3" in metadata["image/png"]["alt"]


def test_without_ipywidgets_the_error_says_what_to_install(
    trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(AIMv2Error, match=r"needs ipywidgets: .*pip install"):
        viz.explore_attention(trace)
