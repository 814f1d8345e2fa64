"""Files of activations from any language: names, dtypes and fused arrays.

What is malformed is judged in `test_files_malformed.py`.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from activation_files import IMAGES, TEXTS, X, compressed, npz, read
from safetensors.numpy import save_file

from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.trace import activation_names
from aimv2_np.verify.files import read_candidate
from aimv2_np.verify.schemes import OURS, SCHEMES

WRITERS = [
    ("a.safetensors", lambda path, arrays: save_file(arrays, path)),
    ("a.npz", npz),
    ("c.npz", compressed),
]


# ---------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_arrays_by_case_and_name(tmp_path: Path, name: str, write: Callable[..., None]) -> None:
    path = tmp_path / name
    write(path, {"squares/vision.embed": X, "alone/text.norm": X + 1, "alone/input_ids": X[0, 0]})
    found = read_candidate(path, [IMAGES, TEXTS])
    assert list(found.names("squares")) == ["vision.embed"]
    assert sorted(found.names("alone")) == ["input_ids", "text.norm"]
    np.testing.assert_array_equal(found.get("squares", "vision.embed"), X)
    np.testing.assert_array_equal(found.get("alone", "text.norm"), X + 1)
    assert found.get("squares", "text.norm") is None
    assert (found.name, found.dtype, found.notes) == (str(path), "float32", ())


def test_an_only_case_needs_no_name(tmp_path: Path) -> None:
    found = read(tmp_path, {"vision.embed": X, "squares/vision.norm": X})
    assert sorted(found.names("squares")) == ["vision.embed", "vision.norm"]


def test_what_becomes_of_raw_inputs_keeps_its_names(tmp_path: Path) -> None:
    found = read(tmp_path, {"raw/pixel_values_0": X, "raw/attention_mask": X, "vision.embed": X})
    assert sorted(found.names("raw")) == ["attention_mask", "pixel_values_0"]
    only = read(tmp_path, {"raw/input_ids": X})
    assert only.get("raw", "input_ids") is not None


@pytest.mark.parametrize(("name", "write"), WRITERS[:2])
def test_arrays_are_read_when_asked_for(
    tmp_path: Path, name: str, write: Callable[..., None]
) -> None:
    big = np.ones((64, 1 << 16), np.float32)  # 16 MB each
    write(tmp_path / name, {f"vision.blocks.{i}.norm_1": big for i in range(3)})
    tracemalloc.start()
    found = read_candidate(tmp_path / name, [IMAGES])
    assert tracemalloc.get_traced_memory()[1] < 1e6
    for i in range(3):
        value = found.get("squares", f"vision.blocks.{i}.norm_1")
        assert value is not None
        assert value.sum() == big.size
        del value
    assert tracemalloc.get_traced_memory()[1] < 2.5 * big.nbytes  # one at a time
    tracemalloc.stop()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(VerificationError, match=name):
        found.get("squares", "vision.blocks.0.norm_1")


# ---------------------------------------------------------------------------- dtypes


def bfloat16_safetensors(path: Path) -> None:
    header = {"vision.norm": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<HH", 0x3F80, 0xC0A0))


def bfloat16_npz(path: Path) -> None:
    npz(path, {"vision.norm": np.array([0x3F80, 0xC0A0], np.uint16).view("V2")})  # as ml_dtypes


@pytest.mark.parametrize("write", [bfloat16_safetensors, bfloat16_npz])
def test_bfloat16(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "file")
    found = read_candidate(tmp_path / "file", [IMAGES])
    assert found.dtype == "bfloat16"
    np.testing.assert_array_equal(found.get("squares", "vision.norm"), [1.0, -5.0])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (["f2"], "float16"),
        (["f4"], "float32"),
        (["f8"], "float32"),  # with a note: few ports compute in it
        (["f2", "f4"], "float32"),
        (["f4", "f8", "f2"], "float32"),
        (["f4", "f2", "f2"], "float16"),
        (["i8"], "float32"),
    ],
)
def test_the_dtype_of_most_numbers_counts(tmp_path: Path, stored: list[str], expected: str) -> None:
    """The wider one of two that hold as many; a single float64 constant makes no float64 port."""
    arrays = {f"vision.blocks.{i}.norm_1": np.zeros(3, d) for i, d in enumerate(stored)}
    assert read(tmp_path, arrays).dtype == expected
    assert read(tmp_path, arrays, dtype="bfloat16").dtype == "bfloat16"


def test_few_wide_numbers_do_not_count(tmp_path: Path) -> None:
    arrays = {"vision.norm": np.zeros((2, 5), "f4"), "vision.pos_embed": np.zeros(3, "f8")}
    assert read(tmp_path, arrays).dtype == "float32"


def test_a_saved_trace_says_its_own_dtype(tmp_path: Path) -> None:
    save_file({"vision.norm": X}, tmp_path / "t", metadata={"dtype": "bfloat16", "model": "m"})
    assert read_candidate(tmp_path / "t", [IMAGES]).dtype == "bfloat16"
    save_file({"vision.norm": X}, tmp_path / "t", metadata={"dtype": "int8"})
    assert read_candidate(tmp_path / "t", [IMAGES]).dtype == "float32"


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize("kind", ["lit", "native"])
def test_every_name_of_ours_is_known(kind: str) -> None:
    names = activation_names(random_models.CONFIGS[kind])
    assert [OURS.ours(name) for name in names] == names


THEIRS = [
    ("transformers", "vision_model.embeddings.rms_norm", "vision.patch_norm"),
    ("transformers", "encoder.layers.11.attention.q_proj", "vision.blocks.11.attn.q"),
    ("transformers", "model.encoder.layers.0.ffn.down_proj.input", "vision.blocks.0.mlp.hidden"),
    ("transformers", "module._orig_mod.encoder.layers.0.output", "vision.blocks.0.resid_post"),
    ("transformers", "text_model.encoder.layers.3.rms_norm2", "text.blocks.3.norm_2"),
    ("transformers", "hidden_states.0", "vision.embed"),
    ("transformers", "hidden_states[2]", "vision.blocks.1.resid_post"),
    ("transformers", "hidden_states_24", "vision.blocks.23.resid_post"),
    ("transformers", "text_model_output.hidden_states.1", "text.blocks.0.resid_post"),
    ("transformers", "attentions.5", "vision.blocks.5.attn.pattern"),
    ("transformers", "last_hidden_state", "vision.norm"),
    ("transformers", "vision_model_output.pooler_output", "vision.pooled"),
    ("transformers", "visual_projection", "image_features"),
    ("timm", "patch_embed.proj", "vision.patch_embed"),
    ("timm", "blocks.7.mlp.fc1_x", "vision.blocks.7.mlp.up"),
    ("timm", "blocks.7.attn.proj.input", "vision.blocks.7.attn.context"),
    ("timm", "blocks.input", "vision.embed"),
    ("original", "image_encoder.preprocessor", "vision.embed"),
    ("original", "trunk.blocks.1.mlp.fc3", "vision.blocks.1.mlp.up"),
    ("original", "text_encoder.trunk.post_trunk_norm", "text.norm"),
    ("original", "head.linear.input", "vision.head.context"),
    ("onnx", "/encoder/layers.2/attention/Softmax_output_0", "vision.blocks.2.attn.pattern"),
    ("onnx", "/model/text_model/encoder/layers.0/Add_1_output_0", "text.blocks.0.resid_post"),
    ("onnx", "/vision_model/embeddings/patch_embed/Conv_output_0", "vision.patch_embed"),
]


@pytest.mark.parametrize(("scheme", "theirs", "ours"), THEIRS)
def test_names_of_other_programs(tmp_path: Path, scheme: str, theirs: str, ours: str) -> None:
    """Told which scheme it is, and by guessing, with and without the case's name."""
    for key, how in ((theirs, {"names": scheme}), (theirs, {}), (f"squares/{theirs}", {})):
        found = read(tmp_path, {key: X}, **how)
        assert list(found.names("squares")) == [ours]
        assert bool(found.notes) != bool(how)
        assert how or f"1 of 1 names read as those of {scheme}" in found.notes[0]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.layers.1.rms_norm1", "text.blocks.1.norm_1"),
        ("last_hidden_state", "text.norm"),
        ("trunk.blocks.0.attn.proj", "text.blocks.0.attn.out"),
        ("blocks.0.norm_1", "text.blocks.0.norm_1"),
    ],
)
def test_names_without_a_tower_are_of_the_text_where_there_is_nothing_else(
    tmp_path: Path, theirs: str, ours: str
) -> None:
    found = read(tmp_path, {f"squares/{theirs}": X, f"alone/{theirs}": X}, IMAGES, TEXTS)
    assert list(found.names("squares")) == [ours.replace("text.", "vision.")]
    assert list(found.names("alone")) == [ours]


def test_every_table_leads_to_names_of_ours() -> None:
    for scheme in SCHEMES.values():
        for name in [*scheme.table.values(), *scheme.texts.values()]:
            filled = name.replace("{i}", "3").replace("{i-1}", "2")
            assert OURS.ours(filled) == filled


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "map.json"
    aliases = {"enc[{i}]/out": "vision.blocks.{i}.resid_post", "first": "vision.embed"}
    table.write_text(json.dumps(aliases))
    arrays = {"squares/enc[12]/out": X, "squares/first": X + 1, "squares/vision.norm": X + 2}
    found = read(tmp_path, arrays, names=table)
    names = ["vision.blocks.12.resid_post", "vision.embed", "vision.norm"]
    assert sorted(found.names("squares")) == names
    np.testing.assert_array_equal(found.get("squares", "vision.embed"), X + 1)


def test_unknown_names_are_left_out_and_said(tmp_path: Path) -> None:
    arrays = {"vision.norm": X, "vision.block.3.norm1": X, "attention_mask": X}
    found = read(tmp_path, arrays | {f"zzz{i}": X for i in range(9)})
    assert list(found.names("squares")) == ["vision.norm"]
    (note,) = found.notes
    assert "'vision.block.3.norm1' (perhaps vision.blocks.3.norm_1)" in note
    assert "(10 names)" in note
    assert len(note) < 300


def test_our_own_name_goes_before_anothers(tmp_path: Path) -> None:
    """Safetensors sorts by name; the one that is called so counts wherever it stands."""
    for other in ("last_hidden_state", "zz"):
        table = tmp_path / "map.json"
        table.write_text(json.dumps({other: "vision.norm"}))
        found = read(tmp_path, {other: X, "vision.norm": X + 1}, names=table)
        np.testing.assert_array_equal(found.get("squares", "vision.norm"), X + 1)


# ---------------------------------------------------------------------------- q, k and v in one


def fused(layout: str) -> np.ndarray:
    """q is 100 and more, k 200, v 300; B = 2, N = 5, H = 2, E = 4."""
    each = np.stack([np.arange(80.0).reshape(2, 5, 2, 4) + 100 * (i + 1) for i in range(3)])
    return {
        "(B, N, 3·D)": np.concatenate([part.reshape(2, 5, 8) for part in each], axis=-1),
        "(B·N, 3·D)": np.concatenate([part.reshape(10, 8) for part in each], axis=-1),
        "(B, N, 3, H, E)": np.moveaxis(each, 0, 2),
        "(3, B, H, N, E)": np.stack([part.swapaxes(1, 2) for part in each]),
        "(3, B, N, D)": each.reshape(3, 2, 5, 8),
    }[layout]


@pytest.mark.parametrize(
    "layout",
    ["(B, N, 3·D)", "(B·N, 3·D)", "(B, N, 3, H, E)", "(3, B, H, N, E)", "(3, B, N, D)"],
)
@pytest.mark.parametrize("key", ["blocks.1.attn.qkv", "vision.blocks.1.attn.qkv"])
def test_fused_projections(tmp_path: Path, layout: str, key: str) -> None:
    found = read(tmp_path, {key: fused(layout)})
    for i, name in enumerate("qkv"):
        value = np.asarray(found.get("squares", f"vision.blocks.1.attn.{name}"))
        assert value.size == 80
        assert value.flat[0] == 100 * (i + 1)
        assert sorted(value.flat) == list(np.arange(80) + 100 * (i + 1))


def test_fused_gate_and_up(tmp_path: Path) -> None:
    found = read(tmp_path, {"vision.blocks.0.mlp.gate_up": X})
    np.testing.assert_array_equal(found.get("squares", "vision.blocks.0.mlp.gate"), X[..., :2])
    np.testing.assert_array_equal(found.get("squares", "vision.blocks.0.mlp.up"), X[..., 2:])


@pytest.mark.parametrize("shape", [(3, 5, 3, 2, 4), (2, 5, 8), (24,)])
def test_what_cannot_be_taken_apart_is_left_out_and_said(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    found = read(tmp_path, {"vision.norm": X, "vision.blocks.0.attn.qkv": np.zeros(shape)})
    assert list(found.names("squares")) == ["vision.norm"]
    assert f"vision.blocks.0.attn.qkv, shape {shape}" in found.notes[0]
