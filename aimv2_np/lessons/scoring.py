"""How well a model does, for the cells of the lessons that break it."""

from __future__ import annotations

from typing import Any

from threadpoolctl import threadpool_limits

__all__ = ["named_right"]


def named_right(model: Any) -> int:
    """How many of the 30 single sample drawings get their own name among those 30 names."""
    from .. import samples

    single = {name: path for name, path in samples().items() if not name.startswith("scene-")}
    with threadpool_limits(1, "blas"):  # of matrices this small more threads only wait
        result = model.classify(list(single.values()), list(single))
    return sum(best[0][0] == name for best, name in zip(result.top(1), single, strict=True))
