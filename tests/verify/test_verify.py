"""The verifier against the original code's recorded activations, and on broken candidates.

What needs torch is in tests/compare/test_verify*.py: every mistake in an independent port.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import golden_cases
import numpy as np
import pytest

from aimv2_np.backend import get_backend
from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.trace import Recorder, activation_names
from aimv2_np.verify import Candidate, Case, Report, verify_cases
from aimv2_np.verify.lanes import rounded
from aimv2_np.verify.locate import ALLOWED, suspects
from aimv2_np.verify.measure import Distance, distance
from aimv2_np.verify.mistakes import every

# The fixtures' names -> ours.
GOLDEN = {
    "text_block_{i}": "text.blocks.{i}.resid_post",
    "vision_block_{i}": "vision.blocks.{i}.resid_post",
    "vision_last_hidden_state": "vision.norm",
    "text_last_hidden_state": "text.norm",
    "vision_pooler_output": "vision.pooled",
    "text_pooler_output": "text.pooled",
}


def golden(kind: str) -> tuple[Any, list[Case], dict[str, dict[str, Any]]]:
    """A golden model, its inputs as cases, and what the original code computed."""
    given, wanted = golden_cases.inputs(kind), golden_cases.expected(kind)
    if kind == "lit":
        cases, outputs = [Case("0", **given)], {"0": wanted}
    else:
        cases = [Case(key[-1], pixel_values=given[key]) for key in sorted(given)]
        outputs = {
            case.name: {k[:-2]: a for k, a in wanted.items() if k.endswith(f"_{case.name}")}
            for case in cases
        }
    return (
        golden_cases.load(kind),
        cases,
        {case: {ours(k): a for k, a in taps.items()} for case, taps in outputs.items()},
    )


def ours(name: str) -> str:
    for theirs, ours in {
        **GOLDEN,
        "block_{i}": "vision.blocks.{i}.resid_post",
        "embed": "vision.embed",
        "last_hidden_state": "vision.norm",
    }.items():
        match = re.fullmatch(theirs.replace("{i}", r"(\d+)"), name)
        if match:
            return ours.format(i=match[1] if match.groups() else "")
    return name


@pytest.mark.parametrize("kind", golden_cases.LAYOUTS)
def test_the_original_code_is_right(kind: str) -> None:
    model, cases, outputs = golden(kind)
    if kind == "lit":
        outputs["0"] = {k: a for k, a in outputs["0"].items() if "no_mask" not in k}
    report = verify_cases(model, cases, Candidate("original", outputs))
    assert report.ok, str(report)
    assert report.exit_code == 0
    assert report.compared == sum(map(len, outputs.values()))


def test_what_transformers_computes_without_a_mask_is_named() -> None:
    """From the text embeddings alone."""
    model, (case,), outputs = golden("lit")
    taps = {
        name: outputs["0"][f"transformers_no_mask_{name}"]
        for name in ("text_embeds", "logits_per_image")
    }
    unmasked = Case("0", case.pixel_values, case.input_ids)
    report = verify_cases(model, [unmasked], Candidate("transformers", {"0": taps}))
    (finding,) = report.findings
    assert finding.wrong.name == "text_embeds"
    assert finding.causes[0].id == "text-noncausal"
    assert finding.causes[0].proved
    # one of text-never-causal and text-padding-seen: without a mask they are the same
    assert {c.id for c in finding.alike} == {"text-never-causal", "text-padding-seen"}
    assert "text-noncausal" in report.verdict
    assert report.exit_code == 1


# ---------------------------------------------------------------------------- broken candidates


def float32(
    kind: str = "lit", backend: str = "numpy"
) -> tuple[Any, list[Case], dict[str, dict[str, Any]]]:
    """A random model, its cases, and what a backend computes in float32."""
    given, cases, taps = random_models.make(kind), random_models.cases(kind), {}
    be = get_backend(backend)
    model = type(given)(given.config, be.prepare(given.params, "float32"), be)
    for case in cases:
        images, texts = case.pixel_values is not None, case.input_ids is not None
        names = activation_names(model.config, images=images, texts=texts)
        recorder = Recorder(names)
        tap, image, text = recorder.tap(), None, None
        vision = getattr(model, "vision", model)
        if images:
            image = vision.forward(case.pixel_values, case.interpolate, tap=tap)[1]
        if texts:
            text = model.text.forward(case.input_ids, case.attention_mask, tap=tap)[1]
        if kind == "lit":
            model.join(image, text, tap)
        taps[case.name] = {name: np.array(array) for name, array in recorder.arrays.items()}
    return given, cases, taps


def report_with(**changes: Any) -> Report:
    """On a right candidate in which some activations of the first case are exchanged."""
    model, cases, taps = float32("learned")
    taps["squares"] |= {name.replace("__", "."): a for name, a in changes.items()}
    return verify_cases(model, cases, Candidate("port", taps))


@pytest.mark.parametrize("kind", random_models.CONFIGS)
def test_the_numba_backend_is_right(kind: str) -> None:
    """Its products are summed otherwise than NumPy's, of which the noise is made."""
    model, cases, taps = float32(kind, "numba")
    report = verify_cases(model, cases, Candidate("port", taps))
    assert report.ok, str(report)
    own = [t.own_excess for r in report.results for t in r.taps]
    assert all(excess is not None and excess <= ALLOWED for excess in own)


def test_one_wrong_patch_is_found_and_shown() -> None:
    _, _, taps = float32("learned")
    up = taps["squares"]["vision.blocks.1.mlp.up"].copy()
    up[0, 7] += 1e-3
    (finding,) = report_with(vision__blocks__1__mlp__up=up).findings
    assert finding.wrong.name == "vision.blocks.1.mlp.up"
    assert finding.last_right is not None
    assert finding.last_right.name == "vision.blocks.1.mlp.gate"
    assert not finding.causes or not finding.causes[0].proved
    text = str(Report("m", "c", "float32", [], [finding]))
    assert "patches in rows 1, columns 2 of image 0" in text  # 7 = 1 · 5 + 2


def test_nan_is_said() -> None:
    _, _, taps = float32("learned")
    broken = taps["squares"]["vision.blocks.2.attn.out"].copy()
    broken[:, 3] = np.nan
    (finding,) = report_with(vision__blocks__2__attn__out=broken).findings
    assert finding.wrong.name == "vision.blocks.2.attn.out"
    assert finding.wrong.problem == "NaN in 2 of its 50 vectors"
    assert not finding.causes or not finding.causes[0].proved


def test_nan_in_one_image_is_looked_at_there() -> None:
    _, _, taps = float32("learned")
    broken = taps["squares"]["vision.norm"].copy()
    broken[1] = np.nan
    (finding,) = report_with(vision__norm=broken).findings
    assert finding.wrong.problem == "NaN in 25 of its 50 vectors"
    assert finding.causes == []
    broken[1] = np.inf
    (finding,) = report_with(vision__norm=broken).findings
    assert finding.wrong.problem == "infinity in 25 of its 50 vectors"


def test_truth_values_are_numbers() -> None:
    report = report_with(vision__norm=np.ones((2, 25, 48), bool))
    assert report.findings[0].wrong.name == "vision.norm"


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 24, 48), "shape (2, 24, 48), expected (2, 25, 48)"),
        (
            (3, 25, 48),
            "shape (3, 25, 48), expected (2, 25, 48): 3 of 2 in the batch; was it run on these "
            "inputs?",
        ),
        (
            (2, 25, 47),
            "shape (2, 25, 47), expected (2, 25, 48): 47 wide instead of 48; is it another "
            "model's?",
        ),
    ],
)
def test_other_shapes_are_said(shape: tuple[int, ...], says: str) -> None:
    (finding,) = report_with(vision__norm=np.zeros(shape, np.float32)).findings
    assert finding.wrong.name == "vision.norm"
    assert finding.wrong.problem == says
    foreign = shape != (2, 24, 48)  # a patch less may be a mistake, an image more is none
    assert (finding.tried == "") == foreign


def test_nothing_to_compare_is_an_error() -> None:
    model, cases, _ = float32("learned")
    with pytest.raises(VerificationError, match="gives no activation of the cases"):
        verify_cases(model, cases, Candidate("port", {}))
    with pytest.raises(VerificationError, match="dtype int4"):
        verify_cases(model, cases, Candidate("port", {"squares": {}}, "int4"))


def test_the_wrong_model_is_not_explained() -> None:
    """They differ from the first product on, and no mistake explains that."""
    _, cases, taps = float32("learned")
    report = verify_cases(random_models.make("learned", seed=2), cases, Candidate("port", taps))
    (finding,) = report.findings
    assert finding.wrong.name == "vision.patch_embed"
    assert not finding.causes or not finding.causes[0].proved
    assert "no mistake in the library explains it" in str(report)


def test_steps_at_fault() -> None:
    """Between the last right activation and the wrong one lie the steps that nobody showed."""
    model, cases, taps = float32("lit")
    kept = ("vision.embed", "vision.blocks.0.resid_post", "vision.blocks.1.norm_2")
    taps["pairs"] = {name: taps["pairs"][name] for name in kept}
    taps["pairs"]["vision.blocks.1.norm_2"] = taps["pairs"]["vision.blocks.1.norm_2"] + 1
    report = verify_cases(model, cases, Candidate("port", {"pairs": taps["pairs"]}))
    (finding,) = report.findings
    names = activation_names(model.config)
    after = names.index("vision.blocks.0.resid_post") + 1
    assert finding.suspects == names[after : names.index("vision.blocks.1.norm_2") + 1]
    assert suspects(model, report.results[0], finding.wrong) == finding.suspects


# ---------------------------------------------------------------------------- the report


def test_json_is_plain_and_complete() -> None:
    report = report_with(vision__norm=np.full((2, 25, 48), np.inf, np.float32))
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["ok"] is False
    assert plain["findings"][0]["first_wrong"]["name"] == "vision.norm"
    assert len(plain["activations"]) == report.compared


def test_every_mistake_says_what_to_do() -> None:
    mistakes = every()
    assert len({m.id for m in mistakes}) == len(mistakes) >= 45
    for m in mistakes:
        assert re.fullmatch(r"[a-z0-9-]+", m.id)
        assert m.says
        assert m.says != m.remedy
        assert not m.says.endswith(".")
        assert m.remedy


def test_the_readme_s_example_says_what_the_readme_says() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "assert_matches" in b)
    with pytest.raises(AssertionError) as error:
        exec(code, {})
    said, shown = str(error.value), readme.split("AssertionError: ")[1].split("\n\nHere two")[0]
    for line in shown.splitlines():
        if "rounding error" in line:  # depends on the machine's sums
            line = line.partition(":")[0]
        assert line.strip() in said


# ---------------------------------------------------------------------------- measures


def test_distance_by_hand() -> None:
    truth = np.array([[3.0, 4.0], [0.0, 5.0]])  # both of length 5
    found = np.array([[3.0, 4.0], [0.0, 4.0]])  # one of them 1 off
    assert distance(found, truth) == Distance(np.sqrt(1 / 2) / 5, 1 / 5)
    hidden = np.array([[1.0, -np.inf]])
    assert distance(np.array([[1.0, -3.4e38]]), hidden) == Distance(0, 0)
    assert distance(np.array([[1.0, 0.5]]), hidden).overall >= 1  # looks where it may not
    assert distance(np.array([[1.0, np.nan]]), hidden).overall == np.inf


def test_rounding_by_hand() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -65505.0, 3e38, np.nan, np.inf])
    assert rounded(values, "bfloat16")[:3].tolist() == [1.0, 1.0, 1 + 2**-6]  # ties to even
    assert np.isnan(rounded(values, "bfloat16")[5])
    assert rounded(values, "float16")[4] == np.inf
    assert rounded(np.array(1 / 3), "bfloat16").shape == ()
