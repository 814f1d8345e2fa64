"""The suite for authors of backends: it passes those that are right, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aimv2_np import ops
from aimv2_np.backend import NUMPY, Backend

SUITE = ["-q", "-p", "no:cacheprovider", "--pyargs", "aimv2_np.testing", "--backend"]


def suite(backend: str, *some: str) -> subprocess.CompletedProcess[str]:
    """The suite, run on a backend; `some`: names of tests."""
    chosen = ["-k", " or ".join(name.rstrip("[") for name in some)] if some else []
    command = [sys.executable, "-m", "pytest", *SUITE, backend, *chosen]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def plugged(function: str, *some: str) -> subprocess.CompletedProcess[str]:
    """Some of the suite's tests on a backend of this file."""
    return suite(f"{__name__}:{function}", *some)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_built_in_ones_pass(backend: str) -> None:
    done = suite(backend)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_one_that_is_not_there_is_no_success() -> None:
    done = suite("nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--backend nowhere: there is no backend 'nowhere'" in done.stderr


def without_mask(device: Any = None) -> Backend:
    """Attention that forgets which keys are padding."""

    def attention(q: Any, k: Any, v: Any, **sees: Any) -> Any:
        return ops.attention(q, k, v, **(sees | {"key_mask": None}))

    return replace(NUMPY, name="mine", attention=attention)


def coarse(device: Any = None) -> Backend:
    """Products whose inputs are rounded to 8 bits though it says float32."""

    def linear(x: Any, weight: Any, bias: Any = None) -> Any:
        return ops.linear(np.asarray(x, np.float16).astype(x.dtype), weight, bias)

    return replace(NUMPY, name="mine", linear=linear)


def careless(device: Any = None) -> Backend:
    """A fused form that leaves the last block out, and takes any device."""

    def transformer(be: Any, x: Any, blocks: Any, *rest: Any, **sees: Any) -> Any:
        return NUMPY.transformer(be, x, blocks[:-1], *rest, **sees)

    return replace(NUMPY, name="mine", transformer=transformer)


@pytest.mark.parametrize(
    ("function", "fails", "passes"),
    [
        ("without_mask", ["test_attention["], ["test_linear["]),
        ("coarse", ["test_linear[", "test_every_activation["], ["test_attention["]),
        ("careless", ["test_outputs[", "test_a_device_that"], ["test_every_activation["]),
    ],
)
def test_wrong_ones_fail_where_they_are_wrong(
    function: str, fails: list[str], passes: list[str]
) -> None:
    done = plugged(function, *fails, *passes)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert [name for name in fails if not any(name in line for line in failed)] == []
    assert [line for line in failed if any(name in line for name in passes)] == []
