"""notebooks/README.md: what it says of a lesson is what the lesson says."""

from __future__ import annotations

import io
import re
from pathlib import Path

import PIL.Image
import pytest
from lesson_files import FOLDER, LESSONS

import execute
import thumbnails

README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_table_is_made_from_the_lessons() -> None:
    rows = [thumbnails.row(thumbnails.about(file)) for file in LESSONS]
    assert thumbnails.page(README, rows) == README, "run python notebooks/thumbnails.py"


@pytest.mark.parametrize("file", LESSONS, ids=lambda f: f.stem)
def test_every_lesson_has_a_small_picture_of_its_own(file: Path) -> None:
    number = file.name[:2]
    path = FOLDER / "thumbnails" / f"{number}.png"
    assert path.stat().st_size < 20_000
    with PIL.Image.open(path) as image:
        assert max(image.size) <= max(thumbnails.SIZE)
    made = thumbnails.thumbnail(thumbnails.picture(file))
    assert execute.look_alike(path.read_bytes(), made), "run python notebooks/thumbnails.py"
    assert len(thumbnails.SHOWN[number][1]) > 10


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (FOLDER / target.split("#")[0]).exists(), target


def test_a_thumbnail_is_small_whatever_it_is_made_of() -> None:
    file = io.BytesIO()
    PIL.Image.effect_noise((900, 400), 90).save(file, format="PNG")
    with PIL.Image.open(io.BytesIO(thumbnails.thumbnail(file.getvalue()))) as small:
        assert small.size == (200, 89)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected <!-- lessons -->"):
        thumbnails.page("no marks", [])
    file = tmp_path / "01_a.ipynb"
    file.write_text('{"cells": [{"cell_type": "markdown", "source": "# 01 · A"}]}', "utf-8")
    with pytest.raises(ValueError, match="its first cell holds nothing like"):
        thumbnails.about(file)
    with pytest.raises(ValueError, match="no picture comes from a cell that holds"):
        thumbnails.picture(file)
