"""The result of a verification as one self-contained HTML page.

No scripts, nothing from elsewhere: the verdict, each difference with its cause and pictures, the
errors by depth, all activations, what was run. curves.py and heatmaps.py draw.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from .. import __version__
from ..pages.markup import Markup, document, el, number, times
from ..writing import written_whole
from .curves import curves, legend
from .finding import Cause, Finding, counted
from .heatmaps import heat_maps
from .inputs import RAW
from .locate import ALLOWED, CaseResult, TapResult, stream
from .report import (
    FED,
    RECORDED,
    RETURNED,
    Report,
    as_in_less,
    pattern,
    recorded,
    title,
    unexplained,
    where,
)
from .walk import Case

__all__ = ["page", "write_page"]

_FEW = 8  # steps at fault that are listed at once
_COMPUTED_FROM = {"image": "images alone", "text": "texts alone", "joint": "images and texts"}

_READING = (
    "An error is the length of the difference from the same activation in float64, over the length "
    "of the activation. Rounding is that error of a correct run in the candidate's dtype, measured "
    "on the same inputs. Excess is an error as a multiple of rounding: an activation is wrong if "
    f"it is more than {ALLOWED:g}, over all its vectors or, marked †, in the worst one. A step "
    "alone is computed from the candidate's own earlier activations: where that is wrong, the "
    "mistake is made there; where it is right, the mistake came from before."
)


def write_page(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page of a report; it appears under its name only when it is complete.

    Raises:
        AIMv2Error: the file cannot be written.
    """
    with written_whole(Path(path)) as partial:
        partial.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page of a report."""
    style = Path(__file__).with_name("html.css").read_text(encoding="utf-8")
    cases = {result.case.name: result.case for result in report.results}
    main = el(
        "main",
        _verdict(report),
        *(_finding(report, f, i, cases[f.wrong.case]) for i, f in enumerate(report.findings)),
        _by_depth(report),
        _activations(report),
        _what_was_run(report),
    )
    return document(report.verdict, main, style=style)


# ---------------------------------------------------------------------------- verdict


def _verdict(report: Report) -> Markup:
    """In one sentence, with a sign and a word beside the colour."""
    sign, word, kind = [
        ("✓", "It matches", "right"),
        ("✗", "It differs", "wrong"),
        ("?", "Nothing compared", "nothing"),
    ][report.exit_code]
    if report.findings and all(f.follows and f.wrong.name not in RETURNED for f in report.findings):
        sign, word, kind = "≈", "It records differently", "nothing"
    wrong = sum(not t.ok for r in report.results for t in r.taps)
    compared = f"{report.coverage} in {counted(len(report.results), 'case')} compared"
    if report.not_given:
        compared += f", not given: {', '.join(report.not_given)}"
    facts = [compared, f"{wrong} wrong", report.dtype, f"aimv2-np {__version__}"]
    return el(
        "header",
        el("p", "aimv2-np verify", class_="program"),
        el(
            "div",
            el("span", sign, class_="sign", aria_hidden="true"),
            el("div", el("p", word, class_="word"), el("h1", report.verdict)),
            class_=f"verdict {kind}",
        ),
        el("p", " · ".join(facts), class_="facts"),
    )


# ---------------------------------------------------------------------------- findings


def _finding(report: Report, finding: Finding, index: int, case: Case) -> Markup:
    """A difference: where, what it looks like, why."""
    return el(
        "section",
        el("h2", el("span", f"Difference {index + 1}", class_="count"), title(finding)),
        _fields(_where_and_what(report, finding)),
        *heat_maps(finding, case),
        *_causes(finding),
        class_="finding",
        id=f"difference-{index + 1}",
    )


def _where_and_what(report: Report, finding: Finding) -> dict[str, object]:
    """The first difference, by what it is called."""
    wrong, before = finding.wrong, finding.last_right
    link = el("a", _code(wrong.name), href=f"#{_id(report, wrong)}")
    fields: dict[str, object] = {
        "First difference": el("span", link, f" in case {wrong.case}", el("br"), _amount(wrong)),
        "Last right": _code(before.name) if before else "nothing of this stream before it",
        "Steps at fault": _steps(finding.suspects),
    }
    if finding.right_cases:
        fields["Right in"] = _counted_list("case", finding.right_cases)
    seen = pattern(finding)
    if seen:
        fields["What it looks like"] = "; ".join(seen)
    return fields


def _amount(wrong: TapResult) -> str:
    """How wrong an activation is."""
    if wrong.problem or not math.isfinite(wrong.error.overall):
        return wrong.problem or "not finite where it should be"
    own = "" if wrong.own_excess is None else f"; this step alone {times(wrong.own_excess)}"
    size = f"{number(wrong.error.overall)} of its size"
    return f"{size}, {times(wrong.excess)} the rounding error{own}"


def _id(report: Report, tap: TapResult) -> str:
    """The id of an activation's row; where mistakes are planted the same tap is another object."""
    cases = [result.case.name for result in report.results]
    return f"case-{cases.index(tap.case) + 1}-{tap.name}"


def _code(name: str) -> Markup:
    return el("code", name)


def _counted_list(noun: str, names: Sequence[str]) -> str:
    return f"{noun if len(names) == 1 else noun + 's'} {', '.join(names)}"


def _steps(names: Sequence[str]) -> Markup:
    """The steps between, each by its activation; many fold up."""
    chain = el("span", *_joined([_code(name) for name in names], " → "), class_="chain")
    if len(names) <= _FEW:
        return chain
    ends = el("summary", _code(names[0]), " … ", _code(names[-1]), f" ({len(names)} steps)")
    return el("details", ends, chain)


def _joined(parts: Sequence[Markup], by: str) -> Iterator[str]:
    for i, part in enumerate(parts):
        yield from (by, part) if i else (part,)


def _fields(fields: dict[str, object]) -> Markup:
    """Names and what they are."""
    rows = (el("div", el("dt", name), el("dd", value)) for name, value in fields.items())
    return el("dl", *rows)


def _causes(finding: Finding) -> list[Markup]:
    """What explains it, what explains it as well, or what comes nearest."""
    if finding.follows:
        like = [el("p", "It is as after ", _code(m.id), f": {m.says}")
                 for cause in finding.causes for m in cause.mistakes]  # fmt: skip
        told = el("p", f"O{recorded(finding)[1:]}. R{RECORDED[1:]}; {FED}.")
        return [el("div", el("h3", "Cause: recorded differently"), told, *like, class_="cause")]
    if finding.proved:
        best = finding.causes[0]
        parts = [_cause(best, finding, "Cause")]
        if finding.alike:
            also = "These inputs cannot tell it from the next; "
            also += f"{finding.apart} would:" if finding.apart else "no activation would:"
            parts += [el("p", also, class_="alike")]
            parts += [_cause(cause, finding, "Or") for cause in finding.alike]
        return parts
    if finding.dtype:
        less = el("p", f"T{as_in_less(finding)[1:]}.")
        return [el("div", el("h3", "Cause: perhaps a smaller dtype"), less, class_="cause")]
    nearest = [_cause(cause, finding, "Nearest") for cause in finding.causes]
    said = f"N{unexplained(finding)[1:]}{'; these come nearest' if nearest else ''}."
    return [el("p", said, class_="alike"), *nearest]


def _cause(cause: Cause, finding: Finding, what: str) -> Markup:
    """A mistake with its remedy and its evidence."""
    told: list[Markup] = []
    for mistake in cause.mistakes:
        told.append(el("p", mistake.says))
        told.append(el("p", el("b", "Remedy: "), mistake.remedy))
        if mistake.seen_in:
            told.append(el("p", f"seen in {mistake.seen_in}", class_="seen"))
    return el(
        "div",
        el("h3", f"{what}: ", _code(cause.id), where(cause)),
        *told,
        el("p", el("b", "Evidence: "), *_evidence(cause, finding), class_="evidence"),
        class_=f"cause {'proved' if cause.proved else 'likely'}",
    )


def _evidence(cause: Cause, finding: Finding) -> Iterator[str]:
    """What planting the mistake in the reference explains, leaves, and makes right."""
    name = finding.wrong.name
    if math.isfinite(finding.wrong.error.overall):
        share = el("strong", _share(cause.explained))
        yield from ("planted in the reference, it explains ", share, " of the error of ")
        yield from (_code(name), "; what is left is ")
    else:
        yield from ("with it planted in the reference, ", _code(name), " is off by ")
    yield from (el("strong", times(cause.excess)), f" rounding ({ALLOWED:g} × is allowed). ")
    computed = f"all that is computed from {_COMPUTED_FROM[stream(name)]} is right"
    if cause.next_wrong is None:
        yield f"Then {computed}, in every case."
    elif cause.next_wrong.name != name:
        yield from (f"Then {computed} before ", _code(cause.next_wrong.name))
        yield f" in case {cause.next_wrong.case}, which something else makes wrong."


def _share(explained: float) -> str:
    """A part of 1; 100 % only where nothing is left."""
    if 0.999 < explained < 1:
        return f"{100 * min(explained, 0.999999):.4f} %"
    return f"{100 * explained:.0f} %"


# ---------------------------------------------------------------------------- by depth


def _by_depth(report: Report) -> Markup:
    """The curves of every case that runs through the model."""
    note = (
        "Each error over the activation's size, on a scale of powers of ten; from left to right in "
        "the order of computation, with the numbers of the blocks below. What lies on the upper "
        "edge is not finite or has no shape that fits; what lies on the lower edge is exact or "
        "nearly so."
    )
    drawn = [_case_curves(result) for result in report.results if _has_depth(result)]
    if not drawn:
        return Markup("")
    return el("section", el("h2", "Errors by depth"), el("p", note), legend(), *drawn)


def _has_depth(result: CaseResult) -> bool:
    return bool(result.taps) and result.case.name != RAW


def _case_curves(result: CaseResult) -> Markup:
    return el(
        "figure",
        el("figcaption", "Case ", el("b", result.case.name), f": {_state(result)}"),
        el("div", curves(result), class_="plot"),
        class_="depth",
    )


def _state(result: CaseResult) -> str:
    """How many activations are wrong, and the largest error."""
    if not result.taps:
        return "the candidate gives no activation"
    wrong = sum(not t.ok for t in result.taps)
    largest = max(t.excess for t in result.taps)
    state = f"{wrong} of {len(result.taps)} wrong" if wrong else f"all {len(result.taps)} right"
    return f"{state}, the worst {times(largest)} rounding" if math.isfinite(largest) else state


# ---------------------------------------------------------------------------- activations


def _activations(report: Report) -> Markup:
    """Every activation of every case, open where something is wrong."""
    tables = [_table(report, result) for result in report.results]
    return el("section", el("h2", "Activations"), *tables)


def _table(report: Report, result: CaseResult) -> Markup:
    title = el("span", "Case ", el("b", result.case.name), f": {_state(result)}")
    if not result.taps:
        return el("p", title)
    first = [t for of in _COMPUTED_FROM if (t := result.first_wrong(of)) is not None]
    heads = ("Activation", "Excess", "Step alone", "Error", "Rounding", "Note")
    rows = [
        el("tbody", *(_row(report, tap, tap in first) for tap in section))
        for _, section in groupby(result.taps, key=lambda t: t.section)
    ]
    table = el("table", el("thead", el("tr", *(el("th", h, scope="col") for h in heads))), *rows)
    label = f"activations of case {result.case.name}"
    box = el("div", table, class_="box", tabindex=0, role="region", aria_label=label)
    links = [el("a", _code(tap.name), href=f"#{_id(report, tap)}") for tap in first]
    to_first = [el("p", "First wrong: ", *_joined(links, ", "))] if first else []
    return el("details", el("summary", title), *to_first, box, open="" if first else None)


def _row(report: Report, tap: TapResult, first: bool) -> Markup:
    """An activation: its numbers, a cross where it is wrong."""
    own = tap.own_excess
    note = [tap.problem, tap.note and f"read as: {tap.note}", tap.remark]
    worst = not tap.ok and tap.error.overall <= ALLOWED * tap.noise.overall
    sign = "" if tap.ok else "✗ first " if first else "✗ "
    return el(
        "tr",
        el("th", el("span", sign, class_="cross") if sign else "", tap.name, scope="row"),
        el("td", times(tap.excess) + ("†" if worst else "")),
        el("td", "" if own is None else times(own)),
        el("td", number(tap.error.overall)),
        el("td", number(tap.noise.overall)),
        el("td", "; ".join(filter(None, note))),
        class_=None if tap.ok else "wrong",
        id=_id(report, tap),
    )


# ---------------------------------------------------------------------------- what was run


def _what_was_run(report: Report) -> Markup:
    fields: dict[str, object] = {
        "Reference": f"{report.model}, NumPy in float64",
        "Candidate": report.candidate,
        "Its dtype": report.dtype,
        "Allowed": f"{ALLOWED:g} × the error of a correct run in {report.dtype}",
        "Cases": el("ul", *(el("li", _inputs(result.case)) for result in report.results)),
        "Version": f"aimv2-np {__version__}",
    }
    if report.notes:
        fields["Notes"] = el("ul", *(el("li", note) for note in report.notes))
    reading = el("p", el("b", "How to read the numbers. "), _READING)
    return el("section", el("h2", "What was run"), _fields(fields), reading)


def _inputs(case: Case) -> str:
    """A case in words."""
    parts = []
    if case.pixel_values is not None:
        count, _, height, width = case.pixel_values.shape
        parts.append(f"{counted(count, 'image')} of {height} × {width} pixels")
    if case.input_ids is not None:
        count, length = case.input_ids.shape
        mask = "with" if case.attention_mask is not None else "without"
        parts.append(f"{counted(count, 'text')} of {counted(length, 'token')}, {mask} a mask")
    if case.interpolate:
        parts.append("positions interpolated")
    return f"{case.name}: {'; '.join(parts) or 'no inputs'}"
