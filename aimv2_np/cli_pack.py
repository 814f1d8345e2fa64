"""The command `aimv2-np pack`: weights laid out for the Numba kernels, in a folder of their own."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from .cli_model import where
from .cli_screen import echo, echo_json
from .errors import AIMv2Error
from .hub_download import SIDE_FILES

__all__ = ["pack"]


def pack(args: argparse.Namespace) -> int:
    """Pack a model and write it to a folder, with the files that it needs besides its weights."""
    from .hub_errors import readable
    from .loader import load
    from .numba_backend.isa import choose
    from .numba_backend.packed_folder import FILE, Packed, write_packed

    folder, dtype = _target(args.out, force=args.force), args.dtype or "float32"
    model = load(args.model, backend="numba", dtype=dtype, check=True, **where(args))
    packed, isa = Packed(model.config, model.params, dtype, model.info), choose()
    try:
        folder.mkdir(exist_ok=True)
        for name in SIDE_FILES:
            source = Path(model.info["folder"]) / name
            if source.is_file():
                shutil.copyfile(source, folder / name)
    except OSError as error:
        raise AIMv2Error(f"cannot write to {folder}: {error}") from error
    write_packed(folder, packed, isa)
    size = (folder / FILE).stat().st_size
    if args.json:
        echo_json(
            {"folder": str(folder), "dtype": dtype, "instruction_set": isa.name, "bytes": size}
        )
    else:
        echo(f"{folder}: {dtype} for {isa.name}, {readable(size)}; load it by its path")
    return 0


def _target(name: str, *, force: bool) -> Path:
    """The folder to write to: a new one, an empty one, or with `force` one packed earlier."""
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise AIMv2Error(f"--out {name}: is a file, expected the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise AIMv2Error(f"--out {name}: is not empty; --force writes into it")
    if not folder.parent.is_dir():
        raise AIMv2Error(f"--out {name}: there is no folder {folder.parent}")
    return folder
