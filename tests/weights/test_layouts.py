"""Every layout of every golden model gives the original's parameters, bit for bit."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest
from byte_builders import leaf, nested, pack, stored, to_bfloat16
from safetensors.numpy import load_file

from aimv2_np.errors import CheckpointError
from aimv2_np.weights import Checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
F32 = np.dtype("f4")
FOLDERS = sorted(path for path in GOLDEN.glob("*/*") if path.is_dir())
KERNEL = "preprocessor.patchifier.proj.weight"


def files_of(folder: Path) -> list[Path]:
    index = list(folder.glob("*.index.json"))
    return index or [*folder.glob("*.safetensors"), *folder.glob("*.msgpack")]


def truth(folder: Path) -> dict[str, np.ndarray]:
    """The original's parameters, read by the official safetensors library."""
    return load_file(folder.parent / "original" / "model.safetensors")


def test_all_golden_folders_are_here() -> None:
    assert [f"{path.parent.name}/{path.name}" for path in FOLDERS] == [
        *("lit/jax", "lit/mlx", "lit/original", "lit/transformers"),
        *("lit/transformers-bf16", "lit/transformers-sharded"),
        *("vision-absolute/jax", "vision-absolute/mlx", "vision-absolute/original"),
        *("vision-absolute/timm", "vision-absolute/transformers"),
        *("vision-native/original", "vision-native/transformers"),
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_layout_gives_the_originals_parameters(folder: Path) -> None:
    original, checkpoint = truth(folder), read_checkpoint(files_of(folder))
    assert checkpoint.layout == folder.name.removesuffix("-bf16")
    assert checkpoint.shapes == {name: array.shape for name, array in original.items()}
    checkpoint.require(checkpoint.shapes)
    assert not checkpoint.nonfinite()
    for name, expected in original.items():
        if folder.name.endswith("bf16"):
            bits = to_bfloat16(expected).astype(np.uint32) << 16
            expected = bits.view(np.float32)
        for dtype in (np.dtype("f4"), np.dtype("f8")):
            array = checkpoint.array(name, dtype)
            assert array.dtype == dtype
            assert not array.flags.writeable
            np.testing.assert_array_equal(array, expected, strict=dtype == F32)
            if name.endswith("qkv.weight"):
                thirds = checkpoint.thirds(name, dtype)
                for third, rows in zip(thirds, np.split(expected, 3), strict=True):
                    np.testing.assert_array_equal(third, rows)


def lies_in_the_map(checkpoint: Checkpoint, name: str) -> list[bool]:
    """For each array of a parameter: whether it is a view of its mapped file."""
    split = name.endswith("qkv.weight")
    arrays = checkpoint.thirds(name, F32) if split else [checkpoint.array(name, F32)]
    parts = checkpoint.parameters[name].parts
    maps = [np.frombuffer(part.tensor.source.map, np.uint8) for part in parts]
    return [any(np.shares_memory(array, whole) for whole in maps) for array in arrays]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_float32_weights_are_never_copied(folder: Path) -> None:
    checkpoint = read_checkpoint(files_of(folder))
    float32 = checkpoint.dtypes.keys() == {"F32"}
    assert float32 != folder.name.endswith("bf16")
    for name, parameter in checkpoint.parameters.items():
        aligned = all(part.tensor.offset % 4 == 0 for part in parameter.parts)
        assert aligned or folder.name == "jax" or not float32  # msgpack packs without gaps
        arrays = 3 if name.endswith("qkv.weight") else 1
        assert lies_in_the_map(checkpoint, name) == [aligned and float32] * arrays


def test_jax_arrays_that_are_aligned_are_views_and_the_others_copies(tmp_path: Path) -> None:
    arrays = truth(GOLDEN / "vision-absolute" / "jax")
    views = set()
    for padding in range(1, 5):  # the key's length moves the data behind it
        name = "p" * padding
        tree = {
            "trunk": {"post_trunk_norm": {"scale": leaf(arrays["trunk.post_trunk_norm.weight"])}}
        }
        path = tmp_path / "flax_model.msgpack"
        path.write_bytes(pack({name: {}} | tree))
        checkpoint = read_checkpoint([path])
        (part,) = checkpoint.parameters["trunk.post_trunk_norm.weight"].parts
        array = checkpoint.array("trunk.post_trunk_norm.weight", F32)
        np.testing.assert_array_equal(array, arrays["trunk.post_trunk_norm.weight"])
        assert array.flags.aligned
        (view,) = lies_in_the_map(checkpoint, "trunk.post_trunk_norm.weight")
        assert view == (part.tensor.offset % 4 == 0)
        views.add(view)
    assert views == {True, False}


@pytest.mark.parametrize("case", ["lit", "vision-absolute"])
def test_flax_checkpoints_inside_a_params_dictionary(case: str, tmp_path: Path) -> None:
    source = GOLDEN / case / "jax" / "flax_model.msgpack"
    tree = msgpack.unpackb(source.read_bytes())
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(pack({"params": tree}))
    checkpoint, plain = read_checkpoint([path]), read_checkpoint([source])
    assert checkpoint.layout == "jax"
    assert checkpoint.shapes == plain.shapes
    for name in plain.shapes:
        np.testing.assert_array_equal(checkpoint.array(name, F32), plain.array(name, F32))


def test_flax_scalars_and_every_float_dtype(tmp_path: Path) -> None:
    values = np.array([[0.5, -2.0], [3.0, 0.0]])
    leaves = {
        "log_logit_scale": leaf(np.array(2.5, np.float32), code=3),  # a NumPy scalar
        "image_projector.kernel": leaf(values.astype("f8")),
        "text_projector.kernel": leaf(values.astype("f2")),
        "image_encoder.head.k.kernel": leaf(to_bfloat16(values), "bfloat16"),
    }
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(pack(nested(leaves)))
    checkpoint = read_checkpoint([path])
    assert checkpoint.dtypes == {"F32": 1, "F64": 1, "F16": 1, "BF16": 1}
    assert checkpoint.array("log_logit_scale", F32) == np.float32(2.5)
    for name in ("image_projector.weight", "text_projector.weight", "image_encoder.head.k.weight"):
        np.testing.assert_array_equal(checkpoint.array(name, F32), values.T)


# ---------------------------------------------------------------------------- which layout


def written(folder: Path, arrays: dict[str, np.ndarray], name: str = "model.safetensors") -> Path:
    path = folder / name
    path.write_bytes(stored(arrays))
    return path


@pytest.mark.parametrize(
    ("shape", "file", "layout"),
    [
        ((8, 3, 14, 14), "model.safetensors", "original"),
        ((8, 3, 14, 14), "mlx_model.safetensors", "original"),  # the shape is clear
        ((8, 14, 14, 3), "model.safetensors", "mlx"),
        ((8, 14, 14, 3), "mlx_model.safetensors", "mlx"),
        ((8, 4, 4, 4), "model.safetensors", "original"),  # only the file's name can tell
        ((8, 4, 4, 4), "mlx_model.safetensors", "mlx"),
        ((8, 1, 2, 3), "mlx_model.safetensors", "original"),  # neither: wrong in any layout
    ],
)
def test_the_patch_kernel_tells_mlx_from_original(
    shape: tuple[int, ...], file: str, layout: str, tmp_path: Path
) -> None:
    kernel = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    checkpoint = read_checkpoint([written(tmp_path, {KERNEL: kernel}, file)])
    assert checkpoint.layout == layout
    expected = np.moveaxis(kernel, 3, 1) if layout == "mlx" else kernel
    np.testing.assert_array_equal(checkpoint.array(KERNEL, F32), expected, strict=True)


def test_position_ids_saved_by_older_versions_are_ignored(tmp_path: Path) -> None:
    source = GOLDEN / "lit" / "transformers" / "model.safetensors"
    ids = {f"{t}_model.embeddings.position_ids": np.arange(9)[None] for t in ("vision", "text")}
    checkpoint = read_checkpoint([written(tmp_path, load_file(source) | ids)])
    checkpoint.require(read_checkpoint([source]).shapes)
    assert checkpoint.dtypes == {"F32": 52}


def test_any_other_buffer_is_not_ignored(tmp_path: Path) -> None:
    source = GOLDEN / "vision-native" / "transformers" / "model.safetensors"
    extra = {"encoder.layers.0.position_ids": np.arange(9)[None]}
    checkpoint = read_checkpoint([written(tmp_path, load_file(source) | extra)])
    with pytest.raises(CheckpointError, match=r"unexpected: 'encoder.layers.0.position_ids'"):
        checkpoint.require(checkpoint.shapes)


def test_timms_classifier_is_unexpected(tmp_path: Path) -> None:
    source = GOLDEN / "vision-absolute" / "timm" / "model.safetensors"
    head = {"head.weight": np.zeros((10, 36), np.float32), "head.bias": np.zeros(10, np.float32)}
    checkpoint = read_checkpoint([written(tmp_path, load_file(source) | head)])
    assert checkpoint.layout == "timm"
    with pytest.raises(CheckpointError, match=r"0 missing, 2 unexpected and 0 wrongly") as caught:
        checkpoint.require(checkpoint.shapes)
    assert "unexpected: 'head.weight' (10, 36)" in str(caught.value)


# ---------------------------------------------------------------------------- shards


def test_shards_may_be_links_into_another_folder(tmp_path: Path) -> None:
    """As in the hub's cache: snapshots/<revision>/name -> ../../blobs/<sha>."""
    source = GOLDEN / "lit" / "transformers-sharded"
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(source.glob("model*"))):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs", str(number)))
    checkpoint = read_checkpoint([snapshot / "model.safetensors.index.json"])
    assert checkpoint.layout == "transformers-sharded"
    assert [path.name for path in checkpoint.files] == [
        f"model-0000{i}-of-00005.safetensors" for i in range(1, 6)
    ]
    checkpoint.require(read_checkpoint(files_of(source)).shapes)


def test_shards_are_read_without_an_index_too() -> None:
    folder = GOLDEN / "lit" / "transformers-sharded"
    shards = sorted(folder.glob("*.safetensors"), reverse=True)
    checkpoint = read_checkpoint(shards)
    assert checkpoint.layout == "transformers-sharded"
    assert checkpoint.nbytes == sum(array.nbytes for array in truth(folder).values())
    checkpoint.require(read_checkpoint(files_of(folder)).shapes)
    with pytest.raises(CheckpointError, match="missing") as caught:
        read_checkpoint(shards[1:]).require(checkpoint.shapes)
    missing = len(load_file(shards[0]))
    assert f"{missing} missing, 0 unexpected and 0 wrongly" in str(caught.value)
