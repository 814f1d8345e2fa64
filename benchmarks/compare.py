"""Seconds and memory of a forward pass: ours beside transformers, ONNX Runtime and OpenVINO.

    pip install -e '.[compare]' && pip install openvino onnxruntime onnx onnxscript
    python benchmarks/compare.py --model large-patch14-224 --batch 1

All sides get the same random weights (one file, written by transformers), the same random images,
and all cores. Each is a process of its own, which loads once and then runs one forward whenever the
side before it has finished: A B C A B C …, so that a machine that speeds up or slows down does so
for all. Nothing here passes or fails; the figures go to benchmarks/results/ as JSON and Markdown.
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
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aimv2_np.config import OFFICIAL, VisionConfig
from aimv2_np.machine import cores, instruction_sets, processor

RESULTS = Path(__file__).parent / "results"
CORES = cores()["usable"] or 1
MODELS = [
    name
    for name, model in OFFICIAL.items()
    if isinstance(model.config, VisionConfig) and model.config.image_size is not None
]
Forward = Callable[[np.ndarray], np.ndarray]

# ---------------------------------------------------------------------------- the sides


def load_ours(folder: Path, backend: str) -> Forward:
    import aimv2_np

    model = aimv2_np.load(folder, backend=backend)
    return lambda pixels: model(pixels).last_hidden_state


def aimv2_of_transformers() -> Any:
    """The module of their model, without torchvision.

    The model does not need it, it would count as memory, and PyPI's wheel cannot be imported
    beside the CPU build of torch.
    """
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers.models import aimv2

    return aimv2


def torch_model(folder: Path, attention: str) -> Any:
    import torch

    torch.set_num_threads(CORES)
    load = aimv2_of_transformers().Aimv2VisionModel.from_pretrained
    return load(folder, attn_implementation=attention, dtype=torch.float32).eval()


def load_torch(folder: Path, attention: str, compiled: bool = False) -> Forward:
    import torch

    model = torch_model(folder, attention)
    if compiled:
        model = torch.compile(model)

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels)).last_hidden_state.numpy()

    return forward


def features_alone(folder: Path) -> Any:
    """Their model as a module with one tensor out, for the exporters."""
    import torch

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch_model(folder, "sdpa")

        def forward(self, pixels: Any) -> Any:
            return self.model(pixels).last_hidden_state

    return Features().eval(), torch.from_numpy(np.load(folder / "pixels.npy"))


def load_onnxruntime(folder: Path) -> Forward:
    import onnxruntime
    import torch

    path = folder / "model.onnx"
    model, pixels = features_alone(folder)
    torch.onnx.export(model, (pixels,), path, dynamo=True, verbose=False)
    del model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def load_openvino(folder: Path) -> Forward:
    import openvino

    model, pixels = features_alone(folder)
    converted = openvino.convert_model(model, example_input=pixels, input=[pixels.shape])
    del model
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": CORES}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda pixels: compiled(pixels)[0]


# name: (title, how it loads, the packages it needs)
SIDES: dict[str, tuple[str, Callable[[Path], Forward], tuple[str, ...]]] = {
    "numba": ("aimv2_np, numba", partial(load_ours, backend="numba"), ("numba",)),
    "numpy": ("aimv2_np, numpy", partial(load_ours, backend="numpy"), ()),
    "transformers": (
        "transformers, eager",
        partial(load_torch, attention="eager"),
        ("torch", "transformers"),
    ),
    "compile": (
        "transformers, torch.compile",
        partial(load_torch, attention="sdpa", compiled=True),
        ("torch", "transformers"),
    ),
    "onnxruntime": ("ONNX Runtime", load_onnxruntime, ("onnxruntime", "onnx", "onnxscript")),
    "openvino": ("OpenVINO", load_openvino, ("openvino",)),
}

# ---------------------------------------------------------------------------- a worker process


def peak_bytes() -> int | None:
    """The most memory this process ever had resident, mapped files included; Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return found and int(found[1]) * 1024


def work(side: str, folder: Path) -> None:
    """Load, then answer each line on stdin with one timed forward; answers are JSON lines."""
    answers, sys.stdout = sys.stdout, sys.stderr  # exporters chat
    start = time.perf_counter()
    forward = SIDES[side][1](folder)
    load_seconds = time.perf_counter() - start
    pixels = np.load(folder / "pixels.npy")
    print(json.dumps({"load_seconds": load_seconds}), flush=True, file=answers)
    for _ in sys.stdin:
        start = time.perf_counter()
        features = forward(pixels)
        seconds = time.perf_counter() - start
        np.save(folder / f"{side}.npy", features)
        reply = {"seconds": seconds, "peak_bytes": peak_bytes()}
        print(json.dumps(reply), flush=True, file=answers)


def make(name: str, batch: int, folder: Path) -> None:
    """Write random weights in transformers' layout, and images."""
    import torch

    theirs = aimv2_of_transformers()
    config = OFFICIAL[name].config
    assert isinstance(config, VisionConfig)
    torch.manual_seed(0)
    theirs.Aimv2VisionModel(theirs.Aimv2VisionConfig(**vars(config))).save_pretrained(folder)
    shape = (batch, 3, config.image_size, config.image_size)
    np.save(folder / "pixels.npy", np.random.default_rng(0).normal(size=shape).astype("float32"))


# ---------------------------------------------------------------------------- the measurement


def command(*arguments: str) -> list[str]:
    return [sys.executable, __file__, *arguments]


@contextmanager
def worker(side: str, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A running worker; calling it returns its next answer (the first one is about loading)."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "AIMV2_NP_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, str(CORES))}
    # Passive: a library's threads that spin while they wait would slow down the next side.
    environment |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    log = folder / f"{side}.log"
    with (
        log.open("w") as chat,
        subprocess.Popen(
            command("--worker", side, "--folder", str(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=chat,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def answer() -> dict[str, Any]:
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{side} failed:\n{log.read_text()[-2000:]}")
            return dict(json.loads(line))

        loaded = answer()

        def ask() -> dict[str, Any]:
            print(file=process.stdin, flush=True)
            return loaded | answer()

        yield ask
        process.stdin.close()


def measure(name: str, batch: int, rounds: int, sides: list[str]) -> dict[str, Any]:
    """All sides in turn: one forward to warm up, then `rounds` timed ones each."""
    with tempfile.TemporaryDirectory() as path, ExitStack() as workers:
        folder, load = Path(path), os.getloadavg()[0]
        made = command("--make", "--model", name, "--batch", str(batch), "--folder", path)
        subprocess.run(made, check=True)
        asked = {side: workers.enter_context(worker(side, folder)) for side in sides}
        answers: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(rounds + 1):
            for side, ask in asked.items():
                answers[side].append(ask())
        size = (folder / "model.safetensors").stat().st_size
        difference = features_differ(folder, sides)
    return {
        "model": name,
        "batch": batch,
        "dtype": "float32",
        "weights_bytes": size,
        "rounds": rounds,
        "load_average_at_start": load,
        "largest_difference": difference,
        "sides": {side: summary(replies, size) for side, replies in answers.items()},
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def features_differ(folder: Path, sides: list[str]) -> float:
    """How far the sides' features are from the first's, relative to the largest."""
    first, *others = (np.load(folder / f"{side}.npy") for side in sides)
    apart = [float(np.abs(other - first).max() / np.abs(first).max()) for other in others]
    if not all(distance < 1e-4 for distance in apart):
        raise SystemExit(f"the features differ by {apart}: these times compare nothing")
    return max(apart, default=0.0)


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
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = ("aimv2-np", "numpy", "numba", "torch", "transformers", "onnxruntime", "openvino")
    return {
        "cpu": processor(),
        "instruction_sets": instruction_sets(),
        "cores": CORES,
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        "packages": {name: version(name) for name in packages if find_spec(name.replace("-", "_"))},
    }


# ---------------------------------------------------------------------------- the report


def gflop(config: VisionConfig, batch: int) -> float:
    """What the blocks and the patch embedding of a forward multiply and add, in 10⁹."""
    patches, width = config.grid_size**2, config.hidden_size  # type: ignore[operator]
    products = config.num_hidden_layers * (4 * width**2 + 3 * width * config.intermediate_size)
    embedding = width * config.num_channels * config.patch_size**2
    attention = config.num_hidden_layers * 2 * patches * width
    return 2e-9 * batch * patches * (products + embedding + attention)


def table(result: dict[str, Any]) -> str:
    """The result as a small Markdown page; ratios are the first side's time to each."""
    config = OFFICIAL[result["model"]].config
    assert isinstance(config, VisionConfig)
    work, rows = gflop(config, result["batch"]), []
    first = next(iter(result["sides"].values()))["median_seconds"]
    for side, r in result["sides"].items():
        memory = f"{r['peak_bytes'] / 1e9:.2f} GB" if r["peak_bytes"] else "unknown"
        rows.append(
            f"| {SIDES[side][0]} | {r['median_seconds']:.3f} | {r['minimum_seconds']:.3f} "
            f"| {first / r['median_seconds']:.2f} | {work / r['median_seconds']:.0f} "
            f"| {r['first_forward_seconds']:.2f} | {r['load_seconds']:.2f} | {memory} |"
        )
    m, leader = result["machine"], SIDES[next(iter(result["sides"]))][0]
    versions = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
    return "\n".join([
        f"# Forward pass of {result['model']}, float32, batch {result['batch']}\n",
        f"| | median s | minimum s | {leader} takes × its time | GFLOP/s | first s | load s "
        "| peak memory |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"{result['rounds']} rounds, alternating, after one forward to warm up; features agree to "
        f"{result['largest_difference']:.0e} of the largest. A forward has {work:.1f} GFLOP; the "
        f"weights have {result['weights_bytes'] / 1e9:.2f} GB.\n",
        f"{m['cpu']} ({', '.join(m['instruction_sets'])}), {m['cores']} cores, {m['system']}; load "
        f"average at the start {result['load_average_at_start']:.2f}. Python {m['python']} "
        f"({m['blas']}), {versions}. {result['date']}.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="large-patch14-224")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="timed forwards of each side")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    for name in ("--worker", "--folder"):  # how this file starts its own processes
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, Path(arguments.folder))
    if arguments.make:
        return make(arguments.model, arguments.batch, Path(arguments.folder))
    needed = {package for side in arguments.sides for package in SIDES[side][2]}
    if missing := sorted(package for package in needed if find_spec(package) is None):
        parser.error(f"not installed: {', '.join(missing)} (benchmarks/README.md says how)")
    result = measure(arguments.model, arguments.batch, arguments.rounds, arguments.sides)
    report = table(result)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{result['model']}-float32-b{result['batch']}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(report, encoding="utf-8")
    print(report)
    return None


if __name__ == "__main__":
    main()
