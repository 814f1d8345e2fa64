"""A PyTorch model with our weights, and its activations, seen through hooks on its modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...config import LiTConfig
from ...ops import Array
from ...weights.layouts import LAYOUTS
from ...weights.tree import BlockParams
from ..names import Taps
from ..schemes import pattern, taken_apart
from ..walk import Case, Model
from .running import Shelf, inputs_of

__all__ = ["as_tensors", "recorded", "state_dict", "to_numpy"]


def to_numpy(value: Any) -> Array | None:
    """A tensor, or the first of several, as float32 or as it is; None for anything else."""
    import torch

    if isinstance(value, tuple | list) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return None
    value = value.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return np.array(value.numpy())


def as_tensors(case: Case, dtype: str) -> dict[str, Any]:
    """A case's inputs, pixels in a dtype."""
    import torch

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in inputs_of(case).items()}
    if "pixel_values" in tensors:
        tensors["pixel_values"] = tensors["pixel_values"].to(getattr(torch, dtype))
    return tensors


@contextmanager
def recorded(model: Any, taps: Taps) -> Iterator[Shelf]:
    """While this is open, every forward of the model fills the shelf by our names.

    A module that runs several times keeps its last activations.
    """
    found = Shelf()
    rules = [(pattern(module), names) for module, names in taps.items()]
    hooks = []
    for path, module in model.named_modules():
        for rule, (out, into) in rules:
            match = rule.fullmatch(path)
            if match is not None:
                i = match[1] if match.groups() else ""
                if out is not None:
                    hooks.append(module.register_forward_hook(_after(found, out.format(i=i))))
                if into is not None:
                    hooks.append(module.register_forward_pre_hook(_before(found, into.format(i=i))))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _after(found: Shelf, name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        value = to_numpy(output)
        if value is not None:
            found.update(taken_apart({name: value}))

    return hook


def _before(found: Shelf, name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any) -> None:
        value = to_numpy(inputs)
        if value is not None:
            found[name] = value

    return hook


# ---------------------------------------------------------------------------- weights


def state_dict(model: Model, layout: str, dtype: str) -> dict[str, Any]:
    """Our parameters as tensors under the names of a layout of weights/layouts.py."""
    import torch

    lit = isinstance(model.config, LiTConfig)
    table = next(t for t in LAYOUTS if t.name == layout and (len(t.towers) > 1) == lit)
    host = np.float64 if dtype == "float64" else np.float32
    state = {}
    for name, value in _parameters(model):
        for stored, row in table.stored(name):
            array = value if row.third is None else value[row.third]
            whole = np.concatenate(array) if isinstance(array, tuple) else array
            array = np.array(whole[0] if row.lead else whole, host)
            state[stored] = torch.from_numpy(array).to(getattr(torch, dtype))
    return state


def _parameters(model: Model) -> Iterator[tuple[str, Any]]:
    """All parameters by the original's names, in its shapes; q, k and v as three arrays."""
    p: Any = model.params
    if not isinstance(model.config, LiTConfig):
        yield from _vision("", p)
        return
    yield from _vision("image_encoder.", p.vision)
    yield "text_encoder.preprocessor.text_embedding.weight", p.text.text_embedding
    yield "text_encoder.preprocessor.positional_embedding", p.text.positional_embedding
    yield from _trunk("text_encoder.", p.text)
    yield "image_projector.weight", p.image_projector
    yield "text_projector.weight", p.text_projector
    yield "log_logit_scale", p.log_logit_scale


def _vision(prefix: str, p: Any) -> Iterator[tuple[str, Any]]:
    yield f"{prefix}preprocessor.patchifier.proj.weight", p.patch_weight
    yield f"{prefix}preprocessor.patchifier.proj.bias", p.patch_bias
    yield f"{prefix}preprocessor.patchifier.norm.weight", p.patch_norm
    if p.pos_embed is not None:
        yield f"{prefix}preprocessor.pos_embed", p.pos_embed[None]
    yield from _trunk(prefix, p)
    if p.head is not None:
        yield f"{prefix}head.cls_token", p.head.cls_token[None, None]
        yield f"{prefix}head.k.weight", p.head.k
        yield f"{prefix}head.v.weight", p.head.v
        yield f"{prefix}head.linear.weight", p.head.linear_weight
        yield f"{prefix}head.linear.bias", p.head.linear_bias


def _trunk(prefix: str, p: Any) -> Iterator[tuple[str, Any]]:
    for i in range(len(p.blocks)):
        block: BlockParams = p.blocks[i]
        yield f"{prefix}trunk.blocks.{i}.norm_1.weight", block.norm_1
        yield f"{prefix}trunk.blocks.{i}.attn.qkv.weight", block.qkv
        yield f"{prefix}trunk.blocks.{i}.attn.proj.weight", block.proj
        yield f"{prefix}trunk.blocks.{i}.norm_2.weight", block.norm_2
        yield f"{prefix}trunk.blocks.{i}.mlp.fc1.weight", block.fc1
        yield f"{prefix}trunk.blocks.{i}.mlp.fc3.weight", block.fc3
        yield f"{prefix}trunk.blocks.{i}.mlp.fc2.weight", block.fc2
    yield f"{prefix}trunk.post_trunk_norm.weight", p.post_trunk_norm
