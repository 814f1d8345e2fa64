"""Activations that a right port records differently, and errors that are no dtype's."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
import random_models

from aimv2_np.verify import Candidate, Report, verify_cases
from aimv2_np.verify.lanes import lanes, rounded, truth
from aimv2_np.verify.walk import State, run, sections

Change = Callable[[Any], Any]


def ported(
    kind: str, recorded: dict[str, Change] | None = None, made: dict[str, Change] | None = None
) -> Report:
    """On a float32 run whose activations are changed where they are recorded, or as they flow.

    Both by a glob pattern of their names.
    """
    model, cases = random_models.make(kind), random_models.cases(kind)
    lane = lanes(truth(model), "float32")[0].model
    given: dict[str, dict[str, Any]] = {}

    def changed(name: str, value: Any, changes: dict[str, Change] | None) -> Any:
        for pattern, change in (changes or {}).items():
            value = change(value) if fnmatchcase(name, pattern) else value
        return np.asarray(value)

    for case in cases:
        taps = given.setdefault(case.name, {})

        def see(name: str, value: Any, taps: dict[str, Any] = taps) -> Any:
            value = changed(name, value, made)
            taps[name] = changed(name, value, recorded)
            return value

        state = State()
        for section in sections(lane, case):
            state = run(lane, case, section, state, see, wants=lambda name: True)
    return verify_cases(model, cases, Candidate("port", given))


def all_blocks(step: str, tower: str = "vision", count: int = 4) -> list[str]:
    return [f"{tower}.blocks.{i}.{step}" for i in range(count)]


def test_scores_before_they_are_scaled() -> None:
    report = ported("learned", {"*.attn.scores": lambda x: x * np.sqrt(12)})
    (finding,) = report.findings
    assert report.exit_code == 1
    assert finding.recorded == all_blocks("attn.scores")
    assert finding.follows == "vision.blocks.0.attn.pattern"
    assert [cause.id for cause in finding.causes] == ["scale-missing"]
    assert report.verdict == "port differs from learned: attn.scores recorded differently"
    said = str(report)
    assert "only its recording differs (and 3 like it)" in said
    assert "vision.blocks.0.attn.pattern, which is computed from it, is right" in said
    assert "as after" in said


def test_in_both_towers_and_at_the_end() -> None:
    report = ported(
        "lit",
        {"*.attn.v": lambda x: x + 1, "logits_per_image": np.transpose, "logit_scale": np.log},
    )
    found = {finding.wrong.name: finding.follows for finding in report.findings}
    assert found == {
        "vision.blocks.0.attn.v": "vision.blocks.0.attn.context",
        "text.blocks.0.attn.v": "text.blocks.0.attn.context",
        "logit_scale": "logits_per_text",
        "logits_per_image": "logits_per_text",
    }


def test_an_array_of_no_shape_that_fits() -> None:
    (finding,) = ported("learned", {"*.norm_2": lambda x: x[:, 1:]}).findings
    assert finding.follows == "vision.blocks.0.mlp.gate"
    assert finding.recorded == all_blocks("norm_2")
    assert finding.causes == []


def test_a_mistake_besides_is_named() -> None:
    report = ported(
        "learned",
        {"*.attn.scores": lambda x: x * np.sqrt(12)},
        {"*.2.mlp.hidden": lambda x: x, "*.2.norm_2": lambda x: np.flip(x, axis=-1)},
    )
    recorded, made = report.findings
    assert recorded.follows
    assert not made.follows
    assert made.wrong.name == "vision.blocks.2.norm_2"


@pytest.mark.parametrize("step", ["attn.q", "mlp.hidden", "resid_mid"])
def test_what_flows_on_is_no_matter_of_recording(step: str) -> None:
    report = ported("learned", None, {f"*.1.{step}": lambda x: x * 1.5})
    assert report.findings[0].wrong.name == f"vision.blocks.1.{step}"
    assert not any(finding.follows for finding in report.findings)


def test_what_softmax_does_not_see_is_no_matter_of_recording() -> None:
    """The same added to all scores of a query: the pattern is right, and would be."""
    report = ported("learned", None, {"*.1.attn.scores": lambda x: x + 1})
    (finding,) = report.findings
    assert finding.wrong.name == "vision.blocks.1.attn.scores"
    assert not finding.follows


# ---------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("factor", [1.0005, 1.002, 1.01])
def test_a_factor_is_no_dtype(factor: float) -> None:
    (finding, *_) = ported("learned", None, {"*.2.mlp.out": lambda x: x * factor}).findings
    assert finding.wrong.name == "vision.blocks.2.mlp.out"
    assert not finding.dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("where", ["*", "*.1.attn.q"])
def test_a_smaller_dtype(where: str, dtype: str) -> None:
    """All of it, or one step whose inputs are right: judged by what that step may err."""
    (finding, *_) = ported("learned", None, {where: lambda x: rounded(x, dtype)}).findings
    named = finding.causes[0].id if finding.proved else ""
    assert finding.dtype == dtype or dtype.replace("float", "f") in named.replace("float", "f")


def test_a_thousandth_of_a_dtype_s_error_is_none() -> None:
    rng = np.random.default_rng(3)

    def blurred(x: Any) -> Any:
        return x + 3e-6 * x.std() * rng.standard_normal(x.shape).astype(np.float32)

    (finding, *_) = ported("learned", None, {"*.1.attn.v": blurred}).findings
    assert finding.wrong.name == "vision.blocks.1.attn.v"
    assert not finding.dtype
