"""AIMv2-LiT in PyTorch, small enough to train on two cores.

The trainer's own definition, for two reasons: transformers' text tower is not causal unless a
batch holds padding, and training on a random half of the patches wants a way in that
transformers lacks. Parameters carry the names of transformers' layout, so that a state dict *is* a
checkpoint. Nothing here runs after training: what is shipped is judged through `aimv2_np`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5


@dataclass(frozen=True)
class Sizes:
    """The shape of the shipped model: just under 8 MB in bfloat16."""

    image: int = 64  # pixels
    patch: int = 8
    width: int = 192
    heads: int = 6
    depth: int = 6
    hidden: int = 448
    text_width: int = 128
    text_heads: int = 4
    text_depth: int = 4
    text_hidden: int = 320
    vocabulary: int = 4000
    context: int = 32
    projection: int = 128

    @property
    def patches(self) -> int:
        """How many patches an image has: 64."""
        return (self.image // self.patch) ** 2


def _linear(inner: int, outer: int, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(inner, outer, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=inner**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Written out: for so few tokens the backward pass of PyTorch's fused kernel is far slower."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head self-attention without biases."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (_linear(width, width) for _ in range(3))
        self.out_proj = _linear(width, width)
        nn.init.trunc_normal_(self.out_proj.weight, std=(2 * depth * width) ** -0.5)

    def forward(self, x: Tensor, causal: bool) -> Tensor:  # noqa: D102
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        q, k, v = F.linear(x, weight).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        context = _attend(q, k, v, causal)
        return self.out_proj(context.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """`down(silu(gate x) * up x)`."""

    def __init__(self, width: int, hidden: int, depth: int):
        super().__init__()
        self.gate_proj = _linear(width, hidden)
        self.up_proj = _linear(width, hidden)
        self.down_proj = _linear(hidden, width)
        nn.init.trunc_normal_(self.down_proj.weight, std=(2 * depth * hidden) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        gate, up = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight])).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Block(nn.Module):
    """One pre-norm block; in training whole examples skip it at random (`drop_path`)."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int, drop_path: float):
        super().__init__()
        self.attention = Attention(width, heads, depth)
        self.ffn = SwiGLU(width, hidden, depth)
        self.rms_norm1 = nn.RMSNorm(width, eps=EPS)
        self.rms_norm2 = nn.RMSNorm(width, eps=EPS)
        self.drop_path = drop_path

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * (torch.rand(len(x), 1, 1, device=x.device) < keep).to(x) / keep

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:  # noqa: D102
        x = x + self._drop(self.attention(self.rms_norm1(x), causal))
        return x + self._drop(self.ffn(self.rms_norm2(x)))


class Layers(nn.Module):
    """The blocks, under the name that transformers gives them."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int, drop_path: float = 0.0):
        super().__init__()
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.layers = nn.ModuleList(Block(width, heads, hidden, depth, rate) for rate in rates)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:  # noqa: D102
        for layer in self.layers:
            x = layer(x, causal)
        return x


def _sine_cosine(sizes: Sizes) -> Tensor:
    """Where the learned positions start: as strong as the patches, near ones alike (N, D).

    Started as small noise they drown in the normed patches, and training stands still until they
    have grown. The layout is that of the native checkpoints; the base is 16, not 10000, because
    there are 8 rows and columns to tell apart, not hundreds.
    """
    side, quarter = sizes.image // sizes.patch, sizes.width // 4
    angle = torch.arange(side)[:, None] * 16 ** -(torch.arange(quarter) / quarter)
    row, column = (
        t.flatten(0, 1)
        for t in (angle[:, None].expand(-1, side, -1), angle[None].expand(side, -1, -1))
    )
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)


class PatchEmbedding(nn.Module):
    """Convolution, norm, learned positions; then, in training, a random part of the patches."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch)
        self.rms_norm = nn.RMSNorm(sizes.width, eps=EPS)
        self.position_embedding = nn.Embedding(sizes.patches, sizes.width)
        with torch.no_grad():
            self.position_embedding.weight.copy_(_sine_cosine(sizes))

    def forward(self, pixels: Tensor, keep: int | None = None) -> Tensor:  # noqa: D102
        x = self.rms_norm(self.patch_embed(pixels).flatten(2).transpose(1, 2))
        x = x + self.position_embedding.weight
        if keep is None or keep == x.shape[1]:
            return x
        chosen = torch.rand(x.shape[:2], device=x.device).argsort(dim=1)[:, :keep, None]
        return x.gather(1, chosen.expand(-1, -1, x.shape[-1]))


class PoolingHead(nn.Module):
    """One learned query, without a projection of its own, looks at all patches."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.k_proj, self.v_proj = _linear(width, width), _linear(width, width)
        self.output_proj = _linear(width, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        query = self.cls_token.expand(len(x), -1, -1)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (query, self.k_proj(x), self.v_proj(x))
        )
        context = _attend(q, k, v)
        return self.output_proj(context.transpose(1, 2).flatten(1))


class VisionTower(nn.Module):
    """Pixels (B, 3, 64, 64) to one vector (B, 192)."""

    def __init__(self, sizes: Sizes, drop_path: float = 0.0):
        super().__init__()
        self.embeddings = PatchEmbedding(sizes)
        self.encoder = Layers(sizes.width, sizes.heads, sizes.hidden, sizes.depth, drop_path)
        self.rms_norm = nn.RMSNorm(sizes.width, eps=EPS)
        self.head = PoolingHead(sizes.width, sizes.heads)

    def patch_features(self, pixels: Tensor, keep: int | None = None) -> Tensor:
        """The frozen part of the second step: (B, N, 192)."""
        return self.rms_norm(self.encoder(self.embeddings(pixels, keep)))

    def forward(self, pixels: Tensor, keep: int | None = None) -> Tensor:  # noqa: D102
        return self.head(self.patch_features(pixels, keep))


class TextEmbedding(nn.Module):
    """Tokens and learned positions."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.text_width)
        self.position_embedding = nn.Embedding(sizes.context, sizes.text_width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class TextTower(nn.Module):
    """Causal; the feature at the first end-of-text token, which is the last id of all."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.end = sizes.vocabulary - 1
        self.embeddings = TextEmbedding(sizes)
        self.encoder = Layers(
            sizes.text_width, sizes.text_heads, sizes.text_hidden, sizes.text_depth
        )
        self.rms_norm = nn.RMSNorm(sizes.text_width, eps=EPS)

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102
        x = self.rms_norm(self.encoder(self.embeddings(ids), causal=True))
        first_end = (ids == self.end).int().argmax(dim=1)
        return x[torch.arange(len(x)), first_end]


class LiT(nn.Module):
    """Both towers, their projections to the shared space, and the scale."""

    def __init__(self, sizes: Sizes, drop_path: float = 0.0):
        super().__init__()
        self.vision_model = VisionTower(sizes, drop_path)
        self.text_model = TextTower(sizes)
        self.visual_projection = _linear(sizes.width, sizes.projection)
        self.text_projection = _linear(sizes.text_width, sizes.projection)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP's start

    def images(self, pixels: Tensor) -> Tensor:
        """Unit vectors (B, P) of images."""
        return F.normalize(self.visual_projection(self.vision_model(pixels)), dim=-1)

    def texts(self, ids: Tensor) -> Tensor:
        """Unit vectors (B, P) of token ids."""
        return F.normalize(self.text_projection(self.text_model(ids)), dim=-1)

    def scale(self) -> Tensor:
        """The factor on the cosine, clamped as in the paper: at most 100."""
        return self.logit_scale.clamp(0, 4.6052).exp()
