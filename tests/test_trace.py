"""Traces: every activation by name, in order; selected; saved and loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import RANDOM_LIT, inputs, load
from safetensors.numpy import save_file

import aimv2_np
from aimv2_np.trace import Recorder

RNG = np.random.default_rng(0)

# The table of the design, written out for the golden image-text model: name -> shape.
BLOCK = {
    "norm_1": (36,), "attn.q": (3, 9, 12), "attn.k": (3, 9, 12), "attn.v": (3, 9, 12),
    "attn.scores": (3, 9, 9), "attn.pattern": (3, 9, 9), "attn.context": (3, 9, 12),
    "attn.out": (36,), "resid_mid": (36,), "norm_2": (36,), "mlp.gate": (88,), "mlp.up": (88,),
    "mlp.hidden": (88,), "mlp.out": (36,), "resid_post": (36,),
}  # fmt: skip
BEFORE = ["pixel_values", "vision.patch_embed", "vision.patch_norm", "vision.pos_embed"]
HEAD = ["norm", "head.k", "head.v", "head.scores", "head.pattern", "head.context", "pooled"]
AFTER = [
    "image_features", "image_embeds", "text_features", "text_embeds", "logit_scale",
    "logits_per_image", "logits_per_text",
]  # fmt: skip


@pytest.fixture(scope="module")
def lit() -> Any:
    return load("lit")


@pytest.fixture(scope="module")
def trace(lit: Any) -> Any:
    return lit.trace(**inputs("lit"))


def test_every_activation_of_the_table_in_order(lit: Any, trace: Any) -> None:
    blocks = [f"vision.blocks.{i}.{name}" for i in (0, 1) for name in BLOCK]
    vision = [*BEFORE, "vision.embed", *blocks, *(f"vision.{name}" for name in HEAD)]
    names = list(trace)
    assert names[: len(vision)] == vision
    assert names[-len(AFTER) :] == AFTER
    text = names[len(vision) : -len(AFTER)]
    assert text[:4] == ["input_ids", "text.token_embed", "text.pos_embed", "text.embed"]
    assert text[4:-2] == [f"text.blocks.{i}.{name}" for i in (0, 1) for name in BLOCK]
    assert text[-2:] == ["text.norm", "text.pooled"]
    assert names == aimv2_np.activation_names(lit.config)


def test_shapes(trace: Any) -> None:
    for name, shape in BLOCK.items():
        wanted = (2, *shape) if len(shape) == 3 else (2, 9, *shape)
        assert trace[f"vision.blocks.1.{name}"].shape == wanted, name
    assert trace["vision.pos_embed"].shape == (9, 36)
    assert trace["vision.head.pattern"].shape == (2, 3, 1, 9)
    assert trace["vision.pooled"].shape == (2, 36)
    assert trace["logits_per_text"].shape == (3, 2)


def test_activations_fit_together(trace: Any) -> None:
    """Relations that hold between neighbours, checked with NumPy alone."""
    for tower in ("vision", "text"):
        t = {k.removeprefix(f"{tower}.blocks.1."): v for k, v in trace.items()}
        previous = trace[f"{tower}.blocks.0.resid_post"]
        assert t["resid_mid"] == pytest.approx(previous + t["attn.out"])
        assert t["resid_post"] == pytest.approx(t["resid_mid"] + t["mlp.out"])
        silu = t["mlp.gate"] / (1 + np.exp(-t["mlp.gate"]))
        assert t["mlp.hidden"] == pytest.approx(silu * t["mlp.up"])
        exp = np.exp(t["attn.scores"])
        assert t["attn.pattern"] == pytest.approx(exp / exp.sum(axis=-1, keepdims=True))
        assert t["attn.context"] == pytest.approx(t["attn.pattern"] @ t["attn.v"])
    assert np.isneginf(trace["text.blocks.0.attn.scores"][0, 0, 0, 1:]).all()  # causal
    assert trace["logits_per_image"] == pytest.approx(trace["logits_per_text"].T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tracing_does_not_change_the_result(dtype: str) -> None:
    """The composed form with all scores and the form that a plain call runs."""
    lit = load("lit", dtype=dtype)
    given = inputs("lit")
    traced, plain = lit.trace(**given), lit(**given)
    close = {"rel": 1e-12} if dtype == "float64" else {"rel": 1e-4, "abs": 1e-5}
    assert traced["logits_per_image"] == pytest.approx(plain.logits_per_image, **close)
    assert traced["logits_per_image"].dtype == dtype


def test_glob_patterns_select(lit: Any) -> None:
    given = inputs("lit")
    names = ["vision.blocks.*.resid_post", "text.pooled"]
    some = lit.trace(**given, names=names)
    assert list(some) == ["vision.blocks.0.resid_post", "vision.blocks.1.resid_post", "text.pooled"]
    one = lit.trace(pixel_values=given["pixel_values"], names="vision.embed")
    assert list(one) == ["vision.embed"]
    with pytest.raises(aimv2_np.ConfigError, match=r"no activation matches 'vision\.block'"):
        lit.trace(**given, names=["vision.embed", "vision.block"])


def test_scores_are_not_made_unless_asked_for(lit: Any) -> None:
    made = []

    def attention_scores(q: Any, k: Any, **mask: Any) -> Any:
        made.append(q.shape)
        return aimv2_np.ops.attention_scores(q, k, **mask)

    from dataclasses import replace

    backend = replace(lit.backend, attention_scores=attention_scores)
    vision = aimv2_np.VisionEncoder(lit.config.vision, lit.params.vision, backend)
    names = aimv2_np.activation_names(lit.config.vision)
    for pattern, wanted in [("*.resid_post", 0), ("vision.blocks.1.attn.pattern", 1)]:
        recorder = Recorder(names, pattern)
        made.clear()
        vision.forward(inputs("lit")["pixel_values"], tap=recorder.tap())
        assert len(made) == wanted


def test_images_and_texts_or_tensors(lit: Any) -> None:
    model = aimv2_np.load(RANDOM_LIT)
    image = RNG.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    trace = model.trace(image, ["a cat", "two dogs"])
    assert np.array_equal(trace["pixel_values"], model.preprocess(image))
    assert np.array_equal(trace["input_ids"], model.tokenize(["a cat", "two dogs"]).input_ids)
    with pytest.raises(aimv2_np.ConfigError, match="pass one of images and pixel_values"):
        model.trace(image, pixel_values=trace["pixel_values"])
    with pytest.raises(aimv2_np.ConfigError, match="pass images, texts, or both"):
        model.trace()
    with pytest.raises(aimv2_np.ConfigError, match="pass one of images and pixel_values"):
        load("vision-absolute").trace()


def test_images_of_different_sizes_cannot_share_a_trace() -> None:
    native = load("vision-native")
    images = [RNG.integers(0, 256, (28, n, 3), dtype=np.uint8) for n in (28, 42)]
    with pytest.raises(aimv2_np.ImageError, match="28×28.*28×42"):
        native.trace(images)


def test_saved_and_loaded(trace: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    again = aimv2_np.Trace.load(path)
    assert list(again) == list(trace)
    assert all(np.array_equal(again[name], trace[name]) for name in trace)
    assert again["input_ids"].dtype == np.int64
    assert again.metadata == trace.metadata
    assert set(trace.metadata) == {"model", "dtype", "backend", "version"}
    assert trace.metadata["dtype"] == "float64"
    assert trace.metadata["version"] == aimv2_np.__version__
    assert "85 activations" in repr(again)
    assert os.listdir(tmp_path) == ["trace.safetensors"]


def test_a_file_from_another_language_has_no_order(tmp_path: Path) -> None:
    path = tmp_path / "port.safetensors"
    save_file({"vision.norm": np.ones(2), "vision.embed": np.zeros(2)}, path)
    assert set(aimv2_np.Trace.load(path)) == {"vision.norm", "vision.embed"}
    for order in ('["b"]', "[1]", "1", '["1", "1"]', "[" * 100_000):
        save_file({"1": np.ones(2)}, path, metadata={"order": order})
        with pytest.raises(aimv2_np.CheckpointError, match="order"):
            aimv2_np.Trace.load(path)


def test_dtypes_of_other_writers(tmp_path: Path) -> None:
    """What a port may write: bfloat16, which NumPy lacks, integers, booleans, single numbers."""
    header = {
        "half": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "small": {"dtype": "I16", "shape": [], "data_offsets": [4, 6]},
        "mask": {"dtype": "BOOL", "shape": [2], "data_offsets": [6, 8]},
    }
    data = bytes([0x80, 0x3F, 0x20, 0xC0]) + bytes([0xFE, 0xFF]) + bytes([1, 0])
    text = json.dumps(header).encode()
    path = tmp_path / "port.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    trace = aimv2_np.Trace.load(path)
    assert trace["half"].tolist() == [1.0, -2.5]
    assert trace["half"].dtype == np.float32
    assert trace["small"].tolist() == -2
    assert trace["mask"].tolist() == [True, False]
    strange = {"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(strange).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(aimv2_np.CheckpointError, match="'x': NumPy has no dtype for F8_E4M3"):
        aimv2_np.Trace.load(path)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors here, only words")
    for path in (tmp_path / "missing.safetensors", tmp_path / "text.safetensors", tmp_path):
        with pytest.raises(aimv2_np.CheckpointError, match=str(path)):
            aimv2_np.Trace.load(path)


TOO_LARGE = """
import resource, signal, sys, numpy as np, aimv2_np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    aimv2_np.Trace({"x": np.zeros(100_000)}, {}).save(sys.argv[1])
except aimv2_np.AIMv2Error as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's limit on the size of a file")
def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(b"old")
    run = [sys.executable, "-c", TOO_LARGE, str(path)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert f"cannot write {path}" in out
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["trace.safetensors"]


def test_an_interrupted_save_leaves_the_old_file(
    trace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(b"old")

    def interrupted(arrays: Any, target: Path, **_: Any) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trace.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["trace.safetensors"]


def test_where_a_trace_cannot_be_saved(trace: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "no folder" / "trace.safetensors", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(aimv2_np.AIMv2Error, match="cannot write"):
            trace.save(path)


def test_a_saved_trace_has_the_permissions_of_any_new_file(trace: Any, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    trace.save(tmp_path / "trace.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_inputs_are_recorded_as_the_model_saw_them() -> None:
    model = load("lit", dtype="float32")
    pixels = RNG.normal(size=(1, 3, 42, 42))
    ids = np.full((1, 20), 98)
    ids[0, :19] = 5
    with pytest.warns(aimv2_np.AIMv2Warning, match="cut"):
        trace = model.trace(pixel_values=pixels, input_ids=ids, names=["pixel_values", "input_ids"])
    assert trace["pixel_values"].dtype == np.float32
    assert trace["input_ids"].shape == (1, 16)
    assert trace["input_ids"][0, -1] == 98
    kept = trace["pixel_values"].copy()
    pixels[:] = 0
    assert np.array_equal(trace["pixel_values"], kept)


def test_a_trace_is_never_silently_empty(lit: Any) -> None:
    pixels, ids = inputs("lit")["pixel_values"], inputs("lit")["input_ids"]
    for given, names in [
        ({"pixel_values": pixels}, "text.*"),
        ({"pixel_values": pixels}, "logits*"),
        ({"input_ids": ids}, "image_*"),
    ]:
        with pytest.raises(aimv2_np.ConfigError, match="no activation matches"):
            lit.trace(**given, names=names)
    for names in ([], None, 5, [5], b"*"):
        with pytest.raises(aimv2_np.ConfigError, match="names= takes one or more glob patterns"):
            lit.trace(pixel_values=pixels, names=names)
    assert list(lit.trace(input_ids=ids, names="*_embeds")) == ["text_embeds"]
    image = list(lit.trace(pixel_values=pixels))
    assert image == aimv2_np.activation_names(lit.config, texts=False)
    with pytest.raises(aimv2_np.ConfigError, match="pass one of texts and input_ids"):
        aimv2_np.load(RANDOM_LIT).trace(texts="a cat", attention_mask=[[1]])


def test_the_largest_image_can_be_traced_without_its_scores() -> None:
    """4096 patches: scores and patterns of all heads and blocks would take 537 MB."""
    model = load("vision-native", dtype="float32")
    heads, blocks, patches = 2, 2, 64 * 64
    all_scores = 2 * blocks * heads * patches**2 * 4
    pixels = RNG.normal(size=(1, 3, 896, 896)).astype(np.float32)
    tracemalloc.start()
    try:
        trace = model.trace(pixel_values=pixels, names=["*.resid_post", "vision.norm"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert trace["vision.norm"].shape == (1, patches, 32)
    assert len(trace) == 3
    assert peak < all_scores / 2
