"""How well each text fits an image, and what each patch adds to that.

From the last features of the patches on, everything that leads to a logit is linear but for one
division: the pooling head adds up values by its attention, then come two matrices, the division by
the result's length, and the product with a text. With the attention and that length as they are, a
logit is a sum of one term per patch and one that no patch has (the head's bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..errors import ConfigError
from ..layers import merge_heads
from ..models import LiT
from ..ops import Array
from ..pipelines import LiTPipeline

__all__ = ["Texts", "against_others", "contributions", "texts_of"]

_ROUNDING = 0.01  # of all terms: more than any dtype's, less than any other formula's


@dataclass(frozen=True, eq=False)
class Texts:
    """What a model says of K texts, and the N patches' parts in it.

    `contributions` (K, N) and `constant` (K,): each row and its constant sum to the text's logit.
    """

    labels: tuple[str, ...]
    prompt: str
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    contributions: NDArray[np.float64]
    constant: NDArray[np.float64]

    def to_json(self) -> list[dict[str, Any]]:
        """Text by text, the most probable first."""
        return [
            {
                "label": self.labels[k],
                "probability": float(self.probabilities[k]),
                "logit": float(self.logits[k]),
                "contributions": self.contributions[k].tolist(),
                "constant": float(self.constant[k]),
            }
            for k in self.ranking()
        ]

    def ranking(self) -> list[int]:
        """Their indices, the most probable first."""
        return [int(k) for k in np.argsort(-self.probabilities, kind="stable")]


def texts_of(
    model: LiTPipeline, trace: Mapping[str, Array], labels: tuple[str, ...], prompt: str
) -> Texts:
    """The texts of a trace, for its first image.

    Raises:
        ConfigError: the terms do not sum to the logits, because of a quirk of the model's.
    """
    logits = trace["logits_per_image"][0].astype(np.float64)
    terms, constant = contributions(model, trace)
    error = np.abs(terms.sum(axis=1) + constant - logits)
    if (error > _ROUNDING * np.abs(terms).sum(axis=1)).any():
        raise ConfigError(
            f"{model.name}: what the patches add does not sum to the logits; with its quirks its "
            "pooling head or what follows computes something else: leave the texts out"
        )
    return Texts(labels, prompt, logits, ops.softmax(logits), terms, constant)


def contributions(model: LiT, trace: Mapping[str, Array]) -> tuple[Array, Array]:
    """What each patch adds to each text's logit, (K, N), and what none does, (K,).

    With `a` the pooling head's attention, `v` its values, `f` the image's features before they are
    normalised (their length is `‖f‖`), `s` the temperature's inverse and `t` a text's embedding:

        logit = s/‖f‖ · t · P (W Σₙ aₙ vₙ + b) = Σₙ s/‖f‖ · t · P W aₙ vₙ + s/‖f‖ · t · P b

    `aₙ vₙ` stands for all heads, each with its own attention. Takes the trace's first image.
    """
    be, head = model.backend, model.params.vision.head
    assert head is not None  # an image-text model has one
    read = trace["vision.head.pattern"][:1].swapaxes(-1, -2) * trace["vision.head.v"][:1]
    read = be.asarray(merge_heads(read)[0], model.dtype)  # (N, D)
    by_patch = be.linear(be.linear(read, head.linear_weight), model.params.image_projector)
    bias = be.asarray(be.to_numpy(head.linear_bias)[None], model.dtype)
    by_none = be.linear(bias, model.params.image_projector)
    features = np.concatenate([be.to_numpy(by_patch), be.to_numpy(by_none)]).astype(np.float64)
    length = np.linalg.norm(trace["image_features"][0].astype(np.float64))
    terms = features @ trace["text_embeds"].T * (float(trace["logit_scale"]) / length)  # (N + 1, K)
    return terms[:-1].T, terms[-1]


def against_others(terms: Array) -> Array:
    """Each text's terms (K, …) less the mean of the other texts': what decides between them.

    What is added to all logits alike changes no probability, and most of a logit is such.
    """
    others = max(len(terms) - 1, 1)
    return terms - (terms.sum(axis=0) - terms) / others if len(terms) > 1 else terms
