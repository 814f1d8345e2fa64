"""What is found: a first difference, and what explains it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ops import Array
from .locate import TapResult, allowance
from .mistakes import Mistake

__all__ = ["Cause", "Finding", "counted"]

_ROUGHLY = 0.98  # explained by a mistake that rounds: some numbers fall on the other side


@dataclass(frozen=True, eq=False)
class Cause:
    """A mistake, or two, and how well it explains a difference."""

    mistakes: tuple[Mistake, ...]
    explained: float  # 1 - ‖candidate - mistaken‖ / ‖candidate - truth‖, at the first wrong tap
    excess: float  # what is left there, as a multiple of rounding
    next_wrong: TapResult | None = None  # the first wrong activation when the mistake is planted
    progress: int = 0  # its place in the model: what comes before it is right

    @property
    def proved(self) -> bool:
        """Whether rounding explains what is left; of a mistake that rounds, nearly all of it."""
        alone = len(self.mistakes) == 1 and self.mistakes[0].rough
        roughly = alone and self.explained >= _ROUGHLY
        return self.excess <= allowance(self.mistakes) or roughly

    @property
    def id(self) -> str:
        """The mistakes' ids."""
        return " + ".join(mistake.id for mistake in self.mistakes)


@dataclass(eq=False)
class Finding:
    """A first difference and what explains it: `causes`, the best first.

    `alike` are those that explain everything as well as the best does: no input of this run tells
    them apart. `dtype` is a smaller one, if correct runs in it err as much. Where an activation is
    only recorded differently, `follows` is a later one that shows it, being right, `recorded` are
    all that are recorded so, and `causes` are what makes the reference record the same.
    """

    wrong: TapResult
    last_right: TapResult | None
    suspects: list[str]
    found: Array | None  # the candidate's activation there, and what it should be
    truth: Array
    real: Array | None  # which of its rows are tokens
    grid: tuple[int, int] | None
    causes: list[Cause] = field(default_factory=list)
    alike: list[Cause] = field(default_factory=list)
    apart: str = ""  # the activation that would tell those from the best
    wrong_alone: list[str] = field(default_factory=list)  # steps wrong by themselves, unexplained
    dtype: str = ""
    right_cases: list[str] = field(default_factory=list)  # where the same activation is right
    tried: str = ""  # how much was tried
    recorded: list[tuple[str, str]] = field(default_factory=list)  # by case and name
    follows: str = ""
    moves: bool = True  # it would be wrong if the wrong one flowed on; else that changes nothing

    @property
    def proved(self) -> bool:
        """Whether the best cause is."""
        return bool(self.causes) and self.causes[0].proved


def counted(count: int, noun: str) -> str:
    """A number of things in words."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
