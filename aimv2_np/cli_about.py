"""The commands that tell about models without running one: models, info."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .cli_model import opened
from .cli_options import KNOWS
from .cli_screen import PROGRAM, echo, echo_json, fields, note, paragraph, printable, table
from .config import OFFICIAL, LiTConfig, OfficialModel, TextConfig, VisionConfig
from .hub import is_cached, packaged_models
from .hub_errors import readable
from .loader import Opened, open_model
from .tokenizer_files import has_tokenizer
from .weights.tree import expected_shapes

__all__ = ["info", "models"]

Config = VisionConfig | LiTConfig
BIG = 200_000_000  # bytes from which on reading the weights takes noticeable time
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _vision(config: Config) -> VisionConfig:
    return config.vision if isinstance(config, LiTConfig) else config


# ---------------------------------------------------------------------------- models


def models(args: argparse.Namespace) -> int:
    """List the packaged and the official models."""
    listed = [_packaged(name) for name in packaged_models()]
    listed += [_official(model, args.cache_dir) for model in OFFICIAL.values()]
    if args.json:
        echo_json(listed)
        return 0
    header = ("name", "texts", "input", "params", "width", "blocks", "download", "here")
    for line in table(
        header, map(_row, listed), " " * 2 + ">>>>>", drop=("blocks", "texts", "width", "params")
    ):
        echo(line)
    echo()
    echo(paragraph(_FOOTNOTE))
    return 0


_FOOTNOTE = (
    "texts: has a text encoder, so that it can classify. input: side of the square image in "
    "pixels; any: images as they are. width, blocks: of the vision encoder. download: float32, "
    f"once, from huggingface.co/apple. {KNOWS}. Folders, files and other hub ids (owner/name) load "
    "as well."
)


def _packaged(name: str) -> dict[str, Any]:
    model = open_model(name)
    facts = _sizes(model.config)
    return {
        **{"name": name, "packaged": True, "hub_id": None},
        **{"parameters": model.info["parameters"], **facts, "download_bytes": 0, "cached": True},
    }


def _official(model: OfficialModel, cache_dir: str | None) -> dict[str, Any]:
    return {
        **{"name": model.name, "packaged": False, "hub_id": model.hub_id},
        **{"parameters": model.parameters, **_sizes(model.config)},
        **{"download_bytes": model.download_bytes},
        "cached": is_cached(model.hub_id, cache_dir=cache_dir),
        "original_revision": model.original_revision,
    }


def _sizes(config: Config) -> dict[str, Any]:
    vision = _vision(config)
    return {
        "takes_text": isinstance(config, LiTConfig),
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.hidden_size,
        "heads": vision.num_attention_heads,
        "blocks": vision.num_hidden_layers,
    }


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    here = "packaged" if model["packaged"] else "cached" if model["cached"] else "-"
    return (
        model["name"],
        "yes" if model["takes_text"] else "-",
        str(model["image_size"] or "any"),
        _count(model["parameters"]),
        str(model["width"]),
        str(model["blocks"]),
        readable(model["download_bytes"]) if model["download_bytes"] else "-",
        here,
    )


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


# ---------------------------------------------------------------------------- info


def info(args: argparse.Namespace) -> int:
    """Show what a model is and how it is stored; exit code 1 if its weights hold NaN or Inf."""
    model = opened(args)
    bad = None if args.no_check else _nonfinite(model, args)
    if args.json:
        echo_json(_as_json(model, bad, keys=args.keys))
    else:
        _show(model, bad, keys=args.keys)
    return 1 if bad else 0


def _nonfinite(model: Opened, args: argparse.Namespace) -> list[str]:
    size = model.checkpoint.nbytes
    if size > BIG:
        text = f"reading {readable(size)} to look for NaN and Inf (--no-check skips this)"
        note(f"{PROGRAM}: note: {text}", quiet=args.quiet)
    return model.checkpoint.nonfinite()


def _same_architecture(config: Config) -> list[str]:
    return [name for name, model in OFFICIAL.items() if model.config == config]


def _side_files(model: Opened) -> dict[str, bool]:
    return {
        "config": model.files.config is not None,
        "preprocessor": model.files.preprocessor_config is not None,
        "tokenizer": has_tokenizer(model.files.folder),
    }


def _keys(model: Opened) -> list[dict[str, Any]]:
    """Every stored tensor: its key, dtype and shape in the file, and the original's name."""
    return [
        {
            "key": part.tensor.key,
            "name": parameter.name,
            "dtype": DTYPES[part.tensor.dtype],
            "shape": list(part.tensor.shape),
            "file": part.tensor.source.path.name,
        }
        for parameter in model.checkpoint.parameters.values()
        for part in parameter.parts
    ]


def _as_json(model: Opened, bad: list[str] | None, *, keys: bool) -> dict[str, Any]:
    facts = model.info
    stored = {DTYPES[dtype]: count for dtype, count in facts["stored"].items()}
    return {
        **facts,
        "stored": stored,
        "memory_bytes": {"float32": 4 * facts["parameters"], "float64": 8 * facts["parameters"]},
        "same_architecture": _same_architecture(model.config),
        "config": {"type": type(model.config).__name__, **asdict(model.config)},
        "has": _side_files(model),
        "nonfinite": bad,
        **({"keys": _keys(model)} if keys else {}),
    }


def _show(model: Opened, bad: list[str] | None, *, keys: bool) -> None:
    sections: list[tuple[str, Callable[[], list[str]]]] = [
        ("files", lambda: fields(_stored(model))),
        ("model", lambda: fields(_described(model))),
        ("weights", lambda: fields(_weights(model, bad))),
        ("keys" if keys else "shapes", lambda: _all_keys(model) if keys else _shapes(model)),
    ]
    echo(printable(model.files.name))
    for title, lines in sections:
        echo()
        echo(title)
        for line in lines():
            echo(line)


def _stored(model: Opened) -> list[tuple[str, str]]:
    has = _side_files(model)
    present = [name for name, there in has.items() if there]
    absent = [
        name
        for name, there in has.items()
        if not there and (name != "tokenizer" or isinstance(model.config, LiTConfig))
    ]
    names = ", ".join(printable(name) for name in model.info["files"])
    return [
        ("folder", printable(str(model.files.folder))),
        ("weights", f"{names}, {readable(model.checkpoint.nbytes)}"),
        ("layout", model.checkpoint.layout),
        ("stored as", ", ".join(f"{DTYPES[d]} × {n}" for d, n in model.checkpoint.dtypes.items())),
        ("has", ", ".join(present) or "weights only"),
        *([("has no", ", ".join(absent))] if absent else []),
    ]


def _described(model: Opened) -> list[tuple[str, str]]:
    """The configuration in words."""
    config = model.config
    rows = [("vision", _vision_words(_vision(config)))]
    if isinstance(config, LiTConfig):
        rows.append(("text", _text_words(config.text)))
        rows.append(("shared", f"space of {config.projection_dim} dimensions"))
    same = _same_architecture(config)
    name = model.files.official
    if name:
        official = (
            f"{OFFICIAL[name].hub_id}, of the architecture of {', '.join(same) or 'no other'}"
        )
    elif same:
        official = f"not loaded as one, but of the architecture of {', '.join(same)}"
    else:
        official = "none has these sizes"
    return [*rows, ("official", official)]


def _tower_words(tower: VisionConfig | TextConfig) -> str:
    heads = tower.num_attention_heads
    return (
        f"{tower.num_hidden_layers} blocks of width {tower.hidden_size}, {heads} heads of "
        f"{tower.hidden_size // heads}, MLP {tower.intermediate_size}"
    )


def _vision_words(vision: VisionConfig) -> str:
    patch, grid = vision.patch_size, vision.grid_size
    if vision.is_native or grid is None:
        takes = f"images of any size in patches of {patch} × {patch}"
    else:
        size = vision.image_size
        takes = f"images of {size} × {size} in {grid} × {grid} patches of {patch} × {patch}"
    head = "attention-pooling head" if vision.use_head else "no pooling head"
    return f"{takes}, {_tower_words(vision)}, {head}"


def _text_words(text: TextConfig) -> str:
    return (
        f"at most {text.max_position_embeddings} tokens out of {text.vocab_size:,}, "
        f"{_tower_words(text)}, causal"
    )


def _weights(model: Opened, bad: list[str] | None) -> list[tuple[str, str]]:
    number = model.info["parameters"]
    stored = [DTYPES[dtype] for dtype in model.checkpoint.dtypes]
    values = "no NaN, no Inf"
    if bad is None:
        values = "not checked for NaN and Inf"
    elif bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        values = f"NaN or Inf in {len(bad)} of {sum(model.checkpoint.dtypes.values())} tensors: "
        values += ", ".join(bad[:5]) + more
    memory = [
        (dtype, f"{readable(size * number)} of memory" + _MAPPED * (stored == [dtype]))
        for dtype, size in (("float32", 4), ("float64", 8))
    ]
    return [("parameters", f"{number:,}"), *memory, ("values", values)]


_MAPPED = ", used where they lie in the file: nothing is copied"


def _shapes(model: Opened) -> list[str]:
    """The original's names and shapes, those that all blocks share in one line."""
    shapes: dict[str, tuple[tuple[int, ...], list[int]]] = {}
    for name, shape in expected_shapes(model.config).items():  # in the order of computation
        found = re.search(r"(?<=blocks\.)\d+", name)
        merged = re.sub(r"(?<=blocks\.)\d+", "{}", name)
        shapes.setdefault(merged, (shape, []))[1].extend([int(found[0])] if found else [])
    rows = [
        (name.replace("{}", f"{{0-{max(blocks)}}}") if blocks else name, str(shape))
        for name, (shape, blocks) in shapes.items()
    ]
    return ["  " + line for line in table(("the original's name", "shape"), rows)]


def _all_keys(model: Opened) -> list[str]:
    rows = [
        (printable(k["key"]), k["dtype"], str(tuple(k["shape"])), k["file"]) for k in _keys(model)
    ]
    shown = 3 if len(model.checkpoint.files) == 1 else 4  # which file is worth saying
    header = ("key", "dtype", "shape", "file")
    return ["  " + line for line in table(header[:shown], [row[:shown] for row in rows])]
