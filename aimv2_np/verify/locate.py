"""Where a candidate first leaves the reference by more than rounding explains.

For each case the truth (float64), correct runs in the candidate's dtype, and a run that takes every
activation from the candidate go side by side, section by section; only numbers about them are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops import Array
from .candidate import Candidate
from .lanes import lanes
from .measure import Distance, error_of, real_of, rows_of
from .mistakes import Planted
from .shapes import ShapeMismatch, reconciled
from .walk import Case, Model, State, Tick, grid_of, keep, names_of, run, sections, silent

__all__ = [
    "ALLOWED",
    "PREFIXES",
    "CaseResult",
    "TapResult",
    "allowance",
    "compare",
    "real_tokens",
    "stream",
    "suspects",
]

# A correct port may err by this many times as much as the correct runs here do. Measured over 1,080
# runs of transformers, timm and the port in all dtypes, on models drawn as in
# tests/compare/test_verify_right.py: 5.0 at most, beyond 4 in 6 of them.
ALLOWED = 8.0

PREFIXES = {  # of the names in each strand
    "image": ("vision.", "image_", "pixel_values"),
    "text": ("text.", "text_", "input_ids"),
    "joint": ("logit",),
}

_ROUGH = 16.0  # times that, where a planted mistake rounds: a few numbers fall on the other side
# Of a single rounding. Of float64 some more: the truth is no more precise than what it judges.
_UNIT = {"float64": 2.0**-50, "float32": 2.0**-24, "bfloat16": 2.0**-9, "float16": 2.0**-11}


@dataclass(frozen=True)
class TapResult:
    """One activation of one case.

    `error` is the candidate's distance from the truth, `noise` that of a correct run in its dtype,
    `own` that of this step alone, computed from the candidate's own earlier activations.
    """

    case: str
    name: str
    section: str
    error: Distance
    noise: Distance
    own: Distance | None = None
    own_noise: Distance | None = None
    allowed: float = ALLOWED  # what the error may be, as a multiple of the noise
    problem: str = ""  # a shape that does not fit, NaN
    note: str = ""  # how its shape was reconciled
    remark: str = ""  # what else should be said

    @property
    def excess(self) -> float:
        """The error as a multiple of rounding's."""
        return self.error.over(self.noise)

    @property
    def own_excess(self) -> float | None:
        """The same of this step alone."""
        if self.own is None or self.own_noise is None:
            return None
        return self.own.over(self.own_noise)

    @property
    def ok(self) -> bool:
        """Whether rounding explains it."""
        return not self.problem and self.excess <= self.allowed


@dataclass(eq=False)
class CaseResult:
    """One case: its activations in order, and states from which a part can run again."""

    case: Case
    taps: list[TapResult] = field(default_factory=list)
    good: dict[str, tuple[str, State]] = field(default_factory=dict)  # stream: section, state there

    def first_wrong(self, of: str) -> TapResult | None:
        """The first activation of a stream that is wrong."""
        return next((t for t in self.taps if stream(t.name) == of and not t.ok), None)

    def last_right(self, wrong: TapResult) -> TapResult | None:
        """The activation of the same stream before it, which is right."""
        before = self.taps[: self.taps.index(wrong)]
        return next((t for t in reversed(before) if stream(t.name) == stream(wrong.name)), None)


def stream(name: str) -> str:
    """Of the three strands that an activation belongs to: "image", "text" or "joint"."""
    return next((of for of, prefixes in PREFIXES.items() if name.startswith(prefixes)), "joint")


# ---------------------------------------------------------------------------- one case


def noise_floor(dtype: str) -> Distance:
    """The least that storing numbers in a dtype costs."""
    unit = _UNIT[dtype]
    return Distance(unit / 2, unit)


def compare(
    model: Model,
    case: Case,
    candidate: Candidate,
    *,
    mistakes: Sequence[Planted] = (),
    noise: Mapping[str, Distance] | None = None,
    of: str = "joint",
    tick: Tick = silent,
) -> CaseResult:
    """All activations of a case that the candidate gives, against the model in float64.

    With `mistakes` all runs have them. Where the `noise` of a correct run is given it is not
    measured. With either, no steps are looked at on their own. `of`: of one strand only. `tick` is
    told what is being done.
    """
    result, wanted = CaseResult(case), set(candidate.names(case.name)).__contains__
    own, allowed = not mistakes and noise is None, allowance(mistakes)
    correct = lanes(model, candidate.dtype) if noise is None else []
    state, injected, alone = State(), State(), State()
    states = [State() for _ in correct]
    plan: dict[str, Any] = {"wants": wanted, "mistakes": mistakes}
    with np.errstate(all="ignore"):
        for section in sections(model, case, of):
            tick(f"{case.name}: {section}")
            before, seen = state, dict[str, Array]()
            try:
                state = run(model, case, section, state, keep(seen), **plan)
            except ValueError:
                if not mistakes:
                    raise
                break  # with the mistake its shapes no longer fit
            found = _Found(model, case, candidate, seen, real_tokens(state), allowed)
            found.floor |= noise or {}
            for i, lane in enumerate(correct):
                see = _Against(found, found.floor, lane.see)
                states[i] = run(lane.model, case, section, states[i], see, **plan)
            if own:
                see = _Against(found, found.own_floor, correct[-1].see, inject=True)
                alone = run(correct[-1].model, case, section, alone, see, **plan)
                injected = run(model, case, section, injected, _Injected(found), **plan)
            result.taps += [found.result(name, section) for name in seen if wanted(name)]
            _remember(result, model, case, section, before, state)
    return result


def allowance(mistakes: Sequence[Planted]) -> float:
    """How many times the noise an error may be; more beside mistakes that round."""
    rough = any(getattr(mistake, "rough", False) for mistake in mistakes)
    return ALLOWED * (_ROUGH if rough else 1)


def real_tokens(state: State) -> Array | None:
    """Which positions of the texts are tokens, (K, T): up to the first end token."""
    if "end" not in state:
        return None
    positions = np.arange(state["text"].shape[1])
    return np.asarray(positions <= state["end"][:, None])


class _Found:
    """The candidate's activations of a section, beside the truth's."""

    def __init__(
        self,
        model: Model,
        case: Case,
        candidate: Candidate,
        truth: dict[str, Array],
        real: Array | None,
        allowed: float,
    ) -> None:
        self.truth, self.real, self.allowed = truth, real, allowed
        self._case, self._candidate = case.name, candidate
        self._grid = grid_of(model, case)
        self._cached: dict[str, tuple[Array | None, str, str]] = {}
        self.floor: dict[str, Distance] = {}  # how far correct runs are from the truth
        self.own_floor: dict[str, Distance] = {}  # the same, each step from the truth's activations
        self.own: dict[str, Distance] = {}  # the candidate's steps, each from its own activations

    def result(self, name: str, section: str) -> TapResult:
        """What is known about one activation."""
        base, own = self._stored(name), self.own.get(name)
        return TapResult(
            self._case,
            name,
            section,
            error=self.error(name),
            noise=self.floor.get(name, base) | base,
            own=own,
            own_noise=None if own is None else self.own_floor.get(name, base) | base,
            allowed=self.allowed,
            problem=self.problem(name),
            note=self.note(name),
        )

    def _stored(self, name: str) -> Distance:
        """What it costs at least to compute in the port's dtype, and to store in the array's."""
        array, floor = self.array(name), noise_floor(self._candidate.dtype)
        stored = "" if array is None else array.dtype.name
        return floor | noise_floor(stored) if stored in _UNIT else floor

    def _read(self, name: str) -> tuple[Array | None, str, str]:
        """The array in our shape or None, the problem, the note."""
        if name not in self._cached:
            self._cached[name] = self._reconciled(name)
        return self._cached[name]

    def _reconciled(self, name: str) -> tuple[Array | None, str, str]:
        found = self._candidate.get(self._case, name)
        if found is None or name not in self.truth:
            return None, "", ""
        truth = np.asarray(self.truth[name])
        try:
            array, note = reconciled(name, np.asarray(found), truth.shape, self._grid)
        except ShapeMismatch as error:
            return None, str(error), ""
        rows = rows_of(name, array, real_of(name, self.real))
        return array, _undefined(rows, truth), note

    def array(self, name: str) -> Array | None:
        return self._read(name)[0]

    def problem(self, name: str) -> str:
        return self._read(name)[1]

    def note(self, name: str) -> str:
        return self._read(name)[2]

    def distance(self, name: str, value: Array) -> Distance:
        """How far a value is from the truth."""
        return error_of(name, value, self.truth[name], self.real)

    def error(self, name: str) -> Distance:
        """How far the candidate is from the truth."""
        array = self.array(name)
        return Distance(np.inf, np.inf) if array is None else self.distance(name, array)

    def filled(self, name: str, value: Array) -> Array:
        """The candidate's activation; the reference's where there is none, or no real token."""
        array = self.array(name)
        if array is None or self.problem(name) or array.dtype.kind not in "fiu":
            return value
        array = np.asarray(array, np.asarray(value).dtype)
        real = real_of(name, self.real)
        if real is None or array.ndim < 3:
            return array
        keep = real[:, :, None] if array.ndim == 3 else real[:, None, :, None]
        return np.where(keep, array, value)


def _undefined(rows: Array, truth: Array) -> str:
    """In how many vectors NaN or infinity stands where nothing like it should."""
    if rows.dtype.kind != "f":
        return ""
    for what, bad, true in (
        ("NaN", np.isnan(rows), np.isnan(truth)),
        ("infinity", np.isposinf(rows) | (np.isneginf(rows) & ~np.isneginf(truth).any()),
         np.isposinf(truth)),
    ):  # fmt: skip
        if bad.any() and not true.any():
            return f"{what} in {bad.any(axis=-1).sum()} of its {len(rows)} vectors"
    return ""


class _Against:
    """Notes how far a correct run is from the truth; with `inject` the truth flows on."""

    def __init__(
        self, found: _Found, floor: dict[str, Distance], see: Any, *, inject: bool = False
    ) -> None:
        self._found, self._floor, self._see, self._inject = found, floor, see, inject

    def __call__(self, name: str, value: Array) -> Array:
        value = self._see(name, value)
        if name in self._found.truth:
            error = self._found.distance(name, value)
            self._floor[name] = self._floor.get(name, error) | error
            if self._inject:
                truth = np.asarray(self._found.truth[name], np.asarray(value).dtype)
                return np.asarray(self._see(name, truth))
        return value


class _Injected:
    """Lets the candidate's activations flow on, and notes how far each is from its own step."""

    def __init__(self, found: _Found) -> None:
        self._found = found

    def __call__(self, name: str, value: Array) -> Array:
        array = self._found.array(name)
        if array is None:
            return value
        self._found.own[name] = error_of(name, array, value, self._found.real)
        return self._found.filled(name, value)


def _remember(
    result: CaseResult, model: Model, case: Case, section: str, before: State, after: State
) -> None:
    """Note from where each stream can run again: after the last activation that is right."""
    order = sections(model, case)
    following = order[order.index(section) + 1 :]
    for of in ("image", "text"):
        result.good.setdefault(of, (order[0], before))
        taps = [t for t in result.taps if t.section == section and stream(t.name) == of]
        if not taps or result.first_wrong(of) is not None:
            continue
        whole = taps[-1].name.endswith(("resid_post", ".embed", ".pooled")) and following
        result.good[of] = (following[0], after) if whole else (section, before)


# ---------------------------------------------------------------------------- suspects


def suspects(model: Model, result: CaseResult, wrong: TapResult) -> list[str]:
    """The steps that can be at fault: after the last right activation, up to the wrong one."""
    names = names_of(model, result.case)
    strands = ("image", "text", "joint") if stream(wrong.name) == "joint" else (stream(wrong.name),)
    right = {t.name for t in result.taps if t.ok}
    found: list[str] = []
    for of in strands:
        strand = [n for n in names if stream(n) == of]
        end = strand.index(wrong.name) + 1 if of == stream(wrong.name) else len(strand)
        before = strand[: end - 1] if of == stream(wrong.name) else strand
        passed = [i for i, name in enumerate(before) if name in right]
        found += strand[passed[-1] + 1 if passed else 0 : end]
    return _with_heads(found, wrong.name)


def _with_heads(found: list[str], wrong: str) -> list[str]:
    """q, k and v are compared with their heads merged: how they are split shows in the scores."""
    prefix, _, last = wrong.rpartition(".")
    if last in ("scores", "pattern", "context") and prefix.endswith("attn"):
        added = [f"{prefix}.{name}" for name in "qkv"]
        return [*(name for name in added if name not in found), *found]
    return found
