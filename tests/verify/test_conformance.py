"""A pack is complete, small, and judges as the verifier does.

`numpy_ports.from_readme` is written from the README of a pack and uses nothing of the package.
The folder that a pack lies in is judged in `test_conformance_folder.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy_ports
import pytest
from golden_cases import GOLDEN
from safetensors.numpy import load_file, save_file

from aimv2_np.errors import VerificationError
from aimv2_np.trace import activation_names
from aimv2_np.verify import Candidate, reference
from aimv2_np.verify.conformance import Pack, check, export, open_pack
from aimv2_np.verify.lanes import truth
from aimv2_np.verify.locate import compare

LIT = GOLDEN / "lit" / "transformers"  # tiny: what the verifier runs on often
FILES = {"README.md", "inputs.safetensors", "expected.safetensors", "tolerances.json", "model.json"}
EMOJI = Path(numpy_ports.aimv2_np.__file__).parent / "models_data/emoji-lit/model.safetensors"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packs") / "emoji"
    export(numpy_ports.model(), path)
    return path


@pytest.fixture
def pack(folder: Path) -> Pack:
    return open_pack(folder)


def expected(folder: Path) -> dict[str, Any]:
    """Read by the official library."""
    return load_file(folder / "expected.safetensors")


def flat(outputs: numpy_ports.Outputs) -> dict[str, Any]:
    return {f"{case}/{n}": a for case, arrays in outputs.items() for n, a in arrays.items()}


# ---------------------------------------------------------------------------- what is in it


def test_it_is_whole_and_small(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6


def test_expected_values(folder: Path) -> None:
    arrays = expected(folder)
    calls = {key: a for key, a in arrays.items() if not key.startswith("raw/")}
    assert {a.dtype for a in calls.values()} == {np.dtype("float64")}
    assert all(np.isfinite(a).all() for a in calls.values())
    names = {key.split("/")[1] for key in calls}
    known = activation_names(numpy_ports.model().config)
    left_out = (
        {n for n in known if not n.endswith("scores")} - names - {"pixel_values", "input_ids"}
    )
    assert all(".blocks." in n and ".blocks.0." not in n for n in left_out)
    assert not [n for n in left_out if n.endswith("resid_post")]
    assert len(left_out) == (5 + 3) * 13  # of the other blocks all but that and the scores
    finals = {"vision.embed", "vision.norm", "vision.pooled", "image_embeds"}
    for case in ("pairs", "wide", "tall", "one"):
        assert finals <= {key.split("/")[1] for key in calls if key.startswith(case)}


def test_tolerances_are_those_of_correct_runs(folder: Path, pack: Pack) -> None:
    tolerances = json.loads((folder / "tolerances.json").read_text())
    assert list(tolerances) == list(pack.expected)
    for key, by_dtype in tolerances.items():
        if key.startswith("raw/"):
            continue
        overall = [by_dtype[dtype]["overall"] for dtype in ("float32", "float16", "bfloat16")]
        assert overall == sorted(overall), key
        assert 2e-7 < overall[0] < 1e-4, key
        assert 7e-3 < overall[2] < 1, key
        assert all(allowed["worst"] >= allowed["overall"] for allowed in by_dtype.values())


def test_the_readme_tells_all_and_no_more(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for name in ("norm_1", "mlp.gate", "head.context", "text.pooled", "logits_per_text", "1e-05"):
        assert name in text
    assert "3999" in text  # the end token
    assert "[ sin(x" not in text  # emoji-lit learned its positions
    assert not {"$", "<!--"} & set(text.split())
    for line in text.splitlines():
        assert not line.startswith(("|", "-")) or "<!--" not in line


@pytest.mark.parametrize("case", ["vision-absolute", "vision-native", "lit"])
def test_the_readme_is_enough(case: str, tmp_path: Path) -> None:
    checkpoint = GOLDEN / case / "transformers"
    export(checkpoint, tmp_path / "pack")
    outputs = numpy_ports.from_readme(tmp_path / "pack", checkpoint / "model.safetensors")
    calls = {key for key in expected(tmp_path / "pack") if not key.startswith("raw/")}
    assert calls <= set(outputs)
    assert check(tmp_path / "pack", outputs) == []
    text = (tmp_path / "pack/README.md").read_text()
    assert ("[ sin(x" in text, "pooling head" in text, "causal" in text) == (
        case == "vision-native", case == "lit", case == "lit",
    )  # fmt: skip
    assert str(tmp_path) not in text
    assert str(GOLDEN) not in (tmp_path / "pack/model.json").read_text()


def test_the_readme_is_enough_for_the_packaged_model(folder: Path) -> None:
    assert check(folder, numpy_ports.from_readme(folder, EMOJI)) == []


# ---------------------------------------------------------------------------- the comparison


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The pack of a tiny model."""
    path = tmp_path_factory.mktemp("packs") / "lit"
    export(LIT, path)
    return open_pack(path)


def judged(model: Any, pack: Pack, outputs: dict[str, Any], dtype: str = "float32") -> set[str]:
    """What the verifier finds wrong, of what the pack has."""
    by_case: numpy_ports.Outputs = {}
    for key in set(outputs) & set(pack.expected):
        case, name = key.split("/")
        by_case.setdefault(case, {})[name] = outputs[key]
    port = Candidate("port", by_case, dtype)
    cases = [case for case in pack.inputs.cases if case.name in by_case]
    results = [compare(truth(model), case, port) for case in cases]
    return {f"{t.case}/{t.name}" for r in results for t in r.taps if not t.ok}


def found(pack: Pack, outputs: dict[str, Any], dtype: str = "float32") -> set[str]:
    return {failure.key for failure in pack.check(outputs, dtype=dtype)}


def test_a_right_port(pack: Pack) -> None:
    outputs = flat(numpy_ports.outputs())
    assert set(pack.expected) <= set(outputs)
    assert found(pack, outputs) == set()


def test_a_wrong_port(pack: Pack) -> None:
    outputs = flat(numpy_ports.outputs(mistaken=True))
    failures = pack.check(outputs)
    deep = [f.key for f in failures if f.key.startswith("one/")]
    given = {key: a for key, a in outputs.items() if key.startswith("one/")}
    assert set(deep) == judged(numpy_ports.model(), pack, given)
    assert deep[0] == "one/vision.blocks.0.mlp.hidden"
    assert "one/vision.blocks.0.mlp.up" not in deep
    assert "allowed" in str(failures[0])


def real_tokens(pack: Pack) -> Any:
    """Which tokens of the padded texts count, (K, T)."""
    (ids,) = (case.input_ids for case in pack.inputs.cases if case.name == "pairs")
    rows = [[pack.about["config"]["text"]["eos_token_id"] not in row[:t] for t in range(len(row))]
            for row in ids.tolist()]  # fmt: skip
    return np.array(rows)


def scrambled(outputs: dict[str, Any], real: Any) -> set[str]:
    """Mistakes of many kinds."""
    outputs["pairs/text.norm"][real] += 0.1
    outputs["pairs/logit_scale"] = np.log(outputs["pairs/logit_scale"])
    outputs["alone/text.pooled"] = outputs["alone/text.norm"][:, 0]
    outputs["one/vision.blocks.0.attn.q"] = outputs["one/vision.blocks.0.attn.k"]
    outputs["one/vision.blocks.1.resid_post"][0, 2, 5] = np.nan
    outputs["wide/vision.norm"] = outputs["wide/vision.norm"][:, :-1]
    return {
        "pairs/text.norm", "pairs/logit_scale", "alone/text.pooled", "one/vision.blocks.0.attn.q",
        "one/vision.blocks.1.resid_post", "wide/vision.norm",
    }  # fmt: skip


def beyond_the_end(outputs: dict[str, Any], real: Any) -> set[str]:
    """Rows that nobody uses."""
    outputs["pairs/text.norm"][~real] = np.nan
    outputs["pairs/text.embed"][~real] = 0
    return set()


@pytest.mark.parametrize("change", [scrambled, beyond_the_end])
def test_it_judges_as_the_verifier_does(small: Pack, change: Callable[..., set[str]]) -> None:
    outputs = numpy_ports.from_readme(small.folder, LIT / "model.safetensors")
    real = real_tokens(small)
    assert 0 < real.sum() < real.size
    wrong = change(outputs, real)
    assert found(small, outputs) == wrong
    assert judged(reference(LIT), small, outputs) == wrong


def test_a_right_port_is_right_for_both(small: Pack) -> None:
    outputs = numpy_ports.from_readme(small.folder, LIT / "model.safetensors")
    assert found(small, outputs) == judged(reference(LIT), small, outputs) == set()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("times", [0.99, 1.01])
def test_the_bounds_are_the_verifiers(small: Pack, dtype: str, times: float) -> None:
    """One vector of each activation is off by a little less, or more, than is allowed."""
    outputs = {k: a for k, a in expected(small.folder).items() if not k.startswith("raw/")}
    real = real_tokens(small)
    for key, true in outputs.items():
        counts = key.startswith("pairs/text.") and true.ndim == 3
        vectors = true[real] if counts else true.reshape(-1, true.shape[-1] if true.ndim else 1)
        size = np.sqrt(np.mean(np.sum(vectors**2, axis=1)))
        allowed = small.tolerances[key][dtype]
        off = min(allowed["worst"], allowed["overall"] * np.sqrt(len(vectors))) * size * times
        outputs[key] = true + off * (np.arange(true.size).reshape(true.shape) == 0)
    wrong = set(outputs) if times > 1 else set()
    assert found(small, outputs, dtype) == wrong
    assert judged(reference(LIT), small, outputs, dtype) == wrong


def test_raw_images_and_texts(pack: Pack) -> None:
    outputs = {"raw": numpy_ports.outputs()["raw"]}
    assert pack.check(outputs) == []
    wrong = dict(outputs["raw"])
    wrong["pixel_values_0"] = wrong["pixel_values_0"][::-1]  # BGR
    wrong["pixel_values_1"] = wrong["pixel_values_1"] + 0.001  # as another resampling
    wrong["input_ids"] = wrong["input_ids"].copy()
    wrong["input_ids"][4, -1] = 5  # the end token cut off
    assert [f.key for f in pack.check({"raw": wrong})] == ["raw/input_ids", "raw/pixel_values_0"]


def test_padding_beyond_what_is_expected_is_passed_over(pack: Pack) -> None:
    tokens = {n: numpy_ports.outputs()["raw"][n] for n in ("input_ids", "attention_mask")}
    longer = {
        name: np.pad(ids, [(0, 0), (0, 45)], constant_values=fill)
        for (name, ids), fill in zip(tokens.items(), (3999, 0), strict=True)
    }
    assert pack.check({"raw": longer}) == []
    longer["attention_mask"][0, -1] = 1
    assert [f.key for f in pack.check({"raw": longer})] == ["raw/attention_mask"]


def test_native_pixels_are_compared_where_there_are_patches(tmp_path: Path) -> None:
    export(GOLDEN / "vision-native" / "transformers", tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")
    true = expected(tmp_path / "pack")["raw/pixel_values_1"]
    assert not np.array(true.shape[1:]) % 14 @ np.ones(2)
    more = np.pad(true, [(0, 0), (0, 3), (0, 5)])
    assert pack.check({"raw/pixel_values_1": more}) == []
    assert pack.check({"raw/pixel_values_1": more[:, 1:]}) != []


# ---------------------------------------------------------------------------- what is passed


def test_outputs_as_a_file(pack: Pack, tmp_path: Path) -> None:
    arrays = {key: np.ascontiguousarray(a) for key, a in flat(numpy_ports.outputs()).items()}
    save_file(arrays, tmp_path / "outputs.safetensors")
    assert pack.check(tmp_path / "outputs.safetensors") == []
    np.savez(tmp_path / "outputs.npz", **{"tall/vision.norm": arrays["tall/vision.norm"] + 1})
    assert [f.key for f in pack.check(tmp_path / "outputs.npz")] == ["tall/vision.norm"]


def test_heads_side_by_side_or_apart(pack: Pack) -> None:
    outputs = numpy_ports.outputs()["one"]
    q = outputs["vision.blocks.0.attn.q"]
    assert q.shape == (1, 6, 64, 32)
    beside = np.concatenate(np.moveaxis(q, 1, 0), axis=-1)
    for form in (q, beside, beside[0]):
        assert pack.check({"one": {"vision.blocks.0.attn.q": form}}) == []
    (failure,) = pack.check({"one": {"vision.blocks.0.attn.q": beside[:, :40]}})
    assert str(failure) == (
        "one/vision.blocks.0.attn.q: shape (1, 40, 192), expected (1, 6, 64, 32)"
    )


def test_other_layouts(pack: Pack) -> None:
    patches = numpy_ports.outputs()["wide"]["vision.norm"]  # 4 × 16 of them
    for form in (patches.reshape(1, 4, 16, 192), patches[0].T.reshape(1, 192, 4, 16)):
        assert pack.check({"wide": {"vision.norm": form}}) == []
    pixels = numpy_ports.outputs()["raw"]["pixel_values_2"]
    assert pack.check({"raw": {"pixel_values_2": pixels[None]}}) == []


def test_only_some_activations(pack: Pack) -> None:
    outputs = numpy_ports.outputs(mistaken=True)
    assert pack.check(outputs, taps=["vision.embed", "text.embed"]) == []
    assert pack.check(outputs, taps="*.norm")
    with pytest.raises(VerificationError, match=r"nothing that matches 'vision\.normal'"):
        pack.check(outputs, taps=["vision.norm", "vision.normal"])


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "holds no arrays"),
        ({"pairs": {"vision.nrom": np.ones(3)}}, "no name in it is known"),
        ({"one": {"vision.blocks.3.norm_1": np.ones((1, 64, 192))}}, "gives nothing that"),
        ({"other/vision.norm": np.ones(3)}, "'other/vision.norm' has a case 'other'"),
        ({"other": {"vision.norm": np.ones(3)}}, "gives a case 'other'"),
        ({"tall": {"vision.norm": ["a"]}}, "expected an array of numbers"),
        (3, "expected a file, a mapping of arrays, a Candidate, found int"),
    ],
)
def test_outputs_that_cannot_be_compared(pack: Pack, outputs: Any, words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        pack.check(outputs)


def test_a_dtype_without_tolerances(pack: Pack) -> None:
    with pytest.raises(VerificationError, match="float32, bfloat16, float16"):
        pack.check(numpy_ports.outputs(), dtype="float64")
