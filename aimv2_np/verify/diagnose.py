"""Where a candidate first differs, and which mistakes explain it: strand after strand."""

from __future__ import annotations

from collections.abc import Sequence

from .candidate import Candidate
from .explain import Explanation
from .finding import Finding
from .locate import ALLOWED, PREFIXES, CaseResult, TapResult, stream
from .recorded import alike_in_blocks, shown_by
from .search import Search
from .walk import Case, Model, Tick, short, silent

__all__ = ["diagnose"]

_IN_A_ROW = 3  # mistakes that are looked for in one stream
_ABOUT = 4.0  # times: how far two errors of the same size may be apart


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
            if passed_over := _passed_over(search, worst[1], findings):
                search.leave_out(passed_over)
                continue
            finding = Explanation(search, *worst).explain()
            if not finding.proved and search.rough(of):
                break  # what rounding mistakes leave: numbers that fall on the other side
            findings.append(finding)
            if not finding.proved:
                alone = not search.planted and not any(f.follows for f in findings)
                finding.wrong_alone = _wrong_alone(results, of) if alone else []
                unexplained = True
                break
            search.plant(finding.causes[0].mistakes, finding.wrong)
            planted += 1
        proved = [f for f in findings if f.proved and not f.follows]
        search.known = [m for f in proved for c in (f.causes[0], *f.alike) for m in c.mistakes]
    return findings


def _passed_over(search: Search, wrong: TapResult, findings: list[Finding]) -> set[tuple[str, str]]:
    """What the search goes on without, by case and name: what is only recorded differently.

    Enters a finding that says so. Where the same step is in another stream, what follows says
    whether more is wrong.
    """
    recorded = _recorded_differently(search, wrong)
    if recorded is not None:
        _enter(recorded, findings)
        return _alike(search, wrong).union(recorded.recorded)
    known = any(f.follows and _same_step(f.wrong, wrong) for f in findings)
    return _alike(search, wrong) if known else set()


def _enter(finding: Finding, findings: list[Finding]) -> None:
    """One finding for a step that is recorded differently, in however many blocks it shows."""
    for other in (f for f in findings if f.follows and _same_step(f.wrong, finding.wrong)):
        if stream(other.wrong.name) == stream(finding.wrong.name):
            other.recorded += finding.recorded
            return
    findings.append(finding)


def _same_step(one: TapResult, other: TapResult) -> bool:
    """In whatever block and tower."""
    return short(one.name) == short(other.name)


def _recorded_differently(search: Search, wrong: TapResult) -> Finding | None:
    """Where a wrong activation is only recorded differently: what it is then, and which are so.

    Of those of other cases, of which nothing shows it, those that differ alike.
    """
    here = [(r, t) for r in search.results for t in r.taps if t.name == wrong.name and not t.ok]
    shown = [(r, t, by) for r, t in here if (by := shown_by(search, r, t)) is not None]
    if not shown:
        return None
    result, tap, by = max(shown, key=lambda found: (found[2].moves, found[1].excess))
    explanation = Explanation(search, result, tap)
    finding = explanation.finding
    finding.follows, finding.moves = by.tap.name, by.moves
    finding.causes, looks = explanation.as_after(), explanation.simple()
    pairs = {(t.case, t.name) for _, t, _ in shown} | alike_in_blocks(search, tap, by.tap)
    for other, t in here:
        if (t.case, t.name) not in pairs:
            its = Explanation(search, other, t)
            same = {c.id for c in its.as_after()} & {c.id for c in finding.causes}
            if same or (looks and looks == its.simple()) or _as_large(tap, t):
                pairs.add((t.case, t.name))
    finding.recorded = sorted(pairs, key=lambda pair: search.order[pair[1]])
    return finding


def _as_large(one: TapResult, other: TapResult) -> bool:
    """Whether two errors are of about the same size."""
    small, large = sorted((one.error.overall, other.error.overall))
    return large <= _ABOUT * small


def _alike(search: Search, wrong: TapResult) -> set[tuple[str, str]]:
    """The same step of a stream wherever it is wrong, by case and name.

    A mistake made there shows in what is computed from it, so only where that is given.
    """
    of, pairs = stream(wrong.name), set()
    for result in search.results:
        for i, tap in enumerate(result.taps):
            if _same_step(tap, wrong) and stream(tap.name) == of and not tap.ok:
                later = (t for t in result.taps[i + 1 :] if not _same_step(t, wrong))
                if any(stream(t.name) in (of, "joint") for t in later):
                    pairs.add((tap.case, tap.name))
    return pairs


def _wrong_alone(results: Sequence[CaseResult], of: str) -> list[str]:
    """The steps of a stream that are wrong when they start from the candidate's own numbers."""
    names = (
        t.name
        for r in results
        for t in r.taps
        if stream(t.name) == of and not t.ok and not t.problem and (t.own_excess or 0) > ALLOWED
    )
    return list(dict.fromkeys(names))
