"""Mistakes made in the port where images come in and where both towers are alike.

Written in PyTorch, apart from the library that has to name them. port_mistakes.py adds the others,
and has them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F

from .port import Port

Seed = Callable[[Port], None]
PORT: dict[str, Seed] = {}


def over(method: str, **ids: Any) -> None:
    """Enter mistakes that replace one method: id (with _ for -) = the method."""
    for id, function in ids.items():

        def seed(port: Port, function: Any = function) -> None:
            setattr(port, method, MethodType(function, port))

        PORT[id.replace("_", "-")] = seed


def seeded(id: str) -> Callable[[Seed], Seed]:
    def enter(seed: Seed) -> Seed:
        PORT[id] = seed
        return seed

    return enter


def unit(x: Any, eps: float = 1e-5) -> Any:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


# ---------------------------------------------------------------------------- norms

over(
    "norm",
    rms_eps=lambda m, x, w: unit(x, 1e-6) * w,
    rms_eps_outside=lambda m, x, w: x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-5) * w,
    rms_is_layernorm=lambda m, x, w: F.layer_norm(x, x.shape[-1:], w, eps=1e-5),
    rms_plus_one=lambda m, x, w: unit(x) * (1 + w),
    rms_no_weight=lambda m, x, w: unit(x),
    rms_is_l2=lambda m, x, w: x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-5) * w,
    rms_all_tokens=lambda m, x, w: (
        x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-5) * w
    ),
    rms_rounding=lambda m, x, w: unit(x).bfloat16().float() * w,
)
over("norm_1", no_norm_1=lambda m, x, p: x)
over("norm_2", no_norm_2=lambda m, middle, p, x: middle)
over("norm_2", parallel_block=lambda m, middle, p, x: m.norm(x, p.norm_2))
over("final_norm", no_final_norm=lambda m, x, tower: x)
over("patch_norm", no_patch_norm=lambda m, x: x)


@seeded("norms-swapped")
def _(port: Port) -> None:
    for tower in port.order:
        for block in port.tower(tower).blocks:
            block.norm_1, block.norm_2 = block.norm_2, block.norm_1


@seeded("post-norm")
def _(port: Port) -> None:
    port.norm_1 = lambda x, p: x
    port.add_attention = lambda x, attended, normed, p: port.norm(x + attended, p.norm_1)
    port.norm_2 = lambda middle, p, x: middle
    port.add_mlp = lambda middle, out, normed, x, p: port.norm(middle + out, p.norm_2)


@seeded("residual-normed")
def _(port: Port) -> None:
    port.add_attention = lambda x, attended, normed, p: normed + attended
    port.add_mlp = lambda middle, out, normed, x, p: normed + out


over("embed", pos_before_norm=lambda m, patches, positions: m.patch_norm(patches + positions))

# ---------------------------------------------------------------------------- positions


def _columns_first(m: Port, rows: int, columns: int) -> Any:
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([*m.sincos(y), *m.sincos(x)], dim=1)


def _interleaved(m: Port, rows: int, columns: int) -> Any:
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([torch.stack(m.sincos(c), -1).flatten(1) for c in (x, y)], dim=1)


def _cos_first(m: Port, rows: int, columns: int) -> Any:
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([*m.sincos(x)[::-1], *m.sincos(y)[::-1]], dim=1)


def _coordinates(change: Callable[[Any, int], Any]) -> Any:
    def positions(m: Port, rows: int, columns: int) -> Any:
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.cat([*m.sincos(change(x, columns)), *m.sincos(change(y, rows))], dim=1)

    return positions


def _by_columns(m: Port, rows: int, columns: int) -> Any:
    x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="ij")
    return torch.cat([*m.sincos(x), *m.sincos(y)], dim=1)


over(
    "computed_positions",
    sincos_order=_columns_first,
    sincos_interleaved=_interleaved,
    sincos_cos_first=_cos_first,
    sincos_from_one=_coordinates(lambda c, n: c + 1),
    sincos_normalized=_coordinates(lambda c, n: c / (n - 1)),
    pos_transposed=_by_columns,
)


def _base(base: float, part: int = 4) -> Any:
    def sincos(m: Port, coordinate: Any) -> Any:
        quarter = m.vc.hidden_size // 4
        omega = torch.arange(quarter, dtype=torch.float64) / (m.vc.hidden_size // part)
        angle = coordinate.double().flatten()[:, None] * (1 / base**omega)[None]
        return angle.sin(), angle.cos()

    return sincos


def _narrow(dtype: torch.dtype) -> Any:
    def sincos(m: Port, coordinate: Any) -> Any:
        quarter = m.vc.hidden_size // 4
        omega = (1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)).to(dtype)
        angle = coordinate.flatten().to(dtype)[:, None] * omega[None]
        return angle.sin(), angle.cos()

    return sincos


over(
    "sincos",
    sincos_half=_base(10000.0, part=2),
    sincos_dtype=_narrow(torch.bfloat16),
    sincos_dtype_fp16=_narrow(torch.float16),
)
over(
    "learned_positions",
    pos_slice=lambda m, rows, columns: m.vision.pos_embed[: rows * columns],
    pos_bilinear=lambda m, rows, columns: _resampled(m, rows, columns),
)


def _resampled(m: Port, rows: int, columns: int) -> Any:
    side = math.isqrt(len(m.vision.pos_embed))
    grid = m.vision.pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(rows * columns, -1)


over(
    "positions",
    no_positions=lambda m, r, c: torch.zeros(r * c, m.vc.hidden_size),
    pos_reversed=lambda m, r, c: Port.positions(m, r, c).flip(0),
)

# ---------------------------------------------------------------------------- patches

over(
    "kernel",
    conv_transposed=lambda m: m.vision.patch_weight.transpose(2, 3),
    conv_hwi=lambda m: m.vision.patch_weight.reshape(
        -1, m.vc.patch_size, m.vc.patch_size, 3
    ).permute(0, 3, 1, 2),
    conv_flipped=lambda m: m.vision.patch_weight.flip(2, 3),
    conv_bgr=lambda m: m.vision.patch_weight.flip(1),
)
over("flatten", patch_order=lambda m, grid: grid.transpose(2, 3).flatten(2).transpose(1, 2))


@seeded("patch-no-bias")
def _(port: Port) -> None:
    port.vision.patch_bias.zero_()


@seeded("patch-upside-down")
def _(port: Port) -> None:
    patches = port.patches
    patch = port.vc.patch_size
    port.patches = lambda x: patches(x[:, :, : x.shape[2] // patch * patch].flip(2))


# ---------------------------------------------------------------------------- attention


def _by_head(m: Port, x: Any, p: Any, tower: str) -> list[Any]:
    fused = x @ torch.cat(p.qkv).T
    fused = fused.unflatten(-1, (m.heads[tower], 3, -1))
    return [fused[..., i, :].flatten(-2) for i in range(3)]


def _minor(m: Port, x: Any, p: Any, tower: str) -> list[Any]:
    fused = (x @ torch.cat(p.qkv).T).unflatten(-1, (-1, 3))
    return list(fused.unbind(-1))


def _picked(*order: int) -> Any:
    return lambda m, x, p, tower: [x @ p.qkv[i].T for i in order]


def _qkv_memory(m: Port, x: Any, p: Any, tower: str) -> list[Any]:
    whole = torch.cat(p.qkv)
    return list((x @ whole.reshape(whole.shape[1], -1)).chunk(3, -1))


over(
    "qkv",
    qkv_interleaved=_by_head,
    qkv_minor=_minor,
    qk_swapped=_picked(1, 0, 2),
    kv_swapped=_picked(0, 2, 1),
    qv_swapped=_picked(2, 1, 0),
    qkv_transposed=lambda m, x, p, tower: [x @ w for w in p.qkv],
    qkv_memory=_qkv_memory,
    weights_bf16=lambda m, x, p, tower: [x @ w.bfloat16().float().T for w in p.qkv],
)


def _qk_norm(m: Port, x: Any, p: Any, tower: str) -> list[Any]:
    q, k, v = Port.qkv(m, x, p, tower)
    heads = m.heads[tower]
    return [*(unit(y.unflatten(-1, (heads, -1)), 1e-6).flatten(-2) for y in (q, k)), v]


over("qkv", qk_norm=_qk_norm)


def _more_heads(factor: float) -> Seed:
    def seed(port: Port) -> None:
        port.heads = {t: max(int(h * factor), 1) for t, h in port.heads.items()}
        pool = port.pool

        def as_it_was(x: Any, raw: Any) -> Any:
            heads, port.heads = port.heads, {"vision": port.vc.num_attention_heads}
            try:
                return pool(x, raw)
            finally:
                port.heads = heads

        port.pool = as_it_was

    return seed


PORT["head-dim-64"] = _more_heads(2)
PORT["heads-halved"] = _more_heads(0.5)
PORT["heads-one"] = _more_heads(0)


def _trunk_only(method: str, wrong: Any) -> Seed:
    """In the blocks, not in the pooling head."""

    def seed(port: Port) -> None:
        right = getattr(port, method)
        pool = port.pool
        setattr(port, method, MethodType(wrong, port))

        def as_it_was(x: Any, raw: Any) -> Any:
            kept = getattr(port, method)
            setattr(port, method, right)
            try:
                return pool(x, raw)
            finally:
                setattr(port, method, kept)

        port.pool = as_it_was

    return seed


PORT |= {
    "heads-interleaved": _trunk_only(
        "split", lambda m, x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)
    ),
    "heads-not-split": _trunk_only(
        "split", lambda m, x, heads: x.reshape(len(x), heads, x.shape[1], -1)
    ),
    "heads-not-merged": _trunk_only(
        "merge", lambda m, x: x.reshape(len(x), x.shape[2], -1)
    ),
    "scale-missing": _trunk_only("scores", lambda m, q, k: q @ k.transpose(-1, -2)),
    "scale-width": _trunk_only(
        "scores",
        lambda m, q, k: q @ k.transpose(-1, -2) / math.sqrt(q.shape[1] * q.shape[-1]),
    ),
    "scale-twice": _trunk_only("scores", lambda m, q, k: q @ k.transpose(-1, -2) / q.shape[-1]),
    "softmax-queries": _trunk_only("weigh", lambda m, s: s.softmax(-2)),
    "softmax-missing": _trunk_only("weigh", lambda m, s: s.masked_fill(s.isinf(), 0)),
    "softmax-plus-one": _trunk_only(
        "weigh", lambda m, s: F.pad(s, (0, 1)).softmax(-1)[..., :-1]
    ),
    "softmax-bf16": _trunk_only(
        "weigh", lambda m, s: s.bfloat16().float().softmax(-1).bfloat16().float()
    ),
    "pattern-transposed": _trunk_only("weigh", lambda m, s: s.softmax(-1).transpose(-1, -2)),
    "scores-fp16": _trunk_only("scores", lambda m, q, k: Port.scores(m, q, k).half().float()),
}  # fmt: skip

over(
    "proj",
    no_proj=lambda m, merged, p: merged,
    proj_transposed=lambda m, merged, p: merged @ p.proj,
)
over(
    "add_attention",
    no_attention_residual=lambda m, x, attended, normed, p: attended,
    no_attention=lambda m, x, attended, normed, p: x,
)


@seeded("vision-causal")
def _(port: Port) -> None:
    hidden = port.hidden
    port.hidden = lambda tower, n, mask: (
        torch.ones(n, n, dtype=torch.bool).triu(1)[None, None]
        if tower == "vision"
        else hidden(tower, n, mask)
    )


# ---------------------------------------------------------------------------- mlp

over(
    "activate",
    gelu=lambda m, x: F.gelu(x),
    gelu_tanh=lambda m, x: F.gelu(x, approximate="tanh"),
    quick_gelu=lambda m, x: x * torch.sigmoid(1.702 * x),
    relu=lambda m, x: F.relu(x),
    gate_sigmoid=lambda m, x: torch.sigmoid(x),
    gate_linear=lambda m, x: x,
)
over(
    "combine",
    silu_on_up=lambda m, gate, up: gate * F.silu(up),
    no_up=lambda m, gate, up: F.silu(gate),
    gate_added=lambda m, gate, up: F.silu(gate) + up,
)
over(
    "add_mlp",
    no_mlp_residual=lambda m, middle, out, normed, x, p: out,
    no_mlp=lambda m, middle, out, normed, x, p: middle,
    mlp_residual_from_input=lambda m, middle, out, normed, x, p: x + out,
)
