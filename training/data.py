"""The rendered drawings in memory, and batches drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augment import augment, plain
from emoji import all_emoji
from fetch import ICON_SETS, TRAINED_ON, VALIDATION
from paths import DRAWINGS
from render import SIZE, styles

_PLAIN = 0.5  # the probability of a drawing as it was drawn; the other styles share the rest
_ICON = 0.25  # how often an icon set is drawn from where an emoji set is drawn from once


def _load(artist: str, style: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(DRAWINGS / f"{artist}-{style}.npz") as file:
        return file["pixels"], file["classes"]


def _artist(artist: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All drawings in all styles: pixels (rows, 4, 96, 96); of each its class, styles and share."""
    pixels, found = zip(*(_load(artist, style) for style in styles(artist)), strict=True)
    classes = torch.from_numpy(found[0])
    share = (_ICON if artist in ICON_SETS else 1) / classes.bincount()[classes].double()
    rows = torch.from_numpy(np.stack(pixels, 1).reshape(-1, 4, SIZE, SIZE))
    return rows, classes, torch.full_like(classes, len(pixels)), share


@dataclass(frozen=True)
class Drawings:
    """All artists we train on. Drawing i has `styles[i]` rows of `pixels`, from `first[i]`."""

    pixels: Tensor  # (rows, 4, 96, 96) uint8
    first: Tensor  # (drawings,)
    styles: Tensor  # (drawings,)
    of_class: list[tuple[Tensor, Tensor]]  # for each class its drawings, and how often each comes
    mirrored: Tensor  # (classes,) bool

    @classmethod
    def load(cls) -> "Drawings":
        """From the files that render.py left."""
        parts = zip(*(_artist(name) for name in TRAINED_ON), strict=True)
        pixels, classes, kinds, share = (torch.cat(part) for part in parts)
        emoji = all_emoji()
        drawn = [(classes == c).nonzero().flatten() for c in range(len(emoji))]
        mirrored = torch.tensor([e.may_mirror for e in emoji])
        first = kinds.cumsum(0) - kinds
        return cls(pixels, first, kinds, [(rows, share[rows]) for rows in drawn], mirrored)

    def pictures(self, classes: Tensor) -> Tensor:
        """An augmented picture (N, 3, 64, 64) for each class: any artist, any style."""
        chosen = [self.of_class[c] for c in classes.tolist()]
        drawn = torch.cat([which[share.multinomial(1)] for which, share in chosen])
        other = 1 + (torch.rand(len(drawn)) * (self.styles[drawn] - 1)).long()
        other = other.minimum(self.styles[drawn] - 1)  # an icon has but one style
        style = torch.where(torch.rand(len(drawn)) < _PLAIN, 0, other)
        return augment(self.pixels[self.first[drawn] + style], self.mirrored[classes])


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
