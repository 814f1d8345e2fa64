"""One model for many calls: packed sequences, repeated runs, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ...verify import Case
from .. import random_models
from .test_models import judge, outputs_of

pytestmark = pytest.mark.filterwarnings("ignore::aimv2_np.errors.AIMv2Warning")  # small images


def test_the_same_twice(dtype: str, on: Any) -> None:
    """To the last bit."""
    model, cases = on(random_models.make("lit"), dtype), random_models.cases("lit")
    for case in cases:
        first, again = outputs_of(model, case), outputs_of(model, case)
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name], err_msg=name)


def test_images_of_different_sizes_in_one_run(dtype: str, on: Any) -> None:
    """Each is right by itself: whatever lies beside it, it sees itself alone."""
    model, rng = random_models.make("native"), np.random.default_rng(7)
    sizes = [(30, 66), (6, 6), (90, 48), (24, 24)]
    images = [rng.standard_normal((3, *size)).astype(np.float32) for size in sizes]
    moved = on(model, dtype)
    together = [moved.backend.to_numpy(x) for x, _ in moved.packed(images)]
    cases = [Case(str(i), image[None]) for i, image in enumerate(images)]
    found = {case.name: {"vision.norm": x} for case, x in zip(cases, together, strict=True)}
    judge(model, cases, found, dtype)


def test_two_threads_at_once(dtype: str, on: Any) -> None:
    """They get what one alone gets, whatever the other does meanwhile."""
    model, cases = on(random_models.make("lit"), dtype), random_models.cases("lit")
    alone = [outputs_of(model, case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        runs = [(i, pool.submit(outputs_of, model, cases[i])) for _ in range(12) for i in (0, 1)]
        for i, run in runs:
            for name, array in run.result(timeout=120).items():
                np.testing.assert_array_equal(array, alone[i][name], err_msg=name)
