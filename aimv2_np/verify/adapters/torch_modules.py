"""Activations of a PyTorch model, seen through hooks on its modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...ops import Array

__all__ = ["Taps", "recorded", "to_numpy"]

# A pattern of module names -> the activation that the module puts out, and the one it takes in.
# "{i}" stands for a block's number; None for what is of no interest.
Taps = Mapping[str, tuple[str | None, str | None]]


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


@contextmanager
def recorded(model: Any, taps: Taps) -> Iterator[dict[str, Array]]:
    """While this is open, every forward of the model fills the mapping by our names.

    A module that runs several times keeps its last activations.
    """
    found: dict[str, Array] = {}
    rules = [(re.compile(re.escape(p).replace(r"\{i\}", r"(\d+)")), t) for p, t in taps.items()]
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


def _after(found: dict[str, Array], name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        value = to_numpy(output)
        if value is not None:
            found[name] = value

    return hook


def _before(found: dict[str, Array], name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any) -> None:
        value = to_numpy(inputs)
        if value is not None:
            found[name] = value

    return hook
