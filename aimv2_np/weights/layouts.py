"""One table per checkpoint layout: its names beside the original's names.

A name is cut into a tower's prefix and the rest, and block numbers become `{i}`; what remains is
looked up. Each row may say how the stored axes become the original's, and which third of the
stacked `qkv` it is. Everything a layout does differently is in its table; nothing is computed.
Sources: aim/v2/torch, aim/v2/mlx, aim/v2/jax of the original; transformers' and timm's AIMv2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["LAYOUTS", "Layout", "Row", "Tower", "detect_layout"]

PATCH_KERNEL = "preprocessor.patchifier.proj.weight"


class Row(NamedTuple):
    """One parameter: stored name, original name, and how the stored array becomes the original's.

    `axes` is the transposition that does it; `third` is 0, 1, 2 for q, k, v stored on their own;
    `lead` says that the original has one more axis, of size 1, in front.
    """

    stored: str
    original: str
    axes: tuple[int, ...] = ()
    third: int | None = None
    lead: bool = False


class Tower(NamedTuple):
    """Rows that share a prefix; `ignored` are stored names that are known to be no parameters."""

    stored_prefix: str
    original_prefix: str
    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()


_NUMBER = re.compile(r"(?<=[._])(0|[1-9][0-9]{0,2})(?=\.)")  # at most 1000 blocks


def _numbered(name: str) -> tuple[str, str | None]:
    """A name with its block number replaced by `{i}`, and that number."""
    found = _NUMBER.search(name)
    if found is None:
        return name, None
    return name[: found.start()] + "{i}" + name[found.end() :], found.group()


def _fill(template: str, number: str | None) -> str:
    return template if number is None else template.replace("{i}", number)


@dataclass(frozen=True)
class Layout:
    """The table of one layout, for one kind of model."""

    name: str
    towers: tuple[Tower, ...]

    def original(self, key: str) -> tuple[str, Row] | None:
        """The original name of a stored key, and its row; None if the layout does not have it."""
        for tower in self.towers:
            if key.startswith(tower.stored_prefix):
                template, number = _numbered(key[len(tower.stored_prefix) :])
                for row in tower.rows:
                    if row.stored == template and (number is not None) == ("{i}" in template):
                        return tower.original_prefix + _fill(row.original, number), row
        return None

    def stored(self, name: str) -> list[tuple[str, Row]]:
        """The keys under which this layout stores an original name: one, or three for q, k, v."""
        for tower in self.towers:
            if name.startswith(tower.original_prefix):
                template, number = _numbered(name[len(tower.original_prefix) :])
                rows = [row for row in tower.rows if row.original == template]
                if rows:
                    return [(tower.stored_prefix + _fill(r.stored, number), r) for r in rows]
        return []

    def ignores(self, key: str) -> bool:
        """Whether a stored key is known to be no parameter."""
        return any(key == t.stored_prefix + name for t in self.towers for name in t.ignored)


# ---------------------------------------------------------------------------- original, MLX

_BLOCK = (
    Row("trunk.blocks.{i}.norm_1.weight", "trunk.blocks.{i}.norm_1.weight"),
    Row("trunk.blocks.{i}.attn.qkv.weight", "trunk.blocks.{i}.attn.qkv.weight"),
    Row("trunk.blocks.{i}.attn.proj.weight", "trunk.blocks.{i}.attn.proj.weight"),
    Row("trunk.blocks.{i}.norm_2.weight", "trunk.blocks.{i}.norm_2.weight"),
    Row("trunk.blocks.{i}.mlp.fc1.weight", "trunk.blocks.{i}.mlp.fc1.weight"),
    Row("trunk.blocks.{i}.mlp.fc2.weight", "trunk.blocks.{i}.mlp.fc2.weight"),
    Row("trunk.blocks.{i}.mlp.fc3.weight", "trunk.blocks.{i}.mlp.fc3.weight"),
    Row("trunk.post_trunk_norm.weight", "trunk.post_trunk_norm.weight"),
)
_VISION = (
    Row("preprocessor.patchifier.proj.bias", "preprocessor.patchifier.proj.bias"),
    Row("preprocessor.patchifier.norm.weight", "preprocessor.patchifier.norm.weight"),
    Row("preprocessor.pos_embed", "preprocessor.pos_embed"),
    Row("head.cls_token", "head.cls_token"),
    Row("head.k.weight", "head.k.weight"),
    Row("head.v.weight", "head.v.weight"),
    Row("head.linear.weight", "head.linear.weight"),
    Row("head.linear.bias", "head.linear.bias"),
    *_BLOCK,
)
_TEXT = (
    Row("preprocessor.text_embedding.weight", "preprocessor.text_embedding.weight"),
    Row("preprocessor.positional_embedding", "preprocessor.positional_embedding"),
    *_BLOCK,
)
_JOINT = (
    Row("image_projector.weight", "image_projector.weight"),
    Row("text_projector.weight", "text_projector.weight"),
    Row("log_logit_scale", "log_logit_scale"),
)
_TORCH_KERNEL = Row(PATCH_KERNEL, PATCH_KERNEL)  # (out, in, kh, kw)
_MLX_KERNEL = Row(PATCH_KERNEL, PATCH_KERNEL, (0, 3, 1, 2))  # from (out, kh, kw, in)

# ---------------------------------------------------------------------------- JAX

_IN_OUT = (1, 0)  # flax keeps matrices as (in, out)

_JAX_BLOCK = (
    Row("trunk.layers_{i}.norm_1.scale", "trunk.blocks.{i}.norm_1.weight"),
    Row("trunk.layers_{i}.attn.qkv.kernel", "trunk.blocks.{i}.attn.qkv.weight", _IN_OUT),
    Row("trunk.layers_{i}.attn.proj.kernel", "trunk.blocks.{i}.attn.proj.weight", _IN_OUT),
    Row("trunk.layers_{i}.norm_2.scale", "trunk.blocks.{i}.norm_2.weight"),
    Row("trunk.layers_{i}.mlp.fc1.kernel", "trunk.blocks.{i}.mlp.fc1.weight", _IN_OUT),
    Row("trunk.layers_{i}.mlp.fc2.kernel", "trunk.blocks.{i}.mlp.fc2.weight", _IN_OUT),
    Row("trunk.layers_{i}.mlp.fc3.kernel", "trunk.blocks.{i}.mlp.fc3.weight", _IN_OUT),
    Row("trunk.post_trunk_norm.scale", "trunk.post_trunk_norm.weight"),
)
_JAX_VISION = (
    Row("preprocessor.patchifier.proj.kernel", PATCH_KERNEL, (3, 2, 0, 1)),  # (kh, kw, in, out)
    Row("preprocessor.patchifier.proj.bias", "preprocessor.patchifier.proj.bias"),
    Row("preprocessor.patchifier.norm.scale", "preprocessor.patchifier.norm.weight"),
    Row("preprocessor.pos_embed", "preprocessor.pos_embed"),
    Row("head.cls_token", "head.cls_token"),
    Row("head.k.kernel", "head.k.weight", _IN_OUT),
    Row("head.v.kernel", "head.v.weight", _IN_OUT),
    Row("head.linear.kernel", "head.linear.weight", _IN_OUT),
    Row("head.linear.bias", "head.linear.bias"),
    *_JAX_BLOCK,
)
_JAX_TEXT = (
    Row("preprocessor.text_embedding.embedding", "preprocessor.text_embedding.weight"),
    Row("preprocessor.positional_embedding", "preprocessor.positional_embedding"),
    *_JAX_BLOCK,
)
_JAX_JOINT = (
    Row("image_projector.kernel", "image_projector.weight", _IN_OUT),
    Row("text_projector.kernel", "text_projector.weight", _IN_OUT),
    Row("log_logit_scale", "log_logit_scale"),
)

# ---------------------------------------------------------------------------- transformers

_QKV = "trunk.blocks.{i}.attn.qkv.weight"

_TRANSFORMERS_BLOCK = (
    Row("encoder.layers.{i}.rms_norm1.weight", "trunk.blocks.{i}.norm_1.weight"),
    Row("encoder.layers.{i}.attention.q_proj.weight", _QKV, third=0),
    Row("encoder.layers.{i}.attention.k_proj.weight", _QKV, third=1),
    Row("encoder.layers.{i}.attention.v_proj.weight", _QKV, third=2),
    Row("encoder.layers.{i}.attention.out_proj.weight", "trunk.blocks.{i}.attn.proj.weight"),
    Row("encoder.layers.{i}.rms_norm2.weight", "trunk.blocks.{i}.norm_2.weight"),
    Row("encoder.layers.{i}.ffn.gate_proj.weight", "trunk.blocks.{i}.mlp.fc1.weight"),
    Row("encoder.layers.{i}.ffn.down_proj.weight", "trunk.blocks.{i}.mlp.fc2.weight"),
    Row("encoder.layers.{i}.ffn.up_proj.weight", "trunk.blocks.{i}.mlp.fc3.weight"),
    Row("rms_norm.weight", "trunk.post_trunk_norm.weight"),
)
_TRANSFORMERS_VISION = (
    Row("embeddings.patch_embed.weight", PATCH_KERNEL),
    Row("embeddings.patch_embed.bias", "preprocessor.patchifier.proj.bias"),
    Row("embeddings.rms_norm.weight", "preprocessor.patchifier.norm.weight"),
    Row("embeddings.position_embedding.weight", "preprocessor.pos_embed", lead=True),
    Row("head.cls_token", "head.cls_token"),
    Row("head.k_proj.weight", "head.k.weight"),
    Row("head.v_proj.weight", "head.v.weight"),
    Row("head.output_proj.weight", "head.linear.weight"),
    Row("head.output_proj.bias", "head.linear.bias"),
    *_TRANSFORMERS_BLOCK,
)
_TRANSFORMERS_TEXT = (
    Row("embeddings.token_embedding.weight", "preprocessor.text_embedding.weight"),
    Row("embeddings.position_embedding.weight", "preprocessor.positional_embedding"),
    *_TRANSFORMERS_BLOCK,
)
_TRANSFORMERS_JOINT = (
    Row("visual_projection.weight", "image_projector.weight"),
    Row("text_projection.weight", "text_projector.weight"),
    Row("logit_scale", "log_logit_scale"),
)
# A buffer 0, 1, 2, … that checkpoints saved by older versions may contain.
_BUFFERS = ("embeddings.position_ids",)

# ---------------------------------------------------------------------------- timm, vision only

_TIMM = (
    Row("patch_embed.proj.weight", PATCH_KERNEL),
    Row("patch_embed.proj.bias", "preprocessor.patchifier.proj.bias"),
    Row("patch_embed.norm.weight", "preprocessor.patchifier.norm.weight"),
    Row("pos_embed", "preprocessor.pos_embed"),
    Row("blocks.{i}.norm1.weight", "trunk.blocks.{i}.norm_1.weight"),
    Row("blocks.{i}.attn.qkv.weight", "trunk.blocks.{i}.attn.qkv.weight"),
    Row("blocks.{i}.attn.proj.weight", "trunk.blocks.{i}.attn.proj.weight"),
    Row("blocks.{i}.norm2.weight", "trunk.blocks.{i}.norm_2.weight"),
    Row("blocks.{i}.mlp.fc1_g.weight", "trunk.blocks.{i}.mlp.fc1.weight"),
    Row("blocks.{i}.mlp.fc1_x.weight", "trunk.blocks.{i}.mlp.fc3.weight"),
    Row("blocks.{i}.mlp.fc2.weight", "trunk.blocks.{i}.mlp.fc2.weight"),
    Row("norm.weight", "trunk.post_trunk_norm.weight"),
)

# ---------------------------------------------------------------------------- layouts


def _both(
    layout: str,
    wrapper: str,
    vision: tuple[Row, ...],
    text: tuple[Row, ...],
    joint: tuple[Row, ...],
) -> tuple[Layout, Layout]:
    """The original code's two kinds of models: a vision encoder, and an image-text model."""
    return (
        Layout(layout, (Tower(wrapper, "", vision),)),
        Layout(
            layout,
            (
                Tower(wrapper + "image_encoder.", "image_encoder.", vision),
                Tower(wrapper + "text_encoder.", "text_encoder.", text),
                Tower(wrapper, "", joint),
            ),
        ),
    )


ORIGINAL = _both("original", "", (_TORCH_KERNEL, *_VISION), _TEXT, _JOINT)
MLX = _both("mlx", "", (_MLX_KERNEL, *_VISION), _TEXT, _JOINT)

_TRANSFORMERS = (
    Layout("transformers", (Tower("", "", _TRANSFORMERS_VISION, _BUFFERS),)),
    Layout(
        "transformers",
        (
            Tower("vision_model.", "image_encoder.", _TRANSFORMERS_VISION, _BUFFERS),
            Tower("text_model.", "text_encoder.", _TRANSFORMERS_TEXT, _BUFFERS),
            Tower("", "", _TRANSFORMERS_JOINT),
        ),
    ),
)

LAYOUTS: tuple[Layout, ...] = (
    *ORIGINAL,  # MLX has the same keys; the shape of its patch kernel tells it apart
    *_TRANSFORMERS,
    *_both("jax", "", _JAX_VISION, _JAX_TEXT, _JAX_JOINT),
    *_both("jax", "params.", _JAX_VISION, _JAX_TEXT, _JAX_JOINT),  # flax's usual outer dictionary
    Layout("timm", (Tower("", "", _TIMM),)),
)


def detect_layout(
    shapes: Mapping[str, tuple[int, ...]], file_names: Iterable[str]
) -> tuple[Layout, int]:
    """The layout that knows most of the stored keys, and how many it knows."""
    known = [sum(layout.original(key) is not None for key in shapes) for layout in LAYOUTS]
    best = max(range(len(LAYOUTS)), key=known.__getitem__)  # the first of equals
    layout = LAYOUTS[best]
    if layout in ORIGINAL and _has_mlx_kernel(layout, shapes, file_names):
        layout = MLX[ORIGINAL.index(layout)]
    return layout, known[best]


def _has_mlx_kernel(
    layout: Layout, shapes: Mapping[str, tuple[int, ...]], file_names: Iterable[str]
) -> bool:
    """Whether the patch kernel is (D, P, P, C), not (D, C, P, P); the file's name says if P = C."""
    kernel = shapes.get(layout.towers[0].stored_prefix + PATCH_KERNEL, ())
    if len(kernel) != 4:
        return False
    if kernel[1] == kernel[2] == kernel[3]:
        return any(name == "mlx_model.safetensors" for name in file_names)
    return kernel[1] == kernel[2]
