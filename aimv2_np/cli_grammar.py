"""The grammar of the command line: every command with its options, help and examples.

A command's own module is named here and imported only when the command runs, so that `--help` is
instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from . import __version__
from . import cli_options as options
from .cli_screen import PROGRAM, complain

__all__ = [
    "UsageError",
    "implementation",
    "make_parser",
]

Add = Callable[[argparse.ArgumentParser], None]


class UsageError(Exception):
    """The arguments do not fit together: the command ends as after a mistyped option."""


# name: (module and function, arguments, what it does, its options, examples)
_COMMANDS: dict[str, tuple[str, str, str, Add, str]] = {
    "demo": (
        "cli_demo:demo",
        "[options]",
        "classify a packaged picture with the packaged model; needs no network",
        options.demo,
        """\
aimv2-np demo
aimv2-np demo --sample guitar
aimv2-np demo --list""",
    ),
    "classify": (
        "cli_model:classify",
        "IMAGE... --texts TEXT... [--model MODEL] [options]",
        "say which of several texts fits an image best",
        options.classify,
        """\
aimv2-np classify cat.jpg --texts "a cat" "a dog" --model large-patch14-224-lit
aimv2-np classify *.jpg --texts-file labels.txt --model ./my-model --top 3
aimv2-np classify cat.jpg --texts "a cat" "a dog" --json | jq .results""",
    ),
    "embed": (
        "cli_model:embed",
        "IMAGE... [--texts TEXT...] --out FILE [--model MODEL] [options]",
        "write embeddings of images and texts to a file",
        options.embed,
        """\
aimv2-np embed *.jpg --out images.npz --model large-patch14-224-lit
aimv2-np embed --texts "a cat" "a dog" --out texts.safetensors --model large-patch14-224-lit
aimv2-np embed cat.jpg --out cat.npz --model large-patch14-224 --pool mean""",
    ),
    "explain": (
        "cli_explain:explain",
        "IMAGE --out FILE [--texts TEXT...] [--model MODEL] [options]",
        "write a page that shows what a model does with an image, to look at in a browser",
        options.explain,
        """\
aimv2-np explain cat.png --texts cat dog pizza --out cat.html
aimv2-np explain photo.jpg --model large-patch14-224 --out photo.html
aimv2-np explain wide.jpg --model large-patch14-native --blocks 0 12 23 --out wide.html""",
    ),
    "models": (
        "cli_about:models",
        "[options]",
        "list the models that can be loaded by name",
        options.models,
        """\
aimv2-np models
aimv2-np models --json | jq '.[] | select(.cached).name'""",
    ),
    "info": (
        "cli_about:info",
        "MODEL [options]",
        "show a model's layout, sizes, dtype, memory, and whether its weights are sound",
        options.info,
        """\
aimv2-np info emoji-lit
aimv2-np info ./my-model --keys
aimv2-np info weights.safetensors --num-heads 3,2 --json""",
    ),
    "trace": (
        "cli_model:trace",
        "MODEL (--list | --out FILE [--image IMAGE] [--text TEXT...]) [options]",
        "record the activations of a run in a safetensors file",
        options.trace,
        """\
aimv2-np trace emoji-lit --list
aimv2-np trace emoji-lit --image cat.png --text "a cat" --out trace.safetensors
aimv2-np trace large-patch14-224 --image cat.jpg --names '*.resid_post' --out x.safetensors""",
    ),
    "pack": (
        "cli_pack:pack",
        "MODEL --out FOLDER [options]",
        "write weights as the Numba kernels want them, so that a later load only maps them",
        options.pack,
        """\
aimv2-np pack large-patch14-224-lit --dtype bfloat16 --out lit-bfloat16
aimv2-np classify cat.jpg --texts cat dog --model ./lit-bfloat16""",
    ),
    "warmup": (
        "cli_warmup:warmup",
        "[options]",
        "compile the Numba kernels for this processor, so that no later run waits for them",
        options.warmup,
        """\
aimv2-np warmup
aimv2-np warmup --dtype bfloat16 --json""",
    ),
    "verify": (
        "cli_verify:verify",
        "MODEL (--candidate FILE | --run PROGRAM) [options]",
        "find where a port first differs from a model, and which mistake explains it",
        options.verify,
        """\
aimv2-np verify emoji-lit --candidate transformers
aimv2-np verify large-patch14-224 --candidate outputs.safetensors --html report.html
aimv2-np verify ./my-model --run './my_port --in {inputs} --out {outputs}' --dtype bfloat16""",
    ),
    "verify inputs": (
        "cli_verify:inputs",
        "MODEL --out FILE [options]",
        "write inputs on which a port's mistakes show",
        options.verify_inputs,
        "aimv2-np verify inputs emoji-lit --out inputs.safetensors",
    ),
    "verify export": (
        "cli_verify:export",
        "MODEL --out FOLDER [options]",
        "write inputs, expected activations and tolerances for a project's own tests",
        options.verify_export,
        "aimv2-np verify export emoji-lit --out aimv2-conformance",
    ),
    "doctor": (
        "doctor:main",
        "[options]",
        "check this installation: versions, processor, BLAS, backends, caches, a test run",
        options.json_only,
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
