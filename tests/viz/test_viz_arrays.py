"""What pictures show, as numbers. No matplotlib is needed here."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from aimv2_np import AIMv2Error, viz
from aimv2_np.viz.arrays import grid_of, needed, patch_side
from aimv2_np.viz.components import components as pca


def test_images_of_all_forms_become_the_same_colours() -> None:
    raw = np.array([[[0, 51, 255], [102, 0, 204]]], np.uint8)  # (1, 2, 3)
    rgb = np.array([[[0, 0.2, 1], [0.4, 0, 0.8]]])
    mean = np.array([0.48145466, 0.4578275, 0.40821073])  # CLIP's
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    normalised = ((rgb - mean) / std).transpose(2, 0, 1)
    for image in (raw, rgb, normalised, normalised[None]):
        np.testing.assert_allclose(viz.as_rgb(image), rgb, atol=1e-12)
    with pytest.raises(AIMv2Error, match=r"found the shape \(4, 5\)"):
        viz.as_rgb(np.zeros((4, 5)))


def test_the_patch_side_is_found_or_asked_for() -> None:
    assert patch_side((64, 64), 64) == 8
    assert patch_side((480, 640), 34 * 45) == 14
    assert patch_side((31, 31), 4, side=14) == 14
    with pytest.raises(AIMv2Error, match=r"pass patch_size=, one of \[11, 12, 13, 14, 15\]"):
        patch_side((31, 31), 4)
    with pytest.raises(AIMv2Error, match="do not give 65 patches"):
        patch_side((64, 64), 65)
    with pytest.raises(AIMv2Error, match="64 patches of 7 × 7"):
        patch_side((64, 64), 64, side=7)


def test_grids() -> None:
    assert grid_of(np.zeros(64), None) == (8, 8)
    assert grid_of(np.zeros(6), (2, 3)) == (2, 3)
    for grid in (None, (2, 2)):
        with pytest.raises(AIMv2Error, match="6 patches are no grid"):
            grid_of(np.zeros(6), grid)


def test_what_a_trace_lacks_is_named() -> None:
    with pytest.raises(AIMv2Error, match="the trace lacks vision.norm; record"):
        needed({"pixel_values": np.zeros(1)}, "pixel_values", "vision.norm")


def test_principal_components_of_points_along_known_directions() -> None:
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=500) * 9, rng.normal(size=500)
    long, short = long - long.mean(), short - short.mean()
    short -= long * (short @ long) / (long @ long)
    points = np.outer(long, [0.6, 0.8, 0]) + np.outer(short, [0, 0, 1]) + 7
    found = viz.principal_components(points, 2)
    for coordinate, true in zip(found.T, (long, short), strict=True):
        sign = np.sign(coordinate @ true)
        np.testing.assert_allclose(coordinate, sign * true, atol=1e-9)
        assert coordinate[np.abs(coordinate).argmax()] > 0


@pytest.mark.parametrize("shape", [(20, 7), (7, 20), (2, 5), (5, 2), (1, 3), (4, 1)])
def test_components_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    scores, shares = pca(x)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    wanted = np.zeros((shape[0], 3))
    wanted[:, : s.size] = (u * s)[:, :3]
    np.testing.assert_allclose(np.abs(scores), np.abs(wanted), atol=1e-6)
    total = np.square(s).sum()
    part = np.square(s[:3]) / total if total > 0 else np.zeros(min(3, s.size))
    np.testing.assert_allclose(shares[: part.size], part, atol=1e-12)


def test_points_on_a_line_have_one_component() -> None:
    x = np.outer([-3, -1, 0, 4], [0.6, 0.8])
    scores, shares = pca(x)
    np.testing.assert_allclose(np.abs(scores[:, 0]), [3, 1, 0, 4], atol=1e-7)
    np.testing.assert_allclose(shares, [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("shape", [(700, 300), (300, 700)])
@pytest.mark.parametrize("falling", [0.7, 1.0])
def test_components_of_many_features(shape: tuple[int, int], falling: float) -> None:
    """Some that settle, and noise, whose components do not."""
    spread = falling ** np.arange(shape[1])
    x = np.random.default_rng(4).standard_normal(shape) * spread
    scores, shares = pca(x)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    wanted = (u * s)[:, :3] * np.sign((u[:, :3] * scores).sum(axis=0))
    np.testing.assert_allclose(scores, wanted, atol=1e-4 * s[0])
    np.testing.assert_allclose(shares, np.square(s[:3]) / np.square(s).sum(), rtol=1e-9)


def test_nearest_patches_by_hand() -> None:
    features = np.array([[1.0, 0], [0, 2], [1, 1]])
    others = np.array([[0, 5.0], [3, 3], [4, 0.1]])
    found = viz.nearest_patches(features, others, [2, 0])
    assert [(p, o) for p, o, _ in found] == [(2, 1), (0, 2)]
    assert [round(c, 4) for *_, c in found] == [1.0, 0.9997]
    with pytest.raises(AIMv2Error, match="there is no patch 3: there are 3"):
        viz.nearest_patches(features, others, [0, 3])


def test_every_name_is_there_and_needs_no_matplotlib_to_be_found() -> None:
    before = set(sys.modules)
    assert all(callable(getattr(viz, name)) for name in viz.__all__)
    assert set(viz.__all__) <= set(dir(viz))
    assert not [name for name in set(sys.modules) - before if name.startswith("matplotlib")]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = viz.nonsense


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "aimv2_np.viz.pictures", raising=False)
    with pytest.raises(AIMv2Error, match=r"needs matplotlib: .*pip install 'aimv2-np\[notebooks\]"):
        viz.bars({"a": 1.0})
