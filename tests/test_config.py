"""The 16 official models, both dialects of config.json, and what happens when sources disagree."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from golden_cases import GOLDEN

from aimv2_np.config import OFFICIAL, LiTConfig, TextConfig, VisionConfig, official_name
from aimv2_np.config_sources import resolve_config
from aimv2_np.errors import ConfigError
from aimv2_np.weights.tree import expected_shapes

LARGE = OFFICIAL["large-patch14-224"].config
LIT = OFFICIAL["large-patch14-224-lit"].config
NATIVE = OFFICIAL["large-patch14-native"].config

# config.json of the original repositories, as published (fields that matter here)
ORIGINAL = {
    "model_type": "aimv2",
    "hidden_size": 1024,
    "image_size": 224,
    "intermediate_size": 2816,
    "num_attention_heads": 8,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dropout": 0.0,
    "qkv_bias": False,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float32",
    "use_bias": False,
}
ORIGINAL_NATIVE = {k: v for k, v in ORIGINAL.items() if k != "image_size"} | {"num_queries": 256}
ORIGINAL_LIT = {
    "model_type": "aimv2",
    "init_temperature": 0.07,
    "max_logit_scale": 100.0,
    "projection_dim": 768,
    "vision_config": ORIGINAL | {"num_queries": 1},
    "text_config": {
        "model_type": "aimv2",
        "eos_token_id": 49407,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "is_causal": True,
        "max_context_length": 77,
        "num_attention_heads": 6,
        "num_hidden_layers": 12,
        "qkv_bias": False,
        "rms_norm_eps": 1e-05,
        "use_bias": False,
        "vocab_size": 49408,
        "pad_token_id": None,
    },
}
TRANSFORMERS_NATIVE = ORIGINAL | {
    "model_type": "aimv2_vision_model",
    "use_head": False,
    "is_native": True,
    "image_size": 224,  # meaningless there
    "mlp_bias": False,
    "hidden_act": "silu",
}


def shapes(config: Any, **changed: Any) -> dict[str, tuple[int, ...]]:
    return {**expected_shapes(config), **changed}


def test_the_official_table() -> None:
    """Published sizes of the float32 weights, in GB (hub), and numbers of parameters (paper)."""
    assert len(OFFICIAL) == 16
    gigabytes = {"large": 1.24, "huge": 2.73, "1B": 4.94, "3B": 10.9}
    for name, model in OFFICIAL.items():
        wanted = 1.75 if name.endswith("lit") else gigabytes[name.split("-")[0]]
        assert model.download_bytes / 1e9 == pytest.approx(wanted, rel=4e-3), name
        assert model.hub_id == f"apple/aimv2-{name}"
        assert len(model.original_revision) == 40
        vision = model.config.vision if isinstance(model.config, LiTConfig) else model.config
        assert vision.hidden_size == 128 * vision.num_attention_heads
        assert vision.is_native == name.endswith("native")
        assert vision.use_head == name.endswith("lit")
    assert OFFICIAL["3B-patch14-448"].config.grid_size == 32
    assert len({m.original_revision for m in OFFICIAL.values()}) == 16


def test_official_names() -> None:
    for name in ("large-patch14-native", "aimv2-large-patch14-native"):
        assert official_name(name) == "large-patch14-native"
    assert official_name("apple/aimv2-3B-patch14-448") == "3B-patch14-448"
    assert official_name("someone/aimv2-3B-patch14-448") is None


@pytest.mark.parametrize(
    ("config", "raw"),
    [
        (LARGE, ORIGINAL),
        (NATIVE, ORIGINAL_NATIVE),
        (NATIVE, TRANSFORMERS_NATIVE),
        (LIT, ORIGINAL_LIT),
        (LARGE, ORIGINAL | {"image_size": [224, 224], "patch_size": (14, 14)}),
        (LARGE, {"model_type": "aimv2_vision_model"}),  # what it leaves out comes from the shapes
        (LARGE, None),
    ],
)
def test_every_dialect_gives_the_official_configuration(config: Any, raw: Any) -> None:
    assert resolve_config(shapes(config), config_json=raw) == config


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_shapes_alone_give_the_official_configuration(name: str) -> None:
    config = OFFICIAL[name].config
    assert resolve_config(shapes(config)) == config
    assert resolve_config(shapes(config), official=name) == config


def test_golden_configurations() -> None:
    path = GOLDEN / "lit" / "transformers" / "config.json"
    text = TextConfig(99, 24, 56, 2, 2, max_position_embeddings=16, eos_token_id=98)
    vision = VisionConfig(36, 88, 2, 3, image_size=42, use_head=True)
    wanted = LiTConfig(vision, text, projection_dim=40)
    raw = json.loads(path.read_text())
    assert resolve_config(shapes(wanted), config_json=raw) == wanted
    assert resolve_config(shapes(wanted), num_heads=(3, 2)) == wanted


def test_heads_of_another_width_must_be_told() -> None:
    small = VisionConfig(hidden_size=36, intermediate_size=88, num_attention_heads=3, image_size=42)
    with pytest.raises(ConfigError, match="num_attention_heads; .* pass num_heads="):
        resolve_config(shapes(small))
    assert resolve_config(shapes(small), num_heads=3) == small
    with pytest.raises(ConfigError, match="36 is no multiple of the 5 heads"):
        resolve_config(shapes(small), num_heads=5)
    with pytest.raises(ConfigError, match="expected one positive integer"):
        resolve_config(shapes(small), num_heads=(3, 2))
    with pytest.raises(ConfigError, match="num_heads=0, expected one positive integer"):
        resolve_config(shapes(small), num_heads=0)
    wide = VisionConfig(num_attention_heads=16)
    assert resolve_config(shapes(wide), num_heads=16) == wide


@pytest.mark.parametrize(
    ("raw", "official", "heads", "words"),
    [
        # the mistakes of hand-written configurations (facts: layer-count, random-head)
        (ORIGINAL | {"num_hidden_layers": 16}, None, None, ["num_hidden_layers", "16", "24"]),
        (ORIGINAL | {"use_head": True}, None, None, ["use_head", "True", "False"]),
        (ORIGINAL | {"hidden_size": 768}, None, None, ["hidden_size", "768", "1024"]),
        (ORIGINAL | {"image_size": 336}, None, None, ["image_size", "336", "224"]),
        (ORIGINAL | {"is_native": True}, None, None, ["is_native"]),
        (ORIGINAL | {"num_attention_heads": 16}, "large-patch14-224", None, ["16", "8"]),
        (ORIGINAL | {"rms_norm_eps": 1e-6}, "large-patch14-224", None, ["rms_norm_eps", "1e-06"]),
        (ORIGINAL, "large-patch14-336", None, ["image_size", "224", "336"]),
        (ORIGINAL, None, 16, ["num_attention_heads", "8", "16", "argument num_heads"]),
        (None, "huge-patch14-224", None, ["hidden_size", "1536", "1024", "official huge"]),
    ],
)
def test_contradictions_name_both_sources(
    raw: Any, official: str | None, heads: int | None, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match="contradict") as error:
        resolve_config(
            shapes(LARGE), config_json=raw, config_source="my.json", official=official,
            num_heads=heads,
        )  # fmt: skip
    assert all(word in str(error.value) for word in words), error.value


def test_all_contradictions_come_in_one_message() -> None:
    raw = ORIGINAL_LIT | {"projection_dim": 512}
    raw["text_config"] = ORIGINAL_LIT["text_config"] | {"hidden_size": 512, "vocab_size": 49409}
    with pytest.raises(ConfigError) as error:
        resolve_config(shapes(LIT), config_json=raw)
    assert all(k in str(error.value) for k in ("projection_dim", "text.hidden_size", "text.vocab"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "expected a JSON object"),
        ({"model_type": "clip"}, "model_type is 'clip'"),
        ({"hidden_size": "1024"}, "hidden_size is '1024', expected an integer"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": 1024.5}, "hidden_size is 1024.5"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps is inf"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        ({"use_head": 1}, "use_head is 1"),
        ({"patch_size": [14, 16]}, "only square"),
        ({"patch_size": []}, "only square"),
        ({"image_size": [None, None]}, "image_size"),
        ({"qkv_bias": True}, "qkv_bias"),
        ({"use_bias": True}, "use_bias"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"vision_config": 3, "text_config": {}}, "expected an object"),
        ({"vision_config": [], "text_config": {}}, "expected an object"),
        ({"vision_config": {}, "text_config": {"is_causal": False}}, "is_causal is false"),
        ({"vision_config": {}, "text_config": {"eos_token_id": [1, 2]}}, "eos_token_id"),
        ({"vision_config": {}, "text_config": {"eos_token_id": -5}}, "eos_token_id"),
        ({"vision_config": {}, "text_config": {}, "projection_dim": "a"}, "projection_dim"),
        ({"vision_config": {}, "text_config": {}, "max_logit_scale": -1}, "max_logit_scale"),
        (ORIGINAL_LIT, "image-text model.*vision encoder only"),
    ],
)
def test_malformed_config_json(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_config(shapes(LARGE), config_json=raw)


def test_an_end_token_outside_the_vocabulary() -> None:
    raw = ORIGINAL_LIT | {"text_config": ORIGINAL_LIT["text_config"] | {"eos_token_id": 49408}}
    with pytest.raises(ConfigError, match="eos_token_id.*49408"):
        resolve_config(shapes(LIT), config_json=raw)


def test_a_vision_config_beside_an_image_text_checkpoint() -> None:
    """transformers' Aimv2VisionModel configs do sit beside lit weights: the vision part is used."""
    assert resolve_config(shapes(LIT), config_json=ORIGINAL) == LIT


@pytest.mark.parametrize("num_heads", [3, (3,), (3, 2, 1), True, "3", 3.0, (3, "2"), (3, 0), b"32"])
def test_an_image_text_model_needs_a_pair_of_heads(num_heads: Any) -> None:
    """One number for both towers would load, and compute something else."""
    text = TextConfig(99, 24, 56, 2, 2, max_position_embeddings=16, eos_token_id=98)
    vision = VisionConfig(36, 88, 2, 3, image_size=42, use_head=True)
    small = shapes(LiTConfig(vision, text, projection_dim=40))
    with pytest.raises(ConfigError, match="expected a pair"):
        resolve_config(small, num_heads=num_heads)
    assert resolve_config(small, num_heads=[3, 2]) == LiTConfig(vision, text, projection_dim=40)


def test_an_image_size_counts_in_whole_patches() -> None:
    """transformers floors image_size / patch_size: 230 has the 16 × 16 patches of 224."""
    config = resolve_config(shapes(LARGE), config_json=ORIGINAL | {"image_size": 230})
    assert config == dataclasses.replace(LARGE, image_size=230)
    assert config.grid_size == 16


def test_positions_without_patches() -> None:
    empty = shapes(LARGE) | {"preprocessor.pos_embed": (1, 0, 1024)}
    with pytest.raises(ConfigError, match="0 pixels are smaller than a patch of 14"):
        resolve_config(empty)
