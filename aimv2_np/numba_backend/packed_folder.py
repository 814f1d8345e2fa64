"""A folder of packed weights: what `aimv2-np pack` writes and a later load only maps.

    packed.safetensors      the packed arrays, and in its metadata what they were made for
    config.json, …          what else a model needs, copied from the checkpoint's folder

Nothing is converted or copied at load; processes that load one folder share its pages. The layout
is that of one instruction set's tiles, so a folder made for another one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..config import LiTConfig, TextConfig, VisionConfig
from ..config_sources import config_from_fields
from ..errors import BackendUnavailable, CheckpointError, ConfigError
from ..hub import PACKED
from ..weights.safetensors_file import SafetensorsFile, read_safetensors
from ..weights.stored import is_finite
from ..weights.tree import HeadParams, LiTParams, TextParams, VisionParams
from ..writing import written_whole
from .edges import PackedPatches
from .formats import DTYPES, TEXT_DTYPE, format_of
from .isa import FORCE, InstructionSet
from .packing import PackedBlocks, PackedMatrix, packed_shape, products

__all__ = ["Packed", "nonfinite", "read_packed", "write_packed"]

_LAYOUT = "2"  # grows when arrays are named or laid out in another way
_F32 = np.dtype(np.float32)
_KEPT = ("official", "layout", "stored", "weights_bytes", "parameters")  # of Opened.info
_MATRICES = ("qkv", "proj", "fc1_fc3", "fc2")

Array = Any  # NumPy's


@dataclass(frozen=True)
class Packed:
    """What a packed folder holds."""

    config: VisionConfig | LiTConfig
    params: VisionParams | LiTParams
    dtype: str
    info: dict[str, Any]  # of the checkpoint, a part of `Opened.info`


# ---------------------------------------------------------------------------- writing


def write_packed(folder: Path, packed: Packed, isa: InstructionSet) -> None:
    """Write the file into a folder; it appears when it is complete.

    Raises:
        AIMv2Error: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays = {
        name: np.asarray(array, order="C")  # JAX holds matrices transposed
        for name, array in _arrays(packed.params)
        if array.size
    }
    metadata = {
        "aimv2_np.packed": _LAYOUT,
        "instruction_set": isa.name,
        "dtype": packed.dtype,
        "config": json.dumps(asdict(packed.config)),
        "info": json.dumps({key: packed.info[key] for key in _KEPT}),
    }
    with written_whole(folder / PACKED) as partial:
        save_file(arrays, partial, metadata=metadata)


def _arrays(value: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """Every array in a tree of parameters, by the path that leads to it."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, PackedBlocks):
        yield f"{name}.norms", value.norms
        for i, four in enumerate(value.matrices):
            for which, matrix in zip(_MATRICES, four, strict=True):
                yield from _arrays(matrix, f"{name}.{i}.{which}")
    elif hasattr(value, "_asdict") or isinstance(value, PackedMatrix | PackedPatches):
        fields = value._asdict() if hasattr(value, "_asdict") else vars(value)
        for field, inner in fields.items():
            yield from _arrays(inner, f"{name}.{field}" if name else field)


# ---------------------------------------------------------------------------- reading


def read_packed(path: Path, isa: InstructionSet) -> Packed:
    """What a packed file holds, mapped.

    Raises:
        CheckpointError: it is not such a file, was written in another layout, or is damaged.
        BackendUnavailable: it was packed for another instruction set.
    """
    file = read_safetensors(path)
    config, info = _metadata(file, isa)
    dtype = file.metadata["dtype"]
    read = _Reader(file, isa, dtype)
    params: VisionParams | LiTParams
    if isinstance(config, VisionConfig):
        params = _vision(read, config)
    else:
        projection, image, text = config.projection_dim, config.vision, config.text
        params = LiTParams(
            vision=_vision(read.below("vision."), image),
            text=_text(replace(read.below("text."), dtype=TEXT_DTYPE[dtype]), text),
            image_projector=read("image_projector", projection, image.hidden_size),
            text_projector=read("text_projector", projection, text.hidden_size),
            log_logit_scale=read("log_logit_scale"),
        )
    return Packed(config, params, dtype, info)


def _metadata(
    file: SafetensorsFile, isa: InstructionSet
) -> tuple[VisionConfig | LiTConfig, dict[str, Any]]:
    """The configuration and the checkpoint's info, if the file is for this machine."""
    found = file.metadata
    layout = found.get("aimv2_np.packed")
    if layout != _LAYOUT:
        raise CheckpointError(
            f"{file.path}: packed in layout {layout}, this version reads layout {_LAYOUT}; pack "
            "the model again with aimv2-np pack"
        )
    if found.get("instruction_set") != isa.name:
        raise BackendUnavailable(
            f"{file.path}: packed for {found.get('instruction_set')}, but the kernels here are "
            f"those for {isa.name}; pack the model again on this machine, or set {FORCE} if the "
            "processor has both"
        )
    try:
        if found["dtype"] not in DTYPES:
            raise ValueError(f"unknown dtype {found['dtype']!r}")
        config = config_from_fields(json.loads(found["config"]), "config")
        info = json.loads(found["info"])
        if not isinstance(info, dict) or not isinstance(info.get("parameters"), int):
            raise ValueError("info does not say how many parameters there are")
        return config, info
    except (KeyError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{file.path}: its metadata is damaged: {error}") from error


@dataclass(frozen=True)
class _Reader:
    """Maps arrays below a prefix of their names, each checked: kernels take bare addresses."""

    file: SafetensorsFile
    isa: InstructionSet
    dtype: str
    prefix: str = ""

    def below(self, prefix: str) -> _Reader:
        return replace(self, prefix=self.prefix + prefix)

    def __call__(self, name: str, *shape: int, dtype: np.dtype[Any] = _F32) -> Array:
        key = self.prefix + name
        tensor = self.file.tensors.get(key)
        if tensor is None:
            raise CheckpointError(f"{self.file.path}: holds no array {key}")
        array = tensor.mapped()
        if array.shape != shape or array.dtype != dtype:
            raise CheckpointError(
                f"{tensor.where}: {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
        return array

    def matrix(
        self, name: str, outputs: int, width: int, dtype: str = "", *, paired: bool = False
    ) -> PackedMatrix:
        form = format_of(self.isa, dtype or self.dtype)
        shape = packed_shape(outputs, width, self.isa, form, paired=paired)
        scaled = shape[0] * shape[2] if form.scaled else 0
        read = self.below(f"{name}.")
        return PackedMatrix(
            read("weights", *shape, dtype=form.weights),
            read("scales", scaled) if scaled else np.zeros(0, _F32),
            read("offsets", scaled) if scaled else np.zeros(0, _F32),
        )


def _blocks(read: _Reader, config: VisionConfig | TextConfig) -> PackedBlocks:
    width, hidden, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    matrices = tuple(
        tuple(
            read.matrix(f"blocks.{i}.{name}", outputs, inputs, paired=paired)
            for name, (outputs, inputs, paired) in zip(
                _MATRICES, products(width, hidden), strict=True
            )
        )
        for i in range(depth)
    )
    norms = np.array(read("blocks.norms", depth, 2, width))  # to Numba, mapped arrays are others
    return PackedBlocks(norms, matrices, hidden, read.dtype, read.isa)


def _vision(read: _Reader, config: VisionConfig) -> VisionParams:
    width, patch = config.hidden_size, config.patch_size
    inputs = config.num_channels * patch**2
    kernel = PackedPatches(
        read.matrix("patch_weight.matrix", width, inputs, "float32"), patch, read.isa
    )
    grid, head = config.grid_size, read.below("head.")
    return VisionParams(
        patch_weight=cast(Any, kernel),
        patch_bias=read("patch_bias", width),
        patch_norm=read("patch_norm", width),
        pos_embed=None if grid is None else read("pos_embed", grid**2, width),
        blocks=_blocks(read, config),
        post_trunk_norm=read("post_trunk_norm", width),
        head=HeadParams(
            cls_token=head("cls_token", width),
            k=head("k", width, width),
            v=head("v", width, width),
            linear_weight=head("linear_weight", width, width),
            linear_bias=head("linear_bias", width),
        )
        if config.use_head
        else None,
    )


def _text(read: _Reader, config: TextConfig) -> TextParams:
    width = config.hidden_size
    stored = _F32 if read.dtype == "float32" else np.dtype(np.uint16)
    return TextParams(
        text_embedding=read("text_embedding", config.vocab_size, width, dtype=stored),
        positional_embedding=read("positional_embedding", config.max_position_embeddings, width),
        blocks=_blocks(read, config),
        post_trunk_norm=read("post_trunk_norm", width),
    )


def nonfinite(packed: Packed) -> list[str]:
    """The arrays that hold NaN or an infinity."""
    return [name for name, array in _arrays(packed.params) if not is_finite(array)]
