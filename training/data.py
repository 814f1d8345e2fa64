"""The rendered drawings in memory, and batches drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augment import augment, plain
from emoji import all_emoji
from fetch import TRAINED_ON, VALIDATION
from paths import DRAWINGS
from render import SIZE, styles

_PLAIN = 0.5  # the probability of a drawing as it was drawn; the other styles share the rest


def _load(artist: str, style: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(DRAWINGS / f"{artist}-{style}.npz") as file:
        return file["pixels"], file["classes"]


@dataclass(frozen=True)
class Drawings:
    """All artists we train on: `pixels[i, s]` is drawing i in style s, of class `classes[i]`."""

    pixels: Tensor  # (N, 3 styles, 4, 96, 96) uint8
    by_class: list[Tensor]  # for each class the drawings that show it
    mirrored: Tensor  # (classes,) bool

    @classmethod
    def load(cls) -> "Drawings":
        """From the files that render.py left."""
        parts, classes = [], []
        for artist in TRAINED_ON:
            pixels, found = zip(*(_load(artist, style) for style in styles(artist)), strict=True)
            parts.append(torch.from_numpy(np.stack(pixels, 1)).expand(-1, 3, 4, SIZE, SIZE))
            classes.append(torch.from_numpy(found[0]))
        labels = torch.cat(classes)
        emoji = all_emoji()
        by_class = [(labels == c).nonzero().flatten() for c in range(len(emoji))]
        return cls(torch.cat(parts), by_class, torch.tensor([e.may_mirror for e in emoji]))

    def pictures(self, classes: Tensor) -> Tensor:
        """An augmented picture (N, 3, 64, 64) for each class: any artist, any style."""
        chosen = [self.by_class[c] for c in classes.tolist()]
        rows = torch.stack([of[torch.randint(len(of), ())] for of in chosen])
        other = torch.randint(1, self.pixels.shape[1], (len(rows),))
        style = torch.where(torch.rand(len(rows)) < _PLAIN, 0, other)
        return augment(self.pixels[rows, style], self.mirrored[classes])


def validation() -> tuple[Tensor, Tensor]:
    """The validation artist's drawings on white (N, 3, 64, 64), and their classes (N,)."""
    pixels, classes = _load(VALIDATION, "plain")
    return plain(torch.from_numpy(pixels)), torch.from_numpy(classes)


def shuffled_classes(batch: int) -> Iterator[Tensor]:
    """Batches of distinct classes without end: each class comes once an epoch."""
    count, rest = len(all_emoji()), torch.empty(0, dtype=torch.long)
    while True:
        if len(rest) < batch:
            new = torch.randperm(count)
            rest = torch.cat([rest, new[~torch.isin(new, rest)], new[torch.isin(new, rest)]])
        yield rest[:batch]
        rest = rest[batch:]
