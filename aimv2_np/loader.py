"""`load`: from a name to a model that runs. Each step lives in a module of its own:

hub.resolve               a name, folder or file      -> files
weights.read_checkpoint   files                       -> names, shapes, arrays where they lie
config_sources            config.json, name, shapes   -> configuration
weights.tree              arrays                      -> parameter tree
pipelines                 parameters, configuration   -> model
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Backend, get_backend, host_dtype
from .config import OFFICIAL, LiTConfig, VisionConfig
from .config_sources import resolve_config
from .errors import BackendUnavailable, CheckpointError, ConfigError
from .hub import ModelFiles, beside, packaged_models, packed_file, resolve
from .images import ImageProcessor
from .pipelines import LiTPipeline, Pipeline, VisionPipeline
from .tokenizer import Tokenizer
from .tokenizer_files import has_tokenizer
from .weights.checkpoint import Checkpoint, read_checkpoint
from .weights.tree import build_params, expected_shapes

__all__ = ["Opened", "list_models", "load", "open_model"]


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose configuration is known and whose keys were checked; no weights read."""

    files: ModelFiles
    checkpoint: Checkpoint
    config: VisionConfig | LiTConfig

    @property
    def info(self) -> dict[str, Any]:
        """Where the model comes from and how it is stored, in plain values."""
        return {
            "name": self.files.name,
            "official": self.files.official,
            "folder": str(self.files.folder),
            "files": [path.name for path in self.checkpoint.files],
            "layout": self.checkpoint.layout,
            "stored": self.checkpoint.dtypes,
            "weights_bytes": self.checkpoint.nbytes,
            "parameters": sum(math.prod(s) for s in self.checkpoint.shapes.values()),
        }


def list_models() -> list[str]:
    """Short names that `load` takes: the packaged models and the 16 official ones."""
    return [*packaged_models(), *OFFICIAL]


def open_model(
    model: str | os.PathLike[str],
    *,
    num_heads: int | tuple[int, int] | None = None,
    **where: Any,
) -> Opened:
    """Find a model, learn its configuration and check its keys and shapes, as `load` does."""
    files = resolve(model, **where)
    checkpoint = read_checkpoint(files.weights)
    config = resolve_config(
        checkpoint.shapes,
        config_json=None if files.config is None else read_json(files.config),
        config_source=str(files.config),
        official=files.official,
        num_heads=num_heads,
    )
    checkpoint.require(expected_shapes(config))
    return Opened(files, checkpoint, config)


def load(
    model: str | os.PathLike[str],
    *,
    backend: str | Backend = "auto",
    device: int | str | None = None,
    dtype: str | None = None,
    num_heads: int | tuple[int, int] | None = None,
    check: bool = False,
    quirks: str | Iterable[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    progress: bool = True,
) -> VisionPipeline | LiTPipeline:
    """Load a model: a short name, a hub id, a folder, or a single file.

    Args:
        model: `"large-patch14-224-lit"`, `"apple/aimv2-…"`, any other `"owner/name"`, a folder, or
            a .safetensors, .safetensors.index.json or .msgpack file. An existing path comes first.
        backend: `"auto"`, which is `"numba"` (and `"numpy"` for float64), one of these, or a
            plug-in's name (`available_backends()`).
        device: which device of that backend.
        dtype: in which to compute: `"float32"` by default, `"float64"` with NumPy, `"bfloat16"`
            or `"int8"` with Numba, which take and return float32; a plug-in may offer others
            (`Backend.dtypes`). Weights stored otherwise are converted; with NumPy, those stored in
            it are used where they lie in the file. A packed folder has one dtype, its own.
        num_heads: for weights without config.json whose head width is not 128; a pair
            (vision, text) for an image-text model.
        check: read all weights and refuse NaN and infinity.
        quirks: deviate from AIMv2 as a library does, to check a port of that library:
            `"transformers"`, `"original"`, …, or a list of mistakes; see quirks.py. Slower.
        revision: branch, tag or commit on the hub; `"original"`: the official model's commit
            with the original key layout.
        cache_dir, local_files_only, token: as in huggingface_hub.
        progress: show download bars.

    Returns:
        A `LiTPipeline` if the checkpoint has a text encoder, else a `VisionPipeline`.

    Raises:
        CheckpointError: not found, not fetched, malformed, or not the right parameters.
        ConfigError: the sources of the configuration contradict each other; an unknown quirk.
        BackendUnavailable: the backend cannot run here, or not in this dtype.
    """
    if backend == "auto" and dtype == "float64":
        backend = "numpy"  # the only one that has it
    be = get_backend(backend, device=device)
    dtype = None if dtype is None else str(dtype)  # a NumPy dtype's name
    if (packed := packed_file(model)) is not None:
        if revision is not None or num_heads is not None:
            raise CheckpointError(f"{model} is packed: it takes no revision and no num_heads")
        if quirks is not None:
            raise CheckpointError(
                f"{model} is packed, for speed alone: it takes no quirks; load what it was packed "
                "from"
            )
        return _load_packed(packed, be, dtype, check=check)
    dtype = dtype or "float32"
    if dtype not in be.dtypes:
        raise BackendUnavailable(
            f"the {be.name} backend computes in {' or '.join(be.dtypes)}, not in {dtype!r}"
        )
    give_quirks = _quirks(quirks, be)
    opened = open_model(
        model,
        num_heads=num_heads,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        progress=progress,
    )
    if check and (bad := opened.checkpoint.nonfinite()):
        raise CheckpointError(f"{opened.files.name}: NaN or infinity in {', '.join(bad)}")
    params = build_params(opened.checkpoint, opened.config, host_dtype(dtype))
    params = be.prepare(params, dtype)
    return give_quirks(_pipeline(opened.files, opened.info, opened.config, params, be, dtype))


def _load_packed(file: Path, be: Backend, dtype: str | None, *, check: bool) -> Pipeline:
    """What `aimv2-np pack` wrote, mapped."""
    if be.name != "numba":
        raise BackendUnavailable(
            f"{file.parent} holds weights packed for the numba backend, not for {be.name}"
        )
    from .numba_backend.isa import choose
    from .numba_backend.packed_folder import nonfinite, read_packed

    packed = read_packed(file, choose())
    if check and (bad := nonfinite(packed)):
        raise CheckpointError(f"{file}: NaN or infinity in {', '.join(bad)}")
    if dtype not in (None, packed.dtype):
        raise BackendUnavailable(
            f"{file.parent} is packed in {packed.dtype}, not in {dtype!r}; leave dtype out"
        )
    files = beside(file)
    info = {**packed.info, "name": files.name, "folder": str(files.folder), "files": [file.name]}
    return _pipeline(files, info, packed.config, packed.params, be, packed.dtype)


def _pipeline(
    files: ModelFiles, info: dict[str, Any], config: Any, params: Any, be: Backend, dtype: str
) -> Pipeline:
    processor, info = _image_processor(files, config), {**info, "dtype": dtype}
    if isinstance(config, VisionConfig):
        return VisionPipeline(config, params, be, dtype, processor=processor, info=info)
    tokenizer = _tokenizer(files.folder, config)
    return LiTPipeline(
        config, params, be, dtype, processor=processor, tokenizer=tokenizer, info=info
    )


def _quirks(quirks: str | Iterable[str] | None, be: Backend) -> Callable[[Pipeline], Pipeline]:
    """What gives a model quirks, checked before anything is read."""
    if quirks is None:
        return lambda pipeline: pipeline
    from .quirks import quirky  # needs the verifier

    return quirky(quirks, be.name)


def _image_processor(files: ModelFiles, config: VisionConfig | LiTConfig) -> ImageProcessor:
    """From preprocessor_config.json, else what the official checkpoints of this size use."""
    path = files.preprocessor_config
    raw = None if path is None else read_json(path)
    if raw is not None and path is not None and path.name == "processor_config.json":
        raw = raw.get("image_processor")  # transformers 5 keeps it there, older versions do not
    if raw is not None:
        return ImageProcessor.from_json(raw, str(path))
    vision = config if isinstance(config, VisionConfig) else config.vision
    return ImageProcessor.for_size(vision.image_size)


def _tokenizer(folder: Path, config: LiTConfig) -> Tokenizer | None:
    """None where the folder holds no tokenizer at all; broken files are an error."""
    text = config.text
    if not has_tokenizer(folder):
        return None
    return Tokenizer.from_folder(
        folder,
        max_length=text.max_position_embeddings,
        eos_token_id=text.eos_token_id,
        vocab_size=text.vocab_size,
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file.

    Raises:
        ConfigError: it cannot be read, is no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content
