"""The sample pictures are what SOURCES.md, which has to name each one and its licence, says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import aimv2_np
from aimv2_np import hub

FOLDER = Path(aimv2_np.__file__).parent / "models_data" / "samples"
PICTURES = sorted(path.name for path in FOLDER.glob("*.png"))
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in (FOLDER / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
# What the notebooks and the demo name; a scene's main things lie in its centre square.
SINGLES = (
    *("cat", "dog", "horse", "bird", "fish", "tree", "flower", "sun", "apple", "banana", "pizza"),
    *("house", "car", "bicycle", "airplane", "guitar", "umbrella", "clock", "heart", "key"),
    *("rocket", "octopus", "snowman", "strawberry", "elephant"),
)
SCENE_SIZES = {(256, 256), (384, 256), (256, 384)}


def pixels(name: str) -> np.ndarray:
    with Image.open(FOLDER / name) as image:
        return np.asarray(image.convert("RGB"), np.int16)  # (H, W, 3)


def test_every_picture_is_listed_and_every_row_has_its_picture() -> None:
    assert sorted(ROWS) == PICTURES
    others = {path.name for path in FOLDER.iterdir()} - set(PICTURES)
    assert others == {"SOURCES.md"}


def test_samples_gives_every_picture_by_what_it_shows() -> None:
    found = aimv2_np.samples()
    assert sorted(f"{name}.png" for name in found) == PICTURES
    assert all(path == FOLDER / f"{name}.png" for name, path in found.items())
    assert len({path.read_bytes() for path in found.values()}) == len(found)


def test_missing_pictures_are_an_error_of_ours(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "PACKAGED", tmp_path)
    with pytest.raises(aimv2_np.AIMv2Error, match="install aimv2-np again"):
        aimv2_np.samples()


def test_there_are_enough() -> None:
    assert {f"{name}.png" for name in SINGLES} <= set(PICTURES)
    scenes = [name for name in PICTURES if name.startswith("scene-")]
    assert len(scenes) >= 10
    assert len(PICTURES) - len(scenes) >= 30


@pytest.mark.parametrize("name", PICTURES)
def test_picture_has_the_promised_size_and_shows_something(name: str) -> None:
    with Image.open(FOLDER / name) as image:
        assert image.format == "PNG"
        promised = {(256, 256)} if not name.startswith("scene-") else SCENE_SIZES
        assert image.size in promised
        assert f"{image.width} × {image.height}" == ROWS[name][1]
    found = pixels(name)
    differs = np.abs(found - found[0, 0]).max(-1) > 60
    assert differs.mean() > 0.04


@pytest.mark.parametrize("name", [name for name in PICTURES if not name.startswith("scene-")])
def test_single_drawing_is_centred_and_uncut(name: str) -> None:
    found = pixels(name)
    rows, columns = np.nonzero(np.abs(found - found[0, 0]).max(-1) > 8)
    for near, far in ((rows.min(), 255 - rows.max()), (columns.min(), 255 - columns.max())):
        assert near >= 20
        assert abs(int(near) - int(far)) <= 2


@pytest.mark.parametrize("name", PICTURES)
def test_row_says_what_the_licence_asks_for(name: str) -> None:
    shows, _, drawings, changes, artist, package, licence = ROWS[name]
    assert shows
    assert drawings
    assert changes
    assert artist == "OpenMoji"
    assert re.fullmatch(r"`@iconify-json/openmoji` \d+\.\d+\.\d+", package)
    assert licence == "CC BY-SA 4.0"


def test_attribution_and_licence_text_are_linked() -> None:
    text = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert "All emojis designed by [OpenMoji](https://openmoji.org)" in text
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in text


def test_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 600_000
