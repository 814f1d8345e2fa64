"""Mistakes made in a live timm model, apart from the library that has to name them.

`TIMM` maps the id that the verifier should give to what makes the mistake in a model that
`adapters.timm.build` made, and the first activation that timm shows to be wrong then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Seed = Callable[[Any], None]
TIMM: dict[str, tuple[Seed, str]] = {}
MISTAKEN: dict[str, tuple[Seed, str]] = {}  # the same, of what the verifier does not get right


def at(place: str, *, named: bool = True, **seeds: Seed) -> None:
    """Enter mistakes that show first at one place: id (with _ for -) = what makes it."""
    entered = TIMM if named else MISTAKEN
    entered.update({id.replace("_", "-"): (seed, f"vision.{place}") for id, seed in seeds.items()})


def each(path: str, change: Callable[[Any], Any]) -> Seed:
    """A change to a module; to one in every block if its path begins with "block"."""

    def seed(built: Any) -> None:
        first, _, inside = path.partition(".")
        with torch.no_grad():
            for owner in built.blocks if first == "block" else [built]:
                change(owner.get_submodule(inside if first == "block" else path))

    return seed


def norms(change: Callable[[Any], Any]) -> Seed:
    """A change to every norm."""

    def seed(built: Any) -> None:
        with torch.no_grad():
            for module in built.modules():
                if type(module).__name__ == "RmsNorm":
                    change(module)

    return seed


def replaced(name: str, module: nn.Module) -> Callable[[Any], None]:
    """Another module: a copy for each owner, or hooks would take them for one."""
    return lambda owner: setattr(owner, name, deepcopy(module))


def weight(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Another weight, in place."""
    return lambda module: module.weight.copy_(change(module.weight.clone()))


def memory(module: Any) -> None:
    """A matrix read in the other order."""
    weight(lambda w: w.reshape(w.shape[::-1]).T)(module)


def runs(forward: Callable[..., Any]) -> Callable[[Any], None]:
    """Another forward: of the module and its input."""
    return lambda module: setattr(module, "forward", lambda x, **how: forward(module, x))


def bf16(x: Any) -> Any:
    return x.bfloat16().float()


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


# ---------------------------------------------------------------------------- norms


def unit(x: Any, eps: float = 1e-5) -> Any:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def all_tokens(m: Any, x: Any) -> Any:
    mean = x.square().mean(tuple(range(1, x.ndim)), keepdim=True)
    return x * torch.rsqrt(mean + m.eps) * m.weight


at(
    "patch_norm",
    rms_eps=norms(lambda m: setattr(m, "eps", 1e-6)),
    rms_eps_outside=norms(
        runs(lambda m, x: x / (x.square().mean(-1, keepdim=True).sqrt() + m.eps) * m.weight)
    ),
    rms_is_layernorm=norms(runs(lambda m, x: F.layer_norm(x, x.shape[-1:], m.weight, eps=1e-5))),
    rms_is_l2=norms(
        runs(lambda m, x: x * torch.rsqrt(x.square().sum(-1, keepdim=True) + m.eps) * m.weight)
    ),
    rms_all_tokens=norms(runs(all_tokens)),
    rms_plus_one=norms(weight(lambda w: w + 1)),
    rms_no_weight=norms(weight(torch.ones_like)),
    rms_rounding=norms(runs(lambda m, x: bf16(unit(x)) * m.weight)),
    no_patch_norm=each("patch_embed", replaced("norm", nn.Identity())),
)


def exchanged(a: str, b: str) -> Callable[[Any], None]:
    def change(owner: Any) -> None:
        first, second = getattr(owner, a), getattr(owner, b)
        setattr(owner, a, second)
        setattr(owner, b, first)

    return change


at(
    "blocks.0.norm_1",
    no_norm_1=each("block", replaced("norm1", nn.Identity())),
    norms_swapped=each("block", exchanged("norm1", "norm2")),
)
at("blocks.0.norm_2", no_norm_2=each("block", replaced("norm2", nn.Identity())))
at("norm", no_final_norm=each("", replaced("norm", nn.Identity())))

# ---------------------------------------------------------------------------- patches, positions

at(
    "patch_embed",
    conv_bgr=each("patch_embed.proj", weight(lambda w: w.flip(1))),
    conv_flipped=each("patch_embed.proj", weight(lambda w: w.flip(2, 3))),
    conv_transposed=each("patch_embed.proj", weight(lambda w: w.transpose(2, 3))),
    conv_hwi=each(
        "patch_embed.proj",
        weight(lambda w: w.reshape(len(w), *w.shape[2:], 3).permute(0, 3, 1, 2)),
    ),
    patch_no_bias=each("patch_embed.proj", lambda m: m.bias.zero_()),
)


def table(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Another table of positions, (N, D)."""
    return lambda built: built.pos_embed.copy_(change(built.pos_embed[0].clone())[None])


def positions(of_grid: Callable[[Any, tuple[int, int]], Any]) -> Callable[[Any], None]:
    """Positions from the table and a grid; of other grids timm resamples them."""

    def change(built: Any) -> None:
        built._pos_embed = lambda x: x.flatten(1, 2) + of_grid(built.pos_embed, x.shape[1:3])

    return change


def resampled(pos_embed: Any, grid: tuple[int, int], **how: Any) -> Any:
    side = math.isqrt(pos_embed.shape[1])
    square = pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(square, size=grid, **how).flatten(2).transpose(1, 2)


def as_it_is(pos_embed: Any, grid: tuple[int, int]) -> Any:
    if grid[0] * grid[1] == pos_embed.shape[1]:
        return pos_embed
    return resampled(pos_embed, grid, mode="bicubic", antialias=True)


def by_columns(built: Any) -> None:
    """In timm's own order of steps the convolution has the patches in rows and columns still."""
    norm = built.patch_embed.norm.forward
    built.patch_embed.norm.forward = lambda x: norm(x.transpose(1, 2).reshape(x.shape))


at("patch_norm", patch_order=each("", by_columns))  # where it is made, nobody looks for it
at(
    "embed",
    no_positions=each("", table(torch.zeros_like)),
    pos_reversed=each("", table(lambda t: t.flip(0))),
    pos_bilinear=each("", positions(partial(resampled, mode="bilinear"))),
    pos_slice=each("", positions(lambda t, grid: t[:, : grid[0] * grid[1]])),
    pos_interpolate=each("", positions(as_it_is)),
)

# ---------------------------------------------------------------------------- attention


def thirds(*order: int) -> Callable[[Any], None]:
    return weight(lambda w: torch.cat([w.chunk(3)[i] for i in order]))


def heads(factor: float) -> Callable[[Any], None]:
    def change(attn: Any) -> None:
        attn.num_heads = max(int(attn.num_heads * factor), 1)
        attn.head_dim = attn.attn_dim // attn.num_heads

    return change


def by_head(m: Any) -> None:
    rows = m.qkv.weight.clone().unflatten(0, (m.num_heads, 3, m.head_dim))
    m.qkv.weight.copy_(rows.transpose(0, 1).flatten(0, 2))


at(
    "blocks.0.attn.q",
    qk_swapped=each("block.attn.qkv", thirds(1, 0, 2)),
    qv_swapped=each("block.attn.qkv", thirds(2, 1, 0)),
    qkv_interleaved=each("block.attn", by_head),
    qkv_minor=each(
        "block.attn.qkv", weight(lambda w: w.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1))
    ),
    qkv_transposed=each("block.attn.qkv", weight(lambda w: torch.cat([t.T for t in w.chunk(3)]))),
    qkv_memory=each("block.attn.qkv", memory),
    weights_bf16=each("block.attn.qkv", weight(bf16)),
)
at("blocks.0.attn.k", kv_swapped=each("block.attn.qkv", thirds(0, 2, 1)))


def attention(
    split: Callable[[Any, int], Any] = lambda x, n: x.unflatten(-1, (n, -1)).transpose(1, 2),
    weigh: Callable[[Any], Any] = lambda scores: scores.softmax(-1),
    merge: Callable[[Any], Any] = lambda context: context.transpose(1, 2).flatten(2),
) -> Seed:
    """Attention in steps, one of them mistaken."""

    def forward(m: Any, x: Any) -> Any:
        q, k, v = (split(y, m.num_heads) for y in m.qkv(x).chunk(3, -1))
        return m.proj(merge(weigh(q @ k.mT * m.scale) @ v))

    return each("block.attn", runs(forward))


def scaled(scale: Callable[[Any], float]) -> Callable[[Any], None]:
    """timm's own attention of separate steps, with another scale."""

    def change(attn: Any) -> None:
        attn.fused_attn, attn.scale = False, scale(attn)

    return change


def qk_norm(attn: Any) -> None:
    attn.q_norm = attn.k_norm = Applied(partial(unit, eps=1e-6))


def causal(attn: Any) -> None:
    right = attn.forward
    attn.forward = lambda x, **how: right(x, is_causal=True)


at(
    "blocks.0.attn.context",
    scale_missing=each("block.attn", scaled(lambda m: 1.0)),
    scale_width=each("block.attn", scaled(lambda m: m.attn_dim**-0.5)),
    scale_twice=each("block.attn", scaled(lambda m: 1 / m.head_dim)),
    head_dim_64=each("block.attn", heads(2)),
    heads_halved=each("block.attn", heads(0.5)),
    heads_one=each("block.attn", heads(0)),
    context_not_merged=attention(merge=lambda c: c.reshape(len(c), c.shape[2], -1)),
    softmax_queries=attention(weigh=lambda scores: scores.softmax(-2)),
    softmax_missing=attention(weigh=lambda scores: scores),
    softmax_plus_one=attention(weigh=lambda s: F.pad(s, (0, 1)).softmax(-1)[..., :-1]),
    softmax_bf16=attention(weigh=lambda s: bf16(bf16(s).softmax(-1))),
    pattern_transposed=attention(weigh=lambda scores: scores.softmax(-1).mT),
    vision_causal=each("block.attn", causal),
)
at(  # timm is seen to make q, k and v before it splits them
    "blocks.0.attn.context",
    heads_interleaved=attention(split=lambda x, n: x.unflatten(-1, (-1, n)).permute(0, 3, 1, 2)),
    heads_not_split=attention(split=lambda x, n: x.reshape(len(x), n, x.shape[1], -1)),
    qk_norm=each("block.attn", qk_norm),
)
at(
    "blocks.0.attn.out",
    no_proj=each("block.attn", replaced("proj", nn.Identity())),
    proj_transposed=each("block.attn.proj", weight(lambda w: w.T)),
)

# ---------------------------------------------------------------------------- mlp, residuals


def both(mlp: Any) -> None:
    memory(mlp.fc1_g)
    memory(mlp.fc1_x)


def product(combine: Callable[[Any, Any], Any]) -> Seed:
    """The MLP with another product of gate and up projection."""
    return each("block.mlp", runs(lambda m, x: m.fc2(combine(m.fc1_g(x), m.fc1_x(x)))))


at(
    "blocks.0.mlp.gate",
    gate_swap=each("block.mlp", exchanged("fc1_g", "fc1_x")),
    fc1_memory=each("block.mlp", both),
)
at(
    "blocks.0.mlp.hidden",
    gelu=each("block.mlp", replaced("act", nn.GELU())),
    gelu_tanh=each("block.mlp", replaced("act", nn.GELU(approximate="tanh"))),
    quick_gelu=each("block.mlp", replaced("act", Applied(lambda x: x * torch.sigmoid(1.702 * x)))),
    relu=each("block.mlp", replaced("act", nn.ReLU())),
    gate_sigmoid=each("block.mlp", replaced("act", nn.Sigmoid())),
    gate_linear=each("block.mlp", replaced("act", nn.Identity())),
    silu_on_up=product(lambda gate, up: gate * F.silu(up)),
    no_up=product(lambda gate, up: F.silu(gate)),
    gate_added=product(lambda gate, up: F.silu(gate) + up),
)
at("blocks.0.mlp.out", fc2_memory=each("block.mlp.fc2", memory))


def added(
    middle: Callable[[Any, Any], Any] = lambda x, out: x + out,
    after: Callable[[Any, Any, Any], Any] = lambda x, middle, out: middle + out,
) -> Seed:
    """A block whose additions, of attention or of the MLP, are mistaken."""

    def forward(b: Any, x: Any) -> Any:
        mid = middle(x, b.attn(b.norm1(x)))
        return after(x, mid, b.mlp(b.norm2(mid)))

    return each("block", runs(forward))


def parallel(b: Any, x: Any) -> Any:
    return x + b.attn(b.norm1(x)) + b.mlp(b.norm2(x))


def from_normed(b: Any, x: Any) -> Any:
    normed = b.norm1(x)
    normed = b.norm2(normed + b.attn(normed))
    return normed + b.mlp(normed)


at(
    "blocks.0.resid_mid",
    no_attention=each("block", replaced("ls1", Applied(torch.zeros_like))),
    no_attention_residual=added(lambda x, out: out),
    residual_normed=each("block", runs(from_normed)),
    residual_bf16=added(lambda x, out: bf16(x + out), lambda x, mid, out: bf16(mid + out)),
)
# What enters norm_2 is taken for resid_mid: no-attention is told.
at("blocks.0.resid_mid", named=False, parallel_block=each("block", runs(parallel)))
at(
    "blocks.0.resid_post",
    no_mlp=each("block", replaced("ls2", Applied(torch.zeros_like))),
    no_mlp_residual=added(after=lambda x, mid, out: out),
    mlp_residual_from_input=added(after=lambda x, mid, out: x + out),
)

# ---------------------------------------------------------------------------- blocks


def order(which: Callable[[int, int], int]) -> Seed:
    """Blocks with the weights of others."""

    def seed(built: Any) -> None:
        n = len(built.blocks)
        built.blocks = nn.Sequential(*(deepcopy(built.blocks[which(i, n)]) for i in range(n)))

    return seed


def skipped(which: slice) -> Seed:
    """Blocks that let everything pass."""

    def seed(built: Any) -> None:
        for block in list(built.blocks)[which]:
            runs(lambda block, x: x)(block)

    return seed


at("blocks.1.resid_post", block_skipped=skipped(slice(1, 2)))
at("blocks.2.resid_post", layer_count=skipped(slice(2, None)))
at("blocks.3.resid_post", penultimate=skipped(slice(3, None)))
at(
    "blocks.0.norm_1",
    layer_next=order(lambda i, n: (i + 1) % n),
    layers_reversed=order(lambda i, n: n - 1 - i),
)
at(
    "blocks.1.norm_1",
    layer_previous=order(lambda i, n: max(i - 1, 0)),
    layers_tied=order(lambda i, n: 0),
)
