"""The first run, `aimv2-np demo`: a picture, some words, and what happens between them."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path

from .cli_grammar import UsageError
from .cli_options import DEFAULT_MODEL, FOR_PHOTOGRAPHS, KNOWS
from .cli_screen import echo, fields, paragraph, ranking
from .config import OFFICIAL
from .hub import PACKAGED, samples
from .hub_errors import readable
from .loader import load
from .pipelines import PROMPT, LiTPipeline

__all__ = ["demo"]

SHOWN = 6  # of the words, the best

_TRY = """
Try next, still without a network:

  # another picture; --list names them all
  aimv2-np demo --sample guitar

  # words of your own
  aimv2-np classify {path} --texts cat dog pizza

  # every activation on the way, by name
  aimv2-np trace {model} --image {path} --text "a cat" --out trace.safetensors

  # what is inside the model; whether this installation is sound
  aimv2-np info {model}
  aimv2-np doctor

  # in Python
  import aimv2_np
  model = aimv2_np.load("{model}")
  print(model.classify(aimv2_np.samples()["{name}"], ["cat", "dog", "pizza"]))
"""


def demo(args: argparse.Namespace) -> int:
    """Classify a packaged picture with the packaged model, and say what to do next."""
    pictures = samples()
    if args.list:
        for name in pictures:
            echo(name)
        return 0
    if args.sample not in pictures:
        raise UsageError(f"there is no sample {args.sample!r}; --list names those there are")
    picture = pictures[args.sample]
    # every single picture's own word; scenes show several things and have none
    words = [name for name in pictures if not name.startswith("scene-")]
    began = time.perf_counter()
    # One picture and a small model: NumPy is done before Numba would have compiled its kernels.
    model = load(PACKAGED / DEFAULT_MODEL, backend="numpy")
    assert isinstance(model, LiTPipeline)
    result = model.classify(picture, words, prompt=PROMPT)
    seconds = time.perf_counter() - began
    echo("AIMv2 says which of several texts fits an image best. A first run, without a network:")
    echo()
    for line in fields(_steps(model, picture, len(words))):
        echo(line)
    echo()
    echo(f"{picture.name}: '{PROMPT.format('…')}', the {SHOWN} best of {len(words)} words")
    for line in ranking(result.top(SHOWN)[0]):
        echo(line)
    echo()
    echo(f"Loaded and computed in {seconds:.2f} s with NumPy.")
    if not args.quiet:
        _what_next(picture)
    return 0


def _steps(model: LiTPipeline, picture: Path, number: int) -> list[tuple[str, str]]:
    """What happens between a picture and the probabilities, with this model's sizes."""
    vision, text = model.config.vision, model.config.text
    size, grid = vision.image_size, vision.grid_size
    return [
        (
            "picture",
            f"{picture.name}, drawn by OpenMoji (CC BY-SA 4.0), an artist that the model was "
            "never trained on",
        ),
        (
            "model",
            f"{DEFAULT_MODEL}: AIMv2's architecture with {model.info['parameters']:,} parameters, "
            "trained on other artists' emoji, packaged with aimv2_np",
        ),
        (
            "image",
            f"resized and cropped to {size} × {size} pixels → {grid} × {grid} patches → "
            f"{vision.num_hidden_layers} blocks of width {vision.hidden_size} → one vector of "
            f"{model.config.projection_dim} numbers",
        ),
        (
            "texts",
            f"{number} texts → tokens → {text.num_hidden_layers} causal blocks of width "
            f"{text.hidden_size} → one vector of {model.config.projection_dim} numbers each",
        ),
        ("result", "softmax of how well the image's vector fits each text's"),
    ]


def _what_next(picture: Path) -> None:
    echo(_TRY.format(model=DEFAULT_MODEL, path=shlex.quote(str(picture)), name=picture.stem))
    size = readable(OFFICIAL[FOR_PHOTOGRAPHS].download_bytes)
    echo(
        paragraph(
            f"{KNOWS}. For photographs there is Apple's {FOR_PHOTOGRAPHS} ({size}, downloaded "
            "once from the Hugging Face hub, under Apple's research licence):"
        )
    )
    echo(f'\n  aimv2-np classify YOUR.jpg --texts "a cat" "a dog" --model {FOR_PHOTOGRAPHS}')
