"""What benchmarks/gpu.py says of results, on made-up ones, and what it does when steps go wrong.

Nothing is timed here. tests/compare/test_gpu_benchmark.py makes a dry run of every step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
L = "large-patch14-224"


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("gpu", "gpu_goals", "gpu_plan", "gpu_report", "gpu_run")
        yield SimpleNamespace(**{n.removeprefix("gpu_"): import_module(n) for n in names})


# ---------------------------------------------------------------------------- made-up results


def timed(seconds: float, **more: Any) -> dict[str, Any]:
    """Three turns, of which one was disturbed."""
    turns = [seconds, 5 * seconds, seconds]
    return {"seconds": turns, "wall_seconds": turns, "runs_of_a_turn": 1, "error": 1e-3, **more}


def forward(dtype: str, batch: int, **sides: Any) -> dict[str, Any]:
    return {
        "kind": "forward",
        "step": "forward",
        "model": L,
        "dtype": dtype,
        "batch": batch,
        "patches": 256,
        "flop": batch * 160e9,
        "parameters": 309_000_000,
        "compiled": "whole",
        "sides": sides,
        "warnings": [],
        "dry": False,
    }


def results() -> list[dict[str, Any]]:
    """An afternoon on a GPU that does not exist."""
    parts = {"total": 0.023, "patches": 0.001, "qkv": 0.004, "proj": 0.002, "gate and up": 0.007,
             "down": 0.004, "attention": 0.002}  # fmt: skip
    attention = {256: (0.001, 0.0008), 1024: (0.001, 0.0008), 4096: (0.001, 0.0006)}
    records = [
        {"kind": "machine", "name": "NVIDIA Some", "memory_bytes": 80 << 30, "driver_cuda": 13000,
         "runtime_cuda": 12090, "clocks": {"clocks.sm": "1980 MHz"}, "date": "2026-01-31",
         "packages": {"torch": "2.13.0"}},
        {"kind": "plan", "cases": [
            {"step": "forward", "batch": 64}, {"step": "forward", "batch": 8},
            {"step": "forward", "batch": 1}, {"step": "late", "batch": 256},
        ]},
        {"kind": "peak", "dtype": "bfloat16", "size": 8192, "flop_per_second": 800e12},
        {"kind": "bandwidth", "bytes_per_second": 4.3e12},
        {"kind": "check", "what": "swiglu", "dtype": "bfloat16", "units": 1.0, "allowed": 16,
         "ok": True},
        {"kind": "check", "what": "pool", "dtype": "tf32", "units": float("nan"), "allowed": 16,
         "ok": False},
        forward("bfloat16", 64, ours=timed(0.02, memory_bytes=2.5e9), eager=timed(0.03),
                compile=timed(0.025)),
        forward("bfloat16", 8, ours=timed(0.004), compile=timed(0.003), eager=timed(0.001)),
        forward("tf32", 64, ours=timed(0.02), eager=timed(0.019), compile=timed(0.03)),
        forward("float32", 64, ours=timed(0.02, wrong=True, error=0.5), eager=timed(0.1),
                compile=timed(0.1)),
        forward("float32", 8, ours=timed(0.02), eager=timed(0.1), compile={"failed": "no memory"}),
        {"kind": "ratio", "model": L, "dtype": "bfloat16", "batch": 64,
         "parts": {name: timed(seconds) for name, seconds in parts.items()}},
        *({"kind": "attention", "patches": patches, "batch": 1, "flop": 1e11,
           "sides": {"ours": timed(ours), "cudnn": timed(cudnn, ours_is_off_by=1e-3)}}
          for patches, (ours, cudnn) in attention.items()),
        {"kind": "suite", "returncode": 1, "seconds": 50.0, "summary": "1 failed, 119 passed",
         "failed": ["FAILED test_ops.py::test_silu"], "tail": []},
        {"kind": "sanitizer", "tool": "racecheck", "missing": "compute-sanitizer is not installed"},
        {"kind": "error", "model": "deep", "side": "ours", "dtype": "tf32", "median": 1e-3,
         "worst": 2e-3},
        {"kind": "step", "name": "forward", "state": "done"},
        {"kind": "step", "name": "late", "state": "left out", "why": "60 s, 5 s were left"},
        {"kind": "step", "name": "ratio", "state": "failed", "why": "it hung"},
    ]  # fmt: skip
    return [{"dry": False, **record} for record in records]


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_goals_are_met_or_short_or_without_a_number_that_means_something(gpu: Any) -> None:
    """Medians: the disturbed turn does not count."""
    assert table(gpu.report.page(results()), "Goals") == [
        ["bfloat16, batch 64: total over products and attention", "≤ 1.15", "1.15", "met"],
        ["bfloat16, batch 1: torch.compile + SDPA", "≥ 1.00 ×", "–", "not measured"],
        ["bfloat16, batch 8: torch.compile + SDPA", "≥ 1.00 ×", "0.75 ×", "short"],
        ["bfloat16, batch 64: torch.compile + SDPA", "≥ 1.00 ×", "1.25 ×", "met"],
        ["float32, batch 1: the faster of eager and compile", "≥ 1.00 ×", "–", "not measured"],
        ["float32, batch 8: the faster of eager and compile", "≥ 1.00 ×", "–",
         "not measured: compile failed"],
        ["float32, batch 64: the faster of eager and compile", "≥ 1.00 ×", "–",
         "our features are wrong"],
        ["tf32, batch 1: the faster of eager and compile", "≥ 1.00 ×", "–", "not measured"],
        ["tf32, batch 8: the faster of eager and compile", "≥ 1.00 ×", "–", "not measured"],
        ["tf32, batch 64: the faster of eager and compile", "≥ 1.00 ×", "0.95 ×", "short"],
        ["attention at 256 patches: cuDNN", "≥ 0.90 ×", "0.80 ×", "short"],
        ["attention at 1024 patches: cuDNN", "≥ 0.75 ×", "0.80 ×", "met"],
        ["attention at 4096 patches: cuDNN", "≥ 0.60 ×", "0.60 ×", "met"],
    ]  # fmt: skip


def test_a_model_compiled_by_block_is_no_measure_of_the_goal(gpu: Any) -> None:
    record = forward("bfloat16", 8, ours=timed(1.0), compile=timed(2.0)) | {"compiled": "by block"}
    (goal,) = (g for g in gpu.goals.goals([record]) if g.what.startswith("bfloat16, batch 8"))
    assert goal.measured is None
    assert gpu.goals.verdict(goal, dry=False) == "not measured: compiled by block only"


def test_attention_that_is_wrong_is_not_fast(gpu: Any) -> None:
    sides = {"ours": timed(1.0), "cudnn": timed(9.0, ours_is_off_by=0.4)}
    record = {"kind": "attention", "patches": 256, "sides": sides}
    (goal,) = (g for g in gpu.goals.goals([record]) if "256" in g.what)
    assert gpu.goals.verdict(goal, dry=False) == "our kernel is wrong"


def test_forwards(gpu: Any) -> None:
    """Images a second, and the share: 64 · 160 GFLOP in 20 ms are 512 of 800 TFLOP/s."""
    first, *_, wrong, failed = table(gpu.report.page(results()), "Forwards")
    assert first == [L, "bfloat16", "64", "256", "3200", "2133", "2560", "–", "64%", "2.5 GB", "–",
                     "whole", ""]  # fmt: skip
    assert wrong[4:6] == ["3200 (WRONG)", "640"]
    assert wrong[-1] == "ours is off by 5.0e-01"
    assert failed[6] == "failed"
    assert failed[-1] == "compile: no memory"


def test_what_is_wrong_or_missing_is_said(gpu: Any) -> None:
    page = gpu.report.page(results())
    for words in (
        "NVIDIA Some, 80 GiB, CUDA 13.0 of the driver, CUDA 12.9 of the wheel, clocks.sm 1980 MHz",
        "1 of 2 checks of kernels",
        "| pool | tf32 | nan | 16 |",
        "Conformance suite: 1 failed, 119 passed (exit status 1)\n- FAILED test_ops.py::test_silu",
        "compute-sanitizer, racecheck: compute-sanitizer is not installed",
        "| deep | ours | 2.0e-03 |",
        "bfloat16 800 TFLOP/s, memory 4.30 TB/s",
        "- late: left out: 60 s, 5 s were left (no result of batch 256)",
        "- ratio: failed: it hung",
        "- forward: done: no reason is known (no result of batch 1)",
    ):
        assert words in page


def test_two_clocks_that_disagree_are_said(gpu: Any) -> None:
    side = timed(0.01) | {"wall_seconds": [0.02, 0.02, 0.02]}
    page = gpu.report.page([forward("bfloat16", 1, ours=side)])
    assert "ours: 2.0 times as long by the host's clock" in page


def test_times_of_a_dry_run_are_not_shown(gpu: Any) -> None:
    page = gpu.report.page([record | {"dry": True} for record in results()])
    assert "nothing was measured, all times were made up" in page
    speeds = [cells[4:11] for cells in table(page, "Forwards")]
    assert not any(character.isdigit() for row in speeds for cell in row for character in cell)
    for _, _, measured, verdict in table(page, "Goals"):
        assert measured in ("made up", "–")
        assert verdict not in ("met", "short")


# ---------------------------------------------------------------------------- the course of events


def test_the_plan_begins_with_what_matters_and_has_all_of_the_table(gpu: Any) -> None:
    names = [step.name for step in gpu.plan.steps(gpu.plan.FULL)]
    assert len(set(names)) == len(names)
    goal = names.index(f"forward {L} bfloat16, batch 64 8 1")
    assert all(name.startswith(("machine", "kernels", "peaks")) for name in names[:goal])
    cases = {(c["model"], c["dtype"], c["batch"], c["patches"])
             for c in gpu.run.cases(gpu.plan.FULL)}  # fmt: skip
    models = {L: 256, "large-patch14-448": 1024, "huge-patch14-224": 256, "1B-patch14-224": 256,
              "3B-patch14-224": 256, "large-patch14-native": 4096}  # fmt: skip
    wanted = {(m, "bfloat16", b, n) for m, n in models.items() for b in (1, 8, 64, 256)}
    assert wanted <= cases
    assert {(L, d, b, 256) for d in gpu.plan.DTYPES for b in (1, 8, 64, 256)} <= cases


def test_native_images_of_4096_patches_have_the_work_of_them(gpu: Any) -> None:
    case = gpu.plan.Forward("large-patch14-native", "vision", 1, "bfloat16", 896)
    assert case.patches == 4096
    # 4096 patches · 24 blocks · (4 · 1024² + 3 · 1024 · 2816) weights, and 2 · 4096² · 1024 each
    macs = 4096 * 24 * (4 * 1024**2 + 3 * 1024 * 2816) + 24 * 2 * 4096**2 * 1024
    assert case.work()[0] == pytest.approx(2 * macs, rel=5e-3)


@pytest.mark.parametrize(
    ("code", "why"), [(-11, "exit status -11"), (None, "the time was over"), (17, "it hung")]
)
def test_a_process_that_dies_costs_its_step_only(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, why: str
) -> None:
    results, asked = gpu.run.Results(tmp_path / "r.jsonl", dry=True), []

    def child(results: Any, names: list[str], *_: Any) -> int | None:
        asked.append(names)
        results.step(names[0], "begun")
        if len(asked) == 1:
            return code
        results.step(names[0], "done")
        for name in names[1:]:
            results.step(name, "left out", why="late")
        return 0

    monkeypatch.setattr(gpu.run, "_child", child)
    gpu.run.supervise(results, ["kernels"], time.time() + 60, 0)
    first, *rest = [f"kernels {dtype}" for dtype in gpu.plan.DTYPES]
    assert asked == [[first, *rest], rest]
    states = results.states()
    assert states == {first: "failed", rest[0]: "done"} | dict.fromkeys(rest[1:], "left out")
    assert why in gpu.report.page(results.read())
    gpu.run.supervise(results, ["kernels"], time.time() + 60, 0)  # the same command again
    assert asked[2] == [first, *rest[1:]]


def test_a_step_that_raises_ends_its_process_and_the_others_go_on(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What it had found by then is kept."""

    def broken(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"kind": "check", "what": "something"}
        raise RuntimeError("an illegal memory access was encountered")

    stub = SimpleNamespace(wait=lambda: None, free=lambda: None)
    monkeypatch.setattr(gpu.run, "Dry", lambda _: stub)
    monkeypatch.setattr(gpu.run, "_function", lambda name: broken)
    results = gpu.run.Results(tmp_path / "r.jsonl", dry=True)
    assert gpu.run.work(results, ["peaks", "errors"], time.time() + 60, 0) == 1
    kinds = [record["kind"] for record in results.read()]
    assert kinds == ["step", "check", "step"]
    assert "illegal memory access" in results.read()[-1]["why"]
    assert "illegal memory access" in capsys.readouterr().err


def test_a_step_without_time_is_left_out(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.run, "Dry", lambda _: None)
    results = gpu.run.Results(tmp_path / "r.jsonl", dry=True)
    assert gpu.run.work(results, ["suite"], time.time() + 5, 0) == 0
    (record,) = results.read()
    assert record["state"] == "left out"
    assert "were left" in record["why"]


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu_run
from pathlib import Path
from types import SimpleNamespace
gpu_run.Dry = lambda _: SimpleNamespace(wait=lambda: time.sleep(60), free=lambda: None)
gpu_run._function = lambda name: lambda *_: iter(())
gpu_run.HANGS = 0, 0.2
gpu_run.work(gpu_run.Results(Path({str(tmp_path / "r.jsonl")!r}), True), ["peaks"], 1e12, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=50)
    assert done.returncode == 17
    last = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[-1])
    assert last["why"] == "it had not ended after 0 s"


def test_a_line_that_was_cut_off_is_no_result(gpu: Any, tmp_path: Path) -> None:
    results = gpu.run.Results(tmp_path / "r.jsonl", dry=True)
    results.step("peaks", "done")
    with results.path.open("a") as file:
        file.write('{"kind": "ste')
    assert len(results.read()) == 1


# ---------------------------------------------------------------------------- the command


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    return subprocess.run(script, capture_output=True, text=True, timeout=120, env=os.environ)


def test_without_a_gpu_the_plug_in_says_why(gpu: Any, tmp_path: Path) -> None:
    try:
        gpu.gpu.name_of(0)
    except gpu.gpu.BackendUnavailable as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU here")
    done = command("--out", tmp_path / "r.jsonl")
    assert done.returncode == 1
    assert done.stderr.strip() == reason
    assert not list(tmp_path.iterdir())


def test_results_of_a_true_run_are_not_mixed_with_a_dry_one(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"kind": "peak", "dry": False}) + "\n")
    done = command("--dry-run", "--out", path)
    assert done.returncode == 1
    assert "is of a true run" in done.stderr


def test_report_prints_the_page(gpu: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in results()))
    done = command("report", path)
    assert done.stdout.strip() == gpu.report.page(results()).strip()
    assert "does not exist" in command("report", tmp_path / "other.jsonl").stderr


def test_a_step_that_does_not_exist(tmp_path: Path) -> None:
    done = command("--dry-run", "--only", "nothing", "--out", tmp_path / "r.jsonl")
    assert done.returncode == 1
    assert "no step is called nothing; there are machine" in done.stderr
