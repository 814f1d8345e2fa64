"""benchmarks/compare.py from end to end, on tiny models: does it run what it says it runs?

Times are not looked at. That the sides agree is asserted by the command itself, so a text tower of
transformers' that is not causal, or a grid with rows and columns exchanged, would end it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.compare


def compare(out: Path, *arguments: str) -> Any:
    """The one result that the command wrote."""
    script = str(ROOT / "benchmarks" / "compare.py")
    command = [sys.executable, script, *arguments, "--rounds", "2", "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    (path,) = out.glob("*.json")
    assert path.with_suffix(".md").read_text() in run.stdout
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("model", "part"),
    [("tiny", "vision"), ("tiny-native", "vision"), ("tiny-lit", "text"), ("tiny-lit", "lit")],
)
def test_forwards(tmp_path: Path, model: str, part: str) -> None:
    sides = ("numba", "numpy", "transformers")
    found = compare(tmp_path, "--model", model, "--part", part, "--sides", *sides)
    assert list(found["sides"]) == [f"{side}-float32" for side in sides]
    for side in found["sides"].values():
        assert len(side["seconds"]) == 2
        assert side["error"] < 1e-5
        assert side["computes"].startswith("f32")
    assert found["sides"]["transformers-float32"]["error"] == 0  # it is the reference
    assert min(found["peak_gflops"]["float32"].values()) > 0


def test_narrow_dtypes_are_what_they_say(tmp_path: Path) -> None:
    """Nobody is as close as float32, 1e-6. Ours may keep activations in float32 (formats.py)."""
    sides = ("numba", "numba-int8", "transformers")
    found = compare(tmp_path, "--model", "tiny", "--dtype", "bfloat16", "--sides", *sides)
    errors = {name: side["error"] for name, side in found["sides"].items()}
    assert 2e-5 < errors["numba-bfloat16"] < 1e-2
    assert 2e-5 < errors["transformers-bfloat16"] < 2e-2
    assert 2e-5 < errors["numba-int8"] < 0.1
    weights = {name: side["weights_bytes"] for name, side in found["sides"].items()}
    assert weights["numba-bfloat16"] == 2 * weights["numba-int8"] == 2 * found["parameters"]


def test_starts(tmp_path: Path) -> None:
    sides = ("numba", "transformers-bfloat16")
    found = compare(tmp_path, "--model", "tiny-lit", "--start", "--sides", *sides)
    for side in found["sides"].values():
        steps = ("python", "import", "load", "first_forward")
        assert all(side[f"{step}_seconds"] > 0 for step in steps)
        assert len(side["seconds"]) == 2
        assert side["peak_over_weights"] is None or side["peak_over_weights"] > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "tiny", "--part", "text"], "tiny has no text tower"),
        (["--sides", "onnxruntime", "--dtype", "bfloat16"], "onnxruntime runs in float32 here"),
        (["--sides", "nobody"], "there is no side nobody"),
        (["--model", "tiny-lit", "--start", "--part", "text"], "leave --part out"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_made(
    arguments: list[str], words: str
) -> None:
    script = str(ROOT / "benchmarks" / "compare.py")
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert words in run.stderr
