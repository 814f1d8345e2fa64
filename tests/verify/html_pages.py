"""Reports to show as HTML pages: on a right port, on mistaken ones, of made-up values and names."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from pages import HOSTILE

import aimv2_np
from aimv2_np.verify import Candidate, Case, Report, reference, verify_cases
from aimv2_np.verify.finding import Finding
from aimv2_np.verify.lanes import lanes, truth
from aimv2_np.verify.locate import CaseResult, TapResult
from aimv2_np.verify.measure import Distance
from aimv2_np.verify.mistakes import every
from aimv2_np.verify.walk import run, sections

NAME = "vision.blocks.0.attn.context"


# ---------------------------------------------------------------------------- reports


@cache
def emoji_lit() -> Any:
    return reference("emoji-lit")


@cache
def cases() -> tuple[Case, Case]:
    """Padded texts, and a text without a mask."""
    pipeline, samples = emoji_lit(), aimv2_np.samples()
    pixels = pipeline.preprocess([samples["cat"], samples["pizza"]])
    padded = pipeline.tokenize(["a cat", "a large pizza with cheese"])
    alone = pipeline.tokenize(["a cat"])
    return (
        Case("padded", pixels, padded.input_ids, padded.attention_mask),
        Case("alone", pixels[:1], alone.input_ids, None),
    )


def port(case: Case, *mistakes: str) -> dict[str, Any]:
    """What a float32 port with some mistakes gives."""
    model, state, found = lanes(truth(emoji_lit()), "float32")[-1].model, {}, {}

    def see(name: str, value: Any) -> Any:
        found[name] = np.array(value)
        return value

    for section in sections(model, case):
        state = run(
            model, case, section, state, see, wants=lambda n: True, mistakes=every(mistakes)
        )
    return found


@cache
def verified(*mistakes: str) -> Report:
    found = {case.name: port(case, *mistakes) for case in cases()}
    return verify_cases(emoji_lit(), cases(), Candidate("a port", found))


def tap(name: str, error: float, **more: Any) -> TapResult:
    """An activation whose rounding error is 1e-7."""
    given = {"case": "one", "section": "vision.blocks.0", "own": None} | more
    noise = Distance(1e-7, 2e-7)
    return TapResult(name=name, error=Distance(error, 2 * error), noise=noise, **given)


def report(taps: list[TapResult], *findings: Finding, case: Case | None = None) -> Report:
    return Report("m", "c", "float32", [CaseResult(case or Case("one"), taps)], findings)


def finding(found: Any, right: Any, name: str = NAME, **more: Any) -> Finding:
    """A difference that nothing explains."""
    given = {"real": None, "grid": None} | more
    return Finding(tap(name, 0.5), None, [name], np.asarray(found), np.asarray(right), **given)


def hostile() -> Report:
    """Names, notes and problems from files that mean no good, and numbers that are none."""
    taps = [
        tap(NAME, math.inf, case=HOSTILE, problem=HOSTILE, note=HOSTILE),
        tap("vision.norm", math.nan, case=HOSTILE, own=Distance(math.nan, math.inf)),
        tap("text.norm", 0.0, case=HOSTILE, section="text.finish", own=Distance(0.0, 0.0)),
    ]
    lost = finding(np.full((2, 3, 4, 5), np.nan), np.ones((2, 3, 4, 5)))
    lost.wrong, lost.right_cases, lost.suspects = taps[0], [HOSTILE], [HOSTILE] * 9
    result = CaseResult(Case(HOSTILE, np.zeros((2, 3, 28, 28)), np.zeros((1, 4))), taps)
    return Report(HOSTILE, HOSTILE, HOSTILE, [result], [lost], [HOSTILE])
