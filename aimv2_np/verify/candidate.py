"""What is verified: the activations of a port, by case and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
