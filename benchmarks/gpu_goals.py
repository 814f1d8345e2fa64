"""The goals of the CUDA plug-in, and what the results say of each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Goal", "goals", "seconds", "verdict"]

Record = dict[str, Any]
RATIO = 1.15  # a forward over its products and attention, bf16, L-224, batch 64
ATTENTION = {256: 0.9, 1024: 0.75, 4096: 0.6}  # times cuDNN's speed, by patches
MODEL = "large-patch14-224"
BATCHES = (1, 8, 64)


@dataclass(frozen=True)
class Goal:
    """A number that should be at most, or at least, so large; None where it was not measured."""

    what: str
    limit: float
    measured: float | None
    at_most: bool = False
    why_not: str = "not measured"


def verdict(goal: Goal, dry: bool) -> str:
    """In words."""
    if goal.measured is None:
        return goal.why_not
    if dry:
        return "says nothing"
    met = goal.measured <= goal.limit if goal.at_most else goal.measured >= goal.limit
    return "met" if met else "short"


def seconds(side: Record | None) -> float | None:
    """The median of a side's turns."""
    return statistics.median(side["seconds"]) if side and "seconds" in side else None


def goals(records: list[Record]) -> Iterator[Goal]:
    """All of them, measured or not; of several results the latest."""
    ratios = {(r["model"], r["batch"]): r for r in records if r["kind"] == "ratio"}
    yield _ratio(ratios.get((MODEL, 64)))
    forwards = {(r["model"], r["dtype"], r["batch"]): r
                for r in records if r["kind"] == "forward"}  # fmt: skip
    for batch in BATCHES:
        what = f"bfloat16, batch {batch}: torch.compile + SDPA"
        yield _faster(what, forwards.get((MODEL, "bfloat16", batch)), ("compile",), whole=True)
    for dtype in ("float32", "tf32"):
        for batch in BATCHES:
            what = f"{dtype}, batch {batch}: the faster of eager and compile"
            yield _faster(what, forwards.get((MODEL, dtype, batch)), ("eager", "compile"))
    attention = {r["patches"]: r for r in records if r["kind"] == "attention"}
    for patches, limit in ATTENTION.items():
        yield _attention(patches, limit, attention.get(patches))


def _ratio(record: Record | None) -> Goal:
    what = "bfloat16, batch 64: total over products and attention"
    if record is None:
        return Goal(what, RATIO, None, at_most=True)
    parts = {name: statistics.median(part["seconds"]) for name, part in record["parts"].items()}
    total = parts.pop("total")
    return Goal(what, RATIO, total / sum(parts.values()), at_most=True)


def _faster(what: str, record: Record | None, others: tuple[str, ...], whole: bool = False) -> Goal:
    """The quickest of the others' time over ours; no speed where features are wrong."""
    if record is None:
        return Goal(what, 1.0, None)
    sides = record["sides"]
    if whole and record["compiled"] != "whole":
        return Goal(what, 1.0, None, why_not="not measured: compiled by block only")
    if sides["ours"].get("wrong"):
        return Goal(what, 1.0, None, why_not="our features are wrong")
    ours = seconds(sides["ours"])
    theirs = [s for name in others if (s := seconds(sides.get(name))) is not None]
    if ours is None:
        return Goal(what, 1.0, None, why_not=f"ours failed: {sides['ours'].get('failed')}")
    if len(theirs) < len(others):
        failed = [name for name in others if seconds(sides.get(name)) is None]
        return Goal(what, 1.0, None, why_not=f"not measured: {', '.join(failed)} failed")
    return Goal(what, 1.0, min(theirs) / ours)


def _attention(patches: int, limit: float, record: Record | None) -> Goal:
    what = f"attention at {patches} patches: cuDNN"
    if record is None:
        return Goal(what, limit, None)
    sides = record["sides"]
    ours, cudnn = seconds(sides["ours"]), seconds(sides.get("cudnn"))
    if sides.get("cudnn", {}).get("ours_is_off_by", 0) > OFF:
        return Goal(what, limit, None, why_not="our kernel is wrong")
    if ours is None or cudnn is None:
        return Goal(what, limit, None, why_not="not measured: cuDNN's failed")
    return Goal(what, limit, cudnn / ours)


OFF = 0.05  # of an output's length, by which two attentions in bfloat16 may differ
