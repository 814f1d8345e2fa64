"""Small models with random weights and inputs for them, on which mistakes show.

Norm weights are around one, biases are not zero, queries and keys are large enough that attention
is far from uniform, no two widths that a mistake could confuse are told apart by their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import NUMPY
from ..config import LiTConfig, TextConfig, VisionConfig
from ..models import LiT, VisionEncoder
from ..verify import Case
from ..weights.tree import BlockParams, HeadParams, LiTParams, TextParams, VisionParams

END, BEGIN = 49, 48


@dataclass(frozen=True)
class _Draw:
    rng: np.random.Generator

    def __call__(self, *shape: int, size: float = 1.0) -> Any:
        values = self.rng.standard_normal(shape) * size / np.sqrt(shape[-1])
        return values.astype(np.float32)

    def norm(self, width: int) -> Any:
        return (1 + self.rng.standard_normal(width) / 4).astype(np.float32)

    def blocks(self, c: VisionConfig | TextConfig) -> tuple[BlockParams, ...]:
        width, hidden = c.hidden_size, c.intermediate_size
        return tuple(
            BlockParams(
                self.norm(width),
                (self(width, width, size=2), self(width, width, size=2), self(width, width)),
                self(width, width),
                self.norm(width),
                self(hidden, width),
                self(hidden, width),
                self(width, hidden),
            )
            for _ in range(c.num_hidden_layers)
        )

    def vision(self, c: VisionConfig) -> VisionParams:
        width, patch = c.hidden_size, c.patch_size
        head = HeadParams(
            self(width, size=5),
            self(width, width),
            self(width, width),
            self(width, width),
            self(width, size=3),
        )
        return VisionParams(
            self(width, 3, patch, patch, size=1 / (2 * np.sqrt(patch))),
            self(width, size=3),
            self.norm(width),
            None if c.grid_size is None else self(c.grid_size**2, width, size=4),
            self.blocks(c),
            self.norm(width),
            head if c.use_head else None,
        )

    def text(self, c: TextConfig) -> TextParams:
        width = c.hidden_size
        return TextParams(
            self(c.vocab_size, width, size=4),
            self(c.max_position_embeddings, width, size=3),
            self.blocks(c),
            self.norm(width),
        )


def vision(*, native: bool = False, head: bool = False, depth: int = 4) -> VisionConfig:
    """A small vision encoder's configuration."""
    return VisionConfig(
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=depth,
        num_attention_heads=4,
        image_size=None if native else 30,
        patch_size=6,
        use_head=head,
        is_native=native,
    )


TEXT = TextConfig(
    vocab_size=50,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=14,
    eos_token_id=END,
)
CONFIGS: dict[str, VisionConfig | LiTConfig] = {
    "native": vision(native=True),
    "learned": vision(),
    "deep": vision(depth=12),
    "lit": LiTConfig(vision(head=True), TEXT, projection_dim=48),
}


def make(kind: str, seed: int = 1) -> Any:
    """A model of CONFIGS in float32, with its kind for a name."""
    model = made(CONFIGS[kind], seed)
    model.name = kind
    return model


def made(config: VisionConfig | LiTConfig, seed: int = 1) -> Any:
    """A model of any configuration in float32."""
    draw = _Draw(np.random.default_rng(seed))
    if isinstance(config, VisionConfig):
        model: Any = VisionEncoder(config, draw.vision(config), NUMPY)
    else:
        scale = np.asarray(np.log(140.0), np.float32)  # above ln 100: the clamp shows
        joint = draw(48, 48), draw(48, 48), scale
        params = LiTParams(draw.vision(config.vision), draw.text(config.text), *joint)
        model = LiT(config, params, NUMPY)
    return model


def cases(kind: str, seed: int = 5) -> list[Case]:
    """Two cases: other grids, or texts padded and alone."""
    rng = np.random.default_rng(seed)

    def pixels(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    if kind == "native":
        return [Case("wide", pixels(2, 3, 66, 74)), Case("tall", pixels(1, 3, 90, 50))]
    if kind != "lit":
        wide = Case("wide", pixels(1, 3, 18, 42), interpolate=True)
        return [Case("squares", pixels(2, 3, 30, 30)), wide]
    lengths = (4, 7, 12, 2, 9)
    ids, mask = np.full((5, 12), END), np.zeros((5, 12), np.int64)
    for row, length in enumerate(lengths):
        ids[row, 1 : length - 1] = rng.integers(1, 40, length - 2)
        ids[row, 0], mask[row, :length] = BEGIN, 1
    alone = np.array([[BEGIN, 3, 9, 22, 17, END, 0]])  # padded with another id
    return [Case("pairs", pixels(3, 3, 30, 30), ids, mask), Case("alone", None, alone)]
