"""Lessons, their exercises and solutions, as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from execute import FOLDER, code_cells, lessons, read

__all__ = ["FOLDER", "LESSONS", "answered", "exercise_cells", "exercise_id", "solutions"]

LESSONS = lessons()
_ID = re.compile(r"""^check\("([^"]+)",""", re.MULTILINE)
_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def exercise_id(source: str) -> str | None:
    """The exercise that a cell checks, if any."""
    found = _ID.search(source)
    return found[1] if found else None


def exercise_cells(lesson: Path) -> dict[str, dict[str, Any]]:
    """The cells of a lesson's exercises by id."""
    cells = [(exercise_id(cell["source"]), cell) for cell in code_cells(read(lesson))]
    return {id: cell for id, cell in cells if id is not None}


def solutions(lesson: Path) -> dict[str, str]:
    """The code of a lesson's solutions by id."""
    markdown = (FOLDER / "solutions" / f"{lesson.name[:2]}.md").read_text(encoding="utf-8")
    codes = [code.rstrip("\n") for code in _CODE.findall(markdown)]
    return {id: code for code in codes if (id := exercise_id(code)) is not None}


def answered(cell: dict[str, Any], answer: str) -> str:
    """An exercise's cell with an expression in the placeholder's place."""
    return str(cell["source"]).replace("...", answer, 1)
