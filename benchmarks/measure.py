"""The measurement: worker processes that take turns, and what the machine could do meanwhile.

A speed is never more than a ratio between sides that alternated in one run: A B C A B C …, so that
a machine that speeds up or slows down does so for all. A round before the timed ones warms up.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import calibrate
import numpy as np
from cases import ITEMSIZE, Case
from sides import CORES, SIDES, Task, split

from aimv2_np.machine import instruction_sets, processor

__all__ = ["forwards", "starts"]

Reply = dict[str, Any]
# How far features may be from transformers' in float32, as a fraction of a feature vector's length.
# These catch another computation, not a rounding: unrelated vectors are 1.4 apart.
LIMITS = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.5}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "AIMV2_NP_THREADS")
PACKAGES = (
    *("aimv2-np", "numpy", "numba", "torch", "transformers", "onnxruntime", "openvino", "nncf"),
)


def forwards(case: Case, names: list[str], rounds: int) -> dict[str, Any]:
    """Every side loads once, then all run one forward in turn."""
    load = os.getloadavg()[0]
    with prepared(case, names) as folder, ExitStack() as workers:
        asks = {name: workers.enter_context(server(name, folder)) for name in names}
        warm = {name: ask() for name, ask in asks.items()}
        agreement = {name: compare(folder, name) for name in names}
        before = peaks(names)
        replies: dict[str, list[Reply]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, ask in asks.items():
                replies[name].append(ask())
        after, bandwidth = peaks(names), calibrate.bandwidth()
    flop, weights = case.work()
    sides = {
        name: {
            **about(name, case, replies[name]),
            "computes": warm[name]["computes"],
            "load_seconds": warm[name]["load_seconds"],
            "first_forward_seconds": warm[name]["seconds"],
            **agreement[name],
        }
        for name in names
    }
    return {
        **described(case, rounds, load),
        "kind": "forward",
        "gflop": flop / 1e9,
        "weights_read": weights,
        "peak_gflops": {d: {"before": before[d], "after": after[d]} for d in before},
        "bandwidth_gb_per_second": bandwidth,
        "sides": sides,
    }


def starts(case: Case, names: list[str], rounds: int) -> dict[str, Any]:
    """Every turn is a process of its own, from its start to its first embedding."""
    load = os.getloadavg()[0]
    with prepared(case, names) as folder:
        replies: dict[str, list[Reply]] = {name: [launch(name, folder)] for name in names}
        agreement = {name: compare(folder, name) for name in names}
        for _ in range(rounds):
            for name in names:
                replies[name].append(launch(name, folder))
    steps = ("python_seconds", "import_seconds", "load_seconds", "first_forward_seconds")
    sides = {
        name: {
            **about(name, case, timed),
            **{step: statistics.median(reply[step] for reply in timed) for step in steps},
            **agreement[name],
        }
        for name, (_, *timed) in replies.items()
    }
    return {**described(case, rounds, load), "kind": "start", "sides": sides}


# ---------------------------------------------------------------------------- processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("worker.py")), *map(str, arguments)]


def environment() -> dict[str, str]:
    """All cores for whoever's turn it is; threads that spin while they wait would slow the next."""
    threads = dict.fromkeys(THREADS, str(CORES))
    passive = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    return {**os.environ, **threads, **passive, "TQDM_DISABLE": "1"}


@contextmanager
def prepared(case: Case, names: list[str]) -> Iterator[Path]:
    """A folder with the case's weights, and what sides make of them before anything is timed."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        case.save(folder)
        subprocess.run(command("make", folder), check=True, env=environment())
        for library, dtype in map(split, names):
            try:
                SIDES[library].prepare(Task(folder, case, dtype))
            except subprocess.CalledProcessError as error:  # it has said why
                raise SystemExit(f"{library}-{dtype} cannot be prepared") from error
        yield folder


@contextmanager
def spawned(what: str, name: str, folder: Path) -> Iterator[tuple[Any, Callable[[], Reply]]]:
    """A worker process: where it reads from, and its next answer."""
    log = folder / f"{name}.log"
    with (
        log.open("w") as chat,
        subprocess.Popen(
            command(what, name, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=chat,
            text=True,
            env=environment(),
        ) as process,
    ):

        def answer() -> Reply:
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{name} failed:\n{log.read_text()[-2000:]}")
            return dict(json.loads(line))

        yield process.stdin, answer


@contextmanager
def server(name: str, folder: Path) -> Iterator[Callable[[], Reply]]:
    """A process that has loaded; each call runs one forward."""
    with spawned("serve", name, folder) as (stdin, answer):
        loaded = answer()

        def ask() -> Reply:
            print(file=stdin, flush=True)
            return loaded | answer()

        yield ask
        stdin.close()


def launch(name: str, folder: Path) -> Reply:
    """A process from its start to its embedding; what it does not account for is Python's start."""
    began = time.perf_counter()
    with spawned("start", name, folder) as (_, answer):
        reply = answer()
        seconds = time.perf_counter() - began
    inside = ("import_seconds", "load_seconds", "first_forward_seconds")
    python = seconds - sum(reply[step] for step in inside)
    return {**reply, "seconds": seconds, "python_seconds": python}


# ---------------------------------------------------------------------------- what is recorded


def compare(folder: Path, name: str) -> Reply:
    """How far a side's features are from transformers' in float32; too far ends the run."""
    found, wanted = (
        np.load(folder / f"{which}.npy").astype(np.float64) for which in (name, "reference")
    )
    lengths = np.linalg.norm(wanted, axis=-1)
    error = float((np.linalg.norm(found - wanted, axis=-1) / lengths).max())
    cosine = (found * wanted).sum(axis=-1) / (np.linalg.norm(found, axis=-1) * lengths)
    limit = LIMITS[split(name)[1]]
    if not error < limit:
        raise SystemExit(f"{name}: features are {error:.1e} off, {limit:.0e} is the limit")
    return {"error": error, "cosine": float(cosine.min())}


def about(name: str, case: Case, replies: list[Reply]) -> Reply:
    """Times and memory of one side."""
    seconds, peak = [reply["seconds"] for reply in replies], replies[-1]["peak_bytes"]
    library, dtype = split(name)
    weights = case.parameters * ITEMSIZE[dtype]
    return {
        "title": SIDES[library].title,
        "dtype": dtype,
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "minimum_seconds": min(seconds),
        "peak_bytes": peak,
        "weights_bytes": weights,
        "peak_over_weights": peak and peak / weights,
    }


def described(case: Case, rounds: int, load: float) -> dict[str, Any]:
    return {
        **asdict(case),
        "parameters": case.parameters,
        "rounds": rounds,
        "load_average_at_start": load,
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def peaks(names: list[str]) -> dict[str, float]:
    """The machine's peak in each dtype that is run."""
    dtypes = sorted({split(name)[1] for name in names})
    return {dtype: calibrate.peak(dtype) for dtype in dtypes}


def machine() -> dict[str, Any]:
    """Processor, cores, and the versions that matter."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": processor(),
        "instruction_sets": instruction_sets(),
        "cores": CORES,
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        "packages": {name: version(name) for name in PACKAGES if find_spec(name.replace("-", "_"))},
    }
