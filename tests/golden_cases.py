"""The fixtures in tests/golden (see its README.md) and tests/data, as the tests use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import aimv2_np

GOLDEN = Path(__file__).parent / "golden"
DATA = Path(__file__).parent / "data"
RANDOM_LIT = DATA / "random-lit"  # tiny, with a tokenizer: where numbers need no meaning
CAT = DATA / "cat.jpg"  # 451 × 300: not square, no multiple of 14

# case -> layouts that hold its weights
LAYOUTS = {
    "vision-absolute": ["original", "mlx", "jax", "timm", "transformers"],
    "vision-native": ["original", "transformers"],
    "lit": ["original", "mlx", "jax", "transformers", "transformers-sharded", "transformers-bf16"],
}
HEADS: dict[str, Any] = {"vision-absolute": 3, "vision-native": 2, "lit": (3, 2)}
CASES = [(case, layout) for case, layouts in LAYOUTS.items() for layout in layouts]


def load(
    case: str, layout: str = "original", dtype: str = "float64", backend: str = "numpy"
) -> Any:
    """A golden model; only transformers' folders carry a config.json that states the heads."""
    heads = None if layout.startswith("transformers") else HEADS[case]
    folder = GOLDEN / case / layout
    return aimv2_np.load(folder, dtype=dtype, num_heads=heads, backend=backend)


def inputs(case: str) -> dict[str, Any]:
    return load_file(GOLDEN / case / "inputs.safetensors")


def expected(case: str) -> dict[str, Any]:
    return load_file(GOLDEN / case / "expected.safetensors")


def difference(found: Any, wanted: Any) -> float:
    """The largest difference as a fraction of the largest value; shapes must agree."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert np.isfinite(found).all()
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
