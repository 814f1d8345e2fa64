"""A checkpoint of any layout, seen as the original code's parameters.

Reading one looks at headers only: names, shapes and dtypes are known at once, values are read when
asked for. What the files call a parameter stays known, so that every message can name the key that
a user would find in the file.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .files import shown
from .index import INDEX_SUFFIX, check_index, read_index
from .layouts import Layout, Row, detect_layout
from .msgpack_file import read_msgpack
from .safetensors_file import read_safetensors
from .stored import PARAMETER_DTYPES, StoredTensor

__all__ = ["Checkpoint", "Parameter", "read_checkpoint"]

Array = NDArray[Any]
Shape = tuple[int, ...]

_MOST_SUGGESTIONS = 20  # comparing names takes quadratic time; the first few show what is wrong


@dataclass(frozen=True)
class _Part:
    """A stored tensor and the row of the layout's table that says what it is."""

    row: Row
    tensor: StoredTensor

    @property
    def shape(self) -> Shape:
        """The shape in the original's order of axes."""
        shape = self.tensor.shape
        if len(shape) == len(self.row.axes):
            shape = tuple(shape[axis] for axis in self.row.axes)
        return (1, *shape) if self.row.lead and len(shape) == 2 else shape

    def array(self, dtype: np.dtype[Any]) -> Array:
        stored = self.tensor.array(dtype)
        if stored.ndim == len(self.row.axes):
            stored = stored.transpose(self.row.axes)
        return stored[None] if self.row.lead and stored.ndim == 2 else stored


@dataclass(frozen=True)
class Parameter:
    """One parameter of the original: stored whole (one part), or as q, k and v (up to three)."""

    name: str
    parts: tuple[_Part, ...]

    @property
    def shape(self) -> Shape:
        """The shape of the whole; q, k and v count as stacked."""
        first = self.parts[0]
        if first.row.third is None or not first.shape:
            return first.shape
        rows = sum(part.shape[0] if part.shape else 0 for part in self.parts)
        return (rows, *first.shape[1:])


@dataclass(frozen=True)
class Checkpoint:
    """What one model's files hold, by the original's names; see `read_checkpoint`.

    `unexpected` are tensors that the layout does not have, by their key in the file.
    """

    layout: str
    files: tuple[Path, ...]
    parameters: Mapping[str, Parameter]
    unexpected: Mapping[str, StoredTensor]
    table: Layout

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Original names and shapes in the original's order of axes, known without reading data."""
        return {name: parameter.shape for name, parameter in self.parameters.items()}

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """How many stored tensors have each dtype, such as {"F32": 123}."""
        return dict(Counter(part.tensor.dtype for part in self._parts()))

    @cached_property
    def nbytes(self) -> int:
        """Bytes that the parameters take in the files."""
        return sum(part.tensor.nbytes for part in self._parts())

    def _parts(self) -> Iterable[_Part]:
        return (part for parameter in self.parameters.values() for part in parameter.parts)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.parameters:
            raise CheckpointError(f"{self._where()}: holds no parameter {shown(name)}")
        return self.parameters[name]

    def _where(self) -> str:
        more = len(self.files) - 1
        return f"{self.files[0]}" + (f" and {more} more" if more else "")

    def array(self, name: str, dtype: np.dtype[Any]) -> Array:
        """A parameter in the original's order of axes, matrices (out, in), read-only.

        A view of the mapped file where it is stored in `dtype`, else converted. q, k and v that
        are stored separately are copied into one stack; `thirds` avoids that.

        Raises:
            CheckpointError: there is no such parameter, or a value is too large for `dtype`.
        """
        parameter = self._parameter(name)
        if parameter.parts[0].row.third is None:
            return parameter.parts[0].array(dtype)
        stacked = np.concatenate(self.thirds(name, dtype))
        stacked.flags.writeable = False
        return stacked

    def thirds(self, name: str, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
        """q, k and v of a `qkv` parameter, each (D, D): views of the stack, or as they are stored.

        Raises:
            CheckpointError: one of them is missing, or they do not have one shape.
        """
        parts = self._parameter(name).parts
        shapes = {part.shape for part in parts}
        if parts[0].row.third is not None and len(parts) == 3 and len(shapes) == 1:
            q, k, v = (part.array(dtype) for part in parts)
            return q, k, v
        if parts[0].row.third is None and parts[0].shape and parts[0].shape[0] % 3 == 0:
            q, k, v = np.split(parts[0].array(dtype), 3)
            return q, k, v
        keys = ", ".join(f"{shown(p.tensor.key)} {p.shape}" for p in parts)
        raise CheckpointError(
            f"{parts[0].tensor.source.path}: q, k and v of {shown(name)} must have one shape, "
            f"found {keys}"
        )

    def release(self) -> None:
        """Let go of the memory that reading took; arrays stay valid (SourceFile.release)."""
        for source in {part.tensor.source for part in self._parts()}:
            source.release()

    def nonfinite(self) -> list[str]:
        """The parameters that hold NaN or an infinity; reads all files, a chunk at a time."""
        return [
            _both_names(parameter.name, part.tensor.key)
            for parameter in self.parameters.values()
            for part in parameter.parts
            if part.tensor.has_nonfinite()
        ]

    def require(self, expected: Mapping[str, Shape]) -> None:
        """Check that the parameters are exactly these, in the original's shapes.

        Raises:
            CheckpointError: lists every missing, unexpected and wrongly shaped key.
        """
        missing, wrong = self._missing_and_wrong(expected)
        unexpected = {
            part.tensor.key: part.tensor
            for name, parameter in self.parameters.items()
            if name not in expected
            for part in parameter.parts
        } | dict(self.unexpected)
        if not (missing or wrong or unexpected):
            return
        known = [key for name in expected for key, _ in self.table.stored(name)]
        lines = [
            f"missing: {text}{suggestion}"
            for text, suggestion in zip(
                missing.values(), _nearest(missing, unexpected, "the file has"), strict=True
            )
        ]
        suggestions = _nearest(unexpected, missing or known, "known is")
        for tensor, suggestion in zip(unexpected.values(), suggestions, strict=True):
            lines.append(
                f"unexpected: {shown(tensor.key)} {tensor.shape} in "
                f"{tensor.source.path.name}{suggestion}"
            )
        raise CheckpointError(
            f"{self._where()} ({self.layout} layout): {len(missing)} missing, "
            f"{len(unexpected)} unexpected and {len(wrong)} wrongly shaped keys; check that the "
            "files are complete and belong to this model:\n  " + "\n  ".join(lines + wrong)
        )

    def _missing_and_wrong(self, expected: Mapping[str, Shape]) -> tuple[dict[str, str], list[str]]:
        """Missing keys (as this layout stores them) with a description; wrong shapes in words."""
        missing: dict[str, str] = {}
        wrong = []
        for name, shape in expected.items():
            parameter = self.parameters.get(name)
            found = {part.row.third: part for part in parameter.parts} if parameter else {}
            for key, row in self.table.stored(name) or [(name, Row(name, name))]:
                part = found.get(row.third)
                each = shape if row.third is None else (shape[0] // 3, *shape[1:])
                if part is None:
                    missing[key] = f"{_both_names(name, key)} {each}"
                elif part.shape != each:
                    both = _both_names(name, key)
                    wrong.append(f"wrong shape: {both}: found {part.shape}, expected {each}")
        return missing, wrong


def _both_names(name: str, key: str) -> str:
    """The original's name, with the file's own key where that is another."""
    return shown(key) if name == key else f"{shown(key)} (the original's {shown(name)})"


def _nearest(keys: Iterable[str], candidates: Iterable[str], said: str) -> list[str]:
    """For each key "; <said> <the most similar candidate>", or nothing; for the first keys only."""
    pool = [candidate for candidate in candidates if len(candidate) < 200]
    suggestions = []
    for i, key in enumerate(keys):
        similar = i < _MOST_SUGGESTIONS and difflib.get_close_matches(key[:200], pool[:1000], n=1)
        suggestions.append(f"; {said} {shown(similar[0])}" if similar else "")
    return suggestions


# ---------------------------------------------------------------------------- reading


def read_checkpoint(files: Sequence[Path]) -> Checkpoint:
    """Read the headers of one model's weights and recognise their layout.

    Args:
        files: one .safetensors or .msgpack file; all .safetensors shards of one model; or the
            .safetensors.index.json that lists the shards.

    Raises:
        CheckpointError: a file cannot be read or is malformed, the index and its shards disagree,
            most keys are not AIMv2's, or a parameter has a dtype that is not a float.
    """
    paths, weight_map = _shards([Path(file) for file in files])
    tensors = _read_all(paths)
    if weight_map is not None:
        check_index(Path(files[0]), weight_map, tensors)
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    layout, known = detect_layout(shapes, [path.name for path in paths])
    if 2 * known < len(tensors) or not known:
        raise CheckpointError(_not_aimv2(paths[0], list(tensors), layout, known))
    parameters, unexpected = _sort_out(layout, tensors)
    sharded = layout.name == "transformers" and (len(paths) > 1 or weight_map is not None)
    name = "transformers-sharded" if sharded else layout.name
    checkpoint = Checkpoint(name, tuple(paths), parameters, unexpected, layout)
    _check_dtypes(checkpoint)
    return checkpoint


def _shards(paths: list[Path]) -> tuple[list[Path], dict[str, str] | None]:
    """The files of weights, and the index's promises where an index was given."""
    if not paths:
        raise CheckpointError("no files of weights were given")
    if not paths[0].name.endswith(INDEX_SUFFIX):
        return paths, None
    if len(paths) > 1:
        raise CheckpointError(f"{paths[0]}: give the index alone, it names its shards")
    weight_map = read_index(paths[0])
    shards = [paths[0].parent / name for name in sorted(set(weight_map.values()))]
    missing = [path.name for path in shards if not os.path.exists(path)]
    if missing:
        raise CheckpointError(
            f"{paths[0]}: {len(missing)} of its {len(shards)} shards are missing from the folder: "
            f"{', '.join(missing)}; fetch them again"
        )
    return shards, weight_map


def _read_all(paths: list[Path]) -> dict[str, StoredTensor]:
    """The tensors of all files; none may occur in two of them."""
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        for key, tensor in _read_one(path, alone=len(paths) == 1).items():
            if key in tensors:
                raise CheckpointError(
                    f"{tensor.where}: is also in {tensors[key].source.path}; "
                    "a tensor must be in one shard"
                )
            tensors[key] = tensor
    return tensors


def _read_one(path: Path, alone: bool) -> dict[str, StoredTensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path).tensors
    if path.suffix == ".msgpack" and alone:
        return read_msgpack(path)
    if path.suffix == ".msgpack":
        raise CheckpointError(f"{path}: a .msgpack checkpoint is one file; give it alone")
    raise CheckpointError(
        f"{path}: expected a .safetensors or .msgpack file, or a {INDEX_SUFFIX}; nothing else is "
        "read, least of all pickles (.bin, .pt, .pth): convert those with safetensors"
    )


def _sort_out(
    layout: Layout, tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, Parameter], dict[str, StoredTensor]]:
    """Group the stored tensors by the parameter they belong to; the rest is unexpected."""
    parts: dict[str, list[_Part]] = {}
    unexpected = {}
    for key, tensor in tensors.items():
        found = layout.original(key)
        if found is not None:
            parts.setdefault(found[0], []).append(_Part(found[1], tensor))
        elif not layout.ignores(key):
            unexpected[key] = tensor
    for group in parts.values():
        group.sort(key=lambda part: part.row.third or 0)
    return {name: Parameter(name, tuple(group)) for name, group in parts.items()}, unexpected


def _check_dtypes(checkpoint: Checkpoint) -> None:
    bad = [
        f"{part.tensor.where} is {part.tensor.dtype}"
        for parameter in checkpoint.parameters.values()
        for part in parameter.parts
        if part.tensor.dtype not in PARAMETER_DTYPES
    ]
    if bad:
        raise CheckpointError(
            f"parameters must be one of {', '.join(PARAMETER_DTYPES)} (quantised checkpoints are "
            "not read):\n  " + "\n  ".join(bad)
        )


def _not_aimv2(path: Path, keys: list[str], layout: Layout, known: int) -> str:
    strange = next(key for key in keys if layout.original(key) is None)
    return (
        f"{path}: not an AIMv2 checkpoint of a known layout (original, transformers, timm, MLX, "
        f"JAX): {known} of its {len(keys)} keys are known ({layout.name}); "
        f"key {shown(strange)}, for instance, is not"
    )
