"""What is verified: the activations of a port, by case and by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..ops import Array

__all__ = ["Candidate"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The activations of a port.

    `cases` maps a case's name to its activations by our names. `dtype` is what the port computes
    in; `notes` says what a reader should know about where the numbers come from.
    """

    name: str
    cases: Mapping[str, Mapping[str, Array]]
    dtype: str = "float32"
    notes: tuple[str, ...] = field(default=())

    def names(self, case: str) -> Iterator[str]:
        """The activations given for a case."""
        return iter(self.cases.get(case, {}))

    def get(self, case: str, name: str) -> Array | None:
        """One activation, or None."""
        return self.cases.get(case, {}).get(name)

    def some(self, keep: Callable[[str], bool]) -> Candidate:
        """Those activations whose names are to be kept; cases without any are left out."""
        some = {case: _Some(taps, list(filter(keep, taps))) for case, taps in self.cases.items()}
        return replace(self, cases={case: taps for case, taps in some.items() if taps})


@dataclass(frozen=True, eq=False)
class _Some(Mapping[str, Array]):
    """Some of a case's activations, each still read when asked for."""

    taps: Mapping[str, Array]
    kept: Sequence[str]

    def __getitem__(self, name: str) -> Array:
        if name not in self.kept:
            raise KeyError(name)
        return self.taps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)
