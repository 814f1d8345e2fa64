"""How fast is it? What the GPU can do at best, forwards beside torch's, attention beside cuDNN's.

All sides of a result take turns in one process: A B C A B C … Nothing is compared across results.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cases import MODELS
from gpu_device import Bench, attend, attend_by_library
from gpu_models import (
    LIMITS,
    Theirs,
    drawn,
    features,
    off,
    our_forward,
    our_model,
    precision,
)
from gpu_plan import DTYPES, Forward, Group, Plan

from aimv2_np.config import VisionConfig

__all__ = ["attention", "forwards", "peaks", "ratio"]

Record = dict[str, Any]
Run = Callable[[], Any]
COMPARED = 2  # images whose features are compared
DRAWN = 8  # different images of a batch
MOST = 1000  # runs of a turn


def alternate(bench: Bench, plan: Plan, runs: dict[str, Run]) -> dict[str, Record]:
    """Seconds of each in turn, after three runs of each that warm up."""
    times = {}
    for name, run in runs.items():
        for _ in range(3):
            run()
        seconds = max(bench.turn(run, 1))
        times[name] = min(MOST, max(1, math.ceil(plan.turn / seconds)))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(plan.rounds):
        for name, run in runs.items():
            found[name].append(bench.turn(run, times[name]))
    return {
        name: {
            "seconds": [events for events, _ in each],
            "wall_seconds": [wall for _, wall in each],
            "runs_of_a_turn": times[name],
        }
        for name, each in found.items()
    }


def said(error: Exception) -> str:
    """An error in a line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"


# ---------------------------------------------------------------------------- ceilings


def peaks(bench: Bench, plan: Plan) -> Iterator[Record]:
    """A large product in each dtype, through our own call of cuBLAS, and a large copy."""
    n, be = plan.product, bench.backend()
    host = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    for dtype in DTYPES:
        x = be.asarray(host, dtype)
        weight, out = x.copy(), bench.device.xp.empty_like(x)

        def product(dtype: str = dtype, x: Any = x, weight: Any = weight, out: Any = out) -> None:
            bench.device.multiply(x, weight, out, add=False, tf32=dtype == "tf32")

        seconds = min(alternate(bench, plan, {"ours": product})["ours"]["seconds"])
        yield {"kind": "peak", "dtype": dtype, "size": n, "flop_per_second": 2 * n**3 / seconds}
        del x, weight, out, product
        bench.free()
    source = bench.device.xp.ones(plan.copied // 4, np.float32)
    target = bench.device.xp.empty_like(source)

    def copied() -> None:
        target[...] = source

    seconds = min(alternate(bench, plan, {"copy": copied})["copy"]["seconds"])
    yield {"kind": "bandwidth", "bytes_per_second": 2 * source.nbytes / seconds}


# ---------------------------------------------------------------------------- forwards


def forwards(bench: Bench, plan: Plan, group: Group) -> Iterator[Record]:
    """A model's batches: ours, transformers with SDPA, torch.compile of it, that as a graph."""
    config = group.case(1).vision
    start = time.perf_counter()
    master = drawn(config, bench.place)
    before = bench.used()
    ours = our_model(bench, master, config, group.dtype)
    weights = None if before is None else (bench.used() or 0) - before
    precision(group.dtype)
    theirs = Theirs(bench, master, group.dtype, group.whole)
    loaded = time.perf_counter() - start
    for batch in group.batches:
        case = group.case(batch)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            one = _Turns(bench, plan, case, ours, weights, theirs, master)
            sides = one.measured()
        flop, _ = case.work()
        yield {
            "kind": "forward", "model": group.model, "dtype": group.dtype, "batch": batch,
            "patches": case.patches, "flop": flop, "parameters": case.parameters,
            "compiled": "whole" if group.whole else "by block", "load_seconds": loaded,
            "graphs_compiled": theirs.graphs, "sides": sides,
            "warnings": sorted({str(w.message)[:300] for w in caught}),
        }  # fmt: skip
        del one
        bench.free()


class _Turns:
    """One batch: what runs, how far it is off, how much memory it takes, and in what time."""

    def __init__(
        self, bench: Bench, plan: Plan, case: Forward, ours: Any, weights: int | None,
        theirs: Theirs, master: Any,
    ) -> None:  # fmt: skip
        import torch

        self.bench, self.plan, self.case, self.theirs = bench, plan, case, theirs
        few, _ = divmod(case.batch - 1, DRAWN)
        shape = (min(case.batch, DRAWN), case.vision.num_channels, *case.image_size)
        host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        host = np.concatenate([host] * (few + 1))[: case.batch]
        there, mine = torch.from_numpy(host).to(bench.place), bench.device.asarray(host, np.float32)
        self.ours_weights = weights
        self.runs: dict[str, Run] = {
            "ours": our_forward(ours, mine),
            "eager": theirs.forward(theirs.eager, there),
            "compile": theirs.forward(theirs.compiled, there),
        }
        precision("float32")
        with torch.inference_mode():
            self.true = features(bench, master(there[:COMPARED]).last_hidden_state)
        precision(case.dtype)

    def measured(self) -> dict[str, Record]:
        """Every side; one that fails says why, the others go on."""
        sides = {name: self._first(name) for name in list(self.runs)}
        if "compile" in self.runs:
            try:
                self.runs["compile, graph"] = self.bench.captured(self.runs["compile"])
                sides["compile, graph"] = self._compared("compile, graph")
            except Exception as error:
                sides["compile, graph"] = self._failed("compile, graph", error)
        timed = alternate(self.bench, self.plan, self.runs)
        return {name: side | timed.get(name, {}) for name, side in sides.items()}

    def _first(self, name: str) -> Record:
        """The first runs: here torch compiles, and ours lays its memory out."""
        library = "ours" if name == "ours" else "torch"
        weights = self.ours_weights if library == "ours" else self.theirs.weights
        about: Record = {"weights_bytes": weights}
        try:
            if library == "torch":
                start = time.perf_counter()
                self.runs[name]()
                self.bench.wait()
                about["first_seconds"] = time.perf_counter() - start
            grown = self.bench.grown(library, self.runs[name])
            if grown is not None and weights is not None:
                about["memory_bytes"] = weights + grown
            return {**self._compared(name), **about}
        except Exception as error:
            return self._failed(name, error)

    def _compared(self, name: str) -> Record:
        """How far features are off torch's in float32."""
        found = features(self.bench, self.runs[name]()[:COMPARED])
        error = float(off(found, self.true).max())
        return {"error": error, "wrong": not error <= LIMITS[self.case.dtype]}

    def _failed(self, name: str, error: Exception) -> Record:
        """Without this side. An error that the device does not recover from ends the step."""
        self.runs.pop(name, None)
        self.bench.free()
        return {"failed": said(error)}


# ---------------------------------------------------------------------------- parts


def ratio(bench: Bench, plan: Plan) -> Iterator[Record]:
    """A forward over the sum of its products and its attention, each timed on its own."""
    case = Forward(plan.blocks, "vision", plan.ratio_batch, "bfloat16")
    config, be = case.vision, bench.backend()
    model = our_model(bench, drawn(config, bench.place), config, case.dtype)
    rows, width, hidden = case.batch * case.patches, config.hidden_size, config.intermediate_size
    rng = np.random.default_rng(0)

    def placed(*shape: int) -> Any:
        return be.asarray(rng.standard_normal(shape, dtype=np.float32), case.dtype)

    tokens = {inner: placed(rows, inner) for inner in {width, hidden}}
    weights = {"qkv": "fused_qkv", "proj": "proj", "gate and up": "fused_gate_up", "down": "fc2"}

    def products(attribute: str) -> Run:
        matrices = [getattr(block, attribute).array for block in model.params.blocks]
        outputs, inner = matrices[0].shape
        add = attribute in ("proj", "fc2")  # to the residual stream, which is float32
        out = placed(rows, outputs)
        out = out.astype(np.float32) if add else out

        def run() -> None:
            for matrix in matrices:
                bench.device.multiply(tokens[inner], matrix, out, add=add, tf32=False)

        return run

    kernel: Any = model.params.patch_weight
    patches, embedded = placed(rows, kernel.array.shape[1]), placed(rows, width)
    attention_once = attend(
        bench, placed(rows, 3 * width), config.num_attention_heads, case.patches
    )
    host = rng.standard_normal((case.batch, 3, *case.image_size), dtype=np.float32)
    pixels = bench.device.asarray(host, np.float32)
    runs: dict[str, Run] = {
        "total": our_forward(model, pixels),
        "patches": lambda: bench.device.multiply(
            patches, kernel.array, embedded, add=True, tf32=False
        ),
        **{name: products(attribute) for name, attribute in weights.items()},
        "attention": lambda: [attention_once() for _ in model.params.blocks],
    }
    yield {
        "kind": "ratio", "model": case.model, "dtype": case.dtype, "batch": case.batch,
        "parts": alternate(bench, plan, runs),
    }  # fmt: skip


def attention(bench: Bench, plan: Plan) -> Iterator[Record]:
    """Our kernel and torch's, cuDNN's and FlashAttention, on the same q, k and v."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    config, rng = MODELS[plan.blocks], np.random.default_rng(0)
    assert isinstance(config, VisionConfig)
    heads, width = config.num_attention_heads, config.hidden_size
    for length, batch in plan.attention:
        host = rng.standard_normal((batch * length, 3 * width), dtype=np.float32)
        qkv = bench.backend().asarray(host, "bfloat16")
        theirs = torch.from_numpy(host).to(bench.place, torch.bfloat16)
        q, k, v = theirs.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)

        def sdpa(kind: str, q: Any = q, k: Any = k, v: Any = v) -> Run:
            def run() -> Any:
                with torch.inference_mode(), sdpa_kernel(getattr(SDPBackend, kind)):
                    return torch.nn.functional.scaled_dot_product_attention(q, k, v)

            return run

        runs: dict[str, Run] = {"ours": attend(bench, qkv, heads, length)}
        sides: dict[str, Record] = {"ours": {}}
        ours = features(bench, runs["ours"]())
        if (library := attend_by_library(bench, qkv, heads, length)) is not None:
            error = float(off(features(bench, library()), ours).max())
            runs["ours, by cuDNN"] = library
            sides["ours, by cuDNN"] = {"ours_is_off_by": error}
        found = ours.reshape(batch, length, heads, -1)
        for name, kind in bench.sdpa.items():
            try:
                result = features(bench, sdpa(kind)())
                error = float(off(found.swapaxes(1, 2), result).max())
                runs[name], sides[name] = sdpa(kind), {"ours_is_off_by": error}
            except RuntimeError as error:
                sides[name] = {"failed": said(error)}
        timed = alternate(bench, plan, runs)
        yield {
            "kind": "attention", "patches": length, "batch": batch, "heads": heads,
            "head": width // heads, "dtype": "bfloat16", "flop": 4 * batch * length**2 * width,
            "sides": {name: side | timed.get(name, {}) for name, side in sides.items()},
        }  # fmt: skip
