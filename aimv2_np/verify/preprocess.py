"""Preprocessing and tokenisation, verified apart from the model.

A candidate may give, as case "raw", what it made of the raw images and texts of the inputs:
"pixel_values_{i}" of image i (or "pixel_values", a batch of all), "input_ids" and "attention_mask"
of the texts. A mistake here replaces a step of raw.py; mistakes/preprocessing.py and
mistakes/tokens.py have them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import AIMv2Warning, VerificationError
from ..ops import Array
from ..tokenizer_files import load_backend
from .candidate import Candidate, asked, images_apart
from .finding import Cause, Finding
from .inputs import RAW, Inputs
from .locate import ALLOWED, TapResult, noise_floor
from .measure import Distance
from .mistakes import Mistake, every
from .raw import RawImage, RawTexts
from .shapes import ShapeMismatch, reconciled

__all__ = ["compare_raw"]

ROUNDING = 1e-4  # pixel values no farther apart are the same: under 1 % of a level of 255
# Another bicubic, one that does not round to 8 bits between its passes, differs from Pillow's by at
# most this many levels of 255: half of one, times 1.25, the most that the absolute weights of a
# bicubic filter add up to, and half of one at the end.
LEVELS = 0.5 * 1.25 + 0.5
_NEAREST = 3  # causes that are shown where none is proved
_ALIKE = 1.5  # times the best one's error: what else may explain a difference up to resampling

Compared = tuple[list[TapResult], list[Finding]]


def rounding(dtype: str, pixels: Array) -> float:
    """The most by which equal pixel values may differ in a dtype."""
    return max(ROUNDING, 2 * noise_floor(dtype).worst * float(np.abs(pixels).max()))


def compare_raw(pipeline: Any, inputs: Inputs, candidate: Candidate) -> Compared:
    """What a candidate made of the raw images and texts, and the mistakes that explain it.

    Pixel values that differ by no more than another resampling does (see `LEVELS`) are right, with
    a note; ids and masks must be equal.

    Raises:
        VerificationError: the candidate gives something that the inputs have not.
    """
    given = _given(inputs, candidate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AIMv2Warning)  # one text is too long on purpose
        taps, findings = _images(pipeline, inputs, given, candidate.dtype)
        more_taps, more_findings = _texts(pipeline, inputs, given)
    return taps + more_taps, findings + more_findings


def _given(inputs: Inputs, candidate: Candidate) -> dict[str, Array]:
    """What the candidate gives, a batch of images taken apart."""
    given = images_apart(candidate, len(inputs.sources))
    known = asked(inputs)
    for name in given:
        if name not in known:
            raise VerificationError(
                f"{candidate.name} gives {RAW}/{name}, but these inputs ask for {', '.join(known)}"
            )
    return given


# ---------------------------------------------------------------------------- the search


class _Fit(NamedTuple):
    """How far some values are from what a candidate gives.

    `exact` and `close` are the largest difference as a multiple of rounding, and of what another
    resampling leaves as well: up to ALLOWED, either explains it.
    """

    error: float
    exact: float
    close: float


class _Fitting(Protocol):
    """How well mistakes explain what a candidate gives; None where shapes do not fit.

    Unless asked for the `whole` answer, None as well where something is not explained.
    """

    def __call__(self, mistakes: Sequence[Mistake], *, whole: bool = False) -> _Fit | None: ...


Tried = tuple[tuple[Mistake, ...], _Fit]


def _causes(
    concerned: str, raw: RawImage | RawTexts, fit: _Fitting, base: float, wrong: bool
) -> list[Cause]:
    """The mistakes that explain a difference of size `base`, the best first, or the nearest.

    Where nothing is `wrong`, only one that explains the difference to rounding counts.
    """
    mistakes = [m for m in every() if m.at(concerned) and _changed(raw, (m,))]
    found = _explaining([(m,) for m in mistakes], fit, wrong)
    if wrong and not (found and found[0][1].exact <= ALLOWED):
        # beside one that explains it up to resampling, another may do so to rounding
        among = [m for several, _ in found for m in several] or mistakes
        pairs = _explaining(_pairs(raw, mistakes, among), fit, wrong)
        found = pairs if not found or (pairs and pairs[0][1].exact <= ALLOWED) else found
    if wrong and not found:
        singles = (((m,), fit((m,), whole=True)) for m in mistakes)
        near: list[Tried] = [(m, left) for m, left in singles if left and left.error < base / 2]
        found = sorted(near, key=_error)[:_NEAREST]
    return [
        Cause(several, 1 - left.error / base, min(left.exact, max(left.close, 1.0)))
        for several, left in found
    ]


def _error(tried: Tried) -> float:
    return tried[1].error


def _explaining(mistakes: Iterable[tuple[Mistake, ...]], fit: _Fitting, wrong: bool) -> list[Tried]:
    """Those that explain all of a difference: to rounding, or else to another resampling."""
    tried: dict[frozenset[str], Tried] = {}
    for several in mistakes:
        left, key = fit(several), frozenset(m.id for m in several)
        if left is not None and (key not in tried or left.error < tried[key][1].error):
            tried[key] = several, left
    found = sorted(tried.values(), key=_error)
    exact = [each for each in found if each[1].exact <= ALLOWED]
    close = [each for each in found if wrong and _error(each) <= _ALIKE * _error(found[0])]
    return exact or close


def _pairs(
    raw: RawImage | RawTexts, mistakes: Sequence[Mistake], among: Sequence[Mistake]
) -> Iterator[tuple[Mistake, ...]]:
    """Every two mistakes, one of them `among` some; in both orders if they change the same."""
    for pair in combinations(mistakes, 2):
        if pair[0] in among or pair[1] in among:
            yield pair
            if _changed(raw, pair[:1]) & _changed(raw, pair[1:]):
                yield pair[::-1]


def _mistaken(raw: Any, mistakes: Sequence[Mistake]) -> Any:
    """A RawImage or RawTexts with some steps replaced."""
    for mistake in mistakes:
        raw = mistake.patch(raw)
    return raw


def _changed(raw: RawImage | RawTexts, mistakes: Sequence[Mistake]) -> set[str]:
    """The steps and settings that mistakes replace."""
    before, after = raw.parts, _mistaken(raw, mistakes).parts
    return {name for name in before if before[name] != after[name]}


def _finding(wrong: TapResult, causes: list[Cause], right: list[str], **seen: Any) -> Finding:
    alike = causes[1:] if causes and causes[0].proved else []
    seen = {"found": None, "truth": np.zeros(0), "real": None, "grid": None} | seen
    return Finding(wrong, None, [wrong.name], causes=causes, alike=alike, right_cases=right, **seen)


# ---------------------------------------------------------------------------- images


def _images(pipeline: Any, inputs: Inputs, given: Mapping[str, Array], dtype: str) -> Compared:
    """Pixel values, all images together: a mistake must explain every one."""
    patch = pipeline.vision.config.patch_size
    images = [
        _Image(name, RawImage(source, pipeline.processor, patch), given[name], dtype)
        for i, source in enumerate(inputs.sources)
        if (name := f"pixel_values_{i}") in given
    ]
    states = {image.state for image in images}
    if states <= {"same"}:
        return [image.tap() for image in images], []

    def fit(mistakes: Sequence[Mistake], *, whole: bool = False) -> _Fit | None:
        fits = []
        for image in images:
            left = image.fit(_mistaken(image.raw, mistakes))
            if left is None or (left.close > ALLOWED and not whole):
                return None
            fits.append(left)
        return _together(fits)

    base = _together([image.base for image in images]).error
    wrong, readable = "wrong" in states, all(image.readable for image in images)
    concerned = f"{RAW}.pixel_values"
    causes = _causes(concerned, images[0].raw, fit, base, wrong) if readable else []
    if not wrong and not causes:
        return [image.tap() for image in images], []
    taps = [image.tap(strict=True) for image in images]
    worst = max(range(len(images)), key=lambda i: images[i].base.exact)
    right = [tap.name for tap in taps if tap.ok]
    return taps, [_finding(taps[worst], causes, right, **images[worst].seen())]


def _together(fits: Sequence[_Fit]) -> _Fit:
    """Several images as one."""
    errors, exact, close = zip(*fits, strict=True)
    return _Fit(float(np.linalg.norm(errors)), max(exact), max(close))


class _Image:
    """One image: what it should become, and what the candidate made of it."""

    def __init__(self, name: str, raw: RawImage, given: Array, dtype: str) -> None:
        self.name, self.raw, self.given = name, raw, given
        self.truth = np.asarray(raw.processor(raw.source)[0], np.float64)
        self.rounding = rounding(dtype, self.truth)
        self.found, self.note, self.problem = None, "", ""
        pixels = given.dtype.kind in "fiu" and given.ndim in (3, 4)
        self.readable = pixels and not np.isnan(given).any()
        try:
            self.found, self.truth, self.note = self.read_as(self.truth)
        except ShapeMismatch as error:
            self.problem = str(error)
        else:
            nan = np.isnan(self.found)
            self.problem = f"NaN in {nan.mean():.0%} of it" if nan.any() else ""
        self.base = self.fit(raw) or _Fit(np.sqrt(self.truth.size), np.inf, np.inf)

    def read_as(self, values: Array) -> tuple[Array, Array, str]:
        """What was given, laid out like some values; these values; how it was laid out.

        An image that is not cropped may lack the rows and columns that fill no patch: the model
        does not look at them.
        """
        if self.given.dtype.kind not in "fiu":
            raise ShapeMismatch(f"{self.given.dtype}, expected numbers")
        given = np.asarray(self.given[None] if self.given.ndim == 3 else self.given, np.float64)
        shapes = [values.shape]
        if not self.raw.processor.do_center_crop:
            whole = (n // self.raw.patch * self.raw.patch for n in values.shape[1:])
            shapes.append((len(values), *whole))
        for shape in shapes:
            try:
                found, note = reconciled("pixel_values", given, (1, *shape))
            except ShapeMismatch:
                continue
            cut = "" if shape == values.shape else "cut to whole patches"
            like = values[:, : shape[1], : shape[2]]
            return found[0], like, ", ".join(filter(None, (note, cut)))
        raise ShapeMismatch(f"shape {self.given.shape}, expected {values.shape}")

    def fit(self, raw: RawImage) -> _Fit | None:
        """How far the candidate is from what some steps give; None where it cannot be."""
        fits = [left for each in raw.variants() if (left := self._fit(each)) is not None]
        return min(fits, default=None)

    def _fit(self, raw: RawImage) -> _Fit | None:
        try:
            found, values, _ = self.read_as(np.asarray(raw.pixel_values(), np.float64))
        except ShapeMismatch:
            return None
        left = np.abs(found - values)
        most = float(left.max())
        if np.isnan(most):
            return None
        exact = ALLOWED * most / self.rounding
        close = ALLOWED * most / (LEVELS * raw.level()) if raw.processor.do_resize else exact
        return _Fit(float(np.sqrt(np.square(left).sum())), exact, min(exact, close))

    @property
    def state(self) -> str:
        """The same, as close as another resampling is, or wrong."""
        if self.base.exact <= ALLOWED:
            return "same"
        return "close" if self.base.close <= ALLOWED else "wrong"

    def tap(self, strict: bool = False) -> TapResult:
        """The comparison; what is only close is right unless `strict`."""
        error, noise, notes = Distance(np.inf, np.inf), self.rounding / ALLOWED, list[str]()
        size = float(np.sqrt(np.square(self.truth).mean()))
        if self.found is not None and not self.problem:
            left = np.abs(self.found - self.truth)
            error = Distance(float(np.sqrt(np.square(left).mean())) / size, left.max() / size)
        if self.state != "same" and np.isfinite(error.worst):
            levels = error.worst * size / self.raw.level()
            notes.append(f"up to {levels:.2g} levels of 255 off")
        if self.state == "close" and not strict:
            noise = LEVELS * self.raw.level()
            notes.append("as a resampling that is not Pillow's is")
        return TapResult(
            RAW,
            self.name,
            "preprocessing",
            error,
            Distance(noise / size, noise / size),
            problem=self.problem,
            note=self.note,
            remark=", ".join(notes),
        )

    def seen(self) -> dict[str, Any]:
        """What a finding shows: a row per pixel, a column per channel."""
        if self.found is None:
            return {}
        found, truth = (a.reshape(len(a), -1).T[None] for a in (self.found, self.truth))
        return {"found": found, "truth": truth}


# ---------------------------------------------------------------------------- texts


def _texts(pipeline: Any, inputs: Inputs, given: Mapping[str, Array]) -> Compared:
    """Ids and mask together: a mistake must explain both."""
    names = [name for name in ("input_ids", "attention_mask") if name in given]
    if not names:
        return [], []
    tokenizer = pipeline.tokenizer
    truth = tokenizer(inputs.texts)._asdict()
    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    found, notes = {}, {}
    for name in names:
        found[name], notes[name] = _unpadded(given[name], truth[name].shape, fill[name])
    taps = [_text_tap(name, found[name], truth[name], notes[name]) for name in names]
    if all(tap.ok for tap in taps):
        return taps, []
    folder = Path(tokenizer.source).parent
    raw = RawTexts(inputs.texts, tokenizer, load_backend(folder, tokenizer.eos_token_id, None)[0])

    def fit(mistakes: Sequence[Mistake], *, whole: bool = False) -> _Fit | None:
        values = _mistaken(raw, mistakes).tokens()
        wrong = [_differing(found[name], values[name]) for name in names]
        left = sum(np.inf if each is None else int(each.sum()) for each in wrong)
        amount = np.inf if left else 0.0
        return _Fit(float(left), amount, amount) if whole or not left else None

    base = sum(tap.error.overall for tap in taps)
    causes = _causes(f"{RAW}.input_ids", raw, fit, base, wrong=True)
    wrong = next(tap for tap in taps if not tap.ok)
    return taps, [_finding(wrong, causes, [tap.name for tap in taps if tap.ok])]


def _unpadded(found: Array, shape: tuple[int, ...], fill: int) -> tuple[Array, str]:
    """Without columns of padding beyond those that are expected; what was done."""
    length = shape[1]
    longer = found.ndim == 2 and len(found) == shape[0] and found.shape[1] > length
    if longer and (found[:, length:] == fill).all():
        return found[:, :length], f"padded to {found.shape[1]} tokens"
    return found, ""


def _differing(found: Array, truth: Array) -> Array | None:
    """Where two arrays of ids differ; None where their shapes do, or one holds no numbers."""
    alike = found.shape == truth.shape and found.dtype.kind in "biuf"
    return found != truth if alike else None


def _text_tap(name: str, found: Array, truth: Array, note: str) -> TapResult:
    """Ids or mask: each number right or wrong. Its error is how many are wrong."""
    wrong, problem = _differing(found, truth), ""
    if wrong is None:
        problem = f"{found.dtype} of shape {found.shape}, expected numbers of {truth.shape}"
    elif wrong.any():
        k, t = np.argwhere(wrong)[0]
        problem = (
            f"{wrong.sum()} of {wrong.size} differ, the first in texts[{k}], position {t}: "
            f"{found[k, t]}, expected {truth[k, t]}"
        )
    count = float(truth.size if wrong is None else wrong.sum())
    none, error = Distance(0.0, 0.0), Distance(count, count)
    return TapResult(RAW, name, "tokenizer", error, none, problem=problem, note=note)
