"""A small run of every kernel and product, for compute-sanitizer. gpu.py starts it.

compute-sanitizer --tool memcheck python benchmarks/gpu_small.py
"""

from __future__ import annotations

import math

from gpu_checks import kernels
from gpu_device import Gpu
from gpu_plan import DRY


class Unpooled(Gpu):
    """Each array is an allocation of its own, so that its edges are known."""

    def __init__(self) -> None:
        super().__init__(0, until=math.inf)
        self.device.xp.cuda.set_allocator(None)

    def poison(self) -> None:
        """There is no pool."""


def main() -> None:
    bench = Unpooled()
    for dtype in ("bfloat16", "float32"):
        wrong = [found["what"] for found in kernels(bench, DRY, dtype) if not found["ok"]]
        print(f"{dtype}: {', '.join(wrong) or 'nothing'} is wrong")


if __name__ == "__main__":
    main()
