"""What the vision encoder learns from in step one: the captions, before there is a text tower.

Two losses on one picture. Contrastive: its vector against one vector per emoji, the sum of the
emoji's own and of those of its words, so that 'woman' is learnt once. And the words themselves are
predicted, as a text decoder would without minding their order; since every picture has many words
and every word many pictures, this is what gets training off the ground. The words are those of the
name and of all keywords, and Unicode's group and subgroup. Both are dropped after step one.
"""

import math
import re
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoji import Emoji, all_emoji


def _words(emoji: Emoji) -> set[str]:
    """Every word of the name and the keywords, and the kind of thing it is, as a word too."""
    found = {w for text in (emoji.name, *emoji.keywords) for w in re.findall(r"\w+", text.lower())}
    return found | {f"group {emoji.group}", f"subgroup {emoji.subgroup}"}


def word_matrix() -> Tensor:
    """How much each word says of each emoji: (emoji, words), rare words more, rows summing to 1."""
    words = [_words(e) for e in all_emoji()]
    shared = Counter(word for some in words for word in some)
    column = {word: i for i, word in enumerate(sorted(w for w in shared if shared[w] > 1))}
    matrix = torch.zeros(len(words), len(column))
    for row, some in enumerate(words):
        for word in some & column.keys():
            matrix[row, column[word]] = math.log(len(words) / shared[word])
    return matrix / matrix.sum(1, keepdim=True)


class Captions(nn.Module):
    """The vectors of emoji and words that pictures are compared with, and both losses."""

    words: Tensor

    def __init__(self, features: int, projection: int):
        super().__init__()
        self.register_buffer("words", word_matrix(), persistent=False)
        emoji, words = self.words.shape
        self.of_emoji = nn.Parameter(torch.randn(emoji, projection) * 0.05)
        self.of_words = nn.Parameter(torch.randn(words, projection) * 0.05)
        self.predict = nn.Linear(features, words)

    def vectors(self) -> Tensor:
        """A unit vector for each emoji (emoji, P)."""
        return F.normalize(self.of_emoji + F.normalize(self.words) @ self.of_words, dim=-1)

    def losses(self, pooled: Tensor, logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The contrastive loss of `logits` (N, emoji), and that of the words from `pooled`."""
        contrastive = F.cross_entropy(logits, classes, label_smoothing=0.1)
        return contrastive, F.cross_entropy(self.predict(pooled), self.words[classes])
