"""What a test suite of a port uses: `assert_matches`, and the pytest plug-in around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import numpy_ports
import pytest
from safetensors.numpy import save_file

import aimv2_np
from aimv2_np.errors import AIMv2Error, VerificationError
from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, Report
from aimv2_np.verify.asserts import assert_matches, report_on
from aimv2_np.verify.conformance import export
from aimv2_np.verify.inputs import Inputs, write_inputs

pytest_plugins = ["pytester"]

TALL = ["vision.embed", "vision.blocks.0.*", "vision.pooled"]


def one(mistaken: bool = False, case: str = "tall") -> tuple[Inputs, dict[str, Any]]:
    """The inputs and outputs of one case: quick."""
    cases = [c for c in numpy_ports.inputs().cases if c.name == case]
    return Inputs(cases, [], []), numpy_ports.outputs(mistaken)[case]


def matches(candidate: Any, mistaken: bool = False, **how: Any) -> Report:
    inputs, _ = one(mistaken)
    return assert_matches(numpy_ports.model(), candidate, inputs=inputs, **how)


# ---------------------------------------------------------------------------- right and wrong


def test_a_right_port_gives_its_report() -> None:
    report = matches(one()[1], taps=TALL)
    assert (report.ok, report.exit_code) == (True, 0)
    assert {t.name for r in report.results for t in r.taps} >= {"vision.embed", "vision.pooled"}


def test_a_wrong_port_fails_with_the_report() -> None:
    with pytest.raises(AssertionError) as error:
        matches(one(mistaken=True)[1], taps=TALL)
    text = str(error.value)
    assert "first difference  vision.blocks.0.mlp.hidden (tall)" in text
    assert "cause             gelu" in text


def test_all_cases_and_raw_inputs() -> None:
    outputs = numpy_ports.outputs()
    del outputs["one"]
    taps = ["vision.pooled", "text.pooled", "logits_per_image", "pixel_values_*", "input_ids"]
    report = assert_matches("emoji-lit", outputs, taps=taps)
    compared = {result.case.name for result in report.results if result.taps}
    assert compared == {"pairs", "wide", "tall", "alone", "raw"}
    processor, images = numpy_ports.model().processor, numpy_ports.inputs().images
    blue_first = {f"pixel_values_{i}": processor(a[..., ::-1])[0] for i, a in enumerate(images)}
    with pytest.raises(AssertionError, match=r"first difference  pixel_values_\d \(raw\)"):
        assert_matches(numpy_ports.model(), {"raw": blue_first})


def test_raw_inputs_alone_may_be_right() -> None:
    report = assert_matches(numpy_ports.model(), {"raw": numpy_ports.outputs()["raw"]})
    assert report.compared == 5


def mapping(arrays: dict[str, Any], _: Path) -> Any:
    return arrays


def by_case(arrays: dict[str, Any], _: Path) -> Any:
    return {"tall": arrays}


def by_key(arrays: dict[str, Any], _: Path) -> Any:
    return {f"tall/{name}": array for name, array in arrays.items()}


def candidate(arrays: dict[str, Any], _: Path) -> Any:
    return Candidate("mine", {"tall": arrays})


def safetensors(arrays: dict[str, Any], folder: Path) -> Any:
    whole = {f"tall/{n}": np.array(array, order="C") for n, array in arrays.items()}
    save_file(whole, folder / "outputs.safetensors")
    return folder / "outputs.safetensors"


def npz(arrays: dict[str, Any], folder: Path) -> Any:
    np.savez(folder / "outputs.npz", **arrays)
    return str(folder / "outputs.npz")


def function(arrays: dict[str, Any], _: Path) -> Any:
    return lambda pixel_values: arrays


@pytest.mark.parametrize("form", [mapping, by_case, by_key, candidate, safetensors, npz, function])
def test_forms_of_a_candidate(form: Callable[..., Any], tmp_path: Path) -> None:
    for mistaken in (False, True):
        arrays = {n: one(mistaken)[1][n] for n in ("vision.embed", "vision.blocks.0.mlp.hidden")}
        report = report_on(numpy_ports.model(), form(arrays, tmp_path), inputs=one()[0])
        assert (report.ok, report.compared) == (not mistaken, 2)


def test_a_live_function_on_the_default_inputs() -> None:
    report = assert_matches("emoji-lit", numpy_ports.run, taps=["vision.pooled", "text.pooled"])
    assert report.compared == 5


def test_inputs_as_a_file_or_cases(tmp_path: Path) -> None:
    inputs, arrays = one()
    write_inputs(tmp_path / "inputs.safetensors", inputs, "emoji-lit")
    for given in (tmp_path / "inputs.safetensors", inputs.cases, inputs.cases[0]):
        assert assert_matches(
            numpy_ports.model(), arrays, inputs=given, taps="vision.embed"
        ).compared


def test_a_models_own_names_and_dtype() -> None:
    theirs = {"vision_model.embeddings": one()[1]["vision.embed"]}
    assert matches(theirs, names="transformers").results[0].taps[0].name == "vision.embed"
    rough = {"vision.embed": one()[1]["vision.embed"] * np.float32(1 + 2**-9)}
    assert matches(rough, dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(AssertionError):
        matches(rough)


def test_models_without_a_pipeline() -> None:
    model, cases = random_models.make("native"), random_models.cases("native")
    port = {"wide": {"vision.norm": model(cases[0].pixel_values).last_hidden_state}}
    assert assert_matches(model, port, inputs=cases).compared == 1
    with pytest.raises(VerificationError, match="inputs: expected"):
        assert_matches(model, port)


# ---------------------------------------------------------------------------- no comparison


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({}, "holds no arrays"),
        ({"vision.nrom": np.ones(3)}, "no name in it is known"),
        ({"wide": {"vision.norm": np.ones(3)}}, "gives a case 'wide'; the inputs have tall, raw"),
        (Candidate("mine", {"pairs": {}}), "mine gives a case 'pairs'"),
        (Candidate("mine", {"tall": {"vision.nrom": np.ones(3)}}), "could be compared"),
        ({"vision.norm": np.array(["a"])}, "holds <U1, expected an array of numbers"),
        ({"vision.norm": [[1], [1, 2]]}, "is no array"),
        ({"raw": {"pixel_values_0": np.ones((3, 2, 2))}}, "raw/pixel_values_0"),
        (7, "candidate: expected a file, a mapping of arrays, a Candidate or a function"),
        ("nowhere.safetensors", "no such file"),
    ],
)
def test_candidates_that_cannot_be_compared(candidate: Any, words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        matches(candidate)


def test_a_key_without_a_case() -> None:
    with pytest.raises(
        VerificationError, match="key 'vision.norm' names no case: write 'pairs/vision.norm'"
    ):
        assert_matches(numpy_ports.model(), {"vision.norm": np.ones(3)})


@pytest.mark.parametrize("taps", ["vision.blocks.9.*", ["vision.embed", "nothing"], []])
def test_taps_that_match_nothing(taps: Any) -> None:
    with pytest.raises(VerificationError, match="gives nothing that matches"):
        matches(one()[1], taps=taps)


def test_models_that_are_none() -> None:
    for model, words in (
        (3, "found int"),
        (aimv2_np.load("emoji-lit"), "the backend numba"),
    ):
        with pytest.raises(VerificationError, match=words):
            assert_matches(model, {})
    with pytest.raises(AIMv2Error):
        assert_matches("no-such-model", {})


def test_a_dtype_that_is_none() -> None:
    with pytest.raises(VerificationError, match="float8"):
        matches(one()[1], dtype="float8")


# ---------------------------------------------------------------------------- the plug-in

# Loaded by hand, so that these tests do not depend on how the package is installed.
PLUGIN = ("-p", "no:aimv2_np", "-p", "aimv2_np.verify.pytest_plugin", "-p", "no:cacheprovider")

RIGHT_AND_WRONG = """
    def test_right(aimv2_verify):
        assert aimv2_verify("emoji-lit", "right.npz", inputs="inputs.safetensors").ok

    def test_wrong(aimv2_verify):
        taps = "*.mlp.hidden"
        aimv2_verify("emoji-lit", "wrong.npz", inputs="inputs.safetensors", taps=taps)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with inputs and two ports' outputs."""
    inputs, _ = one()
    write_inputs(pytester.path / "inputs.safetensors", inputs, "emoji-lit")
    for name, mistaken in (("right", False), ("wrong", True)):
        arrays = {n: one(mistaken)[1][n] for n in ("vision.embed", "vision.blocks.0.mlp.hidden")}
        np.savez(pytester.path / f"{name}.npz", **arrays)
    return pytester


def test_the_fixture(suite: pytest.Pytester) -> None:
    suite.makepyfile(RIGHT_AND_WRONG)
    result = suite.runpytest(*PLUGIN)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: *wrong.npz differs from emoji-lit: gelu-tanh"])
    result.stdout.fnmatch_lines(["E*first difference  vision.blocks.0.mlp.hidden (tall)*"])
    result.stdout.no_fnmatch_line("*asserts.py*")  # the traceback ends in the test
    assert not list(suite.path.glob("**/*.html"))


def test_a_model_is_made_once_in_a_session(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aimv2_np.verify import asserts

    made: list[Any] = []
    real = asserts.reference
    monkeypatch.setattr(asserts, "reference", lambda name: made.append(name) or real(name))
    suite.makepyfile(RIGHT_AND_WRONG)
    suite.runpytest(*PLUGIN)
    assert made == ["emoji-lit"]


def test_a_page_for_each_failure(suite: pytest.Pytester) -> None:
    twice = """
    import pytest

    @pytest.mark.parametrize("how", ["a/b", "a b"])
    def test_twice(aimv2_verify, how):
        with pytest.raises(AssertionError):
            aimv2_verify("emoji-lit", "wrong.npz", inputs="inputs.safetensors")
        aimv2_verify("emoji-lit", "wrong.npz", inputs="inputs.safetensors")
    """
    suite.makepyfile(test_one=RIGHT_AND_WRONG, test_two=twice)
    result = suite.runpytest(*PLUGIN, "--aimv2-report", "pages/of run")
    result.assert_outcomes(passed=1, failed=3)
    pages = list((suite.path / "pages/of run").iterdir())
    assert len(pages) == 1 + 2 * 2
    assert all("gelu" in page.read_text() and page.suffix == ".html" for page in pages)
    (wrong,) = (page for page in pages if "test_wrong" in page.name)
    result.stdout.fnmatch_lines([f"E*page: {wrong}"])


def test_a_page_that_cannot_be_written_hides_nothing(suite: pytest.Pytester) -> None:
    suite.makepyfile(RIGHT_AND_WRONG)
    (suite.path / "file").write_text("")
    result = suite.runpytest(*PLUGIN, "--aimv2-report", "file")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*differs from emoji-lit: gelu-tanh", "E*page: none, *"])


CONFORMANCE = """
    import numpy as np
    from pathlib import Path

    HERE = Path(__file__).parent

    def test_right(aimv2_conformance):
        (case,) = aimv2_conformance.inputs.cases
        assert case.name == "tall"
        assert not aimv2_conformance.check(HERE / "right.npz")

    def test_wrong(aimv2_conformance):
        assert not aimv2_conformance.check({"vision.embed": np.zeros((1, 44, 192))})
"""


def test_a_pack_from_the_command_line_or_the_ini_file(suite: pytest.Pytester) -> None:
    export(numpy_ports.model(), suite.mkdir("vendored") / "my pack", inputs=one()[0])
    suite.makepyfile(CONFORMANCE)
    result = suite.runpytest(*PLUGIN, "--aimv2-conformance", "vendored/my pack")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*tall/vision.embed*overall 1 (allowed *"])
    suite.makeini("[pytest]\naimv2_conformance = vendored/my pack\n")
    below = suite.mkdir("below")
    result = suite.runpytest(*PLUGIN, f"--rootdir={below}", "-c", str(suite.path / "tox.ini"))
    result.assert_outcomes(passed=1, failed=1)


def test_a_pack_that_is_missing(suite: pytest.Pytester) -> None:
    suite.makepyfile(CONFORMANCE)
    result = suite.runpytest(*PLUGIN)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*pass --aimv2-conformance FOLDER, or set*"])
    result = suite.runpytest(*PLUGIN, "--aimv2-conformance", "nowhere")
    result.stdout.fnmatch_lines(["E*VerificationError: *nowhere: no conformance pack: *"])


def test_the_plugin_is_found_and_light() -> None:
    (point,) = entry_points(group="pytest11", name="aimv2_np")
    assert point.value == "aimv2_np.verify.pytest_plugin"
    code = (
        "import sys, aimv2_np.verify.pytest_plugin; "
        "print({'numpy', 'torch', 'safetensors', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
