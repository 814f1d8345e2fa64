"""The lessons as files: whole, up to date, with an answer to every question. Nothing runs here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_files import FOLDER, LESSONS, answered, exercise_cells, solutions
from wrong_answers import WRONG

import aimv2_np
import execute
import header
from aimv2_np import lessons
from aimv2_np.lessons.judging import exercises

TITLES = {file.name: execute.title(execute.read(file)) for file in LESSONS}
EXERCISES = [(file, id) for file in LESSONS for id in exercise_cells(file)]
each = pytest.mark.parametrize("file", LESSONS, ids=lambda f: f.stem)


def cells(file: Path) -> list[dict[str, Any]]:
    return execute.read(file)["cells"]


@each
def test_lesson_is_up_to_date(file: Path) -> None:
    assert execute.static_problems(file, TITLES) == []
    notebook = execute.read(file)
    assert execute.normalised(notebook) == notebook


@each
def test_lesson_has_its_parts(file: Path) -> None:
    number = file.name[:2]
    first = cells(file)[0]["source"]
    assert first.startswith(f"# {number} · ")
    for part in ("**", "Time: ", "You need: ", "Afterwards you can "):
        assert part in first
    headings = [cell["source"] for cell in cells(file) if cell["source"].startswith("## ")]
    assert any("## Break it" in heading for heading in headings) or number > "09"
    assert 3 <= len(exercise_cells(file)) <= 5
    assert list(exercise_cells(file)) == list(exercises(number))


@each
def test_cells_are_short(file: Path) -> None:
    code = execute.code_cells(execute.read(file))
    assert 8 <= len(code) <= 27
    lengths = [len(cell["source"].splitlines()) for cell in code]
    assert max(lengths) <= 14
    assert np.mean(lengths) <= 7


@each
def test_pictures_have_words_and_outputs_name_no_machine(file: Path) -> None:
    for cell in execute.code_cells(execute.read(file)):
        assert not re.search(r"/(home|root|tmp|usr|work)/|[A-Z]:\\| at 0x", execute.words(cell))
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                alt = output["metadata"]["image/png"]["alt"]
                assert len(alt) > 20
                assert alt == "".join(output["data"]["text/plain"])


@each
def test_links_lead_somewhere(file: Path) -> None:
    sources = [cell["source"] for cell in cells(file) if cell["cell_type"] == "markdown"]
    pages = [FOLDER / "solutions" / f"{file.name[:2]}.md"]
    texts = [(file.parent, source) for source in sources]
    texts += [(page.parent, page.read_text(encoding="utf-8")) for page in pages]
    for folder, text in texts:
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("http") or (folder / target.split("#")[0]).exists(), target


# ---------------------------------------------------------------------------- exercises


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What every lesson has defined before its exercises, as far as answers may use it."""
    model = aimv2_np.load("emoji-lit", backend="numpy")
    return {"np": np, "model": model, "samples": aimv2_np.samples()}


def verdict(code: str, names: dict[str, Any]) -> lessons.Verdict:
    """Run an exercise's cell; it ends in the check."""
    body, check = code.rsplit("\ncheck(", 1)
    there = {**names, "check": lessons.check}
    exec(body, there)
    found: lessons.Verdict = eval(f"check({check}", there)
    return found


def test_every_exercise_has_a_solution_and_wrong_answers() -> None:
    ids = [id for _, id in EXERCISES]
    assert len(ids) == len(set(ids))
    assert [id for file in LESSONS for id in solutions(file)] == ids
    assert sorted(WRONG) == sorted(ids)
    assert all(WRONG.values())


@pytest.mark.parametrize(("file", "id"), EXERCISES, ids=[id for _, id in EXERCISES])
def test_exercise_tells_missing_wrong_and_right(file: Path, id: str, names: dict[str, Any]) -> None:
    cell = exercise_cells(file)[id]
    assert cell["source"].count("...") == 1
    assert execute.words(cell) == "… not answered yet"
    assert verdict(cell["source"], names).status == "unanswered"
    for answer, hint in WRONG[id]:
        found = verdict(answered(cell, answer), names)
        assert (found.status, hint in found.says) == ("wrong", True), (answer, found)
    found = verdict(solutions(file)[id], names)
    assert found.status == "right", found
    assert len(found.says) > 10


# ---------------------------------------------------------------------------- the header


def test_without_an_address_there_are_no_badges_and_with_one_they_lead_to_the_lesson() -> None:
    assert header.badges("x.ipynb", "") == header.BADGES
    line = header.badges("x.ipynb", "someone/somewhere", "main")
    assert "colab.research.google.com/github/someone/somewhere/blob/main/notebooks/x.ipynb" in line
    assert "mybinder.org/v2/gh/someone/somewhere/main?labpath=notebooks/x.ipynb" in line
    assert line.endswith(header.BADGES)


def test_the_way_links_neighbours_that_exist(tmp_path: Path) -> None:
    titles = {"01_a.ipynb": "01 · A", "04_b.ipynb": "04 · B", "05_c.ipynb": "05 · C"}
    (tmp_path / "README.md").touch()
    line = header.way(tmp_path / "04_b.ipynb", titles)
    assert line == (
        "[← 01 · A](01_a.ipynb) · [all lessons](README.md) · [05 · C →](05_c.ipynb) <!-- way -->"
    )
    assert header.way(tmp_path / "01_a.ipynb", titles).startswith("[all lessons](README.md)")
    source = f"# 04 · B\nold {header.BADGES}\n\n[old](old.ipynb) {header.WAY}\nend"
    filled = header.filled(source, tmp_path / "04_b.ipynb", titles)
    assert filled == f"# 04 · B\n{header.badges('04_b.ipynb')}\n\n{line}\nend"


# ---------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("True", "True", True),
        ("True", "False", False),
        ("0.123 s", "0.124 s", True),
        ("0.123", "0.133", False),
        ("(1530, 64)", "(1531, 64)", False),
        ("-1.79e-05", "-1.79e-05", True),
        ("from -1.5", "from 1.5", False),
        ("a 1.0", "b 1.0", False),
        ("1.0 2.0", "1.0", False),
    ],
)
def test_texts_are_alike_up_to_rounding(a: str, b: str, same: bool) -> None:
    assert execute.alike(a, b) is same


def notebook(*code: str, outputs: Any = ()) -> dict[str, Any]:
    made = [
        {"cell_type": "markdown", "metadata": {}, "source": f"# 01 · A\n\n{header.WAY}"},
        {"cell_type": "code", "metadata": {}, "source": header.SETUP, "outputs": []},
        *(
            {
                "cell_type": "code",
                "metadata": {"execution": {"iopub": "a time"}, "tags": ["measured"]},
                "source": source,
                "outputs": list(outputs),
                "execution_count": 9,
            }
            for source in code
        ),
    ]
    return {"cells": made, "metadata": {"jupytext": {}}, "nbformat": 4, "nbformat_minor": 4}


def test_normalising_removes_what_differs_from_run_to_run() -> None:
    widget = {"image/png": "x", "text/plain": "a picture", execute.WIDGET: {"model_id": "random"}}
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "on"},
        {"output_type": "stream", "name": "stdout", "text": ["e\n", "line"]},
        {"output_type": "stream", "name": "stderr", "text": "another"},
        {"output_type": "display_data", "data": widget, "metadata": {}},
        {"output_type": "execute_result", "data": {}, "metadata": {}, "execution_count": 9},
    ]
    made = execute.normalised(notebook("x", outputs=outputs))
    cell = made["cells"][2]
    assert [c["id"] for c in made["cells"]] == ["cell-00", "cell-01", "cell-02"]
    assert (cell["metadata"], cell["execution_count"]) == ({"tags": ["measured"]}, 2)
    one, error, picture, result = cell["outputs"]
    assert (one["text"], error["text"]) == ("one\nline", "another")
    assert sorted(picture["data"]) == ["image/png", "text/plain"]
    assert result["execution_count"] == 2
    assert set(made["metadata"]) == {"aimv2_np", "kernelspec", "language_info"}
    assert execute.normalised(made) == made


def test_the_digest_is_of_code_alone() -> None:
    a, b, c = notebook("x = 1"), notebook("x = 1"), notebook("x = 2")
    b["cells"][0]["source"] = "# other words"
    assert execute.code_hash(a) == execute.code_hash(b) != execute.code_hash(c)


def test_problems_of_a_run_are_said() -> None:
    def said(text: str, name: str = "stdout", tags: Any = ()) -> dict[str, Any]:
        made = execute.normalised(
            notebook("x", outputs=[{"output_type": "stream", "name": name, "text": text}])
        )
        made["cells"][2]["metadata"] = {"tags": list(tags)}
        return made

    assert execute.problems(said("a"), said("a"), {2: 1.0}) == []
    assert "gives 'b', kept is 'a'" in execute.problems(said("a"), said("b"), {2: 1.0})[0]
    measured = said("b", tags=["measured"])
    assert execute.problems(said("a"), measured, {2: 1.0}) == []
    assert "stderr" in execute.problems(said("a", "stderr"), said("a", "stderr"), {2: 1.0})[0]
    assert "cell 2 took 21.0 s" in execute.problems(said("a"), said("a"), {2: 21.0})[0]
    slow = execute.problems(said("a"), said("a"), dict.fromkeys(range(4), 16.0))
    assert slow == ["it took 64 s, more than 60"]


def test_stale_code_a_wrong_header_and_size_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "01_a.ipynb"
    titles = {file.name: "01 · A"}
    good = execute.normalised(execute.prepared(notebook("x = 1"), file, titles))
    file.write_text(json.dumps(good), encoding="utf-8")
    assert execute.static_problems(file, titles) == []
    good["cells"][2]["source"] = "x = 2"
    file.write_text(json.dumps(good), encoding="utf-8")
    assert "code changed" in execute.static_problems(file, titles)[0]
    good["cells"][0]["source"] = f"# 01 · A\n\n[gone](gone.ipynb) {header.WAY}"
    file.write_text(json.dumps(good), encoding="utf-8")
    monkeypatch.setattr(execute, "MOST_BYTES", 100)
    found = execute.static_problems(file, titles)
    assert [any(word in line for line in found) for word in ("MB", "header", "code")] == [True] * 3
