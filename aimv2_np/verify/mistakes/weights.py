"""Weights: read in the wrong layout, of the wrong layer, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers, ops
from ...layers import merge_heads, split_heads
from ...ops import Array
from ..walk import Step, short
from . import mistake, wrong_layer
from .attention import projected, which

_STORED = "matrices are stored (out, in): y = x @ Wᵀ"


def _transposed(weight: Array) -> Array:
    """A matrix whose memory is read as (in, out)."""
    return weight.T if len(weight) == weight.shape[1] else weight.reshape(weight.shape[::-1]).T


@mistake(
    "qkv-transposed",
    "*.attn.q",
    "*.attn.k",
    "*.attn.v",
    says="the matrices of q, k and v are transposed",
    remedy=_STORED,
)
def qkv_transposed(s: Step) -> Any:
    """x W for x Wᵀ, each of the three."""
    return projected(s, s.p.qkv[which(s)].T)


@mistake(
    "qkv-memory",
    "*.attn.q",
    "*.attn.k",
    "*.attn.v",
    says="the qkv matrix, stored (3·width, width), is read as (width, 3·width)",
    remedy=_STORED,
)
def qkv_memory(s: Step) -> Any:
    """The same memory, the shape reversed."""
    whole = np.concatenate(s.p.qkv)
    width = whole.shape[1]
    return projected(s, _transposed(whole)[which(s) * width :][:width])


@mistake(
    "proj-transposed",
    "*.attn.out",
    says="attention's output projection is transposed",
    remedy=_STORED,
)
def proj_transposed(s: Step) -> Any:
    """x W for x Wᵀ."""
    return ops.linear(merge_heads(s["attn.context"]), s.p.proj.T)


@mistake(
    "fc1-memory",
    "*.mlp.gate",
    "*.mlp.up",
    says="fc1 and fc3, stored (hidden, width), are read as (width, hidden)",
    remedy=_STORED,
)
def fc1_memory(s: Step) -> Any:
    """The same memory, the shape reversed."""
    return ops.linear(s["norm_2"], _transposed(s.p.fc1 if s.name.endswith("gate") else s.p.fc3))


@mistake(
    "fc2-memory",
    "*.mlp.out",
    says="fc2, stored (width, hidden), is read as (hidden, width)",
    remedy=_STORED,
)
def fc2_memory(s: Step) -> Any:
    """The same memory, the shape reversed."""
    return ops.linear(s["mlp.hidden"], _transposed(s.p.fc2))


@mistake(
    "head-transposed",
    "vision.head.k",
    "vision.head.v",
    "vision.pooled",
    says="the pooling head's matrices are transposed",
    remedy=_STORED,
)
def head_transposed(s: Step) -> Any:
    """x W for x Wᵀ: k, v and the last layer."""
    head = s.p.head
    if short(s.name) == "pooled":
        context = merge_heads(s["head.context"])[:, 0]
        return ops.linear(context, head.linear_weight.T, head.linear_bias)
    return split_heads(ops.linear(s["norm"], getattr(head, s.name[-1]).T), s.heads)


# ---------------------------------------------------------------------------- layers


_PLACE = "blocks.i of the checkpoint is block i, counted from 0"
wrong_layer(
    "layer-next",
    lambda i, n: (i + 1) % n,
    says="each block has the weights of the next one",
    remedy=_PLACE,
)
wrong_layer(
    "layer-previous",
    lambda i, n: max(i - 1, 0),
    says="each block has the weights of the one before it",
    remedy=_PLACE,
)
wrong_layer(
    "layers-reversed",
    lambda i, n: n - 1 - i,
    says="the blocks are in reverse order",
    remedy=_PLACE,
)
wrong_layer(
    "layers-tied",
    lambda i, n: 0,
    says="every block has the weights of block 0",
    remedy=_PLACE,
)
wrong_layer(
    "layers-sorted-as-text",
    lambda i, n: sorted(range(n), key=str)[i],
    says="the blocks are sorted as text: 0, 1, 10, 11, …, 2",
    remedy="sort the blocks by number",
)


@mistake(
    "layer-count",
    "*.blocks.*.resid_post",
    says="only the first two thirds of the blocks run (16 of 24)",
    remedy="num_hidden_layers is 24 in every official vision encoder, 12 in the text encoder",
    seen_in="a hand-written config",
)
def layer_count(s: Step) -> Any:
    """The last third of the blocks is skipped."""
    return s.value if s.layer < len(s.encoder.params.blocks) * 2 // 3 else s.x


@mistake(
    "penultimate",
    "*.blocks.*.resid_post",
    says="the last block is left out: features are those of the block before it",
    remedy="run every block (language models often take the last but one on purpose)",
    seen_in="LLaVA and its descendants",
)
def penultimate(s: Step) -> Any:
    """The last block is skipped."""
    return s.x if s.layer == len(s.encoder.params.blocks) - 1 else s.value


@mistake(
    "block-skipped",
    "*.blocks.*.resid_post",
    says="a block is skipped",
    remedy="run every block of the checkpoint",
)
def block_skipped(s: Step) -> Any:
    """What entered leaves."""
    return s.x


@mistake(
    "block-twice",
    "*.blocks.*.resid_post",
    says="a block runs twice",
    remedy="run every block once",
)
def block_twice(s: Step) -> Any:
    """Once more."""
    c = s.encoder.config
    return layers.block(s.encoder.backend, s.value, s.p, s.heads, c.rms_norm_eps, **s.sees)
