"""Mutated headers, indexes and msgpack files: only AIMv2Error may come out of the readers.

Two kinds of mutations: of fields (what a hostile or buggy writer produces) and of bytes (what a
bad disk or a cut download produces). A file that is accepted nevertheless must keep its promises.
The examples are the same in every run.
"""

from __future__ import annotations

import copy
import json
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_builders import entry, leaf, nested, pack, raw_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed_cases import BIAS, CASES, NORM, SHARD_1, SHARD_2, shards

from aimv2_np.errors import AIMv2Error
from aimv2_np.weights import read_checkpoint, shard_names

EXAMPLES = {"header": 600, "header bytes": 400, "index": 400, "index bytes": 200}
EXAMPLES |= {"msgpack": 400, "msgpack bytes": 400}
MALFORMED_INPUTS_TRIED = len(CASES) + sum(EXAMPLES.values())

# ---------------------------------------------------------------------------- what to mutate

KERNEL = "preprocessor.patchifier.proj.weight"
HEADER = {
    "__metadata__": {"format": "pt"},
    BIAS: entry("F32", [4], 0, 16),
    KERNEL: entry("F16", [4, 2, 2, 1], 16, 48),
    NORM: entry("BF16", [4], 48, 56),
    "head.cls_token": entry("F64", [1, 1, 2], 56, 72),
}
DATA = np.arange(72, dtype=np.uint8).tobytes()
QKV = "encoder.layers.0.attention.{}_proj.weight"
SPLIT_HEADER = {
    QKV.format("q"): entry("F32", [2, 2], 0, 16),
    QKV.format("k"): entry("F32", [2, 2], 16, 32),
    QKV.format("v"): entry("F32", [2, 2], 32, 48),
    "embeddings.position_embedding.weight": entry("F32", [3, 2], 48, 72),
}
TREE = nested(
    {
        "preprocessor.patchifier.proj.kernel": leaf(np.ones((2, 2, 1, 4), np.float32)),
        "preprocessor.patchifier.proj.bias": leaf(np.ones(4, np.float16)),
        "trunk.layers_0.attn.qkv.kernel": leaf(np.ones((2, 6), np.float64)),
        "trunk.post_trunk_norm.scale": leaf(np.ones(4, np.uint16), "bfloat16"),
    }
)
MAP = {"metadata": {"total_size": 16}, "weight_map": {NORM: SHARD_1, BIAS: SHARD_2}}

SIZES = st.sampled_from([0, 1, 2, 4, 8, 16, 48, 56, 72, -1, 2**31, 2**32, 2**63, 2**64, 10**30])
DTYPES = ["F32", "F16", "BF16", "F64", "I8", "F4", "float32", "bfloat16"]
FILES = [SHARD_1, SHARD_2, "..", "../x.safetensors", "/x.safetensors", "C:\\x"]
TEXTS = st.sampled_from([*DTYPES, *FILES, NORM, BIAS, KERNEL, "", "\0", "\ud800", "a" * 5000])
SCALARS = st.none() | st.booleans() | SIZES | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=6
)


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((tree, key))
        if isinstance(value, dict | list) and not hasattr(value, "code"):
            found += spots(value)
    return found


@st.composite
def mutated(draw: st.DrawFn, originals: list[Any], values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A value with one to three fields replaced, removed, renamed or added."""
    tree = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        places = spots(tree)
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if action == "remove":
            del container[key]
        elif action == "rename" and isinstance(container, dict):
            container[draw(TEXTS)] = container.pop(key)
        elif action == "add" and isinstance(container, dict):
            container[draw(TEXTS)] = draw(values)
        else:
            container[key] = draw(values)
    return tree


@st.composite
def corrupted(draw: st.DrawFn, originals: list[bytes], first: int) -> bytes:
    """Bytes with up to four changes, flips, insertions or cuts, most of them in the first ones."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), first)) | st.integers(0, len(data)))
        action = draw(st.sampled_from(["set", "flip", "insert", "delete", "cut"]))
        if action == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif action == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif action == "delete":
            del data[at : at + draw(st.integers(1, 9))]
        elif action == "cut" and draw(st.booleans()):
            del data[at:]
    return bytes(data)


# ---------------------------------------------------------------------------- what must hold


def keeps_its_promises(files: list[Path]) -> None:
    checkpoint = read_checkpoint(files)
    assert checkpoint.shapes.keys() == checkpoint.parameters.keys()
    assert checkpoint.nbytes <= sum(path.stat().st_size for path in checkpoint.files)
    checkpoint.nonfinite()
    for name, parameter in checkpoint.parameters.items():
        whole = parameter.parts[0].row.third is None
        for dtype in (np.dtype("f8"), np.dtype("f4")):
            try:
                assert checkpoint.array(name, dtype).shape == parameter.shape
            except AIMv2Error:  # q, k, v that do not fit together; float64 beyond float32
                assert not whole or dtype == np.dtype("f4")
    if checkpoint.shapes != {NORM: (4,)}:
        with pytest.raises(AIMv2Error):
            checkpoint.require({NORM: (4,)})


def refusal(path: Path) -> str:
    """What the readers' error says; empty if they accept the file."""
    try:
        if path.suffix == ".json":
            shard_names(path)
        keeps_its_promises([path])
    except AIMv2Error as error:
        return str(error)
    return ""


def run(kind: str, inputs: st.SearchStrategy[Any], write: Callable[[Path, Any], Path]) -> Counter:
    """Read every input; count those that are accepted and those that are refused."""
    tally: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES[kind],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def one(content: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), content)
            message = refusal(path)
            message.encode()  # it can be printed
            tally["refused" if message else "accepted"] += 1
            assert not message or any(name in message for name in (path.name, SHARD_1, SHARD_2))

    one()
    assert tally["refused"] > EXAMPLES[kind] // 4, tally  # it does try malformed inputs
    return tally


def as_file(name: str, encode: Callable[[Any], bytes] = bytes) -> Callable[[Path, Any], Path]:
    def write(folder: Path, content: Any) -> Path:
        (folder / name).write_bytes(encode(content))
        return folder / name

    return write


def encode_header(header: Any) -> bytes:
    return raw_safetensors(json.dumps(header).encode(), DATA)


def test_mutated_headers() -> None:
    inputs = mutated([HEADER, SPLIT_HEADER])
    tally = run("header", inputs, as_file("model.safetensors", encode_header))
    assert tally["accepted"]


def test_corrupted_safetensors() -> None:
    whole = [encode_header(HEADER), encode_header(SPLIT_HEADER)]
    run("header bytes", corrupted(whole, 200), as_file("model.safetensors"))


def write_index(folder: Path, content: Any) -> Path:
    return shards(content, [NORM], [BIAS])(folder)[0]


def test_mutated_indexes() -> None:
    assert run("index", mutated([MAP]), write_index)["accepted"]


def test_corrupted_indexes() -> None:
    run("index bytes", corrupted([json.dumps(MAP).encode()], 100), write_index)


def test_mutated_msgpack() -> None:
    # Packed payloads within payloads: shape, dtype and bytes are mutated as well.
    payloads = st.tuples(
        st.lists(SIZES.filter(lambda n: -(2**63) <= n < 2**64), max_size=4),
        TEXTS.filter(lambda text: text.isprintable()),
        st.binary(max_size=33),
    ).map(lambda payload: type(leaf(np.ones(1)))(1, pack(payload)))
    plain = st.none() | st.booleans() | st.integers(-9, 9) | st.binary(max_size=9)
    inputs = mutated([TREE], payloads | plain | st.lists(plain, max_size=3))

    run("msgpack", inputs, as_file("flax_model.msgpack", pack))


def test_corrupted_msgpack() -> None:
    run("msgpack bytes", corrupted([pack(TREE)], 120), as_file("flax_model.msgpack"))


def test_the_unmutated_files_are_accepted(tmp_path: Path) -> None:
    for header in (HEADER, SPLIT_HEADER):
        keeps_its_promises([as_file("model.safetensors", encode_header)(tmp_path, header)])
    keeps_its_promises([as_file("flax_model.msgpack", pack)(tmp_path, TREE)])
    keeps_its_promises([write_index(tmp_path, MAP)])


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    """A download may stop after any byte."""
    whole = {"model.safetensors": encode_header(HEADER), "flax_model.msgpack": pack(TREE)}
    for name, content in whole.items():
        for length in range(len(content)):
            path = as_file(name)(tmp_path, content[:length])
            try:
                read_checkpoint([path])
            except AIMv2Error:
                continue
            raise AssertionError(f"{name} cut to {length} bytes was accepted")


def test_every_header_length_but_the_right_one_is_refused(tmp_path: Path) -> None:
    content = encode_header(HEADER)
    (right,) = struct.unpack("<Q", content[:8])
    for length in range(len(content)):
        path = as_file("model.safetensors")(tmp_path, struct.pack("<Q", length) + content[8:])
        try:
            read_checkpoint([path])
        except AIMv2Error:
            assert length != right
        else:
            assert length == right
