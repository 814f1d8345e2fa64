"""Mistakes made in the port: written in PyTorch, apart from the library that has to name them.

`PORT` maps the id that the verifier should give to what makes the mistake in a `Port`. Those of
pooling, texts, both towers together and weights are made here, the others in
port_mistakes_shared.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from .port import Port
from .port_mistakes_shared import PORT, Seed, over, seeded

__all__ = ["PORT"]

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

# ---------------------------------------------------------------------------- weights


def everywhere(name: str, change: Callable[[Any], Any]) -> Seed:
    """A change to one weight of every block."""

    def seed(port: Port) -> None:
        for tower in port.order:
            for block in port.tower(tower).blocks:
                setattr(block, name, change(getattr(block, name)))

    return seed


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
