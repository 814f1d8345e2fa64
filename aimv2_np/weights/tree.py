"""The parameters of a model, as the model wants them: small named tuples of arrays.

Names are the original code's. Matrices are (out, in), as PyTorch stores them. The one difference
to the stored form: `qkv`, stored as one (3·D, D) matrix by the original and as three by
transformers, is a triple here, because both can then be used where they lie, without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..config import LiTConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

__all__ = [
    "BlockParams",
    "HeadParams",
    "LiTParams",
    "StoredBlocks",
    "TextParams",
    "VisionParams",
    "build_params",
    "expected_shapes",
    "with_blocks",
]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


class BlockParams(NamedTuple):
    """One transformer block: trunk.blocks.{i}."""

    norm_1: Array  # (D,)
    qkv: tuple[Array, Array, Array]  # each (D, D), the heads stacked along the first axis
    proj: Array  # (D, D)
    norm_2: Array  # (D,)
    fc1: Array  # (F, D), the gate
    fc3: Array  # (F, D), the up projection
    fc2: Array  # (D, F), the way down


Blocks: TypeAlias = Sequence[BlockParams]


class HeadParams(NamedTuple):
    """The attention-pooling head."""

    cls_token: Array  # (D,), the learned query
    k: Array  # (D, D)
    v: Array  # (D, D)
    linear_weight: Array  # (D, D)
    linear_bias: Array  # (D,)


class VisionParams(NamedTuple):
    """The vision encoder."""

    patch_weight: Array  # (D, C, P, P)
    patch_bias: Array  # (D,)
    patch_norm: Array  # (D,)
    pos_embed: Array | None  # (N, D); None: native resolution
    blocks: Blocks
    post_trunk_norm: Array  # (D,)
    head: HeadParams | None


class TextParams(NamedTuple):
    """The text encoder."""

    text_embedding: Array  # (V, D)
    positional_embedding: Array  # (T, D)
    blocks: Blocks
    post_trunk_norm: Array  # (D,)


class LiTParams(NamedTuple):
    """Both encoders, their projections into the shared space, and the temperature."""

    vision: VisionParams
    text: TextParams
    image_projector: Array  # (projection, D of vision)
    text_projector: Array  # (projection, D of text)
    log_logit_scale: Array  # ()


# ---------------------------------------------------------------------------- shapes


def _block_shapes(prefix: str, config: VisionConfig | TextConfig) -> Shapes:
    width, hidden = config.hidden_size, config.intermediate_size
    one = {
        "norm_1.weight": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "norm_2.weight": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc3.weight": (hidden, width),
    }
    shapes: Shapes = {}
    for i in range(config.num_hidden_layers):
        shapes |= {f"{prefix}trunk.blocks.{i}.{name}": shape for name, shape in one.items()}
    return shapes | {f"{prefix}trunk.post_trunk_norm.weight": (width,)}


def _vision_shapes(prefix: str, config: VisionConfig) -> Shapes:
    width, patch = config.hidden_size, config.patch_size
    shapes: Shapes = {
        "preprocessor.patchifier.proj.weight": (width, config.num_channels, patch, patch),
        "preprocessor.patchifier.proj.bias": (width,),
        "preprocessor.patchifier.norm.weight": (width,),
    }
    if config.grid_size is not None:
        shapes["preprocessor.pos_embed"] = (1, config.grid_size**2, width)
    if config.use_head:
        shapes |= {
            "head.cls_token": (1, 1, width),
            "head.k.weight": (width, width),
            "head.v.weight": (width, width),
            "head.linear.weight": (width, width),
            "head.linear.bias": (width,),
        }
    prefixed = {f"{prefix}{name}": shape for name, shape in shapes.items()}
    return prefixed | _block_shapes(prefix, config)


def _text_shapes(prefix: str, config: TextConfig) -> Shapes:
    width = config.hidden_size
    shapes: Shapes = {
        f"{prefix}preprocessor.text_embedding.weight": (config.vocab_size, width),
        f"{prefix}preprocessor.positional_embedding": (config.max_position_embeddings, width),
    }
    return shapes | _block_shapes(prefix, config)


def expected_shapes(config: VisionConfig | LiTConfig) -> Shapes:
    """Every parameter of a model, by its original name, with its shape in the original layout."""
    if isinstance(config, VisionConfig):
        return _vision_shapes("", config)
    return (
        _vision_shapes("image_encoder.", config.vision)
        | _text_shapes("text_encoder.", config.text)
        | {
            "image_projector.weight": (config.projection_dim, config.vision.hidden_size),
            "text_projector.weight": (config.projection_dim, config.text.hidden_size),
            "log_logit_scale": (),
        }
    )


# ---------------------------------------------------------------------------- building


def build_params(
    checkpoint: Checkpoint, config: VisionConfig | LiTConfig, dtype: np.dtype[Any]
) -> VisionParams | LiTParams:
    """The parameter tree of a checkpoint whose names and shapes have been checked.

    Arrays stored in `dtype` are read-only views of the memory-mapped file; others are converted.
    Each encoder's `blocks` are StoredBlocks, yet unread: `with_blocks` turns them into others.
    """
    read = _Reader(checkpoint, dtype)
    if isinstance(config, VisionConfig):
        return _vision(read, config)
    return LiTParams(
        vision=_vision(read.below("image_encoder."), config.vision),
        text=_text(read.below("text_encoder."), config.text),
        image_projector=read("image_projector.weight"),
        text_projector=read("text_projector.weight"),
        log_logit_scale=read("log_logit_scale"),
    )


@dataclass(frozen=True)
class _Reader:
    """Reads the parameters below a prefix of their names, in one dtype."""

    checkpoint: Checkpoint
    dtype: np.dtype[Any]
    prefix: str = ""

    def below(self, prefix: str) -> _Reader:
        return replace(self, prefix=self.prefix + prefix)

    def __call__(self, name: str, *shape: int) -> Array:
        array = self.checkpoint.array(self.prefix + name, self.dtype)
        return array.reshape(shape) if shape else array

    def thirds(self, name: str) -> tuple[Array, Array, Array]:
        return self.checkpoint.thirds(self.prefix + name, self.dtype)


@dataclass(frozen=True, eq=False)
class StoredBlocks(Sequence[BlockParams]):
    """The blocks of an encoder as they are stored: each is read when asked for, and none is kept.

    When an iteration asks for the next block, the memory that reading the last one took is given
    back. So a backend that packs them, `tuple(map(pack, blocks))`, never holds two unpacked; `for
    block in blocks` would, since `block` keeps the last one while the next is being read.

    Raises:
        CheckpointError: when a block is read, as `Checkpoint.array`.
    """

    read: _Reader
    depth: int

    def __len__(self) -> int:
        return self.depth

    def __iter__(self) -> Iterator[BlockParams]:
        for i in range(self.depth):
            yield self._block(i)
            self.read.checkpoint.release()

    def __getitem__(self, i: Any) -> Any:
        which = range(self.depth)[i]
        return tuple(map(self._block, which)) if isinstance(i, slice) else self._block(which)

    def _block(self, i: int) -> BlockParams:
        read = self.read.below(f"{i}.")
        return BlockParams(
            norm_1=read("norm_1.weight"),
            qkv=read.thirds("attn.qkv.weight"),
            proj=read("attn.proj.weight"),
            norm_2=read("norm_2.weight"),
            fc1=read("mlp.fc1.weight"),
            fc3=read("mlp.fc3.weight"),
            fc2=read("mlp.fc2.weight"),
        )


def with_blocks(params: Any, change: Callable[[Blocks], Blocks]) -> Any:
    """The same parameters, but each encoder's blocks are what `change` makes of them."""
    if isinstance(params, LiTParams):
        vision, text = (with_blocks(tower, change) for tower in (params.vision, params.text))
        return params._replace(vision=vision, text=text)
    return params._replace(blocks=change(params.blocks))


def _vision(read: _Reader, config: VisionConfig) -> VisionParams:
    width = config.hidden_size
    learned = config.grid_size is not None
    return VisionParams(
        patch_weight=read("preprocessor.patchifier.proj.weight"),
        patch_bias=read("preprocessor.patchifier.proj.bias"),
        patch_norm=read("preprocessor.patchifier.norm.weight"),
        pos_embed=read("preprocessor.pos_embed", -1, width) if learned else None,
        blocks=StoredBlocks(read.below("trunk.blocks."), config.num_hidden_layers),
        post_trunk_norm=read("trunk.post_trunk_norm.weight"),
        head=_head(read.below("head."), width) if config.use_head else None,
    )


def _text(read: _Reader, config: TextConfig) -> TextParams:
    return TextParams(
        text_embedding=read("preprocessor.text_embedding.weight"),
        positional_embedding=read("preprocessor.positional_embedding"),
        blocks=StoredBlocks(read.below("trunk.blocks."), config.num_hidden_layers),
        post_trunk_norm=read("trunk.post_trunk_norm.weight"),
    )


def _head(read: _Reader, width: int) -> HeadParams:
    return HeadParams(
        cls_token=read("cls_token", width),
        k=read("k.weight"),
        v=read("v.weight"),
        linear_weight=read("linear.weight"),
        linear_bias=read("linear.bias"),
    )
