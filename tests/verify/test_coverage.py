"""How much of a port was compared, how its arrays were read, and what it must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy_ports
import pytest
from safetensors.numpy import save_file

from aimv2_np.cli import main
from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.trace import Recorder, activation_names
from aimv2_np.verify import Candidate, Case, assert_matches, verify_cases
from aimv2_np.verify.asserts import report_on
from aimv2_np.verify.conformance import export, open_pack
from aimv2_np.verify.html import page
from aimv2_np.verify.inputs import Inputs

FINAL = ("image_embeds", "text_embeds", "logits_per_image")


def outputs(*names: str) -> numpy_ports.Outputs:
    """The right port's, of the inputs' own cases; all, or some activations of each case."""
    found = numpy_ports.outputs()
    del found["one"]
    return {
        case: {name: a for name, a in taps.items() if not names or name in names}
        for case, taps in found.items()
    }


def tall() -> Inputs:
    return Inputs([c for c in numpy_ports.inputs().cases if c.name == "tall"], [], [])


def known() -> int:
    """Activations of the cases, counted by hand from the list of names."""
    config, count = numpy_ports.model().config, 0
    for case in numpy_ports.inputs().cases:
        given = {"images": case.pixel_values is not None, "texts": case.input_ids is not None}
        names = activation_names(config, **given)
        count += len(set(names) - {"pixel_values", "input_ids"})
    return count + len(numpy_ports.inputs().sources) + 2  # ids and mask


def test_all_of_it() -> None:
    report = assert_matches(numpy_ports.model(), outputs())
    assert report.coverage == f"{known()} of {known()} activations"
    assert report.not_given == []
    assert "not given" not in str(report)
    assert report.coverage in report.verdict


def test_final_outputs_of_some_cases() -> None:
    given = outputs(*FINAL)
    some = {case: given[case] for case in ("wide", "alone")}
    report = assert_matches(numpy_ports.model(), some)
    assert report.coverage == f"2 of {known()} activations"
    assert report.not_given == ["case pairs", "case tall", "case raw", "logits_per_image"]
    last = str(report).splitlines()[-1]
    assert last == "not given         case pairs, case tall, case raw, logits_per_image"
    assert report.to_json()["coverage"] == {
        "compared": 2,
        "activations": known(),
        "missing_cases": ["pairs", "tall", "raw"],
        "missing_outputs": ["logits_per_image"],
    }
    text = page(report)
    assert report.coverage in text
    assert "not given: case pairs, case tall, case raw, logits_per_image" in text


def test_a_page_of_raw_inputs_too() -> None:
    """They have no depth, so no curve; a wrong one is shown as any other."""
    given = outputs()
    given["raw"] = {n: a[::-1] if "pixel" in n else a for n, a in given["raw"].items()}
    report = report_on(numpy_ports.model(), given, inputs=numpy_ports.inputs())
    (finding,) = report.findings
    text = page(report)
    assert f"{finding.causes[0].id}</code>" in text
    assert "activations of case raw" in text
    assert "errors of the activations of case raw" not in text


# ---------------------------------------------------------------------------- what must be given


def test_what_is_required_is_given() -> None:
    taps = numpy_ports.outputs()["tall"]
    assert assert_matches(numpy_ports.model(), taps, inputs=tall(), require="*").ok
    del taps["vision.blocks.3.attn.v"], taps["vision.norm"]
    require = ["*.resid_post", "vision.pooled"]
    assert assert_matches(numpy_ports.model(), taps, inputs=tall(), require=require).ok
    with pytest.raises(VerificationError) as error:
        assert_matches(numpy_ports.model(), taps, inputs=tall(), require="*")
    assert str(error.value) == (
        "candidate does not give what is required: 'tall/vision.blocks.3.attn.v', "
        "'tall/vision.norm'"
    )
    with pytest.raises(VerificationError, match=r"'text\.\*', which matches no activation"):
        assert_matches(numpy_ports.model(), taps, inputs=tall(), require="text.*")


def test_a_batch_of_raw_images_is_all_of_them() -> None:
    given = outputs()
    images = [given["raw"].pop(name) for name in list(given["raw"]) if "pixel" in name]
    given["raw"]["pixel_values"] = np.stack(images)
    assert assert_matches(numpy_ports.model(), given, require="*").ok
    given["raw"]["pixel_values_0"] = np.zeros_like(images[0])
    with pytest.raises(VerificationError, match="and single images besides: give one"):
        assert_matches(numpy_ports.model(), given)


def test_a_case_with_a_slash_is_refused() -> None:
    case = Case("a/b", numpy_ports.inputs().cases[0].pixel_values)
    with pytest.raises(VerificationError, match="a case cannot be called 'a/b'"):
        assert_matches(numpy_ports.model(), {"vision.norm": np.ones(3)}, inputs=[case])


def test_a_missing_case_is_missed() -> None:
    with pytest.raises(VerificationError, match="'pairs/image_embeds', 'tall/image_embeds'"):
        assert_matches(
            numpy_ports.model(), {"wide": outputs(*FINAL)["wide"]}, require="image_embeds"
        )


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taps = {f"{c}/{n}": a for c, found in outputs(*FINAL).items() for n, a in found.items()}
    save_file({n: np.ascontiguousarray(a) for n, a in taps.items()}, tmp_path / "a.safetensors")
    verify = ["verify", "emoji-lit", "--candidate", str(tmp_path / "a.safetensors"), "--json"]
    assert main([*verify, "--require", *FINAL]) == 0
    assert json.loads(capsys.readouterr().out)["coverage"]["compared"] == 6
    assert main([*verify, "--require", "vision.norm", "image_embeds"]) == 2
    assert "does not give what is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidate", "timm", "--names", "timm"], "--names is for files and programs"),
        (["--candidate", "a.npz", "--timeout", "3"], "--timeout is for --run"),
        (["--candidate", "a.npz", "--force"], "--force is for --html"),
        (["--run", "a", "--timeout", "-3"], "a number of seconds over 0, found '-3'"),
        (["--run", "a", "--timeout", "nan"], "a number of seconds over 0, found 'nan'"),
    ],
)
def test_options_that_would_do_nothing(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "emoji-lit", *options]) == 2
    assert words in capsys.readouterr().err


# ---------------------------------------------------------------------------- how it was read


def test_layouts_are_told() -> None:
    taps = numpy_ports.outputs()["tall"]
    for name in ("vision.blocks.0.attn.q", "vision.blocks.1.attn.q"):
        taps[name] = taps[name].swapaxes(1, 2)  # (B, N, H, E)
    told = str(assert_matches(numpy_ports.model(), taps, inputs=tall()))
    names = "vision.blocks.0.attn.q, vision.blocks.1.attn.q"
    assert f"read as           heads after tokens: {names}" in told


@pytest.mark.parametrize(("low", "right"), [(-100.0, True), (-10.0, False)])
def test_scores_masked_with_a_number(low: float, right: bool) -> None:
    """What softmax makes 0 of is hidden, be it -inf or not."""
    model, cases = random_models.make("lit"), random_models.cases("lit")[1:]
    recorder = Recorder(activation_names(model.config, images=False), ["text.*.attn.scores"])
    model.text.forward(cases[0].input_ids, cases[0].attention_mask, tap=recorder.tap())
    taps = recorder.arrays
    masked = {n: np.where(np.isneginf(a), np.float32(low), a) for n, a in taps.items()}
    report = verify_cases(model, cases, Candidate("port", {cases[0].name: masked}))
    assert report.ok == right


# ---------------------------------------------------------------------------- packs


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("packs") / "emoji"
    export(numpy_ports.model(), folder)
    return open_pack(folder)


def test_a_pack_reads_raw_images_as_the_verifier_does(pack: Any) -> None:
    raw = numpy_ports.outputs()["raw"]
    images = [raw[f"pixel_values_{i}"] for i in range(len(numpy_ports.inputs().sources))]
    last = {f"pixel_values_{i}": image.transpose(1, 2, 0) for i, image in enumerate(images)}
    assert pack.check({"raw": last}) == []
    assert pack.check({"raw": {"pixel_values": np.stack(images)}}) == []
    wrong = np.stack(images)[..., ::-1]
    failed = pack.check({"raw": {"pixel_values": wrong}})
    assert [failure.key for failure in failed] == [f"raw/{name}" for name in last]
    with pytest.raises(VerificationError, match=r"raw/pixel_values of shape \(1, 3, 64, 64\)"):
        pack.check({"raw": {"pixel_values": wrong[:1]}})


def test_a_pack_s_numbers_for_ids(pack: Any) -> None:
    (failure,) = pack.check({"raw": {"input_ids": np.asarray(3)}})
    assert str(failure).startswith("raw/input_ids: shape ()")


def test_a_pack_says_what_is_missing(pack: Any) -> None:
    given = numpy_ports.outputs()
    assert pack.check(given, require="*") == []
    del given["one"]["image_embeds"]
    with pytest.raises(VerificationError, match="required: 'one/image_embeds'"):
        pack.check(given, require="*")
