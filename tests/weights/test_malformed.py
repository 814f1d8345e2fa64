"""Every malformed checkpoint gives one CheckpointError that says which file, which key and why."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from malformed_cases import BIAS, CASES, GOOD, NORM, RIGHT, Case, shards

from aimv2_np.errors import CheckpointError
from aimv2_np.weights import read_checkpoint, shard_names


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(case.write(tmp_path))
    message = str(caught.value)
    assert case.phrase in message
    assert case.file in message
    assert case.key is None or case.key in message
    assert len(message) < 2000  # a message is read by people
    message.encode()  # and can be printed


def test_the_table_is_large_and_has_no_case_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


def test_the_unbroken_files_are_read(tmp_path: Path) -> None:
    """The cases break these; were these refused, the cases would show nothing."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    assert read_checkpoint([path]).shapes == {NORM: (2,)}
    index = shards(RIGHT, [NORM], [BIAS])(tmp_path)
    assert read_checkpoint(index).shapes == {NORM: (2,), BIAS: (2,)}


def test_bad_names_are_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    for case in CASES:
        if "is not the plain name" in case.phrase:
            with pytest.raises(CheckpointError, match="plain name"):
                shard_names(case.write(tmp_path)[0])


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_no_permission() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = Path(name, "model.safetensors")
        path.write_bytes(GOOD)
        path.chmod(0)
        try:
            if user == 0:  # root may read everything: be nobody for a moment
                os.seteuid(65534)
            with pytest.raises(CheckpointError, match=r"model\.safetensors: no permission"):
                read_checkpoint([path])
        finally:
            os.seteuid(user)
