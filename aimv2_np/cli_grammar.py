"""The grammar of the command line: every command with its options, help and examples.

A command's own module is named here and imported only when the command runs, so that `--help` is
instant.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from . import __version__
from .cli_screen import PROGRAM, complain

__all__ = [
    "DEFAULT_MODEL",
    "FOR_PHOTOGRAPHS",
    "KNOWS",
    "UsageError",
    "implementation",
    "make_parser",
]

DEFAULT_MODEL = "emoji-lit"  # the packaged one
FOR_PHOTOGRAPHS = "large-patch14-224-lit"
KNOWS = f"{DEFAULT_MODEL} knows emoji drawings, not photographs"
Add = Callable[[argparse.ArgumentParser], None]


class UsageError(Exception):
    """The arguments do not fit together: the command ends as after a mistyped option."""


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


def _texts_options(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--texts", nargs="+", action="extend", default=[], metavar="TEXT", help=what
    )
    parser.add_argument(
        "--texts-file", metavar="FILE", help="more texts, one per line, UTF-8; - is standard input"
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


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sample", default="pizza", metavar="NAME", help="the picture (default: pizza)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the pictures")
    parser.add_argument("-q", "--quiet", action="store_true", help="no advice on what to try next")


def _classify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    _texts_options(parser, "what the images may show")
    _model_option(parser)
    parser.add_argument(
        "--prompt",
        default="a photo of {}",  # pipelines.PROMPT, without importing it for a --help
        type=_prompt,
        help="frame of every text (default: 'a photo of {}'); '{}' takes them as they are",
    )
    parser.add_argument(
        "--top",
        type=_count,
        metavar="K",
        help="the K best texts per image; 0: all (default: 10, with --json all)",
    )
    _json_option(parser)
    _quiet_option(parser)
    _compute_options(parser)
    _where_options(parser)


def _embed(parser: argparse.ArgumentParser) -> None:
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


def _models(parser: argparse.ArgumentParser) -> None:
    _json_option(parser)
    parser.add_argument(
        "--cache-dir", metavar="FOLDER", help="cache of downloads (default: HF_HOME)"
    )


def _info(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
    parser.add_argument("--keys", action="store_true", help="list every key of the files")
    parser.add_argument(
        "--no-check", action="store_true", help="do not read the weights to look for NaN and Inf"
    )
    _json_option(parser)
    _quiet_option(parser)
    _where_options(parser)


def _trace(parser: argparse.ArgumentParser) -> None:
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


def _pack(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new or empty folder")
    _dtype_option(parser, "of the packed weights (default: float32)")
    parser.add_argument(
        "--force", action="store_true", help="replace a folder that was packed before"
    )
    _json_option(parser)
    _quiet_option(parser)
    _where_options(parser)


def _warmup(parser: argparse.ArgumentParser) -> None:
    _dtype_option(parser, "whose kernels to compile (default: all three)")
    _json_option(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
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
    port.add_argument("--timeout", type=float, metavar="SECONDS", help="for --run")
    port.add_argument(
        "--inputs", metavar="FILE", help="what it ran on (default: as 'verify inputs' makes them)"
    )
    port.add_argument(
        "--names",
        metavar="FILE",
        help="what its activations are called: a JSON file {theirs: ours}, or transformers, timm, "
        "original, onnx (default: guessed)",
    )
    port.add_argument("--dtype", help="in which it computes (default: as its file says)")
    parser.add_argument("--html", metavar="FILE", help="write the report as a page: .html")
    parser.add_argument("--force", action="store_true", help="replace that page if it exists")
    _json_option(parser)
    _quiet_option(parser)
    _where_options(parser)


def _verify_inputs(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write: .safetensors")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    _json_option(parser)
    _quiet_option(parser)
    _where_options(parser)


def _verify_export(parser: argparse.ArgumentParser) -> None:
    _model_argument(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--force", action="store_true", help="replace an older pack")
    _json_option(parser)
    _quiet_option(parser)
    _where_options(parser)


def _json_only(parser: argparse.ArgumentParser) -> None:
    _json_option(parser)


# name: (module and function, arguments, what it does, its options, examples)
_COMMANDS: dict[str, tuple[str, str, str, Add, str]] = {
    "demo": (
        "cli_demo:demo",
        "[options]",
        "classify a packaged picture with the packaged model; needs no network",
        _demo,
        """\
aimv2-np demo
aimv2-np demo --sample guitar
aimv2-np demo --list""",
    ),
    "classify": (
        "cli_model:classify",
        "IMAGE... --texts TEXT... [--model MODEL] [options]",
        "say which of several texts fits an image best",
        _classify,
        """\
aimv2-np classify cat.jpg --texts "a cat" "a dog" --model large-patch14-224-lit
aimv2-np classify *.jpg --texts-file labels.txt --model ./my-model --top 3
aimv2-np classify cat.jpg --texts "a cat" "a dog" --json | jq .results""",
    ),
    "embed": (
        "cli_model:embed",
        "IMAGE... [--texts TEXT...] --out FILE [--model MODEL] [options]",
        "write embeddings of images and texts to a file",
        _embed,
        """\
aimv2-np embed *.jpg --out images.npz --model large-patch14-224-lit
aimv2-np embed --texts "a cat" "a dog" --out texts.safetensors --model large-patch14-224-lit
aimv2-np embed cat.jpg --out cat.npz --model large-patch14-224 --pool mean""",
    ),
    "models": (
        "cli_about:models",
        "[options]",
        "list the models that can be loaded by name",
        _models,
        """\
aimv2-np models
aimv2-np models --json | jq '.[] | select(.cached).name'""",
    ),
    "info": (
        "cli_about:info",
        "MODEL [options]",
        "show a model's layout, sizes, dtype, memory, and whether its weights are sound",
        _info,
        """\
aimv2-np info emoji-lit
aimv2-np info ./my-model --keys
aimv2-np info weights.safetensors --num-heads 3,2 --json""",
    ),
    "trace": (
        "cli_model:trace",
        "MODEL (--list | --out FILE [--image IMAGE] [--text TEXT...]) [options]",
        "record the activations of a run in a safetensors file",
        _trace,
        """\
aimv2-np trace emoji-lit --list
aimv2-np trace emoji-lit --image cat.png --text "a cat" --out trace.safetensors
aimv2-np trace large-patch14-224 --image cat.jpg --names '*.resid_post' --out x.safetensors""",
    ),
    "pack": (
        "cli_pack:pack",
        "MODEL --out FOLDER [options]",
        "write weights as the Numba kernels want them, so that a later load only maps them",
        _pack,
        """\
aimv2-np pack large-patch14-224-lit --dtype bfloat16 --out lit-bfloat16
aimv2-np classify cat.jpg --texts cat dog --model ./lit-bfloat16""",
    ),
    "warmup": (
        "cli_warmup:warmup",
        "[options]",
        "compile the Numba kernels for this processor, so that no later run waits for them",
        _warmup,
        """\
aimv2-np warmup
aimv2-np warmup --dtype bfloat16 --json""",
    ),
    "verify": (
        "cli_verify:verify",
        "MODEL (--candidate FILE | --run PROGRAM) [options]",
        "find where a port first differs from a model, and which mistake explains it",
        _verify,
        """\
aimv2-np verify emoji-lit --candidate transformers
aimv2-np verify large-patch14-224 --candidate outputs.safetensors --html report.html
aimv2-np verify ./my-model --run './my_port --in {inputs} --out {outputs}' --dtype bfloat16""",
    ),
    "verify inputs": (
        "cli_verify:inputs",
        "MODEL --out FILE [options]",
        "write inputs on which a port's mistakes show",
        _verify_inputs,
        "aimv2-np verify inputs emoji-lit --out inputs.safetensors",
    ),
    "verify export": (
        "cli_verify:export",
        "MODEL --out FOLDER [options]",
        "write inputs, expected activations and tolerances for a project's own tests",
        _verify_export,
        "aimv2-np verify export emoji-lit --out aimv2-conformance",
    ),
    "doctor": (
        "doctor:main",
        "[options]",
        "check this installation: versions, processor, BLAS, backends, caches, a test run",
        _json_only,
        """\
aimv2-np doctor
aimv2-np doctor --json > report.json""",
    ),
}


class _Parser(argparse.ArgumentParser):
    """One that sends a mistaken user to the help, which has examples."""

    def error(self, message: str) -> NoReturn:
        complain("error", message)
        self.exit(
            2, f"{self.format_usage()}'{self.prog} --help' shows all options, with examples\n"
        )


class _Completion(argparse.Action):
    """Print a shell's completion script; shtab is imported for this only."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **_: Any) -> NoReturn:
        from .cli_completion import completion_script

        print(completion_script(parser, str(args[1])))
        parser.exit()


def implementation(command: str) -> tuple[str, str]:
    """The module and the function that run a command."""
    module, _, function = _COMMANDS[command][0].partition(":")
    return module, function


def make_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = _Parser(
        prog=PROGRAM,
        description="AIMv2 image and text encoders in NumPy.",
        epilog="start with:\n  aimv2-np demo\n\n'aimv2-np COMMAND --help' shows its options, "
        "with examples",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=["bash", "zsh", "tcsh"],
        help="print a completion script for a shell",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (_, arguments, what, add, examples) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            usage=f"{PROGRAM} {name} {arguments}",
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog="examples:\n  " + examples.replace("\n", "\n  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add(command)
        command.set_defaults(parser=command)
    return parser
