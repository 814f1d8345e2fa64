"""The folder of a pack: written whole or not at all, never over other files, refused if damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aimv2_np.errors import AIMv2Error, VerificationError
from aimv2_np.testing import random_models
from aimv2_np.verify.conformance import check, export, open_pack
from aimv2_np.verify.inputs import Inputs

# ---------------------------------------------------------------------------- the folder


def tiny(path: Path, **how: Any) -> None:
    inputs = Inputs(random_models.cases("learned"), [], [])
    export(random_models.make("learned"), path, inputs=inputs, **how)


def test_a_model_without_images_or_texts_to_prepare(tmp_path: Path) -> None:
    tiny(tmp_path / "pack")
    assert not [key for key in open_pack(tmp_path / "pack").expected if key.startswith("raw/")]
    assert "raw/" not in (tmp_path / "pack/README.md").read_text()


def test_a_pack_is_replaced_only_by_force(tmp_path: Path) -> None:
    tiny(tmp_path / "pack")
    (tmp_path / "pack/model.json").write_text("{}")
    with pytest.raises(VerificationError, match="holds a pack already"):
        tiny(tmp_path / "pack")
    tiny(tmp_path / "pack", force=True)
    assert open_pack(tmp_path / "pack").about["model"] == "learned"
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(VerificationError, match="holds other files"):
            tiny(tmp_path, force=force)
    with pytest.raises(VerificationError, match="is no folder"):
        tiny(tmp_path / "notes.txt")
    with pytest.raises(VerificationError, match="one that exists"):
        tiny(tmp_path / "none" / "pack")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    tiny(tmp_path / "pack")
    assert open_pack(tmp_path / "pack").inputs.cases


def test_nothing_is_left_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    tiny(tmp_path / "pack")
    before = {p.name: p.read_bytes() for p in (tmp_path / "pack").iterdir()}
    monkeypatch.setattr("aimv2_np.verify.conformance_export.page", full)
    with pytest.raises(AIMv2Error, match="cannot write .*pack: No space left"):
        tiny(tmp_path / "pack", force=True)
    with pytest.raises(AIMv2Error, match="No space left"):
        tiny(tmp_path / "new")
    assert {p.name: p.read_bytes() for p in (tmp_path / "pack").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


def spoil(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no such file"),
        (spoil("model.json", "{"), "no conformance pack"),
        (spoil("model.json", '{"aimv2_np.conformance": 7}'), "has the format 7"),
        (spoil("tolerances.json", "{}"), "says nothing of"),
        (spoil("expected.safetensors", "nothing"), "no conformance pack"),
        (lambda folder: (folder / "inputs.safetensors").unlink(), "no such file"),
    ],
)
def test_damaged_packs(damage: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    tiny(tmp_path / "pack")
    damage(tmp_path / "pack")
    with pytest.raises(VerificationError, match=words) as error:
        open_pack(tmp_path / "pack")
    assert "aimv2-np verify" in str(error.value)  # what to do


def test_no_pack_at_all(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="no conformance pack"):
        check(tmp_path, {})
