"""Which mistake explains a difference.

The reference runs again from the last right activation, each time with another mistake planted in
the steps at fault. Those that explain most of the difference are then planted in whole runs, which
tell apart what looks alike at one place, say whether a mistake is made in every block or in one,
and show what is wrong besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops import Array
from .apart import told_apart
from .candidate import Candidate
from .lanes import DTYPES
from .locate import ALLOWED, PREFIXES, CaseResult, TapResult, allowance, stream, suspects
from .measure import distance, hidden_as_finite, rows_of
from .mistakes import Mistake, every
from .patterns import simple
from .search import Place, Search
from .walk import Case, Model, Tick, grid_of, short, silent

__all__ = ["Cause", "Finding", "diagnose"]

_IN_A_ROW = 3  # mistakes that are looked for in one stream
_WHOLE = 8  # mistakes that are planted in whole runs
_PAIRS, _FEWEST = 400, 40  # pairs that are tried, and where each costs much
_PRODUCTS = 2 * 10**10  # that all pairs together may cost
_ROUGHLY = 0.98  # explained by a mistake that rounds: some numbers fall on the other side
_NEAR = 0.95  # of the difference: what a mistake must explain to be told though not proved
_WORTH = 0.5  # of the difference: what a mistake must explain to be looked at further
_AS_MUCH = 4.0  # times: how far two errors may be apart that are of one dtype
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
        """Whether rounding explains what is left; of a mistake that rounds, nearly all of it."""
        alone = len(self.mistakes) == 1 and self.mistakes[0].rough
        roughly = alone and self.explained >= _ROUGHLY
        return self.excess <= allowance(self.mistakes) or roughly

    @property
    def id(self) -> str:
        """The mistakes' ids."""
        return " + ".join(mistake.id for mistake in self.mistakes)


@dataclass(eq=False)
class Finding:
    """A first difference and what explains it: `causes`, the best first.

    `alike` are those that explain everything as well as the best does: no input of this run tells
    them apart. `dtype` is a smaller one, if correct runs in it err as much. Where only the
    recording is wrong, `follows` is an activation that shows it, being right, `recorded` are all
    those that are recorded so, and the cause is what makes the reference record the same.
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
    tried: str = ""  # how much was tried
    recorded: list[str] = field(default_factory=list)
    follows: str = ""

    @property
    def proved(self) -> bool:
        """Whether the best cause is."""
        return bool(self.causes) and self.causes[0].proved


def diagnose(
    model: Model,
    candidate: Candidate,
    results: Sequence[CaseResult],
    tick: Tick = silent,
    others: Sequence[Case] = (),
) -> list[Finding]:
    """The first difference in each of the three strands, with what explains it.

    Where a mistake is proved and more is wrong, the next one is looked for with it in place.
    `others` are cases that the candidate does not give: they may tell apart what looks alike.
    """
    search = Search(model, candidate, results, tick, others)
    findings: list[Finding] = []
    unexplained = False
    for of in PREFIXES:
        if of == "joint" and unexplained:
            break  # what comes of it
        planted = 0
        while planted < _IN_A_ROW and (worst := search.first_wrong(of)) is not None:
            explanation = _Explanation(search, *worst)
            if explanation.recorded_differently():
                findings.append(explanation.finding)
                search.leave_out(explanation.finding.recorded)
                continue
            finding = explanation.explain()
            if not finding.proved and search.rough(of):
                break  # what rounding mistakes leave: numbers that fall on the other side
            findings.append(finding)
            if not finding.proved:
                finding.wrong_alone = _wrong_alone(results, of)
                unexplained = True
                break
            search.plant(finding.causes[0].mistakes, of)
            planted += 1
    return findings


def _wrong_alone(results: Sequence[CaseResult], of: str) -> list[str]:
    """The steps of a stream that are wrong when they start from the candidate's own numbers."""
    names = (
        t.name
        for r in results
        for t in r.taps
        if stream(t.name) == of and not t.ok and (t.own_excess or 0) > ALLOWED
    )
    return list(dict.fromkeys(names))


_PLACE = {mistake.id: i for i, mistake in enumerate(every())}  # in the library


def _rank(cause: Cause) -> tuple[Any, ...]:
    """The best first: proved, explaining most of what follows, simple, made everywhere."""
    confined = any(m.only for m in cause.mistakes)
    last = _PLACE[cause.mistakes[0].id] if cause.proved else cause.excess
    return not cause.proved, -cause.progress, len(cause.mistakes), confined, last


def _nearest(causes: Sequence[Cause]) -> list[Cause]:
    """Causes, the best first, that explain nearly all; of a pair one order."""
    near: dict[frozenset[str], Cause] = {}
    for cause in causes:
        if cause.explained >= _NEAR:
            near.setdefault(frozenset(m.id for m in cause.mistakes), cause)
    return list(near.values())[:3]


class _Explanation:
    """The search for what explains one difference."""

    def __init__(self, search: Search, result: CaseResult, wrong: TapResult) -> None:
        self.search, self.result, self.wrong = search, result, wrong
        at_fault = suspects(search.model, result, wrong)
        place = Place(result, wrong, at_fault)
        truth, real = search.local(place)
        assert truth is not None
        found = search.found(place, truth)
        self.place = place if found is None else place.narrowed(found, truth)
        self.finding = Finding(
            wrong,
            result.last_right(wrong),
            at_fault,
            found,
            truth,
            real,
            grid_of(search.model, result.case),
            right_cases=[
                r.case.name
                for r in search.results
                if any(t.name == wrong.name and t.ok for t in r.taps)
            ],
        )

    def explain(self) -> Finding:
        """Fill in the causes: single mistakes, else pairs, else a smaller dtype."""
        finding = self.finding
        singles = [c for m in self.relevant() if (c := self.tried((m,))) is not None]
        singles.sort(key=lambda cause: cause.excess)
        finding.tried = f"{len(singles)} mistakes"
        causes = self.confirmed(singles)
        if not any(cause.proved for cause in causes) and finding.found is not None:
            finding.dtype = self.smaller_dtype()
        if not any(cause.proved for cause in causes) and not finding.dtype:
            pairs = self.pairs(singles)
            causes = self.confirmed([*pairs, *singles])
        causes.sort(key=_rank)
        finding.causes = [c for c in causes if c.proved] or _nearest(causes)
        if finding.proved:
            self.compare_alike()
        return finding

    def recorded_differently(self) -> bool:
        """Whether what follows from the wrong activation is right; then fill in as what it was."""
        finding, result = self.finding, self.result
        right = self.search.follows(result, self.wrong)
        if right is None:
            return False
        finding.follows = right.name
        finding.recorded = self.search.likewise(self.wrong, right)
        singles = (c for m in self.relevant() if (c := self.tried((m,))) is not None and c.proved)
        finding.causes = sorted(singles, key=_rank)[:1]
        return True

    def compare_alike(self) -> None:
        """What explains as much as the best cause does, and what would tell it apart."""
        finding, search = self.finding, self.search
        best, *others = finding.causes
        finding.alike = [c for c in others if _rank(c)[:4] == _rank(best)[:4]]
        if finding.alike:
            finding.apart = told_apart(
                search.model,
                [*(r.case for r in search.results), *search.others],
                search.candidate,
                [*search.planted, *best.mistakes],
                [*search.planted, *finding.alike[0].mistakes],
                stream(self.wrong.name),
            )

    def relevant(self) -> list[Mistake]:
        """The mistakes that concern a step at fault; those of one block, in each block at fault."""
        at_fault = self.place.at_fault
        found = [m for m in every() if any(m.at(name) for name in at_fault)]
        inside = (name for name in at_fault if ".blocks." in name)
        blocks = list(dict.fromkeys(name[: -len(short(name))] for name in inside))
        if len(blocks) < 2:
            return found
        ends = [m for m in found if all(p.endswith("resid_post") for p in m.patterns)]
        return found + [m.confined(block) for m in ends for block in blocks]

    def tried(self, mistakes: tuple[Mistake, ...]) -> Cause | None:
        """How well mistakes explain the difference where it shows first."""
        wrong, real = self.wrong, self.finding.real
        self.search.tick(f"{wrong.name}: {' + '.join(m.id for m in mistakes)}?")
        value, _ = self.search.local(self.place, mistakes)
        found = None if value is None else self.search.found(self.place, value)
        if value is None or found is None:
            return None
        left = distance(rows_of(wrong.name, found, real), rows_of(wrong.name, value, real))
        whole = wrong.error.overall
        explained = 1 - left.overall / whole if np.isfinite(whole) else 0.0
        if np.isfinite(left.overall) and not np.isfinite(whole):
            explained = 1.0  # NaN, or another shape, in the same places
        return Cause(mistakes, explained, left.over(wrong.noise))

    def pairs(self, singles: Sequence[Cause]) -> list[Cause]:
        """Two mistakes at once, of those that explain most; as many as there is time for."""
        mistakes = [c.mistakes[0] for c in singles]
        both = [(a, b) for j, b in enumerate(mistakes) for a in mistakes[:j]]
        ordered = [pair for a, b in both for pair in ((a, b), (b, a))]
        dear = _PRODUCTS // max(1, self.place.work(self.search.model))
        chosen = ordered[: min(_PAIRS, max(_FEWEST, dear))]
        self.finding.tried += f" and {len(chosen):,} of {len(ordered):,} pairs of them"
        causes = [c for pair in chosen if (c := self.tried(pair)) is not None]
        better = [c for c in causes if c.explained > singles[0].explained]
        return sorted(better, key=lambda cause: cause.excess)

    # ------------------------------------------------------------------------ the whole model

    def confirmed(self, causes: Sequence[Cause]) -> list[Cause]:
        """The most likely causes, each judged by whole runs of every case."""
        likely = [c for c in causes if c.explained >= _WORTH][:_WHOLE]
        likely = [c for c in likely if c.proved] or likely
        return [self.judged(cause) for cause in likely]

    def judged(self, cause: Cause) -> Cause:
        """A cause planted everywhere, or only where the difference shows if that goes further."""
        choices = [self.planted(cause, cause.mistakes)]
        block = self.wrong.name[: -len(short(self.wrong.name))]
        inside = tuple(m.confined(block) for m in cause.mistakes)
        apart = all(m.layer is None and m.id not in _WHOLE_MODEL for m in cause.mistakes)
        if ".blocks." in block and choices[0].next_wrong is not None and apart:
            choices.append(self.planted(cause, inside))
        return max(choices, key=lambda c: (c.proved, c.progress))

    def planted(self, cause: Cause, mistakes: tuple[Mistake, ...]) -> Cause:
        """What is left of the difference, and what is wrong next."""
        search, wrong = self.search, self.wrong
        results = search.whole(mistakes, stream(wrong.name))
        first = search.first_wrong(stream(wrong.name), results)
        left = (t.excess for r in results for t in r.taps if t.name == wrong.name)
        progress = len(search.order) if first is None else search.order[first[1].name]
        return Cause(
            mistakes, cause.explained, max(left, default=np.inf), first and first[1], progress
        )

    def smaller_dtype(self) -> str:
        """A dtype in which the steps at fault err as much as the candidate does, or ""."""
        found, truth, real = self.finding.found, self.finding.truth, self.finding.real
        if found is None or not np.isfinite(self.wrong.error.overall):
            return ""
        if simple(*(rows_of(self.wrong.name, a, real) for a in hidden_as_finite(found, truth))):
            return ""
        dtype, error = self.search.candidate.dtype, self.wrong.error
        for smaller in DTYPES[DTYPES.index(dtype) + 1 :]:
            floor = self.search.floor(self.place, smaller)
            if floor and error.over(floor) <= _AS_MUCH and floor.over(error) <= _AS_MUCH:
                return smaller
        return ""
