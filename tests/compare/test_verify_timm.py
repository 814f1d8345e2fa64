"""The verifier on timm's AIMv2: as it is, and with mistakes made in the live model.

As it is it must be right in every activation that it shows. Of each mistake of `TIMM` the first
activation where it shows must be found, and its name, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, Case, Report, reference, verify_cases
from aimv2_np.verify.adapters import timm

from .helpers import INSIDE, expected
from .timm_mistakes import MISTAKEN, TIMM

pytestmark = pytest.mark.compare

# On other grids, too: also on one of as many patches as the table has rows.
ROW = np.random.default_rng(0).standard_normal((1, 3, 6, 150)).astype(np.float32)
CASES = [*random_models.cases("learned"), Case("row", ROW, interpolate=True)]


def check(kind: str, dtype: str) -> Report:
    """Verify timm as it is, and that nothing that it shows was left out."""
    model, cases = random_models.make(kind, seed=3), random_models.cases(kind, seed=4)
    report = verify_cases(model, cases, timm.candidate(model, cases, dtype))
    for result in report.results:
        shown = expected(model, result.case, INSIDE | {"pos_embed"})
        assert {tap.name for tap in result.taps} == shown
        assert not any(tap.problem for tap in result.taps)
    return report


@pytest.mark.parametrize("kind", ["learned", "deep"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_timm_is_right(kind: str, dtype: str) -> None:
    """Also on another grid, to which timm resamples positions itself."""
    report = check(kind, dtype)
    assert report.ok, report
    depth = random_models.CONFIGS[kind].num_hidden_layers
    assert report.compared == 2 * (5 + 13 * depth)  # cases, taps around blocks and in them


def test_timm_resamples_positions_in_float32_whatever_its_dtype_is() -> None:
    report = check("learned", "float64")
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


# ---------------------------------------------------------------------------- mistakes

Found = list[tuple[str, str, list[str]]]


def found_of(id: str, *names: str) -> Found:
    """What is found of a mistake: its name if it is proved, its place, and what looks like it.

    `names`: from these activations alone.
    """
    model = random_models.make("learned")
    built = timm.build(model, other_grids=True)
    (TIMM | MISTAKEN)[id][0](built)
    taps: dict[str, Any] = {case.name: timm.watch(built, case) for case in CASES}
    if names:
        taps = {case: {name: shown[name] for name in names} for case, shown in taps.items()}
    report = verify_cases(model, CASES, Candidate("timm", taps))
    return [
        (f.causes[0].id if f.proved else "?", f.wrong.name, [c.id for c in f.alike])
        for f in report.findings
    ]


@pytest.mark.parametrize("id", sorted(TIMM))
def test_mistakes_are_located_and_named(id: str) -> None:
    assert found_of(id) == [(id, TIMM[id][1], [])]


@pytest.mark.parametrize(
    "id",
    ["block-skipped", "conv-bgr", "gelu", "head-dim-64", "kv-swapped", "layer-next",
     "no-final-norm", "no-mlp-residual", "no-positions", "pos-bilinear", "proj-transposed",
     "qkv-minor", "rms-eps", "rms-plus-one", "scale-missing"],
)  # fmt: skip
def test_mistakes_are_named_from_final_outputs(id: str) -> None:
    assert found_of(id, "vision.norm") == [(id, "vision.norm", [])]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the verifier does not get these right yet"
)
@pytest.mark.parametrize("id", sorted(MISTAKEN))
def test_mistakes_that_are_not_named_yet(id: str) -> None:
    """Strict: a verifier that names one fails here, until its row moves to `TIMM`."""
    assert found_of(id) == [(id, MISTAKEN[id][1], [])]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="float16 is told instead: it errs as much"
)
def test_a_norm_that_rounds_is_not_named_from_final_outputs_yet() -> None:
    assert found_of("rms-rounding", "vision.norm") == [("rms-rounding", "vision.norm", [])]


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
