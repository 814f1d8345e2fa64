"""Files of activations that are malformed: one sentence that says what is wrong, and where."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_files import IMAGES, TEXTS, X, compressed, npz, read

from aimv2_np.errors import VerificationError
from aimv2_np.verify.files import read_candidate

# ---------------------------------------------------------------------------- what is malformed


def file(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def header(said: str) -> Callable[[Path], None]:
    """An archive of one array whose header says something."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            content = said.encode() + b"\n"
            start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content))
            archive.writestr("squares/vision.norm.npy", start + content)

    return write


def arrays(**values: Any) -> Callable[[Path], None]:
    return lambda path: npz(path, {k: np.asarray(a) for k, a in values.items()})


MALFORMED: list[tuple[Callable[[Path], Any], list[str]]] = [
    (lambda path: None, ["no such file"]),
    (os.mkdir, ["is a folder", "expected a .safetensors or .npz"]),
    (os.mkfifo, ["not a regular file"]),
    (file(b""), ["empty", "write it again"]),
    (file(b"vision.norm 1 2 3 4 5"), ["expected a .safetensors or .npz"]),
    (file(b"\x93NUMPY\x01\x00v\x00"), ["without a name", "savez"]),
    (file(pickle.dumps({"vision.norm": X})), ["never unpickles"]),
    (file(b"PK\x03\x04 cut off"), ["cannot be read", "write it again"]),
    (file(struct.pack("<Q", 2) + b"{}"), ["holds no tensors"]),
    (file(struct.pack("<Q", 200) + b"{}"), ["write it again"]),
    (arrays(a=np.array([{}], object)), ["object", "unpickled", "'a'"]),
    (arrays(a=np.array(["x"])), ["'a'", "not numbers"]),
    (arrays(), ["without arrays"]),
    (header("(((("), ["cannot be read", "has no header"]),
    (arrays(nonsense=X), ["nonsense", "'vision.blocks.0.norm_1'", "JSON"]),
    (arrays(**{"vision.blocks.x.norm_1": X}), ["perhaps vision.blocks.{i}.norm_1"]),
    (arrays(**{"wide/vision.norm": X}), ["'wide/vision.norm'", "perhaps"]),
]


@pytest.mark.parametrize(("write", "words"), MALFORMED)
def test_malformed_files(tmp_path: Path, write: Callable[[Path], Any], words: list[str]) -> None:
    path = tmp_path / "activations"
    write(path)
    with pytest.raises(VerificationError) as caught:
        read_candidate(path, [IMAGES])
    message = str(caught.value)
    assert message.startswith(str(path))
    assert [word for word in words if word not in message] == []
    assert "fetch" not in message
    assert "download" not in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("write", [npz, compressed])
def test_damaged_archives_never_raise_anything_else(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """Cut off, or with some bytes changed: an array, or one sentence."""
    path, refused = tmp_path / "a.npz", 0
    write(path, {"vision.norm": X, "squares/vision.embed": X})
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for i in range(600):
        content = bytearray(whole if i % 4 else whole[: rng.integers(4, len(whole))])
        for _ in range(i % 4):
            content[rng.integers(2, len(content))] = rng.integers(256)
        path.write_bytes(content)
        try:
            found = read_candidate(path, [IMAGES])
            assert [found.get("squares", name) is not None for name in found.names("squares")]
        except VerificationError as error:
            refused += str(path) in str(error)
    assert 300 < refused < 600


def test_a_key_without_a_case_where_there_are_several(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"names no case.*'squares/vision\.norm'"):
        read(tmp_path, {"vision.norm": X}, IMAGES, TEXTS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ('["a"]', "expected a JSON object"),
        ('{"a": 1}', "'a' is 1"),
        ('{"a": "vision.blocks.{i}.norm1"}', r"no activation.*'vision\.blocks\.\{i\}\.norm_1'"),
        ('{"a": "vision.blocks.{i}.norm_1"}', "both have {i}"),
        ('{"a{i}{i}": "vision.blocks.{i}.norm_1"}', "both have {i}"),
        ('{"a{i}": "vision.norm"}', "both have {i}"),
        ('{"a": "vision.norm", "a": "vision.embed"}', "twice"),
    ],
)
def test_malformed_tables(tmp_path: Path, content: str | None, words: str) -> None:
    table = tmp_path / "map.json"
    if content is not None:
        table.write_text(content)
    with pytest.raises(VerificationError, match=rf"map\.json.*{words}"):
        read(tmp_path, {"vision.norm": X}, names=table)


def test_an_unknown_scheme(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="'keras': expected transformers, timm, original"):
        read(tmp_path, {"vision.norm": X}, names="keras")


def test_an_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="float8"):
        read(tmp_path, {"vision.norm": X}, dtype="float8")
