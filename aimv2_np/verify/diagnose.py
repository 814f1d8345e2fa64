"""Which mistake explains a difference.

The reference runs again from the last right activation, each time with another mistake planted in
the steps at fault. Those that explain most of the difference are then planted in whole runs, which
tell apart what looks alike at one place, say whether a mistake is made in every block or in one,
and show what is wrong besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops import Array
from ..trace import activation_names
from .apart import told_apart
from .candidate import Candidate
from .locate import (
    ALLOWED,
    CaseResult,
    TapResult,
    allowance,
    compare,
    grid_of,
    real_of,
    real_tokens,
    stream,
    suspects,
)
from .measure import Distance, distance, rows_of
from .mistakes import Mistake, Patch, Planted, every
from .shapes import ShapeMismatch, reconciled
from .walk import Case, Model, State, Tick, run, sections, short, silent

__all__ = ["Cause", "Finding", "diagnose"]

_IN_A_ROW = 3  # mistakes that are looked for in one stream
_WHOLE = 8  # mistakes that are planted in whole runs
_PAIRED = 6  # mistakes that are tried together with every other one
_WORTH = 0.5  # of the difference: what a mistake must explain to be looked at further
_PREFIXES = {  # of the names in each strand
    "image": ("vision.", "image_", "pixel_values"),
    "text": ("text.", "text_", "input_ids"),
    "joint": ("logit",),
}
_WHOLE_MODEL = ("layer-count", "penultimate")  # mean nothing in one block alone


@dataclass(frozen=True, eq=False)
class Cause:
    """A mistake, or two, and how well it explains a difference."""

    mistakes: tuple[Mistake, ...]
    explained: float  # 1 - ‖candidate - mistaken‖ / ‖candidate - truth‖, at the first wrong tap
    excess: float  # what is left there, as a multiple of rounding
    next_wrong: TapResult | None = None  # the first wrong activation when the mistake is planted
    progress: int = 0  # its place in the model: what comes before it is right

    @property
    def proved(self) -> bool:
        """Whether rounding explains what is left."""
        return self.excess <= allowance(self.mistakes)

    @property
    def id(self) -> str:
        """The mistakes' ids."""
        return " + ".join(mistake.id for mistake in self.mistakes)


@dataclass(eq=False)
class Finding:
    """A first difference and what explains it: `causes`, the best first.

    `alike` are those that explain everything as well as the best does: no input of this run tells
    them apart. `dtype` is a smaller one, if correct runs in it err as much.
    """

    wrong: TapResult
    last_right: TapResult | None
    suspects: list[str]
    found: Array | None  # the candidate's activation there, and what it should be
    truth: Array
    real: Array | None  # which of its rows are tokens
    grid: tuple[int, int] | None
    causes: list[Cause] = field(default_factory=list)
    alike: list[Cause] = field(default_factory=list)
    apart: str = ""  # the activation that would tell those from the best
    wrong_alone: list[str] = field(default_factory=list)  # steps wrong by themselves, unexplained
    dtype: str = ""
    right_cases: list[str] = field(default_factory=list)  # where the same activation is right


def diagnose(
    model: Model, candidate: Candidate, results: Sequence[CaseResult], tick: Tick = silent
) -> list[Finding]:
    """The first difference in each of the three strands, with what explains it.

    Where a mistake is proved and more is wrong, the next one is looked for with it in place.
    """
    search = _Search(model, candidate, results, tick)
    findings: list[Finding] = []
    unexplained = False
    for of in _PREFIXES:
        if of == "joint" and unexplained:
            break  # what comes of it
        for _ in range(_IN_A_ROW):
            worst = search.first_wrong(of)
            if worst is None:
                break
            finding = search.finding(*worst)
            explained = bool(finding.causes) and finding.causes[0].proved
            if not explained and search.rough(of):
                break  # what rounding mistakes leave: numbers that fall on the other side
            findings.append(finding)
            if not explained:
                finding.wrong_alone = _wrong_alone(results, of)
                unexplained = True
                break
            search.plant(finding.causes[0].mistakes, of)
    return findings


def _wrong_alone(results: Sequence[CaseResult], of: str) -> list[str]:
    """The steps of a stream that are wrong when they start from the candidate's own numbers."""
    names = (
        t.name
        for r in results
        for t in r.taps
        if stream(t.name) == of and t.own_excess is not None and t.own_excess > ALLOWED
    )
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class _Confined:
    """A mistake in the steps at fault only."""

    mistake: Mistake
    names: frozenset[str]

    def at(self, name: str) -> Patch | None:
        return self.mistake.at(name) if name in self.names else None

    def weights_of(self, section: str, i: int, count: int) -> int:
        inside = any(name.startswith(f"{section}.") for name in self.names)
        return self.mistake.weights_of(section, i, count) if inside else i


_PLACE = {mistake.id: i for i, mistake in enumerate(every())}  # in the library


def _rank(cause: Cause) -> tuple[Any, ...]:
    """The best first: proved, explaining most of what follows, simple, made everywhere."""
    confined = any(m.only for m in cause.mistakes)
    last = _PLACE[cause.mistakes[0].id] if cause.proved else cause.excess
    return not cause.proved, -cause.progress, len(cause.mistakes), confined, last


class _Reached(Exception):
    """A run has come to the activation that was asked for."""


class _Search:
    """The reference with what was found so far, and the candidate beside it."""

    def __init__(
        self, model: Model, candidate: Candidate, results: Sequence[CaseResult], tick: Tick
    ) -> None:
        self.model, self.candidate, self.results = model, candidate, list(results)
        self.planted: tuple[Mistake, ...] = ()
        self.tick = tick
        self.order = {name: i for i, name in enumerate(activation_names(model.config))}

    def plant(self, mistakes: Iterable[Mistake], of: str) -> None:
        """Take these as found in a stream: from here on the reference makes them there, too."""
        found = (m if m.only else m.confined(*_PREFIXES[of]) for m in mistakes)
        self.planted = (*self.planted, *found)
        self.results = self.whole(())

    def rough(self, of: str) -> bool:
        """Whether a mistake that rounds was found in a stream."""
        return any(m.rough and m.at(n) for m in self.planted for n in self.order if stream(n) == of)

    def whole(self, mistakes: Iterable[Mistake], of: str = "joint") -> list[CaseResult]:
        """Every case with these mistakes and those found so far; of one strand only."""
        planted = (*self.planted, *mistakes)
        return [
            compare(
                self.model, result.case, self.candidate, mistakes=planted, of=of, tick=self.tick
            )
            for result in self.results
        ]

    def first_wrong(
        self, of: str, results: Sequence[CaseResult] | None = None
    ) -> tuple[CaseResult, TapResult] | None:
        """The earliest wrong activation of a stream, from the case where it is most wrong."""
        results = self.results if results is None else results
        wrong = [(r, t) for r in results if (t := r.first_wrong(of)) is not None]
        key = self.order.__getitem__
        return min(wrong, key=lambda pair: (key(pair[1].name), -pair[1].excess), default=None)

    # ------------------------------------------------------------------------ one difference

    def finding(self, result: CaseResult, wrong: TapResult) -> Finding:
        """A difference with everything that could be found out about it."""
        at_fault = suspects(self.model, result, wrong)
        truth, real = self.local(result, wrong, at_fault, ())
        assert truth is not None
        found = self.found(result.case, wrong.name, truth)
        finding = Finding(
            wrong,
            result.last_right(wrong),
            at_fault,
            found,
            truth,
            real,
            grid_of(self.model, result.case),
            right_cases=[
                r.case.name
                for r in self.results
                if any(t.name == wrong.name and t.ok for t in r.taps)
            ],
        )
        self.explain(finding, result)
        return finding

    def explain(self, finding: Finding, result: CaseResult) -> None:
        """Fill in the causes: single mistakes, else pairs, else a smaller dtype."""
        wrong = finding.wrong
        singles = [
            cause
            for mistake in self.relevant(finding.suspects)
            if (cause := self.tried(result, finding, (mistake,))) is not None
        ]
        singles.sort(key=lambda cause: cause.excess)
        causes = self.confirmed(wrong, singles)
        if not any(cause.proved for cause in causes):
            pairs = self.pairs(result, finding, singles)
            causes = self.confirmed(wrong, [*pairs, *(c for c in singles if c not in pairs)])
        causes.sort(key=_rank)
        finding.causes = [c for c in causes if c.proved] or causes[:3]
        if finding.causes and finding.causes[0].proved:
            best = finding.causes[0]
            finding.alike = [c for c in finding.causes[1:] if _rank(c)[:4] == _rank(best)[:4]]
            if finding.alike:
                cases, other = [r.case for r in self.results], finding.alike[0].mistakes
                finding.apart = told_apart(
                    self.model,
                    cases,
                    self.candidate,
                    [*self.planted, *best.mistakes],
                    [*self.planted, *other],
                )
        elif finding.found is not None:
            finding.dtype = self.smaller_dtype(result, wrong)

    def relevant(self, at_fault: Sequence[str]) -> list[Mistake]:
        """The mistakes that concern a step at fault; those of one block, in each block at fault."""
        found = [m for m in every() if any(m.at(name) for name in at_fault)]
        blocks = list(dict.fromkeys(n[: n.index(".", n.index("blocks.") + 7) + 1]
                                    for n in at_fault if ".blocks." in n))  # fmt: skip
        if len(blocks) < 2:
            return found
        ends = [m for m in found if all(p.endswith("resid_post") for p in m.patterns)]
        return found + [m.confined(block) for m in ends for block in blocks]

    # ------------------------------------------------------------------------ from here to there

    def local(
        self,
        result: CaseResult,
        wrong: TapResult,
        at_fault: Sequence[str],
        mistakes: Sequence[Mistake],
    ) -> tuple[Array | None, Array | None]:
        """The wrong activation when the steps at fault are mistaken, and which rows are tokens.

        None where a mistake cannot be made: its shapes do not fit.
        """
        reached: dict[str, Array] = {}

        def see(name: str, value: Array) -> Array:
            if name == wrong.name:
                reached[name] = value
                raise _Reached
            return value

        names = frozenset(at_fault)
        planted: list[Planted] = [*self.planted, *(_Confined(m, names) for m in mistakes)]
        order, state = sections(self.model, result.case), State()
        strands = ("image", "text") if stream(wrong.name) == "joint" else (stream(wrong.name),)
        try:
            for of in strands:
                start, before = result.good[of]
                state = before | state
                tower = "vision." if of == "image" else "text."
                for section in order[order.index(start) :]:
                    if section.startswith(tower) or (section == "join" and of == strands[-1]):
                        state = run(self.model, result.case, section, state, see,
                                    wants=lambda n: n == wrong.name, mistakes=planted)  # fmt: skip
        except _Reached:
            return reached[wrong.name], real_of(wrong.name, real_tokens(state))
        except (ValueError, IndexError, KeyError, ZeroDivisionError):
            return None, None
        return None, None

    def found(self, case: Case, name: str, like: Array) -> Array | None:
        """The candidate's activation, laid out like another."""
        found = self.candidate.get(case.name, name)
        assert found is not None
        try:
            return reconciled(name, found, np.shape(like), grid_of(self.model, case))[0]
        except ShapeMismatch:
            return None

    def tried(
        self, result: CaseResult, finding: Finding, mistakes: tuple[Mistake, ...]
    ) -> Cause | None:
        """How well mistakes explain a difference where it shows first."""
        wrong = finding.wrong
        self.tick(f"{wrong.name}: {' + '.join(m.id for m in mistakes)}?")
        value, _ = self.local(result, wrong, finding.suspects, mistakes)
        if value is None:
            return None
        found = self.found(result.case, wrong.name, value)
        if found is None:
            return None
        left = distance(
            rows_of(wrong.name, found, finding.real), rows_of(wrong.name, value, finding.real)
        )
        whole = wrong.error
        explained = 1 - left.overall / whole.overall if np.isfinite(whole.overall) else 0.0
        if np.isfinite(left.overall) and not np.isfinite(whole.overall):
            explained = 1.0  # NaN, or another shape, in the same places
        return Cause(mistakes, explained, left.over(wrong.noise))

    def pairs(self, result: CaseResult, finding: Finding, singles: Sequence[Cause]) -> list[Cause]:
        """Two mistakes at once, one of them among the best."""
        best = [c.mistakes[0] for c in singles[:_PAIRED]]
        others = [c.mistakes[0] for c in singles]
        found = []
        for a, b in {frozenset((a, b)) for a in best for b in others if a is not b}:
            for pair in ((a, b), (b, a)):
                cause = self.tried(result, finding, pair)
                if cause is not None and cause.explained > singles[0].explained:
                    found.append(cause)
        return sorted(found, key=lambda cause: cause.excess)

    # ------------------------------------------------------------------------ the whole model

    def confirmed(self, wrong: TapResult, causes: Sequence[Cause]) -> list[Cause]:
        """The most likely causes, each judged by whole runs of every case."""
        likely = [c for c in causes if c.explained >= _WORTH][:_WHOLE]
        likely = [c for c in likely if c.proved] or likely
        return [self.judged(wrong, cause) for cause in likely]

    def judged(self, wrong: TapResult, cause: Cause) -> Cause:
        """A cause planted everywhere, or only where the difference shows if that goes further."""
        choices = [self.planted_in(wrong, cause, cause.mistakes)]
        block = wrong.name[: -len(short(wrong.name))]
        inside = tuple(m.confined(block) for m in cause.mistakes)
        apart = all(m.layer is None and m.id not in _WHOLE_MODEL for m in cause.mistakes)
        if ".blocks." in block and choices[0].next_wrong is not None and apart:
            choices.append(self.planted_in(wrong, cause, inside))
        return max(choices, key=lambda c: (c.proved, c.progress))

    def planted_in(self, wrong: TapResult, cause: Cause, mistakes: tuple[Mistake, ...]) -> Cause:
        results = self.whole(mistakes, stream(wrong.name))
        first = self.first_wrong(stream(wrong.name), results)
        excess = max(
            (t.excess for r in results for t in r.taps if t.name == wrong.name), default=np.inf
        )
        progress = len(self.order) if first is None else self.order[first[1].name]
        return Cause(mistakes, cause.explained, excess, first and first[1], progress)

    # ------------------------------------------------------------------------ precision

    def smaller_dtype(self, result: CaseResult, wrong: TapResult) -> str:
        """A dtype in which a correct run errs as much here as the candidate does, or ""."""
        smaller = {
            "float64": ("float32", "bfloat16", "float16"),
            "float32": ("float16", "bfloat16"),
        }
        for dtype in smaller.get(self.candidate.dtype, ()):
            floor = self.floor(result, wrong, dtype)
            if floor is not None and wrong.error.over(floor) <= ALLOWED / 2:
                return dtype
        return ""

    def floor(self, result: CaseResult, wrong: TapResult, dtype: str) -> Distance | None:
        """How far a correct run in a dtype is from the truth at the wrong activation."""
        narrowed = Candidate("", {result.case.name: {wrong.name: np.zeros(())}}, dtype)
        taps = compare(self.model, result.case, narrowed, mistakes=self.planted).taps
        return taps[-1].noise if taps else None
