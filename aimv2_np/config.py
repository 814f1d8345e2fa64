"""What a model looks like: its sizes, and the 16 official models.

Field names are those of transformers' configurations; what is fixed in AIMv2 has none. How a
configuration is found for a checkpoint is in config_sources.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "OFFICIAL",
    "LiTConfig",
    "OfficialModel",
    "TextConfig",
    "VisionConfig",
    "official_name",
]

RMS_NORM_EPS = 1e-5  # aim/v2/torch/models.py; many ports say 1e-6
NATIVE_PATCHES = (112, 4096)  # the range the native checkpoint was trained on (model card)


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision encoder; the defaults are `large-patch14-224`.

    Unlike transformers' class, `use_head` is False unless the checkpoint has a pooling head: only
    `lit` has one. `image_size` is None for a native-resolution model.
    """

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    num_channels: int = 3
    image_size: int | None = 224
    patch_size: int = 14
    rms_norm_eps: float = RMS_NORM_EPS
    use_head: bool = False
    is_native: bool = False

    @property
    def grid_size(self) -> int | None:
        """Patches along one side of the image the positions were learned for, else None."""
        return None if self.image_size is None else self.image_size // self.patch_size


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text encoder; the defaults are the text tower of `large-patch14-224-lit`."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    max_position_embeddings: int = 77
    eos_token_id: int = 49407
    rms_norm_eps: float = RMS_NORM_EPS


@dataclass(frozen=True)
class LiTConfig:
    """Sizes of an image-text model: both towers and the space they are projected into."""

    vision: VisionConfig = VisionConfig(use_head=True)
    text: TextConfig = TextConfig()
    projection_dim: int = 768  # transformers' class default, 512, fits no official checkpoint
    max_logit_scale: float = 100.0


@dataclass(frozen=True)
class OfficialModel:
    """One of the 16 checkpoints that Apple published.

    `original_revision` is the commit of the hub repository that holds the original key layout;
    `main` holds transformers' layout since 2025-07. `parameters` counts what the layout stores.
    """

    name: str
    config: VisionConfig | LiTConfig
    original_revision: str

    @property
    def hub_id(self) -> str:
        """The repository on the Hugging Face hub."""
        return f"apple/aimv2-{self.name}"

    @property
    def parameters(self) -> int:
        """The number of parameters, computed from the configuration."""
        from .weights.tree import expected_shapes

        return sum(math.prod(shape) for shape in expected_shapes(self.config).values())

    @property
    def download_bytes(self) -> int:
        """Size of the float32 weights in bytes, as published."""
        return 4 * self.parameters


# width, heads, MLP hidden (arXiv 2411.14402, table 1; aim/v2/torch/models.py)
_SIZES = {
    "large": (1024, 8, 2816),
    "huge": (1536, 12, 4096),
    "1B": (2048, 16, 5632),
    "3B": (3072, 24, 8192),
}

# aim/v2/utils.py
_REVISIONS = {
    "large-patch14-224": "ac764a25c832c7dc5e11871daa588e98e3cdbfb7",
    "huge-patch14-224": "9e0bab0e0abb7b20796d2d0b37f39b7c3b1c1af1",
    "1B-patch14-224": "4d24a422f71e87d327d476bc405030fe6593d8b1",
    "3B-patch14-224": "df1cbc288096c9742ec8bd6709ff82757972338c",
    "large-patch14-336": "639423ae9f07319d24a7fc431b61908110d08d3a",
    "huge-patch14-336": "21528bd53a2438a84162e79f1f9a46453b88004c",
    "1B-patch14-336": "5a15f23f6757776fdd487283353a018677621939",
    "3B-patch14-336": "d1adb39ee92dfd7ecf3114b1ee3aa7e9027ce98f",
    "large-patch14-448": "cefb13f21003bdadba65bfbee956c82b976cd23d",
    "huge-patch14-448": "44e6440a24a8ea966ad0deadf5399a22d852bcc0",
    "1B-patch14-448": "7f292735d3a07a911559c0fabb3ad3e9d141713f",
    "3B-patch14-448": "70810b618e4456b724bacc8ef4d2d038060ceda6",
    "large-patch14-224-distilled": "d6d09b071e8ba31735c5e05ccd4b2a393020ce90",
    "large-patch14-336-distilled": "8fe1704e5cc1c80cefc99c194afcefe21dff1faa",
    "large-patch14-native": "cfe7bdbbc924a5f65272d5e2c27fe5f61771a629",
    "large-patch14-224-lit": "c2cd59a786c4c06f39d199c50d08cc2eab9f8605",
}


def _official(name: str) -> OfficialModel:
    size, _, resolution, *kind = name.split("-")
    width, heads, hidden = _SIZES[size]
    native = resolution == "native"
    vision = VisionConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_attention_heads=heads,
        image_size=None if native else int(resolution),
        is_native=native,
        use_head=kind == ["lit"],
    )
    config = LiTConfig(vision=vision) if kind == ["lit"] else vision
    return OfficialModel(name, config, _REVISIONS[name])


OFFICIAL: dict[str, OfficialModel] = {name: _official(name) for name in _REVISIONS}


def official_name(model: str) -> str | None:
    """The short name of an official model given as short name or hub id, else None."""
    name = model.removeprefix("apple/").removeprefix("aimv2-")
    return name if name in OFFICIAL else None
