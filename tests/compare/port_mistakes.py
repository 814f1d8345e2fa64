"""Mistakes made in the port: written in PyTorch, apart from the library that has to name them.

`PORT` maps the id that the verifier should give to what makes the mistake in a `Port`.
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


def everywhere(name: str, change: Callable[[Any], Any]) -> Seed:
    """A change to one weight of every block."""

    def seed(port: Port) -> None:
        for tower in port.order:
            for block in port.tower(tower).blocks:
                setattr(block, name, change(getattr(block, name)))

    return seed


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
PORT["fc2-memory"] = everywhere("fc2", lambda w: w.reshape(w.shape[::-1]).T)


@seeded("gate-swap")
def _(port: Port) -> None:
    for tower in port.order:
        for block in port.tower(tower).blocks:
            block.fc1, block.fc3 = block.fc3, block.fc1


@seeded("fc1-memory")
def _(port: Port) -> None:
    for name in ("fc1", "fc3"):
        everywhere(name, lambda w: w.reshape(w.shape[::-1]).T)(port)


# ---------------------------------------------------------------------------- pooling

over(
    "pool",
    pool_mean=lambda m, x, raw: x.mean(1),
    pool_first=lambda m, x, raw: x[:, 0],
    pool_max=lambda m, x, raw: x.amax(1),
    pool_before_norm=lambda m, x, raw: Port.pool(m, raw, raw),
)
over("pool_query", pool_q_proj=lambda m: Port.pool_query(m) @ m.vision.head.k.T)
over(
    "pool_scores",
    pool_scale_missing=lambda m, q, k: q @ k.transpose(-1, -2),
    pool_scale_width=lambda m, q, k: q @ k.transpose(-1, -2) / math.sqrt(q.shape[1] * q.shape[-1]),
)
over(
    "pool_out",
    pool_no_bias=lambda m, c: c @ m.vision.head.linear_weight.T,
    pool_no_linear=lambda m, c: c,
    pool_query_residual=lambda m, c: Port.pool_out(m, c + m.vision.head.cls_token),
)


@seeded("pool-kv-swapped")
def _(port: Port) -> None:
    head = port.vision.head
    head.k, head.v = head.v, head.k


@seeded("head-transposed")
def _(port: Port) -> None:
    head = port.vision.head
    head.k, head.v, head.linear_weight = head.k.T, head.v.T, head.linear_weight.T


# ---------------------------------------------------------------------------- text


def _hidden(rule: Callable[[int, Any], Any]) -> Any:
    def hidden(m: Port, tower: str, n: int, mask: Any) -> Any:
        return None if tower == "vision" else rule(n, mask)

    return hidden


def _ones(n: int) -> Any:
    return torch.ones(n, n, dtype=torch.bool)[None, None]


def _strict(n: int, mask: Any) -> Any:
    hidden = _ones(n).triu(0)
    hidden[..., 0, 0] = False
    return hidden


def _mask_dependent(n: int, mask: Any) -> Any:
    if mask is None or mask.all():
        return None
    return _ones(n).triu(1) | ~mask[:, None, None, :]


over(
    "hidden",
    text_noncausal=_hidden(_mask_dependent),
    text_never_causal=_hidden(lambda n, mask: None if mask is None else ~mask[:, None, None, :]),
    text_padding_seen=_hidden(lambda n, mask: None),
    causal_strict=_hidden(_strict),
    causal_loose=_hidden(lambda n, mask: _ones(n).triu(2)),
    causal_reversed=_hidden(lambda n, mask: _ones(n).tril(-1)),
)
over(
    "text_positions",
    text_pos_offset=lambda m, n: m.text.positional_embedding[1 : n + 1],
    text_pos_right=lambda m, n: m.text.positional_embedding[-n:],
)
over(
    "token_embed",
    token_scaled=lambda m, ids: Port.token_embed(m, ids) * math.sqrt(m.tc.hidden_size),
    token_shifted=lambda m, ids: m.text.text_embedding[ids - 1],
)


def _last_end(m: Port, x: Any, ids: Any, raw: Any) -> Any:
    last = [int(torch.nonzero(row == m.tc.eos_token_id)[-1]) for row in ids]
    return x[torch.arange(len(x)), last]


def _mean(m: Port, x: Any, ids: Any, raw: Any) -> Any:
    ends = (ids == m.tc.eos_token_id).int().argmax(-1)
    return torch.stack([row[: end + 1].mean(0) for row, end in zip(x, ends, strict=True)])


over(
    "text_pool",
    eos_last=_last_end,
    text_pool_last=lambda m, x, ids, raw: x[:, -1],
    text_pool_before_end=lambda m, x, ids, raw: x[
        torch.arange(len(x)), (ids == m.tc.eos_token_id).int().argmax(-1) - 1
    ],
    text_pool_first=lambda m, x, ids, raw: x[:, 0],
    text_pool_mean=_mean,
    text_pool_before_norm=lambda m, x, ids, raw: Port.text_pool(m, raw, ids, raw),
)

# ---------------------------------------------------------------------------- joint

over(
    "project",
    projection_transposed=lambda m, x, which: x @ getattr(m.w, f"{which}_projector"),
    projection_missing=lambda m, x, which: x,
    projection_dim=lambda m, x, which: Port.project(m, x, which)[
        :, : m.config.projection_dim * 2 // 3
    ],
    projection_normed=lambda m, x, which: Port.project(m, F.normalize(x, dim=-1), which),
    projectors_swapped=lambda m, x, which: Port.project(
        m, x, "text" if which == "image" else "image"
    ),
)
over(
    "normalise",
    l2_missing=lambda m, x: x,
    l2_batch=lambda m, x: F.normalize(x, dim=0),
)
over(
    "temperature",
    logit_scale_log=lambda m: m.w.log_logit_scale,
    logit_scale_unclamped=lambda m: m.w.log_logit_scale.exp(),
    logit_scale_missing=lambda m: torch.ones(()),
    logit_scale_inverse=lambda m: (-m.w.log_logit_scale.clamp(0, math.log(100))).exp(),
)
over(
    "logits",
    logits_softmax=lambda m, i, t, s: (s * i @ t.T).softmax(-1),
    logits_transposed=lambda m, i, t, s: s * t @ i.T,
)

# ---------------------------------------------------------------------------- layers


def _order(which: Callable[[int, int], int | None]) -> Seed:
    def seed(port: Port) -> None:
        for tower, order in port.order.items():
            port.order[tower] = [which(i, len(order)) for i in order]

    return seed


PORT |= {
    "layer-next": _order(lambda i, n: (i + 1) % n),
    "layer-previous": _order(lambda i, n: max(i - 1, 0)),
    "layers-reversed": _order(lambda i, n: n - 1 - i),
    "layers-tied": _order(lambda i, n: 0),
    "layers-sorted-as-text": _order(lambda i, n: sorted(range(n), key=str)[i]),
    "layer-count": _order(lambda i, n: i if i < n * 2 // 3 else None),
    "penultimate": _order(lambda i, n: i if i < n - 1 else None),
}


@seeded("block-skipped")
def _(port: Port) -> None:
    port.order["vision"][1] = None


@seeded("block-twice")
def _(port: Port) -> None:
    block = port.block

    def twice(x: Any, p: Any, tower: str, mask: Any) -> Any:
        x = block(x, p, tower, mask)
        if (tower, port.layer) != ("vision", 1):
            return x
        taps = dict(port.taps)
        x = block(x, p, tower, mask)
        port.taps = taps  # those of the first pass
        return x

    port.block = twice


# ---------------------------------------------------------------------------- rounding


@seeded("residual-bf16")
def _(port: Port) -> None:
    port.add_attention = lambda x, attended, normed, p: (x + attended).bfloat16().float()
    port.add_mlp = lambda middle, out, normed, x, p: (middle + out).bfloat16().float()
