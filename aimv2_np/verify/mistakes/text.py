"""The text encoder: who sees whom, and which token stands for the text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...ops import Array
from ..walk import Step
from . import mistake

_CAUSAL = "every token sees itself and those before it, whatever mask is passed"
_END = "the text's feature is that of its first end-of-text token"


def _scores(s: Step, **sees: Any) -> Array:
    return ops.attention_scores(s["attn.q"], s["attn.k"], **sees)


@mistake(
    "text-noncausal",
    "text.blocks.*.attn.scores",
    says="the text encoder is not causal where no token is masked: later tokens are seen",
    remedy=f"{_CAUSAL}; in transformers 5.23 pad the batch, or pass a mask with a zero in it",
    seen_in="transformers",
)
def text_noncausal(s: Step) -> Any:
    """Causal only where the mask hides a token."""
    mask = s.sees["key_mask"]
    return _scores(s) if mask is None or mask.all() else s.value


@mistake(
    "text-never-causal",
    "text.blocks.*.attn.scores",
    says="the text encoder is never causal: later tokens are seen",
    remedy=_CAUSAL,
    seen_in="ports",
)
def text_never_causal(s: Step) -> Any:
    """Only the padding is hidden."""
    return _scores(s, key_mask=s.sees["key_mask"])


@mistake(
    "text-padding-seen",
    "text.blocks.*.attn.scores",
    says="the text encoder is not causal, and padding is seen",
    remedy=_CAUSAL,
)
def text_padding_seen(s: Step) -> Any:
    """Nothing is hidden."""
    return _scores(s)


@mistake(
    "causal-strict",
    "text.blocks.*.attn.scores",
    says="a token does not see itself: the causal mask is off by one",
    remedy=_CAUSAL,
)
def causal_strict(s: Step) -> Any:
    """Keys before the query only; the first token sees itself, or softmax would have nothing."""
    tokens = s.value.shape[-1]
    seen = np.tri(tokens, k=-1, dtype=bool)
    seen[0, 0] = True
    return np.where(seen, s.value, -np.inf)


@mistake(
    "causal-loose",
    "text.blocks.*.attn.scores",
    says="a token sees the next one: the causal mask is off by one",
    remedy=_CAUSAL,
)
def causal_loose(s: Step) -> Any:
    """One key too many."""
    return np.where(np.tri(s.value.shape[-1], k=1, dtype=bool), _scores(s), -np.inf)


@mistake(
    "causal-reversed",
    "text.blocks.*.attn.scores",
    says="the causal mask is upside down: a token sees itself and those after it",
    remedy=_CAUSAL,
)
def causal_reversed(s: Step) -> Any:
    """The upper triangle."""
    return np.where(np.tri(s.value.shape[-1], dtype=bool).T, _scores(s), -np.inf)


@mistake(
    "mask-added",
    "text.blocks.*.attn.scores",
    says="the attention mask of ones and zeros is added to the scores as it is",
    remedy="turn a 0 of the mask into -inf and a 1 into 0; causality comes on top",
)
def mask_added(s: Step) -> Any:
    """scores + mask: a constant for all that is seen, so that nothing is hidden."""
    mask = s.sees["key_mask"]
    return s.value if mask is None else _scores(s) + mask[:, None, None, :]


@mistake(
    "mask-inverted",
    "text.blocks.*.attn.scores",
    says="the attention mask is inverted: only padding is seen",
    remedy="1 is a token, 0 is padding",
)
def mask_inverted(s: Step) -> Any:
    """Hidden and seen exchanged; a query with nothing to see keeps what it had."""
    mask = s.sees["key_mask"]
    if mask is None or mask.all():
        return s.value
    return _scores(s, causal=True, key_mask=~mask)


# ---------------------------------------------------------------------------- embedding


@mistake(
    "text-pos-offset",
    "text.pos_embed",
    says="the positions of the text begin at 1 instead of at 0",
    remedy="the begin token has position 0",
)
def text_pos_offset(s: Step) -> Any:
    """Rows 1 to T of the table."""
    table = s.encoder.params.positional_embedding
    return np.roll(table, -1, axis=0)[: len(s.value)]


@mistake(
    "text-pos-right",
    "text.pos_embed",
    says="the positions of the text are taken from the end of the table",
    remedy="the begin token has position 0, however short the text",
)
def text_pos_right(s: Step) -> Any:
    """The last T rows."""
    return s.encoder.params.positional_embedding[-len(s.value) :]


@mistake(
    "token-scaled",
    "text.token_embed",
    says="the token embedding is multiplied by sqrt(width)",
    remedy="embed = token_embed + pos_embed, nothing scaled",
)
def token_scaled(s: Step) -> Any:
    """As in the first transformers."""
    return s.value * np.sqrt(s.value.shape[-1])


@mistake(
    "token-shifted",
    "text.token_embed",
    says="token ids are off by one",
    remedy="the first row of the table belongs to id 0",
)
def token_shifted(s: Step) -> Any:
    """The row before."""
    return ops.embed_tokens(s["input_ids"] - 1, s.encoder.params.text_embedding)


# ---------------------------------------------------------------------------- pooling


def _at(s: Step, positions: Any) -> Array:
    return s["norm"][np.arange(len(s["norm"])), positions]


def _ids(s: Step) -> Array:
    return np.asarray(s.case.input_ids)[:, : s["norm"].shape[1]]


@mistake(
    "eos-last",
    "text.pooled",
    says="the text's feature is that of the last end token, which is padding",
    remedy=f"{_END} (padding has the same id)",
    seen_in="ports",
)
def eos_last(s: Step) -> Any:
    """The last position that holds the end token."""
    ids = _ids(s)
    last = ids.shape[1] - 1
    return _at(s, last - (ids[:, ::-1] == s.encoder.config.eos_token_id).argmax(axis=1))


@mistake(
    "text-pool-last",
    "text.pooled",
    says="the text's feature is that of the last position",
    remedy=_END,
)
def text_pool_last(s: Step) -> Any:
    """x[:, -1]."""
    return s["norm"][:, -1]


@mistake(
    "text-pool-before-end",
    "text.pooled",
    says="the text's feature is that of the token before the end token",
    remedy=_END,
)
def text_pool_before_end(s: Step) -> Any:
    """One too early."""
    return _at(s, s.end - 1)


@mistake(
    "text-pool-first",
    "text.pooled",
    says="the text's feature is that of the begin token",
    remedy=f"{_END}: in a causal encoder the begin token sees nothing else",
)
def text_pool_first(s: Step) -> Any:
    """x[:, 0], as in BERT; also where no end token was found."""
    return s["norm"][:, 0]


@mistake(
    "text-pool-mean",
    "text.pooled",
    says="the text's feature is the mean over its tokens",
    remedy=_END,
)
def text_pool_mean(s: Step) -> Any:
    """Over the tokens up to the end."""
    real = np.arange(s["norm"].shape[1]) <= s.end[:, None]
    weights = real / real.sum(axis=1, keepdims=True)
    return np.einsum("kt,ktd->kd", weights, s["norm"])


@mistake(
    "text-pool-largest-id",
    "text.pooled",
    says="the text's feature is that of the token with the largest id (CLIP's rule)",
    remedy=f"{_END}: look for eos_token_id",
)
def text_pool_largest_id(s: Step) -> Any:
    """argmax of the ids: the same wherever the end token has the largest id."""
    return _at(s, _ids(s).argmax(axis=1))


@mistake(
    "text-pool-before-norm",
    "text.pooled",
    says="the text's feature is taken before the final norm",
    remedy="pool after post_trunk_norm",
)
def text_pool_before_norm(s: Step) -> Any:
    """The residual stream at the end token."""
    return s.x[np.arange(len(s.x)), s.end]
