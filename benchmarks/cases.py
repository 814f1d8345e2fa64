"""What is run: a model, the part of it, the inputs, and how much work that is.

A case holds no weights and needs no library but NumPy; `worker.py make` writes its weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimv2_np.config import OFFICIAL, LiTConfig, TextConfig, VisionConfig
from aimv2_np.hub import packaged_models
from aimv2_np.loader import open_model
from aimv2_np.weights.tree import expected_shapes

__all__ = ["ITEMSIZE", "MODELS", "PARTS", "PROMPTS", "Case"]

PARTS = ("vision", "text", "lit")  # "lit": images and prompts to logits
PROMPTS = 64
NATIVE_SIZE = (480, 640)  # rows, columns: 34 × 45 patches
ITEMSIZE = {"float32": 4, "bfloat16": 2, "int8": 1}

_SMALL: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
_SMALL_VISION: dict[str, Any] = {**_SMALL, "num_attention_heads": 2, "image_size": 56}
TINY: dict[str, VisionConfig | LiTConfig] = {  # to try the commands: their times say nothing
    "tiny": VisionConfig(**_SMALL_VISION),
    "tiny-native": VisionConfig(**{**_SMALL_VISION, "image_size": None}, is_native=True),
    "tiny-lit": LiTConfig(
        vision=VisionConfig(**_SMALL_VISION, use_head=True),
        text=TextConfig(**_SMALL, num_attention_heads=2, vocab_size=1000, eos_token_id=999),
        projection_dim=64,
    ),
}
PACKAGED = {name: open_model(name).config for name in packaged_models()}  # random weights here, too
MODELS = {name: model.config for name, model in OFFICIAL.items()} | PACKAGED | TINY


@dataclass(frozen=True)
class Case:
    """One thing to time. `batch` counts images, or prompts where only texts run."""

    model: str
    part: str
    batch: int

    @property
    def has_text(self) -> bool:
        """Whether the model has a text tower."""
        return isinstance(MODELS[self.model], LiTConfig)

    @property
    def vision(self) -> VisionConfig:
        """The sizes of the vision tower."""
        config = MODELS[self.model]
        return config if isinstance(config, VisionConfig) else config.vision

    @property
    def lit(self) -> LiTConfig:
        """The sizes of both towers, where there are two."""
        config = MODELS[self.model]
        assert isinstance(config, LiTConfig), f"{self.model} has no text tower"
        return config

    @property
    def images(self) -> int:
        """How many run."""
        return 0 if self.part == "text" else self.batch

    @property
    def prompts(self) -> int:
        """How many run."""
        return {"vision": 0, "text": self.batch, "lit": PROMPTS}[self.part]

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of pixels."""
        side = self.vision.image_size
        return NATIVE_SIZE if side is None else (side, side)

    @property
    def patches(self) -> int:
        """Of an image: whole ones."""
        return math.prod(side // self.vision.patch_size for side in self.image_size)

    @property
    def parameters(self) -> int:
        """Of the whole model, whatever part of it runs."""
        return sum(math.prod(shape) for shape in expected_shapes(MODELS[self.model]).values())

    def inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Random pixels, random prompts, or both, as the part asks."""
        rng, arrays = np.random.default_rng(seed), []
        if self.images:
            shape = (self.images, self.vision.num_channels, *self.image_size)
            arrays.append(rng.standard_normal(shape, dtype=np.float32))
        if self.prompts:
            arrays.append(_prompts(rng, self.prompts, self.lit.text))
        return arrays

    def work(self) -> tuple[float, int]:
        """Floating-point operations of a forward, and the weights that they read at least once.

        A multiplication and an addition count as two. Norms, softmax and SiLU are left out.
        """
        macs = weights = 0
        if self.images:
            each, weights = _vision_work(self.vision, self.patches)
            macs = self.images * each
        if self.prompts:
            each, more = _text_work(self.lit.text)
            macs, weights = macs + self.prompts * each, weights + more
        if self.has_text:  # projections, and the logits
            widths = (self.images and self.vision.hidden_size) * self.lit.projection_dim
            texts = (self.prompts and self.lit.text.hidden_size) * self.lit.projection_dim
            macs += self.images * widths + self.prompts * texts
            macs += self.images * self.prompts * self.lit.projection_dim
            weights += widths + texts
        return 2.0 * macs, weights

    def save(self, folder: Path) -> None:
        """For the worker processes."""
        (folder / "case.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Case:
        """What `save` wrote."""
        return cls(**json.loads((folder / "case.json").read_text()))


def _prompts(rng: np.random.Generator, count: int, text: TextConfig) -> np.ndarray:
    """Token ids (count, 77): texts of 8 tokens and more, then the end token to the end."""
    length = text.max_position_embeddings
    ids = rng.integers(1, text.eos_token_id - 1, size=(count, length))
    ends = rng.integers(7, length, size=(count, 1))
    return np.where(np.arange(length) < ends, ids, text.eos_token_id)


def _blocks(config: VisionConfig | TextConfig) -> int:
    """The weights of all blocks; each token multiplies them all."""
    width = config.hidden_size
    return config.num_hidden_layers * (4 * width**2 + 3 * width * config.intermediate_size)


def _vision_work(config: VisionConfig, patches: int) -> tuple[int, int]:
    """Multiply-adds of an image, and weights: patch embedding, blocks, pooling head."""
    width, layers = config.hidden_size, config.num_hidden_layers
    kernel = width * config.num_channels * config.patch_size**2
    keys_and_values = 2 * width**2 if config.use_head else 0
    weights = _blocks(config) + kernel + keys_and_values
    macs = patches * weights + layers * 2 * patches**2 * width
    if config.use_head:  # one query, and the linear after it
        macs, weights = macs + 2 * patches * width + width**2, weights + width**2
    return macs, weights


def _text_work(config: TextConfig) -> tuple[int, int]:
    """The same of a prompt; attention is causal, so that half of the pairs is never needed."""
    tokens, weights = config.max_position_embeddings, _blocks(config)
    pairs = tokens * (tokens + 1) // 2
    return tokens * weights + config.num_hidden_layers * 2 * pairs * config.hidden_size, weights
