"""Seconds and memory of one forward pass: our NumPy float32 beside transformers' eager float32.

    pip install -e '.[compare]' && python benchmarks/forward.py

Both sides get the same random weights (one file, written by transformers), the same random image,
and all cores. Each is a process of its own, which loads once and then runs one forward whenever the
other has finished one: A B A B ..., so that a machine that speeds up or slows down does so for
both. Nothing here passes or fails; the figures go to benchmarks/results/ as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aimv2_np.config import OFFICIAL, VisionConfig

RESULTS = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SIDES = {"ours": "aimv2_np, NumPy float32", "transformers": "transformers, eager float32"}
MODELS = [
    name
    for name, model in OFFICIAL.items()
    if isinstance(model.config, VisionConfig) and model.config.image_size is not None
]

# ---------------------------------------------------------------------------- a worker process


def peak_bytes() -> int | None:
    """The most memory this process ever had resident, mapped files included; Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024


def load_ours(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import aimv2_np

    model = aimv2_np.load(folder, backend="numpy")
    return lambda pixels: model(pixels).last_hidden_state


def aimv2_of_transformers() -> Any:
    """The module of their model, without torchvision.

    The model does not need it, it would count as memory, and PyPI's wheel cannot be imported
    beside the CPU build of torch.
    """
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers.models import aimv2

    return aimv2


def load_transformers(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    torch.set_num_threads(CORES)
    model = (
        aimv2_of_transformers()
        .Aimv2VisionModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        .eval()
    )

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels)).last_hidden_state.numpy()

    return forward


def work(side: str, folder: Path) -> None:
    """Load, then answer each line on stdin with one timed forward; answers are JSON lines."""
    if side == "transformers":
        assert aimv2_of_transformers().Aimv2VisionModel  # imported lazily: importing is not loading
    else:
        import aimv2_np.loader  # noqa: F401
    start = time.perf_counter()
    forward = {"ours": load_ours, "transformers": load_transformers}[side](folder)
    load_seconds = time.perf_counter() - start
    pixels = np.load(folder / "pixels.npy")
    print(json.dumps({"load_seconds": load_seconds}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        features = forward(pixels)
        seconds = time.perf_counter() - start
        np.save(folder / f"{side}.npy", features)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


def make(name: str, folder: Path) -> None:
    """Write random weights in transformers' layout, and an image."""
    import torch

    theirs = aimv2_of_transformers()
    config = OFFICIAL[name].config
    assert isinstance(config, VisionConfig)
    torch.manual_seed(0)
    theirs.Aimv2VisionModel(theirs.Aimv2VisionConfig(**vars(config))).save_pretrained(folder)
    shape = (1, 3, config.image_size, config.image_size)
    np.save(folder / "pixels.npy", np.random.default_rng(0).normal(size=shape).astype("float32"))


# ---------------------------------------------------------------------------- the measurement


def command(*arguments: str) -> list[str]:
    return [sys.executable, __file__, *arguments]


@contextmanager
def worker(side: str, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A running worker; calling it returns its next answer (the first one is about loading)."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, str(CORES))}
    with subprocess.Popen(
        command("--worker", side, "--folder", str(folder)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        loaded = json.loads(process.stdout.readline())

        def ask() -> dict[str, Any]:
            print(file=process.stdin, flush=True)
            return {**loaded, **json.loads(process.stdout.readline())}

        yield ask
        process.stdin.close()


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Both sides in turn: one forward to warm up, then `rounds` timed ones each."""
    with tempfile.TemporaryDirectory() as path:
        folder, load = Path(path), os.getloadavg()[0]
        subprocess.run(command("--make", "--model", name, "--folder", path), check=True)
        with worker("ours", folder) as ours, worker("transformers", folder) as theirs:
            asked = {"ours": ours, "transformers": theirs}
            answers: dict[str, list[dict[str, Any]]] = {side: [] for side in asked}
            for _ in range(rounds + 1):
                for side, ask in asked.items():
                    answers[side].append(ask())
        (weights,) = folder.glob("*.safetensors")
        size = weights.stat().st_size
        difference = features_differ(folder)
    return {
        "model": name,
        "weights_bytes": size,
        "rounds": rounds,
        "load_average_at_start": load,
        "largest_difference": difference,
        **{side: summary(replies, size) for side, replies in answers.items()},
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def features_differ(folder: Path) -> float:
    """How far both sides' features are apart, relative to the largest; they computed the same."""
    ours, theirs = (np.load(folder / f"{side}.npy") for side in SIDES)
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not difference < 1e-4:
        raise SystemExit(f"the features differ by {difference:.1e}: these times compare nothing")
    return difference


def summary(replies: list[dict[str, Any]], weights: int) -> dict[str, Any]:
    first, *timed = (reply["seconds"] for reply in replies)
    peak = replies[-1]["peak_bytes"]
    return {
        "load_seconds": replies[0]["load_seconds"],
        "first_forward_seconds": first,
        "seconds": timed,
        "median_seconds": statistics.median(timed),
        "minimum_seconds": min(timed),
        "peak_bytes": peak,
        "peak_over_weights": peak and peak / weights,
    }


def machine() -> dict[str, Any]:
    """Processor, cores, and the versions that matter."""
    from importlib.metadata import version

    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = ("aimv2-np", "numpy", "torch", "transformers", "safetensors")
    return {
        "cpu": found[1] if found else platform.processor(),
        "cores": CORES,
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        **{package: version(package) for package in packages},
    }


# ---------------------------------------------------------------------------- the report


def table(result: dict[str, Any]) -> str:
    """The result as a small Markdown page."""
    rows = []
    for side, title in SIDES.items():
        r = result[side]
        memory = "unknown"
        if r["peak_bytes"]:
            memory = f"{r['peak_bytes'] / 1e9:.2f} GB ({r['peak_over_weights']:.2f} × weights)"
        rows.append(
            f"| {title} | {r['median_seconds']:.3f} | {r['minimum_seconds']:.3f} "
            f"| {r['first_forward_seconds']:.2f} | {r['load_seconds']:.2f} | {memory} |"
        )
    ours, theirs = (result[side]["median_seconds"] for side in SIDES)
    m = result["machine"]
    return "\n".join([
        f"# Forward pass of {result['model']}, batch 1\n",
        "| | median s | minimum s | first s | load s | peak memory |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Ratio of the medians, ours to transformers: **{ours / theirs:.2f}**. "
        f"{result['rounds']} rounds, alternating, after one forward to warm up; features agree to "
        f"{result['largest_difference']:.0e}.\n",
        f"{m['cpu']}, {m['cores']} cores, {m['system']}; load average at the start "
        f"{result['load_average_at_start']:.2f}. Python {m['python']}, NumPy {m['numpy']} "
        f"({m['blas']}), torch {m['torch']}, transformers {m['transformers']}, "
        f"aimv2_np {m['aimv2-np']}. {result['date']}.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="large-patch14-224")
    parser.add_argument("--rounds", type=int, default=7, help="timed forwards of each side")
    for name in ("--worker", "--folder"):  # how this file starts its own processes
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, Path(arguments.folder))
    if arguments.make:
        return make(arguments.model, Path(arguments.folder))
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)} (benchmarks/README.md says how)")
    result = measure(arguments.model, arguments.rounds)
    report = table(result)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"forward-{result['model']}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
