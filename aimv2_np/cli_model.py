"""The commands that run a model: classify, embed, trace. cli_demo has demo, cli_explain explain."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .cli_files import check_target, read_lines, save_arrays
from .cli_grammar import UsageError
from .cli_options import DEFAULT_MODEL, FOR_PHOTOGRAPHS, KNOWS
from .cli_screen import (
    PROGRAM,
    complain,
    echo,
    echo_json,
    flush,
    is_terminal,
    note,
    printable,
    ranking,
)
from .config import OFFICIAL, VisionConfig, official_name
from .errors import ConfigError, ImageError
from .hub_errors import readable
from .image_files import load_image
from .loader import load, open_model
from .outputs import Classification
from .pipelines import LiTPipeline, VisionPipeline, frame, no_text_encoder
from .trace import Recorder, activation_names

if TYPE_CHECKING:
    from .loader import Opened

__all__ = [
    "check_before_loading",
    "classify",
    "embed",
    "given_texts",
    "loaded",
    "opened",
    "trace",
    "where",
]

MOST_SHOWN = 10  # texts per image on the screen, unless --top says otherwise
MANY = 4  # images from which on a progress bar is worth a line


# ---------------------------------------------------------------------------- models


def where(args: argparse.Namespace) -> dict[str, Any]:
    """The options that say where a model comes from, as `load` and `open_model` take them."""
    return {
        "num_heads": args.num_heads,
        "revision": args.revision,
        "cache_dir": args.cache_dir,
        "local_files_only": args.offline,
        "progress": not args.quiet and is_terminal(sys.stderr),
    }


def opened(args: argparse.Namespace) -> Opened:
    """The model of a command line, its weights unread."""
    return open_model(args.model, **where(args))


def _name(args: argparse.Namespace) -> str:
    """The model that was chosen, else the packaged one."""
    return DEFAULT_MODEL if args.model is None else str(args.model)


def loaded(args: argparse.Namespace) -> VisionPipeline | LiTPipeline:
    """The model of a command line, with a note where none was chosen."""
    model = load(_name(args), backend=args.backend, dtype=args.dtype, **where(args))
    if args.model is None:
        text = f"{KNOWS}; for photographs add --model {FOR_PHOTOGRAPHS}"
        note(f"{PROGRAM}: note: {text}", quiet=args.quiet)
    return model


def check_before_loading(args: argparse.Namespace, *, all_or_nothing: bool, texts: bool) -> None:
    """Say before gigabytes are fetched what cannot work, as the model would say it afterwards."""
    missing = [image for image in args.images if not os.path.exists(image)]
    hopeless = len(missing) == len(args.images) and not getattr(args, "json", False)
    if missing and (all_or_nothing or hopeless):  # JSON reports each image, whatever happens
        load_image(missing[0])  # raises: there is no such file
    name = official_name(_name(args))
    if name is None or os.path.exists(_name(args)):
        return
    if isinstance(OFFICIAL[name].config, VisionConfig):
        if texts:
            raise no_text_encoder(name)
        if args.command == "embed":
            _ask_for_pooling(name, args)


def given_texts(args: argparse.Namespace) -> list[str]:
    """The texts of --texts and --texts-file."""
    lines = [] if args.texts_file is None else read_lines(args.texts_file)
    return [*args.texts, *lines]


def _progress(images: list[str], args: argparse.Namespace, *, wanted: bool) -> Iterable[str]:
    """The images, with a progress bar if there are many and somebody watches."""
    if args.quiet or not wanted or len(images) < MANY or not is_terminal(sys.stderr):
        return images
    from tqdm import tqdm  # type: ignore[import-untyped]

    bar: Iterable[str] = tqdm(images, unit="image", leave=False, file=sys.stderr)
    return bar


# ---------------------------------------------------------------------------- classify


def classify(args: argparse.Namespace) -> int:
    """Print which texts fit each image best; an image that cannot be read does not stop others."""
    texts = given_texts(args)
    if not args.images or not texts:
        raise UsageError(
            "give at least one image" if not args.images else "give --texts or --texts-file"
        )
    check_before_loading(args, all_or_nothing=False, texts=True)
    model = loaded(args)
    embeddings = model.encode_text(frame(texts, args.prompt))
    assert isinstance(model, LiTPipeline)  # others have raised
    results, errors = [], []
    on_screen = not args.json and is_terminal(sys.stdout)
    for image in _progress(args.images, args, wanted=not on_screen):
        try:
            result = _classified(model, image, texts, embeddings)
        except ImageError as error:
            complain("error", str(error))
            errors.append({"image": image, "error": str(error)})
            continue
        results.append(_as_json(result, args.top))
        if not args.json:
            _show(result, args.top, first=len(results) == 1)
    if args.json:
        echo_json(_report(model, args, results, errors))
    return 1 if errors else 0


def _classified(model: LiTPipeline, image: str, texts: list[str], embeddings: Any) -> Any:
    """As `model.classify`, with texts that were encoded once for all images."""
    probabilities = model.probabilities(model.encode_image([image]), embeddings)
    return Classification(tuple(texts), probabilities, (image,))


def _show(result: Classification, top: int | None, *, first: bool) -> None:
    (ranked,), (image,) = result.top(len(result.labels)), result.images
    shown = ranked[: (MOST_SHOWN if top is None else top) or None]
    if not first:
        echo()
    echo(printable(image))
    for line in ranking(shown):
        echo(line)
    if rest := ranked[len(shown) :]:
        together = 100 * sum(p for _, p in rest)
        echo(f"  … {len(rest)} more, {together:.1f} % together (--top 0 shows all)")
    flush()


def _as_json(result: Classification, top: int | None) -> dict[str, Any]:
    (ranked,) = result.top(top or len(result.labels))
    labels, probabilities = zip(*ranked, strict=True)
    return {"image": result.images[0], "labels": labels, "probabilities": probabilities}


def _report(
    model: LiTPipeline, args: argparse.Namespace, results: list[Any], errors: list[Any]
) -> dict[str, Any]:
    return {
        "model": model.name,
        "backend": model.backend.name,
        "dtype": model.dtype,
        "prompt": args.prompt,
        "results": results,
        "errors": errors,
    }


# ---------------------------------------------------------------------------- embed


def embed(args: argparse.Namespace) -> int:
    """Write embeddings to a file, all or nothing: rows must stay those of the images given."""
    texts = given_texts(args)
    if not args.images and not texts:
        raise UsageError("give images, --texts, or both")
    target = check_target(args.out, (".npz", ".safetensors"), force=args.force)
    check_before_loading(args, all_or_nothing=True, texts=bool(texts))
    model = loaded(args)
    _check_pooling(model, args)
    arrays: dict[str, Any] = {}
    if texts:
        arrays["text_embeds"] = model.encode_text(texts)
    if args.images:
        arrays |= _image_arrays(model, args)
    names = {"images": args.images, "texts": texts}
    about = {"model": model.name, "backend": model.backend.name, "dtype": model.dtype}
    save_arrays(target, arrays, names, about, force=args.force)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:4])
    more = f" and {len(arrays) - 4} more" if len(arrays) > 4 else ""
    note(f"wrote {target}: {shapes}{more}", quiet=args.quiet)
    return 0


def _check_pooling(model: VisionPipeline | LiTPipeline, args: argparse.Namespace) -> None:
    if isinstance(model, LiTPipeline) and args.pool:
        raise ConfigError(f"{model.name} pools patches itself: leave --pool {args.pool} out")
    if isinstance(model, LiTPipeline) or model.config.use_head:
        return
    _ask_for_pooling(model.name, args)


def _ask_for_pooling(name: str, args: argparse.Namespace) -> None:
    if args.images and not (args.pool or args.patches):
        raise ConfigError(
            f"{name} is a vision-only model without an image embedding of its own: add "
            "--pool mean for the mean of its patch features, or --patches for all of them"
        )


def _image_arrays(model: VisionPipeline | LiTPipeline, args: argparse.Namespace) -> dict[str, Any]:
    """`image_embeds` (B, D), or `patch_features` (B, N, D); of a native model one per image."""
    images = _progress(args.images, args, wanted=True)
    if not args.patches:
        pool = {"pool": args.pool} if isinstance(model, VisionPipeline) else {}
        rows = [model.encode_image([image], **pool)[0] for image in images]
        return {"image_embeds": np.stack(rows)}
    features = [model.patch_features([image])[0] for image in images]
    if model.vision.config.is_native:
        return {f"patch_features.{i}": array for i, array in enumerate(features)}
    return {"patch_features": np.stack(features)}


# ---------------------------------------------------------------------------- trace


def trace(args: argparse.Namespace) -> int:
    """Record the activations of one run, or list what there is to record."""
    if args.list:
        for name in _listed(args):
            echo(name)
        return 0
    if args.out is None or (args.image is None and args.text is None):
        raise UsageError("give --out and an --image, --text, or both; or --list")
    target = check_target(args.out, (".safetensors",), force=args.force)
    args.images = [] if args.image is None else [args.image]
    check_before_loading(args, all_or_nothing=True, texts=args.text is not None)
    model = loaded(args)
    inputs: dict[str, Any] = {} if args.image is None else {"images": [args.image]}
    if args.text is not None:
        if isinstance(model, VisionPipeline):
            model.encode_text(args.text)  # raises: it has no text encoder
        inputs["texts"] = args.text
    recorded = model.trace(**inputs, names=args.names or "*")
    check_target(args.out, (".safetensors",), force=args.force)
    recorded.save(target)
    size = readable(sum(array.nbytes for array in recorded.values()))
    note(f"wrote {target}: {len(recorded)} activations, {size}", quiet=args.quiet)
    return 0


def _listed(args: argparse.Namespace) -> Iterator[str]:
    names = activation_names(opened(args).config)
    recorder = Recorder(names, args.names or "*")
    return filter(recorder.wants, names)
