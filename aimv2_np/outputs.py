"""What the models return. Field names are those of transformers' Aimv2 outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .backend import Backend

__all__ = ["Classification", "EncoderOutput", "HostArray", "LiTOutput"]

HostArray: TypeAlias = NDArray[Any]  # of NumPy, whatever the backend computes with


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """Output of one encoder (transformers: BaseModelOutputWithPooling).

    `last_hidden_state` (B, N, D) is taken after the final norm. `pooler_output` (B, D) is the
    pooling head's or the end-of-text token's feature, None for an encoder without a head.
    `hidden_states`: the embedding and the residual stream after each block, before the final norm,
    each (B, N, D). `attentions`: the softmax of each block, (B, H, N, N).
    """

    last_hidden_state: HostArray
    pooler_output: HostArray | None = None
    hidden_states: tuple[HostArray, ...] | None = None
    attentions: tuple[HostArray, ...] | None = None

    @classmethod
    def kept(cls, features: Any, pooled: Any, recorded: Mapping[str, Any]) -> EncoderOutput:
        """With what was recorded: patterns are the attentions, all else is hidden states."""
        patterns = tuple(a for name, a in recorded.items() if name.endswith("pattern"))
        residual = tuple(a for name, a in recorded.items() if not name.endswith("pattern"))
        return cls(features, pooled, residual or None, patterns or None)


@dataclass(frozen=True, eq=False)
class LiTOutput:
    """Output of an image-text model (transformers: Aimv2Output, without the training loss).

    Embeddings are projected and normalised, (B, projection width); logits are scaled by the
    temperature. What was not asked for (no images, or no texts) is None.
    """

    logits_per_image: HostArray | None = None  # (images, texts)
    logits_per_text: HostArray | None = None  # (texts, images)
    image_embeds: HostArray | None = None
    text_embeds: HostArray | None = None
    vision_model_output: EncoderOutput | None = None
    text_model_output: EncoderOutput | None = None


@dataclass(frozen=True, eq=False)
class Classification:
    """Zero-shot probabilities, (B, K): each row sums to 1 over the K labels. Prints as a table."""

    labels: tuple[str, ...]
    probabilities: HostArray
    images: tuple[str, ...]  # a name for each row

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most probable labels of each image, best first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        rows = zip(self.probabilities, order, strict=True)
        return [[(self.labels[j], float(row[j])) for j in best] for row, best in rows]

    def __str__(self) -> str:
        width = max(map(len, self.labels), default=0)
        lines = []
        for image, ranked in zip(self.images, self.top(len(self.labels)), strict=True):
            lines.append(image)
            for label, p in ranked:
                bar = "█" * round(20 * np.nan_to_num(p))
                lines.append(f"  {label:<{width}}  {100 * p:5.1f} %  {bar}".rstrip())
        return "\n".join(lines)


Output = TypeVar("Output", EncoderOutput, LiTOutput)


def to_host(output: Output, backend: Backend) -> Output:
    """The same output with every array of a backend turned into a NumPy array."""

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(backend.to_numpy, value))
        if isinstance(value, EncoderOutput):
            return to_host(value, backend)
        return None if value is None else backend.to_numpy(value)

    return replace(output, **{f.name: convert(getattr(output, f.name)) for f in fields(output)})
