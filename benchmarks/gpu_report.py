"""Results of gpu.py as a Markdown page: the goals first, then what they rest on.

Nothing is measured here, and nothing is left unsaid: a case without a result has a reason. Times of
a dry run are made up and are never shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from gpu_goals import goals, seconds, verdict
from report import markdown

__all__ = ["page"]

Record = dict[str, Any]
SIDES = ("ours", "eager", "compile", "compile, graph")
MADE_UP = "made up"


def page(records: list[Record]) -> str:
    """The whole page."""
    if not records:
        return "No results.\n"
    dry = any(record["dry"] for record in records)
    parts = [
        ["# The CUDA plug-in on a GPU"],
        ["**A dry run on a CPU: nothing was measured, all times were made up.**"] if dry else [],
        machine(of("machine", records)),
        ["## Goals", "", *goal_table(records, dry)],
        ["## Is it right?", "", *checks(records), *programs(records), "", *error_table(records)],
        ["## Forwards", "", *forward_table(records, dry), "", *ABOUT_FORWARDS],
        ["## Where the time goes", "", *ratio_table(records, dry)],
        ["## Attention alone", "", *attention_table(records, dry)],
        ["## What is missing", "", *missing(records)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def of(kind: str, records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def shown(value: float | None, dry: bool, form: str = "{:.2f}") -> str:
    """A number that was measured, or a word where there is none."""
    if value is None:
        return "–"
    return MADE_UP if dry else form.format(value)


# ---------------------------------------------------------------------------- what it rests on


def machine(found: list[Record]) -> list[str]:
    if not found:
        return ["The machine was not described."]
    about = found[-1]
    versions = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    words = [about["name"]]
    if "memory_bytes" in about:
        words.append(f"{about['memory_bytes'] / 2**30:.0f} GiB")
        for key, whose in (("driver_cuda", "driver"), ("runtime_cuda", "wheel")):
            words.append(f"CUDA {about[key] // 1000}.{about[key] % 1000 // 10} of the {whose}")
    words += [f"{name.replace('_', ' ')} {value}" for name, value in about["clocks"].items()]
    return [f"{', '.join(words)}. {versions}. {about['date']}."]


def goal_table(records: list[Record], dry: bool) -> list[str]:
    rows = []
    for goal in goals(records):
        form = "≤ {:.2f}" if goal.at_most else "≥ {:.2f} ×"
        measured = shown(goal.measured, dry, "{:.2f}" + " ×" * (not goal.at_most))
        rows.append([goal.what, form.format(goal.limit), measured, verdict(goal, dry)])
    return markdown(["", "goal", "measured", ""], rows)


def checks(records: list[Record]) -> list[str]:
    """How many ops are right, and each that is not."""
    found = of("check", records)
    if not found:
        return ["No kernel was checked.", ""]
    wrong = [record for record in found if not record["ok"]]
    lines = [f"{len(found) - len(wrong)} of {len(found)} checks of kernels and products against "
             "float64 are within the roundings of their dtype."]  # fmt: skip
    if wrong:
        rows = [[r["what"], r["dtype"], f"{r['units']:.3g}", str(r["allowed"])] for r in wrong]
        lines += ["", *markdown(["wrong", "dtype", "off, in roundings", "allowed"], rows)]
    return [*lines, ""]


def programs(records: list[Record]) -> Iterator[str]:
    """The suite, and the sanitizer."""
    for record in of("suite", records):
        yield f"Conformance suite: {ended(record)}"
        yield from (f"- {line}" for line in record["failed"])
    for record in of("sanitizer", records):
        yield f"- compute-sanitizer, {record['tool']}: {record.get('missing') or ended(record)}"


def ended(record: Record) -> str:
    if record["returncode"] is None:
        return f"not ended after {record['seconds']:.0f} s; last: {record['summary']}"
    return f"{record['summary'].strip('= ')} (exit status {record['returncode']})"


def error_table(records: list[Record]) -> list[str]:
    """Worst errors of feature vectors, a row for a model, a column for a dtype."""
    found = of("error", records)
    if not found:
        return ["Errors of whole models were not measured."]
    dtypes = list(dict.fromkeys(record["dtype"] for record in found))
    worst = {(r["model"], r["side"], r["dtype"]): r["worst"] for r in found}
    rows = [
        [model, side, *(f"{worst.get((model, side, dtype), float('nan')):.1e}" for dtype in dtypes)]
        for model, side in dict.fromkeys((r["model"], r["side"]) for r in found)
    ]
    return [
        "Errors against the definition in float64: the worst feature vector's, as a part of its "
        "length.",
        "",
        *markdown(["model", "", *dtypes], rows),
    ]


# ---------------------------------------------------------------------------- speeds

ABOUT_FORWARDS = [
    "Images a second by the median of turns; share: of the rate at which our own call of cuBLAS "
    "multiplies large matrices in that dtype here (below); memory: weights and the most that a "
    "forward takes beside them. Eager and compile are transformers with SDPA; graph: the compiled "
    "model replayed as a CUDA graph. Compiled by block: one compiled block for all, which saves "
    "minutes and fuses nothing across blocks.",
]


def forward_table(records: list[Record], dry: bool) -> list[str]:
    peaks = {r["dtype"]: r["flop_per_second"] for r in of("peak", records)}
    head = ["model", "dtype", "batch", "patches", *(f"{side} images/s" for side in SIDES),
            "ours, share", "memory of ours", "of compile", "compiled", ""]  # fmt: skip
    rows = []
    for record in of("forward", records):
        sides = record["sides"]
        peak, took = peaks.get(record["dtype"]), seconds(sides.get("ours"))
        share = record["flop"] / took / peak if took and peak else None
        rows.append([
            record["model"], record["dtype"], str(record["batch"]), str(record["patches"]),
            *(rate(record, sides.get(side), dry) for side in SIDES),
            shown(share, dry, "{:.0%}"),
            *(memory(sides.get(side), dry) for side in ("ours", "compile")),
            record["compiled"], "; ".join(remarks(record)),
        ])  # fmt: skip
    table = markdown(head, rows) if rows else ["No forward was measured."]
    rates = [f"{d} {shown(rate / 1e12, dry, '{:.0f}')} TFLOP/s" for d, rate in peaks.items()]
    rates += [f"memory {shown(r['bytes_per_second'] / 1e12, dry)} TB/s, read and written"
              for r in of("bandwidth", records)]  # fmt: skip
    return [*table, "", f"Measured here: {', '.join(rates)}."] if rates else table


def rate(record: Record, side: Record | None, dry: bool) -> str:
    took = seconds(side)
    if took is None:
        return "failed" if side and "failed" in side else "–"
    wrong = " (WRONG)" if side and side.get("wrong") else ""
    return shown(record["batch"] / took, dry, "{:.0f}") + wrong


def memory(side: Record | None, dry: bool) -> str:
    held = (side or {}).get("memory_bytes")
    return shown(held and held / 1e9, dry, "{:.1f} GB")


def remarks(record: Record) -> Iterator[str]:
    """What failed, what is wrong, what was warned of, and where the two clocks disagree."""
    for name, side in record["sides"].items():
        if "failed" in side:
            yield f"{name}: {side['failed']}"
        if side.get("wrong"):
            yield f"{name} is off by {side['error']:.1e}"
        took = seconds(side)
        wall = statistics.median(side["wall_seconds"]) if took else 0
        if took and wall > 1.1 * took + 1e-4:
            yield f"{name}: {wall / took:.1f} times as long by the host's clock"
    yield from record["warnings"]


def ratio_table(records: list[Record], dry: bool) -> list[str]:
    found = of("ratio", records)
    if not found:
        return ["Not measured."]
    lines = []
    for record in found:
        parts = {name: statistics.median(p["seconds"]) for name, p in record["parts"].items()}
        rows = [[name, shown(1e3 * s, dry), shown(s / parts["total"], dry, "{:.0%}")]
                for name, s in parts.items()]  # fmt: skip
        lines += [f"{record['model']}, {record['dtype']}, batch {record['batch']}: products by "
                  "cuBLAS and attention, each timed alone on all blocks.", ""]  # fmt: skip
        lines += markdown(["", "ms", "of the total"], rows)
    return lines


def attention_table(records: list[Record], dry: bool) -> list[str]:
    found = of("attention", records)
    if not found:
        return ["Not measured."]
    names = list(dict.fromkeys(name for record in found for name in record["sides"]))
    rows = []
    for record in found:
        cells = []
        for name in names:
            side = record["sides"].get(name)
            took = seconds(side)
            speed = took and record["flop"] / took / 1e12
            cells.append("failed" if side and "failed" in side else shown(speed, dry, "{:.0f}"))
        off = [s["ours_is_off_by"] for s in record["sides"].values() if "ours_is_off_by" in s]
        rows.append([str(record["patches"]), str(record["batch"]), *cells,
                     f"{max(off):.1e}" if off else "–"])  # fmt: skip
    head = ["patches", "batch", *(f"{name} TFLOP/s" for name in names), "ours is off by"]
    return markdown(head, rows)


# ---------------------------------------------------------------------------- what is not there


def missing(records: list[Record]) -> list[str]:
    """Steps that did not end well, with the reason, and what of their forwards has no result."""
    have = {(r["step"], r["batch"]) for r in of("forward", records)}
    without: dict[str, list[str]] = {}
    for case in next((r["cases"] for r in reversed(of("plan", records))), []):
        if (case["step"], case["batch"]) not in have:
            without.setdefault(case["step"], []).append(str(case["batch"]))
    steps = {r["name"]: r for r in of("step", records)}
    lines = []
    for name in dict.fromkeys([*steps, *without]):
        step = steps.get(name, {"state": "not begun", "why": "not asked for"})
        if step["state"] != "done" or name in without:
            why = f"{step['state']}: {step.get('why', 'no reason is known')}"
            batches = ", ".join(without.get(name, []))
            lines.append(f"- {name}: {why}" + f" (no result of batch {batches})" * bool(batches))
    return lines or ["Nothing that was planned."]
