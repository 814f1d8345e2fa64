"""A port of AIMv2 to PyTorch that owes nothing to the package: what the verifier is tried on.

Written from the paper and the original's layer list, with every step a method, so that a test can
replace one by a mistaken one. It notes its activations as it goes.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def _tensors(value: Any, dtype: torch.dtype) -> Any:
    if value is None:
        return None
    if hasattr(value, "_fields"):
        return SimpleNamespace(**{f: _tensors(getattr(value, f), dtype) for f in value._fields})
    if isinstance(value, np.ndarray):
        return torch.tensor(np.ascontiguousarray(value)).to(dtype)
    return [_tensors(inner, dtype) for inner in value]


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


class Port:
    """`port(case)` runs a case and returns its activations as NumPy arrays."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = model.config, dtype
        self.w = _tensors(model.params, dtype)
        self.joint = hasattr(self.w, "vision")
        self.vision = self.w.vision if self.joint else self.w
        self.text = self.w.text if self.joint else None
        self.vc = model.config.vision if self.joint else model.config
        self.tc = model.config.text if self.joint else None
        self.heads = {"vision": self.vc.num_attention_heads}
        if self.joint:
            self.heads["text"] = self.tc.num_attention_heads
        self.eps = 1e-5
        self.order = {t: list(range(len(self.tower(t).blocks))) for t in self.heads}
        self.layer = 0

    def tower(self, name: str) -> Any:
        return self.vision if name == "vision" else self.text

    def note(self, name: str, value: Tensor) -> Tensor:
        self.taps[name] = wide(value.detach()).numpy().copy()
        return value

    @torch.inference_mode()
    def __call__(self, case: Any) -> dict[str, np.ndarray]:
        self.taps: dict[str, np.ndarray] = {}
        self.case = case
        image = text = None
        if case.pixel_values is not None:
            image = self.encode_image(torch.tensor(np.asarray(case.pixel_values)).to(self.dtype))
        if case.input_ids is not None:
            mask = case.attention_mask
            mask = None if mask is None else torch.tensor(np.asarray(mask)).bool()
            text = self.encode_text(torch.tensor(np.asarray(case.input_ids)), mask)
        if self.joint:
            self.join(image, text)
        return self.taps

    # ------------------------------------------------------------------ pieces

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        upcast = wide(x)
        unit = upcast * torch.rsqrt(upcast.square().mean(-1, keepdim=True) + self.eps)
        return unit.to(x.dtype) * weight

    def pixels(self, pixels: Tensor) -> Tensor:
        return pixels

    def kernel(self) -> Tensor:
        return self.vision.patch_weight

    def patches(self, pixels: Tensor) -> Tensor:
        out = F.conv2d(pixels, self.kernel(), self.vision.patch_bias, stride=self.vc.patch_size)
        return self.flatten(out)

    def flatten(self, grid: Tensor) -> Tensor:
        return grid.flatten(2).transpose(1, 2)

    def patch_norm(self, x: Tensor) -> Tensor:
        return self.norm(x, self.vision.patch_norm)

    def sincos(self, coordinate: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.vc.hidden_size // 4
        omega = torch.arange(quarter, dtype=torch.float64) / quarter
        angle = coordinate.double().flatten()[:, None] * (1 / 10000**omega)[None]
        return angle.sin(), angle.cos()

    def computed_positions(self, rows: int, columns: int) -> Tensor:
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.cat([*self.sincos(x), *self.sincos(y)], dim=1)

    def learned_positions(self, rows: int, columns: int) -> Tensor:
        table = self.vision.pos_embed
        side = math.isqrt(len(table))
        if (rows, columns) == (side, side):
            return table
        grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2).double()
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        return grid.permute(0, 2, 3, 1).reshape(rows * columns, -1)

    def positions(self, rows: int, columns: int) -> Tensor:
        which = self.computed_positions if self.vision.pos_embed is None else self.learned_positions
        return which(rows, columns).to(self.dtype)

    def embed(self, patches: Tensor, positions: Tensor) -> Tensor:
        return self.note("vision.patch_norm", self.patch_norm(patches)) + positions

    def encode_image(self, pixels: Tensor) -> Tensor | None:
        pixels = self.note("pixel_values", self.pixels(pixels))
        rows, columns = (n // self.vc.patch_size for n in pixels.shape[2:])
        patches = self.note("vision.patch_embed", self.patches(pixels))
        positions = self.note("vision.pos_embed", self.positions(rows, columns))
        x = self.note("vision.embed", self.embed(patches, positions))
        x = self.trunk(x, "vision", None)
        normed = self.note("vision.norm", self.final_norm(x, self.vision))
        if self.vision.head is None:
            return None
        return self.note("vision.pooled", self.pool(normed, x))

    # ------------------------------------------------------------------ blocks

    def trunk(self, x: Tensor, tower: str, mask: Tensor | None) -> Tensor:
        for i, which in enumerate(self.order[tower]):
            self.layer = i
            if which is not None:
                x = self.block(x, self.tower(tower).blocks[which], tower, mask)
            x = self.note(f"{tower}.blocks.{i}.resid_post", x)
        return x

    def block(self, x: Tensor, p: Any, tower: str, mask: Tensor | None) -> Tensor:
        at = f"{tower}.blocks.{self.layer}."
        normed = self.note(at + "norm_1", self.norm_1(x, p))
        attended = self.attention(normed, p, tower, mask, at + "attn.")
        middle = self.note(at + "resid_mid", self.add_attention(x, attended, normed, p))
        normed = self.note(at + "norm_2", self.norm_2(middle, p, x))
        return self.add_mlp(middle, self.mlp(normed, p, at + "mlp."), normed, x, p)

    def norm_1(self, x: Tensor, p: Any) -> Tensor:
        return self.norm(x, p.norm_1)

    def norm_2(self, middle: Tensor, p: Any, x: Tensor) -> Tensor:
        return self.norm(middle, p.norm_2)

    def add_attention(self, x: Tensor, attended: Tensor, normed: Tensor, p: Any) -> Tensor:
        return x + attended

    def add_mlp(self, middle: Tensor, out: Tensor, normed: Tensor, x: Tensor, p: Any) -> Tensor:
        return middle + out

    def qkv(self, x: Tensor, p: Any, tower: str) -> list[Tensor]:
        return [x @ weight.T for weight in p.qkv]

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])

    def hidden(self, tower: str, tokens: int, mask: Tensor | None) -> Tensor | None:
        """True where a query may not look, (B or 1, 1, T, T)."""
        if tower == "vision":
            return None
        hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)[None, None]
        return hidden if mask is None else hidden | ~mask[:, None, None, :]

    def weigh(self, scores: Tensor) -> Tensor:
        return wide(scores).softmax(-1).to(scores.dtype)

    def proj(self, merged: Tensor, p: Any) -> Tensor:
        return merged @ p.proj.T

    def attention(self, x: Tensor, p: Any, tower: str, mask: Tensor | None, at: str) -> Tensor:
        q, k, v = (
            self.note(at + name, self.split(y, self.heads[tower]))
            for name, y in zip("qkv", self.qkv(x, p, tower), strict=True)
        )
        scores = self.scores(q, k)
        hidden = self.hidden(tower, x.shape[1], mask)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        pattern = self.note(at + "pattern", self.weigh(self.note(at + "scores", scores)))
        context = self.note(at + "context", pattern @ v)
        return self.note(at + "out", self.proj(self.merge(context), p))

    def activate(self, gate: Tensor) -> Tensor:
        return F.silu(gate)

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activate(gate) * up

    def mlp(self, x: Tensor, p: Any, at: str) -> Tensor:
        gate, up = self.note(at + "gate", x @ p.fc1.T), self.note(at + "up", x @ p.fc3.T)
        hidden = self.note(at + "hidden", self.combine(gate, up))
        return self.note(at + "out", hidden @ p.fc2.T)

    def final_norm(self, x: Tensor, tower: Any) -> Tensor:
        return self.norm(x, tower.post_trunk_norm)

    # ------------------------------------------------------------------ heads

    def pool_scores(self, query: Tensor, k: Tensor) -> Tensor:
        return self.scores(query, k)

    def pool_query(self) -> Tensor:
        return self.vision.head.cls_token[None, None]

    def pool(self, x: Tensor, raw: Tensor) -> Tensor:
        head, heads = self.vision.head, self.heads["vision"]
        k = self.note("vision.head.k", self.split(x @ head.k.T, heads))
        v = self.note("vision.head.v", self.split(x @ head.v.T, heads))
        query = self.split(self.pool_query(), heads)
        scores = self.note("vision.head.scores", self.pool_scores(query, k))
        pattern = self.note("vision.head.pattern", self.weigh(scores))
        context = self.note("vision.head.context", pattern @ v)
        return self.pool_out(self.merge(context)[:, 0])

    def pool_out(self, context: Tensor) -> Tensor:
        return context @ self.vision.head.linear_weight.T + self.vision.head.linear_bias

    def token_embed(self, ids: Tensor) -> Tensor:
        return self.text.text_embedding[ids]

    def text_positions(self, tokens: int) -> Tensor:
        return self.text.positional_embedding[:tokens]

    def encode_text(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        self.note("input_ids", ids)
        tokens = self.note("text.token_embed", self.token_embed(ids))
        positions = self.note("text.pos_embed", self.text_positions(ids.shape[1]))
        x = self.trunk(self.note("text.embed", tokens + positions), "text", mask)
        normed = self.note("text.norm", self.final_norm(x, self.text))
        return self.note("text.pooled", self.text_pool(normed, ids, x))

    def text_pool(self, x: Tensor, ids: Tensor, raw: Tensor) -> Tensor:
        end = (ids == self.tc.eos_token_id).int().argmax(-1)
        return x[torch.arange(len(x)), end]

    def project(self, pooled: Tensor, which: str) -> Tensor:
        return pooled @ getattr(self.w, f"{which}_projector").T

    def normalise(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    def temperature(self) -> Tensor:
        limit = math.log(self.config.max_logit_scale)
        return self.w.log_logit_scale.clamp(0, limit).exp()

    def logits(self, image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        return scale * image @ text.T

    def join(self, image: Tensor | None, text: Tensor | None) -> None:
        embeds = {}
        for which, pooled in (("image", image), ("text", text)):
            if pooled is not None:
                features = self.note(f"{which}_features", self.project(pooled, which))
                embeds[which] = self.note(f"{which}_embeds", self.normalise(features))
        if len(embeds) == 2:
            scale = self.note("logit_scale", self.temperature())
            logits = self.logits(embeds["image"], embeds["text"], scale)
            self.note("logits_per_image", logits)
            self.note("logits_per_text", logits.T)
