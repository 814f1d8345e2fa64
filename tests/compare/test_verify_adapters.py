"""The verifier's adapters: what timm, transformers and the original code show of themselves.

On random models each must be found right in every activation, all of what can be seen must have
been compared, and a mistake planted in the live model must be located.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import random_models
import torch

from aimv2_np.errors import VerificationError
from aimv2_np.trace import activation_names
from aimv2_np.verify import Candidate, Case, Report, reference, verify_cases
from aimv2_np.verify.adapters import original, timm, transformers

from . import original_stand_in

pytestmark = pytest.mark.compare

INSIDE = {"attn.scores", "attn.pattern", "head.scores", "head.pattern", "logit_scale"}
ORIGINAL = importlib.util.find_spec("aim") is not None


def expected(model: Any, case: Case, hidden: set[str]) -> set[str]:
    """All activations but those whose names end so."""
    names = activation_names(
        model.config, images=case.pixel_values is not None, texts=case.input_ids is not None
    )
    return {name for name in names if not name.endswith(tuple(hidden))}


def check(kind: str, adapter: Any, dtype: str, hidden: set[str], **options: Any) -> Report:
    """Verify a library as it is, and that nothing that it shows was left out."""
    model, cases = random_models.make(kind, seed=3), random_models.cases(kind, seed=4)
    candidate = adapter.candidate(model, cases, dtype, **options)
    report = verify_cases(model, cases, candidate)
    compared = {case.name: set(candidate.cases.get(case.name, ())) for case in cases}
    for result in report.results:
        assert {tap.name for tap in result.taps} == compared[result.case.name]
        assert not any(tap.problem for tap in result.taps)
        if result.taps:
            assert compared[result.case.name] == expected(model, result.case, hidden)
    return report


# ---------------------------------------------------------------------------- timm


@pytest.mark.parametrize("kind", ["learned", "deep"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_timm_is_right(kind: str, dtype: str) -> None:
    """Also on another grid, to which timm resamples positions itself."""
    report = check(kind, timm, dtype, INSIDE | {"pos_embed"})
    assert report.ok, report
    depth = random_models.CONFIGS[kind].num_hidden_layers
    assert report.compared == 2 * (5 + 13 * depth)  # cases, taps around blocks and in them


def test_timm_resamples_positions_in_float32_whatever_its_dtype_is() -> None:
    report = check("learned", timm, "float64", INSIDE | {"pos_embed"})
    (finding,) = report.findings
    assert (finding.wrong.case, finding.wrong.name) == ("wide", "vision.embed")
    assert finding.dtype == "float32"


def test_timm_with_the_weights_of_a_checkpoint() -> None:
    """A reference leaves its blocks in the file; the head width is 12 here."""
    from golden_cases import GOLDEN, inputs

    model = reference(GOLDEN / "vision-absolute" / "transformers")
    cases = [Case("golden", inputs("vision-absolute")["pixel_values_0"])]
    report = verify_cases(model, cases, timm.candidate(model, cases))
    assert report.ok, report
    assert report.compared == 5 + 13 * 2


def exchanged(built: Any) -> None:
    mlp = built.blocks[2].mlp
    mlp.fc1_g, mlp.fc1_x = mlp.fc1_x, mlp.fc1_g


def keys_first(built: Any) -> None:
    with torch.no_grad():
        weight = built.blocks[1].attn.qkv.weight
        q, k, v = weight.chunk(3)
        weight.copy_(torch.cat([k, q, v]))


def no_final_norm(built: Any) -> None:
    built.norm = torch.nn.Identity()


def half_residual(built: Any) -> None:
    built.blocks[3].mlp.register_forward_hook(lambda module, inputs, output: output / 2)


@pytest.mark.parametrize(
    ("plant", "where"),
    [
        (exchanged, "vision.blocks.2.mlp.gate"),
        (keys_first, "vision.blocks.1.attn.q"),
        (no_final_norm, "vision.norm"),
        (half_residual, "vision.blocks.3.resid_post"),
    ],
)
def test_a_mistake_in_timm_is_located(plant: Callable[[Any], None], where: str) -> None:
    model, cases = random_models.make("learned"), random_models.cases("learned")[:1]
    built = timm.build(model)
    plant(built)
    report = verify_cases(model, cases, Candidate("timm", {"squares": timm.watch(built, cases[0])}))
    (finding, *_) = report.findings
    assert finding.wrong.name == where
    assert finding.last_right is not None


@pytest.mark.parametrize(
    ("kind", "lacks"), [("lit", "texts"), ("native", "positions for native resolution")]
)
def test_what_timm_lacks(kind: str, lacks: str) -> None:
    with pytest.raises(VerificationError, match=f"timm's AIMv2 has no {lacks}"):
        timm.candidate(random_models.make(kind), random_models.cases(kind))


def test_cases_that_timm_cannot_run() -> None:
    model, cases = random_models.make("learned"), random_models.cases("learned")
    texts, odd = random_models.cases("lit")[1], Case("odd", cases[0].pixel_values[:, :, :29])
    candidate = timm.candidate(model, [cases[0], odd, texts])
    assert list(candidate.cases) == ["squares"]
    assert "case odd was left out: AssertionError: Input height (29)" in candidate.notes[0]
    assert candidate.notes[1] == "case alone was left out: it has no images"
    with pytest.raises(VerificationError, match="timm fails in every case: odd: Assertion"):
        timm.candidate(model, [odd])


# ---------------------------------------------------------------------------- transformers


@pytest.mark.parametrize(
    ("kind", "hidden"), [("native", {"pos_embed"}), ("learned", set()), ("lit", {"text_embeds"})]
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_shows_all_but_the_inside_of_attention(
    kind: str, hidden: set[str], attention: str
) -> None:
    """One tower on its own has no embeddings; one case in two is a grid that it does not take."""
    model = random_models.make(kind)
    for case in random_models.cases(kind):
        if case.interpolate:
            continue
        alone = INSIDE | (hidden if case.pixel_values is None or kind != "lit" else set())
        candidate = transformers.candidate(model, [case], attention=attention)
        assert set(candidate.names(case.name)) == expected(model, case, alone)
        report = verify_cases(model, [case], candidate)
        names = [cause.id for finding in report.findings for cause in finding.causes[:1]]
        assert names == (["text-noncausal"] if case.name == "alone" else [])
        assert report.compared == len(expected(model, case, alone))


def test_a_grid_that_transformers_does_not_take() -> None:
    model, cases = random_models.make("learned"), random_models.cases("learned")
    candidate = transformers.candidate(model, cases)
    assert list(candidate.cases) == ["squares"]
    assert "case wide was left out: RuntimeError" in candidate.notes[0]


# ---------------------------------------------------------------------------- the original


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "installed",
            marks=pytest.mark.skipif(not ORIGINAL, reason="the original code is not installed"),
        ),
    ]
)
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "stand-in":
        for name, module in original_stand_in.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    return str(request.param)


@pytest.mark.parametrize("kind", ["native", "lit"])
def test_the_original_is_right(code: str, kind: str) -> None:
    """It shows computed positions, but not those that are a parameter."""
    hidden = {"pos_embed"} if kind == "lit" else set()
    model = random_models.make(kind)
    alone = {"text_embeds"}  # normalised only beside the other tower's
    for case in random_models.cases(kind):
        towers = hidden | (alone if kind == "lit" and case.pixel_values is None else set())
        candidate = original.candidate(model, [case])
        assert set(candidate.names(case.name)) == expected(model, case, INSIDE | towers)
        report = verify_cases(model, [case], candidate)
        assert report.ok, report
        assert report.compared == len(candidate.cases[case.name])


def test_a_mistake_in_the_original_is_located(code: str) -> None:
    model, cases = random_models.make("lit"), random_models.cases("lit")
    built = original.build(model)
    with torch.no_grad():
        built.text_encoder.trunk.blocks[1].norm_2.weight.add_(1)
    taps = {case.name: original.watch(built, case) for case in cases}
    report = verify_cases(model, cases, Candidate("original", taps))
    assert report.findings[0].wrong.name == "text.blocks.1.norm_2"
    assert report.findings[0].causes[0].id == "rms-plus-one"


@pytest.mark.skipif(ORIGINAL, reason="the original code is installed")
def test_without_the_original_the_error_says_what_to_install() -> None:
    with pytest.raises(VerificationError, match="install aim-v1 and aim-v2 of the repository"):
        original.candidate(random_models.make("lit"), random_models.cases("lit"))
