"""Named activations: which exist, how they are recorded, saved and loaded.

The names are public interface; any language can write or read such a file. A tap is shown each
activation as it is made: `NO_TAP` lets all pass, a `Recorder`'s tap keeps those it was asked for.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .config import LiTConfig, TextConfig, VisionConfig
from .errors import AIMv2Error, CheckpointError, ConfigError

if TYPE_CHECKING:
    from .backend import Backend

__all__ = ["NO_TAP", "Recorder", "Tap", "Trace", "activation_names"]

Array = NDArray[Any]
Value = TypeVar("Value")

# In the order in which they are computed. README and notebooks show this table with its shapes.
_BLOCK = (
    "norm_1", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.context",
    "attn.out", "resid_mid", "norm_2", "mlp.gate", "mlp.up", "mlp.hidden", "mlp.out", "resid_post",
)  # fmt: skip
_HEAD = ("head.k", "head.v", "head.scores", "head.pattern", "head.context")
_LIT = (
    "image_features", "text_features", "image_embeds", "text_embeds", "logit_scale",
    "logits_per_image", "logits_per_text",
)  # fmt: skip


def activation_names(config: VisionConfig | TextConfig | LiTConfig) -> list[str]:
    """Every activation of a model, in the order of computation."""

    def blocks(tower: VisionConfig | TextConfig) -> list[str]:
        return [f"blocks.{i}.{name}" for i in range(tower.num_hidden_layers) for name in _BLOCK]

    if isinstance(config, VisionConfig):
        head = [*_HEAD, "pooled"] if config.use_head else []
        inner = ["patch_embed", "patch_norm", "pos_embed", "embed", *blocks(config), "norm", *head]
        return ["pixel_values", *(f"vision.{name}" for name in inner)]
    if isinstance(config, TextConfig):
        inner = ["token_embed", "pos_embed", "embed", *blocks(config), "norm", "pooled"]
        return ["input_ids", *(f"text.{name}" for name in inner)]
    return [*activation_names(config.vision), *activation_names(config.text), *_LIT]


# ---------------------------------------------------------------------------- recording


class Tap:
    """Lets every activation pass and keeps none; subclasses keep some."""

    def wants(self, name: str) -> bool:
        """Whether this activation would be kept: what only a trace needs is made only then."""
        return False

    def scope(self, prefix: str) -> Tap:
        """The same tap for names that begin with a prefix."""
        return self

    def __call__(self, name: str, value: Value) -> Value:
        """Look at an activation and hand it on unchanged."""
        return value


NO_TAP = Tap()


class _RecordingTap(Tap):
    def __init__(self, recorder: Recorder, prefix: str) -> None:
        self.recorder, self.prefix = recorder, prefix

    def wants(self, name: str) -> bool:
        return self.recorder.wants(self.prefix + name)

    def scope(self, prefix: str) -> Tap:
        return _RecordingTap(self.recorder, self.prefix + prefix)

    def __call__(self, name: str, value: Value) -> Value:
        if self.wants(name):
            self.recorder.arrays[self.prefix + name] = value
        return value


class Recorder:
    """Keeps the activations whose names match any of some glob patterns.

    Raises:
        ConfigError: a pattern matches no activation of the model.
    """

    def __init__(self, available: Iterable[str], patterns: str | Iterable[str] = "*") -> None:
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        names = list(available)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"no activation matches {pattern!r}; this model has {names[0]!r}, "
                    f"{names[1]!r}, ..., {names[-1]!r} (activation_names(model.config) lists all)"
                )
        self._wanted = {n for n in names if any(fnmatchcase(n, p) for p in patterns)}
        self.arrays: dict[str, Any] = {}

    def wants(self, name: str) -> bool:
        """Whether this activation was asked for."""
        return name in self._wanted

    def tap(self, prefix: str = "") -> Tap:
        """A tap that records under a prefix."""
        return _RecordingTap(self, prefix)

    def trace(self, info: Mapping[str, Any], backend: Backend) -> Trace:
        """What was recorded, as NumPy arrays."""
        metadata = {
            "model": str(info["name"]),
            "dtype": str(info["dtype"]),
            "backend": backend.name,
            "version": __version__,
        }
        return Trace({n: backend.to_numpy(a) for n, a in self.arrays.items()}, metadata)


# ---------------------------------------------------------------------------- a recorded run


class Trace(Mapping[str, Array]):
    """Activations by name, in the order of computation, with what produced them.

    `metadata` holds strings: model, dtype, backend, version.
    """

    def __init__(self, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        self._arrays = dict(arrays)
        self.metadata = dict(metadata)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        size = sum(a.nbytes for a in self._arrays.values()) / 1e6
        return f"<Trace of {self.metadata.get('model')}: {len(self)} activations, {size:.1f} MB>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; it appears under its name only when it is complete.

        Raises:
            AIMv2Error: the file cannot be written.
        """
        from safetensors.numpy import save_file

        target = Path(path)
        arrays = {name: np.asarray(array, order="C") for name, array in self._arrays.items()}
        metadata = {**self.metadata, "order": json.dumps(list(arrays))}
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".trace-") as folder:
                partial = Path(folder) / "trace.safetensors"
                save_file(arrays, partial, metadata=metadata)
                os.replace(partial, target)
        except OSError as error:
            raise AIMv2Error(f"cannot write {target}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a saved trace, or any safetensors file of activations.

        Raises:
            CheckpointError: no such file, or not safetensors.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                metadata = dict(file.metadata() or {})
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read a trace from {path}: {error}") from error
        order = _saved_order(metadata.pop("order", None), arrays, path)
        return cls({name: arrays[name] for name in order}, metadata)


def _saved_order(saved: str | None, arrays: Mapping[str, Array], path: Any) -> list[str]:
    """The order of computation (safetensors sorts by name); a file without one keeps its own."""
    if saved is None:
        return list(arrays)
    try:
        order = json.loads(saved)
    except json.JSONDecodeError:
        order = None
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(arrays):
        raise CheckpointError(f"{path}: the metadata 'order' does not list the file's tensors")
    return order
