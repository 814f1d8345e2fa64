"""The verifier's adapters: what transformers and the original code show of themselves.

On random models each must be found right in every activation, all of what can be seen must have
been compared, and a mistake planted in the live model must be located. timm's: test_verify_timm.py.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, verify_cases
from aimv2_np.verify.adapters import original, transformers

from . import original_stand_in
from .helpers import INSIDE, expected

pytestmark = pytest.mark.compare

ORIGINAL = importlib.util.find_spec("aim") is not None


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
