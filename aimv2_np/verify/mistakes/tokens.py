"""Tokenisation: how texts become ids and a mask.

A mistake here takes RawTexts and gives ones with some steps replaced. That runs of white space do
not become one space is none: CLIP's pattern passes over white space, so that no id changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ...ops import Array
from ..raw import RawTexts
from . import mistake

Replaced = Callable[[RawTexts], RawTexts]
Rows = Sequence[Sequence[int]]

_NORMAL = "Unicode's composed form (NFC), then lower case"
_WORDS = "CLIP's pattern: runs of letters, single digits, runs of anything else but white space"
_ENDS = "begin token, words, end token; where a text is too long its words are cut, never that end"
_PADDING = "pad on the right with the end token, the mask 1 for every token, the end included"


def _raw(id: str, says: str, remedy: str, seen_in: str = "") -> Callable[[Replaced], Replaced]:
    entered = mistake(id, "raw.input_ids", says=says, remedy=remedy, seen_in=seen_in)
    return cast(Callable[[Replaced], Replaced], entered)


# ---------------------------------------------------------------------------- words


@_raw("not-lower-cased", "texts are not lower-cased", _NORMAL, seen_in="ports")
def not_lower_cased(r: RawTexts) -> RawTexts:
    """NFC only."""
    from tokenizers import normalizers

    return replace(r, split=lambda raw: raw.encoded(normalizer=normalizers.NFC()))


@_raw("no-nfc", "texts are not brought to Unicode's composed form", _NORMAL, seen_in="ports")
def no_nfc(r: RawTexts) -> RawTexts:
    """An accent that is a character of its own stays one."""
    from tokenizers import normalizers

    return replace(r, split=lambda raw: raw.encoded(normalizer=normalizers.Lowercase()))


def _pattern(id: str, says: str, pattern: str) -> None:
    """Words by another pattern than CLIP's."""

    def patch(r: RawTexts) -> RawTexts:
        from tokenizers import Regex, pre_tokenizers

        words = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        parts = pre_tokenizers.Sequence([words, letters])
        return replace(r, split=lambda raw: raw.encoded(pre_tokenizer=parts))

    _raw(id, says, _WORDS)(patch)


_pattern("split-at-spaces", "texts are split at white space only", r"\S+")
_pattern(
    "numbers-whole",
    "a number is one word, not one for each digit",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]+|[^\s\p{L}\p{N}]+",
)
_pattern(
    "no-contractions",
    "'s, 't and their like are not words of their own",
    r"[\p{L}']+|[\p{N}]|[^\s\p{L}\p{N}']+",
)


@_raw("ids-shifted", "ids are off by one", "the first token of the vocabulary has the id 0")
def ids_shifted(r: RawTexts) -> RawTexts:
    """Counted from 1."""
    return replace(r, pad=lambda raw, rows: r.pad(raw, rows) + 1)


# ---------------------------------------------------------------------------- begin and end


@_raw("no-begin", "the begin token is missing", _ENDS, seen_in="ports")
def no_begin(r: RawTexts) -> RawTexts:
    """Words, end."""
    return replace(r, frame=lambda raw, row: [*row, raw.end])


@_raw("no-end", "the end token is missing", _ENDS, seen_in="ports")
def no_end(r: RawTexts) -> RawTexts:
    """Begin, words."""
    return replace(r, frame=lambda raw, row: [raw.begin, *row], cut=_cut_off)


@_raw("no-begin-no-end", "begin and end token are missing", _ENDS, seen_in="ports")
def no_begin_no_end(r: RawTexts) -> RawTexts:
    """As with add_special_tokens=False."""
    return replace(r, frame=lambda raw, row: row, cut=_cut_off)


@_raw("begin-is-end", "the end token stands where the begin token should", _ENDS)
def begin_is_end(r: RawTexts) -> RawTexts:
    """The same token at both ends."""
    return replace(r, frame=lambda raw, row: [raw.end, *row, raw.end])


def _cut_off(r: RawTexts, row: Sequence[int]) -> list[int]:
    return list(row[: r.tokenizer.max_length])


@_raw("eos-truncated", "a text that is too long loses its end token", _ENDS, seen_in="ports")
def eos_truncated(r: RawTexts) -> RawTexts:
    """row[:length]."""
    return replace(r, cut=_cut_off)


@_raw("cut-at-front", "a text that is too long loses its beginning", _ENDS)
def cut_at_front(r: RawTexts) -> RawTexts:
    """row[-length:]."""
    return replace(r, cut=lambda raw, row: list(row[-raw.tokenizer.max_length :]))


@_raw("not-cut", "texts that are too long are not cut", _ENDS)
def not_cut(r: RawTexts) -> RawTexts:
    """Longer than the model's context."""
    return replace(r, cut=lambda raw, row: list(row))


# ---------------------------------------------------------------------------- padding


@_raw(
    "padded-with-0",
    "texts are padded with id 0 instead of with the end token",
    f"{_PADDING} (no token sees padding, so features are right nevertheless)",
    seen_in="CLIP, ports",
)
def padded_with_0(r: RawTexts) -> RawTexts:
    """As in CLIP's own tokenizer."""
    return replace(r, pad=lambda raw, rows: np.where(_ones(rows), r.pad(raw, _lists(rows)), 0))


@_raw("padded-left", "texts are padded on the left", _PADDING, seen_in="ports of language models")
def padded_left(r: RawTexts) -> RawTexts:
    """Each text ends at the end of its row."""

    def pad(raw: RawTexts, rows: Rows) -> Array:
        return _rolled(r.pad(raw, _lists(rows)), rows)

    return replace(r, pad=pad, mask=lambda raw, rows: _rolled(_ones(rows), rows))


def _lists(rows: Rows) -> list[list[int]]:
    return [list(row) for row in rows]


def _ones(rows: Rows) -> Array:
    """1 for every token, (K, T)."""
    lengths = np.array([len(row) for row in rows])
    return (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)


def _rolled(table: Array, rows: Rows) -> Array:
    """Each row's padding moved to its front."""
    return np.stack(
        [np.roll(line, len(line) - len(row)) for line, row in zip(table, rows, strict=True)]
    )


def _mask(id: str, says: str, of: Callable[[RawTexts, Any], Array], seen_in: str = "") -> None:
    """Another mask."""
    _raw(id, says, _PADDING, seen_in)(lambda r: replace(r, mask=of))


_mask(
    "attention-mask-inverted", "the mask is 1 for padding", lambda r, rows: 1 - _ones(rows), "ports"
)
_mask(
    "attention-mask-of-ones",
    "the mask is 1 for padding, too",
    lambda r, rows: np.ones_like(_ones(rows)),
    "ports",
)
_mask(
    "attention-mask-hides-end",
    "the mask hides the end token of each text, which has the id of padding",
    lambda r, rows: (r.pad(r, rows) != r.tokenizer.pad_token_id).astype(np.int64),
    "masks made by comparing ids",
)
