"""The verifier on transformers' AIMv2: as it is, and with mistakes patched into it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, Report, verify_cases
from aimv2_np.verify.adapters import transformers as adapter

pytestmark = pytest.mark.compare

Seed = Callable[[Any], None]
SEEDS: dict[str, Seed] = {}
# Padded texts only: there transformers' text tower is causal, and nothing else is wrong with it.
PADDED = [case for case in random_models.cases("lit") if case.attention_mask is not None]


def verified(built: Any, cases: Any = None, kind: str = "lit", dtype: str = "float32") -> Report:
    cases = PADDED if cases is None else cases
    activations = {case.name: adapter.watch(built, case) for case in cases}
    return verify_cases(
        random_models.make(kind), cases, Candidate("transformers", activations, dtype)
    )


def seeds(**seeds: Seed) -> None:
    SEEDS.update({id.replace("_", "-"): seed for id, seed in seeds.items()})


def modules(built: Any, kind: str) -> list[Any]:
    return [module for module in built.modules() if type(module).__name__ == f"Aimv2{kind}"]


def each(kind: str, change: Callable[[Any], None]) -> Seed:
    def seed(built: Any) -> None:
        with torch.no_grad():
            for module in modules(built, kind):
                change(module)

    return seed


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def layer_norm(module: Any) -> None:
    module.forward = lambda x: nn.functional.layer_norm(x, x.shape[-1:], module.weight, eps=1e-5)


def swap(a: str, b: str) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        first, second = getattr(module, a).weight, getattr(module, b).weight
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)

    return change


def transpose(*names: str) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        for name in names:
            weight = getattr(module, name).weight
            weight.copy_(weight.T.clone() if len(weight) == weight.shape[1] else
                         weight.reshape(weight.shape[::-1]).T.clone())  # fmt: skip

    return change


def more_heads(factor: float) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        module.num_heads = int(module.num_heads * factor)
        module.head_dim = module.embed_dim // module.num_heads
        module.scale = module.head_dim**-0.5

    return change


seeds(
    rms_eps=each("RMSNorm", lambda m: setattr(m, "variance_epsilon", 1e-6)),
    rms_is_layernorm=each("RMSNorm", layer_norm),
    rms_plus_one=each("RMSNorm", lambda m: m.weight.add_(1)),
    rms_no_weight=each("RMSNorm", lambda m: m.weight.fill_(1)),
    norms_swapped=each("EncoderLayer", swap("rms_norm1", "rms_norm2")),
    gelu=each("MLP", lambda m: setattr(m, "act_fn", nn.GELU())),
    gelu_tanh=each("MLP", lambda m: setattr(m, "act_fn", nn.GELU(approximate="tanh"))),
    quick_gelu=each("MLP", lambda m: setattr(m, "act_fn", QuickGELU())),
    relu=each("MLP", lambda m: setattr(m, "act_fn", nn.ReLU())),
    gate_sigmoid=each("MLP", lambda m: setattr(m, "act_fn", nn.Sigmoid())),
    gate_swap=each("MLP", swap("gate_proj", "up_proj")),
    fc1_memory=each("MLP", transpose("gate_proj", "up_proj")),
    fc2_memory=each("MLP", transpose("down_proj")),
    scale_missing=each("Attention", lambda m: setattr(m, "scale", 1.0)),
    scale_width=each("Attention", lambda m: setattr(m, "scale", m.embed_dim**-0.5)),
    scale_twice=each("Attention", lambda m: setattr(m, "scale", 1 / m.head_dim)),
    head_dim_64=each("Attention", more_heads(2)),
    heads_halved=each("Attention", more_heads(0.5)),
    qk_swapped=each("Attention", swap("q_proj", "k_proj")),
    kv_swapped=each("Attention", swap("k_proj", "v_proj")),
    qv_swapped=each("Attention", swap("q_proj", "v_proj")),
    qkv_transposed=each("Attention", transpose("q_proj", "k_proj", "v_proj")),
    proj_transposed=each("Attention", transpose("out_proj")),
    pool_kv_swapped=each("AttentionPoolingHead", swap("k_proj", "v_proj")),
    pool_no_bias=each("AttentionPoolingHead", lambda m: m.output_proj.bias.zero_()),
    head_transposed=each("AttentionPoolingHead", transpose("k_proj", "v_proj", "output_proj")),
    no_final_norm=each("VisionModel", lambda m: setattr(m, "rms_norm", nn.Identity())),
    no_patch_norm=each("VisionEmbeddings", lambda m: setattr(m, "rms_norm", nn.Identity())),
    conv_transposed=each(
        "VisionEmbeddings",
        lambda m: m.patch_embed.weight.copy_(m.patch_embed.weight.transpose(2, 3).clone()),
    ),
    conv_bgr=each(
        "VisionEmbeddings", lambda m: m.patch_embed.weight.copy_(m.patch_embed.weight.flip(1))
    ),
    conv_flipped=each(
        "VisionEmbeddings", lambda m: m.patch_embed.weight.copy_(m.patch_embed.weight.flip(2, 3))
    ),
    patch_no_bias=each("VisionEmbeddings", lambda m: m.patch_embed.bias.zero_()),
    pos_reversed=each(
        "VisionEmbeddings",
        lambda m: m.position_embedding.weight.copy_(m.position_embedding.weight.flip(0)),
    ),
    no_positions=each("VisionEmbeddings", lambda m: m.position_embedding.weight.zero_()),
    text_pos_offset=each(
        "TextEmbeddings",
        lambda m: m.position_embedding.weight.copy_(m.position_embedding.weight.roll(-1, 0)),
    ),
    token_shifted=each(
        "TextEmbeddings",
        lambda m: m.token_embedding.weight.copy_(m.token_embedding.weight.roll(1, 0)),
    ),
    token_scaled=each(
        "TextEmbeddings",
        lambda m: m.token_embedding.weight.mul_(m.token_embedding.weight.shape[1] ** 0.5),
    ),
    layers_reversed=each("Encoder", lambda m: setattr(m, "layers", m.layers[::-1])),
    layers_tied=each(
        "Encoder",
        lambda m: setattr(m, "layers", nn.ModuleList(deepcopy(m.layers[0]) for _ in m.layers)),
    ),
    penultimate=each("Encoder", lambda m: setattr(m, "layers", m.layers[:-1])),
    projection_transposed=each("Model", transpose("visual_projection", "text_projection")),
    projectors_swapped=each("Model", swap("visual_projection", "text_projection")),
    logit_scale_unclamped=each("Model", lambda m: setattr(m, "max_log_logit_scale", 100.0)),
    logit_scale_log=each("Model", lambda m: m.logit_scale.copy_(m.logit_scale.log())),
)


@pytest.mark.parametrize("id", sorted(SEEDS))
def test_mistakes_are_named(id: str) -> None:
    built = adapter.build(random_models.make("lit"))
    SEEDS[id](built)
    report = verified(built)
    assert report.exit_code == 1
    for finding in report.findings:
        assert finding.causes, str(report)
        assert finding.causes[0].proved, str(report)
        assert finding.causes[0].id == id, str(report)


def test_the_first_difference_is_where_the_mistake_is() -> None:
    built = adapter.build(random_models.make("lit"))
    with torch.no_grad():
        built.vision_model.encoder.layers[2].ffn.up_proj.weight[5].mul_(2)
    (finding,) = verified(built).findings
    assert finding.wrong.name == "vision.blocks.2.mlp.up"
    assert finding.last_right is not None
    assert finding.last_right.name == "vision.blocks.2.mlp.gate"
    assert not finding.causes or not finding.causes[0].proved


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_as_it_is(attention: str, dtype: str) -> None:
    """Right on images and padded texts; on a text without padding it is not causal."""
    model = random_models.make("lit")
    built = adapter.build(model, dtype, attention)
    right = verified(built, dtype=dtype)
    assert right.ok, str(right)
    report = verified(built, random_models.cases("lit"), dtype=dtype)
    (finding,) = report.findings
    assert finding.wrong.case == "alone"
    assert finding.right_cases == ["pairs"]
    assert finding.causes[0].id == "text-noncausal"


@pytest.mark.parametrize("kind", ["native", "learned"])
@pytest.mark.parametrize("seed", range(3))
def test_vision_models_as_they_are(kind: str, seed: int) -> None:
    cases = [case for case in random_models.cases(kind, seed) if not case.interpolate]
    for dtype in ("float32", "bfloat16"):
        model = random_models.make(kind, seed)
        built = adapter.build(model, dtype)
        activations = {case.name: adapter.watch(built, case) for case in cases}
        report = verify_cases(model, cases, Candidate("transformers", activations, dtype))
        assert report.ok, str(report)
        assert len(report.results[0].taps) > 50


def test_other_threads_change_nothing() -> None:
    built, threads = adapter.build(random_models.make("lit")), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = verified(built)
    finally:
        torch.set_num_threads(threads)
    assert one.ok
    assert verified(built).ok
    assert np.isfinite([t.excess for r in one.results for t in r.taps]).all()
