"""Is it right? Each kernel and product alone, models in each dtype, the suite, the sanitizer.

Kernels are reached by the backend's table alone. Attention and SwiGLU have no entry of their own:
a block whose other half is multiplied by zeros shows them (NaN is NaN then, too).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cases import MODELS
from gpu_device import Bench
from gpu_models import (
    Theirs,
    drawn,
    features,
    off,
    our_forward,
    our_model,
    our_params,
    precision,
)
from gpu_plan import DTYPES, Plan

from aimv2_np import layers, ops
from aimv2_np.backend import NUMPY
from aimv2_np.config import VisionConfig
from aimv2_np.models import VisionEncoder
from aimv2_np.testing import random_models
from aimv2_np.verify.lanes import cast_tree, rounded
from aimv2_np.weights.tree import BlockParams, VisionParams

__all__ = ["errors", "kernels", "machine", "sanitizer", "suite"]

Record = dict[str, Any]
HERE = Path(__file__).parent
EPS = 1e-5
# The most by which a correctly rounded number is off, relatively, and by how many of these a vector
# may be: in 16 bits a few roundings, in float32 long sums, and exp of them. On NumPy: 4 and 33.
UNIT = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
ALLOWED = {"float32": 256, "tf32": 16, "float16": 16, "bfloat16": 16}
HEADS = (128, 64, 24)  # of width: two on tensor cores in 16 bits, one that never is
PACKS = {"one": [257], "packed": [65, 1, 130, 64]}
REPLAYED = 3  # times that a shape is run until it is a CUDA graph that was recorded before
DEPTH = 3  # blocks of the model of full width whose errors are measured
SANITIZERS = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")


def machine(bench: Bench, plan: Plan) -> Iterator[Record]:
    """What is measured on."""
    yield {"kind": "machine", **bench.about(), "clocks": clocks(), "date": time.strftime("%F")}


def clocks() -> dict[str, str]:
    """The driver's version, clocks and power as nvidia-smi says; empty without it."""
    asked = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(asked.split(","), said.stdout.splitlines()[0].split(", "), strict=True))


# ---------------------------------------------------------------------------- kernels


def kernels(bench: Bench, plan: Plan, dtype: str) -> Iterator[Record]:
    """Every op that is a kernel or product, against its definition in float64."""
    config = MODELS[plan.blocks]
    assert isinstance(config, VisionConfig)
    for what, found, true in [
        *_products(bench, config, dtype),
        *_ops(bench, config, dtype),
        *_halves(bench, config, dtype),
    ]:
        error = float(off(found, true).max() / UNIT[dtype])
        yield {
            "kind": "check",
            "what": what,
            "dtype": dtype,
            "units": error,
            "allowed": ALLOWED[dtype],
            "ok": bool(error <= ALLOWED[dtype]),  # NaN is not
        }


Triples = Iterator[tuple[str, Any, Any]]  # what, found, true


def held(array: Any, dtype: str) -> Any:
    """As the nearest numbers of a dtype, in float64."""
    narrow = "float32" if dtype == "tf32" else dtype
    return np.asarray(rounded(np.asarray(array, np.float32), narrow), np.float64)


def _products(bench: Bench, config: VisionConfig, dtype: str) -> Triples:
    """The four of a block, as they are and added to something."""
    rng, be = np.random.default_rng(1), bench.backend()
    width, hidden, rows = config.hidden_size, config.intermediate_size, 257
    shapes = {"qkv": (3 * width, width), "proj": (width, width),
              "gate and up": (2 * hidden, width), "down": (width, hidden)}  # fmt: skip
    for name, (outputs, inner) in shapes.items():
        x, weight, there = (
            held(rng.standard_normal(shape), dtype)
            for shape in ((rows, inner), (outputs, inner), (rows, outputs))
        )
        for add in (False, True):
            bench.poison()
            placed = [be.asarray(array.astype(np.float32), dtype) for array in (x, weight, there)]
            if add:  # to the residual stream
                placed[2] = bench.device.asarray(there, np.float32)
            bench.device.multiply(*placed, add=add, tf32=dtype == "tf32")
            true = x @ weight.T + (there if add else 0)
            yield f"product {name}" + ", added" * add, be.to_numpy(placed[2]), true


def _ops(bench: Bench, config: VisionConfig, dtype: str) -> Triples:
    """RMSNorm, pixels from bytes, patches, the pooling head."""
    rng, be, width = np.random.default_rng(2), bench.backend(), config.hidden_size
    model = _one_block(width, config.intermediate_size, config.num_attention_heads, dtype)
    true: Any = cast_tree(model.params, lambda array: array.astype(np.float64))
    placed = be.prepare(model.params, dtype)
    x = held(rng.standard_normal((2, 130, width)), dtype)
    there = be.asarray(x.astype(np.float32), dtype)

    bench.poison()
    found = be.rms_norm(there, placed.patch_norm, EPS)
    yield "rms_norm", be.to_numpy(found), ops.rms_norm(x, true.patch_norm, EPS)
    pixels = held(rng.standard_normal((2, 3, 61, 90)), dtype)  # ragged: 4 × 6 patches of 14
    bench.poison()
    found = be.patch_embed(
        be.asarray(pixels.astype(np.float32), dtype), placed.patch_weight, placed.patch_bias
    )
    wanted = ops.patch_embed(pixels, true.patch_weight, true.patch_bias)
    yield "patchify and its product", be.to_numpy(found), wanted
    image = rng.integers(0, 256, (61, 90, 3)).astype(np.uint8)
    values = rng.standard_normal((3, 256), dtype=np.float32)
    bench.poison()
    found = be.normalize(image, values)
    yield "normalize", be.to_numpy(found), ops.normalize(image, values)
    bench.poison()
    heads = config.num_attention_heads
    found = be.attention_pool(be, there, placed.head, heads)
    yield "pool", be.to_numpy(found), layers.attention_pool(NUMPY, x, true.head, heads)


def _halves(bench: Bench, config: VisionConfig, dtype: str) -> Triples:
    """A block's attention without its MLP, for several widths of heads, and the reverse."""
    rng, be, hidden = np.random.default_rng(3), bench.backend(), config.intermediate_size
    wide = {head: 2 * head for head in HEADS}
    todo = [(f"attention, heads of {head}, {pack}" + ", causal" * causal, head, "fc2", pack, causal)
            for head in HEADS for pack in PACKS for causal in (False, True)]  # fmt: skip
    for what, head, silent, pack, causal in [*todo, ("swiglu", 128, "proj", "one", False)]:
        width, lengths = wide[head], PACKS[pack]
        params = _silenced(_one_block(width, hidden, 2, dtype).params, silent)
        true: Any = cast_tree(params, lambda array: array.astype(np.float64))
        x = held(rng.standard_normal((1, sum(lengths), width)), dtype)
        how: dict[str, Any] = {"lengths": lengths, "causal": causal}
        blocks = be.prepare(params, dtype).blocks
        there = be.asarray(x.astype(np.float32), dtype)
        bench.poison()
        for _ in range(REPLAYED):
            found = be.transformer(be, there, blocks, 2, EPS, **how)
        yield what, be.to_numpy(found), layers.transformer(NUMPY, x, true.blocks, 2, EPS, **how)


def _one_block(width: int, hidden: int, heads: int, dtype: str) -> VisionEncoder:
    """A model with a head whose parameters are numbers of a dtype, in float32."""
    sizes = VisionConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=1,
        num_attention_heads=heads, image_size=28, use_head=True,
    )  # fmt: skip
    model: VisionEncoder = random_models.made(sizes)
    model.params = cast_tree(model.params, lambda array: held(array, dtype).astype(np.float32))
    return model


def _silenced(params: VisionParams, name: str) -> VisionParams:
    """One of a block's matrices is zeros."""
    (block,) = params.blocks
    quiet: BlockParams = block._replace(**{name: np.zeros_like(getattr(block, name))})
    return params._replace(blocks=(quiet,))


# ---------------------------------------------------------------------------- models


def errors(bench: Bench, plan: Plan) -> Iterator[Record]:
    """Features against the definition in float64: small models, and blocks of full width."""
    for kind in ("learned", "native", "deep"):
        model = random_models.make(kind)
        pixels: Any = random_models.cases(kind)[0].pixel_values
        wide = VisionEncoder(model.config, _float64(model.params), NUMPY, "float64")
        true = wide(pixels).last_hidden_state
        for dtype in DTYPES:
            be = bench.backend()
            ours = VisionEncoder(model.config, be.prepare(model.params, dtype), be, dtype)
            yield _error(f"{kind}, width 48", "ours", dtype, ours(pixels).last_hidden_state, true)
    yield from _wide_errors(bench, plan)


def _wide_errors(bench: Bench, plan: Plan) -> Iterator[Record]:
    """Ours and torch's with the same weights."""
    import torch

    official = MODELS[plan.blocks]
    assert isinstance(official, VisionConfig)
    config = replace(official, num_hidden_layers=min(DEPTH, official.num_hidden_layers))
    name = f"{config.num_hidden_layers} blocks of {plan.blocks}"
    model = drawn(config, bench.place)
    side = config.image_size or 0
    pixels = np.random.default_rng(4).standard_normal((2, 3, side, side), dtype=np.float32)
    wide = our_params(model, config, "float64")
    true = VisionEncoder(config, wide, NUMPY, "float64")(pixels).last_hidden_state
    for dtype in DTYPES:
        ours = our_model(bench, model, config, dtype)
        there = bench.device.asarray(pixels, np.float32)
        yield _error(name, "ours", dtype, features(bench, our_forward(ours, there)()), true)
        precision(dtype)
        theirs = Theirs(bench, model, dtype, whole=False)
        run = theirs.forward(theirs.eager, torch.from_numpy(pixels).to(bench.place))
        yield _error(name, "transformers", dtype, features(bench, run()), true)


def _float64(params: Any) -> Any:
    return cast_tree(params, lambda array: array.astype(np.float64))


def _error(model: str, side: str, dtype: str, found: Any, true: Any) -> Record:
    each = off(found, true)
    return {
        "kind": "error", "model": model, "side": side, "dtype": dtype,
        "median": float(np.median(each)), "worst": float(each.max()),
    }  # fmt: skip


# ---------------------------------------------------------------------------- other programs


def suite(bench: Bench, plan: Plan) -> Iterator[Record]:
    """What every backend must pass, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider",
               "--pyargs", "aimv2_np.testing", *plan.suite]  # fmt: skip
    yield {"kind": "suite", **_ran(bench, command, 2 * plan.suite_seconds)}


def sanitizer(bench: Bench, plan: Plan, tool: str) -> Iterator[Record]:
    """NVIDIA's checker over a small run of every kernel, without CuPy's pool, which hides edges."""
    program = next(filter(None, map(shutil.which, SANITIZERS)), None)
    if program is None:
        yield {"kind": "sanitizer", "tool": tool, "missing": "compute-sanitizer is not installed"}
        return
    small = [sys.executable, str(HERE / "gpu_small.py")]
    command = [program, "--tool", tool, "--error-exitcode", "3", "--print-limit", "20", *small]
    yield {"kind": "sanitizer", "tool": tool, **_ran(bench, command, 120)}


def _ran(bench: Bench, command: list[str], seconds: float) -> Record:
    """A command's exit status and the end of what it said."""
    start = time.perf_counter()
    seconds = min(seconds, max(1, bench.until - time.time()))
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
        said, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        said, code = out.decode(errors="replace") if isinstance(out, bytes) else out, None
    lines = [line for line in said.splitlines() if line.strip()]
    return {
        "returncode": code,  # None: it took too long
        "seconds": time.perf_counter() - start,
        "failed": [line for line in lines if re.match(r"(FAILED|ERROR) ", line)],
        "summary": lines[-1] if lines else "",
        "tail": lines[-40:],
    }
