"""Any Python function: a case's inputs in, activations out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...config import LiTConfig
from ...errors import VerificationError
from ...ops import Array
from ..candidate import Candidate
from ..gather import Stored, gathered, stored
from ..lanes import as_dtype
from ..walk import Case, Model
from .running import each_case, inputs_of

__all__ = ["candidate"]


def candidate(
    model: Model,
    cases: Sequence[Case],
    function: Callable[..., Any],
    dtype: str = "float32",
    *,
    names: str | Path | None = None,
) -> Candidate:
    """What a function makes of the cases.

    It is called with pixel_values (B, C, Y, X), input_ids and attention_mask (K, T) by name, those
    that a case has, as NumPy arrays. It returns a mapping from names (see `read_candidate`) to
    arrays, which may be nested and hold sequences, as transformers' outputs do; or the final output
    alone: logits per image, else embeddings, else features.

    Raises:
        VerificationError: it fails in every case, or returns something else.
    """
    where = str(getattr(function, "__qualname__", function))

    def run(case: Case) -> dict[str, Stored]:
        inputs = {name: np.array(array) for name, array in inputs_of(case).items()}
        return _arrays(where, model, case, function(**inputs))

    given, failed = each_case(where, cases, run)
    found = gathered(where, given, cases, names)
    return Candidate(where, found.cases, as_dtype(dtype), (*failed, *found.notes))


def _arrays(where: str, model: Model, case: Case, returned: Any) -> dict[str, Stored]:
    """What was returned, by name."""
    single = _array(returned)
    if single is not None:
        return {_final(model, case, single): stored(single)}
    found = dict(_flat("", returned)) if isinstance(returned, Mapping) else {}
    if not found:
        raise VerificationError(
            f"{where} returned {type(returned).__name__} for case {case.name}, expected a mapping "
            "from names to arrays, or one array"
        )
    return {name: stored(array) for name, array in found.items()}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Array]]:
    """Arrays in mappings and sequences, under names such as hidden_states.0."""
    array = _array(value)
    if array is not None:
        yield prefix, array
    elif isinstance(value, Mapping | list | tuple):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in inner:
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), one)


def _array(value: Any) -> Array | None:
    """An array of numbers, also a tensor of another library; None for anything else."""
    if type(value).__module__.partition(".")[0] == "torch":
        from .torch_modules import to_numpy

        return to_numpy(value)
    if not hasattr(value, "__array__"):
        return None
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else None


def _final(model: Model, case: Case, array: Array) -> str:
    """The name of what a model gives in the end."""
    if not isinstance(model.config, LiTConfig):
        return "vision.pooled" if model.config.use_head and array.ndim == 2 else "vision.norm"
    if case.pixel_values is not None and case.input_ids is not None:
        return "logits_per_image"
    return "text_embeds" if case.pixel_values is None else "image_embeds"
