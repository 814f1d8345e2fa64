"""From what a user calls a model to the files that hold it.

A model may be called by an official short name, the name of one shipped in this package, a
repository's id on the Hugging Face hub, a folder, or a single weights file. What exists on the disk
wins, and whatever looks like a path is never looked up on the hub: a mistyped path should say so,
not ask a server. Fetching is in `hub_download`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .config import OFFICIAL, official_name
from .errors import AIMv2Error, CheckpointError
from .hub_download import (
    PICKLES,
    SIDE_FILES,
    WEIGHTS,
    cached_snapshot,
    choose_weights,
    fetch_snapshot,
)
from .hub_errors import nearest_official

__all__ = [
    "PACKAGED",
    "PACKED",
    "ModelFiles",
    "beside",
    "is_cached",
    "packaged_models",
    "packed_file",
    "resolve",
    "samples",
]

PACKAGED = Path(__file__).parent / "models_data"
# What `aimv2-np pack` writes: no checkpoint, and only `load` reads it.
PACKED = "packed.safetensors"
_LOADED = (".safetensors", ".msgpack", ".index.json")
_PATH_SUFFIXES = (".safetensors", ".msgpack", ".json", *PICKLES)
_ACCEPTED = (
    "accepted are an official name such as 'large-patch14-224-lit', a hub id 'owner/name', "
    "a folder, or a .safetensors or .msgpack file"
)


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of one model lie.

    `weights` is one .safetensors or .msgpack file, or one .safetensors.index.json whose shards lie
    beside it. `preprocessor_config` may be a processor_config.json, in which transformers 5 keeps
    the same under "image_processor". Files of the hub's cache are links: their targets have other
    names, so do not follow them. `folder` is where a tokenizer's files lie, if there are any.
    `official` is the short name of an official model.
    """

    name: str
    weights: tuple[Path, ...]
    config: Path | None
    preprocessor_config: Path | None
    folder: Path
    official: str | None


def resolve(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    progress: bool = True,
) -> ModelFiles:
    """The files of a model, downloaded into the hub's cache where they are not on the disk.

    Args:
        model: an existing folder or weights file, an official short name, a hub id
            ('owner/name'), or one of `packaged_models()`.
        revision: branch, tag or commit on the hub. "original" means, for an official model, the
            commit that holds the original key layout.
        cache_dir: the hub's cache; by default what HF_HUB_CACHE or HF_HOME say.
        local_files_only: use the cache only, never the network; so does HF_HUB_OFFLINE=1.
        token: of the hub; by default the one of `hf auth login` or HF_TOKEN, False for none.
        progress: show the library's progress bars.

    Raises:
        CheckpointError: there is no such model, or it cannot be read or downloaded.
    """
    name = _checked_name(model)
    if (packed := packed_file(name)) is not None:
        raise CheckpointError(
            f"{packed.parent} holds packed weights, not a checkpoint: load(…), classify and embed "
            "run it; for the rest, use the model it was made from"
        )
    if (local := _local(name, isinstance(model, str), revision)) is not None:
        return local
    official = official_name(name)
    if revision == "original" and official is not None:
        revision = OFFICIAL[official].original_revision
    folder = fetch_snapshot(
        _hub_id(name, official),
        revision=_checked_revision(revision),
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        progress=progress,
    )
    return _in_folder(name, folder, official)


def packaged_models() -> list[str]:
    """The names of the models shipped inside this package."""
    if not PACKAGED.is_dir():
        return []
    return sorted(path.parent.name for path in PACKAGED.glob("*/config.json"))


def samples() -> dict[str, Path]:
    """The sample pictures shipped inside this package: what each shows -> its PNG file.

    Emoji by an artist that `emoji-lit` was never trained on: single ones such as
    `samples()["cat"]`, and several in one picture, `scene-…`. SOURCES.md beside them says more.
    """
    found = {path.stem: path for path in sorted(PACKAGED.glob("samples/*.png"))}
    if not found:
        raise AIMv2Error("the sample pictures are missing; install aimv2-np again")
    return found


def packed_file(model: str | os.PathLike[str]) -> Path | None:
    """The file of packed weights, if that is what a path leads to."""
    path = Path(os.path.expanduser(_checked_name(model)))
    path = path if path.name == PACKED else path / PACKED
    return path if os.path.isfile(path) else None  # False for what cannot be a path at all


def beside(file: Path) -> ModelFiles:
    """The files around packed weights."""
    return _model_files(file.parent.name, file, _listed(file.parent), None)


def is_cached(
    hub_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> bool:
    """Whether the hub's cache holds all weights of a model; asks no network."""
    return cached_snapshot(hub_id, revision=revision, cache_dir=cache_dir) is not None


# ---------------------------------------------------------------------------- names


def _checked_name(model: str | os.PathLike[str]) -> str:
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if not isinstance(name, str):
        raise CheckpointError(f"a model cannot be a {type(model).__name__}; {_ACCEPTED}")
    if "://" in name:  # not repeated: an address can hold a password
        raise CheckpointError(f"a model cannot be loaded from an address; {_ACCEPTED}")
    unprintable = re.search("[\0\ud800-\udbff]", name)  # no file name can hold these
    if not name.strip() or unprintable or len(name) > 4096:
        shown = repr(name[:60]) + (" …" if len(name) > 60 else "")
        raise CheckpointError(f"{shown} cannot be the name of a model; {_ACCEPTED}")
    return name


def _looks_like_path(name: str) -> bool:
    separators = name.count("/") + (name.count(os.sep) if os.sep != "/" else 0)
    return (
        name.startswith((".", "~", "/", os.sep))
        or name.endswith(("/", os.sep, *_PATH_SUFFIXES))
        or separators > 1
    )


def _hub_id(name: str, official: str | None) -> str:
    """The id of the repository that a name stands for."""
    if official is not None:
        return OFFICIAL[official].hub_id
    hub_id = f"apple/{name}" if name.startswith("aimv2-") else name
    part = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"  # huggingface_hub's rule, stated once
    if re.fullmatch(f"{part}/{part}", hub_id) and not re.search(r"--|\.\.|\.git$", hub_id):
        return hub_id
    shown = name if len(name) <= 120 else name[:120] + " …"
    raise CheckpointError(
        f"there is no model, folder or file called {shown!r}{nearest_official(name[:120])}\n"
        f"{_ACCEPTED[0].upper()}{_ACCEPTED[1:]}; 'aimv2-np models' lists the official names"
    )


def _checked_revision(revision: str | None) -> str | None:
    """A revision becomes part of a path in the cache, so it is held to git's rules for names."""
    if revision is None:
        return None
    good = isinstance(revision, str) and re.fullmatch(r"[\w.+@#=,-]+(/[\w.+@#=,-]+)*", revision)
    if not good or ".." in revision or len(revision) > 200:
        raise CheckpointError(
            f"revision={str(revision)[:60]!r} cannot be a branch, a tag or a commit of a repository"
        )
    return revision


# ---------------------------------------------------------------------------- the disk


def _local(name: str, may_be_name: bool, revision: str | None) -> ModelFiles | None:
    """The model where it is on the disk or in this package, None where the hub is to be asked."""
    path = Path(os.path.expanduser(name))
    if os.path.lexists(path) or _looks_like_path(name) or not may_be_name:
        files = _on_disk(name, path)
    elif name in packaged_models():
        files = _in_folder(name, PACKAGED / name)
    else:
        return None
    if revision is not None:
        raise CheckpointError(
            f"revision={revision!r} was passed, but {name} is on the disk, not on the hub; "
            "leave revision= out, or pass a hub id"
        )
    return files


def _on_disk(name: str, path: Path) -> ModelFiles:
    try:
        path.stat()
    except OSError as error:
        if os.path.islink(path):
            raise CheckpointError(f"{path} is a link to something that does not exist") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise CheckpointError(f"there is no such file or folder: {path}") from None
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if path.is_dir():
        return _in_folder(name, path)
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    if not path.name.endswith(_LOADED):
        raise CheckpointError(_wrong_file(path))
    return _model_files(name, path, _listed(path.parent), None)


def _wrong_file(path: Path) -> str:
    if path.name.endswith(PICKLES):
        return (
            f"{path} looks like a pickle; pickles are never read, because reading one can run any "
            "program. Convert it to .safetensors with the program that wrote it"
        )
    if path.name in SIDE_FILES:
        return f"{path} holds no weights; pass its folder: {path.parent}"
    return f"{path} is no weights file; expected .safetensors, .safetensors.index.json or .msgpack"


def _in_folder(name: str, folder: Path, official: str | None = None) -> ModelFiles:
    listed = _listed(folder)
    names = (name if is_file else f"{name}/" for name, is_file in listed.items())
    weights = choose_weights(names, str(folder))
    return _model_files(name, folder / weights, listed, official)


def _listed(folder: Path) -> dict[str, bool]:
    """The names in a folder, and whether each is a file (or a link to one)."""
    try:
        listed = {entry.name: entry.is_file() for entry in os.scandir(folder)}
    except OSError as error:
        raise CheckpointError(f"cannot list the folder {folder}: {error.strerror}") from None
    for name in (*WEIGHTS, *SIDE_FILES):
        if not listed.get(name, True):
            raise CheckpointError(
                f"{folder / name} should be a file, but is a folder or a link that leads nowhere"
            )
    return listed


def _model_files(
    name: str, weights: Path, listed: Mapping[str, bool], official: str | None
) -> ModelFiles:
    folder = weights.parent
    config, *processors = (folder / n if n in listed else None for n in SIDE_FILES[:3])
    preprocessor = processors[0] or processors[1]
    return ModelFiles(name, (weights,), config, preprocessor, folder, official)
