"""The verifier's ONNX adapter: graphs as both of torch's exporters write them, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.trace import activation_names
from aimv2_np.verify import Case, verify_cases
from aimv2_np.verify.adapters import onnx as adapter
from aimv2_np.verify.adapters import timm, transformers
from aimv2_np.verify.adapters.torch_modules import as_tensors

pytestmark = [
    pytest.mark.compare,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::torch.jit.TracerWarning"),
]

Export = Callable[..., Path]
ORDER = ("input_ids", "pixel_values", "attention_mask")  # of transformers' arguments
OUTPUTS = {
    "learned": ["last_hidden_state"],
    "native": ["last_hidden_state"],
    "lit": ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    + [f"{t}_model_output.{n}" for t in ("text", "vision") for n in ("hidden", "pooler_output")],
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Random models as ONNX files; each is made once, in a folder of its own."""

    @cache
    def make(
        kind: str,
        *,
        library: str = "transformers",
        dynamo: bool = True,
        attention: str = "eager",
        dtype: str = "float32",
        one: bool = False,
        free: bool = False,
    ) -> Path:
        """`one`: for one image; `free`: for any number of images, texts and tokens."""
        model, case = random_models.make(kind), random_models.cases(kind)[0]
        case = Case("one", case.pixel_values[:1]) if one else case
        options = (model, dtype) if library == "timm" else (model, dtype, attention)
        built = {"timm": timm, "transformers": transformers}[library].build(*options)
        tensors = as_tensors(case, dtype)
        names = [name for name in ORDER if name in tensors]
        axes = {
            n: {0: "images"} if n == "pixel_values" else {0: "texts", 1: "tokens"} for n in names
        }
        dynamic = {n: dict.fromkeys(a, torch.export.Dim.DYNAMIC) for n, a in axes.items()}
        how = {"dynamic_shapes": dynamic} if dynamo else {"dynamic_axes": axes}
        file = tmp_path_factory.mktemp("onnx") / "m.onnx"
        torch.onnx.export(
            built,
            tuple(tensors[name] for name in names),
            file,
            input_names=names,
            output_names=["mean_of_patches"] if library == "timm" else OUTPUTS[kind],
            dynamo=dynamo,
            verbose=False,
            **(how if free else {}),
        )
        return file

    return make


def shown(kind: str, case: Case, hidden: tuple[str, ...]) -> set[str]:
    images, texts = case.pixel_values is not None, case.input_ids is not None
    names = activation_names(random_models.CONFIGS[kind], images=images, texts=texts)
    return {name for name in names if not name.endswith(hidden)}


# ---------------------------------------------------------------------------- right graphs

# The newer exporter folds learned positions into a constant.
GRAPHS = [
    ("learned", {"library": "timm"}, ("pos_embed",)),
    ("learned", {"dynamo": False}, ()),
    ("learned", {"attention": "sdpa"}, ("pos_embed",)),
    ("native", {}, ("pos_embed",)),
    ("native", {"dynamo": False, "attention": "sdpa"}, ("pos_embed",)),
    ("lit", {}, ("pos_embed", "logit_scale")),
    ("lit", {"dynamo": False}, ("logit_scale",)),
]


@pytest.mark.parametrize(("kind", "how", "hidden"), GRAPHS)
def test_every_activation_of_a_graph_is_compared(
    export: Export, kind: str, how: dict[str, Any], hidden: tuple[str, ...]
) -> None:
    """Also scores and patterns, which hooks cannot see."""
    case = random_models.cases(kind)[0]
    candidate = adapter.candidate(export(kind, **how), [case])
    assert set(candidate.names(case.name)) == shown(kind, case, hidden)
    assert candidate.dtype == "float32"
    report = verify_cases(random_models.make(kind), [case], candidate)
    assert report.ok, report
    assert report.compared == len(shown(kind, case, hidden))


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_graph_of_both_towers_runs_cases_of_one(export: Export, dynamo: bool) -> None:
    """Other cases' images stand in, and what comes of them is left out."""
    cases = random_models.cases("lit")
    images = Case("images", cases[0].pixel_values[:2])
    file = export("lit", dynamo=dynamo, free=True)
    candidate = adapter.candidate(file, [*cases, images])
    assert candidate.notes == ()
    for case in (cases[1], images):
        assert set(candidate.names(case.name)) - shown("lit", case, ()) == set()
        assert len(candidate.cases[case.name]) >= 15 * 4
    report = verify_cases(random_models.make("lit"), [*cases, images], candidate)
    assert report.ok, report  # a mask is an input here, so transformers' texts are causal
    assert report.compared == sum(map(len, candidate.cases.values()))


def test_a_graph_for_one_image_runs_several_one_by_one(export: Export) -> None:
    squares = random_models.cases("learned")[0]
    file = export("learned", dynamo=False, one=True)
    report = verify_cases(
        random_models.make("learned"), [squares], adapter.candidate(file, [squares])
    )
    assert report.ok, report
    assert report.compared == len(shown("learned", squares, ()))


def test_cases_of_other_shapes_are_left_out(export: Export) -> None:
    cases = random_models.cases("learned")
    file = export("learned")
    candidate = adapter.candidate(file, cases)
    assert list(candidate.cases) == ["squares"]
    assert "wide was left out: the graph takes pixel_values (2, 3, 30, 30)" in candidate.notes[0]
    with pytest.raises(VerificationError, match=r"fails in every case: wide: .* dynamic axes"):
        adapter.candidate(file, cases[1:])


# ---------------------------------------------------------------------------- mistakes


def test_a_mistake_in_a_graph_is_located_and_named(export: Export, tmp_path: Path) -> None:
    case = random_models.cases("learned")[0]
    file = export("learned", dynamo=False)
    proto = onnx.load(file)
    (weight,) = (
        w for w in proto.graph.initializer if w.name == "encoder.layers.2.rms_norm2.weight"
    )
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name)
    )
    file = tmp_path / "m.onnx"
    onnx.save(proto, file)
    candidate = adapter.candidate(file, [case])
    report = verify_cases(random_models.make("learned"), [case], candidate)
    (finding,) = report.findings
    assert finding.wrong.name == "vision.blocks.2.norm_2"
    assert finding.last_right is not None
    assert finding.last_right.name == "vision.blocks.2.resid_mid"
    assert finding.causes[0].id == "rms-plus-one"


# ---------------------------------------------------------------------------- names


def renamed(file: Path, folder: Path, **names: str) -> Path:
    """A copy whose inputs and outputs have other names, and without notes on modules."""
    proto = onnx.load(file)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.name = ""
        node.input[:] = [names.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [names.get(tensor, tensor) for tensor in node.output]
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def test_the_only_input_of_its_kind_needs_no_name(export: Export, tmp_path: Path) -> None:
    case = random_models.cases("learned")[0]
    file = renamed(export("learned"), tmp_path, pixel_values="x")
    candidate = adapter.candidate(file, [case])
    assert list(candidate.names("squares")) == ["vision.norm"]
    assert verify_cases(random_models.make("learned"), [case], candidate).ok


def test_names_of_ones_own(export: Export, tmp_path: Path) -> None:
    case, table = random_models.cases("learned")[0], tmp_path / "map.json"
    file = renamed(export("learned"), tmp_path, last_hidden_state="y")
    with pytest.raises(VerificationError, match="no tensor of it is known; its outputs are y:"):
        adapter.candidate(file, [case])
    table.write_text('{"y": "vision.norm", "conv2d": "vision.patch_embed"}')
    candidate = adapter.candidate(file, [case], names=table)
    assert set(candidate.names("squares")) == {"vision.norm", "vision.patch_embed"}
    assert verify_cases(random_models.make("learned"), [case], candidate).ok


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            {"input_ids": "a", "attention_mask": "b"},
            r"what the inputs are: a \(5, 12\), b \(5, 12\)",
        ),
        ({"pixel_values": "input_ids", "input_ids": "pixel_values"}, r"input_ids \(3, 3, 30, 30\)"),
    ],
)
def test_inputs_that_cannot_be_told_apart(
    export: Export, tmp_path: Path, names: dict[str, str], words: str
) -> None:
    """The second happens with the older exporter, where names are given in another order."""
    case = random_models.cases("lit")[0]
    file = renamed(export("lit"), tmp_path, **names)
    with pytest.raises(VerificationError, match=words):
        adapter.candidate(file, [case])


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff\xff\xff", "no ONNX"), (b"", "no ONNX graph")],
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "m.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(VerificationError, match=rf"m\.onnx: .*{words}"):
        adapter.candidate(file, random_models.cases("learned"))


def test_weights_that_are_missing(export: Export, tmp_path: Path) -> None:
    """The newer exporter writes them into a file of their own."""
    case = random_models.cases("learned")[0]
    file = copy(export("learned"), tmp_path)
    with pytest.raises(VerificationError, match="ONNX Runtime refuses it"):
        adapter.candidate(file, [case])


def test_half_precision_is_seen(export: Export) -> None:
    """The dtype is that of the weights; inputs are given in the graph's own."""
    case = random_models.cases("learned")[0]
    file = export("learned", dynamo=False, dtype="float16")
    candidate = adapter.candidate(file, [case])
    assert candidate.dtype == "float16"
    report = verify_cases(random_models.make("learned"), [case], candidate)
    assert report.ok, report
    assert np.asarray(candidate.get("squares", "vision.norm")).dtype == np.float16
