"""Checkpoint: storage dtypes, strict keys and shapes, NaN and infinities, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from byte_builders import entry, leaf, nested, pack, safetensors_bytes, stored, to_bfloat16
from safetensors.numpy import load_file, save_file

from aimv2_np.errors import CheckpointError
from aimv2_np.weights import Checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
F32, F64, F16 = np.dtype("f4"), np.dtype("f8"), np.dtype("f2")
NORM = "trunk.post_trunk_norm.weight"
QKV = "trunk.blocks.0.attn.qkv.weight"


def written(folder: Path, arrays: dict[str, np.ndarray], padding: int = 0) -> Checkpoint:
    path = folder / "model.safetensors"
    path.write_bytes(stored(arrays, padding))
    return read_checkpoint([path])


# ---------------------------------------------------------------------------- storage dtypes


@pytest.mark.parametrize("dtype", [F32, F64, F16], ids=str)
def test_whole_models_stored_in_other_floats(dtype: np.dtype, tmp_path: Path) -> None:
    original = load_file(GOLDEN / "vision-absolute" / "original" / "model.safetensors")
    save_file({k: v.astype(dtype) for k, v in original.items()}, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint([tmp_path / "model.safetensors"])
    name = {"float32": "F32", "float64": "F64", "float16": "F16"}[dtype.name]
    assert checkpoint.dtypes == {name: len(original)}
    assert checkpoint.nbytes == sum(v.size for v in original.values()) * dtype.itemsize
    for key, value in original.items():
        rounded = value.astype(dtype).astype(F32)
        np.testing.assert_array_equal(checkpoint.array(key, F32), rounded, strict=True)
        assert not checkpoint.array(key, F32).flags.writeable
        stored_so = checkpoint.array(key, dtype)
        np.testing.assert_array_equal(stored_so, value.astype(dtype), strict=True)
        assert not stored_so.flags.owndata  # a view of the file


def test_bfloat16_by_hand(tmp_path: Path) -> None:
    """1 bit of sign, 8 of exponent (bias 127), 7 of fraction."""
    bits = np.array([0x3F80, 0xC000, 0x3FC0, 0x0001, 0x8000, 0x7F80, 0xFF80], np.uint16)
    checkpoint = written(tmp_path, {NORM: bits})
    expected = [1.0, -2.0, 1.5, 2.0**-133, -0.0, np.inf, -np.inf]
    for dtype in (F32, F64):
        array = checkpoint.array(NORM, dtype)
        np.testing.assert_array_equal(array, np.array(expected, dtype), strict=True)
        assert np.signbit(array[4])


def test_converting_more_than_one_chunk(tmp_path: Path) -> None:
    values = np.arange(2_500_000, dtype=np.float32)  # chunks have 2^20 elements
    checkpoint = written(tmp_path, {NORM: values})
    np.testing.assert_array_equal(checkpoint.array(NORM, F64), values)
    checkpoint = written(tmp_path, {NORM: to_bfloat16(values)})
    error = np.abs(checkpoint.array(NORM, F32) - values)
    assert np.all(error <= values * 2.0**-8)  # half a unit of the 8th bit


@pytest.mark.parametrize("padding", range(4))
def test_data_that_is_not_aligned_is_copied_and_aligned(padding: int, tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    checkpoint = written(tmp_path, {"image_projector.weight": values}, padding)
    array = checkpoint.array("image_projector.weight", F32)
    np.testing.assert_array_equal(array, values, strict=True)
    (part,) = checkpoint.parameters["image_projector.weight"].parts
    whole = np.frombuffer(part.tensor.source.map, np.uint8)
    assert np.shares_memory(array, whole) == (part.tensor.offset % 4 == 0)
    assert array.flags.aligned
    assert not array.flags.writeable


def test_mixed_dtypes_and_nan_survive(tmp_path: Path) -> None:
    arrays = {
        "text_projector.weight": np.array([[1.0, np.nan]], F64),
        "log_logit_scale": np.array(np.inf, F16),
        "image_projector.weight": np.array([[-np.inf]], F32),
    }
    checkpoint = written(tmp_path, arrays)
    assert checkpoint.dtypes == {"F64": 1, "F16": 1, "F32": 1}
    for name, expected in arrays.items():
        for dtype in (F32, F64):
            np.testing.assert_array_equal(checkpoint.array(name, dtype), expected)


def test_a_float64_beyond_float32_is_an_error_not_an_infinity(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, {NORM: np.array([1.0, 1e300])})
    assert checkpoint.array(NORM, F64)[1] == 1e300
    with pytest.raises(CheckpointError, match=r"post_trunk_norm.*too large for float32.*float64"):
        checkpoint.array(NORM, F32)


def test_a_file_cut_after_it_was_opened(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, {NORM: np.ones(100, F16)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="has become shorter"):
        checkpoint.array(NORM, F32)


# ---------------------------------------------------------------------------- q, k and v


def split_qkv(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes = {"q": q, "k": k, "v": v}
    key = "encoder.layers.0.attention.{}_proj.weight"
    return {key.format(n): np.full(s, ord(n), F32) for n, s in shapes.items()}


def test_split_qkv_counts_as_stacked(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, split_qkv((4, 5), (4, 5), (4, 5)))
    assert checkpoint.shapes == {QKV: (12, 5)}
    stacked = np.repeat(np.array([[ord("q")], [ord("k")], [ord("v")]], F32), 4, axis=0)
    array = checkpoint.array(QKV, F32)
    np.testing.assert_array_equal(array, np.broadcast_to(stacked, (12, 5)))
    assert not array.flags.writeable


def test_qkv_that_only_fit_in_sum_are_wrongly_shaped(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, split_qkv((4, 4), (3, 4), (5, 4)))
    assert checkpoint.shapes == {QKV: (12, 4)}  # as if all were well: the parts must be judged
    with pytest.raises(CheckpointError, match="0 missing, 0 unexpected and 2 wrongly") as caught:
        checkpoint.require({QKV: (12, 4)})
    assert "k_proj.weight' (the original's" in str(caught.value)
    assert "found (3, 4), expected (4, 4)" in str(caught.value)
    with pytest.raises(CheckpointError, match="must have one shape"):
        checkpoint.thirds(QKV, F32)


def test_a_missing_k_is_named_as_the_file_would_name_it(tmp_path: Path) -> None:
    arrays = split_qkv((4, 4), (4, 4), (4, 4))
    arrays["encoder.layers.0.attention.key_proj.weight"] = arrays.pop(
        "encoder.layers.0.attention.k_proj.weight"
    )
    with pytest.raises(CheckpointError) as caught:
        written(tmp_path, arrays).require({QKV: (12, 4)})
    message = str(caught.value)
    right, wrong = (f"'encoder.layers.0.attention.{n}_proj.weight'" for n in ("k", "key"))
    assert "1 missing, 1 unexpected and 0 wrongly shaped" in message
    assert f"missing: {right} (the original's '{QKV}') (4, 4); the file has {wrong}" in message
    assert f"unexpected: {wrong} (4, 4) in model.safetensors; known is {right}" in message


# ---------------------------------------------------------------------------- strictness


def test_one_error_lists_every_difference(tmp_path: Path) -> None:
    original = load_file(GOLDEN / "lit" / "original" / "model.safetensors")
    expected = {name: array.shape for name, array in original.items()}
    broken = dict(original)
    del broken["log_logit_scale"]
    broken["image_encoder.trunk.blocks.0.mlp.fc4.weight"] = broken.pop(
        "image_encoder.trunk.blocks.0.mlp.fc3.weight"
    )
    broken["extra.bias"] = np.zeros(3, F32)
    broken["text_projector.weight"] = original["text_projector.weight"].T.copy()
    broken["image_encoder.head.cls_token"] = np.zeros(36, F32)
    with pytest.raises(CheckpointError) as caught:
        written(tmp_path, broken).require(expected)
    message = str(caught.value)
    assert "model.safetensors (original layout): 2 missing, 2 unexpected and 2 wrongly" in message
    for line in (
        "missing: 'log_logit_scale' ()",
        "missing: 'image_encoder.trunk.blocks.0.mlp.fc3.weight' (88, 36); "
        "the file has 'image_encoder.trunk.blocks.0.mlp.fc4.weight'",
        "unexpected: 'image_encoder.trunk.blocks.0.mlp.fc4.weight' (88, 36) in model.safetensors; "
        "known is 'image_encoder.trunk.blocks.0.mlp.fc3.weight'",
        "unexpected: 'extra.bias' (3,) in model.safetensors",
        "wrong shape: 'text_projector.weight': found (24, 40), expected (40, 24)",
        "wrong shape: 'image_encoder.head.cls_token': found (36,), expected (1, 1, 36)",
    ):
        assert f"\n  {line}" in message
    assert len(message.splitlines()) == 7


def test_parameters_that_the_configuration_does_not_have_are_unexpected() -> None:
    checkpoint = read_checkpoint([GOLDEN / "lit" / "transformers" / "model.safetensors"])
    without_head = {k: s for k, s in checkpoint.shapes.items() if ".head." not in k}
    with pytest.raises(CheckpointError, match="0 missing, 5 unexpected and 0") as caught:
        checkpoint.require(without_head)
    assert "unexpected: 'vision_model.head.output_proj.bias' (36,)" in str(caught.value)


def test_what_a_layout_cannot_store_is_missing_by_its_original_name() -> None:
    checkpoint = read_checkpoint([GOLDEN / "vision-absolute" / "timm" / "model.safetensors"])
    with pytest.raises(CheckpointError, match=r"missing: 'head.cls_token' \(1, 1, 36\)"):
        checkpoint.require(checkpoint.shapes | {"head.cls_token": (1, 1, 36)})


def test_a_model_with_hundreds_of_wrong_names_is_reported_soon(tmp_path: Path) -> None:
    """Comparing all names with all would take minutes; and every key is still listed."""
    right = {f"trunk.blocks.{i}.norm_1.weight": np.zeros(2, F32) for i in range(600)}
    wrong = {f"trunk.block.{i}.norm_1.weight": np.zeros(2, F32) for i in range(500)}
    with pytest.raises(CheckpointError, match="400 missing, 500 unexpected") as caught:
        written(tmp_path, right | wrong).require(
            {f"trunk.blocks.{i}.norm_1.weight": (2,) for i in range(1000)}
        )
    message = str(caught.value)
    assert len(message.splitlines()) == 901
    assert message.count("; known is") == message.count("; the file has") == 20


def test_unknown_parameter(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no parameter 'head\.cls_token'"):
        written(tmp_path, {NORM: np.zeros(2, F32)}).array("head.cls_token", F32)


# ---------------------------------------------------------------------------- NaN, infinity


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [F64, F32, F16, np.dtype("u2")], ids=str)
def test_nonfinite_values_are_found_in_every_dtype(
    bad: float, dtype: np.dtype, tmp_path: Path
) -> None:
    clean, dirty = np.full(1_100_000, 3e4, F32), np.full(1_100_000, -3e4, F32)
    dirty[-1] = bad  # in the second chunk
    if dtype == np.dtype("u2"):  # bfloat16: the upper half of float32
        clean, dirty = (a.view(np.uint32) >> 16 for a in (clean, dirty))
    arrays = {NORM: dirty.astype(dtype), "preprocessor.patchifier.norm.weight": clean.astype(dtype)}
    assert written(tmp_path, arrays).nonfinite() == [repr(NORM)]


def test_nonfinite_names_the_files_key(tmp_path: Path) -> None:
    arrays = split_qkv((2, 2), (2, 2), (2, 2))
    key = "encoder.layers.0.attention.v_proj.weight"
    arrays[key][1, 1] = np.nan
    assert written(tmp_path, arrays).nonfinite() == [f"{key!r} (the original's {QKV!r})"]


# ---------------------------------------------------------------------------- memory


def peak_bytes(function: object, *arguments: object) -> int:
    """The most memory that Python and NumPy held at once; mapped files do not count."""
    tracemalloc.start()
    function(*arguments)  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("layout", ["original", "jax"])
def test_memory(layout: str, tmp_path: Path) -> None:
    """Reading headers and float32 costs nothing, checking a chunk, converting the result."""
    size = 1 << 23  # elements: 32 MiB
    values = np.zeros((size // 1024, 1024), F32)
    if layout == "original":
        path = tmp_path / "model.safetensors"
        path.write_bytes(
            safetensors_bytes({NORM: entry("F32", [size], 0, 4 * size)}, bytes(values))
        )
        name = NORM
    else:
        path, name = tmp_path / "flax_model.msgpack", "image_projector.weight"
        path.write_bytes(pack(nested({"image_projector.kernel": leaf(values)})))
    checkpoint = read_checkpoint([path])
    (part,) = checkpoint.parameters[name].parts
    copied = part.tensor.offset % 4 != 0
    assert peak_bytes(read_checkpoint, [path]) < 1 << 20
    assert peak_bytes(checkpoint.array, name, F32) < (4 * size if copied else 0) + (10 << 20)
    assert peak_bytes(checkpoint.nonfinite) < 12 << 20
    assert peak_bytes(checkpoint.array, name, F64) < 8 * size + (12 << 20)
