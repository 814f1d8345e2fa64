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
        parts, rows = [], 0
        columns: dict[str, list[np.ndarray]] = {"class": [], "first": [], "styles": [], "share": []}
        for artist in TRAINED_ON:
            pixels, found = zip(*(_load(artist, style) for style in styles(artist)), strict=True)
            parts.append(torch.from_numpy(np.stack(pixels, 1).reshape(-1, 4, SIZE, SIZE)))
            count, kinds, classes = len(found[0]), len(pixels), found[0]
            share = (_ICON if artist in ICON_SETS else 1) / np.bincount(classes)[classes]
            columns["class"].append(classes)
            columns["first"].append(rows + kinds * np.arange(count))
            columns["styles"].append(np.full(count, kinds))
            columns["share"].append(share)
            rows += kinds * count
        of = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in columns.items()}
        of_class = []
        for c in range(len(all_emoji())):
            drawn = (of["class"] == c).nonzero().flatten()
            of_class.append((drawn, of["share"][drawn]))
        mirrored = torch.tensor([e.may_mirror for e in all_emoji()])
        return cls(torch.cat(parts), of["first"], of["styles"], of_class, mirrored)

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
