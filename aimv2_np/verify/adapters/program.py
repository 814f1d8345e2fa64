"""Any program: it reads a file of inputs and writes a file of activations."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import VerificationError
from ..candidate import Candidate
from ..files import read_candidate
from ..inputs import Inputs, write_inputs

__all__ = ["candidate"]

_TAIL = 2000  # bytes of what a program says that an error shows


def candidate(
    command: str,
    inputs: Inputs,
    *,
    names: str | Path | None = None,
    dtype: str | None = None,
    timeout: float | None = None,
) -> Candidate:
    """What a program makes of the inputs.

    `command` is run as it is, not by a shell: "my_port --in {inputs} --out {outputs}". {inputs} is
    a safetensors file with {case}/pixel_values and so on (see verify/inputs.py), {outputs} the
    file that it must write, as `read_candidate` reads it. `timeout` is in seconds.

    Raises:
        VerificationError: it cannot be started, fails, takes too long, or writes no such file.
    """
    folder = TemporaryDirectory(prefix="aimv2-np-")
    try:
        here = Path(folder.name)
        paths = {"{inputs}": here / "inputs.safetensors", "{outputs}": here / "outputs.safetensors"}
        arguments = _arguments(command, paths)
        write_inputs(paths["{inputs}"], inputs, inputs.model)
        log = here / "log"
        _run(arguments, log, timeout)
        written = sorted(here.glob("outputs*"))  # numpy.savez adds .npz to a name
        if not written:
            raise VerificationError(
                f"{arguments[0]} ended well, but wrote no file {{outputs}}{_said(log)}"
            )
        found = read_candidate(written[0], inputs.cases, names=names, dtype=dtype, owner=folder)
        return Candidate(command, found.cases, found.dtype, found.notes)
    except BaseException:  # also Ctrl-C
        folder.cleanup()
        raise


def _arguments(command: str, paths: dict[str, Path]) -> list[str]:
    """The command's words, with the files' paths in their places."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise VerificationError(f"the command {command!r} cannot be read: {error}") from None
    missing = [place for place in paths if place not in command]
    if missing or not words:
        raise VerificationError(
            f"the command {command!r} has no {' and no '.join(missing)}; expected one such as "
            "'my_port --in {inputs} --out {outputs}'"
        )
    for place, path in paths.items():
        words = [word.replace(place, str(path)) for word in words]
    return words


def _run(arguments: Sequence[str], log: Path, timeout: float | None) -> None:
    """Run a program to its end, what it says into a file."""
    with log.open("wb") as file, _started(arguments, file.fileno()) as process:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise VerificationError(
                f"{arguments[0]} took longer than {timeout:g} seconds{_said(log)}"
            ) from None
    if code:
        how = f"exit code {code}" if code > 0 else f"killed by {_signal(-code)}"
        raise VerificationError(f"{arguments[0]} failed: {how}{_said(log)}")


@contextmanager
def _started(arguments: Sequence[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; it and its children are killed if the block is left before it ends."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise VerificationError(f"{arguments[0]!r} cannot be started: {error.strerror}") from None
    try:
        yield process
    finally:
        if process.poll() is None:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    else:
        process.kill()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(log: Path) -> str:
    """The end of what a program said."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        text = file.read().decode("utf-8", "replace").strip()
    return f"; it said:\n{text}" if text else "; it said nothing"
