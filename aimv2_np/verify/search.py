"""The reference run again, in part or as a whole, with mistakes planted in it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..ops import Array
from ..trace import activation_names
from .candidate import Candidate
from .lanes import lanes
from .locate import (
    PREFIXES,
    CaseResult,
    TapResult,
    compare,
    noise_floor,
    real_tokens,
    stream,
)
from .measure import Distance, error_of, real_of
from .mistakes import Mistake, Patch, Planted
from .shapes import ShapeMismatch, reconciled
from .walk import Case, Model, State, Tick, grid_of, keep, run, section_of, sections, short

__all__ = ["Place", "Search", "strands_of"]

_FAR = 50.0  # times what is allowed: what no other noise would make right


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


_See = Callable[[str, Array, Array], Array]  # name, value, the true one -> what flows on


def _led(
    see: _See, seen: dict[str, Array], shown: dict[str, Array], name: str, value: Array
) -> Array:
    """Lets what `see` makes of an activation flow on, and keeps it."""
    shown[name] = value = see(name, value, seen.get(name, value))
    return value


def _cast(state: State, dtype: Any) -> State:
    """What flows in another dtype."""
    return {k: v.astype(dtype) if k in ("vision", "text") else v for k, v in state.items()}


def strands_of(name: str) -> tuple[str, ...]:
    """The towers that an activation comes from."""
    return ("image", "text") if stream(name) == "joint" else (stream(name),)


class _Reached(Exception):
    """A run has come to the activation that was asked for."""


@dataclass(frozen=True, eq=False)
class Place:
    """A wrong activation, the steps at fault, and the image of the batch that is looked at."""

    result: CaseResult
    wrong: TapResult
    at_fault: Sequence[str]
    item: int | None = None  # None: the whole batch

    def work(self, model: Model) -> int:
        """About how many products a run to the wrong activation takes."""
        tower = "text" if stream(self.wrong.name) == "text" else "vision"
        config: Any = getattr(model, tower, model).config
        case, blocks = self.result.case, {section_of(n) for n in self.at_fault if ".blocks." in n}
        if tower == "text" or case.pixel_values is None:
            tokens = np.asarray(case.input_ids).size
        else:
            tokens = np.asarray(case.pixel_values).size // (3 * config.patch_size**2)
        return int(12 * tokens * len(blocks) * config.hidden_size**2)

    def narrowed(self, found: Array, truth: Array) -> Place:
        """The same with the worst image of the batch alone: every hypothesis costs a run.

        Texts stay together, since a mask of the whole batch may matter.
        """
        pixels = self.result.case.pixel_values
        batch = np.shape(truth)[0] if np.ndim(truth) > 2 else 1
        if (
            stream(self.wrong.name) != "image"
            or pixels is None
            or len(pixels) != batch
            or batch < 2
        ):
            return self
        error = np.square(np.asarray(found, np.float64) - truth)
        error = np.where(np.isfinite(error) | (found == truth), error, np.inf)  # -inf is right, too
        item = int(np.nan_to_num(error).reshape(len(error), -1).sum(axis=1).argmax())
        one = slice(item, item + 1)
        section, state = self.result.good["image"]
        state = {k: v[one] if k == "vision" else v for k, v in state.items()}
        case = replace(self.result.case, pixel_values=np.asarray(pixels)[one])
        narrow = CaseResult(case, good={"image": (section, state)})
        return Place(narrow, self.wrong, self.at_fault, item)


class Search:
    """The reference with what was found so far, and the candidate beside it."""

    def __init__(
        self,
        model: Model,
        candidate: Candidate,
        results: Sequence[CaseResult],
        tick: Tick,
        others: Sequence[Case],
    ) -> None:
        self.model, self.candidate, self.results = model, candidate, list(results)
        self.planted: tuple[Mistake, ...] = ()
        self.known: list[Mistake] = []  # found in other streams, or like what was: tried first
        self.tick, self.others = tick, others  # cases that the candidate does not give
        self.order = {name: i for i, name in enumerate(activation_names(model.config))}
        self.right = {(t.case, t.name) for r in results for t in r.taps if t.ok}  # as it is

    def plant(self, mistakes: Iterable[Mistake], wrong: TapResult) -> None:
        """Take these as found: from here on the reference makes them, too, in the same stream.

        What is right without them is no matter of theirs, though it would be wrong with them.
        """
        here = PREFIXES[stream(wrong.name)]
        found = tuple(m if m.only else m.confined(*here) for m in mistakes)
        early = self.early(found, wrong)
        self.candidate = self.candidate.some(lambda _, name: name not in early)
        self.results = self.whole(found)
        self.planted = (*self.planted, *found)
        taps = [tap for result in self.results for tap in result.taps]
        upset = {(t.case, t.name) for t in taps if not t.ok} & self.right
        if upset:
            self.leave_out(upset)

    def early(self, mistakes: Sequence[Mistake], wrong: TapResult) -> set[str]:
        """What mistakes change before the wrong activation although it is right, in every block.

        A port records it before it makes them: all of q, k and v, say, before it splits heads.
        """
        section, tower = section_of(wrong.name), wrong.name.partition(".")[0]
        right = {t.name for r in self.results for t in r.taps if t.ok and t.section == section}
        before = [n for n in right if self.order[n] < self.order[wrong.name]]
        steps = {short(n) for n in before if any(m.at(n) for m in mistakes)}
        return {n for n in self.order if n.startswith(tower) and short(n) in steps}

    def leave_out(self, given: Container[tuple[str, str]]) -> None:
        """Go on without some of the candidate's activations, by case and name."""
        self.candidate = self.candidate.some(lambda case, name: (case, name) not in given)
        self.results = [self._whole(r, (), "joint", self.candidate) for r in self.results]

    def rough(self, of: str) -> bool:
        """Whether a mistake that rounds was found in a stream."""
        return any(m.rough and m.at(n) for m in self.planted for n in self.order if stream(n) == of)

    def first_wrong(
        self, of: str, results: Sequence[CaseResult] | None = None
    ) -> tuple[CaseResult, TapResult] | None:
        """The earliest wrong activation of a stream, from the case where it is most wrong."""
        results = self.results if results is None else results
        wrong = [(r, t) for r in results if (t := r.first_wrong(of)) is not None]
        key = self.order.__getitem__
        return min(wrong, key=lambda pair: (key(pair[1].name), -pair[1].excess), default=None)

    # ------------------------------------------------------------------------ a whole run

    def whole(
        self, mistakes: Iterable[Mistake], of: str = "joint", without: Container[str] = ()
    ) -> list[CaseResult]:
        """Every case with these mistakes and those found so far; of one strand only.

        Activations `without` which the candidate is compared are passed over.
        """
        new = tuple(mistakes)
        candidate = self.candidate.some(lambda _, name: name not in without)
        return [
            self._whole(result, new, of, candidate) if self._concerns(result.case, new) else result
            for result in self.results
        ]

    def _whole(
        self, result: CaseResult, new: Sequence[Mistake], of: str, candidate: Candidate
    ) -> CaseResult:
        """One case. The noise that is known will do, unless a larger one could make it right."""
        planted = (*self.planted, *new)
        noise = {tap.name: tap.noise for tap in result.taps}
        how: dict[str, Any] = {"mistakes": planted, "of": of, "tick": self.tick}
        found = compare(self.model, result.case, candidate, noise=noise, **how)
        wrong = [tap for tap in found.taps if not tap.ok]
        if wrong and wrong[0].excess < _FAR * wrong[0].allowed:
            return compare(self.model, result.case, candidate, **how)
        return found

    def _concerns(self, case: Case, mistakes: Sequence[Mistake]) -> bool:
        """Whether mistakes change anything in a case; those of the first sections are tried."""
        names = [name for name in self.order if any(m.at(name) for m in mistakes)]
        first = ("vision.pos_embed", "vision.patch_embed", "vision.patch_norm", "vision.embed")
        if case.pixel_values is None or not set(names) <= set(first):
            return True

        def see(name: str, value: Array) -> Array:
            seen.setdefault(name, []).append(value)
            return value

        seen: dict[str, list[Array]] = {}
        for planted in (self.planted, (*self.planted, *mistakes)):
            run(self.model, case, "vision.embed", State(), see, mistakes=planted)
        changed = [name for name, (a, b) in seen.items() if not np.array_equal(a, b)]
        return bool(changed)

    # ------------------------------------------------------------------------ from here to there

    def local(
        self, place: Place, mistakes: Sequence[Mistake] = ()
    ) -> tuple[Array | None, Array | None]:
        """The wrong activation when the steps at fault are mistaken, and which rows are tokens.

        None where a mistake cannot be made: its shapes do not fit.
        """
        reached: dict[str, Array] = {}
        result, wrong = place.result, place.wrong

        def see(name: str, value: Array) -> Array:
            if name == wrong.name:
                reached[name] = value
                raise _Reached
            return value

        names = frozenset(place.at_fault)
        planted: list[Planted] = [*self.planted, *(_Confined(m, names) for m in mistakes)]
        state = State()
        try:
            for section, known in self._onward(result, strands_of(wrong.name)):
                state = known | state
                state = run(self.model, result.case, section, state, see,
                            wants=lambda n: n == wrong.name, mistakes=planted)  # fmt: skip
        except _Reached:
            return reached[wrong.name], real_of(wrong.name, real_tokens(state))
        except (ValueError, IndexError, KeyError, ZeroDivisionError):
            return None, None
        return None, None

    def _onward(self, result: CaseResult, strands: Sequence[str]) -> Iterator[tuple[str, State]]:
        """The sections after the last right activations of strands, each with the state there."""
        order, known = sections(self.model, result.case), State()
        for of in strands:
            start, here = result.good[of]
            known = known | here  # what joins the towers needs both
            tower = "vision." if of == "image" else "text."
            for section in order[order.index(start) :]:
                if section.startswith(tower) or (section == "join" and of == strands[-1]):
                    yield section, known

    def found(self, place: Place, like: Array) -> Array | None:
        """The candidate's activation, laid out like another."""
        name, case, shape = place.wrong.name, place.result.case, np.shape(like)
        found = self.candidate.get(case.name, name)
        assert found is not None
        if place.item is not None:
            shape = (len(found), *shape[1:])
        try:
            whole = reconciled(name, found, shape, grid_of(self.model, case))[0]
        except ShapeMismatch:
            return None
        return whole if place.item is None else whole[place.item : place.item + 1]

    # ------------------------------------------------------------------------ side by side

    def beside(
        self, result: CaseResult, strands: Sequence[str], see: _See, model: Model | None = None
    ) -> Iterator[tuple[dict[str, Array], dict[str, Array], Array | None]]:
        """The truth from the last right activations on, and beside it a run that `see` leads.

        By section: the activations of both, and which rows of texts are tokens. `see` is told a
        name, the value in its run, and the true one; what it returns flows on.
        """
        case, true, led = result.case, State(), State()
        how: dict[str, Any] = {
            "wants": set(self.candidate.names(case.name)).__contains__,
            "mistakes": self.planted,
        }
        for section, known in self._onward(result, strands):
            seen, shown = dict[str, Array](), dict[str, Array]()
            true = run(self.model, case, section, known | true, keep(seen), **how)
            show = partial(_led, see, seen, shown)
            start = known if model is None else _cast(known, model.dtype)
            led = run(model or self.model, case, section, start | led, show, **how)
            yield seen, shown, real_tokens(true)

    def floor(self, place: Place, dtype: str) -> Distance | None:
        """How far from the truth the steps at fault end in a dtype, from right activations."""
        lane, name = lanes(self.model, dtype)[0], place.wrong.name

        def narrowed(n: str, value: Array, true: Array) -> Array:
            return lane.see(n, value if n in place.at_fault else true)

        run_beside = self.beside(place.result, strands_of(name), narrowed, lane.model)
        for seen, shown, real in run_beside:
            if name in seen:
                return error_of(name, shown[name], seen[name], real) | noise_floor(dtype)
        return None
