"""Activations that a right port records differently, and errors that are no dtype's."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy_ports
import pytest

from aimv2_np.testing import random_models
from aimv2_np.trace import Recorder, activation_names
from aimv2_np.verify import Candidate, Report, verify_cases
from aimv2_np.verify.asserts import report_on
from aimv2_np.verify.finding import Finding
from aimv2_np.verify.lanes import lanes, rounded, truth
from aimv2_np.verify.mistakes import every
from aimv2_np.verify.walk import State, run, sections

Change = Callable[[Any], Any]


def ported(
    kind: str,
    recorded: dict[str, Change] | None = None,
    made: dict[str, Change] | None = None,
    *,
    mistake: str = "",
) -> Report:
    """On a float32 run whose activations are changed where they are recorded, or as they flow.

    Both by a glob pattern of their names. `mistake` is the id of one that it makes besides.
    """
    model, cases = random_models.make(kind), random_models.cases(kind)
    lane = lanes(truth(model), "float32")[0].model
    planted = every([mistake] if mistake else [])
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
            how: Any = {"wants": lambda name: True, "mistakes": planted}
            state = run(lane, case, section, state, see, **how)
    return verify_cases(model, cases, Candidate("port", given))


def all_blocks(step: str, tower: str = "vision", count: int = 4) -> list[str]:
    return [f"{tower}.blocks.{i}.{step}" for i in range(count)]


def recorded(finding: Finding) -> list[str]:
    """What is recorded differently; all of it in both cases."""
    cases = [case for case, _ in finding.recorded]
    assert cases.count("squares") == cases.count("wide")
    return list(dict.fromkeys(name for _, name in finding.recorded))


def test_scores_before_they_are_scaled() -> None:
    report = ported("learned", {"*.attn.scores": lambda x: x * np.sqrt(12)})
    (finding,) = report.findings
    assert report.exit_code == 1
    assert recorded(finding) == all_blocks("attn.scores")
    assert finding.follows == "vision.blocks.0.attn.pattern"
    assert [cause.id for cause in finding.causes] == ["scale-missing"]
    assert report.verdict == "port matches learned except for attn.scores recorded differently"
    said = str(report)
    assert "recorded          vision.blocks.0.attn.scores (" in said
    assert "vision.blocks.0.attn.pattern, computed from it, is right; 3 more are like it" in said
    assert "it is as after    scale-missing: " in said


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
    assert recorded(finding) == all_blocks("norm_2")
    assert finding.causes == []


def test_a_mistake_besides_is_named() -> None:
    report = ported(
        "learned",
        {"*.attn.scores": lambda x: x * np.sqrt(12)},
        mistake="gelu",
    )
    scores, made = report.findings
    assert scores.follows
    assert not made.follows
    assert made.wrong.name == "vision.blocks.0.mlp.hidden"
    assert [cause.id for cause in made.causes] == ["gelu"]
    assert report.verdict == "port differs from learned: gelu, attn.scores recorded differently"


@pytest.mark.parametrize("step", ["attn.q", "mlp.hidden", "resid_mid"])
def test_what_flows_on_is_no_matter_of_recording(step: str) -> None:
    report = ported("learned", None, {f"*.1.{step}": lambda x: x * 1.5})
    assert report.findings[0].wrong.name == f"vision.blocks.1.{step}"
    assert not any(finding.follows for finding in report.findings)


def test_what_softmax_does_not_see_may_be_without_effect() -> None:
    """The same added to all scores of a query: the pattern is right, and would be."""
    report = ported("learned", None, {"*.1.attn.scores": lambda x: x + 1})
    (finding,) = report.findings
    assert finding.wrong.name == "vision.blocks.1.attn.scores"
    assert (finding.follows, finding.moves) == ("vision.blocks.1.attn.pattern", False)
    assert "recorded differently, or without effect" in str(report)


# ---------------------------------------------------------------------------- of the packaged model


def emoji(change: Callable[[str, str, Any], Any]) -> Report:
    """A right port of emoji-lit, of whose activations a function of case, name and array is given.

    What it makes None is not given.
    """
    found = numpy_ports.outputs()
    taps = {
        f"{case}/{name}": changed
        for case, arrays in found.items()
        for name, a in arrays.items()
        if case not in ("one", "raw") and (changed := change(case, name, a)) is not None
    }
    return report_on(numpy_ports.model(), taps, inputs=numpy_ports.inputs())


def test_embeddings_before_they_are_normalised() -> None:
    """Only one case has the logits that show it; of the others the same explains the same."""
    features = numpy_ports.outputs()

    def given(case: str, name: str, a: Any) -> Any:
        if name in ("image_embeds", "text_embeds"):
            return features[case][name.replace("embeds", "features")]
        return a if name == "logits_per_image" else None

    report = emoji(given)
    assert {f.wrong.name: f.follows for f in report.findings} == {
        "image_embeds": "logits_per_image",
        "text_embeds": "logits_per_image",
    }
    assert all([c.id for c in f.causes] == ["l2-missing"] for f in report.findings)
    cases = {case for f in report.findings for case, _ in f.recorded}
    assert cases == {"pairs", "wide", "tall", "alone"}


def test_a_mistake_at_the_very_step_that_is_recorded_differently() -> None:
    """Scores before they are scaled, and a text encoder that is not causal: seen in the pattern."""
    report = ported("lit", {"*.attn.scores": lambda x: x * np.sqrt(12)}, mistake="text-noncausal")
    made = [f for f in report.findings if not f.follows]
    assert [f.causes[0].id for f in made] == ["text-noncausal"]
    assert made[0].wrong.name == "text.blocks.0.attn.pattern"


def test_logits_alone_are_wrong() -> None:
    """The vision encoder is right to its end, and of texts nothing is given."""

    def given(case: str, name: str, a: Any) -> Any:
        if case == "pairs" and name == "logits_per_image":
            return a * np.float32(1.2)
        return a if name.startswith("vision.") else None

    (finding,) = emoji(given).findings
    assert finding.wrong.name == "logits_per_image"
    assert not finding.proved


def test_what_is_returned_differently_is_a_difference() -> None:
    def given(case: str, name: str, a: Any) -> Any:
        if case != "pairs" or not name.startswith(("image_embeds", "logits")):
            return None
        return a * np.float32(3) if name == "image_embeds" else a

    report = emoji(given)
    assert report.verdict == "candidate differs from emoji-lit: image_embeds returned differently"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_a_narrow_dtype(dtype: str) -> None:
    """One step's difference is not many times the rounding of what is computed from it."""
    model, cases = random_models.make("learned"), random_models.cases("learned")
    lane = lanes(truth(model), dtype)[1]
    taps: dict[str, dict[str, Any]] = {}
    for case in cases:
        found = taps.setdefault(case.name, {})

        def see(name: str, value: Any, found: dict[str, Any] = found) -> Any:
            flows = lane.see(name, value)
            gate = name.endswith("mlp.gate")
            found[name] = rounded(flows / (1 + np.exp(-flows)), dtype) if gate else flows
            return flows

        state = State()
        for section in sections(lane.model, case):
            how: Any = {"wants": lambda name: True}
            state = run(lane.model, case, section, state, see, **how)
    (finding,) = verify_cases(model, cases, Candidate("port", taps, dtype)).findings
    assert finding.follows
    assert {name for _, name in finding.recorded} == set(all_blocks("mlp.gate"))


def test_what_shows_it_may_lie_far_behind() -> None:
    def given(_: str, name: str, a: Any) -> Any:
        if name.startswith("vision.") and name.endswith("attn.q"):
            return a * np.float32(0.18)
        return a if name.endswith("_embeds") else None

    (finding,) = emoji(given).findings
    assert finding.follows == "image_embeds"
    assert {name for _, name in finding.recorded} == set(all_blocks("attn.q", count=6))


def test_a_recording_in_one_case_hides_no_mistake_in_another() -> None:
    """Positions that are only scaled where "wide" notes them, and really cut for "tall"."""
    table = numpy_ports.outputs()["pairs"]["vision.pos_embed"].reshape(64, -1)

    def given(case: str, name: str, a: Any) -> Any:
        if case == "tall":
            return table[:44] if name == "vision.pos_embed" else None
        return a * np.float32(1000) if (case, name) == ("wide", "vision.pos_embed") else a

    recorded_, made = emoji(given).findings
    assert recorded_.recorded == [("wide", "vision.pos_embed")]
    assert made.wrong.case == "tall"
    assert made.causes[0].id == "pos-slice"


def test_two_blocks_in_the_wrong_order() -> None:
    model, cases = random_models.make("learned"), random_models.cases("learned")
    a, b, c, d = model.params.blocks
    swapped = type(model)(
        model.config, model.params._replace(blocks=(a, c, b, d)), model.backend, "float32"
    )
    taps = {case.name: dict(swapped_taps(swapped, case)) for case in cases if not case.interpolate}
    first, second = verify_cases(model, cases, Candidate("port", taps)).findings
    assert [f.causes[0].id for f in (first, second)] == ["layer-next", "layer-previous"]
    assert first.causes[0].mistakes[0].only == ("vision.blocks.1.",)
    assert second.causes[0].mistakes[0].only == ("vision.blocks.2.",)


def swapped_taps(model: Any, case: Any) -> dict[str, Any]:
    recorder = Recorder(activation_names(model.config))
    model.forward(case.pixel_values, tap=recorder.tap())
    return dict(recorder.arrays)


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


@pytest.mark.parametrize("step", ["attn.context", "attn.out"])
def test_what_is_in_some_channels_is_no_dtype(step: str) -> None:
    def one_head(x: Any) -> Any:
        x = x.copy()
        x[..., :12] *= 1.003
        return x

    (finding, *_) = ported("learned", None, {f"*.1.{step}": one_head}).findings
    assert finding.wrong.name == f"vision.blocks.1.{step}"
    assert not finding.dtype


def test_a_thousandth_of_a_dtype_s_error_is_none() -> None:
    rng = np.random.default_rng(3)

    def blurred(x: Any) -> Any:
        return x + 3e-6 * x.std() * rng.standard_normal(x.shape).astype(np.float32)

    (finding, *_) = ported("learned", None, {"*.1.attn.v": blurred}).findings
    assert finding.wrong.name == "vision.blocks.1.attn.v"
    assert not finding.dtype
