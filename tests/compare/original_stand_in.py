"""Modules with the names and the call signatures of the original code's, `aim.v2.torch.models`.

Written for these tests, from the formulas in ops.py: the adapter of the original code can so be
tested where that code is not installed. It is plain PyTorch, composed step by step.
"""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn


def _silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.qkv, self.proj = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, False),
        )
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).unbind(2)
        scores = torch.einsum("bnhe,bmhe->bhnm", q, k) / math.sqrt(q.shape[-1])
        if self.causal:
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
        return self.proj(torch.einsum("bhnm,bmhe->bnhe", scores.softmax(-1), v).reshape(b, n, d))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc3 = nn.Linear(width, hidden, False), nn.Linear(width, hidden, False)
        self.fc2 = nn.Linear(hidden, width, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(_silu(self.fc1(x)) * self.fc3(x))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.attn, self.mlp = Attention(width, heads, causal), MLP(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Trunk(nn.Module):
    def __init__(self, depth: int, width: int, *block: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, *block) for _ in range(depth))
        self.post_trunk_norm = nn.RMSNorm(width, 1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.post_trunk_norm(x)


class SinCos(nn.Module):
    def forward(self, rows: int, columns: int, width: int) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        rate = 10000 ** (-torch.arange(width // 4) / (width / 4))
        angles = [a.reshape(-1, 1) * rate for a in (x, y)]
        return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)


class Patchifier(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)
        self.norm, self.patch = nn.RMSNorm(width, 1e-5), patch

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(pixels).flatten(2).mT)


class ImagePreprocessor(nn.Module):
    def __init__(self, patchifier: Patchifier, width: int, positions: int | None) -> None:
        super().__init__()
        self.patchifier, learned = patchifier, positions is not None
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width)) if learned else SinCos()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens, position = self.patchifier(pixels), self.pos_embed
        if isinstance(position, SinCos):
            rows, columns = (n // self.patchifier.patch for n in pixels.shape[2:])
            position = position(rows, columns, tokens.shape[-1])
        return tokens + position


class PoolingHead(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cls_token, self.heads = nn.Parameter(torch.zeros(1, 1, width)), heads
        self.k, self.v = nn.Linear(width, width, False), nn.Linear(width, width, False)
        self.linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        k, v = (part.view(b, n, self.heads, -1) for part in (self.k(x), self.v(x)))
        q = self.cls_token.view(self.heads, -1)
        scores = torch.einsum("he,bnhe->bhn", q, k) / math.sqrt(q.shape[-1])
        return self.linear(torch.einsum("bhn,bnhe->bhe", scores.softmax(-1), v).reshape(b, d))


class AIMv2VisionEncoder(nn.Module):
    def __init__(self, *, img_size: int, patch_size: int, embed_dim: int, mlp_hidden_dim: int,
                 num_blocks: int, num_heads: int, num_channels: int = 3, head_num_heads: int = 8,
                 head_linear_bias: bool = False, pos_embed_type: str = "absolute",
                 head_type: str | None = None) -> None:  # fmt: skip
        super().__init__()
        patchifier = Patchifier(num_channels, embed_dim, patch_size)
        positions = (img_size // patch_size) ** 2 if pos_embed_type == "absolute" else None
        self.preprocessor = ImagePreprocessor(patchifier, embed_dim, positions)
        self.trunk = Trunk(num_blocks, embed_dim, mlp_hidden_dim, num_heads, False)
        self.head = PoolingHead(embed_dim, head_num_heads) if head_type else nn.Identity()
        assert head_linear_bias or not head_type

    def forward(self, input_pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(self.preprocessor(input_pixels)))


class TextPreprocessor(nn.Module):
    def __init__(self, vocabulary: int, width: int, length: int, end: int) -> None:
        super().__init__()
        self.text_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding, self.end = nn.Parameter(torch.zeros(length, width)), end

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        position = self.positional_embedding[: input_ids.shape[1]]
        return self.text_embedding(input_ids) + position, input_ids == self.end


class FirstEnd(nn.Module):
    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return x[torch.arange(len(x)), ends.int().argmax(1)]


class TextTower(nn.Module):
    def __init__(self, vocabulary: int, width: int, length: int, end: int, depth: int, *block: Any):
        super().__init__()
        self.preprocessor = TextPreprocessor(vocabulary, width, length, end)
        self.trunk, self.head = Trunk(depth, width, *block, True), FirstEnd()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x, ends = self.preprocessor(input_ids)
        return self.head(self.trunk(x), ends)


class AIMv2LiT(nn.Module):
    def __init__(self, *, img_size: int, patch_size: int, projection_dim: int,
                 vision_embed_dim: int, vision_mlp_hidden_dim: int, vision_num_blocks: int,
                 vision_num_heads: int, text_embed_dim: int, text_mlp_embed_dim: int,
                 text_num_blocks: int, text_num_heads: int, vocab_size: int,
                 max_context_length: int, eos_token_id: int, max_logit_scale: float,
                 num_channels: int) -> None:  # fmt: skip
        super().__init__()
        self.image_encoder = AIMv2VisionEncoder(
            img_size=img_size, patch_size=patch_size, embed_dim=vision_embed_dim,
            mlp_hidden_dim=vision_mlp_hidden_dim, num_blocks=vision_num_blocks,
            num_heads=vision_num_heads, num_channels=num_channels,
            head_num_heads=vision_num_heads, head_linear_bias=True, head_type="attention-pool",
        )  # fmt: skip
        self.text_encoder = TextTower(
            vocab_size, text_embed_dim, max_context_length, eos_token_id, text_num_blocks,
            text_mlp_embed_dim, text_num_heads,
        )  # fmt: skip
        self.image_projector = nn.Linear(vision_embed_dim, projection_dim, bias=False)
        self.text_projector = nn.Linear(text_embed_dim, projection_dim, bias=False)
        self.log_logit_scale = nn.Parameter(torch.zeros([]))
        self.most = math.log(max_logit_scale)

    def encode_image(self, input_pixels: torch.Tensor) -> torch.Tensor:
        return self.image_projector(self.image_encoder(input_pixels))

    def encode_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.text_projector(self.text_encoder(input_ids))

    def forward(
        self, input_pixels: torch.Tensor, input_ids: torch.Tensor, output_features: bool = False
    ) -> tuple[torch.Tensor, ...]:
        image, text = (
            x / x.norm(dim=-1, keepdim=True)
            for x in (self.encode_image(input_pixels), self.encode_text(input_ids))
        )
        logits = self.log_logit_scale.clamp(0, self.most).exp() * image @ text.T
        return (logits, logits.T, image, text) if output_features else (logits, logits.T)


def modules() -> dict[str, ModuleType | SimpleNamespace]:
    """What `import aim.v2.torch.models` needs in sys.modules."""
    models = SimpleNamespace(AIMv2VisionEncoder=AIMv2VisionEncoder, AIMv2LiT=AIMv2LiT)
    return {
        "aim": ModuleType("aim"),
        "aim.v2": ModuleType("aim.v2"),
        "aim.v2.torch": ModuleType("aim.v2.torch"),
        "aim.v2.torch.models": models,
    }
