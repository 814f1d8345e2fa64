"""Named activations: which exist, how they are recorded, saved and loaded.

The names are public interface; any language can write or read such a file. A tap is shown each
activation as it is made: `NO_TAP` lets all pass, a `Recorder`'s tap keeps those it was asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .config import LiTConfig, TextConfig, VisionConfig
from .errors import CheckpointError, ConfigError
from .weights.safetensors_file import read_safetensors
from .writing import written_whole

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
_JOINT = (
    "image_features", "image_embeds", "text_features", "text_embeds", "logit_scale",
    "logits_per_image", "logits_per_text",
)  # fmt: skip


def activation_names(
    config: VisionConfig | TextConfig | LiTConfig, *, images: bool = True, texts: bool = True
) -> list[str]:
    """Every activation of a model, in the order of computation.

    For an image-text model `images=False` leaves out what only images make, `texts=False` likewise.
    """

    def blocks(tower: VisionConfig | TextConfig) -> list[str]:
        return [f"blocks.{i}.{name}" for i in range(tower.num_hidden_layers) for name in _BLOCK]

    if isinstance(config, VisionConfig):
        head = [*_HEAD, "pooled"] if config.use_head else []
        inner = ["patch_embed", "patch_norm", "pos_embed", "embed", *blocks(config), "norm", *head]
        return ["pixel_values", *(f"vision.{name}" for name in inner)]
    if isinstance(config, TextConfig):
        inner = ["token_embed", "pos_embed", "embed", *blocks(config), "norm", "pooled"]
        return ["input_ids", *(f"text.{name}" for name in inner)]
    vision = activation_names(config.vision) if images else []
    text = activation_names(config.text) if texts else []
    alone = ("image_",) * images + ("text_",) * texts  # the rest needs both
    joint = [name for name in _JOINT if (images and texts) or name.startswith(alone)]
    return [*vision, *text, *joint]


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
        """Look at an activation and hand it on, or another one in its place."""
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
        ConfigError: no patterns, or one that matches nothing that is going to be computed.
    """

    def __init__(self, available: Sequence[str], patterns: str | Iterable[str] = "*") -> None:
        patterns = [patterns] if isinstance(patterns, str) else patterns
        patterns = list(patterns) if isinstance(patterns, Iterable) else []
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ConfigError('names= takes one or more glob patterns, such as "*.resid_post"')
        names = list(available)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"no activation matches {pattern!r}; computed are {', '.join(names[:2])}, "
                    f"..., {names[-1]} (activation_names(model.config) lists all)"
                )
        self._wanted = {n for n in names if any(fnmatchcase(n, p) for p in patterns)}
        self.arrays: dict[str, Any] = {}

    def wants(self, name: str) -> bool:
        """Whether this activation was asked for."""
        return name in self._wanted

    def tap(self) -> Tap:
        """A tap that records here."""
        return _RecordingTap(self, "")

    def trace(self, info: Mapping[str, Any], backend: Backend) -> Trace:
        """What was recorded, as NumPy arrays."""
        metadata = {
            "model": str(info["name"]),
            "dtype": str(info["dtype"]),
            "backend": backend.name,
            "version": __version__,
        }
        if info.get("quirks"):
            metadata["quirks"] = ", ".join(info["quirks"])
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

        arrays = {name: np.asarray(array, order="C") for name, array in self._arrays.items()}
        metadata = {**self.metadata, "order": json.dumps(list(arrays))}
        with written_whole(Path(path)) as partial:
            save_file(arrays, partial, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a saved trace, or any safetensors file of activations.

        bfloat16, which NumPy lacks, becomes float32.

        Raises:
            CheckpointError: no such file, not safetensors, or a dtype that NumPy does not have.
        """
        file = read_safetensors(Path(path))
        metadata = dict(file.metadata)
        order = _saved_order(metadata.pop("order", None), file.tensors, path)
        return cls({name: file.tensors[name].plain() for name in order}, metadata)


def _saved_order(saved: str | None, names: Iterable[str], path: Any) -> list[str]:
    """The order of computation (safetensors sorts by name); a file without one keeps its own."""
    if saved is None:
        return list(names)
    try:
        order: Any = json.loads(saved)
    except (ValueError, RecursionError):
        order = None
    strings = isinstance(order, list) and all(isinstance(name, str) for name in order)
    if not strings or sorted(order) != sorted(names):
        raise CheckpointError(f"{path}: the metadata 'order' does not list the file's tensors")
    return list(order)
