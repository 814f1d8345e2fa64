"""The verifier on independent implementations that are right: it must not raise a false alarm.

Models and inputs of many shapes run through transformers, timm, ONNX Runtime and the port, in each
dtype that they have. Each may err by `locate.ALLOWED` times as much as correct runs here do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aimv2_np.config import LiTConfig
from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, Case, Report, verify_cases
from aimv2_np.verify.adapters import onnx, timm, transformers
from aimv2_np.verify.adapters.torch_modules import as_tensors
from aimv2_np.verify.locate import ALLOWED

from .port import Port

pytestmark = [
    pytest.mark.compare,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]

SEEDS = (100, 101, 102)
Runs = Callable[[Any, list[Case], str], Any]  # a model, cases, a dtype -> activations by case


# ---------------------------------------------------------------------------- what runs


def drawn(kind: str, seed: int) -> tuple[Any, list[Case]]:
    """A model of a random shape, and two cases for it or, of texts and images, one."""
    rng = np.random.default_rng(seed)
    config = random_models.CONFIGS[kind]
    tower = config.vision if isinstance(config, LiTConfig) else config
    patch, side = int(rng.integers(3, 9)), int(rng.integers(2, 7))
    tower = replace(
        tower,
        hidden_size=48 if kind == "lit" else 48 * int(rng.integers(1, 4)),
        intermediate_size=int(rng.integers(40, 200)),
        num_hidden_layers=int(rng.integers(1, 7)),
        num_attention_heads=int(rng.choice([1, 2, 3, 4, 6])),
        image_size=None if kind == "native" else patch * side,
        patch_size=patch,
    )
    with pytest.MonkeyPatch.context() as patched:
        shape = replace(config, vision=tower, text=text_of(rng)) if kind == "lit" else tower
        patched.setitem(random_models.CONFIGS, kind, shape)
        model = random_models.make(kind, seed)
    if kind == "lit":
        return model, [pairs(rng, patch * side, shape.text.max_position_embeddings)]
    cases = [Case("square", pixels(rng, 2, patch * side, patch * side))]
    other = pixels(rng, 1, patch * int(rng.integers(2, 9)), patch * int(rng.integers(2, 9)))
    return model, [*cases, Case("other", other, interpolate=kind == "learned")]


def text_of(rng: Any) -> Any:
    return replace(
        random_models.TEXT,
        intermediate_size=int(rng.integers(40, 200)),
        num_hidden_layers=int(rng.integers(1, 7)),
        num_attention_heads=int(rng.choice([1, 2, 3, 4, 6])),
        max_position_embeddings=int(rng.integers(8, 30)),
    )


def pixels(rng: Any, count: int, height: int, width: int) -> Any:
    return rng.standard_normal((count, 3, height, width)).astype(np.float32)


def pairs(rng: Any, side: int, longest: int) -> Case:
    """Images and texts, some of them padded: where none is, transformers is not causal."""
    rows = int(rng.integers(2, 6))
    lengths = [longest, *rng.integers(2, longest, rows - 1)]
    ids, mask = np.full((rows, longest), random_models.END), np.zeros((rows, longest), np.int64)
    for row, length in enumerate(lengths):
        ids[row, 0], mask[row, :length] = random_models.BEGIN, 1
        ids[row, 1 : length - 1] = rng.integers(1, 40, length - 2)
    return Case("pairs", pixels(rng, int(rng.integers(1, 4)), side, side), ids, mask)


# ---------------------------------------------------------------------------- what runs it


def port(threads: int = 2) -> Runs:
    def run(model: Any, cases: list[Case], dtype: str) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            runs = Port(model, getattr(torch, dtype))
            return {case.name: runs(case) for case in cases}
        finally:
            torch.set_num_threads(before)

    return run


def hugging(attention: str) -> Runs:
    """transformers, of whose vision encoders a table of positions fits one grid only."""

    def run(model: Any, cases: list[Case], dtype: str) -> Any:
        built = transformers.build(model, dtype, attention)
        return {c.name: transformers.watch(built, c) for c in cases if not c.interpolate}

    return run


def timms(model: Any, cases: list[Case], dtype: str) -> Any:
    built = timm.build(model, dtype, other_grids=True)
    return {case.name: timm.watch(built, case) for case in cases}


def exported(file: Path) -> Runs:
    def run(model: Any, cases: list[Case], dtype: str) -> Any:
        case = cases[0]
        tensors = as_tensors(case, dtype)
        names = [n for n in ("input_ids", "pixel_values", "attention_mask") if n in tensors]
        torch.onnx.export(
            transformers.build(model, dtype),
            tuple(tensors[name] for name in names),
            file,
            input_names=names,
            dynamo=False,
        )
        return onnx.candidate(file, [case]).cases

    return run


# ---------------------------------------------------------------------------- all of them


def plans(file: Path) -> Iterator[tuple[str, Runs, str, str]]:
    """An implementation's name, what runs it, a dtype, kinds of models."""
    every = "native learned lit"
    for threads in (1, 2):
        yield f"port on {threads} threads", port(threads), "float32", every
    for dtype in ("bfloat16", "float16", "float64"):
        yield "port", port(), dtype, every
    for dtype in ("float32", "bfloat16", "float16"):
        yield "transformers eager", hugging("eager"), dtype, every
        yield "transformers sdpa", hugging("sdpa"), dtype, every
        yield "timm", timms, dtype, "learned"
    for dtype in ("float32", "float16"):
        yield "ONNX Runtime", exported(file), dtype, every


def verified(run: Runs, dtype: str, kind: str, seed: int) -> Report:
    model, cases = drawn(kind, seed)
    return verify_cases(model, cases, Candidate("right", run(model, cases, dtype), dtype))


def test_right_implementations_raise_no_false_alarm(tmp_path: Path) -> None:
    """Not a bound: of 1,080 others 6 came to more than 4, one to 5.0 (`locate.ALLOWED` is 8)."""
    worst: dict[str, float] = {}
    alarms, count = [], 0
    for name, run, dtype, kinds in plans(tmp_path / "m.onnx"):
        for kind, seed in product(kinds.split(), SEEDS):
            report = verified(run, dtype, kind, seed)
            count, which = count + 1, f"{name}, {dtype}"
            excess = max(tap.excess for result in report.results for tap in result.taps)
            worst[which] = max(excess, worst.get(which, 0.0))
            if not report.ok or report.findings:
                alarms.append(f"{which}, {kind} {seed}: {report.verdict}")
    figures = "\n".join(f"{which}: {excess:.2f}" for which, excess in worst.items())
    assert not alarms, "\n".join([*alarms, figures])
    assert count >= 50
    assert max(worst.values()) <= ALLOWED, figures


def test_positions_resampled_in_float64_raise_no_false_alarm() -> None:
    """The port has them 13 roundings from the reference, which is in float64 itself."""
    model, cases = drawn("learned", 102)
    run = Port(model, torch.float64)
    report = verify_cases(
        model, cases, Candidate("right", {case.name: run(case) for case in cases}, "float64")
    )
    assert report.ok, report
