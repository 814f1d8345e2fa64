"""From a folder to a model: what is read, what is refused, and what the errors say."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN, RANDOM_LIT, inputs, load
from safetensors.numpy import load_file, save_file

import aimv2_np
from aimv2_np import backend as backends
from aimv2_np.backend import NUMPY

LIT = GOLDEN / "lit" / "transformers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden image-text model, to be broken."""
    return Path(shutil.copytree(LIT, tmp_path / "model"))


def rewrite(folder: Path, **changed: Any) -> None:
    """Change tensors of a checkpoint; None removes one."""
    tensors = load_file(folder / "model.safetensors") | changed
    kept = {name: t for name, t in tensors.items() if t is not None}
    save_file(kept, folder / "model.safetensors")


def test_list_models() -> None:
    names = aimv2_np.list_models()
    assert names[0] == "emoji-lit"
    assert "large-patch14-native" in names
    assert len(names) == len(set(names)) >= 17


@pytest.mark.parametrize(
    ("storage", "limit"), [("float16", 2e-3), ("float64", 1e-6), ("float32", 1e-6)]
)
def test_storage_dtypes(folder: Path, storage: str, limit: float) -> None:
    given, wanted = inputs("lit"), load("lit", "transformers")
    path = folder / "model.safetensors"
    save_file({n: t.astype(storage) for n, t in load_file(path).items()}, path)
    for dtype in ("float32", "float64"):
        model = aimv2_np.load(folder, dtype=dtype)
        out = model(**given).image_embeds
        assert out.dtype == dtype
        assert np.abs(out - wanted(**given).image_embeds).max() < limit


def test_nan_is_found_when_asked(folder: Path) -> None:
    name = "vision_model.encoder.layers.1.ffn.up_proj.weight"
    bad = load_file(folder / "model.safetensors")[name].copy()
    bad[3, 4] = np.nan
    rewrite(folder, **{name: bad})
    aimv2_np.load(folder)
    with pytest.raises(aimv2_np.CheckpointError, match=f"NaN or infinity.*{name}"):
        aimv2_np.load(folder, check=True)
    aimv2_np.load(LIT, check=True)


def test_missing_unexpected_and_misshapen_keys_are_one_error(folder: Path) -> None:
    first = "text_model.encoder.layers.0.ffn.up_proj.weight"
    rewrite(
        folder,
        **{
            first: None,
            "text_model.encoder.layers.0.ffn.up_projj.weight": np.zeros((56, 24), np.float32),
            "vision_model.head.output_proj.bias": np.zeros(35, np.float32),
        },
    )
    with pytest.raises(aimv2_np.CheckpointError) as error:
        aimv2_np.load(folder)
    for word in (first, "up_projj", "output_proj.bias", "(35,)", "(36,)"):
        assert word in str(error.value)


def test_a_contradicting_config_json(folder: Path) -> None:
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw["projection_dim"] = 512
    path.write_text(json.dumps(raw))
    with pytest.raises(
        aimv2_np.ConfigError, match=r"512 by .*config\.json, 40 by the weights' shapes"
    ):
        aimv2_np.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"text"', b"null"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_malformed_json_names_the_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(aimv2_np.ConfigError, match=name):
        aimv2_np.load(folder)


def test_without_tokenizer_files_texts_are_an_error_that_says_so() -> None:
    model = aimv2_np.load(LIT)
    with pytest.raises(aimv2_np.TokenizerError, match=r"no tokenizer files.*input_ids"):
        model.encode_text("a cat")


def test_without_preprocessor_config_the_official_preprocessing_is_used() -> None:
    image = np.full((84, 100, 3), 128, np.uint8)
    pixels = aimv2_np.load(LIT).preprocess(image)
    assert pixels.shape == (1, 3, 42, 42)
    # CLIP's mean and standard deviation of red
    assert pixels[0, 0, 0, 0] == pytest.approx((128 / 255 - 0.48145466) / 0.26862954, rel=1e-5)
    native = load("vision-native").preprocess([image, image[:, :60]])
    assert [p.shape for p in native] == [(3, 84, 100), (3, 84, 60)]


def test_a_single_file_and_a_name_with_a_tilde(folder: Path, monkeypatch: Any) -> None:
    wanted = aimv2_np.load(folder)(**inputs("lit")).logits_per_image
    for given in (folder / "model.safetensors", str(folder / "model.safetensors")):
        assert np.array_equal(aimv2_np.load(given)(**inputs("lit")).logits_per_image, wanted)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert np.array_equal(aimv2_np.load("~/model")(**inputs("lit")).logits_per_image, wanted)


def test_the_image_processor_of_transformers_5(folder: Path) -> None:
    """It saves the image processor inside processor_config.json; an own file comes first."""
    image = np.full((84, 100, 3), 128, np.uint8)
    settings = {"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}}

    def red(**files: Any) -> float:
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return float(aimv2_np.load(folder).preprocess(image)[0, 0, 0, 0])

    std = 0.26862954
    official = pytest.approx((128 / 255 - 0.48145466) / std, rel=1e-5)
    assert red(processor_config={"processor_class": "CLIPProcessor"}) == official
    own = {"image_processor": settings | {"image_mean": [0.1, 0.2, 0.3]}}
    assert red(processor_config=own) == pytest.approx((128 / 255 - 0.1) / std, rel=1e-5)
    assert red(preprocessor_config=settings) == official
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(aimv2_np.ConfigError, match=r"processor_config\.json.*image_mean"):
        red(processor_config={"image_processor": settings | {"image_mean": "red"}})


def test_a_backend_prepares_the_parameters_and_gets_its_device(monkeypatch: Any) -> None:
    seen = {}

    def make(device: Any) -> Any:
        seen["device"] = device
        return replace(NUMPY, name="spy", prepare=prepare)

    def prepare(params: Any, dtype: str) -> Any:
        seen["dtype"] = dtype
        return params._replace(log_logit_scale=np.float32(0))

    points = [EntryPoint("spy", f"{__name__}:spy_plugin", backends.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(backends, "entry_points", lambda group: points)
    monkeypatch.setattr(f"{__name__}.spy_plugin", make)
    model = aimv2_np.load(LIT, backend="spy", device=3, dtype="float64")
    assert seen == {"device": 3, "dtype": "float64"}
    assert model.logit_scale == 1
    with pytest.raises(aimv2_np.BackendUnavailable, match="a Backend was passed"):
        aimv2_np.load(LIT, backend=NUMPY, device=1)


def spy_plugin(device: Any) -> Any:
    raise NotImplementedError  # replaced by the test


def test_a_model_can_be_sent_to_another_process() -> None:
    model = aimv2_np.load(RANDOM_LIT)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.encode_text(["a cat"]), model.encode_text(["a cat"]))


@pytest.mark.parametrize(
    "key",
    [
        "image_encoder.preprocessor.patchifier.proj.weight",
        "image_encoder.preprocessor.patchifier.proj.bias",
        "image_encoder.trunk.blocks.0.mlp.fc1.weight",
        "image_encoder.trunk.post_trunk_norm.weight",
        "text_encoder.preprocessor.text_embedding.weight",
        "text_encoder.preprocessor.positional_embedding",
        "image_projector.weight",
        "log_logit_scale",
    ],
)
def test_a_missing_key_is_named_although_it_would_say_the_sizes(tmp_path: Path, key: str) -> None:
    """Without config.json the shapes are the configuration, and one of them is not there."""
    tensors = load_file(GOLDEN / "lit" / "original" / "model.safetensors")
    del tensors[key]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(aimv2_np.CheckpointError, match=f"1 missing, 0 unexpected.*\n.*{key}"):
        aimv2_np.load(tmp_path, num_heads=(3, 2))


def test_an_image_text_model_without_its_pooling_head(tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "lit" / "original" / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if ".head." not in name}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(aimv2_np.CheckpointError, match=r"5 missing(.|\n)*head\.linear\.bias"):
        aimv2_np.load(tmp_path, num_heads=(3, 2))
