"""What a port makes of raw texts: right ids and masks pass, mistakes are named."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preprocess_reports import compared, pipeline, taps

from aimv2_np.tokenizer_files import load_backend
from aimv2_np.verify.mistakes import Mistake, every
from aimv2_np.verify.raw import RawTexts

TEXTS = [m for m in every() if m.at("raw.input_ids")]


# ---------------------------------------------------------------------------- texts


def right_texts() -> dict[str, np.ndarray]:
    """Ids and mask as CLIP's own code makes them, given the pieces of each word."""
    model, inputs = pipeline()
    rows = []
    for text in inputs.texts:
        text = " ".join(unicodedata.normalize("NFC", text).lower().split())
        words = model.tokenizer(text, max_length=1000).input_ids[0, 1:-1].tolist()
        rows.append([3998, *words[:30], 3999])
    ids = np.full((len(rows), max(map(len, rows))), 3999)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def raw_texts(*mistakes: Mistake) -> dict[str, np.ndarray]:
    model, inputs = pipeline()
    backend, *_ = load_backend(Path(model.tokenizer.source).parent, 3999, None)
    raw: Any = RawTexts(inputs.texts, model.tokenizer, backend)
    for mistake in mistakes:
        raw = mistake.patch(raw)
    return raw.tokens()


def test_ids_and_mask_that_are_right_pass() -> None:
    right = right_texts()
    for given in (right, raw_texts(), {"input_ids": right["input_ids"].astype(np.float32)}):
        assert compared("emoji-lit", given).ok
    longer = {name: np.pad(a, ((0, 0), (0, 45)), constant_values=3999 * (name == "input_ids"))
              for name, a in right.items()}  # fmt: skip
    report = compared("emoji-lit", longer)
    assert report.ok
    assert {tap.note for tap in taps(report)} == {"padded to 77 tokens"}


BY_HAND: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]] = {
    "ids-shifted": lambda ids, mask: (ids + 1, mask),
    "padded-with-0": lambda ids, mask: (ids * mask, mask),
    "attention-mask-inverted": lambda ids, mask: (ids, 1 - mask),
    "attention-mask-of-ones": lambda ids, mask: (ids, np.ones_like(mask)),
    "attention-mask-hides-end": lambda ids, mask: (ids, ids != 3999),
    "begin-is-end": lambda ids, mask: (np.where(ids == 3998, 3999, ids), mask),
    "padded-left": lambda ids, mask: tuple(
        np.stack([np.roll(row, -real.sum()) for row, real in zip(a, mask, strict=True)])
        for a in (ids, mask)
    ),
    "ids-shifted + attention-mask-inverted": lambda ids, mask: (ids + 1, 1 - mask),
}


@pytest.mark.parametrize("named", BY_HAND)
def test_the_mistake_of_a_tokenizer_is_named(named: str) -> None:
    right = right_texts()
    ids, mask = BY_HAND[named](right["input_ids"], right["attention_mask"])
    report = compared("emoji-lit", {"input_ids": ids, "attention_mask": mask})
    (finding,) = report.findings
    assert [cause.id for cause in finding.causes] == [named]
    assert "differ, the first in texts[" in finding.wrong.problem


@pytest.mark.parametrize("mistake", TEXTS, ids=lambda m: m.id)
def test_every_mistake_with_texts_is_told_from_every_other(mistake: Mistake) -> None:
    (finding,) = compared("emoji-lit", raw_texts(mistake)).findings
    assert [cause.id for cause in finding.causes] == [mistake.id]


def test_without_a_mask_a_missing_end_looks_like_one_cut_off() -> None:
    given = {"input_ids": raw_texts(*[m for m in TEXTS if m.id == "no-end"])["input_ids"]}
    (finding,) = compared("emoji-lit", given).findings
    assert {c.id for c in (finding.causes[0], *finding.alike)} == {"no-end", "eos-truncated"}


def test_white_space_cannot_show() -> None:
    tokenizer = pipeline()[0].tokenizer
    for text in ("two words", " two  words ", "two\n\twords\u3000"):
        np.testing.assert_array_equal(tokenizer(text).input_ids, tokenizer("two words").input_ids)
