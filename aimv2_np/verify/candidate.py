"""What is verified: the activations of a port, by case and by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import VerificationError
from ..ops import Array
from .inputs import RAW, Inputs

__all__ = ["Candidate", "asked", "images_apart"]


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
        """One activation, or None; truth values as 0 and 1."""
        found = self.cases.get(case, {}).get(name)
        truths = found is not None and np.asarray(found).dtype.kind == "b"
        return np.asarray(found, np.float64) if truths else found

    def some(self, keep: Callable[[str, str], bool]) -> Candidate:
        """Those activations that are to be kept, by case and name; no cases without any."""
        some = {
            case: _Some(getattr(taps, "taps", taps), {n: None for n in taps if keep(case, n)})
            for case, taps in self.cases.items()
        }
        return replace(self, cases={case: taps for case, taps in some.items() if taps})


@dataclass(frozen=True, eq=False)
class _Some(Mapping[str, Array]):
    """Some of a case's activations, each still read when asked for."""

    taps: Mapping[str, Array]
    kept: Mapping[str, None]  # in order

    def __getitem__(self, name: str) -> Array:
        if name not in self.kept:
            raise KeyError(name)
        return self.taps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


# ---------------------------------------------------------------------------- raw inputs


def asked(inputs: Inputs) -> list[str]:
    """What a candidate can give of the raw images and texts."""
    texts = ["input_ids", "attention_mask"] if inputs.texts else []
    return [*(f"pixel_values_{i}" for i in range(len(inputs.sources))), *texts]


def images_apart(candidate: Candidate, count: int) -> dict[str, Array]:
    """What a candidate gives of raw inputs: "pixel_values", a batch of all images, one by one.

    Raises:
        VerificationError: not a batch of so many.
    """
    given = {name: np.asarray(array) for name, array in candidate.cases.get(RAW, {}).items()}
    batch = given.pop("pixel_values", None)
    if batch is None:
        return given
    if any(name.startswith("pixel_values_") for name in given):
        raise VerificationError(
            f"{candidate.name} gives {RAW}/pixel_values and single images besides: give one"
        )
    if batch.ndim != 4 or len(batch) != count:
        raise VerificationError(
            f"{candidate.name} gives {RAW}/pixel_values of shape {batch.shape}, expected "
            f"({count}, 3, Y, X), or {RAW}/pixel_values_0 to _{count - 1} one by one"
        )
    return given | {f"pixel_values_{i}": image for i, image in enumerate(batch)}
