"""model.safetensors.index.json: which shard of a large model holds which tensor.

The file comes from outside and names other files, so each name is judged as a name: a plain file
name in the index's own folder. Where a name leads is not judged, because the hub's cache keeps
every file as a symbolic link into another folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError
from .files import foreign_format, open_source, parse_json_object, shown
from .stored import StoredTensor

__all__ = ["INDEX_SUFFIX", "check_index", "read_index", "shard_names"]

INDEX_SUFFIX = ".safetensors.index.json"
_MOST_BYTES = 100_000_000  # as for a safetensors header
_LONGEST_NAME = 255  # what file systems allow


def shard_names(index_path: Path) -> list[str]:
    """The file names of the shards that an index lists, sorted; whether they exist is not asked.

    Raises:
        CheckpointError: the index cannot be read, or names anything but plain file names.
    """
    return sorted(set(read_index(index_path).values()))


def read_index(path: Path) -> dict[str, str]:
    """The index's `weight_map`: tensor key -> file name, checked.

    Raises:
        CheckpointError: as `shard_names`.
    """
    source = open_source(path)
    foreign = foreign_format(source.read(0, 64))
    if foreign:
        raise CheckpointError(f"{path}: {foreign}")
    if source.size > _MOST_BYTES:
        raise CheckpointError(f"{path}: {source.size} bytes are too many for an index")
    weight_map = parse_json_object(source.read(0, source.size), str(path)).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(
            f"{path}: 'weight_map' must be an object from tensor keys to file names, "
            f"found {shown(weight_map)}"
        )
    if not weight_map:
        raise CheckpointError(f"{path}: 'weight_map' is empty")
    for key, name in weight_map.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{path}: key {shown(key)}: expected a file name, found {shown(name)}"
            )
        if not _is_plain_name(name):
            raise CheckpointError(
                f"{path}: key {shown(key)}: {shown(name)} is not the plain name of a .safetensors "
                "file in the index's own folder; do not trust this checkpoint"
            )
    return weight_map


def _is_plain_name(name: str) -> bool:
    """No folder, drive, '..' or control character, on any operating system."""
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(character in '/\\:<>"|?*' for character in name)
        and name.isprintable()  # also excludes lone surrogates, which no file name can hold
        and len(name.encode()) <= _LONGEST_NAME
    )


def check_index(
    path: Path, weight_map: Mapping[str, str], found: Mapping[str, StoredTensor]
) -> None:
    """Check that each tensor is in the shard that the index promises, and no other is there.

    Raises:
        CheckpointError: lists every difference.
    """
    problems = []
    for key, name in weight_map.items():
        actual = found[key].source.path.name if key in found else None
        if actual != name:
            where = f"it is in {actual}" if actual else "it is in no shard"
            problems.append(f"{shown(key)} is promised in {name}, {where}")
    for key, tensor in found.items():
        if key not in weight_map:
            problems.append(f"{shown(key)} is in {tensor.source.path.name}, but not in the index")
    if problems:
        raise CheckpointError(
            f"{path}: the index and its shards contradict each other:\n  " + "\n  ".join(problems)
        )
