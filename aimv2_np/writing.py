"""Writing a file so that it appears under its name only when it is complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import AIMv2Error

__all__ = ["folder_written_whole", "written_whole"]


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it becomes `target` at the end, if nothing went wrong.

    The file gets the permissions that the user's umask gives a new file, which safetensors' own
    writer does not heed.

    Raises:
        AIMv2Error: the file cannot be written; what stood there before still does.
    """
    from safetensors import SafetensorError  # what its writer raises where the disk is full

    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".aimv2-np-") as folder:
            partial = Path(folder) / f"partial{target.suffix}"
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)
            os.replace(partial, target)
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: NUL in the path
        raise AIMv2Error(f"cannot write {target}: {error}") from error


@contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """A folder to write to; it takes `target`'s place at the end, if nothing went wrong.

    Raises:
        OSError: it cannot be written; what stood there before still does.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".aimv2-np-") as beside:
        made, old = Path(beside) / "made", Path(beside) / "old"
        made.mkdir()
        yield made
        if target.is_dir():
            os.replace(target, old)
        try:
            os.replace(made, target)
        except BaseException:
            if old.is_dir():
                os.replace(old, target)
            raise
