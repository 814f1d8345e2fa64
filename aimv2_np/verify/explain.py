"""What explains one difference.

The reference runs again from the last right activation, each time with another mistake planted in
the steps at fault. Those that explain most of the difference are then planted in whole runs, which
tell apart what looks alike at one place, say whether a mistake is made in every block or in one,
and show what is wrong besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..ops import Array
from .apart import told_apart
from .finding import Cause, Finding, counted
from .lanes import DTYPES
from .locate import CaseResult, TapResult, stream, suspects
from .measure import distance, hidden_as_finite, rows_of
from .mistakes import Mistake, every
from .patterns import ALL, describe, simple
from .search import Place, Search
from .shapes import foreign
from .walk import grid_of, section_of, short

__all__ = ["Explanation"]

_WHOLE = 8  # mistakes that are planted in whole runs
_PAIRS, _FEWEST = 400, 40  # pairs that are tried, and where each costs much
_PRODUCTS = 2 * 10**10  # that all pairs together may cost
_NEAR = 0.95  # of the difference: what a mistake must explain to be told though not proved
_WORTH = 0.5  # of the difference: what a mistake must explain to be looked at further
_AS_MUCH = 4.0  # times: how far two errors may be apart that are of one dtype
_WHOLE_MODEL = ("layer-count", "penultimate")  # mean nothing in one block alone

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


class Explanation:
    """The search for what explains one difference."""

    def __init__(self, search: Search, result: CaseResult, wrong: TapResult) -> None:
        self.search, self.result, self.wrong = search, result, wrong
        at_fault = suspects(search.model, result, wrong)
        place = Place(result, wrong, at_fault)
        truth, real = search.local(place)
        assert truth is not None
        found = search.found(place, truth)
        self.place = place if found is None else place.narrowed(found, truth)
        item = self.place.item
        self.truth_here = truth if item is None else truth[item : item + 1]
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
        """Fill in the causes: single mistakes, else a smaller dtype, else pairs."""
        finding = self.finding
        if self.is_no_activation():
            return finding
        known = [m for m in self.relevant() if m.id in {k.id for k in self.search.known}]
        causes, singles = self.of(known)
        if not any(cause.proved for cause in causes):
            causes, singles = self.of(self.relevant())
        if not any(cause.proved for cause in causes) and self.widened():
            more, _ = self.of(self.relevant())
            causes = [c for c in more if c.proved] or causes
        if not any(cause.proved for cause in causes):
            finding.dtype = self.smaller_dtype()
        if not any(cause.proved for cause in causes) and not finding.dtype:
            pairs = self.pairs(singles)
            causes = self.confirmed([*pairs, *singles])
        causes.sort(key=_rank)
        finding.causes = [c for c in causes if c.proved] or _nearest(causes)
        if finding.proved:
            self.compare_alike()
        return finding

    def of(self, mistakes: Iterable[Mistake]) -> tuple[list[Cause], list[Cause]]:
        """The likely ones of some mistakes, confirmed, and all of them; the best first."""
        singles = [c for m in mistakes if (c := self.tried((m,))) is not None]
        singles.sort(key=lambda cause: cause.excess)
        self.finding.tried = counted(len(singles), "mistake")
        return self.confirmed(singles), singles

    def is_no_activation(self) -> bool:
        """Whether a wrong shape says that these are numbers of another run or model."""
        given = self.search.candidate.get(self.result.case.name, self.wrong.name)
        if given is None or self.finding.found is not None:
            return False
        return foreign(np.shape(given), np.shape(self.finding.truth))

    def widened(self) -> bool:
        """Whether the last right activation may be recorded before a mistake is made at its step.

        The pixels' convolution, say, before the patches are brought into the wrong order.
        """
        last, start = self.finding.last_right, self.place.result.good
        of = stream(self.wrong.name)
        if last is None or of == "joint" or start[of][0] != last.section:
            return False
        self.place = replace(self.place, at_fault=[last.name, *self.place.at_fault])
        return True

    def as_after(self) -> list[Cause]:
        """Mistakes of the step's own section that make the reference record the same."""
        section = section_of(self.wrong.name)
        inside = [name for name in self.place.at_fault if section_of(name) == section]
        self.place = replace(self.place, at_fault=inside)
        singles = (c for m in self.relevant() if (c := self.tried((m,))) is not None and c.proved)
        return sorted(singles, key=_rank)[:1]

    def simple(self) -> list[str]:
        """Whether it is right up to a factor, an offset, or its order."""
        found, truth, real = self.finding.found, self.finding.truth, self.finding.real
        if found is None or not np.isfinite(self.wrong.error.overall):
            return []
        return simple(*(rows_of(self.wrong.name, a, real) for a in hidden_as_finite(found, truth)))

    def compare_alike(self) -> None:
        """What explains as much as the best cause does, and what would tell it apart."""
        finding, search = self.finding, self.search
        best, *others = finding.causes
        first = {frozenset(m.id for m in c.mistakes): c for c in reversed([best, *others])}
        same = [c for c in others if c in first.values() and c is not best]  # a pair in one order
        finding.alike = [c for c in same if _rank(c)[:4] == _rank(best)[:4]]
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
        if value is None or found is None or self.changes_nothing(value):
            return None
        left = distance(rows_of(wrong.name, found, real), rows_of(wrong.name, value, real))
        whole = wrong.error.overall
        explained = 1 - left.overall / whole if np.isfinite(whole) else 0.0
        if np.isfinite(left.overall) and not np.isfinite(whole):
            explained = 1.0  # NaN, or another shape, in the same places
        return Cause(mistakes, explained, left.over(wrong.noise))

    def changes_nothing(self, value: Array) -> bool:
        """Whether a mistake leaves the activation as it is."""
        truth = self.truth_here
        return np.shape(value) == np.shape(truth) and np.array_equal(value, truth, equal_nan=True)

    def pairs(self, singles: Sequence[Cause]) -> list[Cause]:
        """Two mistakes at once, of those that explain most; as many as there is time for."""
        mistakes = [c.mistakes[0] for c in singles]
        both = [(a, b) for j, b in enumerate(mistakes) for a in mistakes[:j]]
        ordered = [pair for a, b in both for pair in ((a, b), (b, a))]
        dear = _PRODUCTS // max(1, self.place.work(self.search.model))
        chosen = ordered[: min(_PAIRS, max(_FEWEST, dear))]
        if chosen:
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
        apart = all(m.id not in _WHOLE_MODEL for m in cause.mistakes)
        if ".blocks." in block and choices[0].next_wrong is not None and apart:
            choices.append(self.planted(cause, inside))
        return max(choices, key=lambda c: (c.proved, c.progress))

    def planted(self, cause: Cause, mistakes: tuple[Mistake, ...]) -> Cause:
        """What is left of the difference, and what is wrong next."""
        search, wrong = self.search, self.wrong
        results = search.whole(mistakes, stream(wrong.name), search.early(mistakes, wrong))
        first = search.first_wrong(stream(wrong.name), results)
        left = (t.excess for r in results for t in r.taps if t.name == wrong.name)
        progress = len(search.order) if first is None else search.order[first[1].name]
        return Cause(
            mistakes, cause.explained, max(left, default=np.inf), first and first[1], progress
        )

    def smaller_dtype(self) -> str:
        """A dtype in which the steps at fault err as much as the candidate does, or ""."""
        found, truth = self.finding.found, self.finding.truth
        if found is None or not np.isfinite(self.wrong.error.overall):
            return ""
        looks = describe(self.wrong.name, found, truth, self.finding.real, self.finding.grid)
        if self.simple() or not set(looks) <= {ALL}:
            return ""  # rounding is everywhere, and in no order
        dtype, error = self.search.candidate.dtype, self.wrong.error
        for smaller in DTYPES[DTYPES.index(dtype) + 1 :]:
            floor = self.search.floor(self.place, smaller)
            if floor and error.over(floor) <= _AS_MUCH and floor.over(error) <= _AS_MUCH:
                return smaller
        return ""
