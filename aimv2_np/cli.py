"""The command `aimv2-np`: how a command line runs, and how every command ends.

What can be typed is in `cli_grammar`; a command's own module is imported when it runs. Exit codes:
0 done, 1 failed (one line says why), 2 wrong usage, 130 interrupted, 141 when nobody reads the
output any more, 143 terminated; of `verify`, 1 says that the port differs, 2 that nothing could be
compared.
AIMV2_NP_DEBUG=1 shows the traceback of a failure.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from .cli_grammar import UsageError, implementation, make_parser
from .cli_screen import PROGRAM, complain, flush, warnings_as_lines
from .errors import AIMv2Error

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: that of the process) and give its exit code."""
    with warnings_as_lines(), _terminable():
        try:
            code = _run(argv)
            flush()
        except BrokenPipeError:
            code = 141  # as a shell reports a program that SIGPIPE ended
        except KeyboardInterrupt:
            code = 130
            complain("interrupted", "nothing half-written was left behind")
        except _Terminated:
            code = 128 + signal.SIGTERM
            complain("terminated", "nothing half-written was left behind")
        except Exception as error:  # whatever it is, a user gets a line, not a traceback
            code = 1
            _report(error)
    _let_go_of_output()
    return code


class _Terminated(BaseException):
    """SIGTERM: it ends a command as Ctrl-C does, so that nothing is left behind."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `_Terminated`, where it has no other meaning and this is the main thread."""

    def terminate(*_: object) -> None:
        raise _Terminated

    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    try:
        args = parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))
        if args.command is None:
            parser.print_help(sys.stderr)
            return 2
        module, function = implementation(args.command)
        try:
            return int(getattr(import_module(f".{module}", __package__), function)(args))
        except UsageError as error:
            return int(args.parser.error(str(error)))
        except Exception as error:
            if args.command != "verify":
                raise
            _report(error)
            return 2  # 1 says that a port differs
    except SystemExit as ended:  # argparse: after --help, or wrong usage
        return int(ended.code or 0)


def _joined(argv: Sequence[str]) -> list[str]:
    """The command line with "verify inputs" and "verify export" as one word each."""
    if len(argv) > 1 and argv[0] == "verify" and argv[1] in ("inputs", "export"):
        return [f"verify {argv[1]}", *argv[2:]]
    return list(argv)


# The errors are worded for Python; here the same things are options.
_AS_OPTIONS = (
    (r"local_files_only=True was passed", "--offline was given"),
    (r"the cache_dir= that", "the --cache-dir that"),
    (r"\bcache_dir=", "--cache-dir"),
    (r"\brevision='([^']*)' was passed", r"--revision \1 was given"),
    (r"\brevision='([^']*)'", r"--revision \1"),
    (r"\brevision= out", "--revision out"),
    (r"\bnum_heads=(?=\W|$)", "--num-heads"),
    (r"\bblocks= takes", "--blocks takes"),
    (r"\bdtype='(\w+)'", r"--dtype \1"),
    (r"; force replaces it", "; --force replaces it"),
    (r"activation_names\(model\.config\) lists all", "aimv2-np trace MODEL --list shows all"),
)


def _report(error: Exception) -> None:
    if os.environ.get("AIMV2_NP_DEBUG"):
        import traceback

        traceback.print_exc()
    if isinstance(error, AIMv2Error):
        message = str(error)
        for pattern, option in _AS_OPTIONS:
            message = re.sub(pattern, option, message)
    elif isinstance(error, MemoryError):
        message = f"out of memory: {error}".rstrip(": ")
    elif isinstance(error, ImportError):
        message = f"a dependency cannot be imported: {error}; '{PROGRAM} doctor' checks them all"
    else:
        message = (
            f"unexpected {type(error).__name__}: {error}\n"
            "this is a bug of aimv2_np; AIMV2_NP_DEBUG=1 shows where it happened"
        )
    complain("error", message)


def _let_go_of_output() -> None:
    """Without this the interpreter would complain, when it ends, about what nobody reads."""
    try:
        flush()
    except (OSError, AIMv2Error):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
