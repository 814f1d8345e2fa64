"""Our vision encoder beside timm's, on its own layout, and learned positions on other grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch.nn.functional import interpolate

from aimv2_np.ops import resample_positions

from .helpers import BOUNDED, DOUBLE, SINGLE, assert_equal, load, randomise

pytestmark = pytest.mark.compare

# timm interpolates in float32 whatever the model's dtype is (resample_abs_pos_embed: `.float()`).
# Torch then also computes the filter's weights in float32: measured 1.3e-6 beside its own float64.
FLOAT32_POSITIONS = 3e-6


@st.composite
def timm_models(draw: st.DrawFn, **fixed: Any) -> torch.nn.Module:
    """A random model of timm's AIMv2 architecture, in float64."""
    heads = draw(st.integers(1, 4))
    patch = draw(st.integers(2, 9))
    model = timm.create_model(
        "aimv2_large_patch14_224",
        pretrained=False,
        num_classes=0,
        embed_dim=heads * draw(st.integers(3, 17)),
        num_heads=heads,
        depth=draw(st.integers(1, 3)),
        mlp_ratio=draw(st.sampled_from([1.5, 2.0, 2.75, 3.3])),
        patch_size=patch,
        img_size=draw(st.integers(1, 7)) * patch,
        **fixed,
    )
    model = model.double().eval()
    randomise(model, draw(st.integers(0, 2**31)))
    return model


def pixels(model: Any, batch: int, rows: int, columns: int) -> torch.Tensor:
    """Random images of so many patches."""
    patch = model.patch_embed.patch_size[0]
    shape = (batch, 3, rows * patch, columns * patch)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def saved(model: torch.nn.Module, folder: Path, dtype: str = "float64") -> Any:
    """Our model of timm's weights: a file without config.json, so the heads must be told."""
    file, heads = folder / "model.safetensors", model.blocks[0].attn.num_heads
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    ours = load(file, dtype=dtype, num_heads=heads)
    assert ours.info["layout"] == "timm"
    return ours


@BOUNDED
@given(model=timm_models(), batch=st.integers(1, 3))
@torch.no_grad()
def test_features_are_timms(
    tmp_path_factory: pytest.TempPathFactory, model: Any, batch: int
) -> None:
    folder, grid = tmp_path_factory.mktemp("timm"), model.patch_embed.grid_size
    images = pixels(model, batch, *grid)
    ours = saved(model, folder)(images.numpy())
    assert_equal(ours.last_hidden_state, model.forward_features(images), DOUBLE)
    assert ours.pooler_output is None

    model, images = model.float(), images.float()
    ours = saved(model, folder, "float32")(images.numpy())
    assert_equal(ours.last_hidden_state, model.forward_features(images), SINGLE)


@BOUNDED
@given(model=timm_models(), batch=st.integers(1, 3))
@torch.no_grad()
def test_mean_pooling_is_timms_average(
    tmp_path_factory: pytest.TempPathFactory, model: Any, batch: int
) -> None:
    """timm's default head for AIMv2 is the mean over the normed patches, our pool="mean"."""
    ours = saved(model, tmp_path_factory.mktemp("timm"))
    images = list(np.random.default_rng(2).integers(0, 256, (batch, 50, 70, 3), dtype=np.uint8))
    vectors = ours.encode_image(images, pool="mean", normalize=False)
    theirs = model(torch.from_numpy(np.asarray(ours.preprocess(images), "float64")))
    assert_equal(vectors, theirs, DOUBLE)


@BOUNDED
@given(
    model=timm_models(dynamic_img_size=True),
    grid=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    batch=st.integers(1, 2),
)
@torch.no_grad()
def test_positions_on_another_grid_are_timms(
    tmp_path_factory: pytest.TempPathFactory, model: Any, grid: tuple[int, int], batch: int
) -> None:
    """Larger, smaller and not square, through the whole model, with timm's positions in float64."""
    images = pixels(model, batch, *grid)
    ours = saved(model, tmp_path_factory.mktemp("timm"))
    out = ours(images.numpy(), interpolate_positions=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)  # its one float32 step
        expected = model.forward_features(images)
    assert_equal(out.last_hidden_state, expected, DOUBLE)


GRIDS = [(4, 9, 9), (9, 4, 4), (16, 34, 45), (16, 5, 31), (16, 31, 5), (16, 1, 1), (1, 3, 2)]


@pytest.mark.parametrize(("side", "rows", "columns"), [*GRIDS, (16, 15, 16), (16, 16, 17)])
def test_resampling_is_torchs_to_the_last_bits(side: int, rows: int, columns: int) -> None:
    """What timm does, in float64: bicubic, antialiased, align_corners=False."""
    table = np.random.default_rng(1).normal(size=(side * side, 7))
    grid = torch.from_numpy(table).reshape(1, side, side, 7).permute(0, 3, 1, 2)
    other = interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    expected = other.permute(0, 2, 3, 1).reshape(rows * columns, 7)
    ours = resample_positions(table, rows, columns)
    assert_equal(ours, expected, DOUBLE)
    theirs = resample_abs_pos_embed(
        torch.from_numpy(table)[None], [rows, columns], num_prefix_tokens=0
    )
    assert_equal(ours, theirs[0], FLOAT32_POSITIONS)
