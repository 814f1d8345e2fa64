"""Completion scripts for shells, made by shtab from the grammar of the command line."""

from __future__ import annotations

import argparse

import shtab

from .config import OFFICIAL
from .hub import packaged_models

__all__ = ["completion_script"]

# What completes an argument, by the name it has in the help.
_FILES = ("IMAGE", "FILE")
_MODEL = {"bash": "_aimv2_np_model", "zsh": "_aimv2_np_model", "tcsh": shtab.FILE["tcsh"]}


def _preamble(shell: str) -> str:
    """A function that completes the name of a model: an official one, or a path."""
    names = " ".join([*packaged_models(), *OFFICIAL])
    functions = {
        "bash": f'_aimv2_np_model() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}\n',
        "zsh": f"_aimv2_np_model() {{ compadd -- {names}; _files }}\n",
    }
    return functions.get(shell, "")


def _mark(parser: argparse.ArgumentParser) -> None:
    """Say for each argument what completes it, in the attribute that shtab reads."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == "MODEL":
            action.complete = _MODEL  # type: ignore[attr-defined]


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a command line for bash, zsh or tcsh."""
    _mark(parser)
    script: str = shtab.complete(parser, shell, preamble=_preamble(shell))
    return script
