"""What the models return. Field names are those of transformers' Aimv2 outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Classification", "EncoderOutput", "LiTOutput"]

Array = NDArray[Any]


@dataclass(frozen=True)
class EncoderOutput:
    """Output of one encoder (transformers: BaseModelOutputWithPooling).

    `last_hidden_state` (B, N, D) is taken after the final norm. `pooler_output` (B, D) is the
    pooling head's or the end-of-text token's feature, None for an encoder without a head.
    `hidden_states`: the embedding and the residual stream after each block, before the final norm,
    each (B, N, D). `attentions`: the softmax of each block, (B, H, N, N).
    """

    last_hidden_state: Array
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class LiTOutput:
    """Output of an image-text model (transformers: Aimv2Output, without the training loss).

    Embeddings are projected and normalised, (B, projection width); logits are scaled by the
    temperature. What was not asked for (no images, or no texts) is None.
    """

    logits_per_image: Array | None = None  # (images, texts)
    logits_per_text: Array | None = None  # (texts, images)
    image_embeds: Array | None = None
    text_embeds: Array | None = None
    vision_model_output: EncoderOutput | None = None
    text_model_output: EncoderOutput | None = None


@dataclass(frozen=True)
class Classification:
    """Zero-shot probabilities, (B, K): each row sums to 1 over the K labels. Prints as a table."""

    labels: tuple[str, ...]
    probabilities: Array
    images: tuple[str, ...]  # a name for each row

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most probable labels of each image, best first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        rows = zip(self.probabilities, order, strict=True)
        return [[(self.labels[j], float(row[j])) for j in best] for row, best in rows]

    def __str__(self) -> str:
        width = max(len(label) for label in self.labels)
        lines = []
        for image, ranked in zip(self.images, self.top(len(self.labels)), strict=True):
            lines.append(image)
            for label, p in ranked:
                bar = "█" * round(20 * p)
                lines.append(f"  {label:<{width}}  {100 * p:5.1f} %  {bar}".rstrip())
        return "\n".join(lines)


Output = TypeVar("Output", EncoderOutput, LiTOutput)


def to_host(output: Output, to_numpy: Callable[[Any], Array]) -> Output:
    """The same output with every array of a backend turned into a NumPy array."""

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(to_numpy, value))
        if isinstance(value, EncoderOutput):
            return to_host(value, to_numpy)
        return None if value is None else to_numpy(value)

    return replace(output, **{f.name: convert(getattr(output, f.name)) for f in fields(output)})
