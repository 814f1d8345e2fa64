"""The table by the suite that every backend must pass, on a device of NumPy's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_device import NumpyDevice

from aimv2_np.testing import random_models
from aimv2_np_cupy.table import DTYPES, table

HERE = Path(__file__).parent


@pytest.mark.parametrize("devices", [1, 2])
def test_the_suite(devices: int) -> None:
    suite = ["-q", "-p", "no:cacheprovider", "--pyargs", "aimv2_np.testing"]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *suite, "--backend", "numpy_device:make_backend"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "NUMPY_DEVICES": str(devices)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Counting(NumpyDevice):
    """Notes what is launched."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []

    def _launch(self, kernel: str, *args: Any) -> None:
        self.launched.append(kernel)
        super()._launch(kernel, *args)

    def _multiply(self, *args: Any, **how: Any) -> None:
        self.launched.append("+=" if how["add"] else "=")
        super()._multiply(*args, **how)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_is_four_products_and_four_kernels(dtype: str) -> None:
    """q, k and v in one product, gate and up in one, both sums in the products themselves."""
    device, model = Counting(), random_models.make("learned")
    be = table(device)
    params = be.prepare(model.params, dtype)
    x = be.asarray(np.ones((2, 9, 48), np.float32), dtype)
    be.transformer(be, x, params.blocks[:1], 4, 1e-5)
    norm = "rms_norm_stream" if dtype.endswith("16") else "rms_norm"
    assert device.launched == [norm, "=", "attention_plain", "+=", norm, "=", "swiglu", "+="]


@pytest.mark.parametrize(
    ("dtype", "heads", "kernel"),
    [
        ("bfloat16", 1, "attention_128"),
        ("float16", 2, "attention_64"),
        ("float16", 4, "attention_plain"),
        ("tf32", 1, "attention_plain"),
        ("float32", 2, "attention_plain"),
    ],
)
def test_which_attention(dtype: str, heads: int, kernel: str) -> None:
    device = Counting()
    be, config = table(device), random_models.vision(native=True, depth=1)
    wide = type(config)(**(vars(config) | {"hidden_size": 128, "intermediate_size": 40}))
    params = be.prepare(random_models.made(wide).params, dtype)
    x = be.asarray(np.ones((1, 70, 128), np.float32), dtype)
    be.transformer(be, x, params.blocks, heads, 1e-5, lengths=[3, 66, 1])
    assert [name for name in device.launched if name.startswith("att")] == [kernel]
