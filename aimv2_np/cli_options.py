"""The options of every command, added to its parser. What each command is: cli_grammar.py."""

from __future__ import annotations

import argparse
import re

__all__ = [
    "DEFAULT_MODEL",
    "FOR_PHOTOGRAPHS",
    "KNOWS",
    "classify",
    "demo",
    "embed",
    "explain",
    "info",
    "json_only",
    "models",
    "pack",
    "trace",
    "verify",
    "verify_export",
    "verify_inputs",
    "warmup",
]

DEFAULT_MODEL = "emoji-lit"  # the packaged one
FOR_PHOTOGRAPHS = "large-patch14-224-lit"
KNOWS = f"{DEFAULT_MODEL} knows emoji drawings, not photographs"


# ---------------------------------------------------------------------------- options


def _heads(text: str) -> int | tuple[int, int]:
    """The value of --num-heads: N, or N,M for the two encoders of an image-text model."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:,([1-9]\d{0,5}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected N or N,M, found {text!r}")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def _prompt(text: str) -> str:
    if "{}" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} has no {{}} where a text belongs")
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds over 0, found {text!r}")
    return seconds


def _where_options(parser: argparse.ArgumentParser) -> None:
    """What `loader.open_model` takes beside the name."""
    group = parser.add_argument_group("where the model comes from")
    group.add_argument(
        "--revision",
        help="branch, tag or commit on the hub; 'original': Apple's first key layout",
    )
    group.add_argument(
        "--cache-dir", metavar="FOLDER", help="cache of downloads (default: HF_HOME)"
    )
    group.add_argument("--offline", action="store_true", help="use the cache only, no network")
    group.add_argument(
        "--num-heads",
        type=_heads,
        metavar="N[,M]",
        help="attention heads (vision[,text]) for weights without config.json",
    )


def _compute_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is computed")
    group.add_argument("--backend", default="auto", help="auto, numpy, numba or a plug-in's name")
    group.add_argument(
        "--dtype",
        help="float32 (default), bfloat16 or int8 (numba), float64 (numpy), or a plug-in's",
    )


def _quiet_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no notes, no progress bars")


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")


def _usual_options(parser: argparse.ArgumentParser, *, compute: bool = False) -> None:
    """What most commands that read a model end with."""
    _json_option(parser)
    _quiet_option(parser)
    if compute:
        _compute_options(parser)
    _where_options(parser)


def _texts_options(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--texts", nargs="+", action="extend", default=[], metavar="TEXT", help=what
    )
    parser.add_argument(
        "--texts-file", metavar="FILE", help="more texts, one per line, UTF-8; - is standard input"
    )


def _prompt_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompt",
        default="a photo of {}",  # pipelines.PROMPT, without importing it for a --help
        type=_prompt,
        help="frame of every text (default: 'a photo of {}'); '{}' takes them as they are",
    )


def _model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name, hub id, folder or file")


def _model_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"name, hub id, folder or file (default: {DEFAULT_MODEL}). {KNOWS}; for photographs "
        f"use {FOR_PHOTOGRAPHS}",
    )


# ---------------------------------------------------------------------------- commands


def demo(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument(
        "--sample", default="pizza", metavar="NAME", help="the picture (default: pizza)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the pictures")
    parser.add_argument("-q", "--quiet", action="store_true", help="no advice on what to try next")


def classify(parser: argparse.ArgumentParser) -> None:
    """The options of `classify`."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    _texts_options(parser, "what the images may show")
    _model_option(parser)
    _prompt_option(parser)
    parser.add_argument(
        "--top",
        type=_count,
        metavar="K",
        help="the K best texts per image; 0: all (default: 10, with --json all)",
    )
    _usual_options(parser, compute=True)


def embed(parser: argparse.ArgumentParser) -> None:
    """The options of `embed`."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    _texts_options(parser, "texts to embed as well")
    _model_option(parser)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="file to write: .npz or .safetensors"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--pool", choices=["mean"], help="vision-only models: the mean of the patch features"
    )
    kind.add_argument(
        "--patches", action="store_true", help="one vector per patch instead of one per image"
    )
    _quiet_option(parser)
    _compute_options(parser)
    _where_options(parser)


def explain(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.add_argument("image", metavar="IMAGE", help="image file")
    _texts_options(parser, "what the image may show; without them there are no probabilities")
    _model_option(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="page to write: .html")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    _prompt_option(parser)
    parser.add_argument(
        "--blocks",
        nargs="+",
        type=_count,
        metavar="N",
        help="blocks whose attention is shown, from 0 (default: all); fewer of them are shown "
        "finer where the image has many patches",
    )
    _usual_options(parser, compute=True)


def models(parser: argparse.ArgumentParser) -> None:
    """The options of `models`."""
    _json_option(parser)
    parser.add_argument(
        "--cache-dir", metavar="FOLDER", help="cache of downloads (default: HF_HOME)"
    )


def info(parser: argparse.ArgumentParser) -> None:
    """The options of `info`."""
    _model_argument(parser)
    parser.add_argument("--keys", action="store_true", help="list every key of the files")
    parser.add_argument(
        "--no-check", action="store_true", help="do not read the weights to look for NaN and Inf"
    )
    _usual_options(parser)


def trace(parser: argparse.ArgumentParser) -> None:
    """The options of `trace`."""
    _model_argument(parser)
    parser.add_argument("--list", action="store_true", help="print the names of the activations")
    parser.add_argument("--out", metavar="FILE", help="file to write: .safetensors")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--image", metavar="IMAGE", help="image file")
    parser.add_argument("--text", nargs="+", action="extend", metavar="TEXT", help="texts")
    parser.add_argument(
        "--names",
        nargs="+",
        action="extend",
        metavar="PATTERN",
        help="only activations whose names match, such as '*.resid_post' (default: all)",
    )
    _quiet_option(parser)
    _compute_options(parser)
    _where_options(parser)


def _dtype_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "int8"], help=what)


def pack(parser: argparse.ArgumentParser) -> None:
    """The options of `pack`."""
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new or empty folder")
    _dtype_option(parser, "of the packed weights (default: float32)")
    parser.add_argument(
        "--force", action="store_true", help="replace a folder that was packed before"
    )
    _usual_options(parser)


def warmup(parser: argparse.ArgumentParser) -> None:
    """The options of `warmup`."""
    _dtype_option(parser, "whose kernels to compile (default: all three)")
    _json_option(parser)


def _port_options(parser: argparse.ArgumentParser) -> None:
    port = parser.add_argument_group("the port")
    port.add_argument(
        "--candidate",
        metavar="FILE",
        help="its activations (.safetensors, .npz), or a model to run: FILE.onnx, transformers, "
        "timm, original",
    )
    port.add_argument(
        "--run",
        metavar="PROGRAM",
        help="a program to run, such as 'my_port --in {inputs} --out {outputs}'",
    )
    port.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for --run")
    port.add_argument(
        "--inputs", metavar="FILE", help="what it ran on (default: as 'verify inputs' makes them)"
    )
    port.add_argument(
        "--names",
        metavar="FILE",
        help="what its activations are called: a JSON file {theirs: ours}, or transformers, timm, "
        "original, onnx (default: guessed)",
    )
    port.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16", "float64"],
        help="in which it computes (default: as its file says)",
    )
    port.add_argument(
        "--require",
        nargs="+",
        metavar="PATTERN",
        default=[],
        help="activations that it must give in every case, such as '*.resid_post'",
    )


def verify(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    _model_argument(parser)
    _port_options(parser)
    parser.add_argument(
        "--quirks",
        nargs="+",
        metavar="NAME",
        help="compare with a model that deviates as a library does: transformers, original, …",
    )
    parser.add_argument("--html", metavar="FILE", help="write the report as a page: .html")
    parser.add_argument("--force", action="store_true", help="replace that page if it exists")
    _usual_options(parser)


def verify_inputs(parser: argparse.ArgumentParser) -> None:
    """The options of `verify inputs`."""
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write: .safetensors")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    _usual_options(parser)


def verify_export(parser: argparse.ArgumentParser) -> None:
    """The options of `verify export`."""
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--force", action="store_true", help="replace an older pack")
    _usual_options(parser)


def json_only(parser: argparse.ArgumentParser) -> None:
    """No option but --json."""
    _json_option(parser)
