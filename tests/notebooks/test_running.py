"""Lessons that run: exercises inside their notebook, and execute.py on notebooks made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lesson_files import LESSONS, answered, exercise_id, solutions
from wrong_answers import WRONG

import execute
import header

pytestmark = pytest.mark.notebooks


@pytest.mark.parametrize("file", LESSONS, ids=lambda f: f.stem)
def test_exercises_judge_inside_their_lesson(file: Path) -> None:
    """Every cell in order; an exercise's as it is, with wrong answers, and with the solution."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()

    def run(code: str) -> Any:
        done = shell.run_cell(code)
        done.raise_error()
        return done.result

    judged = []
    for cell in execute.code_cells(execute.read(file)):
        result = run(cell["source"])
        id = exercise_id(cell["source"])
        if id is not None:
            assert result.status == "unanswered"
            for answer, hint in WRONG[id]:
                found = run(answered(cell, answer))
                assert (found.status, hint in found.says) == ("wrong", True), (answer, found)
            assert run(solutions(file)[id]).status == "right"
            judged.append(id)
    assert judged == list(solutions(file))


# ---------------------------------------------------------------------------- execute.py


@pytest.fixture
def lesson(tmp_path: Path) -> Any:
    """Writes a lesson of some code cells, and returns its file."""

    def write(*code: str, tags: tuple[str, ...] = ()) -> Path:
        import nbformat.v4 as v4

        first = v4.new_markdown_cell(f"# 01 · A lesson\n{header.BADGES}\n\n{header.WAY}")
        rest = [v4.new_code_cell(source, metadata={"tags": list(tags)}) for source in code]
        made = v4.new_notebook(cells=[first, v4.new_code_cell(""), *rest])
        file = tmp_path / "01_a.ipynb"
        file.write_text(json.dumps(made), encoding="utf-8")
        return file

    return write


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = execute.main(["--check"], folder)
    return code, capsys.readouterr().err


def test_what_is_executed_passes_the_check_and_stays_the_same(lesson: Any, capsys: Any) -> None:
    file = lesson("x = 1", "print(x)\nprint(x + 1)", "x / 3")
    assert execute.main([], file.parent) == 0
    before = file.read_bytes()
    assert check(file.parent, capsys) == (0, "")
    assert execute.main(["01"], file.parent) == 0
    assert file.read_bytes() == before
    outputs = [cell["outputs"] for cell in execute.code_cells(execute.read(file))]
    assert "".join(outputs[2][0]["text"]) == "1\n2\n"


def test_an_error_is_said_and_leaves_the_file_alone(lesson: Any, capsys: Any) -> None:
    file = lesson("x = 1", "x / 0")
    before = file.read_bytes()
    assert execute.main([], file.parent) == 1
    assert "cell 3 raised ZeroDivisionError" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_the_check_sees_outputs_that_are_not_those_of_the_code(lesson: Any, capsys: Any) -> None:
    file = lesson("print(1)")
    execute.main([], file.parent)
    kept = file.read_text(encoding="utf-8")
    file.write_text(kept.replace('"1\\n"', '"7\\n"'), encoding="utf-8")
    code, says = check(file.parent, capsys)
    assert code == 1
    assert "gives '1\\n', kept is '7\\n'" in says
    file.write_text(kept.replace("print(1)", "print(1 )"), encoding="utf-8")
    code, says = check(file.parent, capsys)
    assert code == 1
    assert "code changed" in says


def test_the_check_sees_another_picture(lesson: Any, capsys: Any, tmp_path: Path) -> None:
    """The code is the same and so are its words, but not what is drawn."""
    colour = tmp_path / "colour.txt"
    colour.write_text("red", encoding="utf-8")
    file = lesson(
        "import PIL.Image, pathlib",
        "c = pathlib.Path('colour.txt').read_text()",
        "from IPython.display import Image\nimport io\nf = io.BytesIO()\n"
        "PIL.Image.new('RGB', (99, 50), c).save(f, 'png')\nImage(f.getvalue())",
    )
    assert execute.main([], file.parent) == 0
    assert check(file.parent, capsys) == (0, "")
    colour.write_text("blue", encoding="utf-8")
    code, says = check(file.parent, capsys)
    assert code == 1
    assert "cell 4 draws another picture" in says


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("while True: pass", "cell 3 did not end in 2 s"),
        ("import os; os._exit(1)", "cell 3 ended the kernel"),
    ],
)
def test_a_cell_that_does_not_come_back_is_said(
    lesson: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    monkeypatch.setattr(execute, "CELL_SECONDS", 0.2 if "while" in code else 2)
    file = lesson("x = 1", code)
    assert execute.main([], file.parent) == 1
    assert says in capsys.readouterr().err


def test_measured_cells_may_differ_and_stderr_may_not_be_used(lesson: Any, capsys: Any) -> None:
    file = lesson("import time\ntime.perf_counter()", tags=("measured",))
    execute.main([], file.parent)
    assert check(file.parent, capsys) == (0, "")
    file = lesson("import sys\nprint('oh', file=sys.stderr)")
    assert execute.main([], file.parent) == 1
    assert "writes to stderr: oh" in capsys.readouterr().err


def test_slow_cells_are_said(lesson: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "CELL_SECONDS", 0.5)
    file = lesson("import time\ntime.sleep(0.7)")
    assert execute.main([], file.parent) == 1
    assert "cell 2 took 0.7 s" in capsys.readouterr().err


def test_a_lesson_that_does_not_exist_is_said(lesson: Any) -> None:
    file = lesson("1")
    with pytest.raises(SystemExit, match="no lesson 77"):
        execute.main(["77"], file.parent)
