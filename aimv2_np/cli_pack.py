"""The command `aimv2-np pack`: weights laid out for the Numba kernels, in a folder of their own."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from .cli_model import where
from .cli_screen import echo, echo_json
from .errors import AIMv2Error
from .hub import PACKED, packed_file
from .hub_download import SIDE_FILES
from .writing import folder_written_whole

__all__ = ["pack"]


def pack(args: argparse.Namespace) -> int:
    """Pack a model and write it to a folder, with the files that it needs besides its weights.

    The folder appears when it is complete.
    """
    from .hub_errors import readable
    from .loader import load
    from .numba_backend.isa import choose
    from .numba_backend.packed_folder import Packed, write_packed

    if packed_file(args.model) is not None:
        raise AIMv2Error(f"{args.model} is packed already; pack the model that it was made from")
    folder, dtype = Path(args.out), args.dtype or "float32"
    try:
        _check(folder, force=args.force)
        model = load(args.model, backend="numba", dtype=dtype, check=True, **where(args))
        packed, isa = Packed(model.config, model.params, dtype, model.info), choose()
        with folder_written_whole(folder) as made:
            for name in SIDE_FILES:
                source = Path(model.info["folder"]) / name
                if source.is_file():
                    shutil.copyfile(source, made / name)
            write_packed(made, packed, isa)
    except OSError as error:
        raise AIMv2Error(f"cannot write to {folder}: {error.strerror}") from error
    size = (folder / PACKED).stat().st_size
    if args.json:
        about = {"dtype": dtype, "instruction_set": isa.name, "bytes": size}
        echo_json({"folder": str(folder), **about})
    else:
        echo(f"{folder}: {dtype} for {isa.name}, {readable(size)}; load it by its path")
    return 0


def _check(folder: Path, *, force: bool) -> None:
    """A folder may be new, empty, or with `force` one that was packed earlier and holds no more."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise AIMv2Error(f"--out {folder}: exists and is no folder")
    if not folder.name:
        raise AIMv2Error(f"--out {folder}: expected the name of a folder")
    if not folder.parent.is_dir():
        raise AIMv2Error(f"--out {folder}: there is no folder {folder.parent}")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and (PACKED not in there or there - {PACKED, *SIDE_FILES}):
        raise AIMv2Error(f"--out {folder}: holds other files; expected a new or an empty folder")
    if there and not force:
        raise AIMv2Error(f"--out {folder}: was packed before; --force packs it anew")
