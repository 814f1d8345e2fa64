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
            recorded = _recorded_differently(search, worst[1])
            if recorded is not None:
                _enter(recorded, findings)
                search.leave_out(recorded.recorded)
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


def _enter(finding: Finding, findings: list[Finding]) -> None:
    """One finding for a step that is recorded differently, in however many blocks it shows."""
    same = [f for f in findings if f.follows and short(f.wrong.name) == short(finding.wrong.name)]
    for other in same:
        if stream(other.wrong.name) == stream(finding.wrong.name):
            other.recorded += finding.recorded
            return
    findings.append(finding)


def _recorded_differently(search: Search, wrong: TapResult) -> Finding | None:
    """Where a wrong activation is only recorded differently: what it is then, and which are so.

    Those of other cases, of which nothing shows it, are if the same explains them.
    """
    here = [(r, t) for r in search.results for t in r.taps if t.name == wrong.name and not t.ok]
    shown = [(r, t, by) for r, t in here if (by := shown_by(search, r, t)) is not None]
    if not shown:
        return None
    result, tap, by = max(shown, key=lambda found: found[1].excess)
    explanation = Explanation(search, result, tap)
    finding = explanation.finding
    finding.follows = by.name
    finding.causes, looks = explanation.as_after(), explanation.simple()
    pairs = {(t.case, t.name) for _, t, _ in shown} | alike_in_blocks(search, tap, by)
    for other, t in here:
        if (t.case, t.name) not in pairs:
            its = Explanation(search, other, t)
            same = {c.id for c in its.as_after()} & {c.id for c in finding.causes}
            if same or (looks and looks == its.simple()):
                pairs.add((t.case, t.name))
    finding.recorded = sorted(pairs, key=lambda pair: search.order[pair[1]])
    return finding


def _wrong_alone(results: Sequence[CaseResult], of: str) -> list[str]:
    """The steps of a stream that are wrong when they start from the candidate's own numbers."""
    names = (
        t.name
        for r in results
        for t in r.taps
        if stream(t.name) == of and not t.ok and (t.own_excess or 0) > ALLOWED
    )
    return list(dict.fromkeys(names))
