"""What gpu.py runs, in which order, and about how long each step takes on an H100.

The order is that of worth: is it right, then the goals, then the rest of the table. A step is what
is begun or left out as one; where the time does not suffice for it, the results say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cases import Case

__all__ = ["DRY", "DTYPES", "FULL", "Forward", "Group", "Plan", "Step", "steps"]

DTYPES = ("bfloat16", "float32", "float16", "tf32")


@dataclass(frozen=True)
class Forward(Case):
    """Images through a vision tower in a dtype; `side` is their height and width in pixels."""

    dtype: str = "bfloat16"
    side: int | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of pixels."""
        return super().image_size if self.side is None else (self.side, self.side)


@dataclass(frozen=True)
class Group:
    """Cases that share weights. `whole`: torch compiles the model as one, not a block for all."""

    model: str
    dtype: str
    batches: tuple[int, ...]
    seconds: float
    whole: bool = False
    side: int | None = None

    @property
    def name(self) -> str:
        """What its step is called."""
        batches = " ".join(map(str, self.batches))
        return f"forward {self.model} {self.dtype}, batch {batches}"

    def case(self, batch: int) -> Forward:
        """One of its cases."""
        return Forward(self.model, "vision", batch, self.dtype, self.side)


@dataclass(frozen=True)
class Plan:
    """All sizes. DRY has the same steps in a size for any CPU."""

    goals: tuple[Group, ...]  # what the goals are about
    others: tuple[Group, ...]
    blocks: str = "large-patch14-224"  # whose sizes the checks, errors and the ratio have
    ratio_batch: int = 64
    product: int = 8192  # rows, columns and terms of the product that shows the peak
    copied: int = 1 << 32  # bytes
    attention: tuple[tuple[int, int], ...] = ((256, 64), (1024, 16), (4096, 4))  # patches, batch
    rounds: int = 5
    turn: float = 0.05  # seconds that a turn should take at least
    suite: tuple[str, ...] = ("--backend", "cupy")
    suite_seconds: float = 120


_L, _L448, _NATIVE = "large-patch14-224", "large-patch14-448", "large-patch14-native"
_H, _1B, _3B = "huge-patch14-224", "1B-patch14-224", "3B-patch14-224"
_ALL = (1, 8, 64, 256)
_SIDE = 896  # pixels: 4096 patches
# Seconds of a group in bfloat16: weights, compiling, turns.
_SECONDS = {_L: 25, _L448: 35, _H: 30, _1B: 40, _3B: 60}
_SLOWER = {"float16": 1.0, "tf32": 1.5, "float32": 3.0}


def _others() -> tuple[Group, ...]:
    """What no goal is about: bfloat16 of all models, then the other dtypes as far as time goes."""
    return (
        Group(_L, "bfloat16", (256,), 15),
        Group(_NATIVE, "bfloat16", (1, 8, 64), 40, side=_SIDE),
        *(Group(model, "bfloat16", _ALL, _SECONDS[model]) for model in (_L448, _H, _1B, _3B)),
        Group(_L, "float16", _ALL, _SECONDS[_L]),
        Group(_NATIVE, "bfloat16", (256,), 90, side=_SIDE),
        *(Group(_L, dtype, (256,), _SLOWER[dtype] * _SECONDS[_L]) for dtype in ("tf32", "float32")),
        *(
            Group(model, dtype, _ALL, slower * _SECONDS[model])
            for dtype, slower in _SLOWER.items()
            for model in (_L448, _H, _1B, _3B)
        ),
        *(
            Group(_NATIVE, dtype, (1, 8, 64), 40 * slower, side=_SIDE)
            for dtype, slower in _SLOWER.items()
        ),
    )


FULL = Plan(
    goals=(
        Group(_L, "bfloat16", (64, 8, 1), 110, whole=True),
        Group(_L, "tf32", (64, 8, 1), 30),
        Group(_L, "float32", (64, 8, 1), 35),
    ),
    others=_others(),
)
DRY = Plan(
    goals=(Group("tiny", "bfloat16", (2, 1), 0, whole=True), Group("tiny", "tf32", (1,), 0)),
    others=(Group("tiny-native", "float16", (1,), 0, side=70),),
    blocks="tiny",
    ratio_batch=2,
    product=64,
    copied=1 << 12,
    attention=((16, 2), (25, 1)),
    rounds=2,
    turn=0.0,
    suite=("--backend", "numpy", "-k", "test_rms_norm"),
)


@dataclass(frozen=True)
class Step:
    """A function of gpu_checks or gpu_speed, and what it is called with."""

    name: str
    seconds: float  # a guess, to know what still fits
    function: str
    arguments: tuple[Any, ...] = field(default=())


def steps(plan: Plan) -> list[Step]:
    """All of them, the most valuable first."""

    def forwards(groups: tuple[Group, ...]) -> list[Step]:
        return [Step(group.name, group.seconds, "forwards", (group,)) for group in groups]

    return [
        Step("machine", 2, "machine"),
        *(Step(f"kernels {dtype}", 10, "kernels", (dtype,)) for dtype in DTYPES),
        Step("peaks", 8, "peaks"),
        *forwards(plan.goals[:1]),
        Step("ratio", 10, "ratio"),
        Step("attention", 10, "attention"),
        *forwards(plan.goals[1:]),
        Step("errors", 25, "errors"),
        Step("suite", plan.suite_seconds, "suite"),
        *forwards(plan.others[:2]),
        Step("sanitizer memcheck", 45, "sanitizer", ("memcheck",)),
        Step("sanitizer racecheck", 45, "sanitizer", ("racecheck",)),
        *forwards(plan.others[2:]),
    ]
