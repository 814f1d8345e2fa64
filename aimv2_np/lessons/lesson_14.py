"""The exercises of lesson 14, using the official checkpoints."""

from __future__ import annotations

from typing import Any

from .judging import choice, exercise, number


@exercise("14.block")
def block(answer: Any) -> str:
    """Matrix by matrix."""
    square, mlp, norms = 1536 * 1536, 1536 * 4096, 2 * 1536
    hints = {
        4 * square + 3 * mlp: "the two norms have a weight for each channel",
        4 * square + 2 * mlp + norms: "SwiGLU has three matrices: gate, up, down",
        3 * square + 3 * mlp + norms: "after q, k and v there is the projection",
        4 * square + 3 * mlp + 1536: "there are two norms",
        24 * (4 * square + 3 * mlp + norms): "these are all 24 blocks",
        4 * square + 3 * mlp + norms + 5 * 1536 + 2 * 4096: "there are no biases",
    }
    number(answer, 9_437_184 + 18_874_368 + 3_072, hints)
    return "28 million; two thirds of them in the MLP."


@exercise("14.fits")
def fits(answer: Any) -> str:
    """2 bytes each: 0.62, 1.36, 2.47 and 5.45 GB."""
    hints = {
        "large": "0.6 GB; a larger one fits",
        "huge": "1.4 GB in bfloat16; a larger one fits",
        "3B": "2.72 billion parameters of 2 bytes are 5.4 GB",
    }
    choice(answer, "1B", hints)
    return "1.23 billion parameters of 2 bytes: 2.5 GB. In int8, 3B would fit, too."


@exercise("14.native")
def native(answer: Any) -> str:
    """71 columns (994 pixels) of 50 rows (700 pixels)."""
    hints = {
        72 * 50: "what does not fill a patch is dropped: round down",
        1000 * 700 / 196: "round down, each side on its own",
        1000 * 700 // 196: "round down each side on its own, not the quotient of the areas",
        256: "these are the patches of 224 × 224; the native checkpoint does not resize",
    }
    number(answer, 71 * 50, hints)
    return "71 × 50; 6 columns of pixels are never seen. It was trained on 112 to 4096 patches."


@exercise("14.factor")
def factor(answer: Any) -> str:
    """From 256² to 1024² pairs."""
    hints = {
        2: "that is the factor of the side",
        4: "there are 4 times as many patches, and each meets each",
        8: "4 times as many patches look at 4 times as many",
    }
    number(answer, 16, hints)
    return "4 times the patches, 16 times the pairs. The products with weights grow by 4 only."


@exercise("14.search")
def search(answer: Any) -> str:
    """The one with a text encoder."""
    from ..config import OFFICIAL

    right = "large-patch14-224-lit"
    if isinstance(answer, str):
        answer = answer.strip().removeprefix("apple/").removeprefix("aimv2-")
        answer = right if answer == "lit" else answer
    no_text = "it has no text encoder, so sentences cannot be compared with its vectors"
    hints = {name: no_text for name in OFFICIAL if name != right}
    hints["emoji-lit"] = "it knows drawings and single words"
    choice(answer, right, hints)
    return "it alone has a text encoder, trained so that both encoders' vectors can be compared."
