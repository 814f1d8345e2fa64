"""The mistakes that a port of AIMv2 makes: each a small patch of the reference.

A mistake is a function that takes a `Step` and gives what a mistaken port would have in its place:

    @mistake("gelu", "*.mlp.hidden", says="GELU instead of SiLU", remedy="silu(fc1 x) · fc3 x")
    def gelu(s: Step) -> Array:
        return _gelu(s["mlp.gate"]) * s["mlp.up"]

The pattern says which activation is replaced. The function runs wherever it matches, in every
block, unless the search confines it to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from ..walk import Step

__all__ = ["Mistake", "Patch", "Planted", "every", "mistake", "wrong_layer"]

Patch: TypeAlias = Callable[[Step], Any]


class Planted(Protocol):
    """What a run asks: whether an activation is to be replaced, and by what."""

    def at(self, name: str) -> Patch | None:
        """The patch, if it concerns this activation."""
        ...

    def weights_of(self, section: str, i: int, count: int) -> int:
        """Whose weights block `i` of `count` has."""
        ...


_MODULES = (
    "norms", "positions", "patches", "attention", "mlp", "pooling", "text", "joint", "weights",
    "rounding", "preprocessing", "tokens",
)  # fmt: skip
_known: dict[str, Mistake] = {}


@dataclass(frozen=True, eq=False)
class Mistake:
    """A patch of the reference, with a sentence on what is wrong and one on the remedy.

    `patterns` are globs of activations' names. `only` confines it to names that begin with one of
    some prefixes, such as "vision.blocks.3.". `rough`: it rounds, so that a port that makes it is
    right up to a few numbers that fall on the other side. `layer` says whose weights a block has
    (its number and how many there are); such a mistake has no patch.
    """

    id: str
    patterns: tuple[str, ...]
    patch: Patch
    says: str
    remedy: str
    seen_in: str = ""  # where it was met
    rough: bool = False
    layer: Callable[[int, int], int] | None = None
    only: tuple[str, ...] = field(default=())

    def at(self, name: str) -> Patch | None:
        """The patch, if it concerns this activation."""
        if self.only and not name.startswith(self.only):
            return None
        return self.patch if any(fnmatchcase(name, p) for p in self.patterns) else None

    def weights_of(self, section: str, i: int, count: int) -> int:
        """Whose weights block `i` of `count` has."""
        if self.layer is None or (self.only and not f"{section}.".startswith(self.only)):
            return i
        return self.layer(i, count)

    def confined(self, *prefixes: str) -> Mistake:
        """The same mistake in some places only."""
        return replace(self, only=prefixes)


def mistake(
    id: str, *patterns: str, says: str, remedy: str, seen_in: str = "", rough: bool = False
) -> Callable[[Patch], Patch]:
    """Enter a function into the library under an id of its own."""

    def enter(patch: Patch) -> Patch:
        assert id not in _known, f"two mistakes are called {id}"
        _known[id] = Mistake(id, patterns, patch, says, remedy, seen_in, rough)
        return patch

    return enter


def wrong_layer(id: str, layer: Callable[[int, int], int], *, says: str, remedy: str) -> None:
    """Enter blocks that run with another block's weights: `layer(i, count)` says whose."""

    def as_computed(step: Step) -> Any:
        return step.value

    mistake(id, "*.blocks.*", says=says, remedy=remedy)(as_computed)
    _known[id] = replace(_known[id], layer=layer)


def every(ids: Iterable[str] | None = None) -> list[Mistake]:
    """All mistakes of the library, or those with some ids."""
    for module in _MODULES:
        import_module(f".{module}", __name__)
    return list(_known.values()) if ids is None else [_known[i] for i in ids]
