"""Judge a model by drawings of an artist it has never seen, as aimv2_np computes it.

    python evaluate.py                              # the shipped model on OpenMoji
    python evaluate.py --beside runs/float32        # and what bfloat16 costs
    python evaluate.py --artist noto --json         # another artist (this one was trained on)
    python evaluate.py --dtypes float32 bfloat16 int8   # what computing in less costs

Each drawing, 128 pixels on white, is matched with the names of all emoji in a prompt, and each name
with all drawings; then the same among twenty everyday words. No torch runs here.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import aimv2_np
from aimv2_np.pipelines import PROMPT, frame
from captions import EVERYDAY
from emoji import all_emoji, drawings, svg
from fetch import VALIDATION
from paths import SHIPPED
from render import rasterise
from scores import ranks, summary

GROUPS = {
    **{0: "smileys and emotion", 1: "people and body", 3: "animals and nature"},
    **{4: "food and drink", 5: "travel and places", 6: "activities", 7: "objects", 8: "symbols"},
}


def picture(document: str, size: int = 128) -> Image.Image:
    """A drawing on white, as a file of it would be."""
    drawing = rasterise(document, size)
    white = Image.new("RGBA", drawing.size, "white")
    return Image.alpha_composite(white, drawing).convert("RGB")


def pictures(artist: str) -> tuple[list[Image.Image], np.ndarray]:
    """One picture of each emoji the artist drew, and their classes (N,)."""
    documents = svg(artist)
    first = {c: name for name, c in reversed(drawings(artist))}  # the first drawing of each
    found = [picture(documents[first[c]]) for c in sorted(first)]
    return found, np.array(sorted(first))


def embed_images(model: aimv2_np.LiTPipeline, images: list[Image.Image]) -> np.ndarray:
    """Unit vectors (N, P)."""
    parts = [images[i : i + 32] for i in range(0, len(images), 32)]
    return np.concatenate([model.encode_image(part) for part in tqdm(parts, desc="images")])


def embed_names(model: aimv2_np.LiTPipeline, names: list[str], prompt: str = PROMPT) -> np.ndarray:
    """Unit vectors (N, P)."""
    return model.encode_text(frame(names, prompt))


def evaluate(
    model: aimv2_np.LiTPipeline, vectors: np.ndarray, texts: np.ndarray, classes: np.ndarray
) -> dict:
    """Every figure of the embeddings of images and names: `classes[i]` is what image i shows."""
    emoji = all_emoji()
    names = [e.name for e in emoji]
    scores = vectors @ texts.T
    bare = vectors @ embed_names(model, names, "{}").T
    codes = {e.code: i for i, e in enumerate(emoji)}
    row = {c: i for i, c in enumerate(classes)}
    everyday = {word: codes[code] for word, code in EVERYDAY.items() if codes[code] in row}
    some = vectors[[row[c] for c in everyday.values()]] @ embed_names(model, list(everyday)).T
    own = np.arange(len(everyday))
    groups = np.array([emoji[c].group for c in classes])
    first = ranks(scores, classes) == 0
    wrong = (ranks(some, own) > 0).nonzero()[0]
    words = list(everyday)
    return {
        "drawings": len(classes),
        "names": len(names),
        "classification": summary(scores, classes),
        "classification, bare names": summary(bare, classes),
        "retrieval": summary(scores.T[classes], np.arange(len(classes))),
        "everyday classification": summary(some, own),
        "everyday retrieval": summary(some.T, own),
        "everyday mistakes": {words[i]: words[some[i].argmax()] for i in wrong},
        "top-1 by group": {
            name: round(100 * float(first[groups == group].mean()), 1)
            for group, name in GROUPS.items()
            if (groups == group).any()
        },
    }


def agreement(ours: list[np.ndarray], first: list[np.ndarray]) -> dict:
    """How far the embeddings of images and names are from those of the first column."""
    chosen = [(images @ names.T).argmax(axis=1) for images, names in (ours, first)]
    cosines = [float((a * b).sum(axis=1).min()) for a, b in zip(ours, first, strict=True)]
    return {
        "same top-1 as the first column": f"{100 * (chosen[0] == chosen[1]).mean():.2f} %",
        "least cosine with its images": round(cosines[0], 5),
        "least cosine with its names": round(cosines[1], 5),
    }


def table(found: dict[str, dict]) -> str:
    """The figures of one or two models as Markdown."""
    lines = ["| |" + "".join(f" {name} |" for name in found), "|---" * (len(found) + 1) + "|"]
    first = next(iter(found.values()))
    for key, value in first.items():
        columns = [model[key] for model in found.values()]
        if isinstance(value, dict) and key != "everyday mistakes":
            for part in value:
                cells = "".join(f" {column[part]} % |" for column in columns)
                lines.append(f"| {key}: {part} |{cells}")
        else:
            lines.append(f"| {key} |" + "".join(f" {column} |" for column in columns))
    return "\n".join(lines)


def main() -> None:
    """Print the figures of one model, or of two side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED, help="folder")
    parser.add_argument("--beside", type=Path, help="another folder, say in float32")
    parser.add_argument("--artist", default=VALIDATION, help="a package in data/packages")
    parser.add_argument("--backend", default="auto", help="numba (default), numpy or a plug-in")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="one column for each")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args()
    if options.beside and options.beside.name == options.model.name:
        parser.error("the two folders need different names: these head the columns")
    images, classes = pictures(options.artist)
    names = [e.name for e in all_emoji()]
    found: dict[str, dict] = {}
    first: list[np.ndarray] = []
    for folder in filter(None, (options.model, options.beside)):
        for dtype in options.dtypes:
            model = aimv2_np.load(folder, backend=options.backend, dtype=dtype)
            started = time.perf_counter()
            vectors = embed_images(model, images)
            speed = len(images) / (time.perf_counter() - started)
            ours = [vectors, embed_names(model, names)]
            first = first or ours
            name = folder.name if len(options.dtypes) == 1 else f"{folder.name}, {dtype}"
            found[name] = {
                **evaluate(model, *ours, classes),
                "images per second": round(speed, 1),
                **agreement(ours, first),
            }
    print(json.dumps(found, indent=2) if options.json else table(found))


if __name__ == "__main__":
    main()
