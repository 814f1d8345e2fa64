"""Ports to judge: the package itself in float32, right or with GELU for SiLU, and one written from
the README of a conformance pack, with nothing of the package."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import aimv2_np
from aimv2_np.backend import NUMPY
from aimv2_np.verify import Case, reference
from aimv2_np.verify.inputs import Inputs, make_inputs

Outputs = dict[str, dict[str, Any]]


# ---------------------------------------------------------------------------- the package


@cache
def model() -> Any:
    return reference("emoji-lit")


@cache
def inputs() -> Inputs:
    return make_inputs(model())


def gelu(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi, dtype=x.dtype) * (x + 0.044715 * x**3)))


def one() -> Case:
    """The case that a pack has besides."""
    return Case("one", inputs().cases[0].pixel_values[:1])


@cache
def _outputs(mistaken: bool) -> Outputs:
    backend = replace(NUMPY, silu=gelu) if mistaken else NUMPY
    port = aimv2_np.load("emoji-lit", backend=backend)
    found = {
        case.name: dict(
            port.trace(
                pixel_values=case.pixel_values,
                input_ids=case.input_ids,
                attention_mask=case.attention_mask,
                interpolate_positions=case.interpolate,
            )
        )
        for case in (*inputs().cases, one())
    }
    pixels = {f"pixel_values_{i}": port.preprocess(s)[0] for i, s in enumerate(inputs().sources)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one text is too long on purpose
        tokens = port.tokenize(inputs().texts)
    return found | {"raw": {**pixels, **tokens._asdict()}}


def outputs(mistaken: bool = False) -> Outputs:
    """Activations by case and name, which a test may change; for a pack."""
    return {case: dict(arrays) for case, arrays in _outputs(mistaken).items()}


def run(pixel_values: Any = None, input_ids: Any = None, attention_mask: Any = None) -> Any:
    """The right port as a function; it resamples positions where it must."""
    given = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
    return dict(
        aimv2_np.load("emoji-lit", backend="numpy").trace(**given, interpolate_positions=True)
    )


# ---------------------------------------------------------------------------- from the README


def read(path: Path) -> dict[str, Any]:
    """A safetensors file; bfloat16 as float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    kinds = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "U8": "u1", "BF16": "<u2"}

    def array(entry: Any) -> Any:
        begin, end = (start + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values

    header = json.loads(data[8:start])
    return {name: array(entry) for name, entry in header.items() if name != "__metadata__"}


def rms(x: Any, w: Any) -> Any:
    return w * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-5))


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def resampling(old: int, new: int) -> Any:
    s = old / new
    i, j = np.arange(new)[:, None], np.arange(old)
    t = abs(j + 1 / 2 - (i + 1 / 2) * s) / max(s, 1)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    w = np.where(t < 1, near, np.where(t < 2, far, 0))
    return w / w.sum(axis=1, keepdims=True)


@dataclass
class Tower:
    """One encoder in transformers' layout, below a prefix of its parameters' names."""

    weights: dict[str, Any]
    config: dict[str, Any]
    prefix: str
    name: str
    note: Callable[[str, Any], Any]

    def w(self, name: str) -> Any:
        return self.weights[f"{self.prefix}{name}"].astype(np.float32)

    def heads(self, x: Any) -> Any:
        return np.stack(np.split(x, self.config["num_attention_heads"], axis=-1), axis=1)

    def attend(self, q: Any, k: Any, v: Any, sees: Any, name: str) -> Any:
        """Heads (B, H, N, E) side by side again."""
        scores = np.einsum("bhne,bhme->bhnm", q, k) / np.float32(np.sqrt(q.shape[-1]))
        pattern = self.note(f"{name}.pattern", softmax(np.where(sees, scores, -np.inf)))
        context = np.einsum("bhnm,bhme->bhne", pattern.astype(np.float32), v)
        return self.note(f"{name}.context", np.concatenate(np.moveaxis(context, 1, 0), axis=-1))

    def block(self, i: int, x: Any, sees: Any) -> Any:
        def note(name: str, value: Any) -> Any:
            return self.note(f"{self.name}.blocks.{i}.{name}", value)

        def linear(x: Any, name: str) -> Any:
            return x @ self.w(f"encoder.layers.{i}.{name}.weight").T

        h = note("norm_1", rms(x, self.w(f"encoder.layers.{i}.rms_norm1.weight")))
        q, k, v = (note(f"attn.{n}", linear(h, f"attention.{n}_proj")) for n in "qkv")
        inside = f"{self.name}.blocks.{i}.attn"
        h = self.attend(self.heads(q), self.heads(k), self.heads(v), sees, inside)
        x = note("resid_mid", x + note("attn.out", linear(h, "attention.out_proj")))
        h = note("norm_2", rms(x, self.w(f"encoder.layers.{i}.rms_norm2.weight")))
        gate, up = (
            note("mlp.gate", linear(h, "ffn.gate_proj")),
            note("mlp.up", linear(h, "ffn.up_proj")),
        )
        h = note("mlp.hidden", gate / (1 + np.exp(-gate)) * up)
        return note("resid_post", x + note("mlp.out", linear(h, "ffn.down_proj")))

    def blocks(self, x: Any, sees: Any) -> Any:
        for i in range(self.config["num_hidden_layers"]):
            x = self.block(i, x, sees)
        return self.note(f"{self.name}.norm", rms(x, self.w("rms_norm.weight")))

    def vision(self, pixels: Any) -> Any:
        width, patch = self.config["hidden_size"], self.config["patch_size"]
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        kernel, bias = (
            self.w("embeddings.patch_embed.weight"),
            self.w("embeddings.patch_embed.bias"),
        )
        tokens = [
            np.einsum("bcyx,dcyx->bd", pixels[:, :, r : r + patch, c : c + patch], kernel) + bias
            for r in range(0, rows * patch, patch)
            for c in range(0, columns * patch, patch)
        ]
        x = self.note("vision.patch_embed", np.stack(tokens, axis=1))
        x = self.note("vision.patch_norm", rms(x, self.w("embeddings.rms_norm.weight")))
        if self.config["is_native"]:
            f = 10000 ** (-np.arange(width // 4) / (width / 4))
            y, c = (n.reshape(-1, 1) * f for n in np.indices((rows, columns)))
            position = np.concatenate([np.sin(c), np.cos(c), np.sin(y), np.cos(y)], axis=1)
        else:
            table = self.w("embeddings.position_embedding.weight")
            side = int(np.sqrt(len(table)))
            down, across = resampling(side, rows), resampling(side, columns)
            square = table.reshape(side, side, width)
            position = np.einsum("ri,cj,ijd->rcd", down, across, square).reshape(-1, width)
        position = self.note("vision.pos_embed", position.astype(np.float32))
        x = self.blocks(self.note("vision.embed", x + position), True)
        if not self.config["use_head"]:
            return None
        k, v = (self.note(f"vision.head.{n}", x @ self.w(f"head.{n}_proj.weight").T) for n in "kv")
        query = self.heads(np.broadcast_to(self.w("head.cls_token"), (len(x), 1, width)))
        h = self.attend(query, self.heads(k), self.heads(v), True, "vision.head")[:, 0]
        h = h @ self.w("head.output_proj.weight").T + self.w("head.output_proj.bias")
        return self.note("vision.pooled", h)

    def text(self, ids: Any, mask: Any) -> Any:
        length = ids.shape[1]
        x = self.note("text.token_embed", self.w("embeddings.token_embedding.weight")[ids])
        position = self.w("embeddings.position_embedding.weight")[:length]
        x = self.note("text.embed", x + self.note("text.pos_embed", position))
        causal = np.arange(length) <= np.arange(length)[:, None]
        x = self.blocks(x, causal if mask is None else causal & (mask[:, None, None] == 1))
        first = [list(row).index(self.config["eos_token_id"]) for row in ids]
        return self.note("text.pooled", np.stack([row[e] for row, e in zip(x, first, strict=True)]))


def from_readme(pack: Path, weights: Path) -> dict[str, Any]:
    """A port's outputs in float32, from a pack and a checkpoint in transformers' layout."""
    about, parameters = json.loads((pack / "model.json").read_text()), read(weights)
    found: dict[str, Any] = {}
    given = read(pack / "inputs.safetensors")
    for case in about["cases"]:
        name = case["name"]

        def note(tap: str, value: Any, name: str = name) -> Any:
            found[f"{name}/{tap}"] = value
            return value

        arrays = {k.split("/")[1]: v for k, v in given.items() if k.split("/")[0] == name}
        _case(about["config"], parameters, arrays, note)
    return found


def _case(config: Any, w: dict[str, Any], given: dict[str, Any], note: Callable[..., Any]) -> None:
    lit = "vision" in config
    image = text = None
    if "pixel_values" in given:
        sizes, prefix = (config["vision"], "vision_model.") if lit else (config, "")
        image = Tower(w, sizes, prefix, "vision", note).vision(given["pixel_values"])
    if "input_ids" in given:
        tower = Tower(w, config["text"], "text_model.", "text", note)
        text = tower.text(given["input_ids"], given.get("attention_mask"))
    if not lit:
        return
    embeds = dict(_embeds(w, {"image": image, "text": text}, note))
    if len(embeds) == 2:
        most = np.log(config["max_logit_scale"])
        scale = note("logit_scale", np.exp(np.clip(w["logit_scale"], 0, most)))
        logits = note("logits_per_image", scale * embeds["image"] @ embeds["text"].T)
        note("logits_per_text", logits.T)


def _embeds(w: dict[str, Any], pooled: dict[str, Any], note: Callable[..., Any]) -> Iterator[Any]:
    for tower, name in (("image", "visual"), ("text", "text")):
        if pooled[tower] is not None:
            features = pooled[tower] @ w[f"{name}_projection.weight"].T
            note(f"{tower}_features", features)
            length = np.sqrt(np.sum(features**2, axis=-1, keepdims=True))
            yield tower, note(f"{tower}_embeds", features / np.maximum(length, 1e-12))
