"""Where a checkpoint's configuration comes from, and whether its sources agree.

There are three: config.json (two dialects: the original's and transformers'), the table of
official models, and the shapes of the weights. Each is brought to the same form, a flat mapping
such as `{"vision.hidden_size": 1024, ...}` of what it states, so that one can fill in what another
leaves out and every contradiction can be reported at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from .config import OFFICIAL, RMS_NORM_EPS, LiTConfig, TextConfig, VisionConfig
from .errors import ConfigError

__all__ = ["config_json_facts", "resolve_config", "shape_facts"]

HEAD_WIDTH = 128  # every official tower: 1024/8, 1536/12, 2048/16, 3072/24, 768/6

Facts = dict[str, Any]


def _flatten(config: VisionConfig | LiTConfig) -> Facts:
    if isinstance(config, VisionConfig):
        return {f"vision.{key}": value for key, value in asdict(config).items()}
    towers = {"vision": asdict(config.vision), "text": asdict(config.text)}
    facts = {f"{t}.{key}": value for t, c in towers.items() for key, value in c.items()}
    own = {"projection_dim": config.projection_dim, "max_logit_scale": config.max_logit_scale}
    return facts | own


def _unflatten(facts: Facts) -> VisionConfig | LiTConfig:
    def tower(name: str) -> Facts:
        return {k.partition(".")[2]: v for k, v in facts.items() if k.startswith(name + ".")}

    vision = VisionConfig(**tower("vision"))
    if "projection_dim" not in facts:
        return vision
    return LiTConfig(
        vision, TextConfig(**tower("text")), facts["projection_dim"], facts["max_logit_scale"]
    )


def config_from_fields(fields: Any, source: str) -> VisionConfig | LiTConfig:
    """What `dataclasses.asdict` made of a configuration, with every value checked again.

    Raises:
        ConfigError: not such a mapping, or values that AIMv2 cannot have.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{source}: expected an object, found {type(fields).__name__}")
    lit = "text" in fields
    towers = {key: value for key, value in fields.items() if key in ("vision", "text")}
    facts: Facts = {} if lit else {f"vision.{key}": value for key, value in fields.items()}
    if lit:
        facts = {key: value for key, value in fields.items() if key not in towers}
        for tower, values in towers.items():
            if not isinstance(values, Mapping):
                raise ConfigError(f"{source}: {tower} is no object")
            facts |= {f"{tower}.{key}": value for key, value in values.items()}
    template = _flatten(LiTConfig() if lit else VisionConfig())
    if facts.keys() != template.keys():
        different = ", ".join(sorted(facts.keys() ^ template.keys()))
        raise ConfigError(f"{source}: missing or unknown: {different:.200}")
    for key, value in facts.items():
        if key != "vision.image_size" or value is not None:
            facts[key] = _checked(key.rpartition(".")[2], value, source)
    return _complete(facts, lit=lit)


# ---------------------------------------------------------------------------- config.json

_INTEGERS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "vocab_size",
    "max_position_embeddings",
)
_RENAMED = {"max_context_length": "max_position_embeddings"}  # the original's text_config
_NO_BIASES = ("qkv_bias", "mlp_bias", "use_bias")


def _tower_facts(raw: Any, tower: str, source: str) -> Facts:
    """The facts that one tower's section of a config.json states; keys it lacks are left out."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: expected an object for the {tower} tower, found {raw!r}")
    raw = {_RENAMED.get(key, key): value for key, value in raw.items()}
    for key in _NO_BIASES:
        if raw.get(key):
            raise ConfigError(f"{source}: {key} is true, but AIMv2 has no such biases")
    if tower == "text" and raw.get("is_causal") is False:
        raise ConfigError(f"{source}: is_causal is false, but AIMv2's text encoder is causal")
    if raw.get("hidden_act") not in (None, "silu"):
        raise ConfigError(f"{source}: hidden_act is {raw['hidden_act']!r}; AIMv2 uses 'silu'")
    known = {f.name for f in fields(VisionConfig if tower == "vision" else TextConfig)}
    facts = {key: raw[key] for key in known if raw.get(key) is not None}
    if facts.get("is_native"):
        facts.pop("image_size", None)  # published native configs carry a meaningless 224
    for key, value in facts.items():
        facts[key] = _checked(key, value, f"{source}: {tower} tower")
    return {f"{tower}.{key}": value for key, value in facts.items()}


def _checked(key: str, value: Any, where: str) -> Any:
    """One value of a config.json, or a ConfigError that says what it should have been."""
    if key in ("image_size", "patch_size") and isinstance(value, list | tuple):
        if len(set(map(repr, value))) != 1:
            raise ConfigError(f"{where}: {key} is {value}; only square sizes are defined")
        value = value[0]
    if key == "eos_token_id" and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if key in _INTEGERS or key == "eos_token_id":
        least = 0 if key == "eos_token_id" else 1
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    elif key in ("use_head", "is_native"):
        good = isinstance(value, bool)
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and 0 < value <= sys.float_info.max
    if not good:
        kind = {"use_head": "true or false", "is_native": "true or false"}
        integer = key in _INTEGERS or key == "eos_token_id"
        expected = kind.get(key, "an integer" if integer else "a positive number")
        raise ConfigError(f"{where}: {key} is {value!r:.80}, expected {expected}")
    return value


def config_json_facts(raw: Any, source: str) -> Facts:
    """What a config.json says, in either dialect.

    `model_type` does not tell them apart: the original uses "aimv2" for vision-only models too.
    The nested sections do.

    Raises:
        ConfigError: not an object, not AIMv2's, or a value that AIMv2 cannot have.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: expected a JSON object, found {type(raw).__name__}")
    model_type = raw.get("model_type")
    if model_type not in (None, "aimv2", "aimv2_vision_model"):
        raise ConfigError(f"{source}: model_type is {model_type!r}, expected 'aimv2'")
    if "vision_config" not in raw and "text_config" not in raw:
        return _tower_facts(raw, "vision", source)
    facts: Facts = {}
    for tower in ("vision", "text"):
        if raw.get(f"{tower}_config") is not None:
            facts |= _tower_facts(raw[f"{tower}_config"], tower, source)
    for key in ("projection_dim", "max_logit_scale"):
        if raw.get(key) is not None:
            facts[key] = _checked(key, raw[key], source)
    return facts


# ---------------------------------------------------------------------------- shapes

Shapes = Mapping[str, tuple[int, ...]]


def _is_lit(shapes: Shapes) -> bool:
    return any(name.startswith("image_encoder.") for name in shapes)


def _depth(shapes: Shapes, prefix: str) -> int:
    names = (name.removeprefix(prefix) for name in shapes if name.startswith(prefix))
    return 1 + max((int(n.split(".")[0]) for n in names if n.split(".")[0].isdigit()), default=-1)


# Which parameters say a size: name, axis, number of axes. The first that is there counts.
_BLOCKS = {
    "hidden_size": [("trunk.post_trunk_norm.weight", 0, 1), ("trunk.blocks.0.norm_1.weight", 0, 1)],
    "intermediate_size": [
        ("trunk.blocks.0.mlp.fc1.weight", 0, 2),
        ("trunk.blocks.0.mlp.fc2.weight", 1, 2),
    ],
}
_VISION = _BLOCKS | {
    "num_channels": [("preprocessor.patchifier.proj.weight", 1, 4)],
    "patch_size": [("preprocessor.patchifier.proj.weight", 2, 4)],
}
_TEXT = _BLOCKS | {
    "vocab_size": [("preprocessor.text_embedding.weight", 0, 2)],
    "max_position_embeddings": [("preprocessor.positional_embedding", 0, 2)],
}
_JOINT = {"projection_dim": [("image_projector.weight", 0, 2), ("text_projector.weight", 0, 2)]}


def _sizes(shapes: Shapes, prefix: str, table: Mapping[str, list[tuple[str, int, int]]]) -> Facts:
    facts: Facts = {}
    for key, places in table.items():
        for name, axis, ndim in places:
            if key not in facts and len(shapes.get(prefix + name, ())) == ndim:
                facts[key] = shapes[prefix + name][axis]
    return facts


def _tower_shape_facts(shapes: Shapes, tower: str, prefix: str) -> Facts:
    facts = _sizes(shapes, prefix, _VISION if tower == "vision" else _TEXT)
    facts["num_hidden_layers"] = _depth(shapes, f"{prefix}trunk.blocks.")
    if tower == "vision":
        positions = shapes.get(f"{prefix}preprocessor.pos_embed")
        # an image-text model has to have one: where it is missing, that is to be reported
        facts["use_head"] = bool(prefix) or "head.cls_token" in shapes
        facts["is_native"] = positions is None
        if positions is not None and len(positions) == 3 and "patch_size" in facts:
            facts["image_size"] = math.isqrt(positions[1]) * facts["patch_size"]
    return {f"{tower}.{key}": value for key, value in facts.items()}


def shape_facts(shapes: Shapes) -> Facts:
    """What the shapes of the weights (original names) say for certain.

    Missing or malformed parameters are simply not stated here: `Checkpoint.require` reports them.
    """
    if not _is_lit(shapes):
        return _tower_shape_facts(shapes, "vision", "")
    return (
        _tower_shape_facts(shapes, "vision", "image_encoder.")
        | _tower_shape_facts(shapes, "text", "text_encoder.")
        | _sizes(shapes, "", _JOINT)
    )


def _given_heads(num_heads: Any, *, lit: bool) -> Facts:
    """What the argument num_heads states: one number, or a pair for an image-text model."""
    towers = ("vision", "text") if lit else ("vision",)
    given = num_heads if isinstance(num_heads, tuple | list) else (num_heads,)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in given)
    if len(given) != len(towers) or not whole:
        expected = "a pair (vision, text) of positive integers" if lit else "one positive integer"
        raise ConfigError(f"num_heads={num_heads!r:.80}, expected {expected} for this checkpoint")
    return {f"{t}.num_attention_heads": n for t, n in zip(towers, given, strict=True)}


def _conventions(facts: Facts, *, lit: bool) -> Facts:
    """What shapes cannot say, by AIMv2's conventions: head width 128, eps, the last id ends a text.

    A width that is no multiple of 128 leaves the number of heads unsaid.
    """
    guess: Facts = {"max_logit_scale": 100.0} if lit else {}
    for tower in ("vision", "text") if lit else ("vision",):
        guess[f"{tower}.rms_norm_eps"] = RMS_NORM_EPS
        width = facts.get(f"{tower}.hidden_size", 0)
        if width and width % HEAD_WIDTH == 0:
            guess[f"{tower}.num_attention_heads"] = width // HEAD_WIDTH
    if "text.vocab_size" in facts:
        guess["text.eos_token_id"] = facts["text.vocab_size"] - 1
    if facts.get("vision.is_native"):
        guess["vision.image_size"] = None
    return guess


# ---------------------------------------------------------------------------- all sources


def resolve_config(
    shapes: Shapes,
    *,
    config_json: Any = None,
    config_source: str = "config.json",
    official: str | None = None,
    num_heads: int | tuple[int, int] | None = None,
) -> VisionConfig | LiTConfig:
    """The configuration of a checkpoint, from config.json, else the official table, else shapes.

    Args:
        shapes: original parameter names and their shapes.
        config_json: the parsed config.json, or None where there is none.
        config_source: how messages name that file.
        official: short name, when the checkpoint was asked for as one of the 16.
        num_heads: attention heads, for weights without config.json whose head width is not 128;
            for an image-text model a pair (vision, text).

    Raises:
        ConfigError: the sources contradict each other (all contradictions in one message), or
            none of them says something that is needed.
    """
    sources: dict[str, Facts] = {}
    if config_json is not None:
        sources[config_source] = config_json_facts(config_json, config_source)
    if official is not None:
        sources[f"the official {official}"] = _flatten(OFFICIAL[official].config)
    sources["the weights' shapes"] = shape_facts(shapes)
    lit = _is_lit(shapes)
    if num_heads is not None:
        sources["the argument num_heads"] = _given_heads(num_heads, lit=lit)

    stated = _merge(sources)
    return _complete(_conventions(stated, lit=lit) | stated, lit=lit)


def _merge(sources: Mapping[str, Facts]) -> Facts:
    """What any source says, the first one that says it; all contradictions are one error."""
    merged: Facts = {}
    said_by: dict[str, str] = {}
    conflicts = []
    for source, facts in sources.items():
        for key, value in facts.items():
            if key not in merged:
                merged[key], said_by[key] = value, source
            elif not _agree(key, merged[key], value, merged):
                conflicts.append(f"{key}: {merged[key]!r} by {said_by[key]}, {value!r} by {source}")
    if conflicts:
        raise ConfigError(
            "the sources of the configuration contradict each other:\n  " + "\n  ".join(conflicts)
        )
    return merged


def _agree(key: str, first: Any, second: Any, facts: Facts) -> bool:
    """Whether two sources say the same; an image size counts in whole patches."""
    patch = facts.get("vision.patch_size")
    if key == "vision.image_size" and patch and None not in (first, second):
        return bool(first // patch == second // patch)
    both_numbers = isinstance(first, float) and isinstance(second, int | float)
    return bool(first == second) or (both_numbers and math.isclose(first, second))


def _complete(facts: Facts, *, lit: bool) -> VisionConfig | LiTConfig:
    """Check that every field is known and that the sizes fit together."""
    template = _flatten(LiTConfig() if lit else VisionConfig())
    missing = [key for key in template if key not in facts]
    if any(key.endswith("num_attention_heads") for key in missing):
        raise ConfigError(
            f"neither config.json nor the weights say {', '.join(missing)}; the width is no "
            f"multiple of AIMv2's head width {HEAD_WIDTH}, so pass num_heads= (for an image-text "
            "model a pair: vision, text)"
        )
    # Shapes leave a size unsaid only where its parameter is missing or malformed, which
    # `Checkpoint.require` reports whatever stands here.
    facts = {**{key: template[key] for key in missing}, **facts}
    unknown = [key for key in facts if key not in template]
    if unknown:
        raise ConfigError(
            f"config.json describes an image-text model ({', '.join(unknown)}), "
            "but the weights hold a vision encoder only"
        )
    for tower in ("vision", "text") if lit else ("vision",):
        width, heads = facts[f"{tower}.hidden_size"], facts[f"{tower}.num_attention_heads"]
        if heads < 1 or width % heads:
            raise ConfigError(f"{tower}: the width {width} is no multiple of the {heads} heads")
    if lit and facts["text.eos_token_id"] >= facts["text.vocab_size"]:
        raise ConfigError(
            f"eos_token_id is {facts['text.eos_token_id']}, but the vocabulary has the ids "
            f"0 to {facts['text.vocab_size'] - 1}"
        )
    size, patch = facts["vision.image_size"], facts["vision.patch_size"]
    if size is not None and size < patch:
        raise ConfigError(f"images of {size} pixels are smaller than a patch of {patch}")
    if facts["vision.is_native"] and facts["vision.hidden_size"] % 4:
        raise ConfigError(
            "a native-resolution encoder needs a width that is a multiple of 4, "
            f"found {facts['vision.hidden_size']}"
        )
    return _unflatten(facts)
