"""Files of activations to read: small cases and an array to put in, written and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from aimv2_np.verify import Case
from aimv2_np.verify.files import read_candidate

IMAGES = Case("squares", pixel_values=np.zeros((2, 3, 30, 30)))
TEXTS = Case("alone", input_ids=np.zeros((1, 7), np.int64))
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def compressed(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, **arrays)


def written(tmp_path: Path, arrays: dict[str, Any]) -> Path:
    save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def read(tmp_path: Path, arrays: dict[str, Any], *cases: Case, **options: Any) -> Any:
    return read_candidate(written(tmp_path, arrays), cases or (IMAGES,), **options)
