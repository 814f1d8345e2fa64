"""The result of a verification: as a sentence, as text for a terminal, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import __version__
from .finding import Cause, Finding
from .locate import ALLOWED, CaseResult, TapResult
from .patterns import ALL, describe
from .walk import short

__all__ = ["Report"]

# What a model is run for; the first that it has is asked for.
# What a port returns: nobody takes that for a matter of recording.
RETURNED = (
    *("vision.norm", "vision.pooled", "text.norm", "text.pooled"),
    *("image_embeds", "text_embeds", "logits_per_image", "logits_per_text"),
)
_MANY = 20  # steps at fault
_SHOWN = 4  # activations that are recorded differently, each in lines of its own
_OUTPUTS = ("logits_per_image", "vision.pooled", "vision.norm", "text.pooled")


@dataclass(frozen=True, eq=False)
class Report:
    """What was compared, what differs, and why.

    Prints as a short text; `to_json` has everything, `verify.html.page` draws it. `known` are all
    activations of every case of the inputs, given or not.
    """

    model: str
    candidate: str
    dtype: str
    results: Sequence[CaseResult]
    findings: Sequence[Finding]
    notes: Sequence[str] = field(default=())
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        """Activations that were compared, over all cases."""
        return sum(len(result.taps) for result in self.results)

    @property
    def coverage(self) -> str:
        """How much was compared of what could be."""
        counts = self._coverage()
        said = f"{counts['compared']:,} of {counts['activations']:,} activations"
        return said if self.known else f"{self.compared:,} activations"

    @property
    def not_given(self) -> list[str]:
        """Cases that the candidate does not give, and outputs of the model that no case has."""
        counts = self._coverage()
        return [*(f"case {name}" for name in counts["missing_cases"]), *counts["missing_outputs"]]

    def _coverage(self) -> dict[str, Any]:
        given = {(tap.case, tap.name) for result in self.results for tap in result.taps}
        known = {(case, name) for case, names in self.known.items() for name in names}
        cases, names = ({pair[i] for pair in given} for i in range(2))
        outputs = [name for name in _OUTPUTS if name in {name for _, name in known}]
        return {
            "compared": len(given & known),
            "activations": len(known),
            "missing_cases": [case for case in self.known if case not in cases],
            "missing_outputs": [name for name in outputs[:1] if name not in names],
        }

    def _read_as(self) -> dict[str, list[str]]:
        """How shapes were reconciled, and of which activations."""
        found: dict[str, list[str]] = {}
        for tap in (tap for result in self.results for tap in result.taps if tap.note):
            found.setdefault(tap.note, []).append(tap.name)
        return {how: list(dict.fromkeys(names)) for how, names in found.items()}

    @property
    def ok(self) -> bool:
        """Whether rounding explains every activation."""
        taps = [tap for result in self.results for tap in result.taps]
        return bool(taps) and all(tap.ok for tap in taps)

    @property
    def exit_code(self) -> int:
        """0 where the candidate matches, 1 where it differs, 2 where nothing could be compared."""
        return 2 if not self.compared else int(not self.ok)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.compared:
            return f"nothing of {self.candidate} could be compared with {self.model}"
        if self.ok:
            worst = max((t for r in self.results for t in r.taps), key=lambda t: t.excess)
            return (
                f"{self.candidate} matches {self.model}: {self.coverage}, the worst "
                f"{worst.excess:.1f} × the rounding error of a correct {self.dtype} run "
                f"({worst.name})"
            )
        made = [f for f in self.findings if not f.follows or f.wrong.name in RETURNED]
        inner = [short(f.wrong.name) for f in self.findings if f not in made]
        names = list(dict.fromkeys(map(title, made)))
        names += [f"{_listed(list(dict.fromkeys(inner)))} recorded differently"] if inner else []
        but = "differs from {}:" if made else "matches {} except for"
        return f"{self.candidate} {but.format(self.model)} {', '.join(names)}"

    def __str__(self) -> str:
        lines = [self.verdict]
        for finding in self.findings:
            lines += [] if finding.follows else ["", *_told(finding)]
        lines += _recorded(self.findings)
        if not self.ok:
            lines += ["", f"compared          {self.coverage}, as {self.dtype}"]
        for how, names in self._read_as().items():
            lines.append(f"read as           {how}: {_listed(names, 'activations')}")
        if self.not_given:
            lines.append(f"not given         {', '.join(self.not_given)}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """Everything in plain values."""
        return {
            "version": __version__,
            "model": self.model,
            "candidate": self.candidate,
            "dtype": self.dtype,
            "ok": self.ok,
            "verdict": self.verdict,
            "allowed": ALLOWED,
            "coverage": self._coverage(),
            "notes": list(self.notes),
            "findings": [_finding(finding) for finding in self.findings],
            "activations": [_tap(tap) for result in self.results for tap in result.taps],
        }


# ---------------------------------------------------------------------------- text


def title(finding: Finding) -> str:
    """A difference in a few words: the mistake that is made."""
    if finding.follows:
        how = "returned" if finding.wrong.name in RETURNED else "recorded"
        return f"{short(finding.wrong.name)} {how} differently"
    if finding.proved:
        return finding.causes[0].id + where(finding.causes[0])
    what = f"as in {finding.dtype}" if finding.dtype else "unknown"
    return f"{what} at {finding.wrong.name}"


def _told(finding: Finding) -> list[str]:
    """A difference in a few lines."""
    wrong = finding.wrong
    before = finding.last_right.name if finding.last_right else "nothing before it"
    lines = [
        f"first difference  {wrong.name} ({wrong.case}): {_amount(wrong)}",
        f"last right        {before}",
    ]
    if len(finding.suspects) > 1:
        lines.append(f"between them      {_listed(finding.suspects)}")
    if finding.right_cases:
        lines.append(f"right in          {', '.join(finding.right_cases)}")
    seen = pattern(finding)
    if seen:
        lines.append(f"it looks like     {'; '.join(seen)}")
    return [*lines, *_causes(finding)]


def _amount(wrong: TapResult) -> str:
    """How wrong an activation is."""
    if wrong.problem or not np.isfinite(wrong.error.overall):
        return wrong.problem or "not finite"
    return f"{wrong.error.overall:.2g} of its size, {wrong.excess:.3g} × the rounding error"


def _recorded(findings: Sequence[Finding]) -> list[str]:
    """What is recorded differently, a line or two each."""
    found = [finding for finding in findings if finding.follows]
    lines = []
    for finding in found[:_SHOWN]:
        wrong = finding.wrong
        lines += ["", f"recorded          {wrong.name} ({wrong.case}): {_amount(wrong)}"]
        lines += [f"                  {recorded(finding)}"]
        looks = [s for s in pattern(finding) if s != ALL]
        lines += [f"it looks like     {'; '.join(looks)}"] if looks else []
        causes = (m for cause in finding.causes for m in cause.mistakes)
        lines += [f"it is as after    {m.id}: {m.says}" for m in causes]
    more = [finding.wrong.name for finding in found[_SHOWN:]]
    lines += ["", f"likewise          {', '.join(more)}"] if more else []
    return [*lines, f"remedy            {RECORDED}; {FED}"] if found else []


def pattern(finding: Finding) -> list[str]:
    """What the error looks like."""
    if finding.found is None or np.shape(finding.found) != np.shape(finding.truth):
        return []
    return describe(finding.wrong.name, finding.found, finding.truth, finding.real, finding.grid)


def _listed(names: Sequence[str], what: str = "steps") -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}, …, {names[-1]} ({len(names)} {what})"


def _causes(finding: Finding) -> list[str]:
    return [*_explained(finding), *_alone(finding)]


def _alone(finding: Finding) -> list[str]:
    """Which steps are wrong by themselves, where the cause is unknown."""
    if len(finding.wrong_alone) < 2:
        return []
    return [f"wrong by itself   {_listed(finding.wrong_alone)}"]


def recorded(finding: Finding) -> str:
    """That an activation is recorded differently, and what shows it."""
    others = len({name for _, name in finding.recorded}) - 1
    also = f"; {others} more are like it" if others else ""
    if not finding.moves:
        return f"recorded differently, or without effect: {finding.follows} is right{also}"
    return f"only recorded differently: {finding.follows}, computed from it, is right{also}"


RECORDED = "record it where the table of activations says, or leave it out"
FED = "but where a port was fed right inputs step by step, the step is wrong"


def as_in_less(finding: Finding) -> str:
    """That steps err as a smaller dtype would, and what that may mean."""
    return (
        f"these steps err as much as they would in {finding.dtype}: if they are computed in it, "
        "state it; if not, something small is wrong in them"
    )


def unexplained(finding: Finding) -> str:
    """That no mistake is known, and how many were tried."""
    some = finding.tried and not finding.tried.startswith("0 ")
    tried = f" (tried: {finding.tried})" if some else ""
    outside = len(finding.suspects) > _MANY
    advice = "; more activations from inside would say in which step it is made" if outside else ""
    return f"no mistake in the library explains it{tried}{advice}"


def _explained(finding: Finding) -> list[str]:
    if finding.dtype:
        return [f"cause             {as_in_less(finding)}"]
    if not finding.causes:
        return [f"cause             {unexplained(finding)}"]
    best = finding.causes[0]
    if not best.proved:
        return [
            f"cause             {unexplained(finding)}; nearest:",
            *(f"                  {c.id}: {c.explained:.0%} of it" for c in finding.causes),
        ]
    lines = []
    for cause in (best, *finding.alike):
        head = "cause" if cause is best else "or"
        lines.append(f"{head:<18}{cause.id}{where(cause)}")
        for mistake in cause.mistakes:
            lines += [f"                  {mistake.says}", f"{'remedy':<18}{mistake.remedy}"]
    if finding.alike:
        apart = (
            f"{finding.apart} would tell them apart"
            if finding.apart
            else "no activation of these inputs would tell them apart"
        )
        lines.append(f"                  {apart}")
    return lines


def where(cause: Cause) -> str:
    """In which blocks, if not in all."""
    only = [prefix.rstrip(".") for m in cause.mistakes for prefix in m.only]
    return f" (in {', '.join(dict.fromkeys(only))} only)" if only else ""


# ---------------------------------------------------------------------------- JSON


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tap(tap: TapResult) -> dict[str, Any]:
    return {
        "case": tap.case,
        "name": tap.name,
        "ok": tap.ok,
        "error": _number(tap.error.overall),
        "worst_vector": _number(tap.error.worst),
        "noise": _number(tap.noise.overall),
        "excess": _number(tap.excess),
        "own_error": None if tap.own is None else _number(tap.own.overall),
        "own_excess": None if tap.own_excess is None else _number(tap.own_excess),
        "problem": tap.problem,
        "read_as": tap.note,
        "remark": tap.remark,
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "id": cause.id,
        "says": [m.says for m in cause.mistakes],
        "remedy": [m.remedy for m in cause.mistakes],
        "seen_in": [m.seen_in for m in cause.mistakes],
        "only_in": [prefix for m in cause.mistakes for prefix in m.only],
        "proved": cause.proved,
        "explained": _number(cause.explained),
        "excess_left": _number(cause.excess),
        "next_wrong": cause.next_wrong and cause.next_wrong.name,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    kind = "dtype" if finding.dtype else "mistake" if finding.proved else "unknown"
    return {
        "kind": "recorded" if finding.follows else kind,
        "first_wrong": _tap(finding.wrong),
        "last_right": finding.last_right and finding.last_right.name,
        "steps_at_fault": finding.suspects,
        "right_in_cases": finding.right_cases,
        "pattern": pattern(finding),
        "causes": [] if finding.follows else [_cause(cause) for cause in finding.causes],
        "alike": [cause.id for cause in finding.alike],
        "told_apart_by": finding.apart,
        "wrong_by_themselves": finding.wrong_alone,
        "smaller_dtype": finding.dtype,
        "tried": finding.tried or None,
        "recorded_differently": [f"{case}/{name}" for case, name in finding.recorded],
        "recorded_as_after": [c.id for c in finding.causes] if finding.follows else [],
        "right_nonetheless": finding.follows or None,
    }
