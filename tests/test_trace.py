"""Traces: every activation by name, in order; selected; saved and loaded."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import inputs, load
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
    "image_features", "text_features", "image_embeds", "text_embeds", "logit_scale",
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
        vision.forward(inputs("lit")["pixel_values"], tap=recorder.tap("vision."))
        assert len(made) == wanted


def test_images_and_texts_or_tensors(lit: Any) -> None:
    model = aimv2_np.load("random-lit")
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
    save_file({"a": np.ones(2)}, path, metadata={"order": '["b"]'})
    with pytest.raises(aimv2_np.CheckpointError, match="order"):
        aimv2_np.Trace.load(path)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors here, only words")
    for path in (tmp_path / "missing.safetensors", tmp_path / "text.safetensors", tmp_path):
        with pytest.raises(aimv2_np.CheckpointError, match="cannot read a trace"):
            aimv2_np.Trace.load(path)


def test_a_failed_save_leaves_the_old_file(trace: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(b"old")

    def disk_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", disk_full)
    with pytest.raises(aimv2_np.AIMv2Error, match="cannot write .*No space left"):
        trace.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["trace.safetensors"]
    with pytest.raises(aimv2_np.AIMv2Error, match="cannot write"):
        trace.save(tmp_path / "no folder" / "trace.safetensors")


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
