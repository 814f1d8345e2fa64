"""The first run, `aimv2-np demo`: a photograph, some texts, and what happens between them."""

from __future__ import annotations

import argparse
import time

from .cli_grammar import STAND_IN
from .cli_screen import echo, fields, paragraph, ranking
from .config import OFFICIAL
from .hub import PACKAGED
from .hub_errors import readable
from .loader import load
from .pipelines import LiTPipeline

__all__ = ["demo"]

PHOTOGRAPH = PACKAGED / "images" / "cat.jpg"
TEXTS = ("cat", "dog", "bird", "cup of tea", "city")
PROMPT = "a photo of a {}"
REAL = "large-patch14-224-lit"


def demo(args: argparse.Namespace) -> int:
    """Classify the packaged photograph with the packaged model, and say what to do next."""
    echo("AIMv2 says which of several texts fits an image best. A first run, without a network:")
    echo()
    began = time.perf_counter()
    model = load(PACKAGED / STAND_IN)
    assert isinstance(model, LiTPipeline)
    result = model.classify(PHOTOGRAPH, TEXTS, prompt=PROMPT)
    seconds = time.perf_counter() - began
    for line in fields(_steps(model)):
        echo(line)
    echo()
    echo(f"{PHOTOGRAPH.name}, '{PROMPT.format('…')}' (random weights: a meaningless answer)")
    for line in ranking(result.top(len(TEXTS))[0]):
        echo(line)
    echo()
    echo(f"Loaded and computed in {seconds:.2f} s with NumPy.")
    if not args.quiet:
        _what_next()
    return 0


def _steps(model: LiTPipeline) -> list[tuple[str, str]]:
    """What happens between a photograph and the probabilities, with this model's sizes."""
    vision, text = model.config.vision, model.config.text
    size, grid = vision.image_size, vision.grid_size
    return [
        ("photograph", "a tabby cat, 451 × 300 pixels, by Stéfan van der Walt (CC0)"),
        (
            "model",
            f"{STAND_IN}: AIMv2's architecture with {model.info['parameters']:,} random "
            "parameters, packaged with aimv2_np",
        ),
        (
            "image",
            f"resized and cropped to {size} × {size} pixels → {grid} × {grid} patches → "
            f"{vision.num_hidden_layers} blocks of width {vision.hidden_size} → one vector of "
            f"{model.config.projection_dim} numbers",
        ),
        (
            "texts",
            f"{len(TEXTS)} texts → tokens → {text.num_hidden_layers} causal blocks of width "
            f"{text.hidden_size} → one vector of {model.config.projection_dim} numbers each",
        ),
        ("result", "softmax of how well the image's vector fits each text's"),
    ]


def _what_next() -> None:
    echo()
    echo(
        paragraph(
            "These weights are RANDOM, so the numbers above mean nothing; they only show that "
            "everything works. For an answer that means something, use a trained model (Apple's, "
            f"{readable(OFFICIAL[REAL].download_bytes)}, downloaded once from the Hugging Face "
            "hub under Apple's research licence):"
        )
    )
    echo()
    echo(f'  aimv2-np classify YOUR.jpg --texts "a cat" "a dog" --model {REAL}')
    echo()
    echo("Then:")
    rows = [
        ("aimv2-np models", "the official models, and which are downloaded"),
        ("aimv2-np info random-lit", "what is inside a model"),
        ("aimv2-np doctor", "whether this installation is sound"),
        ("aimv2-np --help", "everything else"),
    ]
    for line in fields(rows):
        echo(line)
