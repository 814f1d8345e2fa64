"""A backend over PyTorch: what someone outside would write, in as few lines.

It owes the package its table alone: arrays are torch's, every op is torch's own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from aimv2_np.backend import NUMPY, Backend, host_dtype
from aimv2_np.errors import BackendUnavailable

Tensor = torch.Tensor


def params_there(value: Any) -> Any:
    if value is None or hasattr(value, "dtype"):
        return None if value is None else torch.tensor(value)
    return getattr(type(value), "_make", tuple)(params_there(inner) for inner in value)


def asarray(given: Any, dtype: str) -> Tensor:
    return torch.as_tensor(given).to(getattr(torch, str(host_dtype(dtype))), copy=True)


def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def rms_norm(x: Any, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (len(weight),), weight, eps)


def softmax(x: Any) -> Tensor:
    return torch.nan_to_num(F.softmax(x, dim=-1))  # nothing seen: NaN in torch


def scores(q: Any, k: Any, *, causal: bool = False, key_mask: Any = None) -> Tensor:
    found = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        found = found.masked_fill(~torch.ones(found.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if key_mask is not None:
        found = found.masked_fill(~torch.as_tensor(key_mask)[:, None, None], -math.inf)
    return found


def patch_embed(pixels: Any, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).mT


def make_backend(device: Any = None) -> Backend:
    if device not in (None, "cpu"):
        raise BackendUnavailable(f"this backend runs on the CPU, not on {device!r}")
    return replace(
        NUMPY,
        name="torch",
        asarray=asarray,
        from_dlpack=torch.from_dlpack,
        to_numpy=lambda x: x.numpy(),
        concatenate=lambda arrays, axis: torch.cat(arrays, dim=axis),
        broadcast_to=torch.broadcast_to,
        prepare=lambda params, dtype: params_there(params),
        patch_embed=patch_embed,
        embed_tokens=lambda ids, table: table[torch.as_tensor(ids)],
        rms_norm=rms_norm,
        linear=linear,
        silu=lambda x: F.silu(x),
        softmax=softmax,
        attention_scores=scores,
        attention=lambda q, k, v, **sees: softmax(scores(q, k, **sees)) @ v,
        l2_normalize=lambda x: F.normalize(x, dim=-1, eps=1e-12),
    )
