"""Weights are read block by block: what that costs in memory, and that it changes nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_builders import entry, raw_safetensors, to_bfloat16
from golden_cases import GOLDEN, load
from safetensors.numpy import load_file, save_file

import aimv2_np
from aimv2_np.backend import get_backend
from aimv2_np.config import VisionConfig
from aimv2_np.weights import read_checkpoint
from aimv2_np.weights.tree import StoredBlocks, build_params, expected_shapes

# ---------------------------------------------------------------------------- memory

CONFIG = VisionConfig(
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=6,
    image_size=224,
    use_head=False,
)
BLOCK = 4 * (4 * 768**2 + 3 * 768 * 2048)  # bytes of one block's matrices in float32: 28 MB

# Prints how much the peak of memory grew while loading, and what `prepare` saw: the smallest and
# largest number of each array of each block, so that every page of the file is read.
LOAD = """
import json, re, sys
from dataclasses import replace
import aimv2_np
from aimv2_np.backend import get_backend
from aimv2_np.weights.tree import with_blocks

def look(block):
    arrays = [*block[:1], *block.qkv, *block[2:]]
    return [(float(a.min()), float(a.max())) for a in arrays]

def memory(what):
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(what + r":\\s+(\\d+) kB", status.read())[1])

path, backend = sys.argv[1:]
be = get_backend("numpy" if backend == "looking" else backend)
if backend == "looking":
    be = replace(be, prepare=lambda p, dtype: with_blocks(p, lambda b: tuple(map(look, b))))
aimv2_np.load("emoji-lit", backend=be)  # whatever is imported late
before = memory("VmRSS")
model = aimv2_np.load(path, backend=be)
seen = model.params.blocks if backend == "looking" else None
print(json.dumps({"grown": memory("VmHWM") - before, "seen": seen}))
"""


@pytest.fixture(scope="module", params=["F32", "BF16"])
def large(request: Any, tmp_path_factory: Any) -> Iterator[tuple[Path, str]]:
    """340 MB in float32; every array of it holds its place in the file as its only number."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    size = {"F32": 4, "BF16": 2}[request.param]
    entries: dict[str, Any] = {}
    begin = 0
    for name, shape in expected_shapes(CONFIG).items():
        end = begin + size * int(np.prod(shape))
        entries[name] = entry(request.param, list(shape), begin, end)
        begin = end
    with path.open("wb") as file:
        header = json.dumps(entries).encode()
        file.write(raw_safetensors(header + b" " * (-len(header) % 8)))  # arrays lie aligned
        for i, shape in enumerate(expected_shapes(CONFIG).values()):
            values = np.full(int(np.prod(shape)), i, np.float32)
            file.write(values if size == 4 else to_bfloat16(values))
    yield path, request.param
    path.unlink()


def loaded(path: Path, backend: str) -> Any:
    """What LOAD prints."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process how much memory it took at most")
    command = [sys.executable, "-c", LOAD, str(path), backend]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_only_one_block_is_in_memory_at_a_time(large: tuple[Path, str]) -> None:
    """A backend that keeps little: of 12 blocks less than two, and a chunk being converted."""
    path, _ = large
    found = loaded(path, "looking")
    assert found["grown"] < 2 * BLOCK
    number = {name: i for i, name in enumerate(expected_shapes(CONFIG))}
    parts = ["norm_1", "attn.qkv", "attn.qkv", "attn.qkv", "attn.proj", "norm_2"]
    parts += ["mlp.fc1", "mlp.fc3", "mlp.fc2"]
    assert found["seen"] == [
        [[number[f"trunk.blocks.{i}.{part}.weight"]] * 2 for part in parts] for i in range(12)
    ]


def test_packing_does_not_keep_what_was_packed(large: tuple[Path, str]) -> None:
    path, _ = large
    assert loaded(path, "numba")["grown"] < 12 * BLOCK + 2 * BLOCK


# ---------------------------------------------------------------------------- values and errors


@pytest.mark.parametrize("layout", ["original", "jax", "timm", "transformers"])
def test_blocks_read_one_by_one_are_those_of_the_file(layout: str) -> None:
    """They stay valid when later ones have been read and the memory has been given back."""
    stored = load_file(GOLDEN / "vision-absolute" / "original" / "model.safetensors")
    suffix = "msgpack" if layout == "jax" else "safetensors"
    (path,) = (GOLDEN / "vision-absolute" / layout).glob(f"*.{suffix}")
    config = load("vision-absolute").config
    params = build_params(read_checkpoint([path]), config, np.dtype("float32"))
    assert isinstance(params.blocks, StoredBlocks)
    assert len(params.blocks) == 2
    for blocks in (list(params.blocks), params.blocks[:], [params.blocks[0], params.blocks[-1]]):
        assert len(blocks) == 2
        for i, block in enumerate(blocks):
            of_block = {
                name.removeprefix(f"trunk.blocks.{i}."): value
                for name, value in stored.items()
                if name.startswith(f"trunk.blocks.{i}.")
            }
            parts = ("norm_1", "attn.qkv", "attn.proj", "norm_2", "mlp.fc1", "mlp.fc3", "mlp.fc2")
            found = block._replace(qkv=np.concatenate(block.qkv))
            for part, array in zip(parts, found, strict=True):
                np.testing.assert_array_equal(array, of_block[f"{part}.weight"], strict=True)
    with pytest.raises(IndexError):
        params.blocks[2]


@pytest.mark.parametrize("layout", ["transformers", "transformers-bf16"])
def test_numpy_reads_every_block_once_at_load(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    one = StoredBlocks._block
    monkeypatch.setattr(StoredBlocks, "_block", lambda self, i: (read.append(i), one(self, i))[1])
    model = load("lit", layout, "float32")
    assert read == [0, 1, 0, 1]
    assert type(model.params.vision.blocks) is type(model.params.text.blocks) is tuple
    model(np.zeros((1, 3, 42, 42), np.float32), [[97, 98]])
    assert len(read) == 4


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_value_too_large_in_the_last_block_is_found_at_load(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = load_file(GOLDEN / "vision-absolute" / "original" / "model.safetensors")
    key = "trunk.blocks.1.mlp.fc2.weight"
    tensors[key] = tensors[key].astype(np.float64)
    tensors[key][-1, -1] = 1e300
    save_file(tensors, path)
    with pytest.raises(aimv2_np.CheckpointError, match=f"{key}.*too large for float32"):
        aimv2_np.load(path, num_heads=3, backend=backend)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_that_is_cut_while_it_is_loaded(backend: str, dtype: Any, tmp_path: Path) -> None:
    """After its header was read, before its arrays are."""
    path = tmp_path / "model.safetensors"
    tensors = load_file(GOLDEN / "vision-absolute" / "original" / "model.safetensors")
    save_file({name: t.astype(dtype) for name, t in tensors.items()}, path)
    checkpoint = read_checkpoint([path])
    config = load("vision-absolute").config
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(aimv2_np.CheckpointError, match="has become shorter"):
        get_backend(backend).prepare(build_params(checkpoint, config, np.dtype("f4")), "float32")
