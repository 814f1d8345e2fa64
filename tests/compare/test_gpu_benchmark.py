"""benchmarks/gpu.py from end to end without a GPU: every step runs, and finds what it should.

The plug-in's table computes on NumPy, torch on the CPU; times are made up and are not looked at.
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


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of a dry run of all steps."""
    pytest.importorskip("ml_dtypes", reason="the CUDA plug-in is not installed")
    path = tmp_path_factory.mktemp("dry") / "gpu.jsonl"
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--dry-run", "--out", str(path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert path.with_suffix(".md").read_text() in done.stdout
    return [json.loads(line) for line in path.read_text().splitlines()]


def of(kind: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["kind"] == kind]


def test_every_step_is_done(records: list[dict[str, Any]]) -> None:
    states = {r["name"]: r for r in of("step", records)}
    assert [r for r in states.values() if r["state"] != "done"] == []
    assert all(record["dry"] for record in records)


def test_kernels_and_products_are_right_in_every_dtype(records: list[dict[str, Any]]) -> None:
    found = of("check", records)
    assert {r["dtype"] for r in found} == {"bfloat16", "float32", "float16", "tf32"}
    assert [r for r in found if not r["ok"]] == []
    assert max(r["units"] for r in found if r["dtype"] == "float16") > 0.3  # it was rounded


def test_sides_agree(records: list[dict[str, Any]]) -> None:
    """Ours, transformers eager and compiled; narrow dtypes are not computed in float32."""
    forwards = of("forward", records)
    assert len(forwards) == 4
    for record in forwards:
        assert list(record["sides"]) == ["ours", "eager", "compile", "compile, graph"]
        for name, side in record["sides"].items():
            assert not side["wrong"], (record["model"], record["dtype"], name)
        low = {"bfloat16": 1e-3, "float16": 1e-4, "tf32": 1e-4}[record["dtype"]]
        assert record["sides"]["ours"]["error"] > low
    for record in of("attention", records):
        assert record["sides"]["cudnn"]["ours_is_off_by"] < 0.01


def test_a_forward_has_parts(records: list[dict[str, Any]]) -> None:
    (record,) = of("ratio", records)
    parts = ["total", "patches", "qkv", "proj", "gate and up", "down", "attention"]
    assert list(record["parts"]) == parts


def test_errors_of_all_dtypes_and_of_torchs(records: list[dict[str, Any]]) -> None:
    worst = {(r["model"], r["side"], r["dtype"]): r["worst"] for r in of("error", records)}
    assert len(worst) == 4 * (3 + 2)
    for side in ("ours", "transformers"):
        of_side = {
            d: worst["2 blocks of tiny", side, d] for d in ("float32", "float16", "bfloat16")
        }
        assert of_side["float32"] < 1e-5 < of_side["float16"] < of_side["bfloat16"] < 0.05


def test_the_suite_ran(records: list[dict[str, Any]]) -> None:
    (record,) = of("suite", records)
    assert record["returncode"] == 0
    assert "passed" in record["summary"]
    assert [r["tool"] for r in of("sanitizer", records)] == ["memcheck", "racecheck"]
